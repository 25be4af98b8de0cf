"""Clients of a simulation: what they send does not depend on what was left out, and bursts are whole."""

from __future__ import annotations

import pytest

from pyraft.config import Config
from pyraft.errors import ConfigError
from pyraft.testing import SimCluster
from pyraft.testing.sim_kv import encode_command


def commands_of(left_out):
    with SimCluster(servers=1, seed=3) as cluster:
        cluster.leader()
        cluster.client(rate=20, left_out=left_out)
        cluster.run(3)
        cluster.check()
        return [(operation.key, operation.input[0]) for operation in cluster.history]


def test_leaving_operations_out_does_not_change_the_others():
    everything = commands_of(left_out=())

    some = commands_of(left_out={1, 4})

    assert some == [everything[1], everything[2], *everything[4:]]


def test_a_burst_has_many_commands_in_flight_and_every_answer_is_judged():
    with SimCluster(servers=3, seed=4) as cluster:
        leader = cluster.leader()
        cluster.client(rate=2, burst=100)
        longest = 0
        for _ in range(300):
            cluster.run(0.01)
            longest = max(longest, leader.raft.last_index - leader.raft.commit_index)
        cluster.check()

        assert longest > 20
        assert len(cluster.history) > 100
        assert all(o.call <= o.returned for o in cluster.history)


def test_a_burst_on_a_server_that_crashes_is_over_at_once():
    with SimCluster(servers=3, seed=6) as cluster:
        leader = cluster.leader()
        cluster.client(rate=100, burst=50)
        cluster.partition([leader])
        cluster.run_until(lambda: leader.raft.last_index > leader.raft.commit_index + 9)
        cluster.crash(leader)

        cluster.check()
        assert any(o.returned == float("inf") for o in cluster.history)


def test_what_a_frozen_process_was_to_be_asked_may_be_asked_when_it_goes_on():
    with SimCluster(servers=1, seed=8) as cluster:
        leader = cluster.leader()
        cluster.freeze(leader)
        outcome = cluster.submit(leader, encode_command("x", ("put", "1")), 1.0)

        assert isinstance(outcome.error, TimeoutError)
        assert not outcome.certain

        cluster.thaw(leader)
        cluster.run_until(lambda: leader.fsm.data == {"x": "1"}, 1.0)
        cluster.check()


def test_clients_in_haste_meet_full_queues_and_late_answers_and_are_no_reason_to_complain():
    config = Config(max_proposals=2)
    with SimCluster(servers=3, seed=7, config=config) as cluster:
        cluster.leader()
        cluster.client(rate=5, burst=20, haste=1.0)
        cluster.client(rate=50, haste=1.0)
        cluster.run(3)
        cluster.check()

        reached = cluster.judge.coverage
        assert reached["refused: queue full"] and reached["answer after the caller gave up"]
        assert any(o.returned == float("inf") for o in cluster.history)


@pytest.mark.parametrize("arguments", [{"rate": 0}, {"burst": 0}, {"burst": 1.5}, {"haste": 2}])
def test_bad_arguments_are_refused(arguments):
    with SimCluster(servers=1, seed=1) as cluster, pytest.raises(ConfigError, match=next(iter(arguments))):
        cluster.client(**arguments)
