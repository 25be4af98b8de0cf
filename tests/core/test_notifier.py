"""The notify thread: finishes futures for the main thread, in order, each with an error of its own."""

import threading

from pyraft.errors import NotLeaderError
from pyraft.futures import RaftFuture
from pyraft.notifier import Notifier
from pyraft.runtime import ThreadRuntime
from tests.nodes import PATIENCE

RUNTIME = ThreadRuntime()


def started():
    notifier = Notifier(RUNTIME, "n1")
    return notifier, RUNTIME.spawn("pyraft-n1-notify", notifier.run)


def test_callbacks_run_on_the_notify_thread_in_the_order_of_asking():
    notifier, task = started()
    called = []
    for number in range(3):
        future = RaftFuture(RUNTIME)
        future.add_done_callback(
            lambda f, number=number: called.append((number, f.result(), threading.current_thread().name))
        )
        notifier.resolve(future, number * 10)

    notifier.stop()
    assert task.join(PATIENCE)

    assert called == [(n, n * 10, "pyraft-n1-notify") for n in range(3)]


def test_each_failed_future_gets_an_error_of_its_own():
    notifier, task = started()
    futures = [RaftFuture(RUNTIME) for _ in range(3)]

    notifier.fail(futures, lambda: NotLeaderError("n1"))
    notifier.stop()
    assert task.join(PATIENCE)

    errors = [f.exception() for f in futures]
    assert all(isinstance(error, NotLeaderError) for error in errors)
    assert len({id(error) for error in errors}) == 3


def test_a_future_that_somebody_else_finished_keeps_its_outcome():
    notifier, task = started()
    future = RaftFuture(RUNTIME)
    future.set_result("first")

    notifier.fail([future], lambda: NotLeaderError("n1"))
    notifier.stop()
    assert task.join(PATIENCE)

    assert future.result() == "first"


def test_what_is_asked_for_after_the_end_is_done_on_the_asking_thread():
    notifier, task = started()
    notifier.stop()
    assert task.join(PATIENCE)
    future = RaftFuture(RUNTIME)

    notifier.resolve(future, 1)

    assert future.result() == 1


def test_abandoning_a_stuck_thread_finishes_what_it_still_had_and_it_ends_when_the_callback_does():
    notifier, task = started()
    entered, leave = threading.Event(), threading.Event()
    stuck, behind = RaftFuture(RUNTIME), RaftFuture(RUNTIME)
    stuck.add_done_callback(lambda _: (entered.set(), leave.wait(PATIENCE)))
    notifier.resolve(stuck, 1)
    notifier.resolve(behind, 2)
    notifier.stop()
    assert entered.wait(PATIENCE)

    notifier.abandon()

    assert behind.result() == 2
    leave.set()
    assert task.join(PATIENCE)
