"""Real time, threads and chance inside a simulation are refused, and what hangs is reported."""

from __future__ import annotations

import _thread
import gc
import importlib
import logging
import os
import queue
import random
import re
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest

from pyraft.runtime import ThreadRuntime
from pyraft.testing import KvFsm, SimCluster, SimulationError
from pyraft.testing.sim_kv import encode_command
from pyraft.testing.sim_runtime import Scheduler, SimTask

HERE = Path(__file__).name
OUTSIDE = queue.SimpleQueue(), queue.Queue(), threading.Lock(), threading.Event()


def run(work):
    """Let one task do ``work``."""
    scheduler = Scheduler(1)
    scheduler.spawn("worker", work)
    scheduler.sleep(1.0)
    assert not scheduler.tasks()


MISUSES = {
    "time.time": (lambda: time.time(), "log.appended_at"),
    "time.time_ns": (lambda: time.time_ns(), "log.appended_at"),
    "time.monotonic": (lambda: time.monotonic(), "Runtime.now()"),
    "time.localtime": (lambda: time.localtime(), "log.appended_at"),
    "time.sleep": (lambda: time.sleep(0), "blocks the whole simulation"),
    "threading.Lock": (lambda: threading.Lock().acquire(), "the Runtime (spawn, lock"),
    "threading.RLock": (lambda: threading.Condition(), "the Runtime (spawn, lock"),
    "threading.Thread.start": (lambda: threading.Thread.start(OUTSIDE), "the Runtime (spawn, lock"),
    "threading.Event.wait": (lambda: OUTSIDE[3].wait(0), "blocks the whole simulation"),
    "queue.SimpleQueue": (lambda: queue.SimpleQueue(), "the Runtime (spawn, lock"),
    "queue.Queue.get": (lambda: OUTSIDE[1].get(False), "the Runtime (spawn, lock"),
    "random.random": (lambda: random.random(), "Runtime.random()"),
    "random.shuffle": (lambda: random.shuffle([]), "Runtime.random()"),
    "random.Random.seed": (lambda: random.Random(), "Runtime.random()"),
    "random.urandom": (lambda: random.SystemRandom().random(), "Runtime.random()"),
    "os.urandom": (lambda: os.urandom(1), "Runtime.random()"),
    "uuid.uuid1": (lambda: uuid.uuid1(), "Runtime.random()"),
    "uuid.uuid4": (lambda: uuid.uuid4(), "Runtime.random()"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_simulated_thread_is_told_what_it_must_not_do(name):
    misuse, advice = MISUSES[name]
    line = misuse.__code__.co_firstlineno

    with pytest.raises(SimulationError) as caught:
        run(misuse)

    if name == "uuid.uuid4":
        name = "(uuid.uuid4|os.urandom)"
    text = str(caught.value)
    assert re.match(rf"{name}\(\) was called inside a simulation, at .*{HERE}:{line} in <lambda>: ", text)
    assert advice in text


def test_it_is_refused_even_where_the_code_catches_every_exception():
    def swallow():
        try:
            time.sleep(0)
        except Exception:
            pass

    with pytest.raises(SimulationError, match=r"time\.sleep"):
        run(swallow)


@pytest.mark.parametrize("misuse", [time.time, monotonic, random.random, ThreadRuntime().now])
def test_a_state_machine_must_not_use_them(misuse):
    calls = {
        time.time: lambda: time.time(),
        monotonic: lambda: monotonic(),
        random.random: lambda: random.random(),
    }
    call = calls.get(misuse, misuse)

    class Bad(KvFsm):
        def apply(self, log):
            call()
            return super().apply(log)

    with SimCluster(servers=1, seed=1, fsm=Bad) as cluster, pytest.raises(SimulationError) as caught:
        cluster.apply(encode_command("x", ("put", "1")))

    place = "runtime.py" if call is misuse else HERE
    assert f"{place}:" in str(caught.value)
    assert "inside a simulation" in str(caught.value)


def test_what_needs_them_for_itself_may_use_them(tmp_path, monkeypatch):
    def innocent():
        logging.getLogger("tests.sim").warning("with a time of its own: %s", 1)
        random.Random(7).random()
        time.localtime(0)
        time.gmtime(0)
        OUTSIDE[0].put(1)
        datetime.now(UTC)  # cannot be seen
        importlib.import_module("fresh_with_a_lock")

    (tmp_path / "fresh_with_a_lock.py").write_text("import threading\nlock = threading.Lock()\n")
    monkeypatch.syspath_prepend(tmp_path)
    run(innocent)


def test_other_threads_of_the_process_do_not_notice():
    found = []

    def work():
        found.append(time.time() > 0)
        found.append(isinstance(threading.Lock(), type(threading.Lock())))
        time.sleep(0)
        with threading.Condition():
            found.append(random.random() < 1)
        box = queue.SimpleQueue()
        found.append(isinstance(box, queue.SimpleQueue))
        found.append(issubclass(type(box), queue.SimpleQueue))

        class Own(queue.SimpleQueue):
            pass

        Own().put(1)

    begin, ended = threading.Event(), threading.Event()

    def wait_and_work():
        begin.wait(10)
        try:
            work()
        except BaseException as error:
            found.append(error)
        ended.set()

    thread = threading.Thread(target=wait_and_work)
    thread.start()

    class Patient:
        """Blocks the simulation until the real thread is through, where no guard looks."""

        def __init__(self):
            self.flags = begin.set, ended.is_set

        def __call__(self):
            self.flags[0]()
            while not self.flags[1]():
                os.sched_yield()

    run(Patient())
    thread.join()
    assert found == [True] * 5


def test_nothing_is_guarded_outside_of_a_run():
    before = time.time, threading.Lock, threading.Thread.start, random.random, monotonic
    cluster = SimCluster(servers=1, seed=1, fsm=KvFsm)
    cluster.run(1)
    with pytest.raises(SimulationError):
        run(lambda: time.time())

    assert before == (time.time, threading.Lock, threading.Thread.start, random.random, monotonic)
    assert not hasattr(time.time, "__wrapped__")
    cluster.close()


def test_a_stand_in_that_a_test_put_there_stays(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 7.0)
    said = []

    run(lambda: said.append(time.time()))

    assert said == [7.0]


# -- what the guards cannot see ------------------------------------------------------------------


def hang(work):
    scheduler = Scheduler(1)
    scheduler.patience = 0.2
    scheduler.spawn("bystander", lambda: scheduler.sleep(1000))
    scheduler.sleep(1)
    scheduler.spawn("hanging", work)
    with pytest.raises(SimulationError) as caught:
        scheduler.sleep(10)
    scheduler.kill(scheduler.world)
    return str(caught.value)


def loop_for_ever():
    while True:
        pass


def test_a_task_that_loops_without_end_is_reported():
    before = threading.active_count()

    text = hang(loop_for_ever)

    assert (
        "blocked outside the simulation's control: hanging has not taken a step for 0.2 real seconds" in text
    )
    assert "in loop_for_ever" in text
    assert "--- bystander (waiting)" in text
    for thread in threading.enumerate():
        if thread.name == "pyraft-sim-worker" and threading.active_count() > before + 2:
            thread.join(0.5)
    assert threading.active_count() <= before + 2


def test_a_task_that_waits_for_a_real_lock_is_reported():
    lock = threading.Lock()
    lock.acquire()

    def wait_for_it():
        with lock:
            pass

    assert "in wait_for_it" in hang(wait_for_it)
    lock.release()


def test_a_cluster_with_a_state_machine_that_hangs_says_so_and_can_be_closed():
    class Endless(KvFsm):
        def apply(self, log):
            loop_for_ever()

    with SimCluster(servers=1, seed=1, fsm=Endless) as cluster:
        cluster.scheduler.patience = 0.3
        with pytest.raises(SimulationError, match=r"(?s)-fsm.*has not taken a step.*in loop_for_ever"):
            cluster.apply(encode_command("x", ("put", "1")))


def test_ctrl_c_ends_a_run_at_its_next_step():
    scheduler = Scheduler(1)

    def work():
        _thread.interrupt_main()
        while True:
            scheduler.sleep(1.0)

    scheduler.spawn("worker", work)
    with pytest.raises(KeyboardInterrupt):
        scheduler.sleep(1000)
    scheduler.kill(scheduler.world)


def test_a_stranger_must_not_use_the_simulation():
    cluster = SimCluster(servers=1, seed=1)
    errors = []

    def use():
        try:
            cluster.run(1)
        except SimulationError as error:
            errors.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    cluster.close()

    assert "a thread that the simulation does not know" in errors[0]


def test_many_clusters_do_not_pile_up_threads_or_memory():
    def live(seed):
        with SimCluster(servers=2, seed=seed) as cluster:
            cluster.client()
            cluster.run(0.2)

    def tasks():
        gc.collect()
        return sum(isinstance(thing, SimTask) for thing in gc.get_objects())

    live(0)
    threads, objects = threading.active_count(), tasks()
    for seed in range(1, 50):
        live(seed)

    assert threading.active_count() <= threads + 10
    assert tasks() <= objects + 10
