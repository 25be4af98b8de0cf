"""Stories of a state that is replaced from outside, each a few virtual seconds long."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest

from pyraft.config import Config
from pyraft.configuration import Configuration
from pyraft.errors import CorruptStoreError, LeadershipLostError, ReadTimeoutError
from pyraft.snapshots import SnapshotMeta
from pyraft.testing import SimCluster
from pyraft.testing.adversaries import TwoLogs
from pyraft.testing.faults import DamagedSnapshot, LostDisk
from pyraft.testing.restore_faults import Restores, restore
from pyraft.testing.sim_kv import encode_command

QUICK = Config(heartbeat_timeout=0.2, election_timeout=0.2, leader_lease_timeout=0.1)
OUTSIDE = json.dumps({"x": "outside"}).encode()


@pytest.fixture
def start():
    clusters = []

    def start_cluster(*args, config=QUICK, **kwargs):
        clusters.append(SimCluster(*args, config=config, **kwargs))
        return clusters[-1]

    yield start_cluster
    for cluster in clusters:
        cluster.close()


def put(cluster, key, value):
    return cluster.apply(encode_command(key, ("put", value)))


def get(cluster, key):
    return cluster.apply(encode_command(key, ("get",)))


def others(cluster, *servers):
    return [server for server in cluster.servers.values() if server not in servers]


@pytest.mark.parametrize("seed", range(3))
def test_clients_see_a_restore_as_one_write_of_every_key(start, seed):
    cluster = start(servers=3, seed=seed)
    cluster.client(rate=50, keys=3)
    cluster.client(rate=50, keys=3)
    cluster.run(1)

    for number in range(3):
        reply = restore(
            cluster, cluster.leader(), json.dumps({"k0": f"outside {number}"}).encode(), number * 100
        )
        assert reply.error is None
        cluster.run(0.5)

    cluster.check()
    assert cluster.judge.coverage["state restored from outside"] == 3


def test_the_judge_misses_a_restore_that_clients_saw_and_nobody_made(start):
    cluster = start(servers=1, seed=1)
    cluster.client(rate=50, keys=1)
    cluster.run(1)
    restore(cluster, cluster.leader(), json.dumps({"k0": "outside"}).encode())
    cluster.run(1)
    cluster.restores.clear()

    with pytest.raises(AssertionError, match="no order explains"):
        cluster.check()


def strand(cluster, old):
    """Let ``old`` restore a state that only it has, and the others go on without."""
    cluster.partition([old])
    reply = restore(cluster, old, OUTSIDE, index=50)
    assert isinstance(reply.error, LeadershipLostError)
    assert old.fsm.data == {"x": "outside"}
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    put(cluster, "y", "2")


def test_a_leader_that_is_lost_with_its_restore_says_so_and_stops_when_it_meets_the_others(start):
    cluster = start(servers=3, seed=2)
    put(cluster, "y", "1")
    old = cluster.leader()
    strand(cluster, old)

    cluster.heal()
    cluster.run_until(lambda: not old.is_serving)

    assert isinstance(old.raft.failure, CorruptStoreError)
    assert "from outside" in str(old.raft.failure)
    assert get(cluster, "y") == "2"
    cluster.check()  # whose disk is replaced
    assert old.fsm.data == {"y": "2"}
    assert cluster.judge.coverage["stopped by a snapshot from outside"] == 1


def test_it_serves_no_reads_meanwhile(start):
    cluster = start(servers=3, seed=3)
    put(cluster, "y", "1")
    old = cluster.leader()
    strand(cluster, old)
    # Heartbeats reach it, entries do not.
    cluster.scheduler.hold("streams", lambda task: task.name.endswith(f"-repl-{old.id}"))
    cluster.heal()
    cluster.run_until(lambda: old.raft.leader_id == cluster.current_leader().id != old.id)

    assert isinstance(old.raft.read_index(1.0).exception(5), ReadTimeoutError)

    cluster.scheduler.unhold("streams")
    cluster.check()


@pytest.mark.parametrize("fault", [Restores(), LostDisk(), DamagedSnapshot()], ids=lambda fault: fault.name)
def test_no_operator_loses_a_second_server_while_one_stands_on_a_lost_restore(start, fault):
    cluster = start(servers=3, seed=7)
    put(cluster, "y", "1")
    old = cluster.leader()
    strand(cluster, old)
    assert cluster.judge.is_lost(old)

    fault.begin(cluster, random.Random(1))
    for number in range(10):
        fault.strike(cluster, random.Random(number))
        cluster.run(2.0)
        fault.relent(cluster, random.Random(number))

    assert [server for server in cluster.servers.values() if cluster.judge.is_lost(server)] == [old]
    assert len(cluster.restores) == 1
    assert cluster.judge.coverage.get("disk wiped", 0) == 0
    cluster.heal()
    cluster.run_until(lambda: not old.is_serving)
    cluster.revive(old)
    assert cluster.judge.is_lost(old)  # its disk is empty
    cluster.run_until(lambda: not cluster.judge.is_lost(old))
    restore(cluster, cluster.leader(), OUTSIDE)
    assert len(cluster.restores) == 2
    cluster.check()


def test_who_gave_up_rightly_is_not_blamed_when_the_snapshot_is_committed_after_all(start, monkeypatch):
    """Of two servers that stand on it, one met the others' leader, and the other was elected later."""
    cluster = start(servers=3, seed=8)
    put(cluster, "y", "1")
    old = cluster.leader()
    strand(cluster, old)
    cluster.heal()
    cluster.run_until(lambda: not old.is_serving)

    monkeypatch.setattr(cluster.judge.restores, "is_stranded", lambda *args: False)
    cluster.revive(old)
    cluster.check()
    assert cluster.judge.coverage["stopped by a snapshot from outside"] == 1


def test_no_majority_is_made_to_take_what_figure_8_takes_back_while_that_is_a_snapshot(start):
    cluster = start(servers=5, seed=9)
    cluster.client(rate=50, keys=3)
    cluster.run(1)
    strand(cluster, cluster.leader())
    lives = [server.incarnation for server in cluster.servers.values()]
    fault = TwoLogs()
    fault.begin(cluster, random.Random(1))
    for number in range(5):
        fault.strike(cluster, random.Random(number))
        cluster.run(2.0)
        fault.relent(cluster, random.Random(number))
        cluster.partition([one for one in cluster.servers.values() if cluster.judge.is_lost(one)])

    assert [server.incarnation for server in cluster.servers.values()] == lives
    cluster.heal()
    cluster.check()


def overtake(cluster):
    """A leader's restore becomes durable at a follower only after that one follows another leader."""
    put(cluster, "y", "1")
    old = cluster.leader()
    slow, third = others(cluster, old)
    cluster.partition([third])
    cluster.slow_disk(slow, 5.0)
    old.raft.restore(*outside(OUTSIDE))
    cluster.run_until(lambda: slow.disk.closing)
    cluster.slow_disk(slow, 0.0)
    cluster.partition([old])
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    put(cluster, "y", "2")
    assert slow.disk.closing
    cluster.run_until(lambda: not slow.disk.closing)
    cluster.run(1)
    assert slow.disk.snapshots
    return slow, third


def outside(state):
    return SnapshotMeta("outside", 0, 1, Configuration(), 0, len(state)), io.BytesIO(state)


def test_a_restore_that_was_overtaken_while_it_travelled_does_not_take_a_restart_back(start):
    cluster = start(servers=3, seed=4)
    slow, _ = overtake(cluster)

    cluster.restart(slow)

    assert slow.raft.last_index > 4  # what it has acknowledged
    assert get(cluster, "y") == "2"
    cluster.check()


def test_such_a_snapshot_is_sent_to_nobody(start):
    cluster = start(servers=3, seed=5, config=replace(QUICK, trailing_logs=0))
    put(cluster, "y", "0")
    for server in cluster.servers.values():
        cluster.run_until(lambda s=server: s.raft.applied_index == cluster.leader().raft.last_index)
        server.raft.snapshot().result(5)
    slow, _ = overtake(cluster)
    while cluster.leader() is not slow:
        cluster.leader().raft.leadership_transfer(slow.id).exception(5)
    put(cluster, "z", "3")
    new = cluster.add_server()

    slow.raft.add_nonvoter(new.id, new.address).result(5)

    cluster.run_until(lambda: new.fsm.data == {"y": "2", "z": "3"}, 20)
