"""Whole clusters over TCP."""

from pyraft.transport import TcpTransport
from tests.integration.clusters import PATIENCE, Cluster, config, eventually, leaves_no_thread


def test_a_cluster_over_tcp_writes_and_survives_its_leader(tmp_path):
    settings = config(0.5, max_append_entries=64)
    with leaves_no_thread(), Cluster(root=tmp_path, settings=settings, over_tcp=True) as cluster:
        cluster.start()
        first = cluster.leader()
        assert isinstance(first.raft._node.context.transport, TcpTransport)
        cluster.write(50)
        cluster.write(2, size=1_000_000)
        cluster.stop(first.id)
        cluster.write(50)
        cluster.start(first.id)
        cluster.check_nothing_lost()


def test_a_server_that_comes_late_gets_a_snapshot_over_tcp(tmp_path):
    settings = config(1.0, snapshot_threshold=20, snapshot_interval=0.02, trailing_logs=5)
    with leaves_no_thread(), Cluster(root=tmp_path, settings=settings, over_tcp=True) as cluster:
        cluster.start().write(3)
        away = cluster.followers(cluster.leader())[0]
        cluster.stop(away.id)
        others = [id for id in cluster.members if id != away.id]
        cluster.write(60, among=others, size=50_000)
        # Restarted, so that the old entries are not in their memory either.
        for id in others:
            eventually(lambda id=id: cluster.members[id].raft.status().first_index > 20, "the log is cut")
        cluster.stop(*others)
        cluster.start(*others)
        cluster.start(away.id)
        cluster.check_nothing_lost()
        assert away.raft.status().snapshot_index > 3


def test_a_server_over_tcp_reads_what_was_written(tmp_path):
    with leaves_no_thread(), Cluster(root=tmp_path, settings=config(0.5), over_tcp=True) as cluster:
        cluster.start()
        cluster.write(3)
        for member in cluster.followers(cluster.leader()):
            member.raft.read_index(PATIENCE).result(PATIENCE)
            assert set(cluster.acknowledged) <= set(member.fsm.applied)
