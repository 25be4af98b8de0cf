"""Stores of snapshots."""

from .base import SnapshotMeta, SnapshotSink, SnapshotStore
from .discard import DiscardSnapshotStore

__all__ = ["DiscardSnapshotStore", "SnapshotMeta", "SnapshotSink", "SnapshotStore"]
