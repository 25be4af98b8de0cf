"""A store that keeps no snapshot: for servers whose whole history fits into the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from ..configuration import Configuration
from ..errors import RaftError
from ..transport.base import Transport
from .base import SnapshotMeta, SnapshotSink, SnapshotStore


class DiscardSnapshotStore(SnapshotStore):
    """Takes what it is given and forgets it."""

    def create(
        self,
        version: int,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
        transport: Transport,
    ) -> SnapshotSink:
        return _DiscardSink()

    def list(self) -> Sequence[SnapshotMeta]:
        return ()

    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """There is never one to open.

        Raises:
            RaftError: always.
        """
        raise RaftError(f"there is no snapshot {id!r}: DiscardSnapshotStore keeps none")


class _DiscardSink(SnapshotSink):
    @property
    def id(self) -> str:
        return "discarded"

    def write(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None:
        pass

    def cancel(self) -> None:
        pass
