"""What every ``Transport`` promises, as code.  For whoever writes another one.

    def test_my_transport():
        check_transport(lambda: (MyTransport("127.0.0.1:0"), MyTransport("127.0.0.1:0")))

Needs no test framework.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import RawIOBase
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO, Generic, TypeVar, cast

from ..configuration import Configuration, Server, Suffrage
from ..errors import ConfigError, RaftError, TransportError
from ..log import Log, LogType
from ..messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    Request,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
    RpcHeader,
    StandingRequest,
    StandingResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from ..transport.base import AppendPipeline, IncomingRpc, SnapshotSource, Transport

MakePair = Callable[[], tuple[Transport, Transport]]
_OnSnapshot = Callable[[InstallSnapshotRequest, SnapshotSource], InstallSnapshotResponse | RaftError]
T = TypeVar("T")

_PATIENCE = 10.0
"""Seconds after which something that should have happened counts as never."""
_SHORT = 0.2


def check_transport(make_pair: MakePair) -> None:
    """Raise AssertionError, naming the promise, unless transports made by ``make_pair`` keep them all.

    Args:
        make_pair: makes two fresh transports that can reach each other, not serving yet.
            Called once per promise; the checks close them.

    Raises:
        ConfigError: ``make_pair`` makes no pair of transports.
    """
    _check_arguments(make_pair)
    for promise in PROMISES:
        pair = _Pair(make_pair)
        if promise in SNAPSHOT_PROMISES and not pair.sends_snapshots:
            pair.close()
            continue
        try:
            promise(pair)
        except AssertionError as failure:
            failure.add_note(f"broken promise: {promise.__doc__}")
            raise
        except Exception as error:
            surprise = AssertionError(f"{error!r} where nothing, or a TransportError, was promised")
            surprise.add_note(f"broken promise: {promise.__doc__}")
            raise surprise from error
        finally:
            pair.close()


def _check_arguments(make_pair: Any) -> None:
    if not callable(make_pair):
        raise ConfigError(
            f"make_pair={make_pair!r} is not callable: pass a function that makes two transports"
        )
    try:
        pair = make_pair()
    except Exception as error:
        raise ConfigError(f"make_pair={make_pair!r} cannot make transports: {error!r}") from error
    if not (
        isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(t, Transport) for t in pair)
    ):
        raise ConfigError(f"make_pair={make_pair!r} made {pair!r}, which is no pair of transports")
    if pair[0] is pair[1]:
        raise ConfigError(f"make_pair={make_pair!r} made the same transport twice: it must make two")
    for transport in pair:
        with suppress(Exception, AssertionError):  # whether close() works is a promise of its own
            _soon(transport.close)


class _Handler:
    """The server behind a transport under test: answers by a function, or keeps the request."""

    def __init__(self, answer: Callable[[Request], Response | RaftError | None] | None) -> None:
        self._answer = answer
        self.received: SimpleQueue[IncomingRpc] = SimpleQueue()
        self.on_snapshot: _OnSnapshot = lambda request, source: TransportError("no snapshot expected here")

    def receive(self, rpc: IncomingRpc) -> None:
        answer = None if self._answer is None else self._answer(rpc.request)
        if answer is not None:
            rpc.respond(answer)
        self.received.put(rpc)

    def receive_snapshot(
        self, request: InstallSnapshotRequest, source: SnapshotSource
    ) -> InstallSnapshotResponse | RaftError:
        return self.on_snapshot(request, source)

    def next(self, what: str) -> IncomingRpc:
        try:
            return self.received.get(timeout=_PATIENCE)
        except Empty:
            raise AssertionError(f"{what} never reached the peer's handler") from None


class _Pair:
    """Two transports; ``a`` calls, ``b`` serves."""

    def __init__(self, make_pair: MakePair) -> None:
        self.threads_before = set(threading.enumerate())
        self.a, self.b = make_pair()
        self.threads_made = set(threading.enumerate()) - self.threads_before
        self.peer = Server("b", self.b.local_address)
        self.header = RpcHeader("a", self.a.local_address)
        self.reply_header = RpcHeader("b", self.b.local_address)
        self.sends_snapshots = type(self.a).install_snapshot is not Transport.install_snapshot
        self.sources: list[_Bytes] = []  # what snapshots are read from

    def serve(self, answer: Callable[[Request], Response | RaftError | None] | None) -> _Handler:
        handler = _Handler(answer)
        self.b.serve(handler)
        self.a.serve(_Handler(None))
        return handler

    def vote(self, timeout: float = _PATIENCE, term: int = 7) -> Response:
        return _soon(lambda: self.a.call(self.peer, self.vote_request(term), timeout), timeout)

    def vote_request(self, term: int = 7) -> RequestVoteRequest:
        return RequestVoteRequest(self.header, term, 3, 2)

    def granted(self, term: int = 7) -> RequestVoteResponse:
        return RequestVoteResponse(self.reply_header, term, True)

    def append(self, number: int, entries: Sequence[Log] = ()) -> AppendEntriesRequest:
        return AppendEntriesRequest(self.header, 7, number, 7, entries, 1)

    def appended(self, request: Request) -> AppendEntriesResponse:
        assert isinstance(request, AppendEntriesRequest), f"{request} on the pipeline"
        return AppendEntriesResponse(self.reply_header, 7, request.prev_log_entry, True)

    def threads_left(self) -> list[str]:
        new = set(threading.enumerate()) - self.threads_before
        return sorted(thread.name for thread in new if thread.name != "check-transport")

    def close(self) -> None:
        for source in self.sources:  # a transport that goes on for ever must not do so after the check
            source.end()
        for transport in (self.a, self.b):
            # Whether close() works is a promise of its own; here it only cleans up.
            with suppress(Exception, AssertionError):
                _soon(transport.close)


class _Stream:
    """A pipeline under test, and everything that it has called."""

    def __init__(self, pair: _Pair) -> None:
        self.events: SimpleQueue[AppendEntriesResponse | RaftError] = SimpleQueue()
        self.pipeline: AppendPipeline = _soon(
            lambda: pair.a.pipeline(pair.peer, self.events.put, self.events.put)
        )

    def send(self, request: AppendEntriesRequest) -> None:
        _soon(lambda: self.pipeline.send(request))

    def next(self, what: str) -> AppendEntriesResponse | RaftError:
        try:
            return self.events.get(timeout=_PATIENCE)
        except Empty:
            raise AssertionError(f"{what} never came") from None

    def expect_error(self, when: str) -> None:
        event = self.next(f"on_error {when}")
        assert isinstance(event, RaftError), f"on_reply({event}) {when}: expected on_error"

    def expect_nothing(self, when: str) -> None:
        with suppress(Empty):
            raise AssertionError(f"{self.events.get(timeout=_SHORT)!r} was delivered {when}")


def _soon(function: Callable[[], T], timeout: float = 0.0) -> T:
    """What ``function`` returns or raises; an AssertionError if it does neither in time."""
    outcome: SimpleQueue[Callable[[], T]] = SimpleQueue()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            caught = error
            outcome.put(lambda: _raise(caught))
        else:
            outcome.put(lambda: result)

    threading.Thread(target=run, daemon=True, name="check-transport").start()
    try:
        return outcome.get(timeout=timeout + _PATIENCE)()
    except Empty:
        raise AssertionError(f"a call did not return within {timeout + _PATIENCE:g} s") from None


def _raise(error: BaseException) -> Any:
    raise error


def _expect_transport_error(function: Callable[[], object], when: str) -> TransportError:
    try:
        result = _soon(function)
    except TransportError as error:
        return error
    except AssertionError:
        raise
    except BaseException as error:
        raise AssertionError(f"{when}: {error!r} instead of a TransportError") from error
    raise AssertionError(f"{when}: {result!r} instead of a TransportError")


def _eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}, even after {_PATIENCE:g} s"
        time.sleep(0.002)


def _entries(count: int, size: int = 5) -> list[Log]:
    return [Log(i, 7, LogType.COMMAND, b"x" * size) for i in range(1, count + 1)]


def _entries_of_every_kind() -> list[Log]:
    return [
        Log(4, 2, LogType.COMMAND, b"set x", b"trace", 1_700_000_000_123_456_789),
        Log(5, 3, LogType.NOOP),
        Log(6, 3, LogType.BARRIER),
        Log(2**63, 2**63, LogType.CONFIGURATION, bytes(range(256))),
    ]


# ── the promises ──


def making_one_starts_no_thread(pair: _Pair) -> None:
    """Constructing a transport starts no thread; serve() does."""
    assert not pair.threads_made, f"threads {sorted(t.name for t in pair.threads_made)}"


def addresses_tell_transports_apart(pair: _Pair) -> None:
    """local_address is where others reach this transport, and no other one."""
    a, b = pair.a.local_address, pair.b.local_address
    assert a and b, "an empty local_address"
    assert a != b, f"both transports have the address {a}"


def every_message_arrives_as_it_was_sent(pair: _Pair) -> None:
    """Requests and answers of every type arrive with every field."""
    entries = _entries_of_every_kind()
    header, reply = pair.header, pair.reply_header
    conversations: list[tuple[Request, Response]] = [
        (
            AppendEntriesRequest(header, 7, 3, 2, entries, 3),
            AppendEntriesResponse(reply, 8, 3, False, True),
        ),
        (AppendEntriesRequest(header, 7), AppendEntriesResponse(reply, 7, 3, True, False)),
        (RequestVoteRequest(header, 7, 6, 3, True), RequestVoteResponse(reply, 7, True)),
        (RequestVoteRequest(header, 7, 6, 3), RequestVoteResponse(reply, 7, False)),
        (RequestPreVoteRequest(header, 8, 6, 3), RequestPreVoteResponse(reply, 7, True)),
        (TimeoutNowRequest(header), TimeoutNowResponse(reply)),
        (TimeoutNowRequest(header, 7), TimeoutNowResponse(reply)),
        (StandingRequest(header), StandingResponse(reply, 7, 6)),
        (ReadIndexRequest(header), ReadIndexResponse(reply, 7, 6)),
    ]
    answers = [answer for _, answer in conversations]
    handler = pair.serve(lambda request: answers.pop(0))
    for request, answer in conversations:
        got = _soon(lambda request=request: pair.a.call(pair.peer, request, _PATIENCE))  # type: ignore[misc]
        assert got == answer, f"the answer {answer} arrived as {got}"
        received = handler.next(f"{request}").request
        assert _same(received, request), f"the request {request} arrived as {received}"


def _same(received: Request, sent: Request) -> bool:
    if isinstance(received, AppendEntriesRequest) and isinstance(sent, AppendEntriesRequest):
        return (
            list(received.entries) == list(sent.entries)
            and [log.encoded for log in received.entries] == [log.encoded for log in sent.entries]
            and (received.header, received.term, received.prev_log_entry, received.prev_log_term)
            == (sent.header, sent.term, sent.prev_log_entry, sent.prev_log_term)
            and received.leader_commit_index == sent.leader_commit_index
        )
    return received == sent


def both_ends_serve_and_call(pair: _Pair) -> None:
    """A transport that serves can call, and be called by the one that it calls."""
    pair.b.serve(_Handler(lambda request: pair.granted()))
    pair.a.serve(_Handler(lambda request: RequestVoteResponse(pair.header, 7, False)))
    assert pair.vote() == pair.granted()
    a = Server("a", pair.a.local_address)
    answer = _soon(lambda: pair.b.call(a, RequestVoteRequest(pair.reply_header, 7, 3, 2), _PATIENCE))
    assert answer == RequestVoteResponse(pair.header, 7, False)


def size_bytes_weighs_the_entries(pair: _Pair) -> None:
    """IncomingRpc.size_bytes is at least the size of the commands inside: queues are bounded by it."""
    handler = pair.serve(pair.appended)
    _soon(lambda: pair.a.call(pair.peer, pair.append(1, _entries(100, 1000)), _PATIENCE))
    size = handler.next("the request").size_bytes
    assert size >= 100_000, f"100 commands of 1000 bytes have size_bytes={size}"


def answers_may_come_later_and_from_any_thread(pair: _Pair) -> None:
    """The handler may answer after receive() has returned, on another thread."""
    handler = pair.serve(None)
    answers = _Later(lambda: pair.vote())
    rpc = handler.next("the request")
    assert not rpc.abandoned, "abandoned while the caller waits"
    threading.Thread(target=rpc.respond, args=(pair.granted(),), daemon=True).start()
    assert answers.result() == pair.granted()


def a_waiting_request_delays_no_other(pair: _Pair) -> None:
    """Votes and heartbeats get through while entries and other calls wait for their answers."""
    calls = []

    def answer(request: Request) -> Response | None:
        if isinstance(request, RequestVoteRequest):
            return pair.granted(request.term)
        if isinstance(request, AppendEntriesRequest) and request.is_heartbeat:
            return AppendEntriesResponse(pair.reply_header, request.term)
        if isinstance(request, AppendEntriesRequest) and request.prev_log_entry == 100:
            calls.append(request)
        return None

    pair.serve(answer)
    stream = _Stream(pair)
    for number in range(1, 9):
        stream.send(pair.append(number, _entries(1)))
    waiting = [_Later(lambda: pair.a.call(pair.peer, pair.append(100, _entries(1)), 600.0)) for _ in range(4)]
    _eventually(lambda: len(calls) == 4, "requests that wait for an answer keep others from the handler")
    assert pair.vote() == pair.granted()
    heartbeat = AppendEntriesRequest(pair.header, 7)
    answered = _soon(lambda: pair.a.call(pair.peer, heartbeat, _PATIENCE))
    assert answered == AppendEntriesResponse(pair.reply_header, 7)
    pair.b.close()
    for one in waiting:
        _expect_transport_error(one.result, "a call whose peer closed")


def everybody_gets_their_own_answer(pair: _Pair) -> None:
    """Calls from many threads at once are not mixed up."""
    pair.serve(lambda request: pair.granted(getattr(request, "term", 0)))
    waiting = [(term, _Later(lambda term=term: pair.vote(term=term))) for term in range(1, 17)]  # type: ignore[misc]
    for term, one in waiting:
        answer = one.result()
        assert answer == pair.granted(term), f"the call of term {term} got {answer}"


def a_call_ends_at_its_deadline(pair: _Pair) -> None:
    """call() raises TransportError once its timeout has passed, not much earlier and not much later."""
    pair.serve(None)
    began = time.monotonic()
    _expect_transport_error(lambda: pair.vote(_SHORT), "a call that nobody answers")
    took = time.monotonic() - began
    assert took >= _SHORT * 0.9, f"a timeout of {_SHORT} s was over after {took:.3f} s"
    assert took < _SHORT + 5.0, f"a timeout of {_SHORT} s took {took:.1f} s"


def a_caller_that_gave_up_can_be_told(pair: _Pair) -> None:
    """IncomingRpc.abandoned becomes True when the caller has gone; a late answer does no harm."""
    handler = pair.serve(lambda request: pair.granted() if request == pair.vote_request(8) else None)
    _expect_transport_error(lambda: pair.vote(_SHORT), "a call that nobody answers")
    rpc = handler.next("the request")
    _eventually(lambda: rpc.abandoned, "abandoned stayed False after the caller had given up")
    rpc.respond(pair.granted())
    assert pair.vote(term=8) == pair.granted()


def an_error_answer_reaches_the_caller(pair: _Pair) -> None:
    """A RaftError given to respond() raises TransportError with its text at the caller; the next call works."""
    answers: list[Response | RaftError] = [RaftError("boom 42"), pair.granted()]
    pair.serve(lambda request: answers.pop(0))
    error = _expect_transport_error(pair.vote, "a call that was answered by an error")
    assert "boom 42" in str(error), f"the text of the error is lost: {error}"
    assert pair.vote() == pair.granted()


def nobody_there_is_an_error_that_names_the_peer(pair: _Pair) -> None:
    """A peer that is not there raises TransportError, within the timeout, and the text says which peer."""
    pair.serve(None)
    pair.b.close()
    error = _expect_transport_error(lambda: pair.vote(1.0), "a call to a closed transport")
    assert pair.peer.address in str(error), f"no address in: {error}"


def large_messages_pass(pair: _Pair) -> None:
    """3 MiB in one entry and 4096 entries in one request pass, on a call and on a pipeline."""
    handler = pair.serve(pair.appended)
    stream = _Stream(pair)
    for entries in (_entries(1, 3 * 1024 * 1024), _entries(4096)):
        request = pair.append(1, entries)
        _soon(lambda request=request: pair.a.call(pair.peer, request, _PATIENCE))  # type: ignore[misc]
        stream.send(request)
        assert isinstance(stream.next("the answer"), AppendEntriesResponse)
        for _ in range(2):
            received = handler.next("the request").request
            assert _same(received, request), "entries did not arrive as they were sent"


def a_pipeline_keeps_the_order(pair: _Pair) -> None:
    """Requests of a pipeline arrive in order, each is answered once, and answers come in order."""
    handler = pair.serve(pair.appended)
    stream = _Stream(pair)
    numbers = list(range(1, 201))
    for number in numbers:
        stream.send(pair.append(number, _entries(2)))
    answers = [stream.next(f"answer {number}") for number in numbers]
    answered = [a.last_log if isinstance(a, AppendEntriesResponse) else a for a in answers]
    assert answered == numbers, f"answers came as {answered}"
    received = [handler.next("a request").request for _ in numbers]
    arrived = [r.prev_log_entry for r in received if isinstance(r, AppendEntriesRequest)]
    assert arrived == numbers, f"requests arrived as {arrived}"
    stream.expect_nothing("after the last answer")


def a_pipeline_carries_every_field(pair: _Pair) -> None:
    """Requests and answers on a pipeline have all their fields, as on a call, also without entries.

    A follower stores the bytes that arrive: what a pipeline drops is missing on every follower.
    """
    entries = _entries_of_every_kind()
    requests = [
        AppendEntriesRequest(pair.header, 7, 3, 2, entries, 3),
        AppendEntriesRequest(pair.header, 8, 6, 3, (), 4),
        AppendEntriesRequest(pair.header, 9, 6, 3, entries[:1], 6),
    ]
    answers = [
        AppendEntriesResponse(pair.reply_header, 7, 6, True, False),
        AppendEntriesResponse(pair.reply_header, 8, 5, False, True),
        AppendEntriesResponse(pair.reply_header, 2**40, 2**41, False, False),
    ]
    left = list(answers)
    handler = pair.serve(lambda request: left.pop(0))
    stream = _Stream(pair)
    for request, answer in zip(requests, answers, strict=True):
        stream.send(request)
        got = stream.next(f"the answer to {request}")
        assert got == answer, f"the answer {answer} arrived as {got}"
        received = handler.next(f"{request}").request
        assert _same(received, request), f"the request {request} arrived as {received}"


def a_pipeline_does_not_wait_for_answers(pair: _Pair) -> None:
    """send() returns before anything is answered; answers given later come in order."""
    handler = pair.serve(None)
    stream = _Stream(pair)
    for number in range(1, 9):
        stream.send(pair.append(number))
    stream.expect_nothing("before any answer was given")
    for number in range(1, 9):
        rpc = handler.next(f"request {number}")
        rpc.respond(pair.appended(rpc.request))
    for number in range(1, 9):
        answer = stream.next(f"answer {number}")
        assert answer == pair.appended(pair.append(number)), f"answer {number} is {answer}"


def an_error_answer_ends_a_pipeline(pair: _Pair) -> None:
    """The first RaftError in answer to a pipelined request breaks the stream: one on_error, then silence."""
    pair.serve(
        lambda request: (
            RaftError("boom 42") if getattr(request, "prev_log_entry", 0) == 3 else pair.appended(request)
        )
    )
    stream = _Stream(pair)
    with suppress(TransportError):  # it may be broken before the last one is sent
        for number in range(1, 6):
            stream.send(pair.append(number))
    for number in (1, 2):
        answer = stream.next(f"answer {number}")
        assert answer == pair.appended(pair.append(number)), f"answer {number} is {answer}"
    stream.expect_error("after an error answer")
    stream.expect_nothing("after on_error")
    _expect_transport_error(lambda: stream.send(pair.append(6)), "send() on a broken pipeline")


def a_peer_that_closes_breaks_its_pipelines(pair: _Pair) -> None:
    """on_error is called once when the peer goes away; then send() raises TransportError."""
    handler = pair.serve(pair.appended)
    stream = _Stream(pair)
    stream.send(pair.append(1))
    assert isinstance(stream.next("the answer"), AppendEntriesResponse)
    handler.next("the request")
    _soon(pair.b.close)
    # Idle streams of some transports learn of it only when they send.
    with suppress(TransportError):
        stream.send(pair.append(2))
    stream.expect_error("when the peer closed")
    stream.expect_nothing("after on_error")
    _expect_transport_error(lambda: stream.send(pair.append(3)), "send() on a broken pipeline")


def a_closed_pipeline_is_closed(pair: _Pair) -> None:
    """AppendPipeline.close() may be called twice; then send() raises TransportError; a new one works."""
    pair.serve(pair.appended)
    stream = _Stream(pair)
    stream.send(pair.append(1))
    stream.next("the answer")
    _soon(stream.pipeline.close)
    _soon(stream.pipeline.close)
    _expect_transport_error(lambda: stream.send(pair.append(2)), "send() on a closed pipeline")
    again = _Stream(pair)
    again.send(pair.append(3))
    answer = again.next("the answer on a new pipeline")
    assert answer == pair.appended(pair.append(3)), f"{answer} on a new pipeline"


def close_wakes_callers(pair: _Pair) -> None:
    """close() fails the calls in flight with TransportError at once, long before their deadlines."""
    handler = pair.serve(None)
    waiting = [_Later(lambda: pair.a.call(pair.peer, pair.vote_request(), 600.0)) for _ in range(3)]
    for _ in waiting:
        handler.next("the request")
    _soon(pair.a.close)
    for one in waiting:
        _expect_transport_error(one.result, "a call in flight when its transport closed")


def close_breaks_pipelines(pair: _Pair) -> None:
    """close() breaks the transport's own pipelines."""
    handler = pair.serve(None)
    stream = _Stream(pair)
    stream.send(pair.append(1))
    handler.next("the request")
    _soon(pair.a.close)
    stream.expect_error("when its own transport closed")
    _expect_transport_error(lambda: stream.send(pair.append(2)), "send() after its transport was closed")


def a_closed_transport_says_so(pair: _Pair) -> None:
    """close() may be called twice, and before serve(); then call() and pipeline() raise TransportError."""
    for _ in range(2):
        _soon(pair.a.close)
    _expect_transport_error(lambda: pair.vote(1.0), "call() after close()")
    _expect_transport_error(
        lambda: pair.a.pipeline(pair.peer, lambda reply: None, lambda error: None), "pipeline() after close()"
    )


def a_forgotten_peer_can_be_called_again(pair: _Pair) -> None:
    """forget() frees what was kept for a peer, known or not; a later call connects again."""
    pair.serve(lambda request: pair.granted())
    _soon(lambda: pair.a.forget(pair.peer))
    assert pair.vote() == pair.granted()
    _soon(lambda: pair.a.forget(pair.peer))
    _soon(lambda: pair.a.forget(Server("c", "127.0.0.1:1")))
    assert pair.vote() == pair.granted()


def close_ends_every_thread(pair: _Pair) -> None:
    """After close() no thread is left that was not there before, whatever was going on."""
    handler = pair.serve(lambda request: pair.granted() if isinstance(request, RequestVoteRequest) else None)
    pair.vote()
    streams = [_Stream(pair) for _ in range(2)]
    for stream in streams:
        stream.send(pair.append(1, _entries(1)))
    caller = _Later(lambda: pair.a.call(pair.peer, pair.append(1, _entries(1)), _PATIENCE))
    handler.next("a request")
    _soon(pair.a.close)
    _soon(pair.b.close)
    with suppress(Exception):
        caller.result()

    _eventually(lambda: not pair.threads_left(), f"threads are left after close(): {pair.threads_left()}")


# ── snapshots ──


class _Bytes(RawIOBase):
    """``size`` bytes that need no memory, in short reads; raises ``error`` after ``end_at`` of them."""

    def __init__(self, size: int, end_at: int | None = None, error: Exception | None = None) -> None:
        self.position = 0
        self._end = size if end_at is None else end_at
        self._error = error

    def read(self, size: int = -1) -> bytes:
        left = max(self._end - self.position, 0)
        if left == 0 and self._error is not None:
            raise self._error
        data = _pattern(self.position, min(left, size, 70_001))
        self.position += len(data)
        return data

    def end(self) -> None:
        self._error, self._end = OSError("the check is over"), 0


def _pattern(start: int, count: int) -> bytes:
    """Bytes that are different wherever two pieces could be exchanged."""
    first, last = start // 8, (start + count) // 8 + 1
    numbers = b"".join(number.to_bytes(8, "big") for number in range(first, last))
    return numbers[start % 8 : start % 8 + count]


class _Received:
    """A handler that reads a snapshot to its end, and how that ended."""

    def __init__(self, handler: _Handler, answer: InstallSnapshotResponse, max_bytes: int = 4096) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.outcome: SimpleQueue[tuple[InstallSnapshotRequest, bytes | Exception]] = SimpleQueue()
        self._answer = answer
        self._max_bytes = max_bytes
        handler.on_snapshot = self._read

    def _read(self, request: InstallSnapshotRequest, source: SnapshotSource) -> InstallSnapshotResponse:
        self.began.set()
        data = bytearray()
        try:
            while piece := source.read(self._max_bytes):
                data += piece
                self.go_on.wait(_PATIENCE)
        except Exception as error:
            self.outcome.put((request, error))
            raise
        self.outcome.put((request, bytes(data)))
        return self._answer

    def result(self) -> tuple[InstallSnapshotRequest, bytes | Exception]:
        try:
            return self.outcome.get(timeout=_PATIENCE)
        except Empty:
            raise AssertionError(
                f"the peer's handler did not come to an end within {_PATIENCE:g} s"
            ) from None

    def expect_broken(self, when: str) -> None:
        _, outcome = self.result()
        assert not isinstance(outcome, bytes), f"{len(outcome)} bytes taken for a complete snapshot {when}"
        assert isinstance(outcome, TransportError), f"read() raised {outcome!r} {when}"


class _Sending:
    """``install_snapshot`` on a thread of its own."""

    def __init__(self, pair: _Pair, size: int, source: _Bytes | None = None, timeout: float = 600.0) -> None:
        self.request = _snapshot(pair, size)
        self.is_over = False
        self.source = source or _Bytes(size)
        pair.sources.append(self.source)
        self._call = _Later(
            lambda: pair.a.install_snapshot(
                pair.peer, self.request, cast("BinaryIO", self.source), timeout, lambda: self.is_over
            )
        )

    def result(self) -> InstallSnapshotResponse:
        return self._call.result()

    def expect_error(self, when: str) -> TransportError:
        return _expect_transport_error(self.result, f"install_snapshot {when}")


_ENDLESS = 2**50


def _snapshot(pair: _Pair, size: int) -> InstallSnapshotRequest:
    servers = (Server("a", "1.1.1.1:1"), Server("b", "1.1.1.1:2", Suffrage.NONVOTER))
    return InstallSnapshotRequest(pair.header, 7, 42, 6, Configuration(servers), 17, size)


def _installed(pair: _Pair) -> InstallSnapshotResponse:
    return InstallSnapshotResponse(pair.reply_header, 7, True)


def a_snapshot_arrives_as_it_was_sent(pair: _Pair) -> None:
    """install_snapshot() brings every byte, in order, in any pieces, and returns the handler's answer."""
    handler = pair.serve(None)
    for size, max_bytes in ((5 * 1024 * 1024 + 3, 1000), (1_000_000, 10**7), (1, 1), (0, 4096)):
        received = _Received(handler, _installed(pair), max_bytes)
        sending = _Sending(pair, size)
        request, data = received.result()
        assert request == sending.request, f"the request {sending.request} arrived as {request}"
        assert isinstance(data, bytes), f"a snapshot of {size} bytes ended in {data!r}"
        assert data == _pattern(0, size), f"{size} bytes arrived as {len(data)} bytes, or as others"
        answer = sending.result()
        assert answer == _installed(pair), f"the answer {_installed(pair)} arrived as {answer}"


def a_snapshot_that_is_refused_says_why(pair: _Pair) -> None:
    """A RaftError that receive_snapshot() returns or raises reaches the sender, with its text."""
    handler = pair.serve(None)
    handler.on_snapshot = lambda request, source: RaftError("boom 42")
    for size in (100, _ENDLESS):
        error = _Sending(pair, size).expect_error("that was refused")
        assert "boom 42" in str(error), f"the text of the error is lost: {error}"
    handler.on_snapshot = lambda request, source: _raise(RaftError(f"boom {len(source.read(100))}"))
    error = _Sending(pair, _ENDLESS).expect_error("that was refused in the middle")
    assert "boom 100" in str(error), f"the text of the error is lost: {error}"


def a_snapshot_may_be_answered_without_reading_it(pair: _Pair) -> None:
    """The sender gets an answer that is given before the last byte, and stops sending."""
    handler = pair.serve(None)
    answer = InstallSnapshotResponse(pair.reply_header, 9, False)
    handler.on_snapshot = lambda request, source: answer
    assert _Sending(pair, _ENDLESS).result() == answer

    def read_some(request: InstallSnapshotRequest, source: SnapshotSource) -> InstallSnapshotResponse:
        source.read(100_000)
        return answer

    handler.on_snapshot = read_some
    assert _Sending(pair, _ENDLESS).result() == answer


def a_broken_source_is_no_snapshot(pair: _Pair) -> None:
    """A source that raises or ends early fails on both sides: the handler never sees a complete snapshot."""
    handler = pair.serve(None)
    for end_at in (0, 300_000):
        for error in (OSError("disk 42"), None):
            received = _Received(handler, _installed(pair))
            sending = _Sending(pair, 300_001, _Bytes(300_001, end_at, error))
            failure = sending.expect_error(f"whose source ended with {error!r}")
            if error is not None:
                assert failure.__cause__ is error, f"the source's error is not the cause of {failure!r}"
            if received.began.wait(_SHORT):
                received.expect_broken(f"after its source ended with {error!r} at {end_at}")


def a_peer_that_reads_nothing_holds_a_snapshot_back(pair: _Pair) -> None:
    """What the peer does not read stays with the sender, which fails once nothing has moved for its timeout."""
    handler = pair.serve(None)
    received = _Received(handler, _installed(pair))
    received.go_on.clear()
    began = time.monotonic()
    sending = _Sending(pair, _ENDLESS, timeout=_SHORT)
    sending.expect_error("to a peer that reads nothing")
    assert time.monotonic() - began >= _SHORT, "it failed before its timeout"
    ahead = sending.source.position
    assert ahead <= 64 * 1024 * 1024, f"{ahead} bytes were sent to a peer that reads nothing"
    received.go_on.set()
    if received.began.wait(_SHORT):  # on a busy machine the sender may have given up before
        received.expect_broken("after the sender had given up")


def a_snapshot_delays_no_other(pair: _Pair) -> None:
    """Votes, heartbeats and entries get through while a snapshot is on its way."""
    handler = pair.serve(
        lambda request: (
            pair.appended(request) if isinstance(request, AppendEntriesRequest) else pair.granted()
        )
    )
    received = _Received(handler, _installed(pair))
    received.go_on.clear()
    sending = _Sending(pair, _ENDLESS)
    assert received.began.wait(_PATIENCE), "the snapshot never reached the peer's handler"
    for request in (AppendEntriesRequest(pair.header, 7), pair.append(1, _entries(1))):
        answer = _soon(lambda request=request: pair.a.call(pair.peer, request, _PATIENCE))  # type: ignore[misc]
        assert answer == pair.appended(request)
    assert pair.vote() == pair.granted()
    sending.is_over = True
    sending.expect_error("that is over")
    received.go_on.set()


def a_snapshot_that_is_over_ends_soon(pair: _Pair) -> None:
    """Once is_over() is True install_snapshot() raises, whatever it waits for, and the handler learns of it."""
    handler = pair.serve(None)
    for size in (_ENDLESS, 100):  # waiting for room; waiting for the answer
        received = _Received(handler, _installed(pair), 50)
        received.go_on.clear()
        sending = _Sending(pair, size)
        assert received.began.wait(_PATIENCE), "the snapshot never reached the peer's handler"
        sending.is_over = True
        sending.expect_error("that is over")
        received.go_on.set()
        if size == _ENDLESS:
            received.expect_broken("after the sender had given up")


def close_ends_snapshots(pair: _Pair) -> None:
    """close(), on either side, ends a snapshot that is on its way, on both sides, and its threads."""
    handler = pair.serve(None)
    received = _Received(handler, _installed(pair))
    sending = _Sending(pair, _ENDLESS)
    assert received.began.wait(_PATIENCE), "the snapshot never reached the peer's handler"
    _soon(pair.b.close)
    sending.expect_error("to a peer that closed")
    received.expect_broken("after close()")
    _soon(pair.a.close)
    _Sending(pair, 100).expect_error("after close()")
    _eventually(lambda: not pair.threads_left(), f"threads are left after close(): {pair.threads_left()}")


def closing_the_sender_ends_snapshots(pair: _Pair) -> None:
    """close() of the sender's transport ends install_snapshot() at once, and the handler learns of it."""
    handler = pair.serve(None)
    received = _Received(handler, _installed(pair))
    sending = _Sending(pair, _ENDLESS)
    assert received.began.wait(_PATIENCE), "the snapshot never reached the peer's handler"
    _soon(pair.a.close)
    sending.expect_error("when its transport closed")
    received.expect_broken("after the sender had closed")


class _Later(Generic[T]):
    """A call on a thread of its own."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._done: SimpleQueue[T | BaseException] = SimpleQueue()
        self._function = function
        threading.Thread(target=self._run, daemon=True, name="check-transport").start()

    def _run(self) -> None:
        try:
            self._done.put(self._function())
        except BaseException as error:
            self._done.put(error)

    def result(self) -> T:
        try:
            outcome = self._done.get(timeout=_PATIENCE)
        except Empty:
            raise AssertionError(f"a call was still waiting after {_PATIENCE:g} s") from None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


SNAPSHOT_PROMISES: tuple[Callable[[_Pair], None], ...] = (
    a_snapshot_arrives_as_it_was_sent,
    a_snapshot_that_is_refused_says_why,
    a_snapshot_may_be_answered_without_reading_it,
    a_broken_source_is_no_snapshot,
    a_peer_that_reads_nothing_holds_a_snapshot_back,
    a_snapshot_delays_no_other,
    a_snapshot_that_is_over_ends_soon,
    close_ends_snapshots,
    closing_the_sender_ends_snapshots,
)
"""For transports that send snapshots at all: those that override ``install_snapshot``."""

PROMISES: tuple[Callable[[_Pair], None], ...] = (
    making_one_starts_no_thread,
    addresses_tell_transports_apart,
    every_message_arrives_as_it_was_sent,
    both_ends_serve_and_call,
    size_bytes_weighs_the_entries,
    answers_may_come_later_and_from_any_thread,
    a_waiting_request_delays_no_other,
    everybody_gets_their_own_answer,
    a_call_ends_at_its_deadline,
    a_caller_that_gave_up_can_be_told,
    an_error_answer_reaches_the_caller,
    nobody_there_is_an_error_that_names_the_peer,
    large_messages_pass,
    a_pipeline_keeps_the_order,
    a_pipeline_carries_every_field,
    a_pipeline_does_not_wait_for_answers,
    an_error_answer_ends_a_pipeline,
    a_peer_that_closes_breaks_its_pipelines,
    a_closed_pipeline_is_closed,
    close_wakes_callers,
    close_breaks_pipelines,
    a_closed_transport_says_so,
    a_forgotten_peer_can_be_called_again,
    close_ends_every_thread,
    *SNAPSHOT_PROMISES,
)
