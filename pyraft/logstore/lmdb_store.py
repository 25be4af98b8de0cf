"""The log and the ballot in LMDB: what a server has promised, on its disk.

One transaction per call, durable when the call returns: two flushes, data and then meta page.
Entries are kept in the database ``logs``, values in ``stable``, as records.py lays them out;
directory.py holds the directory and refuses one that lost its files.  Every call of lmdb may
cost 5 ms beside a thread that computes (records.py says why), so each method makes few.

A small batch at the log's end goes into the journal instead, with one flush, and stays in memory:
the *tail*.  The next transaction that has to do with it, or with more than the journal has room
for, takes the tail over into the database.  Readers see one log.

Writers are one at a time (the server's main thread), readers are many.  LMDB gives each reader
the state of one commit; the gate below exists because growing the map and closing pull the
memory away from under whoever reads.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeAlias, TypeVar

import lmdb

from ..disk import DISK_FULL, disk_errors
from ..errors import (
    ConfigError,
    CorruptStoreError,
    ForkedProcessError,
    LogNotFoundError,
    StorageError,
    StoreFullError,
)
from ..log import Log
from ..runtime import ForkGuard
from .base import LogStore, StableStore
from .content import Content, left_of, tail_blocks, with_tail
from .directory import IDENTITY, StoreDirectory
from .gate import Gate
from .journal import Journal, JournalDamage, create
from .lmdb_file import REMEDY
from .records import (
    LARGEST_INDEX,
    Append,
    Batch,
    Block,
    encode_append,
    encode_batch,
    log_key,
    pack_indexes,
    read_block,
    read_stable,
    stable_record,
    unpack_indexes,
)

GIB = 1 << 30

DEFAULT_MAP_SIZE = 64 * GIB if sys.maxsize > 2**32 else GIB
"""Address space in bytes, not disk: the file grows only as far as it is used."""

SMALLEST_MAP_SIZE = 64 * 1024
LARGEST_KEY_BYTES = 510

# Reading and writing threads of one process: replicators, FSM runner, user threads.
_READERS = 1022
# "p" keeps them apart from every key of the user's.
_CONFIGURATIONS = b"pconfigurations"
_COMMITTED = b"pcommitted"
_JOURNAL = b"pjournal"  # its identity and epoch

_ROOM_FOR_TAIL = 64 * 1024
"""Bytes that a transaction may need beyond twice the tail, for the pages above and beside it."""

_CORRUPT = (
    lmdb.BadChecksumError,
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
T = TypeVar("T")


Change: TypeAlias = Callable[[Transaction], Content]


class LMDBStore(LogStore, StableStore):
    """LogStore and StableStore in one directory, for one process at a time.

    Any write that fails, unless for lack of map space, latches the store: what the disk holds
    is open then, so every later write raises StorageError until the store is opened again.

    A forked child cannot use it: every method raises StorageError there, and close() does nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        map_size: int = DEFAULT_MAP_SIZE,
        sync: bool = True,
        *,
        server_id: str | None = None,
        max_map_size: int | None = None,
    ) -> None:
        """Open the store in the directory ``path``, making it if it is not there.

        Args:
            map_size: bytes of address space to begin with; doubled when the data needs it.
            sync: False makes commits that a power cut undoes, votes and acknowledged entries
                included.  For tests only: a server that forgets those can break the cluster.
            server_id: whose store it is.  The first id given is recorded for good.
            max_map_size: the most bytes the data may take; beyond it StoreFullError.  None: no limit.

        Raises:
            ConfigError: a size is out of range, or the directory belongs to another server.
            StorageError: the directory is in use, or cannot be read or written.
            CorruptStoreError: files are missing, truncated or damaged.
        """
        self._max_map_size = max_map_size
        map_size = _checked_map_size(map_size, max_map_size)
        self._path = Path(path)
        self._fork_guard = ForkGuard()
        self._writing = threading.Lock()
        self._gate = Gate()
        self._end_of_file = 0  # bytes of the data file in use or free, if there is a limit
        self._staged = 0  # commit index to store with the next entries; writer's thread only
        self._unwritable: str | None = None  # why no write is taken any more
        self._unreadable: str | None = None  # why no read is, either
        self._directory = StoreDirectory(self._path.absolute(), server_id)
        try:
            with self._open_errors(map_size):
                self._open(map_size, sync)
        except BaseException:
            self._directory.release()
            raise

    # Reading: any thread

    def first_index(self) -> int:
        self._check_usable()
        return self._content.first

    def last_index(self) -> int:
        self._check_usable()
        return self._content.last

    def get_log(self, index: int) -> Log:
        return self.get_logs(index, index, 0)[0]

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Log]:
        logs: list[Log] | None = None
        while logs is None:
            content = self._content
            if not 0 < content.first <= first <= min(last, content.last):
                self._check_usable()
                raise LogNotFoundError(first)
            logs = self._read(partial(self._scan, content, first, last, max_bytes))
            if logs is None and self._unwritable is not None and content is self._content:
                raise StorageError(self._unwritable)  # what the writer was about to publish never comes
        return logs

    def configuration_indexes(self) -> tuple[int, ...]:
        """Indexes of the configuration entries in the log, newest last, without a scan."""
        self._check_usable()
        return self._content.configurations

    def get_commit_index(self) -> int:
        self._check_usable()
        return self._content.committed

    def get(self, key: bytes) -> bytes | None:
        stable_key = _stable_key(key)
        record = self._read(lambda txn: txn.get(stable_key, db=self._stable))
        try:
            return None if record is None else read_stable(stable_key, record)
        except CorruptStoreError as error:
            raise self._corrupt(str(error)) from error

    def stats(self) -> dict[str, int]:
        """Figures for operators.

        ``map_size`` and ``used_bytes`` (the most ever used: the file never shrinks) in bytes,
        ``live_bytes`` of them in use now, ``journal_bytes`` that are in the journal only,
        ``entries`` from first to last index.
        """
        return self._read(self._figures)

    # Writing: one thread at a time

    def store_logs(self, logs: Sequence[Log]) -> None:
        """Store ``logs``, durable on return.

        Raises:
            ConfigError: their indexes do not ascend from 1.
            StoreFullError: nothing of them is stored, or as StorageError where it was the disk that is full.
            StorageError: they may or may not be stored; the store takes no more writes.
        """
        batch = encode_batch(logs)
        if not batch.items or self._append_to_journal(batch):
            return

        def change(txn: Transaction) -> Content:
            content = self._content
            if batch.runs[0][0] <= content.last:
                content = self._cut(txn, content, batch.runs)
            return self._put(txn, content, batch)

        self._write(change)

    def replace_suffix(self, logs: Sequence[Log]) -> None:
        """Store ``logs`` and drop whatever stood at or after the first of them, in one commit.

        Raises:
            As store_logs().
        """
        batch = encode_batch(logs)
        if not batch.items or self._append_to_journal(batch):
            return

        def change(txn: Transaction) -> Content:
            content = self._cut(txn, self._content, [(batch.runs[0][0], LARGEST_INDEX)])
            return self._put(txn, content, batch)

        self._write(change)

    def stage_commit_index(self, index: int) -> None:
        self._staged = index

    def delete_range(self, first: int, last: int) -> None:
        """Drop the entries ``first`` to ``last``, both included, in one commit.

        The file keeps its size; later entries reuse the room.
        """
        first, last = max(first, 1), min(last, LARGEST_INDEX)
        if first <= last:
            self._write(lambda txn: self._cut(txn, self._content, [(first, last)]))

    def set(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``, durable on return.

        Raises:
            ConfigError: ``key`` is longer than 510 bytes.
            StoreFullError, StorageError: as store_logs().
        """
        stable_key = _stable_key(key)
        record = stable_record(stable_key, value)

        def change(txn: Transaction) -> Content:
            txn.put(stable_key, record, db=self._stable)
            return self._content

        self._write(change)

    def close(self) -> None:
        """Close the store once readers and a writer have left it.  Idempotent.

        In a forked child it does nothing: files and lock belong to the parent.
        """
        try:
            self._fork_guard.check("the store")
        except ForkedProcessError:
            return
        with self._writing:
            try:
                if self._unreadable is None and self._unwritable is None:
                    self._take_over_tail()
            finally:
                with self._gate.alone():
                    if self._unreadable is None:
                        self._unreadable = f"the store {self._path} is closed: open it again to use it"
                    self._env.close()
                    self._journal.close()
                    self._directory.release()

    def _take_over_tail(self) -> None:
        """So that a store that was closed well is all in one file."""
        with suppress(StorageError):  # what cannot be taken over stays in the journal, as durable
            if self._content.tail:
                self._write_alone(lambda txn: self._put_tail(txn, self._content))
            self._journal.clear()

    # Opening

    def _open(self, map_size: int, sync: bool) -> None:
        directory = self._directory
        # A new store gets the 0.9 format, which every LMDB tool reads; later it stays as it was made.
        open_environment = lmdb.open if directory.has_data_file else partial(lmdb.open, lib_version=0)
        self._env = open_environment(
            str(directory.path),
            map_size=map_size,
            sync=sync,
            mode=0o700,
            max_readers=_READERS,
            max_dbs=2,
            max_spare_txns=1,
        )
        try:
            self._env.reader_check()  # slots of readers that were killed keep pages from being reused
            self._logs = self._env.open_db(b"logs", create=directory.is_new)
            self._stable = self._env.open_db(b"stable", create=directory.is_new)
            with self._env.begin() as txn:
                self._check_stable(txn)
                if directory.is_new and any(txn.stat(db)["entries"] for db in (self._logs, self._stable)):
                    raise CorruptStoreError(
                        f"it holds a log or votes, but {IDENTITY} is missing beside it, as if the "
                        f"directory had not been copied completely"
                    )
                stored = self._read_content(txn)
                record = txn.get(_JOURNAL, db=self._stable)
            if record is None:  # new, or made by a version that had no journal
                if directory.is_complete:
                    raise CorruptStoreError("it does not know its journal")
                record = self._make_journal()
            identity, epoch = unpack_indexes(read_stable(_JOURNAL, record))
            if sync or not directory.is_complete:
                # What a process that was killed in a commit has written may be there and not yet durable.
                self._env.sync(True)
            if not directory.is_complete:
                directory.complete()
            self._journal = Journal(directory.journal_file, identity, epoch, sync)
            try:
                self._content = with_tail(stored._replace(epoch=epoch), self._journal.records)
                self._journal.records.clear()
                self._look_at_size()
            except BaseException:
                self._journal.close()
                raise
        except BaseException:
            self._env.close()
            raise

    def _make_journal(self) -> bytes:
        """Make the journal, then let the database know of it; return what that remembers."""
        identity = int.from_bytes(os.urandom(8), "big")
        create(self._directory.journal_file, identity)
        record = stable_record(_JOURNAL, pack_indexes((identity, 1)))
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    txn.put(_JOURNAL, record, db=self._stable)
                return record
            except lmdb.MapFullError as error:
                self._grow(error)

    @contextmanager
    def _open_errors(self, map_size: int) -> Iterator[None]:
        file = self._directory.data_file
        try:
            with disk_errors(f"cannot open {file}"):
                yield
        except JournalDamage as error:
            file = self._directory.journal_file
            raise CorruptStoreError(f"{file} is damaged: {error}. {REMEDY}.") from error
        except (*_CORRUPT, lmdb.NotFoundError, CorruptStoreError, SystemError) as error:
            raise self._corrupt(str(error)) from error
        except (lmdb.MemoryError, MemoryError) as error:
            raise StorageError(
                f"cannot map {map_size} bytes for {file}: {error}. Give a smaller map_size, or lift "
                f"the limit of this process's address space (ulimit -v)."
            ) from error
        except lmdb.Error as error:
            full = isinstance(error, lmdb.MapFullError) or _is_disk_full(error, self._path)
            kind = StoreFullError if full else StorageError
            raise kind(f"cannot open {file}: {error}") from error

    # Inside a read transaction

    def _read(self, work: Callable[[Transaction], T]) -> T:
        """Return what ``work`` returns, run in a read transaction of its own.

        Short work only: pages that others free meanwhile cannot be reused until it ends.
        """
        self._check_usable()
        self._gate.enter()
        try:
            if self._unreadable is not None:  # closed since
                raise StorageError(self._unreadable)
            with self._env.begin() as txn:
                return work(txn)
        except (*_CORRUPT, CorruptStoreError) as error:
            raise self._corrupt(str(error)) from error
        except SystemError as error:
            raise self._corrupt(str(error)) from error
        except lmdb.Error as error:
            raise StorageError(f"cannot read {self._directory.data_file}: {error}") from error
        finally:
            self._gate.leave()

    def _scan(
        self, content: Content, first: int, last: int, max_bytes: int, txn: Transaction
    ) -> list[Log] | None:
        """The entries; None if the log's end has changed since ``content`` was looked at."""
        logs: list[Log] = []
        size = 0
        tail: Iterator[Block] = iter(())
        if content.tail and last >= content.tail_from:
            if self._read_epoch(txn) != content.epoch:
                return None
            tail = tail_blocks(content, first)
        for block in chain(self._blocks(txn, first), tail):
            index = first + len(logs)
            if block.first > index:
                break
            for log in block.logs(index, min(last, block.last)):
                size += len(log.data) + len(log.extensions)
                if logs and size > max_bytes:
                    return logs
                logs.append(log)
            if block.last >= last or size > max_bytes:
                return logs
        raise LogNotFoundError(first + len(logs))

    def _read_epoch(self, txn: Transaction) -> int:
        record = txn.get(_JOURNAL, db=self._stable) or b""
        return unpack_indexes(read_stable(_JOURNAL, record))[1]

    def _blocks(self, txn: Transaction, first: int) -> Iterator[Block]:
        """The blocks that end at or after ``first``, ascending."""
        with txn.cursor(self._logs) as cursor:
            found = cursor.set_range(log_key(first))
            while found:
                yield read_block(cursor.key(), cursor.value())
                found = cursor.next()

    def _check_stable(self, txn: Transaction) -> None:
        """Read every value once: a damaged page may hide one, and a vote that is not found counts as not given."""
        count, before = 0, b""
        with txn.cursor(self._stable) as cursor:
            for key, record in cursor:
                read_stable(key, record)
                if key <= before:
                    raise CorruptStoreError(
                        f"the stable values {before[1:]!r} and {key[1:]!r} are out of order"
                    )
                count, before = count + 1, key
        expected = txn.stat(self._stable)["entries"]
        if count != expected:
            raise CorruptStoreError(f"there are {count} stable values where {expected} were stored")

    def _read_content(self, txn: Transaction) -> Content:
        """What the database holds.  The epoch is another's to find out."""
        first, last = self._read_ends(txn)
        return Content(
            first, last, self._read_configurations(txn), self._read_committed(txn), (), last + 1, 0
        )

    def _read_ends(self, txn: Transaction) -> tuple[int, int]:
        with txn.cursor(self._logs) as cursor:
            if not cursor.first():
                return 0, 0
            oldest = read_block(cursor.key(), cursor.value())
            cursor.last()
            return oldest.first, int.from_bytes(cursor.key(), "big")

    def _read_configurations(self, txn: Transaction) -> tuple[int, ...]:
        record = txn.get(_CONFIGURATIONS, db=self._stable)
        if record is None:
            return ()
        return unpack_indexes(read_stable(_CONFIGURATIONS, record))

    def _read_committed(self, txn: Transaction) -> int:
        record = txn.get(_COMMITTED, db=self._stable)
        return 0 if record is None else int.from_bytes(read_stable(_COMMITTED, record), "big")

    def _figures(self, txn: Transaction) -> dict[str, int]:
        content = self._content
        info, page_bytes = self._env.info(), self._env.stat()["psize"]
        databases = [txn.stat(self._logs), txn.stat(self._stable)]
        live_pages = sum(db["branch_pages"] + db["leaf_pages"] + db["overflow_pages"] for db in databases)
        return {
            "map_size": info["map_size"],
            "used_bytes": (info["last_pgno"] + 1) * page_bytes,
            "live_bytes": live_pages * page_bytes,
            "journal_bytes": self._journal.used,
            "entries": content.last - content.first + 1 if content.last else 0,
        }

    def _corrupt(self, finding: str) -> CorruptStoreError:
        return CorruptStoreError(f"{self._directory.data_file} is damaged: {finding}. {REMEDY}.")

    # Writing to the journal

    def _append_to_journal(self, batch: Batch) -> bool:
        """Store ``batch`` with one flush, if it is small and goes to the log's end; return whether."""
        self._check_usable()
        with self._writing:
            self._check_writable()
            content = self._content
            if not content.is_followed_by(batch):
                return False
            committed = max(content.committed, self._staged)
            append = Append(batch.runs[0][0], batch.items, batch.configurations, committed)
            pieces = encode_append(append)
            size = sum(map(len, pieces))
            if not self._journal.has_room(size) or not self._will_have_room(size):
                return False
            try:
                self._journal.append(pieces, size)
                self._content = content.with_appended(append)
            except OSError as error:
                self._latch(error, self._directory.journal_file)
                raise self._write_error(error, self._directory.journal_file) from error
            except BaseException as error:  # a signal: the entries may be there or not
                self._latch(error, self._directory.journal_file)
                raise
        return True

    def _will_have_room(self, size: int) -> bool:
        """Whether the database, too, can take what the journal takes: with a limit, that may be full first."""
        if self._max_map_size is None:
            return True
        return self._end_of_file + 2 * (self._journal.used + size) + _ROOM_FOR_TAIL <= self._max_map_size

    def _look_at_size(self) -> None:
        if self._max_map_size is not None:
            self._end_of_file = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    # Inside a write transaction

    def _write(self, change: Change) -> None:
        """Run ``change`` in one transaction and commit it, growing the map as often as that needs.

        Args:
            change: makes the change and returns what the log holds then.  It may run more than
                once, each time on the state before.
        """
        self._check_usable()
        with self._writing:
            self._write_alone(change)

    def _write_alone(self, change: Change) -> None:
        while True:
            self._check_writable()
            try:
                return self._transact(change)
            except lmdb.MapFullError as error:
                self._grow(error)

    def _check_writable(self) -> None:
        self._check_usable()
        if self._unwritable is not None:
            raise StorageError(self._unwritable)

    def _transact(self, change: Change) -> None:
        committing = False
        txn: Transaction | None = None
        try:
            txn = self._env.begin(write=True)
            before, content = self._content, change(txn)
            takes_over = bool(before.tail) and not content.tail
            if takes_over:
                content = content._replace(epoch=before.epoch + 1)
            for key, value in _to_remember(before, content, self._journal.identity):
                txn.put(key, stable_record(key, value), db=self._stable)
            committing = True
            self._commit(txn)
            if takes_over:
                self._journal.begin(content.epoch)
            self._content = content
            self._look_at_size()
        except lmdb.MapFullError:
            self._abort(txn)  # nothing is written: the caller makes room and tries again
            raise
        except CorruptStoreError as error:
            self._abort(txn)
            self._latch(error)
            raise self._corrupt(str(error)) from error
        except (lmdb.Error, OSError) as error:
            self._abort(txn)
            self._latch(error)
            raise self._write_error(error) from error
        except SystemError as error:  # what py-lmdb raises where a page is not what it should be
            self._abort(txn)
            self._latch(error)
            raise self._corrupt(str(error)) from error
        except BaseException as error:
            self._abort(txn)
            if committing:  # a signal came between the commit and the line that publishes it
                self._latch(error)
            raise

    @staticmethod
    def _commit(txn: Transaction) -> None:
        txn.commit()

    def _abort(self, txn: Transaction | None) -> None:
        # Alone, because py-lmdb's abort waits until no thread is in a call on this environment.
        # A few busy readers, of which one always is, held it up for minutes.
        if txn is not None:
            with self._gate.alone(), suppress(lmdb.Error):  # what failed to commit has ended already
                txn.abort()

    def _put(self, txn: Transaction, content: Content, batch: Batch) -> Content:
        """Store ``batch`` where no entries are, and the tail; return what the log holds then."""
        first, last = batch.runs[0][0], batch.runs[-1][1]
        append = first > content.last
        if content.tail:
            content = self._put_tail(txn, content)
        self._put_blocks(txn, batch.items, append)
        configurations = content.configurations
        if batch.configurations:
            configurations = tuple(sorted((*configurations, *batch.configurations)))
        return content._replace(
            first=min(content.first or first, first),
            last=max(content.last, last),
            configurations=configurations,
            committed=max(content.committed, self._staged),
        ).without_tail()

    def _put_tail(self, txn: Transaction, content: Content) -> Content:
        self._put_blocks(txn, content.tail, append=True)
        return content.without_tail()

    def _put_blocks(self, txn: Transaction, items: Sequence[tuple[bytes, bytes]], append: bool) -> None:
        with txn.cursor(self._logs) as cursor:
            consumed, added = cursor.putmulti(items, overwrite=False, append=append)
        if not consumed == added == len(items):
            raise CorruptStoreError(f"LMDB took only {added} of {len(items)} blocks of log entries")

    def _cut(self, txn: Transaction, content: Content, runs: Sequence[tuple[int, int]]) -> Content:
        """Drop the entries of all ``runs``; return what the log holds then.

        Where the tail is cut, too, what is left of it goes into the database from memory.

        Args:
            runs: first and last index of each, both included; ascending.
        """
        first, last = runs[0][0], runs[-1][1]
        if not content.last or last < content.first or first > content.last:
            return content
        if len(runs) == 1 and first <= content.first and content.last <= last:
            txn.drop(self._logs, delete=False)
            return content._replace(first=0, last=0, configurations=()).without_tail()
        kept: list[tuple[bytes, bytes]] = []  # of the blocks that the runs cut into
        with txn.cursor(self._logs) as cursor:
            cursor.set_range(log_key(first))
            while key := cursor.key():  # b"" behind the last block
                block = read_block(key, cursor.value())
                if block.first > last:
                    break
                kept.extend(left_of(block, runs))
                cursor.delete()  # and go on to the next
            # Up to the tail, but not all before it: the journal alone could not tell that from a loss.
            reaches_tail = last == content.tail_from - 1 and first > content.first
            if last >= content.tail_from or reaches_tail:
                for item in content.tail:
                    kept.extend(left_of(read_block(*item), runs))
                content = content.without_tail()
            cursor.putmulti(kept)
        configurations = tuple(
            index for index in content.configurations if not any(a <= index <= b for a, b in runs)
        )
        first, last = self._read_ends(txn)
        if content.tail:
            return content._replace(first=first or content.tail_from, configurations=configurations)
        return content._replace(first=first, last=last, configurations=configurations).without_tail()

    def _latch(self, error: BaseException, file: Path | None = None) -> None:
        self._unwritable = (
            f"a write to {file or self._directory.data_file} failed earlier ({error}) and what the disk holds "
            f"is open: restart the server to open the store again"
        )

    def _write_error(self, error: lmdb.Error | OSError, file: Path | None = None) -> StorageError:
        file = file or self._directory.data_file
        if isinstance(error, _CORRUPT):
            return self._corrupt(str(error))
        if _is_disk_full(error, self._path):
            return StoreFullError(f"no room on the disk for {file}: {error}")
        return StorageError(f"cannot write to {file}: {error}")

    # Room and life

    def _grow(self, full: lmdb.MapFullError) -> None:
        """Double the map, at most to the limit; StoreFullError if it cannot grow."""
        size, limit = self._env.info()["map_size"], self._max_map_size
        larger = size * 2 if limit is None else min(size * 2, _whole_pages(limit))
        if larger <= size:
            raise StoreFullError(
                f"{self._directory.data_file} would need more than max_map_size={limit} bytes: raise the "
                f"limit, or take snapshots more often so that the log stays shorter"
            ) from full
        self._check_address_space(larger)
        with self._gate.alone():
            try:
                self._env.set_mapsize(larger)
            except (lmdb.Error, OSError, MemoryError) as error:
                # The old map is gone: a read would touch memory that is not there.
                self._unreadable = f"{self._directory.data_file} could not be mapped again: {error}"
                raise StorageError(self._unreadable) from error

    def _check_address_space(self, size: int) -> None:
        # LMDB unmaps before it maps anew, so it is asked only once we know that it will succeed.
        try:
            mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
        except (OSError, OverflowError, ValueError) as error:
            raise StoreFullError(
                f"{self._directory.data_file} is full, and this process cannot map {size} bytes: {error}"
            ) from error

    def _check_usable(self) -> None:
        try:
            self._fork_guard.check("the store")
        except ForkedProcessError as error:
            raise StorageError(f"the store {self._path} cannot be used here: {error}") from error
        if self._unreadable is not None:
            raise StorageError(self._unreadable)


def _to_remember(before: Content, content: Content, journal: int) -> Iterator[tuple[bytes, bytes]]:
    """The values beside the log that have changed.  What the tail brought, the database does not know yet."""
    takes_over = content.epoch != before.epoch
    if takes_over:
        yield _JOURNAL, pack_indexes((journal, content.epoch))
    if takes_over or content.configurations != before.configurations:
        yield _CONFIGURATIONS, pack_indexes(content.configurations)
    if takes_over or content.committed != before.committed:
        yield _COMMITTED, content.committed.to_bytes(8, "big")


def _is_disk_full(error: lmdb.Error | OSError, path: Path) -> bool:
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", None)
    if code == errno.EIO:  # LMDB's name for a write of which only the first part found room, too
        with suppress(OSError):
            disk = os.statvfs(path)
            return disk.f_bavail * disk.f_frsize < SMALLEST_MAP_SIZE
    return code in DISK_FULL or isinstance(error, lmdb.DiskError)


def _stable_key(key: bytes) -> bytes:
    if len(key) > LARGEST_KEY_BYTES:
        raise ConfigError(
            f"a key of {len(key)} bytes is too long for the store: use at most {LARGEST_KEY_BYTES}"
        )
    return b"u" + key


def _checked_map_size(map_size: int, limit: int | None) -> int:
    for name, size in (("map_size", map_size), ("max_map_size", limit)):
        if size is not None and size < SMALLEST_MAP_SIZE:
            raise ConfigError(
                f"{name}={size} is too small for a store: use at least {SMALLEST_MAP_SIZE} bytes"
            )
    return _whole_pages(map_size if limit is None else min(map_size, limit))


def _whole_pages(size: int) -> int:
    return size // mmap.PAGESIZE * mmap.PAGESIZE
