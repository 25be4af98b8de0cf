"""One server, put together: its state, its inboxes, its threads, and the main loop.

The order of the end matters as much as that of the beginning: first nothing new gets in,
then the transport is closed (which wakes every thread that is blocked in a call), then the
threads go, and every future is resolved before the last of them has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .config import Config
from .configuration import Configuration
from .context import NodeContext
from .errors import NodeFailedError, RaftError, RaftShutdownError, ShutdownTimeoutError, TransportError
from .events import (
    BootstrapRequested,
    CampaignRequested,
    ConfigReloaded,
    LeaderQuestion,
    LeaderRequest,
    NodeFailed,
    ProposalsWaiting,
    SnapshotTaken,
    StopRequested,
)
from .fsm import FSM
from .fsm_runner import FsmRunner
from .futures import ShutdownFuture
from .installing import receive_snapshot
from .logstore.base import LogStore, StableStore
from .messages import AppendEntriesRequest, InstallSnapshotRequest, InstallSnapshotResponse
from .notifier import Notifier
from .proposals import ProposalQueue, futures_of
from .reads import Reader
from .recovery import refuse_used
from .restoring import check_reaches, restore_newest
from .roles.arrival import Arrival
from .roles.base import Next, Role, RoleName
from .roles.candidate import Candidate
from .roles.follower import Follower
from .roles.leader import Leader
from .rpc_handlers import answer_heartbeat, object_to
from .runtime import Inbox, NotifyChannel, Runtime, Task
from .snapshots.base import SnapshotStore
from .snapshotter import Snapshotter
from .state import NodeState, RaftState
from .transport.base import IncomingRpc, SnapshotSource, Transport
from .waiting import Waiters

_OWN_CODE_SECONDS = 5.0
"""How long a thread may take that has only our own code to finish."""

_WAITING_RPC_BYTES = 64 * 1024 * 1024
"""Most bytes of requests that wait for the main thread; then callers are told to come back."""


class Node:
    """The threads of one server and what they share.

    Attributes:
        failure: why it stopped by itself, or None.
    """

    def __init__(
        self,
        *,
        config: Config,
        fsm: FSM,
        log_store: LogStore,
        stable_store: StableStore,
        snapshot_store: SnapshotStore,
        transport: Transport,
        runtime: Runtime,
        arrival: Configuration | None,
        on_stopped: Callable[[], None],
    ) -> None:
        """Read the stores; start nothing.

        Args:
            arrival: the servers to ask before an empty disk may be used (see roles/arrival.py).
            on_stopped: called on the main thread when all else has ended; closes what was opened.

        Raises:
            StorageError: the stores cannot be read, or hold what cannot be.
        """
        self.failure: NodeFailedError | None = None
        self.snapshot_store = snapshot_store
        self._runtime = runtime
        self._on_stopped = on_stopped
        self._arrival = arrival
        self._inbox: Inbox = runtime.inbox(f"{config.local_id}-main")
        channel = NotifyChannel(self._inbox, ProposalsWaiting())
        proposals = ProposalQueue(runtime, channel, config.max_proposals, config.max_proposal_bytes)
        refuse_used(log_store, stable_store)
        restored = restore_newest(snapshot_store, fsm, config.local_id, log_store)
        state = NodeState(config.local_id, log_store, stable_store, restored)
        check_reaches(snapshot_store, restored, state.log.last, log_store)
        state.check_ballot()
        notifier = Notifier(runtime, config.local_id)
        self.context = NodeContext(
            config=config,
            runtime=runtime,
            transport=transport,
            state=state,
            inbox=self._inbox,
            proposals=proposals,
            fsm=FsmRunner(
                runtime,
                config.local_id,
                fsm,
                state.log,
                on_progress=lambda: self._fsm_got_on(proposals),
                fail=notifier.fail,
                restored=restored,
            ),
            notifier=notifier,
            spawn=self._spawn,
        )
        if config.restore_committed_logs:
            self._restore_committed()
        self.reader = Reader(self.context)
        self.context.fsm.ask_again = self.reader.ask_again
        self.snapshotter = self.context.snapshots = Snapshotter(self.context, snapshot_store)
        self._stores = (log_store, stable_store)
        self._mark_stores(config.local_id)
        self._tasks: list[Task] = []
        self._main: Task | None = None
        self._fsm_task: Task | None = None
        self._notify_task: Task | None = None
        self._snap_task: Task | None = None
        self._grace: float | None = None
        self._drain = False
        self._stopped = False
        self._stop_waiters = Waiters(runtime)
        self.stopped_future: ShutdownFuture = ShutdownFuture(runtime, lambda: self._main)

    def _mark_stores(self, user: str | None) -> None:
        """Say whose the stores are, so that nobody of this process uses them meanwhile."""
        for store in self._stores:
            with suppress(AttributeError):  # a class of the user's may have no room for it
                store.in_use_by = user

    def _restore_committed(self) -> None:
        """Apply what was known to be committed when entries were last stored."""
        context = self.context
        committed = context.state.log.stored_commit_index()
        if committed > context.state.commit_index:
            context.state.advance_commit(committed)
            context.fsm.committed_up_to(committed)

    # -- any thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads and begin to serve."""
        context = self.context
        name = f"pyraft-{context.id}"
        self._notify_task = self._runtime.spawn(
            f"{name}-notify", self._guarded("notify", context.notifier.run)
        )
        self._fsm_task = self._runtime.spawn(f"{name}-fsm", self._guarded("fsm", context.fsm.run))
        self._tasks.append(self._runtime.spawn(f"{name}-read", self._guarded("read", self.reader.run)))
        self._snap_task = self._runtime.spawn(f"{name}-snap", self._guarded("snap", self.snapshotter.run))
        self._main = self._runtime.spawn(f"{name}-main", self._run)
        try:
            context.transport.serve(self)
        except BaseException:
            self.stop(None)
            self._main.join(None)
            # One that had failed before it could serve has closed its transport: as if a moment later.
            if self.failure is None:
                raise

    def receive(self, rpc: IncomingRpc) -> None:
        """Take a request of another server.  On the transport's threads; never blocks."""
        context, request = self.context, rpc.request
        if isinstance(request, AppendEntriesRequest) and request.is_heartbeat:
            response = answer_heartbeat(context, request)
            if response is not None:
                rpc.respond(response)
                return
        refusal = object_to(request)
        if refusal is not None:
            rpc.respond(refusal)
            return
        if not context.has_room_for_rpc(rpc.size_bytes, _WAITING_RPC_BYTES):
            rpc.respond(TransportError(f"{context.id} is busy: too many bytes of requests wait there"))
            return
        self._inbox.put(rpc)

    def receive_snapshot(
        self, request: InstallSnapshotRequest, source: SnapshotSource
    ) -> InstallSnapshotResponse | RaftError:
        """Take in a snapshot of the leader's.  On a thread of the transport; blocks until it is durable."""
        return receive_snapshot(self.context, self.snapshot_store, request, source)

    def ask(self, request: LeaderRequest | BootstrapRequested | CampaignRequested) -> None:
        """Leave ``request`` for the main thread, which finishes its future sooner or later."""
        self._inbox.put(request)

    def reload(self, config: Config) -> None:
        """Let ``config`` be the settings from now on."""
        self._inbox.put(ConfigReloaded(config))

    def stop(self, grace: float | None) -> None:
        """Ask the server to end.  ``grace``: seconds to wait for user code that does not return."""
        if grace is not None:  # a later shutdown() without one, as `with` does, must not undo it
            self._grace = grace
        self._inbox.put(StopRequested())

    def stop_unstarted(self) -> None:
        """End a server that has no threads yet."""
        self.context.enter(RaftState.SHUTDOWN)
        self.context.fsm.stopping = True
        try:
            self.context.transport.close()
        finally:
            self._finish(None)

    def wait_stopped(self, timeout: float | None) -> bool:
        return self._stop_waiters.wait_until(lambda: self._stopped, timeout)

    def why_no_leader(self) -> str:
        """What to look at when no leader is known."""
        state = self.context.state
        if state.configuration.servers:
            members = ", ".join(server.id for server in state.configuration.voters)
            return f"are a majority of {members} running, and can they reach each other?"
        if self._arrival is not None:
            members = ", ".join(server.id for server in self._arrival.voters)
            return f"its disk was empty, so it begins only after it has heard all of {members}: are they running?"
        return (
            "it knows no cluster: pass bootstrap= to open(), call bootstrap_cluster(), or add it to a cluster"
        )

    @property
    def is_down(self) -> bool:
        return self._stopped or self.context.state.role is RaftState.SHUTDOWN

    # -- threads -----------------------------------------------------------------------------

    def _spawn(self, name: str, run: Callable[[], None]) -> Task:
        """Start one more thread of this server.  Main thread only."""
        self._tasks = [task for task in self._tasks if not task.join(0)]
        task = self._runtime.spawn(f"pyraft-{self.context.id}-{name}", self._guarded(name, run))
        self._tasks.append(task)
        return task

    def _guarded(self, name: str, run: Callable[[], None]) -> Callable[[], None]:
        """``run``, but no thread dies silently: its error ends the server."""

        def guarded() -> None:
            try:
                run()
            except NodeFailedError as error:
                self.context.log.error("thread %s cannot go on: %s", name, error)
                self._inbox.put(NodeFailed(error))
            except BaseException as error:  # SystemExit, too, would end the thread without a word
                self.context.log.exception("thread %s died", name)
                failure = NodeFailedError(
                    f"the thread pyraft-{self.context.id}-{name} died of {error!r}: this is a bug; its traceback is "
                    f"in the log"
                )
                failure.__cause__ = error
                self._inbox.put(NodeFailed(failure))

        return guarded

    def _run(self) -> None:
        """The main thread's life."""
        try:
            self._serve_roles()
        except NodeFailedError as error:
            self.context.log.error("this server stops: %s", error)
            self.failure = error
        except BaseException as error:
            self.context.log.exception("the main thread died")
            self.failure = NodeFailedError(
                f"the main thread of {self.context.id} died of {error!r}: this is a bug; its traceback is in the log"
            )
            self.failure.__cause__ = error
        finally:
            self._close_down()

    def _serve_roles(self) -> None:
        """From role to role until one says stop.  Each is a new object; the old one is dropped."""
        context = self.context
        transition = Next(RoleName.FOLLOWER)
        if self._arrival is not None:
            transition = Arrival(context, self._arrival).run()
        while transition.role is not RoleName.STOP:
            transition = self._role_for(transition).run()
        self._drain = transition.drain

    def _role_for(self, transition: Next) -> Role:
        match transition.role:
            case RoleName.CANDIDATE:
                return Candidate(self.context)
            case RoleName.TRANSFER_CANDIDATE:
                return Candidate(self.context, is_transfer=True)
            case RoleName.LEADER:
                return Leader(self.context)
            case _:
                return Follower(self.context, transition.carry)

    def _fsm_got_on(self, proposals: ProposalQueue) -> None:
        """The FSM applied something, so a leader that had no room may have some now."""
        if len(proposals):
            proposals.channel.poke()

    # -- the end -------------------------------------------------------------------------------

    def _close_down(self) -> None:
        """Bring everything to an end, in order.  Main thread; its last act."""
        context = self.context
        context.enter(RaftState.SHUTDOWN)
        self._runtime.release_callers()
        failure = self.failure

        def refused() -> RaftError:
            error = RaftShutdownError()
            error.__cause__ = failure
            return error

        context.end_transfer_watch(refused)
        waiting = context.proposals.close(refused)
        context.notifier.fail(futures_of(waiting), refused)
        self._inbox.close(lambda event: _dispose(event, context.notifier, refused))
        self.reader.stop()
        self.snapshotter.stop()
        try:
            context.transport.close()
        except Exception:
            context.log.exception("the transport did not close cleanly")
        context.fsm.stop(drain=self._drain)
        stuck = self._join_user_threads()
        for task in self._tasks:
            if not task.join(context.config.election_timeout * 2 + 5):
                context.log.error("thread %s does not end:\n%s", task.name, task.stack())
        self._finish(stuck)

    def _join_user_threads(self) -> str | None:
        """Wait for the threads that run user code; return what is wrong with one that is stuck."""
        context, runtime = self.context, self._runtime
        grace = context.config.shutdown_grace if self._grace is None else self._grace
        deadline = runtime.now() + grace
        stuck = None
        assert self._fsm_task is not None and self._notify_task is not None
        # One that is not in user code ends by itself, however short the grace.
        if not self._fsm_task.join(max(deadline - runtime.now(), 0)) and (
            context.fsm.calling is not None or not self._fsm_task.join(_OWN_CODE_SECONDS)
        ):
            stuck = _describe_stuck(self._fsm_task, f"FSM.{context.fsm.calling or 'apply'}", grace)
            context.fsm.abandon()
        assert self._snap_task is not None
        if not self._snap_task.join(max(deadline - runtime.now(), 0)) and (
            self.snapshotter.is_writing or not self._snap_task.join(_OWN_CODE_SECONDS)
        ):
            stuck = stuck or _describe_stuck(self._snap_task, "FSMSnapshot.persist", grace)
            self.snapshotter.abandon()
        context.notifier.stop()
        if not self._notify_task.join(max(deadline - runtime.now(), 0.1)):
            stuck = stuck or _describe_stuck(self._notify_task, "a future's callback", grace)
            # On a thread of its own: the next callback may block where this one does.
            rescue = runtime.spawn(f"pyraft-{context.id}-rescue", context.notifier.abandon)
            rescue.join(max(deadline - runtime.now(), 0.1))
        return stuck

    def _finish(self, stuck: str | None) -> None:
        self._mark_stores(None)
        try:
            self._on_stopped()
        except Exception:
            self.context.log.exception("the stores did not close cleanly")
        self._stopped = True
        self._stop_waiters.notify()
        self.context.leadership_news.notify()
        self.context.leaderships.end()
        self.context.notifier.end_observers()
        self.context.fsm.applied.notify()
        self.context.log.info("stopped")
        if stuck is None:
            self.stopped_future.try_set_result(None)
        else:
            self.context.log.error("%s", stuck)
            self.stopped_future.try_set_exception(ShutdownTimeoutError(stuck))


def _describe_stuck(task: Task, where: str, grace: float) -> str:
    return (
        f"the server is down, but thread {task.name} is still in {where} after {grace:g} s; it ends when that "
        f"returns. It is at:\n{task.stack()}"
    )


def _dispose(event: Any, notifier: Notifier, refused: Callable[[], RaftError]) -> None:
    """What becomes of an event that reaches a main thread that is gone."""
    if isinstance(event, BootstrapRequested | CampaignRequested | LeaderRequest):
        notifier.fail([event.future], refused)
    elif isinstance(event, LeaderQuestion):
        event.answer(refused())
    elif isinstance(event, SnapshotTaken):
        event.finish()  # it is durable, whoever notes it
    elif isinstance(event, IncomingRpc):
        event.respond(TransportError("raft is already shutdown"))
