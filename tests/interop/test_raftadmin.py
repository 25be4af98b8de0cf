"""The raftadmin command of the Go world drives our servers."""

import re
import subprocess

import pytest

from pyraft import Raft, RaftState
from pyraft.configuration import Configuration
from pyraft.logstore import InmemStore
from pyraft.snapshots import InmemSnapshotStore
from pyraft.transport import GrpcTransport
from tests.integration.clusters import Recorder, config, eventually
from tests.interop.markers import built_or_skip

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def raftadmin(tmp_path_factory):
    """Runs the command: raftadmin(address, command, arguments...) returns its last response."""
    program = tmp_path_factory.mktemp("go") / "raftadmin"
    built_or_skip("raftadmin", "github.com/Jille/raftadmin/cmd/raftadmin", program)

    def run(address, command, *arguments, options=()):
        done = subprocess.run(
            [program, *options, address, command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        # Its text has one or two spaces after a colon, as it likes.
        return re.sub(r":\s+", ":", done.stderr.rpartition("Response:")[2]).strip()

    return run


@pytest.fixture
def cluster():
    """n1 leads a cluster of itself; n2 and n3 belong to none."""
    servers = {}
    for id in ("n1", "n2", "n3"):
        transport = GrpcTransport("127.0.0.1:0", admin=True)
        store = InmemStore()
        raft = Raft(
            config(0.5, local_id=id, shutdown_on_remove=False),
            Recorder(),
            store,
            store,
            InmemSnapshotStore(),
            transport,
        )
        servers[id] = (raft, transport.local_address)
    try:
        for raft, _ in servers.values():
            raft.start()
        n1, address = servers["n1"]
        n1.bootstrap_cluster(Configuration.of_voters({"n1": address})).result(20)
        eventually(lambda: n1.state is RaftState.LEADER, "n1 leads")
        yield servers
    finally:
        for raft, _ in servers.values():
            raft.shutdown().result()


def test_the_go_command_drives_a_cluster(raftadmin, cluster):
    (n1, a1), (_, a2), (n3, a3) = cluster.values()

    assert raftadmin(a1, "state") == "state:LEADER"
    assert raftadmin(a1, "leader") == f'address:"{a1}"'
    assert raftadmin(a3, "leader") == ""
    assert int(raftadmin(a3, "last_contact").removeprefix("unix_nano:")) < 0
    assert 'key:"latest_configuration"' in raftadmin(a1, "stats")

    assert raftadmin(a1, "add_voter", "n2", a2, 0).startswith("index:")
    assert raftadmin(a1, "add_nonvoter", "n3", a3, n1.get_configuration().index).startswith("index:")
    assert "error:" in raftadmin(a1, "remove_server", "n3", 1)  # another configuration is in force
    members = raftadmin(a1, "get_configuration")
    assert members.count("servers:") == 3 and members.count("NONVOTER") == 1 and a3 in members

    index = int(raftadmin(a1, "apply_log", "hello", "extension").removeprefix("index:"))
    assert int(raftadmin(a1, "barrier").removeprefix("index:")) == index + 1
    assert raftadmin(a1, "verify_leader") == ""
    assert raftadmin(a1, "snapshot") == ""
    n3.wait_applied(index, 20)
    assert int(raftadmin(a3, "applied_index").removeprefix("index:")) >= index
    assert int(raftadmin(a3, "last_index").removeprefix("index:")) >= index
    assert int(raftadmin(a3, "last_contact").removeprefix("unix_nano:")) > 0
    assert "is not the leader" in raftadmin(a2, "apply_log", "x", "")

    assert raftadmin(a1, "leadership_transfer_to_server", "n2", a2) == ""
    assert raftadmin(a2, "state") == "state:LEADER"
    everybody = f"multi:///{a1},{a2},{a3}"
    assert raftadmin(everybody, "leader", options=["--leader"]) == f'address:"{a2}"'
    assert raftadmin(everybody, "verify_leader", options=["--leader"]) == ""
    assert raftadmin(a2, "leadership_transfer") == ""
    assert raftadmin(a1, "state") == "state:LEADER"
    assert raftadmin(a1, "demote_voter", "n2", 0).startswith("index:")
    assert raftadmin(a1, "remove_server", "n2", 0).startswith("index:")
    assert raftadmin(a1, "get_configuration").count("servers:") == 2

    assert raftadmin(a1, "shutdown") == ""
    assert n1.wait_stopped(20)
