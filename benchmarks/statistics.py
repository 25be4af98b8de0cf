"""Medians, ranges and intervals.  Exact and without chance: the same figures give the same answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median


@dataclass(frozen=True)
class Spread:
    """The middle of some rounds, and how far they lie apart."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values), len(values))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Between which two of ``values`` the true median lies, with at least this confidence.

    By order statistics, so it assumes nothing about how the values are distributed; too few of
    them (below 6 for 95 %) give their whole range.
    """
    ordered = sorted(values)
    count = len(ordered)
    tail = 0.0
    cut = 0
    while cut < (count - 1) // 2:
        tail += math.comb(count, cut) / 2**count
        if 2 * tail > 1 - confidence:
            break
        cut += 1
    outermost = max(0, cut - 1)
    return ordered[outermost], ordered[count - 1 - outermost]


@dataclass(frozen=True)
class Ratio:
    """How many times the base something reached, from pairs of neighbouring rounds."""

    estimate: float
    low: float
    high: float
    """The interval that holds the true ratio with ``confidence``."""
    confidence: float
    """Below what was asked for when there were too few pairs for it."""
    pairs: int
    is_enough: bool = True
    """Were there enough pairs for an interval of the confidence that was asked for?"""


def paired_ratio(pairs: Sequence[tuple[float, float]], confidence: float = 0.95) -> Ratio:
    """The ratio of the second to the first of each pair: Wilcoxon's signed ranks, on logarithms.

    The estimate is the median of all averages of two pairs (Hodges and Lehmann), the interval
    inverts the exact signed-rank test.  A round in which the machine was busy moves it little.
    """
    logs = [math.log(new / base) for base, new in pairs]
    averages = sorted((a + b) / 2 for place, a in enumerate(logs) for b in logs[place:])
    below = _most_to_cut(len(logs), confidence)
    outside = 2 * sum(_rank_sum_counts(len(logs))[:below]) / 2 ** len(logs)
    return Ratio(
        math.exp(median(averages)),
        math.exp(averages[max(0, below - 1)]),
        math.exp(averages[len(averages) - max(1, below)]),
        min(confidence, 1 - outside if below else 1 - 2 / 2 ** len(logs)),
        len(logs),
        below > 0,
    )


def _most_to_cut(pairs: int, confidence: float) -> int:
    """The k for which the k-th smallest and k-th largest average still bound enough; 0 = none does."""
    total = 0
    for cut, ways in enumerate(_rank_sum_counts(pairs)):
        total += ways
        if 2 * total / 2**pairs > 1 - confidence:
            return cut
    return 0


@cache
def _rank_sum_counts(pairs: int) -> tuple[int, ...]:
    """In how many ways the ranks 1 to ``pairs`` with random signs have each sum of positive ones."""
    counts = [1]
    for rank in range(1, pairs + 1):
        longer = [*counts, *([0] * rank)]
        for place, ways in enumerate(counts):
            longer[place + rank] += ways
        counts = longer
    return tuple(counts)


FASTER = "faster"
SLOWER = "slower"
SAME = "the same"
UNDECIDED = "undecided"


def verdict(ratio: Ratio, matters: float = 0.05) -> str:
    """What may be said about a change, where more is better.

    Args:
        matters: a smaller change than this share is of no interest.

    Returns:
        ``FASTER`` or ``SLOWER``: by more than chance explains, and probably by more than
        ``matters``.  ``SAME``: certainly by less than twice ``matters``.  ``UNDECIDED``: the noise
        was too great, or the pairs too few; more rounds, or a quieter machine, may tell.
    """
    if not ratio.is_enough:
        return UNDECIDED
    if ratio.low > 1 and ratio.estimate > 1 + matters:
        return FASTER
    if ratio.high < 1 and ratio.estimate < 1 / (1 + matters):
        return SLOWER
    if ratio.low > 1 / (1 + 2 * matters) and ratio.high < 1 + 2 * matters:
        return SAME
    return UNDECIDED
