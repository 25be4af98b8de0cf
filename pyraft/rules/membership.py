"""Which configuration is in force, and how a server without a past joins.  Pure.

Source: dissertation §4.1 (a configuration is used as soon as it is in the log).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..configuration import Configuration
from .election import START_OF_LOG, Ballot, LogPosition, Newborn


@dataclass(frozen=True, slots=True)
class Configurations:
    """The latest configuration in the log, and the latest one known to be committed."""

    latest: Configuration = Configuration()
    latest_index: int = 0
    committed: Configuration = Configuration()
    committed_index: int = 0

    def with_appended(self, configuration: Configuration, index: int) -> Configurations:
        """After a configuration entry was appended at ``index``: in force at once.

        The one before it is committed then: a leader appends no second one earlier (§4.1).
        """
        return Configurations(configuration, index, self.latest, self.latest_index)

    def with_commit(self, commit_index: int) -> Configurations:
        """After everything up to ``commit_index`` was committed."""
        if self.committed_index < self.latest_index <= commit_index:
            return Configurations(self.latest, self.latest_index, self.latest, self.latest_index)
        return self

    @classmethod
    def of_snapshot(cls, configuration: Configuration, index: int) -> Configurations:
        """What a snapshot says: its configuration is committed."""
        return cls(configuration, index, configuration, index)

    def with_snapshot(self, configuration: Configuration, index: int) -> Configurations:
        """After a snapshot took the place of the log's beginning; entries behind it stay."""
        if self.latest_index <= index:
            return Configurations.of_snapshot(configuration, index)
        if self.committed_index <= index:
            return Configurations(self.latest, self.latest_index, configuration, index)
        return self

    def with_truncation(self, first_dropped: int) -> Configurations:
        """After the entries from ``first_dropped`` on were dropped: roll back (§4.1)."""
        if self.latest_index >= first_dropped:
            return Configurations(self.committed, self.committed_index, self.committed, self.committed_index)
        return self


@dataclass(frozen=True, slots=True)
class Standing:
    """What a peer has on disk, as it said itself.

    ``last_log`` is None for a peer that cannot say it (a Go server); its term it can.
    """

    term: int
    last_log: int | None
    configuration: Configuration = Configuration()
    """The latest in its log; empty if it cannot say."""


UNKNOWN_TARGET = 2**62
"""The target of a newborn that does not know how long the others' logs are."""


def voters_to_hear(own_id: str, listed: Configuration, heard: Collection[Standing]) -> dict[str, set[str]]:
    """Which servers one with an empty disk must hear before it acts, and where: *all* other voters.

    Hearing one member of each majority is not enough.  A promise made in a former life (a
    vote, an acknowledgement) may be part of a majority that becomes complete only later, and
    then only the server that the promise was made to knows of it: a candidate that still
    waits for one more vote, a leader that still counts a copy that is gone.  So that server
    must be among those heard, and it can be any voter: of the list that this server was
    started with, and of every configuration that those heard so far have in their logs.

    Returns addresses by id.
    """
    where: dict[str, set[str]] = {}
    for configuration in (listed, *(standing.configuration for standing in heard)):
        for voter in configuration.voters:
            if voter.id != own_id:
                where.setdefault(voter.id, set()).add(voter.address)
    return where


def ballot_on_arrival(own: Ballot, own_id: str, heard: Mapping[str, Standing]) -> tuple[Ballot, bool]:
    """Decide how a server with an empty disk begins: (ballot to save, whether to bootstrap).

    The disk may have been wiped.  Whoever a promise was made to in a former life is among
    those heard, and had the term and the entries before it asked for the promise: so no
    promise was made in a term above the highest one heard, and no entry was acknowledged
    above the highest index heard.

    * If somebody is past the bootstrap entry (index 1), the cluster exists: the server begins
      as a newborn, which accepts entries but neither votes nor stands.
    * Otherwise it bootstraps, with its vote of the highest term spent, because it may have
      given that vote before.
    """
    term = max([own.term, 1, *(s.term for s in heard.values())])
    last = max([0, *(_last_log(s) for s in heard.values())])
    if last > 1:
        # Its vote of that term counts as spent too: once grown up it could give it twice.
        return Ballot(term, own_id, Newborn(term, last)), False
    return Ballot(term, own_id), True


def _last_log(standing: Standing) -> int:
    if standing.last_log is not None:
        return standing.last_log
    return UNKNOWN_TARGET if standing.term > 1 else 0  # beyond term 1 there were elections


def ballot_on_refusal(
    ballot: Ballot, is_empty: bool, leader_term: int, leader_commit: int, prev: LogPosition
) -> Ballot:
    """The ballot of a server that lacks the entry before those that a leader has for it.

    Args:
        is_empty: its log is, and it knows no members: it has just come, perhaps not for the first time.
        leader_term, leader_commit, prev: of the request.

    An empty server may have been a member before, under the same id, and was removed then.  As
    its log grows it comes by the configurations of that time, in which it is a voter, perhaps the
    only one, and could elect itself, or somebody else, without entries that it once acknowledged.
    A leader brings it up to date only after the removal is committed, so that is at most at
    ``leader_commit``, or before the first entry of ``leader_term`` if the leader did not know of it
    yet: the server is a newborn until it holds both.  It is also at most at ``prev``, where the
    leader's log ended when it turned to this server; whoever has a log that reaches there may lead
    (§5.4.1), even if that leader is lost with all that it had begun.
    """
    newborn = ballot.newborn or Newborn(0, 0, START_OF_LOG if is_empty else None)
    begins = not leader_commit and prev.index <= 1  # the bootstrap entry is all there is
    if newborn.votes_for is None or begins:
        return ballot
    reach = max(newborn.votes_for, min(prev, LogPosition(leader_term, leader_commit)))
    term, target = max(newborn.term, leader_term), max(newborn.target, leader_commit)
    return replace(ballot, newborn=Newborn(term, target, reach))


def is_grown_up(newborn: Newborn, commit_index: int, commit_term: int) -> bool:
    """Tell whether a newborn holds everything it may have acknowledged in a former life.

    Args:
        commit_index: what a leader has proved to be committed, and is durable here.
        commit_term: the term of the entry at ``commit_index``.

    Either an entry of a term that began after it came is committed here: that term's leader
    was elected without this server's vote (or, if it has joined, with it, because it held all
    that) and therefore holds every entry committed before (§5.4.3), and so does this log up to
    that entry (§5.3, log matching).  Or one of the term in which it came is, and the commit index
    passed every index it had heard of: that term's leader may count what was acknowledged to it
    in the former life, beyond entries of older terms whose end the others may have at the same
    index.  Such an entry always comes: no leader of an older term is listened to.
    """
    if commit_term == newborn.term:
        return commit_index >= newborn.target
    return commit_term > newborn.term
