"""Every message of the TCP transport with every field filled: Go's bytes from ours, and ours from Go's."""

from dataclasses import fields
from pathlib import Path

import pytest

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.log import Log, LogType
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from pyraft.transport import msgpack_wire as wire
from tests.transport.test_msgpack_wire import reader

GOLDEN = {
    name: bytes.fromhex(digits)
    for name, digits in (
        line.split()
        for line in (Path(__file__).parent / "golden_tcp_full.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}

HEADER = RpcHeader("n1", "10.0.0.1:7000")
LARGEST_HEADER = RpcHeader("a server's name", "h" * 300, 127)
LARGEST = 2**64 - 1
APPENDED_AT = 1_714_979_289_123_456_789  # 2024-05-06 07:08:09.123456789 UTC
LOGS = [
    *(Log(7 + kind, 2, kind, b"hello", b"\x01\x02", APPENDED_AT) for kind in LogType),
    Log(LARGEST, LARGEST, LogType.COMMAND, b"d" * 300, b"e" * 300, APPENDED_AT),
    Log(1 << 32, 1 << 16, LogType.NOOP),
]
MEMBERS = Configuration(
    (
        Server("n1", "10.0.0.1:7000"),
        Server("n2", "10.0.0.2:7000", Suffrage.NONVOTER),
        Server("n3", "10.0.0.3:7000"),
    )
)
REQUESTS = {
    "append_entries_request": AppendEntriesRequest(HEADER, 3, 6, 2, LOGS, 5),
    "append_entries_request_largest": AppendEntriesRequest(
        LARGEST_HEADER, LARGEST, LARGEST, 1 << 32, LOGS[:1], LARGEST
    ),
    "request_vote_request": RequestVoteRequest(HEADER, 3, 12, 2, True),
    "request_pre_vote_request": RequestPreVoteRequest(HEADER, 3, 12, 2),
    "timeout_now_request": TimeoutNowRequest(HEADER),
    "install_snapshot_request": InstallSnapshotRequest(HEADER, 3, 12, 2, MEMBERS, 4, 1 << 40),
}
RESPONSES = {
    "append_entries_response": (AppendEntriesRequest, AppendEntriesResponse(HEADER, 3, 12, True, True)),
    "append_entries_response_largest": (
        AppendEntriesRequest,
        AppendEntriesResponse(LARGEST_HEADER, LARGEST, LARGEST),
    ),
    "request_vote_response": (RequestVoteRequest, RequestVoteResponse(HEADER, 3, True)),
    "request_pre_vote_response": (RequestPreVoteRequest, RequestPreVoteResponse(HEADER, 3, True)),
    "timeout_now_response": (TimeoutNowRequest, TimeoutNowResponse(HEADER)),
    "install_snapshot_response": (InstallSnapshotRequest, InstallSnapshotResponse(HEADER, 3, True)),
}
ONLY_OURS = {"hint_index", "hint_term"}


def written():
    """The bytes that we write for each message, without the type of a request and the error of an answer."""
    requests = {name: wire.encode_request(message)[1:] for name, message in REQUESTS.items()}
    answers = {
        name: wire.encode_answer(wire._CALLS[kind], answer)[1:] for name, (kind, answer) in RESPONSES.items()
    }
    return requests | answers


def test_every_message_is_there_with_every_field_filled():
    assert GOLDEN.keys() == REQUESTS.keys() | RESPONSES.keys()
    first = {type(message): message for message in reversed(REQUESTS.values())}
    first |= {type(message): message for _, message in reversed(RESPONSES.values())}
    kinds = {kind for kind, call in wire._CALLS.items() if not call.is_ours}
    assert kinds <= first.keys()
    for message in first.values():
        for field in fields(message):
            is_ours = field.name in ONLY_OURS or (type(message), field.name) == (TimeoutNowRequest, "term")
            assert is_ours or getattr(message, field.name), f"{message} has no {field.name}"


@pytest.mark.parametrize("name", GOLDEN)
def test_what_we_write_is_what_go_writes(name):
    assert written()[name] == GOLDEN[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_what_go_asks_is_read(name):
    expected = REQUESTS[name]
    number = wire.call_of(expected).number
    call, values = wire.read_request(reader(bytes((number,)) + GOLDEN[name], 7))

    assert call.decode_request(values) == expected


@pytest.mark.parametrize("name", RESPONSES)
def test_what_go_answers_is_read(name):
    kind, expected = RESPONSES[name]

    assert wire.read_answer(reader(b"\xa0" + GOLDEN[name], 7), wire._CALLS[kind]) == expected
