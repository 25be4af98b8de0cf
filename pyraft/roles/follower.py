"""The follower: obeys a leader, and stands for election when it hears from none.

Main thread only.
"""

from __future__ import annotations

from ..configuration import Configuration, check_configuration, encode_configuration
from ..context import NodeContext
from ..errors import ConfigError, NodeFailedError, NotVoterError
from ..events import (
    BootstrapRequested,
    CampaignRequested,
    ConfigReloaded,
    HigherTermSeen,
    LeaderQuestion,
    LeaderRequest,
    NodeFailed,
    PeerHeard,
    PeerMatched,
    ProposalsWaiting,
    RestoreEnded,
    StandingHeard,
    StopRequested,
    TransferAnswered,
    VoteReceived,
)
from ..log import Log, LogType
from ..messages import TimeoutNowRequest
from ..rules.election import has_promised
from ..rules.timing import randomized
from ..state import RaftState
from ..transport.base import IncomingRpc
from .base import (
    Next,
    RoleName,
    accept_timeout_now,
    answer,
    raise_failure,
    refuse_bootstrap,
    refuse_proposals,
    refuse_request,
)


class Follower:
    """Serves a leader's requests, and notices when there are none."""

    def __init__(self, node: NodeContext, carry: IncomingRpc | None = None) -> None:
        self._node = node
        self._carry = carry
        self._patience = 0.0  # seconds
        self._since = 0.0  # when this stint, or the latest look at the timer, began
        self._warned = False

    def run(self) -> Next:
        """Serve events until it is time for another role.

        Source: Figure 2, Rules for Servers, Followers.
        """
        node = self._node
        node.enter(RaftState.FOLLOWER)
        self._since = node.runtime.now()
        self._draw_patience()
        refuse_proposals(node)  # their poke may have gone to an earlier role
        if self._carry is not None:
            answer(node, self._carry)
        while True:
            event = node.take(self._election_at())
            match event:
                case None:
                    if self._silent_too_long() and self._may_stand():
                        return Next(RoleName.CANDIDATE)
                case IncomingRpc(request=TimeoutNowRequest()):
                    transition = accept_timeout_now(node, event)
                    if transition is not None:
                        return transition
                case IncomingRpc():
                    answer(node, event)
                case ProposalsWaiting():
                    refuse_proposals(node)
                case BootstrapRequested():
                    self._bootstrap(event)
                case CampaignRequested():
                    if self._accept_campaign(event):
                        return Next(RoleName.CANDIDATE)
                case LeaderRequest() | LeaderQuestion():
                    refuse_request(node, event)
                case ConfigReloaded():
                    self._draw_patience()
                case NodeFailed():
                    raise_failure(event)
                case StopRequested():
                    return Next(RoleName.STOP)
                case RestoreEnded() | PeerMatched() | PeerHeard() | HigherTermSeen() | TransferAnswered():
                    pass  # meant for a leader that this server is no more
                case VoteReceived() | StandingHeard():
                    pass  # meant for a role that this server has left

    def _election_at(self) -> float:
        """Drawn patience after the latest contact; a vote we granted counts as one (§5.2)."""
        heard = self._node.state.last_contact
        return max(self._since, heard or 0.0, self._node.voted_at) + self._patience

    def _draw_patience(self) -> None:
        self._patience = randomized(self._node.config.heartbeat_timeout, self._node.rng)

    def _silent_too_long(self) -> bool:
        # A heartbeat that was answered on the transport's thread only refreshed last_contact.
        return self._node.runtime.now() >= self._election_at()

    def _may_stand(self) -> bool:
        """Forget the silent leader, and tell whether this server is one to replace it."""
        node = self._node
        leader, node.state.leader = node.state.leader, None
        why_not = self._why_not_stand()
        if why_not is None:
            heard = node.state.last_contact
            silent_s = node.runtime.now() - (heard if heard is not None else self._since)
            node.log.warning(
                "standing for election silent_s=%.3f last_leader=%s", silent_s, leader and leader[0]
            )
            return True
        if not self._warned:
            node.log.warning("no leader is heard from, and this server does not stand: %s", why_not)
            self._warned = True
        node.leadership_news.notify()
        self._since = node.runtime.now()
        self._draw_patience()
        return False

    def _why_not_stand(self) -> str | None:
        state = self._node.state
        if not state.configuration.servers:
            return "it knows no cluster yet; bootstrap one, or add it to one"
        if not state.may_be_needed:
            return "it is not a voter of the configuration"
        if state.ballot.newborn is not None:
            return "its disk was empty, and it has not caught up with what it may have held before"
        return None

    def _accept_campaign(self, event: CampaignRequested) -> bool:
        node, why_not = self._node, self._why_not_stand()
        if why_not is None:
            node.log.info("standing for election because somebody asked for it")
            node.notifier.resolve(event.future)
            return True
        text = f"{node.id} does not stand for election: {why_not}"
        node.notifier.fail([event.future], lambda: NotVoterError(text))
        return False

    def _bootstrap(self, event: BootstrapRequested) -> None:
        """Begin a cluster with the given configuration (a live BootstrapCluster)."""
        node, state = self._node, self._node.state
        try:
            check_configuration(event.configuration)
        except ConfigError as error:
            node.notifier.fail([event.future], lambda error=error: error)  # type: ignore[misc]
            return
        if not event.configuration.is_voter(node.id):
            text = f"{node.id} is not a voter of the configuration: bootstrap on a server that is one"
            node.notifier.fail([event.future], lambda: NotVoterError(text))
            return
        if has_promised(state.ballot) or state.log.last.index:
            refuse_bootstrap(
                node,
                event,
                f"{node.id} has state already: start it without bootstrapping, or give it an empty directory",
            )
            return
        try:
            begin_cluster(node, event.configuration)
        except NodeFailedError as error:
            node.notifier.fail([event.future], lambda error=error: error)  # type: ignore[misc]
            raise
        node.notifier.resolve(event.future)


def begin_cluster(node: NodeContext, configuration: Configuration) -> None:
    """Make the bootstrap entry durable and put it in force.  It is the same on every server."""
    state = node.state
    before = state.configurations
    state.adopt_term(1)
    entry = Log(1, 1, LogType.CONFIGURATION, encode_configuration(configuration))
    state.log.replace_suffix([entry])
    state.take_configurations([entry])
    node.configurations_changed(before)
