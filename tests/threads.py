"""Threads for tests: what they returned or raised is never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pyraft.runtime import ThreadRuntime
from tests.nodes import PATIENCE


def in_thread(run: Callable[[], Any]) -> Callable[[], Any]:
    """Run on a thread of the test's own; return what joins it and gives what it returned or raised."""
    outcome: list[Any] = []
    thread = threading.Thread(target=_keeping(run, outcome), daemon=True)
    thread.start()

    def joined() -> Any:
        thread.join(PATIENCE)
        assert outcome, "the thread does not end"
        return outcome[0]

    return joined


def on_pyraft_thread(run: Callable[[], Any]) -> Any:
    """Run on one of pyraft's own threads; return what it returned or raised."""
    outcome: list[Any] = []
    assert ThreadRuntime().spawn("pyraft-n1-fsm", _keeping(run, outcome)).join(PATIENCE)
    return outcome[0]


def _keeping(run: Callable[[], Any], outcome: list[Any]) -> Callable[[], None]:
    def keep() -> None:
        try:
            outcome.append(run())
        except BaseException as error:
            outcome.append(error)

    return keep
