"""The only caller of the user's state machine: in log order, each entry once, never a gap but where
a snapshot takes the place of entries.

Runs on the ``pyraft-<id>-fsm`` thread.  It resolves the futures of commands, barriers
and confirmed reads itself, because only here is it known what came of them, and when.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from .configuration import Configuration, decode_configuration
from .errors import (
    CorruptStoreError,
    FSMFailedError,
    LogNotFoundError,
    NodeFailedError,
    NothingNewToSnapshotError,
    OutcomeUnknownError,
    RaftError,
    RaftShutdownError,
    SnapshotFailedError,
)
from .fsm import FSM, BatchingFSM, ConfigurationStore, FSMSnapshot
from .futures import RaftFuture
from .log import Log, LogType
from .metrics import Metrics
from .node_log import NodeLog
from .runtime import Inbox, Runtime
from .snapshots.base import SnapshotMeta
from .waiting import Waiters

_log = logging.getLogger(__name__)

_READ_BYTES = 1024 * 1024

Futures = Sequence["RaftFuture[Any] | None"]


class _Committed(NamedTuple):
    logs: Sequence[Log]
    futures: Futures | None


class _LookUp:
    """More is committed than was handed over: read it from the log, as far as ``target``.

    The main thread may still raise the target until the FSM thread takes it.  The main thread
    writes the target and then looks at ``taken``; the FSM thread does it the other way round.
    """

    __slots__ = ("taken", "target")

    def __init__(self, target: int) -> None:
        self.target = target
        self.taken = False


class _ReadAt(NamedTuple):
    """Reads that may go on once everything up to ``target`` is applied."""

    target: int
    futures: Sequence[RaftFuture[int]]


@dataclass(frozen=True, slots=True)
class Captured:
    """The FSM's state right after the entry at ``index``, not written yet."""

    state: FSMSnapshot | bytes
    index: int
    term: int
    configuration: Configuration
    configuration_index: int


class _Capture(NamedTuple):
    """Somebody wants the state; gets it, or the reason why not."""

    newer_than: int
    answer: Callable[[Captured | RaftError], None]


class _Restore(NamedTuple):
    """The FSM's whole state is replaced by a durable snapshot."""

    meta: SnapshotMeta
    open: Callable[[], BinaryIO]


class _Stop:
    pass


class FsmRunner:
    """Hands committed entries to the FSM.

    Attributes:
        applied_index: of the last entry whose effect is in the FSM; read by any thread.
        applied: wakes whoever waits for that to grow.
        metrics: the server's, which begin with the FSM's.
        calling: what the user's code is busy with, for error messages; None in between.
        ask_again: takes the futures of reads whose index was overtaken by a restore; never blocks.
    """

    def __init__(
        self,
        runtime: Runtime,
        server_id: str,
        fsm: FSM,
        log: NodeLog,
        on_progress: Callable[[], None],
        fail: Callable[[list[RaftFuture[Any]], Callable[[], BaseException]], None],
        restored: SnapshotMeta | None = None,
    ) -> None:
        """Prepare.

        Args:
            restored: the snapshot whose state the FSM has, or None if it is new.
            on_progress: called on the FSM thread after each batch.
            fail: finishes futures that will never be applied here, on a thread where their
                callbacks harm nobody; never blocks.
        """
        self.applied_index = 0
        self._applied_term = 0
        self._configuration, self._configuration_index = Configuration(), 0  # as of the applied index
        if restored is not None:
            self._stands_at(restored)
        self._restored_at = self.applied_index  # where the latest restore took the FSM
        self.ask_again: Callable[[Sequence[RaftFuture[int]]], None] = lambda futures: None
        self.applied = Waiters(runtime)
        self.metrics = Metrics()
        self._runtime = runtime
        self.calling: str | None = None
        self.stopping = False
        self.failure: BaseException | None = None
        self._fail_futures = fail
        self._look_up: _LookUp | None = None  # the latest one, while nothing was queued behind it
        self._inbox: Inbox = runtime.inbox(f"{server_id}-fsm")
        self._fsm = fsm
        self._fsm_log = log
        self._on_progress = on_progress
        self._reads: list[_ReadAt] = []
        self._batch: _Committed | None = None  # what is being applied, for whoever takes over

    # -- any thread; never blocks ------------------------------------------------------------

    def committed(self, logs: Sequence[Log], futures: Futures | None = None) -> None:
        """Apply ``logs`` and resolve the future that belongs to each, where there is one."""
        self._look_up = None  # one that waits must not reach into what stands behind it
        self._inbox.put(_Committed(logs, futures))

    def committed_up_to(self, index: int) -> None:
        """Apply everything up to ``index``, reading it from the log."""
        look_up = self._look_up
        if look_up is not None:
            look_up.target = index
            if not look_up.taken:
                return  # it will be read with the new target
        self._look_up = _LookUp(index)
        self._inbox.put(self._look_up)

    def read_at(self, index: int, futures: Sequence[RaftFuture[int]]) -> None:
        """Finish ``futures`` with ``index`` once that is applied, unless somebody does earlier."""
        self._inbox.put(_ReadAt(index, futures))

    def capture(self, newer_than: int, answer: Callable[[Captured | RaftError], None]) -> None:
        """Let ``answer`` be called with the FSM's state if it is past ``newer_than``.

        On the FSM thread, where it must not block; with an error if there is no state to give.
        """
        self._inbox.put(_Capture(newer_than, answer))

    def restore(self, meta: SnapshotMeta, open: Callable[[], BinaryIO]) -> None:
        """Replace the FSM's state by the snapshot that ``open()`` reads, if that is further."""
        self._look_up = None
        self._inbox.put(_Restore(meta, open))

    def stop(self, drain: bool = False) -> None:
        """Let the thread end after the entry that it is applying.  What waits is failed.

        ``drain``: only after all that was handed over before.
        """
        if not drain:
            self.stopping = True
        self._inbox.put(_Stop())

    def abandon(self) -> None:
        """Take over from a thread that is stuck in user code: fail every future it still has."""
        self.stopping = True
        self._inbox.close(self._dispose)
        self._dispose(self._batch)
        for read in list(self._reads):
            self._dispose(read)

    # -- the FSM thread ----------------------------------------------------------------------

    def run(self) -> None:
        """The thread's life.

        Raises:
            NodeFailedError: the FSM failed in a way that depends on this server, or the log
                cannot be read; the server must stop.
        """
        try:
            while not self.stopping:
                event = self._inbox.take()
                if isinstance(event, _Committed):
                    self._take_batch(event)
                elif isinstance(event, _ReadAt):
                    self._reads.append(event)
                elif isinstance(event, _Capture):
                    self._capture(event)
                elif isinstance(event, _Restore):
                    self._restore(event)
                elif isinstance(event, _LookUp):
                    event.taken = True
                    self._catch_up(event.target)
                elif isinstance(event, _Stop):
                    return
                if self._reads:
                    self._finish_reads()
                self._on_progress()
                self.applied.notify()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.stopping = True
            self._inbox.close(self._dispose)
            self._dispose(self._batch)
            for read in self._reads:
                self._dispose(read)
            self.applied.notify()

    # reads

    def _finish_reads(self) -> None:
        """Finish the reads whose index is applied."""
        waiting, self._reads = self._reads, []
        for read in waiting:
            if read.target < self._restored_at:
                # The state is further than the index was when it was confirmed, and if the snapshot is
                # from outside nobody may have seen it yet: the leader tells when it is committed.
                self.ask_again(read.futures)
                continue
            if read.target > self.applied_index:
                self._reads.append(read)
                continue
            for future in read.futures:
                future.try_set_result(read.target)

    # the log

    def _dispose(self, event: Any) -> None:
        """Fail the futures of commands that are not applied here any more."""
        if isinstance(event, _Capture):
            event.answer(RaftShutdownError())
        if isinstance(event, _ReadAt):
            self._fail_futures(list(event.futures), RaftShutdownError)
        if not isinstance(event, _Committed) or event.futures is None:
            return
        failure = self.failure

        def stopped() -> RaftShutdownError:
            error = RaftShutdownError(outcome_unknown=True)
            error.__cause__ = failure
            return error

        self._fail_futures([f for f in event.futures if f is not None and not f.done()], stopped)

    def _take_batch(self, batch: _Committed) -> None:
        self._batch = batch
        if batch.logs[0].index > self.applied_index + 1:
            self._catch_up(batch.logs[0].index - 1)
        if self._waits_for_snapshot(batch.logs[0].index):
            self._fail_replaced(batch)
            self._batch = None
        elif not self.stopping:
            self._apply(batch.logs, batch.futures)
            if self.applied_index >= batch.logs[-1].index:
                self._batch = None

    def _fail_replaced(self, batch: _Committed) -> None:
        """Their effect comes with a snapshot; what the FSM would have answered nobody knows."""
        text = (
            "the command was committed, and its effect has come to this server with a snapshot of another leader: what "
            "the state machine answered is not known here. Read the state"
        )
        futures = [f for f in batch.futures or () if f is not None and not f.done()]
        self._fail_futures(futures, lambda: OutcomeUnknownError(text))

    def _catch_up(self, last: int) -> None:
        while self.applied_index < last and not self.stopping:
            try:
                logs = self._fsm_log.read(self.applied_index + 1, last, _READ_BYTES)
            except LogNotFoundError as error:
                if self._waits_for_snapshot(self.applied_index + 2):
                    return
                raise CorruptStoreError(
                    f"entry {self.applied_index + 1} is committed, and the log has lost it. Wipe this server's "
                    f"directory and let it rejoin as a new member"
                ) from error
            self._apply(logs, None)
            self.applied.notify()

    def _waits_for_snapshot(self, next_index: int) -> bool:
        """Whether what comes before ``next_index`` is gone, and a snapshot on its way instead.

        Its position was published before the entries went, so a reader that misses one looks here.
        """
        applied = self.applied_index
        return next_index > applied + 1 and self._fsm_log.snapshot.index > applied

    def _apply(self, logs: Sequence[Log], futures: Futures | None) -> None:
        if futures is None:
            futures = (None,) * len(logs)
        if logs[0].index <= self.applied_index:  # committed_up_to() was faster
            skip = self.applied_index + 1 - logs[0].index
            self._dispose(_Committed(logs[:skip], futures[:skip]))  # no future is dropped silently
            logs, futures = logs[skip:], futures[skip:]
        if logs and logs[0].index != self.applied_index + 1:
            raise CorruptStoreError(
                f"entry {logs[0].index} would be applied after entry {self.applied_index}: the log has a gap. Keep "
                f"the data directory and report a bug"
            )
        began = self._runtime.measured()
        if isinstance(self._fsm, BatchingFSM):
            self._apply_in_batches(self._fsm, logs, futures)
        else:
            self._apply_one_by_one(self._fsm, logs, futures)
        self.metrics.apply_seconds.add(self._runtime.measured() - began)

    def _apply_one_by_one(self, fsm: FSM, logs: Sequence[Log], futures: Futures) -> None:
        apply = fsm.apply
        for log, future in zip(logs, futures, strict=True):
            if self.stopping:
                return
            error = result = None
            if log.type is LogType.COMMAND:
                self.calling = "apply"
                try:
                    result = apply(log)
                except Exception as raised:
                    error = raised
                    self._stop_if_fatal(raised, log, future)
                except BaseException as raised:
                    self._fail(raised, log, future)
                self.calling = None
            elif log.type is LogType.CONFIGURATION:
                self._configuration_committed(log, future)
            self._applied_term = log.term
            self.applied_index = log.index
            if not log.index & 63:
                self._on_progress()
            if self.applied.signals:
                self.applied.notify()
            if future is not None:
                if error is not None:
                    future.try_set_exception(error)
                else:
                    future.try_set_result(result)

    def _apply_in_batches(self, fsm: BatchingFSM, logs: Sequence[Log], futures: Futures) -> None:
        start = 0
        while start < len(logs) and not self.stopping:
            end = start
            while end < len(logs) and logs[end].type is LogType.COMMAND:
                end += 1
            if end > start:
                self._apply_batch(fsm, logs[start:end], futures[start:end])
            else:
                end = start + 1
                self._apply_one_by_one(fsm, logs[start:end], futures[start:end])
            start = end

    def _apply_batch(self, fsm: BatchingFSM, logs: Sequence[Log], futures: Futures) -> None:
        self.calling = "apply_batch"
        try:
            results = fsm.apply_batch(logs)
            count = len(results)
        except BaseException as raised:
            self._fail(raised, logs[0], futures[0])
        if count != len(logs):
            self._fail(
                ValueError(f"apply_batch() was given {len(logs)} commands and returned {count} results"),
                logs[0],
                futures[0],
            )
        for log, future, result in zip(logs, futures, results, strict=True):
            if isinstance(result, Exception):
                self._stop_if_fatal(result, log, future)
            elif isinstance(result, BaseException):
                self._fail(result, log, future)
            self._applied_term = log.term
            self.applied_index = log.index
            if future is None:
                continue
            if isinstance(result, Exception):
                future.try_set_exception(result)
            else:
                future.try_set_result(result)
        self.calling = None

    def _configuration_committed(self, log: Log, future: RaftFuture[Any] | None) -> None:
        self._configuration, self._configuration_index = decode_configuration(log.data), log.index
        try:
            self._tell_configuration()
        except BaseException as raised:
            self._fail(raised, log, future)

    def _tell_configuration(self) -> None:
        if isinstance(self._fsm, ConfigurationStore):
            self.calling = "store_configuration"
            self._fsm.store_configuration(self._configuration_index, self._configuration)
            self.calling = None

    # snapshots

    def _stands_at(self, meta: SnapshotMeta) -> None:
        """The FSM has the state of that snapshot."""
        self._configuration, self._configuration_index = meta.configuration, meta.configuration_index
        self._applied_term = meta.term
        self.applied_index = meta.index

    def _capture(self, event: _Capture) -> None:
        if self.applied_index <= event.newer_than:
            event.answer(
                NothingNewToSnapshotError(
                    f"nothing was applied since the snapshot of entry {event.newer_than}: there is nothing to do"
                )
            )
            return
        self.calling = "snapshot"
        began = self._runtime.measured()
        try:
            state = self._fsm.snapshot()
        except Exception as raised:
            error = SnapshotFailedError(
                f"FSM.snapshot failed at entry {self.applied_index} with {raised!r}: the server goes on without a "
                f"new snapshot, and its log grows. Mend the FSM"
            )
            error.__cause__ = raised
            event.answer(error)
            return
        finally:
            self.calling = None
            self.metrics.capture_seconds.add(self._runtime.measured() - began)
        if not isinstance(state, FSMSnapshot | bytes):
            event.answer(
                SnapshotFailedError(
                    f"FSM.snapshot returned {type(state).__name__}: return bytes or an FSMSnapshot"
                )
            )
            return
        event.answer(
            Captured(
                state, self.applied_index, self._applied_term, self._configuration, self._configuration_index
            )
        )

    def _restore(self, event: _Restore) -> None:
        meta = event.meta
        if meta.index <= self.applied_index or meta.index < self._fsm_log.snapshot.index:
            return  # a later one waits behind it, and this one may not be kept any more
        self.calling = "restore"
        began = self._runtime.measured()
        try:
            with event.open() as source:
                self._fsm.restore(source)
            self._stands_at(meta)
            self._restored_at = meta.index
            self._tell_configuration()
        except NodeFailedError:
            raise
        except BaseException as raised:
            raise restore_failure(meta, raised) from raised
        self.calling = None
        self.metrics.restore_seconds.add(self._runtime.measured() - began)
        _log.info("restored snapshot=%s index=%d bytes=%d", meta.id, meta.index, meta.size)

    def _stop_if_fatal(self, error: Exception, log: Log, future: RaftFuture[Any] | None) -> None:
        try:
            fatal = self._fsm.is_fatal(error)
        except BaseException as raised:
            self._fail(raised, log, future)
        if fatal:
            self._fail(error, log, future)

    def _fail(self, error: BaseException, log: Log, future: RaftFuture[Any] | None) -> None:
        """Stop the server: its state may no longer be what the log says.

        Raises:
            FSMFailedError: always.
        """
        failure = fsm_failure(self.calling, log, error)
        if future is not None:
            future.try_set_exception(failure)
        raise failure from error


def restore_failure(meta: SnapshotMeta, error: BaseException) -> FSMFailedError:
    """What happened, what it means, what to do now."""
    return FSMFailedError(
        f"FSM.restore failed on snapshot {meta.id} (entry {meta.index}, {meta.size} bytes) with {error!r}: without the "
        f"state there is nothing to apply entries to, so the server stopped. Mend the FSM, or restore the snapshot "
        f"elsewhere to see what is wrong with it, and start the server again"
    )


def fsm_failure(call: str | None, log: Log, error: BaseException) -> FSMFailedError:
    """What happened, what it means, what to do now."""
    return FSMFailedError(
        f"FSM.{call or 'apply'} failed at entry {log.index} (term {log.term}) with {error!r}, which depends on this "
        f"server: applying the next entry would make its state differ from the others', so it stopped. Mend "
        f"the cause (a full disk, memory, the FSM's code) and start it again; the entry is applied anew. If it "
        f"stops every server, deploy an FSM that handles the entry and start them again: see docs/operations.md"
    )
