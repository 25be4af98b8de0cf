"""One entry of the replicated log, and the bytes it is stored and sent as.

An entry is encoded once, by the leader that appends it; the same protobuf bytes then
go to its disk and to every follower, and followers store them as they came.  The
message is raft-grpc-transport's ``Log``: index=1, term=2, type=3, data=4,
extensions=5, appended_at=6 (google.protobuf.Timestamp).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache

from .errors import CorruptStoreError


class LogType(IntEnum):
    """What an entry is for.  The numbers are on disk and on the wire: never renumber."""

    COMMAND = 0
    """Goes to the FSM."""
    NOOP = 1
    """First entry of a leader's term; commits what earlier terms left (§5.4.2, §8)."""
    ADD_PEER_DEPRECATED = 2
    REMOVE_PEER_DEPRECATED = 3
    BARRIER = 4
    """Resolves once every earlier command is applied; the FSM does not see it."""
    CONFIGURATION = 5
    """A cluster configuration, in force as soon as it is in the log (dissertation §4.1)."""


_COMMAND = LogType.COMMAND
_TYPES = {int(member): member for member in LogType}


class Log:
    """One log entry.  Treat it as immutable: threads share it.

    Attributes:
        index: position in the log, from 1.
        term: of the leader that appended it.
        type: what it is for.
        data: the command, or what the type needs.
        extensions: opaque bytes that travel beside the data.
        encoded: the protobuf bytes of this entry; made once, here, unless they are given.
        appended_at: nanoseconds since the Unix epoch on the leader's clock, 0 if unknown.
            For information only; clocks differ and jump.
    """

    __slots__ = ("_appended_at", "data", "encoded", "extensions", "index", "term", "type")

    def __init__(
        self,
        index: int = 0,
        term: int = 0,
        type: LogType = _COMMAND,
        data: bytes = b"",
        extensions: bytes = b"",
        appended_at: int | bytes | None = 0,
        encoded: bytes | None = None,
    ) -> None:
        """Make an entry.

        Args:
            appended_at: None = read it from ``encoded`` when somebody asks for it; bytes = the part
                of ``encoded`` that holds it, which is read then.
            encoded: the entry's protobuf bytes if they are known already.
        """
        self.index = index
        self.term = term
        self.type = type
        self.data = data
        self.extensions = extensions
        self._appended_at = appended_at
        self.encoded = encode_log(self) if encoded is None else encoded

    @property
    def appended_at(self) -> int:
        found = self._appended_at
        if isinstance(found, int):
            return found
        self._appended_at = found = (
            _appended_at_of(self.encoded) if found is None else _appended_at_of_field(found)
        )
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Log):
            return NotImplemented
        return (
            self.index == other.index
            and self.term == other.term
            and self.type == other.type
            and self.data == other.data
            and self.extensions == other.extensions
            and self.appended_at == other.appended_at
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Log(index={self.index}, term={self.term}, type={self.type.name}, {len(self.data)} bytes)"


def uvarint(value: int) -> bytes:
    """``value`` (>= 0) as a protobuf varint."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def timestamp_field(appended_at: int) -> bytes:
    """Field 6 for an instant in nanoseconds; empty for 0, as an absent field reads."""
    if appended_at == 0:
        return b""
    seconds, nanos = divmod(appended_at, 1_000_000_000)
    inner = b""
    if seconds:
        inner += b"\x08" + uvarint(seconds & 0xFFFFFFFFFFFFFFFF)  # int64: negatives take ten bytes
    if nanos:
        inner += b"\x10" + uvarint(nanos)
    return b"\x32" + uvarint(len(inner)) + inner


def encode_log(log: Log) -> bytes:
    """The protobuf bytes of ``log``; fields in order, defaults left out, as Go writes them."""
    term = b"\x10" + uvarint(log.term) if log.term else b""
    return _encode(log.index, term, log.type, log.data, log.extensions, timestamp_field(log.appended_at))


def _encode(index: int, term: bytes, type: LogType, data: bytes, extensions: bytes, stamp: bytes) -> bytes:
    return b"".join(
        (
            b"\x08" + uvarint(index) if index else b"",
            term,
            b"\x18" + uvarint(type) if type else b"",
            b"\x22" + uvarint(len(data)) + data if data else b"",
            b"\x2a" + uvarint(len(extensions)) + extensions if extensions else b"",
            stamp,
        )
    )


class EntryEncoder:
    """Encodes the entries of one batch: same term, same instant, consecutive indexes.

    A leader does this for every command, so what neighbours have in common (all of the index
    but its last seven bits, the term, the length of the data) is encoded once for all of them.
    """

    def __init__(self, term: int, appended_at: int) -> None:
        self._term = b"\x10" + uvarint(term) if term else b""
        self._stamp = timestamp_field(appended_at)
        self._high = -1  # index without its last seven bits
        self._high_bytes = b""
        self._length = -1
        self._before_data = b""

    def __call__(self, index: int, type: LogType, data: bytes, extensions: bytes) -> bytes:
        """The bytes that ``encode_log`` would give."""
        if type or extensions or not data or index < 128:
            return _encode(index, self._term, type, data, extensions, self._stamp)
        if index >> 7 != self._high:
            self._high = index >> 7
            self._high_bytes = uvarint(self._high)
        if len(data) != self._length:
            self._length = len(data)
            self._before_data = self._term + b"\x22" + uvarint(self._length)
        return b"".join((_INDEX_LOW[index & 0x7F], self._high_bytes, self._before_data, data, self._stamp))


_INDEX_LOW = tuple(b"\x08" + bytes((low | 0x80,)) for low in range(128))


def decode_log(encoded: bytes) -> Log:
    """The entry that ``encoded`` holds.

    Raises:
        CorruptStoreError: the bytes are no Log message, or of a type this version does not know.
    """
    index = term = type_number = 0
    data = extensions = b""
    for number, value in _fields(encoded):
        if number == 4 and isinstance(value, bytes):
            data = value
        elif number == 5 and isinstance(value, bytes):
            extensions = value
        elif isinstance(value, int):
            if number == 1:
                index = value
            elif number == 2:
                term = value
            elif number == 3:
                type_number = value
    kind = _TYPES.get(type_number)
    if kind is None:
        raise CorruptStoreError(f"log entry {index} has the unknown type {type_number}")
    return Log(index, term, kind, data, extensions, None, encoded)


class EntryDecoder:
    """Decodes entries that stand one after the other, five times as fast as one by one.

    Of a command as our encoder and Go's write it, all but the data and its length is known from
    the entry before: that is compared, not parsed.  Whatever looks otherwise is parsed.
    """

    def __init__(self) -> None:
        self._high = -1  # index without its last seven bits
        self._between = b""  # what stands between the low bits of the index and the data's length
        self._term = 0

    def __call__(self, index: int, encoded: bytes) -> Log:
        """As ``decode_log``; ``index`` is the entry's if all is well.

        Raises:
            CorruptStoreError: as ``decode_log``.
        """
        if index >> 7 == self._high:
            prefix = _INDEX_LOW[index & 0x7F] + self._between
            at = len(prefix) + 1
            if len(encoded) > at and encoded.startswith(prefix):
                length = encoded[at - 1]
                if length >= 0x80:
                    more = encoded[at]
                    length = length & 0x7F | more << 7 if more < 0x80 else len(encoded)  # too much
                    at += 1
                end = at + length
                left = len(encoded) - end
                # Nothing more, or the timestamp.
                if left == 0 or (2 < left < 0x82 and encoded[end] == 0x32 and encoded[end + 1] == left - 2):
                    return Log(index, self._term, _COMMAND, encoded[at:end], b"", encoded[end:], encoded)
        log = decode_log(encoded)
        if log.type is _COMMAND and log.term and log.index >> 7:
            self._high, self._term = log.index >> 7, log.term
            self._between = uvarint(self._high) + b"\x10" + uvarint(log.term) + b"\x22"
        return log


@lru_cache(maxsize=256)
def _appended_at_of_field(encoded: bytes) -> int:
    """The entries of a batch share their instant, so that its bytes are nearly always known."""
    return _appended_at_of(encoded)


def _appended_at_of(encoded: bytes) -> int:
    seconds = nanos = 0
    for number, value in _fields(encoded):
        if number == 6 and isinstance(value, bytes):
            for inner, part in _fields(value):
                if inner == 1 and isinstance(part, int):
                    seconds = part - (1 << 64) if part >> 63 else part
                elif inner == 2 and isinstance(part, int):
                    nanos = part
    return seconds * 1_000_000_000 + nanos


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protobuf message; unknown fields come along."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _read_uvarint(message, position)
        wire_type = tag & 7
        if wire_type == 0:
            number, position = _read_uvarint(message, position)
            yield tag >> 3, number
        else:
            if wire_type == 2:
                length, position = _read_uvarint(message, position)
            elif wire_type in (1, 5):
                length = 8 if wire_type == 1 else 4
            else:
                raise CorruptStoreError(f"log entry bytes have the wire type {wire_type}")
            if position + length > end:
                raise CorruptStoreError("log entry bytes end in the middle of a field")
            yield tag >> 3, message[position : position + length]
            position += length


def _read_uvarint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    for at in range(position, min(position + 10, len(message))):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise CorruptStoreError("log entry bytes end in the middle of a number, or it is too long")
