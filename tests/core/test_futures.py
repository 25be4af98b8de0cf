"""RaftFuture: a concurrent.futures.Future for callers, finished exactly once by whoever comes first."""

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from contextlib import closing

import pytest

from pyraft.errors import LeadershipLostError, WouldDeadlockError
from pyraft.futures import ApplyFuture, IndexFuture, RaftFuture, ShutdownFuture, _alarm_of
from pyraft.runtime import ThreadRuntime
from tests.nodes import PATIENCE, eventually
from tests.threads import in_thread, on_pyraft_thread

RUNTIME = ThreadRuntime()


def future(kind=RaftFuture):
    return kind(RUNTIME)


# -- waiting --


def test_result_returns_what_it_was_finished_with():
    f = future()
    f.set_result(7)

    assert f.result() == 7
    assert f.exception() is None
    assert f.done()
    assert not f.running()


def test_result_raises_the_error_and_exception_returns_it():
    f = future()
    error = LeadershipLostError("gone")
    f.set_exception(error)

    with pytest.raises(LeadershipLostError) as raised:
        f.result()

    assert raised.value is error
    assert f.exception() is error


def test_several_waiters_get_the_same_result():
    f = future()
    waiters = [in_thread(lambda: f.result(PATIENCE)) for _ in range(5)]
    eventually(lambda: len(f._queue("_wakers")) == 5, "all wait")

    f.try_set_result("done")

    assert [joined() for joined in waiters] == ["done"] * 5


def test_a_wait_that_times_out_disturbs_nothing():
    f = future()

    with pytest.raises(TimeoutError, match="the operation itself goes on"):
        f.result(timeout=0)

    assert not f.done()
    f.set_result(1)
    assert f.result(timeout=0) == 1


def test_polling_with_a_timeout_leaves_nothing_behind():
    f = future()

    for _ in range(100):
        with pytest.raises(TimeoutError):
            f.result(timeout=0)

    assert len(f._queue("_wakers")) == 0


def test_a_result_that_comes_at_the_very_end_of_the_wait_is_returned():
    # The signal says "timed out", and meanwhile the future was finished.
    f = future()

    class Late:
        def set(self):
            pass

        def wait(self, timeout):
            f.set_result("just in time")
            return False

    f._runtime = type("LateRuntime", (ThreadRuntime,), {"caller_signal": lambda self, is_command: Late()})()

    assert f.result(timeout=0) == "just in time"


def test_a_callback_that_blocks_does_not_keep_a_waiter_from_its_result():
    f = future()
    entered, leave = threading.Event(), threading.Event()
    f.add_done_callback(lambda _: (entered.set(), leave.wait(PATIENCE)))
    waiter = in_thread(lambda: f.result(PATIENCE))
    eventually(lambda: len(f._queue("_wakers")) == 1, "it waits")
    finisher = in_thread(lambda: f.try_set_result("done"))
    assert entered.wait(PATIENCE)

    try:
        eventually(lambda: len(f._queue("_wakers")) == 0, "nobody is left in line")
        assert waiter() == "done"
    finally:
        leave.set()
        finisher()


def test_cancelling_does_nothing_because_what_was_sent_cannot_be_called_back():
    f = future()

    assert not f.cancel()
    assert not f.cancelled()
    assert f.set_running_or_notify_cancel()
    assert f.try_set_result(1)


# -- callbacks --


def test_callbacks_run_once_in_the_order_in_which_they_were_added():
    f = future()
    called = []
    for name in "abc":
        f.add_done_callback(lambda done, name=name: called.append((name, done)))

    f.set_result(1)

    assert called == [("a", f), ("b", f), ("c", f)]


def test_a_callback_added_afterwards_runs_at_once_on_the_callers_thread():
    f = future()
    f.set_result(1)
    threads = []

    f.add_done_callback(lambda _: threads.append(threading.current_thread()))

    assert threads == [threading.current_thread()]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)], ids=repr)
def test_a_callback_that_raises_is_logged_and_disturbs_nobody(error, caplog):
    f = future()
    called = []

    def raises(_):
        raise error

    f.add_done_callback(raises)
    f.add_done_callback(lambda _: called.append(True))

    with caplog.at_level(logging.ERROR, logger="pyraft"):
        assert f.try_set_result(1)

    assert called == [True]
    assert "callback raised" in caplog.text


def test_a_callback_added_between_publishing_and_looking_runs_all_the_same():
    # _finish() publishes, and before it looks for callbacks one is added.
    called = []

    class Interrupted(RaftFuture):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_is_done" and value:
                self.add_done_callback(called.append)

    f = future(Interrupted)
    f.set_result(1)

    assert called == [f]


def test_a_callback_added_between_looking_and_publishing_runs_all_the_same():
    called = []

    class Interrupted(RaftFuture):
        def __setattr__(self, name, value):
            if name == "_is_done" and value:
                self.add_done_callback(called.append)
            super().__setattr__(name, value)

    f = future(Interrupted)
    f.set_result(1)

    assert called == [f]


def test_a_callback_added_while_another_thread_makes_the_queue_runs_all_the_same():
    called = []

    class Interrupted(RaftFuture):
        def __setattr__(self, name, value):
            if name == "_is_watched" and value and not self._is_watched and not called:
                called.append("first")  # whose thread stands still here, with the queue made
                self.add_done_callback(called.append)
                self.set_result(1)
                assert called == ["first", self]
            super().__setattr__(name, value)

    f = future(Interrupted)
    f.add_done_callback(called.append)

    assert called == ["first", f, f]


# -- finishing --


def test_of_two_finishers_exactly_one_wins():
    f = future()

    assert f.try_set_result(1)
    assert not f.try_set_exception(ValueError())
    assert f.result() == 1
    with pytest.raises(concurrent.futures.InvalidStateError):
        f.set_result(2)
    with pytest.raises(concurrent.futures.InvalidStateError):
        f.set_exception(ValueError())


def test_a_finisher_that_comes_while_another_is_at_it_loses():
    second = []

    class Interrupted(RaftFuture):
        def __setattr__(self, name, value):
            if name == "_result" and not second:
                second.append(self.try_set_result("second"))
            super().__setattr__(name, value)

    f = future(Interrupted)

    assert f.try_set_result("first")
    assert second == [False]
    assert f.result() == "first"


def test_when_many_threads_finish_at_once_one_wins_and_its_value_stays():
    for _ in range(50):
        f = future()
        barrier = threading.Barrier(4)

        def finish(value, f=f, barrier=barrier):
            barrier.wait(PATIENCE)
            return value if f.try_set_result(value) else None

        threads = [in_thread(lambda value=value, finish=finish: finish(value)) for value in range(1, 5)]
        winners = [value for value in (joined() for joined in threads) if value is not None]

        assert winners == [f.result()]


# -- what the standard library does with futures --


def test_concurrent_futures_wait_sees_what_is_done_and_what_is_not():
    done, failed, pending = future(), future(), future()
    done.set_result(1)
    failed.set_exception(ValueError())

    finished, waiting = concurrent.futures.wait([done, failed, pending], timeout=0)

    assert finished == {done, failed}
    assert waiting == {pending}


def test_concurrent_futures_wait_is_woken():
    futures = [future() for _ in range(3)]
    waiting = in_thread(lambda: concurrent.futures.wait(futures, timeout=PATIENCE))
    eventually(lambda: all(f.__dict__.get("_lazy_waiters") for f in futures), "it waits for all of them")

    for f in futures:
        f.set_result(1)

    assert waiting().done == set(futures)


def test_concurrent_futures_wait_can_stop_at_the_first_error():
    futures = [future() for _ in range(2)]
    waiting = in_thread(
        lambda: concurrent.futures.wait(
            futures, timeout=PATIENCE, return_when=concurrent.futures.FIRST_EXCEPTION
        )
    )
    eventually(lambda: all(f.__dict__.get("_lazy_waiters") for f in futures))

    futures[1].set_exception(ValueError())

    assert waiting().done == {futures[1]}


def test_as_completed_yields_in_the_order_of_completion():
    first, second = future(), future()
    order = []
    ended = in_thread(
        lambda: order.extend(concurrent.futures.as_completed([first, second], timeout=PATIENCE))
    )
    eventually(lambda: all(f.__dict__.get("_lazy_waiters") for f in (first, second)))

    second.set_result(2)
    eventually(lambda: order == [second])
    first.set_result(1)
    ended()

    assert order == [second, first]


def test_a_future_that_nobody_waits_for_makes_no_condition():
    f = future()
    f.set_result(1)

    assert not f._is_watched
    assert not f.__dict__


def test_it_has_a_repr():
    f = future()
    assert "RaftFuture" in repr(f)
    f.set_result(1)
    assert "int" in repr(f)


# -- asyncio --


def finish_later(f, value=None, error=None):
    """Finish on another thread, as pyraft does."""
    return in_thread(lambda: f.try_set_exception(error) if error else f.try_set_result(value))


def test_it_can_be_awaited():
    async def main():
        f = future()
        asyncio.get_running_loop().call_soon(finish_later, f, "done")
        return await f

    assert asyncio.run(main()) == "done"


def test_awaiting_what_is_done_gives_it_at_once():
    async def main():
        f = future()
        f.set_result("done")
        return await f

    assert asyncio.run(main()) == "done"


def test_awaiting_raises_the_error():
    async def main():
        f = future()
        asyncio.get_running_loop().call_soon(finish_later, f, None, LeadershipLostError("gone"))
        await f

    with pytest.raises(LeadershipLostError):
        asyncio.run(main())


def test_an_await_that_times_out_disturbs_nothing():
    f = future()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(f, timeout=0.001)
        assert not f.done()
        asyncio.get_running_loop().call_soon(finish_later, f, "later")
        return await asyncio.wait_for(f, PATIENCE)

    assert asyncio.run(main()) == "later"


def test_polling_with_wait_for_leaves_nothing_behind():
    f = future()

    async def main():
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(f, timeout=0.0001)

    asyncio.run(main())

    assert len(f._queue("_wakers")) == 0


def test_a_cancelled_await_disturbs_neither_the_future_nor_other_waiters():
    f = future()

    async def wait():
        return await f

    async def main():
        cancelled, other = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        finish_later(f, "done")
        return await other

    assert asyncio.run(main()) == "done"


def test_gather_takes_several():
    async def main():
        futures = [future() for _ in range(3)]
        for number, f in enumerate(futures):
            asyncio.get_running_loop().call_soon(finish_later, f, number)
        return await asyncio.gather(*futures)

    assert asyncio.run(main()) == [0, 1, 2]


def test_wrap_future_takes_one():
    async def main():
        f = future()
        asyncio.get_running_loop().call_soon(finish_later, f, "done")
        return await asyncio.wrap_future(f)

    assert asyncio.run(main()) == "done"


def test_two_loops_can_await_the_same_future():
    f = future()

    async def main():
        return await f

    loops = [in_thread(lambda: asyncio.run(main())) for _ in range(2)]
    eventually(lambda: len(f._queue("_wakers")) == 2, "both wait")

    f.try_set_result("done")

    assert [joined() for joined in loops] == ["done", "done"]


def test_finishing_does_not_care_whether_the_loop_that_waited_is_closed():
    f = future()
    loop = asyncio.new_event_loop()
    waiting = f.__await__()

    async def begin():
        next(waiting)

    loop.run_until_complete(begin())
    loop.close()

    assert f.try_set_result(1)


class CountingLoop(asyncio.SelectorEventLoop):
    calls = 0

    def call_soon_threadsafe(self, *arguments, **more):
        self.calls += 1
        return super().call_soon_threadsafe(*arguments, **more)


def test_what_is_done_meanwhile_is_one_call_into_the_loop():
    futures = [future() for _ in range(100)]
    loop = CountingLoop()

    async def wait(number):
        return await futures[number]

    async def main():
        tasks = [asyncio.create_task(wait(number)) for number in range(100)]
        await asyncio.sleep(0)
        loop.calls = 0
        in_thread(lambda: [f.try_set_result(number) for number, f in enumerate(futures)])()  # blocks the loop
        return await asyncio.gather(*tasks)

    with closing(loop):
        assert loop.run_until_complete(main()) == list(range(100))
    assert loop.calls == 1


@pytest.mark.parametrize("moment", ["__len__", "popleft"])
def test_what_is_done_while_the_loop_looks_is_woken_too(moment):
    early, late = future(), future()

    class FinishesLate(deque):
        pass

    def finish_late(queue, *arguments):
        late.try_set_result("late")
        return getattr(deque, moment)(queue, *arguments)

    setattr(FinishesLate, moment, finish_late)

    async def wait(f):
        return await f

    async def main():
        _alarm_of(asyncio.get_running_loop())._done = FinishesLate()
        tasks = [asyncio.create_task(wait(f)) for f in (early, late)]
        await asyncio.sleep(0)
        finish_later(early, "early")
        return await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)

    assert asyncio.run(main()) == ["early", "late"]


# -- where waiting can never end --


@pytest.mark.parametrize("wait", [lambda f: f.result(), lambda f: f.exception(timeout=1)])
def test_waiting_on_a_pyraft_thread_is_refused(wait):
    error = on_pyraft_thread(lambda: wait(future()))

    assert isinstance(error, WouldDeadlockError)
    assert "pyraft-n1-fsm" in str(error)


def test_waiting_where_a_loop_is_running_is_refused():
    async def main():
        future().result()

    with pytest.raises(WouldDeadlockError, match="await it"):
        asyncio.run(main())


def test_what_is_done_can_be_asked_for_anywhere():
    f = future()
    f.set_result(1)

    async def main():
        return f.result()

    assert on_pyraft_thread(f.result) == 1
    assert asyncio.run(main()) == 1


# -- what its subclasses add --


def test_accessors_before_completion_raise():
    f = future(ApplyFuture)

    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = f.index
    with pytest.raises(concurrent.futures.InvalidStateError):
        _ = f.response


def test_response_and_index_after_completion():
    f = future(ApplyFuture)
    f._index = 9
    f.set_result("applied")

    assert (f.index, f.response) == (9, "applied")


def test_the_index_of_what_never_got_one_is_its_error():
    f = future(IndexFuture)
    f.set_exception(LeadershipLostError("gone"))

    with pytest.raises(LeadershipLostError):
        _ = f.index


def test_the_index_of_a_command_that_the_fsm_refused_is_known():
    f = future(ApplyFuture)
    f._index = 9
    f.set_exception(ValueError("not enough money"))

    assert f.index == 9
    with pytest.raises(ValueError):
        _ = f.response


def test_waiting_for_the_end_of_a_server_also_waits_for_its_last_thread():
    leave = threading.Event()
    last = RUNTIME.spawn("pyraft-n1-main", lambda: leave.wait(PATIENCE))
    f = ShutdownFuture(RUNTIME, lambda: last)
    f.set_result(None)
    waiter = in_thread(lambda: (f.result(PATIENCE), last.join(0)))

    leave.set()

    assert waiter() == (None, True)


def test_a_wake_up_that_is_interrupted_leaves_the_others_of_its_loop_awake():
    async def main():
        loop = asyncio.get_running_loop()
        own_call, interrupted = loop.call_soon_threadsafe, []

        def call_soon_threadsafe(callback):
            if not interrupted:
                interrupted.append(callback)
                raise KeyboardInterrupt
            own_call(callback)

        loop.call_soon_threadsafe = call_soon_threadsafe
        first, second = future(), future()
        waiting = [loop.create_task(awaited(first)), loop.create_task(awaited(second))]
        await asyncio.sleep(0)
        first.set_result(1)  # whoever waits for it is woken with the next one
        second.set_result(2)
        return await asyncio.gather(*waiting), len(interrupted)

    async def awaited(one):
        return await one

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE)) == ([1, 2], 1)
