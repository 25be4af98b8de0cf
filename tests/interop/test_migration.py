"""A cluster moves from Go to Python and back, one server at a time, while clients write."""

import pytest

from tests.interop.clients import Writers
from tests.interop.clusters import Cluster, Member, eventually
from tests.interop.markers import MARKS, at_length

pytestmark = MARKS


def retire(cluster: Cluster, old: Member) -> None:
    """Take a server out of the cluster: first the leadership, then the membership, then the process."""
    others = [member for member in cluster.running() if member is not old]
    if cluster.leader() is old:
        cluster.lead(others[-1])
    cluster.change("remove", old)
    cluster.stop(old.id)


def admit(cluster: Cluster, new: Member) -> None:
    """Take a server with an empty directory in, first without a vote."""
    cluster.start(new.id)
    cluster.change("add_nonvoter", new)
    caught_up = cluster.leader().status()["commit_index"]
    eventually(lambda: new.status()["commit_index"] >= caught_up, f"{new.id} has caught up")
    cluster.change("add_voter", new)


@pytest.mark.parametrize("transport", ["grpc", pytest.param("tcp", marks=at_length)])
def test_from_go_to_python_and_back(go_server, tmp_path, transport):
    with Cluster(tmp_path, ("go", "go", "go"), transport, go_server) as cluster:
        cluster.start()
        cluster.bootstrap(cluster.members["n1"])
        cluster.leader()
        with Writers(cluster) as writers:
            writers.wait_for_more()
            # Under a new name and address, so that there are never less than three.
            for old in list(cluster.members.values()):
                admit(cluster, cluster.enrol("py"))
                retire(cluster, old)
                writers.wait_for_more()
            assert {member.language for member in cluster.running()} == {"py"}
            # Under the same name and address, with an empty directory: two are left meanwhile.
            for member in cluster.running():
                retire(cluster, member)
                member.language = "go"
                admit(cluster, member)
                writers.wait_for_more()
            assert {member.language for member in cluster.running()} == {"go"}
        cluster.converge()
        assert len(cluster.acknowledged) >= 140
