"""What the main thread works with: the parts of one server, as its roles and handlers see them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .config import Config
from .fsm_runner import FsmRunner
from .messages import AppendEntriesRequest, RpcHeader
from .metrics import Metrics
from .notifier import Notifier
from .proposals import ProposalQueue
from .rules.membership import Configurations
from .runtime import Inbox, Runtime, Task
from .state import NodeState, RaftState
from .transport.base import IncomingRpc, Transport
from .waiting import Waiters

if TYPE_CHECKING:
    import random


class Spawn(Protocol):
    """Start a thread of this server whose unexpected end stops the server."""

    def __call__(self, name: str, run: Callable[[], None]) -> Task: ...


class NodeContext:
    """The parts of one server.  Made by node.py; used on the main thread unless said otherwise."""

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
        self.metrics = Metrics()
        self.rng: random.Random = runtime.random(f"election:{config.local_id}")
        self.leadership_news = Waiters(runtime)
        self.log = NodeLogger(logging.getLogger("pyraft"), {"state": state})
        self.voted_at = 0.0  # when this server last gave its vote to another; main thread only
        self._rpc_lock = runtime.lock()
        self._waiting_rpc_bytes = 0

    def take(self, deadline: float) -> Any:
        """The next event for the main thread, or None at ``deadline``."""
        event = self.inbox.take(deadline)
        if event is None:
            self.metrics.main_woke_late(self.runtime.now() - deadline)
        elif isinstance(event, IncomingRpc):
            self.forget_rpc_bytes(event.size_bytes)
        return event

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
        self.state.leader = leader
        self.state.role = role
        self.leadership_news.notify()

    def heard_leader(self, request: AppendEntriesRequest) -> None:
        """Note who leads this term, and that we heard from it now."""
        leader = (request.header.id or request.header.addr, request.header.addr)
        self.state.last_contact = self.runtime.now()
        if self.state.leader != leader:
            self.state.leader = leader
            self.log.info("following leader=%s address=%s", *leader)
            self.leadership_news.notify()

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


class NodeLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the server's id, term and role behind every line."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        state: Any = (self.extra or {})["state"]
        return f"{msg} [id={state.server_id} term={state.ballot.term} role={state.role}]", kwargs
