"""One server's disk in a simulation: committed transactions, and what a power cut leaves of them.

Modelled on LMDB with full synchronisation: a commit takes a while, is atomic, and is durable once
it has returned; while it is under way, neither its caller nor anybody else knows whether it
would survive.  Records carry a checksum and their own index, as the real store's do, so a
flipped bit is found when the record is read.

``SimDisk`` is the hardware, which outlives the server; ``SimStore`` is one incarnation's handle.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, Protocol

from ..errors import ConfigError, CorruptStoreError, LogNotFoundError, StorageError, StoreFullError
from ..log import Log, LogType, decode_log
from ..logstore.base import LogStore, StableStore
from ..logstore.records import LARGEST_INDEX
from ..snapshots.base import SnapshotMeta
from .sim_runtime import Scheduler, SimRuntime

LARGEST_KEY_BYTES = 510
"""As LMDB's, so that a key that a real store refuses is refused here."""

_RECORD = struct.Struct(">QI")  # index, checksum of the entry's bytes


class Transaction(NamedTuple):
    """What one commit changes: first the deletions, then the entries and values."""

    delete: tuple[int, int] | None = None  # first and last index, both included
    logs: Sequence[Log] = ()
    values: Sequence[tuple[bytes, bytes]] = ()


class _Content(NamedTuple):
    """All that a disk holds."""

    entries: dict[int, bytes]
    configurations: list[int]
    first: int
    last: int
    values: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot that is complete.  ``is_damaged``: its checksum does not fit any more."""

    meta: SnapshotMeta
    data: bytes
    is_damaged: bool = False

    @property
    def age(self) -> tuple[int, int, int]:
        """The larger, the newer."""
        number = int(self.meta.id.rpartition("-")[2])  # as a number: 10 is newer than 9
        return self.meta.term, self.meta.index, number


class DiskWatcher(Protocol):
    """Sees every change at the moment when it becomes durable."""

    def disk_changed(self, server: str, transaction: Transaction) -> None: ...

    def disk_wiped(self, server: str) -> None: ...

    def snapshot_kept(self, server: str, snapshot: StoredSnapshot) -> None: ...


class Sync(Enum):
    """What a commit that has returned is worth when the power goes."""

    FULL = "full"
    """It is durable."""
    NO_META = "no meta"
    """The last one may be lost: its meta page is written out with the next commit."""
    NONE = "none"
    """The last few may be lost."""


@dataclass
class DiskConditions:
    """How fast and how reliable a disk is.  Seconds, and probabilities per commit."""

    commit_time: float = 0.001
    """Mean time of a commit."""
    stall: float = 0.0
    """The probability that a commit takes up to ``stall_for``."""
    stall_for: float = 4.0
    io_error: float = 0.0
    """The probability of EIO: it is unknown whether the commit happened, and nothing works until a restart."""
    full: float = 0.0
    """The probability that there is no room: the transaction is refused whole."""
    late_return: float = 0.0
    """Mean time between the instant when a commit is durable and its return."""


_COMMITTED = b"(commit index)"


class SimDisk:
    """What survives its server.

    Attributes:
        conditions: how it behaves from now on.
        slow_until: until this instant of virtual time every commit takes ``slow_by`` more.
        in_flight: the transaction whose commit is under way, or None.
        returns_at: when the call that made the latest commit returns, in virtual time.
        sync: other than FULL it lies: what it calls durable is not.
        is_truncated: its file is shorter than it says, so no store can be opened on it.
        counts: of what happened.
    """

    def __init__(self, scheduler: Scheduler, server: str, watchers: Sequence[DiskWatcher] = ()) -> None:
        self.server = server
        self.conditions = DiskConditions()
        self.watchers = list(watchers)
        self.slow_until = 0.0
        self.slow_by = 0.0
        self.is_full = False
        self.is_truncated = False
        self.sync = Sync.FULL
        self.in_flight: Transaction | None = None
        self.returns_at = 0.0
        self._unsynced: list[tuple[Transaction, _Content]] = []  # each with what was there before it
        self.counts = {
            "commits": 0,
            "cut": 0,
            "landed": 0,
            "io_errors": 0,
            "full": 0,
            "stalls": 0,
            "flips": 0,
            "misdirected": 0,
            "lost_writes": 0,
            "undone": 0,
        }
        self.snapshots: list[StoredSnapshot] = []  # newest first
        self.closing: list[StoredSnapshot] = []
        self.snapshots_begun = 0
        self._scheduler = scheduler
        self._random: random.Random = scheduler.random(f"disk:{server}")
        self._entries: dict[int, bytes] = {}
        self._configurations: list[int] = []
        self._first = 0
        self._last = 0
        self._values: dict[bytes, bytes] = {}

    # -- what is stored ------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self._first

    @property
    def last_index(self) -> int:
        return self._last

    @property
    def configuration_indexes(self) -> tuple[int, ...]:
        return tuple(self._configurations)

    def value(self, key: bytes) -> bytes | None:
        """The stored value of ``key``."""
        return self._values.get(key)

    def entry(self, index: int) -> Log:
        """Read, check and decode a record.

        Raises:
            LogNotFoundError: there is none.
            CorruptStoreError: it is not what was written.
        """
        record = self._entries.get(index)
        if record is None:
            raise LogNotFoundError(index)
        stored_index, checksum = _RECORD.unpack_from(record)
        encoded = record[_RECORD.size :]
        if stored_index != index or zlib.crc32(encoded, index) != checksum:
            raise CorruptStoreError(f"the record of entry {index} on {self.server}'s disk is damaged")
        return decode_log(encoded)

    # -- what happens to it --------------------------------------------------------------------

    def commit(self, transaction: Transaction) -> None:
        """Make ``transaction`` durable, now."""
        scheduler = self._scheduler
        before, scheduler.undisturbed = scheduler.undisturbed, True
        if self.sync is not Sync.FULL:
            self._synced(0 if self.sync is Sync.NO_META else int(self._random.expovariate(0.2)))
            self._unsynced.append((transaction, self._content()))
        self._apply(transaction)
        scheduler.undisturbed = before
        self.counts["commits"] += 1
        if self.sync is Sync.FULL:
            self._tell(transaction)

    def lose_power(self) -> None:
        """As ``crash``; what was not flushed is gone, unless the disk had just got to it."""
        self.crash()
        if self._unsynced and self._random.random() < 0.9:
            self.counts["undone"] += len(self._unsynced)
            self._restore(self._unsynced[0][1])
            self._unsynced.clear()
        self._synced(0)

    def crash(self) -> None:
        """The process dies, or the power goes: the commit in flight has landed, or has not."""
        for stored in list(self.closing):
            self.settle_snapshot(stored)
        transaction, self.in_flight = self.in_flight, None
        if transaction is None:
            return
        if self._random.random() < 0.5:
            self.counts["landed"] += 1
            self.commit(transaction)
        else:
            self.counts["cut"] += 1

    # -- snapshots -------------------------------------------------------------------------------

    def keep_snapshot(self, stored: StoredSnapshot, retain: int = 2) -> None:
        """Make ``stored`` durable, now; the oldest ones go."""
        self.snapshots = sorted([*self.snapshots, stored], key=lambda kept: kept.age, reverse=True)[:retain]
        for watcher in self.watchers:
            watcher.snapshot_kept(self.server, stored)

    def settle_snapshot(self, stored: StoredSnapshot) -> None:
        """The closing of ``stored`` was cut off: it is there whole, or not at all."""
        self.closing.remove(stored)
        if self._random.random() < 0.5:
            self.keep_snapshot(stored)

    def damage_snapshot(self) -> str:
        """Flip a bit in the newest snapshot; return its id, "" if there is none."""
        if not self.snapshots:
            return ""
        newest = self.snapshots[0]
        self.snapshots[0] = replace(newest, is_damaged=True)
        self.counts["flips"] += 1
        return newest.meta.id

    def wipe(self) -> None:
        """Lose everything: the disk was replaced."""
        self.snapshots, self.closing = [], []
        self._entries, self._configurations, self._values = {}, [], {}
        self._first = self._last = 0
        self.in_flight = None
        self.is_truncated = False
        self._unsynced.clear()
        for watcher in self.watchers:
            watcher.disk_wiped(self.server)

    def flip_bit(self, index: int | None = None) -> int:
        """Flip one bit in the record of ``index``, or of any entry; return which, 0 if there is none."""
        if not self._entries:
            return 0
        if index is None:
            index = self._any_index()
        record = bytearray(self._entries[index])
        record[int(self._random.random() * len(record))] ^= 1 << int(self._random.random() * 8)
        self._entries[index] = bytes(record)
        self.counts["flips"] += 1
        return index

    def misdirect_write(self, index: int | None = None) -> int:
        """Put another entry's record in the place of ``index``, or of any; return which, 0 if it cannot."""
        if len(self._entries) < 2:
            return 0
        index = self._any_index() if index is None else index
        other = index - 1 if index > self._first else index + 1
        self._entries[index] = self._entries[other]
        self.counts["misdirected"] += 1
        return index

    def lose_write(self, index: int | None = None) -> int:
        """Let nothing but zeros be where the record of ``index``, or of any entry, should be; return which."""
        if not self._entries:
            return 0
        index = self._any_index() if index is None else index
        self._entries[index] = bytes(len(self._entries[index]))
        self.counts["lost_writes"] += 1
        return index

    def commit_takes(self) -> float:
        """How long the next commit takes."""
        rng, conditions = self._random, self.conditions
        seconds = rng.expovariate(1.0) * conditions.commit_time
        if conditions.stall and rng.random() < conditions.stall:
            self.counts["stalls"] += 1
            seconds += rng.random() * conditions.stall_for
        if self._scheduler.time < self.slow_until:
            seconds += self.slow_by
        return seconds

    def return_takes(self) -> float:
        """How long a commit that is durable takes to return."""
        return self._random.expovariate(1.0) * self.conditions.late_return

    def draws(self, probability: float) -> bool:
        """Whether something of that probability happens now."""
        return probability > 0 and self._random.random() < probability

    def _any_index(self) -> int:
        return self._first + int(self._random.random() * (self._last - self._first + 1))

    def _synced(self, but: int) -> None:
        """All commits but the last ``but`` are on the platter now, and the judges may know."""
        while len(self._unsynced) > but:
            self._tell(self._unsynced.pop(0)[0])

    def _tell(self, transaction: Transaction) -> None:
        for watcher in self.watchers:
            watcher.disk_changed(self.server, transaction)

    def _content(self) -> _Content:
        return _Content(
            dict(self._entries), list(self._configurations), self._first, self._last, dict(self._values)
        )

    def _restore(self, content: _Content) -> None:
        self._entries, self._configurations, self._first, self._last, self._values = content

    def _apply(self, transaction: Transaction) -> None:
        if transaction.delete is not None:
            first, last = transaction.delete
            for index in range(first, last + 1):
                self._entries.pop(index, None)
            self._configurations = [i for i in self._configurations if not first <= i <= last]
            self._find_ends()
        for log in transaction.logs:
            encoded, index = log.encoded, log.index
            self._entries[index] = _RECORD.pack(index, zlib.crc32(encoded, index)) + encoded
        if transaction.logs:
            self._index_configurations(transaction.logs)
            first, last = transaction.logs[0].index, transaction.logs[-1].index
            self._first = min(self._first or first, first)
            self._last = max(self._last, last)
        for key, value in transaction.values:
            self._values[key] = value

    def _find_ends(self) -> None:
        """Move the first and last index inwards to entries that are there."""
        while self._first <= self._last and self._first not in self._entries:
            self._first += 1
        while self._first <= self._last and self._last not in self._entries:
            self._last -= 1
        if self._first > self._last:
            self._first = self._last = 0

    def _index_configurations(self, logs: Sequence[Log]) -> None:
        kept = set(self._configurations).difference(log.index for log in logs)
        kept.update(log.index for log in logs if log.type is LogType.CONFIGURATION)
        self._configurations = sorted(kept)


class SimStore(LogStore, StableStore):
    """One incarnation's handle of a ``SimDisk``; every call is a point where threads may switch."""

    def __init__(self, disk: SimDisk, runtime: SimRuntime) -> None:
        """Open the store on ``disk``.

        Raises:
            CorruptStoreError: the file is truncated.
        """
        if disk.is_truncated:
            raise CorruptStoreError(f"the file on {disk.server}'s disk is shorter than it says")
        self._disk = disk
        self._runtime = runtime
        self._latched: str | None = None
        self._staged = 0
        self._closed = False

    def first_index(self) -> int:
        self._enter()
        return self._disk.first_index

    def last_index(self) -> int:
        self._enter()
        return self._disk.last_index

    def get_log(self, index: int) -> Log:
        self._enter()
        return self._disk.entry(index)

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Log]:
        self._enter()
        logs: list[Log] = []  # in one step, as a read transaction sees one state
        size = 0
        for index in range(first, last + 1):
            log = self._disk.entry(index)
            size += len(log.data) + len(log.extensions)
            if logs and size > max_bytes:
                break
            logs.append(log)
        if not logs:
            raise LogNotFoundError(first)
        return logs

    def configuration_indexes(self) -> tuple[int, ...]:
        """Indexes of the configuration entries in the log, newest last."""
        self._enter()
        return self._disk.configuration_indexes

    def store_logs(self, logs: Sequence[Log]) -> None:
        _check_ascending(logs)
        if logs:
            self._commit(Transaction(logs=tuple(logs), values=self._staged_value()))

    def replace_suffix(self, logs: Sequence[Log]) -> None:
        _check_ascending(logs)
        if logs:
            first, last = logs[0].index, self._disk.last_index
            delete = (first, last) if last >= first else None
            self._commit(Transaction(delete, tuple(logs), self._staged_value()))

    def stage_commit_index(self, index: int) -> None:
        self._staged = index

    def get_commit_index(self) -> int:
        self._runtime.enter()
        return int.from_bytes(self._disk.value(_COMMITTED) or b"", "big")

    def delete_range(self, first: int, last: int) -> None:
        first, last = max(first, self._disk.first_index), min(last, self._disk.last_index)
        if first <= last:
            self._commit(Transaction((first, last)))

    def set(self, key: bytes, value: bytes) -> None:
        _check_key(key)
        self._commit(Transaction(values=((bytes(key), bytes(value)),)))

    def get(self, key: bytes) -> bytes | None:
        _check_key(key)
        self._enter()
        return self._disk.value(bytes(key))

    def close(self) -> None:
        self._closed = True

    def _enter(self) -> None:
        self._runtime.enter()
        if self._closed:
            raise StorageError(f"the store on {self._disk.server}'s disk is closed: open it again to use it")

    def _staged_value(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((_COMMITTED, self._staged.to_bytes(8, "big")),) if self._staged else ()

    def _commit(self, transaction: Transaction) -> None:
        runtime, disk = self._runtime, self._disk
        self._enter()
        if self._latched is not None:
            raise StorageError(f"an earlier write failed, so nothing is written any more: {self._latched}")
        if disk.is_full or disk.draws(disk.conditions.full):
            disk.counts["full"] += 1
            self._latched = "the disk was full"
            raise StoreFullError(f"no room on {disk.server}'s disk")
        disk.in_flight = transaction
        runtime.scheduler.sleep(disk.commit_takes())
        if disk.draws(disk.conditions.io_error):
            disk.counts["io_errors"] += 1
            self._latched = "input/output error"
            disk.crash()  # landed or not, as in a crash
            raise StorageError(
                f"input/output error on {disk.server}'s disk: the commit may or may not have happened"
            )
        disk.in_flight = None
        disk.commit(transaction)
        runtime.scheduler.note("commit", _describe(transaction))
        if disk.conditions.late_return:
            seconds = disk.return_takes()
            disk.returns_at = runtime.scheduler.time + seconds
            runtime.scheduler.sleep(seconds)
        else:
            runtime.scheduler.switch()


def _check_ascending(logs: Sequence[Log]) -> None:
    previous = 0
    for log in logs:
        if not previous < log.index <= LARGEST_INDEX:
            raise ConfigError(f"entry {log.index} cannot follow entry {previous}: indexes ascend from 1")
        previous = log.index


def _check_key(key: bytes) -> None:
    if len(key) > LARGEST_KEY_BYTES:
        raise ConfigError(
            f"a key of {len(key)} bytes is too long for the store: use at most {LARGEST_KEY_BYTES}"
        )


def _describe(transaction: Transaction) -> str:
    parts = []
    if transaction.delete:
        parts.append(f"delete {transaction.delete[0]}..{transaction.delete[1]}")
    if transaction.logs:
        first, last = transaction.logs[0], transaction.logs[-1]
        parts.append(f"append {first.index}..{last.index} of term {first.term}..{last.term}")
    parts += [f"set {key!r}" for key, _ in transaction.values]
    return ", ".join(parts)
