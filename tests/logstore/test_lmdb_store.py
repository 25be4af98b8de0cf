"""LMDBStore against what disks, processes and operators do to it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading

import lmdb
import pytest

from pyraft.errors import ConfigError, CorruptStoreError, LogNotFoundError, StorageError, StoreFullError
from pyraft.log import Log, LogType
from pyraft.logstore import LMDBStore, journal, lmdb_file, records

KIB = 1024


def entries(first, last, term=1, size=100):
    return [
        Log(index, term, data=(b"entry %d " % index).ljust(size, b".")) for index in range(first, last + 1)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def filled(path):
    """A closed store of 500 entries, each in a block of its own, and a vote."""
    store = LMDBStore(path, server_id="s1", sync=False)
    for log in entries(1, 500):
        store.store_log(log)
    store.set(b"LastVoteCand", b"candidate-s2")
    store.close()
    return path


def run(program, *args, **options):
    """Run ``program`` in an interpreter of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELUDE = """
import os, sys, errno
from pyraft.errors import *
from pyraft.log import Log
from pyraft.logstore import LMDBStore
"""


# Durability


def test_entries_acknowledged_before_a_kill_are_there_after_it(path):
    writer = subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-c",
            PRELUDE
            + """
store = LMDBStore(sys.argv[1])
index = 1
while True:
    store.store_logs([Log(index + i, 1, data=b"x" * 200) for i in range(3)])
    index += 3
    store.set_uint64(b"acknowledged", index - 1)
    print(index - 1)
""",
            str(path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged = [int(writer.stdout.readline()) for _ in range(60)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()

    store = LMDBStore(path)
    assert store.first_index() == 1
    assert store.last_index() in (acknowledged[-1], acknowledged[-1] + 3)
    assert len(store.get_logs(1, store.last_index(), 1 << 30)) == store.last_index()
    assert store.get_uint64(b"acknowledged") >= acknowledged[-1]
    store.close()


def test_a_commit_is_synced_to_the_disk_meta_page_included(path):
    store = LMDBStore(path)
    flags = store._env.flags()
    store.close()
    assert flags["sync"] and flags["metasync"] and not flags["writemap"] and not flags["map_async"]


def test_a_new_store_is_an_lmdb_0_9_file_and_stays_one(path):
    for _ in range(2):
        store = LMDBStore(path)
        assert store._env.lib_version()[:2] == (0, 9)
        store.close()


# Damage


def flip_a_bit(file, content):
    data = bytearray(file.read_bytes())
    for found in re.finditer(re.escape(content), bytes(data)):  # pages that are free hold copies
        data[found.start()] ^= 1
    file.write_bytes(data)


def test_a_flipped_bit_in_an_entry_is_found(filled):
    flip_a_bit(filled / "data.mdb", b"entry 250 ")

    store = LMDBStore(filled)
    assert store.get_log(249) == entries(249, 249)[0]
    for read in (lambda: store.get_log(250), lambda: store.get_logs(240, 260, 1 << 20)):
        with pytest.raises(CorruptStoreError, match=r"data\.mdb.*250.*[Ww]ipe this server's directory"):
            read()
    with pytest.raises(CorruptStoreError, match="250"):
        store.replace_suffix(entries(250, 250, term=2))
    store.close()


def test_a_flipped_bit_in_a_vote_is_found(filled):
    flip_a_bit(filled / "data.mdb", b"candidate-s2")

    with pytest.raises(CorruptStoreError, match=r"LastVoteCand.*[Ww]ipe"):
        LMDBStore(filled)


def test_a_vote_that_a_damaged_page_hides_is_missed(filled):
    """Else it would count as not given.  One bit of a page's pointer to its record is enough."""
    data = bytearray((filled / "data.mdb").read_bytes())
    for found in re.finditer(b"uLastVoteCand", bytes(data)):
        page, node = found.start() // 4096 * 4096, found.start() % 4096 - 8
        pointers = struct.unpack_from("<9H", data, page + 16)
        if node in pointers:  # the pointer beside it takes its place
            at = pointers.index(node)
            struct.pack_into("<H", data, page + 16 + 2 * at, pointers[at - 1 if at else 1])
    (filled / "data.mdb").write_bytes(data)

    with pytest.raises(CorruptStoreError, match="is damaged"):
        LMDBStore(filled)


def test_a_record_in_another_ones_place_is_found(filled):
    env = lmdb.open(str(filled), max_dbs=2)
    logs = env.open_db(b"logs", create=False)
    with env.begin(write=True) as txn:
        txn.put(records.log_key(7), txn.get(records.log_key(8), db=logs), db=logs)
    env.close()

    store = LMDBStore(filled)
    with pytest.raises(CorruptStoreError, match="7"):
        store.get_log(7)
    store.close()


def test_a_right_checksum_over_another_entry_is_found():
    key, value = records.encode_block(7, [Log(8, 1).encoded])
    with pytest.raises(CorruptStoreError, match="7 holds the bytes of entry 8"):
        records.read_block(key, value).log(7)


@pytest.mark.parametrize("percent", [90, 50, 10])
def test_a_truncated_file_is_refused_instead_of_killing_the_process(filled, percent):
    file = filled / "data.mdb"
    os.truncate(file, file.stat().st_size * percent // 100)
    out = run(
        "try: LMDBStore(sys.argv[1])\nexcept CorruptStoreError as error: print(error)",
        filled,
    )
    assert "truncated" in out and "rejoin as a new member" in out


@pytest.mark.parametrize("small_commits", [1, 2])
def test_the_newer_meta_page_decides_how_long_the_file_must_be(path, small_commits):
    # Commits take turns on the two pages.
    store = LMDBStore(path, sync=False)
    for index in range(1, small_commits + 1):
        store.store_log(entries(index, index)[0])
    store.store_logs(entries(10, 10, size=500_000))
    store.close()
    os.truncate(path / "data.mdb", 400_000)

    with pytest.raises(CorruptStoreError, match="truncated"):
        lmdb_file.check_data_file(path / "data.mdb")


def test_a_file_that_lacks_nothing_but_free_pages_is_healthy(path, monkeypatch):
    """LMDB does not write a page that the transaction which took it from the file's end has freed."""
    monkeypatch.setattr(journal, "LARGEST_RECORD", 0)  # each entry is a commit
    store = LMDBStore(path, sync=False)
    steps = [39, -20, 42, 9, 31, -36, 38, 60, -116, 49, -128, 36, -27, -15]  # append, or replace from there
    for term, step in enumerate(steps, 1):
        last = store.last_index()
        for index in range(last + 1, last + step + 1):
            store.store_logs([Log(index, 1, data=b"x" * 100)])
        if step < 0:
            store.replace_suffix([Log(-step, term, data=b"x" * 100)])
    figures = store.stats()
    store.close()
    file = path / "data.mdb"
    assert file.stat().st_size < figures["used_bytes"]

    cut = file.stat().st_size // 2
    torn = shutil.copytree(path, path.with_name("torn"))
    os.truncate(torn / "data.mdb", cut)
    with pytest.raises(CorruptStoreError, match="truncated"):
        LMDBStore(torn)
    assert (torn / "data.mdb").stat().st_size == cut

    store = LMDBStore(path)
    assert store.last_index() == 15
    assert file.stat().st_size >= figures["used_bytes"]
    store.close()


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 5000])
def test_an_emptied_file_is_never_an_empty_store(filled, size):
    os.truncate(filled / "data.mdb", size)
    with pytest.raises(CorruptStoreError, match=r"data\.mdb"):
        LMDBStore(filled)


def test_a_missing_file_is_never_an_empty_store(filled):
    (filled / "data.mdb").unlink()
    for _ in range(2):  # and trying does not make one
        with pytest.raises(CorruptStoreError, match=r"data\.mdb is missing, but .* rejoin as a new member"):
            LMDBStore(filled)
        assert not (filled / "data.mdb").exists()


@pytest.mark.parametrize("page", [0, 1])
def test_a_damaged_meta_page_is_refused(filled, page):
    with (filled / "data.mdb").open("r+b") as file:
        file.seek(page * 4096)
        file.write(bytes(4096))
    with pytest.raises(CorruptStoreError, match="no LMDB 0.9 data file"):
        LMDBStore(filled)


def test_a_store_without_its_identity_is_refused_if_it_holds_anything(filled):
    (filled / "pyraft.identity").unlink()
    for _ in range(2):
        with pytest.raises(CorruptStoreError, match="identity"):
            LMDBStore(filled)


def test_a_damaged_identity_is_refused(filled):
    (filled / "pyraft.identity").write_bytes(b"{")
    with pytest.raises(CorruptStoreError, match="identity"):
        LMDBStore(filled)


def test_a_lost_lock_file_of_lmdb_does_not_matter(filled):
    (filled / "lock.mdb").unlink()
    store = LMDBStore(filled)
    assert store.last_index() == 500
    store.close()


# Creation


def half_made(path, *, marker, data):
    path.mkdir()
    if marker:
        (path / "pyraft.creating").touch()
    if data is not None:
        (path / "data.mdb").write_bytes(data)


@pytest.mark.parametrize(
    ("marker", "data"),
    [(False, None), (False, b""), (True, None), (True, b""), (True, b"\0" * 5000), (True, b"torn")],
)
def test_a_crash_while_the_store_was_made_leaves_one_that_opens(path, marker, data):
    half_made(path, marker=marker, data=data)

    store = LMDBStore(path)
    store.store_logs(entries(1, 3))
    store.close()

    store = LMDBStore(path)
    assert store.last_index() == 3
    store.close()
    assert not (path / "pyraft.creating").exists()


@pytest.mark.parametrize("call", ["fsync", "open_db", "_write_identity"])
def test_a_crash_at_any_step_of_making_it_leaves_a_directory_that_opens(path, call):
    # os._exit at the n-th call, for every n that there is.
    program = """
import lmdb
from pyraft.logstore import directory
call, die_at = sys.argv[2], int(sys.argv[3])
calls = 0
def dying(original):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == die_at: os._exit(7)
        return original(*args, **kwargs)
    return wrapper
if call == "fsync": os.fsync = dying(os.fsync)
elif call == "_write_identity":
    directory.StoreDirectory._write_identity = dying(directory.StoreDirectory._write_identity)
else:
    class Env:
        def __init__(self, env): self.env = env
        def __getattr__(self, name): return getattr(self.env, name)
        def open_db(self, *args, **kwargs): return dying(self.env.open_db)(*args, **kwargs)
    original = lmdb.open
    lmdb.open = lambda *args, **kwargs: Env(original(*args, **kwargs))
LMDBStore(sys.argv[1])
"""
    for die_at in range(1, 50):
        home = path.with_name(f"{call}-{die_at}")
        code = subprocess.run([sys.executable, "-c", PRELUDE + program, home, call, str(die_at)]).returncode
        if code == 0:
            break
        assert code == 7
        store = LMDBStore(home)
        store.store_logs(entries(1, 1))
        store.close()
    assert die_at > 1


@pytest.mark.parametrize("made_by_the_user", [False, True])
def test_the_directory_and_its_parents_are_synced_before_it_is_used(path, monkeypatch, made_by_the_user):
    synced = []
    original = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), original(fd))
    )
    home = path / "deep" / "down"
    wanted = {home.parent, home}
    if made_by_the_user:
        home.mkdir(parents=True)
    else:
        wanted |= {path.parent, path}

    LMDBStore(home).close()

    assert set(map(str, wanted)) <= set(synced)


def test_another_servers_directory_is_refused_by_name(filled):
    with pytest.raises(ConfigError, match=r"'s1'.*'s2'"):
        LMDBStore(filled, server_id="s2")
    LMDBStore(filled, server_id="s1").close()
    LMDBStore(filled).close()


def test_the_first_server_id_given_is_kept(path):
    LMDBStore(path).close()
    LMDBStore(path, server_id="s1").close()
    with pytest.raises(ConfigError, match=r"'s1'.*'s2'"):
        LMDBStore(path, server_id="s2")


def test_a_newer_format_is_refused(filled):
    (filled / "pyraft.identity").write_text(json.dumps({"format": 3}))
    with pytest.raises(StorageError, match="format 3"):
        LMDBStore(filled)


def test_a_path_that_is_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        LMDBStore(tmp_path / "file")


@pytest.mark.parametrize("sizes", [{"map_size": 1}, {"max_map_size": 100}])
def test_a_map_too_small_for_anything_is_refused(path, sizes):
    with pytest.raises(ConfigError, match=f"{next(iter(sizes))}=.*at least 65536"):
        LMDBStore(path, **sizes)
    with pytest.raises(ConfigError):
        LMDBStore(path, max_map_size=0)
    LMDBStore(path, map_size=65536).close()


# One process at a time


def test_a_second_opener_in_this_process_is_told_so(path):
    store = LMDBStore(path, server_id="s1")
    with pytest.raises(StorageError, match=rf"process {os.getpid()}, which is this process \(server 's1'\)"):
        LMDBStore(path, server_id="s1")
    store.close()
    LMDBStore(path).close()


def test_a_second_process_is_told_who_has_it(path):
    store = LMDBStore(path)
    out = run("try: LMDBStore(sys.argv[1])\nexcept StorageError as error: print(error)", path)
    assert f"in use by process {os.getpid()}" in out
    store.close()


def test_a_refused_opening_leaves_the_lock_free(filled):
    with pytest.raises(ConfigError):
        LMDBStore(filled, server_id="s2")
    out = run("store = LMDBStore(sys.argv[1]); print(store.last_index())", filled)
    assert out == "500\n"


def test_a_forked_child_can_do_nothing_with_it(path):
    out = run(
        """
store = LMDBStore(sys.argv[1])
store.store_logs([Log(1, 1, data=b"x")])
store._writing.acquire()  # as if another thread were writing: it does not exist in the child
child = os.fork()
if child == 0:
    calls = dict(
        first_index=lambda: store.first_index(), last_index=lambda: store.last_index(),
        get_log=lambda: store.get_log(1), missing=lambda: store.get_log(9),
        get_logs=lambda: store.get_logs(1, 1, 9), no_logs=lambda: store.get_logs(2, 1, 9),
        store_logs=lambda: store.store_logs([Log(2, 1)]), store_log=lambda: store.store_log(Log(2, 1)),
        replace_suffix=lambda: store.replace_suffix([Log(1, 2)]), delete_range=lambda: store.delete_range(1, 1),
        get=lambda: store.get(b"k"), set=lambda: store.set(b"k", b"v"),
        set_uint64=lambda: store.set_uint64(b"k", 1), get_uint64=lambda: store.get_uint64(b"k"),
        stats=lambda: store.stats(), configuration_indexes=lambda: store.configuration_indexes())
    for name, call in calls.items():
        try: call()
        except StorageError as error: assert isinstance(error.__cause__, ForkedProcessError), name
        else: os._exit(1)
    store.close()
    del store, calls
    os._exit(0)
store._writing.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
store.store_logs([Log(2, 1)])
try: LMDBStore(sys.argv[1])
except StorageError as error: print("still locked")
store.close()
print(LMDBStore(sys.argv[1]).last_index())
""",
        path,
    )
    assert out == "still locked\n2\n"


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(path):
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PRELUDE
            + """
store = LMDBStore(sys.argv[1])
if os.fork() == 0:
    print("running", flush=True)
    os.read(int(sys.argv[2]), 1)  # until the test lets go
    os._exit(0)
os._exit(0)
""",
            str(path),
            str(reading),
        ],
        pass_fds=[reading],
        stdout=subprocess.PIPE,
    )
    assert parent.wait() == 0
    assert parent.stdout.readline() == b"running\n"

    LMDBStore(path).close()

    os.close(writing)
    os.close(reading)
    parent.stdout.close()


# Room


def test_the_map_grows_while_readers_read(path):
    store = LMDBStore(path, map_size=64 * KIB, sync=False)
    store.store_logs(entries(1, 10))
    done = threading.Event()
    wrong = []

    def read():
        while not done.is_set():
            try:
                if store.get_logs(1, 10, 1 << 20) != entries(1, 10):
                    wrong.append("another log")
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for first in range(11, 1011, 100):
        store.store_logs(entries(first, first + 99, size=1000))
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert store.get_logs(11, 1010, 1 << 30) == entries(11, 1010, size=1000)
    assert store.stats()["map_size"] > 1 << 20
    store.close()


def test_one_batch_may_need_several_doublings(path):
    store = LMDBStore(path, map_size=64 * KIB, sync=False)
    store.store_logs(entries(1, 5, size=1 << 20))
    assert store.last_index() == 5
    store.close()


def test_beyond_max_map_size_nothing_is_stored_and_deleting_makes_room(path):
    store = LMDBStore(path, map_size=64 * KIB, max_map_size=1 << 20, sync=False)
    store.store_logs(entries(1, 400, size=1000))

    with pytest.raises(StoreFullError, match=f"max_map_size={1 << 20}"):
        store.store_logs(entries(401, 1500, size=1000))
    with pytest.raises(StoreFullError):
        store.replace_suffix(entries(200, 1500, term=2, size=1000))

    assert store.last_index() == 400
    assert store.get_logs(1, 400, 1 << 30) == entries(1, 400, size=1000)
    assert store.stats()["map_size"] == 1 << 20
    store.delete_range(1, 300)
    store.store_logs(entries(401, 500, size=1000))
    assert (store.first_index(), store.last_index()) == (301, 500)
    store.close()


def test_a_map_that_this_process_cannot_have_leaves_the_store_as_it_was(path):
    out = run(
        """
import resource
store = LMDBStore(sys.argv[1], map_size=1 << 20, sync=False)
store.store_logs([Log(1, 1, data=b"x")])
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (8 << 20), resource.RLIM_INFINITY))
try:
    for index in range(2, 100):
        store.store_logs([Log(index, 1, data=b"x" * 500_000)])
except StoreFullError as error:
    print("address space" in str(error) or "cannot map" in str(error))
print(store.last_index() == index - 1, store.get_log(1).data == b"x")
store.close()
""",
        path,
    )
    assert out == "True\nTrue True\n"


def test_a_map_size_that_cannot_be_had_is_explained(path):
    limit = (2 << 30, resource.RLIM_INFINITY)
    out = run(
        "try: LMDBStore(sys.argv[1])\nexcept StorageError as error: print(error)",
        path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    assert "smaller map_size" in out


FILL_THE_DISK = """
store = LMDBStore(sys.argv[1])
index = 1
try:
    while True:
        store.store_logs([Log(index, 1, data=b"x" * 50_000)])
        index += 1
except StoreFullError as error:
    print("full", error.__cause__ is not None)
print(store.last_index() == index - 1, store.get_log(index - 1).data == b"x" * 50_000)
try: store.set(b"k", b"v")
except StorageError as error: print("restart" in str(error))
store.close()
store = LMDBStore(sys.argv[1])
print(store.last_index() == index - 1)
store.delete_range(1, index // 2)
store.store_logs([Log(index, 1, data=b"x" * 50_000)])
store.close()
"""


def test_a_full_disk_is_store_full_and_reopening_clears_it(tmp_path):
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(mounted)]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("no mount of our own here: see the test with an injected ENOSPC")
    done = subprocess.run(
        [*mount, sys.executable, "-c", PRELUDE + FILL_THE_DISK, str(mounted / "store")],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "full True\nTrue True\nTrue\nTrue\n", done.stderr


# Failure


def lmdb_error(kind, code):
    error = kind("mdb_txn_commit", code)
    error.code = code  # as where lmdb itself raises it
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (lmdb_error(lmdb.DiskError, errno.ENOSPC), StoreFullError),
        (lmdb_error(lmdb.Error, errno.EDQUOT), StoreFullError),
        (lmdb_error(lmdb.Error, errno.EIO), StorageError),
        (lmdb.PanicError("mdb_txn_commit"), StorageError),
    ],
    ids=["no space", "quota", "I/O error", "panic"],
)
def test_a_failed_commit_latches_the_store_until_it_is_reopened(path, monkeypatch, error, kind):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))
    store.set(b"k", b"before")

    def fail(txn):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "_commit", fail)
        with pytest.raises(kind) as raised:
            store.store_logs(entries(4, 6, size=30_000))
        assert type(raised.value) is kind
        assert raised.value.__cause__ is error

    for write in (
        lambda: store.store_log(entries(4, 4)[0]),
        lambda: store.replace_suffix(entries(3, 3, term=2)),
        lambda: store.delete_range(1, 1),
        lambda: store.set(b"k", b"after"),
    ):
        with pytest.raises(StorageError, match="failed earlier.*restart the server"):
            write()
    assert store.last_index() == 3
    assert store.get_logs(1, 3, 1 << 20) == entries(1, 3)
    store.close()

    store = LMDBStore(path)
    assert store.last_index() == 3
    store.store_logs(entries(4, 6))
    assert store.get(b"k") == b"before"
    store.close()


def test_a_signal_between_commit_and_publishing_latches_too(path, monkeypatch):
    store = LMDBStore(path)

    def commit_and_interrupt(txn):
        txn.commit()
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_commit", commit_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.store_logs(entries(1, 3, size=30_000))
    monkeypatch.undo()

    with pytest.raises(StorageError, match="failed earlier"):
        store.store_logs(entries(1, 1))
    store.close()
    store = LMDBStore(path)
    assert store.last_index() == 3  # what was being written may be there
    store.close()


def test_a_write_that_fails_half_way_leaves_nothing(path, monkeypatch):
    store = LMDBStore(path)
    store.store_logs(entries(1, 5))

    def fail(*args):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_put", fail)
        with pytest.raises(RuntimeError):
            store.replace_suffix(entries(2, 9, term=2))

    assert store.get_logs(1, 5, 1 << 20) == entries(1, 5)
    store.store_logs(entries(6, 6))
    store.close()
    store = LMDBStore(path)
    assert store.get_logs(1, 6, 1 << 20) == entries(1, 6)
    store.close()


@pytest.mark.parametrize("indexes", [[0], [2, 2], [3, 2], [-1], [2**64]])
def test_indexes_that_do_not_ascend_are_refused(path, indexes):
    store = LMDBStore(path)
    with pytest.raises(ConfigError):
        store.store_logs([Log(index, 1, encoded=b"") for index in indexes])
    assert store.last_index() == 0
    store.close()


def test_a_key_too_long_is_refused_and_the_longest_works(path):
    store = LMDBStore(path)
    store.set(b"k" * 510, b"v")
    assert store.get(b"k" * 510) == b"v"
    for call in (lambda: store.set(b"k" * 511, b"v"), lambda: store.get(b"k" * 511)):
        with pytest.raises(ConfigError, match="510"):
            call()
    store.close()


# Closing


def test_a_closed_store_says_so(path):
    store = LMDBStore(path)
    store.store_logs(entries(1, 1))
    store.close()
    store.close()
    calls = [
        store.first_index,
        lambda: store.get_log(1),
        lambda: store.get_log(2),
        lambda: store.set(b"k", b"v"),
        store.stats,
        lambda: store.store_logs(entries(2, 2)),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="closed"):
            call()


def grow(store):
    store._grow(lmdb.MapFullError("mdb_put"))


def fail_to_write(store):
    with pytest.raises(RuntimeError):
        store._write(lambda txn: exec("raise RuntimeError"))


@pytest.mark.parametrize("act", [LMDBStore.close, grow, fail_to_write])
def test_what_a_reader_inside_would_not_survive_waits_for_it(path, act):
    # Closing and growing take the memory away; py-lmdb's abort would wait without end.
    store = LMDBStore(path, map_size=1 << 20)
    store.store_logs(entries(1, 1))
    inside, leave = threading.Event(), threading.Event()
    order = []

    def read(txn):
        inside.set()
        leave.wait(timeout=30)
        order.append("read")
        return txn.get(records.log_key(1), db=store._logs)

    def write():
        act(store)
        order.append("done")

    reader = threading.Thread(target=store._read, args=(read,))
    writer = threading.Thread(target=write)
    reader.start()
    inside.wait()
    writer.start()
    while not store._gate._closed and writer.is_alive():
        pass
    leave.set()
    reader.join()
    writer.join()

    assert order == ["read", "done"]
    store.close()


# What restarts rely on


def test_configurations_written_by_a_failed_change_are_not_remembered(path, monkeypatch):
    store = LMDBStore(path)
    store.store_logs([Log(1, 1, LogType.CONFIGURATION), *entries(2, 3)])

    def fail(txn):
        raise lmdb.Error("mdb_txn_commit", errno.EIO)

    monkeypatch.setattr(store, "_commit", fail)
    with pytest.raises(StorageError):
        store.replace_suffix([Log(1, 2, LogType.COMMAND), Log(2, 2, LogType.CONFIGURATION)])
    assert store.configuration_indexes() == (1,)
    store.close()
    store = LMDBStore(path)
    assert store.configuration_indexes() == (1,)
    store.close()


def test_entries_of_one_block_can_be_cut_at_any_place(path):
    store = LMDBStore(path, sync=False)
    store.store_logs(entries(1, 20))  # one block
    store.close()
    store = LMDBStore(path, sync=False)
    assert store._env.begin().stat(store._logs)["entries"] == 1

    store.store_logs(entries(5, 6, term=2))
    store.delete_range(1, 2)
    store.delete_range(10, 12)
    store.replace_suffix(entries(18, 18, term=3))

    assert store.get_logs(3, 9, 1 << 20) == [*entries(3, 4), *entries(5, 6, 2), *entries(7, 9)]
    for index in (2, 10, 12, 19):
        with pytest.raises(LogNotFoundError):
            store.get_log(index)
    assert store.get_logs(13, 18, 1 << 20) == [*entries(13, 17), *entries(18, 18, 3)]
    store.close()


def test_the_figures_say_how_full_it_is(path):
    store = LMDBStore(path, map_size=1 << 20, sync=False)
    store.store_logs(entries(5, 104, size=2000))
    figures = store.stats()
    assert figures["map_size"] == 1 << 20
    assert figures["entries"] == 100
    assert 200_000 < figures["live_bytes"] <= figures["used_bytes"] < 300_000
    store.close()


# The journal


def left_by_a_kill(path, to):
    """The files of a store that is open, as a killed process leaves them."""
    shutil.copytree(path, to)
    return to


def test_small_batches_at_the_end_go_to_the_journal_and_are_there_after_a_kill(path, tmp_path):
    store = LMDBStore(path)
    store.store_logs([Log(1, 1, LogType.CONFIGURATION, b"c"), *entries(2, 10)])
    store.stage_commit_index(7)
    store.replace_suffix(entries(11, 15))  # what a follower appends with
    assert store.stats()["journal_bytes"] == 2 * 4096
    assert store._env.begin().stat(store._logs)["entries"] == 0

    other = LMDBStore(left_by_a_kill(path, tmp_path / "killed"))
    assert (other.first_index(), other.last_index(), other.get_commit_index()) == (1, 15, 7)
    assert other.configuration_indexes() == (1,)
    assert other.get_logs(2, 15, 1 << 20) == entries(2, 15)
    other.store_logs(entries(16, 16))
    again = LMDBStore(left_by_a_kill(tmp_path / "killed", tmp_path / "killed again"))
    assert again.get_logs(2, 16, 1 << 20) == entries(2, 16)
    again.close()
    other.close()
    store.close()


def test_a_full_journal_is_taken_over_with_the_batch_that_found_no_room(path, tmp_path):
    store = LMDBStore(path, sync=False)
    index = 0
    while store.stats()["journal_bytes"] or not index:
        index += 1
        store.store_logs(entries(index, index))
    assert index == 512 * KIB // 4096
    store.store_logs(entries(index + 1, index + 1))
    assert store.stats()["journal_bytes"] == 4096

    other = LMDBStore(left_by_a_kill(path, tmp_path / "killed"))
    assert other.get_logs(1, index + 1, 1 << 20) == entries(1, index + 1)
    other.close()
    store.close()


def test_a_store_that_was_closed_well_is_all_in_the_database(path):
    store = LMDBStore(path)
    store.store_logs([*entries(1, 2), Log(3, 1, LogType.CONFIGURATION)])
    store.stage_commit_index(2)
    store.store_logs(entries(4, 4))
    store.close()
    assert b"entry 2 " not in (path / "pyraft.journal").read_bytes()
    assert b"entry 2 " in (path / "data.mdb").read_bytes()

    store = LMDBStore(path)
    assert (store.last_index(), store.get_commit_index(), store.configuration_indexes()) == (4, 2, (3,))
    store.close()


@pytest.mark.parametrize(
    "cut",
    [
        lambda store: store.delete_range(1, 30),
        lambda store: store.delete_range(1, 20),
        lambda store: store.delete_range(15, 25),
        lambda store: store.delete_range(25, 27),
        lambda store: store.delete_range(15, 20),
        lambda store: store.delete_range(2, 3),
        lambda store: store.replace_suffix(entries(25, 26, term=2)),
        lambda store: store.replace_suffix(entries(5, 26, term=2)),
        lambda store: store.store_logs(entries(22, 23, term=2)),
        lambda store: store.store_logs(entries(5, 6, term=2)),
        lambda store: store.store_logs(entries(19, 22, term=2)),
        lambda store: store.store_logs(entries(40, 41)),
    ],
)
def test_a_kill_after_any_change_to_a_log_with_a_tail_brings_back_what_was_there(path, tmp_path, cut):
    store = LMDBStore(path, sync=False)
    store.store_logs(entries(1, 20, size=4000))  # in the database
    for index in range(21, 31):
        store.store_logs(entries(index, index))  # in the journal

    cut(store)

    for expected in (store, LMDBStore(left_by_a_kill(path, tmp_path / "killed"))):
        assert everything(expected) == everything(store)
    expected.store_logs(entries(50, 50))
    assert expected.get_log(50) == entries(50, 50)[0]
    expected.close()
    store.close()


def everything(store):
    held = []
    for index in range(1, 60):
        try:
            held.append(store.get_log(index))
        except LogNotFoundError:
            continue
    return store.first_index(), store.last_index(), store.configuration_indexes(), held


def test_batches_with_gaps_and_a_log_that_begins_anywhere_survive_a_kill(path, tmp_path):
    gaps = [*entries(7, 8), *entries(11, 12)]
    store = LMDBStore(path)
    store.store_logs(gaps)
    other = LMDBStore(left_by_a_kill(path, tmp_path / "with gaps"))
    assert everything(other) == everything(store) == (7, 12, (), gaps)
    other.close()
    store.delete_range(7, 12)
    store.store_logs(entries(30, 31))
    other = LMDBStore(left_by_a_kill(path, tmp_path / "anywhere"))
    assert everything(other) == everything(store) == (30, 31, (), entries(30, 31))
    other.close()
    store.close()


def test_compaction_below_the_tail_leaves_the_journal_alone(path):
    store = LMDBStore(path, sync=False)
    store.store_logs(entries(1, 20, size=4000))
    store.store_logs(entries(21, 22))
    store.delete_range(1, 20)
    assert store.stats()["journal_bytes"] == 4096
    assert (store.first_index(), store.last_index()) == (21, 22)
    store.close()


def test_a_reader_whose_log_changed_under_it_looks_again(path, monkeypatch):
    """It has looked at the tail; then the writer replaces that, and only then the reader opens its view."""
    store = LMDBStore(path, sync=False)
    store.store_logs(entries(1, 20, size=4000))
    store.store_logs(entries(21, 25))
    read, changes = store._read, [lambda: store.replace_suffix(entries(20, 24, term=2))]

    def change_and_read(work):
        if changes:
            changes.pop()()
            store.store_logs(entries(25, 26, term=2))
        return read(work)

    monkeypatch.setattr(store, "_read", change_and_read)
    logs = store.get_logs(18, 25, 1 << 20)
    assert [(log.index, log.term) for log in logs] == [(18, 1), (19, 1)] + [(i, 2) for i in range(20, 26)]
    monkeypatch.undo()
    store.close()


def test_a_reader_is_told_when_what_the_disk_holds_is_open(path, monkeypatch):
    """The commit took the tail over, and nobody will say so: to look again would never end."""
    store = LMDBStore(path)
    store.store_logs(entries(1, 5))

    def commit_and_interrupt(txn):
        txn.commit()
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_commit", commit_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.delete_range(5, 5)
    monkeypatch.undo()

    with pytest.raises(StorageError, match="failed earlier.*restart the server"):
        store.get_logs(1, 5, 1 << 20)
    store.close()


def test_readers_beside_a_writer_never_see_a_mixture(path):
    """Each batch is of one term and replaces the end of the log, so terms must never fall with the index."""
    store = LMDBStore(path, sync=False)
    store.store_logs(entries(1, 100, term=1))
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            try:
                logs = store.get_logs(90, store.last_index(), 1 << 20)
            except LogNotFoundError:
                continue
            terms = [log.term for log in logs]
            if terms != sorted(terms) or [log.index for log in logs] != list(range(90, 90 + len(logs))):
                wrong.append([(log.index, log.term) for log in logs])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for term in range(2, 120):
        first = 95 + term % 7
        if term % 5:
            store.store_logs(entries(store.last_index() + 1, store.last_index() + 3, term))
        else:
            store.replace_suffix(entries(first, first + 4, term, size=20_000 if term % 10 else 100))
    done.set()
    for reader in readers:
        reader.join()
    store.close()
    assert wrong == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "no space"), StoreFullError),
        (OSError(errno.EIO, "unplugged"), StorageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["no space", "I/O error", "signal"],
)
def test_a_write_to_the_journal_that_fails_latches_the_store(path, monkeypatch, error, kind):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))

    def fail(fd, data, at):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(kind) as raised:
            store.store_logs(entries(4, 6))
    assert kind is KeyboardInterrupt or "pyraft.journal" in str(raised.value)
    assert store.last_index() == 3
    for write in (lambda: store.store_logs(entries(4, 4)), lambda: store.set(b"k", b"v")):
        with pytest.raises(StorageError, match="failed earlier.*restart the server"):
            write()
    assert store.get_logs(1, 3, 1 << 20) == entries(1, 3)
    store.close()

    store = LMDBStore(path)
    assert store.get_logs(1, store.last_index(), 1 << 20) == entries(1, 3)
    store.close()


def test_a_signal_after_the_journals_write_latches_too(path, monkeypatch):
    store = LMDBStore(path)
    write = store._journal._write

    def write_and_interrupt(blocks, at):
        write(blocks, at)
        raise KeyboardInterrupt

    monkeypatch.setattr(store._journal, "_write", write_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.store_logs(entries(1, 3))
    monkeypatch.undo()
    with pytest.raises(StorageError, match="failed earlier"):
        store.store_logs(entries(1, 1))
    store.close()
    store = LMDBStore(path)
    assert store.last_index() == 3
    store.close()


def test_what_the_journal_takes_the_database_will_have_room_for(path):
    store = LMDBStore(path, map_size=64 * KIB, max_map_size=512 * KIB, sync=False)
    index = 1
    try:
        while True:
            store.store_logs(entries(index, index, size=3000))
            index += 1
    except StoreFullError:
        pass
    assert store.last_index() == index - 1
    store.close()

    store = LMDBStore(path, max_map_size=1024 * KIB, sync=False)
    assert store.stats()["journal_bytes"] == 0
    assert store.get_logs(1, index - 1, 1 << 30) == entries(1, index - 1, size=3000)
    store.store_logs(entries(index, index, size=3000))
    store.close()


def test_a_tail_that_the_database_cannot_take_stays_in_the_journal(path, monkeypatch):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))

    def full(txn):
        raise lmdb_error(lmdb.DiskError, errno.ENOSPC)

    monkeypatch.setattr(store, "_commit", full)
    store.close()
    monkeypatch.undo()

    store = LMDBStore(path)
    assert store.stats()["journal_bytes"] == 4096
    assert store.get_logs(1, 3, 1 << 20) == entries(1, 3)
    store.close()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (lambda path: (path / "pyraft.journal").unlink(), "missing"),
        (lambda path: os.truncate(path / "pyraft.journal", 8192), "8192 bytes"),
        (lambda path: flip_a_bit(path / "pyraft.journal", b"entry 2 "), "neither that of record 0 nor"),
    ],
    ids=["missing", "cut off", "flipped"],
)
def test_a_damaged_journal_is_refused(path, tmp_path, damage, finding):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))
    killed = left_by_a_kill(path, tmp_path / "killed")
    store.close()
    damage(killed)
    for _ in range(2):
        with pytest.raises(CorruptStoreError, match=rf"pyraft\.journal is damaged: .*{finding}.*[Ww]ipe"):
            LMDBStore(killed)


def test_an_older_database_beside_its_journal_is_refused(path, tmp_path):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))
    shutil.copy(path / "data.mdb", tmp_path / "older")
    store.delete_range(3, 3)  # takes the tail over
    store.store_logs(entries(3, 3, term=2))
    killed = left_by_a_kill(path, tmp_path / "killed")
    store.close()
    shutil.copy(tmp_path / "older", killed / "data.mdb")

    with pytest.raises(CorruptStoreError, match="ahead of the database"):
        LMDBStore(killed)


def test_a_journal_that_goes_on_elsewhere_is_refused(path, tmp_path):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))
    killed = left_by_a_kill(path, tmp_path / "killed")
    store.close()
    env = lmdb.open(str(killed), max_dbs=2)
    with env.begin(write=True) as txn:
        key, value = records.encode_block(7, [Log(7, 1).encoded])
        txn.put(key, value, db=env.open_db(b"logs", txn))
    env.close()

    with pytest.raises(CorruptStoreError, match="goes on with entry 1 after entry 7"):
        LMDBStore(killed)


def without_journal(path):
    """Make of a closed store what a version before the journal left."""
    (path / "pyraft.journal").unlink()
    identity = json.loads((path / "pyraft.identity").read_text())
    (path / "pyraft.identity").write_text(json.dumps({**identity, "format": 1}))
    env = lmdb.open(str(path), max_dbs=2)
    with env.begin(write=True) as txn:
        assert txn.delete(b"pjournal", db=env.open_db(b"stable", txn))
    env.close()


def test_a_database_that_has_forgotten_its_journal_is_refused(filled):
    identity = (filled / "pyraft.identity").read_bytes()
    without_journal(filled)
    (filled / "pyraft.identity").write_bytes(identity)
    with pytest.raises(CorruptStoreError, match="does not know its journal"):
        LMDBStore(filled)


@pytest.mark.parametrize("leftover", [None, b"", b"torn"])
def test_a_store_from_before_the_journal_is_read_and_gets_one(filled, tmp_path, leftover):
    without_journal(filled)
    if leftover is not None:
        (filled / "pyraft.journal").write_bytes(leftover)
    for _ in range(2):
        store = LMDBStore(filled, server_id="s1")
        assert store.get_logs(1, 500, 1 << 20) == entries(1, 500)
        assert store.get(b"LastVoteCand") == b"candidate-s2"
        store.close()
    identity = json.loads((filled / "pyraft.identity").read_text())
    assert (identity["format"], identity["server_id"]) == (2, "s1")


def test_a_store_from_before_that_fills_its_map_gets_its_journal_nonetheless(path):
    for count in (30, 60, 100, 200):
        home = path / str(count)
        home.mkdir(parents=True)
        env = lmdb.open(str(home), max_dbs=2, map_size=4 << 20, lib_version=0)
        with env.begin(write=True) as txn:
            env.open_db(b"stable", txn)
            with txn.cursor(env.open_db(b"logs", txn)) as cursor:
                cursor.putmulti(records.encode_batch(entries(1, count, size=1000)).items)
        env.close()
        (home / "pyraft.identity").write_text(json.dumps({"format": 1, "server_id": None}))

        store = LMDBStore(home, map_size=64 * KIB, sync=False)
        assert store.last_index() == count
        store.close()


def test_what_the_process_before_has_written_is_durable_before_it_is_believed(path, monkeypatch):
    store = LMDBStore(path)
    store.store_logs(entries(1, 3))
    store.store_logs(entries(4, 6))
    store._journal.close()
    store._env.close()
    store._directory.release()
    steps = []

    class Environment:
        def __init__(self, *args, **options):
            self._environment = lmdb.Environment(*args, **options)

        def sync(self, force):
            steps.append(f"data.mdb synced {force}")
            self._environment.sync(force)

        def __getattr__(self, name):
            return getattr(self._environment, name)

    def pwrite(fd, data, at, original=os.pwrite):
        if "journal" in os.readlink(f"/proc/self/fd/{fd}"):
            assert data == (path / "pyraft.journal").read_bytes()[at : at + len(data)]
            steps.append(f"journal written again at {at}")
        return original(fd, data, at)

    monkeypatch.setattr(lmdb, "open", Environment)
    monkeypatch.setattr(os, "pwrite", pwrite)
    store = LMDBStore(path)
    assert steps == ["data.mdb synced True", "journal written again at 8192"]
    assert store.last_index() == 6
    monkeypatch.undo()
    store.close()


def test_a_journal_alone_is_never_an_empty_store(filled):
    (filled / "data.mdb").unlink()
    (filled / "pyraft.identity").unlink()
    for _ in range(2):
        with pytest.raises(
            CorruptStoreError, match=r"pyraft\.journal is there, but pyraft\.identity is missing"
        ):
            LMDBStore(filled)


def test_a_marker_that_a_crash_left_is_taken_away(filled):
    (filled / "pyraft.creating").touch()
    LMDBStore(filled).close()
    assert not (filled / "pyraft.creating").exists()


@pytest.mark.parametrize("call", ["fsync", "_write_identity"])
def test_a_crash_while_the_journal_is_added_leaves_a_store_that_opens(filled, tmp_path, call):
    without_journal(filled)
    program = """
from pyraft.logstore import directory
die_at, calls = int(sys.argv[2]), 0
def dying(original):
    def wrapper(*args):
        global calls
        calls += 1
        if calls == die_at: os._exit(7)
        return original(*args)
    return wrapper
if sys.argv[3] == "fsync": os.fsync = dying(os.fsync)
else: directory.StoreDirectory._write_identity = dying(directory.StoreDirectory._write_identity)
LMDBStore(sys.argv[1]).close()
"""
    for die_at in itertools.count(1):
        copy = shutil.copytree(filled, tmp_path / str(die_at))
        done = subprocess.run([sys.executable, "-c", PRELUDE + program, copy, str(die_at), call])
        store = LMDBStore(copy)
        assert store.get_logs(1, 500, 1 << 20) == entries(1, 500)
        store.store_logs(entries(501, 501))
        store.close()
        if done.returncode == 0:
            break
        assert done.returncode == 7
    assert die_at > 1


@pytest.mark.parametrize(
    ("record", "finding"),
    [
        (b"short", "cannot be read"),
        (b"".join(records.encode_append(records.Append(1, [], [], 0))), "no entries"),
        (
            b"".join(records.encode_append(records.Append(1, [records.encode_block(9, [b"x"])], [], 0))),
            "entry 9 where 1 is expected",
        ),
    ],
    ids=["short", "empty", "with a gap"],
)
def test_a_record_that_no_append_made_is_refused(record, finding):
    with pytest.raises(CorruptStoreError, match=finding):
        records.decode_append(record)
