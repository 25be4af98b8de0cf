"""What goes over TCP is, byte for byte, what the Go library writes; and what it must not do to us."""

import random
import tracemalloc
from itertools import chain
from pathlib import Path

import msgpack
import pytest

from pyraft.configuration import Configuration, Server, Suffrage, encode_configuration
from pyraft.errors import RaftError, TransportError
from pyraft.log import Log, LogType
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
from pyraft.transport import msgpack_wire as wire

GOLDEN = {
    name: bytes.fromhex(digits)
    for name, digits in (
        line.split()
        for line in (Path(__file__).parent / "golden_tcp.txt").read_text().splitlines()
        if not line.startswith("#")
    )
}

LEADER, FOLLOWER = RpcHeader("n1", "127.0.0.1:9001"), RpcHeader("n2", "127.0.0.1:9002")
NOBODY = RpcHeader("", "", 0)
LARGEST = 2**64 - 1
APPENDED_AT = 1_714_979_289_123_456_789  # 2024-05-06 07:08:09.123456789 UTC
HELLO = Log(7, 2, LogType.COMMAND, b"hello", appended_at=APPENDED_AT)
WITH_EXTENSIONS = Log(70_000, 300, LogType.CONFIGURATION, b"", b"\x01\x02")
ONE = Configuration((Server("n1", "a1"),))
SUFFRAGES = Configuration(
    (Server("n1", "a1"), Server("n2", "a2", Suffrage.NONVOTER), Server("n3", "a3", Suffrage.STAGING))
)

REQUESTS = {
    "heartbeat": AppendEntriesRequest(LEADER, 2),
    "appendentries": AppendEntriesRequest(LEADER, 2, 9, 1, [HELLO], 9),
    "appendentries_empty_slice": AppendEntriesRequest(LEADER, 2, 9, 1, [], 9),
    "requestvote": RequestVoteRequest(LEADER, 3, 10, 2, True),
    "requestprevote": RequestPreVoteRequest(LEADER, 3, 10, 2),
    "timeoutnow": TimeoutNowRequest(LEADER),
}
RESPONSES = {
    "heartbeat": (REQUESTS["heartbeat"], AppendEntriesResponse(FOLLOWER, 2, 9, True)),
    "appendentries": (REQUESTS["appendentries"], AppendEntriesResponse(FOLLOWER, 2, 10, True)),
    "appendentries_empty_slice": (
        REQUESTS["appendentries_empty_slice"],
        AppendEntriesResponse(FOLLOWER, 2, 10, True),
    ),
    "requestvote": (REQUESTS["requestvote"], RequestVoteResponse(FOLLOWER, 3, True)),
    "requestprevote": (REQUESTS["requestprevote"], RequestPreVoteResponse(FOLLOWER, 3, True)),
    "timeoutnow": (REQUESTS["timeoutnow"], TimeoutNowResponse(NOBODY)),
}
SNAPSHOT = InstallSnapshotRequest(
    LEADER, 2, 10, 2, Configuration((Server("n1", "a1"),)), 1, len(b"hello world")
)


def reader(data, step=1 << 20, **options):
    """A reader of a stream that brings ``data`` in pieces of ``step`` bytes."""
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    made = wire.MessageReader(lambda _: next(pieces, b""), **options)
    made.begin()
    return made


def read(data, step=1 << 20):
    call, fields = wire.read_request(reader(data, step))
    return call.decode_request(fields)


def read_answer(data, request, step=1 << 20):
    return wire.read_answer(reader(data, step), wire.call_of(request))


def same(a, b):
    if isinstance(a, AppendEntriesRequest):
        assert [log.encoded for log in a.entries] == [log.encoded for log in b.entries]
        a = AppendEntriesRequest(
            a.header, a.term, a.prev_log_entry, a.prev_log_term, list(a.entries), a.leader_commit_index
        )
        b = AppendEntriesRequest(
            b.header, b.term, b.prev_log_entry, b.prev_log_term, list(b.entries), b.leader_commit_index
        )
    return a == b


# ── Go's bytes ──


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_requests_are_gos_bytes_and_gos_bytes_are_requests(name, step):
    assert wire.encode_request(REQUESTS[name]) == GOLDEN[f"{name}_request"]
    assert same(read(GOLDEN[f"{name}_request"], step), REQUESTS[name])


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_answers_are_gos_bytes_and_gos_bytes_are_answers(name, step):
    request, response = RESPONSES[name]
    assert wire.encode_answer(wire.call_of(request), response) == GOLDEN[f"{name}_response"]
    assert read_answer(GOLDEN[f"{name}_response"], request, step) == response


def test_errors_are_gos_bytes_and_gos_bytes_are_errors():
    text = "operation not supported with current protocol version"
    assert wire.encode_answer(wire.APPEND_ENTRIES, RaftError(text)) == GOLDEN["error_nil_resp_response"]
    request = REQUESTS["heartbeat"]
    assert read_answer(GOLDEN["error_nil_resp_response"], request) == text
    assert read_answer(GOLDEN["error_with_resp_response"], request) == "boom"
    assert read(GOLDEN["error_nil_resp_request"]) == AppendEntriesRequest(LEADER, 99, 1, 0, [])
    assert read(GOLDEN["error_with_resp_request"]) == AppendEntriesRequest(LEADER, 98, 1, 0, [])


def test_a_snapshots_request_is_gos_bytes_and_its_bytes_stay_in_the_stream():
    golden = GOLDEN["installsnapshot_request"]
    # Go wrote other voters into the old field Peers than into Configuration; that alone differs.
    peers = wire._pack("Peers") + b"\xaa" + bytes.fromhex("92a26131a56164647233")
    ours = wire._pack("Peers") + b"\xa4" + bytes.fromhex("91a26131")
    assert wire.encode_request(SNAPSHOT) == golden.removesuffix(b"hello world").replace(peers, ours)
    for step in (1, 1000):
        stream = reader(golden, step)
        call, fields = wire.read_request(stream)
        assert call.decode_request(fields) == SNAPSHOT
        assert wire.size_of_snapshot(fields) == 11
        assert not wire.takes_early_answer(fields)
        assert stream.raw(100) == (b"hello world" if step == 1000 else b"")
    response = InstallSnapshotResponse(NOBODY, 2, True)
    assert wire.encode_answer(wire.INSTALL_SNAPSHOT, response) == GOLDEN["installsnapshot_response"]
    assert read_answer(GOLDEN["installsnapshot_response"], SNAPSHOT) == response


def test_a_sender_that_takes_an_early_answer_says_so_in_a_key_that_go_skips():
    _, fields = wire.read_request(reader(wire.encode_install_snapshot(SNAPSHOT, takes_early_answer=True)))
    assert wire.takes_early_answer(fields)
    assert wire.decode_install_snapshot(fields) == SNAPSHOT
    assert list(fields) == sorted(fields)


@pytest.mark.parametrize("size", [0, 127, 128, 255, 32_767, 32_768, 65_535, 2**31 - 1, 2**31, 2**40])
def test_a_signed_number_is_written_as_go_does(size):
    lines = {
        0: "00",
        127: "7f",
        128: "d10080",
        255: "d100ff",
        32_767: "d17fff",
        32_768: "d200008000",
        65_535: "d20000ffff",
        2**31 - 1: "d27fffffff",
        2**31: "d30000000080000000",
        2**40: "d30000010000000000",
    }
    assert wire._int(size).hex() == lines[size]
    assert msgpack.unpackb(wire._int(-size)) == -size


def test_entries_are_gos_bytes():
    assert wire.encode_log(HELLO) == GOLDEN["log_old_time"]
    assert wire.encode_log(Log()) == GOLDEN["log_zero"]
    # Go tells an empty slice from nil; we know only empty, and write nil.
    nil_data = GOLDEN["log_ext"].replace(b"\xa4Data\xa0", b"\xa4Data\xc0")
    assert wire.encode_log(WITH_EXTENSIONS) == nil_data


@pytest.mark.parametrize(
    ("name", "log"),
    [
        ("log_old_time", HELLO),
        ("log_new_time", HELLO),
        ("log_zero", Log()),
        ("log_ext", WITH_EXTENSIONS),
    ],
)
def test_gos_bytes_are_entries(name, log):
    got = wire.decode_log(GOLDEN[name])
    assert got == log
    assert got.encoded == log.encoded


@pytest.mark.parametrize(
    ("name", "instant"),
    [
        ("time_timenotbuiltin_true_default_utc", APPENDED_AT),
        ("time_timenotbuiltin_false_new_fmt", APPENDED_AT),
        ("time_02_00_old", APPENDED_AT),
        ("zero_time_old", 0),
        ("zero_time_new", 0),
    ],
)
def test_times_of_either_format_are_read(name, instant):
    assert wire._decode_time(msgpack.unpackb(GOLDEN[name], raw=True)) == instant


def test_configurations_are_gos_bytes():
    assert encode_configuration(SUFFRAGES) == GOLDEN["configuration_voter_nonvoter_staging"]
    standing = StandingResponse(LEADER, 3, 7, SUFFRAGES)
    data = wire.encode_answer(wire.call_of(StandingRequest()), standing)
    assert GOLDEN["configuration_voter_nonvoter_staging"] in data
    assert read_answer(data, StandingRequest()) == standing


# ── every field, every size ──

EVERY_REQUEST = [
    AppendEntriesRequest(
        LEADER,
        LARGEST,
        LARGEST - 1,
        2**32,
        [
            HELLO,
            WITH_EXTENSIONS,
            Log(LARGEST, LARGEST, LogType.BARRIER, bytes(70_000), b"x" * 300, -1),
            *(Log(i, 2, kind, appended_at=APPENDED_AT + i) for i, kind in enumerate(LogType)),
            *(Log(i, 3, LogType.COMMAND, bytes(i % 7)) for i in range(5000)),
        ],
        LARGEST - 2,
    ),
    RequestVoteRequest(RpcHeader("é" * 40, "x" * 300, 2), LARGEST, 2**32, 2**16, True),
    RequestVoteRequest(LEADER, 0, 0, 0, False),
    RequestPreVoteRequest(LEADER, LARGEST, 2**32, 2**16),
    TimeoutNowRequest(LEADER, LARGEST),
    StandingRequest(LEADER),
    ReadIndexRequest(LEADER),
    InstallSnapshotRequest(LEADER, LARGEST, 2**63, 2**40, SUFFRAGES, 2**33, 2**60),
    InstallSnapshotRequest(LEADER, 1, 12, 1, Configuration((Server("a1", "a1"),)), 12, 128, 0),
]
EVERY_ANSWER = [
    (EVERY_REQUEST[0], AppendEntriesResponse(FOLLOWER, LARGEST, 2**63, False, True, 2**62, 2**61)),
    (EVERY_REQUEST[1], RequestVoteResponse(FOLLOWER, LARGEST, False)),
    (EVERY_REQUEST[3], RequestPreVoteResponse(FOLLOWER, LARGEST, True)),
    (EVERY_REQUEST[4], TimeoutNowResponse(FOLLOWER)),
    (EVERY_REQUEST[5], StandingResponse(FOLLOWER, LARGEST, 2**62, SUFFRAGES)),
    (EVERY_REQUEST[6], ReadIndexResponse(FOLLOWER, LARGEST, 2**62)),
    (EVERY_REQUEST[7], InstallSnapshotResponse(FOLLOWER, LARGEST, False)),
]


@pytest.mark.parametrize("request_", EVERY_REQUEST, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("step", [997, 1 << 20])
def test_every_field_of_a_request_arrives(request_, step):
    data = wire.encode_request(request_)
    stream = reader(data, step)
    call, fields = wire.read_request(stream)
    assert same(call.decode_request(fields), request_)
    assert list(fields) == sorted(fields)
    assert stream.message_bytes == len(data)


@pytest.mark.parametrize(("request_", "answer"), EVERY_ANSWER, ids=lambda one: type(one).__name__)
def test_every_field_of_an_answer_arrives(request_, answer):
    data = wire.encode_answer(wire.call_of(request_), answer)
    assert read_answer(data, request_, 13) == answer


def test_messages_follow_each_other_on_one_stream():
    requests = [r for r in EVERY_REQUEST if not isinstance(r, InstallSnapshotRequest)]
    data = b"".join(wire.encode_request(request) for request in requests)
    pieces = (data[at : at + 4096] for at in range(0, len(data), 4096))
    stream = wire.MessageReader(lambda _: next(pieces, b""))
    for request in requests:
        assert stream.begin()
        call, fields = wire.read_request(stream)
        assert same(call.decode_request(fields), request)
    assert not stream.begin()


# ── what Go takes, we take ──


def test_other_writers_of_msgpack_are_understood():
    fields = {
        b"Zone": [1, 2, {b"x": None}],
        b"Term": 3,
        b"ID": b"n1",
        b"Addr": b"127.0.0.1:9001",
        b"ProtocolVersion": 3,
        b"LastLogTerm": 2,
        b"LastLogIndex": 10,
    }
    expected = RequestPreVoteRequest(LEADER, 3, 10, 2)
    assert read(b"\x04" + msgpack.packb(fields, use_bin_type=True)) == expected
    texts = {k.decode(): v.decode() if isinstance(v, bytes) else v for k, v in fields.items() if k != b"Zone"}
    assert read(b"\x04" + msgpack.packb(texts, use_bin_type=True)) == expected
    in_order = [3, b"n1", b"127.0.0.1:9001", 3, 10, 2]
    assert read(b"\x04" + msgpack.packb(in_order)) == expected
    assert read(b"\x04\x80") == RequestPreVoteRequest(NOBODY, 0, 0, 0)


def test_structs_as_arrays_are_understood():
    entry = [7, 2, 0, b"hello", None, wire._encode_time(APPENDED_AT)]
    append = [3, b"n1", b"127.0.0.1:9001", 2, b"127.0.0.1:9001", 9, 1, [entry], 9]
    assert same(read(b"\x00" + msgpack.packb(append, use_bin_type=False)), REQUESTS["appendentries"])
    answer = b"\xa0" + msgpack.packb([3, b"n2", b"127.0.0.1:9002", 2, 10, True, False])
    assert read_answer(answer, REQUESTS["heartbeat"]) == AppendEntriesResponse(FOLLOWER, 2, 10, True)


def test_who_names_only_an_address_is_known_by_it():
    for key, number in ((b"Leader", 0), (b"Candidate", 1), (b"Addr", 4)):
        request = read(bytes((number,)) + msgpack.packb({key: b"a1:1", b"ProtocolVersion": 2}))
        assert request.header == RpcHeader("a1:1", "a1:1", 2)


# ── what is no message ──

BAD_FIELDS = {
    "a negative term": {"Term": -1},
    "a float": {"Term": 2.0},
    "true for a number": {"Term": True},
    "text for a number": {"Term": "7"},
    "a number for text": {"ID": 7},
    "an id that is no text": {"ID": b"\xff"},
    "a version that is none": {"ProtocolVersion": "3"},
    "an entry of an unknown type": {"Entries": [{"Type": 9}]},
    "a number for data": {"Entries": [{"Data": 7}]},
    "a number for a time": {"Entries": [{"AppendedAt": 7}]},
    "fifteen bytes that are no time": {"Entries": [{"AppendedAt": b"x" * 15}]},
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_fields_that_are_none_are_an_error_after_which_the_stream_goes_on(fields):
    following = wire.encode_request(REQUESTS["timeoutnow"])
    stream = reader(b"\x00" + msgpack.packb(fields, use_bin_type=False) + following)
    call, got = wire.read_request(stream)
    with pytest.raises(TransportError) as refused:
        call.decode_request(got)
    assert not isinstance(refused.value, wire.MalformedError)
    stream.begin()
    call, got = wire.read_request(stream)
    assert call.decode_request(got) == REQUESTS["timeoutnow"]


GARBAGE = {
    "an unknown type": b"\x05\x80",
    "no number": b"\xa1x\x80",
    "true for a type": b"\xc3\x80",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "tls": bytes.fromhex("160301020001000201fc0303"),
    "no struct": b"\x01\x07",
    "nil": b"\x01\xc0",
    "nil entries": b"\x00\xc0",
    "a reserved byte": b"\x01\xc1",
    "a map of four thousand million": b"\x00\xdf\xff\xff\xff\xff",
    "an array of four thousand million": b"\x01\xdd\xff\xff\xff\xff",
    "an entry of four thousand million": b"\x00\x81\xa7Entries\x91\xdd\xff\xff\xff\xff",
    "a map for entries": b"\x00\x81\xa7Entries\x81\x01\x01",
    "a number for entries": b"\x00\x81\xa7Entries\x07",
    "numbers for keys": b"\x01\x81\x01\x01",
    "arrays for keys": b"\x01\x81\x90\x01",
    "a deep nest": b"\x01" + b"\x91" * 5000,
    "a time that is none": b"\x01\x81\xa1x\xc7\x0d\xff" + bytes(13),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("step", [1, 1000])
def test_garbage_is_refused(data, step):
    with pytest.raises(wire.MalformedError):
        wire.read_request(reader(data + bytes(100), step))


@pytest.mark.parametrize("name", [*REQUESTS, "installsnapshot"])
def test_a_request_that_ends_early_is_refused(name):
    data = GOLDEN[f"{name}_request"].removesuffix(b"hello world")
    for end in range(1, len(data)):
        with pytest.raises(wire.MalformedError, match="it ends after"):
            wire.read_request(reader(data[:end]))


def test_an_answer_that_ends_early_or_is_none_is_refused():
    request, _ = RESPONSES["requestvote"]
    data = GOLDEN["requestvote_response"]
    for end in range(1, len(data)):
        with pytest.raises(wire.MalformedError):
            read_answer(data[:end], request)
    for bad in (b"\x07\x80", b"\xa0\xc0", b"\xa0\x07"):
        with pytest.raises(wire.MalformedError):
            read_answer(bad, request)


@pytest.mark.parametrize(
    "announces",
    [b"\x01\x81\xa1x\xdb\x7f\xff\xff\xff", b"\x00\x81\xa7Entries\x91\x81\xa4Data\xdb\x7f\xff\xff\xff"],
)
def test_two_gigabytes_cost_no_more_than_one_message_may(announces):
    def fill(_):
        sent.append(65536)
        return announces if len(sent) == 1 else bytes(65536)

    sent = []
    tracemalloc.start()
    stream = wire.MessageReader(fill, max_message_bytes=1 << 20)
    stream.begin()
    with pytest.raises(wire.MalformedError, match="more than 1048576 bytes"):
        wire.read_request(stream)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sent) < 1.5 * (1 << 20)
    assert peak < 8 * (1 << 20)


@pytest.mark.parametrize("empty", [b"\x80", b"\x90", b"\xdc\x00\x00"])
@pytest.mark.parametrize("beginning", [b"\x01\x81\xa1x", b"\x00\x81\xa7Entries\x91\x81\xa1x"])
def test_lists_and_maps_of_nothing_are_not_made_by_the_million(beginning, empty):
    def nothing(depth):
        return b"\xdc\x00\x40" + 64 * nothing(depth - 1) if depth else empty

    data = beginning + nothing(3)
    tracemalloc.start()
    with pytest.raises(wire.MalformedError, match="lists and maps"):
        wire.read_request(reader(data, 65536))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * len(data)  # made in full they would take fifty times as much


def test_entries_that_were_only_announced_cost_nothing():
    tracemalloc.start()
    with pytest.raises(wire.MalformedError):
        wire.read_request(reader(b"\x00\x81\xa7Entries\xdd\xff\xff\xff\xff\x80"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_small_entries_without_end_are_cut_off():
    data = chain([b"\x00\x81\xa7Entries\xdd\xff\xff\xff\xff"], iter(lambda: b"\x80" * 1000, None))
    stream = wire.MessageReader(lambda _: next(data), max_message_bytes=1 << 16)
    stream.begin()
    with pytest.raises(wire.MalformedError, match="entries|lists and maps"):
        wire.read_request(stream)


def test_a_snapshot_of_an_impossible_size_is_refused():
    for size in (2**60 + 1, LARGEST):
        with pytest.raises(wire.MalformedError, match="cannot be"):
            wire.size_of_snapshot({b"Size": size})
    with pytest.raises(TransportError, match="unknown version 2"):
        wire.decode_install_snapshot({b"SnapshotVersion": 2})
    with pytest.raises(TransportError, match="failed to decode configuration"):
        wire.decode_install_snapshot({b"SnapshotVersion": 1, b"Configuration": b"\xc1"})


def test_damaged_messages_raise_nothing_but_transport_errors():
    rng = random.Random(7)
    goldens = [data for name, data in GOLDEN.items() if name.endswith("_request")]
    for _ in range(3000):
        data = bytearray(rng.choice(goldens))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            read(bytes(data), rng.choice((3, 1000)))
        except TransportError:
            pass
