"""Whatever the moment of a crash or a power cut: the old snapshots, or the new one too, never half of it.

After every call that changes the disk, the directory is copied as four different disasters would
leave it, and a store is opened on each copy.
"""

import logging
import os
import shutil
import stat
from pathlib import Path

import pytest

from pyraft.snapshots import FileSnapshotStore, file_store
from tests.snapshots.snaps import begin, ids, read, take

STATE = bytes(range(250)) * 2  # two pieces and a half


class Disk:
    """Watches the calls that change the disk, and knows what has been synced.

    A file is known by its inode: what it held when it was synced last, and for a directory
    which names it had then.
    """

    CALLS = ("mkdir", "open", "write", "fsync", "close", "rename", "unlink", "rmdir")

    def __init__(self, root, patch, after_call):
        self._root = root
        self._synced_data = {}
        self._synced_names = {}
        self._watching = True
        self._after_call = after_call
        self._patch = patch
        self._real = {name: getattr(os, name) for name in self.CALLS}
        for path in (root, *root.rglob("*")):
            self._sync(path)
        for name in self.CALLS:
            patch.setattr(os, name, self._wrap(name))

    def _wrap(self, name):
        def call(*args, **kwargs):
            if not self._watching:
                return self._real[name](*args, **kwargs)
            self._watching = False
            try:
                if name == "fsync":
                    self._sync(Path(os.readlink(f"/proc/self/fd/{args[0]}")))
                result = self._real[name](*args, **kwargs)
                if name == "mkdir" or (name == "open" and args[1] & os.O_CREAT):
                    inode = os.stat(args[0]).st_ino  # perhaps one that was in use before
                    self._synced_data.pop(inode, None)
                    self._synced_names.pop(inode, None)
                self._after_call(self, name)
                return result
            finally:
                self._watching = True

        return call

    def _sync(self, path):
        inode = path.stat().st_ino
        if path.is_dir():
            self._synced_names[inode] = {
                entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)
            }
        else:
            self._synced_data[inode] = path.read_bytes()

    def after_a_crash_of_the_process(self, target):
        shutil.copytree(self._root, target)

    def after_a_power_cut_that_kept_every_name(self, target):
        shutil.copytree(self._root, target, copy_function=self._copy_synced_data)

    def _copy_synced_data(self, source, target):
        Path(target).write_bytes(self._synced_data.get(os.stat(source).st_ino, b""))

    def after_a_power_cut_that_kept_only_what_was_synced(self, target):
        self._rebuild(self._root.stat().st_ino, target)

    def after_a_power_cut_that_kept_the_files_but_not_the_renames(self, target):
        now = {path.stat().st_ino: path for path in self._root.rglob("*")}
        self.after_a_power_cut_that_kept_only_what_was_synced(target)
        for name, (inode, _) in self._synced_names[(self._root / "snapshots").stat().st_ino].items():
            shutil.rmtree(target / "snapshots" / name)
            if inode in now:
                shutil.copytree(now[inode], target / "snapshots" / name)
            else:
                (target / "snapshots" / name).mkdir()

    def _rebuild(self, inode, target):
        target.mkdir()
        for name, (child, is_directory) in self._synced_names.get(inode, {}).items():
            if is_directory:
                self._rebuild(child, target / name)
            else:
                (target / name).write_bytes(self._synced_data.get(child, b""))


DISASTERS = (
    Disk.after_a_crash_of_the_process,
    Disk.after_a_power_cut_that_kept_every_name,
    Disk.after_a_power_cut_that_kept_only_what_was_synced,
    Disk.after_a_power_cut_that_kept_the_files_but_not_the_renames,
)


def contents(path):
    """What a store that is opened there lists, newest first; each is opened and read."""
    store = FileSnapshotStore(path)
    found = [read(store, id) for id in ids(store)]
    assert not list((path / "snapshots").glob("*.tmp"))
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # Disk notes what would be synced
    monkeypatch.setattr(file_store, "PIECE_BYTES", 200)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    return root


@pytest.mark.parametrize(
    ("old", "ending"),
    [((), "close"), ((b"1", b"2"), "close"), ((b"1", b"2"), "cancel")],
    ids=["the first one", "one that another makes room for", "one that is cancelled"],
)
def test_at_every_step(root, tmp_path, monkeypatch, caplog, old, ending):
    store = FileSnapshotStore(root)
    for index, state in enumerate(old):
        take(store, state, index)
    before = list(old[::-1])[:2]
    after = [STATE, *before][:2]
    seen, calls = [], []

    def look(disk, call):
        calls.append(call)
        for disaster in DISASTERS:
            copy = tmp_path / f"{len(calls)}-{disaster.__name__}"
            disaster(disk, copy)
            found = contents(copy)
            assert found in ([before, after] if ending == "close" else [before]), (calls, disaster.__name__)
            seen.append(found)

    with monkeypatch.context() as patch:
        disk = Disk(root, patch, look)
        sink = begin(store, index=9)
        sink.write(STATE)
        getattr(sink, ending)()

        for disaster in DISASTERS:  # it has returned: now there is only one right answer
            copy = tmp_path / f"end-{disaster.__name__}"
            disaster(disk, copy)
            assert contents(copy) == (after if ending == "close" else before), disaster.__name__

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert seen[0] == before
    assert stat.S_ISDIR((root / "snapshots").stat().st_mode)
    if ending == "close":
        assert calls.count("fsync") >= 4 and calls.count("rename") == 1 + (len(old) == 2)
        assert after in seen


def test_a_crash_while_the_directory_is_made(root, tmp_path, monkeypatch):
    copies = []

    def look(disk, call):
        for disaster in DISASTERS[:3]:
            copies.append(tmp_path / str(len(copies)))
            disaster(disk, copies[-1])

    with monkeypatch.context() as patch:
        disk = Disk(root, patch, look)
        store = FileSnapshotStore(root / "deep" / "down")
        id = take(store)
        synced = tmp_path / "synced"
        disk.after_a_power_cut_that_kept_only_what_was_synced(synced)

    assert read(FileSnapshotStore(synced / "deep" / "down"), id) == b"hello world"
    for copy in copies:
        take(FileSnapshotStore(copy / "deep" / "down"), index=11)


def test_a_crash_while_leftovers_are_removed(root, tmp_path, monkeypatch):
    store = FileSnapshotStore(root)
    take(store, b"kept")
    unfinished = begin(store, index=11)
    unfinished.write(STATE)
    count = 0

    def look(disk, call):
        nonlocal count
        for disaster in DISASTERS:
            count += 1
            disaster(disk, tmp_path / str(count))
            assert contents(tmp_path / str(count)) == [b"kept"]

    with monkeypatch.context() as patch:
        Disk(root, patch, look)
        FileSnapshotStore(root)
    assert count > 6
