"""``python -m benchmarks``: one table of what three servers on this machine do, and its limits.

Three processes, gRPC between them, LMDB flushed to disk on all three, 128-byte commands.
Takes about two minutes; ``--quick`` about twenty seconds (then the figures mean little).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from . import limits
from .cluster import Cluster

SIZE = 128


class Table:
    """Rows for people, and the same rows for programs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str | float]] = []

    def add(self, what: str, value: float, unit: str, relation: str = "") -> None:
        """Print a row at once, so that a long run shows where it is."""
        self.rows.append({"what": what, "value": value, "unit": unit, "relation": relation})
        text = f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
        print(f"{what:<52} {text:>12} {unit:<12} {relation}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look at whether everything works")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    table = Table()
    print(
        f"Python {platform.python_version()}, grpcio {version('grpcio')}, lmdb {version('lmdb')}, "
        f"{os.cpu_count()} cores, {SIZE}-byte commands, 3 processes, every commit flushed on all three\n"
    )
    with tempfile.TemporaryDirectory(prefix="pyraft-bench-") as folder:
        measure_idle(table, Path(folder) / "idle", 3 if arguments.quick else 15)
        commit = measure_limits(table)
        measure_load(table, Path(folder) / "load", 0.5 if arguments.quick else 4, commit)
        table.add("limit once more: LMDB commit of 1 entry", 1e6 * limits.lmdb_commit(1, 300), "µs")
        if arguments.quick:
            measure_memory(table, Path(folder) / "memory", 10_000, 30_000)
        else:
            measure_memory(table, Path(folder) / "memory", 100_000, 1_000_000)
    if arguments.json:
        arguments.json.write_text(json.dumps(table.rows, indent=1))


def measure_limits(table: Table) -> float:
    """The machine, right before the load and once more after it: disks of shared machines drift.

    Returns the seconds of a single LMDB commit.
    """
    commit = limits.lmdb_commit(1, 300)
    table.add("limit: append and flush 160 bytes", 1e6 * limits.file_flush(), "µs")
    table.add("limit: LMDB commit of 1 entry", 1e6 * commit, "µs")
    table.add("limit: LMDB commit of 4,096 entries", 1e6 * limits.lmdb_commit(4096, 10), "µs")
    table.add("limit: gRPC stream round trip", 1e6 * limits.grpc_round_trip(), "µs")
    return commit


def measure_idle(table: Table, folder: Path, seconds: float) -> None:
    """What servers cost when nobody asks anything of them, at default timeouts."""
    folder.mkdir()
    with Cluster(folder) as cluster:
        leader = cluster.leader()
        leader.ask("run", workload="fill", size=SIZE, count=100)
        time.sleep(1)
        before = {server.id: server.ask("process") for server in cluster.servers}
        time.sleep(seconds)
        for server in cluster.servers:
            after = server.ask("process")
            spent = after["cpu_seconds"] - before[server.id]["cpu_seconds"]
            share = 100 * spent / (after["wall"] - before[server.id]["wall"])
            role = "leader" if server is leader else "follower"
            table.add(f"idle {role}", share, "% of a core")


def measure_load(table: Table, folder: Path, seconds: float, commit: float) -> None:
    """Latency and throughput, in the units of one LMDB commit."""
    folder.mkdir()
    with Cluster(folder) as cluster:
        leader = cluster.leader()

        def run(workload: str, **more: object) -> dict[str, float]:
            figures: dict[str, float] = leader.ask(
                "run", workload=workload, size=SIZE, seconds=seconds, **more
            )
            return figures

        run("outstanding", window=64)  # warm-up, not counted
        single = run("one_at_a_time")
        table.add("one at a time, p50", single["p50_us"], "µs", _commits(single["p50_us"], commit))
        table.add("one at a time, p99", single["p99_us"], "µs", _commits(single["p99_us"], commit))
        for clients in (16, 64, 256):
            figures = run("blocking_clients", clients=clients)
            table.add(f"{clients} client threads", figures["per_second"], "/s", _per_commit(figures, commit))
        for window in (64, 1024, 8192):
            figures = run("outstanding", window=window)
            table.add(f"{window:,} outstanding", figures["per_second"], "/s", _per_commit(figures, commit))
        measure_busy_host(table, run)
        metrics = leader.ask("metrics")
        table.add("leader's main loop, largest lateness", 1e3 * metrics["main_lateness_max_seconds"], "ms")
        cluster.check_equal()


def measure_busy_host(table: Table, run: Callable[..., dict[str, float]]) -> None:
    """The same process also burns CPU in Python, as an embedding program may."""
    busy = run("busy_host", switch_interval=None)
    table.add("one at a time, p50, beside a busy Python thread", busy["p50_us"], "µs")
    tuned = run("busy_host", switch_interval=0.0005)
    table.add("  the same with sys.setswitchinterval(0.0005)", tuned["p50_us"], "µs")


def measure_memory(table: Table, folder: Path, first: int, second: int) -> None:
    """Anonymous memory of each server after ``first`` and after ``second`` commands."""
    folder.mkdir()
    with Cluster(folder) as cluster:
        leader = cluster.leader()
        leader.ask("run", workload="fill", size=SIZE, count=first)
        cluster.check_equal()
        before = {server.id: server.ask("process")["rss_anon_bytes"] for server in cluster.servers}
        began = time.monotonic()
        leader.ask("run", workload="fill", size=SIZE, count=second - first)
        rate = (second - first) / (time.monotonic() - began)
        cluster.check_equal()
        for server in cluster.servers:
            role = "leader" if server is leader else "follower"
            after = server.ask("process")["rss_anon_bytes"]
            table.add(
                f"memory of {role} after {second:,} commands",
                after / 2**20,
                "MiB",
                f"{(after - before[server.id]) / 2**20:+.1f} MiB since {first:,}",
            )
        table.add(f"rate over those {second - first:,} commands", rate, "/s")


def _commits(microseconds: float, commit: float) -> str:
    return f"= {microseconds / 1e6 / commit:.1f} LMDB commits"


def _per_commit(figures: dict[str, float], commit: float) -> str:
    return f"= {figures['per_second'] * commit:.1f} per LMDB commit"


if __name__ == "__main__":
    main()
