"""A gate of seeds: drawn faults, drawn policies, all judges.  ``PYRAFT_SIM_SEEDS=100:400`` runs others."""

from __future__ import annotations

import os
from random import Random

import pytest

from pyraft.config import Config
from pyraft.testing import SimCluster, draw_faults
from pyraft.testing.sim_policies import draw_policy

FIRST, LAST = map(int, os.environ.get("PYRAFT_SIM_SEEDS", "0:12").split(":"))


@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_seed(seed):
    rng = Random(f"gate/{seed}")
    servers = rng.choice([3, 3, 5])
    timeout = rng.choice([0.1, 0.3, 1.0])
    config = Config(
        heartbeat_timeout=timeout,
        election_timeout=timeout * rng.choice([1, 2]),
        leader_lease_timeout=timeout * rng.choice([0.5, 1]),
        pre_vote=rng.random() < 0.8,
        max_append_entries=rng.choice([4096, 3]),
        max_inflight_appends=rng.choice([16, 2]),
        max_proposals=rng.choice([65536, 2]),
    )
    lines = rng.choice([0.0, 0.0, 0.0, 0.05])
    with SimCluster(
        servers, seed, config=config, faults=draw_faults(rng), policy=draw_policy(rng), preempt_lines=lines
    ) as cluster:
        for _ in range(3):
            cluster.client(rate=6)
        cluster.client(rate=rng.choice([0.5, 2]), burst=rng.choice([10, 100, 200]))
        cluster.run(8)
        cluster.check()
