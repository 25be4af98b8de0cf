"""The candidate: asks for votes, first without obligation, then for real.

Main thread only.  Votes are a set of server ids, never a counter.
"""

from __future__ import annotations

from ..configuration import Server
from ..context import NodeContext
from ..errors import RaftError, UnsupportedProtocolError
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
from ..messages import (
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNowRequest,
)
from ..rpc_handlers import UNEXPECTED_TEXT, object_to_stray_leader
from ..rules.election import is_elected
from ..rules.timing import randomized
from ..state import RaftState
from ..transport.base import IncomingRpc
from .base import (
    Next,
    RoleName,
    accept_timeout_now,
    answer,
    leaders_term,
    raise_failure,
    refuse_bootstrap,
    refuse_proposals,
    refuse_request,
)

VoteRequest = RequestVoteRequest | RequestPreVoteRequest


class Candidate:
    """Stands for election until somebody wins or it is time to try again."""

    def __init__(self, node: NodeContext, is_transfer: bool = False) -> None:
        """``is_transfer``: the leader said so; then no pre-vote, and voters leave their leader."""
        self._node = node
        self._is_transfer = is_transfer
        self._votes: set[str] = set()
        self._election = object()  # late answers to an older election carry another one
        self._is_pre_vote = node.config.pre_vote and not is_transfer
        self._term = 0
        self._deadline = 0.0

    def run(self) -> Next:
        """Serve events until it is time for another role.

        Source: Figure 2, Rules for Servers, Candidates; dissertation §9.6 (pre-vote).
        """
        node = self._node
        node.enter(RaftState.CANDIDATE)
        refuse_proposals(node)  # their poke may have gone to an earlier role
        transition = self._ask()
        while transition is None:
            event = node.take(self._deadline)
            match event:
                case None:
                    return Next(RoleName.CANDIDATE)
                case VoteReceived(election=self._election):
                    transition = self._on_vote(event)
                case IncomingRpc():
                    transition = self._on_rpc(event)
                case ProposalsWaiting():
                    refuse_proposals(node)
                case CampaignRequested():
                    node.notifier.resolve(event.future)  # it stands already
                case BootstrapRequested():
                    refuse_bootstrap(node, event, f"{node.id} is a candidate: it has a cluster already")
                case LeaderRequest() | LeaderQuestion():
                    refuse_request(node, event)
                case NodeFailed():
                    raise_failure(event)
                case StopRequested():
                    return Next(RoleName.STOP)
                case (
                    RestoreEnded()
                    | PeerMatched()
                    | PeerHeard()
                    | ConfigReloaded()
                    | HigherTermSeen()
                    | TransferAnswered()
                ):
                    pass  # meant for a leader that this server is no more
                case VoteReceived() | StandingHeard():
                    pass  # of an earlier role or election
        return transition

    def _ask(self) -> Next | None:
        """Begin the pre-vote or the election: our own vote first, then everybody else's."""
        node, state = self._node, self._node.state
        self._deadline = node.runtime.now() + randomized(node.config.election_timeout, node.rng)
        last = state.log.last
        request: VoteRequest
        if self._is_pre_vote:
            self._term = state.ballot.term + 1
            request = RequestPreVoteRequest(node.header, self._term, last.index, last.term)
        else:
            state.save_ballot(state.ballot.at_term(state.ballot.term + 1).voting_for(node.id))
            self._term = state.ballot.term
            node.metrics.elections_total += 1
            node.log.info("asking for votes last=%d", last.index)
            request = RequestVoteRequest(node.header, self._term, last.index, last.term, self._is_transfer)
        self._election = object()
        self._votes = {node.id}
        for voter in state.configuration.voters:
            if voter.id != node.id:
                self._ask_voter(voter, request)
        return self._elected()

    def _ask_voter(self, voter: Server, request: VoteRequest) -> None:
        """Ask on a thread of its own: an unreachable voter must not delay the others."""
        node, election = self._node, self._election

        def ask() -> None:
            response: RequestVoteResponse | RequestPreVoteResponse | None = None
            try:
                got = node.transport.call(voter, request, node.config.election_timeout)
                if isinstance(got, RequestVoteResponse | RequestPreVoteResponse):
                    response = got
            except RaftError as error:
                response = _pre_vote_of_an_older_version(request, error)
            node.inbox.put(VoteReceived(election, voter.id, response))

        node.spawn(f"vote-{voter.id}", ask)

    def _on_vote(self, event: VoteReceived) -> Next | None:
        state, response = self._node.state, event.response
        if response is None:
            return None
        if not response.granted:
            if response.term > self._term:  # a refused pre-vote may carry the term that we asked about
                state.adopt_term(response.term)
                return Next(RoleName.FOLLOWER)
            return None
        if response.term == self._term:
            self._votes.add(event.voter)
        return self._elected()

    def _elected(self) -> Next | None:
        if not is_elected(self._node.state.configuration, self._votes):
            return None
        if not self._is_pre_vote:
            return Next(RoleName.LEADER)
        self._is_pre_vote = False
        return self._ask()

    def _on_rpc(self, rpc: IncomingRpc) -> Next | None:
        node, request = self._node, rpc.request
        before = node.state.ballot.term
        leader = leaders_term(rpc)
        if leader is not None and leader >= before:
            refusal = object_to_stray_leader(node, request)
            if refusal is not None:
                rpc.respond(refusal)
                return None
            return Next(RoleName.FOLLOWER, carry=rpc)  # somebody won (§5.2)
        if isinstance(request, TimeoutNowRequest):
            return accept_timeout_now(node, rpc)
        answer(node, rpc)
        return Next(RoleName.FOLLOWER) if node.state.ballot.term > before else None


def _pre_vote_of_an_older_version(request: VoteRequest, error: RaftError) -> RequestPreVoteResponse | None:
    """A server that does not know pre-votes would vote if asked for real: count it as granted.

    Its transport does not know the call either, or it answers as Go does where they are off.
    """
    is_unknown = isinstance(error, UnsupportedProtocolError) or UNEXPECTED_TEXT in str(error)
    if is_unknown and isinstance(request, RequestPreVoteRequest):
        return RequestPreVoteResponse(request.header, request.term, True)
    return None
