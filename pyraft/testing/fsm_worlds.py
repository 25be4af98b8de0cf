"""Other worlds for a state machine: another clock, another chance, another process.

What a state machine answers must not depend on them.  In this process only the calling thread
sees another clock.  In a process of its own everything differs: clock, time zone, hash seed,
random numbers; that needs a factory which can be found there by its name.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import Any

from .processes import call_elsewhere

_DAYS = 400.25  # another year, another day, another time of day
_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")


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
    environment = {"PYTHONHASHSEED": str(hash_seed), "TZ": "AAA-14" if hash_seed % 2 else "ZZZ+11"}
    outcomes, snapshot = call_elsewhere(
        _replay_elsewhere, factory, [command.hex() for command in commands], environment
    )
    return outcomes, bytes.fromhex(snapshot)


def _replay_elsewhere(load: Callable[[], Any], commands: list[str]) -> tuple[list[str], str]:
    from .check_fsm import replay  # which imports this module

    _shift_every_clock()
    outcomes, snapshot = replay(load(), [bytes.fromhex(command) for command in commands])
    return outcomes, snapshot.hex()


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
