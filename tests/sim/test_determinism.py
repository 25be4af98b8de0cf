"""The same seed gives the same run: in one process, in another, under another hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pyraft.testing import SimCluster, draw_faults

PROGRAM = """
from tests.sim.test_determinism import digest, trace
print(digest({seed}))
for event in trace({seed}):
    print(event)
"""


def digest(seed):
    from random import Random

    cluster = SimCluster(servers=3, seed=seed, faults=draw_faults(Random(seed)))
    cluster.client(20)
    cluster.client(20)
    cluster.run(6)
    result = cluster.scheduler.digest, cluster.scheduler.steps, len(cluster.history)
    cluster.close()
    return result


def trace(seed):
    """Everything that happens, each time with the digest of all that was decided before."""
    from random import Random

    events = []
    with SimCluster(servers=3, seed=seed, faults=draw_faults(Random(seed))) as cluster:
        scheduler = cluster.scheduler
        note = scheduler.note

        def write_down(*event):
            events.append((scheduler.steps, scheduler.time, scheduler.current.name, scheduler.digest, *event))
            note(*event)

        scheduler.note = write_down
        cluster.client(20)
        cluster.run(3)
    return events


def test_two_runs_in_one_process_are_equal():
    assert digest(11) == digest(11)


def test_two_runs_in_one_process_have_the_same_trace():
    events = trace(11)

    assert len(events) > 10
    assert list(map(str, trace(11))) == list(map(str, events))  # step by step, to see where they part


def test_other_seeds_give_other_runs():
    assert digest(11) != digest(12)


def test_runs_under_two_hash_seeds_are_equal():
    said = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(seed=13)],
            cwd=Path(__file__).parent.parent.parent,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)

    assert said[0] == said[1]
