"""The simulator's transport keeps the promises of a real one, in the simulator's time and threads."""

from __future__ import annotations

import importlib
import threading
from queue import Empty
from types import SimpleNamespace

import pytest

from pyraft.testing import check_transport
from pyraft.testing.sim_network import SimNetwork, SimTransport
from pyraft.testing.sim_runtime import Group, Scheduler, SimRuntime

# By its full name: the package exports the function under the same one.
checks = importlib.import_module("pyraft.testing.check_transport")


class SimQueue:
    """queue.SimpleQueue, for threads of one simulation."""

    runtime: SimRuntime

    def __init__(self):
        self.inbox = self.runtime.inbox("check")

    def put(self, value):
        self.inbox.put((value,))

    def get(self, timeout):
        found = self.inbox.take(self.runtime.now() + timeout)
        if found is None:
            raise Empty
        return found[0]


class SimEvent:
    """threading.Event, looked at every millisecond."""

    runtime: SimRuntime

    def __init__(self):
        self.happened = False

    def set(self):
        self.happened = True

    def clear(self):
        self.happened = False

    def is_set(self):
        return self.happened

    def wait(self, timeout):
        deadline = self.runtime.now() + timeout
        while not self.happened and self.runtime.now() < deadline:
            self.runtime.sleep(0.001)
        return self.happened


class SimThread:
    runtime: SimRuntime

    def __init__(self, target, args=(), daemon=True, name="check"):
        self.run = lambda: target(*args)

    def start(self):
        self.runtime.scheduler.spawn("check", self.run)


@pytest.fixture
def scheduler(monkeypatch):
    """A simulation in which the checks' own threads live, too."""
    scheduler = Scheduler(seed=1)
    runtime = SimRuntime(scheduler)
    for kind in (SimQueue, SimEvent, SimThread):
        monkeypatch.setattr(kind, "runtime", runtime, raising=False)
    known = threading.enumerate  # simulated threads run on pooled ones, which never end
    monkeypatch.setattr(
        checks,
        "threading",
        SimpleNamespace(
            Thread=SimThread,
            Event=SimEvent,
            enumerate=lambda: [thread for thread in known() if thread.name != "pyraft-sim-worker"],
        ),
    )
    monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=runtime.now, sleep=runtime.sleep))
    monkeypatch.setattr(checks, "SimpleQueue", SimQueue)
    yield scheduler
    scheduler.kill(scheduler.world)


@pytest.mark.parametrize("promise", checks.PROMISES, ids=lambda promise: promise.__name__)
def test_it_keeps_every_promise(promise, scheduler, monkeypatch):
    monkeypatch.setattr(checks, "PROMISES", (promise,))

    def pair():
        network = SimNetwork(scheduler, [])
        network.conditions.knows_of_breaks = 1.0
        network.snapshot_chunk_bytes = 65536
        return [SimTransport(network, SimRuntime(scheduler, Group(id)), f"{id}:1") for id in ("a", "b")]

    check_transport(pair)
