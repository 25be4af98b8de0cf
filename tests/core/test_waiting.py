"""Waiters: callers' threads wait until something that pyraft publishes has come true."""

import asyncio

import pytest

from pyraft.errors import WouldDeadlockError
from pyraft.runtime import ThreadRuntime
from pyraft.waiting import Waiters
from tests.nodes import PATIENCE, eventually
from tests.threads import in_thread, on_pyraft_thread

RUNTIME = ThreadRuntime()


def test_what_holds_already_needs_no_waiting():
    assert Waiters(RUNTIME).wait_until(lambda: True, timeout=None)
    assert on_pyraft_thread(lambda: Waiters(RUNTIME).wait_until(lambda: True, None)) is True


def test_news_wakes_everybody_who_waits():
    waiters, news = Waiters(RUNTIME), []
    joined = [in_thread(lambda: waiters.wait_until(lambda: bool(news), PATIENCE)) for _ in range(4)]
    eventually(lambda: len(waiters.signals) == 4, "all wait")

    news.append(True)
    waiters.notify()

    assert [join() for join in joined] == [True] * 4


def test_news_of_something_else_does_not_end_a_wait():
    waiters, applied = Waiters(RUNTIME), [0]
    joined = in_thread(lambda: waiters.wait_until(lambda: applied[0] >= 3, PATIENCE))

    for index in (1, 2, 3):
        eventually(lambda: waiters.signals, "it waits")
        applied[0] = index
        waiters.notify()

    assert joined() is True


def test_news_between_the_look_and_the_waiting_is_not_lost():
    # The condition comes true, and is told to nobody, right after it was looked at.
    waiters = Waiters(RUNTIME)
    looks = []

    def holds():
        looks.append(True)
        return len(looks) > 1

    assert waiters.wait_until(holds, timeout=None)


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_a_wait_that_times_out_says_so_and_leaves_nothing_behind(timeout):
    waiters = Waiters(RUNTIME)

    assert not waiters.wait_until(lambda: False, timeout)
    assert waiters.signals == []


def test_what_comes_true_at_the_very_end_of_a_wait_counts():
    waiters = Waiters(RUNTIME)
    looks = iter([False, False, True])

    assert waiters.wait_until(lambda: next(looks), timeout=0)


def test_waiting_on_a_pyraft_thread_or_in_a_running_loop_is_refused():
    async def main():
        Waiters(RUNTIME).wait_until(lambda: False, 1)

    assert isinstance(
        on_pyraft_thread(lambda: Waiters(RUNTIME).wait_until(lambda: False, 1)), WouldDeadlockError
    )
    with pytest.raises(WouldDeadlockError):
        asyncio.run(main())


def test_a_waiter_that_waits_again_at_once_does_not_keep_the_publisher():
    waiters = Waiters(RUNTIME)
    woken = []

    class Eager:
        """Looks as soon as it is woken, finds nothing, and waits again."""

        def set(self):
            woken.append(self)
            assert len(woken) < 100, "notify() does not end"
            waiters.signals.append(self)

    first, second = Eager(), Eager()
    waiters.signals += [first, second]

    waiters.notify()

    assert woken == [first, second]
