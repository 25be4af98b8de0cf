"""Stories of clusters that lose a majority for good and are brought back from one server."""

from __future__ import annotations

import pytest

from pyraft.config import Config
from pyraft.configuration import Suffrage
from pyraft.testing import SimCluster
from pyraft.testing.recovering import LostMajority, recover
from pyraft.testing.sim_kv import encode_command

QUICK = Config(heartbeat_timeout=0.2, election_timeout=0.2, leader_lease_timeout=0.1)


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


@pytest.mark.parametrize("cuts", [(), (0.0005,), (0.001, 0.002)])
def test_one_server_is_left_and_the_cluster_grows_again_from_it(start, cuts):
    cluster = start(servers=3, seed=1)
    cluster.client(rate=20, keys=3)
    put(cluster, "x", "1")

    left = recover(cluster, cuts)

    assert get(cluster, "x") == "1"
    assert cluster.judge.members.servers == (cluster.judge.members.find(left.id),)
    for server in cluster.servers.values():
        if server is not left:
            left.raft.add_voter(server.id, server.address).result(10)
    put(cluster, "x", "2")
    cluster.crash(left)  # the others are a majority
    assert get(cluster, "x") == "2"
    cluster.check()
    assert all(server.suffrage is Suffrage.VOTER for server in cluster.judge.members.servers)


def test_what_only_the_server_that_is_left_had_in_its_log_is_committed(start):
    cluster = start(servers=3, seed=2)
    put(cluster, "x", "1")
    leader = cluster.leader()
    cluster.partition([leader])
    leader.raft.apply(encode_command("x", ("put", "2")))
    cluster.run_until(lambda: leader.disk.last_index == leader.raft.last_index > leader.raft.commit_index)

    left = recover(cluster)

    assert left is leader
    cluster.heal()
    assert get(cluster, "x") == "2"
    cluster.check()


def test_nobody_starts_a_server_while_the_operator_works(start):
    cluster = start(servers=3, seed=3, faults=[LostMajority(1.0, 0.5)])
    cluster.client(rate=50)
    for _ in range(40):
        cluster.run(0.1)
        cluster.revive_all()

    cluster.check()
    assert cluster.judge.coverage["majority lost and recovered"] > 1
