"""Batches packed by what neighbours have in common, against the msgpack library packing one map each."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from pyraft import Log, LogType
from pyraft.messages import AppendEntriesRequest, RpcHeader
from pyraft.transport import msgpack_wire
from pyraft.transport.msgpack_entries import array_header, raw_header

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
