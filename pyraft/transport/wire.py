"""Protobuf bytes <-> messages, as github.com/Jille/raft-grpc-transport writes them.

The only module that imports generated code.

Entries are the bulk of all traffic and have been encoded already, by the leader that
appended them.  So an AppendEntries request is put together from bytes: its own fields
around the joined entries.  The receiver parses it twice: once for the fields, once with
a twin message in which entries are plain bytes, because those are what it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from google.protobuf.message import DecodeError

from ..configuration import (
    Configuration,
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)
from ..errors import CorruptStoreError, TransportError
from ..log import Log, LogType, uvarint
from ..messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    Request,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
    RpcHeader,
    StandingRequest,
    StandingResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from . import raft_transport_pb2 as pb

_LONGEST_NAMES = 4096
"""Bytes of a server's id and address together."""
_LEAST_ENTRY_BYTES = 6
"""An entry with an index and a term takes that much of a message at least."""
_FREE_ENTRIES = 256
_LOG_TYPES = {int(member): member for member in LogType}


@dataclass(frozen=True, slots=True)
class Method:
    """One call: the path it has on the wire, and its codecs.

    Decoders raise TransportError for bytes that are not the message, and nothing else.
    """

    service: str
    name: str
    encode_request: Callable[[Any], bytes]
    decode_request: Callable[[bytes], Request]
    encode_response: Callable[[Any], bytes]
    decode_response: Callable[[bytes], Response]

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


# ── the fields that every message has ──


@lru_cache(maxsize=256)
def _header_field(header: RpcHeader) -> bytes:
    # Field 1 is written even if it is empty: a Go server that misses it panics.
    encoded = _header_message(header).SerializeToString()
    return b"\x0a" + uvarint(len(encoded)) + encoded


def _header_message(header: RpcHeader) -> pb.RPCHeader:
    return pb.RPCHeader(
        protocol_version=header.protocol_version, id=header.id.encode(), addr=header.addr.encode()
    )


def _header_of(message: Any, sender: bytes = b"") -> RpcHeader:
    """Who sent ``message``; older servers name only an address, some only in a field of its own."""
    header = message.rpc_header
    return _header_values(header.id, header.addr or sender, header.protocol_version)


@lru_cache(maxsize=256)
def _header_values(id_: bytes, addr: bytes, protocol_version: int) -> RpcHeader:
    if len(id_) + len(addr) > _LONGEST_NAMES:  # they are kept, and a peer could send others each time
        raise TransportError(f"the sender's id and address have {len(id_) + len(addr)} bytes")
    try:
        return RpcHeader((id_ or addr).decode(), addr.decode(), protocol_version)
    except UnicodeDecodeError as error:
        raise TransportError(f"the sender's id or address is not UTF-8: {error}") from error


def _parse(kind: Any, data: bytes, name: str = "") -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = name or kind.DESCRIPTOR.name
        raise TransportError(f"{len(data)} bytes that are no {name}: {error}") from error


# ── AppendEntries ──


@lru_cache(maxsize=4096)
def _entry_prefix(length: int) -> bytes:
    return b"\x32" + uvarint(length)


def encode_append_entries(request: AppendEntriesRequest) -> bytes:
    address = request.header.addr.encode()
    parts = [_header_field(request.header)]
    if request.term:
        parts.append(b"\x10" + uvarint(request.term))
    if address:
        parts.append(b"\x1a" + uvarint(len(address)) + address)
    if request.prev_log_entry:
        parts.append(b"\x20" + uvarint(request.prev_log_entry))
    if request.prev_log_term:
        parts.append(b"\x28" + uvarint(request.prev_log_term))
    if request.entries:
        entries = [log.encoded for log in request.entries]
        parts += chain.from_iterable(zip(map(_entry_prefix, map(len, entries)), entries, strict=True))
    if request.leader_commit_index:
        parts.append(b"\x38" + uvarint(request.leader_commit_index))
    return b"".join(parts)


def decode_append_entries(data: bytes) -> AppendEntriesRequest:
    raw = _raw_entries(data)
    message = _parse(pb.AppendEntriesRequest, data)
    entries: Sequence[Log] = ()
    if raw:
        try:
            entries = [
                Log(e.index, e.term, _LOG_TYPES[e.type], e.data, e.extensions, None, encoded)
                for e, encoded in zip(message.entries, raw, strict=True)
            ]
        except KeyError as unknown:
            raise TransportError(
                f"an entry of the unknown type {unknown}: the sender runs a newer version; update this server"
            ) from unknown
    return AppendEntriesRequest(
        _header_of(message, message.leader),
        message.term,
        message.prev_log_entry,
        message.prev_log_term,
        entries,
        message.leader_commit_index,
    )


def _raw_entries(data: bytes) -> Sequence[bytes]:
    """The entries as they came.  Counted before they are read: an empty one takes two bytes there, and 150 here."""
    entries: Sequence[bytes] = _parse(pb.RawEntries, data, "AppendEntriesRequest").entries
    if (len(entries) - _FREE_ENTRIES) * _LEAST_ENTRY_BYTES > len(data):
        raise TransportError(f"{len(entries)} entries in {len(data)} bytes: this request is damaged")
    return entries


_HINT_INDEX, _HINT_TERM = uvarint(1001 << 3), uvarint(1002 << 3)


def encode_append_entries_response(response: AppendEntriesResponse) -> bytes:
    parts = [_header_field(response.header)]
    if response.term:
        parts.append(b"\x10" + uvarint(response.term))
    if response.last_log:
        parts.append(b"\x18" + uvarint(response.last_log))
    if response.success:
        parts.append(b"\x20\x01")
    if response.no_retry_backoff:
        parts.append(b"\x28\x01")
    if response.hint_index:
        parts.append(_HINT_INDEX + uvarint(response.hint_index))
        parts.append(_HINT_TERM + uvarint(response.hint_term))
    return b"".join(parts)


def decode_append_entries_response(data: bytes) -> AppendEntriesResponse:
    message = _parse(pb.AppendEntriesResponse, data)
    return AppendEntriesResponse(
        _header_of(message),
        message.term,
        message.last_log,
        message.success,
        message.no_retry_backoff,
        message.hint_index,
        message.hint_term,
    )


# ── votes ──


def _encode_vote_request(request: RequestVoteRequest) -> bytes:
    return pb.RequestVoteRequest(
        rpc_header=_header_message(request.header),
        term=request.term,
        candidate=request.header.addr.encode(),
        last_log_index=request.last_log_index,
        last_log_term=request.last_log_term,
        leadership_transfer=request.leadership_transfer,
    ).SerializeToString()


def _decode_vote_request(data: bytes) -> RequestVoteRequest:
    message = _parse(pb.RequestVoteRequest, data)
    return RequestVoteRequest(
        _header_of(message, message.candidate),
        message.term,
        message.last_log_index,
        message.last_log_term,
        message.leadership_transfer,
    )


def _encode_vote_response(response: RequestVoteResponse) -> bytes:
    return pb.RequestVoteResponse(
        rpc_header=_header_message(response.header), term=response.term, granted=response.granted
    ).SerializeToString()


def _decode_vote_response(data: bytes) -> RequestVoteResponse:
    message = _parse(pb.RequestVoteResponse, data)
    return RequestVoteResponse(_header_of(message), message.term, message.granted)


def _encode_pre_vote_request(request: RequestPreVoteRequest) -> bytes:
    return pb.RequestPreVoteRequest(
        rpc_header=_header_message(request.header),
        term=request.term,
        last_log_index=request.last_log_index,
        last_log_term=request.last_log_term,
    ).SerializeToString()


def _decode_pre_vote_request(data: bytes) -> RequestPreVoteRequest:
    message = _parse(pb.RequestPreVoteRequest, data)
    return RequestPreVoteRequest(
        _header_of(message), message.term, message.last_log_index, message.last_log_term
    )


def _encode_pre_vote_response(response: RequestPreVoteResponse) -> bytes:
    return pb.RequestPreVoteResponse(
        rpc_header=_header_message(response.header), term=response.term, granted=response.granted
    ).SerializeToString()


def _decode_pre_vote_response(data: bytes) -> RequestPreVoteResponse:
    message = _parse(pb.RequestPreVoteResponse, data)
    return RequestPreVoteResponse(_header_of(message), message.term, message.granted)


# ── the rest ──


def _encode_header_only(message: TimeoutNowResponse | StandingRequest | ReadIndexRequest) -> bytes:
    return _header_field(message.header)


def _encode_timeout_now_request(request: TimeoutNowRequest) -> bytes:
    return pb.TimeoutNowRequest(
        rpc_header=_header_message(request.header), term=request.term
    ).SerializeToString()


def _decode_timeout_now_request(data: bytes) -> TimeoutNowRequest:
    message = _parse(pb.TimeoutNowRequest, data)
    return TimeoutNowRequest(_header_of(message), message.term)


def _decode_timeout_now_response(data: bytes) -> TimeoutNowResponse:
    return TimeoutNowResponse(_header_of(_parse(pb.TimeoutNowResponse, data)))


def _decode_standing_request(data: bytes) -> StandingRequest:
    return StandingRequest(_header_of(_parse(pb.StandingRequest, data)))


def _encode_standing_response(response: StandingResponse) -> bytes:
    return pb.StandingResponse(
        rpc_header=_header_message(response.header),
        term=response.term,
        last_log=response.last_log,
        configuration=encode_configuration(response.configuration),
    ).SerializeToString()


def _decode_standing_response(data: bytes) -> StandingResponse:
    message = _parse(pb.StandingResponse, data)
    configuration = Configuration()
    if message.configuration:
        try:
            configuration = decode_configuration(message.configuration)
        except CorruptStoreError as error:
            raise TransportError(f"a configuration that cannot be read: {error}") from error
    return StandingResponse(_header_of(message), message.term, message.last_log, configuration)


def _decode_read_index_request(data: bytes) -> ReadIndexRequest:
    return ReadIndexRequest(_header_of(_parse(pb.ReadIndexRequest, data)))


def _encode_read_index_response(response: ReadIndexResponse) -> bytes:
    return pb.ReadIndexResponse(
        rpc_header=_header_message(response.header), term=response.term, index=response.index
    ).SerializeToString()


def _decode_read_index_response(data: bytes) -> ReadIndexResponse:
    message = _parse(pb.ReadIndexResponse, data)
    return ReadIndexResponse(_header_of(message), message.term, message.index)


# ── InstallSnapshot: one message of metadata, then messages that have only data ──

INSTALL_SNAPSHOT = "InstallSnapshot"
"""The name of the call, in the service of Go's."""

_LARGEST_SNAPSHOT_BYTES = 2**60
"""An exbibyte: no disk holds that, so whoever announces more is mistaken."""
_NEWEST_SNAPSHOT_VERSION = 1


def encode_install_snapshot(request: InstallSnapshotRequest) -> bytes:
    """The first message of the stream.

    Raises:
        TransportError: no snapshot can have that size.
    """
    _check_size(request.size)
    with_configuration = request.snapshot_version > 0
    return pb.InstallSnapshotRequest(
        rpc_header=_header_message(request.header),
        term=request.term,
        leader=request.header.addr.encode(),
        last_log_index=request.last_log_index,
        last_log_term=request.last_log_term,
        peers=encode_peers(request.configuration),
        configuration=encode_configuration(request.configuration) if with_configuration else b"",
        configuration_index=request.configuration_index if with_configuration else 0,
        size=request.size,
        snapshot_version=request.snapshot_version,
    ).SerializeToString()


def decode_install_snapshot(data: bytes) -> tuple[InstallSnapshotRequest, bytes]:
    """The first message of the stream: the request, and the snapshot's first bytes (may be none).

    Raises:
        TransportError: the bytes are not the message, or announce what cannot be.
    """
    message = _parse(pb.InstallSnapshotRequest, data)
    _check_size(message.size)
    if not 0 <= message.snapshot_version <= _NEWEST_SNAPSHOT_VERSION:
        raise TransportError(
            f"a snapshot of the unknown version {message.snapshot_version}: "
            f"the sender runs a newer version; update this server"
        )
    # Version 0 is older than configurations: whoever is in it votes, as of the snapshot's index.
    has_configuration = message.snapshot_version > 0
    try:
        configuration = (
            decode_configuration(message.configuration) if has_configuration else decode_peers(message.peers)
        )
    except CorruptStoreError as error:
        what = "configuration" if has_configuration else "peers"
        raise TransportError(f"failed to decode {what}: {error}") from error
    request = InstallSnapshotRequest(
        _header_of(message, message.leader),
        message.term,
        message.last_log_index,
        message.last_log_term,
        configuration,
        message.configuration_index if has_configuration else message.last_log_index,
        message.size,
        message.snapshot_version,
    )
    return request, message.data


def encode_snapshot_chunk(data: bytes) -> bytes:
    """A later message of the stream."""
    return b"\x52" + uvarint(len(data)) + data


def decode_snapshot_chunk(data: bytes) -> bytes:
    """What a later message of the stream carries.

    Raises:
        TransportError: the bytes are not the message.
    """
    chunk: bytes = _parse(pb.InstallSnapshotRequest, data).data
    return chunk


def encode_install_snapshot_response(response: InstallSnapshotResponse) -> bytes:
    return pb.InstallSnapshotResponse(
        rpc_header=_header_message(response.header), term=response.term, success=response.success
    ).SerializeToString()


def decode_install_snapshot_response(data: bytes) -> InstallSnapshotResponse:
    """Raises TransportError: the bytes are not the message."""
    message = _parse(pb.InstallSnapshotResponse, data)
    return InstallSnapshotResponse(_header_of(message), message.term, message.success)


def _check_size(size: int) -> None:
    if not 0 <= size <= _LARGEST_SNAPSHOT_BYTES:
        raise TransportError(f"a snapshot of {size} bytes cannot be: this request is damaged")


_RAFT, _OURS = "RaftTransport", "PyRaft"

PIPELINE = Method(
    _RAFT,
    "AppendEntriesPipeline",
    encode_append_entries,
    decode_append_entries,
    encode_append_entries_response,
    decode_append_entries_response,
)
"""A stream in both directions, answered in order."""

METHODS: dict[type[Request], Method] = {
    AppendEntriesRequest: Method(
        _RAFT,
        "AppendEntries",
        encode_append_entries,
        decode_append_entries,
        encode_append_entries_response,
        decode_append_entries_response,
    ),
    RequestVoteRequest: Method(
        _RAFT,
        "RequestVote",
        _encode_vote_request,
        _decode_vote_request,
        _encode_vote_response,
        _decode_vote_response,
    ),
    RequestPreVoteRequest: Method(
        _RAFT,
        "RequestPreVote",
        _encode_pre_vote_request,
        _decode_pre_vote_request,
        _encode_pre_vote_response,
        _decode_pre_vote_response,
    ),
    TimeoutNowRequest: Method(
        _RAFT,
        "TimeoutNow",
        _encode_timeout_now_request,
        _decode_timeout_now_request,
        _encode_header_only,
        _decode_timeout_now_response,
    ),
    StandingRequest: Method(
        _OURS,
        "Standing",
        _encode_header_only,
        _decode_standing_request,
        _encode_standing_response,
        _decode_standing_response,
    ),
    ReadIndexRequest: Method(
        _OURS,
        "ReadIndex",
        _encode_header_only,
        _decode_read_index_request,
        _encode_read_index_response,
        _decode_read_index_response,
    ),
}
"""The calls with one request and one response, by the type of the request."""
