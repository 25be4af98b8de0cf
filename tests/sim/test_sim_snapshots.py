"""Snapshots between simulated servers: what takes how long, and what becomes of them when things break.

The virtual clock measures the promises about time, which ``transport/snapshot_stream.py`` keeps for
every transport.
"""

from __future__ import annotations

from io import BytesIO

import pytest

from pyraft.configuration import Configuration, Server
from pyraft.errors import RaftError, TransportError
from pyraft.messages import InstallSnapshotRequest, InstallSnapshotResponse, RpcHeader
from pyraft.testing import check_snapshot_store
from pyraft.testing.sim_disk import SimDisk
from pyraft.testing.sim_network import SimNetwork, SimTransport
from pyraft.testing.sim_runtime import Group, Scheduler, SimRuntime
from pyraft.testing.sim_snapshots import SimSnapshotStore
from pyraft.transport.snapshot_stream import PATIENCE_SECONDS

MEMBERS = Configuration.of_voters({"a": "a:1", "b": "b:1"})
ANSWER = InstallSnapshotResponse(RpcHeader("b", "b:1"), 7, True)
DATA = bytes(range(256)) * 40


def test_it_keeps_the_promises_of_a_store(tmp_path):
    scheduler = Scheduler(seed=1)
    disks = {}

    def reopen(path):
        disk = disks.setdefault(path, SimDisk(scheduler, "n1"))
        return SimSnapshotStore(disk, SimRuntime(scheduler, Group("n1")))

    check_snapshot_store(reopen, tmp_path)


class Receiving:
    """A server that reads snapshots, ``pause`` seconds after each piece."""

    def __init__(self, runtime, pause=0.0, pause_at_end=0.0, reads=10**9):
        self.runtime = runtime
        self.pause, self.pause_at_end, self.reads = pause, pause_at_end, reads
        self.outcomes = []

    def receive(self, rpc):
        rpc.respond(TransportError("nothing else was expected"))

    def receive_snapshot(self, request, source):
        data = b""
        try:
            for _ in range(self.reads):
                piece = source.read(1000)
                if not piece:
                    break
                data += piece
                self.runtime.sleep(self.pause)
            self.runtime.sleep(self.pause_at_end)
        except TransportError as error:
            self.outcomes.append(error)
            raise
        self.outcomes.append((request, data))
        return ANSWER


class World:
    """Two servers, of which ``a`` sends."""

    def __init__(self, seed=1, **receiving):
        self.scheduler = Scheduler(seed)
        self.network = SimNetwork(self.scheduler)
        self.a, self.b = Group("a"), Group("b")
        runtime_b = SimRuntime(self.scheduler, self.b)
        self.sender = SimTransport(self.network, SimRuntime(self.scheduler, self.a), "a:1")
        self.receiver = SimTransport(self.network, runtime_b, "b:1")
        self.handler = Receiving(runtime_b, **receiving)
        self.receiver.serve(self.handler)
        self.is_over = False
        self.outcome = None
        self.took = None

    def send(self, data=DATA, timeout=1.0, size=None, source=None):
        """Begin to send; ``outcome`` and ``took`` say how it ended."""
        source = BytesIO(data) if source is None else source
        header = RpcHeader("a", "a:1")
        self.request = InstallSnapshotRequest(
            header, 7, 42, 6, MEMBERS, 1, len(data) if size is None else size
        )

        def run():
            began = self.scheduler.time
            try:
                self.outcome = self.sender.install_snapshot(
                    Server("b", "b:1"), self.request, source, timeout, lambda: self.is_over
                )
            except RaftError as error:
                self.outcome = error
            self.took = self.scheduler.time - began

        self.scheduler.spawn("sender", run, self.a, is_ours=True)
        return self

    def after(self, seconds):
        self.scheduler.sleep(seconds)
        return self


def test_the_bytes_arrive_in_order_and_the_answer_comes_back():
    world = World().send().after(5)
    assert world.outcome == ANSWER
    assert world.handler.outcomes == [(world.request, DATA)]


def test_an_empty_snapshot_arrives():
    world = World().send(b"").after(5)
    assert world.outcome == ANSWER
    assert world.handler.outcomes == [(world.request, b"")]


@pytest.mark.parametrize("seed", range(30))
def test_messages_that_are_lost_late_or_doubled_never_make_another_snapshot(seed):
    world = World(seed)
    conditions = world.network.conditions
    conditions.loss, conditions.duplication, conditions.lateness = 0.005, 0.2, 0.01
    world.send().after(60)
    assert world.outcome == ANSWER or isinstance(world.outcome, TransportError)
    for outcome in world.handler.outcomes:
        assert isinstance(outcome, TransportError) or outcome == (world.request, DATA)
    if world.outcome == ANSWER:
        assert world.handler.outcomes == [(world.request, DATA)]


def test_equal_seeds_give_equal_runs():
    def digest():
        world = World(seed=5)
        world.network.conditions.loss = 0.01
        return world.send().after(60).scheduler.digest

    assert digest() == digest()


# ── time ──


def test_a_slow_receiver_is_given_all_the_time_it_needs():
    world = World(pause=0.9).send(timeout=1.0).after(200)  # 40 pieces
    assert world.outcome == ANSWER
    assert world.took > 30


def test_a_receiver_that_reads_nothing_is_given_the_timeout():
    world = World(pause=100.0).send(timeout=3.0).after(20)
    assert "took no bytes for 3 s" in str(world.outcome)
    assert 3.0 <= world.took < 3.5


def test_an_answer_may_come_ten_timeouts_after_the_last_byte():
    assert World(pause_at_end=29.0).send(timeout=3.0).after(40).outcome == ANSWER
    world = World(pause_at_end=31.0).send(timeout=3.0).after(40)
    assert "no answer within 30 s" in str(world.outcome)


@pytest.mark.parametrize("receiving", [{"pause": 100.0}, {"pause_at_end": 100.0}])
def test_what_is_over_ends_within_a_moment(receiving):
    world = World(**receiving).send(timeout=60.0).after(1.0)
    assert world.outcome is None
    world.is_over = True
    world.after(0.2)
    assert "no longer wanted" in str(world.outcome)


def test_a_sender_that_falls_silent_is_given_up():
    world = World().send(timeout=1000.0)
    world.network.conditions.knows_of_breaks = 0.0
    world.after(0.005)
    world.network.partition(["a:1"])
    world.after(PATIENCE_SECONDS - 1)
    assert world.handler.outcomes == []
    world.after(2)
    (outcome,) = world.handler.outcomes
    assert f"nothing came for {PATIENCE_SECONDS:g} s" in str(outcome)


# ── what breaks ──


def test_a_source_that_ends_early_is_no_snapshot():
    world = World().send(size=len(DATA) + 1).after(5)
    assert "ends before" in str(world.outcome)
    (outcome,) = world.handler.outcomes
    assert isinstance(outcome, TransportError)


def test_a_partition_breaks_a_snapshot_on_both_sides():
    world = World()
    world.network.conditions.knows_of_breaks = 1.0
    world.send(timeout=1000.0).after(0.005)
    world.network.partition(["a:1"])
    world.after(5)
    assert "reset" in str(world.outcome)
    (outcome,) = world.handler.outcomes
    assert "reset" in str(outcome)


def test_the_receiver_s_crash_ends_it_for_the_sender():
    world = World(pause=0.01)
    world.network.conditions.knows_of_breaks = 1.0
    world.send(timeout=1000.0).after(0.1)
    world.scheduler.kill(world.b)
    world.network.reset_connections("b:1")
    world.after(2)
    assert "reset" in str(world.outcome)
    assert world.handler.outcomes == []


class Stuck(BytesIO):
    """A source on a disk that hangs once it has been read to its end."""

    def __init__(self, data, runtime):
        super().__init__(data)
        self.runtime = runtime

    def read(self, size=-1):
        data = super().read(size)
        if not data:
            self.runtime.sleep(10**6)
        return data


def test_the_sender_s_crash_ends_it_for_the_receiver():
    world = World()
    world.network.conditions.knows_of_breaks = 1.0
    source = Stuck(DATA, world.sender.runtime)
    world.send(timeout=1000.0, size=len(DATA) + 1, source=source).after(5)
    assert world.handler.outcomes == []
    world.scheduler.kill(world.a)
    world.network.reset_connections("a:1")
    world.after(1)
    (outcome,) = world.handler.outcomes
    assert isinstance(outcome, TransportError)
    assert world.outcome is None


@pytest.mark.parametrize("end", ["sender", "receiver"])
def test_a_transport_that_closes_ends_its_side_at_once_and_the_other_in_time(end):
    world = World()
    world.network.conditions.knows_of_breaks = 0.0
    source = Stuck(DATA, world.sender.runtime) if end == "receiver" else None
    world.send(timeout=10.0, size=len(DATA) + 1, source=source).after(0.01)
    world.scheduler.spawn("close", getattr(world, end).close, is_ours=True)
    world.after(1)
    (outcome,) = world.handler.outcomes
    assert isinstance(outcome, TransportError)
    assert end == "receiver" or isinstance(world.outcome, TransportError)
    assert not world.scheduler.tasks(world.b)


def test_a_server_that_answers_early_stops_the_sender():
    world = World(reads=2).send(DATA * 100).after(5)
    assert world.outcome == ANSWER
    assert world.network.counts["sent"] < 60
