"""Log entries and their bytes: what goes in comes out, and damage is called damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyraft import log as log_module
from pyraft.errors import CorruptStoreError
from pyraft.log import EntryDecoder, EntryEncoder, Log, LogType, decode_log, encode_log, uvarint

numbers = st.integers(0, 2**64 - 1)
instants = st.integers(-(2**63), 2**63 - 1)
logs = st.builds(
    Log, numbers, numbers, st.sampled_from(LogType), st.binary(max_size=300), st.binary(max_size=20), instants
)


@given(logs)
def test_what_was_encoded_is_decoded(log):
    decoded = decode_log(encode_log(log))

    assert decoded == log
    assert decoded.type is log.type


@given(logs)
def test_what_was_decoded_keeps_its_very_bytes(log):
    encoded = encode_log(log)

    assert decode_log(encoded).encoded is encoded


def test_an_entry_is_encoded_at_most_once():
    log = Log(1, 1, data=b"x")

    assert log.encoded is log.encoded


@given(
    numbers,
    instants,
    st.lists(st.tuples(st.sampled_from(LogType), st.binary(max_size=200), st.binary(max_size=3)), max_size=6),
    st.integers(1, 2**40),
)
def test_a_leaders_batch_has_the_bytes_that_its_entries_would_have_one_by_one(term, now, batch, first):
    encode = EntryEncoder(term, now)

    for index, (kind, data, extensions) in enumerate(batch, first):
        assert encode(index, kind, data, extensions) == encode_log(
            Log(index, term, kind, data, extensions, now)
        )


def decoded_or_refused(decode, *arguments):
    try:
        log = decode(*arguments)
        return log.index, log.term, log.type, log.data, log.extensions, log.encoded
    except CorruptStoreError as error:
        return str(error)


@given(
    st.lists(st.tuples(st.integers(1, 2**64 - 1), st.integers(0, 3), instants), min_size=1, max_size=3),
    st.integers(0, 2**40),
    st.lists(
        st.tuples(
            st.sampled_from([LogType.COMMAND] * 4 + [LogType.BARRIER]),
            st.sampled_from([0, 1, 5, 127, 128, 129, 300, 16_383, 16_384, 20_000]),
            st.sampled_from([b"", b"", b"", b"x"]),
        ),
        max_size=4,
    ),
    st.data(),
)
def test_neighbours_are_decoded_as_each_would_be_by_itself(terms, first, batch, data):
    decode = EntryDecoder()
    index = first
    for term, gap, now in terms:
        index += gap
        for kind, size, extensions in batch:
            encoded = bytearray(encode_log(Log(index, term, kind, b"2" * size, extensions, now)))
            if data.draw(st.integers(0, 3)) == 0:  # damage, mostly where the fields are
                at = data.draw(st.sampled_from([0, 1, 2, 5, 8, 12, len(encoded) - 1, len(encoded) - 12]))
                encoded[at % len(encoded)] = data.draw(st.integers(0, 255))
            cut = bytes(encoded[: len(encoded) - data.draw(st.sampled_from([0, 0, 0, 1, 7]))])

            assert decoded_or_refused(decode, index, cut) == decoded_or_refused(decode_log, cut)
            index += 1


@pytest.mark.parametrize(
    "second",
    [
        Log(301, 7, LogType.COMMAND, b"data", b"extensions", 0),
        Log(301, 7, LogType.BARRIER, b"", b"", 0),
        Log(301, 7, LogType.COMMAND, b"", b"", 0),
        Log(301, 8, LogType.COMMAND, b"data", b"", 5),
        Log(302, 7, LogType.COMMAND, b"data", b"", 5),
        Log(301, 7, LogType.COMMAND, b"data", b"", 10**18),
        Log(301, 7, LogType.COMMAND, bytes(20_000), b"", 10**18),
        # A length of three bytes, behind which a careless reader would see the end of the data.
        Log(301, 7, LogType.COMMAND, bytes(16_384), b"", 0),
    ],
    ids=lambda log: "",
)
def test_what_differs_from_its_neighbour_is_parsed(second):
    decode = EntryDecoder()
    assert decode(300, Log(300, 7, LogType.COMMAND, b"data").encoded) == Log(300, 7, data=b"data")
    decoded = decode(301, second.encoded)
    assert (decoded, decoded.type) == (second, second.type)


def test_neighbours_are_compared_and_not_parsed(monkeypatch):
    encode = EntryEncoder(7, 1_700_000_000_123_456_789)
    batch = [encode(index, LogType.COMMAND, b"x" * (index % 400 + 1), b"") for index in range(300, 1300)]
    parsed = []
    monkeypatch.setattr(log_module, "decode_log", lambda encoded: parsed.append(1) or decode_log(encoded))

    decode = EntryDecoder()

    assert [decode(index, encoded).index for index, encoded in enumerate(batch, 300)] == [*range(300, 1300)]
    assert len(parsed) < 12  # one for each 128 indexes


@given(logs, st.data())
def test_damaged_bytes_are_decoded_or_refused_as_corrupt(log, data):
    encoded = bytearray(encode_log(log) or b"\0")
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))

    try:
        _ = decode_log(bytes(encoded)).appended_at
    except CorruptStoreError:
        pass


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused_as_corrupt(garbage):
    try:
        _ = decode_log(garbage).appended_at
    except CorruptStoreError:
        pass


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_bytes_that_end_too_early_are_corrupt(cut):
    encoded = encode_log(Log(300, 7, LogType.COMMAND, b"some data"))

    with pytest.raises(CorruptStoreError):
        decode_log(encoded[:-cut])


def test_a_type_from_the_future_is_refused_by_name():
    with pytest.raises(CorruptStoreError, match="log entry 3 has the unknown type 9"):
        decode_log(b"\x08\x03\x18\x09")


def test_unknown_fields_are_passed_over():
    assert decode_log(b"\x08\x03" + b"\x7a\x02hi" + b"\xf8\x3e\x05").index == 3


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63, 2**64 - 1])
def test_a_number_of_any_size_is_read_back(value):
    assert decode_log(b"\x08" + uvarint(value)).index == value


def test_entries_are_equal_by_what_they_hold():
    assert Log(1, 2, data=b"x") == Log(1, 2, data=b"x")
    assert Log(1, 2, data=b"x") != Log(1, 3, data=b"x")
    assert Log(1, 2) != "a log"
