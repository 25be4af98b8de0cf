"""Where all nondeterminism comes from: clock, threads, inboxes, waiting, random numbers.

Production code asks the ``Runtime`` it was given and never ``threading``, ``queue``,
``time`` or ``random`` themselves, so that the whole threaded library can run one task at
a time under a seed and a virtual clock.  ``ThreadRuntime`` is the implementation on
threads of the operating system.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from math import inf
from queue import Empty, SimpleQueue
from typing import Any

from .errors import ForkedProcessError
from .lanes import Lanes


class Signal(ABC):
    """Something that happens once.  One waiter."""

    @abstractmethod
    def set(self) -> None:
        """Let it happen.  Any thread; a second call does nothing."""

    @abstractmethod
    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has happened, at most ``timeout`` seconds; return whether it has."""


class Inbox(ABC):
    """The one place in which a thread waits: events in order of arrival, with a deadline."""

    @abstractmethod
    def put(self, event: Any) -> None:
        """Leave ``event`` for the thread that owns the inbox.  Any thread; never blocks.

        Once the inbox is closed, the event is disposed of instead, on the caller's thread.
        """

    @abstractmethod
    def take(self, deadline: float | None = None) -> Any:
        """The next event; None once ``deadline`` (an instant of ``Runtime.now``) has passed.

        What was queued at the moment when the deadline was first found to have passed is
        still delivered, and then None: a flood cannot starve a timer, and time that the owner
        itself spent elsewhere does not look like silence.  Owner's thread only.
        """

    @abstractmethod
    def close(self, dispose: Callable[[Any], None]) -> None:
        """Give every event still inside, and every later one, to ``dispose`` instead.

        Each exactly once, on the thread that finds it.
        """


class Task(ABC):
    """A running thread."""

    name: str

    @abstractmethod
    def join(self, timeout: float | None = None) -> bool:
        """Block until the thread has ended, at most ``timeout`` seconds; return whether it has."""

    @abstractmethod
    def stack(self) -> str:
        """Where the thread is now, as text; empty once it has ended."""


class Runtime(ABC):
    """The world outside, as one server sees it."""

    @abstractmethod
    def now(self) -> float:
        """Seconds on a clock that never jumps.  Only differences mean something."""

    def measured(self) -> float:
        """As ``now``, for figures that people look at and nothing is decided by."""
        return self.now()

    @abstractmethod
    def wall_time_ns(self) -> int:
        """Nanoseconds since the Unix epoch.  For information only: clocks jump."""

    @abstractmethod
    def random(self, stream: str) -> random.Random:
        """Random numbers for one purpose; equal names under one seed give equal numbers."""

    @abstractmethod
    def spawn(self, name: str, run: Callable[[], None]) -> Task:
        """Start a thread of pyraft's own.  It never keeps the interpreter alive."""

    @abstractmethod
    def inbox(self, name: str) -> Inbox:
        """A new inbox; ``name`` is for people who read a trace."""

    @abstractmethod
    def signal(self) -> Signal:
        """A new signal."""

    def caller_signal(self, is_command: bool = False) -> Signal:
        """A new signal for a thread of the user's, of which there may be thousands.

        ``is_command``: it waits for the answer to a command, after which another may follow.
        """
        return self.signal()

    def after_callers(self, call: Callable[[], None]) -> bool:
        """Have ``call`` made once nobody is on the way who waited for a command that is done.

        It must not block.  An earlier one that was not made yet may be forgotten, and this one if a
        thread is held up, so that nothing may depend on it.

        Returns:
            False if nobody is on the way, or the runtime does not know: it is not made.
        """
        return False

    def hurry_callers(self) -> None:  # noqa: B027  (optional)
        """Those on the way since ``after_callers`` have taken long for as many as they are."""

    def look_after_callers(self) -> None:  # noqa: B027  (optional)
        """See to it that all who are to be woken will be.  One pyraft thread calls it, often."""

    def release_callers(self) -> None:  # noqa: B027  (optional)
        """Nobody looks after the callers any more."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[Any]:
        """A new lock, to be held for a few instructions and never across a wait."""

    def on_own_thread(self) -> bool:
        """Whether the current thread is one that ``spawn`` started."""
        return self.must_not_wait() is not None

    @abstractmethod
    def must_not_wait(self) -> str | None:
        """Why the current thread must not block on pyraft, or None if it may.

        It must not on pyraft's own threads (what it waits for may need that very thread) and
        not where an asyncio loop is running.
        """


class NotifyChannel:
    """A mark in front of an inbox: capacity one, dropped if it is set already.

    A poke says "there is news, look at the shared state".  The consumer clears the mark
    *before* it reads that state and then reads until caught up; it never counts pokes.
    """

    __slots__ = ("_event", "_inbox", "is_marked")

    def __init__(self, inbox: Inbox, event: Any) -> None:
        self._inbox = inbox
        self._event = event
        self.is_marked = False

    def poke(self) -> None:
        """Mark that there is news.  Any thread; call it after the shared state has changed."""
        if self.is_marked:
            return  # whoever clears the mark later reads the state later still
        self.is_marked = True
        try:
            self._inbox.put(self._event)
        except BaseException:  # a KeyboardInterrupt: with the mark left, all later news would be missed
            self.is_marked = False
            raise

    def insist(self) -> None:
        """Send the event though it is marked: to a consumer that leaves the mark set while it waits."""
        self._inbox.put(self._event)

    def clear(self) -> None:
        """Take the mark away.  The consumer calls it before it reads the shared state."""
        self.is_marked = False


class ThreadSignal(Signal):
    """A signal on a raw lock: the cheapest thing that one thread can wait for."""

    __slots__ = ("_happened", "_lock")

    def __init__(self) -> None:
        self._happened = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if not self._happened:
            self._happened = True
            try:
                self._lock.release()
            except RuntimeError:
                pass  # two threads set it at once; the other one released

    def wait(self, timeout: float | None = None) -> bool:
        if self._happened:
            return True
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))


class CallerSignal(Signal):
    """A signal whose waiter is woken when it is its turn among all that wait for this server."""

    __slots__ = ("_asleep", "_happened", "_lanes", "_lock")

    LOOKS_EVERY = 5.0  # seconds, about; whatever became of the lanes

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._happened = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if not self._happened:
            self._happened = True
            self._lanes.wake(self)

    def wake(self) -> bool:
        """For the lanes: end the wait if there is one."""
        try:
            del self._asleep  # the claim: of us and the waiter, who may be leaving, exactly one gets it
        except AttributeError:
            return False
        self._lock.release()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        do_lanes_stand = False
        try:
            self._asleep = True  # first: who sets it finds us asleep, or we find that it has happened
            if not self._happened:
                do_lanes_stand = self._sleep(timeout)
        finally:  # also when a KeyboardInterrupt ends the wait
            try:
                del self._asleep
            except AttributeError:
                self._lanes.go_on()
            else:
                if do_lanes_stand:
                    self._lanes.mend()
        return self._happened

    def _sleep(self, timeout: float | None) -> bool:
        """Return whether it has happened, and nobody at all was woken for a long time."""
        deadline = inf if timeout is None else time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            # Not all at the same time, where a crowd began together.
            look = self.LOOKS_EVERY * random.uniform(0.8, 1.2)
            moved = self._lanes.moved
            if self._lock.acquire(timeout=min(max(left, 0.0), look)) or left <= look:
                return False
            if self._happened:
                return self._lanes.moved == moved


class ThreadInbox(Inbox):
    """An inbox on ``queue.SimpleQueue``, which costs 0.05 µs a hand-over and is atomic."""

    __slots__ = ("_dispose", "_overdue", "_overdue_left", "_queue")

    def __init__(self) -> None:
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._dispose: Callable[[Any], None] | None = None
        self._overdue: float | None = None  # the deadline found to have passed
        self._overdue_left = 0  # what is still delivered before None says so

    def put(self, event: Any) -> None:
        self._queue.put(event)
        # Put first, look second: close() sets the flag first and drains second, so one of
        # the two finds the event.
        if self._dispose is not None:
            self._drain(self._dispose)

    def take(self, deadline: float | None = None) -> Any:
        if deadline is None:
            return self._queue.get()
        if self._overdue != deadline:
            left = deadline - time.monotonic()
            if left > 0:
                try:
                    return self._queue.get(timeout=left)
                except Empty:
                    pass
            self._overdue, self._overdue_left = deadline, self._queue.qsize()
        if self._overdue_left > 0:
            self._overdue_left -= 1
            try:
                return self._queue.get_nowait()
            except Empty:  # closed meanwhile by another thread
                self._overdue_left = 0
        self._overdue = None
        return None

    def close(self, dispose: Callable[[Any], None]) -> None:
        self._dispose = dispose
        self._drain(dispose)

    def _drain(self, dispose: Callable[[Any], None]) -> None:
        while True:
            try:
                event = self._queue.get_nowait()
            except Empty:
                return
            dispose(event)


_current = threading.local()


class ThreadTask(Task):
    """A daemon thread."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self._run = run
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stack(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or -1)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    def _main(self) -> None:
        _current.is_ours = True
        self._run()


_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class ForkGuard:
    """Remembers the process it was made in.  A forked child has its memory but not its threads."""

    __slots__ = ("_made_at",)

    def __init__(self) -> None:
        self._made_at = _forks

    @property
    def is_child(self) -> bool:
        """True in a process that was forked off after this was made."""
        return _forks != self._made_at

    def check(self, what: str) -> None:
        """Raise ForkedProcessError in a forked child."""
        if self.is_child:
            raise ForkedProcessError(
                f"{what} was opened before this process was forked off and belongs to its parent: "
                f"open it in the process that uses it (multiprocessing: start method 'spawn')"
            )


class ThreadRuntime(Runtime):
    """Threads of the operating system, the real clock, real randomness."""

    def __init__(self) -> None:
        self._fork_guard = ForkGuard()
        self._lanes = Lanes()
        # One by one: a second thread that is awake finds the interpreter taken and sleeps again, which
        # costs both.  Apart from the others, who bring no commands that a leader could wait for.
        self._command_lanes = Lanes(1)

    def now(self) -> float:
        return time.monotonic()

    def wall_time_ns(self) -> int:
        return time.time_ns()

    def random(self, stream: str) -> random.Random:
        return random.Random()

    def spawn(self, name: str, run: Callable[[], None]) -> Task:
        return ThreadTask(name, run)

    def inbox(self, name: str) -> Inbox:
        return ThreadInbox()

    def signal(self) -> Signal:
        return ThreadSignal()

    def caller_signal(self, is_command: bool = False) -> Signal:
        # Only the main thread runs signal handlers, which may wait inside a wait and so keep a lane,
        # and only to it a KeyboardInterrupt comes, perhaps with the next one's wake-up in its hands.
        if threading.get_ident() == threading.main_thread().ident:
            return ThreadSignal()
        return CallerSignal(self._command_lanes if is_command else self._lanes)

    def after_callers(self, call: Callable[[], None]) -> bool:
        return self._command_lanes.then(call)

    def hurry_callers(self) -> None:
        self._command_lanes.hurry()

    def look_after_callers(self) -> None:
        now = time.monotonic()
        self._command_lanes.look(now)
        self._lanes.look(now)

    def release_callers(self) -> None:
        self._command_lanes.open()
        self._lanes.open()

    def lock(self) -> AbstractContextManager[Any]:
        return threading.Lock()

    def on_own_thread(self) -> bool:
        return getattr(_current, "is_ours", False)

    def must_not_wait(self) -> str | None:
        if self._fork_guard.is_child:
            return "this is a forked child, and the server's threads stayed in its parent"
        if self.on_own_thread():
            return f"this is pyraft's own thread {threading.current_thread().name}"
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        return "an asyncio loop is running on this thread"


def new_condition() -> threading.Condition:
    """A condition for waiters of the standard library, which know nothing of a Runtime."""
    return threading.Condition()
