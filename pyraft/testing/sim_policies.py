"""Which thread of a simulation runs next: seeded answers to one question.

A policy sees the runnable tasks at every point where a thread could be switched out.  Random
choice finds most races; a priority policy finds those that need one thread to be slow for long;
a sticky one lets a thread run on, as a real machine does most of the time.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigError

if TYPE_CHECKING:
    from .sim_runtime import SimTask


class Policy(ABC):
    """Chooses the next task.  It has its own random stream and looks at nothing else."""

    name: ClassVar[str] = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """What its class takes to make an equal one."""
        return {}

    def seed(self, rng: random.Random) -> None:
        """Take the stream to draw from; called once, before the first choice."""
        self._rng = rng

    @abstractmethod
    def choose(self, runnable: Sequence[SimTask], current: SimTask | None) -> SimTask:
        """One of ``runnable`` (never empty).  ``current`` is None if the last one cannot run."""


class RandomPolicy(Policy):
    """Every runnable task with equal probability, at every switch point."""

    name = "random"

    def choose(self, runnable: Sequence[SimTask], current: SimTask | None) -> SimTask:
        return runnable[int(self._rng.random() * len(runnable))]

    def __repr__(self) -> str:
        return "RandomPolicy()"


class StickyPolicy(Policy):
    """Lets the current task run on with a probability, otherwise chooses at random."""

    name = "sticky"

    def __init__(self, stay: float = 0.9) -> None:
        if not 0.0 <= stay < 1.0:
            raise ConfigError(f"stay={stay!r} is not a probability below 1: use for example 0.9")
        self._stay = stay

    @property
    def parameters(self) -> dict[str, Any]:
        return {"stay": self._stay}

    def choose(self, runnable: Sequence[SimTask], current: SimTask | None) -> SimTask:
        if current is not None and self._rng.random() < self._stay:
            return current
        return runnable[int(self._rng.random() * len(runnable))]

    def __repr__(self) -> str:
        return f"StickyPolicy({self._stay})"


class PriorityPolicy(Policy):
    """Random priorities, strictly obeyed, that drop to the lowest at random change points.

    Good at bugs that need few orderings but long delays (PCT: Burckhardt et al., 2010).
    """

    name = "priority"

    def __init__(self, change_every: int = 500) -> None:
        if change_every < 1:
            raise ConfigError(f"change_every={change_every!r} is not a number of steps: use for example 500")
        self._change_every = change_every
        self._priorities: dict[int, float] = {}
        self._lowest = 0.0
        self._until_change = change_every

    @property
    def parameters(self) -> dict[str, Any]:
        return {"change_every": self._change_every}

    def choose(self, runnable: Sequence[SimTask], current: SimTask | None) -> SimTask:
        self._until_change -= 1
        if self._until_change <= 0:
            self._until_change = 1 + int(self._rng.expovariate(1 / self._change_every))
            if current is not None:
                self._lowest -= 1.0
                self._priorities[current.number] = self._lowest
        return max(runnable, key=self._priority)

    def _priority(self, task: SimTask) -> float:
        priority = self._priorities.get(task.number)
        if priority is None:
            priority = self._priorities[task.number] = self._lowest + self._rng.random() * (1 - self._lowest)
        return priority

    def __repr__(self) -> str:
        return f"PriorityPolicy({self._change_every})"


class CalmPolicy(Policy):
    """Another policy, but in some stretches of its decisions the current task just goes on.

    The other policy is asked all the same, so that its draws stay where they were.
    """

    def __init__(self, policy: Policy, stretches: Sequence[tuple[int, int]]) -> None:
        self._policy = policy
        self._stretches = sorted(stretches, reverse=True)  # the next one last
        self._decisions = 0

    def seed(self, rng: random.Random) -> None:
        self._policy.seed(rng)

    def choose(self, runnable: Sequence[SimTask], current: SimTask | None) -> SimTask:
        number = self._decisions
        self._decisions += 1
        chosen = self._policy.choose(runnable, current)
        stretches = self._stretches
        while stretches and stretches[-1][1] <= number:
            stretches.pop()
        if stretches and stretches[-1][0] <= number:
            return runnable[0] if current is None else current
        return chosen

    def __repr__(self) -> str:
        return f"{self._policy!r}, calm in {len(self._stretches)} stretches"


POLICIES: dict[str, type[Policy]] = {kind.name: kind for kind in (RandomPolicy, StickyPolicy, PriorityPolicy)}
"""The policies by the names that scenarios use."""


def draw_policy(rng: random.Random) -> Policy:
    """One of the policies, with drawn parameters."""
    kind = rng.random()
    if kind < 0.4:
        return RandomPolicy()
    if kind < 0.7:
        return StickyPolicy(rng.choice([0.5, 0.9, 0.98]))
    return PriorityPolicy(rng.choice([50, 300, 2000]))
