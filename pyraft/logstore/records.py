"""The bytes of one record, as LMDBStore keeps them.  Pure: values in, bytes out.

Log:     key    index, 8 bytes, most significant first, so that keys sort like indexes
         value  CRC-32 (4 bytes, least significant first), codec tag (1 byte), the entry's bytes;
                the CRC covers key, tag and bytes, so that it also finds a record in another's place
Stable:  key    one byte that says whose (``u`` the user's, ``p`` the store's own), then the key
         value  CRC-32 (4 bytes, least significant first) over key and value, then the value
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

from ..errors import ConfigError, CorruptStoreError
from ..log import Log, LogType, decode_log

PROTOBUF_TAG = 1
"""The entry's bytes are the protobuf Log message that replication sends, too."""

LARGEST_INDEX = 2**64 - 1

_KEY_AND_TAG = struct.Struct(">QB")
_CRC_AND_TAG = struct.Struct("<IB")
_CRC = struct.Struct("<I")
_INDEX = struct.Struct(">Q")

log_key = _INDEX.pack


def log_index(key: bytes) -> int:
    """The index that a log record's key stands for.

    Raises:
        CorruptStoreError: the key is not eight bytes long.
    """
    if len(key) != _INDEX.size:
        raise CorruptStoreError(f"the log has a key of {len(key)} bytes")
    return int.from_bytes(key, "big")


def log_items(logs: Sequence[Log]) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """The records of ``logs``, and which of them are configurations.

    About 0.7 µs per entry that is encoded already.

    Raises:
        ConfigError: the indexes do not ascend from 1, or an entry cannot be encoded.
    """
    items: list[tuple[bytes, bytes]] = []
    configurations: list[int] = []
    pack_key, pack_crc, checksum = _KEY_AND_TAG.pack, _CRC_AND_TAG.pack, crc32
    configuration = LogType.CONFIGURATION
    previous = 0
    for log in logs:
        index, encoded = log.index, log.encoded
        if not previous < index <= LARGEST_INDEX:
            raise ConfigError(f"entry {index} cannot follow entry {previous}: indexes ascend from 1")
        key = pack_key(index, PROTOBUF_TAG)
        items.append((key[:8], pack_crc(checksum(encoded, checksum(key)), PROTOBUF_TAG) + encoded))
        if log.type is configuration:
            configurations.append(index)
        previous = index
    return items, configurations


def read_log(index: int, value: bytes) -> Log:
    """The entry in the record ``value`` that was found under ``index``.

    Raises:
        CorruptStoreError: the record is damaged, of an unknown codec, or another entry's.
    """
    if len(value) < _CRC_AND_TAG.size:
        raise CorruptStoreError(f"log entry {index} has a record of only {len(value)} bytes")
    checksum, tag = _CRC_AND_TAG.unpack_from(value)
    encoded = value[_CRC_AND_TAG.size :]
    if checksum != crc32(encoded, crc32(_KEY_AND_TAG.pack(index, tag))):
        raise CorruptStoreError(f"log entry {index} does not match its checksum")
    if tag != PROTOBUF_TAG:
        raise CorruptStoreError(f"log entry {index} has the unknown codec {tag}: a newer version wrote it")
    try:
        log = decode_log(encoded)
    except CorruptStoreError as error:
        raise CorruptStoreError(f"log entry {index} cannot be decoded: {error}") from error
    if log.index != index:
        raise CorruptStoreError(f"log entry {index} holds the bytes of entry {log.index}")
    return log


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
