"""Refuses real time, real threads and real chance inside a simulation.

They would make a run differ from the next one of the same seed, or block where the scheduler
cannot see it.  While simulated tasks run, guards stand in front of the functions below; the rest
of the process goes through them unhindered, and so do ``logging``, imports, the simulator itself
and the standard library on its own account.

What is guarded is an attribute of a module or class.  A name bound earlier (``from time import
time``) is guarded as well in the module of a state machine given to ``SimCluster``, but not in
the modules that this one imports; and nobody sees ``datetime.now()``, a lock made outside that is
acquired inside, or a call out of an extension module.  What blocks is found by the scheduler's
watch; a state machine that is not deterministic, by the judge that compares the servers' states.
"""

from __future__ import annotations

import _thread
import os
import queue
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from threading import get_ident
from types import FrameType
from typing import Any, Protocol


class Simulated(Protocol):
    """What runs on a simulated thread."""

    killed: bool

    def refuse(self, why: str) -> None:
        """Raise what says ``why``, unless it does not matter any more."""


_TIME = (
    "real time differs from run to run: a state machine takes the time from the command or from "
    "log.appended_at, everything else from Runtime.now() of the Runtime it was given"
)
_WAITING = (
    "it blocks the whole simulation: wait by the Runtime (signal, inbox); to be slow, use the faults "
    "SlowFsm and SlowDisk"
)
_THREADS = (
    "the scheduler cannot see it: threads, locks and queues come from the Runtime (spawn, lock, signal, "
    "inbox), and a state machine, which one thread calls, needs none"
)
_CHANCE = (
    "it differs from run to run: a state machine takes random numbers from the command, or from a "
    "random.Random whose seed comes from there; everything else from Runtime.random()"
)

_HELPERS = (
    "threading",
    "queue",
    "random",
    "uuid",
    "secrets",
    "concurrent",
    "asyncio",
    "multiprocessing",
    "sched",
)
"""Modules of the standard library that do it for whoever called them."""

_simulated: dict[int, Simulated] = {}


def watch_thread(task: Simulated) -> None:
    """The current thread runs ``task`` from now on."""
    _simulated[get_ident()] = task


def unwatch_thread() -> None:
    """The current thread is a real one again."""
    _simulated.pop(get_ident(), None)


def simulated() -> Simulated | None:
    """What the current thread runs; None on a real one."""
    return _simulated.get(get_ident())


def _without_argument(arguments: tuple[Any, ...]) -> bool:
    return not arguments or arguments[0] is None


def _without_seed(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) < 2 or arguments[1] is None  # the first is self


def _guard(name: str, original: Any, why: str, when: Callable[[tuple[Any, ...]], bool] | None) -> Any:
    if isinstance(original, type):
        return _GuardedType(name, original, why)

    @wraps(original)
    def guard(*args: Any, **kwargs: Any) -> Any:
        task = _simulated.get(get_ident())
        if task is not None and (when is None or when(args)):
            _judge(name, why, task, sys._getframe(1))
        return original(*args, **kwargs)

    return guard


class _GuardedType:
    """Stands for a type that others may use meanwhile as what it is."""

    def __init__(self, name: str, original: type, why: str) -> None:
        self._name, self._original, self._why = name, original, why

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        task = _simulated.get(get_ident())
        if task is not None:
            _judge(self._name, self._why, task, sys._getframe(1))
        return self._original(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._original)

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._original)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._original,)

    def __or__(self, other: Any) -> Any:
        return self._original | other

    def __ror__(self, other: Any) -> Any:
        return other | self._original


def _judge(name: str, why: str, task: Simulated, caller: FrameType | None) -> None:
    while caller is not None and _module_of(caller).partition(".")[0] in _HELPERS:
        caller = caller.f_back
    if caller is None or _is_innocent(caller):
        return
    code = caller.f_code
    place = f"{code.co_filename}:{caller.f_lineno} in {code.co_name}"
    task.refuse(f"{name}() was called inside a simulation, at {place}: {why}")


def _is_innocent(caller: FrameType) -> bool:
    module = _module_of(caller)
    if module.startswith("pyraft.testing.") or module.partition(".")[0] in sys.stdlib_module_names:
        return True
    above: FrameType | None = caller
    while above is not None:
        root = _module_of(above).partition(".")[0]
        if root == "logging" or above.f_code.co_filename.startswith("<frozen importlib"):
            return True
        above = above.f_back
    return False


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _named(owner: Any, names: Iterable[str], why: str, when: Any = None) -> Iterator[_Patch]:
    prefix = owner.__name__ if not isinstance(owner, type) else f"{owner.__module__}.{owner.__name__}"
    for name in names:
        if hasattr(owner, name):
            original = getattr(owner, name)
            yield owner, name, original, _guard(f"{prefix}.{name}".replace("._", "."), original, why, when)


_Patch = tuple[Any, str, Any, Any]
"""Owner, name, what is there, and the guard that takes its place."""

_OF_THE_SHARED_GENERATOR = [
    name
    for name in random.__all__
    if isinstance(getattr(getattr(random, name), "__self__", None), random.Random)
]
_PATCHES: list[_Patch] = [
    *_named(time, ["time", "time_ns", "monotonic", "monotonic_ns"], _TIME),
    *_named(time, ["localtime", "gmtime", "ctime"], _TIME, _without_argument),
    *_named(time, ["sleep"], _WAITING),
    *_named(_thread, ["start_new_thread", "allocate_lock"], _THREADS),
    *_named(threading, ["Lock", "RLock"], _THREADS),
    *_named(threading.Thread, ["start", "join"], _THREADS),
    *_named(threading.Condition, ["wait"], _WAITING),
    *_named(threading.Event, ["wait"], _WAITING),
    *_named(queue, ["SimpleQueue"], _THREADS),
    *_named(queue.Queue, ["get", "put"], _THREADS),
    *_named(random, [*_OF_THE_SHARED_GENERATOR, "_urandom"], _CHANCE),
    *_named(random.Random, ["seed"], _CHANCE, _without_seed),
    *_named(os, ["urandom", "getrandom"], _CHANCE),
    *_named(uuid, ["uuid1", "uuid4"], _CHANCE),
]
_GUARD_OF = {id(original): guard for owner, _, original, guard in _PATCHES if not isinstance(owner, type)}

_lock = _thread.allocate_lock()
_simulations = 0


def bound_early(modules: Iterable[str]) -> list[_Patch]:
    """The names in ``modules`` that ``from ... import`` bound to something guarded."""
    return [
        (module, name, value, _GUARD_OF[id(value)])
        for module in map(sys.modules.get, modules)
        if module is not None and not _is_of_python(module.__name__)
        for name, value in list(vars(module).items())
        if id(value) in _GUARD_OF
    ]


def _is_of_python(module: str) -> bool:
    return module.startswith("pyraft.") or module.partition(".")[0] in sys.stdlib_module_names


def set_up_guards(early: Iterable[_Patch]) -> None:
    """Simulated threads begin to run; every call needs one of ``take_down_guards``."""
    global _simulations
    with _lock:
        _simulations += 1
        if _simulations == 1:
            _put_guards(_PATCHES)
        _put_guards(early)


def take_down_guards(early: Iterable[_Patch]) -> None:
    """Undo one ``set_up_guards``."""
    global _simulations
    with _lock:
        _simulations -= 1
        if not _simulations:
            _take_guards(_PATCHES)
        _take_guards(early)


def _put_guards(patches: Iterable[_Patch]) -> None:
    for owner, name, original, guard in patches:
        if getattr(owner, name, None) is original:  # or somebody put a stand-in of his own there
            setattr(owner, name, guard)


def _take_guards(patches: Iterable[_Patch]) -> None:
    for owner, name, original, guard in patches:
        if getattr(owner, name, None) is guard:
            setattr(owner, name, original)
