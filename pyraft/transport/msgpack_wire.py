"""The bytes of hashicorp/raft's NetworkTransport: RPCs as msgpack, in the dialect of its Go library.

A request is one byte for its type and a map; an answer is an error text ("" = none) and a map, or
nil after an error.  The type byte is a msgpack number as well, so that a whole connection reads as
one msgpack stream; only the bytes of a snapshot, which follow its request, are bare.

Maps have all keys, in alphabetical order, the sender's header among them; text and bytes are one
kind, empty ones nil.  Decoding takes what Go takes: any order, unknown and missing keys, newer
string kinds, structs as arrays in Go's order of declaration.

What only pyraft knows are extra keys, which Go skips, and types of RPC beyond Go's, on which
a Go server closes the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgpack

from ..configuration import (
    Configuration,
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)
from ..errors import CorruptStoreError, RaftError, TransportError
from ..log import EntryEncoder, Log, LogType
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
    StandingRequest,
    StandingResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from .msgpack_entries import pack_entries, unpack_commands

MAX_MESSAGE_BYTES = 64 * 1024 * 1024 + 64 * 1024
"""The largest command that there may be, and what is around it."""

_LEAST_ENTRY_BYTES = 64
"""An entry takes that much of a message's size at least: its keys alone are longer, if they are there."""
_LONGEST_CONTAINER = 64
_LONGEST_NAMES = 4096
"""Bytes of a server's id and address together."""
_FRUITLESS_TRIES = 4
"""So often in a message neighbours may turn out to be unlike each other: each time what has come is copied."""
_FREE_CONTAINERS = 256
_LEAST_CONTAINER_BYTES = 16
"""On average; a struct of Go's takes more, as an array too."""
_FIRST_BUFFER_BYTES = 16 * 1024
_LARGEST_SNAPSHOT_BYTES = 2**60
_NEWEST_SNAPSHOT_VERSION = 1
_LARGEST_INT = 2**63 - 1
_LARGEST_UINT = 2**64 - 1
_LOG_TYPES = {int(member): member for member in LogType}

Fields = dict[bytes, Any]


class MalformedError(TransportError):
    """Bytes that are no message; nothing that comes after them on the connection can be understood."""


# ── packing ──

_packers: list[Any] = []
_KEPT_PACKER_BYTES = 1024 * 1024


def _pack(value: Any) -> bytes:
    # A packer is dear to make, and must not be used by two threads at once.
    try:
        packer = _packers.pop()
    except IndexError:
        packer = msgpack.Packer(use_bin_type=False)
    packed: bytes = packer.pack(value)
    if len(packed) <= _KEPT_PACKER_BYTES:  # its buffer never shrinks
        _packers.append(packer)
    return packed


def _int(value: int) -> bytes:
    """A number of one of Go's signed types; those above 127 are written otherwise than unsigned ones."""
    if 0 <= value <= 127:
        return bytes((value,))
    for code, form, bits in ((b"\xd0", ">b", 7), (b"\xd1", ">h", 15), (b"\xd2", ">i", 31)):
        if -(1 << bits) <= value < 1 << bits:
            return code + struct.pack(form, value)
    return b"\xd3" + struct.pack(">q", value)


# ── reading a stream ──


class MessageReader:
    """Takes one msgpack value after the other off a stream, and never a byte more than asked for.

    Whatever comes in, it holds at most ``max_message_bytes`` of one message, and what is made of them.
    """

    def __init__(self, fill: Callable[[bool], bytes], max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Read nothing yet.

        Args:
            fill: returns the next bytes, b"" at the end of the stream; gets True in the middle
                of a message.  What it raises passes through.
        """
        self._fill = fill
        self._max_message_bytes = max_message_bytes
        self._fed = 0
        self._start = 0
        self._containers = 0
        self._unpacker = msgpack.Unpacker(
            raw=True,
            read_size=_FIRST_BUFFER_BYTES,
            max_buffer_size=max_message_bytes + 4 * 1024 * 1024,
            max_str_len=max_message_bytes,
            max_bin_len=max_message_bytes,
            max_array_len=_LONGEST_CONTAINER,
            max_map_len=_LONGEST_CONTAINER,
            max_ext_len=_LONGEST_CONTAINER,
            object_hook=self._counted,
            list_hook=self._counted,
        )

    def begin(self) -> bool:
        """A new message begins here; False: the stream ended here.  Blocks until one of them is true."""
        self._start = self._unpacker.tell()
        self._containers = 0
        if self._fed > self._start:
            return True
        data = self._fill(False)
        self._feed_bytes(data)
        return bool(data)

    @property
    def message_bytes(self) -> int:
        """How many bytes the message has had so far."""
        return int(self._unpacker.tell()) - self._start

    @property
    def has_more(self) -> bool:
        """Whether something has come that is not read yet."""
        return self._fed > int(self._unpacker.tell())

    def value(self) -> Any:
        """The next value, whatever it is.

        Raises:
            MalformedError: the bytes are no msgpack, too many, or end too early.
        """
        while True:
            try:
                return self._unpacker.unpack()
            except msgpack.OutOfData:
                self._feed()
            except (ValueError, TypeError, msgpack.UnpackException) as error:
                raise MalformedError(f"no msgpack: {error or type(error).__name__}") from error

    def header(self) -> tuple[bool, int | None]:
        """Whether a map (or else an array) comes next, and its length, None for nil."""
        code = self._exactly(1)[0]
        if code == 0xC0:
            return False, None
        if 0x80 <= code <= 0x8F:
            return True, code & 0x0F
        if 0x90 <= code <= 0x9F:
            return False, code & 0x0F
        if code in (0xDC, 0xDE):
            return code == 0xDE, int.from_bytes(self._exactly(2), "big")
        if code in (0xDD, 0xDF):
            return code == 0xDF, int.from_bytes(self._exactly(4), "big")
        raise MalformedError(f"0x{code:02x} where a map or an array should begin")

    def raw(self, max_bytes: int) -> bytes:
        """What is there already of the bytes that follow, at most ``max_bytes``; none if none are there."""
        data: bytes = self._unpacker.read_bytes(max_bytes)
        return data

    def _counted(self, container: Any) -> Any:
        """Refuse a message of nothing but empty lists and maps: one byte each there, and sixty here."""
        self._containers += 1
        if (self._containers - _FREE_CONTAINERS) * _LEAST_CONTAINER_BYTES > self._fed - self._start:
            raise MalformedError(f"{self._containers} lists and maps in {self._fed - self._start} bytes")
        return container

    def _exactly(self, count: int) -> bytes:
        data: bytes = self._unpacker.read_bytes(count)
        while len(data) < count:
            self._feed()
            data += self._unpacker.read_bytes(count - len(data))
        return data

    def _feed(self) -> None:
        if self._fed - self._start > self._max_message_bytes:
            raise MalformedError(f"a message of more than {self._max_message_bytes} bytes")
        data = self._fill(True)
        if not data:
            raise MalformedError(f"it ends after {self._fed - self._start} bytes of a message")
        self._feed_bytes(data)

    def _feed_bytes(self, data: bytes) -> None:
        self._unpacker.feed(data)
        self._fed += len(data)

    def fields(self, names: Sequence[bytes]) -> Fields:
        """The next struct: a map, or an array of ``names`` in that order."""
        value = self.value()
        if isinstance(value, dict):
            return value
        if isinstance(value, list):
            return dict(zip(names, value, strict=False))
        raise MalformedError(f"{value!r:.60} where a struct should be")

    def append_entries(self) -> Fields:
        """The next AppendEntries; its entries are taken one by one, so that nothing is made for those to come."""
        is_map, count = self.header()
        if count is None or count > _LONGEST_CONTAINER:
            raise MalformedError(f"a struct of {count} fields")
        fields: Fields = {}
        for position in range(count):
            name = self.value() if is_map else _APPEND_FIELDS[min(position, len(_APPEND_FIELDS) - 1)]
            value = self._entries() if name == b"Entries" else self.value()
            if isinstance(name, bytes):
                fields[name] = value
        return fields

    def _entries(self) -> list[Fields | Log]:
        is_map, count = self.header()
        if is_map:
            raise MalformedError("a map where entries should be")
        entries: list[Fields | Log] = []
        count, tries = count or 0, _FRUITLESS_TRIES
        while len(entries) < count:
            if len(entries) * _LEAST_ENTRY_BYTES > self._max_message_bytes:
                raise MalformedError(f"{count} entries in one message")
            fields = self.fields(_LOG_FIELDS)
            entries.append(fields)
            if tries and len(entries) < count:
                commands = self._commands_after(fields, count - len(entries))
                entries += commands
                tries -= not commands
        return entries

    def _commands_after(self, fields: Fields, at_most: int) -> list[Log]:
        """The commands that have come already, and look as neighbours of an entry with ``fields`` do."""
        term = fields.get(b"Term")
        if type(term) is not int or term < 0:
            return []
        block = self._unpacker.read_bytes(self._fed - int(self._unpacker.tell()))
        logs, used = unpack_commands(block, at_most, term, _decode_time_bytes, _pack)
        rest = block[used:]
        if rest:  # put back, as if the message had begun so much later
            self._feed_bytes(rest)
            self._start += len(rest)
        return logs


# ── fields ──

_HEADER_FIELDS = (b"ProtocolVersion", b"ID", b"Addr")
_APPEND_FIELDS = (
    *_HEADER_FIELDS,
    b"Term",
    b"Leader",
    b"PrevLogEntry",
    b"PrevLogTerm",
    b"Entries",
    b"LeaderCommitIndex",
    b"",
)
_LOG_FIELDS = (b"Index", b"Term", b"Type", b"Data", b"Extensions", b"AppendedAt")


def _uint(fields: Fields, name: bytes) -> int:
    value = fields.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _LARGEST_UINT:
        raise TransportError(f"{name.decode()} is {value!r:.60}, and should be a number")
    return value


def _bool(fields: Fields, name: bytes) -> bool:
    value = fields.get(name, False)
    if value is not None and not isinstance(value, bool):
        raise TransportError(f"{name.decode()} is {value!r:.60}, and should be true or false")
    return bool(value)


def _bytes(fields: Fields, name: bytes) -> bytes:
    value = fields.get(name)
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise TransportError(f"{name.decode()} is {value!r:.60}, and should be bytes")
    return value


def _header(fields: Fields, sender: bytes = b"") -> RpcHeader:
    """Who sent it; older servers name only an address, some only in the field ``sender``."""
    version = fields.get(b"ProtocolVersion") or 0
    if type(version) is not int or abs(version) > _LARGEST_INT:
        raise TransportError(f"ProtocolVersion is {version!r:.60}, and should be a number")
    addr = _bytes(fields, b"Addr") or (_bytes(fields, sender) if sender else b"")
    return _header_values(_bytes(fields, b"ID") or addr, addr, version)


@lru_cache(maxsize=256)
def _header_values(id_: bytes, addr: bytes, protocol_version: int) -> RpcHeader:
    if len(id_) + len(addr) > _LONGEST_NAMES:  # they are kept, and a peer could send others each time
        raise TransportError(f"the sender's id and address have {len(id_) + len(addr)} bytes")
    try:
        return RpcHeader(id_.decode(), addr.decode(), protocol_version)
    except UnicodeDecodeError as error:
        raise TransportError(f"the sender's id or address is not UTF-8: {error}") from error


# ── entries ──

_GO_EPOCH = 62_135_596_800
"""Seconds from the year 1, where Go's time begins, to 1970."""
_TIME = struct.Struct(">BqIh")
_UTC = -1
_GO_ZERO_TIME = _TIME.pack(1, 0, 0, _UTC)


@lru_cache(maxsize=256)
def _encode_time(appended_at: int) -> bytes:
    """Go's 15 bytes for an instant in nanoseconds since 1970; 0 is Go's time of which nothing is known."""
    if appended_at == 0:
        return _GO_ZERO_TIME
    seconds, nanos = divmod(appended_at, 1_000_000_000)
    try:
        return _TIME.pack(1, seconds + _GO_EPOCH, nanos, _UTC)
    except struct.error:  # in no time that Go could tell
        return _GO_ZERO_TIME


def _decode_time(value: Any) -> int:
    if isinstance(value, bytes):
        return _decode_time_bytes(value)
    if value is None:
        return 0
    if isinstance(value, msgpack.Timestamp):
        return _nanoseconds(value)
    raise TransportError(f"AppendedAt is {value!r:.60}, and should be a time")


@lru_cache(maxsize=256)
def _decode_time_bytes(value: bytes) -> int:
    if len(value) in (15, 16) and value[0] in (1, 2):  # 2: the zone in seconds, which tells nothing new
        _, seconds, nanos, _ = _TIME.unpack(value[:15])
        if seconds == 0 and nanos == 0:
            return 0
        nanoseconds: int = (seconds - _GO_EPOCH) * 1_000_000_000 + nanos
        return nanoseconds
    try:
        return _nanoseconds(msgpack.Timestamp.from_bytes(value))
    except ValueError as error:
        raise TransportError(f"AppendedAt is {value!r:.60}, and should be a time") from error


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanoseconds)


def encode_log(log: Log) -> bytes:
    """Go's bytes for one entry."""
    return _pack(_log_map(log))


def decode_log(data: bytes) -> Log:
    """Raises TransportError: the bytes are no entry."""
    return _decode_entries([_reader_of(data).fields(_LOG_FIELDS)])[0]


def _log_map(log: Log) -> dict[str, Any]:
    return {
        "AppendedAt": _encode_time(log.appended_at),
        "Data": log.data or None,
        "Extensions": log.extensions or None,
        "Index": log.index,
        "Term": log.term,
        "Type": log.type,
    }


def _decode_entries(entries: Sequence[Fields | Log]) -> list[Log]:
    """The entries; their protobuf bytes, which the disk wants, are made here, once, unless they are there."""
    logs = []
    common: tuple[int, int] | None = None
    encode: EntryEncoder
    for fields in entries:
        if isinstance(fields, Log):
            logs.append(fields)
            continue
        index, term = _uint(fields, b"Index"), _uint(fields, b"Term")
        data, extensions = _bytes(fields, b"Data"), _bytes(fields, b"Extensions")
        appended_at = _decode_time(fields.get(b"AppendedAt"))
        kind = _LOG_TYPES.get(_uint(fields, b"Type"))
        if kind is None:
            raise TransportError(
                f"an entry of the unknown type {fields[b'Type']}: "
                f"the sender runs a newer version; update this server"
            )
        if common != (term, appended_at):
            common = (term, appended_at)
            encode = EntryEncoder(term, appended_at)
        encoded = encode(index, kind, data, extensions)
        logs.append(Log(index, term, kind, data, extensions, appended_at, encoded))
    return logs


# ── requests ──


def _encode_append_entries(request: AppendEntriesRequest) -> bytes:
    header = request.header
    addr = _pack(header.addr or None)
    # As Go does, where only nil makes a heartbeat.
    entries = (
        b"\xc0" if request.is_heartbeat else pack_entries(request.entries, encode_log, _encode_time, _pack)
    )
    return b"".join(
        (
            _APPEND_MAP,
            addr,
            _APPEND_ENTRIES,
            entries,
            _APPEND_ID,
            _pack(header.id or None),
            _APPEND_LEADER,
            addr,
            _APPEND_COMMIT,
            _pack(request.leader_commit_index),
            _APPEND_PREV_ENTRY,
            _pack(request.prev_log_entry),
            _APPEND_PREV_TERM,
            _pack(request.prev_log_term),
            _APPEND_VERSION,
            _pack(header.protocol_version),
            _APPEND_TERM,
            _pack(request.term),
        )
    )


_APPEND_MAP = b"\x89" + _pack("Addr")
_APPEND_ENTRIES, _APPEND_ID, _APPEND_LEADER, _APPEND_COMMIT, _APPEND_PREV_ENTRY, _APPEND_PREV_TERM = map(
    _pack, ("Entries", "ID", "Leader", "LeaderCommitIndex", "PrevLogEntry", "PrevLogTerm")
)
_APPEND_VERSION, _APPEND_TERM = _pack("ProtocolVersion"), _pack("Term")


def _decode_append_entries(fields: Fields) -> AppendEntriesRequest:
    return AppendEntriesRequest(
        _header(fields, b"Leader"),
        _uint(fields, b"Term"),
        _uint(fields, b"PrevLogEntry"),
        _uint(fields, b"PrevLogTerm"),
        _decode_entries(fields.get(b"Entries") or ()),
        _uint(fields, b"LeaderCommitIndex"),
    )


def _encode_vote(request: RequestVoteRequest) -> bytes:
    header = request.header
    addr = header.addr or None
    return _pack(
        {
            "Addr": addr,
            "Candidate": addr,
            "ID": header.id or None,
            "LastLogIndex": request.last_log_index,
            "LastLogTerm": request.last_log_term,
            "LeadershipTransfer": request.leadership_transfer,
            "ProtocolVersion": header.protocol_version,
            "Term": request.term,
        }
    )


def _decode_vote(fields: Fields) -> RequestVoteRequest:
    return RequestVoteRequest(
        _header(fields, b"Candidate"),
        _uint(fields, b"Term"),
        _uint(fields, b"LastLogIndex"),
        _uint(fields, b"LastLogTerm"),
        _bool(fields, b"LeadershipTransfer"),
    )


def _encode_pre_vote(request: RequestPreVoteRequest) -> bytes:
    header = request.header
    return _pack(
        {
            "Addr": header.addr or None,
            "ID": header.id or None,
            "LastLogIndex": request.last_log_index,
            "LastLogTerm": request.last_log_term,
            "ProtocolVersion": header.protocol_version,
            "Term": request.term,
        }
    )


def _decode_pre_vote(fields: Fields) -> RequestPreVoteRequest:
    return RequestPreVoteRequest(
        _header(fields), _uint(fields, b"Term"), _uint(fields, b"LastLogIndex"), _uint(fields, b"LastLogTerm")
    )


def _header_map(header: RpcHeader) -> dict[str, Any]:
    return {
        "Addr": header.addr or None,
        "ID": header.id or None,
        "ProtocolVersion": header.protocol_version,
    }


def _encode_header_only(
    message: TimeoutNowResponse | StandingRequest | ReadIndexRequest | TimeoutNowRequest,
) -> bytes:
    return _pack(_header_map(message.header))


def _encode_timeout_now(request: TimeoutNowRequest) -> bytes:
    term = {"Term": request.term} if request.term else {}  # a key that only pyraft has
    return _pack({**_header_map(request.header), **term})


def encode_install_snapshot(request: InstallSnapshotRequest, takes_early_answer: bool = False) -> bytes:
    """The request; the snapshot's bytes follow it.

    Args:
        takes_early_answer: say (to pyraft only) that an answer before the last byte will be heard.

    Raises:
        TransportError: no snapshot can have that size.
    """
    _check_size(request.size)
    header = request.header
    addr = header.addr or None
    with_configuration = request.snapshot_version > 0
    fields: list[tuple[str, Any]] = [
        ("Addr", addr),
        ("Configuration", encode_configuration(request.configuration) if with_configuration else None),
        ("ConfigurationIndex", request.configuration_index if with_configuration else 0),
        ("ID", header.id or None),
        ("LastLogIndex", request.last_log_index),
        ("LastLogTerm", request.last_log_term),
        ("Leader", addr),
        ("Peers", encode_peers(request.configuration)),
        ("ProtocolVersion", header.protocol_version),
    ]
    later: list[tuple[str, Any]] = [("SnapshotVersion", request.snapshot_version)]
    if takes_early_answer:
        later.append(("TakesEarlyAnswer", True))
    later.append(("Term", request.term))
    count = len(fields) + 1 + len(later)
    parts = [bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2, "big")]
    parts += [_pack(name) + _pack(value) for name, value in fields]
    parts.append(_pack("Size") + _int(request.size))
    parts += [_pack(name) + _pack(value) for name, value in later]
    return b"\x02" + b"".join(parts)


def decode_install_snapshot(fields: Fields) -> InstallSnapshotRequest:
    """Raises TransportError: this is no such request, or it announces what cannot be."""
    version, size = _uint(fields, b"SnapshotVersion"), _uint(fields, b"Size")
    _check_size(size)
    if version > _NEWEST_SNAPSHOT_VERSION:
        raise TransportError(
            f"a snapshot of the unknown version {version}: the sender runs a newer version; update this server"
        )
    # Version 0 is older than configurations: whoever is in it votes, as of the snapshot's index.
    try:
        configuration = (
            decode_configuration(_bytes(fields, b"Configuration"))
            if version
            else decode_peers(_bytes(fields, b"Peers"))
        )
    except CorruptStoreError as error:
        raise TransportError(
            f"failed to decode {'configuration' if version else 'peers'}: {error}"
        ) from error
    last_log_index = _uint(fields, b"LastLogIndex")
    return InstallSnapshotRequest(
        _header(fields, b"Leader"),
        _uint(fields, b"Term"),
        last_log_index,
        _uint(fields, b"LastLogTerm"),
        configuration,
        _uint(fields, b"ConfigurationIndex") if version else last_log_index,
        size,
        version,
    )


def size_of_snapshot(fields: Fields) -> int:
    """How many bytes follow the request.

    Raises:
        MalformedError: it does not say so.
    """
    try:
        size = _uint(fields, b"Size")
        _check_size(size)
    except TransportError as error:
        raise MalformedError(str(error)) from error
    return size


def takes_early_answer(fields: Fields) -> bool:
    """Whether the sender of a snapshot hears an answer before its last byte.  Go's does not."""
    return fields.get(b"TakesEarlyAnswer") is True


def _check_size(size: int) -> None:
    if not 0 <= size <= _LARGEST_SNAPSHOT_BYTES:
        raise TransportError(f"a snapshot of {size} bytes cannot be: this request is damaged")


# ── answers ──


def _encode_append_response(response: AppendEntriesResponse) -> bytes:
    header = response.header
    hint = (
        {"HintIndex": response.hint_index, "HintTerm": response.hint_term} if response.hint_index else {}
    )  # keys that only pyraft has
    return _pack(
        {
            "Addr": header.addr or None,
            **hint,
            "ID": header.id or None,
            "LastLog": response.last_log,
            "NoRetryBackoff": response.no_retry_backoff,
            "ProtocolVersion": header.protocol_version,
            "Success": response.success,
            "Term": response.term,
        }
    )


def _decode_append_response(fields: Fields) -> AppendEntriesResponse:
    return AppendEntriesResponse(
        _header(fields),
        _uint(fields, b"Term"),
        _uint(fields, b"LastLog"),
        _bool(fields, b"Success"),
        _bool(fields, b"NoRetryBackoff"),
        _uint(fields, b"HintIndex"),
        _uint(fields, b"HintTerm"),
    )


def _encode_vote_response(response: RequestVoteResponse | RequestPreVoteResponse) -> bytes:
    header = response.header
    peers = {"Peers": None} if isinstance(response, RequestVoteResponse) else {}
    return _pack(
        {
            "Addr": header.addr or None,
            "Granted": response.granted,
            "ID": header.id or None,
            **peers,
            "ProtocolVersion": header.protocol_version,
            "Term": response.term,
        }
    )


def _decode_vote_response(fields: Fields) -> RequestVoteResponse:
    return RequestVoteResponse(_header(fields), _uint(fields, b"Term"), _bool(fields, b"Granted"))


def _decode_pre_vote_response(fields: Fields) -> RequestPreVoteResponse:
    return RequestPreVoteResponse(_header(fields), _uint(fields, b"Term"), _bool(fields, b"Granted"))


def _encode_snapshot_response(response: InstallSnapshotResponse) -> bytes:
    return _pack({**_header_map(response.header), "Success": response.success, "Term": response.term})


def _decode_snapshot_response(fields: Fields) -> InstallSnapshotResponse:
    return InstallSnapshotResponse(_header(fields), _uint(fields, b"Term"), _bool(fields, b"Success"))


def _encode_standing_response(response: StandingResponse) -> bytes:
    header = response.header
    return _pack(
        {
            "Addr": header.addr or None,
            "Configuration": encode_configuration(response.configuration),
            "ID": header.id or None,
            "LastLog": response.last_log,
            "ProtocolVersion": header.protocol_version,
            "Term": response.term,
        }
    )


def _decode_standing_response(fields: Fields) -> StandingResponse:
    encoded = _bytes(fields, b"Configuration")
    try:
        configuration = decode_configuration(encoded) if encoded else Configuration()
    except CorruptStoreError as error:
        raise TransportError(f"a configuration that cannot be read: {error}") from error
    return StandingResponse(_header(fields), _uint(fields, b"Term"), _uint(fields, b"LastLog"), configuration)


def _encode_read_index_response(response: ReadIndexResponse) -> bytes:
    return _pack({**_header_map(response.header), "Index": response.index, "Term": response.term})


def _decode_read_index_response(fields: Fields) -> ReadIndexResponse:
    return ReadIndexResponse(_header(fields), _uint(fields, b"Term"), _uint(fields, b"Index"))


# ── the calls ──


@dataclass(frozen=True, slots=True)
class Call:
    """One RPC: its type byte, and its codecs.

    Decoders raise TransportError for fields that make no message, and nothing else.
    """

    number: int
    name: str
    encode_request: Callable[[Any], bytes]
    decode_request: Callable[[Fields], Any]
    request_fields: Sequence[bytes]
    """As Go declares them."""
    encode_response: Callable[[Any], bytes]
    decode_response: Callable[[Fields], Any]
    response_fields: Sequence[bytes]

    @property
    def is_ours(self) -> bool:
        """True for those that Go does not know."""
        return self.number > 4

    @property
    def may_be_unknown(self) -> bool:
        """True for those on which some Go server hangs up: pre-votes came with Go's 1.7."""
        return self.number >= 4


_VOTE_FIELDS = (b"LastLogIndex", b"LastLogTerm")
_SNAPSHOT_FIELDS = (
    *_HEADER_FIELDS,
    b"SnapshotVersion",
    b"Term",
    b"Leader",
    *_VOTE_FIELDS,
    b"Peers",
    b"Configuration",
    b"ConfigurationIndex",
    b"Size",
)

_CALLS: dict[type[Any], Call] = {
    AppendEntriesRequest: Call(
        0,
        "AppendEntries",
        _encode_append_entries,
        _decode_append_entries,
        _APPEND_FIELDS,
        _encode_append_response,
        _decode_append_response,
        (*_HEADER_FIELDS, b"Term", b"LastLog", b"Success", b"NoRetryBackoff"),
    ),
    RequestVoteRequest: Call(
        1,
        "RequestVote",
        _encode_vote,
        _decode_vote,
        (*_HEADER_FIELDS, b"Term", b"Candidate", *_VOTE_FIELDS, b"LeadershipTransfer"),
        _encode_vote_response,
        _decode_vote_response,
        (*_HEADER_FIELDS, b"Term", b"Peers", b"Granted"),
    ),
    InstallSnapshotRequest: Call(
        2,
        "InstallSnapshot",
        encode_install_snapshot,
        decode_install_snapshot,
        _SNAPSHOT_FIELDS,
        _encode_snapshot_response,
        _decode_snapshot_response,
        (*_HEADER_FIELDS, b"Term", b"Success"),
    ),
    TimeoutNowRequest: Call(
        3,
        "TimeoutNow",
        _encode_timeout_now,
        lambda fields: TimeoutNowRequest(_header(fields), _uint(fields, b"Term")),
        _HEADER_FIELDS,
        _encode_header_only,
        lambda fields: TimeoutNowResponse(_header(fields)),
        _HEADER_FIELDS,
    ),
    RequestPreVoteRequest: Call(
        4,
        "RequestPreVote",
        _encode_pre_vote,
        _decode_pre_vote,
        (*_HEADER_FIELDS, b"Term", *_VOTE_FIELDS),
        _encode_vote_response,
        _decode_pre_vote_response,
        (*_HEADER_FIELDS, b"Term", b"Granted"),
    ),
    StandingRequest: Call(
        0x70,
        "Standing",
        _encode_header_only,
        lambda fields: StandingRequest(_header(fields)),
        _HEADER_FIELDS,
        _encode_standing_response,
        _decode_standing_response,
        (*_HEADER_FIELDS, b"Term", b"LastLog", b"Configuration"),
    ),
    ReadIndexRequest: Call(
        0x71,
        "ReadIndex",
        _encode_header_only,
        lambda fields: ReadIndexRequest(_header(fields)),
        _HEADER_FIELDS,
        _encode_read_index_response,
        _decode_read_index_response,
        (*_HEADER_FIELDS, b"Term", b"Index"),
    ),
}
_BY_NUMBER = {call.number: call for call in _CALLS.values()}

APPEND_ENTRIES = _CALLS[AppendEntriesRequest]
INSTALL_SNAPSHOT = _CALLS[InstallSnapshotRequest]


def call_of(request: AnyRequest) -> Call:
    """How ``request`` is sent."""
    return _CALLS[type(request)]


def encode_request(request: AnyRequest) -> bytes:
    """The bytes of ``request``, its type's in front.

    Raises:
        TransportError: more than one message can carry.
    """
    call = _CALLS[type(request)]
    if call is INSTALL_SNAPSHOT:
        return call.encode_request(request)
    data = bytes((call.number,)) + call.encode_request(request)
    if len(data) > MAX_MESSAGE_BYTES:
        raise TransportError(f"{call.name}: {len(data)} bytes are more than one message can carry")
    return data


def read_request(reader: MessageReader) -> tuple[Call, Fields]:
    """Which call comes next, and its fields, to be decoded by ``Call.decode_request``.

    Raises:
        MalformedError: the bytes are no request that this version knows.
    """
    number = reader.value()
    call = _BY_NUMBER.get(number) if type(number) is int else None
    if call is None:
        raise MalformedError(f"unknown rpc type {number!r:.60}")
    if call is APPEND_ENTRIES:
        return call, reader.append_entries()
    return call, reader.fields(call.request_fields)


def encode_answer(call: Call, answer: AnyResponse | RaftError) -> bytes:
    """The bytes of an answer to ``call``: no error and a struct, or an error and no struct."""
    if isinstance(answer, RaftError):
        return _pack(str(answer) or type(answer).__name__) + b"\xc0"
    return b"\xa0" + call.encode_response(answer)


def read_answer(reader: MessageReader, call: Call) -> Any:
    """The next answer.

    Returns:
        The response, or the text of the error that the peer answered instead.

    Raises:
        MalformedError: the bytes are no answer.
        TransportError: its fields are not those of the response.
    """
    error, value = reader.value(), reader.value()
    if error:
        if not isinstance(error, bytes):
            raise MalformedError(f"{error!r:.60} where the text of an error should be")
        return error.decode(errors="replace")
    if isinstance(value, list):
        value = dict(zip(call.response_fields, value, strict=False))
    if not isinstance(value, dict):
        raise MalformedError(f"{value!r:.60} where an answer should be")
    return call.decode_response(value)


def _reader_of(data: bytes) -> MessageReader:
    """A reader of bytes that are all there."""
    pieces = [data]
    reader = MessageReader(lambda _: pieces.pop() if pieces else b"")
    reader.begin()
    return reader
