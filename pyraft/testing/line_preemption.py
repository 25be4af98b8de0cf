"""Switches between the lines of pyraft's own code, for races on plain attributes.

A simulation switches where production code uses its ``Runtime``; two threads that share an
attribute without a lock meet only if one can be switched out between reading and writing it.
Python says when a line begins: ``sys.monitoring`` from 3.12 on, where code that is not pyraft's
costs nothing, and ``sys.settrace`` before.  The two report different lines, so under line
preemption one seed is one schedule on one version of Python only.
"""

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Lock, get_ident
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..transport import wire

if TYPE_CHECKING:
    from .sim_runtime import Scheduler

_TESTING = str(Path(__file__).parent) + os.sep
_HOME = str(Path(__file__).parent.parent) + os.sep

_CACHED = tuple(made.__wrapped__.__code__ for made in vars(wire).values() if hasattr(made, "cache_info"))

_DELAYS = 0.03
"""How often the thread does not just stand aside for a step, but until others have got on."""
_DELAY = 0.0005  # virtual seconds, mean: five hundred steps of others

_QUIET = (logging.LoggerAdapter.log.__code__, logging.Logger._log.__code__, *_CACHED)
"""Handlers make their texts under locks that the scheduler does not know, and whether they make
any depends on the level that is set, which must not change the schedule.  Nor must what this process
did before: whether a cached function runs at all depends on that."""


def is_production(filename: str) -> bool:
    """Whether a file belongs to the library that is simulated."""
    return filename.startswith(_HOME) and not filename.startswith(_TESTING)


class LinePreemption(ABC):
    """Lets the scheduler switch with a probability at every line of production code."""

    def __init__(self, scheduler: Scheduler, probability: float) -> None:
        self._scheduler = scheduler
        self._probability = probability
        self._random = scheduler.random("lines")
        self._quiet: dict[int, FrameType] = {}  # by thread: the call that must not be interrupted

    @abstractmethod
    def begin(self) -> None:
        """From now on interrupt the calling thread, which runs a task."""

    @abstractmethod
    def end(self) -> None:
        """Undo ``begin``."""

    def at_line(self, frame: FrameType) -> None:
        """The current thread is about to run a line of production code: perhaps switch.

        Raises:
            Killed: the task's server has crashed.
        """
        scheduler = self._scheduler
        if scheduler.undisturbed or (self._quiet and self._is_quiet(frame)):
            return
        if self._random.random() < self._probability and scheduler.current.ident == get_ident():
            if self._random.random() < _DELAYS:
                scheduler.sleep(self._random.expovariate(1.0) * _DELAY)
            else:
                scheduler.switch()

    def hush(self, frame: FrameType) -> None:
        """Do not interrupt the current thread before the call ``frame`` has ended."""
        if not self._is_quiet(frame):
            self._quiet[get_ident()] = frame

    def _is_quiet(self, frame: FrameType) -> bool:
        quiet = self._quiet.get(get_ident())
        if quiet is None:
            return False
        above: FrameType | None = frame
        while above is not None:
            if above is quiet:
                return True
            above = above.f_back
        del self._quiet[get_ident()]
        return False


class _TracedLines(LinePreemption):
    """By ``sys.settrace``: every call of every function costs."""

    def begin(self) -> None:
        sys.settrace(self._on_call)

    def end(self) -> None:
        sys.settrace(None)
        self._quiet.pop(get_ident(), None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code in _QUIET:
            self.hush(frame)
        return self._on_event if is_production(code.co_filename) else None

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.at_line(frame)
        return self._on_event


if sys.version_info >= (3, 12):
    _events = sys.monitoring.events

    class _MonitoredLines(LinePreemption):
        """By ``sys.monitoring``: only pyraft's code costs."""

        def begin(self) -> None:
            _monitor.attach(self)

        def end(self) -> None:
            _monitor.detach()
            self._quiet.pop(get_ident(), None)

    class _Monitor:
        """This process's one subscription, kept while any thread is to be interrupted."""

        _FREE_FOR_ALL = (3, 4)  # tool ids that Python gives no meaning

        def __init__(self) -> None:
            self._lock = Lock()
            self._by_thread: dict[int, LinePreemption] = {}
            self._codes: dict[int, CodeType] = {}  # by identity: copies of a function are equal
            self._tool = -1

        def attach(self, preemption: LinePreemption) -> None:
            """Report the calling thread's lines to ``preemption``.

            Raises:
                ConfigError: other tools watch this process, and there is no place left.
            """
            with self._lock:
                if not self._by_thread:
                    self._subscribe()
                self._by_thread[get_ident()] = preemption

        def detach(self) -> None:
            """No longer report the calling thread's lines."""
            with self._lock:
                known = self._by_thread.pop(get_ident(), None)
                if known is not None and not self._by_thread:
                    self._unsubscribe()

        def _subscribe(self) -> None:
            monitoring = sys.monitoring
            free = [tool for tool in self._FREE_FOR_ALL if monitoring.get_tool(tool) is None]
            if not free:
                raise ConfigError(
                    "preempt_lines needs a tool id of sys.monitoring, and 3 and 4 are taken by "
                    f"{monitoring.get_tool(3)} and {monitoring.get_tool(4)}: run without them"
                )
            self._tool = free[0]
            monitoring.use_tool_id(self._tool, "pyraft line preemption")
            monitoring.register_callback(self._tool, _events.PY_START, self._on_start)
            monitoring.register_callback(self._tool, _events.LINE, self._on_line)
            monitoring.set_events(self._tool, _events.PY_START)
            for code in self._codes.values():
                monitoring.set_local_events(self._tool, code, _events.LINE)

        def _unsubscribe(self) -> None:
            monitoring = sys.monitoring
            monitoring.set_events(self._tool, 0)
            for code in self._codes.values():
                monitoring.set_local_events(self._tool, code, 0)
            monitoring.register_callback(self._tool, _events.PY_START, None)
            monitoring.register_callback(self._tool, _events.LINE, None)
            monitoring.free_tool_id(self._tool)

        def _on_start(self, code: CodeType, offset: int) -> Any:
            if code in _QUIET:
                preemption = self._by_thread.get(get_ident())
                if preemption is not None:
                    preemption.hush(sys._getframe(1))
                return None
            if is_production(code.co_filename):
                self._codes[id(code)] = code
                sys.monitoring.set_local_events(self._tool, code, _events.LINE)
            return sys.monitoring.DISABLE  # one look at each function is enough

        def _on_line(self, code: CodeType, line: int) -> Any:
            preemption = self._by_thread.get(get_ident())
            if preemption is not None:
                preemption.at_line(sys._getframe(1))

    _monitor = _Monitor()


def line_preemption(scheduler: Scheduler, probability: float) -> LinePreemption:
    """What interrupts tasks of ``scheduler`` on this version of Python."""
    if sys.version_info >= (3, 12):
        return _MonitoredLines(scheduler, probability)
    return _TracedLines(scheduler, probability)
