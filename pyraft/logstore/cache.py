"""Recent entries in memory, in front of a slower log store."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from ..log import Log
from .base import LogStore


class LogCache(LogStore):
    """A write-through ring of the newest ``capacity`` entries over another store.

    The ring is filled only after the store has taken the entries: a cached entry that the
    disk lost would be replicated, and counted, as if it were durable.  Whatever may put
    another entry where one stood starts a new ring, so that no reader sees a mix of two
    logs.  One writer, any number of readers, as for any store.
    """

    def __init__(self, capacity: int, store: LogStore) -> None:
        """Cache ``store``, which belongs to the cache from now on.

        Raises:
            ConfigError: ``capacity`` is not positive.
        """
        if capacity <= 0:
            raise ConfigError(
                f"capacity={capacity} must be positive: use at least 1, or the store without a LogCache"
            )
        self._capacity = capacity
        self._store = store
        self._ring: list[Log | None] = [None] * capacity
        # Optional capabilities that a server looks for with getattr: present if the store has them.
        for name in ("configuration_indexes", "stats"):
            if hasattr(store, name):
                setattr(self, name, getattr(store, name))

    def first_index(self) -> int:
        return self._store.first_index()

    def last_index(self) -> int:
        return self._store.last_index()

    def get_log(self, index: int) -> Log:
        log = self._ring[index % self._capacity]
        if log is not None and log.index == index:
            return log
        return self._store.get_log(index)

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Log]:
        ring, capacity = self._ring, self._capacity
        logs: list[Log] = []
        size = 0
        for index in range(first, last + 1):
            log = ring[index % capacity]
            if log is None or log.index != index:
                return self._store.get_logs(first, last, max_bytes)
            size += len(log.data) + len(log.extensions)
            if logs and size > max_bytes:
                break
            logs.append(log)
        return logs or self._store.get_logs(first, last, max_bytes)

    def store_logs(self, logs: Sequence[Log]) -> None:
        if logs and logs[0].index <= self._store.last_index():
            self._empty()
        self._store.store_logs(logs)
        self._fill(logs)

    def replace_suffix(self, logs: Sequence[Log]) -> None:
        if logs and logs[0].index <= self._store.last_index():
            self._empty()
        self._store.replace_suffix(logs)
        self._fill(logs)

    def delete_range(self, first: int, last: int) -> None:
        self._empty()
        self._store.delete_range(first, last)

    def stage_commit_index(self, index: int) -> None:
        self._store.stage_commit_index(index)

    def get_commit_index(self) -> int:
        return self._store.get_commit_index()

    def is_monotonic(self) -> bool:
        return self._store.is_monotonic()

    def close(self) -> None:
        self._empty()
        self._store.close()

    def _empty(self) -> None:
        # A new list: a reader that has begun on the old one goes on with what stood there.
        self._ring = [None] * self._capacity

    def _fill(self, logs: Sequence[Log]) -> None:
        ring, capacity = self._ring, self._capacity
        for log in logs:
            ring[log.index % capacity] = log
