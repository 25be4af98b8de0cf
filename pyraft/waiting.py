"""Let callers' threads wait until something that a pyraft thread publishes has come true."""

from __future__ import annotations

from collections.abc import Callable

from .errors import WouldDeadlockError
from .runtime import Runtime, Signal


class Waiters:
    """Threads that wait for news of one thing.  Costs its publisher a look at an empty list."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.signals: list[Signal] = []  # of those who wait; empty = nobody to notify

    def notify(self) -> None:
        """There is news: everybody who waits looks again.  Call it after publishing."""
        # Oldest first, and only those who wait now: one who looks and waits again must not
        # keep the publisher here.
        for _ in range(len(self.signals)):
            try:
                self.signals.pop(0).set()
            except IndexError:
                return  # another thread notified as well

    def wait_until(self, holds: Callable[[], bool], timeout: float | None) -> bool:
        """Block until ``holds()``, at most ``timeout`` seconds; return whether it does.

        Raises:
            WouldDeadlockError: called on a pyraft thread or where an asyncio loop runs.
        """
        deadline = None if timeout is None else self._runtime.now() + timeout
        while not holds():
            reason = self._runtime.must_not_wait()
            if reason is not None:
                raise WouldDeadlockError(
                    f"waiting here could block what is waited for, because {reason}: use another thread"
                )
            signal = self._runtime.signal()
            self.signals.append(signal)
            if holds():  # it came true between the look and the append
                return True
            left = None if deadline is None else deadline - self._runtime.now()
            if (left is not None and left <= 0) or not signal.wait(left):
                self._forget(signal)
                return holds()
        return True

    def _forget(self, signal: Signal) -> None:
        try:
            self.signals.remove(signal)
        except ValueError:
            pass
