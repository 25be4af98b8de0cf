"""The leader: appends what callers propose, and commits what a majority holds durably.

Main thread only.  Entries go to the replicators from memory before the leader's own
write; its own copy counts only after that write returned (dissertation §10.2.1).

Everything that this object knows goes with it: the in-flight list, the sessions, the term
it was elected in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..configuration import Server
from ..context import NodeContext
from ..errors import LeadershipLostError, NodeFailedError, TransportError
from ..events import (
    BootstrapRequested,
    HigherTermSeen,
    NodeFailed,
    PeerMatched,
    ProposalsWaiting,
    StandingHeard,
    StopRequested,
    VoteReceived,
)
from ..futures import RaftFuture
from ..heartbeat import Heartbeat
from ..log import EntryEncoder, Log, LogType
from ..messages import AppendEntriesRequest, TimeoutNowRequest
from ..proposals import Proposal
from ..replicator import Replicator
from ..rules.commitment import leader_commit_index
from ..rules.timing import lease_ends_at
from ..sessions import Leadership, Session
from ..state import RaftState
from ..transport.base import IncomingRpc
from .base import Next, RoleName, answer, raise_failure, refuse_bootstrap

_SHORTEST_LEASE_CHECK = 0.01  # seconds


class _Batch(NamedTuple):
    """Entries of the in-flight list: in the log, not yet committed."""

    logs: Sequence[Log]
    futures: Sequence[RaftFuture[Any] | None]

    @property
    def last(self) -> int:
        return self.logs[-1].index


class _Peer(NamedTuple):
    session: Session
    replicator: Replicator
    heartbeat: Heartbeat


class Leader:
    """One leadership."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._leadership = Leadership(node.state.ballot.term, node.state.commit_index)
        self._peers: dict[str, _Peer] = {}
        self._in_flight: deque[_Batch] = deque()
        self._written = node.state.log.last.index  # durable here; our own match index
        self._first_of_term = 0
        self._unapplied: deque[tuple[int, int]] = deque()  # (last index, bytes) of appended batches
        self._unapplied_bytes = 0
        self._taken: list[Proposal] = []  # out of the queue and not yet in flight
        self._failure: BaseException | None = None

    def run(self) -> Next:
        """Serve events until this server no longer leads.

        Source: Figure 2, Rules for Servers, Leaders.
        """
        try:
            return self._begin() or self._serve()
        except NodeFailedError as error:
            self._failure = error
            raise
        finally:
            self._end()

    def _begin(self) -> Next | None:
        node = self._node
        node.metrics.leaderships_total += 1
        node.enter(RaftState.LEADER, (node.id, node.header.addr))
        self._first_of_term = node.state.log.last.index + 1
        for server in node.state.configuration.servers:
            if server.id != node.id:
                self._start_replicating(server)
        node.log.info("became leader last=%d peers=%d", node.state.log.last.index, len(self._peers))
        # §8: commits what earlier terms left
        return self._append([self._own_entry(LogType.NOOP, b"")], [None])

    def _serve(self) -> Next:
        node = self._node
        transition: Next | None = None
        lease_check_at = self._next_lease_check()
        while transition is None:
            event = node.take(lease_check_at)
            match event:
                case PeerMatched():
                    self._on_matched(event)
                case ProposalsWaiting():
                    transition = self._append_waiting()
                case None:
                    transition = self._check_lease()
                    lease_check_at = self._next_lease_check()
                case IncomingRpc():
                    transition = self._on_rpc(event)
                case HigherTermSeen(session=session) if session.alive:
                    node.log.info("stepping down: peer=%s is in term=%d", session.peer.id, event.term)
                    transition = self._adopt(event.term)
                case BootstrapRequested():
                    refuse_bootstrap(node, event, f"{node.id} is the leader: it has a cluster already")
                case NodeFailed():
                    raise_failure(event)
                case StopRequested():
                    return Next(RoleName.STOP)
                case HigherTermSeen() | VoteReceived() | StandingHeard():
                    pass  # of an ended session or an earlier role
        return transition

    # -- appending -------------------------------------------------------------------------

    def _append_waiting(self) -> Next | None:
        """Take everything that waits, bounded by entries and bytes, into the log at once."""
        node, config = self._node, self._node.config
        node.proposals.channel.clear()  # before looking: a later poke is then not lost
        if not self._has_room():
            return None  # the FSM pokes when it gets on
        proposals = node.proposals.take(config.max_append_entries, config.max_append_bytes)
        if not proposals:
            return None
        self._taken = proposals  # theirs are the futures to fail if something goes wrong from here on
        logs, futures = self._entries_for(proposals)
        transition = self._append(logs, futures)
        if len(node.proposals):
            node.proposals.channel.poke()  # RPCs that came meanwhile go first
        return transition

    def _has_room(self) -> bool:
        """Whether the log may run further ahead of the FSM."""
        config, applied = self._node.config, self._node.fsm.applied_index
        while self._unapplied and self._unapplied[0][0] <= applied:
            self._unapplied_bytes -= self._unapplied.popleft()[1]
        ahead = self._node.state.log.last.index - max(applied, self._first_of_term - 1)
        return ahead < config.max_uncommitted_entries and self._unapplied_bytes < config.max_uncommitted_bytes

    def _entries_for(self, proposals: list[Proposal]) -> tuple[list[Log], list[RaftFuture[Any] | None]]:
        """Give each proposal its index and term, and encode it once for disk and followers."""
        term = self._leadership.term
        now = self._node.runtime.wall_time_ns()
        encode = EntryEncoder(term, now)
        logs: list[Log] = []
        futures: list[RaftFuture[Any] | None] = []
        for index, proposal in enumerate(proposals, self._node.state.log.last.index + 1):
            kind, data, extensions = proposal.type, proposal.data, proposal.extensions
            encoded = encode(index, kind, data, extensions)
            logs.append(Log(index, term, kind, data, extensions, now, encoded))
            future = proposal.future
            future._index = index
            futures.append(future)
        return logs, futures

    def _append(self, logs: list[Log], futures: list[RaftFuture[Any] | None]) -> Next | None:
        """Append to the in-flight list, let the replicators go, write, and only then count ourselves.

        Raises:
            StorageError: the write failed.  The entries may be at followers already, so their
                indexes are spent: this leadership and this server end.
        """
        node = self._node
        self._in_flight.append(_Batch(logs, futures))
        self._taken = []
        size = node.state.log.stage(logs)
        self._unapplied.append((logs[-1].index, size))
        self._unapplied_bytes += size
        began = node.runtime.now()
        self._leadership.write_began_at = began
        for peer in self._peers.values():
            peer.replicator.poke()
        node.state.log.write_staged()
        self._leadership.write_began_at = None
        took = node.runtime.now() - began
        node.metrics.log_written(took)
        node.metrics.appended_entries_total += len(logs)
        node.metrics.appended_batches_total += 1
        self._written = logs[-1].index
        self._advance_commit()
        if took >= node.config.election_timeout and len(node.state.configuration.voters) > 1:
            node.log.warning("stepping down: a log write took %.3f s", took)
            return Next(RoleName.FOLLOWER)
        return None

    def _own_entry(self, type: LogType, data: bytes) -> Log:
        last = self._node.state.log.last
        now = self._node.runtime.wall_time_ns()
        return Log(last.index + 1, self._leadership.term, type, data, b"", now)

    # -- committing --------------------------------------------------------------------------

    def _on_matched(self, event: PeerMatched) -> None:
        session = event.session
        if not session.alive or session.leadership is not self._leadership:
            return
        if event.index > session.match_index:
            session.match_index = event.index
            self._advance_commit()

    def _advance_commit(self) -> None:
        """Commit what a majority of the voters holds durably, and hand it to the FSM in one batch."""
        state = self._node.state
        matched = []
        for voter in state.configuration.voters:
            if voter.id == self._node.id:
                matched.append(self._written)
            elif voter.id in self._peers:
                matched.append(self._peers[voter.id].session.match_index)
            else:
                matched.append(0)
        commit = leader_commit_index(state.commit_index, matched, self._first_of_term)
        # A peer may acknowledge entries that our own write has not finished; the rule allows
        # to commit them, but what we have not got durably we do not hand out.
        commit = min(commit, self._written)
        if commit <= state.commit_index:
            return
        before = state.commit_index
        state.advance_commit(commit)
        self._leadership.commit_index = commit
        self._hand_over(before, commit)

    def _hand_over(self, before: int, commit: int) -> None:
        """Give the committed prefix of the in-flight list to the FSM thread."""
        node = self._node
        if before + 1 < self._first_of_term:
            node.fsm.committed_up_to(min(commit, self._first_of_term - 1))
        logs: list[Log] = []
        futures: list[RaftFuture[Any] | None] = []
        while self._in_flight and self._in_flight[0].logs[0].index <= commit:
            batch = self._in_flight.popleft()
            if batch.last > commit:
                count = commit + 1 - batch.logs[0].index
                rest = _Batch(batch.logs[count:], batch.futures[count:])
                self._in_flight.appendleft(rest)
                batch = _Batch(batch.logs[:count], batch.futures[:count])
            logs.extend(batch.logs)
            futures.extend(batch.futures)
        if logs:
            node.fsm.committed(logs, futures)

    # -- staying or going ----------------------------------------------------------------------

    def _check_lease(self) -> Next | None:
        """Step down unless a majority of the voters answered recently (check quorum)."""
        now = self._node.runtime.now()
        ends = self._lease_ends_at(now)
        if ends > now:
            return None
        self._node.log.warning("stepping down: no quorum of voters answered for %.3f s", self._lease)
        return Next(RoleName.FOLLOWER)

    @property
    def _lease(self) -> float:
        return self._node.config.leader_lease_timeout

    def _lease_ends_at(self, now: float) -> float:
        contacts = []
        for voter in self._node.state.configuration.voters:
            if voter.id == self._node.id:
                contacts.append(now)
            elif voter.id in self._peers:
                contacts.append(self._peers[voter.id].session.contact)
            else:
                contacts.append(float("-inf"))
        return lease_ends_at(contacts, self._lease)

    def _next_lease_check(self) -> float:
        now = self._node.runtime.now()
        return min(max(self._lease_ends_at(now), now + _SHORTEST_LEASE_CHECK), now + self._lease)

    def _on_rpc(self, rpc: IncomingRpc) -> Next | None:
        node, request = self._node, rpc.request
        if isinstance(request, AppendEntriesRequest) and request.term >= self._leadership.term:
            if request.term == self._leadership.term:
                node.log.error("another leader of our own term: id=%s", request.header.id)
            return Next(RoleName.FOLLOWER, carry=rpc)
        if isinstance(request, TimeoutNowRequest):
            rpc.respond(TransportError(f"{node.id} leads: nobody but itself could tell it to stand"))
            return None
        answer(node, rpc)
        if node.state.ballot.term > self._leadership.term:
            node.log.info("stepping down: a vote was asked for in a later term")
            return Next(RoleName.FOLLOWER)
        return None

    def _adopt(self, term: int) -> Next:
        self._leadership.alive = False
        self._node.state.adopt_term(term)
        return Next(RoleName.FOLLOWER)

    # -- peers -----------------------------------------------------------------------------------

    def _start_replicating(self, server: Server) -> None:
        node = self._node
        session = Session(server, self._leadership, node.runtime.now(), self._first_of_term)
        replicator = Replicator(
            runtime=node.runtime,
            config=node.config,
            header=node.header,
            log=node.state.log,
            transport=node.transport,
            session=session,
            to_main=node.inbox.put,
        )
        heartbeat = Heartbeat(
            runtime=node.runtime,
            config=node.config,
            header=node.header,
            transport=node.transport,
            session=session,
            to_main=node.inbox.put,
            on_reachable=replicator.peer_is_reachable,
        )
        self._peers[server.id] = _Peer(session, replicator, heartbeat)
        node.spawn(f"repl-{server.id}", replicator.run)
        node.spawn(f"beat-{server.id}", heartbeat.run)

    def _end(self) -> None:
        """End every session before anything else can happen, then fail what is in flight."""
        node = self._node
        self._leadership.alive = False
        for peer in self._peers.values():
            peer.session.end()
            peer.replicator.stop()
            peer.heartbeat.stop()
        futures = [f for batch in self._in_flight for f in batch.futures if f is not None]
        futures += [proposal.future for proposal in self._taken]
        failure = self._failure

        def lost() -> LeadershipLostError:
            error = LeadershipLostError(
                f"{node.id} stopped leading term {self._leadership.term} before the command was committed: it may "
                f"still be applied by a later leader. Read the state before sending it again"
            )
            error.__cause__ = failure
            return error

        node.notifier.fail(futures, lost)
        node.state.leader = None
        node.log.info("leadership ended in_flight=%d", len(futures))
