"""A scenario is drawn from its seed alone, survives its file, and leaves out only what it says."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyraft.errors import ConfigError
from pyraft.testing import KvFsm, sim_runtime
from pyraft.testing.fault_mix import KINDS
from pyraft.testing.recorder import Recorder
from pyraft.testing.scenario import (
    ClientSpec,
    FaultSpec,
    Scenario,
    draw_scenario,
    load_scenario,
    run_scenario,
)

NUMBERS = st.lists(st.integers(0, 500), max_size=5).map(lambda numbers: tuple(sorted(set(numbers))))
SECONDS = st.floats(0.001, 1000.0)
FAULTS = st.builds(
    FaultSpec, st.sampled_from([kind.name for kind in KINDS]), SECONDS, SECONDS, st.none() | NUMBERS
)
CLIENTS = st.builds(ClientSpec, SECONDS, st.integers(1, 50), st.integers(1, 300), st.none() | NUMBERS)
SCENARIOS = st.builds(
    Scenario,
    seed=st.integers(-(2**70), 2**70),
    servers=st.integers(1, 7),
    seconds=SECONDS,
    clients=st.lists(CLIENTS, max_size=3).map(tuple),
    config=st.just({}) | st.builds(lambda seconds: {"commit_timeout": seconds}, st.floats(0.01, 1)),
    faults=st.lists(FAULTS, max_size=3).map(tuple),
    policy=st.just("random"),
    preempt_lines=st.floats(0, 1),
    calm=st.lists(st.tuples(st.integers(0, 9), st.integers(10, 99)), max_size=3).map(tuple),
    fsm=st.sampled_from(["", "package.module:Class"]),
)


@given(SCENARIOS)
def test_a_scenario_survives_its_text(scenario):
    assert Scenario.from_json(scenario.to_json()) == scenario


@given(st.integers())
def test_what_a_seed_draws_is_valid_and_always_the_same(seed):
    scenario = draw_scenario(seed)

    assert scenario == draw_scenario(seed)
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert draw_scenario(seed, servers=7, seconds=1.0) == replace(scenario, servers=7, seconds=1.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": "7"}, "seed='7' is not a whole number"),
        ({"seed": True}, "seed=True is not a whole number"),
        ({"servers": 0}, "servers=0 is not a whole number of 1 to 25"),
        ({"seconds": -1}, "seconds=-1 is not a number of virtual seconds above 0"),
        ({"seconds": "long"}, "seconds='long' is not"),
        ({"policy": "fair"}, "there is no policy 'fair'"),
        ({"policy_parameters": {"speed": 1}}, "does not take {'speed': 1}"),
        ({"policy": "sticky", "policy_parameters": {"stay": 2}}, "stay=2 is not a probability"),
        ({"preempt_lines": 7}, "preempt_lines=7 is not a probability"),
        ({"config": {"speed": 1}}, "there is no setting 'speed'"),
        ({"config": {"max_proposals": 0}}, "max_proposals=0 is below 1"),
        ({"config": []}, "config is not an object"),
        ({"faults": [{"kind": "earthquake"}]}, "there is no fault 'earthquake'"),
        ({"faults": [{"kind": "crash", "every": -3}]}, "every=-3 is not a number of seconds above 0"),
        ({"faults": [{"kind": "crash", "lasting": float("nan")}]}, "lasting=nan is not"),
        ({"faults": [{"kind": "crash", "only": ["x"]}]}, "only=('x',) is not a list of numbers"),
        ({"faults": [{}]}, "missing 1 required positional argument: 'kind'"),
        ({"faults": ["crash"]}, "faults is not a list of objects"),
        ({"clients": [{"rate": 0}]}, "rate=0 is not a number of operations a second"),
        ({"clients": [{"burst": 0}]}, "burst=0 is not a whole number"),
        ({"clients": 4}, "clients is not a list of objects"),
        ({"calm": [[5, 2]]}, "calm: to=2 is not a whole number of at least 5"),
        ({"calm": [5]}, "calm is not a list of pairs"),
        ({"fsm": 3}, "fsm=3 is not text"),
        ({"weather": "fine"}, "unknown field 'weather'"),
        ({"version": 99}, "not a scenario of version 1"),
    ],
)
def test_nonsense_in_a_file_is_refused(tmp_path, change, text):
    values = {**json.loads(draw_scenario(1).to_json()), "policy": "random", "policy_parameters": {}, **change}
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(values))

    with pytest.raises(ConfigError) as refused:
        load_scenario(path)
    assert text in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null"])
def test_a_file_that_is_no_scenario_is_refused(tmp_path, text):
    path = tmp_path / "scenario.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match="not a scenario"):
        load_scenario(path)


def test_leaving_out_a_strike_or_a_fault_moves_no_other_strike():
    faults = (FaultSpec("crash", 1.0, 0.3), FaultSpec("freeze", 1.0, 0.2), FaultSpec("slow disk", 1.0, 0.2))
    scenario = Scenario(seed=5, servers=3, seconds=12.0, clients=(), faults=faults)
    whole = run_scenario(scenario)
    kept = tuple(strike for fault, strike in whole.strikes if fault == 0 and strike % 2)
    fewer = replace(scenario, faults=(replace(faults[0], only=kept), replace(faults[1], only=()), faults[2]))
    part = run_scenario(fewer)

    def struck(result):
        return {tuple(details): time for time, _, what, *details in result.events if what == "fault"}

    before, after = struck(whole), struck(part)
    assert 0 < len(kept) < sum(1 for name, _ in before if name == "crash")
    assert [strike for name, strike in after if name == "crash"] == list(kept)
    assert not any(name == "freeze" for name, _ in after)
    assert any(name == "slow disk" for name, _ in after)
    for strike, time in after.items():
        assert before[strike] == pytest.approx(time, abs=0.01)  # a thread that was running goes first


def test_a_recorder_changes_nothing():
    scenario = replace(draw_scenario(3, seconds=4.0), preempt_lines=0.0)

    assert run_scenario(scenario).digest == run_scenario(scenario, recorder=Recorder()).digest


class LoudFsm(KvFsm):
    def apply(self, log):
        raise SystemExit("no")


def test_a_failed_run_leaves_no_thread_at_work():
    result = run_scenario(Scenario(seed=1, servers=3, seconds=3.0), LoudFsm)

    assert result.promise
    workers = [thread for thread in threading.enumerate() if thread.name == "pyraft-sim-worker"]
    assert len(workers) == len(sim_runtime._idle_workers)
