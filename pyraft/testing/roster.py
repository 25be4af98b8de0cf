"""Who counts on which server, by what is committed and by what is in anybody's log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..configuration import Configuration
from ..state import RaftState

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .member_watch import MemberWatch
    from .seen import Seen


class Roster:
    """Answers questions about members; it judges nothing."""

    def __init__(
        self, cluster: SimCluster, seen: Mapping[str, Seen], watch: Callable[[], MemberWatch]
    ) -> None:
        """``watch`` knows the committed configuration, ``seen`` what is on each server's disk."""
        self._cluster = cluster
        self._seen = seen
        self._watch = watch

    @property
    def members(self) -> Configuration:
        """The latest committed configuration; the bootstrap's before any is committed."""
        return self._watch().members

    def member_servers(self) -> list[SimServer]:
        """The servers of the latest committed configuration."""
        return [server for server in self._cluster.servers.values() if self.members.find(server.id)]

    def is_counted_on(self, id: str) -> bool:
        """Whether the server is a member by the committed configuration, or by one in anybody's log."""
        logs = [self._seen[other].disk for other in self._seen]
        return self.members.find(id) is not None or any(log.members.find(id) is not None for log in logs)

    def sought_at(self, id: str, address: str) -> str:
        """Where the others look for a server that is at ``address``.

        If they disagree, what counts is where the one looks who can win whatever the others do:
        of those who have a vote by their own log the one whose log is the latest.
        """
        logs = {other: seen.disk for other, seen in self._seen.items() if seen.ballot.newborn is None}
        voters = [log for other, log in logs.items() if log.members.is_voter(other)]
        winner = max(voters, key=lambda log: (log.logs[-1].term, len(log.logs)), default=None)
        configurations = [] if winner is None else [winner.members]
        configurations.append(self.members)
        configurations += [log.members for log in logs.values() if log.members_index > self._watch().index]
        found = [configuration.find(id) for configuration in configurations]
        return next((server.address for server in found if server is not None), address)

    def is_forgotten(self, id: str) -> bool:
        """Whether everybody who may yet stand for election knows that the server is no member, and nobody is adding it.

        Only then may its disk be replaced: a server that lags would take the votes of the empty
        disks of all that were removed meanwhile, and a majority of its old configuration knows nothing.
        And a leader that brings it up to date, to add it, counts it for what it has acknowledged.
        """
        if self.members.find(id) is not None:
            return False
        if any(id in server.sessions for server in self._cluster.servers.values()):
            return False
        logs = {other: self._seen[other].disk for other in self._seen if other != id}
        return not any(
            self._may_stand(other)
            and (log.members_index < self._watch().index or log.members.find(id) is not None)
            for other, log in logs.items()
        )

    def _may_stand(self, id: str) -> bool:
        """By its own log; one that gave its vote back stands until it knows that to be committed (§4.2.2)."""
        seen = self._seen[id]
        return seen.disk.members.is_voter(id) or seen.disk.members_index > seen.commit

    def has_left(self, server: SimServer) -> bool:
        """Whether the server was removed and has shut down, without a failure."""
        raft = server.raft
        if raft is None or not server.is_up or raft.state is not RaftState.SHUTDOWN:
            return False
        return raft.failure is None and not self.is_counted_on(server.id)
