"""Reading a snapshot's state, and never ending well on bytes that were not written.

A snapshot is checked as a whole before its first byte is given out, because a state machine
cannot take back what it has restored.  And it is checked once more while it is read: a disk may
return other bytes the second time.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from ..disk import disk_errors
from ..errors import CorruptStoreError
from .crc64 import crc64

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 512 * 1024
"""How much is read, checked or written at once."""


class Expected:
    """What a state file has to be: its size and its CRC-64."""

    def __init__(self, path: str, size: int, crc: int, remedy: str) -> None:
        self.path = path
        self._size = size
        self._crc = crc
        self._remedy = remedy

    def start(self) -> Callable[[bytes], None]:
        """A function that takes the file piece by piece, b"" at its end, and raises CorruptStoreError.

        What it raises for comes before the last byte is taken: the piece that completes a wrong
        file is refused.
        """
        seen = crc = 0

        def take(piece: bytes) -> None:
            nonlocal seen, crc
            seen += len(piece)
            if seen > self._size:
                raise self._damaged(f"it goes on after the {self._size} bytes that were written")
            if not piece and seen < self._size:
                raise self._damaged(f"it ends after {seen} of {self._size} bytes")
            crc = crc64(piece, crc)
            if seen == self._size and crc != self._crc:
                raise self._damaged(f"its checksum is {crc:016x} instead of {self._crc:016x}")

        return take

    def _damaged(self, finding: str) -> CorruptStoreError:
        return CorruptStoreError(f"{self.path} is damaged: {finding}. {self._remedy}.")


def check(file: io.FileIO, expected: Expected) -> None:
    """Read ``file`` from its beginning to its end, and go back to the beginning.

    Costs one pass over the file, one piece in memory at a time: a second for 3 GB that are in
    the page cache, and for 200 MB where there is no liblzma; otherwise what the disk takes.

    Raises:
        CorruptStoreError: it is not as expected.
    """
    take = expected.start()
    while piece := file.read(PIECE_BYTES):
        take(piece)
    take(b"")
    file.seek(0)


def open_checked(file: io.FileIO, expected: Expected) -> BinaryIO:
    """A reader of ``file`` that checks as it reads; it closes ``file``.

    Sequential only.  Instead of the last bytes of a damaged file, read() raises CorruptStoreError.
    """
    return io.BufferedReader(_CheckedFile(file, expected), PIECE_BYTES)


class _CheckedFile(io.RawIOBase):
    def __init__(self, file: io.FileIO, expected: Expected) -> None:
        self._file = file
        self._take = expected.start()
        self._path = expected.path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        piece = self._next(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._next(PIECE_BYTES), b""))

    def close(self) -> None:
        self._file.close()
        super().close()

    def _next(self, size: int) -> bytes:
        with disk_errors(f"cannot read {self._path}"):
            piece = self._file.read(size) or b""
        if size:  # otherwise nothing says that the file ends here
            self._take(piece)
        return piece
