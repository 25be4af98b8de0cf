"""The checksum of snapshots: the same by table, by folding and in liblzma, and the one of Go."""

import pytest

from pyraft.snapshots import crc64 as module
from pyraft.snapshots.crc64 import crc64, crc64_by_folding, crc64_by_table, crc64_of_liblzma

WAYS = [crc64, crc64_by_table, crc64_by_folding]
if crc64_of_liblzma() is not None:
    WAYS.append(crc64_of_liblzma())


def mixed(size):
    """Bytes without a pattern that a checksum could be blind to."""
    return bytes((i * i * 2654435761 >> 7) & 0xFF for i in range(size))


@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_crc_64_of_the_catalogue_and_of_go(way):
    assert way(b"123456789", 0) == 0x995DC9BBDF1939FA  # the check value of CRC-64/XZ
    assert way(b"hello world", 0) == 0x53037ECDEF2352DA  # hashicorp/raft's meta.json: UwN+ze8jUto=
    assert way(b"", 0) == 0
    assert way(b"", 12345) == 12345


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 897, 898, 899, 900, 1196, 7187, 7188, 7189, 14376, 40_001])
def test_every_way_gives_the_same(way, size):
    data = mixed(size)
    for before in (0, 1, 2**64 - 1, 0x53037ECDEF2352DA):
        assert way(data, before) == crc64_by_table(data, before)


@pytest.mark.parametrize("way", WAYS)
def test_pieces_give_the_checksum_of_the_whole(way):
    data = mixed(30_000)
    crc = 0
    for start, end in ((0, 1), (1, 1), (1, 5000), (5000, 29_999), (29_999, 30_000)):
        crc = way(data[start:end], crc)
    assert crc == crc64_by_table(data, 0)


def test_a_large_piece_of_zeros_and_one_of_ones():
    for data in (bytes(300_000), b"\xff" * 300_000, bytes(299_999) + b"\x80"):
        assert crc64_by_folding(data) == crc64_by_table(data)


def test_the_sparse_polynomial_is_a_multiple_of_the_real_one():
    normal = int(f"{module._POLYNOMIAL:064b}"[::-1], 2)  # highest power first
    remainder = sum(1 << exponent for exponent in (module._DEGREE, *module._OTHER_EXPONENTS))
    for power in range(module._DEGREE, 63, -1):
        if remainder >> power & 1:
            remainder ^= (1 << 64 | normal) << (power - 64)

    assert remainder == 0
    assert module._DEGREE - max(module._OTHER_EXPONENTS) >= module._STEP


def test_a_library_that_computes_something_else_is_not_used(monkeypatch):
    ctypes = pytest.importorskip("ctypes")

    class Function:
        def __call__(self, data, size, crc):
            return crc64_by_table(data, crc) ^ 1

    class Library:
        def __init__(self, path):
            self.lzma_crc64 = Function()

    monkeypatch.setattr(ctypes, "CDLL", Library)

    assert crc64_of_liblzma() is None


def test_without_the_library_the_slow_way_is_taken(monkeypatch):
    ctypes = pytest.importorskip("ctypes")

    def missing(path):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)

    assert crc64_of_liblzma() is None
