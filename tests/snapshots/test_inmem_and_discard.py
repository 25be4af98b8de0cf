"""InmemSnapshotStore and DiscardSnapshotStore; hashicorp/raft's inmem_snapshot_test.go among others."""

import threading
import tracemalloc

import pytest

import pyraft.snapshots
from pyraft.errors import ConfigError, RaftError
from pyraft.snapshots import (
    DiscardSnapshotStore,
    InmemSnapshotStore,
    SnapshotMeta,
    SnapshotSink,
    SnapshotStore,
)
from tests.snapshots.snaps import CONFIGURATION, TRANSPORT, begin, ids, read, take


@pytest.fixture
def store():
    return InmemSnapshotStore()


@pytest.mark.parametrize("kind", [InmemSnapshotStore, DiscardSnapshotStore])
def test_they_are_snapshot_stores_with_sinks(kind):
    assert isinstance(kind(), SnapshotStore)
    assert isinstance(begin(kind()), SnapshotSink)


def test_a_snapshot_is_there_when_it_is_closed_and_not_before(store):
    # hashicorp/raft lists it from its creation on.
    sink = begin(store)
    assert sink.write(b"first\n") == 6
    assert sink.write(b"second\n") == 7
    assert ids(store) == []
    sink.close()

    assert list(store.list()) == [SnapshotMeta(sink.id, 10, 3, CONFIGURATION, 2, 13, 1)]
    meta, reader = store.open(sink.id)
    assert (meta, reader.read()) == (store.list()[0], b"first\nsecond\n")


def test_it_can_be_opened_twice(store):
    id = take(store)
    assert read(store, id) == read(store, id) == b"hello world"


def test_a_failed_one_leaves_the_one_before(store):
    id = take(store)
    with pytest.raises(ZeroDivisionError), begin(store, index=11):
        raise ZeroDivisionError
    begin(store, index=12).write(b"half")

    assert ids(store) == [id]
    assert read(store, id) == b"hello world"


def test_only_the_newest_is_kept_whichever_is_closed_last(store):
    old, new = begin(store, index=10), begin(store, index=11)
    new.close()
    old.close()

    assert ids(store) == [new.id]
    with pytest.raises(RaftError, match="no snapshot"):
        store.open(old.id)


def test_the_others_take_no_memory(store):
    tracemalloc.start()
    try:
        for index in (*range(10), *range(10)):
            take(store, bytes(1_000_000), index)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 2_000_000


def test_names_repeat_in_a_run_that_repeats():
    assert [take(InmemSnapshotStore()) for _ in range(2)] == ["3-10-1", "3-10-1"]


def test_what_was_written_is_a_copy(store):
    piece = bytearray(b"hello")
    with begin(store) as sink:
        sink.write(piece)
        piece[:] = b"xxxxx"
    assert read(store, sink.id) == b"hello"

    _, reader = store.open(sink.id)
    reader.write(b"XX")
    assert read(store, sink.id) == b"hello"


def test_threads_that_close_at_once_leave_the_newest(store):
    sinks = [begin(store, index=index) for index in range(400)]
    threads = [
        threading.Thread(target=lambda part: [sink.close() for sink in part], args=(sinks[n::4],))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ids(store) == [sinks[-1].id]


@pytest.mark.parametrize("version", [0, 2])
def test_other_versions_cannot_be_written(store, version):
    with pytest.raises(ConfigError, match="must be 1"):
        store.create(version, 10, 3, CONFIGURATION, 2, TRANSPORT)


def test_a_discarded_snapshot_is_nowhere():
    store = DiscardSnapshotStore()
    sink = begin(store)
    assert sink.write(b"hello") == 5
    sink.close()
    sink.cancel()

    assert ids(store) == []
    with pytest.raises(RaftError, match="keeps none"):
        store.open(sink.id)


def test_the_package_names_only_what_it_has():
    assert pyraft.snapshots.FileSnapshotStore.__name__ in pyraft.snapshots.__all__
    with pytest.raises(AttributeError, match="S3SnapshotStore"):
        _ = pyraft.snapshots.S3SnapshotStore
