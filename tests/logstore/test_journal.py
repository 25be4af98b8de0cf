"""The journal against power cuts and damage, sector by sector."""

from __future__ import annotations

import fcntl
import itertools
import os
import random

import pytest

from pyraft.logstore import journal
from pyraft.logstore.journal import BLOCK, SECTOR, Journal, JournalDamage

IDENTITY = 0x1234_5678_9ABC_DEF0
CONTENT = SECTOR - 12
SIZE = 16 * BLOCK


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(journal, "FILE_BYTES", SIZE)


@pytest.fixture
def path(tmp_path):
    journal.create(tmp_path / "journal", IDENTITY)
    return tmp_path / "journal"


def opened(path, epoch=1, identity=IDENTITY):
    return Journal(path, identity, epoch, sync=False)


def reopened(path, epoch=1):
    """What a restart finds."""
    found = opened(path, epoch)
    found.close()
    return found.records


def append(journal, record):
    journal.append([record[:3], record[3:]], len(record))


def tear(path, record, sectors, epoch=1):
    """Append ``record``, of which a power cut lets only these sectors reach the disk."""
    unfinished = opened(path, epoch)
    kept = []
    unfinished._write = lambda blocks, at: kept.append((blocks, at))
    append(unfinished, record)
    unfinished.close()
    ((blocks, at),) = kept
    with path.open("r+b") as file:
        for sector in sectors:
            file.seek(at + sector * SECTOR)
            file.write(blocks[sector * SECTOR :][:SECTOR])


def record_of(sectors, seed=1):
    """A record that fills so many sectors."""
    return random.Random(seed).randbytes(sectors * CONTENT - 4)


def test_records_are_found_again_in_order(path):
    records = [b"one", record_of(1), record_of(2), b"", record_of(9), b"x" * (CONTENT - 3)]
    first = opened(path)
    for record in records[:3]:
        append(first, record)
    first.close()
    second = opened(path)
    assert second.records == records[:3]
    for record in records[3:]:
        append(second, record)
    second.close()

    assert reopened(path) == records


def test_a_record_takes_room_until_the_next_epoch(path):
    file = opened(path)
    count = 0
    while file.has_room(100):
        append(file, b"a" * 100)
        count += 1
    assert count == SIZE // BLOCK - 1
    assert file.used == SIZE - BLOCK

    file.begin(2)
    assert file.has_room(100)
    append(file, b"later")
    file.close()
    assert reopened(path, epoch=2) == [b"later"]


def test_a_record_may_fill_all_there_is_and_not_more(path, monkeypatch):
    monkeypatch.setattr(journal, "LARGEST_RECORD", SIZE)
    room = (SIZE - BLOCK) // SECTOR * CONTENT - 4
    file = opened(path)
    assert file.has_room(room) and not file.has_room(room + 1)
    append(file, b"r" * room)
    assert not file.has_room(0)
    file.close()
    assert reopened(path) == [b"r" * room]


def test_what_is_larger_than_a_record_may_be_has_no_room(path):
    file = opened(path)
    assert not file.has_room(journal.LARGEST_RECORD + 1)
    file.close()


def test_writes_wait_for_the_disk(path):
    for sync in (True, False):
        file = Journal(path, IDENTITY, 1, sync)
        assert bool(fcntl.fcntl(file._fd, fcntl.F_GETFL) & os.O_DSYNC) is sync
        file.close()


# Power cuts


@pytest.mark.parametrize("before", [[], [b"acknowledged", record_of(3, seed=9)]])
@pytest.mark.parametrize("stale", [False, True], ids=["on zeros", "on an older epoch"])
def test_whatever_a_power_cut_leaves_of_a_record_what_was_acknowledged_is_there(path, before, stale):
    if stale:
        old = opened(path)
        while old.has_room(100):
            append(old, b"older" * 20)
        old.close()
    epoch = 2
    file = opened(path, epoch)
    for record in before:
        append(file, record)
    file.close()
    content = path.read_bytes()
    record = record_of(5)
    for count in range(6):
        for sectors in itertools.combinations(range(5), count):
            path.write_bytes(content)
            tear(path, record, sectors, epoch)

            assert reopened(path, epoch) == before + [record] * (count == 5)
            file = opened(path, epoch)
            append(file, b"later")
            file.close()
            assert reopened(path, epoch) == before + [record] * (count == 5) + [b"later"]


def test_two_torn_records_do_not_make_one(path):
    """The leftovers of the first have the tags that the second one would have."""
    first, second = record_of(4, seed=1), record_of(4, seed=2)
    tear(path, first, [1, 2])
    tear(path, second, [0, 3])
    assert reopened(path) == []


def test_leftovers_are_erased_wherever_they_are(path):
    tear(path, record_of(20), [0, 5, 17])
    assert reopened(path) == []
    assert path.read_bytes()[BLOCK:] == bytes(SIZE - BLOCK)


def test_the_erasing_of_leftovers_may_be_torn_itself(path):
    tear(path, record_of(9), [0, 5, 8])
    for sector in (8, 0):
        with path.open("r+b") as file:
            file.seek(BLOCK + sector * SECTOR)
            file.write(bytes(SECTOR))
        content = path.read_bytes()
        assert reopened(path) == []
        path.write_bytes(content)
    assert reopened(path) == []
    assert path.read_bytes()[BLOCK:] == bytes(SIZE - BLOCK)


def test_no_block_of_an_acknowledged_record_is_written_again(path):
    file = opened(path)
    written = []
    write = file._write
    file._write = lambda blocks, at: (written.append((at, len(blocks))), write(blocks, at))
    for size in (0, 1, 500, 504, 4000, 5000, 1):
        file.append([b"x" * size], size)
    file.close()

    end = BLOCK
    for at, size in written:
        assert (at, size % BLOCK) == (end, 0)
        end += size


# Damage


def test_a_changed_byte_is_found_or_harmless(path):
    records = [b"first", record_of(2), record_of(10)]
    file = opened(path)
    for record in records:
        append(file, record)
    file.close()
    healthy = path.read_bytes()
    every_ends = [*range(64), *range(CONTENT - 4, SECTOR)]  # of a sector: lengths, bytes, checksums, tags
    for at in (sector * SECTOR + place for sector in range(7 * BLOCK // SECTOR) for place in every_ends):
        damaged = bytearray(healthy)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            assert reopened(path) == records, at
        except JournalDamage:
            continue


@pytest.mark.parametrize("sector", range(10))
@pytest.mark.parametrize("garbage", ["random", "zeros at its end", "zeros in its middle"])
def test_a_sector_of_the_last_record_that_is_neither_it_nor_what_was_before_is_damage(path, sector, garbage):
    file = opened(path)
    append(file, record_of(10))
    file.close()
    content = bytearray(path.read_bytes())
    begin = BLOCK + sector * SECTOR
    if garbage == "random":
        content[begin : begin + SECTOR] = random.Random(sector).randbytes(SECTOR)
    elif garbage == "zeros at its end":
        content[begin + 450 : begin + SECTOR] = bytes(SECTOR - 450)
    else:
        content[begin + 100 : begin + 200] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(
        JournalDamage, match=f"sector {8 + sector} is neither that of record 0 nor an older one"
    ):
        opened(path)


def test_a_record_that_is_gone_from_the_middle_is_missed(path):
    file = opened(path)
    for record in (b"one", b"two", b"three"):
        append(file, record)
    file.close()
    with path.open("r+b") as changed:
        changed.seek(2 * BLOCK)
        changed.write(bytes(BLOCK))
    with pytest.raises(JournalDamage, match="record 1 is damaged, and later ones are there"):
        opened(path)


def test_a_database_that_is_older_than_its_journal_is_found(path):
    file = opened(path)
    append(file, b"of the first epoch")
    file.begin(2)
    append(file, b"of the second")
    file.close()
    with pytest.raises(JournalDamage, match="ahead of the database"):
        opened(path, epoch=1)


def test_void_records_do_not_count_and_can_be_cleared(path):
    file = opened(path)
    for record in (b"one", b"two"):
        append(file, record)
    file.begin(2)
    file.close()
    assert reopened(path, epoch=2) == []

    file = opened(path, epoch=2)
    file.clear()
    append(file, b"later")
    file.close()
    assert reopened(path, epoch=2) == [b"later"]
    assert b"one" not in path.read_bytes() and b"two" not in path.read_bytes()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "truncated"),
        (lambda path: os.truncate(path, SIZE - 1), f"{SIZE - 1} bytes where {SIZE}"),
        (lambda path: os.truncate(path, SIZE + 1), f"{SIZE + 1} bytes where {SIZE}"),
        (lambda path: path.write_bytes(bytes(SIZE)), "does not begin like a journal"),
        (lambda path: journal.create(path, IDENTITY + 1), "another store"),
    ],
    ids=["missing", "empty", "cut off", "longer", "zeros", "foreign"],
)
def test_a_file_that_is_not_the_journal_is_refused(path, change, finding):
    change(path)
    with pytest.raises(JournalDamage, match=finding):
        opened(path)


def test_a_write_that_the_disk_takes_half_of_is_an_error(path, monkeypatch):
    file = opened(path)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: len(data) - 1)
    with pytest.raises(OSError, match="only 4095 of 4096"):
        append(file, b"x")
    monkeypatch.undo()
    file.close()
    file.close()


def test_a_record_that_says_it_is_longer_than_the_file_is_damage(path):
    blocks = journal._in_sectors((10**6).to_bytes(4, "little") + b"x", IDENTITY, journal._tag(1, 0))
    with path.open("r+b") as file:
        file.seek(BLOCK)
        file.write(blocks)
    with pytest.raises(JournalDamage, match="record 0 is longer than the file"):
        opened(path)
