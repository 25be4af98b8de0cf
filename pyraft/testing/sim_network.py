"""The network of a simulation: real wire bytes, carried by the scheduler's timers.

Every message is encoded when it is sent and decoded where it arrives, so no object is shared.
What is lost is silent: a call runs into its deadline.  A stream (a pipeline, a snapshot) keeps its
order and breaks when it loses a message, as a connection does; its ends learn of that soon, late or
not at all.  Requests arrive on a task of the receiving server, one for each, so that they meet its other
threads at any point.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol, TypeVar

from ..configuration import Server
from ..errors import RaftError, TransportError, UnsupportedProtocolError
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    Response,
)
from ..transport.base import AppendPipeline, IncomingRpc, RpcHandler, Transport
from ..transport.snapshot_stream import CHUNKS_AHEAD, SnapshotReceiver, SnapshotSender
from ..transport.wire import (
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
from .sim_runtime import Scheduler, SimRuntime, SimSignal

Answer = Response | RaftError
R = TypeVar("R")

_SNAPSHOT_CHUNK_BYTES = 256
"""Small, so that small snapshots take many messages."""


class NetworkWatcher(Protocol):
    """Sees every message at the moment when it is sent."""

    def request_sent(self, src: str, dst: str, request: AnyRequest) -> None: ...

    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None: ...


class NetworkJournal(Protocol):
    """Learns what became of messages."""

    def follow(self, message: object, arrive: Callable[[], None]) -> Callable[[], None]:
        """``arrive``, which is called where and when ``message`` arrives, and tells of it first."""


@dataclass
class Conditions:
    """What the network does to messages.  Probabilities per message, seconds one way."""

    delay: float = 0.0005
    """Every message takes this long ..."""
    jitter: float = 0.001
    """... and a random time of this mean on top, so that messages overtake each other."""
    loss: float = 0.0
    duplication: float = 0.0
    lateness: float = 0.0
    """The probability of a delay of up to ``late_by``: delivery after everything has changed."""
    late_by: float = 3.0
    knows_of_breaks: float = 0.7
    """The probability that the sender is told of a broken stream (a reset arrives)."""


class SimNetwork:
    """Connects the transports of the simulated servers.

    Attributes:
        conditions: for every link.
        counts: of what happened to messages.
        streams_opened: how many pipelines, by the address of who sends.
        snapshot_chunk_bytes: the size of a snapshot's pieces.
        journal: learns what became of each message, None = nobody does.
    """

    def __init__(self, scheduler: Scheduler, watchers: Iterable[NetworkWatcher] = ()) -> None:
        self.scheduler = scheduler
        self.conditions = Conditions()
        self.counts = {
            "sent": 0,
            "lost": 0,
            "duplicated": 0,
            "again": 0,
            "late": 0,
            "blocked": 0,
            "broken": 0,
        }
        self.streams_opened: Counter[str] = Counter()
        self.snapshot_chunk_bytes = _SNAPSHOT_CHUNK_BYTES
        self.watchers = list(watchers)
        self.journal: NetworkJournal | None = None
        self._random: random.Random = scheduler.random("network")
        self._transports: dict[str, SimTransport] = {}
        self._group_of: dict[str, int] = {}
        self._one_way: list[tuple[str, str]] = []
        self._slow: dict[tuple[str, str], float] = {}
        self._cuts: dict[object, frozenset[tuple[str, str]]] = {}
        self._world = 0  # how often all was lost; messages of another one arrive nowhere

    # -- for stories and faults ----------------------------------------------------------------

    def partition(self, *groups: Iterable[str]) -> None:
        """Let only servers of one group reach each other; those named in none form one more."""
        self._group_of = {address: number for number, group in enumerate(groups, 1) for address in group}

    def block(self, src: str, dst: str) -> None:
        """Lose what ``src`` sends to ``dst``; the other way stays open."""
        self._one_way.append((src, dst))

    def cut(self, owner: object, links: Iterable[tuple[str, str]]) -> None:
        """Lose what is sent on ``links``, each (from, to), until ``mend(owner)`` or another cut of its."""
        self._cuts[owner] = frozenset(links)

    def mend(self, owner: object) -> None:
        """End the cut of ``owner``; those of others stay."""
        self._cuts.pop(owner, None)

    def deliver_again(self, src: str, dst: str, request: Request, seconds: float) -> None:
        """Bring a copy of a request that ``src`` once sent, so late; its answer goes to nobody."""
        source = self._transports.get(src)
        if source is None:
            return
        copy = _Call(source, dst, METHODS[type(request)])
        arrive = copy.made_of(request)
        self.counts["again"] += 1
        self.scheduler.call_at(
            self.scheduler.time + seconds, partial(self._arrive, self._world, src, dst, arrive)
        )

    def lose_all(self) -> None:
        """Lose every message that is on its way and stands for itself."""
        self._world += 1

    def slow(self, src: str, dst: str, seconds: float) -> None:
        """Let messages from ``src`` to ``dst`` take ``seconds`` more; 0 = as before."""
        self._slow[src, dst] = seconds

    def heal(self) -> None:
        """End partitions, one-way blocks and slow links; ``conditions`` stay."""
        self._group_of = {}
        self._one_way = []
        self._slow = {}
        self._cuts = {}

    def reachable(self, src: str, dst: str) -> bool:
        """Whether a message from ``src`` arrives at ``dst`` now."""
        groups = self._group_of
        if groups and groups.get(src, 0) != groups.get(dst, 0):
            return False
        link = (src, dst)
        if self._cuts and any([link in links for links in self._cuts.values()]):
            return False
        return link not in self._one_way

    def reset_connections(self, address: str) -> None:
        """Nobody serves there any more, and the machine lets those know who wait; after a power cut none does."""
        for transport in self._transports.values():
            for reset in transport.connections_to(address):
                seconds = self.tells_of_break()
                if seconds is not None and self.reachable(address, transport.local_address):
                    self.scheduler.call_at(self.scheduler.time + seconds, reset)

    # -- for the transports ----------------------------------------------------------------------

    def join(self, transport: SimTransport) -> None:
        """Take an address; a crashed incarnation's is free."""
        taken = self._transports.get(transport.local_address)
        if taken is not None and taken.is_serving:
            raise TransportError(f"address {transport.local_address} is taken on this network")
        self._transports[transport.local_address] = transport

    def is_taken_by(self, transport: SimTransport) -> bool:
        """Whether its address still belongs to it, and not to a later incarnation."""
        return self._transports.get(transport.local_address) is transport

    def serving(self, address: str) -> SimTransport | None:
        """Who serves there, or None."""
        transport = self._transports.get(address)
        return transport if transport is not None and transport.is_serving else None

    def transit(self, src: str, dst: str) -> float | None:
        """How long the next message takes, or None if it is lost."""
        conditions, rng = self.conditions, self._random
        self.counts["sent"] += 1
        if conditions.loss and rng.random() < conditions.loss:
            self.counts["lost"] += 1
            return None
        seconds = (
            conditions.delay + rng.expovariate(1.0) * conditions.jitter + self._slow.get((src, dst), 0.0)
        )
        if conditions.lateness and rng.random() < conditions.lateness:
            self.counts["late"] += 1
            seconds += rng.random() * conditions.late_by
        return seconds

    def followed(self, message: object, arrive: Callable[[], None]) -> Callable[[], None]:
        """``arrive``, which also tells the journal."""
        return arrive if self.journal is None else self.journal.follow(message, arrive)

    def carry(self, src: str, dst: str, payload: bytes, arrive: Callable[[], None]) -> None:
        """Bring one message that stands for itself: it may be lost, doubled and overtaken."""
        scheduler = self.scheduler
        scheduler.mix(zlib.crc32(payload))
        copies = 1
        if self.conditions.duplication and self._random.random() < self.conditions.duplication:
            self.counts["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            seconds = self.transit(src, dst)
            if seconds is not None:
                scheduler.call_at(
                    scheduler.time + seconds, partial(self._arrive, self._world, src, dst, arrive)
                )

    def _arrive(self, world: int, src: str, dst: str, arrive: Callable[[], None]) -> None:
        # Looked at on arrival: a partition also stops what is on its way.
        if world == self._world and self.reachable(src, dst):
            arrive()
        else:
            self.counts["blocked"] += 1

    def tells_of_break(self) -> float | None:
        """After how many seconds an end of a broken stream learns of it, or None: never."""
        if self._random.random() < self.conditions.knows_of_breaks:
            return self._random.expovariate(1.0) * 0.05
        return None


class SimTransport(Transport):
    """One incarnation's end of a ``SimNetwork``."""

    def __init__(self, network: SimNetwork, runtime: SimRuntime, address: str) -> None:
        """Take ``address``.

        Raises:
            TransportError: a living server has it.
        """
        self.network = network
        self.runtime = runtime
        self._address = address
        self._handler: RpcHandler | None = None
        self._closed = False
        self._calls: dict[_Call, None] = {}
        self._streams: dict[_Stream, None] = {}
        self._snapshots_out: dict[_SnapshotStream, None] = {}
        self._snapshots_in: dict[_SnapshotStream, None] = {}
        network.join(self)

    @property
    def local_address(self) -> str:
        return self._address

    @property
    def is_serving(self) -> bool:
        """Whether requests that arrive find anybody."""
        return self._handler is not None and not self._closed and not self.runtime.group.dead

    def serve(self, handler: RpcHandler) -> None:
        self._handler = handler

    def call(self, peer: Server, request: Request, timeout: float) -> Response:
        self.runtime.enter()
        if self._closed:
            raise TransportError(f"the transport at {self._address} is closed")
        call = _Call(self, peer.address, METHODS[type(request)])
        self._calls[call] = None
        call.send(request)
        try:
            call.answered.wait(timeout)
        finally:
            self._calls.pop(call, None)
        call.given_up = True
        if isinstance(call.outcome, RaftError):
            raise TransportError(
                f"{type(request).__name__} to {peer.id} at {peer.address}: {call.outcome}"
            ) from call.outcome
        if call.outcome is None:
            raise TransportError(
                f"{type(request).__name__} to {peer.id} at {peer.address}: no answer in {timeout:g} s"
            )
        return call.outcome

    def pipeline(
        self,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> AppendPipeline:
        self.runtime.enter()
        if self._closed:
            raise TransportError(f"the transport at {self._address} is closed")
        stream = _Stream(self, peer, on_reply, on_error)
        self._streams[stream] = None
        self.network.streams_opened[self._address] += 1
        return stream

    def install_snapshot(
        self,
        peer: Server,
        request: InstallSnapshotRequest,
        source: BinaryIO,
        timeout: float,
        is_over: Callable[[], bool],
    ) -> InstallSnapshotResponse:
        self.runtime.enter()
        what = f"snapshot to {peer.id} at {peer.address}"
        if self._closed:
            raise TransportError(f"{what}: the transport at {self._address} is closed")
        chunk_bytes = self.network.snapshot_chunk_bytes
        sender = SnapshotSender(self.runtime, what, request, source, timeout, is_over, chunk_bytes)
        stream = _SnapshotStream(self, peer, request, sender)
        self._snapshots_out[stream] = None
        try:
            return stream.run()
        finally:
            self._snapshots_out.pop(stream, None)

    def close(self) -> None:
        self.runtime.enter()
        self._closed = True
        for call in list(self._calls):
            call.finish(TransportError(f"the transport at {self._address} was closed"))
        for stream in list(self._streams):
            stream.break_off(f"the transport at {self._address} was closed")
        for one in list(self._snapshots_out):
            one.break_at_sender(f"the transport at {self._address} was closed")
        for one in list(self._snapshots_in):
            one.break_at_receiver(f"the transport at {self._address} was closed")
        if self.network.is_taken_by(self):
            self.network.reset_connections(self._address)
        self.runtime.scheduler.switch()

    def receive(
        self,
        src: str,
        method: Method,
        payload: bytes,
        respond: Callable[[Request, Answer], None],
        is_abandoned: Callable[[], bool],
    ) -> None:
        """Decode a request that arrived and give it to the server.  On a task of this server."""
        self.runtime.enter()
        handler = self._handler
        if handler is None or self._closed:
            return
        request = method.decode_request(payload)
        handler.receive(IncomingRpc(request, partial(respond, request), len(payload), is_abandoned))

    def receive_snapshot(
        self, request: InstallSnapshotRequest, stream: _SnapshotStream, receiver: SnapshotReceiver
    ) -> InstallSnapshotResponse | RaftError | None:
        """Let the server read a snapshot, and return its answer.  On a task of this server."""
        self.runtime.enter()
        handler = self._handler
        if handler is None or self._closed:
            return None
        self._snapshots_in[stream] = None
        try:
            return handler.receive_snapshot(request, receiver)
        except RaftError as error:
            return error
        finally:
            self._snapshots_in.pop(stream, None)

    def connections_to(self, address: str) -> list[Callable[[], None]]:
        """What resets each connection that this end has to ``address``."""
        reason = "the connection was reset"
        resets: list[Callable[[], None]] = [
            partial(call.finish, TransportError(reason)) for call in self._calls if call.dst == address
        ]
        resets += [partial(stream.break_off, reason) for stream in self._streams if stream.dst == address]
        resets += [partial(one.break_at_sender, reason) for one in self._snapshots_out if one.dst == address]
        resets += [partial(one.break_at_receiver, reason) for one in self._snapshots_in if one.src == address]
        return resets

    def forget_stream(self, stream: _Stream) -> None:
        """The stream has ended."""
        self._streams.pop(stream, None)


def _encode_answer(encode: Callable[[R], bytes], answer: R | RaftError) -> tuple[bool, bytes]:
    """(whether it is an error, bytes)."""
    if isinstance(answer, UnsupportedProtocolError):
        return True, b"U" + str(answer).encode()
    if isinstance(answer, RaftError):
        return True, b"T" + str(answer).encode()
    return False, encode(answer)


def _decode_answer(decode: Callable[[bytes], R], is_error: bool, payload: bytes) -> R | RaftError:
    if not is_error:
        return decode(payload)
    text = payload[1:].decode()
    return UnsupportedProtocolError(text) if payload[:1] == b"U" else TransportError(text)


class _Call:
    """One request that somebody waits for."""

    def __init__(self, source: SimTransport, dst: str, method: Method) -> None:
        self.answered = SimSignal(source.runtime)
        self.outcome: Answer | None = None
        self.given_up = False
        self._source = source
        self._network = source.network
        self._src = source.local_address
        self.dst = dst
        self._method = method
        self._payload = b""

    def made_of(self, request: Request) -> Callable[[], None]:
        """What happens when ``request`` arrives."""
        self._payload = self._method.encode_request(request)
        return self._arrive

    def send(self, request: Request) -> None:
        self._payload = self._method.encode_request(request)
        for watcher in self._network.watchers:
            watcher.request_sent(self._src, self.dst, request)
        arrive = self._network.followed(request, self._arrive)
        self._network.carry(self._src, self.dst, self._payload, arrive)

    def _arrive(self) -> None:
        target = self._network.serving(self.dst)
        if target is None:
            refused = TransportError("nobody serves there")
            self._network.carry(self.dst, self._src, b"", partial(self.finish, refused))
            return
        target.runtime.scheduler.spawn(
            f"net-{self.dst}-from-{self._src}",
            partial(
                target.receive, self._src, self._method, self._payload, self._respond, self._is_abandoned
            ),
            target.runtime.group,
            is_ours=True,
        )

    def _is_abandoned(self) -> bool:
        # The news that a caller has given up takes the same way as everything else.
        return self.given_up and self._network.reachable(self._src, self.dst)

    def _respond(self, request: Request, answer: Answer) -> None:
        scheduler = self._network.scheduler
        scheduler.switch()
        is_error, payload = _encode_answer(self._method.encode_response, answer)
        if not isinstance(answer, RaftError):
            for watcher in self._network.watchers:
                watcher.response_sent(self.dst, self._src, request, answer)

        def arrive() -> None:
            self.finish(_decode_answer(self._method.decode_response, is_error, payload))

        self._network.carry(self.dst, self._src, payload, self._network.followed(answer, arrive))
        scheduler.switch()

    def finish(self, outcome: Answer) -> None:
        """Let the caller go on; the first outcome counts.  Between two steps."""
        if self.outcome is None and not self._source.runtime.group.dead:
            self.outcome = outcome
            self.answered.happen()


class _Lane:
    """One direction of a stream: in order, worked off by one task of the receiving server."""

    def __init__(self, network: SimNetwork, src: str, dst: str, on_break: Callable[[], None]) -> None:
        self._network = network
        self._src = src
        self._dst = dst
        self._on_break = on_break
        self._due = 0.0
        self._broken = False
        self._arrived: deque[Callable[[], None]] = deque()
        self._working = False

    def carry(
        self, payload: bytes, receiver: Callable[[], SimRuntime | None], work: Callable[[], None]
    ) -> None:
        """Bring one message; after a loss nothing arrives any more."""
        network, scheduler = self._network, self._network.scheduler
        scheduler.mix(zlib.crc32(payload))
        if self._broken:
            return
        seconds = network.transit(self._src, self._dst)
        if seconds is None:
            self._lose()
            return
        self._due = max(self._due, scheduler.time + seconds)
        scheduler.call_at(self._due, partial(self._arrive, receiver, work))

    def _arrive(self, receiver: Callable[[], SimRuntime | None], work: Callable[[], None]) -> None:
        if self._broken:
            return
        runtime = receiver()
        if runtime is None or not self._network.reachable(self._src, self._dst):
            self._lose()
            return
        self._arrived.append(work)
        if not self._working:
            self._working = True
            name = f"net-{self._dst}-stream-{self._src}"
            runtime.scheduler.spawn(name, self._work, runtime.group, is_ours=True)

    def _work(self) -> None:
        while self._arrived:
            self._network.scheduler.switch()
            self._arrived.popleft()()
        self._working = False

    def _lose(self) -> None:
        self._broken = True
        self._network.counts["broken"] += 1
        self._on_break()


class _Slot:
    """A request of a stream, in line for its answer."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: Answer | None = None


class _Stream(AppendPipeline):
    def __init__(
        self,
        source: SimTransport,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> None:
        self._source = source
        self.dst = peer.address
        self._peer = peer
        self._on_reply = on_reply
        self._on_error = on_error
        self._network = source.network
        src, dst = source.local_address, peer.address
        self._there = _Lane(source.network, src, dst, self._lost_a_message)
        self._back = _Lane(source.network, dst, src, self._lost_a_message)
        self._target: SimTransport | None = None  # who took the first message: a stream is one connection
        self._slots: deque[_Slot] = deque()  # at the receiver: requests in order of arrival
        self._ended = False
        self._failure = ""

    def send(self, request: AppendEntriesRequest) -> None:
        self._source.runtime.enter()
        if self._ended or self._failure:
            raise TransportError(self._describe(self._failure or "it is closed"))
        payload = PIPELINE.encode_request(request)
        src, dst = self._source.local_address, self._peer.address
        for watcher in self._network.watchers:
            watcher.request_sent(src, dst, request)

        def work() -> None:
            target, slot = self._target, _Slot()
            assert target is not None
            self._slots.append(slot)
            target.receive(src, PIPELINE, payload, partial(self._respond, slot), lambda: self._ended)

        self._there.carry(payload, self._receiver, self._network.followed(request, work))
        self._source.runtime.scheduler.switch()

    def close(self) -> None:
        self._source.runtime.enter()
        self._end()

    def break_off(self, reason: str) -> None:
        """Let this end know that the stream is of no use any more.  Between two steps."""
        if self._failure or self._ended:
            return
        self._failure = reason
        runtime = self._source.runtime
        if not runtime.group.dead:
            runtime.scheduler.spawn(
                f"net-{self._source.local_address}-broken", self._report, runtime.group, is_ours=True
            )

    def _receiver(self) -> SimRuntime | None:
        serving = self._network.serving(self._peer.address)
        if self._target is None:
            self._target = serving
        if serving is None or serving is not self._target:
            return None
        return serving.runtime

    def _respond(self, slot: _Slot, request: Request, answer: Answer) -> None:
        scheduler = self._network.scheduler
        scheduler.switch()
        src, dst = self._peer.address, self._source.local_address
        if not isinstance(answer, RaftError):
            for watcher in self._network.watchers:
                watcher.response_sent(src, dst, request, answer)
        slot.answer = answer
        while self._slots and self._slots[0].answer is not None:
            due = self._slots.popleft().answer
            assert due is not None
            is_error, payload = _encode_answer(PIPELINE.encode_response, due)
            work = partial(self._answered, is_error, payload)
            self._back.carry(payload, self._asker, self._network.followed(due, work))
        scheduler.switch()

    def _asker(self) -> SimRuntime | None:
        runtime = self._source.runtime
        return None if runtime.group.dead else runtime

    def _answered(self, is_error: bool, payload: bytes) -> None:
        answer = _decode_answer(PIPELINE.decode_response, is_error, payload)
        if self._ended or self._failure:
            return
        if isinstance(answer, AppendEntriesResponse):
            self._on_reply(answer)
        else:
            self._failure = str(answer)
            self._report()

    def _lost_a_message(self) -> None:
        seconds = self._network.tells_of_break()
        if seconds is not None:
            scheduler = self._network.scheduler
            scheduler.call_at(scheduler.time + seconds, partial(self.break_off, "the connection was reset"))

    def _report(self) -> None:
        self._source.runtime.enter()
        if not self._ended:
            self._end()
            self._on_error(TransportError(self._describe(self._failure)))

    def _end(self) -> None:
        self._ended = True
        self._source.forget_stream(self)

    def _describe(self, reason: str) -> str:
        return f"pipeline to {self._peer.id} at {self._peer.address}: {reason}"


class _SnapshotStream:
    """A snapshot on its way: pieces there, news of room and the answer back."""

    def __init__(
        self, source: SimTransport, peer: Server, request: InstallSnapshotRequest, sender: SnapshotSender
    ) -> None:
        self.src = source.local_address
        self.dst = peer.address
        self._source = source
        self._network = source.network
        self._request = request
        self._sender = sender
        self._there = _Lane(source.network, self.src, self.dst, self._lost_a_message)
        self._back = _Lane(source.network, self.dst, self.src, self._lost_a_message)
        self._target: SimTransport | None = None  # who took the first message: a stream is one connection
        self._receiver: SnapshotReceiver | None = None

    def run(self) -> InstallSnapshotResponse:
        first = encode_install_snapshot(self._request)
        for watcher in self._network.watchers:
            watcher.request_sent(self.src, self.dst, self._request)
        begin = self._network.followed(self._request, partial(self._begin, first))
        self._there.carry(first, self._there_runtime, begin)
        for _ in range(CHUNKS_AHEAD):
            self._sender.make_room()
        try:
            return self._sender.run(self._carry, self._close)
        except RaftError:
            self._there.carry(b"", self._there_runtime, self._cancelled)
            raise

    def break_at_sender(self, reason: str) -> None:
        """Let the sender know that the stream is of no use any more.  Between two steps."""
        self._tell(self._source.runtime, partial(self._sender.fail, reason))

    def break_at_receiver(self, reason: str) -> None:
        """Let the receiver know that nothing will come any more.  Between two steps."""
        if self._target is not None and self._receiver is not None:
            self._tell(self._target.runtime, partial(self._receiver.fail, reason))

    def _tell(self, runtime: SimRuntime, news: Callable[[], None]) -> None:
        if not runtime.group.dead:
            runtime.scheduler.spawn(f"net-{self.dst}-snapshot-broken", news, runtime.group, is_ours=True)

    # -- the sender's tasks ----------------------------------------------------------------------

    def _carry(self, data: bytes) -> None:
        payload = encode_snapshot_chunk(data)
        self._there.carry(payload, self._there_runtime, partial(self._arrived, payload))
        self._network.scheduler.switch()

    def _close(self) -> None:
        self._there.carry(b"", self._there_runtime, self._ended)
        self._network.scheduler.switch()

    def _answered(self, is_error: bool, payload: bytes) -> None:
        answer = _decode_answer(decode_install_snapshot_response, is_error, payload)
        if isinstance(answer, RaftError):
            refusal = TransportError(f"{self._sender.what}: {answer}")
            refusal.__cause__ = answer
            self._sender.finish(refusal)
        else:
            self._sender.finish(answer)

    # -- the receiver's tasks --------------------------------------------------------------------

    def _begin(self, payload: bytes) -> None:
        target = self._target
        assert target is not None
        request, data = decode_install_snapshot(payload)
        receiver = self._receiver = SnapshotReceiver(target.runtime, request.size, self._taken)
        if data:
            receiver.put(data)
        target.runtime.spawn(
            f"net-{self.dst}-snapshot-{self.src}", partial(self._receive, target, request, receiver)
        )

    def _receive(
        self, target: SimTransport, request: InstallSnapshotRequest, receiver: SnapshotReceiver
    ) -> None:
        answer = target.receive_snapshot(request, self, receiver)
        if answer is None:
            return
        self._network.scheduler.switch()
        if not isinstance(answer, RaftError):
            for watcher in self._network.watchers:
                watcher.response_sent(self.dst, self.src, request, answer)
        is_error, payload = _encode_answer(encode_install_snapshot_response, answer)
        answered = self._network.followed(answer, partial(self._answered, is_error, payload))
        self._back.carry(payload, self._back_runtime, answered)
        self._network.scheduler.switch()

    def _arrived(self, payload: bytes) -> None:
        assert self._receiver is not None
        self._receiver.put(decode_snapshot_chunk(payload))

    def _ended(self) -> None:
        assert self._receiver is not None
        self._receiver.close()

    def _cancelled(self) -> None:
        if self._receiver is not None:
            self._receiver.fail("the sender cancelled it")

    def _taken(self) -> None:
        self._back.carry(b"", self._back_runtime, self._sender.make_room)

    # -- both ------------------------------------------------------------------------------------

    def _there_runtime(self) -> SimRuntime | None:
        serving = self._network.serving(self.dst)
        if self._target is None:
            self._target = serving
        return serving.runtime if serving is not None and serving is self._target else None

    def _back_runtime(self) -> SimRuntime | None:
        runtime = self._source.runtime
        return None if runtime.group.dead else runtime

    def _lost_a_message(self) -> None:
        for tell in (self.break_at_sender, self.break_at_receiver):
            seconds = self._network.tells_of_break()
            if seconds is not None:
                scheduler = self._network.scheduler
                scheduler.call_at(scheduler.time + seconds, partial(tell, "the connection was reset"))
