"""Snapshots are taken, cut the log, travel, and are what a server starts from."""

from __future__ import annotations

import dataclasses
import io
import itertools

import pytest

from pyraft import (
    Configuration,
    CorruptStoreError,
    FSMFailedError,
    FSMSnapshot,
    NothingNewToSnapshotError,
    Raft,
    RaftError,
    SnapshotFailedError,
    StorageError,
    recover_cluster,
)
from pyraft.logstore import InmemStore
from pyraft.rules.election import Ballot
from pyraft.snapshots import FileSnapshotStore, InmemSnapshotStore
from pyraft.state import BALLOT_KEY, encode_ballot
from pyraft.transport import InmemNetwork, InmemTransport
from tests.integration.clusters import ALONE, PATIENCE, Cluster, Recorder, config, eventually

SMALL = {"snapshot_threshold": 20, "snapshot_interval": 0.02, "trailing_logs": 5}


def cluster_with(ids=("n1", "n2", "n3"), fsm=Recorder, timeout=2.0, **settings):
    """``timeout``: long, because no leader is to be lost here, however busy the machine is."""
    settings["timeout"] = timeout
    return Cluster(ids, settings=config(**settings), fsm=fsm, make_snapshots=InmemSnapshotStore)


def alone(fsm=Recorder, **settings):
    return cluster_with(["n1"], fsm, timeout=0.05, **settings)


def test_a_snapshot_holds_the_state_and_says_what_it_covers():
    with alone() as cluster:
        cluster.start().write(3)
        raft = cluster.leader().raft

        future = raft.snapshot()

        assert future.result(PATIENCE).index == raft.applied_index
        assert future.meta.configuration.find("n1") is not None
        with future.open() as reader:
            assert reader.read() == b"\n".join(cluster.acknowledged)
        assert raft.status().snapshot_index == future.meta.index


def test_nothing_new_is_no_snapshot():
    with alone() as cluster:
        cluster.start().write(1)
        raft = cluster.leader().raft
        raft.snapshot().result(PATIENCE)

        with pytest.raises(NothingNewToSnapshotError, match="nothing was applied since"):
            raft.snapshot().result(PATIENCE)


def test_snapshots_are_taken_by_themselves_and_cut_the_log_but_for_its_tail():
    with cluster_with(**SMALL) as cluster:
        cluster.start().write(60)

        for member in cluster.members.values():
            eventually(lambda m=member: m.raft.status().snapshot_index >= 40, f"{member.id} took one")
            eventually(lambda m=member: m.store.first_index() > 20, f"{member.id} cut its log")
            status = member.raft.status()
            assert status.last_index - member.store.first_index() + 1 >= 5
        cluster.check_nothing_lost()


@pytest.mark.parametrize("trailing", [0, 1, 5])
def test_a_server_restarts_from_its_snapshot_and_what_the_log_has_behind_it(trailing):
    with alone(trailing_logs=trailing) as cluster:
        cluster.start().write(10)
        cluster.leader().raft.snapshot().result(PATIENCE)
        cluster.write(3)
        cluster.stop("n1")

        raft = cluster.start().members["n1"].raft

        assert raft.status().snapshot_index == 12
        cluster.check_nothing_lost()


def test_a_restart_applies_what_was_committed_without_waiting_for_a_leader():
    with cluster_with() as cluster:
        cluster.start().write(30)
        for member in cluster.members.values():
            eventually(lambda m=member: len(m.fsm.applied) == 30, "all have applied all")
        cluster.stop(*cluster.members)

        one = cluster.members["n1"]
        cluster.start("n1")

        eventually(lambda: len(one.fsm.applied) >= 29, "it has applied what it knew to be committed")
        assert one.raft.leader_id is None


def test_a_server_that_was_away_for_too_long_gets_a_snapshot():
    with cluster_with(**SMALL) as cluster:
        cluster.start().write(3)
        away = cluster.followers(cluster.leader())[0].id
        cluster.stop(away)
        others = [id for id in cluster.members if id != away]
        cluster.write(60, among=others)
        # Restarted, so that the old entries are not in their memory either.
        for id in others:
            eventually(lambda id=id: cluster.members[id].store.first_index() > 20, "the log is cut")
        cluster.stop(*others)
        cluster.start(*others)

        cluster.start(away)

        cluster.check_nothing_lost()
        assert cluster.members[away].raft.status().snapshot_index > 3


def test_a_new_voter_is_brought_up_to_date_with_a_snapshot():
    with cluster_with(**SMALL) as cluster:
        cluster.start().write(60)
        leader = cluster.leader()
        eventually(lambda: leader.store.first_index() > 20, "the log is cut")
        cluster.stop(*cluster.members)
        cluster.start()
        new = cluster.join("n4")

        cluster.leader().raft.add_voter("n4", new.address, timeout=PATIENCE).result(PATIENCE)

        cluster.check_nothing_lost()


def test_over_grpc_and_lmdb_a_large_state_travels_and_survives(tmp_path):
    with Cluster(root=tmp_path, settings=config(2.0, **SMALL), over_grpc=True) as cluster:
        cluster.start()
        cluster.write(60, size=100_000)
        leader = cluster.leader()
        eventually(lambda: leader.raft.status().first_index > 20, "the log is cut")
        new = cluster.join("n4")
        cluster.change(lambda raft: raft.add_voter("n4", new.address, timeout=PATIENCE))
        cluster.stop(*cluster.members)

        cluster.start()

        cluster.check_nothing_lost()


# -- bad days --


class Stubborn(Recorder):
    """Raises in snapshot()."""

    def snapshot(self):
        raise ValueError("not today")


class Silent(FSMSnapshot):
    released = 0

    def persist(self, sink):
        pass

    def release(self):
        Silent.released += 1


class Writing(FSMSnapshot):
    def persist(self, sink):
        sink.write(b"half")
        raise OSError("the state went away")


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (Silent, SnapshotFailedError, "wrote nothing"),
        (Writing, SnapshotFailedError, "the state went away"),
        (lambda: "text", SnapshotFailedError, "returned str"),
    ],
)
def test_an_fsm_that_cannot_be_written_leaves_no_snapshot_and_goes_on(state, error, text):
    class Odd(Recorder):
        def snapshot(self):
            return state()

    with alone(Odd) as cluster:
        cluster.start().write(2)
        raft = cluster.leader().raft

        with pytest.raises(error, match=text):
            raft.snapshot().result(PATIENCE)

        cluster.write(2)
        assert raft.status().snapshot_index == 0


def test_an_fsm_that_raises_in_snapshot_goes_on_without():
    with alone(Stubborn, snapshot_threshold=1, snapshot_interval=0.01) as cluster:
        cluster.start().write(20)

        with pytest.raises(SnapshotFailedError, match="not today"):
            cluster.leader().raft.snapshot().result(PATIENCE)

        cluster.write(1)


class Forgetful(Recorder):
    """Cannot read what it wrote."""

    def restore(self, source):
        raise ValueError("what is this?")


def test_an_fsm_that_cannot_be_restored_does_not_start():
    with alone() as cluster:
        cluster.start().write(2)
        cluster.leader().raft.snapshot().result(PATIENCE)
        cluster.stop("n1")
        cluster._make_fsm = Forgetful

        with pytest.raises(CorruptStoreError, match=r"none of the snapshots can be restored.*what is this\?"):
            cluster.start()


def test_a_follower_whose_fsm_cannot_restore_what_the_leader_sent_stops_loudly():
    with cluster_with(**SMALL) as cluster:
        cluster.start().write(60)
        leader = cluster.leader()
        eventually(lambda: leader.store.first_index() > 20, "the log is cut")
        cluster.stop(*cluster.members)
        cluster.start()
        cluster._make_fsm = Forgetful
        new = cluster.join("n4")

        cluster.leader().raft.add_nonvoter("n4", new.address).result(PATIENCE)

        assert new.raft.wait_stopped(PATIENCE)
        assert isinstance(new.raft.failure, FSMFailedError)
        assert "what is this?" in str(new.raft.failure)


class Broken(InmemSnapshotStore):
    """Its newest snapshot cannot be read."""

    damaged = False

    def open(self, id):
        if self.damaged:
            raise CorruptStoreError(f"the snapshot {id} is damaged")
        return super().open(id)


def test_a_leader_whose_snapshot_is_damaged_takes_another_one_for_a_server_that_needs_it():
    with Cluster(settings=config(2.0, trailing_logs=2), make_snapshots=Broken) as cluster:
        cluster.start().write(10)
        for member in cluster.members.values():
            eventually(lambda m=member: len(m.fsm.applied) == 10, "applied")
            member.raft.snapshot().result(PATIENCE)
        cluster.stop(*cluster.members)
        cluster.start()
        leader = cluster.leader()
        leader.snapshots.damaged = True
        original = leader.snapshots.create

        def create(*args):
            leader.snapshots.damaged = False  # the new one is whole
            return original(*args)

        leader.snapshots.create = create
        cluster.write(3)
        new = cluster.join("n4")

        leader.raft.add_voter("n4", new.address, timeout=PATIENCE).result(PATIENCE)

        cluster.check_nothing_lost()


@pytest.fixture
def short_memory(monkeypatch):
    """Logs keep next to nothing in memory, as if much more had been written."""
    monkeypatch.setattr("pyraft.node_log._RECENT_ENTRIES", 1)
    monkeypatch.setattr("pyraft.node_log._SMALL_CHUNK_ENTRIES", 1)


def test_a_leader_whose_snapshot_is_damaged_takes_another_one_although_nothing_is_new(short_memory):
    with Cluster(settings=config(2.0, trailing_logs=0), make_snapshots=Broken) as cluster:
        cluster.start().write(10)
        leader = cluster.leader()
        damaged = leader.raft.snapshot().result(PATIENCE).id
        eventually(lambda: leader.store.last_index() == 0, "the log is cut")
        original = leader.snapshots.open

        def open(id):
            leader.snapshots.damaged = id == damaged
            return original(id)

        leader.snapshots.open = open
        new = cluster.join("n4")

        leader.raft.add_voter("n4", new.address, timeout=PATIENCE).result(PATIENCE)

        cluster.check_nothing_lost()


def damage(directory, id, file="state.bin"):
    """Spoil one file of the snapshot ``id``."""
    (directory / "snapshots" / id / file).write_bytes(b"damaged")


def test_a_snapshot_behind_which_the_log_is_cut_is_not_sent_instead_of_a_damaged_newer_one(
    tmp_path, short_memory
):
    numbers = itertools.count()
    with Cluster(
        settings=config(2.0, trailing_logs=2),
        make_snapshots=lambda: FileSnapshotStore(tmp_path / str(next(numbers)), retain=2),
    ) as cluster:
        cluster.start().write(10)
        leader = cluster.leader()
        behind, other = cluster.followers(leader)
        leader.raft.snapshot().result(PATIENCE)
        eventually(
            lambda: behind.raft.last_index == leader.raft.last_index, "it has what the snapshot covers"
        )
        cluster.stop(behind.id)
        cluster.write(20, among=[leader.id, other.id])
        newest = leader.raft.snapshot().result(PATIENCE)
        eventually(lambda: leader.store.first_index() > 20, "the log is cut")
        [directory] = [path.parents[1] for path in tmp_path.glob(f"*/snapshots/{newest.id}")]
        damage(directory, newest.id)

        cluster.start(behind.id)

        cluster.check_nothing_lost()


def test_a_server_whose_newest_snapshot_is_not_even_listed_does_not_go_back_to_the_one_before(tmp_path):
    with Cluster(
        ["n1"],
        settings=config(ALONE, trailing_logs=0),
        make_snapshots=lambda: FileSnapshotStore(tmp_path, retain=2),
    ) as cluster:
        cluster.start()
        for _ in range(2):
            cluster.write(3)
            newest = cluster.leader().raft.snapshot().result(PATIENCE)
        eventually(lambda: cluster.members["n1"].store.last_index() == 0, "the log is cut")
        cluster.stop("n1")
        damage(tmp_path, newest.id, "meta.json")

        with pytest.raises(CorruptStoreError, match="was known to be committed"):
            cluster.start()


def received(snapshots, index):
    """A snapshot of a leader, whose state is all that it covers."""
    sink = snapshots.create(1, index, 1, Configuration.of_voters({"n1": "n1.test:1"}), 1, None)
    sink.write(b"state up to %d" % index)
    sink.close()
    return sink.id


@pytest.mark.parametrize("how", ["start", "recover"])
def test_a_server_whose_newest_snapshot_is_damaged_and_has_no_log_does_not_go_back_to_the_one_before(
    tmp_path, how
):
    snapshots, store = FileSnapshotStore(tmp_path, retain=2), InmemStore()
    store.set(BALLOT_KEY, encode_ballot(Ballot(1)))
    received(snapshots, 50)
    damage(tmp_path, received(snapshots, 100))
    settings = dataclasses.replace(config(), local_id="n1")
    transport = InmemTransport(InmemNetwork(), "n1.test:1")

    with pytest.raises(CorruptStoreError, match="snapshot and log together end at entry 50"):
        if how == "start":
            Raft(settings, Recorder(), store, store, snapshots, transport)
        else:
            configuration = Configuration.of_voters({"n1": "n1.test:1"})
            recover_cluster(settings, Recorder(), store, store, snapshots, transport, configuration)


class Overtaken(InmemSnapshotStore):
    """While its first snapshot is being written, a newer one comes in from a leader."""

    def create(self, version, index, *rest):
        sink = super().create(version, index, *rest)
        if not self.list():
            newer = super().create(version, index + 1, *rest)
            newer.write(b"newer")
            newer.close()
        return sink


def test_snapshots_go_on_after_one_that_was_overtaken_while_it_was_written():
    settings = config(ALONE, snapshot_threshold=10, snapshot_interval=0.01)
    with Cluster(["n1"], settings=settings, make_snapshots=Overtaken) as cluster:
        cluster.start().write(10)
        member = cluster.members["n1"]
        eventually(lambda: member.snapshots.list(), "the first one was overtaken")

        cluster.write(30)

        eventually(lambda: member.raft.status().snapshot_index >= 20, "another one is taken")


def test_a_full_disk_while_a_snapshot_is_written_is_an_error_and_nothing_more():
    class Full(InmemSnapshotStore):
        def create(self, *args):
            raise OSError(28, "No space left on device")

    with Cluster(["n1"], settings=config(0.05), make_snapshots=Full) as cluster:
        cluster.start().write(2)

        error = cluster.leader().raft.snapshot().exception(PATIENCE)

        assert "No space left on device" in str(error)
        cluster.write(1)


def test_a_log_that_cannot_be_cut_stops_the_server_and_leaves_nobody_waiting():
    with alone(trailing_logs=0) as cluster:
        cluster.start().write(3)
        leader = cluster.leader()

        def fails(first, last):
            raise OSError("the disk is on fire")

        leader.store.delete_range = fails
        future = leader.raft.snapshot()

        assert future.result(PATIENCE).index > 3  # it is durable
        assert leader.raft.wait_stopped(PATIENCE)
        assert isinstance(leader.raft.failure, StorageError)


def test_a_configuration_survives_in_the_snapshot_when_its_entry_is_gone():
    with cluster_with(trailing_logs=0) as cluster:
        cluster.start()
        cluster.leader().raft.add_nonvoter("n9", "n9:1").result(PATIENCE)
        cluster.write(3)
        for member in cluster.members.values():
            eventually(lambda m=member: len(m.fsm.applied) == 3, "applied")
            member.raft.snapshot().result(PATIENCE)
            eventually(lambda m=member: m.store.last_index() == 0, "nothing is left in the log")
        cluster.stop(*cluster.members)

        cluster.start()

        configuration = cluster.leader().raft.get_configuration()
        assert configuration.configuration.find("n9") is not None
        assert configuration.index == 3
        cluster.check_nothing_lost()


def test_what_reaches_the_fsm_is_a_reader():
    with alone() as cluster:
        cluster.start().write(1)
        future = cluster.leader().raft.snapshot()
        future.result(PATIENCE)

        assert isinstance(future.open(), io.IOBase)


def open_alone(directory, **options):
    """A server that ``Raft.open`` made, which is a cluster by itself."""
    address = "n1.test:1"
    return Raft.open(
        str(directory),
        id="n1",
        fsm=Recorder(),
        bootstrap={"n1": address},
        transport=InmemTransport(InmemNetwork(), address),
        config=config(ALONE, trailing_logs=1),
        **options,
    )


def take_snapshots(raft, count):
    """Write and take a snapshot ``count`` times; return the ids, oldest first."""
    raft.wait_for_leader(PATIENCE)
    taken = []
    for _ in range(count):
        raft.apply(b"x").result(PATIENCE)
        taken.append(raft.snapshot().result(PATIENCE).id)
    return taken


@pytest.mark.parametrize(("options", "kept"), [({}, 2), ({"retain": 1}, 1), ({"retain": 3}, 3)])
def test_open_keeps_as_many_snapshots_as_it_is_told(tmp_path, options, kept):
    with open_alone(tmp_path, **options) as raft:
        taken = take_snapshots(raft, 4)

    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == sorted(taken[-kept:])


def test_open_with_a_snapshot_store_of_the_users_keeps_none_of_its_own(tmp_path):
    snapshots = FileSnapshotStore(tmp_path / "elsewhere", retain=5)
    with open_alone(tmp_path / "n1", snapshot_store=snapshots) as raft:
        taken = take_snapshots(raft, 3)
    assert [meta.id for meta in snapshots.list()] == taken[::-1]
    assert not (tmp_path / "n1" / "snapshots").exists()

    with open_alone(tmp_path / "n1", snapshot_store=snapshots) as raft:  # it starts from there
        assert raft.status().snapshot_index == snapshots.list()[0].index
        raft.wait_for_leader(PATIENCE)
        assert raft.apply(b"x").result(PATIENCE) == 4

    with pytest.raises(CorruptStoreError, match="the state between is lost"):
        open_alone(tmp_path / "n1", snapshot_store=InmemSnapshotStore())


def test_a_snapshot_that_came_twice_can_be_opened_when_the_second_has_taken_its_place(tmp_path):
    """A leader that heard nothing sends it again; with one kept, the first is gone before the FSM opens it."""
    snapshots = FileSnapshotStore(tmp_path, retain=1)
    with Cluster(["n1"], settings=config(0.05), make_snapshots=lambda: snapshots) as cluster:
        cluster.start().write(3)
        taken = cluster.leader().raft.snapshot()
        meta = taken.result(PATIENCE)
        with taken.open() as reader:
            state = reader.read()
        transport = InmemTransport(InmemNetwork(), "n1:1")
        with snapshots.create(1, meta.index, meta.term, meta.configuration, 1, transport) as sink:
            sink.write(state)
        assert [kept.id for kept in snapshots.list()] == [sink.id] != [meta.id]

        with taken.open() as reader:
            assert reader.read() == state
        with snapshots.create(1, meta.index + 1, meta.term, meta.configuration, 1, transport) as sink:
            sink.write(b"later")
        with pytest.raises(RaftError, match="no longer"):
            taken.open()
