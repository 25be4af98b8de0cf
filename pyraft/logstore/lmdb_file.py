"""Is an LMDB data file all there?  Asked before lmdb maps it: reading past its end kills the process.

A truncated file is SIGBUS on first access and an emptied one opens as a new database; LMDB
reports neither.  So the two meta pages are read here, as plain bytes, and all pages where they
leave a doubt.

Source: LMDB 0.9, mdb.c: MDB_page, MDB_meta, MDB_db, mdb_env_pick_meta().
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lmdb.verify import VerifyError, verify

from ..errors import CorruptStoreError

REMEDY = (
    "Wipe this server's directory and let it rejoin as a new member. Do not repair it by cutting "
    "something off: this server's votes and acknowledgements may rest on what is lost"
)

# Native sizes and alignment: pgno_t and size_t are 4 bytes on a 32-bit machine.
_PAGE = struct.Struct("@NHHI")  # page number, pad, flags, lower and upper
_META = struct.Struct("@IIPN" + 2 * "IHHNNNNN" + "NN")
_P_META = 0x08
_MAGIC = 0xBEEFC0DE
_VERSION = 1  # LMDB 0.9, which is what lib_version=0 writes


class _Meta(NamedTuple):
    page_bytes: int
    last_page: int
    transaction: int


def check_data_file(path: Path) -> None:
    """Raise CorruptStoreError unless all of ``path`` is there, and its meta pages fit together.

    A file that is shorter than the newest of them says is healthy nonetheless if nothing but free
    pages is missing: a transaction that cuts the log may free a page that it has just taken from
    the file's end, and LMDB does not write it.  Such a file is checked page by page (a second for
    some 600 MB), and made as long as it should be.
    """
    size = os.stat(path).st_size
    with path.open("rb") as file:
        first = _read_meta(path, file, 0)
        second = _read_meta(path, file, first.page_bytes)
    _check_pair(path, first, second)
    newest = second if first.transaction < second.transaction else first
    needed = (newest.last_page + 1) * first.page_bytes
    if size < needed:
        if not _is_whole(path):
            raise CorruptStoreError(
                f"{path} has {size} bytes of the {needed} it needs: it was truncated. {REMEDY}."
            )
        os.truncate(path, needed)


def _is_whole(path: Path) -> bool:
    """Whether every page that is in use is there, and what it should be.  Reads the file, without mapping it."""
    try:
        return not verify(str(path))  # type: ignore[no-untyped-call]
    except VerifyError:  # not for this machine's kind of numbers, or no beginning
        return False


def _check_pair(path: Path, even: _Meta, odd: _Meta) -> None:
    """Refuse a pair of meta pages that LMDB never writes: it would take the older one, without a word.

    Commits are numbered one after the other, and write the two pages in turn.  The file never shrinks.
    """
    older, newer = sorted((even, odd), key=lambda meta: meta.transaction)
    fits = newer.transaction == older.transaction + 1 and odd.transaction % 2 == 1
    is_new = newer.transaction == 0
    if not (fits or is_new) or even.page_bytes != odd.page_bytes or newer.last_page < older.last_page:
        raise CorruptStoreError(
            f"the two meta pages of {path} do not belong together (commits {even.transaction} and "
            f"{odd.transaction}): one of them is damaged. {REMEDY}."
        )


def _read_meta(path: Path, file: BinaryIO, offset: int) -> _Meta:
    file.seek(offset)
    page = file.read(_PAGE.size + _META.size)
    if len(page) < _PAGE.size + _META.size:
        raise CorruptStoreError(f"{path} ends within its first two pages: it was truncated. {REMEDY}.")
    flags = _PAGE.unpack_from(page)[2]
    magic, version, _, _, page_bytes, *_, last_page, transaction = _META.unpack_from(page, _PAGE.size)
    if magic != _MAGIC or version != _VERSION or not flags & _P_META:
        raise CorruptStoreError(
            f"{path} is no LMDB 0.9 data file: the page at byte {offset} has magic {magic:#x}, "
            f"version {version}. {REMEDY}."
        )
    if not 256 <= page_bytes <= 65536 or page_bytes & (page_bytes - 1):
        raise CorruptStoreError(f"{path} claims pages of {page_bytes} bytes: it is damaged. {REMEDY}.")
    return _Meta(page_bytes, last_page, transaction)
