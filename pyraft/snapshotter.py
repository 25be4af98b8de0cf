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

from .configuration import Configuration
from .context import NodeContext
from .errors import (
    EnqueueTimeoutError,
    NothingNewToSnapshotError,
    RaftError,
    RaftShutdownError,
    StorageError,
)
from .events import (
    LeaderQuestion,
    RestoreAsked,
    RestoreEnded,
    RestorePlace,
    RestoreWritten,
    SnapshotTaken,
)
from .fsm_runner import Captured
from .futures import RaftFuture, SnapshotFuture
from .restoring import OTHER_MEMBERS, position_of
from .rules.timing import randomized
from .runtime import Inbox
from .snapshot_writing import cancel, copy_all, write_snapshot
from .snapshots.base import SnapshotMeta, SnapshotStore


class _Asked(NamedTuple):
    future: SnapshotFuture


class _Answer(NamedTuple):
    result: Any


class _Wanted(NamedTuple):
    """A peer needs a snapshot, and there is none that can be read."""


class _Restore(NamedTuple):
    """A snapshot from outside is to replace the state of the cluster."""

    meta: SnapshotMeta
    source: BinaryIO
    future: RaftFuture[None]
    deadline: float | None


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
        self._taken = 0  # index of our newest one
        self.is_writing = False  # user code may run, which may not return
        self._restoring: RaftFuture[None] | None = None  # its reader may never return
        self._keeps = True  # False once the store turned out to forget what it is given

    # -- any thread ----------------------------------------------------------------------------

    def ask(self, future: SnapshotFuture) -> None:
        """Take a snapshot; ``future`` gets its description."""
        self._inbox.put(_Asked(future))

    def restore(
        self, meta: SnapshotMeta, source: BinaryIO, future: RaftFuture[None], deadline: float | None
    ) -> None:
        """Replace the state of the cluster by what ``source`` reads, if this server leads."""
        self._inbox.put(_Restore(meta, source, future, deadline))

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
        """A function that opens the snapshot described by ``meta``, or another one of the same entry."""
        return lambda: self._open_state(meta)

    def _open_state(self, meta: SnapshotMeta) -> BinaryIO:
        try:
            return self._store.open(meta.id)[1]
        except RaftError:
            # A leader that heard nothing sends it again, and where few are kept the second one has
            # taken its place.  What two of one entry hold is the same.
            for other in self._store.list():
                if other.id != meta.id and position_of(other) == position_of(meta):
                    return self._store.open(other.id)[1]
            raise

    def open_newest(self) -> tuple[SnapshotMeta, BinaryIO]:
        """The newest snapshot that can be read, and a reader that the caller closes.

        None with other members than a newer, damaged one of the same entry: that was a recovery's.

        Raises:
            RaftError: there is none, or none that can be read; one is being taken.
        """
        try:
            unusable: dict[int, Configuration | None] = {index: None for _, index in self._store.unreadable()}
            for meta in self._store.list():
                if self._node.state.log.term_at(meta.index) != meta.term:
                    continue  # our log does not go on from there: sending it would not help, or do harm
                if meta.index > self._node.fsm.applied_index:
                    # From outside (Raft.restore): what no FSM can read must not get to the others.
                    raise StorageError("our own state machine has not taken the newest snapshot in yet")
                if unusable.get(meta.index, meta.configuration) != meta.configuration:
                    self._node.log.error("snapshot %s is not sent: %s", meta.id, OTHER_MEMBERS)
                    continue
                try:
                    return self._store.open(meta.id)
                except RaftError as error:
                    self._node.log.error("snapshot %s cannot be read: %s", meta.id, error)
                    unusable.setdefault(meta.index, meta.configuration)
        except RaftError:
            raise
        except Exception as error:
            raise StorageError(f"the snapshot store could not be read: {error!r}") from error
        self.want()
        raise StorageError("there is no snapshot that could be sent; a new one is taken")

    def abandon(self) -> None:
        """The thread is stuck in user code: fail every future that waits for it."""
        self._stopping = True
        self._inbox.close(self._dispose)
        for future in list(self._asked):
            self._dispose(_Asked(future))
        if self._restoring is not None:
            self._node.notifier.fail([self._restoring], RaftShutdownError)

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
                elif isinstance(event, _Restore):
                    self._restore(event)
                elif isinstance(event, _Wanted):
                    self._take_quietly(newer_than=0)  # the one that is there is of no use
                elif event is None and self._is_due():
                    self._take_quietly(self._newest)
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
        new = node.fsm.applied_index - self._newest
        return self._keeps and new >= node.config.snapshot_threshold

    def _serve(self) -> None:
        """Take one snapshot for everybody who has asked."""
        try:
            self._take(self._newest)
        except RaftError as error:
            for future in self._everybody():
                self._node.notifier.fail_one(future, error)

    def _everybody(self) -> list[SnapshotFuture]:
        return [self._asked.popleft() for _ in range(len(self._asked))]

    @property
    def _newest(self) -> int:
        return max(self._taken, self._node.state.log.snapshot.index)

    def _take_quietly(self, newer_than: int) -> None:
        try:
            self._take(newer_than)
        except (NothingNewToSnapshotError, RaftShutdownError):
            pass
        except RaftError as error:
            self._node.log.error("no snapshot was taken: %s", error)
        if self._asked and not self._stopping:  # while the state was captured
            self._serve()

    def _take(self, newer_than: int) -> None:
        """Capture what is past ``newer_than``, write it, and let the main thread drop what it covers.

        Raises:
            NothingNewToSnapshotError: nothing was applied since the newest one.
            SnapshotFailedError, StorageError: it is not stored; nothing has changed.
        """
        captured = self._capture(newer_than)
        began = self._node.runtime.now()
        self.is_writing = True
        try:
            meta = write_snapshot(self._store, captured, self._node.transport)
        finally:
            self.is_writing = False
        took = self._node.runtime.now() - began
        self._node.metrics.snapshot_seconds.add(took)
        self._node.log.info(
            "snapshot taken id=%s index=%d bytes=%d took_s=%.3f", meta.id, meta.index, meta.size, took
        )
        finish = self._finisher(meta)
        if self._is_kept(meta):
            self._taken = max(self._taken, meta.index)
            self._node.inbox.put(SnapshotTaken(meta, finish))
        else:
            finish()

    def _finisher(self, meta: SnapshotMeta) -> Callable[[], None]:
        """What tells everybody who has asked by now."""
        asked = self._everybody()

        def finish() -> None:
            for future in asked:
                future.opener = self.opener(meta)
                self._node.notifier.resolve(future, meta)

        return finish

    def _capture(self, newer_than: int) -> Captured:
        node = self._node
        node.fsm.capture(newer_than, lambda result: self._inbox.put(_Answer(result)))
        captured: Captured = self._wait_for_answer()
        return captured

    def _wait_for_answer(self) -> Any:
        while True:
            event = self._inbox.take(None)
            if isinstance(event, _Answer):
                if isinstance(event.result, RaftError):
                    raise event.result
                return event.result
            if isinstance(event, _Asked):
                self._asked.append(event.future)
            elif isinstance(event, _Restore):
                text = "a snapshot is being taken: try again in a moment"
                self._node.notifier.fail_one(event.future, EnqueueTimeoutError(text))
            elif isinstance(event, _Stop):
                self._stopping = True
                raise RaftShutdownError()

    def _is_kept(self, meta: SnapshotMeta) -> bool:
        """Whether the store still has it: the log may only be cut if it does."""
        kept = self._store.list()
        # A newer one, from a leader, may have taken its place meanwhile.
        self._keeps = any(other.index >= meta.index for other in kept)
        return any(other.id == meta.id for other in kept)

    # -- a snapshot from outside -------------------------------------------------------------------

    def _restore(self, event: _Restore) -> None:
        """Bring the bytes to the disk, and leave the rest to the leader."""
        self._restoring = event.future
        try:
            place = self._ask_main(
                lambda answer: RestoreAsked(answer, event.meta, event.future, event.deadline)
            )
            self._write_restore(event, place)
        except Exception as raised:
            error = raised
            if not isinstance(raised, RaftError):  # the store is the user's
                error = StorageError(f"the snapshot store could not take the snapshot in: {raised!r}")
            self._node.inbox.put(RestoreEnded(event.future))
            self._node.notifier.fail_one(event.future, error)
        self._restoring = None

    def _write_restore(self, event: _Restore, place: RestorePlace) -> None:
        sink = self._store.create(
            1, place.index, place.term, place.configuration, place.configuration_index, self._node.transport
        )
        try:
            self.is_writing = True
            size = copy_all(event.source, sink, event.meta.size)
            self.is_writing = False
            meta = SnapshotMeta(
                sink.id, place.index, place.term, place.configuration, place.configuration_index, size
            )
            if event.deadline is not None and self._node.runtime.now() >= event.deadline:
                raise EnqueueTimeoutError(
                    "reading the snapshot took longer than the caller allowed: nothing has changed"
                )
            self._ask_main(lambda answer: RestoreWritten(answer, meta, sink, event.future))
        except BaseException:
            cancel(sink)
            raise
        finally:
            self.is_writing = False

    def _ask_main(self, question: Callable[[Callable[[Any], None]], LeaderQuestion]) -> Any:
        """Ask the leader role; return its answer.

        Raises:
            RaftError: what it answered, or the server stops.
        """
        self._node.inbox.put(question(lambda result: self._inbox.put(_Answer(result))))
        return self._wait_for_answer()

    def _dispose(self, event: Any) -> None:
        if isinstance(event, _Asked | _Restore):
            self._node.notifier.fail([event.future], RaftShutdownError)
