"""The same seed gives the same run: in one process, in another, under another hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pyraft.testing import SimCluster, draw_faults

PROGRAM = """
from tests.sim.test_determinism import digest
print(digest({seed}))
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


def test_two_runs_in_one_process_are_equal():
    assert digest(11) == digest(11)


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
