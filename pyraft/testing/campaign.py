"""Many seeds, one after the other on every worker, until they are through, time is up, or somebody says stop."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any

from ..errors import ConfigError
from .campaign_worker import Report, Worker
from .options import Options

_VERSION = 1
_SAVE_EVERY = 2.0  # seconds
_LOOK_EVERY = 0.25  # seconds


@dataclass
class Totals:
    """What many runs gave together.

    Attributes:
        seeds: how many have been run (once more to compare does not count).
        failures: seed -> the first promise that did not hold.
        coverage: situation -> (how often, in how many seeds).
        compared: how many seeds were run twice.
        seconds: real ones, of all campaigns that this one resumed.
    """

    seeds: int = 0
    failures: dict[int, str] = field(default_factory=dict)
    coverage: dict[str, tuple[int, int]] = field(default_factory=dict)
    compared: int = 0
    steps: int = 0
    operations: int = 0
    virtual_seconds: float = 0.0
    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, report: Report) -> None:
        """Count what became of a seed."""
        self.seeds += 1
        self.steps += report.steps
        self.operations += report.operations
        self.virtual_seconds += report.virtual_seconds
        self.cpu_seconds += report.cpu_seconds
        for situation, times in (report.coverage or {}).items():
            often, seeds = self.coverage.get(situation, (0, 0))
            self.coverage[situation] = often + times, seeds + 1
        if report.failure:
            self.failures[report.seed] = report.failure


@dataclass(frozen=True)
class Plan:
    """Which seeds to run, and when to stop.

    Attributes:
        first, end: seeds from ``first`` up to, not including, ``end``; None = without end.
        budget: real seconds after which no further seed begins, once ``at_least`` have.
        compare_every: run every so many seeds twice and compare; 0 = none.
        keep: where scenarios that fail are written.
        resume: the file that says how far a campaign came.
        fail_fast: begin nothing more after a failure.
    """

    first: int
    end: int | None
    jobs: int = 1
    budget: float | None = None
    at_least: int = 0
    compare_every: int = 0
    keep: Path | None = None
    resume: Path | None = None
    fail_fast: bool = False
    hang_after: float = 900.0


class Campaign:
    """Runs a plan.

    Attributes:
        totals: what it gave so far.
        planned: how many seeds it will run at most; None = without end.
        is_stopped: whether somebody said stop.
    """

    def __init__(
        self,
        plan: Plan,
        options: Options,
        on_report: Callable[[Report], None] = lambda report: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over what an earlier campaign wrote to ``plan.resume``.

        Args:
            on_report: called with what became of each seed, soon after.
            on_tick: called several times a second.

        Raises:
            ConfigError: that file is of other options, or no such file; a folder cannot be written.
        """
        self.totals = Totals()
        self.is_stopped = False
        self._plan = plan
        self._options = options
        self._on_report = on_report
        self._on_tick = on_tick
        self._next = plan.first
        self._done_above: list[int] = []  # a heap: done, and larger than the smallest that is not
        self._done_below = plan.first  # all smaller ones are done
        self._again: list[int] = []  # to be run a second time
        self._digests: dict[int, int] = {}
        self._began = self._saved = monotonic()
        self._taken = 0
        if plan.keep is not None:
            _make_folder(plan.keep)
        if plan.resume is not None:
            _make_folder(plan.resume.absolute().parent)
            self._read(plan.resume)
            self._save()
        self._earlier_seconds = self.totals.seconds
        self._seeds = self._remaining()
        self.planned = None if plan.end is None else max(plan.end - plan.first, 0)

    def stop(self) -> None:
        """Let ``run`` return soon; seeds under way count as not run.  From a signal handler or a callback."""
        self.is_stopped = True

    def run(self) -> None:
        """Run until the plan is done or ``stop`` was called; no process is left afterwards."""
        self._began = monotonic()
        workers: list[Worker] = []
        try:
            for number in range(self._plan.jobs):
                workers.append(Worker(number, self._options, self._plan.hang_after))
            self._serve(workers)
        finally:
            for worker in workers:
                worker.end()
            self._note_time()
            self._save()

    def _serve(self, workers: list[Worker]) -> None:
        for worker in workers:
            self._give_work(worker)
        while not self.is_stopped and any(worker.seed is not None for worker in workers):
            by_connection: dict[Any, int] = {
                worker.connection: place for place, worker in enumerate(workers) if worker.seed is not None
            }
            for ready in wait(list(by_connection), _LOOK_EVERY):
                place = by_connection[ready]
                worker = workers[place]
                again, report = worker.again, worker.report()
                if not worker.is_alive:
                    worker = workers[place] = worker.renewed()
                self._take_in(report, again)
                self._give_work(worker)
                for other in workers:
                    if other.seed is None:
                        self._give_work(other)
            self._note_time()
            self._on_tick()
            if monotonic() - self._saved >= _SAVE_EVERY:
                self._save()

    def _give_work(self, worker: Worker) -> None:
        if self._again:
            worker.run(self._again.pop(0), again=True)
            return
        if self._is_over():
            return
        seed = next(self._seeds, None)
        if seed is not None:
            self._taken += 1
            worker.run(seed)

    def _is_over(self) -> bool:
        plan = self._plan
        if plan.fail_fast and self.totals.failures:
            return True
        if plan.budget is None or self._taken < plan.at_least:
            return False
        return monotonic() - self._began >= plan.budget

    def _remaining(self) -> Iterator[int]:
        done = set(self._done_above)
        seed, end = self._done_below, self._plan.end
        while end is None or seed < end:
            if seed not in done:
                yield seed
            seed += 1

    def _take_in(self, report: Report, again: bool) -> None:
        if again:
            self._compare(report)
            return
        self.totals.add(report)
        every = self._plan.compare_every
        if every and report.seed % every == 0 and report.digest:
            self._digests[report.seed] = report.digest
            self._again.append(report.seed)
        heapq.heappush(self._done_above, report.seed)
        while self._done_above and self._done_above[0] <= self._done_below:
            self._done_below = max(self._done_below, heapq.heappop(self._done_above) + 1)
        if report.failure:
            self._keep(report)
        self._on_report(report)

    def _compare(self, report: Report) -> None:
        self.totals.compared += 1
        self.totals.cpu_seconds += report.cpu_seconds
        self.totals.steps += report.steps
        self.totals.virtual_seconds += report.virtual_seconds
        digest = self._digests.pop(report.seed)
        if digest == report.digest:
            return
        what = f"not deterministic: the digest was {digest:016x}, and {report.digest:016x} when run again"
        scenario = self._options.scenario(report.seed).to_json()
        failed = Report(report.seed, failure=what, story=what, scenario=scenario)
        self.totals.failures[report.seed] = what
        self._keep(failed)
        self._on_report(failed)

    def _keep(self, report: Report) -> None:
        folder = self._plan.keep
        if folder is not None:
            (folder / f"seed-{report.seed}.json").write_text(report.scenario + "\n", encoding="utf-8")
            (folder / f"seed-{report.seed}.txt").write_text(report.story + "\n", encoding="utf-8")

    def _note_time(self) -> None:
        self.totals.seconds = self._earlier_seconds + monotonic() - self._began

    # -- the file to resume from -----------------------------------------------------------------

    def _save(self) -> None:
        """Write how far we are, whole or not at all."""
        self._saved = monotonic()
        path = self._plan.resume
        if path is None:
            return
        state = {
            "version": _VERSION,
            "options": self._options.words(),
            "done_below": self._done_below,
            "done_above": sorted(self._done_above),
            "totals": vars(self.totals),
        }
        beside = path.with_name(path.name + ".new")
        beside.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        try:
            state = json.loads(text)
            options = state["options"]
            totals = Totals(**state["totals"])
            totals.failures = {int(seed): what for seed, what in totals.failures.items()}
            totals.coverage = {name: (often, seeds) for name, (often, seeds) in totals.coverage.items()}
            below, above = int(state["done_below"]), [int(seed) for seed in state["done_above"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path} is not a file of `run --resume`: {error!r}") from error
        if options != self._options.words():
            raise ConfigError(
                f"{path} is of a run with other options ({options.strip() or 'none'}): "
                f"give the same, or another file"
            )
        self.totals = totals
        self._done_below, self._done_above = max(below, self._plan.first), above
        heapq.heapify(self._done_above)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error}") from error
