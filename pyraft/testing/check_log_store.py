"""Does a log store keep its promises?  For whoever writes another one; needs no test framework.

Each promise is a function whose docstring says what it is and why Raft needs it.  The source of
a promise is the Raft paper, or what hashicorp/raft asks of its stores (log.go, LogStore).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import ConfigError, LogNotFoundError
from ..log import Log, LogType
from ..logstore.base import LogStore, StableStore
from .processes import NotReachable, call_elsewhere

NO_LIMIT = 1 << 40


def check_log_store(
    open_store: Callable[[Path], LogStore], directory: str | Path, durable: bool = True
) -> None:
    """Raise AssertionError, naming the broken promise and its reason, unless the store keeps them all.

    A store that is a StableStore, too, is checked as one as well.  Optional methods
    (is_monotonic, configuration_indexes) are checked if the store has them.

    Args:
        open_store: opens the store in a directory, which is empty the first time; called again
            for the same one after close().
        directory: an existing directory that the checks may fill; each promise gets one in it.
        durable: False for a store that keeps nothing when it is closed; then nothing is reopened.

    Raises:
        ConfigError: the arguments are none with which anything could be found.
    """
    _check_arguments(open_store, directory)
    for promise in PROMISES:
        home = Path(directory) / promise.__name__
        home.mkdir()
        bench = _Bench(open_store, home, durable)
        try:
            promise(bench)
            bench.close()
        except Exception as error:
            with suppress(Exception):  # the first thing that is wrong is the one to tell
                bench.close()
            finding = str(error) if isinstance(error, _Broken) else f"it raised {error!r}"
            raise AssertionError(_complaint(promise, finding)) from error


def _check_arguments(open_store: Any, directory: Any) -> None:
    if not callable(open_store):
        raise ConfigError(
            f"open_store={open_store!r} is not callable: pass a function that opens a directory"
        )
    if not isinstance(directory, str | Path):
        raise ConfigError(f"directory={directory!r} is not a path: give an empty directory")
    if not Path(directory).is_dir():
        raise ConfigError(f"directory={str(directory)!r} is no directory: make it first")
    for promise in PROMISES:
        if (Path(directory) / promise.__name__).exists():
            raise ConfigError(
                f"{promise.__name__} in {str(directory)!r} is there already: give an empty directory"
            )
    with TemporaryDirectory() as home:
        try:
            store = open_store(Path(home))
        except Exception as error:
            raise ConfigError(f"open_store={open_store!r} cannot open a store: {error!r}") from error
        if not isinstance(store, LogStore):
            raise ConfigError(
                f"open_store={open_store!r} opened {store!r}, which is not an instance of a subclass of LogStore"
            )
        store.close()


def _complaint(promise: Callable[[_Bench], None], finding: str) -> str:
    reason = " ".join((promise.__doc__ or "").split())
    return f"the store breaks the promise {promise.__name__}: {finding}. Promised: {reason}"


class _Broken(Exception):
    """A promise is broken; the text says what was seen."""


class _Bench:
    """One promise's store, and how to open it again."""

    def __init__(self, open_store: Callable[[Path], LogStore], home: Path, durable: bool) -> None:
        self.open_store = open_store
        self.home = home
        self.durable = durable
        self.store: Any = open_store(home)

    def is_stable_store(self) -> bool:
        return isinstance(self.store, StableStore)

    def reopen(self) -> None:
        """Close the store and open it again; nothing if it is not durable."""
        if self.durable:
            self.store.close()
            self.store = self.open_store(self.home)

    def close(self) -> None:
        self.store.close()

    def holds(self, logs: Iterable[Log], after: str) -> None:
        """Check that the log is exactly ``logs``, now and after reopening."""
        _expect_log(self.store, list(logs), after)
        if self.durable:
            self.reopen()
            _expect_log(self.store, list(logs), f"{after}, and reopening the store")


def log(index: int, term: int = 1, data: bytes | None = None, type: LogType = LogType.COMMAND) -> Log:
    """An entry whose data tells which one it is."""
    return Log(index, term, type, b"%d/%d" % (index, term) if data is None else data)


def logs(first: int, last: int, term: int = 1) -> list[Log]:
    """The entries ``first`` to ``last``, both included."""
    return [log(index, term) for index in range(first, last + 1)]


# Promises of a LogStore


def a_new_store_is_empty(bench: _Bench) -> None:
    """A new store has first and last index 0 and no entries.

    A server that finds entries starts from them instead of being bootstrapped.
    """
    bench.holds([], "opening a new store")
    _expect_missing(bench.store, [0, 1, 2**32])


def every_field_comes_back(bench: _Bench) -> None:
    """An entry is read as it was stored: index, term, type, data, extensions, appended_at.

    Followers get what the leader reads from its store; a field lost there is lost for everybody.
    Data is bytes and a type a LogType: state machines, and pyraft, take them for that.
    """
    stored = [
        Log(1, 1, LogType.CONFIGURATION, b"\x00\xff" * 9, b"ext\x00", 1_700_000_000_123_456_789),
        Log(2, 1, LogType.NOOP),
        Log(3, 2**40, LogType.BARRIER, b"", b"e"),
        Log(4, 2**40, LogType.COMMAND, bytes(range(256)) * 4096, b"", 1),
    ]
    bench.store.store_logs(stored[:3])
    bench.store.store_log(stored[3])
    bench.holds(stored, "storing four entries with all their fields")


def what_was_stored_survives_reopening(bench: _Bench) -> None:
    """When a write returns, its effect survives the end of the process.

    An acknowledged entry counts towards a majority (Raft paper, Figure 2: persistent state,
    "updated on stable storage before responding to RPCs").
    """
    for index in (1, 2, 3):
        bench.store.store_log(log(index))
        bench.reopen()
    bench.store.store_logs(logs(4, 9))
    bench.store.delete_range(1, 2)
    bench.holds(logs(3, 9), "storing 1 to 9 and deleting 1 and 2")


def what_was_stored_survives_a_kill(bench: _Bench) -> None:
    """When a write returns, its effect survives the death of the process: nothing waits for close().

    Nobody closes the store of a server that is killed (Raft paper, Figure 2: persistent state).
    Tried in a process of its own, if open_store can be imported by its name.
    """
    if not bench.durable:
        return
    home = bench.home / "killed"
    home.mkdir()
    try:
        is_stable = call_elsewhere(_write_and_die, bench.open_store, str(home))
    except NotReachable:
        return
    bench.close()
    bench.home, bench.store = home, bench.open_store(home)
    bench.holds([*logs(2, 19), *logs(20, 29, term=3)], "a kill right after four writes")
    if is_stable:
        _expect(bench.store.get(b"vote"), b"n1", "get() of a value set right before a kill")


def _write_and_die(load: Callable[[], Any], home: str) -> bool:
    """In the other process, which ends without closing the store."""
    store = load()(Path(home))
    store.store_logs(logs(1, 40))
    store.delete_range(1, 1)
    store.replace_suffix(logs(20, 29, term=3))
    is_stable = isinstance(store, StableStore)
    if is_stable:
        store.set(b"vote", b"n1")
    _kept_open.append(store)
    return is_stable


_kept_open: list[Any] = []


def what_is_given_is_the_callers_again(bench: _Bench) -> None:
    """When a write returns, the caller may reuse the list that it gave; what a read returns is the caller's, too.

    pyraft collects the next batch in the same list; a store that still reads it, or hands out its
    own, changes entries that count towards a majority.
    """
    for write, batch in ((bench.store.store_logs, logs(1, 9)), (bench.store.replace_suffix, logs(8, 12, 2))):
        write(batch)
        batch.clear()
    found = bench.store.get_logs(1, 12, NO_LIMIT)
    found.clear()
    bench.holds([*logs(1, 7), *logs(8, 12, term=2)], "clearing the lists that were given and returned")


def indexes_sort_as_numbers(bench: _Bench) -> None:
    """The log is ordered by index as a number, whatever its size.

    Keys that sort as text or least significant byte first put entry 256 before entry 2, and
    last_index() then makes a server append over what it has acknowledged.
    """
    for first in (1, 250, 65530, 2**32 - 5):
        bench.store.store_logs(logs(first, first + 12))
        bench.holds(logs(first, first + 12), f"storing {first} to {first + 12} in an empty log")
        bench.store.delete_range(first, first + 12)


def a_log_may_begin_anywhere(bench: _Bench) -> None:
    """An empty log takes any index as its first, also after entries were deleted.

    After a snapshot was installed the log goes on behind it (Raft paper, §7).
    """
    bench.store.store_logs(logs(1000, 1003))
    bench.holds(logs(1000, 1003), "storing 1000 to 1003 in a new store")
    bench.store.delete_range(1000, 1003)
    bench.holds([], "deleting all entries")
    bench.store.store_logs(logs(7, 8))
    bench.holds(logs(7, 8), "storing 7 and 8 after all entries were deleted")


def a_missing_entry_is_log_not_found(bench: _Bench) -> None:
    """Reading an entry that is not there raises LogNotFoundError, with its index.

    The Replicator takes it for "send a snapshot instead" and everything else for a failed disk
    (hashicorp/raft: ErrLogNotFound, by identity).
    """
    bench.store.store_logs(logs(5, 8))
    _expect_missing(bench.store, [0, 1, 4, 9, 2**40])
    bench.store.delete_range(5, 6)
    _expect_missing(bench.store, [5, 6])
    for first, last in ((1, 8), (6, 7), (7, 9), (9, 12), (8, 7)):
        try:
            found = bench.store.get_logs(first, last, NO_LIMIT)
        except LogNotFoundError:
            continue
        raise _Broken(f"get_logs({first}, {last}) of a log of 7 and 8 returned {found}")


def storing_replaces_entries_of_the_same_index(bench: _Bench) -> None:
    """store_logs() replaces the entries that have the same indexes, and no others.

    A follower's conflicting entry is the leader's afterwards (Raft paper, Figure 2, AppendEntries
    step 3); a store that kept the old one would apply another command than the majority.
    """
    bench.store.store_logs(logs(1, 6))
    bench.store.store_logs(logs(3, 4, term=2))
    bench.holds([*logs(1, 2), *logs(3, 4, term=2), *logs(5, 6)], "storing 3 and 4 over 1 to 6")
    bench.store.store_logs(logs(6, 8, term=3))
    bench.holds(
        [*logs(1, 2), *logs(3, 4, term=2), log(5), *logs(6, 8, term=3)], "storing 6 to 8 over a log to 6"
    )


def both_ends_of_a_range_are_deleted(bench: _Bench) -> None:
    """delete_range() drops first and last too, and entries that are not there do not matter.

    hashicorp/raft, LogStore: "the range is inclusive"; one entry left over is one that
    contradicts the leader's log.
    """
    bench.store.store_logs(logs(1, 20))
    bench.store.delete_range(1, 3)
    bench.holds(logs(4, 20), "deleting 1 to 3 of 1 to 20")
    bench.store.delete_range(18, 20)
    bench.holds(logs(4, 17), "deleting 18 to 20 of 4 to 20")
    bench.store.delete_range(17, 99)
    bench.store.delete_range(0, 4)
    bench.holds(logs(5, 16), "deleting 17 to 99 and 0 to 4 of 4 to 17")
    bench.store.delete_range(50, 60)
    bench.store.delete_range(9, 8)
    bench.holds(logs(5, 16), "deleting 50 to 60, and 9 to 8, of 5 to 16")
    bench.store.delete_range(1, 99)
    bench.store.delete_range(1, 99)
    bench.holds([], "deleting everything, twice")


def a_replaced_suffix_leaves_nothing_behind(bench: _Bench) -> None:
    """replace_suffix() drops every entry at or after the first one that it stores.

    What follows a conflicting entry conflicts, too (Raft paper, Figure 2, AppendEntries step 3).
    """
    bench.store.store_logs(logs(1, 300))
    bench.store.replace_suffix(logs(2, 2, term=3))
    bench.holds([log(1), log(2, 3)], "replacing 2 to 300 by one entry")
    bench.store.replace_suffix(logs(3, 6, term=3))
    bench.holds([log(1), *logs(2, 6, term=3)], "replacing nothing: 3 to 6 after a log to 2")
    bench.store.replace_suffix(logs(1, 9, term=4))
    bench.holds(logs(1, 9, term=4), "replacing the whole log")


def a_range_is_limited_by_index_and_bytes(bench: _Bench) -> None:
    """get_logs() ends at ``last``, or before the data passes ``max_bytes``, with one entry at least.

    Without the limit one request outgrows what a transport can carry; with none at all an
    entry larger than the limit would never be replicated.
    """
    bench.store.store_logs([log(index, data=b"x" * 100) for index in range(1, 11)])
    for first, last, max_bytes, expected in (
        (1, 10, NO_LIMIT, 10),
        (4, 7, NO_LIMIT, 4),
        (10, 10, NO_LIMIT, 1),
        (1, 10, 300, 3),
        (1, 10, 299, 2),
        (1, 10, 1, 1),
        (1, 10, 0, 1),
    ):
        found = [entry.index for entry in bench.store.get_logs(first, last, max_bytes)]
        wanted = list(range(first, first + expected))
        _expect(found, wanted, f"get_logs({first}, {last}, {max_bytes}) of entries of 100 bytes")


def large_batches_are_stored_whole(bench: _Bench) -> None:
    """A batch of thousands of entries, or of megabytes, is stored as one.

    The leader writes all that waits in one commit, and a follower what one message carried.
    """
    bench.store.store_logs(logs(1, 5000))
    large = [log(5000 + number, data=bytes([number]) * (1 << 20)) for number in range(1, 6)]
    bench.store.store_logs(large)
    bench.holds([*logs(1, 5000), *large], "storing 5000 small and five large entries")


def a_refused_write_changes_nothing(bench: _Bench) -> None:
    """A write that raises because of its argument leaves no part of it behind.

    Half a batch would be entries that nobody acknowledged and no leader knows this server has;
    a suffix that was dropped before its replacement failed may have been acknowledged.
    """
    bench.store.store_logs(logs(1, 4))
    for write in (bench.store.store_logs, bench.store.replace_suffix):
        try:
            write([log(5, 2), log(6, 2), None])
        except Exception:  # noqa: S112  (which one is the store's business)
            continue
        raise _Broken(f"{write.__name__}() took a batch with None in it")
    bench.holds(logs(1, 4), "refusing batches with None in them")
    if not bench.durable:
        return
    with suppress(Exception):
        bench.store.replace_suffix([log(3, 2), log(4, 2), None])
    bench.holds(logs(1, 4), "refusing a suffix from 3 on with None in it")


def an_entry_once_read_stays_as_it_is(bench: _Bench) -> None:
    """What a read returned does not change when the store does.

    Another thread may still be encoding it for a peer.
    """
    bench.store.store_logs(logs(1, 50))
    one, several = bench.store.get_log(20), bench.store.get_logs(1, 50, NO_LIMIT)
    bench.store.replace_suffix(logs(1, 60, term=2))
    bench.store.delete_range(1, 60)
    bench.store.store_logs(logs(1, 70, term=3))
    _expect(one, log(20), "entry 20, read before it was replaced")
    _expect(several, logs(1, 50), "entries read before they were replaced")


def gaps_are_refused_or_kept(bench: _Bench) -> None:
    """A store whose is_monotonic() is True refuses gaps; any other keeps them as gaps.

    After a snapshot was installed, pyraft clears the log of a monotonic store first
    (hashicorp/raft: MonotonicLogStore).
    """
    bench.store.store_logs(logs(1, 3))
    if not bench.store.is_monotonic():
        bench.store.store_logs(logs(10, 11))
        _expect((bench.store.first_index(), bench.store.last_index()), (1, 11), "ends of 1-3 and 10-11")
        _expect_missing(bench.store, [4, 9])
        return
    try:
        bench.store.store_logs(logs(10, 11))
    except Exception:
        bench.holds(logs(1, 3), "refusing a gap")
    else:
        raise _Broken("is_monotonic() is True, but it took entry 10 after entry 3")


def configurations_are_found_without_a_scan(bench: _Bench) -> None:
    """configuration_indexes(), where a store has it, names the configuration entries, newest last.

    A server takes its configuration from the log as soon as it is there, and goes back to the
    one before when it is truncated (Raft dissertation, §4.1): a stale answer is a wrong majority.
    """
    if not hasattr(bench.store, "configuration_indexes"):
        return

    def expect(indexes: tuple[int, ...], after: str) -> None:
        _expect(tuple(bench.store.configuration_indexes()), indexes, f"configuration_indexes() after {after}")
        bench.reopen()
        again = tuple(bench.store.configuration_indexes())
        _expect(again, indexes, f"configuration_indexes() after {after}, and reopening")

    def configuration(index: int, term: int = 1) -> Log:
        return log(index, term, type=LogType.CONFIGURATION)

    expect((), "opening a new store")
    bench.store.store_logs([configuration(1), log(2), configuration(3), *logs(4, 9)])
    bench.store.store_log(configuration(10))
    expect((1, 3, 10), "storing three")
    bench.store.store_logs([configuration(2, 2), log(3, 2)])
    expect((1, 2, 10), "replacing an entry by one, and one by an entry")
    bench.store.replace_suffix([log(10, 3), configuration(11, 3)])
    expect((1, 2, 11), "replacing one that was truncated")
    bench.store.replace_suffix([log(11, 4)])
    expect((1, 2), "truncating the newest")
    bench.store.delete_range(1, 1)
    expect((2,), "deleting a prefix")
    bench.store.delete_range(2, 99)
    expect((), "deleting everything")


def readers_meet_whole_entries(bench: _Bench) -> None:
    """A read beside a write returns whole entries in order or raises LogNotFoundError.

    Replicators and the FSM runner read while the main thread appends and drops the prefix.
    """
    bench.store.store_logs(logs(1, 200))
    done = threading.Event()
    reader = _Reader(bench.store, done)
    reader.start()
    try:
        for step in range(20):
            bench.store.store_logs(logs(201 + 10 * step, 210 + 10 * step))
            bench.store.delete_range(1 + 10 * step, 10 + 10 * step)
    finally:
        done.set()
        reader.join()
    if reader.finding is not None:
        raise reader.finding
    _expect_log(bench.store, logs(201, 400), "appending and deleting beside a reader")


def close_may_be_called_again(bench: _Bench) -> None:
    """close() is idempotent: a server that failed half-way through its start closes what it has."""
    bench.store.store_log(log(1))
    bench.store.close()
    bench.store.close()


class _Reader(threading.Thread):
    """Reads what may be there until told to stop; keeps the first thing that is wrong."""

    def __init__(self, store: LogStore, done: threading.Event) -> None:
        super().__init__(name="check-log-store-reader", daemon=True)
        self._store = store
        self._done = done
        self.finding: Exception | None = None

    def run(self) -> None:
        try:
            while not self._done.is_set():
                self._read_once()
        except Exception as error:
            self.finding = error

    def _read_once(self) -> None:
        first, last = self._store.first_index(), self._store.last_index()
        for index in (first, (first + last) // 2, last):
            try:
                found = [self._store.get_log(index)]
                found += self._store.get_logs(index, last, 500)
            except LogNotFoundError:
                continue
            wanted = [log(index), *logs(index, index + len(found) - 2)]
            _expect(found, wanted, f"get_log({index}) and get_logs({index}, {last}) beside a writer")


# Promises of a StableStore


def values_come_back(bench: _Bench) -> None:
    """A value is read as it was stored last, whatever its bytes; a key never set reads as None.

    The ballot is kept here: a server that reads another vote than it gave can vote twice in one
    term (Raft paper, §5.2).
    """
    if not bench.is_stable_store():
        return
    _expect(bench.store.get(b"missing"), None, "get() of a key never set")
    values = {b"CurrentTerm": b"\x00" * 8, b"k\x00\xff": b"", b"k": bytes(range(256)), b"K": b"other case"}
    for key, value in values.items():
        bench.store.set(key, b"old " + value)
        bench.store.set(key, value)
    for _ in range(2):
        for key, value in values.items():
            _expect(bench.store.get(key), value, f"get({key!r})")
        bench.reopen()


def numbers_come_back(bench: _Bench) -> None:
    """Numbers are 0 to 2**64 - 1, kept as eight bytes, most significant first; 0 if never set.

    The current term is such a number, and other tools read the eight bytes.
    """
    if not bench.is_stable_store():
        return
    _expect(bench.store.get_uint64(b"missing"), 0, "get_uint64() of a key never set")
    for number in (0, 1, 258, 2**64 - 1):
        bench.store.set_uint64(b"n", number)
        bench.reopen()
        _expect(bench.store.get_uint64(b"n"), number, "get_uint64()")
        _expect(bench.store.get(b"n"), number.to_bytes(8, "big"), "get() of a number")


def log_and_values_do_not_mix(bench: _Bench) -> None:
    """No key is taken for a log entry, and deleting the log keeps the values.

    A follower that throws its whole log away for a snapshot must not forget its vote.
    """
    if not bench.is_stable_store():
        return
    bench.store.store_logs(logs(5, 9))
    keys = [index.to_bytes(8, "big") for index in (1, 5, 12)] + [b"logs", b"stable", b"first_index"]
    for key in keys:
        bench.store.set(key, b"value of " + key)
    bench.holds(logs(5, 9), "setting keys that look like log indexes")
    bench.store.delete_range(1, 99)
    bench.holds([], "deleting the whole log")
    for key in keys:
        _expect(bench.store.get(key), b"value of " + key, f"get({key!r}) after the log was deleted")


PROMISES: tuple[Callable[[_Bench], None], ...] = (
    a_new_store_is_empty,
    every_field_comes_back,
    a_missing_entry_is_log_not_found,
    what_was_stored_survives_reopening,
    indexes_sort_as_numbers,
    a_log_may_begin_anywhere,
    storing_replaces_entries_of_the_same_index,
    both_ends_of_a_range_are_deleted,
    a_replaced_suffix_leaves_nothing_behind,
    a_range_is_limited_by_index_and_bytes,
    large_batches_are_stored_whole,
    a_refused_write_changes_nothing,
    an_entry_once_read_stays_as_it_is,
    what_is_given_is_the_callers_again,
    what_was_stored_survives_a_kill,
    gaps_are_refused_or_kept,
    configurations_are_found_without_a_scan,
    readers_meet_whole_entries,
    close_may_be_called_again,
    values_come_back,
    numbers_come_back,
    log_and_values_do_not_mix,
)


# How they are checked


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise _Broken(f"{what} is {_short(found)}, not {_short(wanted)}")
    if isinstance(wanted, bytes | int) and not isinstance(found, type(wanted)):
        raise _Broken(f"{what} is a {type(found).__name__}, not {type(wanted).__name__}")
    for entry in found if isinstance(found, list) else [found]:
        if isinstance(entry, Log):
            _expect_types(entry, what)


def _expect_types(entry: Log, what: str) -> None:
    """Equal is not enough: ``1 == LogType.NOOP``, and a memoryview equals the bytes it shows."""
    for name, kind in (("data", bytes), ("extensions", bytes), ("encoded", bytes), ("type", LogType)):
        value = getattr(entry, name)
        if not isinstance(value, kind):
            raise _Broken(f"{what} has {name} of type {type(value).__name__}, not {kind.__name__}")


def _short(value: object) -> str:
    text = repr(value)
    if isinstance(value, Log):
        text = f"{value} data={value.data!r} extensions={value.extensions!r} at {value.appended_at}"
    return text if len(text) <= 200 else text[:200] + "…"


def _expect_log(store: LogStore, wanted: list[Log], after: str) -> None:
    ends = (wanted[0].index, wanted[-1].index) if wanted else (0, 0)
    _expect((store.first_index(), store.last_index()), ends, f"(first_index(), last_index()) after {after}")
    for entry in wanted[:: 1 + len(wanted) // 200]:  # of a long log, a sample one by one
        _expect(store.get_log(entry.index), entry, f"get_log({entry.index}) after {after}")
    if wanted:
        _expect(store.get_logs(*ends, NO_LIMIT), wanted, f"get_logs{ends} after {after}")
    _expect_missing(store, [ends[0] - 1, ends[1] + 1])


def _expect_missing(store: LogStore, indexes: Iterable[int]) -> None:
    for index in indexes:
        try:
            found = store.get_log(max(index, 0))
        except LogNotFoundError as error:
            _expect(error.index, max(index, 0), "the index that LogNotFoundError names")
            continue
        raise _Broken(f"get_log({index}) returned {_short(found)} instead of raising LogNotFoundError")
