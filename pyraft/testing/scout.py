"""Recognises from outside which situations a simulated run reaches, and counts them.

It judges nothing: the judge (invariants.py) tells it what happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import (
    AbortedByRestoreError,
    ConfigError,
    CorruptStoreError,
    EnqueueTimeoutError,
    FSMFailedError,
    LeadershipLostError,
    LeadershipTransferInProgressError,
    NotLeaderError,
    NotVoterError,
    RaftError,
    RaftShutdownError,
    ReadTimeoutError,
    StorageError,
    StoreFullError,
    TransferFailedError,
)
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
from ..rules.election import Ballot, majority
from ..state import BALLOT_KEY, RaftState
from .coverage import Coverage

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .seen import Seen
    from .sim_disk import Transaction

_FAR_BEHIND = 100  # entries
_BIG_BATCH = 50  # entries
_FAILURES: dict[str, list[tuple[type[RaftError], str]]] = {
    "read": [(ReadTimeoutError, "read timed out")],
    "verify": [(NotLeaderError, "leadership not confirmed")],
    "change": [
        (ConfigError, "change refused: illegal"),
        (EnqueueTimeoutError, "change gave up in time"),
        (LeadershipTransferInProgressError, "change refused: handing over"),
        (LeadershipLostError, "change lost with its leader"),
    ],
    "transfer": [
        (TransferFailedError, "transfer failed"),
        (LeadershipTransferInProgressError, "transfer refused: another goes on"),
        (NotVoterError, "transfer refused: no voter"),
        (ConfigError, "transfer refused: no target"),
    ],
    "campaign": [(NotVoterError, "campaign refused")],
    "restore": [
        (NotLeaderError, "restore refused: not leader"),
        (LeadershipLostError, "restore lost with its leader"),
    ],
}
"""By kind of question: what an error of a class means."""


class _Link:
    """What one leader has sent to one follower in one term."""

    __slots__ = ("commit", "outstanding", "refusals", "term")

    def __init__(self, term: int) -> None:
        self.term = term
        self.outstanding = 0  # requests with entries that are not answered
        self.refusals = 0  # in a row
        self.commit = 0  # the highest commit index of a request that arrived


class Scout:
    """Counts situations.

    Attributes:
        coverage: of the run so far.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.coverage = Coverage()
        self._cluster = cluster
        self._links: dict[tuple[str, str], _Link] = {}
        self._candidates: dict[int, str] = {}  # term -> who got its first vote
        self._in_figure_8: set[int] = set()  # terms; only looked up
        self._was_holding = False

    def reached(self, situation: str) -> None:
        """Count ``situation``."""
        self.coverage.reached(situation)

    # -- roles -----------------------------------------------------------------------------------

    def role_changed(self, server: SimServer, seen: Seen, after: RaftState, silence: float) -> None:
        """``silence``: for how long a leader had no majority."""
        if seen.role is RaftState.LEADER and after is RaftState.FOLLOWER:
            config = self._cluster.config
            if seen.goes_by.term > seen.led_in:
                self.reached("leader stepped down: higher term")
            elif seen.wrote_for >= config.election_timeout * 0.9:
                self.reached("leader stepped down: slow write")
            elif silence > config.leader_lease_timeout * 0.8:
                self.reached("leader stepped down: lease")
            else:  # the request that it left for its next role brings the later term
                self.reached("leader stepped down: higher term")
        elif seen.role is RaftState.CANDIDATE and after is RaftState.FOLLOWER:
            self.reached("candidate became follower")

    def elected(self, seen: Seen, others: list[Seen], committed: int) -> None:
        """``seen`` leads now; ``others`` are the servers that run; ``committed`` entries are committed."""
        self.reached("leader elected")
        if len(seen.logs) > max(committed, 2):  # every log begins with the bootstrap's entry
            self.reached("leader elected with an uncommitted suffix")
        if any(other.role is RaftState.LEADER for other in others):
            self.reached("two leaders at once")

    def voted(self, ballot: Ballot, before: Ballot) -> None:
        """A ballot is durable."""
        if ballot.voted_for is not None and ballot.newborn is None:
            first = self._candidates.setdefault(ballot.term, ballot.voted_for)
            if first != ballot.voted_for:
                self._candidates[ballot.term] = ballot.voted_for
                self.reached("split vote")
        if before.newborn is not None and ballot.newborn is None:
            self.reached("wiped server grew up")

    # -- commits ---------------------------------------------------------------------------------

    def committed(self, holders: int, voters: int) -> None:
        """A leader committed an entry that ``holders`` of the voters hold."""
        if holders < voters:
            self.reached("commit with a voter missing")

    def stored(self, seen: Seen, voters: list[Seen], uncommitted: int) -> None:
        """``seen`` has entries durable; ``uncommitted`` is the first index that is not committed."""
        if seen.role is RaftState.LEADER:
            last = seen.logs[-1]
            others = sum(other is not seen and other.holds(last.index, last.term) for other in voters)
            if others >= majority(len(voters)):
                self.reached("commit ahead of the leader's disk")
        for leader in voters:
            if leader.role is RaftState.LEADER and len(leader.logs) > uncommitted > 1:
                self._look_for_figure_8(leader, voters, uncommitted)

    def _look_for_figure_8(self, leader: Seen, voters: list[Seen], index: int) -> None:
        """Whether a leader's oldest uncommitted entry is of an older term and on a majority."""
        term, entry = leader.led_in, leader.logs[index]
        if entry.term == term or term in self._in_figure_8:
            return
        if sum(other.holds(index, entry.term) for other in voters) >= majority(len(voters)):
            self._in_figure_8.add(term)
            self.reached("Figure 8")

    # -- messages --------------------------------------------------------------------------------

    def request_sent(self, src: str, dst: str, seen: Seen, request: AnyRequest) -> None:
        """A server asks."""
        if isinstance(request, InstallSnapshotRequest):
            self.reached("snapshot sent")
        elif isinstance(request, RequestVoteRequest | RequestPreVoteRequest):
            self._asks_for_votes(src, dst, seen, request)
        if not isinstance(request, AppendEntriesRequest) or request.is_heartbeat:
            return
        link = self._link(src, dst, request.term)
        entries = request.entries
        if not entries:
            if link.outstanding:
                self.reached("stream broken with entries outstanding")
            link.outstanding = 0
            return
        link.outstanding += 1
        config, count = self._cluster.config, len(entries)
        if link.outstanding >= config.max_inflight_appends:
            self.reached("in-flight window full")
        if count >= _BIG_BATCH:
            self.reached("big batch")
        if count >= config.max_append_entries:
            self.reached("batch cut by count")
        elif entries[-1].index < len(seen.logs) - 1:
            size = sum([len(entry.encoded) for entry in entries])
            if size + len(seen.logs[entries[-1].index + 1].encoded) > config.max_append_bytes:
                self.reached("batch cut by bytes")

    def _asks_for_votes(
        self, src: str, dst: str, seen: Seen, request: RequestVoteRequest | RequestPreVoteRequest
    ) -> None:
        judge = self._cluster.judge
        if judge.members.find(src.split(":")[0]) is None:
            self.reached("removed server knocked")
        if seen.disk.members_index >= max(len(judge.committed), 2):  # 1 is the bootstrap's
            self.reached("candidate with an uncommitted configuration")
        if isinstance(request, RequestVoteRequest) and request.leadership_transfer:
            self.reached("candidate told to stand")
        if not judge.seen(dst.split(":")[0]).disk.members.is_voter(src.split(":")[0]):
            self.reached("vote asked of one who does not know the candidate's")

    def response_sent(
        self, src: str, dst: str, seen: Seen, request: AnyRequest, response: AnyResponse
    ) -> None:
        """A server answers; ``dst`` is who asked."""
        if isinstance(response, AppendEntriesResponse) and isinstance(request, AppendEntriesRequest):
            if response.term > request.term:
                self.reached("stale term refused")
            elif request.is_heartbeat:
                fast = self._cluster.scheduler.current.name.startswith("net-")
                self.reached("heartbeat on the fast path" if fast else "heartbeat on the main thread")
            else:
                self._append_answered(dst, src, seen, request, response)
        elif isinstance(response, RequestVoteResponse) and isinstance(request, RequestVoteRequest):
            if not response.granted:
                self._vote_refused(seen, request, response)
        elif isinstance(response, RequestPreVoteResponse) and not response.granted:
            self.reached("pre-vote refused")
        elif isinstance(response, InstallSnapshotResponse):
            is_stale = isinstance(request, InstallSnapshotRequest) and seen.commit > request.last_log_index
            if response.success and is_stale:
                self.reached("stale snapshot ignored")

    def _append_answered(
        self,
        leader: str,
        follower: str,
        seen: Seen,
        request: AppendEntriesRequest,
        response: AppendEntriesResponse,
    ) -> None:
        link = self._link(leader, follower, request.term)
        asker = self._cluster.judge.seen(leader.split(":")[0])
        if response.last_log >= len(asker.logs) and seen.logs[-1].term < request.term:
            self.reached("follower log longer than the leader's")
        if request.leader_commit_index < link.commit:
            self.reached("older request after a newer one")
        link.commit = max(link.commit, request.leader_commit_index)
        if not response.success:
            link.refusals += 1
            if link.refusals == 2:
                self.reached("probe went back twice")
            return
        link.refusals = 0
        if request.entries:
            link.outstanding = max(link.outstanding - 1, 0)
            if seen.acked >= (request.term, request.entries[-1].index):
                self.reached("duplicate entries received")
        if asker.goes_by.term > request.term or asker.role is not RaftState.LEADER:
            self.reached("answer for an ended leadership")

    def _vote_refused(self, seen: Seen, request: RequestVoteRequest, response: RequestVoteResponse) -> None:
        last = seen.logs[-1]
        if response.term < request.term:
            self.reached("vote refused: leader heard")
        elif response.term == request.term:
            if seen.ballot.newborn is not None:
                self.reached("newborn refused to vote")
            elif seen.ballot.voted_for not in (None, request.header.id):
                self.reached("vote refused: given to another")
            elif (last.term, last.index) > (request.last_log_term, request.last_log_index):
                self.reached("vote refused: older log")

    def _link(self, leader: str, follower: str, term: int) -> _Link:
        link = self._links.get((leader, follower))
        if link is None or link.term != term:
            link = self._links[leader, follower] = _Link(term)
        return link

    # -- ends ------------------------------------------------------------------------------------

    def crashing(self, server: SimServer, seen: Seen) -> None:
        """A process is about to die."""
        if seen.role is RaftState.LEADER:
            self.reached("leader crashed")
        if server.disk.closing:
            self.reached("crash while a snapshot was stored")
        if server.disk.in_flight is not None:
            self.reached("crash with a commit in flight")
        elif seen.stored_unacked and seen.role is RaftState.FOLLOWER:
            self.reached("crash between append and ack")
        others = [other for other in self._cluster.servers.values() if other is not server]
        if others and not any(other.is_up for other in others):
            self.reached("all servers down")

    def crashed(self, transaction: Transaction | None, landed: bool) -> None:
        """A process died while ``transaction`` was under way."""
        if transaction is None:
            return
        self.reached("commit in flight landed new" if landed else "commit in flight landed old")
        if not landed and any(key == BALLOT_KEY for key, _ in transaction.values):
            self.reached("vote lost in a crash")

    def stopped_by_itself(self, failure: RaftError, is_stranded: bool) -> None:
        """A server could not go on; ``is_stranded``: it stands on a snapshot that the others have not got."""
        if isinstance(failure, FSMFailedError):
            self.reached("stopped by its FSM")
        elif isinstance(failure, StoreFullError):
            self.reached("stopped by a full disk")
        elif isinstance(failure, CorruptStoreError):
            self.reached(
                "stopped by a snapshot from outside" if is_stranded else "stopped by a corrupt record"
            )
        elif isinstance(failure, StorageError):
            self.reached("stopped by an I/O error")

    def stopping(self, seen: Seen, pending: int) -> None:
        """A server is asked to shut down while ``pending`` futures are open."""
        if seen.role is RaftState.LEADER:
            self.reached("leader shut down in good order")
        if pending:
            self.reached("shut down with commands under way")

    def thawed(self, seen: Seen, seconds: float) -> None:
        """A server goes on after standing still for ``seconds``."""
        if seen.role is RaftState.LEADER and seconds > self._cluster.config.leader_lease_timeout:
            self.reached("leader frozen past its lease")

    # -- commands, and the rest ------------------------------------------------------------------

    def future_failed(self, error: BaseException) -> None:
        """A command was refused or lost."""
        if isinstance(error, NotLeaderError):
            self.reached("refused: not leader")
        elif isinstance(error, EnqueueTimeoutError):
            self.reached("refused: queue full")
        elif isinstance(error, LeadershipTransferInProgressError):
            self.reached("refused: handing over")
        elif isinstance(error, LeadershipLostError):
            self.reached("leadership lost")
        elif isinstance(error, AbortedByRestoreError):
            self.reached("commands aborted by a restore")
        elif isinstance(error, RaftShutdownError) and not error.outcome_unknown:
            self.reached("refused: shut down")

    def question_failed(self, kind: str, error: BaseException) -> None:
        """A read, a change of members or a transfer was refused or lost."""
        for failures, situation in _FAILURES.get(kind, ()):
            if isinstance(error, failures):
                self.reached(situation)
                return

    def applying(self, commit: int, index: int) -> None:
        """An FSM is given the entry at ``index``."""
        if commit - index == _FAR_BEHIND:
            self.reached("FSM far behind")

    def tick(self, is_holding: bool) -> None:
        """Called now and then."""
        if self._was_holding and not is_holding:
            self.reached("starvation ended")
        self._was_holding = is_holding
