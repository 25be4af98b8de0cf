"""Tables, ratios and comparisons, from sessions that nobody had to run."""

from dataclasses import replace

import pytest

from benchmarks import compare, ratios, tables
from benchmarks.plan import LOAD, ONE, PLANS, Group, clients, outstanding
from benchmarks.results import Session
from benchmarks.statistics import SLOWER, verdict
from benchmarks.subjects import EVERY, OURS_GRPC, OURS_TCP, Subject

GO = EVERY["hashicorp-boltdb-tcp"]
SUBJECTS = [OURS_TCP, GO]


def group(**changes):
    works = [ONE, clients(16), outstanding(64)]
    return Group(**{"name": "load", "subjects": SUBJECTS, "rounds": 3, "works": works, **changes})


def session(which, subject, round, void="", **figures):
    return Session(which.name, subject.name, round, which.digest(), figures, void)


def rates(which, subject, work, *values):
    return [
        session(which, subject, round, **{work: {"per_second": value}}) for round, value in enumerate(values)
    ]


def cells(text, row):
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_cell_is_the_median_and_the_range_of_the_rounds():
    which = group()
    found = rates(which, OURS_TCP, "clients-16", 9000, 12000, 10000) + rates(which, GO, "clients-16", 500)

    text = tables.report([which], found)

    assert cells(text, "16 blocking clients") == ["10.0 k/s (9–12)", "500 /s"]


def test_latencies_are_shown_with_their_tail():
    which = group(rounds=1)
    found = [session(which, OURS_TCP, 0, one={"p50_us": 812.4, "p99_us": 20_000, "p999_us": 31_000})]

    text = tables.report([which], found)

    assert cells(text, "one at a time, p50")[0] == "812 µs"
    assert cells(text, "one at a time, p99")[0] == "20 ms"
    assert cells(text, "one at a time, p99.9")[0] == "31 ms"


def test_the_largest_throughput_is_that_of_any_load():
    which = group()
    found = rates(which, OURS_TCP, "clients-16", 9000) + rates(which, OURS_TCP, "outstanding-64", 40_000)
    found += rates(which, OURS_TCP, "verify_leader-64", 90_000)  # writes nothing

    assert cells(tables.report([which], found), "largest throughput") == ["40.0 k/s", "–"]


def test_void_rounds_count_nothing_and_are_named():
    which = group()
    found = rates(which, OURS_TCP, "clients-16", 9000)
    found.append(session(which, GO, 0, void="WrongResultError: the servers differ"))

    text = tables.report([which], found)

    assert cells(text, "16 blocking clients") == ["9.0 k/s", "–"]
    assert "load, round 1, hashicorp-boltdb-tcp: WrongResultError: the servers differ" in text


def test_a_load_that_a_library_cannot_bear_is_said_to_have_failed():
    which = group(rounds=1)

    text = tables.report([which], [session(which, OURS_TCP, 0, **{"clients-16": {"failed": 1.0}})])

    assert cells(text, "16 blocking clients") == ["failed", "–"]


def test_sessions_of_another_definition_are_left_out():
    which = group()
    found = rates(replace(which, seconds=99.0), OURS_TCP, "clients-16", 1)

    assert tables.values_of([which], found) == {}


def test_many_subjects_are_split_over_tables_with_the_same_rows():
    which = group(subjects=list(EVERY.values()), rounds=1)
    found = [one for subject in which.subjects for one in rates(which, subject, "clients-16", 1000)]

    text = tables.report([which], found)

    assert text.count("| 16 blocking clients") == -(-len(EVERY) // 5)
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") <= 7


def test_the_rows_for_programs_have_every_round():
    which = group()

    (row,) = tables.rows(tables.values_of([which], rates(which, OURS_TCP, "clients-16", 3, 1, 2)))

    assert row["values"] == [3, 1, 2]
    assert (row["median"], row["low"], row["high"], row["rounds"]) == (2, 1, 3, 3)


def test_failover_pools_the_kills_of_all_rounds():
    which = group(kind="failover", works=[])
    found = [
        session(which, OURS_TCP, round, **{f"failover-{kill}": {"seconds": 1.0 + kill} for kill in range(3)})
        for round in range(2)
    ]

    assert f"| {OURS_TCP.title} | 6 | 2.00 s | 1.00–3.00 s | 1.00–3.00 s |" in tables.report([which], found)


def test_ratios_are_taken_against_the_peer_at_its_best():
    which = group(subjects=[OURS_TCP, GO, EVERY["hashicorp-boltdb-grpc-tuned"]])
    found = rates(which, OURS_TCP, "clients-16", 3000) + rates(which, GO, "clients-16", 1000)
    found += rates(which, EVERY["hashicorp-boltdb-grpc-tuned"], "clients-16", 2000)

    standings = ratios.standings([which], tables.values_of([which], found))

    by_name = {each.what: each for each in standings}
    assert by_name["16 blocking clients, pyraft, LMDB, TCP / Go, boltdb, at its best"].ratio == 1.5
    assert by_name["largest throughput, pyraft, LMDB, TCP / Go, boltdb, at its best"].ratio == 1.5
    assert not by_name["largest throughput, pyraft, LMDB, TCP / Go, boltdb, at its best"].is_reached


def test_what_is_only_reported_is_neither_reached_nor_missed():
    cached = EVERY["hashicorp-wal-cached-tcp-tuned"]
    which = group(subjects=[OURS_TCP, cached])
    found = rates(which, OURS_TCP, "outstanding-64", 1000) + rates(which, cached, "outstanding-64", 4000)

    text = ratios.table([which], tables.values_of([which], found))

    what = "largest throughput, pyraft, LMDB, TCP / Go, wal with LogCache, at its best"
    assert cells(text, what) == ["0.25 ×", "–", "–"]


def test_of_times_less_is_better():
    which = group()
    found = [
        session(which, OURS_TCP, 0, one={"p50_us": 900.0}),
        session(which, GO, 0, one={"p50_us": 1000.0}),
    ]

    (standing,) = ratios.standings([which], tables.values_of([which], found))

    assert standing.ratio == 0.9
    assert standing.is_reached


def test_a_comparison_pairs_the_rounds_and_turns_times_into_speed():
    base, this = (Subject("pyraft", "lmdb", "tcp", label=label) for label in ("base", "this"))
    which = group(name="compare-tcp", subjects=[base, this])
    found = []
    for round in range(10):
        disturbed = 1 + round  # both sides of a pair meet the same machine
        for side, p50 in ((base, 1000.0), (this, 1250.0)):
            found.append(session(which, side, round, one={"p50_us": p50 * disturbed}))

    (what, ratio), *more = compare.ratios([which], tables.values_of([which], found)).items()

    assert (what, more) == ("tcp, one at a time, p50", [])
    assert ratio.estimate == pytest.approx(0.8)
    assert verdict(ratio) == SLOWER
    assert compare.is_slower({what: ratio})
    assert "slower" in compare.report({what: ratio})


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_has_at_least_three_rounds_of_each_load(name):
    for group in PLANS[name]():
        assert group.rounds >= 3 or group.kind != "load"
        assert len({work.name for work in group.works}) == len(group.works)


def test_the_plans_cover_what_they_promise():
    every = PLANS["all"]()
    assert {group.kind for group in every} == {
        "load",
        "idle",
        "length",
        "restart",
        "catch_up",
        "disturbed",
        "failover",
    }
    assert {group.servers for group in every} == {1, 3, 5, 7}
    assert sum(group.rounds * group.options["kills"] for group in every if group.kind == "failover") == 100
    assert {16, 64, 256, 1024, 4096} <= {
        work.arguments["clients"] for work in LOAD if work.workload == "clients"
    }
    assert OURS_GRPC in PLANS["peers"]()[0].subjects
