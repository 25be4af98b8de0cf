"""Does a snapshot store keep its promises?  For whoever writes another one; needs no test framework.

Each promise is a function whose docstring says what it is and why Raft needs it.  The source of
a promise is the Raft paper, §7, or what hashicorp/raft asks of its stores (snapshot.go).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from ..configuration import Configuration, Server, Suffrage
from ..errors import RaftError
from ..snapshots.base import SnapshotMeta, SnapshotSink, SnapshotStore
from ..transport.inmem import InmemNetwork, InmemTransport

LARGEST = 2**64 - 1

MEMBERS = Configuration(
    (
        Server("s1", "10.0.0.1:7000"),
        Server("s2", "[::1]:7000", Suffrage.NONVOTER),
        Server('<s&3> "\\ é\u2028', "hôte:7000", Suffrage.STAGING),
    )
)


def check_snapshot_store(
    open_store: Callable[[Path], SnapshotStore], directory: str | Path, durable: bool = True
) -> None:
    """Raise AssertionError, naming the broken promise and its reason, unless the store keeps them all.

    Args:
        open_store: opens the store in a directory, which is empty the first time; called again
            for the same one, as after a crash: nothing was closed then.
        directory: an existing directory that the checks may fill, with about 30 MB; each promise
            gets one in it.
        durable: False for a store that keeps nothing when the process ends; then nothing is reopened.
    """
    for promise in PROMISES:
        home = Path(directory) / promise.__name__
        home.mkdir()
        try:
            promise(_Bench(open_store, home, durable))
        except Exception as error:
            finding = str(error) if isinstance(error, _Broken) else f"it raised {error!r}"
            raise AssertionError(_complaint(promise, finding)) from error


def _complaint(promise: Callable[[_Bench], None], finding: str) -> str:
    reason = " ".join((promise.__doc__ or "").split())
    return f"the store breaks the promise {promise.__name__}: {finding}. Promised: {reason}"


class _Broken(Exception):
    """A promise is broken; the text says what was seen."""


class _Bench:
    """One promise's store, and how to open it again."""

    def __init__(self, open_store: Callable[[Path], SnapshotStore], home: Path, durable: bool) -> None:
        self._open_store = open_store
        self._home = home
        self.transport = InmemTransport(InmemNetwork(), "10.0.0.1:7000")
        self.durable = durable
        self.store: Any = open_store(home)

    def reopen(self) -> None:
        """Open the store again, as another process would; nothing if it is not durable."""
        if self.durable:
            self.store = self._open_store(self._home)

    def begin(self, index: int, term: int = 1, members: Configuration = MEMBERS) -> SnapshotSink:
        """A snapshot whose configuration is the one of index 1."""
        sink: SnapshotSink = self.store.create(1, index, term, members, 1, self.transport)
        return sink

    def take(self, index: int, term: int = 1) -> str:
        """A complete snapshot, whose state tells which one it is; return its id."""
        sink = self.begin(index, term)
        sink.write(state(index, term))
        sink.close()
        return sink.id

    def positions(self) -> list[tuple[int, int]]:
        """(term, index) of what is listed."""
        return [(meta.term, meta.index) for meta in self.store.list()]

    def read(self, id: str) -> bytes:
        """The state of the snapshot ``id``."""
        _, reader = self.store.open(id)
        with reader:
            data: bytes = reader.read()
        return data

    def newest_is(self, id: str, wanted: bytes, after: str) -> None:
        """Check the newest snapshot, now and after reopening."""
        for when in (after, f"{after}, and reopening the store"):
            listed = self.store.list()
            _expect(listed[0].id if listed else None, id, f"the id of the first in list() after {when}")
            _expect(listed[0].size, len(wanted), f"the size of the first in list() after {when}")
            _expect(self.read(id), wanted, f"its state after {when}")
            self.reopen()


def state(index: int, term: int = 1) -> bytes:
    """What the tests' snapshots hold: it tells which one it is."""
    return b"state of %d/%d" % (index, term)


def a_new_store_is_empty(bench: _Bench) -> None:
    """A new store lists nothing.

    A server that finds a snapshot starts from it instead of being bootstrapped.
    """
    _expect(list(bench.store.list()), [], "list() of a new store")


def a_snapshot_appears_when_it_is_closed(bench: _Bench) -> None:
    """A snapshot is listed once close() has returned, and not before.

    What is listed is sent to followers and restored at the next start; half a state is a wrong one.
    """
    sink = bench.begin(7)
    for step in ("create()", "write()", "a second write()"):
        _expect(list(bench.store.list()), [], f"list() after {step}")
        sink.write(b"piece")
    sink.close()
    bench.newest_is(sink.id, b"piece" * 3, "close()")


def the_newest_comes_first(bench: _Bench) -> None:
    """list() is sorted by term, then index, as numbers, newest first, whatever was closed last.

    A server restores the first one; an installed snapshot must not be hidden by an older one of
    the server's own, that took longer to write.
    """
    newest = (0, 0)
    for term, index in ((1, 5), (1, 130), (1, 20), (1, 1000), (2, 3), (36, 2), (5, 999), (36, 1)):
        id = bench.take(index, term)
        newest = max(newest, (term, index))
        for _ in range(2):
            found = bench.positions()
            _expect(found, sorted(found, reverse=True), "the order of list()")
            _expect(found[:1], [newest], f"the first in list() after closing {id}")
            bench.reopen()


def of_one_position_the_later_comes_first(bench: _Bench) -> None:
    """Of snapshots of the same index and term, the one that was begun last is listed first.

    recover_cluster writes one with other members at the position of one that may be there already,
    and refuses if the old one comes first: the server would start with the members that are lost.
    """
    for number in range(12):
        sink = bench.begin(7)
        sink.write(b"number %d" % number)
        sink.close()
        bench.newest_is(sink.id, b"number %d" % number, f"closing number {number} of one position")


def every_field_comes_back(bench: _Bench) -> None:
    """index, term, configuration and its index, size and version are listed as they were given.

    The log before the snapshot is gone; who was in the cluster stands nowhere else (Raft paper, §7).
    """
    for term, index, members, members_index in (
        (1, 1, MEMBERS, 1),
        (2, 2**32 + 1, Configuration(), 0),
        (LARGEST, LARGEST, MEMBERS, LARGEST - 1),
    ):
        sink = bench.store.create(1, index, term, members, members_index, bench.transport)
        sink.write(state(index, term))
        sink.close()
        wanted = SnapshotMeta(sink.id, index, term, members, members_index, len(state(index, term)), 1)
        for _ in range(2):
            _expect(bench.store.list()[0], wanted, "the first in list()")
            meta, reader = bench.store.open(sink.id)
            reader.close()
            _expect(meta, wanted, "what open() says")
            bench.reopen()


def every_listed_snapshot_can_be_opened(bench: _Bench) -> None:
    """Whatever is listed opens, with the state that was written to it.

    When the newest is damaged, the server starts from the next.
    """
    for index in range(1, 8):
        bench.take(index)
        bench.reopen()
        for meta in bench.store.list():
            _expect(bench.read(meta.id), state(meta.index), f"the state of {meta.id}, which is listed")


def a_cancelled_snapshot_leaves_nothing(bench: _Bench) -> None:
    """After cancel() nothing is listed that was not before; another cancel() does nothing.

    The writer of a snapshot cancels it when the FSM fails or a transfer breaks off.
    """
    before = bench.take(3)
    sink = bench.begin(9)
    sink.write(b"half a state")
    sink.cancel()
    sink.cancel()
    bench.newest_is(before, state(3), "cancelling a newer one")


def a_cancelled_snapshot_cannot_be_closed(bench: _Bench) -> None:
    """close() after cancel() raises, and shows nothing.

    The log is dropped when close() returns; of a cancelled snapshot nothing is there to replace it.
    """
    sink = bench.begin(9)
    sink.write(b"half a state")
    sink.cancel()
    _expect_error(sink.close, "close() after cancel()")
    _expect_error(lambda: sink.write(b"more"), "write() after cancel()")
    _expect(list(bench.store.list()), [], "list() after cancel()")


def close_may_be_called_again(bench: _Bench) -> None:
    """close() is idempotent, and cancel() after it does nothing.

    Both the FSM and the server may close; the server cancels what failed after the close.
    """
    sink = bench.begin(4)
    sink.write(state(4))
    sink.close()
    sink.close()
    sink.cancel()
    bench.newest_is(sink.id, state(4), "close(), close() and cancel()")


def a_closed_snapshot_takes_no_more(bench: _Bench) -> None:
    """write() after close() raises and changes nothing.

    The log that led to the snapshot is gone; the snapshot must stay what it is.
    """
    sink = bench.begin(4)
    sink.write(state(4))
    sink.close()
    _expect_error(lambda: sink.write(b"more"), "write() after close()")
    bench.newest_is(sink.id, state(4), "writing to it after close()")


def a_writer_that_dies_costs_nothing(bench: _Bench) -> None:
    """A snapshot that was begun and never ended is never listed, and hides none that was.

    A process may be killed while it writes; the snapshot before must be there when it returns.
    """
    before = bench.take(3)
    sink = bench.begin(9)
    sink.write(bytes(2_000_000))
    _expect(bench.positions(), [(1, 3)], "list() while another one is being written")
    bench.newest_is(before, state(3), "a writer stopped without close()")
    after = bench.take(10)
    bench.newest_is(after, state(10), "a writer stopped and another one finished")


def every_snapshot_has_a_name_of_its_own(bench: _Bench) -> None:
    """Snapshots of the same index and term, begun at the same time, have different ids.

    A leader may send the same snapshot twice at once; the two must not write into one.
    """
    sinks = [bench.begin(5) for _ in range(5)]
    _expect(len({sink.id for sink in sinks}), 5, "the number of different ids of five snapshots")
    for number, sink in enumerate(sinks):
        sink.write(b"number %d" % number)
    for number, sink in enumerate(sinks):
        sink.close()
        for meta in bench.store.list():
            wanted = b"number %d" % next(i for i, other in enumerate(sinks) if other.id == meta.id)
            _expect(bench.read(meta.id), wanted, f"the state of {meta.id} after number {number} was closed")


def large_states_come_back(bench: _Bench) -> None:
    """A state of any size, written and read in pieces of any size, comes back byte for byte.

    write() returns how much it took, which is all of it.
    """
    sink = bench.begin(1)
    sink.close()
    bench.newest_is(sink.id, b"", "writing nothing")
    block = bytes(range(256)) * 1021
    for index, sizes in ((2, (1, 0, 65_535, 1_048_577, 524_288)), (3, (9_000_001, 524_287))):
        whole = bytearray()
        sink = bench.begin(index)
        for number, size in enumerate(sizes):
            piece = (block[number:] * (size // len(block) + 2))[:size]
            _expect(sink.write(piece), size, f"what write() of {size} bytes returned")
            whole += piece
        sink.close()
        bench.newest_is(sink.id, bytes(whole), f"writing pieces of {sizes} bytes")
        _expect(_read_in_pieces(bench.store, sink.id), bytes(whole), "the state, read in pieces")


def readers_do_not_disturb_each_other(bench: _Bench) -> None:
    """Several readers of one snapshot each get the whole of it.

    A leader sends the same snapshot to several followers at once.
    """
    id = bench.take(6)
    _, first = bench.store.open(id)
    head = first.read(4)
    _, second = bench.store.open(id)
    _expect(second.read(), state(6), "what a second reader gets")
    second.close()
    _expect(head + first.read(), state(6), "what the first reader gets when a second one is closed")
    first.close()
    _expect(bench.read(id), state(6), "what a third reader gets")


def a_reader_outlives_its_snapshot(bench: _Bench) -> None:
    """A reader goes on to the end when newer snapshots take the place of the one it reads.

    Sending a snapshot takes longer than taking the next ones.
    """
    sink = bench.begin(1)
    sink.write(bytes(range(256)) * 8192)
    sink.close()
    _, reader = bench.store.open(sink.id)
    head = reader.read(10)
    for index in range(2, 12):
        bench.take(index)
    _expect(head + reader.read(), bytes(range(256)) * 8192, "what a reader gets of a dropped snapshot")
    reader.close()


def a_missing_snapshot_is_an_error(bench: _Bench) -> None:
    """open() of an id that is not there raises a RaftError.

    The snapshot may have been dropped since it was listed; the server then lists again.
    """
    bench.take(2)
    for id in ("1-1-1", "", "no such snapshot", "../elsewhere"):
        try:
            bench.store.open(id)
        except RaftError:
            continue
        raise _Broken(f"open({id!r}) returned something")


def other_versions_are_refused(bench: _Bench) -> None:
    """create() writes version 1 and raises for any other.

    The version says how the configuration is kept; one that nobody can read loses it.
    """
    for version in (0, 2):
        create = partial(bench.store.create, version, 1, 1, MEMBERS, 1, bench.transport)
        _expect_error(create, f"create() of version {version}")
    _expect(list(bench.store.list()), [], "list() after create() was refused")


PROMISES: tuple[Callable[[_Bench], None], ...] = (
    a_new_store_is_empty,
    a_snapshot_appears_when_it_is_closed,
    the_newest_comes_first,
    every_field_comes_back,
    every_listed_snapshot_can_be_opened,
    a_cancelled_snapshot_leaves_nothing,
    a_cancelled_snapshot_cannot_be_closed,
    close_may_be_called_again,
    a_closed_snapshot_takes_no_more,
    a_writer_that_dies_costs_nothing,
    every_snapshot_has_a_name_of_its_own,
    of_one_position_the_later_comes_first,
    large_states_come_back,
    readers_do_not_disturb_each_other,
    a_reader_outlives_its_snapshot,
    a_missing_snapshot_is_an_error,
    other_versions_are_refused,
)


# How they are checked


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise _Broken(f"{what} is {_short(found)}, not {_short(wanted)}")


def _expect_error(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except Exception:
        return
    raise _Broken(f"{what} raised nothing")


def _short(value: object) -> str:
    text = repr(value[:100]) if isinstance(value, bytes | Sequence) else repr(value)
    size = f" ({len(value)} bytes)" if isinstance(value, bytes) else ""
    return (text if len(text) <= 200 else text[:200] + "…") + size


def _read_in_pieces(store: SnapshotStore, id: str) -> bytes:
    _, reader = store.open(id)
    with reader:
        pieces = []
        for number in count(1):
            piece = reader.read(number * 1000)
            if not piece:
                break
            pieces.append(piece)
    return b"".join(pieces)
