"""Files and directories that are still there after a power cut, and errors that say what failed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StorageError, StoreFullError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_errors(failed: str) -> Iterator[None]:
    """Turn OSError into StoreFullError or StorageError, beginning with ``failed``."""
    try:
        yield
    except OSError as error:
        kind = StoreFullError if error.errno in DISK_FULL else StorageError
        raise kind(f"{failed}: {error}") from error


def make_directory(path: Path) -> None:
    """Make ``path`` and its parents where they are missing, durably.

    Raises:
        OSError: it cannot be made, or something else has the name.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        sync_directory(path.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def write_durably(path: Path, content: bytes) -> None:
    """Make ``path`` hold ``content`` or stay as it was, whatever happens meanwhile."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable: syncing a file does not do that."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
