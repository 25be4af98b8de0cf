"""What people and programs can watch: observations, and who leads.

Neither ever holds up a pyraft thread: an observer that is too slow loses observations and
counts them, and a subscription to leadership keeps only the latest change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .configuration import Server
from .errors import ConfigError, RaftError
from .runtime import Runtime
from .waiting import Waiters

Observation = Any
"""A RaftState (the role changed), one of the classes below, or a RequestVoteRequest or
RequestPreVoteRequest as it came in."""


@dataclass(frozen=True, slots=True)
class LeaderObservation:
    """Another leader is known, or none (both None)."""

    leader_id: str | None
    leader_address: str | None


@dataclass(frozen=True, slots=True)
class PeerObservation:
    """This leader begins to replicate to ``peer``, or ends it (``removed``)."""

    peer: Server
    removed: bool = False


@dataclass(frozen=True, slots=True)
class FailedHeartbeatObservation:
    """A heartbeat of this leader got no answer.  ``last_contact``: seconds since the last that did."""

    peer_id: str
    last_contact: float


@dataclass(frozen=True, slots=True)
class ResumedHeartbeatObservation:
    """A peer answers heartbeats again."""

    peer_id: str


class Observer:
    """Collects observations for whoever asks: ``get`` them, or iterate.

    Attributes:
        observed_total: how many it has taken.
        dropped_total: how many came while it was full.
    """

    def __init__(self, filter: Callable[[Observation], bool] | None = None, capacity: int = 1000) -> None:
        """Prepare; ``Raft.register_observer`` lets it see anything.

        Args:
            filter: says which observations to take; called on the notify thread, so it must
                be quick.  None = all.
            capacity: how many may wait to be asked for; then further ones are dropped.
        """
        if type(capacity) is not int or capacity < 1:
            raise ConfigError(f"capacity={capacity!r} is not a number of observations: use at least 1")
        self.observed_total = 0
        self.dropped_total = 0
        self._filter = filter
        self._capacity = capacity
        self._waiting: deque[Observation] = deque()
        self._waiters: Waiters | None = None
        self._over = False

    def get(self, timeout: float | None = None) -> Observation:
        """The oldest observation that nobody has got yet; blocks until there is one.

        Raises:
            TimeoutError: none came within ``timeout`` seconds.
            RaftError: it is not registered, or not any more, and nothing is left.
        """
        waiters = self._waiters
        if waiters is None:
            raise RaftError("this observer sees nothing yet: pass it to Raft.register_observer() first")
        if not waiters.wait_until(lambda: bool(self._waiting) or self._over, timeout):
            raise TimeoutError(f"nothing was observed within {timeout:g} s")
        try:
            return self._waiting.popleft()
        except IndexError:
            raise RaftError("this observer is not registered any more") from None

    def __iter__(self) -> Iterator[Observation]:
        """Observations as they come, until it is deregistered or the server stops."""
        while True:
            try:
                yield self.get()
            except RaftError:
                return

    # -- for the server ------------------------------------------------------------------------

    def begin(self, runtime: Runtime) -> None:
        """It is registered from now on."""
        self._over = False
        if self._waiters is None:
            self._waiters = Waiters(runtime)

    def offer(self, observation: Observation) -> None:
        """Take ``observation`` if it is wanted and there is room.  Notify thread only."""
        if self._filter is not None and not self._filter(observation):
            return
        if len(self._waiting) >= self._capacity:
            self.dropped_total += 1
            return
        self._waiting.append(observation)
        self.observed_total += 1
        if self._waiters is not None:
            self._waiters.notify()

    def end(self) -> None:
        """Nothing more comes; whoever waits goes on."""
        self._over = True
        if self._waiters is not None:
            self._waiters.notify()


class Leaderships:
    """How often this server began or stopped to lead, and which came last.  Main thread writes."""

    def __init__(self, runtime: Runtime) -> None:
        self.news = Waiters(runtime)
        self.count = 0  # odd: it leads
        self.over = False

    def note(self, leads: bool) -> None:
        """This server leads from now on, or does not."""
        if leads != bool(self.count % 2):
            self.count += 1
            self.news.notify()

    def end(self) -> None:
        """There is nothing more to note."""
        self.over = True
        self.news.notify()


class LeadershipChanges:
    """A subscription: True when this server has become leader, False when it is no longer.

    Only the latest change is kept: two in a row that say True mean that it lost its
    leadership and has it again.  Iterating ends when the server stops.
    """

    def __init__(self, leaderships: Leaderships) -> None:
        self._leaderships = leaderships
        self._seen = leaderships.count

    def get(self, timeout: float | None = None) -> bool:
        """Whether this server leads, once that is news; blocks until then.

        Raises:
            TimeoutError: nothing changed within ``timeout`` seconds.
            RaftError: the server has stopped.
        """
        leaderships = self._leaderships
        if not leaderships.news.wait_until(
            lambda: leaderships.count != self._seen or leaderships.over, timeout
        ):
            raise TimeoutError(f"leadership did not change within {timeout:g} s")
        count = leaderships.count
        if count == self._seen:
            raise RaftError("the server has stopped: its leadership does not change any more")
        self._seen = count
        return bool(count % 2)

    def __iter__(self) -> LeadershipChanges:
        return self

    def __next__(self) -> bool:
        try:
            return self.get()
        except RaftError:
            raise StopIteration from None
