"""Line preemption finds a race that switches at the runtime's operations cannot show."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import pyraft
from pyraft.testing import SimCluster
from pyraft.testing.sim_policies import RandomPolicy
from pyraft.testing.sim_runtime import Scheduler
from pyraft.transport import wire

SOURCE = """
def count(state, times):
    for _ in range(times):
        seen = state["count"]
        state["count"] = seen + 1

def count_in_logs(log, state, times):
    log.log(logging.WARNING, "%s", Counting(state, times))

class Counting:
    def __init__(self, state, times):
        self.args = state, times
    def __str__(self):
        count(*self.args)
        return "counted"
"""


def production_code(name="count"):
    """Functions that Python takes for a part of pyraft's own code."""
    file = Path(pyraft.__file__).with_name("imaginary.py")
    scope = {"logging": logging}
    exec(compile(SOURCE, str(file), "exec"), scope)
    return scope[name]


def run(seed, work, preempt_lines, tasks=2):
    """Let ``tasks`` tasks do ``work`` at once; the digest and the number of steps."""
    scheduler = Scheduler(seed, RandomPolicy(), preempt_lines)
    for number in range(tasks):
        scheduler.spawn(f"counter-{number}", work)
    scheduler.sleep(1.0)
    assert not scheduler.tasks()
    return scheduler.digest, scheduler.steps


def counts(seeds, preempt_lines):
    count = production_code()
    found = []
    for seed in seeds:
        state = {"count": 0}
        run(seed, lambda state=state: count(state, 10), preempt_lines)
        found.append(state["count"])
    return found


def test_an_unsynchronised_counter_loses_updates_only_between_lines():
    assert counts(range(30), 0.0) == [20] * 30

    between_lines = counts(range(30), 0.2)

    assert sum(count < 20 for count in between_lines) > 5
    assert between_lines == counts(range(30), 0.2)  # and it does so again


def test_code_that_is_not_pyrafts_is_not_interrupted():
    def count(state):
        for _ in range(10):
            seen = state["count"]
            state["count"] = seen + 1

    for seed in range(10):
        state = {"count": 0}
        run(seed, lambda state=state: count(state), 0.5)
        assert state["count"] == 20


class Texts(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.mark.parametrize("adapted", [False, True])
def test_what_logging_does_is_not_interrupted_and_does_not_change_the_schedule(adapted):
    """A task that is switched out under a handler's lock would stop all others that log."""
    work = production_code("count_in_logs")
    logger = logging.Logger("quiet")
    handler = Texts()
    logger.addHandler(handler)
    log = logging.LoggerAdapter(logger, {}) if adapted else logger

    def digests(level):
        logger.setLevel(level)
        return [run(seed, lambda: work(log, {"count": 0}, 20), 0.5, tasks=3) for seed in range(5)]

    with_texts = digests(logging.WARNING)

    assert len(handler.texts) == 15
    assert digests(logging.CRITICAL) == with_texts


def test_nothing_is_left_when_the_last_task_has_ended():
    count = production_code()
    run(1, lambda: count({"count": 0}, 3), 0.5)

    assert sys.gettrace() is None or "preemption" not in repr(sys.gettrace())
    if sys.version_info >= (3, 12):
        assert sys.monitoring.get_tool(3) is None
        assert sys.monitoring.get_local_events(3, count.__code__) == 0


def test_two_simulations_at_once_do_not_meet():
    count = production_code()
    alone = run(2, lambda: count({"count": 0}, 5), 0.5)
    other = Scheduler(1, preempt_lines=0.5)
    state = {"count": 0}

    def work():
        other.sleep(1.0)
        count(state, 10)

    other.spawn("counter", work)
    other.sleep(0.5)

    assert run(2, lambda: count({"count": 0}, 5), 0.5) == alone
    other.sleep(1.0)
    assert state["count"] == 10


def test_the_first_run_in_a_process_is_like_the_second():
    program = (
        "from pyraft.testing import SimCluster\n"
        "for _ in range(2):\n"
        "    with SimCluster(servers=3, seed=2, preempt_lines=0.1) as cluster:\n"
        "        cluster.client(rate=20)\n"
        "        cluster.run(1)\n"
        "        print(cluster.scheduler.digest, cluster.scheduler.steps)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)

    first, second = done.stdout.split("\n")[:2]
    assert first and first == second, done.stderr


def test_what_this_process_has_cached_does_not_change_the_schedule():
    def digest():
        with SimCluster(servers=3, seed=1, preempt_lines=0.05) as cluster:
            cluster.run(1)
            return cluster.scheduler.digest

    warm = digest()
    for made in vars(wire).values():
        if hasattr(made, "cache_clear"):
            made.cache_clear()

    assert digest() == warm
