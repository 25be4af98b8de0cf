"""The decoders stand what fuzz.py feeds them; a longer run is ``python -m tests.transport.fuzz``."""

import gc
import tracemalloc

import pytest

from pyraft.configuration import decode_configuration, decode_peers
from pyraft.errors import CorruptStoreError, RaftError, TransportError
from pyraft.messages import TimeoutNowRequest
from pyraft.transport import msgpack_wire, wire
from tests.transport import fuzz

MEBI = 1024 * 1024


@pytest.mark.parametrize("name", ["protobuf", "msgpack"])
def test_thousands_of_damaged_inputs_raise_nothing_but_our_errors(name, monkeypatch):
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 0)  # pytest has its own

    outcomes = fuzz.run(fuzz.targets()[name], seed=1, first=0, inputs=6000)

    assert sum(outcomes.values()) == 6000
    assert outcomes["read"] > 500, "the inputs should not be so damaged that nothing is ever read"


def a_decoder_that(does):
    return fuzz.Target({"it": does}, {"it": b"good"}, fuzz.protobuf_value)


def leak(data):
    return bytes(MEBI)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda data: {}[data], "input 0, it: KeyError"),
        (lambda data: data.decode(), "UnicodeDecodeError"),
        (leak, "bytes of memory for"),
        (lambda data: fuzz._again(len, lambda n: b"x" * (n + 1), data), "AssertionError"),
    ],
)
def test_it_finds_what_a_decoder_must_not_do(does, says):
    with pytest.raises(fuzz.Broken, match=says):
        fuzz.run(a_decoder_that(does), seed=0, first=0, inputs=200)


def test_an_input_is_made_again_from_its_number():
    target = fuzz.targets()["msgpack"]

    assert target.make(3, 77) == target.make(3, 77) != target.make(4, 77)


def peak_of(decode, data):
    """What of memory ``decode`` takes at its most, and what it keeps, in Python's own allocations."""
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(RaftError):
            decode(data)
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak, kept


def test_entries_of_nothing_are_counted_before_they_are_made():
    data = b"\x32\x00" * (MEBI // 2)
    decode = wire.METHODS[fuzz.AppendEntriesRequest].decode_request

    with pytest.raises(TransportError, match="524288 entries in 1048576 bytes"):
        decode(data)
    assert peak_of(decode, data)[0] < MEBI


def test_a_configuration_of_millions_of_nothings_is_not_even_begun():
    data = b"\xdd" + (2 * MEBI).to_bytes(4, "big") + b"\x90" * (2 * MEBI)

    for decode in (decode_configuration, decode_peers):
        with pytest.raises(CorruptStoreError, match="cannot be"):
            decode(data)
        assert peak_of(decode, data)[0] < MEBI


def test_long_names_of_senders_are_refused_and_not_kept():
    def on_grpc(id_):
        header = b"\x12" + fuzz._varint(len(id_)) + id_
        return wire.METHODS[TimeoutNowRequest].decode_request(b"\x0a" + fuzz._varint(len(header)) + header)

    def on_tcp(id_):
        return msgpack_wire._header({b"ID": id_})

    for decode in (on_grpc, on_tcp):
        assert decode(b"x" * 4096)
        kept = [peak_of(decode, b"%d" % i + b"x" * (MEBI // 4))[1] for i in range(2)]
        assert max(kept) < MEBI // 16
