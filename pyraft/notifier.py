"""The thread that finishes futures on behalf of the main thread, which runs no user code.

A future's callbacks are user code: they run here, or on the FSM thread for apply,
barrier and read futures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .futures import RaftFuture
from .observers import Observation, Observer
from .runtime import Inbox, Runtime

_log = logging.getLogger(__name__)


class _Resolved(NamedTuple):
    future: RaftFuture[Any]
    value: Any


class _Failed(NamedTuple):
    futures: list[RaftFuture[Any]]
    make_error: Callable[[], BaseException]


class _Observed(NamedTuple):
    observation: Observation


class _Stop:
    pass


class Notifier:
    """Owns the ``pyraft-<id>-notify`` thread's inbox.  Its methods never block."""

    def __init__(self, runtime: Runtime, server_id: str) -> None:
        self._inbox: Inbox = runtime.inbox(f"{server_id}-notify")
        self._abandoned = False
        self._runtime = runtime
        self._observers: tuple[Observer, ...] = ()  # replaced whole, under the lock
        self._lock = runtime.lock()
        self._current: Any = None  # what is being finished, for whoever takes over

    def resolve(self, future: RaftFuture[Any], value: Any = None) -> None:
        """Finish ``future`` with ``value`` on the notify thread."""
        self._inbox.put(_Resolved(future, value))

    def fail(self, futures: Iterable[RaftFuture[Any]], make_error: Callable[[], BaseException]) -> None:
        """Finish each future with an error of its own, so that no two threads share a traceback."""
        waiting = list(futures)
        if waiting:
            self._inbox.put(_Failed(waiting, make_error))

    def fail_one(self, future: RaftFuture[Any], error: BaseException) -> None:
        """Finish ``future`` with ``error``, which nobody else gets."""
        self._inbox.put(_Failed([future], lambda: error))

    def observe(self, observation: Observation) -> None:
        """Let every observer see ``observation``."""
        if self._observers:
            self._inbox.put(_Observed(observation))

    def register(self, observer: Observer) -> None:
        """Let ``observer`` see what is observed from now on."""
        observer.begin(self._runtime)
        with self._lock:
            if observer not in self._observers:
                self._observers = (*self._observers, observer)

    def deregister(self, observer: Observer) -> None:
        """Let ``observer`` see no more; nothing if it is not registered."""
        with self._lock:
            self._observers = tuple(known for known in self._observers if known is not observer)
        observer.end()

    def end_observers(self) -> None:
        """The server stops: nothing more is observed."""
        for observer in self._observers:
            self.deregister(observer)

    def stop(self) -> None:
        """Let the thread end once it has done what was asked before."""
        self._inbox.put(_Stop())

    def run(self) -> None:
        """The thread's life.  What is asked for after the end is done on the asking thread."""
        try:
            while not self._abandoned:  # then the stop is gone from the inbox as well
                event = self._inbox.take()
                if isinstance(event, _Stop):
                    return
                if isinstance(event, _Observed):
                    self._show(event.observation)
                    continue
                self._current = event
                _finish(event)
                self._current = None
        finally:
            self._inbox.close(_finish)

    def _show(self, observation: Observation) -> None:
        for observer in self._observers:
            try:
                observer.offer(observation)
            except Exception:
                _log.exception("an observer's filter failed; nobody else is affected")

    def abandon(self) -> None:
        """Take over from a thread that is stuck in a callback: finish here what it still had.

        Runs callbacks, so it may get stuck as well: call it on a thread that may.
        """
        self._abandoned = True
        left: list[Any] = [self._current]
        self._inbox.close(left.append)
        # First everybody who waits, and only then the callbacks, any of which may never return.
        finished = []
        seen = 0
        while seen < len(left):  # what is asked for meanwhile lands here too
            finished += _finish_quietly(left[seen])
            seen += 1
        self._inbox.close(_finish)
        for event in left[seen:]:
            finished += _finish_quietly(event)
            seen += 1
        for future in finished:
            future.run_callbacks()
        for event in left[seen:]:  # of a thread that had looked before the second close
            _finish(event)


def _finish(event: Any) -> None:
    if isinstance(event, _Resolved):
        event.future.try_set_result(event.value)
    elif isinstance(event, _Failed):
        for future in event.futures:
            future.try_set_exception(event.make_error())


def _finish_quietly(event: Any) -> list[RaftFuture[Any]]:
    """As ``_finish``, without callbacks; return the futures that were finished here."""
    if isinstance(event, _Resolved):
        return [event.future] if event.future.try_finish_quietly(event.value, None) else []
    if isinstance(event, _Failed):
        return [f for f in event.futures if f.try_finish_quietly(None, event.make_error())]
    return []
