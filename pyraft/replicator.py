"""The Replicator: brings one peer's log up to date, for one session.

Runs on the ``pyraft-<id>-repl-<peer>`` thread.  It *probes* with single requests until the
peer accepts one, then *streams*: further requests go out before the answers to earlier ones
are in.  Any refusal or broken stream leads back to probing from what is known to match.

What it sends comes from its session (term, commit index) and the log, never from the
node's state, and it looks at the session after reading the log (see sessions.py).

A command on its own meets a peer that has everything else and a thread that waits.  To wake
that thread would cost as much as the message, so the main thread sends such a command itself
(``offer``), and an answer that leaves nothing to do is left until somebody looks.  Whoever
works on the stream has *the turn*: the thread while it is awake, and who takes it from a
thread that is parked.

Source: Raft paper §5.3; dissertation §10.2.1.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple

from .catch_up_pace import MOST_BYTES, CatchUpPace
from .config import Config
from .errors import LogNotFoundError, RaftError, TransportError
from .events import HigherTermSeen, PeerHeard, PeerMatched
from .log import Log
from .messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RpcHeader,
)
from .node_log import NodeLog
from .rules.election import LogPosition
from .rules.replication import agreement_bound, next_index_after_hint, next_index_after_rejection
from .rules.timing import back_off, randomized
from .runtime import Inbox, NotifyChannel, Runtime
from .sessions import Session
from .snapshot_sending import Snapshots, SnapshotSender
from .transport.base import AppendPipeline, Transport

_log = logging.getLogger(__name__)

# A message costs far more than an entry, so a second request leaves while one is on its
# way only if it is worth its own message.
_WORTH_A_MESSAGE_ENTRIES = 64
_WORTH_A_MESSAGE_BYTES = 32 * 1024
_WINDOW_BYTES = 8 * 1024 * 1024
"""No further request goes out once that much is on its way to one peer."""

_POKED_BACK_OFF = 0.05  # seconds that a failing peer is left alone even when there is news
_IDLE = 60.0  # seconds between looks when nothing can happen without a poke


class _Poked(NamedTuple):
    """The log or the commit index moved: look at them."""


class _Reachable(NamedTuple):
    """A peer is back, after failures or without its log: ask it what it holds."""


class _Stop(NamedTuple):
    """The session ended."""


class _Sent(NamedTuple):
    """A request on its way."""

    request: AppendEntriesRequest
    at: float
    size: int  # bytes of its entries


class _Stream:
    """One pipeline, the requests that it has not answered yet, and the answers nobody has looked at.

    Oldest first.  From one to the other the transport's thread moves them; at the other ends
    is whoever has the turn.
    """

    __slots__ = ("answers", "pipeline", "unanswered")

    def __init__(self) -> None:
        self.pipeline: AppendPipeline | None = None
        self.unanswered: deque[_Sent] = deque()
        self.answers: deque[_Answer] = deque()


class _Answer(NamedTuple):
    sent: _Sent
    response: AppendEntriesResponse
    at: float


class _Answered(NamedTuple):
    """There is an answer on the stream."""


class _TurnIsBack(NamedTuple):
    """The main thread has done what it took the turn for."""


class _Broke(NamedTuple):
    stream: _Stream
    error: RaftError


class Replicator:
    """Sends one peer what it lacks."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        header: RpcHeader,
        log: NodeLog,
        transport: Transport,
        session: Session,
        to_main: Callable[[Any], None],
        snapshots: Snapshots,
    ) -> None:
        self._runtime = runtime
        self._header = header
        self._entries = log
        self._transport = transport
        self._session = session
        self._to_main = to_main
        self._rng = runtime.random(f"replicator:{header.id}:{session.peer.id}")
        self._inbox: Inbox = runtime.inbox(f"{header.id}-repl-{session.peer.id}")
        self._news = NotifyChannel(self._inbox, _Poked())
        self._next = session.next_index
        self._commit_sent = 0  # the highest commit index that the peer has acknowledged
        self._commit_due: float | None = None  # when to tell it the next one, if nothing else is sent
        self._failures = 0
        self._rejections = 0  # in a row
        self._heard_at = 0.0  # when the peer's latest answer on the stream came
        self._turn: list[None] = []  # None in it: the thread is parked
        self._is_turn_wanted = False
        self._is_patient = False  # whether an accepted request leaves nothing to do at once
        self._wakes_at = 0.0
        self._looked_at = 0.0
        self._stream: _Stream | None = None
        self._in_flight: deque[_Sent] = deque()
        self._in_flight_bytes = 0
        self._round_trip = 0.001  # seconds; adapts
        self._unreachable_since: float | None = None
        self._snapshots = snapshots
        self._sender = SnapshotSender(runtime, header, transport, session)
        self._is_back = False  # whether the stream's thread has still to hear of that
        self._back_at = 0.0  # when the heartbeat's thread last found that the peer is back
        self._after_snapshot = 0  # where to go on after the latest one that was sent
        self._pace = CatchUpPace(runtime, log.last.index)
        self._read_store = False  # whether the latest request had to be read from there
        self._needs_snapshot = False  # what the peer lacks is not in our log any more

    @property
    def _config(self) -> Config:
        return self._session.leadership.config

    # -- any thread ------------------------------------------------------------------------

    def poke(self) -> None:
        """There are new entries, or a new commit index."""
        self._news.poke()

    def offer(self, logs: Sequence[Log], size: int, before: LogPosition, now: float) -> bool:
        """Send entries that were just staged, here and now if they are few and nothing else is under way.

        Main thread only; never blocks.  Otherwise it pokes.

        Args:
            size: bytes of ``logs``.
            before: what they follow.

        Returns whether to poke later on: the thread is to see to it that the answer comes.
        """
        if len(logs) >= _WORTH_A_MESSAGE_ENTRIES or size >= _WORTH_A_MESSAGE_BYTES or not self._take_turn():
            self._news.poke()
            return False
        try:
            is_sent = self._send_parked(logs, size, before, now)
        finally:
            self._turn.append(None)
            if self._is_turn_wanted:  # looked at last: whoever wants it looks for it after saying so
                self._inbox.put(_TurnIsBack())
        if not is_sent:
            self._news.poke()
        return is_sent and self._wakes_at > now + min(self._config.commit_timeout, self._patience / 4)

    def peer_is_reachable(self) -> None:
        """The peer is back: no reason to wait any longer, nor to trust an old stream."""
        self._back_at = self._runtime.now()
        self._is_back = True  # before the thread knows: main must not use the old stream until it does
        self._inbox.put(_Reachable())

    def stop(self) -> None:
        """Let the thread end.  The session must have been ended before."""
        self._inbox.put(_Stop())

    # -- its own thread ----------------------------------------------------------------------

    def run(self) -> None:
        """The thread's life: until the session ends."""
        try:
            while self._session.alive:
                if self._probe():
                    self._keep_up()
        finally:
            self._close_stream()
            self._inbox.close(lambda event: None)

    # probing

    def _probe(self) -> bool:
        """Send one request and wait for its answer; return True once the peer accepts one."""
        if self._failures and not self._wait_out(back_off(self._failures, self._longest_back_off())):
            return False
        self._news.clear()
        request = self._build(probe=True)
        if self._needs_snapshot:
            self._send_snapshot()
            return False
        if request is None:
            self._wait_out(self._config.heartbeat_timeout / 10)
            return False
        sent_at = self._runtime.now()
        try:
            response = self._transport.call(self._session.peer, request, self._config.election_timeout)
        except RaftError as error:
            self._failed(error)
            return False
        if not isinstance(response, AppendEntriesResponse):
            return False
        self._reached()
        self._report(request, response, sent_at)
        return self._go_on_after(request, response)

    def _wait_out(self, seconds: float) -> bool:
        """Wait before trying a failing peer again; False if the session ended meanwhile."""
        began = self._runtime.now()
        deadline = began + seconds
        while True:
            event = self._inbox.take(deadline)
            if event is None or isinstance(event, _Reachable):
                return self._session.alive
            if isinstance(event, _Stop) or not self._session.alive:
                return False
            if isinstance(event, _Poked):
                # News is a reason to try again soon, but not at once: a dead peer under load
                # would be tried at every command.
                self._news.clear()
                deadline = min(deadline, began + _POKED_BACK_OFF)

    def _longest_back_off(self) -> float:
        return self._config.heartbeat_timeout / 2

    # streaming

    def _keep_up(self) -> None:
        """Keep the peer up to date until the session ends or something goes wrong."""
        if not self._open_stream():
            return
        while self._session.alive and self._stream is not None:
            self._news.clear()
            self._take_answers()
            wake_at = self._send_what_is_due()
            if wake_at is None or self._stream is None:
                return  # sending broke the stream
            for event in self._park(wake_at):
                if isinstance(event, _Broke):
                    if event.stream is self._stream:
                        self._take_answers()  # they came before
                    if event.stream is self._stream:
                        self._failed(event.error)
                        self._back_to_probing()
                elif isinstance(event, _Reachable):
                    # With requests on their way, their answers will tell, or their absence; ending
                    # the stream would send them again from the first byte, on a slow link for ever.
                    self._is_back = False
                    self._take_answers(until=self._back_at)
                    if not self._in_flight:
                        self._back_to_probing()
                elif isinstance(event, _Stop):
                    return
                elif event is None:
                    self._take_answers()
                    self._check_progress()

    def _park(self, wake_at: float) -> list[Any]:
        """Wait for events; meanwhile the main thread may send from here.  Returns them with the turn."""
        stream = self._stream
        assert stream is not None
        self._is_patient = self._entries.last.index < self._next
        if self._in_flight:
            look_at = self._in_flight[-1].at + self._config.commit_timeout / 4
            self._is_patient = self._is_patient and look_at > self._looked_at  # else it is slow: wait for it
            if self._is_patient:
                wake_at = min(wake_at, look_at)
        if stream.answers:  # looked at only now: whoever answers from here on knows whether to wake us
            return []
        self._wakes_at = wake_at
        self._turn.append(None)
        events = [self._inbox.take(wake_at)]
        if not self._take_turn():
            self._is_turn_wanted = True
            while not self._take_turn():
                events.append(self._inbox.take())
            self._is_turn_wanted = False
        return events

    def _take_turn(self) -> bool:
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True

    def _send_parked(self, logs: Sequence[Log], size: int, before: LogPosition, now: float) -> bool:
        """On the main thread, with the turn: send ``logs`` unless there is anything else to do first."""
        stream, session = self._stream, self._session
        if stream is None or stream.pipeline is None or self._is_back:
            return False
        while stream.answers:
            if not self._is_routine(stream.answers[0].response):
                return False
            self._on_reply(stream.answers.popleft())
        if self._in_flight or self._next != before.index + 1 or not session.alive:
            return False
        commit = min(session.leadership.commit_index, before.index + len(logs))
        term = session.leadership.term
        request = AppendEntriesRequest(self._header, term, before.index, before.term, logs, commit)
        self._note_sent(stream, request, now, size)
        try:
            stream.pipeline.send(request)
        except RaftError as error:
            self._inbox.put(_Broke(stream, error))
        return True

    def _take_answers(self, until: float = inf) -> None:
        """Look at the answers that came at ``until`` or before."""
        stream = self._stream
        while (
            stream is not None and stream is self._stream and stream.answers and stream.answers[0].at <= until
        ):
            self._on_reply(stream.answers.popleft())

    def _is_routine(self, response: AppendEntriesResponse) -> bool:
        return response.success and response.term == self._session.leadership.term

    def _check_progress(self) -> None:
        """Give up on a peer that answers nothing: it is frozen, or the connection is dead."""
        if not self._in_flight:
            return
        silent_s = self._runtime.now() - self._silent_since()
        if silent_s >= self._patience:
            self._failed(TransportError(f"no answer to an AppendEntries for {silent_s:.1f} s"))
            self._back_to_probing()

    def _open_stream(self) -> bool:
        stream = _Stream()

        def on_reply(response: AppendEntriesResponse) -> None:
            # On the transport's thread: main hears of a match without the way through ours.
            try:
                sent = stream.unanswered.popleft()
            except IndexError:
                self._inbox.put(_Broke(stream, TransportError("an answer that nobody asked for")))
                return
            self._session.in_flight = len(stream.unanswered)
            now = self._runtime.now()
            self._report(sent.request, response, sent.at)
            stream.answers.append(_Answer(sent, response, now))
            if not self._is_patient or not self._is_routine(response):
                self._inbox.put(_Answered())

        def on_error(error: RaftError) -> None:
            self._inbox.put(_Broke(stream, error))

        try:
            stream.pipeline = self._transport.pipeline(self._session.peer, on_reply, on_error)
        except RaftError as error:
            self._failed(error)
            return False
        self._stream = stream
        self._is_back = False
        self._session.state = "replicate"
        return True

    def _send_what_is_due(self) -> float | None:
        """Send as much as the window and the entries at hand allow.

        Returns the instant at which to look again even without news, None once the stream broke.
        """
        while self._stream is not None:
            now = self._looked_at = self._runtime.now()
            end = self._entries.last.index
            self._pace.saw_end(end, now)
            waiting = end - self._next + 1
            if waiting <= 0:
                return self._tell_commit(now)
            if not self._may_send_more(waiting, now):
                return self._look_again_at(now)
            if now < self._pace.rest_until:
                return self._pace.rest_until
            request = self._build()
            if self._needs_snapshot:
                self._back_to_probing()
                return None
            if request is None:
                return now + self._config.heartbeat_timeout / 10
            size = sum([len(entry.encoded) for entry in request.entries])
            if (
                self._in_flight
                and len(request.entries) < _WORTH_A_MESSAGE_ENTRIES
                and size < _WORTH_A_MESSAGE_BYTES
            ):
                oldest = self._in_flight[0].at
                if now - oldest < self._round_trip:
                    return oldest + self._round_trip
            self._send(request, now, size)
            if self._read_store:
                self._pace.rest(now)
        return None

    def _may_send_more(self, waiting: int, now: float) -> bool:
        if not self._in_flight:
            return True
        if self._window_is_full():
            return False
        # Cheap look before reading: single small entries wait for the answer on its way.
        return waiting >= 2 or now - self._in_flight[0].at >= self._round_trip

    def _window_is_full(self) -> bool:
        return (
            len(self._in_flight) >= self._config.max_inflight_appends
            or self._in_flight_bytes >= _WINDOW_BYTES
        )

    def _look_again_at(self, now: float) -> float:
        oldest = self._in_flight[0].at
        if self._window_is_full() or now - oldest >= self._round_trip:
            return self._silent_since() + self._patience
        return oldest + self._round_trip

    def _silent_since(self) -> float:
        """Since when the peer owes an answer.  Requests queue, so the oldest one's age says nothing."""
        return max(self._in_flight[0].at, self._heard_at)

    @property
    def _patience(self) -> float:
        """Seconds without any answer after which a stream is given up."""
        return 2 * self._config.election_timeout

    def _tell_commit(self, now: float) -> float:
        """Nothing to send but perhaps news of a commit, once it is old enough.

        The ticks stop when the peer knows that all it holds is committed.
        """
        if self._in_flight:
            self._commit_due = None
            return self._silent_since() + self._patience
        if self._commit_sent >= self._next - 1:
            self._commit_due = None
            return now + _IDLE
        if self._commit_due is None:
            # From the answer on, which may have waited to be looked at.
            self._commit_due = self._heard_at + randomized(self._config.commit_timeout, self._rng)
        if now >= self._commit_due:
            self._commit_due = now + randomized(self._config.commit_timeout, self._rng)
            if self._session.leadership.commit_index > self._commit_sent:
                request = self._build()
                if request is not None:
                    self._send(request, now)
                return now + self._patience
        return self._commit_due

    def _send(self, request: AppendEntriesRequest, now: float, size: int = 0) -> None:
        stream = self._stream
        assert stream is not None and stream.pipeline is not None
        self._note_sent(stream, request, now, size)
        try:
            stream.pipeline.send(request)
        except RaftError as error:
            self._failed(error)
            self._back_to_probing()

    def _note_sent(self, stream: _Stream, request: AppendEntriesRequest, now: float, size: int) -> None:
        sent = _Sent(request, now, size)
        stream.unanswered.append(sent)  # before it is sent: the answer may be there when send() returns
        self._in_flight.append(sent)
        self._session.in_flight = len(stream.unanswered)
        self._in_flight_bytes += size
        self._next = self._session.next_index = request.prev_log_entry + len(request.entries) + 1
        self._commit_due = None

    def _on_reply(self, answer: _Answer) -> None:
        self._in_flight_bytes -= self._in_flight.popleft().size
        self._heard_at = answer.at
        self._round_trip += (answer.at - answer.sent.at - self._round_trip) / 8
        if not self._go_on_after(answer.sent.request, answer.response):
            self._back_to_probing()

    def _back_to_probing(self) -> None:
        """Trust nothing that was on its way; go on after what the peer is known to hold."""
        if self._in_flight:
            self._next = min(self._next, self._in_flight[0].request.prev_log_entry + 1)
        self._close_stream()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self._session.in_flight = 0
        self._session.state = "probe"
        if stream is not None and stream.pipeline is not None:
            stream.pipeline.close()

    # both

    def _build(self, probe: bool = False) -> AppendEntriesRequest | None:
        """The next request, or None if nothing may be sent now.

        A probe carries no entries: whether the logs meet is cheap to ask, and a slow link must
        not have to carry a batch within one deadline only to find that they do not.
        """
        leadership = self._session.leadership
        prev = self._next - 1
        end = self._entries.last.index
        prev_term = self._entries.term_at(prev)
        try:
            logs: Sequence[Log] = ()
            if end > prev and prev_term is not None and not probe:
                logs = self._read(prev, end)
        except LogNotFoundError:
            prev_term = None
        commit = leadership.commit_index
        # Only now: had the session ended before the reading, what was read may be another
        # leader's.
        if not self._session.alive:
            return None
        self._needs_snapshot = prev_term is None
        if prev_term is None:
            return None
        if not self._session.may_send(self._runtime.now(), self._config.election_timeout):
            return None  # our disk has stalled, and somebody else should lead
        # Never above what this request proves: a follower of another library would commit
        # leftovers of its own.
        commit = min(commit, prev + len(logs))
        return AppendEntriesRequest(self._header, leadership.term, prev, prev_term, logs, commit)

    def _read(self, prev: int, end: int) -> Sequence[Log]:
        """Entries after ``prev``, at most to ``end``: as many as one request may carry.

        Fewer if the store has to be read: decoding holds the interpreter, and commands wait.

        Raises:
            LogNotFoundError: they are gone.
        """
        most, most_bytes = self._config.max_append_entries, self._config.max_append_bytes
        self._read_store = not self._entries.is_in_memory(prev + 1)
        if self._read_store:
            most, most_bytes = min(most, self._pace.begin_reading()), min(most_bytes, MOST_BYTES)
        logs = self._entries.read(prev + 1, min(end, prev + most), most_bytes)
        if self._read_store:
            self._pace.read_count = len(logs)
        return logs

    def _report(self, request: AppendEntriesRequest, response: AppendEntriesResponse, sent_at: float) -> None:
        """Tell the main thread what an answer proves.  On the thread that received it."""
        session = self._session
        term = session.leadership.term
        if response.term > term:
            self._to_main(HigherTermSeen(session, response.term))
        elif response.term == term:
            asked = session.heard(sent_at)
            if response.success:
                took = self._runtime.measured() - sent_at if request.entries else None
                self._to_main(PeerMatched(session, request.prev_log_entry + len(request.entries), took))
            elif asked:
                self._to_main(PeerHeard(session))
        # An answer of an older term is of no use: the peer no longer stands by it.

    def _go_on_after(self, request: AppendEntriesRequest, response: AppendEntriesResponse) -> bool:
        """Find out where to go on; return whether the peer accepted the request."""
        session = self._session
        if response.term != session.leadership.term:
            self._failures += 1  # the session is about to end; do not ask at full speed until then
            return False
        if response.success:
            self._rejections = 0
            if self._stream is not None:
                self._failures = 0  # a probe carries no entries: it does not prove that they get through
            self._next = max(self._next, request.prev_log_entry + len(request.entries) + 1)
            self._commit_sent = max(self._commit_sent, request.leader_commit_index)
            session.holds = request.prev_log_entry + len(request.entries)
        else:
            # A peer that has a snapshot and refuses what follows it would get it again at once.
            is_useless = request.prev_log_entry + 1 == self._after_snapshot
            self._failures = 0 if response.no_retry_backoff and not is_useless else self._failures + 1
            self._rejections += 1
            self._next = self._next_to_try(request, response)
            if self._next == request.prev_log_entry + 1:
                self._failures += 1  # there is nowhere else to try: do not ask the same at full speed
            oldest = self._entries.oldest_known()
            if self._next <= oldest < request.prev_log_entry:
                self._next = oldest + 1  # before a snapshot goes out: perhaps the logs meet here
            self._in_flight.clear()  # all of it stood on what was refused
            self._in_flight_bytes = 0
            self._commit_sent = min(self._commit_sent, self._next - 1)
            session.holds = min(session.holds, self._next - 1)
        session.next_index = self._next
        return response.success

    def _next_to_try(self, request: AppendEntriesRequest, response: AppendEntriesResponse) -> int:
        refused = request.prev_log_entry + 1
        log = self._entries
        if request.prev_log_entry < response.hint_index and log.term_at(response.hint_index) is not None:
            # Where the peer's snapshot ends, which is ahead of what we asked. If the logs differ even
            # there, it is for the peer to say so.
            return response.hint_index + 1
        hint = min(response.hint_index, request.prev_log_entry - 1)
        if hint <= log.oldest_known():
            return next_index_after_rejection(refused, response.last_log, self._rejections)
        bound = agreement_bound(log.term_at, log.oldest_known(), hint, response.hint_term)
        return next_index_after_hint(refused, bound.index)

    # snapshots

    def _send_snapshot(self) -> None:
        """Bring the peer to where our log begins, and go on from there.  Blocks while it is sent."""
        session = self._session
        self._needs_snapshot = False
        try:
            meta, source = self._snapshots.open_newest()
            with source:
                response = self._sender.send(meta, source, lambda: self._back_at)
        except RaftError as error:
            self._failed(error)
            return
        finally:
            session.state = "probe"
        self._reached()
        if response.term > session.leadership.term:
            self._to_main(HigherTermSeen(session, response.term))
        if response.term != session.leadership.term or not response.success:
            self._failures += 1
            return
        self._rejections = 0
        self._next = session.next_index = self._after_snapshot = max(self._next, meta.index + 1)
        self._commit_sent = min(self._commit_sent, meta.index)
        session.holds = meta.index
        self._to_main(PeerMatched(session, meta.index))

    def _failed(self, error: RaftError) -> None:
        self._failures += 1
        if self._unreachable_since is None and self._session.alive:
            self._unreachable_since = self._runtime.now()
            _log.warning(
                "cannot reach peer=%s error=%s [id=%s]", self._session.peer.id, error, self._header.id
            )

    def _reached(self) -> None:
        if self._unreachable_since is not None:
            for_s = self._runtime.now() - self._unreachable_since
            _log.info("peer=%s is back for_s=%.1f [id=%s]", self._session.peer.id, for_s, self._header.id)
            self._unreachable_since = None
