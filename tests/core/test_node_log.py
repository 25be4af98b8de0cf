"""NodeLog: staged, recent and stored entries look like one log to every reader."""

import pytest

from pyraft import node_log as node_log_module
from pyraft.errors import CorruptStoreError, LogNotFoundError, StorageError
from pyraft.logstore import InmemStore
from pyraft.node_log import NodeLog
from pyraft.rules.election import LogPosition
from tests.logs import entries, indexes, node_log, stored, terms
from tests.threads import in_thread

ALL = 1_000_000


def few_in_memory(monkeypatch, count):
    monkeypatch.setattr(node_log_module, "_RECENT_ENTRIES", count)
    each_write_apart(monkeypatch)


def each_write_apart(monkeypatch):
    """Small neighbouring writes may be kept as one; here they are not."""
    monkeypatch.setattr(node_log_module, "_SMALL_CHUNK_ENTRIES", 0, raising=False)
    monkeypatch.setattr(node_log_module, "_SMALL_CHUNK_ENTRIES", 0)


class CountingStore(InmemStore):
    """Counts reads; fails on request."""

    def __init__(self):
        super().__init__()
        self.reads = 0
        self.error = None

    def _fail(self):
        if self.error is not None:
            raise self.error

    def get_log(self, index):
        self.reads += 1
        self._fail()
        return super().get_log(index)

    def get_logs(self, first, last, max_bytes):
        self.reads += 1
        self._fail()
        return super().get_logs(first, last, max_bytes)

    def store_logs(self, logs):
        self._fail()
        super().store_logs(logs)

    def replace_suffix(self, logs):
        self._fail()
        super().replace_suffix(logs)


def appended(*drawings, store=None):
    """A log to which each drawing was appended in one write."""
    log = NodeLog(InmemStore() if store is None else store)
    for drawn in drawings:
        log.stage(entries(drawn, first=log.last.index + 1))
        log.write_staged()
    return log


# -- opening --


def test_an_empty_store_is_an_empty_log():
    log = node_log("")

    assert (log.first_index, log.last) == (0, LogPosition(0, 0))
    assert log.term_at(0) == 0
    assert log.recent(1, 1) is None
    with pytest.raises(LogNotFoundError):
        log.read(1, 1, ALL)


def test_a_store_tells_where_its_log_begins_and_ends():
    log = node_log("1123")

    assert (log.first_index, log.last) == (1, LogPosition(3, 4))


@pytest.mark.parametrize(("first", "last"), [(0, 3), (5, 4)])
def test_ends_that_contradict_each_other_are_a_damaged_store(first, last):
    store = stored("111")
    store.first_index = lambda: first
    store.last_index = lambda: last

    with pytest.raises(CorruptStoreError, match=f"first entry is {first} and its last {last}"):
        NodeLog(store)


# -- staging and writing --


def test_staged_entries_are_read_from_memory_and_are_not_in_the_store():
    log = node_log("1")

    log.stage(entries("22", first=2))

    assert indexes(log.read(2, 3, ALL)) == [2, 3]
    assert terms(log) == "122"
    assert log._store.last_index() == 1


def test_written_entries_are_in_the_store():
    log = node_log("1")
    log.stage(entries("22", first=2))

    log.write_staged()

    assert terms(NodeLog(log._store)) == "122"


def test_the_first_write_to_an_empty_log_sets_its_beginning():
    assert appended("1").first_index == 1


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("bug")])
def test_a_write_that_fails_is_a_storage_error_with_its_cause(error):
    store = CountingStore()
    log = NodeLog(store)
    log.stage(entries("1"))
    store.error = error

    with pytest.raises(StorageError) as raised:
        log.write_staged()

    assert raised.value.__cause__ is error


def test_a_storage_error_of_the_store_itself_is_passed_on():
    store = CountingStore()
    log = NodeLog(store)
    store.error = CorruptStoreError("bad page")

    with pytest.raises(CorruptStoreError):
        log.replace_suffix(entries("1"))


# -- replacing a suffix --


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "only in the store"])
@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_replacing_a_suffix_drops_what_stood_from_there_on(first, in_memory):
    log = appended("11", "22") if in_memory else node_log("1122")

    log.replace_suffix(entries("3", first=first))

    assert terms(log) == "1122"[: first - 1] + "3"
    assert terms(NodeLog(log._store)) == terms(log)
    assert indexes(log.read(1, 9, ALL))[0] == 1


def test_a_replaced_entry_is_read_as_what_replaced_it():
    log = appended("111")

    log.replace_suffix(entries("22", first=2))

    assert [e.term for e in log.read(2, 3, ALL)] == [2, 2]
    assert log.recent(1, 3) == [*entries("1"), *entries("22", first=2)]


def test_a_reader_is_undisturbed_while_the_writer_truncates():
    # The writer replaces the suffix after the reader has taken its view.
    log = appended("111")
    before = log._recent

    log.replace_suffix(entries("2", first=2))

    assert [e.term for e in node_log_module._read_chunks(before, 1, 3, None)] == [1, 1, 1]


def test_readers_never_see_a_mix_of_two_terms_in_one_read():
    log = appended("1" * 50)
    stop = []

    def read():
        seen = 0
        while not stop:
            try:
                got = log.read(20, 40, ALL)
            except LogNotFoundError:
                continue
            assert indexes(got) == list(range(20, 20 + len(got)))
            assert len({e.term for e in got}) == 1, "a mix of two leaders' entries"
            seen += 1
        return seen

    readers = [in_thread(read) for _ in range(3)]
    for term in "23456789" * 10:
        log.replace_suffix(entries(term * 40, first=11))
    stop.append(True)

    for joined in readers:
        assert isinstance(outcome := joined(), int), outcome


# -- memory and its bounds --


def test_the_oldest_written_entries_leave_memory_and_are_read_from_the_store(monkeypatch):
    few_in_memory(monkeypatch, 4)
    store = CountingStore()
    log = appended("11", "11", "11", store=store)

    assert log.recent(3, 6) is not None
    assert log.recent(2, 6) is None
    assert indexes(log.read(1, 6, ALL)) == [1, 2]  # up to where memory begins
    assert store.reads == 1
    assert indexes(log.read(3, 6, ALL)) == [3, 4, 5, 6]
    assert store.reads == 1
    assert terms(log) == "111111"


def test_the_bound_is_in_bytes_too(monkeypatch):
    monkeypatch.setattr(node_log_module, "_RECENT_BYTES", 1)
    each_write_apart(monkeypatch)
    monkeypatch.setattr(node_log_module, "_SMALL_CHUNK_ENTRIES", 0)
    log = appended("11", "11")

    assert log.recent(3, 4) is not None  # the newest batch always stays
    assert log.recent(2, 3) is None


def test_entries_that_come_one_by_one_share_a_few_chunks():
    log = appended(*["1"] * 1000)

    assert len(log._recent) <= 1000 / 128 + 1  # it is copied at every append
    assert indexes(log.recent(1, 1000)) == list(range(1, 1001))


def test_a_staged_entry_never_leaves_memory_before_it_is_written(monkeypatch):
    few_in_memory(monkeypatch, 1)
    log = appended("11")

    log.stage(entries("11", first=3))

    assert log.recent(3, 4) is not None
    assert log.recent(1, 4) is not None


def test_recent_gives_all_or_nothing():
    log = node_log("111")
    log.stage(entries("11", first=4))
    log.write_staged()

    assert indexes(log.recent(4, 5)) == [4, 5]
    assert log.recent(3, 5) is None
    assert log.recent(4, 6) is None


# -- reading --


def test_a_read_is_bounded_in_bytes_but_gives_at_least_one():
    log = appended("111", "11")
    one = len(entries("1")[0].encoded)

    assert indexes(log.read(1, 5, 0)) == [1]
    assert indexes(log.read(1, 5, 2 * one)) == [1, 2]
    assert indexes(log.read(1, 5, 4 * one + 1)) == [1, 2, 3, 4]
    assert indexes(log.read(1, 5, ALL)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("first", range(1, 8))
@pytest.mark.parametrize("last", range(1, 8))
def test_every_range_can_be_read_across_the_batches_in_memory(first, last):
    log = appended("11", "1", "111", "1")
    expected = list(range(first, last + 1))

    if expected:
        assert indexes(log.read(first, last, ALL)) == expected
        assert indexes(log.recent(first, last)) == expected


def test_a_read_beyond_the_end_gives_what_there_is():
    assert indexes(appended("11").read(2, 9, ALL)) == [2]


def test_a_read_that_begins_beyond_the_end_is_refused():
    with pytest.raises(LogNotFoundError):
        appended("11").read(3, 9, ALL)


@pytest.mark.parametrize("read", [lambda log: log.term_at(1), lambda log: log.read(1, 2, ALL)])
def test_a_read_that_fails_is_a_storage_error(read):
    store = CountingStore()
    store.store_logs(entries("111"))
    log = NodeLog(store)
    store.error = OSError("bad sector")

    with pytest.raises(StorageError, match="bad sector"):
        read(log)


def test_the_term_of_an_entry_that_vanished_is_unknown():
    log = node_log("111")
    log._store.delete_range(1, 2)

    assert log.term_at(1) is None
    assert log.term_at(3) == 1
