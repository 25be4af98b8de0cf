"""What the main thread works with: the parts of one server, as its roles and handlers see them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .config import Config
from .errors import RaftError, TransferFailedError
from .events import CompactFurther, ConfigReloaded, SnapshotTaken
from .fsm_runner import FsmRunner
from .futures import RaftFuture
from .messages import AppendEntriesRequest, InstallSnapshotRequest, RpcHeader
from .notifier import Notifier
from .observers import LeaderObservation, Leaderships
from .proposals import ProposalQueue
from .rules.election import LogPosition
from .rules.membership import Configurations
from .runtime import Inbox, Runtime, Task
from .sessions import Leadership
from .snapshots.base import SnapshotMeta
from .state import NodeState, RaftState
from .transport.base import IncomingRpc, Transport
from .waiting import Waiters

if TYPE_CHECKING:
    import random

    from .snapshotter import Snapshotter


class Spawn(Protocol):
    """Start a thread of this server whose unexpected end stops the server."""

    def __call__(self, name: str, run: Callable[[], None]) -> Task: ...


_COMPACT_ENTRIES = 4096
"""Most old entries that one step drops, so that RPCs and timers are served in between."""


class NodeContext:
    """The parts of one server.  Made by node.py; used on the main thread unless said otherwise."""

    snapshots: Snapshotter  # set by node.py: it needs the context itself

    def __init__(
        self,
        *,
        config: Config,
        runtime: Runtime,
        transport: Transport,
        state: NodeState,
        inbox: Inbox,
        proposals: ProposalQueue,
        fsm: FsmRunner,
        notifier: Notifier,
        spawn: Spawn,
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.transport = transport
        self.state = state
        self.inbox = inbox
        self.proposals = proposals
        self.fsm = fsm
        self.notifier = notifier
        self.spawn = spawn
        self.id = config.local_id
        self.header = RpcHeader(config.local_id, transport.local_address)
        self.metrics = fsm.metrics
        self.rng: random.Random = runtime.random(f"election:{config.local_id}")
        self.leadership_news = Waiters(runtime)
        self.leaderships = Leaderships(runtime)
        self.log = NodeLogger(logging.getLogger("pyraft"), {"state": state})
        self.voted_at = 0.0  # when this server last gave its vote to another; main thread only
        self.leadership: Leadership | None = None  # while this server leads
        self.stray_leader = ""  # the id of the latest one that was refused, so that it is logged once
        self.foreign_leader: tuple[str, str] | None = None  # id, address; its log showed that it is one
        self._told_leader: tuple[str, str] | None = None  # whom observers believe to lead
        self._transfer_watch: _TransferWatch | None = None
        self._compacting = False
        self._rpc_lock = runtime.lock()
        self._waiting_rpc_bytes = 0

    def take(self, deadline: float) -> Any:
        """The next event for a role, or None at ``deadline``.

        What concerns no role is done here.
        """
        while True:
            if self.state.leader != self._told_leader:
                self._tell_leader()  # a vote or a silent leader may have made us forget it
            watch = self._transfer_watch
            until = deadline if watch is None else min(deadline, watch.deadline)
            event = self.inbox.take(until)
            self.runtime.look_after_callers()
            if event is None:
                if watch is None or until == deadline:
                    self.metrics.main_woke_late(self.runtime.now() - deadline)
                    return None
                self.end_transfer_watch(_not_handed_over(f"{watch.target} did not become leader in time"))
            elif isinstance(event, ConfigReloaded):
                self._reload(event.config)
                return event
            elif isinstance(event, SnapshotTaken):
                try:
                    self._snapshot_taken(event.meta)
                finally:
                    event.finish()  # it is durable, whatever becomes of the log
            elif isinstance(event, CompactFurther):
                self._compacting = False
                self.compact()
            else:
                if isinstance(event, IncomingRpc):
                    self.forget_rpc_bytes(event.size_bytes)
                return event

    def _reload(self, config: Config) -> None:
        self.config = config
        if self.leadership is not None:
            self.leadership.config = config
        self.snapshots.reconfigured()
        self.log.info("settings reloaded")

    def _snapshot_taken(self, meta: SnapshotMeta) -> None:
        log = self.state.log
        if meta.index > log.snapshot.index:
            log.snapshot = LogPosition(meta.term, meta.index)  # before the entries go
            self.compact()

    def compact(self) -> None:
        """Drop some of the entries that the snapshot covers, but for the trailing ones; go on later.

        Raises:
            StorageError: the write failed; this server must stop.
        """
        if self._compacting:
            return
        log, leadership = self.state.log, self.leadership
        upto = log.last.index - self.config.trailing_logs
        if leadership is not None:
            leadership.write_began_at = self.runtime.now()  # a disk may stall here, too
        if log.drop_prefix(upto, _COMPACT_ENTRIES):
            self._compacting = True
            self.inbox.put(CompactFurther())
        if leadership is not None:
            leadership.write_began_at = None

    def has_room_for_rpc(self, size_bytes: int, limit: int) -> bool:
        """Count ``size_bytes`` as waiting for the main thread unless that passes ``limit``.  Any thread."""
        with self._rpc_lock:
            waiting = self._waiting_rpc_bytes + size_bytes
            if waiting > limit and self._waiting_rpc_bytes:
                self.metrics.rejected_rpcs_total += 1
                return False
            self._waiting_rpc_bytes = waiting
            return True

    def forget_rpc_bytes(self, size_bytes: int) -> None:
        with self._rpc_lock:
            self._waiting_rpc_bytes -= size_bytes

    def enter(self, role: RaftState, leader: tuple[str, str] | None = None) -> None:
        """Publish the role and who leads; the old leader is forgotten with the old role."""
        before = self.state.role
        self._set_leader(leader)
        self.state.role = role
        self.leaderships.note(role is RaftState.LEADER)
        if role is not before:
            self.notifier.observe(role)
        if role is RaftState.LEADER:
            self.end_transfer_watch(_not_handed_over(f"{self.id} became leader again"))
        self.leadership_news.notify()

    def heard_leader(self, request: AppendEntriesRequest | InstallSnapshotRequest) -> None:
        """Note who leads this term, and that we heard from it now."""
        leader = (request.header.id or request.header.addr, request.header.addr)
        self.state.last_contact = self.runtime.now()
        if self.state.leader != leader:
            self._set_leader(leader)
            self.log.info("following leader=%s address=%s", *leader)
            self.leadership_news.notify()
        watch = self._transfer_watch
        if watch is not None and request.term > watch.term:
            won = leader[0] == watch.target
            self.end_transfer_watch(None if won else _not_handed_over(f"{leader[0]} became leader instead"))

    def _set_leader(self, leader: tuple[str, str] | None) -> None:
        self.state.leader = leader
        if leader != self._told_leader:
            self._tell_leader()

    def _tell_leader(self) -> None:
        """Let observers see who leads as far as known."""
        self._told_leader = leader = self.state.leader
        self.notifier.observe(LeaderObservation(*(leader or (None, None))))

    def watch_transfer(self, future: RaftFuture[None], target: str, term: int, deadline: float) -> None:
        """Finish ``future`` by whoever leads next after ``term``: with success if it is ``target``."""
        self._transfer_watch = _TransferWatch(future, target, term, deadline)

    def end_transfer_watch(self, make_error: Callable[[], RaftError] | None) -> None:
        """The watched transfer has succeeded (None) or failed; nothing if there is none."""
        watch, self._transfer_watch = self._transfer_watch, None
        if watch is None:
            return
        if make_error is None:
            self.notifier.resolve(watch.future)
        else:
            self.notifier.fail([watch.future], make_error)

    def current_leader(self) -> str | None:
        """The id of the leader if it was heard within the heartbeat timeout (or is this server)."""
        state = self.state
        if state.leader is None:
            return None
        if state.role is RaftState.LEADER:
            return state.leader[0]
        heard = state.last_contact
        if heard is None or self.runtime.now() - heard >= self.config.heartbeat_timeout:
            return None
        return state.leader[0]

    def configurations_changed(self, before: Configurations) -> None:
        """Say so in the log if the configuration in force is another one than ``before``."""
        now = self.state.configurations
        if now.latest_index != before.latest_index:
            members = ", ".join(f"{s.id}@{s.address}({s.suffrage.name})" for s in now.latest.servers)
            self.log.info("configuration in force index=%d members=[%s]", now.latest_index, members)


class _TransferWatch(NamedTuple):
    """A leader told ``target`` to stand and has stepped down: who leads next?"""

    future: RaftFuture[None]
    target: str
    term: int
    deadline: float


def _not_handed_over(why: str) -> Callable[[], RaftError]:
    return lambda: TransferFailedError(f"leadership was not handed over as asked: {why}")


class NodeLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the server's id, term and role behind every line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        state: Any = (self.extra or {})["state"]
        return f"{msg} [id={state.server_id} term={state.ballot.term} role={state.role}]", kwargs
