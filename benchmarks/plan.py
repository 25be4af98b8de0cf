"""What is measured: groups of works, each on clusters of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .subjects import EVERY, GO, MIXED, OURS, OURS_GRPC, OURS_TCP, PYSYNCOBJ, Subject, pure_of

SIZE = 128


@dataclass(frozen=True)
class Work:
    """One load, and the figure of it that tables show."""

    name: str
    title: str
    workload: str
    arguments: dict[str, Any]
    figure: str = "per_second"
    """``per_second``: more is better; else a time, of which less is better."""
    libraries: tuple[str, ...] = ("pyraft", "hashicorp", "pysyncobj")


@dataclass(frozen=True)
class Group:
    """Works that run one after the other on a fresh cluster: that is a session."""

    name: str
    subjects: list[Subject]
    rounds: int
    works: list[Work] = field(default_factory=list)
    kind: str = "load"
    """Which function of sessions.py runs it."""
    servers: int = 3
    seconds: float = 1.5
    warm_up: float = 0.4
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Changes with anything that would change what a session measures."""
        own = {**asdict(replace(self, subjects=[])), "rounds": None}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


def clients(number: int, **more: Any) -> Work:
    return Work(f"clients-{number}", f"{number:,} blocking clients", "clients", {"clients": number, **more})


def outstanding(window: int) -> Work:
    return Work(
        f"outstanding-{window}", f"one producer, {window:,} outstanding", "outstanding", {"window": window}
    )


def tasks(number: int) -> Work:
    title = f"{number:,} asyncio tasks"
    return Work(f"tasks-{number}", title, "tasks", {"clients": number}, libraries=("pyraft",))


ONE = Work("one", "one at a time, p50", "clients", {"clients": 1}, "p50_us")
BUSY = [
    Work(
        "busy", "one at a time, p50, beside a busy thread", "clients", {"clients": 1, "busy": True}, "p50_us"
    ),
    Work(
        "busy-switching",
        "the same with sys.setswitchinterval(0.0005)",
        "clients",
        {"clients": 1, "busy": True, "switch_interval": 0.0005},
        "p50_us",
        ("pyraft",),
    ),
]
READS = [
    Work(
        f"{operation}-{number}",
        f"{operation}, {'one at a time, p50' if number == 1 else f'{number} blocking clients'}",
        "clients",
        {"clients": number, "operation": operation},
        "p50_us" if number == 1 else "per_second",
        libraries,
    )
    for operation, libraries in (("verify_leader", ("pyraft", "hashicorp")), ("read_index", ("pyraft",)))
    for number in (1, 64)
]
LOAD = [ONE, *(clients(number) for number in (16, 64, 256, 1024, 4096))]
LOAD += [tasks(number) for number in (256, 1024, 4096)]
LOAD += [outstanding(window) for window in (64, 1024, 8192)]


def sizes() -> list[Work]:
    """Latency and throughput of commands from 16 bytes to 256 KiB, at most 8 MiB of them on their way."""
    works = []
    for size in (16, 128, 1024, 16 * 1024, 256 * 1024):
        text = f"{size:,} B" if size < 1024 else f"{size // 1024:,} KiB"
        window = min(1024, 8 * 1024 * 1024 // size)
        works += [
            replace(ONE, name=f"one-{size}b", title=f"{text}: one at a time, p50"),
            replace(
                outstanding(window), name=f"outstanding-{size}b", title=f"{text}: {window:,} outstanding"
            ),
            replace(clients(64), name=f"clients-{size}b", title=f"{text}: 64 blocking clients"),
        ]
        for place in (-3, -2, -1):
            works[place] = replace(works[place], arguments={**works[place].arguments, "size": size})
    return works


def ours() -> list[Group]:
    """About two minutes: this library alone."""
    load = [work for work in LOAD if work.name not in ("clients-1024", "clients-4096", "tasks-256")]
    return [
        Group("idle", [OURS_TCP, OURS_GRPC], 1, kind="idle", options={"seconds": 8}),
        Group("load", [OURS_TCP, OURS_GRPC], 3, [*load, *BUSY], seconds=0.5, warm_up=0.2),
        Group("length", [OURS_TCP], 1, kind="length", seconds=1.0, options={"lengths": [10_000, 300_000]}),
    ]


def with_peers() -> list[Group]:
    """Under 40 minutes: the other libraries beside it."""
    scaled = [OURS_TCP, OURS_GRPC, EVERY["hashicorp-boltdb-tcp-tuned"], EVERY["hashicorp-wal-tcp-tuned"]]
    return [
        Group("load", [*OURS, *GO, PYSYNCOBJ], 3, [*LOAD, READS[0], BUSY[0]], seconds=1.2),
        *scaling(scaled, (1, 3, 5, 7), 3),
        failover(4),
    ]


def everything() -> list[Group]:
    """Hours."""
    all_subjects = list(EVERY.values())
    some = [OURS_TCP, OURS_GRPC, EVERY["hashicorp-boltdb-tcp-tuned"], EVERY["hashicorp-wal-tcp-tuned"]]
    no_snapshots = {"snapshot_threshold": 1 << 40}
    lengths = [10**4, 10**5, 10**6, 10**7]
    return [
        Group("idle", [*OURS, EVERY["hashicorp-boltdb-tcp"], EVERY["hashicorp-boltdb-grpc"]], 3, kind="idle"),
        Group("load", all_subjects, 5, [*LOAD, *READS, *BUSY], seconds=4, warm_up=1),
        *scaling([*OURS, *GO], (1, 3, 5, 7), 3),
        Group("sizes", [*OURS, *GO], 3, sizes(), seconds=3, warm_up=1),
        failover(20),
        Group("length", some, 3, kind="length", seconds=4, config=no_snapshots, options={"lengths": lengths}),
        Group("restart", some, 3, kind="restart", config=no_snapshots, options={"lengths": lengths[:3]}),
        Group("restart-10m", some, 1, kind="restart", config=no_snapshots, options={"lengths": lengths[3:]}),
        Group("catch-up", some, 3, kind="catch_up", config=no_snapshots, options={"count": 10**6}),
        *catching_up(),
        *mixed(),
    ]


def scaling(subjects: list[Subject], servers: tuple[int, ...], rounds: int) -> list[Group]:
    works = [ONE, clients(256), outstanding(1024)]
    return [Group(f"servers-{number}", subjects, rounds, works, servers=number) for number in servers]


def failover(rounds: int) -> Group:
    """The leader is killed five times in each session; everybody's timeouts are a second."""
    go = [EVERY[f"hashicorp-boltdb-{transport}"] for transport in ("tcp", "grpc")]
    timeouts = {"heartbeat_timeout": 1.0, "election_timeout": 1.0, "leader_lease_timeout": 0.5}
    subjects = [OURS_TCP, OURS_GRPC, *go, PYSYNCOBJ]
    return Group("failover", subjects, rounds, kind="failover", config=timeouts, options={"kills": 5})


def catching_up() -> list[Group]:
    """Ten minutes: what writes notice of a follower that is a million entries behind."""
    return [
        Group(
            "disturbed",
            [OURS_TCP, OURS_GRPC],
            3,
            kind="disturbed",
            seconds=4,
            config={"snapshot_threshold": 1 << 40},
            options={"count": 10**6},
        )
    ]


def mixed() -> list[Group]:
    """Five minutes: clusters of both libraries beside those of one."""
    pure = {subject.name: subject for each in MIXED for subject in pure_of(each)}
    works = [ONE, clients(64), outstanding(1024)]
    return [Group("mixed", [*pure.values(), *MIXED], 3, works, seconds=1.5)]


PLANS = {"mixed": mixed, "ours": ours, "peers": with_peers, "all": everything, "catch-up": catching_up}
