"""Who is a member, as the committed configurations say, and whether each change of them may be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..configuration import Configuration, Server, Suffrage, decode_configuration
from ..errors import CorruptStoreError
from ..log import Log, LogType
from ..state import RaftState

if TYPE_CHECKING:
    from .seen import Seen


class MemberWatch:
    """Knows the latest committed configuration.

    Attributes:
        members: that configuration.
        index: of its entry, 0 before the bootstrap's is committed.
    """

    def __init__(
        self, members: Configuration, broken: Callable[[str, str], None], reached: Callable[[str], None]
    ) -> None:
        """``members``: the bootstrap's; ``broken`` is told of every promise that does not hold."""
        self.members = members
        self.index = 0
        self._broken = broken
        self._reached = reached
        self._gone: dict[str, None] = {}  # who was removed, and is no member now

    def stored(self, server: str, seen: Seen, log: Log, committed: list[Log]) -> list[Server]:
        """I10: ``log`` is a configuration, about to be durable at ``server``; return the voters that it adds.

        The one before it is committed; a leader proposes one only after it has committed an entry
        of its own term; it differs from the one before by at most one voter (§4.1).
        """
        for index in range(len(seen.logs) - 1, len(committed) - 1, -1):
            if seen.logs[index].type is LogType.CONFIGURATION:
                self._broken("I10", f"{server} stores configuration {log.index} before {index} is committed")
        if seen.role is RaftState.LEADER and seen.logs[seen.commit].term != seen.led_in:
            self._broken(
                "I10",
                f"{server} proposes configuration {log.index} in term {seen.led_in}, and has committed no entry of it",
            )
        try:
            after = decode_configuration(log.data)
        except CorruptStoreError:
            return []  # the server is to complain about that
        before = seen.disk.members
        joined = [voter for voter in after.voters if not before.is_voter(voter.id)]
        left = [voter for voter in before.voters if not after.is_voter(voter.id)]
        if before.servers and len(joined) + len(left) > 1:
            changed = ", ".join(voter.id for voter in (*joined, *left))
            self._broken("I10", f"{server} stores configuration {log.index}, which changes {changed} at once")
        return joined

    def stands(self, server: str, seen: Seen, configuration: Configuration) -> None:
        """I10: a server that begins to stand for election, or to lead, goes by the latest in its log."""
        if configuration != seen.disk.members:
            self._broken(
                "I10",
                f"{server} goes by {configuration}, and its log says {seen.disk.members} since "
                f"entry {seen.disk.members_index}",
            )

    def dropped(self, logs: list[Log]) -> None:
        """A server drops ``logs``, which are not committed."""
        if any(log.type is LogType.CONFIGURATION for log in logs):
            self._reached("configuration rolled back")

    def recovered(self, configuration: Configuration, index: int) -> None:
        """An operator puts ``configuration`` in force behind the entry at ``index``."""
        self.members, self.index = configuration, index

    def committed(self, leader: str, log: Log) -> None:
        """A leader has committed ``log``."""
        if log.type is not LogType.CONFIGURATION:
            return
        try:
            after = decode_configuration(log.data)
        except CorruptStoreError:
            return
        before, is_first = self.members, not self.index
        self.members, self.index = after, log.index
        if not is_first:
            self._reached("configuration changed")
            self._tell(leader, before, after)

    def _tell(self, leader: str, before: Configuration, after: Configuration) -> None:
        """Count what kind of change it was."""
        for server in before.servers:
            now = after.find(server.id)
            if now is None:
                self._gone[server.id] = None
                self._reached("leader removed itself" if server.id == leader else "server removed")
            elif now.address != server.address:
                self._reached("address changed")
            elif server.suffrage is Suffrage.VOTER and now.suffrage is not Suffrage.VOTER:
                self._reached("leader demoted itself" if server.id == leader else "voter demoted")
            elif now.suffrage is Suffrage.VOTER and server.suffrage is not Suffrage.VOTER:
                self._reached("nonvoter promoted")
        for server in after.servers:
            if before.find(server.id) is None:
                self._reached("server added")
                if server.id in self._gone:
                    del self._gone[server.id]
                    self._reached("removed server added again")
        voters = len(after.voters)
        self._reached("even number of voters" if voters % 2 == 0 else "odd number of voters")
        if voters == 1:
            self._reached("one voter left")
