"""A batch of entries in Go's msgpack: what neighbours have in common is packed and read once for all of them.

Pure: values in, bytes out, and back.  A map of six in this order: AppendedAt, Data, Extensions,
Index, Term, Type; bytes have the old raw type, and numbers the shortest form.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..log import EntryEncoder, Log, LogType

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


_TIME_BYTES = 15
_BEFORE_TIME_15 = _BEFORE_TIME + raw_header(_TIME_BYTES)
_TIME_VERSION = b"\x01"
"""Of Go's instants: all but those in zones that are no whole minutes away."""
_BEFORE_INDEX_32 = _BEFORE_INDEX + b"\xce"
_INDEX_BYTES = 4


def unpack_commands(
    block: bytes,
    at_most: int,
    term: int,
    unpack_time: Callable[[bytes], int],
    pack: Callable[[int], bytes],
) -> tuple[list[Log], int]:
    """The commands of ``term`` at the beginning of ``block``, and how many bytes they take.

    It stops before an entry that is not all there, or that looks otherwise in any way: such a one
    is for a reader of msgpack.

    Args:
        at_most: so many entries.
        unpack_time: the instant of 15 bytes of Go's that begin with 1; must not raise.
        pack: packs a number.
    """
    logs: list[Log] = []
    after = _BEFORE_TERM + pack(term) + _AFTER_TERM
    behind_data = len(_BEFORE_INDEX_32) + _INDEX_BYTES + len(after)
    position, end = 0, len(block)
    head, appended_at, encode = b"", 0, EntryEncoder(term, 0)
    while len(logs) < at_most:
        if not head or not block.startswith(head, position):
            head = _head_of_batch(block, position)
            if not head:
                break
            appended_at = unpack_time(head[len(_BEFORE_TIME_15) :][:_TIME_BYTES])
            encode = EntryEncoder(term, appended_at)
        start, length = _data_at(block, position + len(head))
        stop = start + length
        index_at = stop + len(_BEFORE_INDEX_32)
        if not start or stop + behind_data > end:
            break
        if not (
            block.startswith(_BEFORE_INDEX_32, stop) and block.startswith(after, index_at + _INDEX_BYTES)
        ):
            break
        index, data = int.from_bytes(block[index_at : index_at + _INDEX_BYTES], "big"), block[start:stop]
        logs.append(Log(index, term, _COMMAND, data, b"", appended_at, encode(index, _COMMAND, data, b"")))
        before, position = block[position:start], stop + behind_data
        if not block.startswith(before, position):
            continue
        # A run of commands of one length, taken apart by one call for all.
        had, size = len(logs), len(before) + length + behind_data
        run = memoryview(block)[position:][: size * min(at_most - had, (end - position) // size)]
        for same, data, between, index, tail in _form(len(before), length, len(after)).iter_unpack(run):
            if same != before or between != _BEFORE_INDEX_32 or tail != after:
                break
            logs.append(
                Log(index, term, _COMMAND, data, b"", appended_at, encode(index, _COMMAND, data, b""))
            )
        position += size * (len(logs) - had)
    return logs, position


def _head_of_batch(block: bytes, position: int) -> bytes:
    """What stands before the length of the data, the same for all of a batch; b"": that is not there."""
    end = position + len(_BEFORE_TIME_15) + _TIME_BYTES + len(_BEFORE_DATA)
    head = block[position:end]
    return head if head.startswith(_BEFORE_TIME_15 + _TIME_VERSION) and head.endswith(_BEFORE_DATA) else b""


def _data_at(block: bytes, position: int) -> tuple[int, int]:
    """Where the data begins whose header is at ``position``, and its length; 0: there is none, or not all of it."""
    header = block[position : position + 5]
    if len(header) < 5:
        return 0, 0
    code = header[0]
    if code == 0xDA:
        return position + 3, header[1] << 8 | header[2]
    if 0xA0 <= code <= 0xBF:
        return position + 1, code & 0x1F
    if code == 0xDB:
        return position + 5, int.from_bytes(header[1:], "big")
    return 0, 0


@lru_cache(maxsize=64)
def _form(before: int, data: int, after: int) -> struct.Struct:
    """A whole entry: what precedes its data, the data, what is between that and the index, the index, the rest."""
    return struct.Struct(f">{before}s{data}s{len(_BEFORE_INDEX_32)}sI{after}s")
