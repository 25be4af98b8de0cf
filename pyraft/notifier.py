"""The thread that finishes futures on behalf of the main thread, which runs no user code.

A future's callbacks are user code: they run here, or on the FSM thread for apply and
barrier futures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .futures import RaftFuture
from .runtime import Inbox, Runtime


class _Resolved(NamedTuple):
    future: RaftFuture[Any]
    value: Any


class _Failed(NamedTuple):
    futures: list[RaftFuture[Any]]
    make_error: Callable[[], BaseException]


class _Stop:
    pass


class Notifier:
    """Owns the ``pyraft-<id>-notify`` thread's inbox.  Its methods never block."""

    def __init__(self, runtime: Runtime, server_id: str) -> None:
        self._inbox: Inbox = runtime.inbox(f"{server_id}-notify")
        self._abandoned = False
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
                self._current = event
                _finish(event)
                self._current = None
        finally:
            self._inbox.close(_finish)

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
