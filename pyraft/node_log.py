"""The log as this server's threads see it: what is stored, and in front of it what is being stored.

The main thread writes; any thread reads.  A leader *stages* new entries, pokes its
replicators, which send them from memory, and only then writes them: replication overlaps
the disk (dissertation §10.2.1).  Staged entries are not durable, so nobody counts them
here before ``write_staged`` has returned.

The newest entries stay in memory after they were written, because followers and the FSM
want them next.  They are kept as an immutable tuple of chunks that is replaced whole: a
reader takes the tuple once and is then undisturbed.  A reader looks there first and in the
store second; an entry leaves memory only after the store has it.

A snapshot stands for everything up to its position.  The position is published before the
entries that it covers go, so a reader that misses one of those finds out why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .errors import CorruptStoreError, LogNotFoundError, NodeFailedError, StorageError
from .log import Log
from .logstore.base import LogStore
from .rules.election import START_OF_LOG, LogPosition

_RECENT_ENTRIES = 16_384
_RECENT_BYTES = 8 * 1024 * 1024
_SMALL_CHUNK_ENTRIES = 128
_SMALL_CHUNK_BYTES = 64 * 1024


class _Chunk(NamedTuple):
    first: int
    logs: Sequence[Log]
    size: int  # bytes of the encoded entries

    @property
    def end(self) -> int:
        return self.first + len(self.logs)


class NodeLog:
    """One server's log.

    Attributes:
        last: where the log ends, staged entries included.
        first_index: of the oldest entry, 0 if there is none.
        snapshot: the position that the newest snapshot stands for.
    """

    def __init__(self, store: LogStore, snapshot: LogPosition = START_OF_LOG) -> None:
        """Read the ends of ``store``; drop what contradicts ``snapshot``.

        Raises:
            StorageError: it cannot be read, or the first and last index contradict each other,
                or entries between the snapshot and the log are missing.
        """
        self._store = store
        self.snapshot = snapshot
        self._recent: tuple[_Chunk, ...] = ()
        self._recent_count = 0  # entries and bytes in there; main thread only
        self._recent_size = 0
        self._unwritten: Sequence[Log] = ()
        self.first_index, last_index = self._ends()
        if last_index and not 0 < self.first_index <= last_index:
            raise CorruptStoreError(
                f"the log store says its first entry is {self.first_index} and its last {last_index}: "
                f"it is damaged. Remove this server from the cluster, clear its directory and add it anew"
            )
        self.last = snapshot
        if last_index:
            self.last = LogPosition(self.stored(last_index).term, last_index)
            self._fit_to_snapshot()

    def _ends(self) -> tuple[int, int]:
        try:
            return self._store.first_index(), self._store.last_index()
        except NodeFailedError:
            raise
        except Exception as error:
            raise StorageError(f"the log store cannot say where it begins and ends: {error}") from error

    def _fit_to_snapshot(self) -> None:
        """A crash may have come between a snapshot from a leader and the end of the old log."""
        snapshot = self.snapshot
        if self.first_index > snapshot.index + 1:
            raise CorruptStoreError(
                f"the log begins at entry {self.first_index}, and the newest readable snapshot ends at "
                f"{snapshot.index}: the state between is lost. Remove this server from the cluster, clear its "
                f"directory and add it anew"
            )
        is_short = self.last.index < snapshot.index
        if is_short or (
            self.first_index <= snapshot.index and self.stored(snapshot.index).term != snapshot.term
        ):
            self.reset(snapshot)

    # -- any thread ----------------------------------------------------------------------

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index``; 0 before the first entry of all; None if it is not there."""
        last, snapshot = self.last, self.snapshot
        if index == last.index:
            return last.term
        if index == snapshot.index:
            return snapshot.term
        if index == 0:
            # Who asks wants to go on from there, and what follows may be gone.
            return 0 if self.first_index == 1 else None
        if index > last.index:
            return None
        for chunk in reversed(self._recent):
            if chunk.first <= index < chunk.end:
                return chunk.logs[index - chunk.first].term
        try:
            return self.stored(index).term
        except LogNotFoundError:
            return None

    def read(self, first: int, last: int, max_bytes: int) -> list[Log]:
        """Entries from ``first`` on, at most to ``last``: at least one, and bounded by ``max_bytes``.

        Raises:
            LogNotFoundError: the log does not reach back to ``first``, or not up to it.
            StorageError: the store cannot be read.
        """
        recent = self._recent
        if recent and first >= recent[0].first:
            return _read_chunks(recent, first, last, max_bytes)
        if recent:
            last = min(last, recent[0].first - 1)
        try:
            return self._store.get_logs(first, last, max_bytes)
        except (LogNotFoundError, NodeFailedError):
            raise
        except Exception as error:
            raise StorageError(f"the log store could not read entry {first}: {error}") from error

    def stored_commit_index(self) -> int:
        """What was known to be committed when entries were last stored.

        Raises:
            StorageError: the store cannot be read.
        """
        try:
            return self._store.get_commit_index()
        except NodeFailedError:
            raise
        except Exception as error:
            raise StorageError(f"the log store could not read the commit index: {error}") from error

    def check_holds_commit(self, server_id: str) -> None:
        """Refuse a log that ends before what was known to be committed.

        Raises:
            CorruptStoreError: a part of the log, or a snapshot that nobody even lists, is lost.
        """
        committed = self.stored_commit_index()
        if committed > self.last.index:
            raise CorruptStoreError(
                f"the log of {server_id} ends at entry {self.last.index}, and entry {committed} was known to be "
                f"committed: a snapshot or a part of the log is lost. Remove this server from the cluster, clear its "
                f"directory and add it anew"
            )

    def is_in_memory(self, index: int) -> bool:
        """Whether the entries from ``index`` to the end are in memory."""
        recent = self._recent
        return bool(recent) and recent[0].first <= index

    def recent(self, first: int, last: int) -> list[Log] | None:
        """Entries ``first`` to ``last`` if all of them are in memory, else None.  Never blocks."""
        recent = self._recent
        if not recent or first < recent[0].first or last >= recent[-1].end:
            return None
        return _read_chunks(recent, first, last, None)

    def oldest_known(self) -> int:
        """The oldest index whose term is known: where a search for agreement ends."""
        first = self.first_index
        return min(first, self.snapshot.index) if first else self.snapshot.index

    # -- main thread -----------------------------------------------------------------------

    def drop_prefix(self, upto: int, at_most: int) -> bool:
        """Drop the oldest entries up to ``upto``, which a durable snapshot covers; at most ``at_most``.

        Returns whether more is left to drop.

        Raises:
            StorageError: as ``write_staged``.
        """
        upto = min(upto, self.snapshot.index)
        first = self.first_index
        if not first or first > upto:
            return False
        last = min(upto, first + at_most - 1)
        self._store_call("drop old entries", lambda: self._store.delete_range(first, last))
        self.first_index = last + 1 if last < self.last.index else 0
        return last < upto

    def reset(self, snapshot: LogPosition) -> None:
        """Drop every entry: the log goes on after ``snapshot``, which is durable.

        Raises:
            StorageError: as ``write_staged``.
        """
        self.snapshot = snapshot
        first, last = self.first_index, self.last.index
        self._recent, self._recent_count, self._recent_size = (), 0, 0
        self.last = snapshot
        self.first_index = 0
        if first:
            self._store_call("drop the old log", lambda: self._store.delete_range(first, last))

    def stage(self, logs: Sequence[Log]) -> int:
        """Let readers see ``logs``, which follow the last entry; they are not durable yet.

        Returns their bytes.
        """
        self._unwritten = logs
        return self._publish(self._recent, logs)

    def write_staged(self, commit_index: int = 0) -> None:
        """Make what was staged durable, and ``commit_index`` with it, for the next start.

        Raises:
            StorageError: it may or may not be stored; this server must stop.
        """
        logs, self._unwritten = self._unwritten, ()
        self._store.stage_commit_index(commit_index)
        self._store_call("append entries", lambda: self._store.store_logs(logs))
        if not self.first_index:
            self.first_index = logs[0].index
        self._evict()

    def replace_suffix(self, logs: Sequence[Log], commit_index: int = 0) -> None:
        """Make ``logs`` durable and drop whatever stood at or after the first of them.

        ``commit_index`` as for ``write_staged``.

        Raises:
            StorageError: as ``write_staged``.
        """
        first = logs[0].index
        self._store.stage_commit_index(commit_index)
        if first > self.last.index:
            self._store_call("append entries", lambda: self._store.store_logs(logs))
        else:
            self._store_call("replace entries", lambda: self._store.replace_suffix(logs))
        if not self.first_index or first < self.first_index:
            self.first_index = first
        self._publish(_cut(self._recent, first) if first <= self.last.index else self._recent, logs)
        self._evict()

    def _publish(self, before: tuple[_Chunk, ...], logs: Sequence[Log]) -> int:
        if before and before[-1].end != logs[0].index:
            before = ()  # the entries between are only in the store
        if before is not self._recent:
            self._recent_count = sum(len(chunk.logs) for chunk in before)
            self._recent_size = sum(chunk.size for chunk in before)
        size = sum([len(log.encoded) for log in logs])
        self._recent_count += len(logs)
        self._recent_size += size
        self._recent = _with_chunk(before, _Chunk(logs[0].index, logs, size))
        self.last = LogPosition(logs[-1].term, logs[-1].index)
        return size

    def _evict(self) -> None:
        """Forget the oldest written entries once there are too many.  The newest chunk stays."""
        recent = self._recent
        drop = 0
        while drop < len(recent) - 1 and (
            self._recent_count > _RECENT_ENTRIES or self._recent_size > _RECENT_BYTES
        ):
            self._recent_count -= len(recent[drop].logs)
            self._recent_size -= recent[drop].size
            drop += 1
        if drop:
            self._recent = recent[drop:]

    def stored(self, index: int) -> Log:
        """The entry at ``index`` as the store has it.

        Raises:
            LogNotFoundError: there is none.
            StorageError: the store cannot read it.
        """
        try:
            return self._store.get_log(index)
        except (LogNotFoundError, NodeFailedError):
            raise
        except Exception as error:
            raise StorageError(f"the log store could not read entry {index}: {error}") from error

    def _store_call(self, what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except NodeFailedError:
            raise
        except Exception as error:
            raise StorageError(
                f"the log store could not {what}, so it is unknown whether they are stored: {error}"
            ) from error


def _with_chunk(chunks: tuple[_Chunk, ...], chunk: _Chunk) -> tuple[_Chunk, ...]:
    """``chunks`` and one more, which is merged into the last while that is small.

    The tuple is copied at every append, so it must stay short even if entries come one by one.
    """
    if chunks:
        last = chunks[-1]
        if len(last.logs) < _SMALL_CHUNK_ENTRIES and last.size + chunk.size < _SMALL_CHUNK_BYTES:
            merged = _Chunk(last.first, [*last.logs, *chunk.logs], last.size + chunk.size)
            return (*chunks[:-1], merged)
    return (*chunks, chunk)


def _read_chunks(chunks: tuple[_Chunk, ...], first: int, last: int, max_bytes: int | None) -> list[Log]:
    start = len(chunks) - 1
    while start > 0 and chunks[start].first > first:
        start -= 1
    logs: list[Log] = []
    size = 0
    for chunk in chunks[start:]:
        if chunk.first > last:
            break
        part = chunk.logs
        if first > chunk.first or last < chunk.end - 1:
            part = part[max(first - chunk.first, 0) : last + 1 - chunk.first]
            weight = sum([len(log.encoded) for log in part])
        else:
            weight = chunk.size
        if max_bytes is not None and size + weight > max_bytes:
            logs.extend(_fitting(part, max_bytes - size, at_least_one=not logs))
            break
        logs.extend(part)
        size += weight
    if not logs:
        raise LogNotFoundError(first)
    return logs


def _fitting(logs: Sequence[Log], room: int, at_least_one: bool) -> Sequence[Log]:
    count = 0
    for log in logs:
        room -= len(log.encoded)
        if room < 0 and not (at_least_one and count == 0):
            break
        count += 1
    return logs[:count]


def _cut(chunks: tuple[_Chunk, ...], first_dropped: int) -> tuple[_Chunk, ...]:
    """``chunks`` without the entries from ``first_dropped`` on."""
    kept = []
    for chunk in chunks:
        if chunk.end <= first_dropped:
            kept.append(chunk)
        elif chunk.first < first_dropped:
            part = chunk.logs[: first_dropped - chunk.first]
            kept.append(_Chunk(chunk.first, part, sum([len(log.encoded) for log in part])))
    return tuple(kept)
