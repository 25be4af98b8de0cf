"""Knows the snapshots that came from outside, and where in which log each of them stands.

A restore behaves like one entry that replaces everything, at an index where no log has one. So
the judge's copies of the logs get an entry there, a *mark*, and all that is promised of entries
holds of it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

from ..log import Log, LogType
from ..snapshots.base import SnapshotMeta

if TYPE_CHECKING:
    from .log_watch import DiskLog
    from .sim_disk import StoredSnapshot


_MARK = b"a snapshot from outside"


class RestoreWatch:
    """Every snapshot from outside that became durable anywhere."""

    def __init__(self, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._broken = broken
        self._logs: dict[tuple[int, int], list[Log]] = {}  # (index, term) -> the log that ends with the mark
        self._states: dict[tuple[int, int], bytes] = {}

    def begins(self, disk: DiskLog, stored: StoredSnapshot) -> None:
        """A leader with the log ``disk`` makes a snapshot from outside durable, behind the end of its log."""
        meta = stored.meta
        if disk.first >= len(disk.logs):  # no entry is there that would go with a write
            disk.first = meta.index + 1
        for index in range(len(disk.logs), meta.index + 1):
            disk.append(Log(index, meta.term, LogType.NOOP, _MARK))
        self._logs[meta.index, meta.term] = list(disk.logs)
        self._states[meta.index, meta.term] = blake2b(stored.data, digest_size=8).digest()

    def is_one(self, index: int, term: int) -> bool:
        """Whether the snapshot of that place came from outside."""
        return (index, term) in self._logs

    def log_for(self, snapshot: SnapshotMeta, committed: list[Log]) -> list[Log]:
        """The log that ``snapshot`` stands for; only as much as is committed if it is one of the cluster's own."""
        return self._logs.get((snapshot.index, snapshot.term), committed)

    def behind_marks(self, disk: DiskLog, index: int) -> int:
        """The first index from ``index`` on that may really be on the disk."""
        while index < len(disk.logs) and disk.logs[index].data == _MARK:
            index += 1
        return index

    def kept(self, server: str, stored: StoredSnapshot) -> None:
        """I5: another server has got it."""
        meta, state = stored.meta, blake2b(stored.data, digest_size=8).digest()
        if self._states[meta.index, meta.term] != state:
            self._broken("I5", f"{server} keeps another state than was restored as entry {meta.index}")

    def is_stranded(self, disk: DiskLog, committed: list[Log], up_to: int | None = None) -> bool:
        """Whether a server stands on a snapshot from outside without which the others may have gone on.

        It cannot go back, so when it meets what the others have there it stops.

        Args:
            up_to: look at no snapshot that ends behind it.
        """
        for index, term in self._logs:
            if up_to is not None and index > up_to:
                continue
            if index >= len(disk.logs) or disk.logs[index].term != term:
                continue
            if index >= len(committed) or committed[index].term != term:
                return True
        return False
