"""The bytes of a state that a state machine has captured, without a store of snapshots."""

from __future__ import annotations

from typing import Any

from ..fsm import FSMSnapshot
from ..snapshots.base import SnapshotSink


class MemorySink(SnapshotSink):
    """Keeps what is written; has nothing that a SnapshotSink does not promise."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_closed = self.is_cancelled = False

    @property
    def id(self) -> str:
        return "in memory"

    def write(self, data: bytes) -> int:
        if self.is_closed or self.is_cancelled:
            raise ValueError("write() after close() or cancel()")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"write() takes bytes, not {type(data).__name__}")
        self.data += data
        return len(data)

    def close(self) -> None:
        self.is_closed = not self.is_cancelled

    def cancel(self) -> None:
        self.is_cancelled = not self.is_closed


def captured_bytes(captured: Any) -> bytes:
    """What ``FSM.snapshot`` returned, as bytes; an FSMSnapshot is persisted, here, and released."""
    if not isinstance(captured, FSMSnapshot):
        return bytes(captured)
    sink = MemorySink()
    try:
        captured.persist(sink)
    finally:
        captured.release()
    return bytes(sink.data)
