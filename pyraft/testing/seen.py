"""What the judge knows of each server and each leadership; it judges nothing."""

from __future__ import annotations

from typing import Any

from ..log import Log
from ..logstore.base import StableStore
from ..rules.election import Ballot
from ..state import RaftState, load_ballot
from .log_watch import DiskLog
from .sim_disk import Transaction


class Seen:
    """What is known of one server, through all its incarnations.

    Attributes:
        disk: the durable log and snapshot.  Its end identifies all of it, as long as I3 holds.
        former: those before the disk was replaced.
        came_at: how much was committed when it got an empty disk, to be added again.
        ballot: the durable one.
        acked: (term, index) up to which it has acknowledged entries.
        led_in: the latest term in which it led.
        got_snapshot: a leader's snapshot stands for the beginning of its log.
        is_damaged: a bit was flipped, and nobody has met it yet.
        role, goes_by, commit, applied: role, ballot and indexes as the present incarnation publishes
            them.
        results: what its FSM answered, by index.
        stored_unacked: entries are durable that it has not acknowledged yet.
        gave_up_stranded: it stopped by itself while it stood on a snapshot that the others had not got.
    """

    def __init__(self) -> None:
        self.disk = DiskLog()
        self.former = DiskLog()
        self.came_at = 0
        self.ballot = Ballot()
        self.acked = (0, 0)
        self.led_in = 0
        self.is_damaged = False
        self.got_snapshot = False
        self.begin()

    def begin(self) -> None:
        """A new incarnation: what is not durable begins anew."""
        self.role = RaftState.FOLLOWER
        self.goes_by = Ballot()
        self.commit = 0
        self.applied = 0
        self.results: dict[int, Any] = {}
        self.stored_unacked = False
        self.gave_up_stranded = False
        self.wrote_for = 0.0  # seconds that its latest write as a leader took

    def holds(self, index: int, term: int) -> bool:
        """Whether that entry, and so all before it, is on its disk or was on the one before."""
        return self.disk.holds(index, term) or self.former.holds(index, term)

    @property
    def logs(self) -> list[Log]:
        """The durable log, by index, with what a snapshot covers."""
        return self.disk.logs


class Reign:
    """One leadership: who, and the log it began with."""

    __slots__ = ("leader", "term", "terms")

    def __init__(self, leader: str, term: int, logs: list[Log]) -> None:
        self.leader = leader
        self.term = term
        self.terms = [log.term for log in logs]  # of the entries, by index

    def holds(self, index: int, term: int) -> bool:
        """Whether the leader's log has an entry of ``term`` at ``index``."""
        return term == self.term or (index < len(self.terms) and self.terms[index] == term)


def ballot_in(transaction: Transaction) -> Ballot:
    """The ballot that a transaction stores."""
    return load_ballot(_Values(transaction))


class _Values(StableStore):
    """The values that one transaction sets, as a store."""

    def __init__(self, transaction: Transaction) -> None:
        self._values = dict(transaction.values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def set(self, key: bytes, value: bytes) -> None:
        self._values[key] = value
