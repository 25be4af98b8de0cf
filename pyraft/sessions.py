"""What a leader's threads share: one leadership, and one session for each peer.

The leader ends a session *before* any change that another leader's entries make, and a
replicator looks at its session only *after* it has read what it is about to send.  So a
deposed leader's thread cannot send a mix of two logs under its old term.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from .config import Config
from .configuration import Server


class Leadership:
    """One leader's time in office, as its threads may see it.

    Written by the main thread, read by all; plain attributes, each replaced in one step.

    Attributes:
        term: that it was elected in; it never changes.
        alive: False once another role has begun.
        commit_index: the leader's.
        write_began_at: when the log write under way began, or None.  A disk that stalls
            must cause a failover, so nobody sends anything once it is too old.
        config: the server's settings; replaced whole when they are reloaded.
        sessions: of the present peers, for people who look; replaced whole.
        asked_at: when the oldest question was asked that waits for a majority's answers;
            infinite if there is none.
    """

    __slots__ = ("alive", "asked_at", "commit_index", "config", "sessions", "term", "write_began_at")

    def __init__(self, term: int, commit_index: int, config: Config) -> None:
        self.term = term
        self.config = config
        self.sessions: Mapping[str, Session] = {}
        self.alive = True
        self.commit_index = commit_index
        self.write_began_at: float | None = None
        self.asked_at = inf


class Session:
    """One membership spell of one peer under one leadership.  Facts of another are dropped.

    Attributes:
        match_index: highest index known to be durable at the peer.  Main thread only.
        contact: when the latest request was sent that the peer answered in our term.
            Written by the peer's two threads, read by the main thread for its lease.
        next_index: of the next entry to send; for people who look.
        state: "probe", "replicate" or "snapshot"; for people who look, as is
        in_flight: requests on the stream that the peer has not answered yet.
        holds: what the peer acknowledged last on this session; it goes down when it refuses.
            A peer that shows less has lost its log.
    """

    __slots__ = (
        "_alive",
        "contact",
        "holds",
        "in_flight",
        "leadership",
        "match_index",
        "next_index",
        "peer",
        "state",
    )

    def __init__(self, peer: Server, leadership: Leadership, now: float, next_index: int) -> None:
        self.peer = peer
        self.leadership = leadership
        self.match_index = 0
        self.next_index = next_index
        self.holds = 0
        self.state = "probe"
        self.in_flight = 0
        self.contact = now  # a new leader gets one lease to reach its peers
        self._alive = True

    @property
    def alive(self) -> bool:
        return self._alive and self.leadership.alive

    def end(self) -> None:
        """Nothing may be sent or counted for this session from now on."""
        self._alive = False

    def heard(self, sent_at: float) -> bool:
        """The peer answered, in our term, a request sent at ``sent_at``.

        Returns whether somebody waits for that.  Two threads may do this at once; the loser
        costs the lease one heartbeat, and a round one more, no more.
        """
        if sent_at > self.contact:
            self.contact = sent_at
        return sent_at > self.leadership.asked_at

    def may_send(self, now: float, patience: float) -> bool:
        """False once the session ended, or while the leader's disk has stalled for too long."""
        began = self.leadership.write_began_at
        return self.alive and (began is None or now - began < patience)
