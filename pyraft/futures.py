"""Futures: what apply() and the other calls return.

A ``RaftFuture`` is a ``concurrent.futures.Future`` that costs a fifth of one: its
condition, waiters and callbacks are made only when somebody asks for them.  It is also
safe where the original is not: finishing is an atomic claim, so of several finishers
(an owner, a shutdown) exactly one wins, and cancelling a wait changes nothing inside.

Every step that decides is a single atomic operation of CPython with its lock (``del`` of a
slot, ``dict.setdefault``, ``deque.popleft``), and every pair of threads follows the same pattern:
publish first, look second.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from .errors import WouldDeadlockError
from .runtime import Runtime, Task, new_condition

if TYPE_CHECKING:
    from .configuration import Configuration
    from .snapshots.base import SnapshotMeta

_log = logging.getLogger(__name__)

T = TypeVar("T")

_RUNNING = "RUNNING"
_FINISHED = "FINISHED"


class RaftFuture(Future[T]):
    """The outcome of a call, some time later.

    ``result``, ``exception``, ``add_done_callback``, ``concurrent.futures.wait`` and
    ``as_completed`` work, and so does ``await`` from any running loop.  Callbacks run on a
    pyraft thread (or at once, if it is done already): one that raises is logged, one that
    blocks delays others, and none may wait for another pyraft future.
    """

    # What every future needs.  The rest is in __dict__, which is not even made unless somebody waits
    # or adds a callback: that halves what a command costs here, and the garbage collector's share.
    __slots__ = ("_exception", "_is_done", "_is_watched", "_result", "_runtime", "_unclaimed")
    _is_command = False
    _result: Any

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime  # the base class's __init__ would make a Condition: 0.6 µs
        self._is_done = False
        self._unclaimed = True  # whoever deletes it is the one who finishes
        self._is_watched = False  # there is more in __dict__

    # -- for the caller ----------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """Block until done, at most ``timeout`` seconds; return the value or raise the error.

        Raises:
            TimeoutError: not done in time.  The operation itself goes on.
            WouldDeadlockError: called on a pyraft thread or where an asyncio loop runs.
        """
        self._wait(timeout)
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # a traceback must not keep the future alive
        value: T = self._result
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Block like ``result``; return the error instead of raising it, None on success."""
        self._wait(timeout)
        return self._exception

    def done(self) -> bool:
        return self._is_done

    def running(self) -> bool:
        return not self._is_done

    def cancel(self) -> bool:
        """Return False: what is on its way to other servers cannot be called back."""
        return False

    def cancelled(self) -> bool:
        return False

    def add_done_callback(self, fn: Callable[[Future[T]], Any]) -> None:
        """Call ``fn(self)`` once it is done; at once, on this thread, if it is."""
        self._queue("_callbacks").append(fn)
        if self._is_done:
            self.run_callbacks()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._is_done:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            wake = partial(_alarm_of(loop).ring, done)
            self._queue("_wakers").append(wake)
            if self._is_done:
                wake()
            try:
                yield from done
            finally:
                if not self._is_done:  # else whoever finished it took them all
                    self._forget(wake)
        return self.result()

    # -- for whoever owns the operation ------------------------------------------------

    def try_set_result(self, value: T) -> bool:
        """Finish with ``value`` unless somebody finished it before; return who won."""
        return self._finish(value, None)

    def try_set_exception(self, error: BaseException) -> bool:
        """Finish with ``error`` unless somebody finished it before; return who won."""
        return self._finish(None, error)

    def try_finish_quietly(self, value: T | None, error: BaseException | None) -> bool:
        """Finish and wake whoever waits, but leave the callbacks to ``run_callbacks``.

        For a thread that has many futures to finish and callbacks it cannot trust to return.
        """
        return self._finish(value, error, run_callbacks=False)

    def run_callbacks(self) -> None:
        """Call the callbacks that have not been called yet.  The future must be done."""
        _call_all(self._queue("_callbacks"), self)

    def set_result(self, result: T) -> None:
        if not self._finish(result, None):
            raise InvalidStateError("the future is done already")

    def set_exception(self, exception: BaseException | None) -> None:
        if not self._finish(None, exception):
            raise InvalidStateError("the future is done already")

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def _finish(self, value: Any, error: BaseException | None, run_callbacks: bool = True) -> bool:
        try:
            del self._unclaimed
        except AttributeError:
            return False
        self._result = value
        self._exception = error
        self._is_done = True  # published last; look for waiters only after it
        if self._is_watched:
            self._tell_watchers(run_callbacks)
        return True

    def _tell_watchers(self, run_callbacks: bool) -> None:
        attributes = self.__dict__
        if "_lazy_condition" in attributes:
            self._tell_standard_waiters(attributes["_lazy_condition"])
        if "_wakers" in attributes:
            _call_all(attributes["_wakers"])
        if run_callbacks and "_callbacks" in attributes:
            self.run_callbacks()

    # -- waiting -------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        if self._is_done:
            return
        reason = self._runtime.must_not_wait()
        if reason is not None:
            raise WouldDeadlockError(
                f"waiting for this future here could never end, because {reason}: "
                f"use add_done_callback(), or await it inside a coroutine"
            )
        signal = self._runtime.caller_signal(self._is_command)
        wake = signal.set
        self._queue("_wakers").append(wake)  # apart from users' callbacks, which may block
        if self._is_done:
            return
        if not signal.wait(timeout) and not self._is_done:
            self._forget(wake)
            raise TimeoutError(f"not done after {timeout:g} s; the operation itself goes on")

    def _forget(self, wake: Callable[[], None]) -> None:
        """Nobody waits with ``wake`` any more; kept, they would pile up under a polling caller."""
        try:
            self._queue("_wakers").remove(wake)
        except (ValueError, IndexError):
            pass  # it was called, or another thread changed the queue meanwhile

    def _queue(self, name: str) -> deque[Callable[..., Any]]:
        """The queue ``_wakers`` (who waits) or ``_callbacks`` (what users added), made on demand."""
        queue: deque[Callable[..., Any]] | None = self.__dict__.get(name)
        if queue is None:
            queue = self.__dict__.setdefault(name, deque())
        # By each, as another may have made the queue; and before the caller looks whether it is done.
        self._is_watched = True
        return queue

    # -- what concurrent.futures.wait and as_completed look at ---------------------------

    @property
    def _condition(self) -> Any:  # type: ignore[override]
        condition = self.__dict__.get("_lazy_condition")
        if condition is None:
            condition = self.__dict__.setdefault("_lazy_condition", new_condition())
        self._is_watched = True
        if self._is_done:  # whoever finished it may have looked before
            self._tell_standard_waiters(condition)
        return condition

    @property
    def _state(self) -> str:  # type: ignore[override]
        """Changes only under the condition, as those functions rely on: else they count it twice."""
        has_changed = self._is_done and (
            "_lazy_condition" not in self.__dict__ or "_is_told" in self.__dict__
        )
        return _FINISHED if has_changed else _RUNNING

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        waiters: list[Any] = self.__dict__.setdefault("_lazy_waiters", [])
        return waiters

    def _tell_standard_waiters(self, condition: Any) -> None:
        """Those who were there before; who comes later sees that it is finished."""
        with condition:
            if "_is_told" in self.__dict__:
                return
            self.__dict__["_is_told"] = True
            for waiter in self._waiters:
                if self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)


def _call_all(queue: deque[Callable[..., Any]], *arguments: RaftFuture[Any]) -> None:
    while True:
        try:
            callback = queue.popleft()
        except IndexError:
            return
        try:
            callback(*arguments)
        except BaseException:  # whatever it is: the next callback, and this thread, must go on
            _log.exception("a future's callback raised; nobody else is affected callback=%r", callback)


class _Alarm:
    """Wakes the coroutines of one loop: with one call into it for all that are done by then.

    A call costs a system call and the interpreter's lock, and a batch finishes many futures.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # the loop is the key under which this is kept
        self._done: deque[asyncio.Future[None]] = deque()
        self._is_coming = False  # a call that will look at everything that is there by then

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._loop() is loop

    def ring(self, done: asyncio.Future[None]) -> None:
        """Any thread."""
        self._done.append(done)  # first: whoever clears the mark looks after that
        if self._is_coming:
            return
        self._is_coming = True
        try:
            loop = self._loop()
            if loop is not None:
                loop.call_soon_threadsafe(self._wake_all)
        except RuntimeError:
            pass  # the loop was closed meanwhile, and whoever waited with it
        except BaseException:  # a KeyboardInterrupt: with the mark left, nobody would be woken any more
            self._is_coming = False
            raise

    def _wake_all(self) -> None:
        """In the loop."""
        self._is_coming = False  # first: what comes from here on calls again
        for _ in range(len(self._done)):
            done = self._done.popleft()
            if not done.done():  # the wait may have been cancelled
                done.set_result(None)


_alarms: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Alarm] = weakref.WeakKeyDictionary()
_latest: _Alarm | None = None  # nearly always there is one loop, and the dictionary costs a microsecond


def _alarm_of(loop: asyncio.AbstractEventLoop) -> _Alarm:
    global _latest
    alarm = _latest
    if alarm is None or not alarm.is_of(loop):
        alarm = _alarms.get(loop)
        if alarm is None:
            alarm = _alarms[loop] = _Alarm(loop)
        _latest = alarm
    return alarm


class IndexFuture(RaftFuture[T]):
    """A future of something that has a place in the log."""

    __slots__ = ("_index",)
    _index: int  # not there before it is known

    @property
    def index(self) -> int:
        """The log index.

        Raises:
            InvalidStateError: not done yet.
            RaftError: it failed before it had an index.
        """
        if not self.done():
            raise InvalidStateError("the index is known once the future is done: wait for result() first")
        index: int = getattr(self, "_index", 0)
        if not index and self._exception is not None:
            raise self._exception
        return index


class ConfigurationFuture(IndexFuture["Configuration"]):
    """The members of the cluster; done from the start.  ``index``: of their log entry, 0 if none."""

    @property
    def configuration(self) -> Configuration:
        """The latest configuration in this server's log, committed or not."""
        return self.result()


class SnapshotFuture(RaftFuture["SnapshotMeta"]):
    """A snapshot that is taken because somebody asked for it.  Its result is ``meta``."""

    opener: Callable[[], BinaryIO]  # set before it is resolved

    @property
    def meta(self) -> SnapshotMeta:
        """What the snapshot covers.

        Raises:
            InvalidStateError: not done yet.
            RaftError: it was not taken.
        """
        if not self.done():
            raise InvalidStateError("the snapshot is being taken: wait for result() first")
        return self.result()

    def open(self) -> BinaryIO:
        """A reader of its bytes, which the caller closes.  May be called until the store drops it.

        Raises:
            InvalidStateError: not done yet.
            RaftError: it was not taken, or the store does not have it any more.
        """
        self.meta  # noqa: B018  (raises if there is none)
        return self.opener()


class ApplyFuture(IndexFuture[Any]):
    """The outcome of a command: what ``FSM.apply`` returned or raised on this server."""

    __slots__ = ()
    _is_command = True

    @property
    def response(self) -> Any:
        """What ``FSM.apply`` returned; as ``result()``, but never blocks.

        Raises:
            InvalidStateError: not done yet.
        """
        if not self.done():
            raise InvalidStateError("there is no response yet: wait for result() first")
        return self.result()


class ShutdownFuture(RaftFuture[None]):
    """The end of a server.  Waiting for it also waits for the thread that brings it."""

    def __init__(self, runtime: Runtime, last_thread: Callable[[], Task | None]) -> None:
        super().__init__(runtime)
        self._last_thread = last_thread

    def _wait(self, timeout: float | None) -> None:
        super()._wait(timeout)
        task = self._last_thread()
        if task is not None and self._runtime.must_not_wait() is None:
            # It has nothing left to do but return, unless a callback of this future keeps it.
            task.join(1.0)
