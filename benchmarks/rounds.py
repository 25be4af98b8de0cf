"""The order of things: rounds alternate between subjects, and a wrong result voids a round."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .plan import Group
from .results import Figures, Results, Session
from .subjects import Subject

Measure = Callable[[Group, Subject, int, Path], Figures]

ATTEMPTS = 3


def order(groups: list[Group]) -> Iterator[tuple[Group, int, Subject]]:
    """Every session of a plan.

    Within a group a round goes once through all subjects, each time from another one on, so that
    what the machine does meanwhile meets all of them alike.
    """
    for group in groups:
        for round in range(group.rounds):
            shift = round % len(group.subjects)
            for subject in [*group.subjects[shift:], *group.subjects[:shift]]:
                yield group, round, subject


def run(
    groups: list[Group],
    results: Results,
    measure: Measure,
    home: Path,
    tell: Callable[[str], None] = print,
) -> list[Session]:
    """Every session that is not in ``results`` yet; return those that stayed void after ``ATTEMPTS``.

    Args:
        home: where the servers' folders are made, and removed again.
    """
    missing = []
    for group, round, subject in order(groups):
        if results.done(group.name, subject.name, round, group.digest()):
            continue
        began = time.monotonic()
        session = _attempt(group, subject, round, results, measure, home)
        took = time.monotonic() - began
        said = (
            f"VOID: {session.void.strip().splitlines()[-1]}"
            if session.void
            else _short(group, session.figures)
        )
        tell(f"[{took:5.1f} s] {group.name}, round {round + 1} of {group.rounds}, {subject.name}: {said}")
        if session.void:
            missing.append(session)
    return missing


def _attempt(
    group: Group, subject: Subject, round: int, results: Results, measure: Measure, home: Path
) -> Session:
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(prefix="running-", dir=home))
        figures: Figures = {}
        void = ""
        try:
            figures = measure(group, subject, round, folder)
        except Exception as error:
            void = f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        session = Session(group.name, subject.name, round, group.digest(), figures, void)
        results.add(session)
        if not void:
            break
    return session


def _short(group: Group, figures: Figures) -> str:
    """The figure of each work that tables show, so that a long run shows where it is."""
    shown = {work.name: work.figure for work in group.works}
    parts = []
    for name, values in figures.items():
        for figure in (shown.get(name, ""), "seconds", "core_percent", "per_second", "failed"):
            if figure in values:
                parts.append(f"{name} {_number(values[figure])}" if figure != "failed" else f"{name} FAILED")
                break
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
