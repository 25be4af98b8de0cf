"""What a store of the log and of the ballot must do.  Users may bring their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ..errors import LogNotFoundError
from ..log import Log


class LogStore(ABC):
    """One server's log.  One writer (the main thread), any number of reading threads.

    When a method that changes something returns, the change survives a power cut.  When it
    raises, either nothing has changed or the store refuses every later change (StorageError).
    A read that meets a delete returns whole entries or raises LogNotFoundError.

    Attributes:
        in_use_by: id of the server of this process that uses it, or None.
    """

    in_use_by: str | None = None

    @abstractmethod
    def first_index(self) -> int:
        """Index of the oldest entry, 0 if the log is empty."""

    @abstractmethod
    def last_index(self) -> int:
        """Index of the newest entry, 0 if the log is empty."""

    @abstractmethod
    def get_log(self, index: int) -> Log:
        """The entry at ``index``.

        Raises:
            LogNotFoundError: there is none.
            CorruptStoreError: its bytes are damaged.
        """

    @abstractmethod
    def store_logs(self, logs: Sequence[Log]) -> None:
        """Store ``logs`` (ascending indexes), replacing entries that have the same indexes.

        Raises:
            StorageError: disk full or failing; the server must stop, not retry.
        """

    @abstractmethod
    def delete_range(self, first: int, last: int) -> None:
        """Drop the entries ``first`` to ``last``, both included, as one atomic step."""

    def store_log(self, log: Log) -> None:
        """Store one entry: a batch of one."""
        self.store_logs((log,))

    def get_logs(self, first: int, last: int, max_bytes: int) -> list[Log]:
        """Entries from ``first`` on, at most to ``last`` (included).

        At least one; no more once their data passes ``max_bytes``.

        Raises:
            LogNotFoundError: ``first`` is not there, or a later one vanished meanwhile.
        """
        logs: list[Log] = []
        size = 0
        for index in range(first, last + 1):
            log = self.get_log(index)
            size += len(log.data) + len(log.extensions)
            if logs and size > max_bytes:
                break
            logs.append(log)
        if not logs:
            raise LogNotFoundError(first)
        return logs

    def replace_suffix(self, logs: Sequence[Log]) -> None:
        """Store ``logs`` and drop whatever stood at or after the first of them.

        A store whose truncating and appending is not one atomic step may keep this default
        only if it can lose no entry between the two: after a crash there, entries that this
        server has acknowledged may be missing.  LMDBStore does both in one transaction.
        """
        last = self.last_index()
        if last >= logs[0].index:
            self.delete_range(logs[0].index, last)
        self.store_logs(logs)

    def stage_commit_index(self, index: int) -> None:  # noqa: B027  (optional to override)
        """Store ``index`` together with the next entries, in their atomic step, or never.

        A store that does so lets a restarted server apply what it knew to be committed without
        waiting for a leader.
        """

    def get_commit_index(self) -> int:
        """The commit index that was stored last, 0 if there is none.  It may be behind, never ahead."""
        return 0

    def is_monotonic(self) -> bool:
        """True if the store refuses gaps between indexes."""
        return False

    def close(self) -> None:  # noqa: B027  (optional to override)
        """Give back files and memory.  Idempotent."""


class StableStore(ABC):
    """Small durable values: the ballot lives here.  Each call is one atomic durable step.

    Attributes:
        in_use_by: as for LogStore.
    """

    in_use_by: str | None = None

    @abstractmethod
    def set(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``, durable on return."""

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``, or None."""

    def set_uint64(self, key: bytes, value: int) -> None:
        """Store a number of 0 to 2**64 - 1 as eight bytes, most significant first."""
        self.set(key, value.to_bytes(8, "big"))

    def get_uint64(self, key: bytes) -> int:
        """The number under ``key``, 0 if there is none."""
        value = self.get(key)
        return 0 if value is None else int.from_bytes(value, "big")
