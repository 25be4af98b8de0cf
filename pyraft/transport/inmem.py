"""Servers of one process that talk without a network, and the ways in which that network fails.

Messages are handed over as they are.  Without a delay there is no thread: the caller's
thread puts the request into the peer's hands and waits for the answer, and the thread
that answers a pipelined request calls ``on_reply``.  With a delay one thread carries the
messages of the whole network.

What is lost is silent, as on a real network: a call runs into its deadline.  A pipeline
that loses a message breaks, as a connection would, and so does the stream of a snapshot
(whose receiver has a thread).  A server that is not there refuses at once.  Everything
waits through the ``Runtime``, so this works under any of them.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import BinaryIO

from ..configuration import Server
from ..errors import RaftError, TransportError
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    Response,
    SnapshotChunk,
)
from ..runtime import Inbox, Runtime, Task, ThreadRuntime
from .base import AppendPipeline, IncomingRpc, RpcHandler, Transport
from .snapshot_stream import CHUNKS_AHEAD, SnapshotReceiver, SnapshotSender

_log = logging.getLogger(__name__)

Message = AnyRequest | SnapshotChunk | AnyResponse | RaftError
"""What a drop rule gets to see."""

_PER_ENTRY_BYTES = 24


class InmemNetwork:
    """Connects the ``InmemTransport``s of one process; loses and delays messages on request."""

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.runtime = ThreadRuntime() if runtime is None else runtime
        self._random = self.runtime.random("inmem-network")
        self._lock = self.runtime.lock()
        self._transports: dict[str, InmemTransport] = {}
        self._group_of: dict[str, int] = {}
        self._rules: list[Callable[[str, str, Message], bool]] = []
        self._delay: Callable[[str, str], float] | None = None
        self._courier: _Courier | None = None

    def partition(self, *groups: Iterable[str]) -> None:
        """Let only servers of one group reach each other; replaces an earlier partition.

        Args:
            groups: of addresses.  Servers named in none of them form one more group, so
                ``partition(["n1"])`` cuts n1 off from everybody.
        """
        self._group_of = {address: number for number, group in enumerate(groups, 1) for address in group}

    def heal(self) -> None:
        """End the partition and every drop rule; delays stay."""
        self._group_of = {}
        self._rules = []

    def drop(
        self,
        src: str | None = None,
        dst: str | None = None,
        when: float | Callable[[Message], bool] = 1.0,
    ) -> None:
        """Lose messages from ``src`` to ``dst``, until ``heal``.  An answer travels from the peer back.

        Args:
            src, dst: addresses; None = any.
            when: a probability, or a function that is given the message and says whether to lose it.
                It is called on the thread that sends, which may be a server's main thread: it must
                not block.
        """

        def lost(from_: str, to: str, message: Message) -> bool:
            if src not in (None, from_) or dst not in (None, to):
                return False
            return when(message) if callable(when) else self._random.random() < when

        self._rules = [*self._rules, lost]

    def delay(self, seconds: float | Callable[[str, str], float]) -> None:
        """Let every message take ``seconds`` one way, or what ``seconds(src, dst)`` says; 0 = no delay.

        The function is called on the thread that sends, and must not block.
        """
        if callable(seconds):
            self._delay = seconds
        else:
            self._delay = (lambda src, dst: seconds) if seconds > 0 else None

    # ── for the transports ──

    def _join(self, transport: InmemTransport) -> None:
        address = transport.local_address
        with self._lock:
            taken = address in self._transports
            if not taken:
                self._transports[address] = transport
        if taken:
            raise TransportError(
                f"address {address} is taken on this network: close the transport that has it, "
                f"or give every server an address of its own"
            )

    def _leave(self, transport: InmemTransport) -> None:
        with self._lock:
            if self._transports.get(transport.local_address) is transport:
                del self._transports[transport.local_address]
            courier = None
            if not self._transports:
                courier, self._courier = self._courier, None
        if courier is not None:
            courier.stop()

    def _serving(self, address: str) -> InmemTransport | None:
        transport = self._transports.get(address)
        return transport if transport is not None and transport._handler is not None else None

    def _convey(
        self,
        src: str,
        dst: str,
        message: Message,
        arrive: Callable[[], None],
        lose: Callable[[], None] | None,
        not_before: float = 0.0,
    ) -> float:
        """Carry ``message``; exactly one of ``arrive`` and ``lose`` is called, now or later.

        Returns the instant of arrival if it is delayed: what follows on the same stream gives
        it as ``not_before`` and cannot overtake.
        """
        if any(lost(src, dst, message) for lost in self._rules):
            if lose is not None:
                lose()
            return not_before
        delay = self._delay
        if delay is None and not_before <= 0.0:
            self._arrive(src, dst, arrive, lose)
            return 0.0
        now = self.runtime.now()
        due = max(not_before, now + (0.0 if delay is None else max(delay(src, dst), 0.0)))
        with self._lock:
            if self._courier is None and self._transports:
                self._courier = _Courier(self.runtime)
            courier = self._courier
        if courier is None:  # a late answer, when every server has closed
            if lose is not None:
                lose()
            return due
        courier.carry(due, partial(self._arrive, src, dst, arrive, lose))
        return due

    def _arrive(
        self, src: str, dst: str, arrive: Callable[[], None], lose: Callable[[], None] | None
    ) -> None:
        # Looked at on arrival: a partition also stops what is on its way.
        groups = self._group_of
        if not groups or groups.get(src, 0) == groups.get(dst, 0):
            arrive()
        elif lose is not None:
            lose()


_STOP = object()


class _Courier:
    """The one thread that holds messages back until they are due."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._inbox: Inbox = runtime.inbox("inmem-network")
        self._sent = 0
        self._task: Task = runtime.spawn("pyraft-inmem-network", self._run)

    def carry(self, due: float, deliver: Callable[[], None]) -> None:
        self._inbox.put((due, deliver))

    def stop(self) -> None:
        """End the thread; what is on its way has nobody left to arrive at."""
        self._inbox.put(_STOP)

    def _run(self) -> None:
        waiting: list[tuple[float, int, Callable[[], None]]] = []
        while True:
            event = self._inbox.take(waiting[0][0] if waiting else None)
            if event is _STOP:
                break
            if event is not None:
                due, deliver = event
                self._sent += 1  # equal instants: first come, first served
                heapq.heappush(waiting, (due, self._sent, deliver))
            now = self._runtime.now()
            while waiting and waiting[0][0] <= now:
                deliver = heapq.heappop(waiting)[2]
                try:
                    deliver()
                except Exception:
                    _log.exception("a message could not be delivered")
        self._inbox.close(_discard)


def _discard(event: object) -> None:
    pass


class InmemTransport(Transport):
    """One server's end of an ``InmemNetwork``."""

    def __init__(self, network: InmemNetwork, address: str) -> None:
        """Take ``address`` on ``network``.

        Raises:
            TransportError: another transport has it.
        """
        self._network = network
        self._address = address
        self._handler: RpcHandler | None = None
        self._closed = False
        self._lock = network.runtime.lock()
        # What must fail when this transport closes: calls it made, requests it has not answered.
        self._open: set[_Call | _InmemPipeline | _InmemSnapshot] = set()
        network._join(self)

    @property
    def local_address(self) -> str:
        return self._address

    def serve(self, handler: RpcHandler) -> None:
        self._handler = handler

    def call(self, peer: Server, request: Request, timeout: float) -> Response:
        call = _Call(self._network.runtime)
        self._enter(call)
        target: InmemTransport | None = None

        def arrive() -> None:
            nonlocal target
            if call.outcome is not None:
                return  # the caller has gone
            target = self._network._serving(peer.address)
            if target is None:
                call.fail("nobody serves there")
            elif target._try_enter(call):
                target._receive(request, respond, lambda: call.outcome is not None)

        def respond(answer: Response | RaftError) -> None:
            self._network._convey(
                peer.address, self._address, answer, partial(call.finish, answer), lose=None
            )

        try:
            self._network._convey(self._address, peer.address, request, arrive, lose=None)
            if not call.answered.wait(timeout):
                call.fail(f"no answer within {timeout:g} s")
        finally:
            self._exit(call)
            if target is not None:
                target._exit(call)
        outcome = call.outcome
        if isinstance(outcome, RaftError):
            raise TransportError(
                f"{type(request).__name__} to {peer.id} at {peer.address}: {outcome}"
            ) from outcome
        assert outcome is not None
        return outcome

    def pipeline(
        self,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> AppendPipeline:
        target = self._network._serving(peer.address)
        if target is None:
            raise TransportError(f"pipeline to {peer.id} at {peer.address}: nobody serves there")
        stream = _InmemPipeline(self, target, peer, on_reply, on_error)
        self._enter(stream)
        if not target._try_enter(stream):
            self._exit(stream)
            raise TransportError(f"pipeline to {peer.id} at {peer.address}: it has just closed")
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
        target = self._network._serving(peer.address)
        if target is None:
            raise TransportError(f"{what}: nobody serves there")
        sender = SnapshotSender(self._network.runtime, what, request, source, timeout, is_over)
        stream = _InmemSnapshot(self, target, request, sender)
        self._enter(stream)
        try:
            target._try_enter(stream)
            return stream.run()
        finally:
            stream.end()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            broken, self._open = self._open, set()
        self._network._leave(self)
        for one in broken:
            one.fail(f"the transport at {self._address} was closed")

    def _enter(self, one: _Call | _InmemPipeline | _InmemSnapshot) -> None:
        if not self._try_enter(one):
            raise TransportError(one.failure or f"the transport at {self._address} is closed")

    def _try_enter(self, one: _Call | _InmemPipeline | _InmemSnapshot) -> bool:
        with self._lock:
            if not self._closed:
                self._open.add(one)
                return True
        one.fail(f"the transport at {self._address} is closed")
        return False

    def _exit(self, one: _Call | _InmemPipeline | _InmemSnapshot) -> None:
        with self._lock:
            self._open.discard(one)

    def _receive(
        self,
        request: Request,
        respond: Callable[[Response | RaftError], None],
        is_abandoned: Callable[[], bool],
    ) -> None:
        handler = self._handler
        assert handler is not None  # _serving() looked
        try:
            handler.receive(IncomingRpc(request, respond, _size_of(request), is_abandoned))
        except Exception as error:  # its bug must not end the caller's thread
            _log.exception("the handler at %s failed", self._address)
            respond(TransportError(f"the handler at {self._address} failed: {error!r}"))


class _Call:
    """One request that somebody waits for."""

    __slots__ = ("answered", "outcome")

    def __init__(self, runtime: Runtime) -> None:
        self.answered = runtime.signal()
        self.outcome: Response | RaftError | None = None

    @property
    def failure(self) -> str:
        return str(self.outcome)

    def finish(self, outcome: Response | RaftError) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.answered.set()

    def fail(self, reason: str) -> None:
        self.finish(TransportError(reason))


class _Slot:
    """A request of a pipeline, in line for its answer."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: Response | RaftError | None = None


class _InmemPipeline(AppendPipeline):
    def __init__(
        self,
        source: InmemTransport,
        target: InmemTransport,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> None:
        self._source = source
        self._target = target
        self._peer = peer
        self._on_reply = on_reply
        self._on_error = on_error
        self._lock = source._network.runtime.lock()
        self._slots: deque[_Slot] = deque()
        self.failure = ""
        self._ended = False  # nothing is called any more
        self._calling = False
        self._request_due = 0.0
        self._reply_due = 0.0

    def send(self, request: AppendEntriesRequest) -> None:
        slot = _Slot()
        with self._lock:
            refused = self._ended or bool(self.failure)
            if not refused:
                self._slots.append(slot)
        if refused:
            raise TransportError(self._describe(self.failure or "it is closed"))

        network, source, target = self._source._network, self._source, self._target

        def arrive() -> None:
            if not self._ended:
                target._receive(request, respond, lambda: self._ended)

        def respond(answer: Response | RaftError) -> None:
            self._reply_due = network._convey(
                target.local_address,
                source.local_address,
                answer,
                partial(self._answered, slot, answer),
                partial(self.fail, "an answer was lost"),
                self._reply_due,
            )

        self._request_due = network._convey(
            source.local_address,
            target.local_address,
            request,
            arrive,
            partial(self.fail, "a request was lost"),
            self._request_due,
        )

    def close(self) -> None:
        self._end()
        with self._lock:
            self._slots.clear()

    def fail(self, reason: str) -> None:
        """Break the stream; what was answered before is still delivered first."""
        with self._lock:
            self.failure = self.failure or reason
        self._call_back()

    def _answered(self, slot: _Slot, answer: Response | RaftError) -> None:
        slot.answer = answer
        self._call_back()

    def _call_back(self) -> None:
        """Call on_reply and on_error for all that is due: in order, one thread at a time."""
        with self._lock:
            if self._calling:
                return  # that thread looks again before it leaves
            self._calling = True
        while True:
            with self._lock:
                due = self._next()
                if due is None:
                    self._calling = False
                    return
            try:
                due()
            except BaseException:
                self._calling = False
                raise

    def _next(self) -> Callable[[], None] | None:
        if self._ended:
            return None
        answer = self._slots[0].answer if self._slots else None
        if isinstance(answer, AppendEntriesResponse):
            self._slots.popleft()
            return partial(self._on_reply, answer)
        if answer is not None:
            self.failure = str(answer)  # the first error ends the stream
        if not self.failure:
            return None
        error = TransportError(self._describe(self.failure))
        if isinstance(answer, RaftError):
            error.__cause__ = answer
        self._ended = True
        return partial(self._broke, error)

    def _broke(self, error: RaftError) -> None:
        self._end()
        self._on_error(error)

    def _end(self) -> None:
        self._ended = True
        self._source._exit(self)
        self._target._exit(self)

    def _describe(self, reason: str) -> str:
        return f"pipeline to {self._peer.id} at {self._peer.address}: {reason}"


class _InmemSnapshot:
    """A snapshot on its way from ``source`` to ``target``."""

    def __init__(
        self,
        source: InmemTransport,
        target: InmemTransport,
        request: InstallSnapshotRequest,
        sender: SnapshotSender,
    ) -> None:
        self._source = source
        self._target = target
        self._request = request
        self._sender = sender
        self._receiver = SnapshotReceiver(source._network.runtime, request.size, sender.make_room)
        self.failure = ""
        self._due = 0.0

    def run(self) -> InstallSnapshotResponse:
        self._convey(self._request, self._begin)
        for _ in range(CHUNKS_AHEAD):
            self._sender.make_room()
        return self._sender.run(
            lambda data: self._convey(SnapshotChunk(data), partial(self._receiver.put, data)),
            # The end is a message too, and can be lost.
            lambda: self._convey(SnapshotChunk(b""), self._receiver.close),
        )

    def fail(self, reason: str) -> None:
        """Break the stream; both ends learn of it."""
        self.failure = self.failure or reason
        self._sender.fail(reason)
        self._receiver.fail(reason)

    def end(self) -> None:
        self._receiver.fail("the sender gave up")
        self._source._exit(self)
        self._target._exit(self)

    def _convey(self, message: InstallSnapshotRequest | SnapshotChunk, arrive: Callable[[], None]) -> None:
        source, target = self._source, self._target
        lose = partial(self.fail, "a message was lost")
        self._due = source._network._convey(
            source.local_address, target.local_address, message, arrive, lose, self._due
        )

    def _begin(self) -> None:
        if not self.failure:
            self._source._network.runtime.spawn(
                f"pyraft-inmem-{self._target.local_address}-snapshot", self._receive
            )

    def _receive(self) -> None:
        """Let the handler read; on a thread of its own."""
        target = self._target
        try:
            assert target._handler is not None  # _serving() looked
            answer = target._handler.receive_snapshot(self._request, self._receiver)
        except RaftError as error:
            answer = error
        except Exception as error:
            _log.exception("the handler at %s failed", target.local_address)
            answer = TransportError(f"the handler at {target.local_address} failed: {error!r}")
        self._source._network._convey(
            target.local_address,
            self._source.local_address,
            answer,
            partial(self._answered, answer),
            partial(self.fail, "the answer was lost"),
        )

    def _answered(self, answer: InstallSnapshotResponse | RaftError) -> None:
        if isinstance(answer, RaftError):
            refusal = TransportError(f"{self._sender.what}: {answer}")
            refusal.__cause__ = answer
            self._sender.finish(refusal)
        else:
            self._sender.finish(answer)


def _size_of(request: Request) -> int:
    if not isinstance(request, AppendEntriesRequest):
        return _PER_ENTRY_BYTES
    return (
        sum(len(log.data) + len(log.extensions) + _PER_ENTRY_BYTES for log in request.entries)
        + _PER_ENTRY_BYTES
    )
