"""The leader hands over: bring the target up to date, tell it to stand, and watch.

Main thread only.  While it goes on the leader takes no commands.

Source: dissertation §3.10.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..configuration import Server
from ..context import NodeContext
from ..errors import (
    ConfigError,
    LeadershipTransferInProgressError,
    NotVoterError,
    RaftError,
    TransferFailedError,
)
from ..events import TransferAnswered, TransferRequested
from ..futures import RaftFuture
from ..messages import TimeoutNowRequest


class Transfers:
    """At most one transfer at a time."""

    def __init__(
        self,
        node: NodeContext,
        term: int,
        match_of: Callable[[str], int],
        is_heard: Callable[[str], bool],
    ) -> None:
        """Prepare.

        Args:
            match_of: the highest index known to be durable at a peer.
            is_heard: whether a peer has answered lately.
        """
        self._node = node
        self._term = term
        self._match_of = match_of
        self._is_heard = is_heard
        self._future: RaftFuture[None] | None = None
        self._target: Server | None = None
        self._deadline = inf
        self._told = False

    @property
    def is_active(self) -> bool:
        return self._future is not None

    @property
    def wake_at(self) -> float:
        return self._deadline

    def begin(self, request: TransferRequested) -> None:
        """Start, or fail the request's future with the reason why not."""
        node = self._node
        try:
            target = self._choose(request)
        except RaftError as error:
            node.notifier.fail_one(request.future, error)
            return
        node.log.info("handing leadership over target=%s", target.id)
        self._future, self._target, self._told = request.future, target, False
        self._deadline = node.runtime.now() + node.config.election_timeout
        self.go_on()

    def go_on(self) -> None:
        """Tell the target to stand once it holds our whole log."""
        target = self._target
        if target is None or self._told or self._match_of(target.id) < self._node.state.log.last.index:
            return
        self._told = True
        # From now on it takes an election: as long again.
        self._deadline = self._node.runtime.now() + self._node.config.election_timeout
        self._tell(target)

    def on_answer(self, event: TransferAnswered) -> None:
        """The target has answered, or could not be reached."""
        if event.future is self._future and event.error is not None:
            self._fail(f"{self._target and self._target.id} could not be told to stand: {event.error}")

    def expire(self) -> None:
        """Give up if it takes too long."""
        if self._node.runtime.now() < self._deadline:
            return
        target = self._target
        assert target is not None
        if self._told:
            self._fail(f"{target.id} was told to stand and did not become leader in time")
        else:
            self._fail(
                f"{target.id} did not catch up in time: it holds entries up to {self._match_of(target.id)} of "
                f"{self._node.state.log.last.index}"
            )

    def target_changed(self) -> None:
        """The configuration is another one: a target that votes no more ends the transfer."""
        target = self._target
        if target is not None and not self._node.state.configuration.is_voter(target.id):
            self._fail(f"{target.id} is not a voter any more")

    def end(self) -> None:
        """The leadership ends, perhaps because of this: who leads next decides."""
        future, target = self._future, self._target
        if future is None or target is None:
            return
        if self._told:
            self._node.watch_transfer(future, target.id, self._term, self._deadline)
        else:
            self._fail("this server stopped leading before the target had caught up")
        self._clear()

    # -- inside ------------------------------------------------------------------------------

    def _choose(self, request: TransferRequested) -> Server:
        """The target.

        Raises:
            LeadershipTransferInProgressError, ConfigError, NotVoterError: there is none.
        """
        node = self._node
        if self.is_active:
            raise LeadershipTransferInProgressError(
                f"{node.id} is handing leadership to {self._target and self._target.id} already: wait for that to end"
            )
        others = [voter for voter in node.state.configuration.voters if voter.id != node.id]
        if request.target is None:
            if not others:
                raise ConfigError(f"there is no other voter than {node.id} that could lead: add one first")
            return max(others, key=lambda voter: (self._is_heard(voter.id), self._match_of(voter.id)))
        if request.target == node.id:
            raise ConfigError(f"cannot transfer leadership to itself: {node.id} leads already")
        found = node.state.configuration.find(request.target)
        if found is None:
            raise ConfigError(f"cannot transfer leadership to {request.target!r}: it is not a member")
        if found not in others:
            raise NotVoterError(
                f"cannot transfer leadership to {found.id}: it is not a voter; add_voter() first"
            )
        if request.address is not None and request.address != found.address:
            raise ConfigError(
                f"{found.id} is at {found.address!r} and not at {request.address!r}: leave the address out"
            )
        return found

    def _tell(self, target: Server) -> None:
        node, future = self._node, self._future
        assert future is not None

        def tell() -> None:
            error: RaftError | None = None
            try:
                node.transport.call(
                    target, TimeoutNowRequest(node.header, self._term), node.config.election_timeout
                )
            except RaftError as raised:
                error = raised
            node.inbox.put(TransferAnswered(future, error))

        node.spawn(f"transfer-{target.id}", tell)

    def _fail(self, why: str) -> None:
        future = self._future
        assert future is not None
        text = f"leadership was not handed over: {why}"
        self._node.log.warning("%s", text)
        self._node.notifier.fail([future], lambda: TransferFailedError(text))
        self._clear()

    def _clear(self) -> None:
        self._future = self._target = None
        self._deadline = inf
