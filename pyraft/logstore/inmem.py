"""A log and a ballot in memory, for tests and simulations.

Nothing here survives the process: a server that votes from it and restarts can vote twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ConfigError, LogNotFoundError
from ..log import Log, LogType
from .base import LogStore, StableStore


class _View(NamedTuple):
    """What one read works on.  Replaced as a whole, so that its parts always fit together."""

    entries: dict[int, Log]
    first: int
    last: int


class InmemStore(LogStore, StableStore):
    """LogStore and StableStore in one.  One writer, any number of readers, no lock.

    Readers take the view once.  Appending and dropping a prefix change its dict in place: a
    reader gets a whole entry or LogNotFoundError.  Whatever puts another entry where one
    stood makes a new dict, so that no reader sees a mix of two logs.
    """

    def __init__(self) -> None:
        self._view = _View({}, 0, 0)
        self._values: dict[bytes, bytes] = {}
        self._staged = self._committed = 0

    def first_index(self) -> int:
        return self._view.first

    def last_index(self) -> int:
        return self._view.last

    def get_log(self, index: int) -> Log:
        log = self._view.entries.get(index)
        if log is None:
            raise LogNotFoundError(index)
        return log

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Log]:
        entries = self._view.entries
        logs: list[Log] = []
        size = 0
        for index in range(first, last + 1):
            log = entries.get(index)
            if log is None:
                raise LogNotFoundError(index)
            size += len(log.data) + len(log.extensions)
            if logs and size > max_bytes:
                break
            logs.append(log)
        if not logs:
            raise LogNotFoundError(first)
        return logs

    def store_logs(self, logs: Sequence[Log]) -> None:
        """Store ``logs``; ConfigError if their indexes do not ascend."""
        added = _by_index(logs)
        if not added:
            return
        entries, first, last = self._view
        if logs[0].index > last:
            entries.update(added)
        else:
            entries = entries | added
        self._committed = self._staged
        # After the entries: last_index() must never name one that is not there yet.
        self._view = _View(entries, min(first or logs[0].index, logs[0].index), max(last, logs[-1].index))

    def replace_suffix(self, logs: Sequence[Log]) -> None:
        """Store ``logs`` and drop the rest of what stood from the first of them on, in one step."""
        added = _by_index(logs)
        if not added:
            return
        cut = logs[0].index
        if cut > self._view.last:
            self.store_logs(logs)
        else:
            self._committed = self._staged
            self._show({index: log for index, log in self._view.entries.items() if index < cut} | added)

    def stage_commit_index(self, index: int) -> None:
        self._staged = index

    def get_commit_index(self) -> int:
        return self._committed

    def delete_range(self, first: int, last: int) -> None:
        entries, oldest, newest = self._view
        if first > oldest or last + 1 not in entries or last - oldest > len(entries):
            self._show({index: log for index, log in entries.items() if not first <= index <= last})
            return
        # A prefix without gaps goes in place: such deletes come in slices, and copying a
        # long log for each would be quadratic.
        self._view = _View(entries, last + 1, newest)
        for index in range(oldest, last + 1):
            entries.pop(index, None)

    def configuration_indexes(self) -> tuple[int, ...]:
        """Indexes of the configuration entries in the log, newest last."""
        entries = list(self._view.entries.items())
        return tuple(sorted(index for index, log in entries if log.type is LogType.CONFIGURATION))

    def set(self, key: bytes, value: bytes) -> None:
        self._values[bytes(key)] = bytes(value)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def _show(self, entries: dict[int, Log]) -> None:
        self._view = _View(entries, min(entries, default=0), max(entries, default=0))


def _by_index(logs: Sequence[Log]) -> dict[int, Log]:
    """``logs`` by index, checked before anything is stored."""
    added: dict[int, Log] = {}
    previous = 0
    for log in logs:
        if log.index <= previous:
            raise ConfigError(f"entry {log.index} cannot follow entry {previous}: indexes ascend from 1")
        previous = log.index
        added[previous] = log
    return added
