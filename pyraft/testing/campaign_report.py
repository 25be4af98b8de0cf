"""What a campaign shows to people: a progress bar or lines, failures as they come, a summary."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from typing import TextIO

from .campaign import Campaign, Totals
from .campaign_worker import Report
from .options import Options

_WIDTH = 24
_LINE_EVERY = 15.0  # seconds, where there is no terminal
_STORY_LINES = 12


class Progress:
    """Shows how far a campaign is: on a terminal in one line that changes, elsewhere in lines."""

    def __init__(self, options: Options, out: TextIO | None = None) -> None:
        self._options = options
        self._out = sys.stdout if out is None else out
        self._is_terminal = self._out.isatty()
        self._shown = monotonic()
        self._bar = ""

    def report(self, report: Report) -> None:
        """Tell of a seed that failed."""
        if not report.failure:
            return
        again = f"--seed {report.seed}{self._options.words()}"
        lines = report.story.rstrip().split("\n")
        described = [line for line in lines if line.strip()][-_STORY_LINES:]
        self._print(
            f"seed {report.seed} fails: {report.failure}\n"
            + "".join(f"  | {line}\n" for line in described)
            + f"  see it:   python -m pyraft.testing replay {again}\n"
            + f"  shrink:   python -m pyraft.testing shrink {again}"
        )

    def tick(self, campaign: Campaign) -> None:
        """Show where the campaign is, if it is time to."""
        now = monotonic()
        if now - self._shown < (0.2 if self._is_terminal else _LINE_EVERY):
            return
        self._shown = now
        line = _progress(campaign)
        if self._is_terminal:
            self._out.write("\r" + line.ljust(len(self._bar)))
            self._bar = line
            self._out.flush()
        else:
            self._print(line)

    def clear(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._out.write("\r" + " " * len(self._bar) + "\r")
            self._bar = ""

    def _print(self, text: str) -> None:
        self.clear()
        print(text, file=self._out, flush=True)


def _progress(campaign: Campaign) -> str:
    totals, planned = campaign.totals, campaign.planned
    failed = f", {len(totals.failures)} failed" if totals.failures else ""
    if planned is None:
        return f"{totals.seeds} seeds{failed}, {_speeds(totals)}"
    filled = int(_WIDTH * min(totals.seeds / max(planned, 1), 1.0))
    bar = "#" * filled + "." * (_WIDTH - filled)
    return f"[{bar}] {totals.seeds}/{planned} seeds{failed}, {_speeds(totals)}"


def _speeds(totals: Totals) -> str:
    seconds = max(totals.seconds, 1e-9)
    steps = totals.steps / max(totals.cpu_seconds, 1e-9)
    return (
        f"{totals.seeds / seconds:.2f} seeds/s, {totals.virtual_seconds / seconds:.1f} virtual s per real s, "
        f"{steps:,.0f} steps/s and core"
    )


def summary(totals: Totals, known: Sequence[str]) -> str:
    """What a campaign gave, with a table of the situations that it reached."""
    held = totals.seeds - len(totals.failures)
    lines = [
        f"{totals.seeds} seeds in {totals.seconds:.1f} s: {held} hold, {len(totals.failures)} fail",
        _speeds(totals),
        f"{totals.steps:,} steps, {totals.virtual_seconds:,.0f} virtual s, {totals.operations:,} operations, "
        f"{totals.cpu_seconds:.1f} s of processor",
    ]
    if totals.compared:
        different = sum(1 for what in totals.failures.values() if what.startswith("not deterministic"))
        verdict = f"{different} differ" if different else "all equal"
        lines.append(f"{totals.compared} seeds run twice and compared: {verdict}")
    lines += _table(totals)
    missing = unreached(totals, known)
    if missing:
        lines.append("never reached: " + ", ".join(missing))
    if totals.failures:
        lines.append("failures:")
        lines += [f"  seed {seed}: {what}" for seed, what in sorted(totals.failures.items())]
    return "\n".join(lines)


def _table(totals: Totals) -> list[str]:
    if not totals.coverage:
        return []
    width = max(len(name) for name in totals.coverage)
    lines = [f"{'situation':{width}}  {'times':>9}  {'seeds':>7}"]
    for name, (often, seeds) in sorted(totals.coverage.items()):
        lines.append(f"{name:{width}}  {often:9,}  {seeds:7,}")
    return lines


def unreached(totals: Totals, known: Sequence[str]) -> list[str]:
    """The known situations that no seed reached."""
    return [name for name in known if not totals.coverage.get(name, (0, 0))[0]]
