"""One server at one moment, for people and programs that look after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from .configuration import Configuration, Suffrage
from .errors import NodeFailedError
from .state import RaftState


class PeerState(Enum):
    """How a leader replicates to a peer."""

    PROBE = "probe"
    """It asks where their logs agree; or the peer does not answer."""
    REPLICATE = "replicate"
    """Entries stream."""
    SNAPSHOT = "snapshot"
    """A snapshot is on its way."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One peer, as its leader sees it."""

    id: str
    address: str
    suffrage: Suffrage | None
    """None: it is no member (being caught up before it is added, or just removed)."""
    state: PeerState
    match: int
    """Highest index known to be durable there."""
    next: int
    """Index of the next entry to send."""
    last_contact: float
    """Seconds since the latest request was sent that it answered."""
    in_flight: int
    """Requests with entries that it has not answered yet."""


@dataclass(frozen=True, slots=True)
class Status:
    """What ``Raft.status()`` returns.  Each value is exact; together they may span a moment."""

    id: str
    address: str
    state: RaftState
    term: int
    leader_id: str | None
    leader_address: str | None
    last_contact: float | None
    """Seconds since a leader was heard; 0 on a leader; None if never."""
    first_index: int
    """Of the oldest entry in the log; 0 if it is empty."""
    last_index: int
    last_term: int
    commit_index: int
    applied_index: int
    snapshot_index: int
    """0: no snapshot yet."""
    snapshot_term: int
    configuration: Configuration
    configuration_index: int
    proposals_waiting: int
    """Commands accepted by apply() and not yet in the log; at most Config.max_proposals."""
    proposals_waiting_bytes: int
    uncommitted_entries: int
    """Entries of a leader that are not committed; at most Config.max_uncommitted_entries."""
    unapplied_entries: int
    """Committed entries that the FSM has not applied yet."""
    peers: Mapping[str, PeerStatus]
    """By id; empty unless it leads."""
    failure: NodeFailedError | None
    """Why it stopped by itself."""
