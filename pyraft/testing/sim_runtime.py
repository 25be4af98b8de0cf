"""All threads of all servers, one at a time, under a seed and a virtual clock.

Each simulated thread is a real one that holds a raw lock, its *baton*; exactly one has been
given its baton, so exactly one runs.  Every operation of a ``SimRuntime`` (inboxes, signals,
locks, clock reads), of the simulated store and of the simulated network is a point where the
scheduler may give the baton to another runnable task, as its policy says.  When no task can
run, the virtual clock jumps to the next timer.  So one seed is one schedule.

The thread that made the ``Scheduler`` is its *driver*: a test.  While it runs, all else stands
still; when it waits (``Scheduler.sleep``, a future's result), the simulation goes on.
"""

from __future__ import annotations

import ctypes
import heapq
import logging
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from math import inf
from random import Random
from threading import Lock, Thread, get_ident
from types import TracebackType
from typing import Any

from ..runtime import Inbox, Runtime, Signal, Task
from .line_preemption import line_preemption
from .misuse import bound_early, set_up_guards, simulated, take_down_guards, unwatch_thread, watch_thread
from .sim_policies import Policy, RandomPolicy

_STEP = 1e-6
"""Virtual seconds that a step takes, so that a loop that never waits does not stop the clock."""

_EPSILON = 1e-9
"""Clocks that drift round; a timer must not fire before its owner's clock shows the instant."""

_EPOCH_NS = 1_800_000_000 * 10**9
_MASK = (1 << 64) - 1


class Killed(BaseException):
    """Raised in every task of a crashed server where it would have gone on."""


class SimulationError(Exception):
    """The simulation cannot go on: a deadlock, a thread that died, or a misuse."""


class ServerDownError(SimulationError):
    """Something of a crashed server was used from outside; take the restarted one's."""


class Group:
    """Tasks that live and die together: one incarnation of one server, or the world outside.

    Attributes:
        watch: called at every switch point of its tasks, before anybody else runs.
    """

    __slots__ = ("dead", "name", "watch")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.watch: Callable[[], None] | None = None

    def check_alive(self) -> None:
        """Raise ServerDownError if it was killed."""
        if self.dead:
            raise ServerDownError(
                f"{self.name} has crashed: nothing of that incarnation can be used any more"
            )

    def __repr__(self) -> str:
        return f"<Group {self.name}{' (dead)' if self.dead else ''}>"


class _Worker:
    """A pooled thread that runs one task after the other."""

    def __init__(self) -> None:
        self.baton = Lock()
        self.baton.acquire()
        self.task: SimTask | None = None
        self.thread = Thread(target=self._main, name="pyraft-sim-worker", daemon=True)
        self.thread.start()

    def _main(self) -> None:
        _pin_this_thread()
        while True:
            self.baton.acquire()
            # Before it runs: its last act hands this thread to the next task.
            task, self.task = self.task, None
            assert task is not None
            task.ident = get_ident()
            task.execute()
            if task.given_up:
                return  # another exception may be on its way to this thread
            del task  # or it, and all it refers to, would live until the next one

    @staticmethod
    def idle() -> _Worker:
        return _idle_workers.pop() if _idle_workers else _Worker()


_idle_workers: list[_Worker] = []
_cpu: int | None = None


def _pin_this_thread() -> None:
    """Threads that hand a baton around are three to fourteen times faster on one CPU."""
    global _cpu
    if not hasattr(os, "sched_setaffinity"):
        return
    if _cpu is None:
        cpus = sorted(os.sched_getaffinity(0))
        _cpu = cpus[os.getpid() % len(cpus)]
    try:
        os.sched_setaffinity(0, {_cpu})
    except OSError:
        pass  # a container may forbid it; it is only slower


class SimTask(Task):
    """A simulated thread.

    Attributes:
        number: in order of creation; names it in the digest.
        group: what it dies with.
        is_ours: a thread of pyraft's own, which must not wait for pyraft.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        number: int,
        name: str,
        group: Group,
        run: Callable[[], None],
        is_ours: bool,
    ) -> None:
        self.number = number
        self.name = name
        self.group = group
        self.is_ours = is_ours
        self.ident = 0
        self.baton: Any = None
        self.turns = 0  # how often it was chosen when another had run
        self.slot = -1  # its place among the runnable tasks, or -1
        self.holds = 0  # how many rules keep it from running
        self.wants_to_run = False  # it would be runnable but for the holds
        self.serial = 0  # of its waits: a timer of an earlier wait is stale
        self.timed_out = False
        self.parked = False
        self.killed = False
        self.ended = False
        self.given_up = False  # it blocks, or loops, where the scheduler cannot see it
        self.waits_for: SimLock | None = None
        self.waits_in: Group | None = None  # whose thing it waits for
        self._scheduler = scheduler
        self._run: Callable[[], None] | None = run
        self._worker: _Worker | None = None
        self._joiners: list[SimTask] = []

    def prepare(self) -> None:
        """Take a thread; it waits for its baton."""
        self._worker = _Worker.idle()
        self._worker.task = self
        self.baton = self._worker.baton

    def execute(self) -> None:
        """The task's life, on its thread."""
        scheduler = self._scheduler
        run, self._run = self._run, None
        assert run is not None
        lines = scheduler.lines
        watch_thread(self)
        try:
            if not self.killed:
                if lines is not None:
                    lines.begin()
                run()
        except Killed:
            pass
        except BaseException as error:
            scheduler.fail(_died_of(self, error))
        finally:
            if lines is not None:
                lines.end()
            unwatch_thread()
        scheduler.task_ended(self)

    def refuse(self, why: str) -> None:
        """It did what cannot be simulated.

        Raises:
            SimulationError: always, unless its server has crashed; the driver raises it, too.
        """
        if not self.killed:
            error = SimulationError(why)
            self._scheduler.fail(error)
            raise error

    def retire(self) -> None:
        """Give the thread back; wake whoever waits for the end."""
        self.ended = True
        self.parked = False  # it was killed in a wait whose timer still runs
        assert self._worker is not None
        _idle_workers.append(self._worker)
        for joiner in self._joiners:
            self._scheduler.wake(joiner)

    def join(self, timeout: float | None = None) -> bool:
        scheduler = self._scheduler
        scheduler.switch()
        if self.ended or (timeout is not None and timeout <= 0):
            return self.ended
        deadline = None if timeout is None else scheduler.time + timeout
        me = scheduler.current
        while not self.ended:
            self._joiners.append(me)
            if not scheduler.park(deadline):
                self._joiners.remove(me)
                break
        return self.ended

    def stack(self) -> str:
        frame = None if self.ended else sys._current_frames().get(self.ident)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    def __repr__(self) -> str:
        return f"<SimTask {self.number} {self.name}>"


def _of_the_living(record: logging.LogRecord) -> bool:
    task = simulated()
    return task is None or not task.killed


logging.getLogger("pyraft").addFilter(_of_the_living)  # a process that crashed reports nothing


def _died_of(task: SimTask, error: BaseException) -> BaseException:
    if isinstance(error, SimulationError):
        return error
    failure = SimulationError(f"the thread {task.name} died of {error!r}")
    failure.__cause__ = error
    return failure


class Scheduler:
    """Runs tasks one at a time.

    Attributes:
        time: the true virtual time in seconds; servers see it through their own clocks.
        steps: how many scheduling decisions were taken.
        digest: of everything that was decided; equal runs have equal digests.
        current: the task that runs.
        failure: the first thing that went wrong; the driver raises it.
        undisturbed: True while the simulation's own code uses production code, which then is not
            interrupted between its lines.
        events: the latest things that happened, for people who read a failure.
        patience: real seconds after which a task that takes no step is given up.
    """

    def __init__(
        self, seed: int, policy: Policy | None = None, preempt_lines: float = 0.0, keep_events: int = 2000
    ) -> None:
        """Make the calling thread the driver.

        Args:
            preempt_lines: the probability of a switch at any line of pyraft's code: slow, and
                finds races on plain attributes.
        """
        self.seed = seed
        self.time = 0.0
        self.steps = 0
        self.digest = seed & _MASK
        self.failure: BaseException | None = None
        self.undisturbed = False
        self.patience = 20.0
        self.events: deque[tuple[Any, ...]] = deque(maxlen=keep_events)
        self.world = Group("world")
        self.policy = RandomPolicy() if policy is None else policy
        self.policy.seed(self.random("schedule"))
        self.lines = line_preemption(self, preempt_lines) if preempt_lines > 0 else None
        self._streams: dict[str, int] = {}
        self._runnable: list[SimTask] = []
        self._tasks: dict[int, SimTask] = {}
        self._spawned = 0
        self._timers: list[tuple[float, int, Any, int]] = []
        self._timer_number = 0
        self._rules: dict[object, Callable[[SimTask], bool]] = {}
        self._watches: list[tuple[SimTask, Callable[[], object]]] = []
        self._driver_ready = False
        self._stuck: dict[int, SimTask] = {}  # by thread: tasks that were given up
        self._guarded_modules: list[str] = []
        self._bound_early: list[Any] = []
        self._killer: SimTask | None = None
        self._driver = SimTask(self, 0, "driver", self.world, lambda: None, False)
        self._driver.ident = get_ident()
        self._driver.baton = Lock()
        self._driver.baton.acquire()
        self.current: SimTask = self._driver

    # -- for whoever builds on it --------------------------------------------------------------

    def random(self, stream: str) -> Random:
        """Numbers for one purpose: taking a stream away does not change the others."""
        return Random(f"{self.seed}/{stream}")

    def fresh_random(self, stream: str) -> Random:
        """As ``random``, but a later one of the same name goes on differently."""
        count = self._streams[stream] = self._streams.get(stream, 0) + 1
        return self.random(f"{stream}/{count}")

    def spawn(
        self, name: str, run: Callable[[], None], group: Group | None = None, is_ours: bool = False
    ) -> SimTask:
        """A new task, runnable at once; the caller goes on."""
        self._spawned += 1
        task = SimTask(self, self._spawned, name, group or self.world, run, is_ours)
        task.holds = sum(1 for matches in self._rules.values() if matches(task))
        task.prepare()
        self._tasks[task.number] = task
        self._make_runnable(task)
        return task

    def call_at(self, instant: float, action: Callable[[], None]) -> None:
        """Call ``action`` once ``instant`` has come, between two steps: it must not wait."""
        self._timer_number += 1
        heapq.heappush(self._timers, (instant, self._timer_number, action, -1))

    def sleep(self, seconds: float) -> None:
        """Let the current task, or the driver, wait.

        Raises:
            BaseException: on the driver, whatever went wrong meanwhile.
        """
        self.park(self.time + max(seconds, 0.0))

    def wait_until(self, condition: Callable[[], object], until: float | None = None) -> bool:
        """Let the current task wait until ``condition()`` is true; False if ``until`` came first.

        It is looked at whenever a task has waited or ended, between two steps, so it must not wait
        itself; a time in which nothing happens costs nothing.
        """
        watch = self.current, condition
        self._watches.append(watch)
        try:
            while True:
                in_time = self.park(until)
                if condition():  # it may have changed again before this task's turn came
                    return True
                if not in_time:
                    return False
        finally:
            self._watches.remove(watch)

    def tasks(self, group: Group | None = None) -> list[SimTask]:
        """The tasks that have not ended, oldest first."""
        return [task for task in self._tasks.values() if group is None or task.group is group]

    def hold(self, rule: object, matches: Callable[[SimTask], bool]) -> None:
        """Keep the tasks that match from running, those that come later too, until ``unhold(rule)``."""
        self.unhold(rule)
        self._rules[rule] = matches
        for task in self._tasks.values():
            if matches(task):
                task.holds += 1
                if task.slot >= 0 and task is not self.current:
                    self._remove_runnable(task)
                    task.wants_to_run = True

    def unhold(self, rule: object) -> None:
        """Undo ``hold``; nothing if there is no such rule."""
        matches = self._rules.pop(rule, None)
        if matches is None:
            return
        self.held_until = self.time
        for task in self._tasks.values():
            if matches(task):
                task.holds -= 1
                if not task.holds and task.wants_to_run:
                    self._make_runnable(task)

    callers: Callable[[], float | None] | None = None
    """How many seconds users' threads that were just answered are on their way: infinite, they never come;
    None, as without this, nobody is."""

    held_until = 0.0
    """When tasks that were kept from running were last let go, in virtual time."""

    @property
    def is_holding(self) -> bool:
        """Whether any tasks are kept from running."""
        return bool(self._rules)

    def kill(self, group: Group) -> None:
        """End every task of ``group`` where it stands; what it does on its way out has no effect."""
        group.dead = True
        for task in self.tasks(group):
            task.killed = True
        for task in self.tasks(group):
            if task is not self.current:
                self._unwind(task)
        for task in [self._driver, *self.tasks()]:
            if task.waits_in is group:
                self.wake(task)

    def fail(self, error: BaseException) -> None:
        """Stop the simulation; the driver raises ``error``.  Only the first one counts."""
        if self.failure is None:
            self.failure = error
            self.note("failure", repr(error))
            self._driver_ready = True

    def guard_modules(self, names: Iterable[str]) -> None:
        """Guard what these modules took from others by ``from ... import``, too (see misuse.py)."""
        new = [name for name in names if name not in self._guarded_modules]
        self._guarded_modules += new
        self._bound_early = [*self._bound_early, *bound_early(new)]

    def note(self, *event: Any) -> None:
        """Keep what happened for the report of a failure."""
        self.events.append((self.time, self.current.name, *event))

    def mix(self, number: int) -> None:
        """Let ``number`` count in the digest."""
        self.digest = ((self.digest ^ number) * 0x100000001B3) & _MASK

    def stacks(self) -> str:
        """Where every task stands."""
        parts = []
        for task in self._tasks.values():
            condition = "runnable" if task.slot >= 0 else "held back" if task.wants_to_run else "waiting"
            parts.append(f"--- {task.name} ({condition})\n{task.stack()}")
        return "\n".join(parts)

    # -- switching -------------------------------------------------------------------------------

    def switch(self) -> None:
        """A point where the current task may be switched out.  On the driver: nothing.

        Raises:
            Killed: its server has crashed.
        """
        me = self.current
        if me is self._driver:
            # While all else stands still, a store may be used by other real threads as well.
            if self._stuck and get_ident() in self._stuck:
                raise Killed
            return
        if get_ident() != me.ident:
            self._turn_away()
        if me.killed:
            raise Killed
        self.steps += 1
        self.time += _STEP
        watch = me.group.watch
        if watch is not None:
            watch()
        timers = self._timers
        if timers and timers[0][0] <= self.time:
            self._fire_due()
        if self._driver_ready:
            self._hand_over(me, self._driver)
            return
        runnable = self._runnable
        if len(runnable) > 1:
            chosen = self.policy.choose(runnable, me)
            self.digest = ((self.digest ^ chosen.number) * 0x100000001B3) & _MASK
            if chosen is not me:
                self._hand_over(me, chosen)

    def park(self, until: float | None = None, group: Group | None = None) -> bool:
        """Wait until ``wake`` (True) or ``until``, an instant of ``time`` (False).

        The death of ``group``, if it is given, wakes as well.
        """
        me = self.current
        if get_ident() != me.ident:
            self._turn_away()
        if me.killed:
            raise Killed
        if me is not self._driver:
            self.steps += 1
            self.time += _STEP
            if me.group.watch is not None:
                me.group.watch()
            self._remove_runnable(me)
        me.waits_in = group
        me.serial += 1
        me.timed_out = False
        me.parked = True
        if until is not None:
            self._timer_number += 1
            heapq.heappush(self._timers, (until, self._timer_number, me, me.serial))
        if me is self._driver and self.failure is not None:
            self._driver_ready = True
        to = self._next()
        if me is self._driver:
            if to is not me:
                self._let_run(to)
        elif to is not me:
            self._hand_over(me, to)
        me.parked = False
        me.waits_in = None
        if me is self._driver:
            self._driver_ready = False
            if self.failure is not None:
                raise self.failure
        return not me.timed_out

    def wake(self, task: SimTask) -> None:
        """Make a task that waits runnable; nothing if it does not wait."""
        if task.parked and not task.killed:
            task.parked = False
            task.serial += 1
            self._make_runnable(task)

    def task_ended(self, task: SimTask) -> None:
        """The last act of a task: give the baton away."""
        if task.given_up:
            self._stuck.pop(task.ident, None)
            return  # its baton was taken away long ago
        if task.slot >= 0:
            self._remove_runnable(task)
        del self._tasks[task.number]
        task.retire()
        killer, self._killer = self._killer, None
        self.current = killer if killer is not None else self._next()
        self.current.baton.release()

    def _hand_over(self, me: SimTask, to: SimTask) -> None:
        self.current = to
        to.turns += 1
        to.baton.release()
        me.baton.acquire()
        if me.killed:
            raise Killed

    def _let_run(self, to: SimTask) -> None:
        """Hand over to a task, and wait for the driver's turn."""
        early = self._bound_early  # tasks may make it longer
        set_up_guards(early)
        try:
            self.current = to
            to.turns += 1
            to.baton.release()
            self._wait_on_driver()
        finally:
            take_down_guards(early)

    def _wait_on_driver(self) -> None:
        """Wait for the driver's turn; give up a task that does not take a step for ``patience``."""
        steps, idle = self.steps, 0.0
        poll, interrupted = min(self.patience, 1.0), False
        while True:
            try:
                if self._driver.baton.acquire(timeout=poll):
                    return
                if interrupted and self.current is self._driver:
                    # Interrupted when it had the baton already, or the baton is on its way.
                    self._driver.baton.acquire(timeout=poll)
                    return
            except BaseException as error:  # Ctrl-C, or a test's timeout: let the task reach its next step
                self.fail(error)
                poll, interrupted = 0.05, True
                continue
            if self.steps != steps:
                steps, idle = self.steps, 0.0
                continue
            idle += poll  # in short turns, lest a process that was stopped for long looks stuck
            if idle >= self.patience:
                self._give_up(self.current)
                return

    def _give_up(self, task: SimTask) -> None:
        """Take the baton from a task that blocks, or loops, where the scheduler cannot see it."""
        self.fail(
            SimulationError(
                f"blocked outside the simulation's control: {task.name} has not taken a step for "
                f"{self.patience:g} real seconds; it waits for something that is not the Runtime's, or loops "
                f"without end, at\n{task.stack()}\nAll threads:\n{self.stacks()}"
            )
        )
        self._stuck[task.ident] = task
        task.killed = task.ended = task.given_up = True
        task._joiners.clear()
        if task.slot >= 0:
            self._remove_runnable(task)
        self._tasks.pop(task.number, None)
        _raise_in_thread(task.ident, Killed)
        self.current = self._driver

    def _turn_away(self) -> None:
        if get_ident() in self._stuck:
            raise Killed
        raise SimulationError(
            "a thread that the simulation does not know used it: inside a simulation threads come from the "
            "Runtime, never from threading; and the thread that made a simulation drives it"
        )

    def _next(self) -> SimTask:
        """Whose turn it is; lets time pass until somebody can run."""
        if self._watches:
            self._look()
        while True:
            timers = self._timers
            if timers and timers[0][0] <= self.time:
                self._fire_due()
            if self._driver_ready:
                return self._driver
            runnable = self._runnable
            if runnable:
                chosen = self.policy.choose(runnable, None) if len(runnable) > 1 else runnable[0]
                self.digest = ((self.digest ^ chosen.number) * 0x100000001B3) & _MASK
                return chosen
            if not timers:
                self.fail(
                    SimulationError(f"deadlock: nothing can run and nothing will happen\n{self.stacks()}")
                )
                return self._driver
            self.time = timers[0][0]
            self.mix(hash(self.time))

    def _look(self) -> None:
        """Wake the tasks for whose sake ``wait_until`` waits for something that is true now."""
        before, self.undisturbed = self.undisturbed, True
        for task, condition in self._watches:
            try:
                if task.parked and condition():
                    self.wake(task)
            except Exception as error:
                self.fail(error)
        self.undisturbed = before

    def _fire_due(self) -> None:
        timers, now = self._timers, self.time
        before, self.undisturbed = self.undisturbed, True
        while timers and timers[0][0] <= now:
            _, _, what, serial = heapq.heappop(timers)
            if serial < 0:
                try:
                    what()
                except Exception as error:
                    self.fail(error)
            elif what.serial == serial and what.parked:
                what.timed_out = True
                what.parked = False
                self._make_runnable(what)
        self.undisturbed = before

    def _make_runnable(self, task: SimTask) -> None:
        if task is self._driver:
            self._driver_ready = True
        elif task.holds:
            task.wants_to_run = True
        elif task.slot < 0:
            task.wants_to_run = False
            task.slot = len(self._runnable)
            self._runnable.append(task)

    def _remove_runnable(self, task: SimTask) -> None:
        runnable = self._runnable
        last = runnable.pop()
        if last is not task:
            runnable[task.slot] = last
            last.slot = task.slot
        task.slot = -1

    def _unwind(self, task: SimTask) -> None:
        me = self.current
        before, self._killer = self._killer, me
        self.current = task
        task.baton.release()
        if me is self._driver:
            self._wait_on_driver()
        else:
            me.baton.acquire()
        self._killer = before
        if task.number in self._tasks:
            raise SimulationError(f"{task.name} went on after its server had crashed\n{task.stack()}")


class SimClock:
    """One server's clocks, which need not agree with the truth.

    The monotonic one starts anywhere and runs a little too fast or too slow; the wall clock
    jumps as well.

    Attributes:
        held_after_read: draws how many seconds a thread that has read this clock is held before
            it can use what it read; None = none.
        held_until: the instant at which the last of them goes on.
    """

    def __init__(self, scheduler: Scheduler, offset: float = 0.0, rate: float = 1.0) -> None:
        self._scheduler = scheduler
        self._base_true = scheduler.time
        self._base_local = offset
        self.rate = rate
        self.wall_offset = 0.0
        self.held_after_read: Callable[[], float] | None = None
        self.held_until = 0.0

    def read(self) -> float:
        """What it shows now."""
        return self._base_local + (self._scheduler.time - self._base_true) * self.rate

    def true_instant(self, local: float) -> float:
        """When it will show ``local``."""
        return self._base_true + (local - self._base_local) / self.rate + _EPSILON

    def drift(self, rate: float) -> None:
        """Run at another speed from now on."""
        self._base_local, self._base_true = self.read(), self._scheduler.time
        self.rate = rate

    def leap(self, seconds: float) -> None:
        """Skip ``seconds`` (above 0), as a virtual machine does that was moved."""
        self._base_local += max(seconds, 0.0)


class SimRuntime(Runtime):
    """The world as one incarnation of one server sees it; all of them share one scheduler."""

    def __init__(
        self, scheduler: Scheduler, group: Group | None = None, clock: SimClock | None = None
    ) -> None:
        self.scheduler = scheduler
        self.group = scheduler.world if group is None else group
        self.clock = SimClock(scheduler) if clock is None else clock

    def now(self) -> float:
        self.scheduler.switch()  # before: what is read is what the thread acts on, perhaps later
        local = self.clock.read()
        self._be_held()
        return local

    def measured(self) -> float:
        return self.clock.read()  # nobody acts on it, so no other thread need come in between

    def wall_time_ns(self) -> int:
        self.scheduler.switch()
        wall = _EPOCH_NS + int((self.clock.read() + self.clock.wall_offset) * 1e9)
        self._be_held()
        return wall

    def _be_held(self) -> None:
        """Let time pass between the reading of a clock and its use."""
        scheduler = self.scheduler
        draw = self.clock.held_after_read
        seconds = draw() if draw is not None and not scheduler.undisturbed else 0.0
        if seconds > 0:
            self.clock.held_until = max(self.clock.held_until, scheduler.time + seconds)
            scheduler.sleep(seconds)
        else:
            scheduler.switch()

    def random(self, stream: str) -> Random:
        return self.scheduler.fresh_random(stream)

    def spawn(self, name: str, run: Callable[[], None]) -> Task:
        self.enter()
        task = self.scheduler.spawn(name, run, self.group, is_ours=True)
        self.scheduler.switch()
        return task

    def inbox(self, name: str) -> Inbox:
        return SimInbox(self)

    def signal(self) -> Signal:
        self.scheduler.switch()  # who makes one has looked, and is about to wait
        return SimSignal(self)

    def after_callers(self, call: Callable[[], None]) -> bool:
        scheduler = self.scheduler
        draw = scheduler.callers
        if draw is None or scheduler.undisturbed:
            return False
        self.enter()  # the fault may relent meanwhile
        seconds = draw()
        if seconds is None:
            return False
        scheduler.note("callers on their way", self.group.name, seconds)
        if seconds < inf:
            scheduler.spawn(f"user-{self.group.name}-back", partial(self._come, seconds, call), self.group)
        scheduler.switch()
        return True

    def _come(self, seconds: float, call: Callable[[], None]) -> None:
        self.scheduler.sleep(seconds)
        call()

    def lock(self) -> AbstractContextManager[Any]:
        return SimLock(self)

    def must_not_wait(self) -> str | None:
        task = self.scheduler.current
        return f"this is pyraft's own thread {task.name}" if task.is_ours else None

    def on_own_thread(self) -> bool:
        return self.scheduler.current.is_ours

    def sleep(self, seconds: float) -> None:
        """Let the current task wait, by this server's clock."""
        self.enter()
        self.scheduler.sleep(seconds / self.clock.rate)

    def enter(self) -> None:
        """The switch point in front of an operation on something of this server's.

        Raises:
            Killed: the current task's server has crashed.
            ServerDownError: this server has crashed, and somebody outside uses what it left.
        """
        self.scheduler.switch()
        if self.group.dead:
            self.group.check_alive()


class SimSignal(Signal):
    """A signal whose waiter is parked."""

    __slots__ = ("_happened", "_runtime", "_waiter")

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self._happened = False
        self._waiter: SimTask | None = None

    def set(self) -> None:
        self._runtime.scheduler.switch()
        self.happen()
        self._runtime.scheduler.switch()

    def happen(self) -> None:
        """As ``set``, without switch points: for what happens between two steps."""
        if not self._happened:
            self._happened = True
            if self._waiter is not None:
                self._runtime.scheduler.wake(self._waiter)

    def wait(self, timeout: float | None = None) -> bool:
        runtime = self._runtime
        runtime.enter()
        scheduler = runtime.scheduler
        until = None
        if timeout is not None:
            until = scheduler.time + max(timeout, 0.0) / runtime.clock.rate
        while not self._happened:
            self._waiter = scheduler.current
            woken = scheduler.park(until, runtime.group)
            self._waiter = None  # or a late set() would wake it from another wait
            if not woken:
                break
            if runtime.group.dead:
                runtime.group.check_alive()
        return self._happened


class SimInbox(Inbox):
    """An inbox whose owner is parked; the rules of ``Inbox.take`` are those of ``ThreadInbox``."""

    __slots__ = ("_dispose", "_overdue", "_overdue_left", "_queue", "_runtime", "_waiter")

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self._queue: deque[Any] = deque()
        self._dispose: Callable[[Any], None] | None = None
        self._waiter: SimTask | None = None
        self._overdue: float | None = None
        self._overdue_left = 0

    def put(self, event: Any) -> None:
        runtime = self._runtime
        runtime.enter()
        self._queue.append(event)
        if self._waiter is not None:
            runtime.scheduler.wake(self._waiter)
        runtime.scheduler.switch()
        if self._dispose is not None:
            self._drain(self._dispose)

    def take(self, deadline: float | None = None) -> Any:
        runtime, queue = self._runtime, self._queue
        runtime.enter()
        if deadline is None:
            while not queue:
                self._wait(None)
            return queue.popleft()
        if self._overdue != deadline:
            if runtime.clock.read() < deadline and (queue or self._wait(deadline)):
                return queue.popleft()
            self._overdue, self._overdue_left = deadline, len(queue)
        if self._overdue_left > 0:
            self._overdue_left -= 1
            if queue:
                return queue.popleft()
            self._overdue_left = 0  # closed meanwhile by another thread
        self._overdue = None
        return None

    def close(self, dispose: Callable[[Any], None]) -> None:
        self._runtime.enter()
        self._dispose = dispose
        self._runtime.scheduler.switch()
        self._drain(dispose)

    def _wait(self, deadline: float | None) -> bool:
        """Wait for an event until ``deadline`` by the owner's clock; return whether one came in time."""
        runtime, scheduler = self._runtime, self._runtime.scheduler
        until = None
        while not self._queue:
            if deadline is not None:
                until = runtime.clock.true_instant(deadline)
            self._waiter = scheduler.current
            woken = scheduler.park(until)
            self._waiter = None
            if not woken:
                return False
        return True

    def _drain(self, dispose: Callable[[Any], None]) -> None:
        while self._queue:
            dispose(self._queue.popleft())


class SimLock(AbstractContextManager[Any]):
    """A lock that parks whoever finds it taken, and notices a deadlock at once."""

    __slots__ = ("_owner", "_runtime", "_waiting")

    def __init__(self, runtime: SimRuntime) -> None:
        self._runtime = runtime
        self._owner: SimTask | None = None
        self._waiting: deque[SimTask] = deque()

    def __enter__(self) -> SimLock:
        runtime, scheduler = self._runtime, self._runtime.scheduler
        runtime.enter()
        me = scheduler.current
        while self._owner is not None:
            me.waits_for = self
            self._refuse_deadlock(me)
            self._waiting.append(me)
            scheduler.park(None, runtime.group)
            me.waits_for = None
            if runtime.group.dead:
                runtime.group.check_alive()
        self._owner = me
        scheduler.switch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scheduler = self._runtime.scheduler
        if scheduler.current.killed:
            raise Killed
        self._owner = None
        if self._waiting:
            scheduler.wake(self._waiting.popleft())
        scheduler.switch()

    def _refuse_deadlock(self, me: SimTask) -> None:
        holder = self._owner
        while holder is not None:
            if holder is me:
                error = SimulationError(f"deadlock on locks\n{self._runtime.scheduler.stacks()}")
                self._runtime.scheduler.fail(error)
                raise error
            holder = holder.waits_for._owner if holder.waits_for is not None else None


def _raise_in_thread(ident: int, error: type[BaseException]) -> None:
    """Raise ``error`` in a thread at its next instruction of Python, unless it never comes there."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


@contextmanager
def one_cpu() -> Iterator[None]:
    """Keep the calling thread on the CPU that all simulated threads run on."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    _pin_this_thread()
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
