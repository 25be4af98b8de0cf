"""Who may vote for whom, and what must be on disk before the answer leaves.

Every function here is pure: values in, a decision out; no clock, no disk, no lock.  The
caller (rpc_handlers.py) persists what the decision says and only then replies.  That
order is what makes "one vote per term" survive a crash.

Source: Raft paper, Figure 2, §5.2 and §5.4.1; dissertation §9.6 (pre-vote), §4.2.3
(servers that hear from a leader do not vote).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..configuration import Configuration


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """Where a log ends.  Compares as §5.4.1 does: the later term, then the longer log."""

    term: int
    index: int


START_OF_LOG = LogPosition(0, 0)

LAST_TERM = 2**62
"""No cluster gets there; a higher one is damage, and adopting it would end all elections."""


@dataclass(frozen=True, slots=True)
class Newborn:
    """What a server without a past has to hold before it may stand (see rules/membership.py)."""

    term: int
    """The highest term that it heard of when it came."""
    target: int
    """The highest log index that it heard of when it came."""
    votes_for: LogPosition | None = None
    """It came without a list of members, to be added: it votes for candidates whose logs reach as far.

    It may be a voter already, and nobody could lead without it.  None: its disk may have been wiped.
    """

    @property
    def has_joined(self) -> bool:
        return self.votes_for is not None

    def may_vote_for(self, candidate_last: LogPosition) -> bool:
        """Whether it may vote for a candidate whose log ends there."""
        return self.votes_for is not None and candidate_last >= self.votes_for


@dataclass(frozen=True, slots=True)
class Ballot:
    """A server's standing promise: the latest term it has seen and its vote in it.

    Memory never runs ahead of disk: it is saved first.  A server that forgets a vote in a
    crash can elect two leaders for one term.
    """

    term: int = 0
    voted_for: str | None = None
    newborn: Newborn | None = None

    def at_term(self, term: int) -> Ballot:
        """The ballot after seeing ``term``: a new term is a new, unspent vote."""
        return self if term <= self.term else Ballot(term, None, self.newborn)

    def voting_for(self, candidate: str) -> Ballot:
        return Ballot(self.term, candidate, self.newborn)


def has_promised(ballot: Ballot) -> bool:
    """Whether a server with this ballot may have promised anything to anybody.

    Term 1 without a vote is what a bootstrap writes before its first entry.
    """
    return ballot.term > 1 or ballot.voted_for is not None or ballot.newborn is not None


def may_be_heard(
    configuration: Configuration, current_leader: str | None, candidate: str, is_transfer: bool
) -> bool:
    """Tell whether a candidate's request counts at all; if not, not even its term is adopted.

    Args:
        configuration: the latest one in the log; empty before this server knows any.
        current_leader: who was heard from within the heartbeat timeout, or None.
        candidate: the id of who asks.
        is_transfer: the leader itself told the candidate to stand.

    Source: dissertation §4.2.3: servers that were removed or cut off must not disturb.
    """
    if configuration.servers and configuration.find(candidate) is None:
        return False
    return is_transfer or current_leader is None or current_leader == candidate


def is_stray_leader(current_leader: str | None, sender: str) -> bool:
    """Tell whether what a leader that is no member sends is not for us: not even its term is adopted.

    It is if another leader is heard: two clusters were given one address.  Without that leader the
    sender may well lead us by entries that we have not got yet, so it is believed; nobody hears a
    deposed leader for longer than an election takes.

    Args:
        current_leader: as for may_be_heard().
        sender: its id.
    """
    return current_leader is not None and current_leader != sender


def is_member(configuration: Configuration, sender: str, address: str) -> bool:
    """Tell whether a server belongs to ``configuration``, or may do so: one without a name, or if there is none."""
    members = configuration.servers
    return not members or not sender or any(sender == one.id or address == one.address for one in members)


def decide_vote(
    ballot: Ballot,
    last: LogPosition,
    configuration: Configuration,
    candidate: str,
    candidate_term: int,
    candidate_last: LogPosition,
) -> Ballot:
    """Return the ballot to persist before answering a RequestVote.

    The vote is granted when the returned ballot names the candidate in its term, so a retry
    of a request whose answer was lost gets the same answer.

    Args:
        ballot: our ballot, as it is on disk.
        last: where our log ends.
        configuration: the latest one in our log.

    Source: Figure 2, RequestVote RPC, receiver steps 1 and 2.
    """
    if candidate_term < ballot.term:
        return ballot
    ballot = ballot.at_term(candidate_term)
    if configuration.servers and not configuration.is_voter(candidate):
        return ballot  # its term counts all the same, or it could never come back (§4.2.3)
    if ballot.newborn is not None and not ballot.newborn.may_vote_for(candidate_last):
        return ballot  # what this server promised in its former life is not known to it
    if last > candidate_last:
        return ballot
    if ballot.voted_for is None:
        return ballot.voting_for(candidate)
    return ballot


def grants(ballot: Ballot, candidate: str, candidate_term: int) -> bool:
    """Tell whether ``ballot`` holds a vote for ``candidate`` in ``candidate_term``."""
    return ballot.term == candidate_term and ballot.voted_for == candidate


def would_vote(
    ballot: Ballot,
    last: LogPosition,
    configuration: Configuration,
    candidate: str,
    candidate_term: int,
    candidate_last: LogPosition,
) -> bool:
    """Answer a pre-vote: would we vote for ``candidate`` in that term?  Nothing changes.

    Source: dissertation §9.6.
    """
    if candidate_term < ballot.term:
        return False
    if ballot.newborn is not None and not ballot.newborn.may_vote_for(candidate_last):
        return False
    if configuration.servers and not configuration.is_voter(candidate):
        return False
    return last <= candidate_last


def majority(voters: int) -> int:
    """Smallest number of servers such that any two such groups share one."""
    return voters // 2 + 1


def is_elected(configuration: Configuration, votes: Collection[str]) -> bool:
    """Tell whether ``votes`` (a set of server ids) is a majority of the voters."""
    voters = configuration.voters
    granted = sum(1 for voter in voters if voter.id in votes)
    return bool(voters) and granted >= majority(len(voters))
