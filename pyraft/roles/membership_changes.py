"""The leader's changes of membership: one at a time, each after the one before is committed.

Main thread only.  A server that is to vote is first brought up to date, in rounds, so that
the cluster never has to wait for it to commit anything (dissertation §4.2.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple, Protocol

from ..configuration import Configuration, Server, Suffrage
from ..context import NodeContext
from ..errors import ConfigError, EnqueueTimeoutError, RaftError
from ..events import MembershipRequested
from ..futures import RaftFuture
from ..rules.reconfiguration import Change, next_configuration
from ..sessions import Session

_UNREACHABLE_AFTER = 10
"""Election timeouts without a word after which a server that is to vote is given up."""


class Cluster(Protocol):
    """What a change needs of the leader."""

    def can_change(self) -> bool:
        """Whether the configuration in force is committed, and an entry of this term (§4.1)."""

    def begin_catching_up(self, server: Server) -> None:
        """Replicate to ``server``, which is no voter, unless that is done already."""

    def session_of(self, server_id: str) -> Session | None: ...

    def end_strangers(self) -> None:
        """Stop replicating to servers that are no members."""

    def follow_configuration(self) -> None:
        """Replicate to every member, at its present address."""

    def append_configuration(self, configuration: Configuration, future: RaftFuture[Any]) -> None: ...


class _CatchingUp(NamedTuple):
    request: MembershipRequested
    round: int
    target: int  # our last index when the round began
    began: float


class MembershipChanges:
    """Those that wait, and the one that is being prepared."""

    def __init__(self, node: NodeContext, cluster: Cluster) -> None:
        self._node = node
        self._cluster = cluster
        self._waiting: deque[MembershipRequested] = deque()
        self._catching_up: _CatchingUp | None = None
        self._is_going_on = False

    def add(self, request: MembershipRequested) -> None:
        """Let ``request`` wait for its turn, which may be now."""
        self._waiting.append(request)
        self.go_on()

    @property
    def is_waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def is_preparing(self, server_id: str) -> bool:
        """Whether that server is being brought up to date."""
        return self._catching_up is not None and self._catching_up.request.change.id == server_id

    def go_on(self) -> None:
        """Do what has become possible."""
        if self._is_going_on:
            return  # a commit made by this very loop, which looks again anyway
        self._is_going_on = True
        try:
            if self._catching_up is not None:
                self._look_at_round(self._catching_up)
            while self._waiting and self._catching_up is None and self._cluster.can_change():
                self._begin(self._waiting.popleft())
        finally:
            self._is_going_on = False

    def wake_at(self) -> float:
        """When to call ``expire`` at the latest."""
        requests = [*self._waiting]
        soonest = inf
        if self._catching_up is not None:
            requests.append(self._catching_up.request)
            soonest = self._node.runtime.now() + self._node.config.election_timeout
        return min([soonest, *(r.deadline for r in requests if r.deadline is not None)])

    def expire(self) -> None:
        """Give up what has waited for too long, and go on with the rest."""
        now = self._node.runtime.now()
        late = [r for r in self._waiting if r.deadline is not None and r.deadline <= now]
        for request in late:
            self._waiting.remove(request)
            self._fail(request, f"{request.change} waited in vain for its turn behind another change")
        if self._catching_up is not None:
            self._expire_catching_up(self._catching_up, now)
        self.go_on()  # a transfer may have been given up, too

    def end(self, make_error: Callable[[], RaftError]) -> None:
        """The leadership ends: none of these is in the log."""
        requests = [*self._waiting]
        if self._catching_up is not None:
            requests.append(self._catching_up.request)
        self._waiting.clear()
        self._catching_up = None
        self._node.notifier.fail([request.future for request in requests], make_error)

    # -- inside ------------------------------------------------------------------------------

    def _expire_catching_up(self, current: _CatchingUp, now: float) -> None:
        deadline = current.request.deadline
        session = self._cluster.session_of(current.request.change.id)
        heard = session.contact if session is not None else -inf
        if deadline is not None and deadline <= now:
            self._give_up(current, "it did not catch up in the time that the caller gave it")
        elif now - max(heard, current.began) > _UNREACHABLE_AFTER * self._node.config.election_timeout:
            self._give_up(current, "it cannot be reached: is it running, and is that its address?")

    def _begin(self, request: MembershipRequested) -> None:
        configurations = self._node.state.configurations
        change = request.change
        try:
            next_configuration(configurations.latest, configurations.latest_index, change)
        except ConfigError as error:
            self._node.notifier.fail_one(request.future, error)
            return
        if change.kind is not Change.ADD_VOTER or not self._must_catch_up(change.id):
            self._append(request)
            return
        self._cluster.begin_catching_up(Server(change.id, change.address, Suffrage.NONVOTER))
        self._node.log.info("bringing a new voter up to date peer=%s", change.id)
        self._begin_round(request, 1)

    def _must_catch_up(self, server_id: str) -> bool:
        node = self._node
        return node.config.catch_up_rounds > 0 and not node.state.configuration.is_voter(server_id)

    def _begin_round(self, request: MembershipRequested, number: int) -> None:
        node = self._node
        self._catching_up = _CatchingUp(request, number, node.state.log.last.index, node.runtime.now())
        self._look_at_round(self._catching_up)

    def _look_at_round(self, current: _CatchingUp) -> None:
        """Source: dissertation §4.2.1: a round shorter than an election timeout is good enough."""
        node = self._node
        session = self._cluster.session_of(current.request.change.id)
        if session is None or session.match_index < current.target or not self._cluster.can_change():
            return
        if node.runtime.now() - current.began < node.config.election_timeout:
            self._catching_up = None
            self._append(current.request)
        elif current.round >= node.config.catch_up_rounds:
            self._give_up(current, f"after {current.round} rounds it is still too far behind")
        else:
            self._begin_round(current.request, current.round + 1)

    def _append(self, request: MembershipRequested) -> None:
        configurations = self._node.state.configurations
        try:
            after = next_configuration(configurations.latest, configurations.latest_index, request.change)
        except ConfigError as error:
            self._node.notifier.fail_one(request.future, error)
            return
        self._cluster.append_configuration(after, request.future)

    def _give_up(self, current: _CatchingUp, why: str) -> None:
        session = self._cluster.session_of(current.request.change.id)
        self._catching_up = None
        holds = session.match_index if session is not None else 0
        self._fail(
            current.request,
            f"{current.request.change} is refused, because a voter that lags makes the cluster wait: {why} (it holds "
            f"entries up to {holds} of {self._node.state.log.last.index}). Nothing has changed",
        )
        self._cluster.end_strangers()
        self._cluster.follow_configuration()  # a member may have been looked for elsewhere

    def _fail(self, request: MembershipRequested, text: str) -> None:
        self._node.log.warning("%s", text)
        self._node.notifier.fail([request.future], lambda: EnqueueTimeoutError(text))
