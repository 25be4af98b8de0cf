"""Snapshots as folders, laid out as hashicorp/raft does, so that they travel between Go and Python.

    <path>/snapshots/<term>-<index>-<milliseconds since 1970>/meta.json   see meta_json.py
                                                             /state.bin   what the FSM wrote

While it is written the folder's name ends in ``.tmp``.  Then: sync state.bin, sync meta.json,
sync the folder, rename it, sync its parent.  So a folder without ``.tmp`` is whole, after a power
cut too.  To drop one it is renamed back first.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..configuration import Configuration
from ..disk import DISK_FULL, disk_errors, make_directory, sync_directory
from ..errors import ConfigError, CorruptStoreError, RaftError, StorageError, StoreFullError
from ..runtime import ForkGuard
from ..transport.base import Transport
from .base import SnapshotMeta, SnapshotSink, SnapshotStore
from .checked_reader import PIECE_BYTES, Expected, check, open_checked
from .crc64 import crc64
from .meta_json import LARGEST_META_BYTES, decode_meta, encode_meta

FOLDER = "snapshots"
META = "meta.json"
STATE = "state.bin"
UNFINISHED = ".tmp"
VERSION = 1
RETAIN = 2
"""How many are kept unless somebody says otherwise.  With two, there is one to go back to."""

REMEDY = (
    "Bring the folder back from a backup, or wipe this server's directory and let it rejoin as a "
    "new member. An older snapshot is used meanwhile if the log still reaches back to it"
)

_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}-[0-9]{1,20}", re.ASCII)

_log = logging.getLogger(__name__)


class _Stored(NamedTuple):
    meta: SnapshotMeta
    crc: int

    @property
    def age(self) -> tuple[int, int, str]:
        """The larger, the newer; ids of one position are compared as text by hashicorp/raft, so here, too."""
        return self.meta.term, self.meta.index, self.meta.id


def check_retain(retain: int) -> None:
    """Raise ConfigError unless ``retain`` is a number of snapshots that can be kept."""
    if type(retain) is not int or retain < 1:
        raise ConfigError(f"retain is {retain!r}: keep at least one snapshot, better two")


class FileSnapshotStore(SnapshotStore):
    """Keeps the newest snapshots of one server in its data directory.

    For one process at a time: constructing it throws away what an earlier one left unfinished,
    and another live one would lose what it is writing.  The lock is the log store's: open the
    LMDBStore of the same directory first, which refuses a second process.

    Any thread may call it.  A forked child may read and not write.
    """

    def __init__(self, path: str | os.PathLike[str], retain: int = RETAIN) -> None:
        """Open the store in the directory ``path``, making it if it is not there.

        Args:
            retain: how many snapshots to keep, 1 or more.  With two, there is one to go back to
                when the newest is damaged.

        Raises:
            ConfigError: ``retain`` is out of range.
            StorageError: the directory cannot be read or written.
        """
        check_retain(retain)
        self._home = Path(path).absolute() / FOLDER
        self._retain = retain
        self._fork_guard = ForkGuard()
        self._complaints: dict[str, str] = {}
        self._checked: dict[str, tuple[_Stored, tuple[int, ...]]] = {}
        with disk_errors(
            f"cannot keep snapshots in {self._home}, where the user of this process must be able to "
            f"read and write"
        ):
            make_directory(self._home)
            self._clear_unfinished()  # first: it makes room
            self._try_to_write()

    def create(
        self,
        version: int,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
        transport: Transport,
    ) -> SnapshotSink:
        self._fork_guard.check("the snapshot store")
        if version != VERSION:
            raise ConfigError(f"snapshot version {version!r} cannot be written: it must be {VERSION}")
        with disk_errors(f"cannot begin a snapshot in {self._home}"):
            make_directory(self._home)
            id = self._make_folder(term, index)
        meta = SnapshotMeta(id, index, term, configuration, configuration_index, 0, version)
        return _FileSink(self, self._home / id, meta)

    def list(self) -> Sequence[SnapshotMeta]:
        """The newest complete snapshots, newest first, at most ``retain``.

        One whose meta.json cannot be read is left out, and the log says so, once.  state.bin is
        not looked at: open() does that.

        Raises:
            StorageError: the directory cannot be read.
        """
        return [stored.meta for stored in self._stored()[: self._retain]]

    def unreadable(self) -> Sequence[tuple[int, int]]:
        """(term, index) by their names, of the snapshots newer than all that ``list`` gives.

        Raises:
            StorageError: the directory cannot be read.
        """
        with disk_errors(f"cannot list the snapshots in {self._home}"):
            names = _folders(self._home)  # first: one that is completed from here on is none of them
        newest = next((stored.age for stored in self._stored()), (0, 0, ""))
        ages = [_age_of(id) for id in filter(_ID.fullmatch, names)]
        return [(term, index) for term, index, id in ages if (term, index, id) > newest]

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """The snapshot named ``id`` and a reader of its bytes, which the caller closes.

        The first time, this reads the file from beginning to end and checks it, which takes as
        long as the disk takes to deliver it.  Later it does not, unless the file was touched
        since: sending one snapshot to several servers checks it once.  The reader itself checks
        what it reads, and raises CorruptStoreError in the place of the last bytes of a damaged file.

        Raises:
            CorruptStoreError: it is not what was written.
            StorageError: it cannot be read.
            RaftError: there is no such snapshot, or no longer.
        """
        folder = self._home / id
        try:
            if not _ID.fullmatch(id):
                raise FileNotFoundError
            stored = _read_meta(folder)
            file = _open_file(folder / STATE)
        except FileNotFoundError:
            raise RaftError(f"there is no snapshot {id!r} in {self._home}, or no longer") from None
        try:
            expected = Expected(str(folder / STATE), stored.meta.size, stored.crc, REMEDY)
            self._check_once(stored, file, expected)
            return stored.meta, open_checked(file, expected)
        except BaseException:
            file.close()
            raise

    # For the sink

    def check_process(self) -> None:
        """Raise ForkedProcessError in a forked child."""
        self._fork_guard.check("the snapshot store")

    @property
    def is_foreign_process(self) -> bool:
        """True in a forked child, which must leave the files alone."""
        return self._fork_guard.is_child

    def reap(self) -> None:
        """Drop the snapshots beyond the newest ``retain``; complain in the log if that fails."""
        try:
            with disk_errors(f"cannot drop old snapshots in {self._home}"):
                for stored in self._stored()[self._retain :]:
                    self._checked.pop(stored.meta.id, None)
                    _drop(self._home / stored.meta.id)
        except StorageError as error:
            _log.error("%s. They go on taking room: remove the oldest folders by hand", error)

    # Inside

    def _try_to_write(self) -> None:
        probe = self._home / "permTest"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.unlink(probe)
        os.listdir(self._home)

    def _clear_unfinished(self) -> None:
        for name in _folders(self._home):
            if name.endswith(UNFINISHED) and _ID.fullmatch(name.removesuffix(UNFINISHED)):
                _log.warning("removing the unfinished snapshot %s", self._home / name)
                shutil.rmtree(self._home / name)

    def _make_folder(self, term: int, index: int) -> str:
        """Make an unfinished folder; return the id that nobody else has."""
        position = f"{term}-{index}-"
        begun = [name.removesuffix(UNFINISHED) for name in _folders(self._home) if name.startswith(position)]
        taken = [id.removeprefix(position) for id in begun if _ID.fullmatch(id)]
        milliseconds = _later_than(taken, time.time_ns() // 1_000_000)
        while True:
            id = f"{position}{milliseconds}"
            unfinished = _unfinished(self._home / id)
            with suppress(FileExistsError):
                os.mkdir(unfinished, 0o700)
                # Looked up in this order: another sink's folder is finished before it is gone.
                if not (self._home / id).exists():
                    return id
                os.rmdir(unfinished)
            milliseconds += 1

    def _stored(self) -> Sequence[_Stored]:
        """Every snapshot whose meta can be read, newest first."""
        found = []
        with disk_errors(f"cannot list the snapshots in {self._home}"):
            names = _folders(self._home)
        for name in filter(_ID.fullmatch, names):
            try:
                found.append(_read_meta(self._home / name))
            except FileNotFoundError:
                pass  # dropped meanwhile
            except StorageError as error:
                self._complain(name, str(error))
        return sorted(found, key=lambda stored: stored.age, reverse=True)

    def _complain(self, name: str, text: str) -> None:
        if self._complaints.get(name) != text:  # list() is called again and again
            self._complaints[name] = text
            _log.error("leaving out the snapshot %s: %s", name, text)

    def _check_once(self, stored: _Stored, file: FileIO, expected: Expected) -> None:
        status = os.fstat(file.fileno())
        touched = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._checked.get(stored.meta.id) != (stored, touched):
            with disk_errors(f"cannot read {expected.path}"):
                check(file, expected)
            self._checked[stored.meta.id] = (stored, touched)


class _FileSink(SnapshotSink):
    """A snapshot on its way to the disk.  One thread at a time."""

    def __init__(self, store: FileSnapshotStore, folder: Path, meta: SnapshotMeta) -> None:
        self._store = store
        self._folder = folder
        self._unfinished = _unfinished(folder)
        self._meta = meta
        self._buffer = bytearray()
        self._size = 0
        self._crc = 0
        self._renamed = False
        self._closed = False
        self._ended: RaftError | None = None  # why nothing can be written any more
        self._fd: int | None = None
        with self._giving_up_on_errors("begin"):
            self._fd = _create(self._unfinished / STATE)

    @property
    def id(self) -> str:
        return self._meta.id

    def write(self, data: bytes) -> int:
        self._check_open()
        view = memoryview(data).cast("B")
        if len(self._buffer) + len(view) < PIECE_BYTES:
            self._buffer += view
            return len(view)
        with self._giving_up_on_errors("write"):
            for start in range(0, len(view), PIECE_BYTES):
                self._buffer += view[start : start + PIECE_BYTES]
                if len(self._buffer) >= PIECE_BYTES:
                    self._flush()
        return len(view)

    def close(self) -> None:
        if self._closed:
            return
        self._check_open()
        with self._giving_up_on_errors("complete"):
            self._flush()
            assert self._fd is not None
            os.fsync(self._fd)
            self._close_file()
            meta = replace(self._meta, size=self._size)
            _write_new(self._unfinished / META, encode_meta(meta, self._crc))
            sync_directory(self._unfinished)
            os.rename(self._unfinished, self._folder)
            self._renamed = True
            self._make_name_durable()
        self._closed = True
        self._store.reap()

    def _make_name_durable(self) -> None:
        try:
            sync_directory(self._folder.parent)
        except OSError as error:
            # Never StoreFullError: that it is not there is what nobody knows any more.
            raise StorageError(
                f"cannot complete the snapshot {self._folder}: {error}. It may or may not be there at the next start"
            ) from error

    def cancel(self) -> None:
        if self._closed or self._ended is not None or self._store.is_foreign_process:
            return
        self._give_up(RaftError(f"the snapshot {self.id} was cancelled: begin another one"))

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            self._close_file()

    def _check_open(self) -> None:
        self._store.check_process()
        if self._closed:
            raise RaftError(f"the snapshot {self.id} is closed: it cannot be written to any more")
        if self._ended is not None:
            raise type(self._ended)(str(self._ended)) from self._ended

    def _flush(self) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        assert self._fd is not None
        _write_all(self._fd, data)
        self._crc = crc64(data, self._crc)
        self._size += len(data)

    @contextmanager
    def _giving_up_on_errors(self, what: str) -> Iterator[None]:
        try:
            try:
                yield
            except OSError as error:
                raise _disk_error(f"cannot {what} the snapshot {self._folder}", error) from error
        except BaseException as error:  # an interrupt, too, may have left half a piece in the file
            if not isinstance(error, RaftError):
                self._give_up(StorageError(f"the snapshot {self.id} was not completed: {error!r}"))
            else:
                self._give_up(error)
            raise

    def _give_up(self, error: RaftError) -> None:
        """Leave nothing behind, and above all no room taken on a full disk."""
        self._ended = error
        self._buffer.clear()
        with suppress(OSError):
            self._close_file()
        if self._renamed:  # but perhaps not durably
            with suppress(OSError):
                os.rename(self._folder, self._unfinished)
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def _close_file(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


# Files


def _age_of(id: str) -> tuple[int, int, str]:
    term, index, _ = id.split("-")
    return int(term), int(index), id


def _later_than(taken: Sequence[str], now: int) -> int:
    """``now``, or a number that is larger than each of ``taken`` where the clock was set back.

    Larger as text, too: a clock that began at 1970 gives fewer digits.
    """
    width = max(map(len, [str(now), *taken]))
    latest = max((int(digits.ljust(width, "0")) for digits in taken), default=-1)
    return max(now, latest + 1)


def _unfinished(folder: Path) -> Path:
    return folder.with_name(folder.name + UNFINISHED)


def _folders(home: Path) -> Sequence[str]:
    with os.scandir(home) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _read_meta(folder: Path) -> _Stored:
    """What the folder's meta.json says.

    Raises:
        FileNotFoundError: there is no such folder.
        CorruptStoreError: meta.json is missing, damaged, or another folder's.
    """
    path = folder / META
    with _open_file(path) as file, disk_errors(f"cannot read {path}"):
        size = os.fstat(file.fileno()).st_size
        data = file.readall() if size <= LARGEST_META_BYTES else b""
    try:
        if size > LARGEST_META_BYTES:
            raise ValueError(f"it has {size} bytes")
        meta, crc = decode_meta(data)
        if meta.id != folder.name:
            raise ValueError(f"it belongs to a folder named {meta.id!r}")
    except ValueError as error:
        raise CorruptStoreError(f"{path} is damaged: {error}. {REMEDY}.") from error
    return _Stored(meta, crc)


def _open_file(path: Path) -> FileIO:
    """Open a file of a snapshot's folder; FileNotFoundError means that the folder is not there."""
    with disk_errors(f"cannot open {path}"):
        try:
            return FileIO(path)
        except FileNotFoundError:
            exists = path.parent.is_dir()
    if not exists:
        raise FileNotFoundError(path.parent)
    raise CorruptStoreError(f"{path} is missing. {REMEDY}.")


def _drop(folder: Path) -> None:
    """Remove a complete snapshot, so that no crash leaves half of it under its name."""
    unfinished = _unfinished(folder)
    try:
        os.rename(folder, unfinished)
    except FileNotFoundError:
        return  # another thread was faster
    sync_directory(folder.parent)
    shutil.rmtree(unfinished)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_new(path: Path, content: bytes) -> None:
    fd = _create(path)
    try:
        _write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def _disk_error(failed: str, error: OSError) -> StorageError:
    if error.errno in DISK_FULL:
        return StoreFullError(f"{failed}: {error}. Nothing of it is kept: make room on the disk")
    return StorageError(
        f"{failed}: {error}. Nothing of it is kept. If the disk is failing, which the kernel's log "
        f"would say, move this server to another one"
    )
