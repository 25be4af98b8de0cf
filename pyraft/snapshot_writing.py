"""From a captured state to a durable snapshot."""

from __future__ import annotations

import logging
from typing import BinaryIO

from .errors import RaftError, SnapshotFailedError, StorageError
from .fsm import FSMSnapshot
from .fsm_runner import Captured
from .snapshots.base import SnapshotMeta, SnapshotSink, SnapshotStore
from .transport.base import Transport

_CHUNK_BYTES = 256 * 1024

_log = logging.getLogger(__name__)


def write_snapshot(store: SnapshotStore, captured: Captured, transport: Transport) -> SnapshotMeta:
    """Write ``captured`` into a new snapshot of ``store``, durable on return; release it in any case.

    Raises:
        SnapshotFailedError: the FSM could not write its state; nothing is kept.
        StorageError: the disk failed; nothing is kept.
    """
    try:
        return _write(store, captured, transport)
    finally:
        if isinstance(captured.state, FSMSnapshot):
            _release(captured.state)


def _write(store: SnapshotStore, captured: Captured, transport: Transport) -> SnapshotMeta:
    try:
        sink = _Counting(
            store.create(
                1,
                captured.index,
                captured.term,
                captured.configuration,
                captured.configuration_index,
                transport,
            )
        )
    except RaftError:
        raise
    except Exception as error:
        raise StorageError(f"the snapshot store could not begin a snapshot: {error}") from error
    try:
        _persist(captured.state, sink)
        sink.close()
    except BaseException as error:
        cancel(sink)
        if isinstance(error, RaftError) or not isinstance(error, Exception):
            raise
        raise SnapshotFailedError(
            f"the snapshot of entry {captured.index} could not be written: {error!r}. The server goes on without "
            f"it, and its log grows"
        ) from error
    return SnapshotMeta(
        sink.id,
        captured.index,
        captured.term,
        captured.configuration,
        captured.configuration_index,
        sink.size,
    )


def _release(state: FSMSnapshot) -> None:
    try:
        state.release()
    except Exception:
        _log.exception("FSMSnapshot.release failed; nobody else is affected")


def cancel(sink: SnapshotSink) -> None:
    """Drop a snapshot that will not be completed; what goes wrong then is only logged."""
    try:
        sink.cancel()
    except Exception:
        _log.exception("a snapshot that failed could not be removed id=%s", sink.id)


def copy_all(source: BinaryIO, sink: SnapshotSink, size: int) -> int:
    """Write all that ``source`` reads to ``sink``; return how much that was.

    Raises:
        SnapshotFailedError: it cannot be read, or it is not ``size`` bytes.
        StorageError: it cannot be written.
    """
    copied = 0
    while True:
        try:
            chunk = source.read(_CHUNK_BYTES)
        except Exception as error:
            raise SnapshotFailedError(
                f"the snapshot could not be read after {copied} bytes: {error!r}"
            ) from error
        if not chunk:
            break
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise SnapshotFailedError(
                f"the snapshot's reader gives {type(chunk).__name__} and not bytes: open the file in binary mode"
            )
        sink.write(chunk)
        copied += len(chunk)
    if copied != size:
        raise SnapshotFailedError(
            f"the snapshot has {copied} bytes and its description says {size}: it is cut off, or they do not belong "
            f"together. Nothing has changed"
        )
    return copied


def _persist(state: FSMSnapshot | bytes, sink: _Counting) -> None:
    if isinstance(state, bytes):
        sink.write(state)
        return
    state.persist(sink)
    if not sink.size:
        raise SnapshotFailedError(
            "FSMSnapshot.persist wrote nothing: write the whole state with sink.write(); an empty state needs some "
            "bytes, too, that restore() understands"
        )


class _Counting(SnapshotSink):
    """What an FSM writes to: counts, and lets it close the sink early or not at all."""

    def __init__(self, sink: SnapshotSink) -> None:
        self._sink = sink
        self.size = 0

    @property
    def id(self) -> str:
        return self._sink.id

    def write(self, data: bytes) -> int:
        self._sink.write(data)
        self.size += len(data)
        return len(data)

    def close(self) -> None:
        self._sink.close()

    def cancel(self) -> None:
        self._sink.cancel()
