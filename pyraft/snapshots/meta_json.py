"""A snapshot's meta.json, byte for byte as Go's encoding/json writes hashicorp/raft's fileSnapshotMeta.

One line, keys in the order of declaration, byte strings as base64.  Peers is there for readers
of 2016: the voters' addresses as a msgpack array.  Version 0 has nothing else to say who is in
the cluster.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from ..configuration import Configuration, Server, Suffrage
from .base import SnapshotMeta

LARGEST_META_BYTES = 64 << 20
"""Of a cluster of a million servers; whatever is larger is no meta.json."""

_LARGEST_UINT64 = (1 << 64) - 1
_LARGEST_INT64 = (1 << 63) - 1

# What Go escapes in a string and Python does not: the first three because of HTML, the last two
# because of JavaScript.
_GO_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def encode_meta(meta: SnapshotMeta, crc: int) -> bytes:
    """meta.json for ``meta`` and the CRC-64 of its state."""
    servers = [
        {"Suffrage": int(server.suffrage), "ID": server.id, "Address": server.address}
        for server in meta.configuration.servers
    ]
    fields = {
        "Version": meta.version,
        "ID": meta.id,
        "Index": meta.index,
        "Term": meta.term,
        "Peers": _base64(_encode_peers(meta.configuration)),
        "Configuration": {"Servers": servers or None},  # Go's nil slice
        "ConfigurationIndex": meta.configuration_index,
        "Size": meta.size,
        "CRC": _base64(crc.to_bytes(8, "big")),
    }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_GO_ESCAPES).encode() + b"\n"


def decode_meta(data: bytes) -> tuple[SnapshotMeta, int]:
    """What ``data`` says: the snapshot's meta and the CRC-64 of its state.

    Raises:
        ValueError: it is no meta.json of version 0 or 1; the text says why.
    """
    try:
        fields = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    version = _number(fields, "Version", 1) if "Version" in _mapping(fields) else 0
    index = _number(fields, "Index")
    crc = _bytes(fields, "CRC")
    if len(crc) != 8:
        raise ValueError(f"CRC has {len(crc)} bytes instead of 8")
    if version == 0:
        if "Configuration" in fields:
            raise ValueError("it has a Configuration, and no Version or version 0")
        configuration, configuration_index = _decode_peers(_bytes(fields, "Peers")), index
    else:
        configuration = _configuration(_field(fields, "Configuration", dict))
        _check_peers(_bytes(fields, "Peers"), configuration)
        configuration_index = _number(fields, "ConfigurationIndex")
    meta = SnapshotMeta(
        id=_field(fields, "ID", str),
        index=index,
        term=_number(fields, "Term"),
        configuration=configuration,
        configuration_index=configuration_index,
        size=_number(fields, "Size", _LARGEST_INT64),
        version=version,
    )
    if not meta.id.startswith(f"{meta.term}-{meta.index}-"):
        raise ValueError(f"ID is {meta.id!r}, and Term and Index are {meta.term} and {meta.index}")
    return meta, int.from_bytes(crc, "big")


def _configuration(fields: Any) -> Configuration:
    if "Servers" not in fields:
        raise ValueError("Servers is missing")
    if fields["Servers"] is None:
        return Configuration()
    return Configuration(
        tuple(
            Server(
                _field(server, "ID", str),
                _field(server, "Address", str),
                Suffrage(_number(server, "Suffrage", max(Suffrage))),
            )
            for server in _field(fields, "Servers", list)
        )
    )


def _encode_peers(configuration: Configuration) -> bytes:
    import msgpack  # here, so that `import pyraft` stays light

    addresses = [server.address.encode() for server in configuration.voters]
    packed: bytes = msgpack.packb(addresses or None, use_bin_type=False)
    return packed


def _check_peers(data: bytes, configuration: Configuration) -> None:
    """What is said twice must agree, because nothing else would tell that a bit was flipped there.

    Only how many vote: Go's transports may write other addresses into Peers.
    """
    ids = [server.id for server in configuration.servers]
    if len(set(ids)) < len(ids):
        raise ValueError(f"Configuration names a server twice: {', '.join(ids)}")
    count = len(_decode_peers(data).servers)
    if count != len(configuration.voters):
        raise ValueError(f"Peers names {count} voters, and Configuration {len(configuration.voters)}")


def _decode_peers(data: bytes) -> Configuration:
    import msgpack

    try:
        addresses: Any = msgpack.unpackb(data, raw=True)
        texts = [address.decode() for address in addresses or ()]
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(f"Peers cannot be read: {error!r}") from error
    return Configuration(tuple(Server(text, text) for text in texts))


def _mapping(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise ValueError(f"an object is expected and not {str(fields)[:40]!r}")
    return fields


def _field(fields: Any, key: str, kind: type) -> Any:
    try:
        value = _mapping(fields)[key]
    except KeyError:
        raise ValueError(f"{key} is missing") from None
    if type(value) is not kind:  # by type(), because True is an int, too
        raise ValueError(f"{key} is {str(value)[:40]!r}, which is no {kind.__name__}")
    return value


def _number(fields: Any, key: str, largest: int = _LARGEST_UINT64) -> int:
    value: int = _field(fields, key, int)
    if not 0 <= value <= largest:
        raise ValueError(f"{key} is {str(value)[:40]}, which is not between 0 and {largest}")
    return value


def _bytes(fields: Any, key: str) -> bytes:
    return base64.b64decode(_field(fields, key, str), validate=True)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
