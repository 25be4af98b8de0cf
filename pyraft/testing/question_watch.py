"""Watches what servers answer to their own programs' questions: reads, changes of members, transfers.

Every answer comes once and is true.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import (
    ConfigError,
    EnqueueTimeoutError,
    LeadershipLostError,
    LeadershipTransferInProgressError,
    NotLeaderError,
    NotVoterError,
    RaftError,
    RaftShutdownError,
    ReadTimeoutError,
    SnapshotFailedError,
    StorageError,
    TransferFailedError,
)
from ..log import LogType
from ..state import RaftState

if TYPE_CHECKING:
    from concurrent.futures import Future

    from .cluster import SimCluster, SimServer
    from .invariants import Judge
    from .sim_runtime import Group


class Kind(Enum):
    """The kinds of questions."""

    READ = "read"
    VERIFY = "verify"
    CHANGE = "change"
    TRANSFER = "transfer"
    CAMPAIGN = "campaign"
    RESTORE = "restore"


_SENSIBLE: dict[Kind, tuple[type[RaftError], ...]] = {
    Kind.READ: (ReadTimeoutError,),
    Kind.VERIFY: (NotLeaderError,),
    Kind.CHANGE: (
        ConfigError,
        NotLeaderError,
        LeadershipLostError,
        EnqueueTimeoutError,
        LeadershipTransferInProgressError,
    ),
    Kind.TRANSFER: (
        TransferFailedError,
        NotLeaderError,
        NotVoterError,
        ConfigError,
        LeadershipTransferInProgressError,
    ),
    Kind.CAMPAIGN: (NotVoterError, NotLeaderError),
    Kind.RESTORE: (
        ConfigError,
        NotLeaderError,
        LeadershipLostError,
        EnqueueTimeoutError,
        LeadershipTransferInProgressError,
        SnapshotFailedError,
        StorageError,
    ),
}


class Asked:
    """A question, and what was so when it was asked.

    Attributes:
        committed: the highest committed index.
        led_in: the latest term in which the server had led.
        leaders_term: the latest term in which anybody had.
        terms: of every server's durable ballot.
        voters: of the configuration in force at the server.
    """

    def __init__(self, cluster: SimCluster, server: SimServer, kind: Kind, target: str | None) -> None:
        judge = cluster.judge
        seen = judge.seen(server.id)
        self.server = server
        self.group: Group = server.group
        self.kind = kind
        self.target = target
        self.committed = len(judge.committed) - 1
        self.led_in = seen.led_in
        self.leaders_term = judge.last_term
        self.terms = {id: judge.seen(id).ballot.term for id in cluster.servers}
        self.voters = [voter.id for voter in seen.disk.members.voters]
        self.is_done = False
        self.future: Future[Any] | None = None


class QuestionWatch:
    """The questions of every incarnation that still runs."""

    def __init__(self, cluster: SimCluster, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._cluster = cluster
        self._broken = broken
        self._asked: dict[Group, list[Asked]] = {}

    def asking(self, server: SimServer, kind: Kind, target: str | None = None) -> Asked:
        """A program is about to ask ``server``."""
        asked = Asked(self._cluster, server, kind, target)
        others = self._asked.setdefault(asked.group, [])
        if kind is Kind.CHANGE and any(one.kind is kind and not one.is_done for one in others):
            self._cluster.judge.scout.reached("two changes at once")
        return asked

    def asked(self, asked: Asked, future: Future[Any]) -> None:
        """It was given ``future``."""
        asked.future = future
        self._asked.setdefault(asked.group, []).append(asked)
        future.add_done_callback(partial(self._done, asked))

    def pending(self, group: Group) -> int:
        """How many futures of an incarnation are not done."""
        return sum(one.future is not None and not one.future.done() for one in self._asked.get(group, ()))

    def is_open(self, kind: Kind) -> bool:
        """Whether a question of that kind has no answer yet, at any server."""
        return any(one.kind is kind and not one.is_done for asked in self._asked.values() for one in asked)

    def ended(self, group: Group) -> None:
        """An incarnation is over: nobody looks at its futures any more."""
        self._asked.pop(group, None)

    def _done(self, asked: Asked, future: Future[Any]) -> None:
        """On the thread that resolved it."""
        scheduler = self._cluster.scheduler
        if asked.group.dead:
            return
        before, scheduler.undisturbed = scheduler.undisturbed, True
        what = f"{asked.kind.value} of {asked.server.id}"
        if asked.is_done:
            self._broken("I11", f"the future of a {what} called its callbacks twice")
        asked.is_done = True
        error = future.exception(0)
        judge = self._cluster.judge
        if error is not None:
            if not isinstance(error, (*_SENSIBLE[asked.kind], RaftShutdownError)):
                self._broken("I11", f"a {what} failed with {error!r}")
            judge.scout.question_failed(asked.kind.value, error)
        else:
            self._check_success(judge, asked, future.result(0))
        scheduler.undisturbed = before

    def _check_success(self, judge: Judge, asked: Asked, value: Any) -> None:
        match asked.kind:
            case Kind.READ:
                self._check_read(judge, asked, value)
            case Kind.VERIFY:
                self._check_verified(judge, asked)
            case Kind.TRANSFER:
                self._check_transfer(judge, asked)
            case Kind.CHANGE:
                judge.scout.reached("change succeeded")
            case Kind.CAMPAIGN:
                judge.scout.reached("campaign asked for")
            case Kind.RESTORE:
                if judge.restores.is_stranded(judge.seen(asked.server.id).disk, judge.committed):
                    self._broken("I11", f"a {asked.kind.value} of {asked.server.id} succeeded uncommitted")
                judge.scout.reached("state restored from outside")

    def _check_read(self, judge: Judge, asked: Asked, index: int) -> None:
        """I13: it covers all that was committed before the question, and the FSM holds it."""
        id, seen = asked.server.id, judge.seen(asked.server.id)
        if index < asked.committed:
            self._broken(
                "I13",
                f"{id} may read at entry {index}, and {asked.committed} was committed before it was asked",
            )
        if index >= len(judge.committed):
            self._broken("I13", f"{id} may read at entry {index}, which is not committed")
        raft = asked.server.raft
        applied = 0 if raft is None else raft.applied_index  # the state machine may not have got it yet
        if judge.restores.is_stranded(seen.disk, judge.committed, applied):
            self._broken("I13", f"{id} may read from a snapshot from outside that is not committed")
        for log in judge.committed[seen.applied + 1 : index + 1]:
            if log.type is LogType.COMMAND:
                self._broken("I13", f"{id} may read at entry {index}, and its FSM has not got {log.index}")
                break
        if seen.role is RaftState.LEADER:
            judge.scout.reached("read on a leader")
        elif seen.disk.members.is_voter(id):
            judge.scout.reached("read on a follower")
        else:
            judge.scout.reached("read on a server without a vote")
        if judge.last_term > asked.leaders_term:
            judge.scout.reached("read through an election")

    def _check_verified(self, judge: Judge, asked: Asked) -> None:
        """I13: at some instant after the question a majority of its voters had not left its term.

        Terms only grow, so the instant of the question is the best one.
        """
        seen = judge.seen(asked.server.id)
        term = seen.led_in
        now = [voter.id for voter in seen.disk.members.voters]
        for voters in (asked.voters, now):
            if 2 * sum(asked.terms.get(voter, 0) <= term for voter in voters) > len(voters):
                judge.scout.reached("leadership verified")
                return
        self._broken(
            "I13",
            f"{asked.server.id} is said to lead term {term} after a question before which most of {now} had left "
            f"it: {asked.terms}",
        )

    def _check_transfer(self, judge: Judge, asked: Asked) -> None:
        """The target has led a later term than the server did when it was asked."""
        id = asked.server.id
        later = [judge.leader_of(term) for term in range(asked.led_in + 1, judge.last_term + 1)]
        if not any(
            leader is not None and leader in (asked.target or leader,) and leader != id for leader in later
        ):
            self._broken(
                "transfer",
                f"{id} says that it has handed over to {asked.target or 'somebody'}; later leaders were {later}",
            )
        judge.scout.reached("transfer succeeded")
