"""Linearizable reads on any member: whoever asks gets the leader's read index, and waits for the FSM.

Runs on the ``pyraft-<id>-read`` thread.  What waits when a round begins shares it; what
comes later shares the next one, because a round proves nothing about questions that were
asked after it began.

Source: dissertation §6.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from .configuration import Server
from .context import NodeContext
from .errors import RaftError, RaftShutdownError, ReadTimeoutError, UnsupportedProtocolError
from .events import ReadIndexAsked
from .futures import RaftFuture
from .messages import ReadIndexRequest, ReadIndexResponse
from .runtime import Inbox
from .state import RaftState

_PAUSE = 0.02
"""Seconds between two tries while nobody leads."""


_UNCONFIRMED = "no leader confirmed a read index; is there one, and can it reach a majority?"
_BEHIND = "the read index is confirmed, and the FSM has not applied it yet; wait longer, or read elsewhere"


class _Read(NamedTuple):
    future: RaftFuture[int]
    deadline: float


class _Answer(NamedTuple):
    round: object
    result: int | RaftError


class _Again(NamedTuple):
    futures: Sequence[RaftFuture[int]]


class _Stop:
    pass


class Reader:
    """Owns the read thread's inbox.  ``ask`` and ``stop`` never block."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._inbox: Inbox = node.runtime.inbox(f"{node.id}-read")
        self._waiting: list[_Read] = []
        self._confirmed: list[_Read] = []  # the FSM has still to get there
        self._stopping = False

    # -- any thread ----------------------------------------------------------------------------

    def ask(self, future: RaftFuture[int], deadline: float | None) -> None:
        """Finish ``future`` with a read index once the FSM has applied it."""
        self._inbox.put(_Read(future, inf if deadline is None else deadline))

    def ask_again(self, futures: Sequence[RaftFuture[int]]) -> None:
        """Get another read index for ``futures``: what they had is of no use."""
        self._inbox.put(_Again(futures))

    def stop(self) -> None:
        """Let the thread end; what waits is failed."""
        self._inbox.put(_Stop())

    # -- the read thread -----------------------------------------------------------------------

    def run(self) -> None:
        """The thread's life."""
        try:
            while not self._stopping:
                self._take(self._wake_at())
                self._confirmed = self._expire([r for r in self._confirmed if not r.future.done()], _BEHIND)
                if self._waiting and not self._stopping:
                    self._round()
        finally:
            waiting, self._waiting = self._waiting, []
            self._inbox.close(self._dispose)
            for read in waiting:
                self._dispose(read)

    def _wake_at(self) -> float | None:
        if self._waiting:
            return self._node.runtime.now() + _PAUSE
        soonest = min((read.deadline for read in self._confirmed), default=inf)
        return None if soonest == inf else soonest

    def _take(self, until: float | None) -> _Answer | None:
        """Take in what has come, waiting for it at most ``until``; return an answer if there is one."""
        event = self._inbox.take(until)
        now = self._node.runtime.now()
        while event is not None:
            if isinstance(event, _Answer):
                return event
            if isinstance(event, _Stop):
                self._stopping = True
                return None
            if isinstance(event, _Again):
                self._waiting += self._reads_of(event.futures)
            else:
                self._waiting.append(event)
            event = self._inbox.take(now)  # all that is there, and then on
        return None

    def _reads_of(self, futures: Sequence[RaftFuture[int]]) -> list[_Read]:
        """The reads of ``futures``, which were confirmed before."""
        deadlines = {id(read.future): read.deadline for read in self._confirmed}
        self._confirmed = [read for read in self._confirmed if read.future not in futures]
        return [_Read(future, deadlines.get(id(future), inf)) for future in futures if not future.done()]

    def _round(self) -> None:
        """One question to the leader for all that wait; they go on waiting if it fails."""
        reads, self._waiting = self._expire(self._waiting, _UNCONFIRMED), []
        if not reads:
            return
        began = self._node.runtime.measured()
        try:
            result: int | RaftError = self._ask_leader(min(read.deadline for read in reads))
        except RaftError as error:
            result = error
        self._node.metrics.read_round_seconds.add(self._node.runtime.measured() - began)
        if isinstance(result, int):
            self._node.fsm.read_at(result, [read.future for read in reads])
            self._confirmed += [read for read in reads if read.deadline < inf]
        elif isinstance(result, UnsupportedProtocolError):
            futures = [read.future for read in reads]
            text = f"the leader cannot tell a read index (is it a Go server?): {result}"
            self._node.notifier.fail(futures, lambda: UnsupportedProtocolError(text))
        else:
            self._waiting = reads + self._waiting

    def _ask_leader(self, deadline: float) -> int | RaftError:
        node = self._node
        patience = min(node.config.election_timeout, deadline - node.runtime.now())
        leader = node.state.leader
        if leader is None:
            return ReadTimeoutError("no leader is known")
        if node.state.role is RaftState.LEADER:
            return self._ask_main(patience)
        answer = node.transport.call(Server(*leader), ReadIndexRequest(node.header), max(patience, 0.001))
        if not isinstance(answer, ReadIndexResponse):
            return ReadTimeoutError("the leader answered something else")
        snapshot = node.state.log.snapshot
        if answer.index <= snapshot.index and answer.term > snapshot.term:
            # A leader reads behind an entry of its own term. If our snapshot goes further, it went on without that one.
            return ReadTimeoutError(
                "this server stands on a snapshot from outside that the leader has not got"
            )
        return answer.index

    def _ask_main(self, patience: float) -> int | RaftError:
        node, this_round = self._node, object()
        node.inbox.put(ReadIndexAsked(lambda result: self._inbox.put(_Answer(this_round, result))))
        until = node.runtime.now() + patience
        while not self._stopping:
            answer = self._take(min(until, self._soonest_deadline()))
            if answer is not None and answer.round is this_round:
                return answer.result
            self._expire_others()
            if node.runtime.now() >= until:
                break
        return ReadTimeoutError("a majority did not confirm in time")

    def _soonest_deadline(self) -> float:
        """Of the reads that no question under way is about."""
        return min((read.deadline for read in [*self._waiting, *self._confirmed]), default=inf)

    def _expire_others(self) -> None:
        self._waiting = self._expire(self._waiting, _UNCONFIRMED)
        self._confirmed = self._expire(self._confirmed, _BEHIND)

    def _expire(self, reads: list[_Read], why: str) -> list[_Read]:
        """Fail those that have waited for too long; return the others."""
        now = self._node.runtime.now()
        late = [read.future for read in reads if read.deadline <= now]
        text = f"{self._node.id} cannot serve this read in time: {why}"
        self._node.notifier.fail(late, lambda: ReadTimeoutError(text))
        return [read for read in reads if read.deadline > now]

    def _dispose(self, event: Any) -> None:
        if isinstance(event, _Read):
            self._node.notifier.fail([event.future], RaftShutdownError)
        elif isinstance(event, _Again):
            self._node.notifier.fail(event.futures, RaftShutdownError)
