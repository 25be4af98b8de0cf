"""Committed digests: every version of Python, and every machine, runs a seed in the same way.

    python -m tests.sim.test_digests --write

writes them anew.  They change with every change of what the simulator or the library does, and
with nothing else: the commit that changes them says why they did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyraft.config import Config
from pyraft.testing import SimCluster
from pyraft.testing import faults as f
from pyraft.testing.sim_policies import PriorityPolicy, RandomPolicy, StickyPolicy

FILE = Path(__file__).with_name("digests.json")
QUICK = Config(heartbeat_timeout=0.2, election_timeout=0.2, leader_lease_timeout=0.1)
SMALL = Config(max_append_entries=3, max_inflight_appends=2, max_proposals=2)

# Explicit in all that can be: how faults and policies are drawn may change without touching these.
SCENARIOS: dict[str, Callable[[], SimCluster]] = {
    "one server": lambda: SimCluster(1, 1),
    "three servers": lambda: SimCluster(3, 2),
    "five servers": lambda: SimCluster(5, 3),
    "sticky": lambda: SimCluster(3, 4, policy=StickyPolicy(0.9)),
    "priorities": lambda: SimCluster(3, 5, policy=PriorityPolicy(300)),
    "small limits": lambda: SimCluster(3, 6, config=SMALL, policy=RandomPolicy()),
    "bad network": lambda: SimCluster(3, 7, config=QUICK, faults=[f.BadNetwork(0.5, 1.0)]),
    "partitions": lambda: SimCluster(
        5, 8, config=QUICK, faults=[f.Partition(1.0, 0.5), f.SlowLinks(1.0, 1.0)]
    ),
    "crashes": lambda: SimCluster(3, 9, config=QUICK, faults=[f.Crash(1.0, 0.3)], policy=StickyPolicy(0.5)),
    "frozen and starved": lambda: SimCluster(
        3, 10, config=QUICK, faults=[f.Freeze(1.0, 0.3), f.StarveThreads(0.5, 0.2)], policy=PriorityPolicy(50)
    ),
    "disks": lambda: SimCluster(3, 11, config=QUICK, faults=[f.SlowDisk(0.5, 0.5), f.FailingDisk(1.0, 0.5)]),
    "clocks and state machines": lambda: SimCluster(
        3, 12, config=QUICK, faults=[f.BadClocks(0.5, 1.0), f.SlowFsm(1.0, 0.5), f.Stop(2.0, 0.2)]
    ),
}

ADVICE = """
The scenario {name!r} does not run as it did when tests/sim/digests.json was written.
If it fails on one version of Python only, something depends on that version: find and remove it.
If what the simulator or the library does was changed on purpose, write the digests anew by

    python -m tests.sim.test_digests --write

and let the commit say why they changed."""


def run(name: str) -> dict[str, str | int]:
    """What becomes of a scenario."""
    with SCENARIOS[name]() as cluster:
        cluster.client(rate=20)
        cluster.client(rate=20)
        cluster.run(5)
        scheduler = cluster.scheduler
        return {
            "digest": f"{scheduler.digest:016x}",
            "steps": scheduler.steps,
            "operations": len(cluster.history),
        }


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_runs_as_it_always_did(name):
    committed = json.loads(FILE.read_text())

    assert run(name) == committed.get(name), ADVICE.format(name=name)


def test_every_scenario_reaches_what_it_is_about():
    committed = json.loads(FILE.read_text())

    assert list(committed) == list(SCENARIOS)
    assert all(found["operations"] >= 10 for found in committed.values())
    assert len({found["digest"] for found in committed.values()}) == len(SCENARIOS)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.sim.test_digests --write")
    FILE.write_text(json.dumps({name: run(name) for name in SCENARIOS}, indent=1) + "\n")
