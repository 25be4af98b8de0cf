"""Batches packed and read by what neighbours have in common, against the msgpack library's map for each entry."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyraft import Log, LogType
from pyraft.errors import RaftError, TransportError
from pyraft.messages import AppendEntriesRequest, RpcHeader
from pyraft.transport import msgpack_wire
from pyraft.transport.msgpack_entries import array_header, raw_header, unpack_commands

INDEXES = st.one_of(
    st.sampled_from([0, 1, 127, 128, 0xFFFF, 0x10000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
NUMBERS = st.sampled_from([0, 1, 127, 128, 300, 1 << 16, 1 << 40, (1 << 64) - 1])
INSTANTS = st.sampled_from([0, 1, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790])
DATA = st.sampled_from([b"", b"x", b"y" * 31, b"z" * 32, b"w" * 255, b"v" * 256, b"u" * 70_000])
ENTRIES = st.builds(
    Log,
    index=INDEXES,
    term=NUMBERS,
    type=st.sampled_from([LogType.COMMAND, LogType.COMMAND, LogType.COMMAND, *LogType]),
    data=DATA,
    extensions=st.sampled_from([b"", b"", b"more"]),
    appended_at=INSTANTS,
)


def by_the_library(request):
    header = request.header
    entries = [
        {
            "AppendedAt": msgpack_wire._encode_time(log.appended_at),
            "Data": log.data or None,
            "Extensions": log.extensions or None,
            "Index": log.index,
            "Term": log.term,
            "Type": int(log.type),
        }
        for log in request.entries
    ]
    fields = {
        "Addr": header.addr or None,
        "Entries": None if request.is_heartbeat else entries,
        "ID": header.id or None,
        "Leader": header.addr or None,
        "LeaderCommitIndex": request.leader_commit_index,
        "PrevLogEntry": request.prev_log_entry,
        "PrevLogTerm": request.prev_log_term,
        "ProtocolVersion": header.protocol_version,
        "Term": request.term,
    }
    return b"\x00" + msgpack.packb(fields, use_bin_type=False)


@given(st.lists(ENTRIES, max_size=20), NUMBERS, st.sampled_from(["", "n1", "i" * 200]))
def test_a_batch_is_packed_as_the_library_packs_it(entries, number, name):
    request = AppendEntriesRequest(RpcHeader(name, name), number, number, number, entries, number)

    assert msgpack_wire.encode_request(request) == by_the_library(request)


def test_a_run_of_commands_is_packed_as_the_library_packs_it():
    entries = [
        Log(65_530 + number, 3, data=b"command" * (1 + number // 7), appended_at=number // 5)
        for number in range(3_000)
    ]
    request = AppendEntriesRequest(RpcHeader("n1", "127.0.0.1:1"), 3, 65_529, 3, entries, 65_529)

    assert msgpack_wire.encode_request(request) == by_the_library(request)


def test_headers_are_those_of_the_library():
    packer = msgpack.Packer(use_bin_type=False)
    for length in (0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536, 1 << 20):
        assert raw_header(length) + bytes(length) == packer.pack(bytes(length))
        assert array_header(length) == packer.pack_array_header(length)


def run_of(lengths, first=1 << 20, term=3, batch=5):
    """Commands as a leader makes them: each instant is that of a batch."""
    return [
        Log(first + number, term, data=bytes([number & 0xFF]) * length, appended_at=10**18 + number // batch)
        for number, length in enumerate(lengths)
    ]


def append(entries):
    return AppendEntriesRequest(RpcHeader("n1", "127.0.0.1:1"), 9, 7, 2, entries, 6)


def reader_of(data, step):
    pieces = [data[at : at + step] for at in range(0, len(data), step)][::-1]
    return msgpack_wire.MessageReader(lambda _: pieces.pop() if pieces else b"")


def everything_in(data, step):
    """What a server hears on a connection that brings ``data``, up to the error that ends it."""
    reader = reader_of(data, step)
    heard = []
    try:
        while reader.begin():
            call, fields = msgpack_wire.read_request(reader)
            heard.append((call.name, reader.message_bytes))
            try:
                request = call.decode_request(fields)
            except RaftError as error:
                heard.append(type(error))
            else:
                encoded = [log.encoded for log in getattr(request, "entries", ())]
                heard.append((request, encoded))
    except RaftError as error:
        heard.append(type(error))
    return heard


RUNS = st.one_of(
    st.lists(ENTRIES, max_size=20),
    st.builds(
        run_of, st.lists(st.sampled_from([0, 1, 31, 32, 70_000]), max_size=40), batch=st.integers(1, 9)
    ),
    st.builds(
        lambda *parts: [log for part in parts for log in part],
        *[st.builds(run_of, st.lists(st.just(16), max_size=20), term=NUMBERS)] * 3,
    ),
)
STEPS = st.sampled_from([1, 7, 100, 4096, 1 << 20])


@given(RUNS, STEPS)
def test_a_batch_packed_by_the_library_is_read_as_it_was(entries, step):
    data = by_the_library(append(entries))
    step = max(step, len(data) // 5000)

    heard = everything_in(data * 2, step)

    encoded = [log.encoded for log in entries]
    assert heard == [("AppendEntries", len(data)), (append(entries), encoded)] * 2


def test_most_commands_of_a_batch_are_read_by_what_they_have_in_common(monkeypatch):
    """Or else the tests here would prove nothing."""
    entries = run_of([16] * 3000)
    short_cuts = []

    def counted(*arguments):
        logs, used = unpack_commands(*arguments)
        short_cuts.extend(logs)
        return logs, used

    monkeypatch.setattr(msgpack_wire, "unpack_commands", counted)
    everything_in(by_the_library(append(entries)), 64 * 1024)

    assert len(short_cuts) > 2980


@pytest.mark.parametrize("lengths", [[5] * 8, [16, 17, 40, 300] * 2])
def test_no_damaged_byte_makes_the_short_way_read_what_the_long_one_does_not(lengths, monkeypatch):
    """Each byte of a batch in turn; what follows on the connection is read, too."""
    data = msgpack_wire.encode_request(append(run_of(lengths)))
    damaged = []
    for at in range(len(data)):
        for change in (1, 0x10, 0x60, 0x80):
            damaged.append(data[:at] + bytes((data[at] ^ change,)) + data[at + 1 :] + data)
    short = [everything_in(each, 1 << 20) for each in damaged]
    monkeypatch.setattr(msgpack_wire, "unpack_commands", lambda *_: ([], 0))

    assert [everything_in(each, 1 << 20) for each in damaged] == short


def test_a_number_that_should_have_been_positive_stays_an_error():
    data = msgpack_wire.encode_request(append(run_of([16] * 9))).replace(b"\xa4Term\x03", b"\xa4Term\xff")

    assert everything_in(data, 1 << 20) == [("AppendEntries", len(data)), TransportError]


def in_one_block(entries):
    return b"".join(msgpack_wire._pack(msgpack_wire._log_map(log)) for log in entries)


def commands_in(block, at_most=99):
    return unpack_commands(block, at_most, 3, msgpack_wire._decode_time_bytes, msgpack_wire._pack)


@pytest.mark.parametrize("length", [16, 300, 70_000])
def test_entries_of_which_the_end_is_missing_are_not_read_yet(length):
    entries = run_of([length] * 4)
    block = in_one_block(entries)
    whole = len(block) // 4

    for end in [*range(0, len(block), 1 + length // 64), *range(whole, whole + 50), len(block)]:
        assert commands_in(block[:end]) == (entries[: end // whole], end // whole * whole)


def test_no_more_is_read_than_the_message_has():
    block = in_one_block(run_of([16] * 9))

    for at_most in range(1, 9):
        logs, used = commands_in(block, at_most)
        assert (len(logs), used) == (at_most, len(block) // 9 * at_most)
