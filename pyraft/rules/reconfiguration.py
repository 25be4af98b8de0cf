"""What a change of membership makes of a configuration.  Pure.

One server at a time: any majority of the old configuration then shares a server with any
majority of the new one, so no two leaders can be elected side by side.

Source: dissertation §4.1, §4.3 (single-server changes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..configuration import Configuration, Server, Suffrage, check_configuration
from ..errors import ConfigError


class Change(Enum):
    """The kinds of change; the values are the names of the calls."""

    ADD_VOTER = "add_voter"
    ADD_NONVOTER = "add_nonvoter"
    DEMOTE_VOTER = "demote_voter"
    REMOVE_SERVER = "remove_server"


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """One change.  ``prev_index`` ≠ 0: only if the configuration in force has that log index."""

    kind: Change
    id: str
    address: str = ""
    prev_index: int = 0

    def __str__(self) -> str:
        where = f", {self.address!r}" if self.address else ""
        return f"{self.kind.value}({self.id!r}{where})"


def next_configuration(current: Configuration, index: int, change: MembershipChange) -> Configuration:
    """The configuration after ``change``.

    Args:
        current: the one in force.
        index: its log index.

    Raises:
        ConfigError: the change is illegal; the text says why.
    """
    if change.prev_index and change.prev_index != index:
        raise ConfigError(
            f"{change}: configuration changed since {change.prev_index} (latest is {index}): read it with "
            f"get_configuration(), decide anew, and pass its index"
        )
    servers = _changed(current, change)
    try:
        after = Configuration(servers)
        check_configuration(after)
    except ConfigError as error:
        raise ConfigError(f"{change} would make a cluster that cannot work: {error}") from None
    return after


def _changed(current: Configuration, change: MembershipChange) -> tuple[Server, ...]:
    known = current.find(change.id)
    if change.kind is Change.ADD_VOTER:
        return _with(current, Server(change.id, change.address))
    if change.kind is Change.ADD_NONVOTER:
        # A voter keeps its vote: this call then only moves it to another address.
        suffrage = known.suffrage if known is not None else Suffrage.NONVOTER
        return _with(current, Server(change.id, change.address, suffrage))
    if known is None:
        members = ", ".join(server.id for server in current.servers)
        raise ConfigError(f"{change}: there is no server {change.id!r}; the members are {members}")
    if change.kind is Change.DEMOTE_VOTER:
        return _with(current, replace(known, suffrage=Suffrage.NONVOTER))
    return tuple(server for server in current.servers if server.id != change.id)


def _with(current: Configuration, changed: Server) -> tuple[Server, ...]:
    """The members with ``changed`` in the place of its namesake, or at the end."""
    if current.find(changed.id) is None:
        return (*current.servers, changed)
    return tuple(changed if server.id == changed.id else server for server in current.servers)
