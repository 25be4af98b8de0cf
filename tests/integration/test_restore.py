"""A snapshot from outside replaces the state of the whole cluster."""

from __future__ import annotations

import io
import threading
from dataclasses import replace

import pytest

from pyraft import (
    AbortedByRestoreError,
    ConfigError,
    EnqueueTimeoutError,
    FSMFailedError,
    LeadershipLostError,
    NotLeaderError,
    RaftShutdownError,
    ReadTimeoutError,
    ShutdownTimeoutError,
    SnapshotFailedError,
    StorageError,
    StoreFullError,
)
from pyraft.messages import InstallSnapshotRequest
from pyraft.snapshots import InmemSnapshotStore, SnapshotSink
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


def test_a_server_on_its_way_out_is_sent_nothing_more():
    """It would get what the restore took back, and perhaps be told that it is committed."""
    with Cluster(settings=config(PATIENCE), make_snapshots=InmemSnapshotStore) as cluster:
        leader = cluster.start().leader()
        gone, other = cluster.followers(leader)
        cluster.network.drop(dst=gone.address, when=lambda message: bool(getattr(message, "entries", ())))
        leader.raft.remove_server(gone.id).result(PATIENCE)
        assert sending_to(gone.id), "for an election timeout it is still to hear of its removal"

        leader.raft.restore(*outside()).result(PATIENCE)

        eventually(lambda: not sending_to(gone.id), "nobody sends to it any more", PATIENCE / 4)
        eventually(lambda: other.fsm.applied == [b"from", b"outside"], "the others go on")
        assert gone.fsm.applied == []


def sending_to(id):
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(f"repl-{id}")]


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


# ── readers and disks that do not do what they should ──


def test_a_reader_of_text_is_refused_and_the_leader_goes_on(cluster):
    meta, _ = outside()
    with pytest.raises(SnapshotFailedError, match="binary mode"):
        cluster.leader().raft.restore(meta, io.StringIO("from\noutside")).result(PATIENCE)

    cluster.write(1)
    cluster.check_nothing_lost()


class Stuck(io.BytesIO):
    """A reader that gives nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.let_go = threading.Event(), threading.Event()

    def read(self, size=-1):
        self.reading.set()
        self.let_go.wait(PATIENCE)
        return b""


@pytest.fixture
def stuck():
    reader = Stuck()
    yield reader
    reader.let_go.set()


def test_commands_wait_for_a_reader_that_never_returns_no_longer_than_the_caller_allowed(cluster, stuck):
    leader = cluster.leader()

    restored = leader.raft.restore(outside()[0], stuck, timeout=0.1)
    stuck.reading.wait(PATIENCE)

    with pytest.raises(EnqueueTimeoutError, match="nothing has changed"):
        restored.result(PATIENCE)
    cluster.write(3)
    stuck.let_go.set()
    cluster.write(1)
    cluster.check_nothing_lost()


def test_a_reader_that_never_returns_keeps_nobody_waiting_after_the_end(stuck):
    with Cluster(["n1"], settings=config(0.05), make_snapshots=InmemSnapshotStore) as made:
        raft = made.start().leader().raft
        restored = raft.restore(outside()[0], stuck)
        stuck.reading.wait(PATIENCE)

        assert isinstance(raft.shutdown(0.05).exception(PATIENCE), ShutdownTimeoutError)

        with pytest.raises(RaftShutdownError):
            restored.result(PATIENCE)


def test_leadership_is_not_handed_over_meanwhile(cluster, stuck):
    leader = cluster.leader()
    restored = leader.raft.restore(outside()[0], stuck)
    stuck.reading.wait(PATIENCE)

    with pytest.raises(ConfigError, match="being restored"):
        leader.raft.leadership_transfer().result(PATIENCE)

    stuck.let_go.set()
    assert isinstance(restored.exception(PATIENCE), SnapshotFailedError)
    leader.raft.leadership_transfer().result(PATIENCE)


@pytest.mark.parametrize("index", [-1, 2**64 - 1, 1.5])
def test_an_index_behind_which_there_is_no_room_is_refused(cluster, index):
    meta, data = outside()

    with pytest.raises(ConfigError, match="is no log index"):
        cluster.leader().raft.restore(replace(meta, index=index), data)


class FailingSnapshots(InmemSnapshotStore):
    """Raises ``error`` where ``fails_at`` says."""

    fails_at = ""
    error: Exception = OSError("the disk is on fire")

    def create(self, *args):
        if self.fails_at == "create":
            raise self.error
        return FailingSink(self, super().create(*args))


class FailingSink(SnapshotSink):
    def __init__(self, store, sink):
        self._store, self._sink = store, sink

    @property
    def id(self):
        return self._sink.id

    def write(self, data):
        if self._store.fails_at == "write":
            raise self._store.error
        return self._sink.write(data)

    def close(self):
        if self._store.fails_at == "close":
            self._sink.close()  # it may be there all the same
            raise self._store.error
        self._sink.close()

    def cancel(self):
        if self._store.fails_at == "write":
            raise self._store.error
        self._sink.cancel()


@pytest.fixture
def alone():
    with Cluster(["n1"], settings=config(0.05), make_snapshots=FailingSnapshots) as made:
        made.start()
        made.leader()
        yield made


@pytest.mark.parametrize("where", ["create", "write"])
def test_a_store_that_cannot_take_the_bytes_changes_nothing(alone, where):
    alone.write(2)
    leader = alone.leader()
    leader.snapshots.fails_at = where

    with pytest.raises(StorageError, match="on fire"):
        leader.raft.restore(*outside()).result(PATIENCE)

    alone.write(1)
    alone.check_nothing_lost()


def test_a_snapshot_that_may_be_on_the_disk_or_not_stops_the_leader(alone):
    """Else it would write entries where the snapshot stands, and take both for the same at its next start."""
    alone.write(2)
    leader = alone.leader()
    leader.snapshots.fails_at = "close"

    with pytest.raises(StorageError, match="may be on the disk"):
        leader.raft.restore(*outside()).result(PATIENCE)

    assert leader.raft.wait_stopped(PATIENCE)
    assert isinstance(leader.raft.failure, StorageError)


def test_a_disk_without_room_changes_nothing(alone):
    alone.write(2)
    leader = alone.leader()
    leader.snapshots.fails_at, leader.snapshots.error = "close", StoreFullError("no room")

    with pytest.raises(StoreFullError):
        leader.raft.restore(*outside()).result(PATIENCE)

    alone.write(1)
    alone.check_nothing_lost()


def test_a_log_that_cannot_be_dropped_leaves_nobody_waiting(alone):
    alone.write(2)
    leader = alone.leader()

    def fails(first, last):
        raise OSError("the disk is on fire")

    leader.store.delete_range = fails

    with pytest.raises(LeadershipLostError, match="on its disk"):
        leader.raft.restore(*outside()).result(PATIENCE)
    assert leader.raft.wait_stopped(PATIENCE)


def test_nobody_reads_the_new_state_before_a_majority_has_it(cluster):
    leader = cluster.leader()
    cluster.write(1)
    cluster.network.drop(when=lambda message: isinstance(message, InstallSnapshotRequest))
    restored = leader.raft.restore(*outside())
    eventually(lambda: leader.fsm.applied == [b"from", b"outside"], "the leader has it")

    with pytest.raises(ReadTimeoutError):
        leader.raft.read_index(0.2).result(PATIENCE)

    cluster.network.heal()
    restored.result(PATIENCE)
    assert leader.raft.read_index(PATIENCE).result(PATIENCE) > 0


class Picky(Recorder):
    """Cannot read some states; on the leader it takes its time to find out."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = False
        self.reading, self.let_go = threading.Event(), threading.Event()

    def restore(self, source):
        if source.read() == b"garbage":
            if self.is_slow:
                self.reading.set()
                self.let_go.wait(PATIENCE)
            raise ValueError("this is no state of mine")


def test_a_state_that_no_fsm_can_read_stops_the_leader_only():
    with Cluster(settings=config(2.0), fsm=Picky, make_snapshots=InmemSnapshotStore) as cluster:
        cluster.start().write(3)
        leader = cluster.leader()
        leader.fsm.is_slow = True

        restored = leader.raft.restore(*outside(b"garbage"))
        assert leader.fsm.reading.wait(PATIENCE)
        for _ in range(10):  # time enough for sending it
            leader.raft.verify_leader().result(PATIENCE)
        leader.fsm.let_go.set()

        assert isinstance(restored.exception(PATIENCE), LeadershipLostError)
        rest = [member.id for member in cluster.followers(leader)]
        cluster.write(1, among=rest)
        assert all(cluster.members[id].raft.failure is None for id in rest)
        assert isinstance(leader.raft.failure, FSMFailedError)
