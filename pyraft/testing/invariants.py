"""What Raft promises, checked while a simulated cluster runs.

The judge watches from outside: every change of a disk at the moment when it becomes durable,
every message at the moment when it is sent, every command that an FSM was given, every future, and
what a server publishes, at the first point where another thread could see it.  Each check
costs the same however long the run is.

| id  | promise                                                    | source                 |
|-----|------------------------------------------------------------|------------------------|
| I1  | at most one leader in a term, whom a majority voted for    | §5.2 Election Safety   |
| I2  | a leader only appends, and sends nothing but its own log   | §5.3 Leader Append-Only|
| I3  | equal index and term: equal logs up to there               | §5.3 Log Matching      |
| I4  | a leader holds every entry committed before                | §5.4 Leader Completeness|
| I5  | an FSM gets what is committed, in order, each entry once   | §5.4.3 State Machine Safety |
| I6  | leaders commit what is durable on a majority and on their own disk, up to an entry of their term | §5.4.2 |
| I7  | terms, commit and applied index do not go back; one vote in a term | Figure 2       |
|     | what was acknowledged in a term is not dropped in it       | §5.3                   |
| I8  | what a server says, and what it goes by, is durable before | Figure 2, persistent state |
| I9  | applied <= committed <= log end; the log has no gap        | Figure 2               |
| I10 | a configuration entry follows a committed one, and changes one voter at most | dissertation §4.1 |
|     | who stands for election or leads goes by the latest one in its log | §4.1 |
|     | a leader proposes one only after it has committed an entry of its term | §4.1, erratum |
| I11 | a future is done once, and whoever waits for it is woken   | §8                     |
|     | a success names the command's entry and has the FSM's answer | §8                   |
|     | what was refused is never committed                        | §8                     |
| I12 | after shutdown no thread and no future is left             | ARCHITECTURE           |
| I13 | a read index covers what was committed before the question, and the FSM has it | dissertation §6.4 |
|     | a leader is confirmed only if a majority had not left its term before the question | §6.4 |
| I14 | once the faults end: a leader, equal states, new commands succeed | §5.2, §9.3      |
| transfer | it succeeds only if the target leads                  | dissertation §3.10     |
| lease | a leader that no majority answers steps down in time     | dissertation §6.4      |
| campaign | a follower that hears from nobody stands for election | §5.2                   |
| latency | with nothing wrong, things take a few round trips      | no wake-up is lost     |
| log | no error is logged that nothing explains                   |                        |
| stopped | a server stops by itself only for what was done to it  |                        |

Clients' histories are checked for linearizability besides (linearizability.py); the promises about time
are in punctuality.py, those about futures in future_watch.py and question_watch.py, those about whom to vote
for in vote_watch.py, those about members in member_watch.py, those about snapshots in log_watch.py; what must
hold at the end of a run (I14, and I5 and I12 once more) is in end_checks.py.  What the judge knows is in seen.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from ..configuration import Configuration
from ..errors import CorruptStoreError, EnqueueTimeoutError, FSMFailedError, StorageError
from ..futures import ApplyFuture
from ..log import Log, LogType
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from ..raft import Raft
from ..rules.election import Ballot
from ..snapshots.base import SnapshotMeta
from ..state import BALLOT_KEY, NodeState, RaftState
from .future_watch import FutureWatch
from .log_watch import DiskLog, SnapshotWatch
from .member_watch import MemberWatch
from .punctuality import Timekeeper
from .question_watch import Kind, QuestionWatch
from .restore_watch import RestoreWatch
from .roster import Roster
from .scout import Scout
from .seen import Reign, Seen, ballot_in
from .sim_disk import StoredSnapshot, Transaction
from .vote_watch import VoteWatch

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .coverage import Coverage
    from .sim_clients import Outcome
    from .sim_runtime import Group

P = ParamSpec("P")

_RESULTS = 4096  # answers of an FSM that are kept for the futures that bring them
_READS_WITHIN = 10.0  # virtual seconds, while nothing is wrong
_ENDS_WITHIN = 0.05  # virtual seconds
_WAKES_WITHIN = 0.5  # virtual seconds from a future's end until its waiter runs


def _undisturbed(method: Callable[Concatenate[Judge, P], None]) -> Callable[Concatenate[Judge, P], None]:
    """``method``, in one step even where the simulation switches between lines of production code."""

    @wraps(method)
    def call(judge: Judge, /, *args: P.args, **kwargs: P.kwargs) -> None:
        scheduler = judge._cluster.scheduler
        before, scheduler.undisturbed = scheduler.undisturbed, True
        try:
            method(judge, *args, **kwargs)
        finally:
            scheduler.undisturbed = before

    return call


class Violation(AssertionError):
    """A promise is broken; ``promise`` names it."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Judge:
    """Watches a cluster.  A violation stops the simulation.

    Attributes:
        committed: every committed entry, by index; first writer wins.
        calm_since: from this instant on nothing is wrong any more, so commands must succeed.
        last_term: the latest term that had a leader.
        scout: counts the situations that were reached.
        futures: of commands, that were given to callers.
        questions: the futures of all else.
        restores: the snapshots from outside.
        roster: who counts on which server.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._seen: dict[str, Seen] = {}
        self._leaders: dict[int, str] = {}
        self._reigns: dict[int, Reign] = {}
        self.last_term = 0
        self._votes: dict[tuple[int, str], dict[str, None]] = {}  # (term, candidate) -> voters
        self._logs: dict[tuple[int, int], tuple[bytes, int]] = {}  # (index, term) -> bytes, term before
        self.committed: list[Log] = [Log()]
        self._committed_in: list[int] = [0]  # in which leader's term, by index
        self._places: dict[bytes, int] = {}  # of committed commands
        self._refused: dict[bytes, None] = {}  # commands that were in nobody's log
        self._open: dict[bytes, None] = {}  # commands whose client does not know
        self.calm_since = inf
        self.scout = Scout(cluster)
        self.futures = FutureWatch(cluster, self._broken)
        self.questions = QuestionWatch(cluster, self._broken)
        self.timekeeper = Timekeeper(cluster, self._broken)
        self._vote_watch = VoteWatch(self._broken)
        self._snapshot_watch = SnapshotWatch(self._broken)
        self.restores = RestoreWatch(self._broken)
        self._member_watch: MemberWatch | None = None
        self.roster = Roster(cluster, self._seen, lambda: self._members)

    @property
    def coverage(self) -> Coverage:
        """How often each situation was reached."""
        return self.scout.coverage

    def seen(self, server: str) -> Seen:
        """What is known of the server."""
        seen = self._seen.get(server)
        if seen is None:
            seen = self._seen[server] = Seen()
        return seen

    # -- members -----------------------------------------------------------------------------------

    @property
    def members(self) -> Configuration:
        """The latest committed configuration; the bootstrap's before any is committed."""
        return self._members.members

    @property
    def _members(self) -> MemberWatch:
        if self._member_watch is None:
            self._member_watch = MemberWatch(self._cluster.configuration, self._broken, self.scout.reached)
        return self._member_watch

    def leader_of(self, term: int) -> str | None:
        """Who led that term, None if nobody did."""
        return self._leaders.get(term)

    # -- lives and deaths --------------------------------------------------------------------------

    @_undisturbed
    def starting(self, server: SimServer) -> None:
        """A new incarnation begins."""
        self.seen(server.id).begin()
        self.timekeeper.sign_of_life(server.id)

    def watch(self, server: SimServer, group: Group, raft: Raft) -> None:
        """Look at what an incarnation publishes whenever one of its threads could be switched out."""
        state: NodeState = raft._state
        role: RaftState | None = None
        ballot: Ballot | None = None
        commit = 0

        def look() -> None:
            nonlocal role, ballot, commit
            if state.commit_index != commit or state.role is not role or state.ballot is not ballot:
                commit, role, ballot = state.commit_index, state.role, state.ballot
                self._published(server, raft, role, ballot, commit)

        group.watch = look

    @_undisturbed
    def crashing(self, server: SimServer) -> None:
        """An incarnation is about to die."""
        self.check_failure(server)
        self.futures.ended(server.group)
        self.questions.ended(server.group)
        self.scout.crashing(server, self.seen(server.id))
        self.timekeeper.died(server)

    def stopping(self, server: SimServer) -> None:
        """An incarnation is asked to end in good order."""
        self.scout.stopping(self.seen(server.id), self.futures.pending(server.group))

    def damaged(self, server: str) -> None:
        """A record on the server's disk is not what it was."""
        self.seen(server).is_damaged = True

    def holds_its_past(self, server: SimServer) -> bool:
        """Whether everything that the server ever promised is on its disk, or made up for."""
        seen = self.seen(server.id)
        return not seen.is_damaged and seen.ballot.newborn is None and seen.ballot.term > 0

    def is_lost(self, server: SimServer) -> bool:
        """Whether it has lost its past, or stands on a snapshot from outside that may never be committed.

        With one such voter among three all the others are needed, so operators risk no other one.
        """
        seen = self.seen(server.id)
        newborn = seen.ballot.newborn
        is_wiped = not seen.ballot.term and len(seen.former.logs) > 1
        has_no_past = is_wiped or (newborn is not None and not newborn.has_joined)
        return seen.is_damaged or has_no_past or self.restores.is_stranded(seen.disk, self.committed)

    def may_lose_one(self) -> bool:
        """Whether operators may risk a disk: no server is lost, and none may become so by a restore."""
        is_any_lost = any(self.is_lost(server) for server in self._cluster.servers.values())
        return not is_any_lost and not self.questions.is_open(Kind.RESTORE)

    @_undisturbed
    def disk_wiped(self, server: str) -> None:
        """Its disk is empty now; what it held still counts as having been on a majority."""
        former = self.seen(server).disk
        self._seen[server] = Seen()
        self._seen[server].former = former
        self.scout.reached("disk wiped")

    @_undisturbed
    def renewed(self, server: str) -> None:
        """A server that is no member has a new disk: what it held before does not count any more."""
        self._seen[server] = Seen()
        self._seen[server].came_at = len(self.committed) - 1
        self.scout.reached("removed server renewed")

    @_undisturbed
    def recovering(self, server: SimServer, configuration: Configuration) -> None:
        """All others are lost for good: what ``server`` holds is all there is, and is committed from now on.

        It holds what was committed before, or this is no story to judge.
        """
        seen = self.seen(server.id)
        logs, last = seen.logs, len(seen.logs) - 1
        for log in self.committed:
            if log.index > last or logs[log.index].term != log.term:
                self._broken(
                    "I4", f"{server.id} has the longest log, and lacks entry {log.index}, which is committed"
                )
        for log in logs[len(self.committed) :]:
            self._is_committed(server.id, log, seen.ballot.term)
        self._members.recovered(configuration, last)
        self._snapshot_watch.recovered(last, configuration)
        seen.disk.go_by(configuration, last)
        # What the others had done in other terms, nobody will hear of any more.
        self._leaders, self._reigns, self._votes, self._logs = {}, {}, {}, {}
        self.last_term = 0

    # -- what a server publishes -------------------------------------------------------------------

    @_undisturbed
    def _published(self, server: SimServer, raft: Raft, role: RaftState, ballot: Ballot, commit: int) -> None:
        """I1, I4 to I9: role, ballot or commit index have changed."""
        seen = self.seen(server.id)
        if ballot is not seen.goes_by and ballot != seen.ballot:
            self._broken("I8", f"{server.id} goes by {ballot}, and its disk says {seen.ballot}")
        seen.goes_by = ballot
        if role is not seen.role:
            seen.wrote_for = raft._node.context.metrics.log_write_latest_seconds
            self.scout.role_changed(server, seen, role, self.timekeeper.silence(server.id))
            seen.role = role
            self.timekeeper.sign_of_life(server.id)
            if role in (RaftState.CANDIDATE, RaftState.LEADER):
                self._vote_watch.stands(server.id, seen)
                self._members.stands(server.id, seen, raft._state.configurations.latest)
            if role is RaftState.LEADER:
                self._elected(server, seen, ballot.term)
            elif role is RaftState.SHUTDOWN:
                self.timekeeper.gave_up(server)
                # Now: another server that stands there, too, may be elected later on, and then all get it.
                seen.gave_up_stranded = self.restores.is_stranded(seen.disk, self.committed)
        if commit != seen.commit:
            self._commits(server, seen, raft, commit)

    def _elected(self, server: SimServer, seen: Seen, term: int) -> None:
        first = self._leaders.setdefault(term, server.id)
        if first != server.id:
            self._broken("I1", f"{first} and {server.id} both lead term {term}")
        elif term in self._reigns:
            self._broken("I1", f"{server.id} was elected in term {term} twice")
        # For all it knows it is needed to commit those members (§4.2.2).
        is_open = seen.disk.members_index > seen.commit
        if not seen.disk.members.is_voter(server.id) and not is_open:
            self._broken("I1", f"{server.id} leads term {term}, and has no vote by its own log")
        votes = self._votes.get((term, server.id), {})
        voters = [voter.id for voter in seen.disk.members.voters]
        if 2 * sum(voter in votes for voter in voters) <= len(voters):
            self._broken(
                "I1", f"{server.id} leads term {term}, and of {voters} only {list(votes)} voted for it"
            )
        last = len(self.committed) - 1
        while last and self._committed_in[last] >= term:
            last -= 1
        if not seen.holds(last, self.committed[last].term):
            self._broken("I4", f"{server.id} leads term {term} without entry {last}, which is committed")
        seen.led_in = term
        self.last_term = max(self.last_term, term)
        self._reigns[term] = Reign(server.id, term, seen.logs)
        self.timekeeper.elected(server.id)
        others = [self.seen(s.id) for s in self._cluster.servers.values() if s is not server and s.is_up]
        self.scout.elected(seen, others, len(self.committed))

    def _commits(self, server: SimServer, seen: Seen, raft: Raft, commit: int) -> None:
        if commit < seen.commit:
            self._broken("I7", f"{server.id} takes its commit index back from {seen.commit} to {commit}")
        self._may_stand_on_snapshot(seen, commit)
        if commit >= len(seen.logs):
            end = len(seen.logs) - 1
            self._broken("I9", f"{server.id} commits entry {commit}, and its disk ends at {end}")
            return
        if self.restores.is_one(commit, seen.logs[commit].term):
            seen.commit = commit  # it goes by the snapshot; the entry behind it decides what the cluster does
            return
        if raft.applied_index > commit:
            self._broken(
                "I9", f"{server.id} applied entry {raft.applied_index} and knows {commit} as committed"
            )
        if seen.role is RaftState.LEADER:
            self._leader_commits(server, seen, commit)
        if commit >= len(self.committed):
            self._broken("I6", f"{server.id} commits entry {commit}, which no leader has committed")
        elif seen.logs[commit].term != self.committed[commit].term:
            self._broken("I5", f"{server.id} commits another entry {commit} than somebody did before")
        seen.commit = commit

    def _leader_commits(self, server: SimServer, seen: Seen, commit: int) -> None:
        """I6: an entry of its own term, which is on enough disks."""
        entry, term = seen.logs[commit], seen.led_in
        if entry.term != term:
            self._broken(
                "I6",
                f"{server.id} leads term {term} and commits entry {commit} of term {entry.term} by counting",
            )
        voters = seen.disk.members.voters
        holders = sum(self.seen(voter.id).holds(commit, entry.term) for voter in voters)
        if 2 * holders <= len(voters):
            self._broken("I6", f"{server.id} commits entry {commit}, which is on {holders} disks only")
        later = self._reigns[self.last_term]
        if later.term > term and not later.holds(commit, entry.term):
            self._broken(
                "I4",
                f"{server.id} of term {term} commits entry {commit}, which {later.leader} of {later.term} lacks",
            )
        for index in range(len(self.committed), commit + 1):
            self._is_committed(server.id, seen.logs[index], term)
        self.scout.committed(holders, len(voters))

    def _is_committed(self, leader: str, log: Log, term: int) -> None:
        self.committed.append(log)
        self._committed_in.append(term)
        self._places[log.data] = log.index
        self._members.committed(leader, log)
        if log.data in self._refused:
            self._broken("I11", f"{log.data!r} was refused, and is committed as entry {log.index}")
        if log.data in self._open:
            self.scout.reached("unknown outcome, applied")

    # -- disks -------------------------------------------------------------------------------------

    @_undisturbed
    def disk_changed(self, server: str, transaction: Transaction) -> None:
        """I2, I3, I7, I9: the log and the ballot on a disk have changed."""
        owner, seen = self._cluster.servers[server], self.seen(server)
        if transaction.delete is not None:
            first, last = transaction.delete
            if transaction.logs:  # a conflicting suffix goes in one step with what replaces it
                if first < len(seen.logs):
                    self._suffix_dropped(owner, seen, first)
            else:
                self._dropped(owner, seen, first, last)
        for log in transaction.logs:
            self._appended(owner, seen, log)
        for key, _ in transaction.values:
            if key == BALLOT_KEY:
                self._voted(server, seen, ballot_in(transaction))
        if transaction.logs:
            seen.stored_unacked = True
            everybody = [self.seen(voter.id) for voter in seen.disk.members.voters]
            self.scout.stored(seen, everybody, len(self.committed))

    @_undisturbed
    def snapshot_kept(self, server: str, stored: StoredSnapshot) -> None:
        """I5, I9: a snapshot is durable."""
        seen, meta = self.seen(server), stored.meta
        if seen.role is RaftState.LEADER and meta.term == seen.led_in and meta.index >= len(seen.logs):
            self.restores.begins(seen.disk, stored)
        is_foreign = self.restores.is_one(meta.index, meta.term)
        if is_foreign:
            self.restores.kept(server, stored)
        else:
            self._snapshot_watch.kept(server, stored, self.committed)
        seen.disk.keep(meta, is_foreign)

    def _dropped(self, server: SimServer, seen: Seen, first: int, last: int) -> None:
        """Entries go and nothing comes: because of a snapshot."""
        disk, snapshot = seen.disk, seen.disk.snapshot
        end = len(disk.logs) - 1
        if first > disk.first and first <= end:
            self._suffix_dropped(server, seen, first)
        elif snapshot is None:
            self._broken("I9", f"{server.id} drops entries {first}..{last} behind no snapshot")
        elif last <= disk.covered:  # a newer one, which contradicts the log, may be there already
            disk.first = self.restores.behind_marks(disk, last + 1)
            self.scout.reached("log compacted")
        elif last < end or disk.holds_itself(snapshot):
            self._broken(
                "I9",
                f"{server.id} drops entries {first}..{last} of ..{end}; its snapshot ends at {snapshot.index}",
            )
        else:
            stands_for = self.restores.log_for(snapshot, self.committed)
            self._replaced(server, disk, stands_for)
            disk.stand_on(snapshot.index, stands_for)
            disk.go_by(snapshot.configuration, snapshot.configuration_index)
            seen.got_snapshot = True
            self.scout.reached("log replaced by a snapshot")

    def _replaced(self, server: SimServer, disk: DiskLog, stands_for: list[Log]) -> None:
        """I4: a snapshot takes the place of the log: no committed entry may go that is not in it."""
        logs, committed = disk.logs, self.committed
        for index in range(min(len(logs), len(committed)) - 1, 0, -1):
            if logs[index].term == committed[index].term:
                if index >= len(stands_for) or stands_for[index].term != logs[index].term:
                    self._broken("I4", f"{server.id} drops entry {index}, which is committed, for a snapshot")
                return

    def _may_stand_on_snapshot(self, seen: Seen, commit: int) -> None:
        """A log that was empty vanishes without a write."""
        snapshot = seen.disk.snapshot
        if snapshot is not None and commit >= len(seen.logs) and commit <= snapshot.index:
            seen.disk.stand_on(snapshot.index, self.restores.log_for(snapshot, self.committed))
            seen.disk.go_by(snapshot.configuration, snapshot.configuration_index)
            seen.got_snapshot = True
            self.scout.reached("snapshot installed on an empty log")

    def _suffix_dropped(self, server: SimServer, seen: Seen, first: int) -> None:
        self.scout.reached("uncommitted suffix replaced")
        if seen.role is RaftState.LEADER and server.is_up:
            self._broken("I2", f"{server.id} drops entries from {first} on while it leads term {seen.led_in}")
        if first < len(self.committed) and seen.logs[first].term == self.committed[first].term:
            self._broken("I4", f"{server.id} drops entry {first}, which is committed")
        term, last = seen.acked
        if first <= last and term == seen.ballot.term:
            self._broken(
                "I7",
                f"{server.id} drops entries from {first} on, and acknowledged {last} in the same term {term}",
            )
        self._members.dropped(seen.logs[first:])
        seen.disk.cut(first)

    def _appended(self, server: SimServer, seen: Seen, log: Log) -> None:
        index, term = log.index, log.term
        if index > len(seen.logs):
            self._broken("I9", f"{server.id} stores entry {index} after entry {len(seen.logs) - 1}: a gap")
            return
        if index < len(seen.logs):
            self._suffix_dropped(server, seen, index)
        before = seen.logs[-1].term
        if term < before:
            self._broken("I3", f"{server.id} stores entry {index} of term {term} after one of term {before}")
        if term > seen.ballot.term:
            self._broken("I8", f"{server.id} stores entry {index} of term {term}; disk: {seen.ballot}")
        if seen.role is RaftState.LEADER and term != seen.led_in and server.is_up:
            self._broken("I2", f"{server.id} leads term {seen.led_in} and appends an entry of term {term}")
        if before < term and index > 1 and log.type is not LogType.NOOP:
            self._broken("I6", f"{server.id} stores {log!r}, and no no-op begins its term (§8)")
        is_configuration, joined = log.type is LogType.CONFIGURATION, []
        if is_configuration:
            joined = self._members.stored(server.id, seen, log, self.committed)
        self._known(server, log, before)
        seen.disk.append(log)
        if is_configuration:
            self.timekeeper.voters_changed(server.id)
        if any(self.seen(voter.id).got_snapshot for voter in joined):
            self.scout.reached("new voter had got a snapshot")
        if index < len(self.committed) and self.committed[index].term != term:
            # Not wrong by itself: such a server just cannot win.  Commit checks do the rest.
            self.scout.reached("stale entry stored at a committed index")

    def _known(self, server: SimServer, log: Log, before: int) -> None:
        """I3: index and term decide the entry, and the term of the one before it, and so on."""
        known = self._logs.get((log.index, log.term))
        if known is None:
            self._logs[log.index, log.term] = (log.encoded, before)
        elif known[1] != before or known[0] != log.encoded:
            self._broken(
                "I3", f"{server.id} has another log up to entry {log.index} of term {log.term} than others"
            )

    def _voted(self, server: str, seen: Seen, ballot: Ballot) -> None:
        before = seen.ballot
        if ballot.term < before.term:
            self._broken("I7", f"{server} goes back from term {before.term} to {ballot.term}")
        if ballot.term == before.term and before.voted_for not in (None, ballot.voted_for):
            self._broken("I7", f"{server} changes its vote of term {ballot.term} from {before.voted_for}")
        if ballot.voted_for is not None:
            self._votes.setdefault((ballot.term, ballot.voted_for), {})[server] = None
        if self._cluster.is_recovering:
            self._vote_watch.recovering(server, ballot)
        self._vote_watch.saved(server, seen, ballot, self.committed)
        self.scout.voted(ballot, before)
        seen.ballot = ballot

    # -- state machines and callers ----------------------------------------------------------------

    @_undisturbed
    def applying(self, server: SimServer, log: Log) -> None:
        """I9: an FSM is about to be given ``log``: nobody may believe that it has it."""
        if server.raft is not None and server.raft.applied_index >= log.index:
            self._broken("I9", f"{server.id} says that entry {log.index} is applied, and begins to apply it")

    @_undisturbed
    def applied(self, server: SimServer, log: Log, result: Any) -> None:
        """I5: an FSM was given ``log`` and answered ``result``."""
        seen, index = self.seen(server.id), log.index
        if index <= seen.applied:
            self._broken("I5", f"{server.id} applied entry {index} after entry {seen.applied}")
        for skipped in self.committed[seen.applied + 1 : index]:
            if skipped.type is LogType.COMMAND:
                self._broken("I5", f"{server.id} applied entry {index} and never entry {skipped.index}")
        seen.applied = index
        seen.results[index] = result
        if len(seen.results) > _RESULTS:
            del seen.results[next(iter(seen.results))]
        if index > seen.commit:
            self._broken("I9", f"{server.id} applied entry {index} and knows {seen.commit} as committed")
        expected = self.committed[index] if index < len(self.committed) else None
        if expected is None:
            self._broken("I5", f"{server.id} applied entry {index}, which nobody has committed")
        elif expected.encoded != log.encoded:
            self._broken("I5", f"{server.id} applied {log!r} where {expected!r} is committed")
        self.scout.applying(seen.commit, index)

    @_undisturbed
    def restored(self, server: SimServer, meta: SnapshotMeta) -> None:
        """I5: an FSM has the state of a snapshot."""
        seen = self.seen(server.id)
        if meta.index <= seen.applied:
            self._broken("I5", f"{server.id} restores entry {meta.index} after it applied {seen.applied}")
        seen.applied = meta.index
        self.scout.reached("FSM restored")

    @_undisturbed
    def asked(self, server: SimServer, group: Group, command: bytes, future: ApplyFuture) -> None:
        """A caller was given ``future``."""
        self.futures.made(server, group, command, future)

    @_undisturbed
    def woken(self, server: SimServer, outcome: Outcome, waited_since: float) -> None:
        """I11: a caller that waited goes on."""
        done_at = outcome.answered_at
        if not done_at:
            return
        if self.timekeeper.could_act_for(server.id, max(done_at, waited_since)) > _WAKES_WITHIN:
            self._broken(
                "I11",
                f"who waited for {outcome.command!r} on {server.id} was not woken when it was done at {done_at:.6f}",
            )

    @_undisturbed
    def answered(self, outcome: Outcome) -> None:
        """I14: a client goes on, with an answer or without."""
        if outcome.in_haste or outcome.asked_at < self.calm_since:
            return
        if type(outcome.error) in (TimeoutError, EnqueueTimeoutError):
            self._broken("I14", f"nothing is wrong, but {outcome.command!r} got no answer: {outcome.error}")

    def not_applied(self, command: bytes) -> None:
        """A client was told that its command, which nobody sends twice, is in nobody's log."""
        self._refused[command] = None
        if command in self._places:
            self._broken("I11", f"{command!r} was refused, and is committed as entry {self._places[command]}")

    def in_doubt(self, command: bytes) -> None:
        """A client was told that nobody knows about its command."""
        self._open[command] = None

    def logged_error(self, text: str) -> None:
        """pyraft says that something went wrong."""
        self._broken("log", f"an error was logged: {text}")

    # -- messages ----------------------------------------------------------------------------------

    @_undisturbed
    def request_sent(self, src: str, dst: str, request: AnyRequest) -> None:
        """I1, I2, I3, I6, I8: a server speaks."""
        server = self._at(src)
        seen = self.seen(server.id)
        if isinstance(request, AppendEntriesRequest):
            self._entries_sent(server, seen, request)
        elif isinstance(request, InstallSnapshotRequest):
            if self._leaders.get(request.term) != server.id:
                self._broken(
                    "I1", f"{server.id} sends a snapshot in term {request.term}, which it does not lead"
                )
        elif isinstance(request, RequestVoteRequest):
            ballot = seen.ballot
            if ballot.term < request.term or (ballot.term == request.term and ballot.voted_for != server.id):
                self._broken(
                    "I8", f"{server.id} asks for votes in term {request.term}, but its disk says {ballot}"
                )
        self.scout.request_sent(src, dst, seen, request)
        if dst.split(":")[0] in self._cluster.servers:  # an operator may have named a wrong address
            self.timekeeper.request_sent(server, self._at(dst), request)
            if isinstance(request, AppendEntriesRequest):
                self._check_match(server, self._at(dst).id, request)
        self.timekeeper.tick()

    def _check_match(self, server: SimServer, peer: str, request: AppendEntriesRequest) -> None:
        """I6: what a leader counts a peer for is, or was, on its disk."""
        session = server.sessions.get(peer)
        reign, held = self._reigns.get(request.term), self.seen(peer)
        if session is None or reign is None or held.ballot.term > request.term:
            return
        index = session.match_index
        if held.disk.snapshot is not None and index <= held.disk.snapshot.index:
            return
        for logs in (held.disk.logs, held.former.logs):
            if index < len(logs) and (not index or reign.holds(index, logs[index].term)):
                return
        self._broken(
            "I6", f"{server.id} counts {peer} up to entry {index}, and its disk ends at {len(held.logs) - 1}"
        )

    def _entries_sent(self, server: SimServer, seen: Seen, request: AppendEntriesRequest) -> None:
        term, prev, before, entries = (
            request.term,
            request.prev_log_entry,
            request.prev_log_term,
            request.entries,
        )
        reign = self._reigns.get(term)
        if reign is None or reign.leader != server.id:
            self._broken("I1", f"{server.id} sends entries of term {term}, which it does not lead")
            return
        last, last_term = prev + len(entries), entries[-1].term if entries else before
        if (prev and not reign.holds(prev, before)) or (last and not reign.holds(last, last_term)):
            self._broken(
                "I2", f"{server.id} sends entries {prev}..{last} that its log of term {term} has not got"
            )
        for index, log in enumerate(entries, prev + 1):
            if log.index != index:
                self._broken("I9", f"{server.id} sends entry {log.index} where {index} should be")
            self._known(server, log, before)
            before = log.term
        if request.leader_commit_index > min(seen.commit, last):
            self._broken(
                "I6",
                f"{server.id} sends the commit index {request.leader_commit_index} with entries up to {last}, and has "
                f"committed {seen.commit}",
            )

    @_undisturbed
    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None:
        """I8: what an answer promises must be on disk."""
        server = self._at(src)
        seen = self.seen(server.id)
        self.scout.response_sent(src, dst, seen, request, response)
        if isinstance(response, RequestVoteResponse) and isinstance(request, RequestVoteRequest):
            candidate, ballot = request.header.id, seen.ballot
            holds = ballot.term == request.term and ballot.voted_for == candidate
            # A vote may be answered late, after the voter has moved on to a later term.
            if response.granted and not holds and ballot.term <= request.term:
                self._broken("I8", f"{server.id} grants {candidate} term {request.term}; disk: {ballot}")
            if response.granted and seen.role is RaftState.LEADER and seen.led_in >= request.term:
                self._broken("I8", f"{server.id} leads term {seen.led_in} and votes for {candidate}")
        self._vote_answered(server, seen, request, response)
        if isinstance(response, AppendEntriesResponse) and isinstance(request, AppendEntriesRequest):
            if response.term > seen.ballot.term:
                self._broken("I8", f"{server.id} answers in term {response.term}; disk: {seen.ballot}")
            if response.success:
                self._acknowledged(server, seen, request, response)
        if isinstance(response, InstallSnapshotResponse) and isinstance(request, InstallSnapshotRequest):
            if response.success:  # one that is refused may be durable all the same, and nobody stands on it
                self._may_stand_on_snapshot(seen, request.last_log_index)
            holds = seen.holds(request.last_log_index, request.last_log_term)
            if response.success and not holds and seen.ballot.term <= request.term:
                self._broken("I8", f"{server.id} says that it has the snapshot of {request.last_log_index}")
        self.timekeeper.response_sent(server.id, dst.split(":")[0], request, response)

    def _vote_answered(
        self, server: SimServer, seen: Seen, request: AnyRequest, response: AnyResponse
    ) -> None:
        if not isinstance(request, RequestVoteRequest | RequestPreVoteRequest):
            return
        if isinstance(response, RequestVoteResponse | RequestPreVoteResponse) and response.granted:
            is_over = request.term in self._reigns or request.term < seen.ballot.term
            self._vote_watch.granted(server.id, seen, request, is_over)

    def _acknowledged(
        self, server: SimServer, seen: Seen, request: AppendEntriesRequest, response: AppendEntriesResponse
    ) -> None:
        if response.term != request.term:
            self._broken(
                "I8", f"{server.id} accepts a request of term {request.term} in term {response.term}"
            )
        last, entries = request.prev_log_entry + len(request.entries), request.entries
        last_term = entries[-1].term if entries else request.prev_log_term
        holds = last < len(seen.logs) and (not last or seen.logs[last].term == last_term)
        if not holds and seen.ballot.term <= request.term:
            self._broken(
                "I8",
                f"{server.id} acknowledged entry {last} of term {last_term}, and its disk ends at "
                f"{len(seen.logs) - 1} with terms {[log.term for log in seen.logs[-3:]]}",
            )
        if not request.is_heartbeat and server.raft is not None:  # it is the main thread that answers
            goes_by = server.raft._state.configurations.latest_index
            if goes_by != seen.disk.members_index:
                self._broken(
                    "I10",
                    f"{server.id} goes by configuration {goes_by}, and its log says {seen.disk.members_index}",
                )
        if entries:
            seen.acked = max(seen.acked, (request.term, last))
            seen.stored_unacked = False

    # -- inside ------------------------------------------------------------------------------------

    def _at(self, address: str) -> SimServer:
        return self._cluster.servers[address.split(":")[0]]

    def _broken(self, promise: str, what: str) -> None:
        self._cluster.scheduler.fail(Violation(promise, what))

    # -- the end ---------------------------------------------------------------------------------

    def check_failure(self, server: SimServer) -> None:
        """A server may stop by itself only because of what was done to it."""
        failure = server.raft.failure if server.raft is not None else None
        if failure is None:
            return
        seen = self.seen(server.id)
        is_stranded = seen.gave_up_stranded or self.restores.is_stranded(seen.disk, self.committed)
        self.scout.stopped_by_itself(failure, is_stranded)
        if isinstance(failure, FSMFailedError):
            return
        if isinstance(failure, CorruptStoreError):
            if seen.is_damaged or is_stranded:
                return
        elif isinstance(failure, StorageError):
            return
        violation = Violation("stopped", f"{server.id} stopped by itself: {failure!r}")
        violation.__cause__ = failure
        self._cluster.scheduler.fail(violation)

    def check_stopped(self, server: SimServer, group: Group) -> None:
        """I12: an incarnation that was shut down has left nothing behind.

        Raises:
            Violation: it has.
        """
        # The network's own threads end by themselves, some milliseconds later where lines take time.
        deadline = self._cluster.now + _ENDS_WITHIN
        while self.leftovers(group) and self._cluster.now < deadline:
            self._cluster.scheduler.sleep(0.001)
        left = self.leftovers(group)
        if left is not None:
            raise Violation("I12", f"the shutdown of {server.id} left {left}")
        self.futures.check(group)

    def leftovers(self, group: Group) -> str | None:
        """What an incarnation that has ended still has: threads of its own, futures that are not done."""
        if group.dead:
            return None
        # Callers may come at any time; what they wait for is judged by their futures.
        tasks = [task for task in self._cluster.scheduler.tasks(group) if task.is_ours]
        if tasks:
            return "threads:\n" + "\n".join(f"{task.name}\n{task.stack()}" for task in tasks)
        pending = self.futures.pending(group) + self.questions.pending(group)
        return f"{pending} futures" if pending else None
