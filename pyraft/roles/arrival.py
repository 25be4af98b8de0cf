"""Arrival: a server with an empty disk finds out whether its cluster exists already.

The disk may be new, or it may have been wiped.  Until enough of the others have said
what they hold, this server makes no promise at all: it neither votes nor takes entries.
What follows from the answers is decided in rules/membership.py.

Main thread only; one short-lived thread asks each of the others.
"""

from __future__ import annotations

from ..configuration import Configuration, Server
from ..context import NodeContext
from ..errors import NotVoterError, RaftError, TransportError, UnsupportedProtocolError
from ..events import (
    BootstrapRequested,
    CampaignRequested,
    LeaderQuestion,
    LeaderRequest,
    NodeFailed,
    ProposalsWaiting,
    StandingHeard,
    StopRequested,
)
from ..messages import (
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    Response,
    StandingRequest,
    StandingResponse,
)
from ..rpc_handlers import on_standing
from ..rules.membership import Standing, ballot_on_arrival, voters_to_hear
from ..rules.timing import back_off
from ..runtime import Signal
from ..state import RaftState
from ..transport.base import IncomingRpc
from .base import Next, RoleName, raise_failure, refuse_bootstrap, refuse_proposals, refuse_request
from .follower import begin_cluster

_SAY_SO_EVERY = 5.0  # seconds


class Arrival:
    """Asks the listed servers, then begins as a member of a new cluster or as a newborn."""

    def __init__(self, node: NodeContext, configuration: Configuration) -> None:
        self._node = node
        self._configuration = configuration
        self._asked: set[tuple[str, str]] = set()  # (id, address)
        self._heard: dict[str, Standing] = {}
        self._errors: dict[str, str] = {}  # why those that were not heard did not answer, by the latest try
        self._over: list[Signal] = []

    def run(self) -> Next:
        """Serve events until it is known how to begin."""
        node = self._node
        node.enter(RaftState.FOLLOWER)
        try:
            return self._wait_for_answers()
        finally:
            for signal in self._over:
                signal.set()

    def _wait_for_answers(self) -> Next:
        node = self._node
        say_so_at = node.runtime.now() + 1.0
        while self._missing():
            event = node.take(say_so_at)
            match event:
                case None:
                    say_so_at = node.runtime.now() + _SAY_SO_EVERY
                    self._say_who_is_missing()
                case StandingHeard():
                    self._heard[event.peer] = event.standing
                case IncomingRpc(request=StandingRequest()):
                    event.respond(on_standing(node))
                case IncomingRpc():
                    event.respond(
                        TransportError(f"{node.id} has an empty disk and is asking the others what they hold")
                    )
                case ProposalsWaiting():
                    refuse_proposals(node)
                case BootstrapRequested():
                    refuse_bootstrap(node, event, f"{node.id} is about to bootstrap by itself")
                case LeaderRequest() | LeaderQuestion():
                    refuse_request(node, event)
                case CampaignRequested():
                    text = f"{node.id} does not stand for election: it does not know yet what it may have promised"
                    node.notifier.fail_one(event.future, NotVoterError(text))
                case NodeFailed():
                    raise_failure(event)
                case StopRequested():
                    return Next(RoleName.STOP)
        self._begin()
        return Next(RoleName.FOLLOWER)

    def _begin(self) -> None:
        node, state = self._node, self._node.state
        ballot, is_new = ballot_on_arrival(state.ballot, node.id, self._heard)
        # The ballot first: a crash in between leaves an empty log, and arrival starts over.
        state.save_ballot(ballot)
        if is_new:
            begin_cluster(node, self._configuration)
        else:
            node.log.warning(
                "the disk is empty but the cluster exists: this server takes entries and neither votes nor "
                "stands until it has caught up target=%d",
                ballot.newborn.target if ballot.newborn else 0,
            )

    def _ask(self, server: Server) -> None:
        """Ask ``server`` until it answers, on a thread of its own."""
        node = self._node
        over = node.runtime.signal()
        self._over.append(over)

        def ask() -> None:
            failures = 0
            while True:
                try:
                    node.inbox.put(StandingHeard(server.id, self._standing_of(server)))
                    return
                except RaftError as error:
                    self._errors[server.id] = str(error)  # read by main; one assignment
                    failures += 1
                if over.wait(back_off(failures, node.config.election_timeout)):
                    return

        node.spawn(f"ask-{server.id}", ask)

    def _standing_of(self, server: Server) -> Standing:
        """Ask ``server`` once.  On a thread of its own.

        Raises:
            TransportError: no answer, or somebody else's.
        """
        node = self._node
        patience = node.config.election_timeout
        answer: Response
        try:
            answer = node.transport.call(server, StandingRequest(node.header), patience)
        except UnsupportedProtocolError:
            # A Go server, or some other program that has the port: only the former knows this
            # question, which changes nothing (a pre-vote in term 0 is always refused).
            answer = node.transport.call(server, RequestPreVoteRequest(node.header, 0, 0, 0), patience)
            node.log.warning("peer=%s cannot say what it holds (not a pyraft server?)", server.id)
        if not isinstance(answer, StandingResponse | RequestPreVoteResponse):
            raise TransportError(f"{server.id} at {server.address} answered something else")
        if answer.header.id != server.id:
            raise TransportError(
                f"{answer.header.id or 'a nameless server'} answers at {server.address}, where {server.id} should be"
            )
        if isinstance(answer, StandingResponse):
            return Standing(answer.term, answer.last_log, answer.configuration)
        return Standing(answer.term, None)

    def _missing(self) -> list[str]:
        """Who must still be heard; asks those of whom this server has not known before."""
        where = voters_to_hear(self._node.id, self._configuration, self._heard.values())
        for id in sorted(where):
            for address in sorted(where[id]):
                if (id, address) not in self._asked:
                    self._asked.add((id, address))
                    self._ask(Server(id, address))
        return sorted(where.keys() - self._heard.keys())

    def _say_who_is_missing(self) -> None:
        silent = self._missing()
        self._node.log.warning(
            "waiting to hear from %d more of %s: the disk is empty, and only they know whether the cluster "
            "exists already (%s)",
            len(silent),
            ", ".join(silent),
            "; ".join(self._errors[id] for id in silent if id in self._errors) or "no answer yet",
        )
