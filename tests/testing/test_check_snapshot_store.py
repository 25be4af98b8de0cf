"""check_snapshot_store() finds what is wrong with a store, and says what and why."""

import os
from io import BytesIO
from itertools import count

import pytest

from pyraft.errors import RaftError
from pyraft.snapshots import DiscardSnapshotStore, FileSnapshotStore, InmemSnapshotStore, SnapshotMeta
from pyraft.snapshots.base import SnapshotSink, SnapshotStore
from pyraft.testing import check_snapshot_store
from pyraft.testing.check_snapshot_store import PROMISES


class Sink(SnapshotSink):
    def __init__(self, store, meta):
        self.store, self.meta, self.state, self.is_open = store, meta, b"", True

    @property
    def id(self):
        return self.meta.id

    def write(self, data):
        if not self.is_open:
            raise RaftError("ended")
        self.state += data
        return len(data)

    def close(self):
        if self.id in self.store.kept:
            return
        if not self.is_open:
            raise RaftError("cancelled")
        self.is_open = False
        self.store.keep(self)

    def cancel(self):
        self.is_open = False


class Sound(SnapshotStore):
    """Keeps two snapshots and comes back when it is opened again: nothing wrong with it."""

    Sink = Sink

    def __init__(self):
        self.kept = {}
        self.numbers = count(1)

    def name(self, index, term):
        return f"{term}-{index}-{next(self.numbers)}"

    def create(self, version, index, term, configuration, configuration_index, transport):
        if version != 1:
            raise RaftError("version")
        id = self.name(index, term)
        meta = SnapshotMeta(id, index, term, configuration, configuration_index, 0, version)
        return self.Sink(self, meta)

    def keep(self, sink):
        meta = SnapshotMeta(
            sink.id,
            sink.meta.index,
            sink.meta.term,
            sink.meta.configuration,
            sink.meta.configuration_index,
            len(sink.state),
        )
        self.kept[sink.id] = meta, sink.state
        for id in sorted(self.kept, key=self.age)[:-2]:
            del self.kept[id]

    def age(self, id):
        return tuple(map(int, id.split("-")))

    def list(self):
        return [self.kept[id][0] for id in sorted(self.kept, key=self.age, reverse=True)]

    def open(self, id):
        if id not in self.kept:
            raise RaftError("none such")
        meta, state = self.kept[id]
        return meta, BytesIO(state)


class NotEmptyWhenNew(Sound):
    def __init__(self):
        super().__init__()
        self.create(1, 1, 1, None, 1, None).close()


class VisibleFromTheBeginning(Sound):
    """As hashicorp/raft's InmemSnapshotStore."""

    def create(self, *arguments):
        sink = super().create(*arguments)
        self.keep(sink)
        return sink


class LosesTheNonvoters(Sound):
    def create(self, version, index, term, configuration, configuration_index, transport):
        voters = type(configuration)(configuration.voters)
        return super().create(version, index, term, voters, configuration_index, transport)


class TakesItsOwnIndexForTheConfigurations(Sound):
    def create(self, version, index, term, configuration, configuration_index, transport):
        return super().create(version, index, term, configuration, index, transport)


class SortsAsText(Sound):
    def age(self, id):
        return id


class SortsByTimeOfClosing(Sound):
    def list(self):
        return [meta for meta, _ in list(self.kept.values())[::-1]]

    def keep(self, sink):
        self.kept.pop(sink.id, None)
        super().keep(sink)


class SortsByIndexAlone(Sound):
    def age(self, id):
        return int(id.split("-")[1])


class PutsTheOldOfOnePositionFirst(Sound):
    def age(self, id):
        term, index, number = super().age(id)
        return term, index, -number


class ListsWhatItDropped(Sound):
    def __init__(self):
        super().__init__()
        self.metas = {}

    def keep(self, sink):
        super().keep(sink)
        if sink.id in self.kept:
            self.metas[sink.id] = self.kept[sink.id][0]

    def list(self):
        return [self.metas[id] for id in sorted(self.metas, key=self.age, reverse=True)]


class KeepsWhatWasCancelled(Sound):
    class Sink(Sink):
        def cancel(self):
            if self.is_open:
                self.close()


class ClosesAfterCancelAsIfNothingWere(Sound):
    class Sink(Sink):
        def close(self):
            if self.is_open:
                super().close()


class ClosesOnlyOnce(Sound):
    class Sink(Sink):
        def close(self):
            if not self.is_open:
                raise RaftError("closed already")
            super().close()


class CancelsWhatIsClosed(Sound):
    class Sink(Sink):
        def cancel(self):
            super().cancel()
            self.store.kept.pop(self.id, None)


class GoesOnWriting(Sound):
    class Sink(Sink):
        def write(self, data):
            if self.id in self.store.kept:
                self.state += data
                self.store.keep(self)
                return len(data)
            return super().write(data)


class CancelsTheOneBefore(Sound):
    class Sink(Sink):
        def cancel(self):
            super().cancel()
            if self.id not in self.store.kept:
                self.store.kept.clear()


class NamesByPosition(Sound):
    def name(self, index, term):
        return f"{term}-{index}-1"


class CutsLargeStates(Sound):
    def keep(self, sink):
        sink.state = sink.state[: 1 << 20]
        super().keep(sink)


class TakesOnlyPartOfAPiece(Sound):
    class Sink(Sink):
        def write(self, data):
            return super().write(data[: 1 << 19])


class SharesOneReader(Sound):
    def __init__(self):
        super().__init__()
        self.readers = {}

    def open(self, id):
        meta, reader = super().open(id)
        if self.readers.get(id, reader).closed:
            del self.readers[id]
        return meta, self.readers.setdefault(id, reader)


class ReadsFromWhatIsKept(Sound):
    """A reader that opens the state again for each piece."""

    def open(self, id):
        meta, state = super().open(id)
        store = self

        class Reader(BytesIO):
            def read(self, size=-1):
                if id not in store.kept:
                    raise FileNotFoundError(id)
                return super().read(size)

        return meta, Reader(state.getvalue())


class RaisesKeyErrorForMissing(Sound):
    def open(self, id):
        meta, state = self.kept[id]
        return meta, BytesIO(state)


class TakesAnyVersion(Sound):
    def create(self, version, *arguments):
        return super().create(1, *arguments)


BROKEN = {
    NotEmptyWhenNew: "a_new_store_is_empty",
    VisibleFromTheBeginning: "a_snapshot_appears_when_it_is_closed",
    LosesTheNonvoters: "every_field_comes_back",
    TakesItsOwnIndexForTheConfigurations: "every_field_comes_back",
    SortsAsText: "the_newest_comes_first",
    SortsByTimeOfClosing: "the_newest_comes_first",
    SortsByIndexAlone: "the_newest_comes_first",
    PutsTheOldOfOnePositionFirst: "of_one_position_the_later_comes_first",
    ListsWhatItDropped: "every_listed_snapshot_can_be_opened",
    KeepsWhatWasCancelled: "a_cancelled_snapshot_leaves_nothing",
    ClosesAfterCancelAsIfNothingWere: "a_cancelled_snapshot_cannot_be_closed",
    ClosesOnlyOnce: "close_may_be_called_again",
    CancelsWhatIsClosed: "close_may_be_called_again",
    GoesOnWriting: "a_closed_snapshot_takes_no_more",
    CancelsTheOneBefore: "a_cancelled_snapshot_leaves_nothing",
    NamesByPosition: "every_snapshot_has_a_name_of_its_own",
    CutsLargeStates: "large_states_come_back",
    TakesOnlyPartOfAPiece: "large_states_come_back",
    SharesOneReader: "readers_do_not_disturb_each_other",
    ReadsFromWhatIsKept: "a_reader_outlives_its_snapshot",
    RaisesKeyErrorForMissing: "a_missing_snapshot_is_an_error",
    TakesAnyVersion: "other_versions_are_refused",
}


def opener(kind):
    stores = {}
    return lambda path: stores[path] if path in stores else stores.setdefault(path, kind())


def test_a_store_without_a_fault_passes(tmp_path):
    check_snapshot_store(opener(Sound), tmp_path)


def test_our_stores_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # it is slow, and no power is cut here
    for name in ("file", "inmem", "keeps one", "keeps many"):
        (tmp_path / name).mkdir()
    check_snapshot_store(FileSnapshotStore, tmp_path / "file")
    check_snapshot_store(lambda path: FileSnapshotStore(path, retain=1), tmp_path / "keeps one")
    check_snapshot_store(lambda path: FileSnapshotStore(path, retain=50), tmp_path / "keeps many")
    check_snapshot_store(lambda path: InmemSnapshotStore(), tmp_path / "inmem", durable=False)


@pytest.mark.parametrize(("kind", "promise"), BROKEN.items(), ids=[kind.__name__ for kind in BROKEN])
def test_a_broken_store_is_rejected_with_the_promise_it_breaks(kind, promise, tmp_path):
    with pytest.raises(AssertionError, match=f"breaks the promise {promise}: .*Promised: ") as rejected:
        check_snapshot_store(opener(kind), tmp_path)
    assert type(rejected.value) is AssertionError


def test_a_store_that_forgets_is_rejected_unless_it_says_so(tmp_path):
    with pytest.raises(AssertionError, match="reopening"):
        check_snapshot_store(lambda path: InmemSnapshotStore(), tmp_path)


def test_a_store_that_brings_unfinished_ones_back_is_rejected(tmp_path):
    class CompletesWhatDied(Sound):
        def __init__(self):
            super().__init__()
            self.begun = []

        def create(self, *arguments):
            self.begun.append(super().create(*arguments))
            return self.begun[-1]

        def reopened(self):
            for sink in self.begun:
                if sink.is_open:
                    sink.close()
            return self

    stores = {}
    with pytest.raises(AssertionError, match="breaks the promise a_writer_that_dies_costs_nothing"):
        check_snapshot_store(
            lambda path: (
                stores[path].reopened() if path in stores else stores.setdefault(path, CompletesWhatDied())
            ),
            tmp_path,
        )


def test_a_store_that_keeps_nothing_is_not_one(tmp_path):
    with pytest.raises(AssertionError, match="breaks the promise a_snapshot_appears_when_it_is_closed"):
        check_snapshot_store(lambda path: DiscardSnapshotStore(), tmp_path, durable=False)


def test_every_promise_gives_a_reason():
    for promise in PROMISES:
        assert len(promise.__doc__) > 80, promise.__name__


def test_every_promise_is_broken_by_a_store_above():
    untested = {promise.__name__ for promise in PROMISES} - set(BROKEN.values())
    assert untested == {"a_writer_that_dies_costs_nothing"}  # which has a test of its own
