"""Wakes a crowd of waiting threads a few at a time: each that wakes lets the next one go.

The interpreter runs one thread at a time.  A batch of commits has an answer for hundreds of
threads, and if all were woken at once all would stand in line for the interpreter, pyraft's own
threads behind them: with 4,096 callers a leader waited so long that it lost its office.

Every step that decides is a single atomic operation of CPython with its lock, and of two threads
each publishes first and looks second.  What is raised into a thread from outside, in ``go_on``, can
cost a lane and the next one's wake-up.  So the main thread, which runs signal handlers and gets
KeyboardInterrupts, is in no lane; and nothing depends on them: a pyraft thread looks after the lanes
(``look``), and so does now and then who waits (see runtime.CallerSignal).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

WIDTH = 64
"""Lanes, which is how many threads are on their way to the interpreter at a time.

Fewer leave it idle while one wakes (8 carried 7 % less with 256 callers than no lanes at all);
with more of them pyraft's own threads wait longer.
"""

_STAYS_WIDE_FOR = 2_000  # who leave the line
_STUCK_AFTER = 0.25  # seconds


class Sleeper(Protocol):
    """Somebody who waits."""

    def wake(self) -> bool:
        """Wake it if it still sleeps; return whether it does and so will call ``Lanes.go_on``."""


class Lanes:
    """Who is to be woken, in order of arrival.  Any thread may call it; nothing blocks.

    Attributes:
        moved: how often about somebody left the line.
    """

    __slots__ = (
        "_free",
        "_moved_at_look",
        "_narrow_at",
        "_sleepers",
        "_still_since",
        "_then",
        "_usual_width",
        "_width",
        "moved",
    )

    def __init__(self, width: int = WIDTH) -> None:
        """``width``: the usual number of lanes; ``hurry`` may make it ``WIDTH`` for a while."""
        self._sleepers: deque[Sleeper] = deque()
        self._usual_width = self._width = width
        self._free: deque[None] = deque([None] * width)
        self._narrow_at = 0.0  # what ``moved`` must be for the usual width
        self._then: deque[Callable[[], None]] = deque(maxlen=1)
        self._moved_at_look = 0
        self._still_since = 0.0
        self.moved = 0

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
                if len(self._free) < self._width:  # after mend() there may be more than so many lanes
                    self._free.append(None)
                if not self._sleepers:
                    self._tell()
                    return
                if not self._take_lane():
                    return
                continue
            self.moved += 1
            if sleeper.wake():
                return

    def then(self, call: Callable[[], None]) -> bool:
        """Have ``call`` made once the line is empty; False if it is not worth waiting for, and it is not made.

        That is if nobody is on the way, or whoever is comes slowly, after ``hurry``.
        It replaces an earlier one.  Who was woken and finds the line empty makes it, on its own
        thread: with one lane, the last.  With a lane that was lost, perhaps nobody does.
        """
        if self._width > self._usual_width:
            return False
        self._then.append(call)  # first: who frees a lane looks after that
        if self._is_somebody_on_the_way():
            return True
        try:
            self._then.pop()
        except IndexError:
            return True  # the last one came meanwhile, and makes it
        return False

    def hurry(self) -> None:
        """The line has been slow since ``then``: wake more at a time for a while."""
        self._widen(self.moved + _STAYS_WIDE_FOR)

    def open(self) -> None:
        """Wake ``WIDTH`` at a time from now on: whoever looks after the lanes is about to end."""
        self._widen(float("inf"))

    def look(self, now: float) -> None:
        """Mend the lanes if nobody has gone on for a while.  One thread calls it, often."""
        if self.moved != self._moved_at_look or not self._is_somebody_on_the_way():
            self._moved_at_look, self._still_since = self.moved, now
        elif now - self._still_since >= _STUCK_AFTER:
            self._still_since = now
            self.mend()

    def mend(self) -> None:
        """Nobody goes on: free all lanes, whose threads are gone or held up, and go on."""
        for _ in range(self._width - len(self._free)):
            self._free.append(None)
        for _ in range(self._width):
            if self._take_lane():
                self.go_on()

    def _widen(self, narrow_at: float) -> None:
        self._narrow_at = narrow_at
        self._width = WIDTH
        self.mend()

    def _is_somebody_on_the_way(self) -> bool:
        return bool(self._sleepers) or len(self._free) < self._width

    def _tell(self) -> None:
        """The line is empty."""
        if self.moved >= self._narrow_at:
            self._width = self._usual_width
        try:
            call = self._then.popleft()
        except IndexError:
            return
        call()

    def _take_lane(self) -> bool:
        try:
            self._free.pop()
        except IndexError:
            return False
        return True
