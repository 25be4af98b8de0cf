"""What Raft promises, checked while a simulated cluster runs.

The judge watches from outside: every change of a disk at the moment when it becomes durable,
every message at the moment when it is sent, every command that an FSM was given, and the state
that a server publishes.  Each check costs the same however long the run is.

| id  | promise                                                    | source                 |
|-----|------------------------------------------------------------|------------------------|
| I1  | at most one leader in a term                               | §5.2 Election Safety   |
| I2  | a leader never drops entries of its log                    | §5.3 Leader Append-Only|
| I3  | equal index and term: equal logs up to there               | §5.3 Log Matching      |
| I4  | a leader holds every entry committed before                | §5.4 Leader Completeness|
| I5  | nobody applies another entry at an index                   | §5.4.3 State Machine Safety |
| I6  | what is committed is durable on a majority of the voters   | §5.3, §5.4.2           |
| I7  | terms do not go back; one vote in a term; commit and applied index do not go back | Figure 2 |
| I8  | what a message promises is durable before it is sent       | Figure 2, persistent state |
| I9  | applied <= committed <= log end; the log has no gap        | Figure 2               |
| I10 | a configuration entry follows a committed one              | dissertation §4.1      |
| I11 | a success names the entry that holds the caller's command  | §8                     |
| I12 | after shutdown no thread and no future is left             | ARCHITECTURE           |
| I14 | once the faults end: a leader, equal states, new commands succeed | §5.2, §9.3      |
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from ..errors import CorruptStoreError, FSMFailedError, RaftError, StorageError
from ..log import Log, LogType
from ..logstore.base import StableStore
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    RequestVoteRequest,
    RequestVoteResponse,
)
from ..rules.election import Ballot, majority
from ..state import BALLOT_KEY, RaftState, load_ballot
from .sim_disk import Transaction

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .sim_clients import Outcome
    from .sim_runtime import Group


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


_EMPTY = b""

P = ParamSpec("P")


def _chain(before: bytes, log: Log) -> bytes:
    """Identifies a log up to and including ``log``."""
    return blake2b(before + log.encoded, digest_size=8).digest()


class _Seen:
    """What is known of one server, through all its incarnations."""

    def __init__(self) -> None:
        self.chain: list[bytes] = [_EMPTY]  # of the durable log, by index
        self.logs: list[Log] = [Log()]
        self.former_chain: list[bytes] = []  # before its disk was replaced
        self.ballot = Ballot()
        self.is_damaged = False  # a flipped bit that nobody has met yet
        self.commit = 0  # of the present incarnation
        self.applied = 0
        self.led_in = 0  # the latest term in which it was seen to lead


class Judge:
    """Watches a cluster.  A violation stops the simulation.

    Attributes:
        committed: chain and term of every committed entry, by index; first writer wins.
        coverage: situations that were reached, and how often.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._seen: dict[str, _Seen] = {}
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[int, str], dict[str, None]] = {}  # (term, candidate) -> voters
        self.calm_since = inf  # from this instant on nothing is wrong any more: commands must succeed
        self._logs: dict[tuple[int, int], bytes] = {}  # (index, term) -> chain
        self.committed: list[tuple[bytes, int]] = [(_EMPTY, 0)]
        self._entries: dict[int, Log] = {}  # the committed entries
        self.coverage: dict[str, int] = {}

    # -- what the cluster tells ------------------------------------------------------------------

    @_undisturbed
    def starting(self, server: SimServer) -> None:
        """A new incarnation begins: commit and applied index begin anew."""
        seen = self._of(server.id)
        seen.commit = seen.applied = 0

    @_undisturbed
    def crashing(self, server: SimServer) -> None:
        """An incarnation is about to die."""
        self.check_failure(server)
        self._look(server)
        if server.raft is not None and server.raft.state is RaftState.LEADER:
            self._reached("leader crashed")
        if server.disk.in_flight is not None:
            self._reached("crash with a commit in flight")

    def damaged(self, server: str) -> None:
        """A record on the server's disk is not what it was."""
        self._of(server).is_damaged = True

    def holds_its_past(self, server: SimServer) -> bool:
        """Whether everything that the server ever promised is on its disk, or made up for."""
        seen = self._of(server.id)
        return not seen.is_damaged and seen.ballot.newborn is None and seen.ballot.term > 0

    @_undisturbed
    def disk_wiped(self, server: str) -> None:
        """Its disk is empty now; what it held still counts as having been on a majority."""
        for other in self._cluster.servers.values():
            self._look(other)
        former = self._of(server).chain
        self._seen[server] = _Seen()
        self._seen[server].former_chain = former
        self._reached("disk wiped")

    @_undisturbed
    def disk_changed(self, server: str, transaction: Transaction) -> None:
        """I2, I3, I7, I9: the log and the ballot on a disk have changed."""
        self._disk_changed(self._cluster.servers[server], transaction)

    def _disk_changed(self, server: SimServer, transaction: Transaction) -> None:
        seen = self._of(server.id)
        if transaction.delete is not None:
            first, _ = transaction.delete
            if first <= len(seen.chain) - 1:
                self._suffix_dropped(server, seen, first)
        for log in transaction.logs:
            self._appended(server, seen, log)
        for key, _ in transaction.values:
            if key == BALLOT_KEY:
                self._voted(server.id, seen, load_ballot(_Values(transaction)))

    @_undisturbed
    def applied(self, server: SimServer, log: Log) -> None:
        """I5: an FSM was given ``log``."""
        self._look(server)
        seen = self._of(server.id)
        if log.index <= seen.applied:
            self._broken("I5", f"{server.id} applied entry {log.index} after entry {seen.applied}")
        for index in range(seen.applied + 1, log.index):
            skipped = self._entries.get(index)
            if skipped is not None and skipped.type is LogType.COMMAND:
                self._broken("I5", f"{server.id} applied entry {log.index} and never entry {index}")
        seen.applied = log.index
        expected = self._entries.get(log.index)
        if expected is None:
            self._broken("I5", f"{server.id} applied entry {log.index}, which nobody has committed")
        elif expected.encoded != log.encoded:
            self._broken("I5", f"{server.id} applied {log!r} where {expected!r} is committed")

    @_undisturbed
    def answered(self, outcome: Outcome) -> None:
        """I11: a client was told that its command was applied at an index.  I14: it was told something."""
        command = outcome.command
        if outcome.asked_at >= self.calm_since and type(outcome.error) is TimeoutError:
            self._broken("I14", f"nothing is wrong, but {command!r} got no answer: {outcome.error}")
        if outcome.error is not None or not outcome.index:
            return
        entry = self._entries.get(outcome.index)
        if entry is None or entry.data != command:
            self._broken(
                "I11", f"a client's {command!r} was answered as entry {outcome.index}, which is {entry!r}"
            )

    # -- the network -----------------------------------------------------------------------------

    @_undisturbed
    def request_sent(self, src: str, dst: str, request: AnyRequest) -> None:
        """I1, I4, I6, I8: a server speaks."""
        server = self._at(src)
        self._look(server)
        if isinstance(request, AppendEntriesRequest):
            self._leads(server, request.term)
            if request.leader_commit_index:
                self._on_majority(server, request.leader_commit_index)
        elif isinstance(request, InstallSnapshotRequest):
            self._leads(server, request.term)
        elif isinstance(request, RequestVoteRequest):
            ballot = self._of(server.id).ballot
            if ballot.term < request.term or (ballot.term == request.term and ballot.voted_for != server.id):
                self._broken(
                    "I8", f"{server.id} asks for votes in term {request.term}, but its disk says {ballot}"
                )

    @_undisturbed
    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None:
        """I8: what an answer promises must be on disk."""
        server = self._at(src)
        self._look(server)
        seen = self._of(server.id)
        if isinstance(response, RequestVoteResponse) and isinstance(request, RequestVoteRequest):
            candidate, ballot = request.header.id, seen.ballot
            holds = ballot.term == request.term and ballot.voted_for == candidate
            # A vote may be answered late, after the voter has moved on to a later term.
            if response.granted and not holds and ballot.term <= request.term:
                self._broken("I8", f"{server.id} grants {candidate} term {request.term}; disk: {ballot}")
        if isinstance(response, AppendEntriesResponse) and isinstance(request, AppendEntriesRequest):
            if response.term > seen.ballot.term:
                self._broken("I8", f"{server.id} answers in term {response.term}; disk: {seen.ballot}")
            if response.success and request.entries:
                self._acknowledged(server, seen, request)

    def _acknowledged(self, server: SimServer, seen: _Seen, request: AppendEntriesRequest) -> None:
        last = request.entries[-1]
        holds = last.index < len(seen.chain) and seen.logs[last.index].term == last.term
        if not holds and seen.ballot.term <= request.term:
            self._broken(
                "I8",
                f"{server.id} acknowledged entry {last.index} of term {last.term}, and its disk ends at "
                f"{len(seen.chain) - 1} with terms {[log.term for log in seen.logs[-3:]]}",
            )

    # -- inside ----------------------------------------------------------------------------------

    def _suffix_dropped(self, server: SimServer, seen: _Seen, first: int) -> None:
        self._reached("uncommitted suffix replaced")
        raft = server.raft
        if raft is not None and server.is_up and raft.state is RaftState.LEADER:
            self._broken("I2", f"{server.id} drops entries from {first} on while it leads term {raft.term}")
        if first < len(self.committed) and seen.chain[first] == self.committed[first][0]:
            self._broken("I4", f"{server.id} drops entry {first}, which is committed")
        del seen.chain[first:], seen.logs[first:]

    def _appended(self, server: SimServer, seen: _Seen, log: Log) -> None:
        index, term = log.index, log.term
        if index > len(seen.chain):
            self._broken("I9", f"{server.id} stores entry {index} after entry {len(seen.chain) - 1}: a gap")
            return
        del seen.chain[index:], seen.logs[index:]
        if term < seen.logs[-1].term:
            self._broken(
                "I3",
                f"{server.id} stores entry {index} of term {term} after one of term {seen.logs[-1].term}",
            )
        chain = _chain(seen.chain[-1], log)
        known = self._logs.setdefault((index, term), chain)
        if known != chain:
            self._broken(
                "I3", f"{server.id} stores another log up to entry {index} of term {term} than others did"
            )
        seen.chain.append(chain)
        seen.logs.append(log)
        if index < len(self.committed) and self.committed[index][0] != chain:
            # Not yet wrong by itself: such a server just cannot win. Commit checks do the rest.
            self._reached("stale entry stored at a committed index")

    def _voted(self, server: str, seen: _Seen, ballot: Ballot) -> None:
        before = seen.ballot
        if ballot.term < before.term:
            self._broken("I7", f"{server} goes back from term {before.term} to {ballot.term}")
        if ballot.term == before.term and before.voted_for not in (None, ballot.voted_for):
            self._broken("I7", f"{server} changes its vote of term {ballot.term} from {before.voted_for}")
        if ballot.voted_for is not None:
            self._votes.setdefault((ballot.term, ballot.voted_for), {})[server] = None
        seen.ballot = ballot

    def _leads(self, server: SimServer, term: int) -> None:
        first = self._leaders.setdefault(term, server.id)
        if first != server.id:
            self._broken("I1", f"{first} and {server.id} both lead term {term}")
        seen = self._of(server.id)
        if term <= seen.led_in:
            return
        seen.led_in = term
        self._reached("leader elected")
        voters = self._votes.get((term, server.id), {})
        if len(voters) < majority(len(self._cluster.configuration.voters)):
            self._broken("I1", f"{server.id} leads term {term}, and only {list(voters)} voted for it")
        last = len(self.committed) - 1
        while last and self.committed[last][1] >= term:
            last -= 1
        if last and (last >= len(seen.chain) or seen.chain[last] != self.committed[last][0]):
            self._broken("I4", f"{server.id} leads term {term} without entry {last}, which is committed")

    def _look(self, server: SimServer) -> None:
        """I5, I6, I7, I9: take in what the server publishes."""
        raft = server.raft
        if raft is None or not server.is_up:
            return
        seen, commit = self._of(server.id), raft.commit_index
        if commit == seen.commit:
            return
        if commit < seen.commit:
            self._broken("I7", f"{server.id} takes its commit index back from {seen.commit} to {commit}")
        if commit >= len(seen.chain):
            self._broken(
                "I9", f"{server.id} commits entry {commit}, and its disk ends at {len(seen.chain) - 1}"
            )
            return
        applied = raft.applied_index
        if applied > commit:
            self._broken("I9", f"{server.id} applied entry {applied} and knows {commit} as committed")
        self._extend_committed(server, seen, commit)
        if seen.chain[commit] != self.committed[commit][0]:
            self._broken("I5", f"{server.id} commits another entry {commit} than somebody did before")
        seen.commit = commit

    def _extend_committed(self, server: SimServer, seen: _Seen, commit: int) -> None:
        known = len(self.committed)
        if commit < known:
            return
        assert server.raft is not None
        for index in range(known, commit + 1):
            # Committed in this term or before: a leader of a later term must hold it.
            self.committed.append((seen.chain[index], server.raft.term))
            self._entries[index] = seen.logs[index]
        self._on_majority(server, commit)

    def _on_majority(self, server: SimServer, index: int) -> None:
        """I6: the entry at ``index`` of ``server``'s log is on enough disks."""
        chain = self._of(server.id).chain[index]
        voters = self._cluster.configuration.voters
        holders = 0
        for voter in voters:
            seen = self._of(voter.id)
            holders += any(
                index < len(theirs) and theirs[index] == chain for theirs in (seen.chain, seen.former_chain)
            )
        if holders < majority(len(voters)):
            self._broken("I6", f"{server.id} calls entry {index} committed, which is on {holders} disks only")

    def _at(self, address: str) -> SimServer:
        return self._cluster.servers[address.split(":")[0]]

    def _of(self, server: str) -> _Seen:
        seen = self._seen.get(server)
        if seen is None:
            seen = self._seen[server] = _Seen()
        return seen

    def _reached(self, situation: str) -> None:
        self.coverage[situation] = self.coverage.get(situation, 0) + 1

    def _broken(self, promise: str, what: str) -> None:
        self._cluster.scheduler.fail(Violation(promise, what))

    # -- the end ---------------------------------------------------------------------------------

    def check_failure(self, server: SimServer) -> None:
        """A server may stop by itself only because of what was done to it."""
        failure = server.raft.failure if server.raft is not None else None
        if failure is None or isinstance(failure, FSMFailedError):
            return
        if isinstance(failure, CorruptStoreError):
            if self._of(server.id).is_damaged:
                return
        elif isinstance(failure, StorageError):
            return
        violation = Violation("stopped", f"{server.id} stopped by itself: {failure!r}")
        violation.__cause__ = failure
        self._cluster.scheduler.fail(violation)

    def check_liveness(self, timeout: float) -> None:
        """I14: somebody leads and new commands succeed.

        Raises:
            Violation: not within ``timeout``.
        """
        cluster = self._cluster
        deadline = cluster.now + timeout
        while cluster.now < deadline:
            cluster.revive_all()  # a damaged record may be met only now
            leader = cluster.current_leader()
            if leader is not None and leader.raft is not None:
                try:
                    leader.raft.barrier(1.0).result(2.0)
                    self.calm_since = cluster.now
                    return
                except (RaftError, TimeoutError):
                    pass
            cluster.run(0.05)
        raise Violation("I14", f"no new command succeeded within {timeout:g} s after the faults ended")

    def check_equal_states(self, timeout: float) -> None:
        """I14, I5: every server applies the whole log, and all end in the same state.

        Raises:
            Violation: they do not.
        """
        cluster = self._cluster
        try:
            cluster.run_until(self._all_caught_up, timeout)
        except TimeoutError as error:
            raise Violation("I14", "not every server caught up after the faults ended") from error
        states: dict[bytes, str] = {}
        for server in cluster.servers.values():
            captured = server.fsm.snapshot() if server.fsm is not None else b""
            if isinstance(captured, bytes):
                states.setdefault(captured, server.id)
        if len(states) > 1:
            raise Violation("I5", f"the states of {' and '.join(states.values())} differ after the same log")

    def _all_caught_up(self) -> bool:
        self._cluster.revive_all()
        leader = self._cluster.current_leader()
        if leader is None or leader.raft is None:
            return False
        last = leader.raft.last_index
        return all(
            server.is_serving and server.raft is not None and server.raft.applied_index == last
            for server in self._cluster.servers.values()
        )

    def check_shutdown(self) -> None:
        """I12: every server ends when it is asked to, and leaves no thread and no future.

        Raises:
            Violation: it does not.
        """
        cluster = self._cluster
        for server in cluster.servers.values():
            if server.raft is None or not server.is_up:
                continue
            self.check_failure(server)
            server.raft.shutdown().result(60.0)
            cluster.run(0.001)  # the network's own threads end by themselves
            self.check_stopped(server, server.group)

    def check_stopped(self, server: SimServer, group: Group) -> None:
        """I12: an incarnation that was shut down has left nothing behind.

        Raises:
            Violation: it has.
        """
        if group.dead:
            return
        # Callers may come at any time; what they wait for is judged by their futures.
        left = [task for task in self._cluster.scheduler.tasks(group) if task.is_ours]
        if left:
            stacks = "\n".join(f"{task.name}\n{task.stack()}" for task in left)
            raise Violation("I12", f"threads are left after the shutdown of {server.id}:\n{stacks}")
        pending = [future for owner, future in self._cluster.futures if owner is group and not future.done()]
        if pending:
            raise Violation("I12", f"{len(pending)} futures are left after the shutdown of {server.id}")


class _Values(StableStore):
    """The values that one transaction sets, as a store."""

    def __init__(self, transaction: Transaction) -> None:
        self._values = dict(transaction.values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def set(self, key: bytes, value: bytes) -> None:
        self._values[key] = value
