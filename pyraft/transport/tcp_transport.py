"""Raft over TCP, byte for byte as hashicorp/raft's NetworkTransport does it (msgpack_wire.py).

A connection carries one request after the other, answered in order; a call has one of its own
for as long as it takes, so that nothing queues behind anything.  Idle ones are kept for the next.

Threads: one accepts; each inbound connection has one, which reads requests and hands them to the
handler; whoever answers writes the answer.  Calls are made on the caller's thread; a pipeline has
one thread, which reads its answers.  A second one writes where a connection takes nothing at once.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, BinaryIO

from ..configuration import Server
from ..errors import ConfigError, RaftError, TransportError, UnsupportedProtocolError
from ..messages import (
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    Response,
)
from ..runtime import Runtime, Signal, Task
from .addresses import check_advertised, split_address
from .admission import Admission
from .base import AppendPipeline, IncomingRpc, RpcHandler
from .msgpack_wire import (
    APPEND_ENTRIES,
    INSTALL_SNAPSHOT,
    Call,
    Fields,
    MalformedError,
    MessageReader,
    call_of,
    decode_install_snapshot,
    encode_answer,
    encode_install_snapshot,
    encode_request,
    read_answer,
    read_request,
    size_of_snapshot,
    takes_early_answer,
)
from .network import CLOSE_SECONDS, NetworkTransport
from .snapshot_stream import CHUNKS_AHEAD, PATIENCE_SECONDS, SnapshotSender
from .tcp_connection import Connection, listen
from .tls import Tls, contexts
from .tls_connection import TlsConnection

_log = logging.getLogger(__name__)

_MAX_INBOUND = 512
_MAX_INBOUND_SNAPSHOTS = 4
_MAX_WORKERS = 2048
_MAX_UNANSWERED = 64
_MAX_UNANSWERED_BYTES = 16 * 1024 * 1024
"""An inbound connection is not read further while that much of it waits for the handler."""
_DRAIN_BYTES = 256 * 1024
_LAST_WORDS_SECONDS = 5.0
"""How long a sender that was answered early may take to hang up."""
_FOR_EVER = 1e6
_HUNG_UP_OFTEN = 2
_STRANGER_SECONDS = 10.0
"""So long a server that hung up on calls of pyraft's own, that often in a row, is not asked again."""
_ACCEPT_AGAIN_SECONDS = 0.05


class TcpTransport(NetworkTransport["_Pool"]):
    """Serves and calls other servers over TCP."""

    def __init__(
        self,
        bind: str,
        advertise: str | None = None,
        tls: Tls | None = None,
        *,
        max_pool: int = 3,
        timeout: float = 10.0,
    ) -> None:
        """Take the address ``bind``; requests are accepted from ``serve`` on.

        Args:
            bind: ``host:port``; port 0 = any free one.
            advertise: under which address others reach this server, if not ``bind``.
            tls: None = plain text.  For a Go server it is a StreamLayer of crypto/tls.
            max_pool: so many idle connections are kept for each peer.
            timeout: seconds after which a connection is given up: one on which half a message
                has come, one that takes no bytes, a pipeline whose next answer does not come.

        Raises:
            TransportError: the address cannot be bound.
            ConfigError: ``bind`` or ``advertise`` is no address that others could use, a number
                makes no sense, or ``tls`` cannot be used.
        """
        advertised = check_advertised(bind, advertise)
        if type(max_pool) is not int or max_pool < 0:
            raise ConfigError(f"max_pool={max_pool!r}: use a number of connections, 0 or more")
        if type(timeout) not in (int, float) or not 0 < timeout < _FOR_EVER:
            raise ConfigError(f"timeout={timeout!r}: use a number of seconds above 0")
        super().__init__(f"pyraft-tcp-{bind}", _MAX_WORKERS)
        self._contexts = None if tls is None else contexts(tls)
        self._max_pool = max_pool
        self._timeout = float(timeout)
        self._inbound: Admission[_Inbound] = Admission(self._runtime, _MAX_INBOUND)
        self._snapshots: Admission[_Body] = Admission(self._runtime, _MAX_INBOUND_SNAPSHOTS)
        self._accepting: Task | None = None
        self._over: Signal = self._runtime.signal()
        self._listener = listen(*split_address(bind, "bind"))
        host, _, port = advertised.rpartition(":")
        self._address = f"{host}:{self._listener.getsockname()[1]}" if int(port) == 0 else advertised

    def serve(self, handler: RpcHandler) -> None:
        super().serve(handler)
        with self._lock:
            if self._closed:
                raise TransportError(self._why_closed())
            self._accepting = self._runtime.spawn(f"pyraft-tcp-{self._address}-accept", self._accept)

    def call(self, peer: Server, request: Request, timeout: float) -> Response:
        call = call_of(request)
        what = f"{call.name} to {peer.id} at {peer.address}"
        data = encode_request(request)
        deadline = self._runtime.now() + timeout
        pool = self._connect(peer)
        if call.is_ours and pool.is_stranger:
            raise UnsupportedProtocolError(
                f"{what}: that server does not know this call, as it showed before"
            )
        try:
            try:
                response = self._exchange(pool, call, data, deadline)
            except _HungUpError:
                if not call.may_be_unknown:
                    raise
                # So a Go server takes a call that it does not know; or it has just ended, or
                # closed an old connection: then this will be another error, or none.
                response = self._exchange(pool, call, data, deadline, anew=True)
        except TimeoutError as error:
            raise TransportError(f"{what}: no answer within {timeout:g} s") from error
        except _HungUpError as error:
            if call.may_be_unknown and not self._closed:
                pool.hung_up_on(call)
                raise UnsupportedProtocolError(f"{what}: that server does not know this call") from error
            raise TransportError(f"{what}: {self._why_closed(str(error))}") from error
        except OSError as error:
            raise TransportError(f"{what}: {self._why_closed(f'it cannot be reached ({error})')}") from error
        except TransportError as error:
            raise TransportError(f"{what}: {self._why_closed(f'the answer is {error}')}") from error
        if call.is_ours:
            pool.knows_us()
        if isinstance(response, str):
            raise TransportError(f"{what}: it answered: {response}")
        answer: Response = response
        return answer

    def _exchange(self, pool: _Pool, call: Call, data: bytes, deadline: float, anew: bool = False) -> Any:
        """Send ``data`` and return the answer: a response, or the text of an error.

        Raises:
            _HungUpError: the peer closed the connection instead.
            TimeoutError, OSError: no answer in time; no connection.
            TransportError: the answer is none.
        """
        client = pool.take(deadline, anew)
        is_whole = False
        try:
            answer = client.exchange(call, data, deadline)
            is_whole = not client.reader.has_more
            return answer
        finally:
            pool.give_back(client, is_whole)

    def pipeline(
        self,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> AppendPipeline:
        """See the interface.  Take no lock in ``on_reply`` that is held somewhere around ``close``."""
        stream = _TcpPipeline(self, self._connect(peer), peer, on_reply, on_error)
        self._submit(stream.run)
        return stream

    def install_snapshot(
        self,
        peer: Server,
        request: InstallSnapshotRequest,
        source: BinaryIO,
        timeout: float,
        is_over: Callable[[], bool],
    ) -> InstallSnapshotResponse:
        what = f"snapshot to {peer.id} at {peer.address}"
        first = encode_install_snapshot(request, takes_early_answer=True)
        sender = SnapshotSender(self._runtime, what, request, source, timeout, is_over)
        upload = _Upload(self, self._connect(peer), first, sender, timeout)
        self._submit(upload.write)
        return upload.run()

    def _stop(self, served: bool) -> None:
        self._over.set()
        self._stop_accepting()
        for inbound in self._inbound:
            inbound.end()

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            try:
                self._listener.shutdown(socket.SHUT_RDWR)
            except OSError:  # not everywhere does that wake who accepts
                with suppress(OSError):
                    socket.create_connection(self._listener.getsockname()[:2], 1.0).close()
            self._accepting.join(CLOSE_SECONDS)
        self._listener.close()

    def _connection(self, sock: socket.socket | None = None, peer_host: str = "") -> Connection:
        """One that was accepted, or one to be made with the server on ``peer_host``.

        Raises:
            OSError: it is gone already; or no certificate could be for that host.
        """
        if self._contexts is None:
            return Connection(self._runtime, self._workers.submit, self._timeout, sock)
        context = self._contexts[1 if sock is None else 0]
        try:
            return TlsConnection(self._runtime, self._workers.submit, self._timeout, context, peer_host, sock)
        except ValueError as error:
            raise OSError(f"{peer_host!r} is no host for a certificate: {error}") from error

    def _new_connections(self, address: str) -> _Pool:
        return _Pool(self, address)

    def _submit(self, job: Callable[[], None]) -> None:
        try:
            self._workers.submit(job)
        except RuntimeError as error:
            raise TransportError(self._why_closed()) from error

    # ── serving ──

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, address = self._listener.accept()
            except OSError as error:
                if not self._closed:  # out of descriptors, or the peer went while it waited
                    _log.warning("cannot accept a connection address=%s error=%s", self._address, error)
                    self._over.wait(_ACCEPT_AGAIN_SECONDS)
                continue
            try:
                inbound = _Inbound(self, sock, f"{address[0]}:{address[1]}")
            except OSError:  # gone already
                sock.close()
                continue
            if not self._inbound.admit(inbound):
                _log.warning("refused a connection from=%s: %d are open", inbound.name, _MAX_INBOUND)
                inbound.connection.close()
                continue
            try:
                self._workers.submit(inbound.run)
            except RuntimeError:
                inbound.connection.close()
            if self._closed:
                inbound.end()


# ── calling ──


class _HungUpError(Exception):
    """The peer closed the connection where an answer should have come."""


class _Client:
    """A connection to a peer, and what is read from it."""

    def __init__(self, runtime: Runtime, connection: Connection) -> None:
        self.connection = connection
        self.reader = MessageReader(self._fill)
        self._runtime = runtime
        self._deadline = 0.0

    def exchange(self, call: Call, data: bytes, deadline: float) -> Any:
        self._deadline = deadline
        try:
            self.connection.send(data)
            is_there = self.reader.begin()
        except BlockingIOError as error:
            raise TimeoutError("it takes no bytes") from error
        except (ConnectionResetError, BrokenPipeError, ConnectionAbortedError) as error:
            raise _HungUpError(f"the connection broke ({error})") from error
        if not is_there:
            raise _HungUpError("it closed the connection")
        return read_answer(self.reader, call)

    def _fill(self, in_message: bool) -> bytes:
        left = self._deadline - self._runtime.now()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return self.connection.receive(left)


class _Pool:
    """The connections to one address: those in use, and those that wait for the next call."""

    def __init__(self, transport: TcpTransport, address: str) -> None:
        self._transport = transport
        self._runtime = transport._runtime
        self._address = address
        self._lock = self._runtime.lock()
        self._closed = False
        self._used: set[Connection] = set()
        self._idle: list[_Client] = []
        self._hung_up = 0
        self._stranger_until = 0.0

    @property
    def is_stranger(self) -> bool:
        """Whether it is no pyraft server, as far as we know, and it is too soon to ask again."""
        return self._hung_up >= _HUNG_UP_OFTEN and self._runtime.now() < self._stranger_until

    def hung_up_on(self, call: Call) -> None:
        """The peer does not seem to know ``call``; once may be chance, for it may just have ended."""
        if call.is_ours:
            self._hung_up += 1
            self._stranger_until = self._runtime.now() + _STRANGER_SECONDS

    def knows_us(self) -> None:
        """It is a pyraft server, or may be another server than before."""
        self._hung_up = 0

    def take(self, deadline: float, anew: bool = False) -> _Client:
        """A connection for one call.

        Raises:
            OSError: none can be made; TimeoutError: not by ``deadline``.
        """
        while not anew:
            with self._lock:
                if not self._idle:
                    break
                client = self._idle.pop()
                self._used.add(client.connection)
            if client.connection.is_quiet:
                return client
            self.give_back(client, False)
            self.knows_us()  # perhaps: it closed the connection, as if it had started again
        connection = self.new()
        try:
            self.connect(connection, deadline)
        except BaseException:
            self.drop(connection)
            raise
        return _Client(self._runtime, connection)

    def give_back(self, client: _Client, is_whole: bool) -> None:
        """It is free; it is kept for another call if one answer has come, and nothing else (``is_whole``)."""
        with self._lock:
            self._used.discard(client.connection)
            keep = is_whole and not self._closed and len(self._idle) < self._transport._max_pool
            if keep:
                self._idle.append(client)
        if not keep:
            client.connection.close()

    def new(self) -> Connection:
        """A connection that is not made yet, and that ``close`` breaks."""
        transport = self._transport
        host = self._address.rpartition(":")[0].removeprefix("[").removesuffix("]")
        connection = transport._connection(peer_host=host)
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError("its connections were closed meanwhile")
            self._used.add(connection)
        return connection

    def connect(self, connection: Connection, deadline: float) -> None:
        connection.connect(self._resolve(deadline), deadline)
        connection.handshake(deadline)

    def drop(self, connection: Connection) -> None:
        with self._lock:
            self._used.discard(connection)
        connection.close()

    def _resolve(self, deadline: float) -> list[Any]:
        try:
            host, port = split_address(self._address, "address")
        except ConfigError as error:
            raise OSError(str(error)) from error
        resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        with suppress(socket.gaierror, ValueError):
            return resolve(flags=socket.AI_NUMERICHOST)
        try:  # a name server may take its time, and cannot be interrupted
            answer = self._transport._workers.submit(resolve)
        except RuntimeError as error:
            raise ConnectionAbortedError("closed") from error
        try:
            found: list[Any] = answer.result(max(deadline - self._runtime.now(), 0.0))
        except ValueError as error:  # no name that could be asked for
            raise OSError(f"{host!r} is no host: {error}") from error
        return found

    def close(self) -> None:
        """Fail what is going on, and free the rest."""
        with self._lock:
            self._closed = True
            used, idle = list(self._used), self._idle
            self._idle = []
        for connection in used:
            connection.abort()
        for client in idle:
            client.connection.close()

    def join(self, timeout: float) -> None:
        """Nothing to wait for: its threads are the transport's workers."""


class _TcpPipeline(AppendPipeline):
    def __init__(
        self,
        transport: TcpTransport,
        pool: _Pool,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> None:
        self._transport = transport
        self._runtime = transport._runtime
        self._pool = pool
        self._what = f"pipeline to {peer.id} at {peer.address}"
        self._on_reply = on_reply
        self._on_error = on_error
        self._lock = self._runtime.lock()
        self._ended = False
        self._closed = False
        self._waiting: list[bytes] | None = []  # until there is a connection
        self._sent_at: deque[float] = deque()
        self._heard_at = self._runtime.now()
        try:
            self._connection = pool.new()
        except OSError as error:
            raise TransportError(f"{self._what}: {transport._why_closed(str(error))}") from error

    def send(self, request: AppendEntriesRequest) -> None:
        if self._ended or self._closed:
            raise TransportError(f"{self._what}: it is {'closed' if self._closed else 'broken'}")
        data = encode_request(request)
        self._sent_at.append(self._runtime.now())
        if self._waiting is not None:
            with self._lock:
                if self._waiting is not None:
                    self._waiting.append(data)
                    return
        self._connection.put(data)

    def close(self) -> None:
        self._closed = True
        self._connection.abort()

    def run(self) -> None:
        """Connect, then read the answers."""
        transport = self._transport
        try:
            self._pool.connect(self._connection, self._runtime.now() + transport._timeout)
            self._open()
            reason = self._read()
        except OSError as error:
            reason = f"it cannot be reached ({error})"
        except TransportError as error:
            reason = f"the answer is {error}"
        except Exception as error:
            _log.exception("%s: the receiver of its answers failed", self._what)
            reason = f"the receiver of its answers failed: {error!r}"
        self._ended = True
        self._pool.drop(self._connection)
        if not self._closed:
            self._on_error(TransportError(f"{self._what}: {transport._why_closed(reason)}"))

    def _open(self) -> None:
        with self._lock:
            for data in self._waiting or ():
                self._connection.put(data)
            self._waiting = None  # last: what is sent from now on must not overtake these

    def _read(self) -> str:
        """Hand over one answer after the other; return why there are no more."""
        reader = MessageReader(self._fill)
        while reader.begin():
            answer = read_answer(reader, APPEND_ENTRIES)
            if isinstance(answer, str):
                return f"it answered: {answer}"
            if not self._sent_at:
                return "an answer that nobody asked for"
            self._sent_at.popleft()
            self._heard_at = self._runtime.now()
            if self._closed:
                break
            self._on_reply(answer)
        return "the other side ended it"

    def _fill(self, in_message: bool) -> bytes:
        timeout = self._transport._timeout
        while True:
            try:
                return self._connection.receive(timeout / 4)
            except TimeoutError:
                since = max(self._sent_at[0], self._heard_at) if self._sent_at else self._runtime.now()
                if in_message or self._runtime.now() - since > timeout:
                    raise TimeoutError(f"no answer within {timeout:g} s") from None


class _Upload:
    """A snapshot on its way to a peer: one thread writes it, another waits for the answer."""

    def __init__(
        self, transport: TcpTransport, pool: _Pool, first: bytes, sender: SnapshotSender, timeout: float
    ) -> None:
        self._transport = transport
        self._pool = pool
        self._first = first
        self._sender = sender
        self._timeout = timeout
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        try:
            self._connection = pool.new()
        except OSError as error:
            raise TransportError(f"{sender.what}: {transport._why_closed(str(error))}") from error

    def run(self) -> InstallSnapshotResponse:
        try:
            return self._sender.run(self._outbox.put, partial(self._outbox.put, None))
        finally:
            self._connection.abort()
            self._outbox.put(None)

    def write(self) -> None:
        """Connect, then write what run() reads."""
        try:
            now = self._transport._runtime.now()
            self._pool.connect(self._connection, now + min(self._timeout, self._transport._timeout))
            self._connection.send(self._first)
            self._transport._submit(self._read)
        except (OSError, RaftError) as error:
            self._fail(f"it cannot be reached ({error})")
            self._pool.drop(self._connection)
            return
        for _ in range(CHUNKS_AHEAD):
            self._sender.make_room()
        # What breaks the connection is told by the other thread, after the answer if there is one.
        with suppress(OSError):
            for data in iter(self._outbox.get, None):
                self._connection.send(data)
                self._sender.make_room()

    def _read(self) -> None:
        reader = MessageReader(lambda _: self._connection.receive(_FOR_EVER))
        try:
            if not reader.begin():
                self._fail("the other side ended it")
                return
            answer = read_answer(reader, INSTALL_SNAPSHOT)
            if isinstance(answer, str):
                self._fail(f"it answered: {answer}")
            else:
                self._sender.finish(answer)
        except OSError as error:
            self._fail(f"the connection broke ({error})")
        except TransportError as error:
            self._fail(f"the answer is {error}")
        finally:
            self._pool.drop(self._connection)

    def _fail(self, reason: str) -> None:
        self._sender.fail(self._transport._why_closed(reason))


# ── serving ──


class _Pending:
    """A request of a connection, and its answer once there is one."""

    __slots__ = ("_inbound", "answer", "call", "size_bytes")

    def __init__(self, inbound: _Inbound, call: Call, size_bytes: int) -> None:
        self._inbound = inbound
        self.call = call
        self.size_bytes = size_bytes
        self.answer: AnyResponse | RaftError | None = None

    def respond(self, answer: AnyResponse | RaftError) -> None:
        if self.answer is None:
            self.answer = answer
            self._inbound.flush()


class _Inbound:
    """A connection from another server."""

    def __init__(self, transport: TcpTransport, sock: socket.socket, name: str) -> None:
        self.name = name
        self.connection = transport._connection(sock)
        self._transport = transport
        self._reader = MessageReader(self._fill)
        self._lock = transport._runtime.lock()
        self._line: deque[_Pending] = deque()
        self._line_bytes = 0
        self._room: Signal | None = None
        self._ended = False

    def run(self) -> None:
        """Serve it until it ends.  On a thread of its own."""
        try:
            if not self._is_welcome():
                return
            while self._reader.begin():
                call, fields = read_request(self._reader)
                self._transport._inbound.name(self, self.name)
                if call is INSTALL_SNAPSHOT:
                    if not self._take_snapshot(fields):
                        return
                else:
                    self._hand_over(call, fields)
                    self._wait_for_room()
        except MalformedError as error:
            if not self._ended:
                _log.warning("closed a connection from=%s: %s", self.name, error)
        except OSError:
            pass  # the peer has gone
        except Exception:
            _log.exception("a connection failed from=%s", self.name)
        finally:
            self.end()
            self.connection.close()
            self._transport._inbound.drop(self)

    def _is_welcome(self) -> bool:
        """Whether it has shown a certificate, where one is wanted."""
        try:
            self.connection.handshake(self._transport._runtime.now() + self._transport._timeout)
        except OSError as error:
            if not self._ended:
                _log.warning("refused a connection from=%s: %s", self.name, error)
            return False
        return True

    def end(self) -> None:
        self._ended = True
        self.connection.abort()
        with self._lock:
            if self._room is not None:
                self._room.set()

    def fail(self, error: RaftError) -> None:
        self.end()

    def is_ended(self) -> bool:
        return self._ended

    def flush(self) -> None:
        """Send the answers that have no unanswered request before them."""
        with self._lock:
            while self._line:
                pending = self._line[0]
                if pending.answer is None:
                    break
                self._line.popleft()
                self._line_bytes -= pending.size_bytes
                self.connection.put(encode_answer(pending.call, pending.answer))
            if self._room is not None and not self._is_full():
                self._room.set()

    def _fill(self, in_message: bool) -> bytes:
        while True:
            try:
                return self.connection.receive(self._transport._timeout)
            except TimeoutError as error:
                if in_message:
                    raise MalformedError(f"half a message, and {error}") from error

    def _enqueue(self, call: Call, size_bytes: int) -> _Pending:
        pending = _Pending(self, call, size_bytes)
        with self._lock:
            self._line.append(pending)
            self._line_bytes += size_bytes
        return pending

    def _hand_over(self, call: Call, fields: Fields) -> None:
        """Give a request to the handler, which answers when it likes."""
        size_bytes = self._reader.message_bytes
        pending = self._enqueue(call, size_bytes)
        try:
            request = call.decode_request(fields)
        except TransportError as error:
            pending.respond(TransportError(f"{call.name}: {error}"))
            return
        self._transport._deliver(call.name, IncomingRpc(request, pending.respond, size_bytes, self.is_ended))

    def _wait_for_room(self) -> None:
        if not self._is_full():
            return
        with self._lock:
            if not self._is_full() or self._ended:
                return
            room = self._room = self._transport._runtime.signal()
        room.wait()
        self._room = None

    def _is_full(self) -> bool:
        return len(self._line) >= _MAX_UNANSWERED or self._line_bytes >= _MAX_UNANSWERED_BYTES

    def _take_snapshot(self, fields: Fields) -> bool:
        """Let the handler read the bytes that follow; False: no other request can follow them."""
        body = _Body(self.connection, self._reader, size_of_snapshot(fields))
        pending = self._enqueue(INSTALL_SNAPSHOT, 0)
        try:
            answer = self._receive_snapshot(fields, body)
        finally:
            self._transport._snapshots.drop(body)
        if not takes_early_answer(fields):
            body.drain()  # it listens only once it has sent everything
        if body.broken:
            return False
        pending.respond(answer)
        if body.left:
            body.drain(_LAST_WORDS_SECONDS)
        return not body.left

    def _receive_snapshot(self, fields: Fields, body: _Body) -> InstallSnapshotResponse | RaftError:
        try:
            request = decode_install_snapshot(fields)
            if not self._transport._snapshots.admit(body):
                return TransportError(f"{_MAX_INBOUND_SNAPSHOTS} snapshots are coming in")
            self._transport._snapshots.name(body, request.header.id)
        except RaftError as error:
            return error
        return self._transport._deliver_snapshot(INSTALL_SNAPSHOT.name, request, body)


class _Body:
    """The bytes of a snapshot, bare on the connection; a ``SnapshotSource`` for the handler."""

    def __init__(self, connection: Connection, reader: MessageReader, size: int) -> None:
        self.left = size
        self.broken = False
        self._connection = connection
        self._reader = reader
        self._size = size
        self._why = ""

    def read(self, max_bytes: int) -> bytes:
        """See ``SnapshotSource.read``."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes}: read at least one byte")
        return self._read(max_bytes, PATIENCE_SECONDS)

    def _read(self, max_bytes: int, patience: float) -> bytes:
        if self.left == 0:
            return b""
        wanted = min(max_bytes, self.left, _DRAIN_BYTES)
        try:
            data = b"" if self.broken else self._reader.raw(wanted)
            if not data and not self.broken:
                data = self._connection.receive(patience, wanted)
            reason = "" if data else "short read"
        except OSError as error:
            data, reason = b"", str(error)
        if not data:
            self.broken = True
            self._why = self._why or reason
            raise TransportError(
                f"the snapshot's stream broke after {self._size - self.left} of {self._size} bytes: {self._why}"
            )
        self.left -= len(data)
        return data

    def drain(self, patience: float = PATIENCE_SECONDS) -> None:
        """Read what is left, for the sake of the sender."""
        with suppress(TransportError):
            while self._read(_DRAIN_BYTES, patience):
                pass

    def end(self) -> None:
        self.fail(TransportError("other senders need the room"))

    def fail(self, error: RaftError) -> None:
        self._why = str(error)
        self._connection.abort()
