"""The bytes of one record, as LMDBStore keeps them.  Pure: values in, bytes out.

Log:     a record is a block of entries with consecutive indexes, as many as one batch had, up
         to about 64 KiB.
         key    index of the *last* of them, 8 bytes, most significant first: keys sort like
                indexes, and the first key at or after an index is the block that holds it
         value  CRC-32 (4 bytes), codec tag (1), count (4), the count's lengths (4 each), then
                the entries' bytes; numbers least significant byte first.  The CRC covers the
                key, too, so that it also finds a record in another's place
Journal: a record is one append to the log's end: commit index, first index, number of configuration
         entries (8 each), their indexes, then for each block its key, length (4) and value
Stable:  key    one byte that says whose (``u`` the user's, ``p`` the store's own), then the key
         value  CRC-32 (4 bytes) over key and value, then the value

Why blocks: py-lmdb gives the interpreter lock away around every single put, also inside
putmulti, and takes up to 5 ms to get it back where another thread computes.  With a record per
entry a batch of 100 took 380 ms beside such a thread, and a record per block takes one put.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from ..errors import ConfigError, CorruptStoreError
from ..log import EntryDecoder, Log, LogType

PROTOBUF_TAG = 1
"""Each entry's bytes are the protobuf Log message that replication sends, too."""

BLOCK_BYTES = 64 * 1024
"""A block takes no further entry once it has this many bytes; one read checks a whole block."""

LARGEST_INDEX = 2**64 - 1

_INDEX = struct.Struct(">Q")
_CRC = struct.Struct("<I")
_TAG_AND_COUNT = struct.Struct("<BI")
_THREE = struct.Struct("<QQQ")
_LENGTH = struct.Struct("<I")
_BLOCK_HEADER = _CRC.size + _TAG_AND_COUNT.size

log_key = _INDEX.pack


class Block(NamedTuple):
    """Entries ``first`` to ``last``, both included, whose checksum was right."""

    first: int
    last: int
    lengths: tuple[int, ...]
    value: bytes

    def encoded(self, first: int, last: int) -> Iterator[bytes]:
        """The bytes of its entries ``first`` to ``last``, both included."""
        begin, end = first - self.first, last - self.first + 1
        position = _BLOCK_HEADER + 4 * len(self.lengths) + sum(self.lengths[:begin])
        for length in self.lengths[begin:end]:
            yield self.value[position : position + length]
            position += length

    def log(self, index: int) -> Log:
        """Its entry at ``index``; CorruptStoreError if there is another one in its place."""
        return next(self.logs(index, index))

    def logs(self, first: int, last: int) -> Iterator[Log]:
        """Its entries ``first`` to ``last``, both included; CorruptStoreError as log()."""
        decode = EntryDecoder()
        for index, encoded in enumerate(self.encoded(first, last), first):
            try:
                log = decode(index, encoded)
            except CorruptStoreError as error:
                raise CorruptStoreError(f"log entry {index} cannot be decoded: {error}") from error
            if log.index != index:
                raise CorruptStoreError(f"log entry {index} holds the bytes of entry {log.index}")
            yield log


class Batch(NamedTuple):
    """What a batch of entries becomes.

    Attributes:
        items: key and value of each block, ascending.
        runs: first and last index of every run without gaps.
        configurations: indexes of the configuration entries.
    """

    items: list[tuple[bytes, bytes]]
    runs: list[tuple[int, int]]
    configurations: list[int]


def encode_batch(logs: Sequence[Log]) -> Batch:
    """The records of ``logs``.

    Raises:
        ConfigError: the indexes do not ascend from 1.
    """
    batch = Batch([], [], [])
    configuration = LogType.CONFIGURATION
    block: list[bytes] = []
    size = previous = 0
    run_from = logs[0].index if logs else 0
    for log in logs:
        index, encoded = log.index, log.encoded
        if index != previous + 1 or size >= BLOCK_BYTES:
            if not previous < index <= LARGEST_INDEX:
                raise ConfigError(f"entry {index} cannot follow entry {previous}: indexes ascend from 1")
            if block:
                batch.items.append(encode_block(previous, block))
                block, size = [], 0
            if index != previous + 1 and previous:
                batch.runs.append((run_from, previous))
                run_from = index
        block.append(encoded)
        size += len(encoded)
        previous = index
        if log.type is configuration:
            batch.configurations.append(index)
    if block:
        batch.items.append(encode_block(previous, block))
        batch.runs.append((run_from, previous))
    return batch


def encode_block(last: int, encoded: list[bytes]) -> tuple[bytes, bytes]:
    """Key and value of the block of ``encoded`` entries that ends with the index ``last``."""
    key = log_key(last)
    count = len(encoded)
    body = b"".join(
        (_TAG_AND_COUNT.pack(PROTOBUF_TAG, count), struct.pack(f"<{count}I", *map(len, encoded)), *encoded)
    )
    return key, _CRC.pack(crc32(body, crc32(key))) + body


def read_block(key: bytes, value: bytes) -> Block:
    """The block in the record ``value`` that was found under ``key``.

    Raises:
        CorruptStoreError: the record is damaged, of an unknown codec, or another block's.
    """
    if len(key) != _INDEX.size or len(value) < _BLOCK_HEADER:
        raise CorruptStoreError(f"the log has a record of {len(key)} and {len(value)} bytes")
    last = int.from_bytes(key, "big")
    if _CRC.unpack_from(value)[0] != crc32(memoryview(value)[_CRC.size :], crc32(key)):
        raise CorruptStoreError(f"the block of log entries that ends with {last} does not match its checksum")
    tag, count = _TAG_AND_COUNT.unpack_from(value, _CRC.size)
    if tag != PROTOBUF_TAG:
        raise CorruptStoreError(f"the block of log entries that ends with {last} has the unknown codec {tag}")
    return Block(last - count + 1, last, struct.unpack_from(f"<{count}I", value, _BLOCK_HEADER), value)


class Append(NamedTuple):
    """Blocks that were appended to the log's end without touching what was there.

    Attributes:
        items: key and value of each, ascending, without gaps.
        configurations: indexes of the configuration entries among them.
        committed: the commit index that was stored with them.
    """

    first: int
    items: list[tuple[bytes, bytes]]
    configurations: list[int]
    committed: int

    @property
    def last(self) -> int:
        return int.from_bytes(self.items[-1][0], "big")


def encode_append(append: Append) -> list[bytes]:
    """``append`` as a record of the journal, in pieces."""
    numbers = (append.committed, append.first, len(append.configurations), *append.configurations)
    pieces = [struct.pack(f"<{len(numbers)}Q", *numbers)]
    for key, value in append.items:
        pieces += (key, _LENGTH.pack(len(value)), value)
    return pieces


def decode_append(record: bytes) -> Append:
    """What encode_append() made a record of.

    Raises:
        CorruptStoreError: it made no such record.
    """
    try:
        committed, first, count = _THREE.unpack_from(record)
        configurations = struct.unpack_from(f"<{count}Q", record, _THREE.size)
        at = _THREE.size + 8 * count
        items: list[tuple[bytes, bytes]] = []
        while at < len(record):
            key = record[at : at + _INDEX.size]
            begin = at + _INDEX.size + _LENGTH.size
            at = begin + _LENGTH.unpack_from(record, at + _INDEX.size)[0]
            items.append((key, record[begin:at]))
    except struct.error as error:
        raise CorruptStoreError(f"a record of {len(record)} bytes cannot be read: {error}") from error
    index = first
    for key, value in items:
        block = read_block(key, value)
        if block.first != index:
            raise CorruptStoreError(f"a record holds entry {block.first} where {index} is expected")
        index = block.last + 1
    if not items:
        raise CorruptStoreError("a record holds no entries")
    return Append(first, items, list(configurations), committed)


def stable_record(key: bytes, value: bytes) -> bytes:
    """The record that keeps ``value`` under the whole ``key``, its first byte included."""
    return _CRC.pack(crc32(value, crc32(key))) + value


def read_stable(key: bytes, record: bytes) -> bytes:
    """The value in the record found under the whole ``key``.

    Raises:
        CorruptStoreError: the record is damaged, or another key's.
    """
    value = record[_CRC.size :]
    if len(record) < _CRC.size or _CRC.unpack_from(record)[0] != crc32(value, crc32(key)):
        raise CorruptStoreError(f"the stable value {key[1:]!r} does not match its checksum")
    return value


def pack_indexes(indexes: Sequence[int]) -> bytes:
    """``indexes`` as eight bytes each."""
    return b"".join(map(_INDEX.pack, indexes))


def unpack_indexes(packed: bytes) -> tuple[int, ...]:
    """What pack_indexes() packed."""
    return tuple(index for (index,) in _INDEX.iter_unpack(packed))
