"""Turns lines that pyraft logs as errors, and that nothing explains, into failures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import get_ident

from ..errors import NodeFailedError
from .sim_runtime import Killed, Scheduler


class ErrorLog(logging.Handler):
    """Sees what simulated servers log while it is installed.

    What a server says about its own end is explained by its ``failure``, which is judged by itself.
    """

    def __init__(self, scheduler: Scheduler, report: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._scheduler = scheduler
        self._report = report

    def install(self) -> None:
        """Begin to listen."""
        logging.getLogger("pyraft").addHandler(self)

    def remove(self) -> None:
        """Stop it."""
        logging.getLogger("pyraft").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        task = self._scheduler.current
        if task.ident != get_ident() or task.killed:
            return
        cause = record.exc_info[1] if record.exc_info else None
        arguments = record.args if isinstance(record.args, tuple) else ()
        if isinstance(cause, Killed) or any(isinstance(one, NodeFailedError) for one in arguments):
            return
        self._report(f"{record.getMessage()}{f' ({cause!r})' if cause is not None else ''}")
