"""Other worlds for a state machine: another clock, another chance, another process.

What a state machine answers must not depend on them.  In this process only the calling thread
sees another clock.  In a process of its own everything differs: clock, time zone, hash seed,
random numbers; that needs a factory which can be found there by its name.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import reduce
from types import ModuleType
from typing import Any

_DAYS = 400.25  # another year, another day, another time of day
_PROCESS_TIMEOUT = 120.0  # seconds
_CHILD = "PYRAFT_CHECK_FSM_CHILD"
_CHILD_PROGRAM = "from pyraft.testing.fsm_worlds import _live_elsewhere; _live_elsewhere()"
_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")


class NotReachable(Exception):
    """The factory cannot be used in another process; the text says why."""


@contextmanager
def other_clock_and_chance(modules: Sequence[ModuleType]) -> Iterator[None]:
    """The calling thread sees ``time`` 400 days ahead, and the rest of ``random``'s numbers.

    ``modules``: where the functions may be known by names of their own (``from time import time``).
    """
    state = random.getstate()
    shifted = {getattr(time, name): _ahead(name, threading.get_ident()) for name in _CLOCKS}
    changed: list[tuple[ModuleType, str, Any]] = []
    try:
        random.seed()
        for module in (time, *modules):
            for name, value in list(vars(module).items()):
                if callable(value) and getattr(value, "__module__", "") == "time" and value in shifted:
                    changed.append((module, name, value))
                    setattr(module, name, shifted[value])
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)
        random.setstate(state)


def _ahead(name: str, thread: int | None) -> Callable[[], float]:
    """The clock ``name`` of the time module, ahead for one thread; for all if that is None."""
    original = getattr(time, name)
    seconds = int(_DAYS * 86400)
    by = seconds * 1_000_000_000 if name.endswith("_ns") else seconds

    def clock() -> float:
        ahead = thread is None or threading.get_ident() == thread
        return original() + by if ahead else original()  # type: ignore[no-any-return]

    return clock


# ── another process ──


def live_elsewhere(
    factory: Callable[[], Any], commands: Sequence[bytes], hash_seed: int
) -> tuple[list[str], bytes]:
    """What ``factory``'s state machine answers in a process of its own, and its snapshot at the end.

    Raises:
        NotReachable: the factory cannot be named or imported there.
        RuntimeError: the process failed otherwise.
    """
    if os.environ.get(_CHILD):
        raise NotReachable("this is such a process already")
    order = {
        "path": [os.path.abspath(entry) for entry in sys.path],
        "factory": _name_of(factory),
        "commands": [command.hex() for command in commands],
    }
    zone = "AAA-14" if hash_seed % 2 else "ZZZ+11"
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "TZ": zone, _CHILD: "1"}
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter, this package)
            [sys.executable, "-c", _CHILD_PROGRAM],
            input=json.dumps(order),
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PROCESS_TIMEOUT,
        )
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"it was not done after {_PROCESS_TIMEOUT:g} s") from late
    if done.returncode != 0:
        raise RuntimeError(f"the process ended with {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    if "unreachable" in answer:
        raise NotReachable(answer["unreachable"])
    return answer["outcomes"], bytes.fromhex(answer["snapshot"])


def _name_of(factory: Any) -> tuple[str, str]:
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        raise NotReachable(f"{factory!r} has no name in a module that can be imported")
    found: Any = sys.modules.get(module)
    with suppress(AttributeError):
        found = reduce(getattr, name.split("."), found)
    if found is not factory:
        raise NotReachable(f"{module}.{name} is not {factory!r}: define it at the top of a module")
    return module, name


def _live_elsewhere() -> None:
    """The life of the other process: an order on standard input, an answer on standard output."""
    from .check_fsm import replay  # which imports this module

    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what user code prints is no answer
    order = json.load(sys.stdin)
    sys.path[:] = order["path"]
    _shift_every_clock()
    module, name = order["factory"]
    answer: dict[str, Any]
    try:
        __import__(module)
        factory: Any = reduce(getattr, name.split("."), sys.modules[module])
    except Exception as error:
        answer = {"unreachable": f"{module}.{name} cannot be imported there: {error!r}"}
    else:
        outcomes, snapshot = replay(factory, [bytes.fromhex(command) for command in order["commands"]])
        answer = {"outcomes": outcomes, "snapshot": snapshot.hex()}
    with answer_to:
        json.dump(answer, answer_to)


def _shift_every_clock() -> None:
    """Before user code is imported, so that it finds nothing else."""
    import datetime

    original = datetime.datetime
    for name in _CLOCKS:
        setattr(time, name, _ahead(name, None))

    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

    class Shifted(original, metaclass=Meta):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return original.now(tz) + timedelta(days=_DAYS)

        @classmethod
        def utcnow(cls) -> Any:
            return original.now(datetime.UTC).replace(tzinfo=None) + timedelta(days=_DAYS)

        today = now

    Shifted.__name__ = Shifted.__qualname__ = "datetime"
    Shifted.__module__ = "datetime"
    datetime.datetime = Shifted  # type: ignore[misc]
