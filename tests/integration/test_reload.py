"""``reload_config``: all or nothing, and in force at once."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import pytest

from pyraft import Config, ConfigError, RaftShutdownError, RaftState, ReloadableConfig
from pyraft.messages import AppendEntriesRequest
from pyraft.snapshots import InmemSnapshotStore
from tests.integration.clusters import PATIENCE, Cluster, config, eventually
from tests.nodes import append_request, stage
from tests.nodes import eventually as comes_true


def test_all_five_are_replaced_the_ones_left_out_by_their_defaults():
    with stage() as s:
        new = ReloadableConfig(
            heartbeat_timeout=7.0,
            election_timeout=8.0,
            snapshot_interval=9.0,
            snapshot_threshold=10,
            trailing_logs=11,
        )

        s.raft.reload_config(new)
        assert s.raft.reloadable_config() == new

        s.raft.reload_config(replace(new, trailing_logs=0))
        assert s.raft.reloadable_config() == replace(new, trailing_logs=0)
        s.raft.reload_config(ReloadableConfig(heartbeat_timeout=6.0, election_timeout=6.0))
        assert s.raft.reloadable_config().snapshot_threshold == ReloadableConfig().snapshot_threshold
        assert len(fields(ReloadableConfig)) == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"heartbeat_timeout": 0.001}, "heartbeat_timeout=0.001 is below 0.005"),
        ({"election_timeout": 0.001}, "election_timeout=0.001 is below"),
        ({"election_timeout": 4.0}, r"election_timeout=4.0 is below heartbeat_timeout=5.0.*Use at least 5.0"),
        ({"snapshot_interval": 0.0}, "snapshot_interval=0 is below"),
        ({"snapshot_threshold": -1}, "snapshot_threshold=-1 is below 0"),
        ({"trailing_logs": "many"}, "trailing_logs='many' is not a whole number"),
        ({"heartbeat_timeout": 0.5}, "leader_lease_timeout=5.0 is above heartbeat_timeout=0.5"),
    ],
)
def test_settings_that_cannot_work_change_nothing_at_all(change, reason):
    with stage() as s:
        before = s.raft.reloadable_config()

        with pytest.raises(ConfigError, match=reason):
            s.raft.reload_config(replace(before, **{"trailing_logs": 99, **change}))

        assert s.raft.reloadable_config() == before
        s.s2.sends(append_request(2))
        assert s.raft._node.context.config.trailing_logs == before.trailing_logs


def test_something_else_is_refused_with_what_to_pass():
    with stage() as s, pytest.raises(ConfigError, match=r"use for example replace\(raft.reloadable_config"):
        s.raft.reload_config(Config(local_id="s1"))


def test_a_server_that_was_shut_down_takes_no_settings():
    with stage() as s:
        settings = s.raft.reloadable_config()
        s.raft.shutdown().result(PATIENCE)

        with pytest.raises(RaftShutdownError):
            s.raft.reload_config(settings)


def test_a_follower_stands_as_soon_as_shorter_timeouts_say():
    with stage(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=0.01) as s:
        assert s.raft.state is RaftState.FOLLOWER

        s.raft.reload_config(
            replace(s.raft.reloadable_config(), heartbeat_timeout=0.02, election_timeout=0.02)
        )

        comes_true(lambda: s.raft.metrics()["elections_total"] > 0, "it stands")


def test_a_follower_that_hears_its_leader_does_not_stand_because_of_it():
    with stage(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=0.01) as s:
        s.s2.sends(append_request(2))

        s.raft.reload_config(
            replace(s.raft.reloadable_config(), heartbeat_timeout=500.0, election_timeout=500.0)
        )
        s.s2.sends(append_request(2))

        assert s.raft.metrics()["elections_total"] == 0
        assert s.raft.leader_id == "s2"


def test_a_leader_beats_as_often_as_shorter_timeouts_say():
    with stage(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=1.0) as s:
        s.make_it_lead()
        s.raft.apply(b"x").result(PATIENCE)
        leadership = s.raft._node.context.leadership

        s.raft.reload_config(replace(s.raft.reloadable_config(), heartbeat_timeout=1.0, election_timeout=1.0))

        comes_true(lambda: leadership.config.heartbeat_timeout == 1.0, "its threads see it")
        s.s2.requests.clear()
        assert s.raft.verify_leader().exception(PATIENCE) is None
        comes_true(lambda: len(s.s2.received(AppendEntriesRequest)) >= 3, "it beats")


def test_the_snapshot_thread_looks_at_the_new_threshold_and_interval():
    with Cluster(["n1"], settings=config(0.05, snapshot_interval=3600.0)) as cluster:
        cluster.members["n1"].snapshots = InmemSnapshotStore()
        cluster.start().write(10)
        raft = cluster.leader().raft
        assert raft.status().snapshot_index == 0

        raft.reload_config(
            replace(raft.reloadable_config(), snapshot_interval=0.01, snapshot_threshold=5, trailing_logs=2)
        )

        eventually(lambda: raft.status().snapshot_index >= 5, "it takes one")
        eventually(lambda: raft.status().first_index > 1, "and cuts the log as the new setting says")
        assert raft.status().last_index - raft.status().first_index + 1 >= 2


def test_many_threads_may_reload_at_once_and_one_of_them_was_last():
    with stage() as s:
        wanted = [replace(s.raft.reloadable_config(), trailing_logs=n) for n in range(20)]
        threads = [threading.Thread(target=s.raft.reload_config, args=(one,)) for one in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        last = s.raft.reloadable_config()
        assert last in wanted
        comes_true(
            lambda: s.raft._node.context.config.trailing_logs == last.trailing_logs, "the same everywhere"
        )
