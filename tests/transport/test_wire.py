"""What goes over the wire is, byte for byte, what the Go library writes."""

import random
from pathlib import Path

import pytest

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.errors import TransportError
from pyraft.log import Log, LogType, decode_log
from pyraft.messages import (
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
from pyraft.transport import wire
from pyraft.transport.wire import METHODS, PIPELINE

GOLDEN = {
    name: b"" if text == "-" else bytes.fromhex(text)
    for name, text in (
        line.split()
        for line in (Path(__file__).parent / "golden_grpc.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}

HEADER = RpcHeader("n1", "10.0.0.1:7000", 3)
EMPTY = RpcHeader("", "", 0)
LARGEST = 2**64 - 1

APPENDED_AT = 1_714_979_289_123_456_789  # 2024-05-06 07:08:09.123456789 UTC
GO_ZERO_TIME = -62_135_596_800 * 10**9
LOGS = {
    "log_command": Log(7, 2, LogType.COMMAND, b"hello", b"\x01\x02", APPENDED_AT),
    "log_noop": Log(8, 3, LogType.NOOP, appended_at=GO_ZERO_TIME),
    "log_add_peer": Log(9, 3, LogType.ADD_PEER_DEPRECATED, b"\x90", appended_at=APPENDED_AT),
    "log_remove_peer": Log(10, 3, LogType.REMOVE_PEER_DEPRECATED, b"\x90", appended_at=APPENDED_AT),
    "log_barrier": Log(11, 3, LogType.BARRIER, appended_at=APPENDED_AT),
    "log_configuration": Log(300, LARGEST, LogType.CONFIGURATION, bytes(200)),
    "log_zero": Log(),
}
ALL_LOGS = tuple(LOGS.values())

APPEND, VOTE = METHODS[AppendEntriesRequest], METHODS[RequestVoteRequest]
PRE_VOTE, TIMEOUT_NOW = METHODS[RequestPreVoteRequest], METHODS[TimeoutNowRequest]

REQUESTS = {
    "append_entries_request": (APPEND, AppendEntriesRequest(HEADER, 3, 6, 2, ALL_LOGS, 5)),
    "append_entries_request_large": (
        APPEND,
        AppendEntriesRequest(HEADER, LARGEST, LARGEST, 1 << 32, ALL_LOGS[:1], LARGEST),
    ),
    "append_entries_request_heartbeat": (APPEND, AppendEntriesRequest(HEADER, 3)),
    "append_entries_request_no_entries": (APPEND, AppendEntriesRequest(HEADER, 3, 6, 2, (), 5)),
    "append_entries_request_defaults": (APPEND, AppendEntriesRequest(EMPTY, 0)),
    "request_vote_request": (VOTE, RequestVoteRequest(HEADER, 3, 12, 2, True)),
    "request_vote_request_defaults": (VOTE, RequestVoteRequest(EMPTY, 0, 0, 0)),
    "request_pre_vote_request": (PRE_VOTE, RequestPreVoteRequest(HEADER, 3, 12, 2)),
    "request_pre_vote_request_defaults": (PRE_VOTE, RequestPreVoteRequest(EMPTY, 0, 0, 0)),
    "timeout_now_request": (TIMEOUT_NOW, TimeoutNowRequest(HEADER)),
    "timeout_now_request_defaults": (TIMEOUT_NOW, TimeoutNowRequest(EMPTY)),
}
RESPONSES = {
    "append_entries_response": (APPEND, AppendEntriesResponse(HEADER, 3, 12, True, True)),
    "append_entries_response_defaults": (APPEND, AppendEntriesResponse(EMPTY, 0)),
    "request_vote_response": (VOTE, RequestVoteResponse(HEADER, 3, True)),
    "request_vote_response_defaults": (VOTE, RequestVoteResponse(EMPTY, 0)),
    "request_pre_vote_response": (PRE_VOTE, RequestPreVoteResponse(HEADER, 3, True)),
    "request_pre_vote_response_defaults": (PRE_VOTE, RequestPreVoteResponse(EMPTY, 0)),
    "timeout_now_response": (TIMEOUT_NOW, TimeoutNowResponse(HEADER)),
}
MEMBERS = Configuration(
    (
        Server("n1", "10.0.0.1:7000"),
        Server("n2", "10.0.0.2:7000", Suffrage.NONVOTER),
        Server("n3", "10.0.0.3:7000"),
    )
)
SNAPSHOT_REQUESTS = {
    "install_snapshot_request_full": InstallSnapshotRequest(HEADER, 3, 12, 2, MEMBERS, 4, 1 << 40),
    "install_snapshot_request_empty": InstallSnapshotRequest(EMPTY, 0, 0, 0, Configuration(), 0, 0),
}
SNAPSHOT_RESPONSES = {
    "install_snapshot_response": InstallSnapshotResponse(HEADER, 3, True),
    "install_snapshot_response_defaults": InstallSnapshotResponse(EMPTY, 0),
}
# What Go may send and we never do.
ONLY_FROM_GO = {
    "request_vote_response_peers",
    "timeout_now_response_no_header",
    "install_snapshot_request",  # its configuration is cut short
    "install_snapshot_request_version_0",
}


def test_every_golden_line_is_checked():
    ours = LOGS | REQUESTS | RESPONSES | SNAPSHOT_REQUESTS | SNAPSHOT_RESPONSES
    assert GOLDEN.keys() == ours.keys() | ONLY_FROM_GO | {"install_snapshot_request_data"}


@pytest.mark.parametrize("name", LOGS)
def test_an_entry_is_encoded_as_go_does(name):
    assert LOGS[name].encoded == GOLDEN[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_encoded_as_go_does_and_decoded_back(name):
    method, request = REQUESTS[name]
    assert method.encode_request(request) == GOLDEN[name]
    decoded = method.decode_request(GOLDEN[name])
    assert type(decoded) is type(request)
    if isinstance(request, AppendEntriesRequest):
        assert list(decoded.entries) == list(request.entries)
        assert [log.encoded for log in decoded.entries] == [log.encoded for log in request.entries]
        decoded = AppendEntriesRequest(
            decoded.header,
            decoded.term,
            decoded.prev_log_entry,
            decoded.prev_log_term,
            request.entries,
            decoded.leader_commit_index,
        )
    assert decoded == request


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_encoded_as_go_does_and_decoded_back(name):
    method, response = RESPONSES[name]
    assert method.encode_response(response) == GOLDEN[name]
    assert method.decode_response(GOLDEN[name]) == response


def test_what_only_go_sends_is_understood():
    assert VOTE.decode_response(GOLDEN["request_vote_response_peers"]) == RequestVoteResponse(HEADER, 3, True)
    assert TIMEOUT_NOW.decode_response(b"") == TimeoutNowResponse(EMPTY)


@pytest.mark.parametrize("name", SNAPSHOT_REQUESTS)
def test_a_snapshot_is_announced_as_go_does(name):
    request = SNAPSHOT_REQUESTS[name]
    assert wire.encode_install_snapshot(request) == GOLDEN[name]
    assert wire.decode_install_snapshot(GOLDEN[name]) == (request, b"")


@pytest.mark.parametrize("name", SNAPSHOT_RESPONSES)
def test_a_snapshot_is_answered_as_go_does(name):
    response = SNAPSHOT_RESPONSES[name]
    assert wire.encode_install_snapshot_response(response) == GOLDEN[name]
    assert wire.decode_install_snapshot_response(GOLDEN[name]) == response


def test_a_snapshot_s_bytes_are_sent_as_go_does():
    assert wire.encode_snapshot_chunk(b"chunk") == GOLDEN["install_snapshot_request_data"]
    assert wire.decode_snapshot_chunk(GOLDEN["install_snapshot_request_data"]) == b"chunk"
    assert wire.decode_snapshot_chunk(wire.encode_snapshot_chunk(bytes(200_000))) == bytes(200_000)


def test_the_first_message_of_a_snapshot_may_carry_bytes():
    request = SNAPSHOT_REQUESTS["install_snapshot_request_full"]
    data = GOLDEN["install_snapshot_request_full"] + wire.encode_snapshot_chunk(b"first")
    assert wire.decode_install_snapshot(data) == (request, b"first")


def test_a_snapshot_from_before_configurations_has_the_voters_as_of_its_index():
    request, _ = wire.decode_install_snapshot(GOLDEN["install_snapshot_request_version_0"])
    voters = Configuration.of_voters({"10.0.0.1:7000": "10.0.0.1:7000", "10.0.0.3:7000": "10.0.0.3:7000"})
    assert request == InstallSnapshotRequest(HEADER, 3, 12, 2, voters, 12, 7, snapshot_version=0)
    # Sent on, it is what Go sent.
    assert wire.encode_install_snapshot(request) == GOLDEN["install_snapshot_request_version_0"]


def announced(**fields):
    message = wire.pb.InstallSnapshotRequest.FromString(GOLDEN["install_snapshot_request_full"])
    for name, value in fields.items():
        setattr(message, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (announced(size=-1), "-1 bytes"),
        (announced(size=2**63 - 1), "cannot be"),
        (announced(configuration=b"\x81"), "failed to decode configuration"),
        (announced(configuration=b""), "failed to decode configuration"),
        (announced(snapshot_version=0, peers=b""), "failed to decode peers"),
        (announced(snapshot_version=0, peers=b"\xa2a1"), "failed to decode peers"),
        (announced(snapshot_version=0, peers=b"\x92\xa2a1\x07"), "failed to decode peers"),
        (announced(snapshot_version=0, peers=b"\x91\xa1\xff"), "failed to decode peers"),
        (announced(snapshot_version=2), "unknown version 2.*update"),
        (announced(snapshot_version=-1), "unknown version -1"),
        (b"\xff", "InstallSnapshotRequest"),
    ],
)
def test_what_cannot_be_a_snapshot_is_a_transport_error_that_says_why(data, text):
    with pytest.raises(TransportError, match=text):
        wire.decode_install_snapshot(data)


@pytest.mark.parametrize("size", [-1, 2**61, 2**64])
def test_a_snapshot_of_an_impossible_size_is_not_sent(size):
    with pytest.raises(TransportError, match="cannot be"):
        wire.encode_install_snapshot(InstallSnapshotRequest(HEADER, 3, 12, 2, MEMBERS, 4, size))


@pytest.mark.parametrize(
    ("path", "request_", "answer"),
    [
        ("/PyRaft/Standing", StandingRequest(HEADER), StandingResponse(HEADER, 7, 42)),
        ("/PyRaft/ReadIndex", ReadIndexRequest(HEADER), ReadIndexResponse(HEADER, 7, LARGEST)),
    ],
)
def test_our_own_calls_round_trip(path, request_, answer):
    method = METHODS[type(request_)]
    assert method.path == path
    assert method.decode_request(method.encode_request(request_)) == request_
    assert method.decode_response(method.encode_response(answer)) == answer


def test_the_term_of_timeout_now_is_a_field_that_go_does_not_know():
    request = TimeoutNowRequest(HEADER, LARGEST)
    data = TIMEOUT_NOW.encode_request(request)
    assert TIMEOUT_NOW.decode_request(data) == request
    # What Go knows of it comes first and is the same; then field 1001, a varint.
    assert data.removeprefix(GOLDEN["timeout_now_request"]).startswith(b"\xc8\x3e")


def test_paths_are_those_of_go():
    assert {method.path for method in METHODS.values()} | {PIPELINE.path} == {
        "/RaftTransport/AppendEntries",
        "/RaftTransport/AppendEntriesPipeline",
        "/RaftTransport/RequestVote",
        "/RaftTransport/RequestPreVote",
        "/RaftTransport/TimeoutNow",
        "/PyRaft/Standing",
        "/PyRaft/ReadIndex",
    }


def test_received_entries_keep_the_bytes_they_came_as():
    # Fields out of order and one that we do not know: still the same entry, and the same bytes.
    odd = b"\x22\x02hi" + b"\xc2\x3e\x01x" + b"\x10\x02" + b"\x08\x05"
    data = APPEND.encode_request(AppendEntriesRequest(HEADER, 3, 4, 2, (Log(encoded=odd),), 4))

    (log,) = APPEND.decode_request(data).entries

    assert log == Log(5, 2, LogType.COMMAND, b"hi")
    assert log.encoded == odd
    assert decode_log(log.encoded) == log


def test_entries_that_were_received_are_sent_on_unchanged():
    first = APPEND.encode_request(AppendEntriesRequest(HEADER, 3, 6, 2, ALL_LOGS, 5))
    assert APPEND.encode_request(APPEND.decode_request(first)) == first


def test_the_time_of_an_entry_is_read_when_somebody_asks():
    data = GOLDEN["append_entries_request"]
    assert [log.appended_at for log in APPEND.decode_request(data).entries] == [
        log.appended_at for log in ALL_LOGS
    ]


def test_a_message_without_header_has_an_empty_one():
    assert APPEND.decode_request(b"\x10\x03").header == EMPTY
    assert APPEND.decode_response(b"\x10\x03").header == EMPTY


def test_the_sender_falls_back_to_its_address():
    by_address = RpcHeader("", "10.0.0.1:7000", 2)
    assert PRE_VOTE.decode_request(
        PRE_VOTE.encode_request(RequestPreVoteRequest(by_address, 1, 0, 0))
    ).header == (RpcHeader("10.0.0.1:7000", "10.0.0.1:7000", 2))
    only_leader = b"\x10\x03\x1a\x0d10.0.0.1:7000"
    assert APPEND.decode_request(only_leader).header.addr == "10.0.0.1:7000"


def test_an_entry_of_an_unknown_type_is_a_transport_error_that_says_what_to_do():
    data = APPEND.encode_request(AppendEntriesRequest(HEADER, 3, entries=(Log(encoded=b"\x08\x01\x18\x09"),)))
    with pytest.raises(TransportError, match=r"unknown type 9.*update"):
        APPEND.decode_request(data)


def test_an_id_that_is_no_text_is_a_transport_error():
    with pytest.raises(TransportError, match="UTF-8"):
        TIMEOUT_NOW.decode_request(b"\x0a\x03\x12\x01\xff")


DECODERS = {
    **{f"{m.name}_request": m.decode_request for m in [*METHODS.values(), PIPELINE]},
    **{f"{m.name}_response": m.decode_response for m in [*METHODS.values(), PIPELINE]},
    "InstallSnapshot_request": wire.decode_install_snapshot,
    "InstallSnapshot_data": wire.decode_snapshot_chunk,
    "InstallSnapshot_response": wire.decode_install_snapshot_response,
}


@pytest.mark.parametrize("name", DECODERS)
def test_garbage_is_a_transport_error_and_never_another_exception(name):
    rng = random.Random(7)
    samples = [rng.randbytes(rng.randrange(1, 60)) for _ in range(500)]
    for data in GOLDEN.values():  # cut short, and with one byte changed
        samples += [data[:cut] for cut in range(0, len(data), 7)]
        for _ in range(20):
            if data:
                at = rng.randrange(len(data))
                samples.append(data[:at] + rng.randbytes(1) + data[at + 1 :])
    refused = 0
    for data in samples:
        try:
            DECODERS[name](data)
        except TransportError:
            refused += 1
    assert refused > 100


def test_entries_are_not_encoded_again_for_each_follower(monkeypatch):
    encoded = []
    monkeypatch.setattr("pyraft.log.encode_log", lambda log: encoded.append(log.index) or b"\x08\x01")
    logs = [Log(i, 1, LogType.COMMAND, b"x") for i in range(1, 4)]
    for _follower in range(3):
        wire.encode_append_entries(AppendEntriesRequest(HEADER, 1, entries=logs))
    assert encoded == [1, 2, 3]
