"""Makes a scenario that fails as small as it can, as long as it breaks the same promise.

In this order, again and again until nothing more can go: what comes after the failure, kinds of
faults, servers (which makes every later try cheaper), single strikes, clients, single operations,
settings, and choices of the schedule, where the thread that runs just goes on.  Every draw has a
stream of its own, so what is left stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TypeVar

from ..errors import ConfigError
from ..fsm import FSM
from .scenario import RunResult, Scenario, run_scenario

_FINEST = 6  # the schedule is tried in halves, quarters, ... of 2 ** -6
_FOREVER = 10**9  # more decisions than any run takes
_ROUNDS = 3
_SHORT = 0.1  # virtual seconds that are not worth cutting
_T = TypeVar("_T")


@dataclass
class Shrunk:
    """What is left.

    Attributes:
        result: of its run.
        tries: how many runs it took.
        is_done: False if time was up before nothing more could go.
    """

    scenario: Scenario
    result: RunResult
    tries: int
    is_done: bool


class _TimeIsUp(Exception):
    pass


def shrink(
    scenario: Scenario,
    fsm: Callable[[], FSM] | None = None,
    seconds: float = 300.0,
    tell: Callable[[str], None] = lambda line: None,
) -> Shrunk:
    """The smallest scenario found that fails as ``scenario`` does.

    Args:
        seconds: real ones, after which the smallest so far is taken.
        tell: is given a line for every step that made it smaller.

    Raises:
        ConfigError: nothing fails.
    """
    return _Shrinker(scenario, fsm, seconds, tell).run()


class _Shrinker:
    def __init__(
        self,
        scenario: Scenario,
        fsm: Callable[[], FSM] | None,
        seconds: float,
        tell: Callable[[str], None],
    ) -> None:
        self._fsm = fsm
        self._tell = tell
        self._until = monotonic() + seconds
        self._tries = 1
        self._best = scenario
        self._result = run_scenario(scenario, fsm)
        self._promise = self._result.promise
        if not self._promise:
            raise ConfigError(f"seed {scenario.seed} holds: there is nothing to shrink")

    def run(self) -> Shrunk:
        self._tell(f"fails by {self._promise!r}: {size_words(self._best, self._result)}")
        is_done = False
        try:
            for _ in range(_ROUNDS):
                before = self._best
                for part in (
                    self._cut_tail,
                    self._drop_kinds,
                    self._drop_servers,
                    self._drop_strikes,
                    self._drop_clients,
                    self._drop_operations,
                    self._drop_settings,
                    self._calm_schedule,
                ):
                    part()
                if self._best == before:
                    break
            is_done = True
        except _TimeIsUp:
            self._tell("time is up")
        return Shrunk(self._best, self._result, self._tries, is_done)

    # -- parts -----------------------------------------------------------------------------------

    def _cut_tail(self) -> None:
        ends = self._result.virtual_seconds
        if ends < self._best.seconds:
            self._try("tail", seconds=ends + 0.001)
            return
        whole = self._best.seconds
        if whole < _SHORT:
            return
        for share in (0.1, 0.2, 0.35, 0.5, 0.7, 0.85):
            if self._try("tail", seconds=whole * share):
                return

    def _drop_kinds(self) -> None:
        def without_others(kept: Sequence[int]) -> bool:
            return self._try("fault kinds", faults=tuple(faults[number] for number in kept))

        faults = self._best.faults
        self._minimize(range(len(faults)), without_others)

    def _drop_strikes(self) -> None:
        faults = self._best.faults

        def only(kept: Sequence[tuple[int, int]]) -> bool:
            strikes = {number: tuple(s for n, s in kept if n == number) for number in range(len(faults))}
            return self._try(
                "strikes", faults=tuple(replace(spec, only=strikes[n]) for n, spec in enumerate(faults))
            )

        struck = list(self._result.strikes)
        if struck and self._try_equal("strikes that happened", only, struck):
            self._minimize(struck, only)
            self._drop_kinds()  # of which no strike is left

    def _drop_clients(self) -> None:
        clients = self._best.clients

        def only(kept: Sequence[int]) -> bool:
            silent = (
                spec if number in kept else replace(spec, only=()) for number, spec in enumerate(clients)
            )
            return self._try("clients", clients=tuple(silent))

        self._minimize([n for n, spec in enumerate(clients) if spec.only != ()], only)
        while self._best.clients and self._best.clients[-1].only == ():
            if not self._try("silent clients", clients=self._best.clients[:-1]):
                break

    def _drop_operations(self) -> None:
        clients = self._best.clients

        def only(kept: Sequence[tuple[int, int]]) -> bool:
            done = {number: tuple(o for n, o in kept if n == number) for number in range(len(clients))}
            return self._try(
                "operations", clients=tuple(replace(spec, only=done[n]) for n, spec in enumerate(clients))
            )

        begun = [
            (number, operation)
            for number, (spec, last) in enumerate(zip(clients, self._result.begun, strict=True))
            for operation in range(1, last + 1)
            if spec.only is None or operation in spec.only
        ]
        if begun and self._try_equal("operations that were begun", only, begun):
            self._minimize(begun, only)

    def _drop_servers(self) -> None:
        for servers in range(1, self._best.servers):
            if self._try("servers", servers=servers):
                return

    def _drop_settings(self) -> None:
        if self._best.preempt_lines:
            self._try("switches between lines", preempt_lines=0.0)
        if self._best.policy != "random":
            self._try("policy", policy="random", policy_parameters={})
        if self._best.config and not self._try("settings", config={}):
            for name in list(self._best.config):
                self._try("settings", config={n: v for n, v in self._best.config.items() if n != name})

    def _calm_schedule(self) -> None:
        if self._best.calm:
            return
        if self._try("schedule choices", calm=((0, _FOREVER),)):
            return
        decisions = 2 * self._result.steps
        self._calm(0, decisions // 2, 1)
        self._calm(decisions // 2, _FOREVER, 1, decisions)

    def _calm(self, first: int, end: int, depth: int, until: int | None = None) -> None:
        stretches = _joined([*self._best.calm, (first, end)])
        if self._try("schedule choices", calm=stretches) or depth >= _FINEST:
            return
        middle = (first + (end if until is None else until)) // 2
        if first < middle < end:
            self._calm(first, middle, depth + 1)
            self._calm(middle, end, depth + 1, until)

    # -- tools -----------------------------------------------------------------------------------

    def _minimize(self, items: Sequence[_T], fails: Callable[[Sequence[_T]], bool]) -> None:
        """Leave out as many as possible (ddmin: Zeller and Hildebrandt, 2002), beginning with all."""
        left = list(items)
        if not left or fails([]):
            return
        parts = 2
        while len(left) > 1:
            size = -(-len(left) // parts)
            for first in range(0, len(left), size):
                kept = left[:first] + left[first + size :]
                if fails(kept):
                    left, parts = kept, max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    return
                parts = min(2 * parts, len(left))

    def _try_equal(self, what: str, only: Callable[[Sequence[_T]], bool], items: Sequence[_T]) -> bool:
        """Name what happened anyway, which changes nothing; False if it does all the same."""
        if only(items):
            return True
        self._tell(f"naming the {what} changes the failure: they stay")
        return False

    def _try(self, what: str, **changes: object) -> bool:
        """Whether the scenario fails the same way with ``changes``; then it is the best so far."""
        candidate: Scenario = replace(self._best, **changes)  # type: ignore[arg-type]
        if candidate == self._best:
            return False
        if monotonic() >= self._until:
            raise _TimeIsUp
        self._tries += 1
        result = run_scenario(candidate, self._fsm)
        if result.promise != self._promise:
            return False
        self._best, self._result = candidate, result
        self._tell(f"{self._tries:5} runs, fewer {what}: {size_words(candidate, result)}")
        return True


def _joined(stretches: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(stretches):
        if joined and joined[-1][1] >= first:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return tuple(joined)


def size_of(scenario: Scenario, result: RunResult) -> dict[str, float]:
    """How large a scenario is, by what can be left out of it."""
    strikes = len(result.strikes)
    operations = sum(
        last if spec.only is None else sum(1 for number in spec.only if number <= last)
        for spec, last in zip(scenario.clients, result.begun, strict=True)
    )
    return {
        "servers": scenario.servers,
        "virtual s": round(result.virtual_seconds, 3),
        "fault kinds": len(scenario.faults),
        "strikes": strikes,
        "operations": operations,
        "steps": result.steps,
    }


def size_words(scenario: Scenario, result: RunResult) -> str:
    """The size in a line."""
    return ", ".join(f"{number:g} {what}" for what, number in size_of(scenario, result).items())
