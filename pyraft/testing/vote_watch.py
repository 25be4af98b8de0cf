"""Watches terms, votes and pre-votes: who may enter a term, and whom a server may vote for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..messages import RequestPreVoteRequest, RequestVoteRequest
from ..rules.election import Ballot

if TYPE_CHECKING:
    from ..log import Log
    from .seen import Seen


class VoteWatch:
    """Knows which terms have begun."""

    def __init__(self, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._broken = broken
        self._begun = {0: "", 1: ""}  # term -> who voted for itself first; term 1 is the bootstrap's

    def recovering(self, server: str, ballot: Ballot) -> None:
        """An operator gives the one that is left a term of its own, before it stands for election there."""
        self._begun.setdefault(ballot.term, server)

    def saved(self, server: str, seen: Seen, ballot: Ballot, committed: list[Log]) -> None:
        """``ballot`` is about to replace ``seen.ballot`` on the server's disk.

        I7: a term begins with its candidate's vote for itself, which is durable before anybody
        else hears of the term (a pre-vote changes nothing); a newborn that was wiped votes for nobody,
        and it grows up once it holds what it may have acknowledged.
        """
        before = seen.ballot
        if ballot.voted_for == server:
            self._begun.setdefault(ballot.term, server)
        elif ballot.term not in self._begun:
            self._broken("I7", f"{server} enters term {ballot.term}, in which nobody stands")
        is_wiped = ballot.newborn is not None and not ballot.newborn.has_joined
        if is_wiped and ballot.voted_for not in (None, server):
            self._broken("I7", f"{server} has lost its past and votes for {ballot.voted_for}")
        if before.newborn is not None and ballot.newborn is None:
            self._grown_up(server, seen, committed)

    def _grown_up(self, server: str, seen: Seen, committed: list[Log]) -> None:
        last = min(len(seen.former.logs), len(committed)) - 1
        while last > 0 and seen.former.logs[last].term != committed[last].term:
            last -= 1
        if last > 0 and (last >= len(seen.logs) or seen.logs[last].term != committed[last].term):
            self._broken(
                "I7", f"{server} votes again, and lacks entry {last}, which it held before its disk was lost"
            )

    def stands(self, server: str, seen: Seen) -> None:
        """I7: one that got an empty disk does not stand by configurations of its former life."""
        if len(seen.logs) <= seen.came_at:
            self._broken(
                "I7",
                f"{server} stands with {len(seen.logs) - 1} entries, and {seen.came_at} were committed when it came",
            )

    def granted(
        self,
        server: str,
        seen: Seen,
        request: RequestVoteRequest | RequestPreVoteRequest,
        is_over: bool,
    ) -> None:
        """I8: the server grants its vote, or says that it would.

        A newborn that was wiped never does; one that has joined, if the candidate's log holds what was
        committed when it came.
        ``is_over``: the candidate has won already, so the voter's log may have grown since it voted.
        """
        candidate, newborn = request.header.id, seen.ballot.newborn
        if newborn is not None and not newborn.has_joined:
            self._broken("I8", f"{server} has lost its past and grants {candidate} term {request.term}")
        elif newborn is not None and request.last_log_index < seen.came_at:
            self._broken(
                "I8",
                f"{server} grants {candidate} term {request.term}, whose log ends with {request.last_log_index}, and "
                f"{seen.came_at} entries were committed when it came",
            )
        own = (seen.logs[-1].term, len(seen.logs) - 1)
        if not is_over and (request.last_log_term, request.last_log_index) < own:
            self._broken(
                "I8",
                f"{server} grants {candidate} term {request.term}; its own log ends with {own}, the candidate's "
                f"with {(request.last_log_term, request.last_log_index)} (term, index)",
            )
