"""FileSnapshotStore: hashicorp/raft's layout and rules, and what it does with a bad disk."""

import errno
import logging
import os
import shutil
import threading
import tracemalloc
from pathlib import Path

import pytest

from pyraft.errors import (
    ConfigError,
    CorruptStoreError,
    ForkedProcessError,
    RaftError,
    StorageError,
    StoreFullError,
)
from pyraft.snapshots import FileSnapshotStore, SnapshotMeta, SnapshotStore, file_store
from pyraft.snapshots.checked_reader import PIECE_BYTES
from tests.snapshots.snaps import CONFIGURATION, TRANSPORT, begin, ids, read, take

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """It is slow, and no power is cut here; test_file_store_crashes.py sees to that."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def store(tmp_path):
    return FileSnapshotStore(tmp_path)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "snapshots"


def names(home):
    return sorted(path.name for path in home.iterdir())


# hashicorp/raft's file_snapshot_test.go


def test_it_is_a_snapshot_store(store):
    assert isinstance(store, SnapshotStore)


def test_create_makes_missing_directories_again(store, tmp_path):
    shutil.rmtree(tmp_path / "snapshots")
    tmp_path.rmdir()

    id = take(store)

    assert ids(store) == [id]


def test_a_snapshot_is_invisible_until_it_is_closed(store):
    sink = begin(store)
    assert ids(store) == []

    assert sink.write(b"first\n") == 6
    assert sink.write(b"second\n") == 7
    assert ids(store) == []

    sink.close()
    assert list(store.list()) == [SnapshotMeta(sink.id, 10, 3, CONFIGURATION, 2, 13, 1)]
    meta, reader = store.open(sink.id)
    assert meta == store.list()[0]
    assert reader.read() == b"first\nsecond\n"
    reader.close()


def test_a_cancelled_snapshot_is_gone(store, home):
    sink = begin(store)
    sink.write(b"x" * PIECE_BYTES)
    sink.cancel()
    sink.cancel()

    assert ids(store) == []
    assert names(home) == []


def test_the_newest_are_kept(store, home):
    taken = [take(store, index=index) for index in range(10, 15)]

    assert ids(store) == [taken[4], taken[3]]
    assert names(home) == sorted(taken[3:])


def test_a_directory_that_cannot_be_used_is_refused_at_once(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match=r"the user of this process must be able to"):
            FileSnapshotStore(closed)
    finally:
        if as_root:
            os.seteuid(0)


@pytest.mark.parametrize("call", ["open", "listdir", "unlink", "mkdir"])
def test_permissions_are_tried_at_construction(tmp_path, monkeypatch, call):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError, match=r"cannot keep snapshots in .*snapshots.*Permission denied"):
        FileSnapshotStore(tmp_path)


def test_the_directory_is_made(tmp_path):
    take(FileSnapshotStore(tmp_path / "some" / "where"))

    assert len(names(tmp_path / "some" / "where" / "snapshots")) == 1


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path):
    (tmp_path / "snapshots").write_text("mine")
    with pytest.raises(StorageError, match=r"snapshots'?$"):
        FileSnapshotStore(tmp_path)


def test_newest_first_by_term_and_index_as_numbers(tmp_path):
    store = FileSnapshotStore(tmp_path, retain=9)
    order = [(36, 130350), (36, 200), (5, 130350), (5, 20), (5, 3)]
    for term, index in (order[2], order[0], order[4], order[1], order[3]):
        take(store, index=index, term=term)

    assert [(meta.term, meta.index) for meta in store.list()] == order


def test_the_newest_is_not_the_one_taken_last(store):
    newest, old = take(store, index=20), take(store, index=10)
    again = take(store, index=5)

    assert ids(store) == [newest, old]
    assert again not in names(store._home)


def test_a_disk_that_is_full_after_the_last_rename_leaves_it_open_whether_the_snapshot_is_there(
    store, home, monkeypatch
):
    """StoreFullError would say that it certainly is not, and a leader would write on at its place."""
    sink = begin(store)
    sink.write(b"state")
    sync_directory = file_store.sync_directory

    def full(path):
        if path == home:
            raise OSError(errno.ENOSPC, "no space left on device")
        sync_directory(path)

    monkeypatch.setattr(file_store, "sync_directory", full)

    with pytest.raises(StorageError, match="may or may not be there") as raised:
        sink.close()
    assert not isinstance(raised.value, StoreFullError)


# Names


@pytest.mark.parametrize(
    "clock",
    [
        [2_000, 1_000, 1_500],
        [999, 1_000, 1_001],
        [86_400_000, 1_790_000_000_000, 90_000_000],
        [1_000, 9_000, 1_000],
    ],
    ids=["set back", "one digit more", "began at 1970, was set, began again", "forward and back"],
)
def test_of_one_position_the_later_is_the_newer_whatever_the_clock_says(tmp_path, monkeypatch, clock):
    """A recovery's snapshot has the position of the log's end, where one with the lost members may be."""
    taken = []
    for milliseconds in clock:
        monkeypatch.setattr(file_store.time, "time_ns", lambda now=milliseconds: now * 1_000_000)
        store = FileSnapshotStore(tmp_path, retain=2)
        taken.append(take(store))

    assert ids(store) == [taken[2], taken[1]]
    assert taken == sorted(taken)  # as hashicorp/raft compares them


def test_ids_of_one_position_are_compared_as_text_as_in_go(store, home):
    for number in (999, 1000):
        take(store)
        newest = ids(store)[0]
        (home / newest).rename(home / f"3-10-{number}")
        meta = home / f"3-10-{number}" / "meta.json"
        meta.write_text(meta.read_text().replace(newest, f"3-10-{number}"))

    assert ids(store) == ["3-10-999", "3-10-1000"]


def test_what_cannot_be_read_is_told_by_its_name_if_it_is_newer_than_what_can(tmp_path):
    store = FileSnapshotStore(tmp_path, retain=9)
    home = tmp_path / "snapshots"
    kept = [take(store, index=index) for index in (10, 20, 20, 30)]
    for id in (kept[0], kept[2], kept[3]):
        (home / id / "meta.json").write_text("{")
    (home / "3-99-1.tmp").mkdir()
    (home / "notes").mkdir()

    assert ids(store) == [kept[1]]
    assert sorted(store.unreadable()) == [(3, 20), (3, 30)]


def test_an_unfinished_one_counts_too(tmp_path, monkeypatch):
    monkeypatch.setattr(file_store.time, "time_ns", lambda: 2_000_000_000)
    store = FileSnapshotStore(tmp_path, retain=2)
    first = begin(store)
    monkeypatch.setattr(file_store.time, "time_ns", lambda: 1_000_000_000)
    second = begin(store)

    second.close()
    first.close()

    assert ids(store) == [second.id, first.id]


def test_snapshots_of_one_millisecond_have_different_names(tmp_path, monkeypatch):
    monkeypatch.setattr(file_store.time, "time_ns", lambda: 1_795_188_631_124_999_999)
    store = FileSnapshotStore(tmp_path, retain=9)

    sinks = [begin(store) for _ in range(3)]
    sinks[0].close()
    sinks.append(begin(store))
    for number, sink in enumerate(sinks):
        if number:
            sink.write(b"%d" % number)
            sink.close()

    assert sinks[0].id == "3-10-1795188631124"
    assert ids(store) == [f"3-10-179518863112{last}" for last in (7, 6, 5, 4)]
    assert [read(store, sink.id) for sink in sinks] == [b"", b"1", b"2", b"3"]


def test_threads_may_take_snapshots_at_once(tmp_path):
    store = FileSnapshotStore(tmp_path, retain=3)
    failures = []

    def work(thread):
        try:
            for number in range(5):
                id = take(store, b"%d" % (number * 4 + thread), index=number * 4 + thread)
                store.list()
                if ids(store)[0] == id:
                    read(store, id)
        except RaftError as error:
            if "or no longer" not in str(error):
                failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert [read(store, id) for id in ids(store)] == [b"19", b"18", b"17"]
    assert len(names(store._home)) == 3


@pytest.mark.parametrize("version", [0, 2, -1, None])
def test_other_versions_cannot_be_written(store, version):
    with pytest.raises(ConfigError, match="must be 1"):
        store.create(version, 10, 3, CONFIGURATION, 2, TRANSPORT)
    assert names(store._home) == []


@pytest.mark.parametrize("retain", [0, -1, 1.5, "2", True, None])
def test_at_least_one_must_be_kept(tmp_path, retain):
    with pytest.raises(ConfigError, match="at least one"):
        FileSnapshotStore(tmp_path, retain=retain)


@pytest.mark.parametrize(
    "id", ["3-10-1", "", ".", "..", "../snapshots", "/etc", "x", "3-10", "3-10-1.tmp", "3-10-1\n"]
)
def test_what_is_not_there_cannot_be_opened(store, home, id):
    sink = begin(store, index=1, term=1)
    with pytest.raises(RaftError, match="no snapshot") as raised:
        store.open(id)
    assert not isinstance(raised.value, StorageError)
    sink.cancel()


# Sinks


def test_close_is_idempotent_and_cancel_after_it_does_nothing(store):
    sink = begin(store)
    sink.write(b"kept")
    sink.close()
    sink.close()
    sink.cancel()

    assert read(store, sink.id) == b"kept"
    with pytest.raises(RaftError, match="is closed"):
        sink.write(b"more")
    assert read(store, sink.id) == b"kept"


def test_a_cancelled_sink_takes_nothing_and_does_not_close_well(store):
    # hashicorp/raft: Close after Cancel returns nil, and who trusts that drops the log.
    sink = begin(store)
    sink.cancel()

    with pytest.raises(RaftError, match="was cancelled"):
        sink.write(b"more")
    with pytest.raises(RaftError, match="was cancelled"):
        sink.close()
    assert ids(store) == []


def test_an_exception_in_its_block_cancels_it(store, home):
    with pytest.raises(ZeroDivisionError), begin(store) as sink:
        sink.write(b"half")
        raise ZeroDivisionError
    assert names(home) == []


def test_pieces_of_any_size_and_kind_are_put_together(store):
    state = bytes(range(256)) * (PIECE_BYTES // 64)
    with begin(store) as sink:
        start = 0
        for size in (0, 1, 7, PIECE_BYTES - 8, PIECE_BYTES, 1, PIECE_BYTES + 1, len(state)):
            piece = bytearray(state[start : start + size])
            assert sink.write(memoryview(piece)) == len(piece)
            piece[:] = bytes(len(piece))  # the caller's buffer, to be used again
            start += size

    assert read(store, sink.id) == state
    assert store.list()[0].size == len(state)


@pytest.mark.parametrize("data", ["text", None, 7])
def test_only_bytes_are_written(store, data):
    with begin(store) as sink:
        with pytest.raises(TypeError):
            sink.write(data)
        sink.write(b"bytes")
    assert read(store, sink.id) == b"bytes"


def test_a_writer_that_is_interrupted_leaves_nothing(store, home, monkeypatch):
    def interrupted(fd, data):
        raise KeyboardInterrupt

    sink = begin(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sink.write(bytes(PIECE_BYTES))

    with pytest.raises(StorageError, match="KeyboardInterrupt"):
        sink.close()
    assert names(home) == []


def test_many_small_pieces(store):
    with begin(store) as sink:
        for number in range(PIECE_BYTES // 4 + 1):
            sink.write(number.to_bytes(8, "big"))

    assert read(store, sink.id) == b"".join(n.to_bytes(8, "big") for n in range(PIECE_BYTES // 4 + 1))


def test_a_sink_that_is_forgotten_closes_its_file(store):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        begin(store)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forked_child_can_read_and_not_write(store, home):
    id = take(store)
    sink = begin(store, index=11)
    sink.write(b"the parent's")
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (sink.close, lambda: sink.write(b"x"), lambda: begin(store)):
            try:
                call()
            except ForkedProcessError:
                refused += 1
        sink.cancel()
        os._exit(0 if (refused, read(store, id)) == (3, b"hello world") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    sink.close()
    assert read(store, sink.id) == b"the parent's"


# What lies around


def test_unfinished_folders_of_an_earlier_life_are_never_listed_and_removed(tmp_path, home):
    store = FileSnapshotStore(tmp_path)
    id = take(store)
    sink = begin(store, index=99)
    sink.write(bytes(PIECE_BYTES))
    shutil.copytree(home / id, home / "9-99-1.tmp")
    assert ids(store) == [id]

    again = FileSnapshotStore(tmp_path)

    assert ids(again) == [id]
    assert names(home) == [id]


def test_what_is_not_ours_is_left_alone(tmp_path, home, caplog):
    store = FileSnapshotStore(tmp_path)
    id = take(store)
    foreign = ["backup", "3-10-1.old", "notes.tmp", "3-10.tmp", "a-b-c", "3-10-٣", "lost+found"]
    for name in foreign:
        (home / name).mkdir()
        (home / name / "meta.json").write_bytes((home / id / "meta.json").read_bytes())
    for name in ("README", "3-10-2", "3-10-3.tmp"):
        (home / name).write_text("a file")
    (home / "3-10-4").symlink_to(home / id)
    (home / "3-10-5.tmp").symlink_to(tmp_path)

    with caplog.at_level(logging.WARNING):
        again = FileSnapshotStore(tmp_path)
        assert ids(again) == [id]
        newer = take(again, index=11), take(again, index=12)

    assert ids(again) == [newer[1], newer[0]]
    assert len(names(home)) == len(foreign) + 5 + 2
    assert caplog.records == []


def test_a_folder_with_a_bad_meta_is_left_out_loudly_and_once(store, home, caplog):
    good, bad = take(store, index=10), take(store, index=11)
    (home / bad / "meta.json").write_bytes(b'{"Version":1,"ID"')

    with caplog.at_level(logging.WARNING):
        assert ids(store) == [good]
        assert ids(store) == [good]
        with pytest.raises(CorruptStoreError, match=rf"{bad}/meta\.json is damaged: .*backup.*rejoin"):
            store.open(bad)

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert bad in caplog.text

    newer = take(store, index=12), take(store, index=13)
    assert ids(store) == [newer[1], newer[0]]
    assert bad in names(home)  # for whoever looks into it


def test_a_bad_meta_is_told_again_when_it_is_bad_in_another_way(store, home, caplog):
    bad = take(store)
    for data in (b"", b"[]"):
        (home / bad / "meta.json").write_bytes(data)
        assert ids(store) == []
    assert len(caplog.records) == 2


@pytest.mark.parametrize("file", ["meta.json", "state.bin"])
def test_a_missing_file_is_damage(store, home, file):
    id = take(store)
    (home / id / file).unlink()

    with pytest.raises(CorruptStoreError, match=rf"{file} is missing.*backup"):
        store.open(id)


@pytest.mark.parametrize("file", ["meta.json", "state.bin"])
def test_a_directory_in_the_place_of_a_file_is_an_error_of_ours(store, home, file):
    id = take(store)
    (home / id / file).unlink()
    (home / id / file).mkdir()

    with pytest.raises(StorageError):
        store.open(id)


def test_a_renamed_folder_is_not_taken_for_another_snapshot(store, home):
    id = take(store)
    (home / id).rename(home / "9-99-1")

    assert ids(store) == []
    with pytest.raises(CorruptStoreError, match=f"belongs to a folder named '{id}'"):
        store.open("9-99-1")


def test_a_meta_of_gigabytes_is_not_read_into_memory(store, home):
    id = take(store)
    os.truncate(home / id / "meta.json", 1 << 40)

    assert ids(store) == []


def test_a_directory_that_went_away_is_no_empty_one(store, home):
    take(store)
    home.rename(home.with_name("elsewhere"))

    with pytest.raises(StorageError, match="cannot list the snapshots"):
        store.list()


# Damaged state

SIZE = 3 * PIECE_BYTES + 17


def flip(place):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[place] ^= 0x10
        path.write_bytes(data)

    return damage


def overwrite_keeping_the_time(path):
    status = path.stat()
    flip(SIZE // 2)(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def extend(path):
    with path.open("ab") as file:
        file.write(b"x")


DAMAGES = {
    "one bit at the start": flip(0),
    "one bit in the middle": flip(SIZE // 2),
    "one bit at the end": flip(-1),
    "one bit, with the time of before": overwrite_keeping_the_time,
    "cut off by a byte": lambda path: os.truncate(path, SIZE - 1),
    "cut off at a piece": lambda path: os.truncate(path, PIECE_BYTES),
    "longer by a byte": extend,
    "empty": lambda path: os.truncate(path, 0),
    "zeros of the right length": lambda path: path.write_bytes(bytes(SIZE)),
}


@pytest.mark.parametrize("was_opened", [False, True], ids=["never opened", "opened before"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_not_opened(store, home, damage, was_opened):
    older = take(store, b"older", index=9)
    id = take(store, bytes(range(17)) * (SIZE // 17) + bytes(SIZE % 17))
    if was_opened:
        assert len(read(store, id)) == SIZE
    damage(home / id / "state.bin")

    for _ in range(2):
        with pytest.raises(CorruptStoreError, match=rf"{id}/state\.bin is damaged: .*backup.*rejoin"):
            store.open(id)
    assert read(store, older) == b"older"


@pytest.mark.parametrize("how", ["whole", "lines", "pieces", "exactly its size", "into a buffer"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_after_the_check_shows_before_the_last_byte_is_given_out(store, home, damage, how):
    id = take(store, bytes(range(17)) * (SIZE // 17) + bytes(SIZE % 17))
    _, reader = store.open(id)
    damage(home / id / "state.bin")

    given_out = 0
    with pytest.raises(CorruptStoreError, match="is damaged"), reader:
        if how == "whole":
            reader.read()
        elif how == "exactly its size":
            reader.read(SIZE)
        elif how == "lines":
            for line in reader:
                given_out += len(line)
        elif how == "into a buffer":
            buffer = bytearray(70_000)
            while count := reader.readinto(buffer):
                given_out += count
        else:
            while piece := reader.read(4096):
                given_out += len(piece)
    assert given_out < SIZE


def test_a_snapshot_of_nothing(store, home):
    id = take(store, b"")
    assert read(store, id) == b""
    _, reader = store.open(id)
    extend(home / id / "state.bin")
    with pytest.raises(CorruptStoreError, match="goes on after the 0 bytes"), reader:
        reader.read()


@pytest.mark.parametrize("field", ["Size", "CRC"])
def test_a_meta_that_was_changed_is_noticed_after_a_good_look_too(store, home, field):
    id = take(store)
    read(store, id)
    path = home / id / "meta.json"
    text = path.read_text()
    path.write_text(text.replace('"Size":11', '"Size":10') if field == "Size" else text.replace("UwN", "UwM"))

    with pytest.raises(CorruptStoreError, match="state.bin is damaged"):
        store.open(id)


def test_a_state_is_checked_once_and_again_when_it_was_touched(store, home, monkeypatch):
    passes = []
    real = file_store.check
    monkeypatch.setattr(file_store, "check", lambda file, expected: (passes.append(1), real(file, expected)))
    id = take(store)

    for _ in range(3):
        assert read(store, id) == b"hello world"
    assert len(passes) == 1

    os.utime(home / id / "state.bin")
    assert read(store, id) == b"hello world"
    assert len(passes) == 2


def test_an_open_snapshot_stays_readable_when_it_is_dropped(store, home):
    state = bytes(range(251)) * 20_000
    id = take(store, state)
    _, reader = store.open(id)
    start = reader.read(1000)
    for index in (11, 12):
        take(store, index=index)
    assert id not in names(home)

    with reader:
        assert start + reader.read() == state
    with pytest.raises(RaftError, match="or no longer"):
        store.open(id)


def test_a_read_error_is_one_of_ours(store, monkeypatch):
    id = take(store)

    class Failing(file_store.FileIO):
        def read(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(file_store, "FileIO", Failing)
    for call in (lambda: store.open(id), lambda: read(store, id)):
        with pytest.raises(StorageError, match="cannot read .*Input/output error"):
            call()


# From and to Go


def test_folders_that_go_wrote_are_opened(tmp_path):
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    store = FileSnapshotStore(tmp_path, retain=9)

    assert [(meta.term, meta.index) for meta in store.list()] == [(2**64 - 1, 2**64 - 1), (3, 11), (3, 10)]
    assert [len(read(store, id)) for id in ids(store)] == [3000, 0, 11]
    assert read(store, ids(store)[2]) == b"hello world"


def test_our_folder_is_the_one_that_go_would_have_written(tmp_path, monkeypatch):
    shutil.copytree(GOLDEN, tmp_path / "go")
    for golden in sorted((GOLDEN / "snapshots").iterdir()):
        wanted, state = FileSnapshotStore(tmp_path / "go", retain=9).open(golden.name)
        milliseconds = int(golden.name.split("-")[2])
        monkeypatch.setattr(file_store.time, "time_ns", lambda now=milliseconds: now * 1_000_000)
        store = FileSnapshotStore(tmp_path, retain=9)

        with (
            store.create(
                1, wanted.index, wanted.term, wanted.configuration, wanted.configuration_index, TRANSPORT
            ) as sink,
            state,
        ):
            sink.write(state.read())

        ours = tmp_path / "snapshots" / golden.name
        assert names(ours) == names(golden) == ["meta.json", "state.bin"]
        for name in names(golden):
            assert (ours / name).read_bytes() == (golden / name).read_bytes()


# Memory


def test_a_large_snapshot_never_lies_in_memory(store):
    piece = bytes(range(256)) * 4096
    tracemalloc.start()
    try:
        with begin(store) as sink:
            for _ in range(64):
                sink.write(piece)
        _, reader = store.open(sink.id)
        size = 0
        with reader:
            while data := reader.read(1 << 16):
                size += len(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert size == 64 << 20
    assert peak < 8 << 20


# A disk that fails, at every call

ERRNOS = {
    errno.ENOSPC: StoreFullError,
    errno.EDQUOT: StoreFullError,
    errno.EIO: StorageError,
    errno.EROFS: StorageError,
}


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
def test_a_disk_that_fails_at_any_call_leaves_the_old_snapshots_or_the_new_one_too(
    tmp_path, monkeypatch, number
):
    failed_calls = set()
    for fail_at in range(1, 100):
        place = tmp_path / str(fail_at)
        store = FileSnapshotStore(place)
        old = [take(store, b"old", index=index) for index in (1, 2)][::-1]
        error = None
        with monkeypatch.context() as patch:
            fault = FailingOs(patch, number, fail_at)
            try:
                id = take(store, bytes(500), index=3)
            except StorageError as raised:
                error = raised
        if fault.failed is None:
            break
        failed_calls.add(fault.failed)

        for seen in (store, FileSnapshotStore(place)):
            if error is None:  # only the dropping of old ones failed
                assert ids(seen) == [id, old[0]]
                assert len(read(seen, id)) == 500
            else:
                is_unknown = "may or may not be there" in str(error)  # it was renamed already
                assert type(error) is (StorageError if is_unknown else ERRNOS[number])
                assert "snapshot" in str(error) and os.strerror(number) in str(error)
                assert ids(seen) == old
            assert read(seen, old[0]) == b"old"
        if error is not None:
            assert names(place / "snapshots") == sorted(old)
        take(store, index=4)  # the disk has recovered

    assert failed_calls == {"mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir"}


class FailingOs:
    """Lets the call number ``fail_at`` of those that change the disk fail."""

    def __init__(self, patch, number, fail_at):
        self.failed = None
        self._calls = 0
        for name in ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir"):
            patch.setattr(os, name, self._wrap(name, getattr(os, name), number, fail_at))

    def _wrap(self, name, original, number, fail_at):
        def wrapper(*args, **kwargs):
            self._calls += 1
            if self._calls == fail_at:
                self.failed = name
                if name == "close":
                    original(*args, **kwargs)
                raise OSError(number, os.strerror(number))
            return original(*args, **kwargs)

        return wrapper


def test_a_full_disk_gets_its_room_back_and_the_sink_stays_refused(store, home, monkeypatch):
    sink = begin(store)

    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StoreFullError, match=r"cannot write the snapshot .*make room"):
            sink.write(bytes(PIECE_BYTES))

    assert names(home) == []
    for call in (lambda: sink.write(b"x"), sink.close):
        with pytest.raises(StoreFullError, match="make room"):
            call()
    sink.cancel()
    assert ids(store) == []


def test_short_writes_are_continued(store, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:1000]))
    id = take(store, bytes(range(256)) * 40)

    assert read(store, id) == bytes(range(256)) * 40


def test_failing_to_drop_old_ones_is_no_failure_but_told(store, caplog, monkeypatch):
    taken = [take(store, index=index) for index in (1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
        taken.append(take(store, index=3))

    assert ids(store) == [taken[2], taken[1]]
    assert "cannot drop old snapshots" in caplog.text and "by hand" in caplog.text
