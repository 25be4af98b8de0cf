"""Stories of a cluster's life, each a few virtual seconds long."""

from __future__ import annotations

import pytest

from pyraft.errors import ConfigError
from pyraft.testing import KvFsm, SimCluster
from pyraft.testing.sim_kv import encode_command


@pytest.fixture
def start():
    clusters = []

    def start_cluster(*args, **kwargs):
        clusters.append(SimCluster(*args, **kwargs))
        return clusters[-1]

    yield start_cluster
    for cluster in clusters:
        cluster.close()


def put(cluster, key, value):
    return cluster.apply(encode_command(key, ("put", value)))


def get(cluster, key):
    return cluster.apply(encode_command(key, ("get",)))


@pytest.mark.parametrize("servers", [1, 2, 3, 5])
def test_a_cluster_elects_a_leader_and_applies_commands(start, servers):
    cluster = start(servers=servers, seed=servers)

    put(cluster, "x", "1")

    assert get(cluster, "x") == "1"
    cluster.check()


def test_what_was_acknowledged_survives_a_power_cut_of_every_server(start):
    cluster = start(servers=3, seed=1)
    put(cluster, "x", "1")

    for server in cluster.servers:
        cluster.crash(server, power_loss=True)
    for server in cluster.servers:
        cluster.restart(server)

    assert get(cluster, "x") == "1"
    cluster.check()


def test_a_leader_that_is_cut_off_steps_down_and_what_it_appended_alone_is_replaced(start):
    cluster = start(servers=5, seed=2)
    put(cluster, "x", "old")
    old = cluster.leader()

    cluster.partition([old])
    lonely = old.raft.apply(encode_command("x", ("put", "lost")))
    cluster.run(5)
    new = cluster.leader()
    put(cluster, "x", "new")

    assert new is not old
    assert old.raft.state.value != "Leader"
    assert "LeadershipLost" in type(lonely.exception(1)).__name__
    cluster.heal()
    cluster.check()
    assert cluster.judge.coverage["uncommitted suffix replaced"] == 1


def test_a_frozen_leader_is_replaced_and_follows_when_it_wakes(start):
    cluster = start(servers=3, seed=3)
    old = cluster.leader()

    cluster.freeze(old)
    cluster.run_until(
        lambda: any(s is not old and s.raft.state.value == "Leader" for s in cluster.servers.values())
    )
    put_through = cluster.current_leader()
    cluster.thaw(old)
    cluster.run_until(lambda: old.raft.leader_id == put_through.id)

    cluster.check()


def test_a_server_with_a_new_disk_comes_back_and_catches_up(start):
    cluster = start(servers=3, seed=4)
    put(cluster, "x", "1")
    victim = next(s for s in cluster.servers.values() if s is not cluster.leader())

    cluster.wipe(victim)
    cluster.restart(victim)
    cluster.run_until(lambda: victim.raft and victim.raft.applied_index >= 3)

    assert victim.fsm.data == {"x": "1"}
    cluster.check()


def test_a_server_with_a_new_disk_asks_again_when_it_crashed_before_it_had_heard_all(start):
    cluster = start(servers=3, seed=4)
    leader = cluster.leader()
    victim, other = (s for s in cluster.servers.values() if s is not leader)

    cluster.wipe(victim)
    cluster.partition([victim.id], [leader.id, other.id])
    cluster.restart(victim)
    cluster.run(1)
    cluster.crash(victim, power_loss=True)
    cluster.restart(victim)
    cluster.freeze(leader)
    cluster.heal()
    cluster.run(5)  # what it promised in its former life is not known as long as the leader says nothing

    assert other.raft.state.value == "Candidate"
    cluster.thaw(leader)
    cluster.check()


def test_a_disk_that_stalls_causes_a_failover(start):
    cluster = start(servers=3, seed=5)
    old = cluster.leader()

    cluster.slow_disk(old, 10.0)
    old.raft.apply(encode_command("x", ("put", "1")))
    cluster.run_until(lambda: cluster.leader() is not old, timeout=8)

    cluster.slow_disk(old, 0.0)
    cluster.check()


def test_clients_see_a_linearizable_store(start):
    cluster = start(servers=3, seed=6)
    for _ in range(4):
        cluster.client(rate=20)

    cluster.run(3)
    cluster.crash(cluster.leader())
    cluster.run(5)

    cluster.check()
    assert len(cluster.history) > 50


def test_the_judge_finds_a_state_machine_that_is_not_deterministic(start):
    made = []

    class Sloppy(KvFsm):
        def __init__(self):
            super().__init__()
            made.append(self)

        def apply(self, log):
            result = super().apply(log)
            if made.index(self) == 2:
                self.data["x"] = "mine"
            return result

    cluster = start(servers=3, seed=7, fsm=Sloppy)
    put(cluster, "x", "1")

    with pytest.raises(AssertionError, match=r"I5: the states of n\d and n\d differ"):
        cluster.check()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"servers": 0}, "servers=0"),
        ({"seed": "seven"}, "seed='seven'"),
        ({"fsm": int}, "not an instance of a subclass of pyraft.FSM"),
        ({"fsm": lambda: 1 / 0}, "cannot be built"),
        ({"faults": ["crash"]}, "'crash' is not a Fault"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, text):
    with pytest.raises(ConfigError, match=text):
        SimCluster(**arguments)
