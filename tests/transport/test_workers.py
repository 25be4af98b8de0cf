"""The executor under gRPC's server."""

import threading
import time
from queue import SimpleQueue

import pytest

from pyraft.runtime import ThreadRuntime
from pyraft.transport.workers import Workers


@pytest.fixture
def make():
    made = []

    def make(**options):
        made.append(Workers(ThreadRuntime(), "test-workers", **{"limit": 4, **options}))
        return made[-1]

    yield make
    for workers in made:
        workers.shutdown(wait=False)
        assert workers.join(10)


def running():
    return [t for t in threading.enumerate() if t.name.startswith("test-workers")]


def test_results_and_exceptions_are_delivered(make):
    workers = make()
    assert workers.submit(lambda a, b: a + b, 1, b=2).result(10) == 3
    with pytest.raises(ZeroDivisionError):
        workers.submit(lambda: 1 / 0).result(10)


def test_threads_are_made_when_all_are_busy_up_to_the_limit(make):
    workers, gate, started = make(limit=3), threading.Event(), SimpleQueue()
    jobs = [workers.submit(lambda: (started.put(1), gate.wait(10))) for _ in range(8)]
    for _ in range(3):
        started.get(timeout=10)
    assert len(running()) == 3
    assert started.empty()
    gate.set()
    for job in jobs:
        job.result(10)


def test_one_thread_does_what_comes_one_after_the_other(make):
    workers = make()
    names = set()
    for _ in range(20):
        names.add(workers.submit(lambda: threading.current_thread().name).result(10))
        # The result is out just before the thread is free.
        deadline = time.monotonic() + 10
        while not workers._idle:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert len(names) == 1


def test_idle_threads_end(make):
    workers = make(idle_seconds=0.01)
    workers.submit(int).result(10)
    deadline = time.monotonic() + 10
    while running():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert workers.submit(int).result(10) == 0


def test_many_submitters_while_threads_come_and_go(make):
    workers, results = make(idle_seconds=0.0005, limit=3), SimpleQueue()

    def submit():
        for number in range(200):
            results.put(workers.submit(lambda number=number: number).result(10) == number)

    submitters = [threading.Thread(target=submit, daemon=True) for _ in range(6)]
    for submitter in submitters:
        submitter.start()
    assert all(results.get(timeout=10) for _ in range(6 * 200))


def test_shutdown_ends_idle_and_busy_threads(make):
    workers, gate = make(), threading.Event()
    workers.submit(gate.wait, 10)
    workers.submit(int).result(10)
    workers.shutdown(wait=False)
    with pytest.raises(RuntimeError):
        workers.submit(int)
    gate.set()
    assert workers.join(10)
    assert not running()
