"""``python -m pyraft.testing run``: what it prints, keeps and answers."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyraft.testing.campaign import Totals
from pyraft.testing.campaign_report import Progress, summary
from pyraft.testing.campaign_worker import Report
from pyraft.testing.options import Options

ROOT = Path(__file__).parent.parent.parent
FSMS = "tests.testing.simulated"
SHORT = ["--seconds", "2", "--clients", "2", "--rate", "6", "--preempt-lines", "0", "--config", "default"]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "pyraft.testing", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def run(*arguments):
    """(exit code, what it printed, its errors)"""
    process = start(*arguments)
    printed, errors = process.communicate(timeout=100)
    return process.returncode, printed, errors


def test_seeds_that_hold_give_a_summary_and_exit_code_0():
    code, printed, errors = run("run", "--seeds", "0:4", "--jobs", 2, "--check-determinism", 2, *SHORT)

    assert (code, errors) == (0, "")
    assert "4 seeds in" in printed
    assert "4 hold, 0 fail" in printed
    assert re.search(r"[\d.]+ seeds/s, [\d.]+ virtual s per real s, [\d,]+ steps/s and core", printed)
    assert "2 seeds run twice and compared: all equal" in printed
    assert re.search(r"leader elected +\d+ +4\n", printed)


def test_a_broken_promise_is_told_kept_and_gives_exit_code_1(tmp_path):
    fsm = f"{FSMS}:ForgetfulFsm"

    code, printed, _ = run("run", "--seeds", "0:2", "--fsm", fsm, "--keep", tmp_path / "kept", *SHORT)

    assert code == 1
    assert "seed 0 fails: linearizability: " in printed
    assert "python -m pyraft.testing replay --seed 0 --seconds 2.0" in printed
    assert f"--fsm {fsm}" in printed
    kept = json.loads((tmp_path / "kept" / "seed-0.json").read_text())
    assert (kept["seed"], kept["fsm"]) == (0, fsm)
    assert "linearizability" in (tmp_path / "kept" / "seed-0.txt").read_text()


def test_a_run_goes_on_where_it_stopped(tmp_path):
    state = tmp_path / "state.json"
    first = run("run", "--seeds", "0:3", "--resume", state, *SHORT)
    second = run("run", "--seeds", "0:5", "--resume", state, *SHORT)
    third = run("run", "--seeds", "0:5", "--resume", state, *SHORT)

    assert [code for code, _, _ in (first, second, third)] == [0, 0, 0]
    assert json.loads(state.read_text())["done_below"] == 5
    assert "5 seeds in" in second[1]
    assert third[1].split("\n")[2] == second[1].split("\n")[2]  # nothing was run again
    code, _, errors = run("run", "--seeds", "0:5", "--resume", state, "--servers", "5", *SHORT)
    assert code == 2
    assert "is of a run with other options" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_endless_run_ends_with_its_summary_when_it_is_stopped(tmp_path, number):
    state = tmp_path / "state.json"
    process = start("run", "--forever", "--jobs", 2, "--keep", tmp_path, "--resume", state, *SHORT)
    while not (state.exists() and json.loads(state.read_text())["done_below"] > 2):
        assert process.poll() is None

    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)

    assert errors == ""
    assert "0 fail" in printed
    assert process.returncode == (1 if "never reached" in printed else 0)
    done = int(printed.split(" seeds in")[0].split()[-1])
    assert json.loads(state.read_text())["totals"]["seeds"] == done


def test_a_budget_ends_a_run_once_enough_seeds_have_begun():
    code, printed, _ = run("run", "--seeds", "0:1000", "--budget", "0.001", "--at-least", 3, *SHORT)

    assert code == 0
    assert printed.startswith("3 seeds in")


def test_state_machines_of_users_get_their_own_commands():
    code, printed, errors = run("run", "--seeds", "0:1", "--fsm", f"{FSMS}:Adder", "--jobs", 1, *SHORT)

    assert (code, errors) == (0, "")
    assert "1 hold" in printed


def test_a_seed_that_hangs_costs_only_itself_and_shows_where_it_stands():
    stuck = [*SHORT, "--fsm", f"{FSMS}:StuckFsm"]

    code, printed, errors = run("run", "--seeds", "0:2", "--hang-after", "2", *stuck)

    assert code == 1
    assert "2 seeds in" in printed
    assert "seed 1 fails: the process died" in printed
    assert "in apply" in errors


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(out, seeds, planned):
    """What a campaign that is so far shows."""
    campaign = SimpleNamespace(planned=planned, totals=Totals(seeds=seeds, seconds=2.0, failures={3: "I1"}))
    progress = Progress(Options(servers=3), out)
    progress._shown = float("-inf")
    progress.tick(campaign)
    progress.report(Report(3, failure="I1: two leaders", story="I1: two leaders\nthe story"))
    return out.getvalue()


def test_a_terminal_sees_a_bar_and_everybody_else_lines():
    bar = "[######..................] 5/20 seeds, 1 failed, 2.50 seeds/s"

    assert shown(Terminal(), 5, 20).startswith(f"\r{bar}")
    assert shown(io.StringIO(), 5, 20).startswith(f"{bar}, 0.0 virtual s per real s, 0 steps/s and core\n")
    assert shown(io.StringIO(), 5, None).startswith("5 seeds, 1 failed, 2.50 seeds/s")
    assert "\nseed 3 fails: I1: two leaders\n  | I1: two leaders\n  | the story\n" in shown(
        io.StringIO(), 5, 20
    )
    assert "python -m pyraft.testing shrink --seed 3 --servers 3\n" in shown(io.StringIO(), 5, 20)


def test_the_summary_names_what_was_never_reached():
    totals = Totals(seeds=2, seconds=1.0)
    totals.add(Report(7, coverage={"leader elected": 3}))

    text = summary(totals, ["leader elected", "split vote"])

    assert "leader elected          3        1" in text
    assert "never reached: split vote" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seeds", "seven"], "'seven' is not FIRST:END"),
        (["--seeds", "9:3"], "'9:3' holds no seed"),
        (["--seeds", "9:"], "--seeds without an end is for --forever"),
        (["--jobs", "many"], "'many' is not a whole number"),
        (["--jobs", "0"], "--jobs 0: at least one process"),
        (["--servers", "0"], "servers=0 is not a whole number of 1 to 25"),
        (["--servers", "x"], "invalid int value: 'x'"),
        (["--seconds", "-1"], "seconds=-1.0 is not a number of virtual seconds above 0"),
        (["--seconds", "nan"], "seconds=nan is not a number of virtual seconds above 0"),
        (["--rate", "-2"], "rate=-2.0 is not a number of operations a second"),
        (["--clients", "-1"], "clients=-1 is not a number of clients"),
        (["--faults", "crash,earthquake"], "there is no fault 'earthquake': there are bad network"),
        (["--policy", "fair"], "there is no policy 'fair': there are random"),
        (["--preempt-lines", "2"], "preempt_lines=2.0 is not a probability"),
        (["--config", "speed=3"], "there is no setting 'speed'"),
        (["--config", "pre_vote"], "'pre_vote' is not name=value"),
        (["--config", "pre_vote=maybe"], "'maybe' in 'pre_vote=maybe' is neither a number nor"),
        (["--config", "heartbeat_timeout=9"], "election_timeout=1.0 is below heartbeat_timeout=9"),
        (["--fsm", "nowhere:Fsm"], "fsm='nowhere:Fsm' cannot be loaded"),
        (["--fsm", "json:loads"], "cannot be built"),
        (["--fsm", f"{FSMS}:Unbuildable"], "cannot be built"),
        (["--budget", "soon"], "'soon' is not a number of seconds"),
        (["--resume", "setup.cfg"], "setup.cfg is not a file of `run --resume`"),
        (["--keep", "setup.cfg"], "setup.cfg cannot be made"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, text, monkeypatch, capsys):
    from pyraft.testing.__main__ import main

    monkeypatch.chdir(ROOT)
    try:
        code = main(["run", *arguments])
    except SystemExit as ended:
        code = ended.code

    printed, errors = capsys.readouterr()
    assert (code, printed) == (2, "")
    assert text in errors
    assert errors.count("\n") == 1
