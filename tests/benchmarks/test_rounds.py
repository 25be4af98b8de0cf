"""The order of sessions, what voids one, and how a run goes on where it stopped."""

import json

import pytest

from benchmarks import results, rounds
from benchmarks.cluster import WrongResultError, check_states
from benchmarks.plan import Group, Work
from benchmarks.results import Results
from benchmarks.subjects import Subject

A, B, C = (Subject("pyraft", "lmdb", "tcp", label=label) for label in "abc")
WORK = Work("one", "one at a time", "clients", {"clients": 1})


def group(**changes):
    return Group(**{"name": "load", "subjects": [A, B, C], "rounds": 2, "works": [WORK], **changes})


@pytest.fixture
def kept(tmp_path):
    return Results(tmp_path / "run.jsonl", {"cores": 2}, "code")


def measured(*_):
    return {"one": {"per_second": 1.0}}


def quiet(_):
    pass


def test_every_round_goes_through_all_subjects_each_time_from_another_one_on():
    order = [(round, subject.label) for _, round, subject in rounds.order([group(rounds=3)])]

    assert order == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a"), (2, "c"), (2, "a"), (2, "b")]


def test_two_subjects_take_turns_at_being_first():
    order = [subject.label for _, _, subject in rounds.order([group(subjects=[A, B], rounds=4)])]

    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_a_run_goes_on_where_it_stopped(kept, tmp_path):
    def dies_at_the_fourth(*_):
        if len(kept.sessions) == 3:
            raise KeyboardInterrupt
        return measured()

    with pytest.raises(KeyboardInterrupt):
        rounds.run([group()], kept, dies_at_the_fourth, tmp_path, quiet)
    calls = []

    def counts(which, subject, round, folder):
        calls.append((round, subject.label))
        return measured()

    again = Results(kept.path, {"cores": 2}, "code")
    assert rounds.run([group()], again, counts, tmp_path, quiet) == []
    assert calls == [(1, "b"), (1, "c"), (1, "a")]


def test_a_line_that_was_half_written_is_measured_again(kept, tmp_path):
    rounds.run([group(rounds=1)], kept, measured, tmp_path, quiet)
    kept.path.write_text(kept.path.read_text()[:-20])

    again = Results(kept.path, {}, "code")

    assert [session.subject for session in again.sessions] == [A.name, B.name]
    assert not again.done("load", C.name, 0, group().digest())
    rounds.run([group(rounds=1)], again, measured, tmp_path, quiet)
    assert len(results.read(kept.path)[1]) == 3


def test_figures_of_other_code_are_kept_apart(kept, tmp_path):
    rounds.run([group(rounds=1)], kept, measured, tmp_path, quiet)

    other = Results(kept.path, {}, "changed code")

    assert other.sessions == []
    assert len(results.read(tmp_path / "run.1.jsonl")[1]) == 3


def test_a_group_that_measures_something_else_is_not_done(kept, tmp_path):
    rounds.run([group(rounds=1)], kept, measured, tmp_path, quiet)

    assert kept.done("load", A.name, 0, group(rounds=5).digest())
    assert not kept.done("load", A.name, 0, group(seconds=9.0).digest())


def test_a_wrong_result_voids_the_round_which_is_then_tried_again(kept, tmp_path):
    attempts = []

    def wrong_at_first(*_):
        attempts.append(1)
        if len(attempts) == 1:
            raise WrongResultError("the servers differ")
        return measured()

    missing = rounds.run([group(subjects=[A], rounds=1)], kept, wrong_at_first, tmp_path, quiet)

    assert missing == []
    assert [bool(session.void) for session in kept.sessions] == [True, False]
    assert "the servers differ" in kept.sessions[0].void


def test_a_round_that_stays_wrong_is_reported(kept, tmp_path):
    def wrong(*_):
        raise WrongResultError("the servers differ")

    said = []
    missing = rounds.run([group(subjects=[A], rounds=1)], kept, wrong, tmp_path, said.append)

    assert [session.subject for session in missing] == [A.name]
    assert len(kept.sessions) == rounds.ATTEMPTS
    assert "VOID" in said[0]
    assert not kept.done("load", A.name, 0, group().digest())


def test_nothing_of_the_servers_files_is_left(kept, tmp_path):
    def leaves_files(which, subject, round, folder):
        (folder / "log").write_text("x")
        raise RuntimeError("stopped")

    rounds.run([group(subjects=[A], rounds=1)], kept, leaves_files, tmp_path, quiet)

    assert [path.name for path in tmp_path.iterdir()] == [kept.path.name]


def test_the_file_is_one_json_object_per_line(kept, tmp_path):
    rounds.run([group(rounds=1)], kept, measured, tmp_path, quiet)

    lines = [json.loads(line) for line in kept.path.read_text().splitlines()]

    assert lines[0] == {"code": "code", "cores": 2}
    assert {line["subject"] for line in lines[1:]} == {A.name, B.name, C.name}


@pytest.mark.parametrize(
    ("states", "submitted"),
    [
        ([(5, 1), (5, 2)], None),
        ([(5, 1), (4, 1)], None),
        ([(5, 1), (5, 1)], 6),
        ([(5, 1), (5, 1)], 4),
    ],
    ids=["another digest", "another count", "a command is missing", "a command came twice"],
)
def test_servers_that_hold_something_wrong(states, submitted):
    with pytest.raises(WrongResultError):
        check_states([{"count": count, "digest": digest} for count, digest in states], submitted)


def test_servers_that_hold_what_they_must():
    assert check_states([{"count": 5, "digest": 1}] * 3, 5) == 5
