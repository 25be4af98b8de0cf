"""check_log_store() finds what is wrong with a store, and says what and why."""

from __future__ import annotations

import pickle
import threading

import pytest

from pyraft.errors import ConfigError, LogNotFoundError
from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore, LMDBStore
from pyraft.testing.check_log_store import PROMISES, check_log_store


class Durable(InmemStore):
    """An InmemStore that comes back when the same directory is opened again: nothing wrong with it."""

    def close(self):
        pass


def rebuilt(log, **changes):
    fields = {
        name: getattr(log, name) for name in ("index", "term", "type", "data", "extensions", "appended_at")
    }
    return Log(**(fields | changes))


class NotEmptyWhenNew(Durable):
    def __init__(self):
        super().__init__()
        super().store_logs([Log(1, 1, LogType.NOOP)])


class LosesExtensions(Durable):
    def store_logs(self, logs):
        super().store_logs([rebuilt(log, extensions=b"") for log in logs])


class LosesTheTimeOfAppending(Durable):
    def store_logs(self, logs):
        super().store_logs([rebuilt(log, appended_at=0) for log in logs])


class LosesTheTypeOfBarriers(Durable):
    def store_logs(self, logs):
        super().store_logs(
            [rebuilt(log, type=LogType.NOOP) if log.type is LogType.BARRIER else log for log in logs]
        )


class RaisesKeyErrorForMissing(Durable):
    def get_log(self, index):
        return self._view.entries[index]


class ReturnsNoneForMissing(Durable):
    def get_log(self, index):
        return self._view.entries.get(index)


class NamesAnotherMissingIndex(Durable):
    def get_log(self, index):
        try:
            return super().get_log(index)
        except LogNotFoundError:
            raise LogNotFoundError(0) from None


class SortsIndexesAsText(Durable):
    def last_index(self):
        return int(max(map(str, self._view.entries), default="0"))


class KeepsTheOldEntry(Durable):
    def store_logs(self, logs):
        super().store_logs([log for log in logs if log is None or log.index not in self._view.entries])


class LeavesTheLastOfARange(Durable):
    def delete_range(self, first, last):
        super().delete_range(first, last - 1)


class StumblesOverAnEmptyRange(Durable):
    def delete_range(self, first, last):
        if not any(first <= index <= last for index in self._view.entries):
            raise LogNotFoundError(first)
        super().delete_range(first, last)


class LeavesTheEndOfAReplacedSuffix(Durable):
    def replace_suffix(self, logs):
        self.store_logs(logs)


class ForgetsTheLimitOfBytes(Durable):
    def get_logs(self, first, last, max_bytes):
        return super().get_logs(first, last, 1 << 60)


class ReturnsNothingForALargeEntry(Durable):
    def get_logs(self, first, last, max_bytes):
        found = super().get_logs(first, last, max_bytes)
        return found if sum(len(log.data) for log in found) <= max_bytes else []


class EndsARangeTooEarly(Durable):
    def get_logs(self, first, last, max_bytes):
        return super().get_logs(first, min(last, self.last_index()), max_bytes)


class StoresOnlyThousand(Durable):
    def store_logs(self, logs):
        super().store_logs(logs[:1000])


class StoresOneByOne(Durable):
    """A batch that fails half-way leaves its first half."""

    def store_logs(self, logs):
        for log in logs:
            super().store_logs([log])


class ReusesItsEntries(Durable):
    """Overwrites the entry that a reader may hold."""

    def replace_suffix(self, logs):
        for log in () if None in logs else logs:
            old = self._view.entries.get(log.index)
            if old is not None:
                old.term, old.data = log.term, log.data
        super().replace_suffix(logs)


class FillsGaps(Durable):
    def store_logs(self, logs):
        last = self.last_index()
        if last and logs[0].index > last + 1:
            super().store_logs([Log(index, 1, LogType.NOOP) for index in range(last + 1, logs[0].index)])
        super().store_logs(logs)


class SaysItIsMonotonic(Durable):
    def is_monotonic(self):
        return True


class RemembersTruncatedConfigurations(Durable):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def store_logs(self, logs):
        super().store_logs(logs)
        self.seen |= {log.index for log in logs if log.type is LogType.CONFIGURATION}

    def replace_suffix(self, logs):
        super().replace_suffix(logs)
        self.seen |= {log.index for log in logs if log.type is LogType.CONFIGURATION}

    def configuration_indexes(self):
        return tuple(sorted(self.seen))


class PublishesTheEndFirst(Durable):
    """last_index() names an entry for which a reader then gets something unfinished."""

    def __init__(self):
        super().__init__()
        self.was_read = threading.Event()

    def get_log(self, index):
        log = super().get_log(index)
        if log.data == b"unfinished":
            self.was_read.set()
        return log

    def get_logs(self, first, last, max_bytes):
        return [self.get_log(log.index) for log in super().get_logs(first, last, max_bytes)]

    def store_logs(self, logs):
        if any(thread.name == "check-log-store-reader" for thread in threading.enumerate()):
            super().store_logs([rebuilt(log, data=b"unfinished") for log in logs])
            self.was_read.wait(timeout=10)
        super().store_logs(logs)


class ClosesOnlyOnce(Durable):
    closed = False

    def close(self):
        if self.closed:
            raise ValueError("closed already")
        self.closed = True


class TurnsEmptyValuesIntoNone(Durable):
    def get(self, key):
        return super().get(key) or None


class IgnoresTheCaseOfKeys(Durable):
    def set(self, key, value):
        super().set(key.lower(), value)

    def get(self, key):
        return super().get(key.lower())


class KeepsTheFirstValue(Durable):
    def set(self, key, value):
        self._values.setdefault(key, value)


class WritesNumbersTheOtherWayRound(Durable):
    def set_uint64(self, key, value):
        self.set(key, value.to_bytes(8, "little"))

    def get_uint64(self, key):
        return int.from_bytes(self.get(key) or b"", "little")


class ForgetsValuesWithTheLog(Durable):
    def delete_range(self, first, last):
        super().delete_range(first, last)
        if self.last_index() == 0:
            self._values.clear()


class ShowsItsBuffers(Durable):
    """As LMDB does with buffers=True: what is shown is gone after the transaction."""

    def get_log(self, index):
        log = super().get_log(index)
        return rebuilt(log, data=memoryview(log.data))


class ReturnsNumbersForTypes(Durable):
    def get_log(self, index):
        log = super().get_log(index)
        return Log(log.index, log.term, int(log.type), log.data, log.extensions, log.appended_at, log.encoded)


class StoresTheTermBefore(Durable):
    """Keeps the term of the entry that was there."""

    def store_logs(self, logs):
        old = self._view.entries
        super().store_logs(
            [rebuilt(log, term=old[log.index].term) if log.index in old else log for log in logs]
        )


class KeepsTheFirstIndex(Durable):
    first = 0

    def first_index(self):
        self.first = self.first or super().first_index()
        return self.first if self.last_index() else 0

    def delete_range(self, first, last):
        super().delete_range(first, last)
        if not self.last_index():
            self.first = 0


class LeavesTheFirstOfARange(Durable):
    def delete_range(self, first, last):
        super().delete_range(first + 1, last)


class RemembersWhatItRead(Durable):
    """A cache that is not told of replaced suffixes."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def get_log(self, index):
        self.cache[index] = self.cache.get(index) or super().get_log(index)
        return self.cache[index]

    def store_logs(self, logs):
        super().store_logs(logs)
        for log in logs:
            if log.index > 4:
                self.cache.pop(log.index, None)

    def delete_range(self, first, last):
        super().delete_range(first, last)
        for index in [index for index in self.cache if first <= index <= last]:
            del self.cache[index]


class TruncatesBeforeItStores(Durable):
    def replace_suffix(self, logs):
        self.delete_range(logs[0].index, self.last_index())
        self.store_logs(logs)


class LosesTheLastWhenReopened(Durable):
    def close(self):
        super().delete_range(self.last_index(), self.last_index())


class MixesUpABatch(Durable):
    def store_logs(self, logs):
        turned = list(logs)[::-1] if len(logs) == 3 else logs
        super().store_logs([rebuilt(log, index=old.index) for log, old in zip(turned, logs, strict=True)])


class StoresLater(Durable):
    """Answers, and stores when it is asked next."""

    def __init__(self):
        super().__init__()
        self.given = ()

    @property
    def _view(self):
        given, self.given = self.given, ()
        if given:
            super().store_logs(given)
        return self.view

    @_view.setter
    def _view(self, view):
        self.view = view

    def store_logs(self, logs):
        [log.index for log in logs]
        _ = self._view
        self.given = logs


class HandsOutItsOwnList(Durable):
    def __init__(self):
        super().__init__()
        self.ranges = {}

    def get_logs(self, *asked):
        if asked not in self.ranges:
            self.ranges[asked] = super().get_logs(*asked)
        return self.ranges[asked]

    def store_logs(self, logs):
        super().store_logs(logs)
        self.ranges.clear()

    def delete_range(self, first, last):
        super().delete_range(first, last)
        self.ranges.clear()

    def replace_suffix(self, logs):
        super().replace_suffix(logs)
        self.ranges.clear()


class ReturnsTexts(Durable):
    def get(self, key):
        value = super().get(key)
        return value if value is None else value.decode("latin-1")


class ReturnsBytearrays(Durable):
    def get(self, key):
        value = super().get(key)
        return value if value is None else bytearray(value)


class ForgetsValuesWhenReopened(Durable):
    def close(self):
        self._values.clear()


class WritesWhenClosed(Durable):
    """Keeps all in memory and writes one file in the end."""

    def __init__(self, path):
        super().__init__()
        self.file = path / "store"
        if self.file.exists():
            self.view, self._values = pickle.loads(self.file.read_bytes())  # noqa: S301
            super().store_logs([Log(*fields) for fields in self.view])

    def close(self):
        if not self.file.parent.exists():
            return
        entries = [
            (e.index, e.term, e.type, e.data, e.extensions, e.appended_at)
            for e in self._view.entries.values()
        ]
        self.file.write_bytes(pickle.dumps((entries, self._values)))


def open_lmdb(path):
    return LMDBStore(path, sync=False)


BROKEN = {
    NotEmptyWhenNew: "a_new_store_is_empty",
    LosesExtensions: "every_field_comes_back",
    LosesTheTimeOfAppending: "every_field_comes_back",
    LosesTheTypeOfBarriers: "every_field_comes_back",
    RaisesKeyErrorForMissing: "a_new_store_is_empty",
    ReturnsNoneForMissing: "a_new_store_is_empty",
    NamesAnotherMissingIndex: "a_new_store_is_empty",
    SortsIndexesAsText: "indexes_sort_as_numbers",
    KeepsTheOldEntry: "storing_replaces_entries_of_the_same_index",
    LeavesTheLastOfARange: "a_missing_entry_is_log_not_found",
    StumblesOverAnEmptyRange: "both_ends_of_a_range_are_deleted",
    LeavesTheEndOfAReplacedSuffix: "a_replaced_suffix_leaves_nothing_behind",
    ForgetsTheLimitOfBytes: "a_range_is_limited_by_index_and_bytes",
    ReturnsNothingForALargeEntry: "a_range_is_limited_by_index_and_bytes",
    EndsARangeTooEarly: "a_missing_entry_is_log_not_found",
    StoresOnlyThousand: "large_batches_are_stored_whole",
    StoresOneByOne: "a_refused_write_changes_nothing",
    ReusesItsEntries: "an_entry_once_read_stays_as_it_is",
    FillsGaps: "gaps_are_refused_or_kept",
    SaysItIsMonotonic: "gaps_are_refused_or_kept",
    RemembersTruncatedConfigurations: "configurations_are_found_without_a_scan",
    PublishesTheEndFirst: "readers_meet_whole_entries",
    ClosesOnlyOnce: "close_may_be_called_again",
    TurnsEmptyValuesIntoNone: "values_come_back",
    IgnoresTheCaseOfKeys: "values_come_back",
    KeepsTheFirstValue: "values_come_back",
    WritesNumbersTheOtherWayRound: "numbers_come_back",
    ForgetsValuesWithTheLog: "log_and_values_do_not_mix",
    ShowsItsBuffers: "every_field_comes_back",
    ReturnsNumbersForTypes: "every_field_comes_back",
    StoresTheTermBefore: "storing_replaces_entries_of_the_same_index",
    KeepsTheFirstIndex: "both_ends_of_a_range_are_deleted",
    LeavesTheFirstOfARange: "a_missing_entry_is_log_not_found",
    RemembersWhatItRead: "a_replaced_suffix_leaves_nothing_behind",
    TruncatesBeforeItStores: "a_refused_write_changes_nothing",
    LosesTheLastWhenReopened: "every_field_comes_back",
    MixesUpABatch: "every_field_comes_back",
    StoresLater: "what_is_given_is_the_callers_again",
    HandsOutItsOwnList: "what_is_given_is_the_callers_again",
    ReturnsTexts: "values_come_back",
    ReturnsBytearrays: "values_come_back",
    ForgetsValuesWhenReopened: "values_come_back",
}


def opener(kind):
    stores = {}
    return lambda path: stores.setdefault(path, kind()) if kind is not ClosesOnlyOnce else kind()


def test_a_store_without_a_fault_passes(tmp_path):
    check_log_store(opener(Durable), tmp_path)


@pytest.mark.parametrize(("kind", "promise"), BROKEN.items(), ids=[kind.__name__ for kind in BROKEN])
def test_a_broken_store_is_rejected_with_the_promise_it_breaks(kind, promise, tmp_path):
    durable = kind is not ClosesOnlyOnce
    with pytest.raises(AssertionError, match=f"breaks the promise {promise}: .*Promised: ") as rejected:
        check_log_store(opener(kind), tmp_path, durable=durable)
    assert type(rejected.value) is AssertionError


def test_a_store_that_forgets_is_rejected_unless_it_says_so(tmp_path):
    with pytest.raises(AssertionError, match="reopening"):
        check_log_store(lambda path: InmemStore(), tmp_path)
    (tmp_path / "again").mkdir()
    check_log_store(lambda path: InmemStore(), tmp_path / "again", durable=False)


def test_a_store_that_writes_only_when_it_is_closed_is_rejected(tmp_path):
    with pytest.raises(AssertionError, match="breaks the promise what_was_stored_survives_a_kill"):
        check_log_store(WritesWhenClosed, tmp_path)


def test_lmdb_survives_a_kill(tmp_path):
    check_log_store(open_lmdb, tmp_path)


@pytest.mark.parametrize(
    ("open_store", "directory", "text"),
    [
        (7, ".", "open_store=7 is not callable"),
        (InmemStore(), ".", "is not callable: pass a function that opens"),
        (lambda path: 7, ".", "opened 7, which is not an instance of a subclass of LogStore"),
        (lambda path: 1 / 0, ".", "cannot open a store: ZeroDivisionError"),
        (lambda: InmemStore(), ".", "cannot open a store: TypeError"),
        (lambda path: InmemStore(), "missing", "missing' is no directory"),
        (lambda path: InmemStore(), 7, "directory=7 is not a path"),
    ],
)
def test_arguments_that_could_find_nothing_are_refused(open_store, directory, text, tmp_path):
    where = tmp_path / directory if isinstance(directory, str) else directory
    with pytest.raises(ConfigError, match=text):
        check_log_store(open_store, where)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_used_before_is_refused(tmp_path):
    check_log_store(lambda path: InmemStore(), tmp_path, durable=False)
    with pytest.raises(ConfigError, match="a_new_store_is_empty.* is there already: give an empty directory"):
        check_log_store(lambda path: InmemStore(), tmp_path, durable=False)


def test_every_promise_gives_a_reason():
    for promise in PROMISES:
        assert len(promise.__doc__) > 80, promise.__name__
