"""Log entries and their bytes: what goes in comes out, and damage is called damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyraft.errors import CorruptStoreError
from pyraft.log import EntryEncoder, Log, LogType, decode_log, encode_log, uvarint

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
