"""``replay`` and ``shrink``: the same story each time, and a smaller one of the same failure."""

from __future__ import annotations

import re

import pytest

from pyraft import state
from pyraft.rules.election import Ballot
from pyraft.testing.__main__ import main
from pyraft.testing.replay import story
from pyraft.testing.scenario import ClientSpec, FaultSpec, Scenario, load_scenario, run_scenario
from pyraft.testing.shrink import shrink, size_of

FORGETFUL = ["--fsm", "tests.testing.simulated:ForgetfulFsm"]
SHORT = ["--seconds", "2", "--clients", "2", "--rate", "6", "--preempt-lines", "0", "--config", "default"]
CRASHES = Scenario(
    seed=3,
    servers=3,
    seconds=6.0,
    clients=(ClientSpec(3.0), ClientSpec(3.0)),
    faults=(FaultSpec("slow disk", 1.0, 0.3), FaultSpec("crash", 1.0, 0.3), FaultSpec("freeze", 1.0, 0.1)),
    policy="sticky",
    policy_parameters={"stay": 0.5},
)


@pytest.fixture
def forgotten_votes(monkeypatch):
    """A server that is started again forgets whom it voted for."""
    load = state.load_ballot
    monkeypatch.setattr(state, "load_ballot", lambda store: Ballot(load(store).term))


def test_replaying_twice_tells_the_same_story(capsys):
    assert main(["replay", "--seed", "5", "--servers", "3", *SHORT]) == 0
    first = capsys.readouterr().out
    assert main(["replay", "--seed", "5", "--servers", "3", *SHORT]) == 0

    assert capsys.readouterr().out == first
    lines = first.rstrip().split("\n")
    assert lines[0].startswith("seed 5: 3 servers, 2 virtual s, 2 clients")
    assert re.search(r"^ +\d+\.\d{6} +\d+  n\d   is Leader t\d+$", first, re.M)
    assert re.search(r" n\d   commit index #\d+$", first, re.M)
    assert lines[-1].startswith("holds, at ")
    assert "->" not in first


def test_messages_are_told_when_they_are_asked_for(capsys):
    assert main(["replay", "--seed", "5", "--servers", "3", "--messages", *SHORT]) == 0

    told = capsys.readouterr().out
    assert re.search(r"n(\d)   -> n\d: vote\? t2 #1/t1$", told, re.M)
    assert re.search(r"n\d   <- n\d: vote t2 yes$", told, re.M)
    assert re.search(r"n\d   disk: ballot t2 for n\d$", told, re.M)


def test_a_replay_stops_at_a_step_and_tells_where_threads_stand(capsys):
    calm = [*SHORT, "--faults", "none"]
    assert main(["replay", "--seed", "5", "--servers", "3", "--until-step", "900", *calm]) == 0

    told = capsys.readouterr().out
    stop = re.search(r"stopped at step (\d+), as asked", told)
    assert 900 <= int(stop[1]) < 1000
    assert "--- pyraft-n1-main (" in told
    assert "in take" in told


def test_a_replay_of_a_failure_ends_with_it(capsys):
    assert main(["replay", "--seed", "0", *SHORT, *FORGETFUL]) == 1

    told = capsys.readouterr().out
    assert "\nFAILS at " in told
    assert "Violation: linearizability: " in told


def test_shrinking_finds_the_few_operations_that_matter(tmp_path, capsys):
    path = tmp_path / "small.json"

    assert main(["shrink", "--seed", "0", "--out", str(path), "--limit", "60", *SHORT, *FORGETFUL]) == 1

    told = capsys.readouterr().out
    assert "fewer operations" in told
    assert f"the scenario is in {path}" in told
    small = load_scenario(path)
    result = run_scenario(small)
    assert result.promise == "linearizability"
    assert (small.servers, small.faults) == (1, ())
    assert size_of(small, result)["operations"] < 10
    assert main(["replay", str(path)]) == 1


def test_shrinking_keeps_the_one_strike_without_which_nothing_fails(forgotten_votes):
    whole = run_scenario(CRASHES)

    shrunk = shrink(CRASHES, seconds=60)

    assert whole.promise == shrunk.result.promise == run_scenario(shrunk.scenario).promise
    assert whole.promise in ("I7", "I8")
    # The end of every run restarts servers as well, so that not even the one crash may be needed.
    assert [spec.kind for spec in shrunk.scenario.faults] in ([], ["crash"])
    assert len(shrunk.result.strikes) <= 1
    before, after = size_of(CRASHES, whole), size_of(shrunk.scenario, shrunk.result)
    assert after["operations"] == 0 < before["operations"]
    assert shrunk.scenario.seconds < CRASHES.seconds  # though it may fail only in the end that every run has


def test_time_that_is_up_leaves_what_was_found_so_far(forgotten_votes):
    told = []

    shrunk = shrink(CRASHES, seconds=0.0, tell=told.append)

    assert (shrunk.scenario, shrunk.is_done, shrunk.tries) == (CRASHES, False, 1)
    assert told[-1] == "time is up"


def test_the_diagram_shows_who_sent_what_to_whom(forgotten_votes):
    lines = story(CRASHES, most_rows=1000)

    assert lines[1].split() == ["time", "n1", "n2", "n3"]
    text = "\n".join(lines)
    assert re.search(r"\|<?-*vote\? t2 #1/t1-*>?\|", text)
    assert re.search(r"\|<?-*vote t2 yes-*>?\|", text)
    assert re.search(r"\[ballot t2 for n\d\]", text)
    assert re.search(r"\* is Leader t2", text)
    assert re.search(r"append t2 after #\d+/t\d", text)
    assert re.search(r"\(c\d k\d: put c\d\.\d+ -> None\)", text)
    assert "== fault crash 0 ==" in text
    assert re.search(r"^FAILS at .*\nViolation: I[78]: ", text, re.M)


def test_a_long_story_keeps_its_end_and_its_turns(forgotten_votes):
    lines = story(CRASHES, most_rows=30)

    drawn = lines[: [line.startswith("FAILS") for line in lines].index(True)]
    assert len(drawn) <= 34
    assert max(len(line) for line in drawn) <= 120
    assert sum("lines left out up to here" in line for line in drawn) == 1
    assert any("* is Leader t2" in line for line in drawn)
    assert "!! failure Violation" in drawn[-1]


def test_nothing_to_shrink_is_said(capsys):
    assert main(["shrink", "--seed", "5", "--servers", "3", *SHORT]) == 2

    assert capsys.readouterr().err.endswith("seed 5 holds: there is nothing to shrink\n")


@pytest.mark.parametrize("command", ["replay", "shrink"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Give --seed, or a file"),
        (["--seed", "seven"], "invalid int value: 'seven'"),
        (["--seed", "1", "file.json"], "Give --seed, or a file"),
        (["nowhere.json"], "nowhere.json cannot be read"),
        (["setup.cfg"], "setup.cfg: not a scenario"),
        (["setup.cfg", "--servers", "3"], "the file says everything: leave out --servers 3"),
        (["--seed", "1", "--faults", "earthquake"], "there is no fault 'earthquake'"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(command, arguments, text, capsys):
    try:
        code = main([command, *arguments])
    except SystemExit as ended:
        code = ended.code

    printed, errors = capsys.readouterr()
    assert (code, printed) == (2, "")
    assert text in errors
    assert errors.count("\n") == 1
