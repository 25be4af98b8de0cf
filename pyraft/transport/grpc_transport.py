"""Raft over gRPC, byte for byte as github.com/Jille/raft-grpc-transport does it.

Per peer there are two connections: one for votes, heartbeats and other small calls, one for
entries and snapshots, so that nothing urgent queues behind bulk data.

Latency under CPython is the number of threads that a message wakes one after the other.
grpc hands every received message to its deserializer on the thread that polls the
connection.  So that is where requests go to the handler and replies to ``on_reply``; the
threads that grpc wakes afterwards have only an answer to send, or the next read to begin.

    send() → grpc's sender │ network │ poller → handler … respond() → worker │ network │ poller → on_reply

Nothing here may outlive its use: deadlines on calls, a callback that wakes a worker when its
caller is gone, daemon threads only (workers.py).
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, BinaryIO

import grpc

from ..configuration import Server
from ..errors import ConfigError, RaftError, TransportError, UnsupportedProtocolError
from ..messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    Response,
)
from ..runtime import Inbox, Runtime, Task
from .addresses import check_advertised, split_address
from .admin import AdminService
from .admission import Admission
from .base import AppendPipeline, IncomingRpc, RpcHandler
from .network import NetworkTransport
from .snapshot_stream import CHUNKS_AHEAD, SnapshotReceiver, SnapshotSender
from .tls import Tls
from .wire import (
    INSTALL_SNAPSHOT,
    METHODS,
    PIPELINE,
    Method,
    decode_install_snapshot,
    decode_install_snapshot_response,
    decode_snapshot_chunk,
    encode_install_snapshot,
    encode_install_snapshot_response,
    encode_snapshot_chunk,
)

_log = logging.getLogger(__name__)

_MAX_INBOUND_STREAMS = 64
"""Each holds two workers; the rest is left for votes and heartbeats."""
_MAX_INBOUND_SNAPSHOTS = 4
"""Each holds two workers as well, and a few of its pieces in memory."""
_MAX_WORKERS = 256
_MAX_UNANSWERED = 64
_MAX_UNANSWERED_BYTES = 16 * 1024 * 1024
"""An inbound stream is not read further while that much of it waits for the handler."""
_SILENT_CALLS = 3
_SILENT_SECONDS = 1.0
"""A peer that lets that many calls in that much time run into their deadline is connected anew."""
_DRAIN_BYTES = 1024 * 1024
_TAKES_EARLY_ANSWER = ("pyraft-takes-early-answer", "1")
"""Metadata of a sender that hears an answer before its last byte.  Go's does not, until it has sent all."""


class GrpcTransport(NetworkTransport["_Peer"]):
    """Serves and calls other servers over gRPC."""

    def __init__(
        self,
        bind: str,
        advertise: str | None = None,
        tls: Tls | None = None,
        *,
        admin: bool = False,
        max_message_bytes: int = 64 * 1024 * 1024 + 64 * 1024,
        keepalive: float | None = None,
    ) -> None:
        """Take the address ``bind``; requests are accepted from ``serve`` on.

        Args:
            bind: ``host:port``; port 0 = any free one.
            advertise: under which address others reach this server, if not ``bind``.
            tls: None = plain text.
            admin: also serve the calls of the ``raftadmin`` command, with which whoever reaches this
                address, and has a certificate if there is ``tls``, controls the server and its
                cluster: membership, leadership, shutdown, and commands for the FSM.
            max_message_bytes: larger messages are refused on both sides.  By default 64 entries of
                1 MiB fit in: a Go leader counts the entries of a message, and not their bytes.
            keepalive: seconds between pings on idle connections, None = no pings.  Go servers
                close connections that ping more often than every five minutes.  Peers that
                vanish are noticed without: calls that run into their deadlines lead to a new
                connection.

        Raises:
            TransportError: the address cannot be bound.
            ConfigError: ``bind`` or ``advertise`` is no address that others could use.
        """
        host, port = split_address(bind, "bind")
        advertised = check_advertised(bind, advertise)
        super().__init__(f"pyraft-grpc-{bind}", _MAX_WORKERS)
        self._tls = tls
        self._streams: Admission[_InboundStream] = Admission(self._runtime, _MAX_INBOUND_STREAMS)
        self._snapshots: Admission[_InboundSnapshot] = Admission(self._runtime, _MAX_INBOUND_SNAPSHOTS)
        self._admin = AdminService(self._runtime) if admin else None
        self._channel_options = _channel_options(max_message_bytes, keepalive)
        self._server = grpc.server(
            self._workers,  # type: ignore[arg-type]  # any Executor will do
            handlers=_handlers(self),
            options=_server_options(max_message_bytes),
            maximum_concurrent_rpcs=_MAX_WORKERS - 2 * _MAX_INBOUND_STREAMS,
        )
        bound = self._bind(bind, host, port)
        advertised_host, _, advertised_port = advertised.rpartition(":")
        self._address = f"{advertised_host}:{bound}" if int(advertised_port) == 0 else advertised

    def _bind(self, bind: str, host: str, port: int) -> int:
        try:
            if self._tls is None:
                return self._server.add_insecure_port(bind if host else f"[::]:{port}")
            credentials = grpc.ssl_server_credentials(
                [(self._tls.private_key, self._tls.certificate)],
                root_certificates=self._tls.ca,
                require_client_auth=True,
            )
            return self._server.add_secure_port(bind if host else f"[::]:{port}", credentials)
        except RuntimeError as error:
            reason = _why_not(host, port)
            if reason is None and self._tls is not None:
                raise ConfigError(
                    f"cannot listen on {bind} with this tls: certificate and private_key do not belong "
                    f"together, or one of them cannot be read"
                ) from error
            raise TransportError(
                f"cannot listen on {bind}: {reason or error}. If another program has the port, "
                f"`ss -ltnp 'sport = :{port}'` names it: stop it, or choose another address"
            ) from error

    def attach(self, raft: Any) -> None:
        if self._admin is not None:
            self._admin.attach(raft)

    def serve(self, handler: RpcHandler) -> None:
        super().serve(handler)
        self._server.start()
        if self._closed:  # meanwhile; then close() came before there was anything to stop
            self._server.stop(None)
            raise TransportError(self._why_closed())

    def call(self, peer: Server, request: Request, timeout: float) -> Response:
        method = METHODS[type(request)]
        bulk = isinstance(request, AppendEntriesRequest) and bool(request.entries)
        connections = self._connect(peer)
        what = f"{method.name} to {peer.id} at {peer.address}"
        try:
            data = connections.unary(method, bulk)(method.encode_request(request), timeout=timeout)
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._missed(connections)
                raise TransportError(f"{what}: no answer within {timeout:g} s") from error
            if code is not grpc.StatusCode.UNAVAILABLE:
                connections.misses = 0
            raise self._explain(what, error) from error
        except ValueError as error:  # grpc's word for a channel that has been closed
            raise TransportError(f"{what}: {self._why_closed()}") from error
        connections.misses = 0
        try:
            return method.decode_response(data)
        except TransportError as error:
            raise TransportError(f"{what}: the answer is {error}") from error

    def pipeline(
        self,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> AppendPipeline:
        """See the interface.  Take no lock in ``on_reply`` that is held somewhere around ``close``."""
        connections = self._connect(peer)
        try:
            return _GrpcPipeline(self, connections, peer, on_reply, on_error)
        except ValueError as error:
            raise TransportError(f"pipeline to {peer.id} at {peer.address}: {self._why_closed()}") from error

    def install_snapshot(
        self,
        peer: Server,
        request: InstallSnapshotRequest,
        source: BinaryIO,
        timeout: float,
        is_over: Callable[[], bool],
    ) -> InstallSnapshotResponse:
        what = f"snapshot to {peer.id} at {peer.address}"
        first = encode_install_snapshot(request)
        sender = SnapshotSender(self._runtime, what, request, source, timeout, is_over)
        connections = self._connect(peer)
        try:
            upload = _Upload(self, connections, first, sender)
        except ValueError as error:
            raise TransportError(f"{what}: {self._why_closed()}") from error
        return upload.run()

    def _stop(self, served: bool) -> None:
        if self._admin is not None:
            self._admin.close()
        if not served:
            self._server.start()  # a server that never started does not give its port back
        self._server.stop(None)

    # ── calling ──

    def _new_connections(self, address: str) -> _Peer:
        return _Peer(address, self._new_channel)

    def _new_channel(self, address: str) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(address, options=self._channel_options)
        credentials = grpc.ssl_channel_credentials(self._tls.ca, self._tls.private_key, self._tls.certificate)
        return grpc.secure_channel(address, credentials, options=self._channel_options)

    def _missed(self, connections: _Peer) -> None:
        """A call ran into its deadline.  Connect anew if the peer has been silent for a while.

        A host that vanished without a word looks like this, for as long as its connections
        are not given up, which takes the operating system a quarter of an hour.
        """
        now = self._runtime.now()
        if connections.misses == 0:
            connections.silent_since = now
        connections.misses += 1
        if connections.misses < _SILENT_CALLS or now - connections.silent_since < _SILENT_SECONDS:
            return
        with self._lock:
            if self._peers.get(connections.address) is not connections:
                return
            del self._peers[connections.address]
        _log.warning(
            "connecting anew peer_address=%s calls_without_answer=%d silent_s=%.1f",
            connections.address,
            connections.misses,
            now - connections.silent_since,
        )
        connections.close()

    def _explain(self, what: str, error: grpc.RpcError) -> RaftError:
        code, details = error.code(), error.details() or "no reason given"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedProtocolError(f"{what}: that server does not know this call ({details})")
        if code is grpc.StatusCode.UNAVAILABLE:
            return TransportError(f"{what}: it cannot be reached ({details})")
        if code is grpc.StatusCode.CANCELLED:
            return TransportError(f"{what}: {self._why_closed(details)}")
        if code is grpc.StatusCode.UNKNOWN:  # Go's code for what a handler answered
            return TransportError(f"{what}: it answered: {details}")
        return TransportError(f"{what}: {code.name}: {details}")

    # ── serving; on grpc's threads ──

    def _hand_over(self, method: Method, pending: _Pending, data: bytes) -> _Pending:
        """Give a request that has just arrived to the handler; a worker sends the answer."""
        try:
            request = method.decode_request(data)
        except TransportError as error:
            pending.respond(TransportError(f"{method.name}: {error}"))
            return pending
        pending.sender = request.header.id
        self._deliver(method.name, IncomingRpc(request, pending.respond, len(data), pending.is_abandoned))
        return pending

    def _receive_unary(self, method: Method, data: bytes) -> _PendingCall:
        pending = _PendingCall(self._runtime)
        self._hand_over(method, pending, data)
        return pending

    def _receive_streamed(self, data: bytes) -> _Pending:
        pending = _Pending(len(data))
        self._hand_over(PIPELINE, pending, data)
        return pending

    def _answer_unary(self, method: Method, pending: _PendingCall, context: grpc.ServicerContext) -> bytes:
        pending.context = context
        if context.add_callback(pending.answered.set):
            pending.answered.wait()
        answer = pending.answer
        if answer is None:
            return b""  # the caller has gone; nobody reads this
        if isinstance(answer, RaftError):
            context.abort(grpc.StatusCode.UNKNOWN, str(answer))
        return method.encode_response(answer)

    def _answer_stream(self, requests: Iterator[_Pending], context: grpc.ServicerContext) -> Iterator[bytes]:
        stream = _InboundStream(self._runtime)
        if not self._streams.admit(stream):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_INBOUND_STREAMS} streams are open")
        try:
            if not context.add_callback(stream.end):
                return
            self._workers.submit(self._read_stream, stream, requests, context)
            while True:
                answer = stream.answers.get()
                if isinstance(answer, AppendEntriesResponse):
                    yield PIPELINE.encode_response(answer)
                    continue
                if answer is not None:
                    context.abort(grpc.StatusCode.UNKNOWN, str(answer))
                return
        finally:
            stream.end()
            self._streams.drop(stream)

    def _read_stream(
        self, stream: _InboundStream, requests: Iterator[_Pending], context: grpc.ServicerContext
    ) -> None:
        """Read on while earlier requests wait for their answers: the handler may join them."""
        try:
            for pending in requests:
                pending.context = context
                if pending.sender:
                    self._streams.name(stream, pending.sender)
                if not stream.take(pending):
                    return
        except grpc.RpcError:
            pass  # cancelled, or the connection is gone
        finally:
            stream.end_of_requests()

    def _answer_snapshot(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        stream = _InboundSnapshot(self._runtime, context)
        if not self._snapshots.admit(stream):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_INBOUND_SNAPSHOTS} snapshots are coming in"
            )
        try:
            answer = self._receive_snapshot(stream, messages, context)
        finally:
            stream.stop_reading()
            self._snapshots.drop(stream)
        if isinstance(answer, RaftError):
            context.abort(grpc.StatusCode.UNKNOWN, str(answer))
        return encode_install_snapshot_response(answer)

    def _receive_snapshot(
        self, stream: _InboundSnapshot, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> InstallSnapshotResponse | RaftError:
        try:
            request, data = decode_install_snapshot(next(messages, b""))
        except TransportError as error:
            return TransportError(f"{INSTALL_SNAPSHOT}: {error}")
        except grpc.RpcError:
            return TransportError("the sender has gone")
        self._snapshots.name(stream, request.header.id)
        receiver = stream.begin(request.size, data)
        if self._closed or not context.add_callback(stream.gone):
            return TransportError(f"the server at {self._address} is closing")
        self._workers.submit(stream.read, receiver, messages)
        answer = self._deliver_snapshot(INSTALL_SNAPSHOT, request, receiver)
        if not isinstance(answer, RaftError) and not _takes_early_answer(context):
            _drain(receiver)
        return answer


# ── calling ──


class _Peer:
    """The connections to one address."""

    def __init__(self, address: str, new_channel: Callable[[str], grpc.Channel]) -> None:
        self.address = address
        self.misses = 0
        self.silent_since = 0.0
        self.streams: set[_GrpcPipeline | _Upload] = set()
        self._control = new_channel(address)
        self._bulk = new_channel(address)
        self._calls: dict[tuple[str, bool], Any] = {}

    def unary(self, method: Method, bulk: bool) -> Any:
        call = self._calls.get((method.name, bulk))
        if call is None:
            call = (self._bulk if bulk else self._control).unary_unary(method.path)
            self._calls[method.name, bulk] = call
        return call

    def stream(self, requests: Iterator[bytes], on_received: Callable[[bytes], Any]) -> Any:
        call: Any = self._bulk.stream_stream(PIPELINE.path, response_deserializer=on_received)
        return call(requests)

    def upload(self, messages: Iterator[bytes]) -> Any:
        call: Any = self._bulk.stream_unary(f"/{PIPELINE.service}/{INSTALL_SNAPSHOT}")
        return call.future(messages, metadata=(_TAKES_EARLY_ANSWER,))

    def close(self) -> None:
        """Fail the calls and streams that are open."""
        for stream in list(self.streams):
            stream._stop_sending()
        self._control.close()
        self._bulk.close()

    def join(self, timeout: float) -> None:
        for stream in list(self.streams):
            if stream.task is not None:
                stream.task.join(timeout)


class _GrpcPipeline(AppendPipeline):
    def __init__(
        self,
        transport: GrpcTransport,
        connections: _Peer,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> None:
        self._transport = transport
        self._connections = connections
        self._what = f"pipeline to {peer.id} at {peer.address}"
        self._on_reply = on_reply
        self._on_error = on_error
        self._ended = False
        self._closed = False
        self._failure: TransportError | None = None
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        # None ends the iterator and with it grpc's thread, which would wait for ever otherwise.
        self._call = connections.stream(iter(self._outbox.get, None), self._received)
        self.task: Task | None = None
        connections.streams.add(self)
        self.task = transport._runtime.spawn(
            f"pyraft-grpc-{transport.local_address}-stream-{peer.id}", self._read
        )

    def send(self, request: AppendEntriesRequest) -> None:
        if self._ended or self._closed:
            raise TransportError(f"{self._what}: it is {'closed' if self._closed else 'broken'}")
        self._outbox.put(PIPELINE.encode_request(request))

    def close(self) -> None:
        self._closed = True
        self._stop_sending()
        self._call.cancel()

    def _stop_sending(self) -> None:
        self._ended = True
        self._outbox.put(None)

    def _received(self, data: bytes) -> bytes | None:
        """A reply has arrived; on grpc's polling thread, in order."""
        if self._closed:
            return data
        try:
            response = PIPELINE.decode_response(data)
            assert isinstance(response, AppendEntriesResponse)
        except TransportError as error:
            self._failure = error
            return None  # ends the call
        self._connections.misses = 0
        self._on_reply(response)
        return data

    def _read(self) -> None:
        """Begin one read after the other; they end in _received()."""
        try:
            for _ in self._call:
                pass
            error: RaftError = TransportError(f"{self._what}: the other side ended it")
        except grpc.RpcError as cause:
            if self._failure is not None:
                error = TransportError(f"{self._what}: the answer is {self._failure}")
            else:
                error = self._transport._explain(self._what, cause)
            error.__cause__ = cause
        finally:
            self._stop_sending()
            self._call.cancel()
            self._connections.streams.discard(self)
        if not self._closed:
            self._on_error(error)


class _Upload:
    """A snapshot on its way to a peer."""

    task: Task | None = None  # grpc's threads only

    def __init__(
        self, transport: GrpcTransport, connections: _Peer, first: bytes, sender: SnapshotSender
    ) -> None:
        self._transport = transport
        self._connections = connections
        self._sender = sender
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._call = connections.upload(self._messages(first))
        connections.streams.add(self)
        self._call.add_done_callback(self._done)

    def run(self) -> InstallSnapshotResponse:
        try:
            return self._sender.run(
                lambda data: self._outbox.put(encode_snapshot_chunk(data)), self._stop_sending
            )
        finally:
            self._call.cancel()  # first, so that what ends too early does not look as if it were all
            self._stop_sending()
            self._connections.streams.discard(self)

    def _stop_sending(self) -> None:
        self._outbox.put(None)

    def _messages(self, first: bytes) -> Iterator[bytes]:
        """What grpc's sending thread asks for, once the connection has taken the one before."""
        message: bytes | None = first
        while message is not None:
            yield message
            self._sender.make_room()
            message = self._outbox.get()

    def _done(self, call: Any) -> None:
        """It has ended; on grpc's polling thread."""
        what = self._sender.what
        try:
            response = decode_install_snapshot_response(call.result())
        except grpc.FutureCancelledError:
            return  # by run(), which knows why
        except grpc.RpcError as cause:
            error = self._transport._explain(what, cause)
            error.__cause__ = cause
            self._sender.finish(error)
        except TransportError as error:
            self._sender.fail(f"the answer is {error}")
        else:
            self._connections.misses = 0
            self._sender.finish(response)


# ── serving ──


class _Pending:
    """A request that the handler has and whose answer a stream waits for, in order."""

    __slots__ = ("answer", "context", "sender", "size_bytes", "stream")

    def __init__(self, size_bytes: int) -> None:
        self.answer: Response | RaftError | None = None
        self.context: grpc.ServicerContext | None = None
        self.sender = ""
        self.size_bytes = size_bytes
        self.stream: _InboundStream | None = None

    def respond(self, answer: Response | RaftError) -> None:
        if self.answer is None:
            self.answer = answer
            # Answer first, look second; take() does it the other way round, so one of the two sees both.
            if self.stream is not None:
                self.stream.flush()

    def is_abandoned(self) -> bool:
        # The handler may have the request before grpc has told us of its context.
        return self.context is not None and not self.context.is_active()


class _PendingCall(_Pending):
    """A request whose answer a worker waits for."""

    __slots__ = ("answered",)

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(0)
        self.answered = runtime.signal()

    def respond(self, answer: Response | RaftError) -> None:
        if self.answer is None:
            self.answer = answer
            self.answered.set()


class _InboundStream:
    """Requests of one stream that wait for answers, and answers that wait to be sent."""

    def __init__(self, runtime: Runtime) -> None:
        self.answers: SimpleQueue[Response | RaftError | None] = SimpleQueue()
        self._runtime = runtime
        self._lock = runtime.lock()
        self._unanswered: deque[_Pending] = deque()
        self._unanswered_bytes = 0
        self._room = runtime.signal()
        self._wants_room = False
        self._no_more_requests = False
        self._ended = False

    def take(self, pending: _Pending) -> bool:
        """Put ``pending`` in line, and wait while the line is too long; False: the stream has ended."""
        with self._lock:
            self._unanswered.append(pending)
            self._unanswered_bytes += pending.size_bytes
            full = self._is_full()
            if full:
                self._room = self._runtime.signal()
                self._wants_room = True
        pending.stream = self
        if pending.answer is not None:
            self.flush()
        if full and not self._ended:
            self._room.wait()
        return not self._ended

    def flush(self) -> None:
        """Release the answers that have no unanswered request before them."""
        with self._lock:
            while self._unanswered:
                answer = self._unanswered[0].answer
                if answer is None:
                    break
                self._unanswered_bytes -= self._unanswered.popleft().size_bytes
                self.answers.put(answer)
            if self._wants_room and not self._is_full():
                self._wants_room = False
                self._room.set()
            if self._no_more_requests and not self._unanswered:
                self.answers.put(None)

    def end_of_requests(self) -> None:
        self._no_more_requests = True
        self.flush()

    def fail(self, error: RaftError) -> None:
        self.answers.put(error)
        self.end()

    def end(self) -> None:
        """Wake everybody who waits in this stream, so that they leave it."""
        self._ended = True
        self.answers.put(None)
        self._room.set()

    def _is_full(self) -> bool:
        return len(self._unanswered) >= _MAX_UNANSWERED or self._unanswered_bytes >= _MAX_UNANSWERED_BYTES


class _InboundSnapshot:
    """A snapshot that comes in: one worker reads the connection, another is the handler's."""

    def __init__(self, runtime: Runtime, context: grpc.ServicerContext) -> None:
        self._runtime = runtime
        self._context = context
        self._room: Inbox = runtime.inbox("room")
        self._receiver: SnapshotReceiver | None = None

    def begin(self, size: int, data: bytes) -> SnapshotReceiver:
        """What the handler reads: ``size`` bytes, of which ``data`` came with the first message."""
        receiver = self._receiver = SnapshotReceiver(self._runtime, size, partial(self._room.put, True))
        for _ in range(CHUNKS_AHEAD):
            self._room.put(True)
        if data:
            receiver.put(data)
        return receiver

    def read(self, receiver: SnapshotReceiver, messages: Iterator[bytes]) -> None:
        """Read the connection, as long as there is room."""
        try:
            while self._room.take():
                message = next(messages, None)
                if message is None:
                    receiver.close()
                    return
                receiver.put(decode_snapshot_chunk(message))
        except TransportError as error:
            receiver.fail(str(error))
        except grpc.RpcError:
            self.gone()

    def stop_reading(self) -> None:
        self._room.put(False)

    def fail(self, error: RaftError) -> None:
        self.gone(str(error))
        self._context.cancel()

    def end(self) -> None:
        self.fail(TransportError("other senders need the room"))

    def gone(self, reason: str = "the sender cancelled it, or the connection is gone") -> None:
        """Nothing more will come."""
        if self._receiver is not None:
            self._receiver.fail(reason)
        self.stop_reading()


def _drain(receiver: SnapshotReceiver) -> None:
    """Read what is left for the sake of a sender that hears no answer before."""
    try:
        while receiver.read(_DRAIN_BYTES):
            pass
    except TransportError:
        pass  # what was left is not missed


def _takes_early_answer(context: grpc.ServicerContext) -> bool:
    return any(tuple(one) == _TAKES_EARLY_ANSWER for one in context.invocation_metadata())


def _handlers(transport: GrpcTransport) -> list[grpc.GenericRpcHandler]:
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method in METHODS.values():
        by_service.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
            partial(transport._answer_unary, method),
            request_deserializer=partial(transport._receive_unary, method),
        )
    by_service[PIPELINE.service][PIPELINE.name] = grpc.stream_stream_rpc_method_handler(
        transport._answer_stream, request_deserializer=transport._receive_streamed
    )
    by_service[PIPELINE.service][INSTALL_SNAPSHOT] = grpc.stream_unary_rpc_method_handler(
        transport._answer_snapshot
    )
    if transport._admin is not None:
        by_service |= transport._admin.services()
    return [grpc.method_handlers_generic_handler(service, calls) for service, calls in by_service.items()]


# ── options and addresses ──

_Options = list[tuple[str, int]]


def _server_options(max_message_bytes: int) -> _Options:
    return [
        ("grpc.so_reuseport", 0),  # else a second server on the port is no error, and gets half the calls
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 0),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def _channel_options(max_message_bytes: int, keepalive: float | None) -> _Options:
    options = [
        ("grpc.use_local_subchannel_pool", 1),  # or the two connections to a peer would be one
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 500),  # also how long one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.dns_min_time_between_resolutions_ms", 500),  # a restarted peer may have another IP
    ]
    if keepalive is not None:
        milliseconds = max(int(keepalive * 1000), 1)
        options += [
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.keepalive_timeout_ms", milliseconds),
            ("grpc.http2.ping_timeout_ms", milliseconds),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return options


def _why_not(host: str, port: int) -> str | None:
    """Why that address cannot be bound, in the operating system's words; None if it can."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None
