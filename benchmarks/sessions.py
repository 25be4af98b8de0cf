"""One session: a fresh cluster of one subject, and what is done with it.

Every function takes a group, the number of the round and an empty folder, and returns figures by
the name of the work.  They raise WrongResultError, or whatever went wrong: then the round is void.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cluster import Cluster, Server, first_to_write
from .plan import SIZE, Group, Work
from .processes import disk_bytes, loopback_bytes, process_figures
from .subjects import Subject
from .workloads import UnsupportedError

Figures = dict[str, dict[str, float]]

_HUNDRED_THOUSAND = 100_000
_FILL_SECONDS = 3 * 3600.0
_MOST_FAILURES = 3
"""Works that may fail in one session; with more it is void."""


def load(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Each work of the group; after each of them all servers must agree.

    A work that fails, as one that costs the leader its office, is tried once more on a fresh
    cluster.  If it fails again, that is what is to be said of it: ``failed``.
    """
    found: Figures = {}
    waiting = [work for work in group.works if subject.library in work.libraries]
    failed: list[Work] = []
    while waiting:
        try:
            with Cluster(subject, folder / f"after-{len(failed)}", group.servers, group.config) as cluster:
                _work_off(cluster, waiting, group, found)
        except (RuntimeError, TimeoutError):
            work = waiting[0]
            failed.append(work)
            if failed.count(work) > 1:
                found[work.name] = {"failed": 1.0}
                waiting.pop(0)
            if len(failed) > 2 * _MOST_FAILURES:
                raise
    return found


def _work_off(cluster: Cluster, waiting: list[Work], group: Group, found: Figures) -> None:
    """Take works from ``waiting`` as they are done, the first one included that was never done."""
    leader = cluster.leader()
    _warm_up(cluster, leader)
    while waiting:
        work = waiting[0]
        try:
            figures = _measured(cluster, leader, work, group)
            cluster.check_equal()
            found[work.name] = figures
        except UnsupportedError:
            pass
        waiting.pop(0)


def _warm_up(cluster: Cluster, leader: Server) -> None:
    cluster.run(leader, workload="outstanding", window=64, size=SIZE, seconds=0.4, warm_up=0.0)
    cluster.check_equal()


def _measured(cluster: Cluster, leader: Server, work: Work, group: Group) -> dict[str, float]:
    """Run ``work``; besides its own figures: what it cost, per command, warm-up and all."""
    before = {server.id: process_figures(server.process.pid) for server in cluster.servers}
    shared = {"written": disk_bytes(cluster.folder), "network": loopback_bytes()}
    arguments = {"size": SIZE, "seconds": group.seconds, "warm_up": group.warm_up, **work.arguments}
    figures = cluster.run(leader, workload=work.workload, **arguments)
    shared_after = {"written": disk_bytes(cluster.folder), "network": loopback_bytes()}
    after = {server.id: process_figures(server.process.pid) for server in cluster.servers}
    count = figures["submitted"]
    return {**figures, **costs(before, after, leader.id, count), **shared_costs(shared, shared_after, count)}


def costs(
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    leader: str,
    count: float,
) -> dict[str, float]:
    """What ``count`` operations cost the leader, and the other servers on average."""
    if not count or not before[leader]:
        return {}

    def per_command(id: str, name: str) -> float:
        return (after[id][name] - before[id][name]) / count

    others = [id for id in before if id != leader]
    found = {
        "leader_cpu_seconds_per_100k": _HUNDRED_THOUSAND * per_command(leader, "cpu_seconds"),
        "leader_rss_anon_mib": after[leader]["rss_anon_bytes"] / 2**20,
    }
    if others:
        cpu = sum(per_command(id, "cpu_seconds") for id in others) / len(others)
        found["follower_cpu_seconds_per_100k"] = _HUNDRED_THOUSAND * cpu
        found["follower_rss_anon_mib"] = max(after[id]["rss_anon_bytes"] for id in others) / 2**20
    return found


def shared_costs(
    before: dict[str, float | None], after: dict[str, float | None], count: float
) -> dict[str, float]:
    """What ``count`` operations cost all servers together, in bytes: those that the kernel can tell."""
    found = {}
    for name, bytes_before in before.items():
        bytes_after = after[name]
        if count and bytes_before is not None and bytes_after is not None:
            found[f"{name}_bytes_per_command"] = (bytes_after - bytes_before) / count
    return found


def idle(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Servers that nobody asks anything of: share of a core that each takes."""
    seconds = group.options.get("seconds", 15)
    with Cluster(subject, folder, group.servers, group.config) as cluster:
        leader = cluster.leader()
        _warm_up(cluster, leader)
        time.sleep(1)
        before = {server.id: process_figures(server.process.pid) for server in cluster.servers}
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        shares = {
            server.id: 100
            * (process_figures(server.process.pid)["cpu_seconds"] - before[server.id]["cpu_seconds"])
            for server in cluster.servers
        }
        others = [shares[id] for id in shares if id != leader.id]
        return {
            "idle-leader": {"core_percent": shares[leader.id] / took},
            "idle-follower": {"core_percent": sum(others) / len(others) / took},
        }


def length(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Speed and memory at growing lengths of the log."""
    found: Figures = {}
    with Cluster(subject, folder, group.servers, group.config) as cluster:
        leader = cluster.leader()
        for entries in group.options["lengths"]:
            _fill(cluster, leader, entries - cluster.submitted)
            for work in (
                Work(f"one-at-{entries}", "", "clients", {"clients": 1}),
                Work(f"outstanding-at-{entries}", "", "outstanding", {"window": 1024}),
            ):
                found[work.name] = _measured(cluster, leader, work, group)
            cluster.check_equal(seconds=600)
    return found


def _fill(cluster: Cluster, leader: Server, count: int, window: int = 4096) -> None:
    if count > 0:
        cluster.run(leader, _FILL_SECONDS, workload="fill", size=SIZE, count=count, window=window)


def restart(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Seconds from starting a follower's process until it has applied its log, by length.

    That includes what its runtime takes to load.  Each length is measured without a snapshot and,
    after it, with one.
    """
    found: Figures = {}
    with Cluster(subject, folder, group.servers, group.config) as cluster:
        for entries in group.options["lengths"]:
            leader = cluster.leader()
            _fill(cluster, leader, entries - cluster.submitted)
            cluster.check_equal(seconds=3600)
            found[f"restart-{entries}"] = {"seconds": _restart_follower(cluster)}
            leader = cluster.leader()
            follower = next(server for server in cluster.servers if server.id != leader.id)
            follower.ask("snapshot")
            seconds = _restart_follower(cluster, follower)
            found[f"restart-{entries}-behind-snapshot"] = {"seconds": seconds}
    return found


def _restart_follower(cluster: Cluster, follower: Server | None = None) -> float:
    leader = cluster.leader()
    if follower is None:
        follower = next(server for server in cluster.servers if server.id != leader.id)
    index = leader.ask("last_index")
    follower.close()
    began = time.monotonic()
    follower.start()
    follower.wait_ready()
    follower.ask("applied", 3600, index=index, seconds=3590)
    took = time.monotonic() - began
    cluster.check_equal(seconds=3600)
    return took


def catch_up(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Seconds from a follower's start until it has what it missed, and what its absence cost the leader."""
    count = group.options["count"]
    with Cluster(subject, folder, group.servers, group.config) as cluster:
        leader = cluster.leader()
        _warm_up(cluster, leader)
        follower = next(server for server in cluster.servers if server.id != leader.id)
        follower.close()
        before = process_figures(leader.process.pid)
        _fill(cluster, leader, count)
        index = leader.ask("last_index")
        after = process_figures(leader.process.pid)
        began = time.monotonic()
        follower.start()
        follower.wait_ready()
        follower.ask("applied", 3600, index=index, seconds=3590)
        took = time.monotonic() - began
        cluster.check_equal(seconds=600)
        figures = {"seconds": took, "per_second": count / took}
        if before:
            figures["leader_grew_mib"] = (after["rss_anon_bytes"] - before["rss_anon_bytes"]) / 2**20
        return {"catch-up": figures}


def disturbed(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Writes one at a time without a follower, while it catches up what it missed, and when it has.

    ``p99_times`` compares with those without it.
    """
    count = group.options["count"]
    with Cluster(subject, folder, group.servers, group.config) as cluster:
        leader = cluster.leader()
        _warm_up(cluster, leader)
        follower = next(server for server in cluster.servers if server.id != leader.id)
        follower.close()
        _fill(cluster, leader, count)
        index = leader.ask("last_index")
        found = {"without it": _one_at_a_time(cluster, leader, group)}
        follower.start()
        follower.wait_ready()
        found["while it catches up"] = _one_at_a_time(cluster, leader, group)
        if follower.ask("applied", index=0, seconds=0)["count"] >= count:
            raise RuntimeError("it had caught up before the writes were timed: let it miss more")
        follower.ask("applied", 3600, index=index, seconds=3590)
        found["when it has"] = _one_at_a_time(cluster, leader, group)
        cluster.check_equal(seconds=600)
    base = found["without it"]["p99_us"]
    return {work: {**figures, "p99_times": figures["p99_us"] / base} for work, figures in found.items()}


def _one_at_a_time(cluster: Cluster, leader: Server, group: Group) -> dict[str, float]:
    figures = cluster.run(
        leader, workload="clients", clients=1, size=SIZE, seconds=group.seconds, warm_up=group.warm_up
    )
    return {name: figures[name] for name in ("p50_us", "p99_us", "p999_us")}


def failover(group: Group, subject: Subject, round: int, folder: Path) -> Figures:
    """Seconds from the leader's SIGKILL, under load, to the next acknowledged write."""
    chance = random.Random(f"{subject.name} {round}")
    found: Figures = {}
    with Cluster(subject, folder, group.servers, group.config) as cluster:
        _warm_up(cluster, cluster.leader())
        for kill in range(group.options["kills"]):
            leader = cluster.leader()
            others = [server for server in cluster.servers if server is not leader]
            leader.send("run", workload="outstanding", window=64, size=SIZE, seconds=60, warm_up=0)
            time.sleep(0.5 + 0.2 * chance.random())  # at no fixed place between two heartbeats
            began = time.monotonic()
            leader.kill()
            found[f"failover-{kill}"] = {"seconds": first_to_write(others, leader.id, 30) - began}
            leader.start()
            leader.wait_ready()
            cluster.check_equal(exactly=False)
    return found


KINDS: dict[str, Callable[[Group, Subject, int, Path], Any]] = {
    "load": load,
    "idle": idle,
    "length": length,
    "restart": restart,
    "catch_up": catch_up,
    "disturbed": disturbed,
    "failover": failover,
}
