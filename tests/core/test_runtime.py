"""Inbox, NotifyChannel, Signal, Task: the few places where threads meet."""

import asyncio
import sys
import threading
import time

import pytest

from pyraft.errors import ForkedProcessError
from pyraft.runtime import ForkGuard, NotifyChannel, ThreadInbox, ThreadRuntime, ThreadSignal
from tests.nodes import PATIENCE
from tests.threads import in_thread, on_pyraft_thread

RUNTIME = ThreadRuntime()
LONG_AGO = 0.0


def later(seconds=PATIENCE):
    return time.monotonic() + seconds


# -- inbox: order and deadline --


def test_events_come_out_in_the_order_in_which_they_went_in():
    inbox = ThreadInbox()
    for event in "abc":
        inbox.put(event)

    assert [inbox.take() for _ in range(3)] == ["a", "b", "c"]


def test_a_take_without_a_deadline_waits_for_the_next_event():
    inbox = ThreadInbox()
    joined = in_thread(inbox.take)

    inbox.put("a")

    assert joined() == "a"


def test_before_the_deadline_an_event_is_delivered():
    inbox = ThreadInbox()
    inbox.put("a")

    assert inbox.take(later()) == "a"


def test_an_empty_inbox_gives_none_at_the_deadline():
    inbox = ThreadInbox()
    deadline = later(0.01)

    assert inbox.take(deadline) is None
    assert time.monotonic() >= deadline


def test_an_event_that_wakes_the_owner_is_delivered_before_the_deadline():
    inbox = ThreadInbox()
    joined = in_thread(lambda: inbox.take(later()))

    inbox.put("a")

    assert joined() == "a"


def test_what_was_queued_when_the_deadline_had_passed_is_delivered_and_then_none():
    # Time that the owner itself spent elsewhere must not look like silence.
    inbox = ThreadInbox()
    for event in "abc":
        inbox.put(event)

    assert [inbox.take(LONG_AGO) for _ in range(4)] == ["a", "b", "c", None]


def test_a_flood_cannot_starve_a_timer():
    # Each event brings another one, as a busy client's does.
    inbox = ThreadInbox()
    inbox.put(0)
    inbox.put(0)
    seen = []

    for _ in range(10):
        event = inbox.take(LONG_AGO)
        if event is None:
            break
        seen.append(event)
        inbox.put(event + 1)

    assert seen == [0, 0]
    assert event is None


def test_after_none_the_flood_is_delivered_again_until_the_next_deadline():
    inbox = ThreadInbox()
    inbox.put("a")
    assert inbox.take(LONG_AGO) == "a"
    inbox.put("b")
    assert inbox.take(LONG_AGO) is None

    assert inbox.take(LONG_AGO) == "b"


def test_a_deadline_that_was_moved_while_overdue_begins_anew():
    # A follower moves its deadline with each heartbeat among what was queued.
    inbox = ThreadInbox()
    for event in "abc":
        inbox.put(event)
    assert inbox.take(LONG_AGO) == "a"

    assert inbox.take(later()) == "b"
    assert inbox.take(later()) == "c"
    assert inbox.take(LONG_AGO + 1) is None


# -- inbox: closing --


def test_closing_disposes_of_what_is_inside_and_of_what_comes_later():
    inbox = ThreadInbox()
    disposed = []
    inbox.put("a")

    inbox.close(disposed.append)
    inbox.put("b")

    assert disposed == ["a", "b"]


class ClosedDuringPut:
    """A queue in which close() runs at a chosen moment of put()."""

    def __init__(self, inner, close, when):
        self._inner = inner
        self._close = close
        self._when = when

    def put(self, event):
        if self._when == "before":
            self._close()
        self._inner.put(event)
        if self._when == "after":
            self._close()

    def __getattr__(self, name):
        return getattr(self._inner, name)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_event_put_while_the_inbox_closes_is_disposed_of_exactly_once(when):
    inbox = ThreadInbox()
    disposed = []
    inbox._queue = ClosedDuringPut(inbox._queue, lambda: inbox.close(disposed.append), when)

    inbox.put("a")

    assert disposed == ["a"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_event_put_right_before_or_after_close_drains_is_disposed_of_exactly_once(when):
    disposed = []

    class Interrupted(ThreadInbox):
        interrupted = False

        def _drain(self, dispose):
            is_closing, self.interrupted = not self.interrupted, True
            if is_closing and when == "before":
                self.put("a")
            super()._drain(dispose)
            if is_closing and when == "after":
                self.put("a")

    Interrupted().close(disposed.append)

    assert disposed == ["a"]


def test_whatever_many_threads_put_while_it_closes_is_taken_or_disposed_of_once():
    for _ in range(20):
        inbox = ThreadInbox()
        disposed = []
        start = threading.Barrier(4)

        def put(base, inbox=inbox, start=start):
            start.wait(PATIENCE)
            for number in range(50):
                inbox.put(base + number)

        threads = [in_thread(lambda base=base, put=put: put(base)) for base in (0, 100, 200)]
        start.wait(PATIENCE)
        taken = [inbox.take(), inbox.take()]
        inbox.close(disposed.append)
        for joined in threads:
            joined()

        assert sorted(taken + disposed) == [base + n for base in (0, 100, 200) for n in range(50)]


def test_events_that_vanish_because_another_thread_closed_the_inbox_end_in_none():
    inbox = ThreadInbox()
    inbox.put("a")
    inbox.put("b")
    assert inbox.take(LONG_AGO) == "a"

    inbox.close(lambda event: None)

    assert inbox.take(LONG_AGO) is None


# -- notify channel --


class Consumer:
    """Shared state, and whoever reads it after a poke."""

    def __init__(self):
        self.inbox = ThreadInbox()
        self.channel = NotifyChannel(self.inbox, "look")
        self.news = 0
        self.seen = 0

    def produce(self):
        self.news += 1
        self.channel.poke()

    def consume_all(self):
        """As roles do: take, clear the mark, read until caught up."""
        while self.inbox.take(LONG_AGO) is not None:
            self.channel.clear()
            self.seen = self.news


def test_many_pokes_are_one_event():
    c = Consumer()
    for _ in range(5):
        c.produce()

    assert c.inbox.take(LONG_AGO) == "look"
    assert c.inbox.take(LONG_AGO) is None


def test_a_poke_between_taking_the_event_and_clearing_the_mark_is_not_lost():
    c = Consumer()
    c.produce()

    assert c.inbox.take(LONG_AGO) == "look"
    c.produce()  # dropped, because the mark is still set
    c.channel.clear()
    c.seen = c.news  # and yet seen, because reading comes after clearing

    assert c.seen == 2


def test_a_poke_between_clearing_the_mark_and_reading_makes_the_consumer_look_again():
    c = Consumer()
    c.produce()

    assert c.inbox.take(LONG_AGO) == "look"
    c.channel.clear()
    c.produce()
    c.seen = c.news

    assert c.inbox.take(later()) == "look"


def test_a_poke_after_reading_makes_the_consumer_look_again():
    c = Consumer()
    c.produce()
    c.consume_all()

    c.produce()
    c.consume_all()

    assert c.seen == 2


def test_a_consumer_that_clears_the_mark_in_the_middle_of_a_poke_misses_nothing():
    # A poke has set the mark and not queued its event yet.  Right then the consumer clears the
    # mark for another reason and looks, and another producer has news.
    c = Consumer()

    def middle(event):
        c.channel._inbox = c.inbox
        c.channel.clear()
        c.seen = c.news
        c.produce()
        c.inbox.put(event)

    c.channel._inbox = type("Interrupted", (), {"put": staticmethod(middle)})()
    c.produce()
    c.consume_all()

    assert c.seen == c.news == 2


def test_a_poke_dropped_while_another_is_not_queued_yet_is_seen_when_that_one_is():
    c = Consumer()

    def middle(event):
        c.channel._inbox = c.inbox
        c.produce()  # finds the mark set
        assert c.inbox.take(LONG_AGO) is None
        c.inbox.put(event)

    c.channel._inbox = type("Interrupted", (), {"put": staticmethod(middle)})()
    c.produce()
    c.consume_all()

    assert c.seen == c.news == 2


def test_no_poke_is_lost_between_real_threads():
    c = Consumer()
    total = 2000

    def produce():
        for _ in range(total):
            c.news += 1
            c.channel.poke()

    def consume():
        while c.seen < total:
            if c.inbox.take(later()) is None:
                return
            c.channel.clear()
            c.seen = c.news

    consumer = in_thread(consume)
    in_thread(produce)()
    consumer()

    assert c.seen == total


def test_a_poke_that_is_interrupted_leaves_no_mark(monkeypatch):
    class Interrupting(ThreadInbox):
        def put(self, event):
            if not interrupted:
                interrupted.append(event)
                raise KeyboardInterrupt
            super().put(event)

    interrupted, inbox = [], Interrupting()
    channel = NotifyChannel(inbox, "news")
    with pytest.raises(KeyboardInterrupt):
        channel.poke()

    channel.poke()

    assert inbox.take(0) == "news"


# -- signals --


def test_a_signal_is_remembered():
    signal = ThreadSignal()
    signal.set()
    signal.set()

    assert signal.wait(0)
    assert signal.wait()


@pytest.mark.parametrize("timeout", [0, -5, 0.001])
def test_a_signal_that_does_not_come_times_out(timeout):
    assert not ThreadSignal().wait(timeout)


def test_a_signal_wakes_whoever_waits():
    signal = ThreadSignal()
    joined = in_thread(lambda: signal.wait(sys.float_info.max))  # more than the system can wait

    signal.set()

    assert joined()


def test_two_threads_may_set_a_signal_at_once():
    # Both have seen that it has not happened yet.
    signal = ThreadSignal()
    signal._happened = False
    signal.set()
    signal._happened = False

    signal.set()

    assert signal.wait(0)


# -- threads --


def test_a_task_can_be_joined_and_says_where_it_is():
    leave = threading.Event()

    def wait_in_here():
        leave.wait(PATIENCE)

    task = RUNTIME.spawn("pyraft-n1-fsm", wait_in_here)

    assert not task.join(0)
    assert "wait_in_here" in task.stack() or not task.join(0)
    leave.set()
    assert task.join(PATIENCE)
    assert task.stack() == ""


def test_pyrafts_own_threads_must_not_wait():
    assert RUNTIME.must_not_wait() is None
    assert "pyraft-n1-fsm" in on_pyraft_thread(RUNTIME.must_not_wait)


def test_a_thread_whose_loop_is_running_must_not_wait():
    async def main():
        return RUNTIME.must_not_wait()

    assert "asyncio" in asyncio.run(main())
    assert RUNTIME.must_not_wait() is None


def test_a_server_is_refused_in_a_forked_child(monkeypatch):
    guard = ForkGuard()
    guard.check("server n1")

    monkeypatch.setattr("pyraft.runtime._forks", 1_000_000)

    with pytest.raises(ForkedProcessError, match="server n1"):
        guard.check("server n1")
