"""The scheduler's own services: waiting for a condition."""

from __future__ import annotations

import pytest

from pyraft.testing.sim_runtime import Scheduler


@pytest.fixture
def scheduler():
    scheduler = Scheduler(1)
    yield scheduler
    scheduler.kill(scheduler.world)


def test_a_task_waits_until_a_condition_is_true(scheduler):
    facts, seen = [], []

    def wait():
        seen.append((scheduler.wait_until(lambda: facts), scheduler.time))

    def work():
        scheduler.sleep(0.3)
        facts.append("so it is")

    scheduler.spawn("waiting", wait)
    scheduler.spawn("working", work)
    scheduler.sleep(10.0)

    came, when = seen[0]
    assert came
    assert when == pytest.approx(0.3, abs=0.01)


def test_the_wait_for_a_condition_ends_at_its_instant(scheduler):
    seen = []
    scheduler.spawn(
        "waiting", lambda: seen.append((scheduler.wait_until(lambda: False, 2.0), scheduler.time))
    )

    scheduler.sleep(10.0)

    assert seen == [(False, pytest.approx(2.0, abs=0.01))]


def test_waiting_for_a_condition_takes_no_steps_while_nothing_happens(scheduler):
    scheduler.spawn("waiting", lambda: scheduler.wait_until(lambda: False))
    scheduler.sleep(1.0)
    before = scheduler.steps

    scheduler.sleep(1000.0)

    assert scheduler.steps == before


def test_a_condition_that_is_false_again_when_the_waiting_task_comes_to_run_does_not_count(scheduler):
    facts, seen = [], []

    def flicker():
        for _ in range(20):
            facts.append(1)
            scheduler.sleep(0.001)
            facts.clear()
            scheduler.sleep(0.1)

    def wait():
        if scheduler.wait_until(lambda: facts, 5.0):
            seen.append(list(facts))

    for _ in range(5):
        scheduler.spawn("waiting", wait)
    scheduler.spawn("flickering", flicker)
    scheduler.sleep(10.0)

    assert seen
    assert all(seen)


def test_an_error_in_a_condition_is_the_drivers(scheduler):
    scheduler.spawn("waiting", lambda: scheduler.wait_until(lambda: scheduler.time > 1 and 1 / 0))
    scheduler.spawn("working", lambda: scheduler.sleep(2.0))

    with pytest.raises(ZeroDivisionError):
        scheduler.sleep(10.0)
