"""Every fault does what its name says, bad input is refused, and disks that lie are caught."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from pyraft.errors import ConfigError, CorruptStoreError
from pyraft.fsm import BatchingFSM
from pyraft.log import Log
from pyraft.testing import KvFsm, SimCluster, Violation, draw_faults
from pyraft.testing.adversaries import (
    CrashBeforeAck,
    CrashInSnapshot,
    CrashWithUncommitted,
    CutNewLeader,
    LateEntries,
    OldSessionReplies,
    StarveAtQueue,
    StopUnderLoad,
    ThawAtCommit,
    TwoLogs,
)
from pyraft.testing.fault_mix import EXPERIMENTS, KINDS, PROFILES, by_name
from pyraft.testing.faults import (
    BridgePartition,
    FlappingPartition,
    FreezeAll,
    HalfDeafLeader,
    HeldAfterClockRead,
    LostDisk,
    RaisingFsm,
    RestartStorm,
    SlowRestart,
)
from pyraft.testing.sim_disk import SimDisk, SimStore
from pyraft.testing.sim_kv import CommandRefused, encode_command
from pyraft.testing.sim_runtime import Group, Scheduler, SimRuntime


@pytest.fixture
def start():
    clusters = []

    def start_cluster(*faults, servers=3, seed=1, clients=2, **kwargs):
        cluster = SimCluster(servers, seed, faults=faults, **kwargs)
        clusters.append(cluster)
        for _ in range(clients):
            cluster.client(rate=20)
        return cluster

    yield start_cluster
    for cluster in clusters:
        cluster.close()


def happened(cluster, word):
    """The notes of the run that have ``word`` in them, each as text."""
    texts = [" ".join(map(str, event[2:])) for event in cluster.scheduler.events]
    return [text for text in texts if word in text]


def unreachable(cluster):
    """The pairs of servers of which the first cannot reach the second."""
    servers = cluster.servers.values()
    return {
        (a.id, b.id)
        for a in servers
        for b in servers
        if a is not b and not cluster.network.reachable(a.address, b.address)
    }


def strike(fault, cluster):
    """The fault strikes now."""
    fault.begin(cluster, random.Random(1))
    fault.strike(cluster, random.Random(1))


def relent(fault, cluster):
    fault.relent(cluster, random.Random(1))


def quiet(kind):
    """A fault whose strikes are the test's own."""
    return kind(every=1e6, lasting=1e6)


# -- networks ----------------------------------------------------------------------------------------


def test_a_bridge_keeps_two_halves_apart_and_reaches_both(start):
    cluster, fault = start(servers=5), quiet(BridgePartition)

    strike(fault, cluster)

    cut = unreachable(cluster)
    cut_ends = {one for link in cut for one in link}
    assert len(cut) == 8
    assert len(cut_ends) == 4
    relent(fault, cluster)
    assert not unreachable(cluster)


def test_a_half_deaf_leader_loses_one_direction(start):
    cluster, fault = start(servers=3), quiet(HalfDeafLeader)
    leader = cluster.leader()

    strike(fault, cluster)

    cut = unreachable(cluster)
    assert len(cut) == 2
    assert {src for src, _ in cut} == {leader.id} or {dst for _, dst in cut} == {leader.id}
    relent(fault, cluster)
    assert not unreachable(cluster)


def test_a_flapping_partition_comes_and_goes(start):
    cluster, fault = start(servers=3), quiet(FlappingPartition)
    seen = []

    strike(fault, cluster)
    for _ in range(200):
        cluster.run(0.01)
        seen.append(bool(unreachable(cluster)))

    changes = sum(1 for before, now in pairwise(seen) if before != now)
    assert changes >= 3
    relent(fault, cluster)
    cluster.run(2)
    assert not unreachable(cluster)


def test_the_end_of_one_cut_leaves_those_of_others(start):
    cluster = start(servers=3)
    cluster.network.cut("mine", [("n1:7000", "n2:7000")])
    cluster.network.cut("yours", [("n2:7000", "n3:7000")])

    cluster.network.mend("mine")

    assert unreachable(cluster) == {("n2", "n3")}


# -- processes ---------------------------------------------------------------------------------------


def test_a_restart_storm_kills_one_server_over_and_over(start):
    cluster, fault = start(), quiet(RestartStorm)
    cluster.leader()

    strike(fault, cluster)
    cluster.run(3)
    relent(fault, cluster)

    assert max(server.incarnation for server in cluster.servers.values()) > 4
    cluster.check()


def test_a_slow_restart_boots_on_a_slow_disk(start):
    cluster, fault = start(), quiet(SlowRestart)
    cluster.leader()

    strike(fault, cluster)

    [restarted] = [server for server in cluster.servers.values() if server.incarnation == 2]
    assert restarted.disk.slow_by > 0
    relent(fault, cluster)
    assert restarted.disk.slow_by == 0
    cluster.check()


def test_when_all_freeze_nothing_is_committed_until_they_thaw(start):
    cluster, fault = start(), quiet(FreezeAll)
    cluster.leader()
    strike(fault, cluster)
    before = len(cluster.judge.committed)

    cluster.run(3)
    assert len(cluster.judge.committed) == before

    relent(fault, cluster)
    cluster.run(3)
    assert len(cluster.judge.committed) > before
    cluster.check()


def test_a_thread_is_held_after_it_has_read_a_clock(start):
    cluster, fault = start(), quiet(HeldAfterClockRead)
    cluster.leader()
    strike(fault, cluster)
    server = next(server for server in cluster.servers.values() if server.clock.held_after_read)
    server.clock.held_after_read = lambda: 0.25
    runtime = SimRuntime(cluster.scheduler, Group("looker"), server.clock)
    read = []

    def look():
        read.append((runtime.now(), server.clock.read()))
        read.append((runtime.wall_time_ns(), 0))
        read.append((0, server.clock.read()))

    cluster.scheduler.spawn("looker", look, runtime.group)
    cluster.run(1)

    (acted_on, shown), _, (_, later) = read
    assert shown - acted_on >= 0.24
    assert later - shown >= 0.24
    relent(fault, cluster)
    assert server.clock.held_after_read is None
    cluster.check()


# -- disks -------------------------------------------------------------------------------------------


def filled_disk():
    disk = SimDisk(Scheduler(seed=1), "n1")
    store = SimStore(disk, SimRuntime(disk._scheduler, Group("n1")))
    store.store_logs([Log(index, 1, data=b"x") for index in range(1, 6)])
    return disk, store


@pytest.mark.parametrize("damage", ["misdirect_write", "lose_write", "flip_bit"])
def test_a_damaged_record_is_never_taken_for_an_entry(damage):
    disk, store = filled_disk()

    index = getattr(disk, damage)(3)

    assert index == 3
    with pytest.raises(CorruptStoreError, match="entry 3"):
        store.get_log(3)
    assert store.get_log(2).index == 2


def test_a_truncated_store_is_refused_and_an_emptied_one_opens():
    disk, _ = filled_disk()
    disk.is_truncated = True

    with pytest.raises(CorruptStoreError, match="shorter"):
        SimStore(disk, SimRuntime(disk._scheduler, Group("n1")))

    disk.wipe()
    assert SimStore(disk, SimRuntime(disk._scheduler, Group("n1"))).last_index() == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_server_with_a_lost_disk_comes_back(start, seed):
    cluster, fault = start(seed=seed), quiet(LostDisk)
    cluster.leader()
    cluster.run(1)

    fault.begin(cluster, random.Random(seed))
    fault.strike(cluster, random.Random(seed))
    cluster.run(1)
    relent(fault, cluster)

    cluster.check()
    coverage = cluster.judge.coverage
    assert coverage["disk wiped"] - coverage.get("removed server renewed", 0) == 1


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_a_disk_that_lies_about_what_is_durable_is_caught(start, kind):
    cluster = start(kind(every=2.0, lasting=0.2))

    with pytest.raises(Violation, match="I8|I9|I7|I6"):
        cluster.run(20)


@pytest.mark.parametrize(("kind", "most"), [(EXPERIMENTS[0], 1), (EXPERIMENTS[1], 100)])
def test_a_power_loss_undoes_what_was_not_synced(kind, most):
    undone = set()
    for seed in range(20):
        disk = SimDisk(Scheduler(seed), "n1")
        disk.sync = kind.sync
        store = SimStore(disk, SimRuntime(disk._scheduler, Group("n1")))
        for number in range(10):
            store.set(b"key", b"%d" % number)
        disk.lose_power()
        undone.add(9 - int(disk.value(b"key") or b"-1"))

    assert max(undone) <= most
    assert max(undone) >= min(most, 2)


# -- state machines ----------------------------------------------------------------------------------


class BatchingKv(BatchingFSM):
    def __init__(self):
        self.kv = KvFsm()

    def apply_batch(self, logs):
        return [self.kv.apply(log) for log in logs]

    def snapshot(self):
        return self.kv.snapshot()

    def restore(self, source):
        self.kv.restore(source)


@pytest.mark.parametrize("fsm", [KvFsm, BatchingKv])
def test_a_state_machine_that_raises_answers_its_client_and_the_servers_go_on(start, fsm):
    cluster = start(quiet(RaisingFsm), clients=0, fsm=fsm)
    cluster.leader()
    applied, refused = {}, set()
    for number in range(60):
        command = encode_command(f"x{number}", ("put", "1"))
        try:
            cluster.apply(command)
            applied[f"x{number}"] = "1"
        except CommandRefused as error:
            assert error.command == command
            refused.add(error.has_applied)
            if error.has_applied:
                applied[f"x{number}"] = "1"

    assert refused == {True, False}
    leader = cluster.leader()
    state = leader.fsm.kv if fsm is BatchingKv else leader.fsm
    assert {key: state.data[key] for key in state.data if key.startswith("x")} == applied
    assert all(server.is_serving and server.incarnation == 1 for server in cluster.servers.values())
    cluster.crash(leader)  # so that it applies them all once more
    cluster.check()


# -- adversaries -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "servers", "word"),
    [
        (CrashWithUncommitted, 3, "crashed with uncommitted entries"),
        (CrashBeforeAck, 3, "dies before its answer"),
        (CrashInSnapshot, 3, "dies in a snapshot"),
        (CutNewLeader, 3, "cut off when elected"),
        (ThawAtCommit, 3, "thaw"),
        (OldSessionReplies, 3, "holds net-"),
        (StarveAtQueue, 3, "starves with commands waiting"),
        (StopUnderLoad, 3, "stops under load"),
    ],
)
def test_an_adversary_finds_its_moment(start, kind, servers, word):
    cluster = start(kind(every=0.5, lasting=6.0), servers=servers, clients=4)

    cluster.run(10)

    assert happened(cluster, word)
    cluster.check()


def test_two_logs_come_to_be_and_one_is_replaced(start):
    replaced = 0
    for seed in range(3):
        cluster = start(TwoLogs(every=0.5, lasting=20.0), servers=5, seed=seed, clients=4)
        cluster.run(20)
        cluster.check()
        replaced += cluster.judge.coverage.get("uncommitted suffix replaced", 0)

    assert replaced >= 3


def test_a_former_leaders_entries_arrive_in_a_later_term(start):
    cluster = start(LateEntries(every=0.5, lasting=20.0))
    cluster.leader()
    cluster.run(2)

    cluster.crash(cluster.leader())
    cluster.run(6)

    assert cluster.network.counts["again"] > 0
    cluster.check()


def test_the_thaw_comes_when_the_next_leader_has_committed(start):
    cluster, fault = start(clients=4), quiet(ThawAtCommit)
    old = cluster.leader()
    term = old.raft.term

    fault.begin(cluster, random.Random(3))
    fault.strike(cluster, random.Random(3))
    cluster.run_until(lambda: old.is_frozen)
    cluster.run_until(lambda: not old.is_frozen)

    assert max(server.raft.term for server in cluster.servers.values() if server is not old) > term
    relent(fault, cluster)
    cluster.check()


# -- bad input and the mix -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["every", "lasting"])
@pytest.mark.parametrize("seconds", [-1, 0, -0.5, math.nan, math.inf, -math.inf, "3", None, True])
@pytest.mark.parametrize("kind", [KINDS[0], CrashWithUncommitted])
def test_rates_that_are_no_seconds_are_refused(kind, what, seconds):
    with pytest.raises(
        ConfigError, match=f"{kind.name}: {what}={seconds!r} is not a number of seconds above 0"
    ):
        kind(**{what: seconds})


@pytest.mark.parametrize("name", ["x", "", "Crash", None])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ConfigError, match=r"there is no fault .*: there are .*crash.*two logs"):
        by_name(name)


def test_every_kind_has_its_name_and_says_what_it_does():
    for kind in (*KINDS, *EXPERIMENTS):
        assert by_name(kind.name) is kind
        assert kind.__doc__


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"no profile 'calm': there are crashes, partitions"):
        draw_faults(random.Random(1), "calm")


def test_the_mix_draws_every_kind_and_no_experiment():
    drawn = {type(fault) for seed in range(300) for fault in draw_faults(random.Random(seed))}

    assert drawn == set(KINDS)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_leaves_the_cluster_at_work(start, profile):
    cluster = start(*draw_faults(random.Random(5), profile), servers=5, seed=5, clients=4)

    cluster.run(4)
    cluster.check()

    assert sum(1 for operation in cluster.history if operation.returned < math.inf) > 10
