"""The years of a cluster in a minute: over gRPC, on LMDB and files, while commands are written all along."""

from __future__ import annotations

import threading

from pyraft import NothingNewToSnapshotError, NotLeaderError, TransferFailedError
from tests.integration.clusters import PATIENCE, Cluster, config, eventually

SETTINGS = {"snapshot_threshold": 50, "snapshot_interval": 0.1, "trailing_logs": 20}


class Writer:
    """Writes one command after the other until it is told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._cluster.write(1)
        except BaseException as error:
            self.failure = error

    def goes_on(self, count: int = 20) -> None:
        """Wait until some more writes were acknowledged."""
        target = len(self._cluster.acknowledged) + count
        eventually(
            lambda: self.failure is not None or len(self._cluster.acknowledged) >= target,
            f"writes go on: {self._cluster.describe()}",
        )
        assert self.failure is None, self.failure

    def stop(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE)


def hand_over(cluster: Cluster) -> None:
    old = cluster.leader()
    try:
        old.raft.leadership_transfer().result(PATIENCE)
    except (NotLeaderError, TransferFailedError):
        pass  # a busy machine may elect somebody by itself


def snapshot_everywhere(cluster: Cluster) -> None:
    for member in cluster.members.values():
        if member.runs:
            try:
                member.raft.snapshot().result(PATIENCE)
            except NothingNewToSnapshotError:
                pass


def test_servers_come_and_go_and_nothing_is_lost(tmp_path):
    with Cluster(root=tmp_path, settings=config(2.0, **SETTINGS), over_grpc=True) as cluster:
        cluster.start()
        cluster.leader()
        writer = Writer(cluster)
        try:
            writer.goes_on(60)
            new = cluster.join("n4")
            cluster.change(lambda raft: raft.add_voter("n4", new.address))
            writer.goes_on()
            hand_over(cluster)
            writer.goes_on()
            snapshot_everywhere(cluster)
            leaver = next(m for m in cluster.members.values() if m is not cluster.leader())
            cluster.change(lambda raft: raft.remove_server(leaver.id))
            cluster.stop(leaver.id)
            writer.goes_on()

            wiped = next(m for m in cluster.members.values() if m.runs and m is not cluster.leader())
            cluster.change(lambda raft: raft.remove_server(wiped.id))
            cluster.stop(wiped.id)
            cluster.wipe(wiped.id)
            wiped.joins = True
            cluster.start(wiped.id)
            cluster.change(lambda raft: raft.add_voter(wiped.id, wiped.address))
            writer.goes_on()

            for member in [m for m in cluster.members.values() if m.runs]:  # one after the other
                cluster.stop(member.id)
                cluster.start(member.id)
                writer.goes_on()
        finally:
            writer.stop()

        staying = [id for id in cluster.members if id != leaver.id]
        cluster.check_nothing_lost(*staying)
        assert len({tuple(cluster.members[id].fsm.applied) for id in staying}) == 1
