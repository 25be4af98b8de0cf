"""A batch of entries in Go's msgpack: what neighbours have in common is packed once for all of them.

Pure: values in, bytes out.  A map of six in this order: AppendedAt, Data, Extensions, Index, Term,
Type; bytes have the old raw type, and numbers the shortest form.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from ..log import Log, LogType

_COMMAND = LogType.COMMAND
_INDEX_32 = struct.Struct(">BI")  # a number of 17 to 32 bits, its code in front


def raw_header(length: int) -> bytes:
    """What stands before ``length`` bytes of the raw type."""
    if length < 32:
        return bytes((0xA0 | length,))
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2, "big")
    return b"\xdb" + length.to_bytes(4, "big")


def array_header(length: int) -> bytes:
    """What stands before ``length`` values of a list."""
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _name(name: bytes) -> bytes:
    return raw_header(len(name)) + name


_BEFORE_TIME = b"\x86" + _name(b"AppendedAt")
_BEFORE_DATA = _name(b"Data")
_BEFORE_INDEX = _name(b"Extensions") + b"\xc0" + _name(b"Index")
_BEFORE_TERM = _name(b"Term")
_AFTER_TERM = _name(b"Type") + b"\x00"


def pack_entries(
    entries: Sequence[Log],
    pack_entry: Callable[[Log], bytes],
    pack_time: Callable[[int], bytes],
    pack: Callable[[int], bytes],
) -> bytes:
    """The list of ``entries``.

    Args:
        pack_entry: packs one entry that is no common command.
        pack_time: Go's bytes for an instant.
        pack: packs a number.
    """
    parts = [array_header(len(entries))]
    term = appended_at = length = -1
    before = after = b""  # the data and its neighbours; what follows the index
    for log in entries:
        data, index = log.data, log.index
        if log.type is not _COMMAND or log.extensions or not data or not 0xFFFF < index < 1 << 32:
            parts.append(pack_entry(log))
            continue
        if appended_at != log.appended_at or length != len(data) or term != log.term:
            term, appended_at, length = log.term, log.appended_at, len(data)
            instant = pack_time(appended_at)
            before = _BEFORE_TIME + raw_header(len(instant)) + instant + _BEFORE_DATA + raw_header(length)
            after = _BEFORE_TERM + pack(term) + _AFTER_TERM
        parts += (before, data, _BEFORE_INDEX, _INDEX_32.pack(0xCE, index), after)
    return b"".join(parts)
