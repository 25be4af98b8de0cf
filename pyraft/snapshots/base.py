"""What a store of snapshots must do.  Users may bring their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

from ..configuration import Configuration

if TYPE_CHECKING:
    from ..transport.base import Transport


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """What a snapshot covers: everything up to (index, term), and who was in the cluster."""

    id: str
    index: int
    term: int
    configuration: Configuration
    configuration_index: int
    size: int
    version: int = 1


class SnapshotSink(ABC):
    """A snapshot being written.  It exists for readers only once ``close`` has returned.

    As a context manager it is closed at the end of the block, and cancelled by an exception.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.cancel()

    @property
    @abstractmethod
    def id(self) -> str:
        """The name it will have in the store."""

    @abstractmethod
    def write(self, data: bytes) -> int:
        """Append ``data``; return its length.

        Raises:
            StoreFullError, StorageError: it cannot be stored, and the snapshot never will be.
        """

    @abstractmethod
    def close(self) -> None:
        """Make the snapshot durable and visible.  Idempotent.

        Raises:
            RaftError: it was cancelled: nothing may rely on it, above all not the dropping of the log.
            StoreFullError: it is not stored, and nothing is left of it.
            StorageError: it may or may not be there at the next start.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Drop what was written.  Idempotent; does nothing after ``close``."""


class SnapshotStore(ABC):
    """Keeps a server's snapshots."""

    @abstractmethod
    def create(
        self,
        version: int,
        index: int,
        term: int,
        configuration: Configuration,
        configuration_index: int,
        transport: Transport,
    ) -> SnapshotSink:
        """Begin a snapshot of the state after (index, term).

        Raises:
            ConfigError: the store cannot write that ``version``.
            StoreFullError, StorageError: the disk failed.
        """

    @abstractmethod
    def list(self) -> Sequence[SnapshotMeta]:
        """The complete snapshots, newest first: by term, then index; of one position, the one begun last."""

    def unreadable(self) -> Sequence[tuple[int, int]]:
        """(term, index) of the snapshots newer than all that ``list`` gives, of which nothing else can be read.

        A store that cannot tell may leave this out: then there are none.  A server does not start
        from an older one if its log does not reach beyond these.
        """
        return ()

    @abstractmethod
    def open(self, id: str) -> tuple[SnapshotMeta, BinaryIO]:
        """The snapshot named ``id`` and a reader of its bytes, which the caller closes.

        It reads from front to end, and need not be able to seek.  It goes on when the store drops
        the snapshot meanwhile.

        Raises:
            CorruptStoreError: it is not what was written.
            RaftError: there is no such snapshot, or no longer.
        """
