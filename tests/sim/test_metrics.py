"""Every figure of ``METRICS`` moves in a life of ordinary trouble, and the same one in each run."""

from __future__ import annotations

from pyraft.config import Config
from pyraft.metrics import COUNTER, HISTOGRAM, METRICS
from pyraft.testing import SimCluster
from pyraft.testing import faults as f
from pyraft.testing.member_faults import Reads

NEVER = {
    "rejected_rpcs_total": "64 MiB would have to wait at once",
}


def live() -> list[dict[str, int | float]]:
    """Some seconds with reads, crashes, snapshots and slow disks; what each server has counted at the end."""
    cluster = SimCluster(
        3,
        1,
        config=Config(snapshot_threshold=20, snapshot_interval=0.2, trailing_logs=0),
        faults=[f.SlowDisk(0.5, 0.1), Reads(0.5, 0.5)],
    )
    try:
        cluster.client(rate=50)
        cluster.run(2)
        cluster.crash("n3")
        cluster.run(2)
        for server in cluster.servers:  # nobody has the entries in memory that n3 lacks
            cluster.crash(server)
            cluster.restart(server)
        cluster.run(6)
        return [server.raft.metrics() for server in cluster.servers.values() if server.raft is not None]
    finally:
        cluster.close()


def test_every_figure_moves_and_is_the_same_in_every_run():
    counted = live()

    for metric in METRICS:
        if metric.name in NEVER or metric.kind not in (COUNTER, HISTOGRAM):
            continue
        name = f"{metric.name}_count" if metric.kind == HISTOGRAM else metric.name
        assert any(numbers[name] for numbers in counted), f"{metric.name} never moved"
    for name in ("commit_seconds", "replication_seconds", "log_write_seconds", "queue_seconds"):
        assert any(numbers[f"{name}_sum"] > 0 for numbers in counted), f"{name}: no time has passed"
    assert live() == counted
