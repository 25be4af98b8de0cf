"""Run seeds with the library that stands first on the path: one process for one copy of it.

    PYTHONPATH=<copy> python worker.py <copy> seeds <first> <end> <seconds>
    PYTHONPATH=<copy> python worker.py <copy> calm

Prints a line of JSON for each seed and ends at the first one that fails.  It is started as a file,
so that nothing of the project but the copy is on the path.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

import pyraft
from pyraft.errors import RaftError
from pyraft.testing import SimCluster
from pyraft.testing.invariants import Violation
from pyraft.testing.scenario import draw_scenario, run_scenario
from pyraft.testing.sim_runtime import SimulationError

_JUDGED = (Violation, SimulationError, TimeoutError, RaftError)
"""What counts as found: the judge, the simulation itself, or an end that does not come."""


_MOST_CPU = 90.0  # seconds of processor time for one seed: many times what any takes


def run_seeds(first: int, end: int, seconds: float) -> None:
    """Run the seeds from ``first`` to before ``end`` until one fails."""
    for seed in range(first, end):
        # By the processor's time, which says the same on a busy machine; the signal ends the process.
        signal.setitimer(signal.ITIMER_PROF, _MOST_CPU)
        try:
            failure = run_scenario(draw_scenario(seed, seconds=seconds)).failure
        except _JUDGED as raised:  # the cluster did not even begin
            failure = raised
        _say(
            seed=seed,
            promise=_promise(failure),
            judged=isinstance(failure, _JUDGED),
            text="" if failure is None else str(failure).split("\n")[0][:200],
        )
        if failure is not None:
            return


def _promise(failure: BaseException | None) -> str:
    if failure is None:
        return ""
    return failure.promise if isinstance(failure, Violation) else type(failure).__name__


def run_calm() -> None:
    """Two seconds of three servers without any fault; tell whether commands succeed."""
    promise, answered = "", 0
    try:
        with SimCluster(3, 1) as cluster:
            cluster.client(rate=20.0)
            cluster.run(2.0)
            answered = len(cluster.history)
    except _JUDGED as failure:
        promise = f"{type(failure).__name__} {failure}".split("\n")[0][:200]
    _say(calm=not promise and answered >= 5, promise=promise)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _stay_on_one_cpu(number: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[number % len(cpus)]})


def main(arguments: list[str]) -> None:
    copy, what, *rest = arguments
    found = Path(pyraft.__file__).parents[1]
    if found.resolve() != Path(copy).resolve():
        raise SystemExit(f"this would test {found} and not {copy}")
    logging.disable(logging.CRITICAL)
    _stay_on_one_cpu(int(os.environ.get("WORKER", "0")))
    if what == "calm":
        run_calm()
    else:
        run_seeds(int(rest[0]), int(rest[1]), float(rest[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
