"""The handle: what users hold of one server of a cluster.

Every method runs on the caller's thread: it builds a request, leaves it for the main
thread, and returns a future.  All timeouts are seconds as float; None = no limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from .config import Config, ReloadableConfig
from .configuration import Configuration, check_configuration, encode_configuration
from .errors import (
    CantBootstrapError,
    CommandTooLargeError,
    ConfigError,
    NodeFailedError,
    NotLeaderError,
    NotStartedError,
    RaftError,
    RaftShutdownError,
    WouldDeadlockError,
)
from .events import (
    BootstrapRequested,
    CampaignRequested,
    LeaderRequest,
    MembershipRequested,
    TransferRequested,
    VerifyRequested,
)
from .fsm import FSM
from .futures import ApplyFuture, ConfigurationFuture, IndexFuture, RaftFuture, SnapshotFuture
from .log import Log, LogType
from .logstore.base import LogStore, StableStore
from .messages import OLDEST_ACCEPTED_PROTOCOL_VERSION
from .node import Node
from .observers import LeadershipChanges, Observer
from .recovery import refuse_used
from .rules.election import Ballot, has_promised
from .rules.reconfiguration import Change, MembershipChange
from .runtime import ForkGuard, Runtime, ThreadRuntime
from .sessions import Session
from .snapshots.base import SnapshotMeta, SnapshotStore
from .state import BALLOT_KEY, RaftState, encode_ballot, load_ballot
from .status import PeerState, PeerStatus, Status
from .transport.base import Transport

if TYPE_CHECKING:
    from .transport.tls import Tls


_LARGEST_RESTORED_INDEX = 1 << 62


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server: its id, and the address where it is reached."""

    id: str
    address: str


class Raft:
    """One server of a cluster.  Its methods may be called from any thread."""

    def __init__(
        self,
        config: Config,
        fsm: FSM,
        log_store: LogStore,
        stable_store: StableStore,
        snapshot_store: SnapshotStore,
        transport: Transport,
        *,
        runtime: Runtime | None = None,
    ) -> None:
        """Check the arguments and restore the server's state.  ``start()`` starts its threads.

        The transport is closed when the server stops; the stores are the caller's to close.

        Raises:
            ConfigError: an argument is invalid.
            StorageError: the stores cannot be read, or hold what cannot be.
        """
        self._set_up(config, fsm, log_store, stable_store, snapshot_store, transport, runtime)

    def _set_up(
        self,
        config: Config,
        fsm: FSM,
        log_store: LogStore,
        stable_store: StableStore,
        snapshot_store: SnapshotStore,
        transport: Transport,
        runtime: Runtime | None,
        arrival: Configuration | None = None,
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        _check_parts(config, fsm, log_store, stable_store, snapshot_store, transport)
        self._config = config
        self._runtime = ThreadRuntime() if runtime is None else runtime
        self._fork_guard = ForkGuard()
        self._started = False
        self._transport = transport
        self._lock = self._runtime.lock()
        self._node = Node(
            config=config,
            fsm=fsm,
            log_store=log_store,
            stable_store=stable_store,
            snapshot_store=snapshot_store,
            transport=transport,
            runtime=self._runtime,
            arrival=arrival,
            on_stopped=on_stopped,
        )
        self._state = self._node.context.state
        self._proposals = self._node.context.proposals

    @classmethod
    def open(
        cls,
        path: str,
        *,
        id: str,
        fsm: FSM,
        address: str | None = None,
        bootstrap: Mapping[str, str] | Configuration | None = None,
        config: Config | None = None,
        advertise: str | None = None,
        transport: Transport | None = None,
        tls: Tls | None = None,
        snapshot_store: SnapshotStore | None = None,
        retain: int | None = None,
    ) -> Raft:
        """A server that keeps everything below the directory ``path``.  ``with`` or ``start()`` starts it.

        LMDB holds the log and the ballot, files hold the snapshots, gRPC listens on ``address``.
        What this opens, shutdown closes.

        Args:
            path: created if it does not exist; it belongs to the server ``id`` for ever.
            id: the server's name for life.
            fsm: your state machine.
            address: "host:port" to listen on; left out if ``transport`` is given.
            bootstrap: the first members, id -> address, this server among them.  Pass it at
                every start.  It is used only when the directory has no state: the server then
                first asks the others what they hold, because the directory may have been
                wiped, and a server that forgot its votes must not vote.  Without it, a server
                with an empty directory waits to be added to a cluster, and believes that it
                never was part of one.
            config: settings; its ``local_id`` may be left out.
            advertise: the address that others use, if it is not ``address``.
            transport: one of your own, or a TcpTransport, instead of gRPC.
            tls: certificates for gRPC.
            snapshot_store: one of your own instead of files below ``path``; it stays yours.  It
                must keep what it is given for as long as the directory exists: the entries that a
                snapshot covers leave the log, and a start without it is refused.
            retain: how many snapshots to keep below ``path``; None = 2.

        Raises:
            ConfigError: an argument is invalid, or the directory belongs to another server id.
            StorageError: the directory is in use, damaged or cannot be written.
            TransportError: the address cannot be listened on.
        """
        from .opening import open_parts

        parts = open_parts(
            path, id, fsm, address, bootstrap, config, advertise, transport, tls, snapshot_store, retain
        )
        raft = cls.__new__(cls)
        try:
            raft._set_up(
                parts.config,
                fsm,
                parts.store,
                parts.store,
                parts.snapshot_store,
                parts.transport,
                None,
                parts.arrival,
                parts.close,
            )
        except BaseException:
            parts.close()
            if transport is None:
                parts.transport.close()
            raise
        return raft

    # -- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads.  Returns at once; ``wait_for_leader`` tells when there is one.

        Raises:
            RaftShutdownError: it was shut down before.
        """
        self._fork_guard.check(f"server {self._config.local_id}")
        with self._lock:
            if self._node.is_down:
                raise RaftShutdownError()
            if self._started:
                return
            self._started = True
        self._transport.attach(self)
        self._node.start()

    def __enter__(self) -> Raft:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown().result()

    def shutdown(self, timeout: float | None = None) -> RaftFuture[None]:
        """Stop the server; the future resolves once no thread of it is left.

        Every other pending future resolves first.  May be called often, and before ``start``.

        Args:
            timeout: seconds to wait for user code (an FSM, a callback) that does not return;
                None = ``Config.shutdown_grace``.  After that the future fails with
                ShutdownTimeoutError, which names the thread and where it is.

        Raises:
            WouldDeadlockError: called on one of the threads that it would wait for.
        """
        self._fork_guard.check(f"server {self._config.local_id}")
        if self._runtime.on_own_thread():
            reason = self._runtime.must_not_wait()
            raise WouldDeadlockError(
                f"shutdown() here would wait for the very thread that calls it, because {reason}: call it from "
                f"another thread"
            )
        with self._lock:
            never_started = not self._started
            self._started = True
        if never_started:
            self._node.stop_unstarted()
        else:
            self._node.stop(timeout)
        return self._node.stopped_future

    def wait_stopped(self, timeout: float | None = None) -> bool:
        """Block until the server is down, at most ``timeout`` seconds; return whether it is."""
        self._fork_guard.check(f"server {self._config.local_id}")
        if self._node.stopped_future.done():
            return True
        return self._node.wait_stopped(timeout)

    @property
    def failure(self) -> NodeFailedError | None:
        """Why the server stopped by itself, or None."""
        return self._node.failure

    # -- commands ------------------------------------------------------------------------------

    def apply(self, cmd: bytes, timeout: float | None = None) -> ApplyFuture:
        """Replicate ``cmd`` and apply it to every FSM; the future has what ours returned.

        Never blocks on consensus.  The future's error says what to do next: a
        NotAppliedError may be retried, an OutcomeUnknownError only if the FSM can recognise
        duplicates.  Not for signal handlers: one that interrupts another apply() would wait for ever
        for a lock that its own thread holds.  Let it set an event that a thread waits for.

        Args:
            cmd: the command, opaque to pyraft; may be empty.
            timeout: how long to wait for room among the waiting commands (then
                EnqueueTimeoutError in the future).  It does not bound the command itself:
                ``result(timeout)`` does.  On a pyraft thread, or where an asyncio loop runs,
                it never waits.

        Raises:
            TypeError: ``cmd`` is not bytes.
            CommandTooLargeError: longer than ``Config.max_command_bytes``.
            NotStartedError: before ``start()``.

        Source: Raft paper §5.3, §8.
        """
        future = ApplyFuture(self._runtime)
        self._propose(LogType.COMMAND, cmd, b"", timeout, future)
        return future

    def apply_log(self, log: Log, timeout: float | None = None) -> ApplyFuture:
        """As ``apply``, with the ``data`` and ``extensions`` of ``log``; the rest of it is ignored."""
        future = ApplyFuture(self._runtime)
        self._propose(LogType.COMMAND, log.data, log.extensions, timeout, future)
        return future

    def barrier(self, timeout: float | None = None) -> IndexFuture[int]:
        """A future that resolves once every earlier command is applied to our FSM.

        Its result is the barrier's log index.  ``timeout`` as for ``apply``.
        """
        future: IndexFuture[Any] = BarrierFuture(self._runtime)
        self._propose(LogType.BARRIER, b"", b"", timeout, future)
        return future

    def _propose(
        self, type: LogType, data: bytes, extensions: bytes, timeout: float | None, future: IndexFuture[Any]
    ) -> None:
        """Hand a command to the leader loop; whatever speaks against it becomes the future's error."""
        if data.__class__ is not bytes or extensions.__class__ is not bytes:
            data, extensions = _as_bytes(data), _as_bytes(extensions)
        if len(data) + len(extensions) > self._config.max_command_bytes:
            raise CommandTooLargeError(
                f"the command has {len(data) + len(extensions)} bytes and max_command_bytes is "
                f"{self._config.max_command_bytes}: no message could carry it to the other servers. Split it, or store "
                f"the bulk elsewhere and replicate a reference"
            )
        self._check_usable()
        state = self._state
        if state.role is not RaftState.LEADER:
            # No need to trouble the main thread: refusing is right at whatever moment the
            # role was read.
            future.try_set_exception(self._refusal())
            return
        try:
            self._proposals.put((type, data, extensions, future), timeout)
        except RaftError as error:
            future.try_set_exception(error)

    def _refusal(self) -> RaftError:
        if self._state.role is RaftState.SHUTDOWN:
            return self._shut_down()
        leader_id, address = self._state.leader or (None, None)
        return NotLeaderError(self._config.local_id, leader_id, address)

    def bootstrap_cluster(self, configuration: Configuration) -> RaftFuture[None]:
        """Begin a new cluster on this running server, which must have no state.

        Do it on one server only, or with the same configuration on each.  Unlike
        ``open(bootstrap=...)`` it asks nobody, so never use it on a server whose disk may
        have been wiped.  The future fails with CantBootstrapError, NotVoterError or
        ConfigError.
        """
        self._check_usable()
        future: RaftFuture[None] = RaftFuture(self._runtime)
        if self._state.role is RaftState.SHUTDOWN:
            future.try_set_exception(self._shut_down())
        else:
            self._node.ask(BootstrapRequested(configuration, future))
        return future

    # -- members and leadership ------------------------------------------------------------------

    def add_voter(
        self, id: str, address: str, prev_index: int = 0, timeout: float | None = None
    ) -> IndexFuture[None]:
        """Let the server ``id`` at ``address`` vote; it may be new, or a member without a vote.

        The leader first brings it up to date (``Config.catch_up_rounds``), so that the cluster
        does not have to wait for it.  For a voter this changes its address.

        Args:
            prev_index: 0, or the index of the configuration that you decided upon
                (``get_configuration().index``): if another one is in force, nothing happens.
            timeout: how long it may wait for its turn and for the server to catch up (then
                EnqueueTimeoutError, and nothing has changed).

        Returns a future that resolves once the change is committed.  It fails with ConfigError
        if the change is illegal, NotLeaderError, LeadershipTransferInProgressError, or
        LeadershipLostError (it may still happen).

        Source: dissertation §4.1, §4.2.1.
        """
        return self._change(MembershipChange(Change.ADD_VOTER, id, address, prev_index), timeout)

    def add_nonvoter(
        self, id: str, address: str, prev_index: int = 0, timeout: float | None = None
    ) -> IndexFuture[None]:
        """Let a server receive the log without a vote.  A voter keeps its vote: only its address changes.

        Arguments and errors as for ``add_voter``; it is not waited for.
        """
        return self._change(MembershipChange(Change.ADD_NONVOTER, id, address, prev_index), timeout)

    def demote_voter(self, id: str, prev_index: int = 0, timeout: float | None = None) -> IndexFuture[None]:
        """Take a server's vote away; it goes on receiving the log.  As for ``add_voter``."""
        return self._change(MembershipChange(Change.DEMOTE_VOTER, id, "", prev_index), timeout)

    def remove_server(self, id: str, prev_index: int = 0, timeout: float | None = None) -> IndexFuture[None]:
        """Remove a server, which may be the leader itself.  As for ``add_voter``.

        A removed leader steps down once the change is committed, and shuts down
        (``Config.shutdown_on_remove``).
        """
        return self._change(MembershipChange(Change.REMOVE_SERVER, id, "", prev_index), timeout)

    def _change(self, change: MembershipChange, timeout: float | None) -> IndexFuture[None]:
        _check_change(change)
        self._check_usable()
        future: IndexFuture[None] = IndexFuture(self._runtime)
        deadline = None if timeout is None else self._runtime.now() + timeout
        self._ask_leader(MembershipRequested(future, change, deadline))
        return future

    def get_configuration(self) -> ConfigurationFuture:
        """The latest members in this server's log, and the index of their entry.  Never blocks."""
        self._check_usable()
        configurations = self._state.configurations
        future = ConfigurationFuture(self._runtime)
        future._index = configurations.latest_index
        future.try_set_result(configurations.latest)
        return future

    def leadership_transfer(self, id: str | None = None, address: str | None = None) -> RaftFuture[None]:
        """Hand leadership to the voter ``id``, or to the most up to date one.

        The future resolves once that server leads, as far as this one has heard.  It has one
        election timeout to catch up, and another one to be elected; after that, or if another
        server won, the future fails with TransferFailedError, and this one may lead again.
        Meanwhile commands fail with LeadershipTransferInProgressError.  It also fails with
        NotLeaderError, NotVoterError and ConfigError.

        Source: dissertation §3.10.
        """
        self._check_usable()
        future: RaftFuture[None] = RaftFuture(self._runtime)
        self._ask_leader(TransferRequested(future, id, address))
        return future

    def campaign(self) -> RaftFuture[None]:
        """Stand for election now; the future resolves when that begins.

        With pre-votes the others refuse while they hear from a leader.  On the leader nothing
        happens.  Fails with NotVoterError on a server that may not stand.
        """
        self._check_usable()
        future: RaftFuture[None] = RaftFuture(self._runtime)
        if self._state.role is RaftState.SHUTDOWN:
            future.try_set_exception(self._shut_down())
        else:
            self._node.ask(CampaignRequested(future))
        return future

    # -- reads -----------------------------------------------------------------------------------

    def verify_leader(self) -> RaftFuture[None]:
        """A future that resolves once a majority of the voters has confirmed, after this call, that
        this server leads.  It fails with NotLeaderError otherwise.

        It says nothing about how far the FSM is: to read, use ``read_index``.
        """
        self._check_usable()
        future: RaftFuture[None] = RaftFuture(self._runtime)
        self._ask_leader(VerifyRequested(future))
        return future

    def read_index(self, timeout: float | None = None) -> RaftFuture[int]:
        """A future that resolves once our FSM holds every write acknowledged before this call.

        Works on any member: one that does not lead asks the leader.  All reads that wait share
        one round of heartbeats.  The result is the log index.  It goes on trying through
        elections until ``timeout`` seconds have passed (then ReadTimeoutError; None = no limit).
        Fails with UnsupportedProtocolError where a Go server leads.

        Source: dissertation §6.4.
        """
        self._check_usable()
        future: RaftFuture[int] = RaftFuture(self._runtime)
        if self._state.role is RaftState.SHUTDOWN:
            future.try_set_exception(self._shut_down())
        else:
            deadline = None if timeout is None else self._runtime.now() + timeout
            self._node.reader.ask(future, deadline)
        return future

    def _ask_leader(self, request: LeaderRequest) -> None:
        if self._state.role is RaftState.LEADER:
            self._node.ask(request)
        else:
            request.future.try_set_exception(self._refusal())

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self) -> SnapshotFuture:
        """Take a snapshot now; the future has its ``meta`` and ``open()`` once it is durable.

        Fails with NothingNewToSnapshotError, SnapshotFailedError (the FSM), or StorageError (the
        disk); the server goes on in each case.

        Source: Raft paper §7.
        """
        self._check_usable()
        future = SnapshotFuture(self._runtime)
        if self._state.role is RaftState.SHUTDOWN:
            future.try_set_exception(self._shut_down())
        else:
            self._node.snapshotter.ask(future)
        return future

    def restore(self, meta: SnapshotMeta, reader: BinaryIO, timeout: float | None = None) -> RaftFuture[None]:
        """Replace the state of the whole cluster by a snapshot from outside.  For disasters, on the leader.

        The members stay as they are.  Commands that are in flight fail with
        AbortedByRestoreError; later ones wait.  Every follower gets the snapshot.  The future
        resolves once a majority has it.  Should this leader fail before that, the cluster may
        go on without the snapshot, and this server then refuses the others: wipe it.

        Args:
            meta: of the snapshot; its ``size`` is checked, its index is not used again.
            reader: gives the bytes, on the snap thread; the caller closes it afterwards.
            timeout: how long reading may take (then EnqueueTimeoutError, and nothing has changed).

        Fails with NotLeaderError, ConfigError (a configuration is not committed yet),
        SnapshotFailedError (the reader), StoreFullError, StorageError (of which it is unknown whether
        the snapshot is on the disk, so the server stops), LeadershipLostError (nobody knows).
        """
        self._check_usable()
        _check_snapshot(meta, reader)
        future: IndexFuture[None] = IndexFuture(self._runtime)
        if self._state.role is not RaftState.LEADER:
            future.try_set_exception(self._refusal())
        else:
            deadline = None if timeout is None else self._runtime.now() + timeout
            self._node.snapshotter.restore(meta, reader, future, deadline)
        return future

    # -- waiting ---------------------------------------------------------------------------------

    def wait_for_leader(self, timeout: float | None = None) -> ServerInfo:
        """Block until this server knows a leader (itself or another); return who leads.

        Raises:
            TimeoutError: none is known in time.
            RaftShutdownError: the server stopped.
        """
        self._check_usable()
        found: list[tuple[str, str]] = []

        def known() -> bool:
            leader = self._state.leader
            if leader is not None:
                found.append(leader)
            return leader is not None or self._state.role is RaftState.SHUTDOWN

        if not self._node.context.leadership_news.wait_until(known, timeout):
            raise TimeoutError(
                f"{self._config.local_id} knows no leader after {timeout:g} s (term {self.term}, {self._state.role}): "
                f"{self._node.why_no_leader()}"
            )
        if not found:
            raise self._shut_down()
        return ServerInfo(*found[-1])

    def wait_applied(self, index: int, timeout: float | None = None) -> None:
        """Block until our FSM has applied the entry at ``index``.

        Raises:
            TimeoutError: not in time.
            RaftShutdownError: the server stopped.
        """
        self._check_usable()
        fsm = self._node.context.fsm

        def reached() -> bool:
            return fsm.applied_index >= index or fsm.stopping

        if not fsm.applied.wait_until(reached, timeout):
            raise TimeoutError(
                f"{self._config.local_id} has applied {fsm.applied_index} and not {index} after {timeout:g} s"
            )
        if fsm.applied_index < index:
            raise self._shut_down()

    # -- what is known ---------------------------------------------------------------------------

    @property
    def state(self) -> RaftState:
        """The role: FOLLOWER, CANDIDATE, LEADER or SHUTDOWN."""
        return self._state.role

    @property
    def leader_id(self) -> str | None:
        """The leader's id as far as known."""
        leader = self._state.leader
        return None if leader is None else leader[0]

    @property
    def leader_address(self) -> str | None:
        """The leader's address as far as known."""
        leader = self._state.leader
        return None if leader is None else leader[1]

    @property
    def term(self) -> int:
        """The latest term seen."""
        return self._state.ballot.term

    @property
    def last_index(self) -> int:
        """Index of the last entry in our log."""
        return self._state.log.last.index

    @property
    def commit_index(self) -> int:
        """Highest index known to be committed."""
        return self._state.commit_index

    @property
    def applied_index(self) -> int:
        """Index of the last entry that our FSM has really applied."""
        return self._node.context.fsm.applied_index

    @property
    def last_contact(self) -> float | None:
        """Seconds since a leader was heard from; 0 on a leader; None if never."""
        if self._state.role is RaftState.LEADER:
            return 0.0
        heard = self._state.last_contact
        return None if heard is None else max(self._runtime.now() - heard, 0.0)

    def status(self) -> Status:
        """Everything above at once, and on a leader how far each peer is.  Any thread; never blocks."""
        context, state = self._node.context, self._state
        leader_id, leader_address = state.leader or (None, None)
        leads = state.role is RaftState.LEADER
        return Status(
            id=self._config.local_id,
            address=self._transport.local_address,
            state=state.role,
            term=state.ballot.term,
            leader_id=leader_id,
            leader_address=leader_address,
            last_contact=self.last_contact,
            first_index=state.log.first_index,
            last_index=state.log.last.index,
            last_term=state.log.last.term,
            commit_index=state.commit_index,
            applied_index=context.fsm.applied_index,
            snapshot_index=state.log.snapshot.index,
            snapshot_term=state.log.snapshot.term,
            configuration=state.configurations.latest,
            configuration_index=state.configurations.latest_index,
            proposals_waiting=len(context.proposals),
            proposals_waiting_bytes=context.proposals.waiting_bytes,
            uncommitted_entries=max(state.log.last.index - state.commit_index, 0) if leads else 0,
            unapplied_entries=max(state.commit_index - context.fsm.applied_index, 0),
            peers=self._peers(),
            failure=self._node.failure,
        )

    def _peers(self) -> dict[str, PeerStatus]:
        leadership, members = self._node.context.leadership, self._state.configuration
        if leadership is None:
            return {}
        now = self._runtime.now()
        return {id: _peer_status(session, members, now) for id, session in leadership.sessions.items()}

    def register_observer(self, observer: Observer) -> None:
        """Let ``observer`` see what happens from now on: roles, leaders, peers, votes, heartbeats."""
        self._fork_guard.check(f"server {self._config.local_id}")
        if not isinstance(observer, Observer):
            raise ConfigError(f"{observer!r} is not an Observer: make one with pyraft.Observer()")
        self._node.context.notifier.register(observer)
        if self._node.is_down:
            self._node.context.notifier.deregister(observer)

    def deregister_observer(self, observer: Observer) -> None:
        """Let ``observer`` see no more; nothing if it is not registered."""
        self._node.context.notifier.deregister(observer)

    def leadership_changes(self) -> LeadershipChanges:
        """A subscription to whether this server leads, from now on.  Iterate it, or ``get(timeout)``."""
        return LeadershipChanges(self._node.context.leaderships)

    def reload_config(self, settings: ReloadableConfig) -> None:
        """Replace all the settings that can change while the server runs; all or none.

        Raises:
            ConfigError: they are invalid, or contradict the rest; nothing has changed.
        """
        self._check_usable()
        if not isinstance(settings, ReloadableConfig):
            raise ConfigError(
                f"{settings!r} is not a ReloadableConfig: use for example replace(raft.reloadable_config(), ...)"
            )
        if self._state.role is RaftState.SHUTDOWN:
            raise self._shut_down()
        with self._lock:
            self._config = settings.apply_to(self._config)
            self._node.reload(self._config)

    def reloadable_config(self) -> ReloadableConfig:
        """The settings in force that ``reload_config`` can change."""
        return ReloadableConfig.of(self._config)

    def stats(self) -> dict[str, str]:
        """The figures that operators look at, as text; the keys are hashicorp/raft's."""
        state, fsm = self._state, self._node.context.fsm
        contact = self.last_contact
        configurations = state.configurations
        others = [s for s in configurations.latest.voters if s.id != self._config.local_id]
        return {
            "state": str(state.role),
            "term": str(state.ballot.term),
            "last_log_index": str(state.log.last.index),
            "last_log_term": str(state.log.last.term),
            "commit_index": str(state.commit_index),
            "applied_index": str(fsm.applied_index),
            "fsm_pending": str(max(state.commit_index - fsm.applied_index, 0)),
            "last_snapshot_index": str(state.log.snapshot.index),
            "last_snapshot_term": str(state.log.snapshot.term),
            "protocol_version": "3",
            "protocol_version_min": str(OLDEST_ACCEPTED_PROTOCOL_VERSION),
            "protocol_version_max": "3",
            "snapshot_version_min": "0",
            "snapshot_version_max": "1",
            "latest_configuration": _configuration_text(configurations.latest),
            "latest_configuration_index": str(configurations.latest_index),
            "num_peers": str(len(others) if state.is_voter else 0),
            "last_contact": "never" if contact is None else ("0" if contact == 0 else f"{contact:.6f}s"),
        }

    def metrics(self) -> dict[str, int | float]:
        """All counters, gauges and histograms; ``pyraft.metrics.METRICS`` says what each means.

        ``pyraft.metrics.quantile`` reads a histogram: for example the p99 of ``commit_seconds``.
        """
        context = self._node.context
        numbers = context.metrics.as_dict()
        numbers["proposals_waiting"] = len(context.proposals)
        numbers["proposals_waiting_bytes"] = context.proposals.waiting_bytes
        numbers["unapplied_entries"] = max(self._state.commit_index - context.fsm.applied_index, 0)
        return numbers

    def __repr__(self) -> str:
        return f"<Raft {self._config.local_id} at {self._transport.local_address} [{self._state.role}]>"

    def _check_usable(self) -> None:
        if self._fork_guard.is_child:  # or its text would be made for every command
            self._fork_guard.check(f"server {self._config.local_id}")
        if not self._started:
            raise NotStartedError(
                f"server {self._config.local_id} has not been started: call start(), or use it in a with block"
            )

    def _shut_down(self) -> RaftShutdownError:
        error = RaftShutdownError()
        error.__cause__ = self._node.failure
        return error


class BarrierFuture(IndexFuture[Any]):
    """Resolves to the barrier's own index."""

    def try_set_result(self, value: Any) -> bool:
        return super().try_set_result(self._index)


def bootstrap_cluster(
    config: Config,
    log_store: LogStore,
    stable_store: StableStore,
    snapshot_store: SnapshotStore,
    transport: Transport,
    configuration: Configuration,
) -> None:
    """Write the beginning of a new cluster into the stores of a server that is not running.

    Do it on one server only, or with the same configuration on each.

    Raises:
        CantBootstrapError: the stores hold state already.
        ConfigError: the configuration is invalid.
    """
    check_configuration(configuration)
    refuse_used(log_store, stable_store)
    if has_existing_state(log_store, stable_store, snapshot_store):
        raise CantBootstrapError(f"{config.local_id} has state already: bootstrap only works on new clusters")
    stable_store.set(BALLOT_KEY, encode_ballot(Ballot(1)))
    log_store.store_log(Log(1, 1, LogType.CONFIGURATION, encode_configuration(configuration)))


def has_existing_state(log_store: LogStore, stable_store: StableStore, snapshot_store: SnapshotStore) -> bool:
    """Tell whether the stores belong to a server that has been part of a cluster.

    A bootstrap that was cut off between its two writes leaves term 1 and an empty log: that
    is no state, and the bootstrap may be repeated.
    """
    return (
        has_promised(load_ballot(stable_store))
        or log_store.last_index() > 0
        or len(snapshot_store.list()) > 0
    )


def _as_bytes(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(
        f"a command is bytes and not {type(value).__name__}: encode it first, for example text.encode()"
    )


def _peer_status(session: Session, members: Configuration, now: float) -> PeerStatus:
    peer = session.peer
    member = members.find(peer.id)
    return PeerStatus(
        id=peer.id,
        address=peer.address,
        suffrage=None if member is None else member.suffrage,
        state=PeerState(session.state),
        match=session.match_index,
        next=session.next_index,
        last_contact=max(now - session.contact, 0.0),
        in_flight=session.in_flight,
    )


def _check_snapshot(meta: Any, reader: Any) -> None:
    if not isinstance(meta, SnapshotMeta) or not hasattr(reader, "read"):
        raise ConfigError(
            "restore() needs a SnapshotMeta and a binary reader: for example what SnapshotStore.open() gives"
        )
    if type(meta.index) is not int or not 0 <= meta.index <= _LARGEST_RESTORED_INDEX:
        raise ConfigError(
            f"the snapshot's index {meta.index!r} is no log index: the log goes on behind it and must have room there"
        )


def _check_change(change: MembershipChange) -> None:
    for name, value in (("id", change.id), ("address", change.address)):
        if not isinstance(value, str):
            raise ConfigError(f"{change.kind.value}: {name}={value!r} is not text: pass a str")
    if type(change.prev_index) is not int or change.prev_index < 0:
        raise ConfigError(
            f"{change.kind.value}: prev_index={change.prev_index!r} is not a log index: pass 0 or more"
        )


def _configuration_text(configuration: Configuration) -> str:
    return "[" + " ".join(f"{{{s.suffrage.name} {s.id} {s.address}}}" for s in configuration.servers) + "]"


def _check_parts(
    config: Config,
    fsm: FSM,
    log_store: LogStore,
    stable_store: StableStore,
    snapshot_store: SnapshotStore,
    transport: Transport,
) -> None:
    expected: list[tuple[str, object, type]] = [
        ("config", config, Config),
        ("fsm", fsm, FSM),
        ("log_store", log_store, LogStore),
        ("stable_store", stable_store, StableStore),
        ("snapshot_store", snapshot_store, SnapshotStore),
        ("transport", transport, Transport),
    ]
    for name, value, kind in expected:
        if not isinstance(value, kind):
            raise ConfigError(
                f"{name}={value!r} is not a {kind.__name__}: pass an instance of a subclass of pyraft's {kind.__name__}"
            )
    if not config.local_id:
        raise ConfigError("local_id is empty: give every server a name it keeps for life")
