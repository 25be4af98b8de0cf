"""Crowds of threads are woken a few at a time, and nobody is forgotten."""

from __future__ import annotations

import random
import threading
from functools import partial

import pytest

from pyraft.futures import ApplyFuture, RaftFuture
from pyraft.lanes import _STAYS_WIDE_FOR, _STUCK_AFTER, WIDTH, Lanes
from pyraft.runtime import CallerSignal, ThreadRuntime
from tests.interrupting import interrupted_at_each_line
from tests.nodes import PATIENCE, eventually
from tests.threads import in_thread


@pytest.fixture(autouse=True)
def nobody_looks_for_itself(monkeypatch):
    """Or a wake-up that is lost would only be late."""
    monkeypatch.setattr(CallerSignal, "LOOKS_EVERY", 10 * PATIENCE)


def are_all_free(lanes):
    return len(lanes._free) >= WIDTH  # two that free one at once may both think that it is missing


class Sleeper:
    def __init__(self, is_asleep=True):
        self.is_asleep = is_asleep
        self.times_woken = 0

    def wake(self):
        self.times_woken += 1
        return self.is_asleep


def crowd(count):
    lanes, sleepers = Lanes(), [Sleeper() for _ in range(count)]
    for sleeper in sleepers:
        lanes.wake(sleeper)
    return lanes, sleepers


def woken(sleepers):
    return [sleeper.times_woken for sleeper in sleepers]


@pytest.mark.parametrize("count", [1, WIDTH, WIDTH + 1, 100])
def test_as_many_are_woken_at_once_as_there_are_lanes(count):
    _, sleepers = crowd(count)

    assert woken(sleepers) == [1] * min(count, WIDTH) + [0] * (count - WIDTH)


def test_each_that_was_woken_lets_the_next_one_go_and_nobody_is_woken_twice():
    lanes, sleepers = crowd(100)

    for done in range(100):
        assert sum(woken(sleepers)) == min(done + WIDTH, 100)
        lanes.go_on()

    assert woken(sleepers) == [1] * 100
    _, again = lanes, [Sleeper() for _ in range(WIDTH + 1)]
    for sleeper in again:
        lanes.wake(sleeper)
    assert woken(again) == [1] * WIDTH + [0]  # all lanes are free again, and no more than before


def test_who_does_not_sleep_any_more_is_passed_over():
    lanes, _ = crowd(WIDTH)
    gone, next = Sleeper(is_asleep=False), Sleeper()
    lanes.wake(gone)
    lanes.wake(next)

    lanes.go_on()

    assert woken([gone, next]) == [1, 1]


def test_a_lane_that_finds_nobody_asleep_is_free_again():
    lanes = Lanes()
    for _ in range(3 * WIDTH):
        lanes.wake(Sleeper(is_asleep=False))
    sleeper = Sleeper()

    lanes.wake(sleeper)

    assert sleeper.times_woken == 1


def test_lanes_that_are_lost_come_back():
    lanes, sleepers = crowd(3 * WIDTH)  # and none of those that were woken goes on

    lanes.mend()
    assert woken(sleepers) == [1] * 2 * WIDTH + [0] * WIDTH
    for _ in range(3 * WIDTH):  # and now all go on
        lanes.go_on()

    assert woken(sleepers) == [1] * 3 * WIDTH
    assert len(lanes._free) == WIDTH


@pytest.mark.parametrize(
    ("function", "is_freed_first"), [(Lanes.go_on, True), (Lanes.wake, False), (Lanes._take_lane, False)]
)
def test_whoever_comes_while_the_only_lane_is_freed_gets_it(function, is_freed_first):
    def make():
        lanes, _ = crowd(WIDTH)  # of whom only one goes on
        late = Sleeper()

        def check():
            assert late.times_woken == 1
            lanes.go_on()
            assert len(lanes._free) == 1

        both = lanes.go_on, lambda: lanes.wake(late)
        return *(both if is_freed_first else both[::-1]), check

    interrupted_at_each_line(function, make)


# -- who is told when the line is empty --


def called(calls, name="done"):
    return lambda: calls.append(name)


def test_where_nobody_is_on_the_way_nobody_is_told():
    calls = []

    assert not Lanes().then(called(calls))

    assert calls == []


@pytest.mark.parametrize("width", [1, WIDTH])
@pytest.mark.parametrize("count", [1, 2, WIDTH + 1])
def test_whoever_empties_the_line_says_so_once(width, count):
    lanes, calls = Lanes(width), []
    for _ in range(count):
        lanes.wake(Sleeper())
    assert lanes.then(called(calls))
    left = max(count - width, 0)  # in the line; the others are on their way, the first of them finds it empty

    for _ in range(left):
        lanes.go_on()
    assert calls == []
    for _ in range(count - left):
        lanes.go_on()

    assert calls == ["done"]
    assert not lanes.then(called(calls))


def test_who_asks_again_is_told_once():
    lanes, calls = Lanes(1), []
    lanes.wake(Sleeper())
    assert lanes.then(called(calls, "first"))
    assert lanes.then(called(calls, "second"))

    lanes.go_on()

    assert calls == ["second"]


@pytest.mark.parametrize(
    ("function", "is_asked_first"), [(Lanes.then, True), (Lanes.go_on, False), (Lanes._tell, False)]
)
def test_whoever_asks_while_the_last_one_comes_is_told_or_hears_that_nobody_is_there(
    function, is_asked_first
):
    def make():
        lanes, calls, answers = Lanes(1), [], []
        lanes.wake(Sleeper())

        def ask():
            answers.append(lanes.then(called(calls)))

        def check():
            assert calls == ["done"] * answers[0]
            assert not lanes._then

        both = ask, lanes.go_on
        return *(both if is_asked_first else both[::-1]), check

    interrupted_at_each_line(function, make)


# -- narrow lanes --


def narrow(count):
    lanes, sleepers = Lanes(1), [Sleeper() for _ in range(count)]
    for sleeper in sleepers:
        lanes.wake(sleeper)
    return lanes, sleepers


def test_a_line_that_is_slow_becomes_wide_and_later_narrow_again():
    lanes, sleepers = narrow(200)

    lanes.hurry()
    assert sum(woken(sleepers)) == 1 + WIDTH
    assert not lanes.then(lambda: pytest.fail("it is not worth waiting for"))
    for _ in range(200 + 1):  # the one that was on its way before, too
        lanes.go_on()
    assert woken(sleepers) == [1] * 200

    later = [Sleeper() for _ in range(_STAYS_WIDE_FOR)]
    for sleeper in later:
        lanes.wake(sleeper)
        lanes.go_on()
    for _ in range(WIDTH):  # what is free is used up
        lanes.wake(Sleeper())
        lanes.go_on()
    last = [Sleeper() for _ in range(3)]
    for sleeper in last:
        lanes.wake(sleeper)
    assert woken(last) == [1, 0, 0]
    assert lanes.then(lambda: None)


def test_the_only_lane_is_found_again_once_nobody_has_gone_on_for_a_while():
    lanes, sleepers = narrow(4)
    lanes.look(100.0)
    lanes.look(100.1)  # two looks soon after each other are not a while
    assert sum(woken(sleepers)) == 1

    lanes.look(100.0 + _STUCK_AFTER)
    assert sum(woken(sleepers)) == 2
    lanes.look(100.1 + _STUCK_AFTER)
    assert sum(woken(sleepers)) == 2
    lanes.look(100.3 + 2 * _STUCK_AFTER)
    assert sum(woken(sleepers)) == 3
    for _ in range(3):  # those who were held up go on after all
        lanes.go_on()

    assert woken(sleepers) == [1] * 4
    lanes.go_on()
    assert len(lanes._free) == 1


def test_a_line_that_moves_is_not_mended():
    lanes, sleepers = narrow(9)
    for number in range(5):
        lanes.look(100.0 + number)
        lanes.go_on()

    assert sum(woken(sleepers)) == 6


def test_a_lane_that_is_lost_with_nobody_in_line_is_found_again_too():
    lanes, _ = narrow(1)
    lanes.look(100.0)
    lanes.look(101.0)
    lanes.look(102.0)

    assert len(lanes._free) == 1


def test_lanes_that_nobody_looks_after_are_open():
    lanes, sleepers = narrow(WIDTH)
    lanes.open()
    assert woken(sleepers) == [1] * WIDTH
    for _ in range(WIDTH):
        lanes.go_on()
    for _ in range(3):
        for sleeper in sleepers:
            lanes.wake(sleeper)
        for _ in sleepers:
            lanes.go_on()

    assert woken(sleepers) == [4] * WIDTH
    assert len(lanes._free) == WIDTH


# -- those who wait in them --


def signals(count):
    lanes = Lanes()
    return lanes, [CallerSignal(lanes) for _ in range(count)]


def test_a_signal_that_was_set_before_needs_no_wait():
    lanes, [signal] = signals(1)
    signal.set()
    signal.set()

    assert signal.wait(0)
    assert signal.wait()
    assert len(lanes._free) == WIDTH


@pytest.mark.parametrize("timeout", [0, -5, 0.001])
def test_a_signal_that_does_not_come_times_out_and_can_be_waited_for_again(timeout):
    lanes, [signal] = signals(1)

    assert not signal.wait(timeout)
    again = in_thread(signal.wait)
    signal.set()

    assert again()
    assert len(lanes._free) == WIDTH


def all_are_woken(lanes, crowd):
    waiting = [in_thread(signal.wait) for signal in crowd]
    eventually(lambda: all(hasattr(signal, "_asleep") for signal in crowd), "all sleep")

    for signal in crowd:
        signal.set()

    assert all(joined() for joined in waiting)
    eventually(lambda: are_all_free(lanes), "the lanes are free again")


def test_a_crowd_is_woken_whole():
    lanes, crowd = signals(200)
    all_are_woken(lanes, crowd)


def waits_at_most(signal, seconds):
    signal.wait(seconds)
    return True


def test_waits_that_end_by_themselves_hold_up_nobody():
    lanes, patient = signals(20)
    hasty = [CallerSignal(lanes) for _ in range(100)]
    rng = random.Random(1)
    joined = [in_thread(lambda s=s: s.wait()) for s in patient]
    joined_hasty = [in_thread(partial(waits_at_most, s, rng.random() / 50)) for s in hasty]
    both = [*patient, *hasty]
    rng.shuffle(both)

    for signal in both:
        signal.set()

    assert all(each() for each in [*joined, *joined_hasty])
    eventually(lambda: are_all_free(lanes), "the lanes are free again")


def test_a_wait_that_is_interrupted_lets_the_next_one_go():
    lanes, [interrupted, next] = signals(2)
    lanes._free.clear()  # all are in use, one of them by the first signal's waiter

    class Interrupting:
        def acquire(self, timeout):
            assert interrupted.wake()  # it gets its lane, and
            raise KeyboardInterrupt

        def release(self):
            pass

    interrupted._lock = Interrupting()
    waiting = in_thread(lambda: next.wait())
    eventually(lambda: hasattr(next, "_asleep"), "it sleeps")
    next.set()

    with pytest.raises(KeyboardInterrupt):
        interrupted.wait()

    assert waiting()


def test_who_is_not_woken_looks_for_itself_and_mends_the_lanes(monkeypatch):
    monkeypatch.setattr(CallerSignal, "LOOKS_EVERY", 0.01)
    lanes, crowd = signals(3 * WIDTH)
    lanes._free.clear()  # all are lost
    all_are_woken(lanes, crowd)


@pytest.mark.parametrize(
    "function", [CallerSignal.wait, CallerSignal._sleep, CallerSignal.set, CallerSignal.wake]
)
@pytest.mark.parametrize("intruder", ["sets it", "wakes it", "waits"])
def test_set_and_wait_may_meet_anywhere(function, intruder):
    def make():
        lanes, [signal, other] = signals(2)
        other_waits = threading.Event()

        def run():
            signal.wait(0.01)
            signal.set()
            signal.wait(0.01)

        intrusions = {
            "sets it": signal.set,
            "wakes it": signal.wake,
            "waits": lambda: (other.set(), other.wait(), other_waits.set()),
        }

        def check():
            assert signal.wait(0)
            assert intruder != "waits" or other_waits.is_set()
            fresh = CallerSignal(lanes)
            waiting = in_thread(lambda: fresh.wait())
            fresh.set()
            assert waiting()

        return run, intrusions[intruder], check

    interrupted_at_each_line(function, make)


def test_who_leaves_in_time_or_looks_while_others_are_woken_does_not_mend(monkeypatch):
    monkeypatch.setattr(Lanes, "mend", lambda lanes: pytest.fail("nothing was lost"))
    monkeypatch.setattr(CallerSignal, "LOOKS_EVERY", 0.01)
    lanes, [hasty, looks] = signals(2)
    lanes._free.clear()  # others are on their way

    def is_set_too_late(signal, then):
        class Lock:
            def acquire(self, timeout):
                signal.set()
                then()
                return False

            def release(self):
                pass

        return Lock()

    lanes.wake(Sleeper())  # and this one is woken meanwhile
    hasty._lock = is_set_too_late(hasty, lambda: None)
    looks._lock = is_set_too_late(looks, lanes.go_on)

    assert hasty.wait(0.001)
    assert looks.wait()


@pytest.fixture
def nobody_has_to_mend(monkeypatch):
    monkeypatch.setattr(CallerSignal, "LOOKS_EVERY", 0.5)
    monkeypatch.setattr(Lanes, "mend", lambda lanes: pytest.fail("it was not woken"))


@pytest.mark.usefixtures("nobody_has_to_mend")
@pytest.mark.parametrize("function", [CallerSignal.wait, CallerSignal._sleep])
def test_a_signal_that_is_set_at_any_point_of_a_wait_ends_it(function):
    def make():
        _, [signal] = signals(1)
        ended = []

        def check():
            assert ended == [True]

        return lambda: ended.append(signal.wait()), signal.set, check

    interrupted_at_each_line(function, make)


@pytest.mark.usefixtures("nobody_has_to_mend")
@pytest.mark.parametrize("function", [CallerSignal.set, CallerSignal.wake, Lanes.wake, Lanes.go_on])
def test_a_wait_that_begins_while_the_signal_is_set_ends(function):
    def make():
        _, [signal] = signals(1)
        ended = []

        def check():
            assert ended == [True]

        return signal.set, lambda: ended.append(signal.wait()), check

    interrupted_at_each_line(function, make)


@pytest.mark.parametrize("kind", [RaftFuture, ApplyFuture])
def test_futures_of_a_crowd_of_callers_all_end(kind):
    runtime = ThreadRuntime()
    futures = [kind(runtime) for _ in range(200)]
    waiting = [in_thread(lambda future=future: future.result()) for future in futures]
    for number, future in enumerate(futures):
        future.set_result(number)

    assert [joined() for joined in waiting] == list(range(200))


@pytest.mark.parametrize(("held", "free"), [(ApplyFuture, RaftFuture), (RaftFuture, ApplyFuture)])
def test_who_waits_for_commands_and_who_waits_for_anything_else_hold_up_each_other_never(held, free):
    runtime = ThreadRuntime()
    lanes = runtime._command_lanes if held is ApplyFuture else runtime._lanes
    lanes._free.clear()  # others are on their way
    late, soon = held(runtime), free(runtime)
    waiting, done = in_thread(late.result), in_thread(soon.result)

    late.set_result(1)
    soon.set_result(2)

    assert done() == 2
    lanes.mend()
    assert waiting() == 1


def test_a_runtime_knows_whether_callers_are_on_their_way_and_hurries_them():
    runtime, calls = ThreadRuntime(), []
    futures = [ApplyFuture(runtime) for _ in range(3)]
    waiting = [in_thread(future.result) for future in futures]
    eventually(lambda: all("_wakers" in future.__dict__ for future in futures), "all wait")
    assert not runtime.after_callers(called(calls))
    other = runtime.caller_signal()
    in_thread(other.wait)
    runtime._lanes._free.clear()
    other.set()
    assert not runtime.after_callers(called(calls))  # who waits for something else brings no command
    runtime._command_lanes._free.clear()  # others are on their way
    for number, future in enumerate(futures):
        future.set_result(number)

    assert runtime.after_callers(called(calls))
    runtime.hurry_callers()

    assert [joined() for joined in waiting] == [0, 1, 2]
    eventually(lambda: calls == ["done"], "the last one says so")


def test_the_programs_main_thread_is_in_no_lane():
    """Its signal handlers may wait, too, and an interrupt would cost the next one's wake-up."""
    runtime = ThreadRuntime()
    runtime._command_lanes._free.clear()
    assert threading.current_thread() is threading.main_thread()
    signal = runtime.caller_signal(is_command=True)

    waker = in_thread(signal.set)

    assert signal.wait(PATIENCE)
    waker()
    assert not runtime._command_lanes._sleepers


@pytest.mark.parametrize("is_command", [True, False])
def test_a_runtime_finds_lost_lanes_again(monkeypatch, is_command):
    monkeypatch.setattr("pyraft.lanes._STUCK_AFTER", 0.0)
    runtime = ThreadRuntime()
    made = []
    in_thread(lambda: made.append(runtime.caller_signal(is_command)))()
    lanes = made[0]._lanes
    lanes._free.clear()
    waiting = in_thread(lambda: made[0].wait())
    eventually(lambda: hasattr(made[0], "_asleep"), "it sleeps")
    made[0].set()

    runtime.look_after_callers()
    runtime.look_after_callers()

    assert waiting()


def test_those_who_wait_for_commands_are_woken_one_by_one_and_all_others_many_at_a_time():
    runtime = ThreadRuntime()

    assert len(runtime._command_lanes._free) == 1
    assert len(runtime._lanes._free) == WIDTH
