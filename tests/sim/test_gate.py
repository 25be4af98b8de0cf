"""A few seeds of the simulator: drawn faults, drawn policies, all judges.  ``make simulate`` runs more.

``PYRAFT_SIM_SEEDS=100:400`` runs others.
"""

from __future__ import annotations

import os

import pytest

from pyraft.testing.scenario import draw_scenario, run_scenario

FIRST, LAST = map(int, os.environ.get("PYRAFT_SIM_SEEDS", "0:12").split(":"))


@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_seed(seed):
    result = run_scenario(draw_scenario(seed, seconds=8))

    if result.failure is not None:
        raise result.failure
    assert result.operations
