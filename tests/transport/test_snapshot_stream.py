"""The receiving end of a snapshot: what it takes for complete, and what for broken."""

import threading

import pytest

from pyraft.errors import TransportError
from pyraft.runtime import ThreadRuntime
from pyraft.transport.snapshot_stream import SnapshotReceiver


def receiver(size, *pieces, patience=0.01):
    end = SnapshotReceiver(ThreadRuntime(), size, lambda: None, patience)
    for piece in pieces:
        end.put(piece)
    return end


def read_all(end, max_bytes=1000):
    return b"".join(iter(lambda: end.read(max_bytes), b""))


@pytest.mark.parametrize("max_bytes", [1, 2, 3, 5, 1000])
def test_pieces_are_joined_and_cut_as_the_reader_wants_them(max_bytes):
    end = receiver(7, b"ab", b"", b"cde", b"fg")
    end.close()
    assert read_all(end, max_bytes) == b"abcdefg"
    assert end.read(max_bytes) == b""  # for ever


def test_a_piece_that_fits_is_handed_on_without_waiting_for_more():
    assert receiver(7, b"abc").read(1000) == b"abc"


def test_an_end_before_the_announced_size_is_a_short_read():
    end = receiver(7, b"abc")
    end.close()
    assert end.read(10) == b"abc"
    for _ in range(2):  # what is broken stays broken
        with pytest.raises(TransportError, match="3 of 7 bytes: short read"):
            end.read(10)


def test_more_than_was_announced_is_refused():
    end = receiver(7, b"abcdefg", b"h")
    end.close()
    assert end.read(10) == b"abcdefg"
    with pytest.raises(TransportError, match="goes on after its announced end"):
        end.read(10)


def test_all_bytes_without_an_end_are_not_complete_yet():
    end = receiver(3, b"abc")
    assert end.read(10) == b"abc"
    with pytest.raises(TransportError, match=r"nothing came for 0\.01 s"):
        end.read(10)


def test_a_break_is_raised_and_names_the_reason():
    end = receiver(7, b"abc")
    end.fail("the cable was cut")
    with pytest.raises(TransportError, match="the cable was cut"):
        read_all(end)


def test_the_sender_hears_of_each_piece_when_it_is_read_and_not_before():
    taken = []
    end = SnapshotReceiver(ThreadRuntime(), 4, lambda: taken.append(1))
    end.put(b"ab")
    end.put(b"cd")
    assert taken == []
    end.read(1)
    assert len(taken) == 1
    end.read(1)
    end.read(1)
    assert len(taken) == 2


def test_a_reader_that_waits_is_woken_by_bytes():
    end = receiver(2, patience=10.0)
    threading.Timer(0.01, end.put, [b"ab"]).start()
    assert end.read(10) == b"ab"


def test_reading_nothing_is_refused_because_it_would_look_like_the_end():
    with pytest.raises(ValueError, match="max_bytes=0"):
        receiver(2, b"ab").read(0)
