"""Takes snapshots: now and then, and when somebody asks for one.

Runs on the ``pyraft-<id>-snap`` thread.  The FSM thread captures the state, quickly; it is
written here while commands go on being applied; and only once it is durable does the main
thread drop the entries that it covers.

Source: Raft paper §7; dissertation §5.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from .context import NodeContext
from .errors import NothingNewToSnapshotError, RaftError, RaftShutdownError, StorageError
from .events import SnapshotTaken
from .fsm import FSMSnapshot
from .fsm_runner import Captured
from .futures import SnapshotFuture
from .rules.timing import randomized
from .runtime import Inbox
from .snapshot_writing import write_snapshot
from .snapshots.base import SnapshotMeta, SnapshotStore


class _Asked(NamedTuple):
    future: SnapshotFuture


class _Answer(NamedTuple):
    result: Captured | RaftError


class _Wanted(NamedTuple):
    """A peer needs a snapshot, and there is none that can be read."""


class _Reconfigured(NamedTuple):
    """The settings changed: the next look may be due earlier."""


class _Stop(NamedTuple):
    pass


class Snapshotter:
    """Owns the snap thread's inbox.  ``ask``, ``want`` and ``stop`` never block."""

    def __init__(self, node: NodeContext, store: SnapshotStore) -> None:
        self._node = node
        self._store = store
        self._rng = node.runtime.random(f"snapshot:{node.id}")
        self._inbox: Inbox = node.runtime.inbox(f"{node.id}-snap")
        self._asked: deque[SnapshotFuture] = deque()
        self._stopping = False
        self._keeps = True  # False once the store turned out to forget what it is given

    # -- any thread ----------------------------------------------------------------------------

    def ask(self, future: SnapshotFuture) -> None:
        """Take a snapshot; ``future`` gets its description."""
        self._inbox.put(_Asked(future))

    def want(self) -> None:
        """Take one soon, if there is anything new: a peer waits for it."""
        self._inbox.put(_Wanted())

    def reconfigured(self) -> None:
        """The settings changed."""
        self._inbox.put(_Reconfigured())

    def stop(self) -> None:
        """Let the thread end after what it is writing."""
        self._inbox.put(_Stop())

    def opener(self, meta: SnapshotMeta) -> Callable[[], BinaryIO]:
        """A function that opens the snapshot described by ``meta``."""
        return lambda: self._store.open(meta.id)[1]

    def open_newest(self) -> tuple[SnapshotMeta, BinaryIO]:
        """The newest snapshot that can be read, and a reader that the caller closes.

        Raises:
            RaftError: there is none, or none that can be read; one is being taken.
        """
        try:
            for meta in self._store.list():
                try:
                    return self._store.open(meta.id)
                except RaftError as error:
                    self._node.log.error("snapshot %s cannot be read: %s", meta.id, error)
        except RaftError:
            raise
        except Exception as error:
            raise StorageError(f"the snapshot store could not be read: {error!r}") from error
        self.want()
        raise StorageError(
            "there is no snapshot that can be read; a new one is taken if anything was applied"
        )

    # -- the snap thread -----------------------------------------------------------------------

    def run(self) -> None:
        """The thread's life."""
        try:
            look_at = self._next_look()
            while not self._stopping:
                event = self._inbox.take(look_at)
                if isinstance(event, _Asked):
                    self._asked.append(event.future)
                    self._serve()
                elif isinstance(event, _Stop):
                    return
                elif isinstance(event, _Wanted) or (event is None and self._is_due()):
                    self._take_quietly()
                if event is None or isinstance(event, _Reconfigured):
                    look_at = self._next_look()
        finally:
            self._inbox.close(self._dispose)
            while self._asked:
                self._dispose(_Asked(self._asked.popleft()))

    def _next_look(self) -> float:
        node = self._node
        return node.runtime.now() + randomized(node.config.snapshot_interval, self._rng)

    def _is_due(self) -> bool:
        node = self._node
        new = node.fsm.applied_index - node.state.log.snapshot.index
        return self._keeps and new >= node.config.snapshot_threshold

    def _serve(self) -> None:
        """Take one snapshot for everybody who has asked."""
        try:
            meta = self._take()
        except RaftError as error:
            result: SnapshotMeta | RaftError = error
        else:
            result = meta
        asked = [self._asked.popleft() for _ in range(len(self._asked))]
        for future in asked:
            if isinstance(result, RaftError):
                self._node.notifier.fail_one(future, result)
            else:
                future.opener = self.opener(result)
                self._node.notifier.resolve(future, result)

    def _take_quietly(self) -> None:
        try:
            self._take()
        except (NothingNewToSnapshotError, RaftShutdownError):
            pass
        except RaftError as error:
            self._node.log.error("no snapshot was taken: %s", error)

    def _take(self) -> SnapshotMeta:
        """Capture, write, and let the main thread drop what it covers.

        Raises:
            NothingNewToSnapshotError: nothing was applied since the newest one.
            SnapshotFailedError, StorageError: it is not stored; nothing has changed.
        """
        captured = self._capture()
        began = self._node.runtime.now()
        try:
            meta = write_snapshot(self._store, captured, self._node.transport)
        finally:
            if isinstance(captured.state, FSMSnapshot):
                self._release(captured.state)
        took = self._node.runtime.now() - began
        self._node.log.info(
            "snapshot taken id=%s index=%d bytes=%d took_s=%.3f", meta.id, meta.index, meta.size, took
        )
        if self._is_kept(meta):
            self._node.inbox.put(SnapshotTaken(meta))
        return meta

    def _capture(self) -> Captured:
        node = self._node
        node.fsm.capture(node.state.log.snapshot.index, lambda result: self._inbox.put(_Answer(result)))
        while True:
            event = self._inbox.take(None)
            if isinstance(event, _Answer):
                if isinstance(event.result, RaftError):
                    raise event.result
                return event.result
            if isinstance(event, _Asked):
                self._asked.append(event.future)
            elif isinstance(event, _Stop):
                self._stopping = True
                raise RaftShutdownError()

    def _release(self, state: FSMSnapshot) -> None:
        try:
            state.release()
        except Exception:
            self._node.log.exception("FSMSnapshot.release failed; nobody else is affected")

    def _is_kept(self, meta: SnapshotMeta) -> bool:
        """Whether the store still has it: the log may only be cut if it does."""
        self._keeps = any(kept.id == meta.id for kept in self._store.list())
        return self._keeps

    def _dispose(self, event: Any) -> None:
        if isinstance(event, _Asked):
            self._node.notifier.fail([event.future], RaftShutdownError)
