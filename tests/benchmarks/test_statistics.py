"""Medians, intervals and verdicts: what may be said about figures that scatter."""

import math
import random

import pytest

from benchmarks.statistics import (
    FASTER,
    SAME,
    SLOWER,
    UNDECIDED,
    Ratio,
    median_interval,
    paired_ratio,
    spread,
    verdict,
)


def test_a_spread_is_the_median_and_the_range():
    found = spread([3.0, 1.0, 2.0])

    assert (found.median, found.low, found.high, found.rounds) == (2.0, 1.0, 3.0, 3)


# From the binomial distribution: 2 P(X <= k) with X ~ B(n, 1/2) is at most 5 %.
@pytest.mark.parametrize(
    ("count", "low", "high"), [(1, 0, 0), (5, 0, 4), (6, 0, 5), (9, 1, 7), (20, 5, 14), (100, 39, 60)]
)
def test_the_interval_of_a_median_is_the_one_of_the_textbook(count, low, high):
    assert median_interval(list(reversed(range(count)))) == (low, high)


def test_the_ratio_of_pairs_that_agree_is_their_ratio():
    ratio = paired_ratio([(100, 110), (10, 11), (1000, 1100), (50, 55), (1, 1.1), (2, 2.2)])

    assert ratio.estimate == pytest.approx(1.1)
    assert (ratio.low, ratio.high) == (pytest.approx(1.1), pytest.approx(1.1))


def test_too_few_pairs_say_how_little_they_prove():
    ratio = paired_ratio([(1, 2), (1, 3), (1, 4)])

    assert ratio.confidence == 0.75
    assert (ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(4))
    assert verdict(ratio) == UNDECIDED


def test_one_round_in_which_the_machine_was_busy_moves_the_estimate_little():
    quiet = [(100.0, 102.0 + number / 10) for number in range(9)]

    disturbed = paired_ratio([*quiet, (100.0, 20.0)])

    assert disturbed.estimate == pytest.approx(1.02, abs=0.01)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    chance = random.Random(1)
    hits = 0
    for _ in range(400):
        pairs = [(1.0, 1.1 * math.exp(chance.gauss(0, 0.1))) for _ in range(8)]
        ratio = paired_ratio(pairs)
        hits += ratio.low <= 1.1 <= ratio.high

    assert 0.92 < hits / 400 < 0.99


@pytest.mark.parametrize(
    ("low", "estimate", "high", "expected"),
    [
        (1.02, 1.10, 1.18, FASTER),
        (0.85, 0.90, 0.96, SLOWER),
        (0.97, 1.00, 1.03, SAME),
        (1.01, 1.02, 1.04, SAME),  # surely faster, but by too little to matter
        (0.80, 0.95, 1.10, UNDECIDED),
        (0.98, 1.07, 1.16, UNDECIDED),
    ],
)
def test_a_verdict_knows_the_noise(low, estimate, high, expected):
    assert verdict(Ratio(estimate, low, high, 0.95, 8), matters=0.05) == expected


def test_a_tenth_less_is_seen_through_noise_of_five_percent():
    chance = random.Random(2)
    pairs = [(math.exp(chance.gauss(0, 0.05)), 0.88 * math.exp(chance.gauss(0, 0.05))) for _ in range(8)]

    assert verdict(paired_ratio(pairs)) == SLOWER


def test_noise_alone_is_hardly_ever_called_a_change():
    chance = random.Random(3)
    said = [
        verdict(
            paired_ratio([(math.exp(chance.gauss(0, 0.1)), math.exp(chance.gauss(0, 0.1))) for _ in range(8)])
        )
        for _ in range(300)
    ]

    assert said.count(SLOWER) + said.count(FASTER) <= 300 * 0.06
