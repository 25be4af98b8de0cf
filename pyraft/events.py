"""What the main thread's inbox receives: facts, in the past tense.

Besides these, requests of other servers arrive as ``transport.base.IncomingRpc``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .config import Config
from .configuration import Configuration
from .errors import NodeFailedError, RaftError
from .messages import RequestPreVoteResponse, RequestVoteResponse
from .rules.membership import Standing
from .rules.reconfiguration import MembershipChange
from .snapshots.base import SnapshotMeta, SnapshotSink

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
    took: float | None = None
    """Seconds from sending entries to this answer; None if there were none."""


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
class LeaderRequest:
    """Somebody asked for what only a leader can do.  Every other role refuses it."""

    future: RaftFuture[Any]


@dataclass(frozen=True, slots=True)
class MembershipRequested(LeaderRequest):
    """Somebody called add_voter() or one of its siblings.

    ``deadline``: until when it may wait for its turn, an instant of the runtime's clock, or None.
    """

    change: MembershipChange
    deadline: float | None


@dataclass(frozen=True, slots=True)
class TransferRequested(LeaderRequest):
    """Somebody called leadership_transfer().  ``target`` None: to the most up to date voter."""

    target: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class TransferAnswered:
    """The server that is to take over answered, or not (``error``); ``future`` says which transfer."""

    future: RaftFuture[Any]
    error: RaftError | None


@dataclass(frozen=True, slots=True)
class VerifyRequested(LeaderRequest):
    """Somebody called verify_leader()."""


@dataclass(frozen=True, slots=True)
class LeaderQuestion:
    """Another thread of this server asks what only a leader knows.  Every other role answers with an error."""

    answer: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class ReadIndexAsked(LeaderQuestion):
    """The reader thread wants the read index: an int, or a RaftError."""


@dataclass(frozen=True, slots=True)
class RestorePlace:
    """Where a snapshot from outside is to stand, and with which members."""

    index: int
    term: int
    configuration: Configuration
    configuration_index: int


@dataclass(frozen=True, slots=True)
class RestoreAsked(LeaderQuestion):
    """The snap thread has a snapshot from outside: it wants a RestorePlace, or gets a RaftError."""

    meta: SnapshotMeta
    future: RaftFuture[None]
    deadline: float | None
    """Until when commands wait for it, an instant of the runtime's clock."""


@dataclass(frozen=True, slots=True)
class RestoreWritten(LeaderQuestion):
    """It is written but for ``sink.close()``; the answer is None, or a RaftError: then it is to be cancelled."""

    meta: SnapshotMeta
    sink: SnapshotSink
    future: RaftFuture[None]


@dataclass(frozen=True, slots=True)
class RestoreEnded:
    """The snap thread could not write it."""

    future: RaftFuture[None]


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """A peer answered a request that was sent after somebody had asked for a round."""

    session: Session


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """A snapshot of our own is durable: the entries that it covers are not needed any more.

    ``finish`` tells those who asked for it, once that has been noted.
    """

    meta: SnapshotMeta
    finish: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """Somebody called reload_config(): these are the settings from now on."""

    config: Config


@dataclass(frozen=True, slots=True)
class CompactFurther:
    """There are more old entries to drop than one step takes."""


@dataclass(frozen=True, slots=True)
class CampaignRequested:
    """Somebody called campaign()."""

    future: RaftFuture[None]


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
