"""How this library stands to the others, in ratios within one run: what the project aims at, and what it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .plan import Group
from .subjects import EVERY, MIXED, OURS_GRPC, OURS_TCP, Subject, pure_of
from .tables import Values, failover_seconds, markdown, peak


@dataclass(frozen=True)
class Standing:
    """Ours divided by theirs, and what we want it to be."""

    what: str
    ratio: float
    aim: float | None
    """None: it is only reported."""
    more_is_better: bool = True

    @property
    def is_reached(self) -> bool:
        if self.aim is None:
            return True
        return self.ratio >= self.aim if self.more_is_better else self.ratio <= self.aim

    def line(self) -> list[str]:
        if self.aim is None:
            return [self.what, f"{self.ratio:.2f} ×", "–", "–"]
        sign = "≥" if self.more_is_better else "≤"
        said = "yes" if self.is_reached else "no"
        return [self.what, f"{self.ratio:.2f} ×", f"{sign} {self.aim:g} ×", said]


def table(groups: Sequence[Group], values: Values) -> str:
    """Every aim that the run has figures for; empty without any."""
    found = standings(groups, values)
    if not found:
        return ""
    return "### Where this library stands\n\n" + markdown(
        [["ours divided by theirs", "here", "aim", "reached"], *(each.line() for each in found)]
    )


def standings(groups: Sequence[Group], values: Values) -> list[Standing]:
    """Those that the values are there for."""
    found: list[Standing] = []
    for group in groups:
        if group.name == "load":
            for ours in (OURS_TCP, OURS_GRPC):
                found += _peaks(group, ours, values)
                found += _latency(group, ours, values)
                found += _clients(group, ours, values)
                found += _pysyncobj(group, ours, values)
        elif group.kind == "failover":
            found += _failover(group, values)
        elif group.name == "mixed":
            found += _mixed(group, values)
    return found


def _store(store: str) -> list[Subject]:
    """The store over both transports, at the library's defaults and tuned."""
    return [each for each in EVERY.values() if each.library == "hashicorp" and each.store == store]


def _best(values: Values, group: Group, subjects: Sequence[Subject], works: Sequence[str]) -> float | None:
    """The largest median throughput that any of ``subjects`` has in any of ``works``."""
    found = [
        median(by_round.values())
        for subject in subjects
        for work in works
        if (by_round := values.get((group.name, work, subject.name, "per_second")))
    ]
    return max(found, default=None)


def _standing(
    what: str, ours: float | None, theirs: float | None, aim: float | None, more: bool = True
) -> list[Standing]:
    if not ours or not theirs:
        return []
    return [Standing(what, ours / theirs, aim, more)]


def _peaks(group: Group, ours: Subject, values: Values) -> list[Standing]:
    found = []
    aims = (("boltdb", 3.0), ("wal", 1.2), ("boltdb-cached", None), ("wal-cached", None))
    for store, aim in aims:
        theirs = max((peak(values, group, each) or 0 for each in _store(store)), default=0)
        what = f"largest throughput, {ours.title} / Go, {store.replace('-cached', ' with LogCache')}, at its best"
        found += _standing(what, peak(values, group, ours), theirs, aim)
    return found


def _latency(group: Group, ours: Subject, values: Values) -> list[Standing]:
    theirs = f"hashicorp-boltdb-{ours.transport}"
    figures = [values.get((group.name, "one", name, "p50_us"), {}) for name in (ours.name, theirs)]
    medians = [median(by_round.values()) if by_round else None for by_round in figures]
    what = f"one at a time, p50, {ours.title} / Go, boltdb, {EVERY[theirs].title.split(', ')[2]}"
    return _standing(what, medians[0], medians[1], 1.0 if ours.transport == "tcp" else 1.3, more=False)


def _clients(group: Group, ours: Subject, values: Values) -> list[Standing]:
    boltdb = _store("boltdb")
    found = []
    for number, aim in ((16, 1.0), (64, 1.0), (256, 0.8)):
        work = [f"clients-{number}"]
        best = [_best(values, group, whose, work) for whose in ([ours], boltdb)]
        found += _standing(f"{number} blocking clients, {ours.title} / Go, boltdb, at its best", *best, aim)
    for number in (1024, 4096):
        mine = _best(values, group, [ours], [f"tasks-{number}"])
        theirs = _best(values, group, boltdb, [f"clients-{number}"])
        what = f"{number:,} asyncio tasks, {ours.title} / goroutines, boltdb, at its best"
        found += _standing(what, mine, theirs, 1.0)
    tuned = [each for each in boltdb if each.tuned]
    best = [_best(values, group, whose, ["outstanding-64"]) for whose in ([ours], tuned)]
    found += _standing(f"one producer, 64 outstanding, {ours.title} / Go, boltdb, tuned", *best, 2.0)
    return found


def _pysyncobj(group: Group, ours: Subject, values: Values) -> list[Standing]:
    """The smallest ratio over all loads that both have."""
    theirs = EVERY["pysyncobj-journal-tcp"]
    ratios = []
    for work in group.works:
        pair = [_best(values, group, [whose], [work.name]) for whose in (ours, theirs)]
        if pair[0] and pair[1] and not work.name.startswith("busy"):
            ratios.append((pair[0] / pair[1], work.title.removesuffix(", p50")))
    if not ratios:
        return []
    ratio, title = min(ratios)
    return [Standing(f"{ours.title} / PySyncObj, which never flushes, at worst ({title})", ratio, 3.0)]


def _failover(group: Group, values: Values) -> list[Standing]:
    found = []
    for ours in (OURS_TCP, OURS_GRPC):
        theirs = EVERY[f"hashicorp-boltdb-{ours.transport}"]
        seconds = [failover_seconds(group, subject, values) for subject in (ours, theirs)]
        medians = [median(each) if each else None for each in seconds]
        found += _standing(f"failover, {ours.title} / {theirs.title}", *medians, 1.0, more=False)
    return found


def _mixed(group: Group, values: Values) -> list[Standing]:
    """Against the slower of the two libraries alone; the latency against the larger one."""
    found = []
    for subject in MIXED:
        for work in group.works:
            more = work.figure == "per_second"
            mine, *theirs = (
                values.get((group.name, work.name, each.name, work.figure), {})
                for each in (subject, *pure_of(subject))
            )
            if not mine or not all(theirs):
                continue
            medians = [median(by_round.values()) for by_round in theirs]
            slower = min(medians) if more else max(medians)
            what = f"{work.title}, {subject.title} / the slower library alone"
            found += _standing(what, median(mine.values()), slower, 0.8 if more else 1.2, more)
    return found
