"""Stores of the log and the ballot.

``LMDBStore`` is for production, ``InmemStore`` for tests, ``LogCache`` goes in front of either.
lmdb itself is imported only when somebody asks for LMDBStore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import LogStore, StableStore
from .cache import LogCache
from .inmem import InmemStore

if TYPE_CHECKING:
    from .lmdb_store import LMDBStore

__all__ = ["InmemStore", "LMDBStore", "LogCache", "LogStore", "StableStore"]


def __getattr__(name: str) -> Any:
    if name == "LMDBStore":
        from .lmdb_store import LMDBStore

        return LMDBStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
