"""The directory of one server's store: who holds it, whose it is, and whether it is complete.

    pyraft.lock       locked while a process has the store open; says which
    pyraft.creating   the store is being made; nothing in it was acknowledged to anybody yet
    pyraft.identity   the store was made completely, when, and for which server
    pyraft.journal    what was appended last, until data.mdb takes it over
    data.mdb lock.mdb LMDB's own

Made in this order: lock, creating, data.mdb with its databases, journal, identity; each durable before
the next.  So a crash on the way leaves something that can be thrown away safely, and a data.mdb that
is missing beside an identity is a loss, never a new server: a server that forgot its vote can
elect two leaders for one term.
"""

from __future__ import annotations

import fcntl
import json
import os
import weakref
from datetime import UTC, datetime
from pathlib import Path

from ..disk import disk_errors, make_directory, sync_directory, write_durably
from ..errors import ConfigError, CorruptStoreError, StorageError
from .lmdb_file import REMEDY, check_data_file

LOCK = "pyraft.lock"
CREATING = "pyraft.creating"
IDENTITY = "pyraft.identity"
JOURNAL = "pyraft.journal"
FORMAT = 2
_WITHOUT_JOURNAL = 1
"""The format before; read and made complete.  A version that knows only this one would miss entries."""


class StoreDirectory:
    """An exclusively held store directory whose files have passed the checks.

    Attributes:
        data_file: LMDB's data file in it.
        journal_file: the journal in it.
        is_new: the store was never completed: call complete() once its databases and the journal exist.
        is_complete: no call of complete() is wanted.
        has_data_file: data.mdb was there and is as long as it says.
    """

    def __init__(self, path: Path, server_id: str | None) -> None:
        """Lock the directory, making it if need be, and check what is in it.

        Raises:
            StorageError: another store, here or in another process, has it open.
            ConfigError: it was made for another server id.
            CorruptStoreError: files that were there once are missing or truncated.
        """
        self.path = path
        self.data_file = path / "data.mdb"
        self.journal_file = path / JOURNAL
        with disk_errors(f"cannot open the store directory {path}"):
            make_directory(path)
            self._lock = _DirectoryLock(path / LOCK, server_id)
            try:
                self._inspect(server_id)
            except BaseException:
                self._lock.release()
                raise

    def complete(self) -> None:
        """Record that the store is complete; from now on a missing data.mdb is a loss."""
        with disk_errors(f"cannot record the identity in {self.path}"):
            # LMDB syncs its files, and nobody the directory that names them.
            sync_directory(self.path)
            sync_directory(self.path.parent)
            self._write_identity({**self._identity, "format": FORMAT})
            (self.path / CREATING).unlink(missing_ok=True)

    def release(self) -> None:
        """Let others open the directory.  Idempotent."""
        self._lock.release()

    def _inspect(self, server_id: str | None) -> None:
        identity = self._read_identity()
        self.is_new = identity is None
        self.is_complete = identity is not None and identity.get("format") == FORMAT
        if identity is None:
            self._identity: dict[str, object] = {
                "format": FORMAT,
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "server_id": server_id,
            }
            self._clear_what_was_never_completed()
        else:
            self._identity = self._check_identity(identity, server_id)
            (self.path / CREATING).unlink(missing_ok=True)  # a crash may have left it
        self.has_data_file = _size(self.data_file) > 0
        if self.has_data_file:
            check_data_file(self.data_file)
        elif not self.is_new:
            state = "is empty" if self.data_file.exists() else "is missing"
            raise CorruptStoreError(
                f"{self.data_file} {state}, but {IDENTITY} says that the store was made at "
                f"{(identity or {}).get('created_at')}: its log and votes are lost. {REMEDY}."
            )

    def _clear_what_was_never_completed(self) -> None:
        creating = self.path / CREATING
        if self.journal_file.exists() and not creating.exists():
            raise CorruptStoreError(
                f"{self.journal_file} is there, but {IDENTITY} is missing beside it, as if the directory had "
                f"not been copied completely. {REMEDY}."
            )
        if creating.exists() or _size(self.data_file) == 0:
            write_durably(creating, b"")
            for name in ("data.mdb", "lock.mdb", JOURNAL):
                (self.path / name).unlink(missing_ok=True)

    def _read_identity(self) -> dict[str, object] | None:
        try:
            text = (self.path / IDENTITY).read_bytes()
        except FileNotFoundError:
            return None
        try:
            identity = json.loads(text)
        except ValueError:
            identity = None
        if not isinstance(identity, dict):
            raise CorruptStoreError(f"{self.path / IDENTITY} is damaged. {REMEDY}.")
        return identity

    def _check_identity(self, identity: dict[str, object], server_id: str | None) -> dict[str, object]:
        """Refuse what is not for us; return what the identity says from now on."""
        if identity.get("format") not in (_WITHOUT_JOURNAL, FORMAT):
            raise StorageError(
                f"{self.path} has the store format {identity.get('format')!r}, and this version of pyraft "
                f"knows only {_WITHOUT_JOURNAL} and {FORMAT}: open it with the version that made it"
            )
        owner = identity.get("server_id")
        if server_id is None or owner == server_id:
            return identity
        if owner is not None:
            raise ConfigError(
                f"{self.path} belongs to the server {owner!r}, not to {server_id!r}: a server that takes "
                f"over another's log and votes can break the cluster. Give {server_id!r} its own directory."
            )
        identity = {**identity, "server_id": server_id}
        self._write_identity(identity)
        return identity

    def _write_identity(self, identity: dict[str, object]) -> None:
        write_durably(self.path / IDENTITY, json.dumps(identity, indent=1).encode() + b"\n")


class _DirectoryLock:
    """An exclusive lock of the operating system on a file that names its holder.

    The kernel drops it when the process dies.  LMDB alone would let a second process open the
    same directory, and write to it.
    """

    def __init__(self, path: Path, server_id: str | None) -> None:
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(self._fd)
            self.release()
            raise StorageError(
                f"{path.parent} is in use by {holder}: close the store there first, or give this "
                f"server a directory of its own"
            ) from error
        except BaseException:
            self.release()
            raise
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {server_id or ''}\n".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Close the file, which unlocks it unless a parent process has it open, too."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.release()


# Of this process, so that a forked child can let go of them: the lock would otherwise outlive
# its holder for as long as the child runs, and the server could not be restarted.
_held: weakref.WeakSet[_DirectoryLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def _holder(fd: int) -> str:
    pid, _, name = os.pread(fd, 1000, 0).decode(errors="replace").strip().partition(" ")
    if not pid:
        return "a process that has just begun to open it"
    this = ", which is this process" if pid == str(os.getpid()) else ""
    return f"process {pid}{this}" + (f" (server {name!r})" if name else "")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
