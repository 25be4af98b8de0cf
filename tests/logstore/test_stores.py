"""The shipped stores keep the promises of base.py, and the cache never runs ahead of its store."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pyraft.errors import ConfigError, LogNotFoundError, StorageError
from pyraft.log import Log
from pyraft.logstore import InmemStore, LMDBStore, LogCache
from pyraft.testing.check_log_store import check_log_store

STORES = {
    "in memory": (lambda path: InmemStore(), False),
    "in LMDB": (lambda path: LMDBStore(path, sync=False), True),
    "cached, in memory": (lambda path: LogCache(7, InmemStore()), False),
    "cached, in LMDB": (lambda path: LogCache(512, LMDBStore(path, sync=False)), True),
}


@pytest.mark.parametrize(("open_store", "durable"), STORES.values(), ids=STORES)
def test_every_shipped_store_keeps_the_promises(open_store, durable, tmp_path):
    check_log_store(open_store, tmp_path, durable=durable)


def test_importing_the_package_does_not_import_lmdb():
    program = "import sys, pyraft.logstore; assert 'lmdb' not in sys.modules; pyraft.logstore.LMDBStore"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_only_names_that_exist_are_offered():
    import pyraft.logstore

    with pytest.raises(AttributeError):
        _ = pyraft.logstore.BoltStore


def entries(first, last, term=1):
    return [Log(index, term, data=b"%d" % index) for index in range(first, last + 1)]


class CountingStore(InmemStore):
    """Counts reads that reach it, and fails writes on request."""

    reads = 0
    failing = False

    def get_log(self, index):
        self.reads += 1
        return super().get_log(index)

    def get_logs(self, first, last, max_bytes):
        self.reads += 1
        return super().get_logs(first, last, max_bytes)

    def store_logs(self, logs):
        if self.failing:
            raise StorageError("unplugged")
        super().store_logs(logs)


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_cache_without_room_is_refused(capacity):
    with pytest.raises(ConfigError, match=f"capacity={capacity}"):
        LogCache(capacity, InmemStore())


def test_recent_entries_come_from_the_cache_and_older_ones_from_the_store():
    store = CountingStore()
    cache = LogCache(4, store)
    cache.store_logs(entries(1, 10))

    assert [cache.get_log(index).index for index in range(7, 11)] == [7, 8, 9, 10]
    assert cache.get_logs(7, 10, 100) == entries(7, 10)
    assert store.reads == 0

    assert cache.get_log(6) == entries(6, 6)[0]
    assert cache.get_logs(6, 10, 100) == entries(6, 10)
    assert store.reads == 2


def test_an_entry_that_the_store_refused_is_not_cached():
    # Served from memory, it would be replicated and counted as if it were on this disk.
    store = CountingStore()
    cache = LogCache(4, store)
    store.failing = True

    with pytest.raises(StorageError):
        cache.store_log(entries(1, 1)[0])

    with pytest.raises(LogNotFoundError):
        cache.get_log(1)


def test_deleting_any_range_empties_the_ring():
    store = CountingStore()
    cache = LogCache(8, store)
    cache.store_logs(entries(1, 8))

    cache.delete_range(1, 2)

    cache.get_log(8)
    assert store.reads == 1
    with pytest.raises(LogNotFoundError):
        cache.get_log(1)


def test_a_truncated_entry_is_not_served_from_the_ring():
    cache = LogCache(8, InmemStore())
    cache.store_logs(entries(1, 8))

    cache.replace_suffix(entries(4, 5, term=2))

    assert cache.get_log(5).term == 2
    with pytest.raises(LogNotFoundError):
        cache.get_log(7)


def test_the_cache_passes_on_what_its_store_can():
    class Monotonic(InmemStore):
        closed = False

        def is_monotonic(self):
            return True

        def close(self):
            self.closed = True

    store = Monotonic()
    cache = LogCache(8, store)

    assert cache.is_monotonic()
    assert cache.configuration_indexes() == ()
    assert not hasattr(cache, "stats")  # InmemStore has none
    cache.close()
    assert store.closed


def truncate_and_append(store):
    store.delete_range(3, 4)
    store.store_logs(entries(3, 4, term=2))


@pytest.mark.parametrize(
    "change",
    [
        truncate_and_append,
        lambda store: store.replace_suffix(entries(3, 4, term=2)),
        lambda store: store.store_logs(entries(3, 4, term=2)),
    ],
    ids=["delete_range, store_logs", "replace_suffix", "store_logs"],
)
def test_a_view_taken_before_a_truncation_stays_one_log(change):
    # A reader between two entries must not go on with another leader's.
    store = InmemStore()
    store.store_logs(entries(1, 4))
    view = store._view

    change(store)

    assert [log.term for log in view.entries.values()] == [1, 1, 1, 1]
