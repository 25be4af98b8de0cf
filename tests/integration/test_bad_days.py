"""Disks that fill up, fail or lie: the server stops and says why, the others go on, nothing is lost."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pyraft import (
    CorruptStoreError,
    LeadershipLostError,
    NodeFailedError,
    NotAppliedError,
    OutcomeUnknownError,
    RaftShutdownError,
    RaftState,
    StorageError,
    StoreFullError,
)
from pyraft.logstore import InmemStore, LMDBStore
from tests.integration.clusters import (
    ALONE,
    PATIENCE,
    Cluster,
    config,
    leaves_no_thread,
)

# -- files that are not what was written ---------------------------------------------------------


def flip(path: Path, marker: bytes, offset: int = 0) -> None:
    """Flip one bit behind every copy of ``marker``; LMDB may keep older copies of a page."""
    content = bytearray(path.read_bytes())
    at = content.find(marker)
    assert at >= 0, f"{marker!r} is not in {path}"
    while at >= 0:
        content[at + offset] ^= 0x04
        at = content.find(marker, at + offset + 1)
    path.write_bytes(content)


def emptied(data: Path, last: bytes) -> None:
    data.write_bytes(b"")


def removed(data: Path, last: bytes) -> None:
    data.unlink()


def cut_in_half(data: Path, last: bytes) -> None:
    os.truncate(data, data.stat().st_size // 2)


def one_page_short(data: Path, last: bytes) -> None:
    os.truncate(data, data.stat().st_size - 1)


def flipped_in_the_last_entry(data: Path, last: bytes) -> None:
    flip(data, last, len(last) - 1)


def flipped_in_the_vote(data: Path, last: bytes) -> None:
    flip(data, b"uBallot", len(b"uBallot") + 8)


DAMAGES = {
    emptied: ["is empty", "log and votes are lost"],
    removed: ["is missing", "log and votes are lost"],
    cut_in_half: ["truncated"],
    one_page_short: ["truncated"],
    flipped_in_the_last_entry: ["is damaged", "does not match its checksum"],
    flipped_in_the_vote: ["is damaged", "does not match its checksum"],
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_directory_is_refused_and_the_advice_brings_the_server_back(tmp_path, damage):
    with leaves_no_thread(), Cluster(root=tmp_path) as cluster:
        victim = cluster.start().followers(of=cluster.leader())[0].id
        cluster.write(5)
        cluster.check_nothing_lost()
        last = cluster.acknowledged[-1]
        cluster.stop(victim)
        damage(cluster.directory(victim) / "data.mdb", last)

        with pytest.raises(CorruptStoreError) as refused:
            cluster.start(victim)

        assert isinstance(refused.value, NodeFailedError)
        for words in (
            cluster.directory(victim),
            "Wipe this server's directory and let it rejoin",
            *DAMAGES[damage],
        ):
            assert str(words) in str(refused.value)

        # The transport that was passed in is still the caller's; here it is given back.
        cluster.network._transports[cluster.members[victim].address].close()
        others = [member for member in cluster.members if member != victim]
        cluster.write(5, among=others)
        shutil.rmtree(cluster.directory(victim))
        cluster.start(victim)
        cluster.check_nothing_lost()


def test_a_flipped_bit_that_replay_comes_upon_stops_that_server_only(tmp_path):
    """Opening reads the ends of the log only; the FSM's thread reads the rest."""
    with leaves_no_thread(), Cluster(root=tmp_path) as cluster:
        victim = cluster.members[cluster.start().followers(of=cluster.leader())[0].id]
        cluster.write(20)
        cluster.check_nothing_lost()
        damaged = cluster.acknowledged[9]
        cluster.stop(victim.id)
        flip(cluster.directory(victim.id) / "data.mdb", damaged, len(damaged) - 1)

        cluster.start(victim.id)

        assert victim.raft.wait_stopped(timeout=PATIENCE)
        assert type(victim.raft.failure) is CorruptStoreError
        for words in ("is damaged", "does not match its checksum", "Wipe this server's directory"):
            assert words in str(victim.raft.failure)
        assert damaged not in victim.fsm.applied
        assert cluster.acknowledged[: len(victim.fsm.applied)] == victim.fsm.applied
        refused = victim.raft.apply(b"x").exception(timeout=0)
        assert type(refused) is RaftShutdownError
        assert refused.__cause__ is victim.raft.failure
        victim.raft.shutdown().result(timeout=PATIENCE)

        others = [id for id in cluster.members if id != victim.id]
        cluster.write(5, among=others)
        shutil.rmtree(cluster.directory(victim.id))
        cluster.start(victim.id)
        cluster.check_nothing_lost()


# -- disks that take no more ---------------------------------------------------------------------------


class Trouble:
    """How a store can be made to fail, and mended."""

    def __init__(self, begin, words, kind=StorageError):
        self.begin = begin
        self.words = words
        self.kind = kind


def fill_the_map(store):
    """No more than there is now: the next growth is refused."""
    store._max_map_size = store._env.info()["map_size"]


def fail_before(code):
    def begin(store):
        def fail(txn):
            raise OSError(code, os.strerror(code))

        store._commit = fail

    return begin


def fail_after(code):
    """The commit reached the disk, and the flush that followed said otherwise."""

    def begin(store):
        def fail(txn):
            txn.commit()
            raise OSError(code, os.strerror(code))

        store._commit = fail

    return begin


TROUBLES = {
    "full map": Trouble(fill_the_map, ["max_map_size", "raise the limit"], StoreFullError),
    "full disk (injected)": Trouble(fail_before(errno.ENOSPC), ["no room on the disk"], StoreFullError),
    "EIO, nothing written": Trouble(fail_before(errno.EIO), ["cannot write", "Input/output error"]),
    "EIO, all written": Trouble(fail_after(errno.EIO), ["cannot write", "Input/output error"]),
}


class DiskCluster(Cluster):
    """Three servers made of parts, with real LMDB stores whose map is small and may grow."""

    def __init__(self, root):
        super().__init__(
            settings=config(0.6),
            make_store=lambda id: LMDBStore(root / id, map_size=256 * 1024, server_id=id, sync=False),
        )


def is_caused_by(error, cause):
    while error is not None:
        if error is cause:
            return True
        error = error.__cause__
    return False


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_leader_whose_disk_fails_stops_and_the_others_go_on_with_all_that_was_acknowledged(
    tmp_path, trouble
):
    trouble = TROUBLES[trouble]
    with leaves_no_thread(), DiskCluster(tmp_path) as cluster:
        victim = cluster.start().leader()
        cluster.write(5)

        trouble.begin(victim.store)
        futures = cluster.push(victim, until=lambda: victim.raft.state is not RaftState.LEADER)
        assert victim.raft.wait_stopped(timeout=PATIENCE)

        failure = victim.raft.failure
        assert type(failure) is trouble.kind
        for words in (str(tmp_path / victim.id), *trouble.words):
            assert words in str(failure)
        failed = [future.exception(timeout=0) for future in futures if future.exception(timeout=0)]
        assert failed
        for error in failed:
            if isinstance(error, OutcomeUnknownError):
                assert type(error) is LeadershipLostError
                assert is_caused_by(error, failure)
            else:
                assert isinstance(error, NotAppliedError | RaftShutdownError)
        assert type(failed[0]) is LeadershipLostError
        refused = victim.raft.apply(b"x").exception(timeout=0)
        assert refused.__cause__ is failure
        victim.raft.shutdown().result(timeout=PATIENCE)

        others = [id for id in cluster.members if id != victim.id]
        cluster.write(5, among=others)

        # Room was made: opened anew, it comes back with everything.
        cluster.close_store(victim.id)
        cluster.start(victim.id)
        cluster.check_nothing_lost()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_follower_whose_disk_fails_stops_and_the_others_do_not_notice(tmp_path, trouble):
    trouble = TROUBLES[trouble]
    with leaves_no_thread(), DiskCluster(tmp_path) as cluster:
        leader = cluster.start().leader()
        victim = cluster.followers(of=leader)[0]
        cluster.write(5)

        trouble.begin(victim.store)
        term = leader.raft.term
        others = [id for id in cluster.members if id != victim.id]
        cluster.push(leader, until=lambda: not victim.runs)
        assert victim.raft.wait_stopped(timeout=PATIENCE)

        assert type(victim.raft.failure) is trouble.kind
        for words in (str(tmp_path / victim.id), *trouble.words):
            assert words in str(victim.raft.failure)
        cluster.write(5, among=others)
        assert leader.raft.term >= term
        victim.raft.shutdown().result(timeout=PATIENCE)

        cluster.close_store(victim.id)
        cluster.start(victim.id)
        cluster.check_nothing_lost()
        assert all(member.raft.failure is None for member in cluster.members.values())


def test_a_vote_that_cannot_be_stored_is_not_given(tmp_path):
    """Two servers: without the vote of the one whose disk fails there is no leader."""
    with leaves_no_thread(), DiskCluster(tmp_path) as cluster:
        victim = cluster.members["n3"]
        cluster.start("n3")
        fail_before(errno.EIO)(victim.store)
        cluster.start("n1", "n2")

        # It stands itself, or is asked: either way it must first store a ballot.
        assert victim.raft.wait_stopped(timeout=PATIENCE)
        assert type(victim.raft.failure) is StorageError
        cluster.leader(among=["n1", "n2"])
        victim.raft.shutdown().result(timeout=PATIENCE)
        cluster.close_store("n3")
        cluster.start("n3")
        cluster.check_nothing_lost()


def test_a_store_of_the_users_own_that_raises_anything_stops_the_server_as_a_storage_error():
    class Failing(InmemStore):
        fails = False

        def store_logs(self, logs):
            if self.fails:
                raise ValueError("my driver's own error")
            super().store_logs(logs)

    with (
        leaves_no_thread(),
        Cluster(["n1"], settings=config(ALONE), make_store=lambda id: Failing()) as cluster,
    ):
        leader = cluster.start().leader()
        cluster.write()
        leader.store.fails = True
        error = leader.raft.apply(b"x").exception(timeout=PATIENCE)

        assert type(error) is LeadershipLostError
        assert leader.raft.wait_stopped(timeout=PATIENCE)
        assert type(leader.raft.failure) is StorageError
        assert error.__cause__ is leader.raft.failure
        assert "could not append entries" in str(leader.raft.failure)
        assert "my driver's own error" in str(leader.raft.failure)
        leader.raft.shutdown().result(timeout=PATIENCE)

        leader.store.fails = False
        cluster.start()
        cluster.check_nothing_lost()


ON_A_REAL_DISK = """
import subprocess, sys
from pathlib import Path
from pyraft import LeadershipLostError, RaftState, StoreFullError
from tests.integration.clusters import PATIENCE, Cluster, config

root, role = Path(sys.argv[1]), sys.argv[2]
def mount(id, options):
    subprocess.run(["mount", *options, "-t", "tmpfs", "tmpfs", str(root / id)], check=True)

for id in ("n1", "n2", "n3"):
    (root / id).mkdir()
    mount(id, ["-o", "size=64m"])

with Cluster(root=root, settings=config(1.0)) as cluster:
    leader = cluster.start().leader()
    cluster.write(5)
    victim = leader if role == "leader" else cluster.followers(of=leader)[0]
    mount(victim.id, ["-o", "remount,size=1m"])

    futures = cluster.push(leader, until=lambda: victim.raft.state is RaftState.SHUTDOWN)
    assert victim.raft.wait_stopped(timeout=PATIENCE)
    failure = victim.raft.failure
    assert type(failure) is StoreFullError, failure
    assert "no room on the disk" in str(failure) and str(root / victim.id) in str(failure), failure
    if role == "leader":
        lost = [f.exception() for f in futures if isinstance(f.exception(), LeadershipLostError)]
        assert lost and lost[0].__cause__ is failure, futures[-1].exception()
    victim.raft.shutdown().result(timeout=PATIENCE)
    cluster.write(5, among=[id for id in cluster.members if id != victim.id])

    # Still full: refused in the same words, and unharmed.
    try:
        cluster.start(victim.id)
        # What it missed may fit into the last pages, so go on until nothing does.
        cluster.push(cluster.leader(), until=lambda: victim.raft.state is RaftState.SHUTDOWN)
        assert victim.raft.wait_stopped(timeout=PATIENCE)
        failure = victim.raft.failure
        victim.raft.shutdown().result(timeout=PATIENCE)
    except StoreFullError as error:
        failure = error
        cluster.network._transports[victim.address].close()
    assert type(failure) is StoreFullError, failure

    mount(victim.id, ["-o", "remount,size=64m"])
    cluster.start(victim.id)
    cluster.check_nothing_lost()
print("fine")
"""


def _can_mount() -> bool:
    try:
        tried = subprocess.run(
            ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


@pytest.mark.skipif(
    not _can_mount(), reason="no user namespaces here: a full disk is only injected, by the tests above"
)
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_disk_that_is_really_full_stops_its_server_and_nothing_is_lost(tmp_path, role):
    ran = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", ON_A_REAL_DISK, str(tmp_path), role],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "fine\n"
