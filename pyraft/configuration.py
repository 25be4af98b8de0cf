"""Who is in the cluster, and the bytes a configuration is stored and sent as.

The encoding is hashicorp/raft's: a msgpack map in the old dialect (one kind of raw
for text and bytes), keys in alphabetical order.  Decoding takes what Go takes: any
key order, unknown keys, newer string kinds, structs as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .errors import ConfigError, CorruptStoreError

_LONGEST_ENCODED = 1024 * 1024
"""Ten thousand servers."""


class Suffrage(IntEnum):
    """A server's part in elections and commitment.  The numbers are stored: never renumber."""

    VOTER = 0
    NONVOTER = 1
    """Receives entries; its vote and its copies do not count."""
    STAGING = 2
    """As NONVOTER; reserved by the format."""


@dataclass(frozen=True, slots=True)
class Server:
    """One member: ``id`` for life, ``address`` where to reach it now."""

    id: str
    address: str
    suffrage: Suffrage = Suffrage.VOTER


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members of a cluster, in a fixed order."""

    servers: tuple[Server, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "servers", tuple(self.servers))

    def find(self, server_id: str) -> Server | None:
        """The member with that id, or None."""
        for server in self.servers:
            if server.id == server_id:
                return server
        return None

    def is_voter(self, server_id: str) -> bool:
        server = self.find(server_id)
        return server is not None and server.suffrage is Suffrage.VOTER

    @property
    def voters(self) -> tuple[Server, ...]:
        return tuple(s for s in self.servers if s.suffrage is Suffrage.VOTER)

    @classmethod
    def of_voters(cls, addresses: Mapping[str, str]) -> Configuration:
        """A configuration in which every id of ``addresses`` votes."""
        return cls(tuple(Server(id, address) for id, address in addresses.items()))


def check_configuration(configuration: Configuration) -> None:
    """Refuse a configuration that no cluster can work with.

    Raises:
        ConfigError: an empty or doubled id or address, or no voter.
    """
    ids: set[str] = set()
    addresses: dict[str, str] = {}
    for server in configuration.servers:
        if not {type(server.id), type(server.address)} <= {str}:
            raise ConfigError(
                f"id {server.id!r} and address {server.address!r} must be text: write an address like 'host:port'"
            )
        if not server.id:
            raise ConfigError(
                f"a server at {server.address!r} has an empty id: give every server a name it keeps for life"
            )
        if not server.address:
            raise ConfigError(f"server {server.id} has an empty address: others could not reach it")
        if server.id in ids:
            raise ConfigError(
                f"id {server.id} stands twice in the configuration: ids name one server each, for life"
            )
        if server.address in addresses:
            raise ConfigError(
                f"servers {addresses[server.address]} and {server.id} have the same address {server.address}: "
                f"one of them would receive the other's messages"
            )
        ids.add(server.id)
        addresses[server.address] = server.id
    if not configuration.voters:
        raise ConfigError(
            "the configuration has no voter, so nobody could ever lead: need at least one voter"
        )


def encode_configuration(configuration: Configuration) -> bytes:
    """Go's bytes for ``configuration``."""
    import msgpack  # here, so that `import pyraft` stays light

    packed: bytes = msgpack.packb(
        {
            "Servers": [
                {"Address": s.address.encode(), "ID": s.id.encode(), "Suffrage": int(s.suffrage)}
                for s in configuration.servers
            ]
        },
        use_bin_type=False,
    )
    return packed


def decode_configuration(data: bytes) -> Configuration:
    """The configuration that ``data`` holds.

    Raises:
        CorruptStoreError: the bytes are no configuration.
    """
    import msgpack

    _check_length(data)
    try:
        outer: Any = msgpack.unpackb(data, raw=True, strict_map_key=False)
        servers = outer[0] if isinstance(outer, list) else outer.get(b"Servers")
        return Configuration(tuple(_server(fields) for fields in servers or ()))
    except (ValueError, TypeError, AttributeError, LookupError, msgpack.UnpackException) as error:
        raise CorruptStoreError(f"configuration entry cannot be read: {error!r}") from error


def encode_peers(configuration: Configuration) -> bytes:
    """Go's bytes for the voters' addresses: what snapshots had before there were configurations."""
    import msgpack

    packed: bytes = msgpack.packb([s.address.encode() for s in configuration.voters], use_bin_type=False)
    return packed


def decode_peers(data: bytes) -> Configuration:
    """A configuration in which every address of ``data`` votes, and is its server's id too.

    Raises:
        CorruptStoreError: the bytes are no list of addresses.
    """
    import msgpack

    _check_length(data)
    try:
        raws: Any = msgpack.unpackb(data, raw=True)
        if not isinstance(raws, list):
            raise TypeError(f"a list expected and not {raws!r}")
        addresses = [_text(raw) for raw in raws]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptStoreError(f"list of peers cannot be read: {error!r}") from error
    return Configuration(tuple(Server(address, address) for address in addresses))


def _check_length(data: bytes) -> None:
    # Lists of nothing take a hundred times as much memory as bytes, and these come from other servers.
    if len(data) > _LONGEST_ENCODED:
        raise CorruptStoreError(f"a configuration of {len(data)} bytes cannot be")


def _server(fields: Any) -> Server:
    if isinstance(fields, list):  # Go's order of declaration
        suffrage, id_, address = fields[0], fields[1], fields[2]
    else:
        suffrage, id_, address = fields.get(b"Suffrage", 0), fields.get(b"ID"), fields.get(b"Address")
    return Server(_text(id_), _text(address), Suffrage(suffrage))


def _text(raw: Any) -> str:
    if raw is None:
        return ""
    if not isinstance(raw, bytes):  # bytes(n) of a number would be n zeros
        raise TypeError(f"text expected and not {raw!r}")
    return raw.decode()
