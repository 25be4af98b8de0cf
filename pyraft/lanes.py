"""Wakes a crowd of waiting threads a few at a time: each that wakes lets the next one go.

The interpreter runs one thread at a time.  A batch of commits has an answer for hundreds of
threads, and if all were woken at once all would stand in line for the interpreter, pyraft's own
threads behind them: with 4,096 callers a leader waited so long that it lost its office.

Every step that decides is a single atomic operation of CPython with its lock, and of two threads
each publishes first and looks second.  An interrupt can cost a lane, a KeyboardInterrupt in
``go_on``.  Nothing depends on it: who waits looks for itself now and then (see
runtime.CallerSignal), and if nobody at all was woken meanwhile it mends the lanes.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

WIDTH = 64
"""Lanes, which is how many threads are on their way to the interpreter at a time.

Fewer leave it idle while one wakes (8 carried 7 % less with 256 callers than no lanes at all);
with more of them pyraft's own threads wait longer.
"""


class Sleeper(Protocol):
    """Somebody who waits."""

    def wake(self) -> bool:
        """Wake it if it still sleeps; return whether it does and so will call ``Lanes.go_on``."""


class Lanes:
    """Who is to be woken, in order of arrival.  Any thread may call it; nothing blocks."""

    __slots__ = ("_free", "_sleepers", "moved")

    def __init__(self) -> None:
        self._sleepers: deque[Sleeper] = deque()
        self._free: deque[None] = deque([None] * WIDTH)
        self.moved = 0  # how often about somebody left the line

    def wake(self, sleeper: Sleeper) -> None:
        """Let ``sleeper`` be woken, now or when those before it have been."""
        self._sleepers.append(sleeper)  # first: whoever frees a lane looks after that
        if self._take_lane():
            self.go_on()

    def go_on(self) -> None:
        """Wake the next one, who gets this lane, or free the lane.  Called once by everybody who was woken."""
        while True:
            try:
                sleeper = self._sleepers.popleft()
            except IndexError:
                if len(self._free) < WIDTH:  # after mend() there may be more than so many lanes
                    self._free.append(None)
                if not self._sleepers or not self._take_lane():
                    return
                continue
            self.moved += 1
            if sleeper.wake():
                return

    def mend(self) -> None:
        """Nobody goes on: free all lanes, whose threads are gone or held up, and go on."""
        for _ in range(WIDTH - len(self._free)):
            self._free.append(None)
        for _ in range(WIDTH):
            if self._take_lane():
                self.go_on()

    def _take_lane(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True
