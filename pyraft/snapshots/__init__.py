"""Stores of snapshots.

``FileSnapshotStore`` is for production, ``InmemSnapshotStore`` for tests, ``DiscardSnapshotStore``
for servers that need none.  The first is imported only when somebody asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import SnapshotMeta, SnapshotSink, SnapshotStore
from .discard import DiscardSnapshotStore
from .inmem import InmemSnapshotStore

if TYPE_CHECKING:
    from .file_store import FileSnapshotStore

__all__ = [
    "DiscardSnapshotStore",
    "FileSnapshotStore",
    "InmemSnapshotStore",
    "SnapshotMeta",
    "SnapshotSink",
    "SnapshotStore",
]


def __getattr__(name: str) -> Any:
    if name == "FileSnapshotStore":
        from .file_store import FileSnapshotStore

        return FileSnapshotStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
