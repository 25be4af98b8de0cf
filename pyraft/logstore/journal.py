"""A file of fixed size in front of LMDB: one flush makes a small batch durable, where a commit takes two.

It holds *records* of the current *epoch*, in the order in which they were written.  The database
remembers the epoch.  The transaction that takes over what the records hold also stores the next
epoch, so that the same commit which makes the entries LMDB's makes the records void; the file
itself is not touched, and its room is written anew.  There is no instant in which a power cut
could lose a record, or count one twice.

Layout: blocks of 4 KiB.  The first says what file this is and never changes.  A record begins with
a block and takes as many as it needs, so no block that holds something acknowledged is ever written
again, torn or not.  Each sector of 512 bytes ends with a *tag*, the epoch and the record's number in
it, and numbers count from 0 without gaps; what is left of the sectors, one behind the other, is

    length (4 bytes), CRC-32 of the bytes (4), CRC-32 of these eight (4), the bytes

Numbers least significant byte first; both checksums go on from the file's identity.

A record is written only once the one before it is durable.  So whatever a power cut leaves of an
unfinished one is the last thing in the file, and lacks a sector: a tag is missing.  Anything else
that does not fit is damage to something that was acknowledged, and is refused.  Two things cannot be
told: damage to a tag of the very last record, and a copy of the journal of an earlier moment of its
epoch in its place.

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
_TAG = struct.Struct("<Q")
_CONTENT = SECTOR - _TAG.size  # of a sector
_HEAD = struct.Struct("<III")
_LENGTH_AND_CRC = struct.Struct("<II")
_NUMBER_BITS = 16
_TAGS = struct.Struct(f"<{_CONTENT}xQ")


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
        checksum = crc32(self.identity.to_bytes(8, "little"))
        for piece in pieces:
            checksum = crc32(piece, checksum)
        head = _head(size, checksum, self.identity)
        record = _in_sectors(b"".join((head, *pieces)), _tag(self._epoch, self._number))
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
    tags = [tag for (tag,) in _TAGS.iter_unpack(content)]
    records: list[bytes] = []
    last = at = BLOCK
    while at < len(content):
        record = _read_record(content, at, identity, tags, _number(epoch, len(records)))
        if record is None:
            break
        records.append(record)
        last, at = at, at + _size_on_disk(len(record))
    expected = _number(epoch, len(records))
    if max(tags[at // SECTOR :], default=0) > expected:
        if max(tags) >> _NUMBER_BITS > epoch:
            raise JournalDamage(
                "it is ahead of the database, as if a commit had been lost or an older copy put in its place"
            )
        raise JournalDamage(f"record {len(records)} is damaged, and later ones are there")
    touched = [sector for sector in range(at // SECTOR, len(tags)) if tags[sector] == expected]
    torn = -(-(touched[-1] + 1) * SECTOR // BLOCK) * BLOCK - at if touched else 0
    return _Found(records, last, at, torn)


def _read_record(content: bytes, at: int, identity: int, tags: list[int], tag: int) -> bytes | None:
    """The record at ``at``; None if none was finished there.

    Raises:
        JournalDamage: it was finished, and is damaged.
    """
    first = at // SECTOR
    if tags[first] != tag:
        return None
    length, checksum, own = _HEAD.unpack_from(content, at)
    if own != _head_checksum(length, checksum, identity) or at + _size_on_disk(length) > len(content):
        raise JournalDamage(f"the head of record {tag & 0xFFFF} is damaged")
    sectors = range(first, first + -(-(_HEAD.size + length) // _CONTENT))
    if any(tags[sector] != tag for sector in sectors):
        return None
    whole = b"".join(content[sector * SECTOR : sector * SECTOR + _CONTENT] for sector in sectors)
    record = whole[_HEAD.size : _HEAD.size + length]
    if crc32(record, crc32(identity.to_bytes(8, "little"))) != checksum:
        raise JournalDamage(f"record {tag & 0xFFFF} does not match its checksum")
    return record


def _head(length: int, checksum: int, identity: int) -> bytes:
    return _HEAD.pack(length, checksum, _head_checksum(length, checksum, identity))


def _head_checksum(length: int, checksum: int, identity: int) -> int:
    return crc32(_LENGTH_AND_CRC.pack(length, checksum), crc32(identity.to_bytes(8, "little")))


def _number(epoch: int, number: int) -> int:
    return epoch << _NUMBER_BITS | number


def _tag(epoch: int, number: int) -> bytes:
    return _TAG.pack(_number(epoch, number))


def _in_sectors(record: bytes, tag: bytes) -> bytes:
    """``record`` as it is written: a tag behind each piece, and whole blocks."""
    pieces: list[bytes] = []
    for at in range(0, len(record), _CONTENT):
        pieces += (record[at : at + _CONTENT], tag)
    pieces[-2] = pieces[-2].ljust(_CONTENT, b"\0")
    size = len(pieces) // 2 * SECTOR
    pieces.append(bytes(-size % BLOCK))
    return b"".join(pieces)


def _size_on_disk(size: int) -> int:
    """Bytes that a record of ``size`` bytes takes in the file."""
    sectors = -(-(_HEAD.size + size) // _CONTENT)
    return -(-sectors * SECTOR // BLOCK) * BLOCK
