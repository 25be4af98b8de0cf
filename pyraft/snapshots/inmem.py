"""One snapshot in memory: for tests and the simulator, and for state that may be lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from itertools import count
from typing import BinaryIO

from ..configuration import Configuration
from ..errors import ConfigError, RaftError
from ..transport.base import Transport
from .base import SnapshotMeta, SnapshotSink, SnapshotStore

VERSION = 1


class InmemSnapshotStore(SnapshotStore):
    """Keeps the newest snapshot that was closed, and nothing when the process ends.

    hashicorp/raft shows one from its creation on.  Here it takes the place of the one before only
    when it is whole: a leader would otherwise send a follower the first half of a state, and a
    writer that fails would cost the last good snapshot.

    Any thread may call it.
    """

    def __init__(self) -> None:
        self._whole: list[_Whole] = []  # one, but for an instant: appending and removing are atomic
        self._numbers = count(1)

    def create(
        self,
        version: int,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
        transport: Transport,
    ) -> SnapshotSink:
        if version != VERSION:
            raise ConfigError(f"snapshot version {version!r} cannot be written: it must be {VERSION}")
        number = next(self._numbers)  # no clock: a simulated run repeats itself
        meta = SnapshotMeta(
            f"{term}-{index}-{number}", index, term, configuration, configuration_index, 0, version
        )
        return _InmemSink(self, meta, number)

    def list(self) -> Sequence[SnapshotMeta]:
        newest = self._newest()
        return [] if newest is None else [newest.meta]

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        newest = self._newest()
        if newest is None or newest.meta.id != id:
            raise RaftError(f"there is no snapshot {id!r} in this store, or no longer")
        return newest.meta, BytesIO(newest.state)  # shares the bytes until somebody writes

    def take(self, whole: _Whole) -> None:
        """Show ``whole`` unless there is a newer one already."""
        self._whole.append(whole)
        newest = self._newest()
        for other in tuple(self._whole):
            if newest is not None and other.age < newest.age:  # never one that came meanwhile
                with suppress(ValueError):  # another thread was faster
                    self._whole.remove(other)

    def _newest(self) -> _Whole | None:
        return max(tuple(self._whole), key=lambda whole: whole.age, default=None)


class _Whole:
    __slots__ = ("age", "meta", "state")

    def __init__(self, meta: SnapshotMeta, state: bytes, number: int) -> None:
        self.meta = meta
        self.state = state
        self.age = (meta.term, meta.index, number)


class _InmemSink(SnapshotSink):
    def __init__(self, store: InmemSnapshotStore, meta: SnapshotMeta, number: int) -> None:
        self._store = store
        self._meta = meta
        self._number = number
        self._state: bytearray | None = bytearray()
        self._closed = False

    @property
    def id(self) -> str:
        return self._meta.id

    def write(self, data: bytes) -> int:
        state = self._open_state()
        view = memoryview(data).cast("B")
        state += view
        return len(view)

    def close(self) -> None:
        if self._closed:
            return
        state = bytes(self._open_state())
        self._store.take(_Whole(replace(self._meta, size=len(state)), state, self._number))
        self._state, self._closed = None, True

    def cancel(self) -> None:
        self._state = None

    def _open_state(self) -> bytearray:
        if self._state is None:
            what = "closed: it cannot be written to any more" if self._closed else "cancelled: begin another"
            raise RaftError(f"the snapshot {self.id} is {what}")
        return self._state
