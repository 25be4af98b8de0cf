"""What the main thread's inbox receives: facts, in the past tense.

Besides these, requests of other servers arrive as ``transport.base.IncomingRpc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .configuration import Configuration
from .errors import NodeFailedError
from .messages import RequestPreVoteResponse, RequestVoteResponse
from .rules.membership import Standing

if TYPE_CHECKING:
    from .futures import RaftFuture
    from .sessions import Session


@dataclass(frozen=True, slots=True)
class ProposalsWaiting:
    """A poke: look at the proposal queue, or there may be room for more of it now."""


@dataclass(frozen=True, slots=True)
class PeerMatched:
    """A peer's log is durable and equal to ours up to ``index``."""

    session: Session
    index: int


@dataclass(frozen=True, slots=True)
class HigherTermSeen:
    """A peer answered a leader's request from a term above the leader's."""

    session: Session
    term: int


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A voter answered, or could not be reached (``response`` None)."""

    election: object
    voter: str
    response: RequestVoteResponse | RequestPreVoteResponse | None


@dataclass(frozen=True, slots=True)
class StandingHeard:
    """A listed server said what it has on disk."""

    peer: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class BootstrapRequested:
    """Somebody called Raft.bootstrap_cluster()."""

    configuration: Configuration
    future: RaftFuture[None]


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """Another thread of this server cannot go on, so the server must not."""

    error: NodeFailedError


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody called Raft.shutdown()."""
