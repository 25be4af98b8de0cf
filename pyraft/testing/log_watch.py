"""What is known of one server's disk: its log, also where a snapshot stands for it, and its members.

The log is kept whole here even where the server has dropped a prefix: what a snapshot covers
is committed, and so known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b

from ..configuration import Configuration, decode_configuration
from ..errors import CorruptStoreError
from ..log import Log, LogType
from ..snapshots.base import SnapshotMeta
from .sim_disk import StoredSnapshot


class DiskLog:
    """One server's durable log.

    Attributes:
        logs: by index, from a dummy at 0 on, with what a snapshot covers.
        first: of the oldest entry that is really on the disk.
        snapshot: the newest durable one.
        covered: up to where the latest of those ends that the log agrees with.
    """

    def __init__(self) -> None:
        self.logs: list[Log] = [Log()]
        self.first = 1
        self.snapshot: SnapshotMeta | None = None
        self.covered = 0
        self._is_foreign = False  # the snapshot is from outside: it counts once the log stands on it
        self._members: list[tuple[int, Configuration]] = [(0, Configuration())]

    @property
    def members(self) -> Configuration:
        """The configuration in force: the latest in the log."""
        return self._members[-1][1]

    @property
    def members_index(self) -> int:
        """The log index of that configuration."""
        return self._members[-1][0]

    def append(self, log: Log) -> None:
        self.logs.append(log)
        if log.type is LogType.CONFIGURATION:
            with suppress(CorruptStoreError):  # the server is to complain about that
                self._members.append((log.index, decode_configuration(log.data)))

    def cut(self, first: int) -> None:
        """Drop the entries from ``first`` on."""
        del self.logs[first:]
        while self._members[-1][0] >= first:
            self._members.pop()

    def stand_on(self, index: int, committed: list[Log]) -> None:
        """Nothing is left but a snapshot that ends at ``index``."""
        common = min(index, len(self.logs) - 1)
        while common and self.logs[common].term != committed[common].term:
            common -= 1
        self.cut(common + 1)
        for log in committed[common + 1 : index + 1]:
            self.append(log)
        self.first = index + 1
        self.covered = max(self.covered, index)

    def go_by(self, configuration: Configuration, index: int) -> None:
        """The snapshot that the log stands on brings the configuration of ``index``, where no entry of one may be."""
        if self._members[-1] != (index, configuration):
            self._members = [known for known in self._members if known[0] < index]
            self._members.append((index, configuration))

    def keep(self, snapshot: SnapshotMeta, is_foreign: bool = False) -> None:
        """A snapshot is durable; ``is_foreign``: one from outside."""
        kept = self.snapshot
        if kept is None or (kept.term, kept.index) < (snapshot.term, snapshot.index):
            self.snapshot, self._is_foreign = snapshot, is_foreign
        if self.holds_itself(snapshot):
            self.covered = max(self.covered, snapshot.index)

    def holds_itself(self, snapshot: SnapshotMeta) -> bool:
        """Whether the log reaches to the snapshot's end and agrees with it there."""
        return snapshot.index < len(self.logs) and self.logs[snapshot.index].term == snapshot.term

    def holds(self, index: int, term: int) -> bool:
        """Whether that entry is on the disk, or covered by a snapshot there."""
        if index < len(self.logs) and self.logs[index].term == term:
            return True
        return self.snapshot is not None and not self._is_foreign and index <= self.snapshot.index


class SnapshotWatch:
    """Snapshots of one index are equal, and of committed entries only."""

    def __init__(self, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._broken = broken
        self._states: dict[int, bytes] = {}
        self._recovered: list[tuple[int, Configuration]] = []

    def recovered(self, index: int, configuration: Configuration) -> None:
        """An operator puts ``configuration`` in force behind the entry at ``index``."""
        self._recovered.append((index, configuration))

    def kept(self, server: str, stored: StoredSnapshot, committed: list[Log]) -> None:
        """I5, I9: a snapshot is durable."""
        meta = stored.meta
        if meta.index >= len(committed) or committed[meta.index].term != meta.term:
            self._broken("I9", f"{server} keeps a snapshot of entry {meta.index}, which is not committed")
            return
        state = blake2b(stored.data, digest_size=8).digest()
        if self._states.setdefault(meta.index, state) != state:
            self._broken("I5", f"{server} keeps another state of entry {meta.index} than somebody did before")
        expected = Configuration(), 0
        for log in reversed(committed[: meta.index + 1]):
            if log.type is LogType.CONFIGURATION:
                expected = decode_configuration(log.data), log.index
                break
        for index, configuration in self._recovered:
            if expected[1] <= index <= meta.index:
                expected = configuration, index
        if (meta.configuration, meta.configuration_index) != expected:
            self._broken(
                "I10",
                f"{server} keeps a snapshot of entry {meta.index} with configuration {meta.configuration_index}, and "
                f"{expected[1]} was in force",
            )
