"""The snapshots on a simulated disk: they appear whole or not at all, and can be damaged later.

A real snapshot is written beside the others, flushed, renamed and the folder flushed.  So all
that a power cut decides is whether the one whose closing is under way is there afterwards.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

from ..configuration import Configuration
from ..errors import ConfigError, CorruptStoreError, RaftError, StorageError, StoreFullError
from ..snapshots.base import SnapshotMeta, SnapshotSink, SnapshotStore
from ..snapshots.inmem import VERSION
from ..transport.base import Transport
from .sim_disk import SimDisk, StoredSnapshot
from .sim_runtime import SimRuntime

_RETAIN = 2


class SnapshotReader(io.BytesIO):
    """The bytes of a snapshot; knows which one."""

    def __init__(self, stored: StoredSnapshot) -> None:
        super().__init__(stored.data)
        self.meta = stored.meta


class SimSnapshotStore(SnapshotStore):
    """One incarnation's handle of the snapshots on a ``SimDisk``; every call is a switch point."""

    def __init__(self, disk: SimDisk, runtime: SimRuntime) -> None:
        self._disk = disk
        self._runtime = runtime

    def create(
        self,
        version: int,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
        transport: Transport,
    ) -> SnapshotSink:
        self._runtime.enter()
        if version != VERSION:
            raise ConfigError(f"snapshot version {version!r} cannot be written: it must be {VERSION}")
        self._disk.snapshots_begun += 1
        id = f"{term}-{index}-{self._disk.snapshots_begun}"
        meta = SnapshotMeta(id, index, term, configuration, configuration_index, 0, version)
        return _SimSink(self._disk, self._runtime, meta)

    def list(self) -> Sequence[SnapshotMeta]:
        self._runtime.enter()
        return [stored.meta for stored in self._disk.snapshots]

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        self._runtime.enter()
        for stored in self._disk.snapshots:
            if stored.meta.id == id:
                if stored.is_damaged:
                    raise CorruptStoreError(f"the snapshot {id} on {self._disk.server}'s disk is damaged")
                return stored.meta, SnapshotReader(stored)
        raise RaftError(f"there is no snapshot {id!r} on {self._disk.server}'s disk")


class _SimSink(SnapshotSink):
    def __init__(self, disk: SimDisk, runtime: SimRuntime, meta: SnapshotMeta) -> None:
        self._disk = disk
        self._runtime = runtime
        self._meta = meta
        self._parts: list[bytes] = []
        self._is_over = self._is_cancelled = False

    @property
    def id(self) -> str:
        return self._meta.id

    def write(self, data: bytes) -> int:
        self._runtime.enter()
        if self._is_over:
            raise StorageError(f"the snapshot {self.id} is closed or cancelled")
        if self._disk.is_full:
            raise StoreFullError(f"no room for a snapshot on {self._disk.server}'s disk")
        self._parts.append(bytes(data))
        return len(data)

    def close(self) -> None:
        disk, runtime = self._disk, self._runtime
        runtime.enter()
        if self._is_cancelled:
            raise RaftError(f"the snapshot {self.id} was cancelled")
        if self._is_over:
            return
        self._is_over = True
        data, meta = b"".join(self._parts), self._meta
        stored = StoredSnapshot(replace(meta, size=len(data)), data)
        if disk.is_full:
            raise StoreFullError(f"no room for a snapshot on {disk.server}'s disk")
        disk.closing.append(stored)
        runtime.scheduler.sleep(disk.commit_takes())
        if stored not in disk.closing or disk.draws(disk.conditions.io_error):
            if stored in disk.closing:
                disk.settle_snapshot(stored)
            raise StorageError(
                f"input/output error on {disk.server}'s disk: the snapshot may or may not be there"
            )
        disk.closing.remove(stored)
        disk.keep_snapshot(stored, _RETAIN)
        runtime.scheduler.note("snapshot", meta.id, len(data))
        runtime.scheduler.switch()

    def cancel(self) -> None:
        self._runtime.enter()
        if not self._is_over:
            self._is_over = self._is_cancelled = True
            self._parts.clear()
