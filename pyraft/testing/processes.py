"""Call user code in a process of its own, which can differ in everything, and end at any moment.

What is called there must be found by its name: a function or class at the top of a module other
than the program itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import reduce
from typing import Any

_TIMEOUT = 120.0  # seconds
_INSIDE = "PYRAFT_TESTING_INSIDE_A_PROCESS"
_PROGRAM = "from pyraft.testing.processes import _live; _live()"


class NotReachable(Exception):
    """The function cannot be named or imported in another process; the text says why."""


def call_elsewhere(
    work: Callable[[Callable[[], Any], Any], Any],
    user_code: Any,
    argument: Any,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """``work(load, argument)`` in a new process, where ``load()`` imports ``user_code``.

    The process ends at once afterwards, without closing or flushing anything.

    Args:
        work: a function of pyraft.testing, which runs before any user code is imported.
        argument: for ``work``, and its answer: what JSON can carry.

    Raises:
        NotReachable: ``user_code`` cannot be named or imported there, or this is such a process.
        RuntimeError: the process failed.
    """
    if os.environ.get(_INSIDE):
        raise NotReachable("this is such a process already")
    order = {
        "path": [os.path.abspath(entry) for entry in sys.path],
        "work": _name_of(work),
        "user_code": _name_of(user_code),
        "argument": argument,
    }
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(  # noqa: S603  (this interpreter, this package)
            [sys.executable, "-c", _PROGRAM],
            input=json.dumps(order),
            env={**os.environ, **(environment or {}), "PYTHONPATH": path, _INSIDE: "1"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as late:
        raise RuntimeError(f"a process of its own was not done after {_TIMEOUT:g} s") from late
    if done.returncode != 0:
        raise RuntimeError(f"a process of its own ended with {done.returncode}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    if "unreachable" in answer:
        raise NotReachable(answer["unreachable"])
    return answer["answer"]


def _name_of(value: Any) -> tuple[str, str]:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        raise NotReachable(f"{value!r} has no name in a module that can be imported")
    found: Any = sys.modules.get(module)
    with suppress(AttributeError):
        found = reduce(getattr, name.split("."), found)
    if found is not value:
        raise NotReachable(f"{module}.{name} is not {value!r}: define it at the top of a module")
    return module, name


class _Unreachable(Exception):
    pass


def _live() -> None:
    """The life of the other process: an order on standard input, an answer on standard output."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what user code prints is no answer
    order = json.load(sys.stdin)
    sys.path[:] = order["path"]

    def load() -> Any:
        module, name = order["user_code"]
        try:
            return _import(module, name)
        except Exception as error:
            raise _Unreachable(f"{module}.{name} cannot be imported there: {error!r}") from error

    try:
        answer = {"answer": _import(*order["work"])(load, order["argument"])}
    except _Unreachable as error:
        answer = {"unreachable": str(error)}
    json.dump(answer, answer_to)
    answer_to.flush()
    os._exit(0)


def _import(module: str, name: str) -> Any:
    __import__(module)
    return reduce(getattr, name.split("."), sys.modules[module])
