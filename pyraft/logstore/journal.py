"""A file of fixed size in front of LMDB: one flush makes a small batch durable, where a commit takes two.

It holds *records* of the current *epoch*, in the order in which they were written.  The database
remembers the epoch.  The transaction that takes over what the records hold also stores the next
epoch, so that the same commit which makes the entries LMDB's makes the records void; the file
itself is not touched, and its room is written anew.  There is no instant in which a power cut
could lose a record, or count one twice.

Layout: blocks of 4 KiB.  The first says what file this is and never changes.  A record begins with
a block and takes as many as it needs, so no block that holds something acknowledged is ever written
anew, torn or not.  Blocks consist of sectors of 512 bytes:

    500 bytes of content, CRC-32 (4), tag (8)

The tag is the epoch and the record's number in it; numbers count from 0 without gaps.  The content of
a record's sectors, one behind the other, is its length (4 bytes) and its bytes.  Numbers are least
significant byte first; the CRC goes over content and tag, and goes on from the file's identity.

A record is written only once the one before it is durable.  So whatever a power cut leaves of an
unfinished one is the last thing in the file, and lacks a sector: there is an older record's, or nothing
but zeros.  Anything else that does not fit is damage to something that was acknowledged, and is
refused.  What cannot be told is a journal of an earlier moment of its epoch in the place of this one.

Assumes of the disk what LMDB assumes, too: that a sector is written whole or not at all.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from ..disk import write_durably
from ..errors import CorruptStoreError

BLOCK = 4096
SECTOR = 512
FILE_BYTES = 512 * 1024
LARGEST_RECORD = 64 * 1024
"""Bytes.  What is larger costs less in a commit of its own than written twice."""

_MAGIC = b"pyraft journal 1"
_TITLE = struct.Struct("<16sQQI")  # magic, identity, size of the file, CRC-32 of these
_CRC = struct.Struct("<I")
_TAG = struct.Struct("<Q")
_CONTENT = SECTOR - _CRC.size - _TAG.size  # bytes of a sector
_LENGTH = struct.Struct("<I")
_NUMBER_BITS = 16
_TAGS = struct.Struct(f"<{SECTOR - _TAG.size}xQ")
_NOTHING = bytes(SECTOR)


class JournalDamage(CorruptStoreError):
    """What a journal holds cannot be, or is not all of what was acknowledged."""


class _Found(NamedTuple):
    """What a file holds of an epoch."""

    records: list[bytes]
    last: int  # where the last one begins
    end: int  # where the next one goes
    torn: int  # bytes from there on that an unfinished one has touched


class Journal:
    """An open journal.  One thread at a time.

    Attributes:
        identity: which journal it is; a number of 64 bits.
        records: what it held when it was opened, in the order of writing.
        used: bytes of the file that hold records of the present epoch.
    """

    def __init__(self, path: Path, identity: int, epoch: int, sync: bool) -> None:
        """Open the journal that ``create`` has made, and read what is in it.

        Args:
            identity, epoch: what the database says.
            sync: False: writes are not flushed; for tests.

        Raises:
            JournalDamage: it is missing, another one, cut off, or damaged.
            OSError: it cannot be read or written.
        """
        self._path = path
        self._fd: int | None = None
        self.identity = identity
        self._epoch = epoch
        self._sync = sync
        # On a Mac, O_DSYNC leaves it to the disk when to write.
        self._is_mac = sys.platform == "darwin"
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_DSYNC if sync and not self._is_mac else 0)
        try:
            self._fd = os.open(path, flags)
        except FileNotFoundError:
            raise JournalDamage(
                "it is missing, and the database says that it was there: entries that were acknowledged "
                "may be lost, as if the directory had not been copied completely"
            ) from None
        try:
            content = os.pread(self._fd, FILE_BYTES + 1, 0)
            _check_title(content, identity)
            found = _read(content, identity, epoch)
            self.records = found.records
            self._number, self.used = len(found.records), found.end - BLOCK
            if found.torn:  # or its leftovers could complete another one that is torn in its turn
                self._write(bytes(found.torn), found.end)
            if sync and found.records:
                # The one before was killed in writing it, or its flush failed: it may be there and not
                # durable.  A flush that failed once succeeds the next time without having written.
                self._write(content[found.last : found.end], found.last)
        except BaseException:
            self.close()
            raise

    def has_room(self, size: int) -> bool:
        """Whether a record of ``size`` bytes fits behind the others."""
        return size <= LARGEST_RECORD and BLOCK + self.used + _size_on_disk(size) <= FILE_BYTES

    def append(self, pieces: Sequence[bytes], size: int) -> None:
        """Write a record of all ``pieces``, which are ``size`` bytes; durable on return.

        One system call: each may cost 5 ms beside a thread that computes.

        Raises:
            OSError: whether the record is there is open; nothing may be written any more.
        """
        record = b"".join((_LENGTH.pack(size), *pieces))
        record = _in_sectors(record, self.identity, _tag(self._epoch, self._number))
        self._write(record, BLOCK + self.used)
        self.used += len(record)
        self._number += 1

    def begin(self, epoch: int) -> None:
        """The records are void, and the database knows; go on with a later ``epoch``."""
        self._epoch, self._number, self.used = epoch, 0, 0

    def clear(self) -> None:
        """Overwrite what is left of void records, for whoever looks into the file.  No need to succeed."""
        assert not self.used
        with suppress(OSError):
            assert self._fd is not None
            content = os.pread(self._fd, FILE_BYTES, 0)[BLOCK:]
            left = len(content.rstrip(b"\0"))
            if left:
                self._write(bytes(-(-left // BLOCK) * BLOCK), BLOCK)

    def close(self) -> None:
        """Close the file.  Idempotent."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def _write(self, blocks: bytes, at: int) -> None:
        assert self._fd is not None
        written = os.pwrite(self._fd, blocks, at)
        if written != len(blocks):
            raise OSError(errno.EIO, f"only {written} of {len(blocks)} bytes were written", str(self._path))
        if self._sync and self._is_mac:
            import fcntl

            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]  # only there


def create(path: Path, identity: int) -> None:
    """Make an empty journal, durably; one that is there is replaced.

    All of it is written, so that no later write has to look for room.

    Raises:
        OSError: it cannot be written.
    """
    title = _TITLE.pack(_MAGIC, identity, FILE_BYTES, 0)[:-4]
    write_durably(path, (title + crc32(title).to_bytes(4, "little")).ljust(FILE_BYTES, b"\0"))


def _check_title(content: bytes, identity: int) -> None:
    if len(content) < _TITLE.size:
        raise JournalDamage(f"it has {len(content)} bytes of {FILE_BYTES}: it was truncated")
    magic, found, size, checksum = _TITLE.unpack_from(content)
    if magic != _MAGIC or checksum != crc32(content[: _TITLE.size - 4]):
        raise JournalDamage("it does not begin like a journal")
    if found != identity:
        raise JournalDamage("it belongs to another store, as if files of two servers had been mixed")
    if size != FILE_BYTES or len(content) != size:
        raise JournalDamage(f"it has {len(content)} bytes where {size} are expected")


def _read(content: bytes, identity: int, epoch: int) -> _Found:
    """The records of ``epoch``.

    Raises:
        JournalDamage: one that was acknowledged is damaged or missing, or the epoch is not the latest.
    """
    file = _Sectors(content, identity)
    records: list[bytes] = []
    last = at = BLOCK
    while at < len(content):
        record = _read_record(file, at // SECTOR, _tag(epoch, len(records)))
        if record is None:
            break
        records.append(record)
        last, at = at, at + _size_on_disk(len(record))
    expected, next_epoch = _tag(epoch, len(records)), _tag(epoch + 1, 0)
    behind = range(at // SECTOR, len(content) // SECTOR)
    if any(file.is_whole(sector) for sector in behind if file.tags[sector] > expected):
        if any(file.is_whole(sector) for sector in behind if file.tags[sector] >= next_epoch):
            raise JournalDamage(
                "it is ahead of the database, as if a commit had been lost or an older copy put in its place"
            )
        raise JournalDamage(f"record {len(records)} is damaged, and later ones are there")
    touched = [sector for sector in behind if file.tags[sector] == expected]
    torn = -(-(touched[-1] + 1) * SECTOR // BLOCK) * BLOCK - at if touched else 0
    return _Found(records, last, at, torn)


class _Sectors:
    """The sectors of a file, by number.

    Attributes:
        tags: what each of them has in the place of its tag.
    """

    def __init__(self, content: bytes, identity: int) -> None:
        self._content = content
        self._seed = crc32(identity.to_bytes(8, "little"))
        self.tags: list[int] = [tag for (tag,) in _TAGS.iter_unpack(content)]

    def content(self, sector: int) -> bytes:
        return self._content[sector * SECTOR : sector * SECTOR + _CONTENT]

    def is_whole(self, sector: int) -> bool:
        """Whether it is as it was written."""
        checksum = crc32(_TAG.pack(self.tags[sector]), crc32(self.content(sector), self._seed))
        found: int = _CRC.unpack_from(self._content, sector * SECTOR + _CONTENT)[0]
        return found == checksum

    def is_of(self, sector: int, tag: int) -> bool:
        """Whether it is of the record of that tag, and not what was there before.

        Raises:
            JournalDamage: it is neither.
        """
        if self.is_whole(sector):
            return self.tags[sector] == tag
        if self._content.startswith(_NOTHING, sector * SECTOR):
            return False
        raise JournalDamage(f"sector {sector} is neither that of record {tag & 0xFFFF} nor an older one")


def _read_record(file: _Sectors, first: int, tag: int) -> bytes | None:
    """The record that begins with the sector ``first``; None if none was finished there.

    Raises:
        JournalDamage: it was finished, and is damaged.
    """
    if not file.is_of(first, tag):
        return None
    (length,) = _LENGTH.unpack_from(file.content(first))
    sectors = range(first, first + -(-(_LENGTH.size + length) // _CONTENT))
    if sectors.stop > len(file.tags):
        raise JournalDamage(f"record {tag & 0xFFFF} is longer than the file")
    if not all([file.is_of(sector, tag) for sector in sectors]):
        return None
    return b"".join(map(file.content, sectors))[_LENGTH.size : _LENGTH.size + length]


def _tag(epoch: int, number: int) -> int:
    return epoch << _NUMBER_BITS | number


def _in_sectors(record: bytes, identity: int, tag: int) -> bytes:
    """``record`` as it is written: in sectors, and in whole blocks."""
    seed, end = crc32(identity.to_bytes(8, "little")), _TAG.pack(tag)
    record = record.ljust(-(-len(record) // _CONTENT) * _CONTENT, b"\0")
    pieces: list[bytes] = []
    for at in range(0, len(record), _CONTENT):
        content = record[at : at + _CONTENT]
        pieces += (content, _CRC.pack(crc32(end, crc32(content, seed))), end)
    size = len(pieces) // 3 * SECTOR
    pieces.append(bytes(-size % BLOCK))
    return b"".join(pieces)


def _size_on_disk(size: int) -> int:
    """Bytes that a record of ``size`` bytes takes in the file."""
    sectors = -(-(_LENGTH.size + size) // _CONTENT)
    return -(-sectors * SECTOR // BLOCK) * BLOCK
