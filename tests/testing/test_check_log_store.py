"""check_log_store() finds what is wrong with a store, and says what and why."""

from __future__ import annotations

import threading

import pytest

from pyraft.errors import LogNotFoundError
from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore
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
        for log in logs:
            old = self._view.entries.get(log.index) if log else None
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


def test_every_promise_gives_a_reason():
    for promise in PROMISES:
        assert len(promise.__doc__) > 80, promise.__name__
