"""What only processes of the operating system can show: kill -9, memory, and servers that share nothing."""

from __future__ import annotations

import sys
import zlib

import pytest

from tests.integration.processes import Processes, Writer
from tests.integration.server_process import vast_pieces

# An election waits for so long; short enough to fail over, long enough for a busy machine.
SETTINGS = {
    "heartbeat_timeout": 1.0,
    "election_timeout": 1.0,
    "leader_lease_timeout": 0.8,
    "snapshot_interval": 0.2,
    "snapshot_threshold": 30,
    "trailing_logs": 10,
}
CUT_SHORT = {"trailing_logs": 0, "snapshot_interval": 3600.0}
"""Snapshots are taken when a test says so, and nothing that they cover stays in the log."""


def follower(cluster):
    leader = cluster.leader()
    return next(id for id, server in cluster.running.items() if server is not leader)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_life_of_a_cluster_of_processes_under_writes(tmp_path):
    with Processes(tmp_path, **SETTINGS) as cluster, Writer(cluster) as writer:
        cluster.begin("n1", "n2", "n3")
        writer.goes_on()

        cluster.join("n4")
        writer.goes_on()
        hand_over(cluster)
        writer.goes_on()
        for server in cluster.running.values():
            assert server.ask("snapshot") > 0
        writer.goes_on()

        leaver = follower(cluster)
        cluster.change("remove_server", leaver)
        cluster.stop(leaver)
        writer.goes_on()

        killed = cluster.leader().id
        cluster.kill(killed)
        writer.goes_on()
        cluster.start(killed)

        spared = {killed, cluster.leader().id}  # asked once: on a busy machine it may change
        wiped = next(id for id in cluster.running if id not in spared)
        cluster.kill(wiped)
        cluster.change("remove_server", wiped)
        cluster.wipe(wiped)
        cluster.join(wiped)
        writer.goes_on()

        writer.stop()
        check(cluster, writer.acknowledged)


def hand_over(cluster):
    """Let another server lead, by request, or because an election on a busy machine was faster."""
    answer = cluster.leader().ask("change", "leadership_transfer")
    assert answer in ("ok", "TransferFailedError", "NotLeaderError")


def check(cluster, acknowledged):
    """All servers are equal, and hold everything that was acknowledged, in order and once."""
    leader = cluster.leader()
    index = leader.ask("last_index")
    digests = {id: server.ask("digest", index) for id, server in cluster.running.items()}
    assert len(set(digests.values())) == 1, digests
    assert sorted(leader.ask("members")) == sorted(cluster.running)
    applied = leader.ask("applied")
    assert len(set(applied)) == len(applied), "a command was applied twice"
    known = set(acknowledged)
    assert [number for number in applied if number in known] == acknowledged
    assert len(acknowledged) >= 60


MIB = 200  # of state
MOST_EXTRA_MIB = 64


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is counted as Linux does")
@pytest.mark.parametrize("transport", ["grpc", "tcp"])
def test_a_state_larger_than_memory_reaches_a_new_server(tmp_path, transport):
    """Taken, restored at a start, sent, received and restored, and never in memory at once."""
    with Processes(tmp_path, fsm="vast", transport=transport, **(SETTINGS | CUT_SHORT)) as cluster:
        cluster.begin("n1")
        leader = cluster.leader()
        before = leader.ask("measure")
        assert leader.ask("write", MIB) == "ok"
        taken = leader.ask("snapshot")
        check_memory("taking it", leader.ask("peak") - before)
        cluster.stop("n1")

        cluster.start("n1")  # it has no old entries in memory now
        leader = cluster.leader()
        check_memory("restoring it", leader.ask("peak") - before)
        new = cluster.start("n2", joins=True)
        before_sending, before_receiving = leader.ask("measure"), new.ask("measure")
        cluster.change("add_nonvoter", "n2", new.address)
        cluster.eventually(lambda: new.ask("status")["applied"] >= taken, "the new server has the state")

        check_memory("sending it", leader.ask("peak") - before_sending)
        check_memory("receiving it", new.ask("peak") - before_receiving)
        assert new.ask("status")["snapshot"] >= taken, "it came as a snapshot"
        index = leader.ask("last_index")
        assert leader.ask("digest", index) == new.ask("digest", index) == expected_digest()


def check_memory(what, extra):
    print(f"{what}: {extra / 2**20:.1f} MiB")
    assert extra < MOST_EXTRA_MIB << 20, f"{what} took {extra >> 20} MiB of memory for {MIB} MiB of state"


def expected_digest():
    checksum = 0
    for piece in vast_pieces(MIB):
        checksum = zlib.crc32(piece, checksum)
    return f"{MIB} MiB, {checksum:08x}"
