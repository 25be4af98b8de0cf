"""The RPCs of Raft as values.  Transports turn them into bytes and back.

Field names follow hashicorp/raft.  Every request and answer carries the sender's id
and address (``RpcHeader``); protocol version 3 is the only one pyraft speaks, versions
2 and 3 the ones it accepts.

Source: Raft paper, Figures 2 and 13; dissertation §9.6 (pre-vote), §3.10 (TimeoutNow).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .configuration import Configuration
from .log import Log

PROTOCOL_VERSION = 3
OLDEST_ACCEPTED_PROTOCOL_VERSION = 2


@dataclass(frozen=True, slots=True)
class RpcHeader:
    """Who sends: ``id`` for life, ``addr`` as the configuration has it."""

    id: str = ""
    addr: str = ""
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AppendEntriesRequest:
    """Entries after (prev_log_entry, prev_log_term), or a heartbeat (see ``is_heartbeat``)."""

    header: RpcHeader
    term: int
    prev_log_entry: int = 0
    prev_log_term: int = 0
    entries: Sequence[Log] = ()
    leader_commit_index: int = 0

    @property
    def is_heartbeat(self) -> bool:
        """True for Go's form of a heartbeat: it proves leadership and carries nothing else."""
        return (
            not self.entries
            and self.prev_log_entry == 0
            and self.prev_log_term == 0
            and self.leader_commit_index == 0
            and self.term != 0
        )


@dataclass(frozen=True, slots=True)
class AppendEntriesResponse:
    """``last_log`` hints where to retry; ``no_retry_backoff``: retry at once, the logs differ.

    ``hint_index`` and ``hint_term``, which only pyraft sends: the logs agree at most up to
    there (rules.replication.agreement_bound); 0 = no hint.  Ahead of what was asked for, it is where
    the peer's snapshot ends, before which the peer has nothing to compare with.
    """

    header: RpcHeader
    term: int
    last_log: int = 0
    success: bool = False
    no_retry_backoff: bool = False
    hint_index: int = 0
    hint_term: int = 0


@dataclass(frozen=True, slots=True)
class RequestVoteRequest:
    header: RpcHeader
    term: int
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False


@dataclass(frozen=True, slots=True)
class RequestVoteResponse:
    header: RpcHeader
    term: int
    granted: bool = False


@dataclass(frozen=True, slots=True)
class RequestPreVoteRequest:
    """Would you vote for me in ``term``?  Nobody's term changes by the asking."""

    header: RpcHeader
    term: int
    last_log_index: int
    last_log_term: int


@dataclass(frozen=True, slots=True)
class RequestPreVoteResponse:
    header: RpcHeader
    term: int
    granted: bool = False


@dataclass(frozen=True, slots=True)
class TimeoutNowRequest:
    """Stand for election at once.  ``term``: the sender's, 0 = it does not say (a Go server)."""

    header: RpcHeader
    term: int = 0


@dataclass(frozen=True, slots=True)
class TimeoutNowResponse:
    header: RpcHeader


@dataclass(frozen=True, slots=True)
class StandingRequest:
    """What have you got?  Asked by a server with an empty directory before it may vote.

    A call of pyraft's own service; Go servers do not know it.
    """

    header: RpcHeader = field(default_factory=RpcHeader)


@dataclass(frozen=True, slots=True)
class StandingResponse:
    """The term, the last log index and the latest configuration that the answering server has on disk."""

    header: RpcHeader
    term: int
    last_log: int
    configuration: Configuration = Configuration()


@dataclass(frozen=True, slots=True)
class ReadIndexRequest:
    """Up to where must a server have applied before it may answer a read that begins now?

    Asked of the leader.  A call of pyraft's own service; Go servers do not know it.
    """

    header: RpcHeader


@dataclass(frozen=True, slots=True)
class ReadIndexResponse:
    """``index`` was committed when the leader of ``term`` proved that it still led."""

    header: RpcHeader
    term: int
    index: int


@dataclass(frozen=True, slots=True)
class InstallSnapshotRequest:
    """What the stream of ``size`` bytes that follows holds: everything up to (last_log_index, last_log_term).

    The cluster's members were ``configuration``, of the entry ``configuration_index``.
    """

    header: RpcHeader
    term: int
    last_log_index: int
    last_log_term: int
    configuration: Configuration
    configuration_index: int
    size: int
    snapshot_version: int = 1


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """The next bytes of the snapshot on the same stream."""

    data: bytes


@dataclass(frozen=True, slots=True)
class InstallSnapshotResponse:
    """``success``: the snapshot is stored, or was not needed."""

    header: RpcHeader
    term: int
    success: bool = False


Request = (
    AppendEntriesRequest
    | RequestVoteRequest
    | RequestPreVoteRequest
    | TimeoutNowRequest
    | StandingRequest
    | ReadIndexRequest
)
"""The requests of one message.  InstallSnapshot is a stream, and not among them."""
Response = (
    AppendEntriesResponse
    | RequestVoteResponse
    | RequestPreVoteResponse
    | TimeoutNowResponse
    | StandingResponse
    | ReadIndexResponse
)
AnyRequest = Request | InstallSnapshotRequest
AnyResponse = Response | InstallSnapshotResponse
