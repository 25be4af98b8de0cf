"""When a majority is lost for good: ``recover_cluster``, and the files that name who is left."""

from __future__ import annotations

import dataclasses
import json
import time
from contextlib import nullcontext

import pytest

from pyraft import (
    ConfigError,
    Configuration,
    ConfigurationStore,
    CorruptStoreError,
    FSMFailedError,
    FSMSnapshot,
    Raft,
    Server,
    SnapshotFailedError,
    StorageError,
    Suffrage,
    read_config_json,
    read_peers_json,
    recover_cluster,
)
from pyraft.configuration import encode_configuration
from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore, LMDBStore
from pyraft.messages import AppendEntriesResponse
from pyraft.restoring import check_reaches
from pyraft.rules.election import Ballot, LogPosition, Newborn
from pyraft.snapshots import DiscardSnapshotStore, FileSnapshotStore, InmemSnapshotStore
from pyraft.state import BALLOT_KEY, encode_ballot, load_ballot
from pyraft.transport import InmemNetwork, InmemTransport
from tests.integration.clusters import PATIENCE, Cluster, Recorder, config, eventually


def recover(member, configuration, fsm=None):
    """As an operator does on the stopped server ``member``."""
    settings = dataclasses.replace(config(0.3), local_id=member.id)
    transport = InmemTransport(InmemNetwork(), member.address)
    recover_cluster(
        settings, fsm or Recorder(), member.store, member.store, member.snapshots, transport, configuration
    )


def stopped_cluster(ids=("n1", "n2", "n3"), writes=0, snapshot_after=None, **settings):
    """A cluster whose servers have all stopped."""
    cluster = Cluster(ids, settings=config(0.3, **settings), make_snapshots=InmemSnapshotStore).start()
    cluster.leader()
    if snapshot_after is not None:
        cluster.write(snapshot_after)
        for member in cluster.members.values():
            eventually(lambda m=member: len(m.fsm.applied) == snapshot_after, "applied")
            member.raft.snapshot().result(PATIENCE)
    cluster.write(writes)
    leader = cluster.leader().raft  # its own first entry may be still to come
    for member in cluster.members.values():
        # So that all logs end at the same entry: only then may it be done on several.
        eventually(lambda m=member: m.raft.applied_index == leader.last_index, "applied")
    cluster.stop(*cluster.members)
    return cluster


# -- recover_cluster ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writes", "snapshot_after"),
    [(0, None), (20, None), (20, 10), (0, 10)],
    ids=["nothing but the bootstrap", "a log", "a snapshot and a log", "a snapshot alone"],
)
def test_two_of_three_go_on_after_the_third_is_lost(writes, snapshot_after):
    with stopped_cluster(writes=writes, snapshot_after=snapshot_after, trailing_logs=0) as cluster:
        left = [cluster.members["n1"], cluster.members["n2"]]
        survivors = Configuration.of_voters({member.id: member.address for member in left})
        ballots = [load_ballot(member.store) for member in left]
        for member in left:
            recover(member, survivors)
            assert member.store.last_index() == 0
            assert member.snapshots.list()[0].configuration == survivors
        for member, before in zip(left, ballots, strict=True):
            assert load_ballot(member.store).term > before.term  # so no vote of before counts any more

        cluster.start("n1", "n2")

        cluster.write(3, among=["n1", "n2"])
        cluster.check_nothing_lost("n1", "n2")
        for member in left:
            assert member.raft.get_configuration().configuration == survivors


def test_one_server_alone_can_be_recovered_and_grows_again():
    with stopped_cluster(writes=5) as cluster:
        one = cluster.members["n2"]
        recover(one, Configuration.of_voters({"n2": one.address}))
        cluster.start("n2")
        cluster.write(2, among=["n2"])
        new = cluster.join("n4")

        one.raft.add_voter("n4", new.address, timeout=PATIENCE).result(PATIENCE)

        cluster.write(1, among=["n2", "n4"])
        cluster.check_nothing_lost("n2", "n4")


def test_what_was_in_the_log_and_not_committed_counts_as_committed():
    with Cluster(settings=config(0.3), make_snapshots=InmemSnapshotStore) as cluster:
        cluster.start().write(3)
        leader = cluster.leader()
        cluster.lose_entries()
        leader.raft.apply(b"in one log only")
        eventually(lambda: leader.store.last_index() == leader.raft.last_index, "it is on disk")
        cluster.stop(*cluster.members)
        cluster.network.heal()

        recover(leader, Configuration.of_voters({leader.id: leader.address}))
        cluster.start(leader.id)

        cluster.leader([leader.id])
        assert leader.fsm.applied == [*cluster.acknowledged, b"in one log only"]


def parts(tmp_path=None, store=None):
    """What ``recover_cluster`` takes, of a server that has nothing."""
    store = InmemStore() if store is None else store
    snapshots = InmemSnapshotStore() if tmp_path is None else FileSnapshotStore(tmp_path)
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    settings = dataclasses.replace(config(0.3), local_id="n1")
    return [
        settings,
        Recorder(),
        store,
        store,
        snapshots,
        transport,
        Configuration.of_voters({"n1": "n1.test:1"}),
    ]


def test_empty_stores_are_refused_because_it_is_probably_the_wrong_directory(tmp_path):
    store = LMDBStore(tmp_path / "wrong")
    try:
        with pytest.raises(
            ConfigError, match="no initial state: the stores of n1 are empty.*right directory"
        ):
            recover_cluster(*parts(tmp_path / "snapshots", store))
    finally:
        store.close()


@pytest.mark.parametrize(
    ("servers", "reason"),
    [
        ([], "need at least one voter"),
        ([Server("n1", "a:1", Suffrage.NONVOTER)], "need at least one voter"),
        ([Server("n1", "a:1"), Server("n1", "b:1")], "n1 stands twice"),
        ([Server("n1", "a:1"), Server("n2", "a:1")], "same address a:1"),
        ([Server("", "a:1")], "empty id"),
    ],
)
def test_members_that_cannot_work_are_refused_and_nothing_has_changed(servers, reason):
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]

        with pytest.raises(ConfigError, match=reason):
            recover(member, Configuration(tuple(servers)))

        cluster.start("n1")
        cluster.check_nothing_lost()


def test_the_stores_of_a_running_server_are_refused_and_it_goes_on():
    with Cluster(["n1"], settings=config(0.05), make_snapshots=InmemSnapshotStore) as cluster:
        cluster.start().write(2)
        member = cluster.members["n1"]

        with pytest.raises(ConfigError, match="in use by the running server n1: shut it down first"):
            recover(member, Configuration.of_voters({"n1": member.address}))

        cluster.write(1)
        cluster.stop("n1")
        recover(member, Configuration.of_voters({"n1": member.address}))  # now it may


def test_the_directory_of_a_running_server_cannot_even_be_opened(tmp_path):
    with Cluster(["n1"], root=tmp_path, settings=config(0.05)) as cluster:
        cluster.start().write(1)
        lmdb = next(path.parent for path in tmp_path.rglob("*.mdb"))

        with pytest.raises(StorageError, match="already open|in use"):
            LMDBStore(lmdb)

        cluster.write(1)


def test_a_directory_on_disk_is_recovered(tmp_path):
    """What docs say to do, with what ``Raft.open`` keeps in its directory."""
    with Cluster(root=tmp_path, settings=config(0.3)) as cluster:
        cluster.start().write(5)
        for member in cluster.members.values():
            eventually(lambda m=member: len(m.fsm.applied) == 5, "applied")
        cluster.stop(*cluster.members)
        home = cluster.directory("n1")
        lmdb = next(path.parent for path in home.rglob("*.mdb"))
        store = LMDBStore(lmdb)
        args = parts(store=store)
        args[4] = FileSnapshotStore(home)
        recover_cluster(*args)
        store.close()

        cluster.start("n1")

        cluster.write(1, among=["n1"])
        cluster.check_nothing_lost("n1")


def test_a_store_that_keeps_no_snapshot_leaves_the_log_as_it_is():
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]
        member.snapshots = DiscardSnapshotStore()
        last = member.store.last_index()

        with pytest.raises(StorageError, match="did not keep the snapshot, so the log stays"):
            recover(member, Configuration.of_voters({"n1": member.address}))

        assert member.store.last_index() == last


class OldestFirst(FileSnapshotStore):
    def list(self):
        return super().list()[::-1]


def test_a_store_in_which_an_old_snapshot_comes_first_leaves_the_log_as_it_is(tmp_path):
    """The server would start from the old one, whose members are lost."""
    snapshots = OldestFirst(tmp_path)
    with Cluster(
        ["n1"], settings=config(0.05, trailing_logs=100), make_snapshots=lambda: snapshots
    ) as cluster:
        cluster.start().write(3)
        cluster.leader().raft.snapshot().result(PATIENCE)
        member = cluster.members["n1"]
        cluster.stop("n1")
        last = member.store.last_index()

        with pytest.raises(StorageError, match="snapshot .* comes before it.*the log stays as it was"):
            recover(member, Configuration.of_voters({"n1": member.address}))

        assert member.store.last_index() == last


def recovered_at_an_old_snapshots_position(home, monkeypatch=None):
    """A server recovered as the only one; a snapshot with members that are lost was there at its log's end.

    With ``monkeypatch`` the clock was set back in between.
    """
    snapshots = FileSnapshotStore(home)
    cluster = stopped_cluster(["n1"], writes=3)
    member = cluster.members["n1"]
    last = member.store.get_log(member.store.last_index())
    lost = Configuration.of_voters({"n1": member.address, "n2": "n2.test:1", "n3": "n3.test:1"})
    recover(member, lost)  # writes a snapshot of all
    before = member.snapshots.list()[0]
    with snapshots.create(
        1, last.index, last.term, lost, last.index, InmemTransport(InmemNetwork(), "n1:1")
    ) as sink:
        sink.write(member.snapshots.open(before.id)[1].read())
    member.snapshots = snapshots
    if monkeypatch is not None:
        an_hour_ago = time.time_ns() - 3600 * 10**9
        monkeypatch.setattr("pyraft.snapshots.file_store.time.time_ns", lambda: an_hour_ago)

    recover(member, Configuration.of_voters({"n1": member.address}))

    assert [(meta.term, meta.index) for meta in snapshots.list()] == 2 * [(last.term, last.index)]
    return cluster


def test_a_recovery_counts_although_the_clock_was_set_back(tmp_path, monkeypatch):
    """Then the new snapshot has the position of an older one that seems to be of later."""
    with recovered_at_an_old_snapshots_position(tmp_path, monkeypatch) as cluster:
        cluster.start("n1")
        cluster.write(1)
        cluster.check_nothing_lost()


@pytest.mark.parametrize(
    ("file", "text"),
    [("state.bin", "may name members that are lost"), ("meta.json", "not the newest of its entry")],
)
def test_a_damaged_snapshot_of_a_recovery_does_not_bring_the_lost_members_back(tmp_path, file, text):
    with recovered_at_an_old_snapshots_position(tmp_path) as cluster:
        damage(tmp_path, cluster.members["n1"].snapshots.list()[0].id, file)

        with pytest.raises(CorruptStoreError, match=text):
            cluster.start("n1")


@pytest.mark.parametrize("file", ["state.bin", "meta.json"])
def test_a_damaged_recovery_may_be_repeated_from_a_snapshot_of_the_same_entry(tmp_path, file):
    """Whom that names does not matter: the operator says who is left."""
    with recovered_at_an_old_snapshots_position(tmp_path) as cluster:
        member = cluster.members["n1"]
        damage(tmp_path, member.snapshots.list()[0].id, file)

        recover(member, Configuration.of_voters({"n1": member.address}))

        cluster.start("n1")
        cluster.write(1)
        cluster.check_nothing_lost()


def test_of_two_snapshots_with_the_same_members_one_is_enough(tmp_path):
    """As a recovery leaves them that was cut off and repeated."""
    with recovered_at_an_old_snapshots_position(tmp_path) as cluster:
        member = cluster.members["n1"]
        recover(member, Configuration.of_voters({"n1": member.address}))
        damage(tmp_path, member.snapshots.list()[0].id)

        cluster.start("n1")
        cluster.write(1)
        cluster.check_nothing_lost()


@pytest.mark.parametrize("file", ["state.bin", "meta.json"])
def test_nobody_is_sent_a_snapshot_with_the_lost_members(tmp_path, file):
    """A server that lacks all entries gets a new snapshot instead."""
    with recovered_at_an_old_snapshots_position(tmp_path) as cluster:
        member = cluster.start("n1").leader()
        old, older = member.snapshots.list()
        damage(tmp_path, old.id, file)
        cluster.write(1)
        sent = []
        open_snapshot = member.snapshots.open
        member.snapshots.open = lambda id: (sent.append(id), open_snapshot(id))[1]
        new = cluster.join("n4")

        member.raft.add_voter("n4", new.address, timeout=PATIENCE).result(PATIENCE)

        cluster.write(1)
        cluster.check_nothing_lost("n1", "n4")
        assert older.id not in sent


def test_a_recovered_server_leads_in_a_term_that_no_lost_leader_can_have_had():
    """One of those whom it never heard of may have written other entries at the same places."""
    terms = []
    for id in ("n1", "n2"):
        with stopped_cluster([id], writes=2) as cluster:
            member = cluster.members[id]
            before = load_ballot(member.store).term

            recover(member, Configuration.of_voters({id: member.address}))

            ballot = load_ballot(member.store)
            assert ballot.term >= before + 2**16
            assert ballot.voted_for is None
            cluster.start(id)
            cluster.write(1)
            cluster.check_nothing_lost()
            terms.append(ballot.term - before)
    assert terms[0] != terms[1], "two that are recovered apart must not lead in one term either"


def test_a_disk_that_comes_back_after_a_recovery_is_refused_and_not_mixed():
    """It holds what a leader wrote of whom the recovered server never heard."""
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]
        last = member.store.get_log(member.store.last_index())
        old = cluster._enrol("n2", joins=True)
        old.store = InmemStore()
        old.store.store_logs(member.store.get_logs(1, last.index, 1 << 20))
        for index in range(last.index + 1, last.index + 9):
            old.store.store_logs([Log(index, last.term + 1, LogType.NOOP)])
        old.store.set(BALLOT_KEY, encode_ballot(Ballot(last.term + 1, "n2")))
        recover(member, Configuration.of_voters({"n1": member.address}))
        cluster.start("n1")
        cluster.write(3, among=["n1"])
        cluster.start("n2")

        leader = cluster.leader(["n1"]).raft
        leader.add_nonvoter("n2", old.address, timeout=PATIENCE).result(PATIENCE)
        cluster.write(3, among=["n1"])

        eventually(lambda: not old.runs or old.fsm.applied == member.fsm.applied, "refused, or the same")


def test_a_ballot_that_is_lost_does_not_let_a_recovered_server_begin_below_its_log():
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]
        term = member.store.get_log(member.store.last_index()).term
        member.store._values.pop(BALLOT_KEY)

        recover(member, Configuration.of_voters({"n1": member.address}))

        assert load_ballot(member.store).term > term
        cluster.start("n1")
        cluster.write(1)


@pytest.fixture
def overtaken(tmp_path):
    """A recovered server, on whose disk there is also a snapshot of an earlier term that reaches further.

    From outside, and never committed: the cluster went on without it.
    """
    snapshots = FileSnapshotStore(tmp_path)
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]
        survivors = Configuration.of_voters({"n1": member.address})
        last = member.store.last_index()
        term = load_ballot(member.store).term
        member.store.store_logs([Log(last + 1, term + 3, LogType.NOOP)])
        member.store.set(BALLOT_KEY, encode_ballot(Ballot(term + 3)))
        transport = InmemTransport(InmemNetwork(), "n1:1")
        with snapshots.create(1, last + 90, term + 1, survivors, 1, transport) as sink:
            sink.write(json.dumps(["from outside"]).encode())
        member.snapshots = snapshots
        recover(member, survivors)
        assert [meta.index for meta in snapshots.list()] == [last + 1, last + 90]
        yield cluster


def test_a_snapshot_that_the_cluster_went_on_without_does_not_keep_a_server_from_starting(overtaken):
    overtaken.start("n1")
    overtaken.write(1)
    overtaken.check_nothing_lost()


@pytest.mark.parametrize("file", ["state.bin", "meta.json"])
def test_a_snapshot_that_the_cluster_went_on_without_does_not_take_the_place_of_a_damaged_one(
    overtaken, tmp_path, file
):
    member = overtaken.members["n1"]
    damage(tmp_path, member.snapshots.list()[0].id, file)

    with pytest.raises(CorruptStoreError, match="is lost"):
        overtaken.start("n1")
    with pytest.raises(CorruptStoreError, match="is lost"):
        recover(member, Configuration.of_voters({"n1": member.address}))


@pytest.mark.parametrize(
    ("last", "is_lost"), [((3, 19), True), ((3, 20), False), ((2, 30), True), ((4, 10), False)]
)
def test_how_far_the_log_must_reach_is_compared_as_in_elections(tmp_path, last, is_lost):
    snapshots = FileSnapshotStore(tmp_path)
    transport = InmemTransport(InmemNetwork(), "n1:1")
    snapshots.create(1, 20, 3, Configuration.of_voters({"n1": "n1:1"}), 1, transport).close()

    with pytest.raises(CorruptStoreError, match="the state between") if is_lost else nullcontext():
        check_reaches(snapshots, None, LogPosition(*last), InmemStore())


def test_a_recovery_after_which_only_a_damaged_snapshot_is_left_is_no_new_server(tmp_path):
    snapshots = FileSnapshotStore(tmp_path)
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]
        member.snapshots = snapshots
        recover(member, Configuration.of_voters({"n1": member.address}))
        damage(tmp_path, snapshots.list()[0].id, "meta.json")

        with pytest.raises(CorruptStoreError, match="is lost"):
            cluster.start("n1")


class Unwilling(Recorder):
    def snapshot(self):
        raise ValueError("not today")


class Wrong(Recorder):
    def snapshot(self):
        return "text"


class Mute(Recorder):
    def snapshot(self):
        return Silent()


class Silent(FSMSnapshot):
    released = 0

    def persist(self, sink):
        pass

    def release(self):
        Silent.released += 1


@pytest.mark.parametrize(
    ("fsm", "text"),
    [(Unwilling, "not today"), (Wrong, "returned str: return bytes"), (Mute, "wrote nothing")],
)
def test_an_fsm_that_gives_no_snapshot_is_named_and_nothing_has_changed(fsm, text):
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]

        with pytest.raises(SnapshotFailedError, match=text):
            recover(member, Configuration.of_voters({"n1": member.address}), fsm())

        assert not member.snapshots.list()
        cluster.start("n1")
        cluster.check_nothing_lost()


def test_a_captured_state_is_released():
    Silent.released = 0
    with stopped_cluster(["n1"], writes=1) as cluster:
        member = cluster.members["n1"]
        with pytest.raises(SnapshotFailedError):
            recover(member, Configuration.of_voters({"n1": member.address}), Mute())

    assert Silent.released == 1


def test_an_fsm_that_keeps_configurations_is_told_those_in_the_log():
    class Keeper(Recorder, ConfigurationStore):
        def store_configuration(self, index, configuration):
            told.append((index, configuration))

    told = []
    with stopped_cluster(["n1"], writes=1) as cluster:
        member = cluster.members["n1"]
        survivors = Configuration.of_voters({"n1": member.address})
        recover(member, survivors, Keeper())

    assert told == [(1, survivors)]


class OutOfMemory(Recorder):
    def apply(self, log):
        raise MemoryError


class Refusing(Recorder):
    """Answers some commands with an error, as FSMs may."""

    def apply(self, log):
        if log.data.startswith(b"command 2"):
            raise ValueError("no")
        return super().apply(log)


def test_an_error_of_a_command_is_its_result_and_one_of_this_server_ends_the_recovery():
    with stopped_cluster(["n1"], writes=3) as cluster:
        member = cluster.members["n1"]
        survivors = Configuration.of_voters({"n1": member.address})

        with pytest.raises(FSMFailedError, match="FSM.apply failed at entry"):
            recover(member, survivors, OutOfMemory())
        assert member.store.last_index() > 0

        recover(member, survivors, Refusing())
        assert len(member.snapshots.list()) == 1


def damage(directory, id, file="state.bin"):
    """Flip a byte of the snapshot ``id``."""
    path = directory / "snapshots" / id / file
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


def test_a_damaged_newest_snapshot_falls_back_to_the_one_before(tmp_path):
    snapshots = FileSnapshotStore(tmp_path, retain=2)
    with Cluster(
        ["n1"], settings=config(0.05, trailing_logs=100), make_snapshots=lambda: snapshots
    ) as cluster:
        cluster.start()
        for _ in range(2):
            cluster.write(3)
            cluster.leader().raft.snapshot().result(PATIENCE)
        member = cluster.members["n1"]
        cluster.stop("n1")
        damage(tmp_path, snapshots.list()[0].id)
        survivors = Configuration.of_voters({"n1": member.address})

        recover(member, survivors)

        cluster.start("n1")
        cluster.check_nothing_lost()


@pytest.mark.parametrize("file", ["state.bin", "meta.json"])
def test_a_log_that_ends_before_a_damaged_snapshot_is_refused_because_the_state_between_is_lost(
    tmp_path, file
):
    snapshots = FileSnapshotStore(tmp_path, retain=2)
    with Cluster(["n1"], settings=config(0.05, trailing_logs=0), make_snapshots=lambda: snapshots) as cluster:
        cluster.start()
        for _ in range(2):
            cluster.write(3)
            cluster.leader().raft.snapshot().result(PATIENCE)
        member = cluster.members["n1"]
        eventually(lambda: member.store.last_index() == 0, "the log is cut")
        cluster.stop("n1")
        if file == "meta.json":  # then the store does not even list it
            next(tmp_path.rglob(f"{snapshots.list()[0].id}/meta.json")).write_text("{")
        else:
            damage(tmp_path, snapshots.list()[0].id)

        with pytest.raises(CorruptStoreError, match="is lost"):
            recover(member, Configuration.of_voters({"n1": member.address}))
        with pytest.raises(CorruptStoreError, match="is lost"):
            cluster.start("n1")


def test_when_no_snapshot_can_be_read_the_recovery_is_refused(tmp_path):
    snapshots = FileSnapshotStore(tmp_path, retain=2)
    with Cluster(["n1"], settings=config(0.05, trailing_logs=0), make_snapshots=lambda: snapshots) as cluster:
        cluster.start().write(3)
        cluster.leader().raft.snapshot().result(PATIENCE)
        member = cluster.members["n1"]
        cluster.stop("n1")
        damage(tmp_path, snapshots.list()[0].id)

        with pytest.raises(CorruptStoreError, match="none of the snapshots can be restored"):
            recover(member, Configuration.of_voters({"n1": member.address}))


def test_a_crash_between_snapshot_and_log_is_made_good_by_doing_it_again():
    with stopped_cluster(["n1"], writes=5) as cluster:
        member = cluster.members["n1"]
        survivors = Configuration.of_voters({"n1": member.address})

        def crash(first, last):
            raise OSError("power cut")

        member.store.delete_range = crash
        with pytest.raises(StorageError):
            recover(member, survivors)
        del member.store.delete_range

        recover(member, survivors)
        cluster.start("n1")
        cluster.check_nothing_lost()


def has_just_come(member):
    ballot = load_ballot(member.store)
    newborn = Newborn(ballot.term, 10_000, LogPosition(ballot.term, 10_000))
    member.store.set(BALLOT_KEY, encode_ballot(dataclasses.replace(ballot, newborn=newborn)))


def test_a_stable_store_that_fails_at_the_end_is_a_storage_error_and_recovering_again_works(monkeypatch):
    with stopped_cluster(writes=5) as cluster:
        member = cluster.members["n2"]
        has_just_come(member)

        def fail(key, value):
            raise ValueError("my driver's own error")

        with monkeypatch.context() as patch:
            patch.setattr(member.store, "set", fail)
            with pytest.raises(StorageError, match="my driver's own error.*recover again") as raised:
                recover(member, Configuration.of_voters({"n2": member.address}))
        assert type(raised.value.__cause__) is ValueError

        recover(member, Configuration.of_voters({"n2": member.address}))
        cluster.start("n2")
        assert cluster.leader() is member


def test_a_survivor_that_had_just_come_leads_once_it_is_recovered():
    with stopped_cluster(writes=5) as cluster:
        member = cluster.members["n2"]
        has_just_come(member)

        recover(member, Configuration.of_voters({"n2": member.address}))
        cluster.start("n2")

        assert cluster.leader() is member


def recovered(cluster, id, last):
    """The parts of a server whose log ended at ``last``; what follows entry 10 reached nobody else."""
    member = cluster.members[id]
    member.store, member.snapshots = InmemStore(), InmemSnapshotStore()
    first = Log(1, 1, LogType.CONFIGURATION, encode_configuration(Configuration.of_voters({"n9": "n9"})))
    member.store.store_logs([first, *(Log(n, 2, data=b"old %d" % n) for n in range(2, last + 1))])
    member.store.set(BALLOT_KEY, encode_ballot(Ballot(2)))
    recover(member, Configuration.of_voters(cluster.addresses))


def test_of_survivors_that_were_recovered_with_different_logs_none_acknowledges_what_it_has_not_got():
    """That is no way to recover a cluster, but nothing that is acknowledged may be lost."""
    with Cluster(settings=config(2.0, trailing_logs=0)) as cluster:
        for id, last in (("n1", 10), ("n2", 10), ("n3", 14)):
            recovered(cluster, id, last)
        cluster.start("n1", "n2")
        leader = cluster.leader()
        other = next(id for id in ("n1", "n2") if id != leader.id)
        refused = []
        cluster.network.drop(src=cluster.addresses["n3"], when=lambda m: refuses(m) and refused.append(m))
        cluster.start("n3")
        cluster.write(1, among=["n1", "n2"])
        cluster.stop(other)

        precious = leader.raft.apply(b"precious")
        eventually(lambda: leader.store.last_index() == getattr(precious, "_index", 0), "the leader has it")
        refused.clear()
        eventually(lambda: len(refused) > 2, "n3 refuses what does not follow upon its log")
        assert not precious.done()
        assert leader.raft.status().peers["n3"].match <= 10

        cluster.start(other)
        precious.result(PATIENCE)
        assert b"precious" in leader.fsm.applied
        assert cluster.members["n3"].fsm.applied == [
            b"old %d" % n for n in range(2, 15)
        ]  # and nothing mixed up

        cluster.write(3, among=["n1", "n2"])  # now their log goes as far as n3's snapshot, and differs
        failure = eventually(lambda: cluster.members["n3"].raft.failure, "n3 stops, and says why")
        assert "recovered by hand" in str(failure)
        assert "wipe this server's directory" in str(failure)


def refuses(message):
    return isinstance(message, AppendEntriesResponse) and not message.success


# -- the files ---------------------------------------------------------------------------------


def written(tmp_path, content):
    path = tmp_path / "peers.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_list_of_addresses_names_voters(tmp_path):
    path = written(tmp_path, ["10.0.0.1:7000", "10.0.0.2:7000"])

    assert read_peers_json(path) == Configuration.of_voters(
        {"10.0.0.1:7000": "10.0.0.1:7000", "10.0.0.2:7000": "10.0.0.2:7000"}
    )
    assert read_peers_json(str(path)) == read_peers_json(path)


def test_a_list_of_servers_says_who_votes(tmp_path):
    path = written(
        tmp_path,
        [
            {"id": "n1", "address": "a:1"},
            {"id": "n2", "address": "b:1", "non_voter": False},
            {"id": "n3", "address": "c:1", "non_voter": True},
        ],
    )

    assert read_config_json(path) == Configuration(
        (Server("n1", "a:1"), Server("n2", "b:1"), Server("n3", "c:1", Suffrage.NONVOTER))
    )


BAD_FOR_BOTH = [
    ("", "cannot be read as JSON"),
    ("[", "cannot be read as JSON"),
    ("not json", "cannot be read as JSON"),
    ("null", "not a list"),
    ("{}", "not a list"),
    ('"n1"', "not a list"),
    ("[]", "need at least one voter"),
    ("[1]", "not a list of addresses|is no server"),
    ("[null]", "not a list of addresses|is no server"),
    ("[[]]", "not a list of addresses|is no server"),
]


@pytest.mark.parametrize("read", [read_peers_json, read_config_json])
@pytest.mark.parametrize(("content", "reason"), BAD_FOR_BOTH)
def test_a_file_that_is_something_else_is_refused_by_name(tmp_path, read, content, reason):
    path = written(tmp_path, content)

    with pytest.raises(ConfigError, match=reason) as refused:
        read(path)

    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([{"id": "n1", "address": "a:1"}, {"id": "n1", "address": "b:1"}], "n1 stands twice"),
        ([{"id": "n1", "address": "a:1"}, {"id": "n2", "address": "a:1"}], "same address a:1"),
        ([{"id": "n1", "address": "a:1", "non_voter": True}], "need at least one voter"),
        ([{"id": "n1"}], 'is no server: write {"id"'),
        ([{"address": "a:1"}], "is no server"),
        ([{"id": "n1", "address": "a:1", "nonvoter": True}], "is no server"),
        ([{"id": 1, "address": "a:1"}], "id=1 of .* is not a str"),
        ([{"id": "n1", "address": None}], "address=None of .* is not a str"),
        ([{"id": "n1", "address": "a:1", "non_voter": "yes"}], "non_voter='yes' of .* is not a bool"),
        ([{"id": "", "address": "a:1"}], "empty id"),
        ([{"id": "n1", "address": ""}], "empty address"),
        (["a:1"], "is no server"),
    ],
)
def test_a_list_of_servers_that_cannot_work_is_refused_with_its_reason(tmp_path, members, reason):
    path = written(tmp_path, members)

    with pytest.raises(ConfigError, match=reason) as refused:
        read_config_json(path)

    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["a:1", "a:1"], "a:1 stands twice"),
        ([""], "empty id"),
        ([{"id": "n1", "address": "a"}], "not a list of addr"),
    ],
)
def test_a_list_of_addresses_that_cannot_work_is_refused_with_its_reason(tmp_path, addresses, reason):
    with pytest.raises(ConfigError, match=reason):
        read_peers_json(written(tmp_path, addresses))


@pytest.mark.parametrize("read", [read_peers_json, read_config_json])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path, read):
    with pytest.raises(ConfigError, match="nowhere.json cannot be read"):
        read(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    path = tmp_path / "binary.json"
    path.write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(ConfigError, match=r"binary.json cannot be read as JSON"):
        read(path)


def test_a_file_brings_a_lost_cluster_back(tmp_path):
    """hashicorp's recovery by peers.json, onto addresses that are all new."""
    with stopped_cluster(writes=10, snapshot_after=3) as cluster:
        assert cluster.network  # for its names
        for id in ("n1", "n2"):
            cluster.members[id].address = f"{id}.new:1"
        path = written(tmp_path, [{"id": id, "address": cluster.members[id].address} for id in ("n1", "n2")])
        for id in ("n1", "n2"):
            recover(cluster.members[id], read_config_json(path))

        cluster.start("n1", "n2")

        cluster.write(1, among=["n1", "n2"])
        cluster.check_nothing_lost("n1", "n2")
        assert isinstance(cluster.members["n1"].raft, Raft)
