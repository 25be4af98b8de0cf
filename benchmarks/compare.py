"""This checkout against another one, in pairs of neighbouring rounds, with a verdict that knows the noise."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .plan import ONE, Group, clients, outstanding, tasks
from .statistics import SLOWER, Ratio, paired_ratio, verdict
from .subjects import CHECKOUT, OURS_GRPC, OURS_MEMORY, OURS_TCP
from .tables import Values, markdown

TRANSPORTS = {"tcp": OURS_TCP, "grpc": OURS_GRPC, "memory": OURS_MEMORY}
ROUNDS = 10
MATTERS = 0.05
CONFIDENCE = 0.99
"""Of each interval: there are ten, and any of them may mislead."""
WORKS = [ONE, clients(64), tasks(1024), outstanding(64), outstanding(1024)]


def groups(base: Path, rounds: int = ROUNDS, chosen: Sequence[str] = ("tcp", "grpc")) -> list[Group]:
    """One group for each transport: the base and this checkout take turns at being first."""
    return [
        Group(
            f"compare-{name}",
            [
                replace(TRANSPORTS[name], checkout=str(base), label="base"),
                replace(TRANSPORTS[name], checkout=str(CHECKOUT), label="this"),
            ],
            rounds,
            WORKS,
            seconds=1.0,
            warm_up=0.3,
        )
        for name in chosen
    ]


def unpack(ref: str, home: Path) -> Path:
    """The library as it is in ``ref``, below ``home``.

    Raises:
        ValueError: git does not know it.
    """
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ValueError(f"BASE={ref}: git knows no such commit")
    folder = home / f"base-{done.stdout.strip()[:12]}"
    if not folder.exists():
        packed = subprocess.run(
            ["git", "archive", ref, "pyraft"], cwd=CHECKOUT, capture_output=True, check=True
        )
        unfinished = folder.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(unfinished, filter="data")
        unfinished.rename(folder)
    return folder


def ratios(found: Sequence[Group], values: Values) -> dict[str, Ratio]:
    """By ``transport, work``: how many times as fast as the base this checkout is."""
    made: dict[str, Ratio] = {}
    for group in found:
        base, this = group.subjects
        for work in group.works:
            sides = [values.get((group.name, work.name, each.name, work.figure), {}) for each in (base, this)]
            pairs = [
                (sides[0][round], sides[1][round]) for round in sorted(sides[0].keys() & sides[1].keys())
            ]
            if work.figure != "per_second":
                pairs = [(1 / before, 1 / after) for before, after in pairs]  # less time is faster
            if pairs:
                made[f"{group.name.removeprefix('compare-')}, {work.title}"] = paired_ratio(pairs, CONFIDENCE)
    return made


def report(found: dict[str, Ratio], matters: float = MATTERS) -> str:
    """For people; a ratio above 1 means that this checkout is faster."""
    lines = [["this checkout / base, in speed", "ratio", "interval", "pairs", "verdict"]]
    for what, ratio in found.items():
        interval = f"{ratio.low:.3f}–{ratio.high:.3f} ({100 * ratio.confidence:.0f} %)"
        lines.append([what, f"{ratio.estimate:.3f}", interval, str(ratio.pairs), verdict(ratio, matters)])
    return markdown(lines)


def is_slower(found: dict[str, Ratio], matters: float = MATTERS) -> bool:
    return any(verdict(ratio, matters) == SLOWER for ratio in found.values())
