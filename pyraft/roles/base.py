"""What every role has in common: one way in, one way out, and the RPCs that no role treats specially."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from .. import rpc_handlers
from ..context import NodeContext
from ..errors import CantBootstrapError, NodeFailedError, NotLeaderError, TransportError
from ..events import BootstrapRequested, LeaderQuestion, LeaderRequest, NodeFailed
from ..installing import SnapshotStep, answer_snapshot
from ..messages import AppendEntriesRequest, TimeoutNowRequest, TimeoutNowResponse
from ..proposals import futures_of
from ..transport.base import IncomingRpc


class RoleName(Enum):
    """Where to go next."""

    FOLLOWER = auto()
    CANDIDATE = auto()
    TRANSFER_CANDIDATE = auto()
    LEADER = auto()
    STOP = auto()


@dataclass(frozen=True, slots=True)
class Next:
    """The role that comes next, and a request that the old one left for it to answer."""

    role: RoleName
    carry: IncomingRpc | None = None
    drain: bool = False
    """With STOP: first apply what is committed, because callers wait for it."""


class Role(Protocol):
    """A role is made when the server enters it and dropped when it leaves it."""

    def run(self) -> Next:
        """Serve events until it is time for another role.  Main thread."""


def answer(node: NodeContext, rpc: IncomingRpc) -> None:
    """Answer ``rpc`` unless its caller has given up.

    Raises:
        StorageError: see rpc_handlers.
    """
    if isinstance(rpc, SnapshotStep):
        try:
            verdict = answer_snapshot(node, rpc.snapshot, rpc.stored)
        except BaseException:
            rpc.go_on(TransportError(f"{node.id} cannot install the snapshot: it is about to stop"))
            raise  # a thread of the transport waits for the answer
        rpc.go_on(verdict)
    elif not rpc.abandoned:
        rpc.respond(rpc_handlers.answer_request(node, rpc.request))


def leaders_term(rpc: IncomingRpc) -> int | None:
    """The term of the sender if only a leader sends this, else None.

    Whoever hears it in its own term or a later one follows.
    """
    if isinstance(rpc, SnapshotStep):
        return rpc.snapshot.term
    return rpc.request.term if isinstance(rpc.request, AppendEntriesRequest) else None


def refuse_proposals(node: NodeContext) -> None:
    """Fail every waiting command: this server does not lead."""
    node.proposals.channel.clear()
    waiting = node.proposals.take(node.config.max_proposals, node.config.max_proposal_bytes)
    leader_id, address = node.state.leader or (None, None)
    node.notifier.fail(
        futures_of(waiting),
        lambda: NotLeaderError(node.id, leader_id, address),
    )
    if len(node.proposals):
        node.proposals.channel.poke()


def refuse_bootstrap(node: NodeContext, event: BootstrapRequested, why: str) -> None:
    """Bootstrapping is for a follower without state."""
    node.notifier.fail([event.future], lambda: CantBootstrapError(why))


def refuse_request(node: NodeContext, event: LeaderRequest | LeaderQuestion) -> None:
    """This server does not lead."""
    leader_id, address = node.state.leader or (None, None)

    def not_leader() -> NotLeaderError:
        return NotLeaderError(node.id, leader_id, address)

    if isinstance(event, LeaderRequest):
        node.notifier.fail([event.future], not_leader)
    else:
        event.answer(not_leader())


def raise_failure(event: NodeFailed) -> None:
    """Another thread failed: end the main thread with its error."""
    error: NodeFailedError = event.error
    raise error


def accept_timeout_now(node: NodeContext, rpc: IncomingRpc) -> Next | None:
    """Stand for election at once because the leader says so; None if it was not the leader.

    hashicorp/raft believes anybody; here only the leader that we follow counts, and only if
    we may vote.

    Source: dissertation §3.10.
    """
    assert isinstance(rpc.request, TimeoutNowRequest)
    request = rpc.request
    may_vote = node.state.is_voter and node.state.ballot.newborn is None
    is_current = request.term in (0, node.state.ballot.term)  # 0: a Go server, which does not say
    if node.current_leader() != request.header.id or not is_current or not may_vote:
        node.log.warning(
            "ignored TimeoutNow from=%s: it does not lead us, or we do not vote", request.header.id
        )
        rpc.respond(
            TransportError(f"{node.id} does not stand: the sender does not lead it, or it does not vote")
        )
        return None
    rpc.respond(TimeoutNowResponse(node.header))
    return Next(RoleName.TRANSFER_CANDIDATE)
