"""A process that runs one seed at a time: a core each, and a crash or a hang costs one seed only."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter, process_time
from typing import Any

from .options import Options
from .scenario import Scenario, run_scenario


@dataclass(frozen=True)
class Report:
    """What became of one seed.

    Attributes:
        cpu_seconds: of the worker's processor.
        failure: "" if all promises held, else the first one that did not.
        story: the failure with everything that describes it.
        scenario: as text, if it failed.
    """

    seed: int
    digest: int = 0
    steps: int = 0
    virtual_seconds: float = 0.0
    cpu_seconds: float = 0.0
    real_seconds: float = 0.0
    operations: int = 0
    coverage: dict[str, int] | None = None
    failure: str = ""
    story: str = ""
    scenario: str = ""


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """One process.

    Attributes:
        connection: ready when there is a report, or when the process has died.
        seed: what it runs now, None if it waits for work.
        again: whether that is the second run, to compare.
    """

    def __init__(self, number: int, options: Options, hang_after: float) -> None:
        self.number = number
        self.seed: int | None = None
        self.again = False
        self._options = options
        self._hang_after = hang_after
        context = get_context("spawn")  # a fork would copy the batons of simulations that ran here
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_work, args=(theirs, number, options, hang_after), name=f"pyraft-sim-{number}", daemon=True
        )
        self._process.start()
        theirs.close()

    def run(self, seed: int, again: bool = False) -> None:
        """Begin with ``seed``."""
        self.seed, self.again = seed, again
        self.connection.send(seed)

    def report(self) -> Report:
        """What the process says about its seed; waits for it.  If it has died, that is the failure."""
        seed, self.seed = self.seed, None
        assert seed is not None
        try:
            report: Report = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(10)
            what = f"the process died with exit code {self._process.exitcode} (or hung: see its stacks above)"
            return Report(seed, failure=what, story=what, scenario=self._options.scenario(seed).to_json())
        return report

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def renewed(self) -> Worker:
        """Another process in place of this one."""
        self.end()
        return Worker(self.number, self._options, self._hang_after)

    def end(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _work(connection: Connection[Any, Any], number: int, options: Options, hang_after: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent ends this
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.disable()
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[number % len(cpus)]})  # or two simulations might share one
    gc.collect()
    gc.freeze()  # what was imported needs no looking through after every seed
    while True:
        try:
            seed = connection.recv()
        except (EOFError, OSError):
            return
        faulthandler.dump_traceback_later(hang_after, exit=True, file=sys.__stderr__ or sys.stderr)
        report = run_seed(options.scenario(seed))
        faulthandler.cancel_dump_traceback_later()
        try:
            connection.send(report)
        except OSError:
            return


def run_seed(scenario: Scenario) -> Report:
    """Run a scenario and say what became of it."""
    began, cpu_began = perf_counter(), process_time()
    result = run_scenario(scenario)
    failure = result.failure
    return Report(
        seed=scenario.seed,
        digest=result.digest,
        steps=result.steps,
        virtual_seconds=result.virtual_seconds,
        cpu_seconds=process_time() - cpu_began,
        real_seconds=perf_counter() - began,
        operations=result.operations,
        coverage=result.coverage,
        failure="" if failure is None else describe(failure),
        story="" if failure is None else "".join(traceback.format_exception(failure)),
        scenario="" if failure is None else scenario.to_json(),
    )


def describe(failure: Exception) -> str:
    """The failure in a line."""
    line = str(failure).split("\n", 1)[0]
    return line if type(failure).__name__ == "Violation" else f"{type(failure).__name__}: {line}"
