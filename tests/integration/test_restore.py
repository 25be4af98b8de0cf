"""A snapshot from outside replaces the state of the whole cluster."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from pyraft import (
    AbortedByRestoreError,
    ConfigError,
    EnqueueTimeoutError,
    NotLeaderError,
    SnapshotFailedError,
)
from pyraft.snapshots import InmemSnapshotStore
from tests.integration.clusters import PATIENCE, Cluster, Recorder, config, eventually


@pytest.fixture
def cluster():
    with Cluster(settings=config(2.0), make_snapshots=InmemSnapshotStore) as made:
        made.start()
        made.leader()
        yield made


def outside(state=b"from\noutside"):
    """A snapshot of another cluster: its description and its bytes."""
    with Cluster(["x1"], settings=config(0.05), make_snapshots=InmemSnapshotStore) as other:
        other.start().write(2)
        taken = other.leader().raft.snapshot()
        meta = taken.result(PATIENCE)
    return replace(meta, size=len(state)), io.BytesIO(state)


def test_every_server_gets_the_state_and_goes_on_from_there(cluster):
    cluster.write(5)
    leader = cluster.leader()
    before = leader.raft.get_configuration().configuration

    leader.raft.restore(*outside()).result(PATIENCE)

    leader.raft.apply(b"next").result(PATIENCE)
    for member in cluster.members.values():
        eventually(lambda m=member: m.fsm.applied == [b"from", b"outside", b"next"], f"{member.id} has it")
    assert leader.raft.get_configuration().configuration == before


def test_what_was_restored_survives_a_restart_of_everything(cluster):
    cluster.write(5)
    leader = cluster.leader()
    leader.raft.restore(*outside()).result(PATIENCE)
    for member in cluster.members.values():
        eventually(lambda m=member: m.raft.applied_index == leader.raft.applied_index, "all have it")
    cluster.stop(*cluster.members)

    cluster.start()

    cluster.write(1)
    for member in cluster.members.values():
        eventually(lambda m=member: len(m.fsm.applied) == 3, "all have it again")
        assert member.fsm.applied[:2] == [b"from", b"outside"]


def test_commands_in_flight_are_aborted_and_their_outcome_is_open(cluster):
    leader = cluster.leader()
    cluster.write(1)
    cluster.lose_entries()
    lost = leader.raft.apply(b"in flight")
    eventually(lambda: leader.raft.last_index > leader.raft.commit_index, "it is in the log")

    restored = leader.raft.restore(*outside())

    with pytest.raises(AbortedByRestoreError):
        lost.result(PATIENCE)
    cluster.network.heal()
    restored.result(PATIENCE)
    for member in cluster.members.values():
        eventually(lambda m=member: m.fsm.applied[:2] == [b"from", b"outside"], "the state is the snapshot's")
        assert b"in flight" not in member.fsm.applied


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda meta, data: (replace(meta, size=meta.size + 1), data), "its description says"),
        (lambda meta, data: (meta, io.BytesIO(data.read()[:-1])), "its description says"),
        (lambda meta, data: (meta, Failing()), "could not be read after 0 bytes"),
    ],
)
def test_a_reader_that_ends_early_or_fails_changes_nothing(cluster, change, text):
    cluster.write(3)
    leader = cluster.leader()

    with pytest.raises(SnapshotFailedError, match=text):
        leader.raft.restore(*change(*outside())).result(PATIENCE)

    cluster.write(1)
    cluster.check_nothing_lost()
    assert leader.snapshots.list() == []


class Failing(io.BytesIO):
    def read(self, size=-1):
        raise OSError("the tape is gone")


def test_a_reader_that_takes_too_long_changes_nothing(cluster):
    with pytest.raises(EnqueueTimeoutError, match="nothing has changed"):
        cluster.leader().raft.restore(*outside(), timeout=0.0).result(PATIENCE)

    cluster.write(1)
    cluster.check_nothing_lost()


def test_only_a_leader_restores(cluster):
    follower = cluster.followers(cluster.leader())[0]

    with pytest.raises(NotLeaderError):
        follower.raft.restore(*outside()).result(PATIENCE)


def test_an_uncommitted_configuration_comes_first(cluster):
    leader = cluster.leader()
    cluster.write(1)
    cluster.lose_entries()
    leader.raft.add_nonvoter("n9", "n9:1")
    eventually(lambda: leader.raft.get_configuration().index > 1, "in the log")

    with pytest.raises(ConfigError, match="not committed yet"):
        leader.raft.restore(*outside()).result(PATIENCE)


@pytest.mark.parametrize("arguments", [(None, io.BytesIO()), ("meta", "reader")])
def test_nonsense_is_refused(cluster, arguments):
    with pytest.raises(ConfigError, match="needs a SnapshotMeta and a binary reader"):
        cluster.leader().raft.restore(*arguments)


def test_a_restore_ends_with_the_server():
    class Stuck(Recorder):
        pass

    with Cluster(["n1"], settings=config(0.05), fsm=Stuck, make_snapshots=InmemSnapshotStore) as made:
        raft = made.start().leader().raft
        made.stop("n1")

        with pytest.raises(Exception, match="shut down"):
            raft.restore(*outside()).result(PATIENCE)
