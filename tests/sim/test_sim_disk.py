"""The simulated disk keeps a store's promises, and breaks them only where a real one would."""

from __future__ import annotations

import pytest

from pyraft.errors import CorruptStoreError, StorageError, StoreFullError
from pyraft.log import Log
from pyraft.testing import check_log_store
from pyraft.testing.sim_disk import SimDisk, SimStore
from pyraft.testing.sim_runtime import Group, Killed, Scheduler, ServerDownError, SimRuntime


@pytest.fixture
def scheduler():
    return Scheduler(seed=1)


def open_store(scheduler, disk):
    return SimStore(disk, SimRuntime(scheduler, Group("n1")))


def entries(first, last, term=1):
    return [Log(index, term, data=b"x") for index in range(first, last + 1)]


def test_it_keeps_the_promises_of_a_store(scheduler, tmp_path):
    disks = {}

    def reopen(path):
        disk = disks.setdefault(path, SimDisk(scheduler, "n1"))
        return open_store(scheduler, disk)

    check_log_store(reopen, tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_a_power_cut_leaves_a_commit_in_flight_whole_or_not_at_all(seed):
    scheduler = Scheduler(seed)
    disk = SimDisk(scheduler, "n1")
    runtime = SimRuntime(scheduler, Group("n1"))
    store = SimStore(disk, runtime)
    store.store_logs(entries(1, 5))
    disk.slow_by, disk.slow_until = 1.0, float("inf")
    seen = []

    def write():
        try:
            store.replace_suffix(entries(3, 4, term=2))
        except Killed:
            seen.append("killed")
            raise

    scheduler.spawn("writer", write, runtime.group)
    scheduler.sleep(0.5)
    disk.crash()
    scheduler.kill(runtime.group)

    terms = [disk.entry(index).term for index in range(1, disk.last_index + 1)]
    assert terms in ([1, 1, 1, 1, 1], [1, 1, 2, 2])
    assert seen == ["killed"]
    with pytest.raises(ServerDownError):
        store.last_index()


def test_a_full_disk_stores_nothing_and_the_handle_refuses_every_later_write(scheduler):
    disk = SimDisk(scheduler, "n1")
    store = open_store(scheduler, disk)
    disk.is_full = True

    with pytest.raises(StoreFullError):
        store.store_logs(entries(1, 2))
    disk.is_full = False
    with pytest.raises(StorageError, match="an earlier write failed"):
        store.store_logs(entries(1, 2))

    assert store.last_index() == 0
    open_store(scheduler, disk).store_logs(entries(1, 2))
    assert disk.last_index == 2


def test_after_an_io_error_nobody_knows_and_only_reopening_helps(scheduler):
    landed = set()
    for seed in range(10):
        disk = SimDisk(Scheduler(seed), "n1")
        store = SimStore(disk, SimRuntime(disk._scheduler, Group("n1")))
        disk.conditions.io_error = 1.0
        with pytest.raises(StorageError, match="input/output"):
            store.set(b"key", b"value")
        landed.add(disk.value(b"key"))

    assert landed == {None, b"value"}


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_is_met_when_the_record_is_read(seed):
    disk = SimDisk(Scheduler(seed), "n1")
    store = SimStore(disk, SimRuntime(disk._scheduler, Group("n1")))
    store.store_logs(entries(1, 3))

    disk.flip_bit(2)

    assert store.get_log(1).index == 1
    with pytest.raises(CorruptStoreError, match="entry 2"):
        store.get_log(2)
