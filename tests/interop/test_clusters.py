"""Clusters of Go and Python servers live through what clusters live through."""

import shutil

import pytest

from tests.interop.clusters import Cluster, eventually
from tests.interop.markers import MARKS, TRANSPORTS, at_length
from tests.interop.stories import (
    MIB,
    both_lead,
    cut_off_follower_disturbs_nobody,
    follower_is_far_behind,
    frozen_leader_wakes_up,
    leaders_die_under_load,
    members_change,
    old_leader_returns,
    reads_need_a_leader_that_knows_of_them,
    snapshot_contradicts_the_log,
    snapshot_is_sent,
)

pytestmark = MARKS

MIXED_FIVE = ("go", "py", "go", "py", "go")


@pytest.mark.parametrize(
    ("transport", "languages"),
    [
        ("tcp", ("py", "go", "go")),
        ("grpc", ("py", "py", "go")),
        pytest.param("tcp", ("py", "py", "go"), marks=at_length),
        pytest.param("grpc", ("py", "go", "go"), marks=at_length),
        pytest.param("tcp", MIXED_FIVE, marks=at_length),
        pytest.param("grpc", MIXED_FIVE, marks=at_length),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_life_of_a_mixed_cluster(go_server, tmp_path, transport, languages):
    with Cluster(tmp_path, languages, transport, go_server) as cluster:
        begin(cluster)
        go, python = cluster.of("go"), cluster.of("py")

        both_lead(cluster)
        reads_need_a_leader_that_knows_of_them(cluster)
        cut_off_follower_disturbs_nobody(cluster, follower=python, leader=go)
        cut_off_follower_disturbs_nobody(cluster, follower=go, leader=python)
        for language in ("go", "py"):
            old_leader_returns(cluster, language)
        leaders_die_under_load(cluster)
        members_change(cluster, leader=go, language="py")
        members_change(cluster, leader=python, language="go")
        snapshot_is_sent(cluster, leader=go, follower=python)
        snapshot_is_sent(cluster, leader=python, follower=go)


def begin(cluster):
    """Start and bootstrap: by one server, or by all at once as ``Raft.open(bootstrap=...)`` does."""
    go = [member for member in cluster.members.values() if member.language == "go"]
    python = [member for member in cluster.members.values() if member.language == "py"]
    if len(python) == 1:
        cluster.start()
        cluster.bootstrap(go[0])
    elif len(go) == 1:
        cluster.start()
        cluster.bootstrap(python[0])
    else:
        for member in python:
            member.settings["members"] = {id: each.address for id, each in cluster.members.items()}
        cluster.start()
        cluster.bootstrap(*go)
        # A Go server cannot say how much it holds.  If it has been in an election already, a Python
        # server votes only after the next one: its disk might have been wiped.
        for member in python:
            eventually(
                lambda member=member: member.status()["members"], f"{member.id} has heard of the cluster"
            )
        cluster.lead(go[0])
        cluster.lead(go[1])
        cluster.write(1)
    cluster.leader()


@at_length
@TRANSPORTS
def test_many_entries(go_server, tmp_path, transport):
    # Patient, because several processes are busy with that much for seconds.
    with Cluster(tmp_path, ("py", "go", "go", "py"), transport, go_server, timeout=3.0) as cluster:
        cluster.start()
        cluster.bootstrap(cluster.of("go"))
        go, python = cluster.of("go"), cluster.of("py")
        other_python = cluster.members["n4"]

        follower_is_far_behind(cluster, leader=go, follower=python, entries=100_000)
        follower_is_far_behind(cluster, leader=other_python, follower=python, entries=100_000)
        follower_is_far_behind(cluster, leader=python, follower=go, entries=100_000)


@at_length
@TRANSPORTS
def test_largest_message_of_a_go_leader(go_server, tmp_path, transport):
    """64 entries of 1 MiB, twice what is advised, in one message: Go counts entries, not bytes."""
    settings = {"max_append_entries": 64, "timeout": 3.0}
    with Cluster(tmp_path, ("go", "py", "py"), transport, go_server, **settings) as cluster:
        cluster.start()
        go, python = cluster.members["n1"], cluster.members["n2"]
        cluster.bootstrap(go)
        cluster.lead(go)
        cluster.stop(python.id)
        for _ in range(70):
            cluster.apply(MIB)
        cluster.start(python.id)
        goal = go.status()["commit_index"]
        eventually(lambda: python.status()["commit_index"] >= goal, "it has caught up")
        cluster.converge()


@at_length
@TRANSPORTS
@pytest.mark.parametrize(
    "settings",
    [
        {"max_append_entries": 64},  # Go's own number: the rest of a burst waits for the next tick
        {"pipeline": False},
        {"pre_vote": False},
        {"store": "wal"},
    ],
    ids=str,
)
def test_go_with_other_settings(go_server, tmp_path, transport, settings):
    with Cluster(tmp_path, ("py", "go", "go"), transport, go_server) as cluster:
        for member in cluster.members.values():
            if member.language == "go":
                member.settings.update(settings)
        cluster.start()
        cluster.bootstrap(cluster.of("go"))
        both_lead(cluster, small=3000)
        for language in ("go", "py"):
            old_leader_returns(cluster, language)
            frozen_leader_wakes_up(cluster, language)
        # raft-wal v0.4.0 does not open again what it has cut: "sealed segment has no index block".
        if settings.get("store") != "wal":
            snapshot_is_sent(cluster, leader=cluster.of("py"), follower=cluster.of("go"))
            leaders_die_under_load(cluster)


@at_length
@TRANSPORTS
@pytest.mark.parametrize("new", ["go", "py"])
def test_a_snapshot_replaces_what_contradicts_it_in_python(go_server, tmp_path, transport, new):
    with Cluster(tmp_path, ("py", new, "py"), transport, go_server, trailing_logs=0) as cluster:
        cluster.start()
        old = cluster.members["n1"]
        cluster.bootstrap(old)
        snapshot_contradicts_the_log(cluster, old, cluster.members["n2"])
        cluster.converge()
        assert old.status()["snapshot_index"] > 0
        assert old.ask("commands", prefix="x-") == []


@pytest.mark.parametrize("transport", ["tcp", pytest.param("grpc", marks=at_length)])
def test_a_go_server_that_cannot_use_its_snapshot_hurts_nobody_else(go_server, tmp_path, transport):
    """A Go server keeps entries that its snapshot contradicts, and refuses what follows, for ever.

    The others go on.  It must be taken out, emptied and taken in again: what stays in its log
    could otherwise reach others once it leads.
    """
    with Cluster(tmp_path, ("go", "py", "py"), transport, go_server, trailing_logs=0) as cluster:
        cluster.start()
        old, leader = cluster.members["n1"], cluster.members["n2"]
        cluster.bootstrap(old)
        snapshot_contradicts_the_log(cluster, old, leader)
        others = [leader, cluster.members["n3"]]
        cluster.write(100, among=others)
        eventually(lambda: old.status()["snapshot_index"] > 0, "the snapshot is there")
        cluster.write(100, among=others)

        cluster.change("remove", old, among=others)
        cluster.kill(old.id)
        shutil.rmtree(old.settings["path"])
        cluster.start(old.id)
        cluster.change("add_voter", old, among=others)
        cluster.write(5)
        cluster.converge()
