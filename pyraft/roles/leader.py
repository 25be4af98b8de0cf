"""The leader: appends what callers propose, and commits what a majority holds durably.

Main thread only.  Entries go to the replicators from memory before the leader's own
write; its own copy counts only after that write returned (dissertation §10.2.1).

Everything that this object knows goes with it: the in-flight list, the sessions, the term
it was elected in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple

from ..configuration import Configuration, Server, encode_configuration
from ..context import NodeContext
from ..errors import (
    ConfigError,
    LeadershipLostError,
    LeadershipTransferInProgressError,
    NodeFailedError,
    NotLeaderError,
    RaftError,
    TransportError,
)
from ..events import (
    BootstrapRequested,
    CampaignRequested,
    ConfigReloaded,
    HigherTermSeen,
    LeaderRequest,
    MembershipRequested,
    NodeFailed,
    PeerHeard,
    PeerMatched,
    ProposalsWaiting,
    ReadIndexAsked,
    RestoreAsked,
    RestoreEnded,
    RestoreWritten,
    StandingHeard,
    StopRequested,
    TransferAnswered,
    TransferRequested,
    VerifyRequested,
    VoteReceived,
)
from ..futures import IndexFuture, RaftFuture
from ..heartbeat import Heartbeat
from ..log import EntryEncoder, Log, LogType
from ..messages import ReadIndexRequest, ReadIndexResponse, TimeoutNowRequest
from ..observers import PeerObservation
from ..proposals import Proposal, futures_of
from ..replicator import Replicator
from ..rpc_handlers import object_to_stray_leader
from ..rules.commitment import leader_commit_index
from ..rules.timing import lease_ends_at
from ..sessions import Leadership, Session
from ..state import RaftState
from ..transport.base import IncomingRpc
from .base import Next, RoleName, answer, leaders_term, raise_failure, refuse_bootstrap
from .external_restore import ExternalRestore
from .membership_changes import MembershipChanges
from .read_rounds import ReadRounds
from .transfer import Transfers

_SHORTEST_LEASE_CHECK = 0.01  # seconds
_LONGEST_WAIT_FOR_CALLERS = 0.05  # seconds
_SLOW_CALLERS = 0.003, 0.001  # seconds, and for each: another thread keeps the interpreter from them


class _Batch(NamedTuple):
    """Entries of the in-flight list: in the log, not yet committed."""

    logs: Sequence[Log]
    futures: Sequence[RaftFuture[Any] | None]
    began: float  # when they were appended, for the metrics

    @property
    def last(self) -> int:
        return self.logs[-1].index


class _Peer(NamedTuple):
    session: Session
    replicator: Replicator
    heartbeat: Heartbeat

    def end(self) -> None:
        """Nothing may be sent or counted any more; the threads go."""
        self.session.end()
        self.replicator.stop()
        self.heartbeat.stop()


class _Leaving(NamedTuple):
    """A peer that was removed and may not know yet."""

    peer: _Peer
    removed_at: int  # log index of the configuration without it
    until: float


class Leader:
    """One leadership."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node
        self._leadership = Leadership(node.state.ballot.term, node.state.commit_index, node.config)
        self._peers: dict[str, _Peer] = {}
        self._leaving: dict[str, _Leaving] = {}
        self._changes = MembershipChanges(node, self)
        self._reads = ReadRounds(node, self._leadership, self._contacts, self._beat_now)
        self._transfers = Transfers(node, self._leadership.term, self._match_of, self._is_heard)
        self._restore = ExternalRestore(node, self)
        self._departure: Next | None = None  # where to go once this server is no voter any more
        self._in_flight: deque[_Batch] = deque()
        self._lease_check_at = 0.0
        self._written = node.state.log.last.index  # durable here; our own match index
        self._first_of_term = 0
        self._unapplied: deque[tuple[int, int]] = deque()  # (last index, bytes) of appended batches
        self._unapplied_bytes = 0
        self._taken: list[Proposal] = []  # out of the queue and not yet in flight
        self._take_at = inf  # when at the latest, while the queue is left alone for callers on their way
        self._left_some = False  # the latest taking did not empty the queue
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
        node.leadership = self._leadership
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
        self._lease_check_at = self._next_lease_check()
        wake_at = self._lease_check_at
        while transition is None and self._departure is None:
            event = node.take(wake_at)
            match event:
                case PeerMatched():
                    self._on_matched(event)
                case ProposalsWaiting():
                    transition = self._append_waiting()
                    wake_at = min(wake_at, self._take_at)
                case None:
                    transition = self._on_timer()
                    wake_at = self._next_timer()
                case IncomingRpc():
                    transition = self._on_rpc(event)
                case PeerHeard():
                    self._reads.look()
                case HigherTermSeen(session=session) if session.alive and not self._is_leaving(session):
                    node.log.info("stepping down: peer=%s is in term=%d", session.peer.id, event.term)
                    transition = self._adopt(event.term)
                case LeaderRequest():
                    self._on_request(event)
                    wake_at = min(wake_at, self._next_timer())
                case TransferAnswered():
                    self._transfers.on_answer(event)
                    self._changes.go_on()  # one may have waited for the end of the transfer
                case ReadIndexAsked():
                    self._reads.read(event.answer, self._may_read())
                case RestoreAsked():
                    self._restore.ask(event)
                    wake_at = min(wake_at, self._next_timer())
                case RestoreWritten():
                    self._restore.written(event)
                case RestoreEnded():
                    self._restore.gave_up(event)
                case CampaignRequested():
                    node.notifier.resolve(event.future)  # it leads already
                case BootstrapRequested():
                    refuse_bootstrap(node, event, f"{node.id} is the leader: it has a cluster already")
                case ConfigReloaded():
                    wake_at = self._lease_check_at = node.runtime.now()
                case NodeFailed():
                    raise_failure(event)
                case StopRequested():
                    return Next(RoleName.STOP)
                case HigherTermSeen() | VoteReceived() | StandingHeard():
                    pass  # of an ended session or an earlier role
        return transition or self._departure or Next(RoleName.FOLLOWER)

    def _on_request(self, request: LeaderRequest) -> None:
        match request:
            case MembershipRequested() if self._transfers.is_active:
                self._node.notifier.fail([request.future], _handing_over(self._node.id))
            case MembershipRequested():
                self._changes.add(request)
            case TransferRequested() if self._restore.is_active:
                self._node.notifier.fail([request.future], _restoring)
            case TransferRequested():
                self._transfers.begin(request)
            case VerifyRequested():
                self._reads.verify(_finish_with(self._node, request.future))

    def _on_timer(self) -> Next | None:
        now = self._node.runtime.now()
        self._transfers.expire()
        self._restore.expire()
        self._changes.expire()
        for id, leaving in list(self._leaving.items()):
            if leaving.until <= now:
                self._leaving.pop(id).peer.end()
        transition = None
        if now >= self._lease_check_at:
            self._lease_check_at = self._next_lease_check()
            transition = self._check_lease()
        if now >= self._take_at and transition is None and self._departure is None:
            transition = self._append_waiting()
        return transition

    def _next_timer(self) -> float:
        leaving = [leaving.until for leaving in self._leaving.values()]
        soonest = min(self._transfers.wake_at, self._restore.wake_at, self._changes.wake_at())
        return min([self._lease_check_at, self._take_at, soonest, *leaving])

    # -- appending -------------------------------------------------------------------------

    def _append_waiting(self) -> Next | None:
        """Take everything that waits, bounded by entries and bytes, into the log at once."""
        node, config = self._node, self._node.config
        if self._is_leaving_them_alone():
            return None
        node.proposals.channel.clear()  # before looking: a later poke is then not lost
        if self._transfers.is_active:
            self._refuse_during_transfer()
            return None
        if self._restore.is_active:
            return None  # its end pokes
        if not self._has_room():
            return None  # the FSM pokes when it gets on
        proposals = node.proposals.take(config.max_append_entries, config.max_append_bytes)
        if not proposals:
            return None
        self._taken = proposals  # theirs are the futures to fail if something goes wrong from here on
        waited = node.proposals.longest_wait()
        if waited is not None:
            node.metrics.queue_seconds.add(waited)
        logs, futures = self._entries_for(proposals)
        transition = self._append(logs, futures)
        if len(node.proposals):
            node.proposals.channel.poke()  # RPCs that came meanwhile go first
            self._left_some = True
        return transition

    def _is_leaving_them_alone(self) -> bool:
        """Whether callers who have just got their answers are on the way, and likely to bring more.

        A batch for all of them costs hardly more than one for the first, and as long as they are
        woken one by one this thread does not come in between.  While it lasts, the queue's mark stays
        set and nobody pokes.  What ends it is whoever is woken last, a full queue, time, or any poke.
        """
        node, config = self._node, self._node.config
        ends_at, self._take_at = self._take_at, inf
        goes_on, self._left_some = self._left_some, False
        if ends_at < inf:
            lasted = _LONGEST_WAIT_FOR_CALLERS - (ends_at - node.runtime.now())
            if lasted > _SLOW_CALLERS[0] + _SLOW_CALLERS[1] * len(node.proposals):
                node.runtime.hurry_callers()
            return False
        if goes_on or self._transfers.is_active or self._restore.is_active:
            return False
        if not len(node.proposals) or node.proposals.has(config.max_append_entries, config.max_append_bytes):
            return False
        if not node.runtime.after_callers(node.proposals.channel.insist):
            return False
        self._take_at = node.runtime.now() + _LONGEST_WAIT_FOR_CALLERS
        return True

    def _refuse_during_transfer(self) -> None:
        node, config = self._node, self._node.config
        waiting = node.proposals.take(config.max_proposals, config.max_proposal_bytes)
        node.notifier.fail(futures_of(waiting), _handing_over(node.id))
        if len(node.proposals):
            node.proposals.channel.poke()

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
            kind, data, extensions, future = proposal
            encoded = encode(index, kind, data, extensions)
            logs.append(Log(index, term, kind, data, extensions, now, encoded))
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
        self._in_flight.append(_Batch(logs, futures, node.runtime.measured()))
        self._taken = []
        before = node.state.log.last
        size = node.state.log.stage(logs)
        self._unapplied.append((logs[-1].index, size))
        self._unapplied_bytes += size
        began = node.runtime.now()
        self._leadership.write_began_at = began
        later = [
            peer.replicator
            for peer in self._peers.values()
            if peer.replicator.offer(logs, size, before, began)
        ]
        writing = node.runtime.measured()
        node.state.log.write_staged(node.state.commit_index)
        self._leadership.write_began_at = None
        node.metrics.log_written(node.runtime.measured() - writing)
        for replicator in later:
            replicator.poke()
        took = node.runtime.now() - began
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
        if event.took is not None:
            self._node.metrics.replication_seconds.add(event.took)
        if event.index > session.match_index:
            session.match_index = event.index
            self._advance_commit()
            self._transfers.go_on()
            self._changes.go_on()
            leaving = self._leaving.get(session.peer.id)
            if leaving is not None and event.index >= leaving.removed_at:
                self._leaving.pop(session.peer.id).peer.end()
        self._reads.look()

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
        before, configuration = state.commit_index, state.configurations.committed_index
        state.advance_commit(commit)
        self._leadership.commit_index = commit
        self._hand_over(before, commit)
        if before < self._first_of_term <= commit:
            self._reads.own_term_committed()
        if state.configurations.committed_index != configuration:
            self._configuration_committed()
        if self._changes.is_waiting:
            self._changes.go_on()

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
                rest = _Batch(batch.logs[count:], batch.futures[count:], batch.began)
                self._in_flight.appendleft(rest)
                batch = _Batch(batch.logs[:count], batch.futures[:count], batch.began)
            logs.extend(batch.logs)
            futures.extend(batch.futures)
            node.metrics.commit_seconds.add(node.runtime.measured() - batch.began, len(batch.logs))
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
        return lease_ends_at([min(contact, now) for contact in self._contacts()], self._lease)

    def _contacts(self) -> list[float]:
        """For every voter, when the latest request was sent that it answered; ourselves: always."""
        contacts = []
        for voter in self._node.state.configuration.voters:
            if voter.id == self._node.id:
                contacts.append(inf)
            elif voter.id in self._peers:
                contacts.append(self._peers[voter.id].session.contact)
            else:
                contacts.append(-inf)
        return contacts

    def _next_lease_check(self) -> float:
        now = self._node.runtime.now()
        return min(max(self._lease_ends_at(now), now + _SHORTEST_LEASE_CHECK), now + self._lease)

    def _on_rpc(self, rpc: IncomingRpc) -> Next | None:
        node, request = self._node, rpc.request
        term = leaders_term(rpc)
        if term is not None and term >= self._leadership.term:
            refusal = object_to_stray_leader(node, request)
            if refusal is not None:
                rpc.respond(refusal)
                return None
            if term == self._leadership.term:
                node.log.error("another leader of our own term: id=%s", request.header.id)
            return Next(RoleName.FOLLOWER, carry=rpc)
        if isinstance(request, TimeoutNowRequest):
            rpc.respond(TransportError(f"{node.id} leads: nobody but itself could tell it to stand"))
            return None
        if isinstance(request, ReadIndexRequest):
            self._reads.read(_answer_read(node, rpc, self._leadership.term), self._may_read())
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

    def _may_read(self) -> bool:
        return self._node.state.commit_index >= self._first_of_term

    # -- members ---------------------------------------------------------------------------------

    def can_change(self) -> bool:
        """Source: dissertation §4.1, and its erratum: not before an own-term entry is committed."""
        return (
            self.is_settled()
            and not self._transfers.is_active
            and not self._restore.is_active
            and self._departure is None
        )

    def is_settled(self) -> bool:
        configurations = self._node.state.configurations
        return self._may_read() and configurations.latest_index == configurations.committed_index

    def is_handing_over(self) -> bool:
        return self._transfers.is_active

    def take_commands(self) -> None:
        self._node.proposals.channel.poke()
        self._changes.go_on()

    def stand_on_snapshot(self, written: RestoreWritten, lost: Callable[[], RaftError]) -> None:
        """Give up the log for a snapshot from outside.

        Raises:
            StorageError: as ``_append``.

        """
        node, meta = self._node, written.meta
        # First: what is on its way to a peer must not be sent with the new commit index.
        former, self._peers = self._peers, {}
        for peer in [*former.values(), *(leaving.peer for leaving in self._leaving.values())]:
            peer.end()
        self._leaving.clear()
        in_flight = [future for batch in self._in_flight for future in batch.futures if future is not None]
        node.notifier.fail(in_flight, lost)
        self._in_flight.clear()
        node.state.take_snapshot_position(meta)
        self._leadership.commit_index = self._written = meta.index
        # As if this term began here: until the no-op is on a majority nobody may read the new state.
        self._first_of_term = meta.index + 1
        node.fsm.restore(meta, node.snapshots.opener(meta))
        for id, peer in former.items():
            self._start_replicating(peer.session.peer)
            self._peers[id].session.contact = peer.session.contact
        transition = self._append([self._own_entry(LogType.NOOP, b"")], [written.future])
        self._departure = self._departure or transition

    def append_configuration(self, configuration: Configuration, future: RaftFuture[None]) -> None:
        """Append ``configuration``, which is in force from here on.

        Raises:
            StorageError: as ``_append``.
        """
        state = self._node.state
        before = state.configurations
        entry = self._own_entry(LogType.CONFIGURATION, encode_configuration(configuration))
        assert isinstance(future, IndexFuture)
        future._index = entry.index
        state.take_configurations([entry])
        self._node.configurations_changed(before)
        self.follow_configuration()
        self._transfers.target_changed()
        transition = self._append([entry], [future])
        self._departure = self._departure or transition

    def follow_configuration(self) -> None:
        """Replicate to every member, at its present address."""
        for server in self._node.state.configuration.servers:
            if server.id == self._node.id:
                continue
            leaving = self._leaving.pop(server.id, None)
            if leaving is not None:
                leaving.peer.end()
            known = self._peers.get(server.id)
            if known is None:
                self._start_replicating(server)
            elif known.session.peer.address != server.address:
                # Perhaps another machine: nothing that the old one said may count.
                contact = known.session.contact
                known.end()
                self._start_replicating(server)
                self._peers[server.id].session.contact = contact

    def _configuration_committed(self) -> None:
        """Let go of those that are no members any more; we may be one of them."""
        node = self._node
        self.end_strangers()
        if node.state.is_voter:
            return
        removed = node.state.configuration.find(node.id) is None
        node.log.warning("stepping down: this server is %s", "removed" if removed else "no voter any more")
        stop = removed and node.config.shutdown_on_remove
        self._departure = Next(RoleName.STOP if stop else RoleName.FOLLOWER, drain=stop)

    def end_strangers(self) -> None:
        configurations = self._node.state.configurations
        for id in list(self._peers):
            if configurations.latest.find(id) is not None or self._changes.is_preparing(id):
                continue
            peer = self._peers.pop(id)
            self._publish_sessions()
            self._node.notifier.observe(PeerObservation(peer.session.peer, removed=True))
            if peer.session.match_index >= configurations.latest_index:
                peer.end()
                continue
            # It had better hear that it was removed, or it will go on asking for votes.
            until = self._node.runtime.now() + self._node.config.election_timeout
            self._leaving[id] = _Leaving(peer, configurations.latest_index, until)

    def _publish_sessions(self) -> None:
        self._leadership.sessions = {id: peer.session for id, peer in self._peers.items()}

    def begin_catching_up(self, server: Server) -> None:
        leaving = self._leaving.pop(server.id, None)
        if leaving is not None:
            leaving.peer.end()
        known = self._peers.get(server.id)
        if known is not None and known.session.peer.address != server.address:
            self._peers.pop(server.id).end()
            known = None
        if known is None:
            self._start_replicating(server)

    def session_of(self, server_id: str) -> Session | None:
        peer = self._peers.get(server_id)
        return None if peer is None else peer.session

    def _is_leaving(self, session: Session) -> bool:
        leaving = self._leaving.get(session.peer.id)
        return leaving is not None and leaving.peer.session is session

    def _match_of(self, server_id: str) -> int:
        session = self.session_of(server_id)
        return 0 if session is None else session.match_index

    def _is_heard(self, server_id: str) -> bool:
        """Whether the peer has answered lately."""
        session = self.session_of(server_id)
        return session is not None and self._node.runtime.now() - session.contact <= self._lease

    def _beat_now(self) -> None:
        for peer in self._peers.values():
            peer.heartbeat.beat_now()

    def _start_replicating(self, server: Server) -> None:
        node = self._node
        # From the end backwards: a peer that was here before may hold all, and have compacted it.
        session = Session(server, self._leadership, node.runtime.now(), node.state.log.last.index + 1)
        replicator = Replicator(
            runtime=node.runtime,
            header=node.header,
            log=node.state.log,
            transport=node.transport,
            session=session,
            to_main=node.inbox.put,
            snapshots=node.snapshots,
        )
        heartbeat = Heartbeat(
            runtime=node.runtime,
            header=node.header,
            transport=node.transport,
            session=session,
            to_main=node.inbox.put,
            on_reachable=replicator.peer_is_reachable,
            observe=node.notifier.observe,
        )
        self._peers[server.id] = _Peer(session, replicator, heartbeat)
        self._publish_sessions()
        node.notifier.observe(PeerObservation(server))
        node.spawn(f"repl-{server.id}", replicator.run)
        node.spawn(f"beat-{server.id}", heartbeat.run)

    def _end(self) -> None:
        """End every session before anything else can happen, then fail what is in flight."""
        node = self._node
        self._leadership.alive = False
        node.leadership = None
        for peer in [*self._peers.values(), *(leaving.peer for leaving in self._leaving.values())]:
            peer.end()
        self._transfers.end()
        self._changes.end(self._not_leading)
        self._reads.end(self._not_leading)
        futures = [f for batch in self._in_flight for f in batch.futures if f is not None]
        futures += futures_of(self._taken)
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

    def _not_leading(self) -> NotLeaderError:
        return NotLeaderError(self._node.id, None, None)


def _handing_over(id: str) -> Callable[[], LeadershipTransferInProgressError]:
    return lambda: LeadershipTransferInProgressError(
        f"{id} is handing over its leadership and takes no commands meanwhile: try again in a moment, on the new leader"
    )


def _restoring() -> ConfigError:
    return ConfigError("a snapshot from outside is being restored: wait for its end")


def _finish_with(node: NodeContext, future: RaftFuture[None]) -> Callable[[int | RaftError], None]:
    """How a question without a number finishes its future."""

    def finish(result: int | RaftError) -> None:
        if isinstance(result, RaftError):
            node.notifier.fail([future], lambda: result)
        else:
            node.notifier.resolve(future)

    return finish


def _answer_read(node: NodeContext, rpc: IncomingRpc, term: int) -> Callable[[int | RaftError], None]:
    """How the question of another server for our read index is answered."""

    def answer_rpc(result: int | RaftError) -> None:
        if isinstance(result, RaftError):
            rpc.respond(TransportError(str(result)))
        else:
            rpc.respond(ReadIndexResponse(node.header, term, result))

    return answer_rpc
