"""Stories that went wrong once, or must never: each file is a scenario that ``shrink`` wrote.

To add one: ``python -m pyraft.testing shrink --seed N --out tests/sim/regressions/what-happened.json``,
and write into its ``note`` what it is about.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pyraft import state
from pyraft.rules.election import Ballot
from pyraft.testing.scenario import load_scenario, run_scenario

STORIES = sorted((Path(__file__).parent / "regressions").glob("*.json"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_ends_well(path):
    result = run_scenario(load_scenario(path))

    if result.failure is not None:
        raise result.failure


def test_a_story_ends_badly_where_its_bug_is(monkeypatch):
    load = state.load_ballot
    monkeypatch.setattr(state, "load_ballot", lambda store: Ballot(load(store).term))
    path = Path(__file__).parent / "regressions" / "a-vote-survives-a-power-cut.json"

    assert run_scenario(load_scenario(path)).promise == "I8"
