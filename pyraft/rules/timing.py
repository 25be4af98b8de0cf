"""How long to wait.  Pure: the clock's instants and the random numbers are arguments."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from .election import majority

if TYPE_CHECKING:
    import random

SHORTEST_BACK_OFF = 0.01
"""Seconds before the first retry at a peer that failed."""


def randomized(shortest: float, rng: random.Random) -> float:
    """A duration from [shortest, 2 * shortest), drawn anew each time.

    Source: §5.2: split votes are then rare and end quickly.
    """
    return shortest * (1.0 + rng.random())


def heartbeat_interval(heartbeat_timeout: float, rng: random.Random) -> float:
    """Seconds until the next heartbeat: a tenth to a fifth of the followers' patience."""
    return randomized(heartbeat_timeout / 10, rng)


def back_off(failures: int, longest: float) -> float:
    """Seconds to leave a peer alone after so many failures in a row: doubling, bounded."""
    if failures <= 0:
        return 0.0
    return float(min(longest, SHORTEST_BACK_OFF * 2 ** min(failures - 1, 16)))


def majority_contact(contacts: Collection[float]) -> float:
    """The latest instant that a majority of the voters has answered for.

    Args:
        contacts: for every voter, when the latest request was sent that it answered.
    """
    if not contacts:
        return float("inf")
    ordered = sorted(contacts, reverse=True)
    return ordered[majority(len(ordered)) - 1]


def lease_ends_at(contacts: Collection[float], lease: float) -> float:
    """The instant until which a majority of the voters has been heard from recently enough.

    Args:
        contacts: for every voter the instant at which the last request was *sent* that it
            answered; the leader counts itself with the present instant.
        lease: seconds that an answer is good for.

    Source: §6.4 of the dissertation; check quorum.
    """
    return majority_contact(contacts) + lease
