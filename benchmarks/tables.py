"""What the sessions say: rows for programs, tables for people (Markdown, also readable as it is)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from .plan import Group, Work
from .results import Session
from .statistics import Spread, median_interval, spread
from .subjects import Subject

_COLUMNS = 5
"""Subjects beside each other in one table."""
_LATENCIES = ("p50_us", "p99_us", "p999_us")
_COSTS = {
    "leader_cpu_seconds_per_100k": "leader's CPU seconds per 100,000",
    "follower_cpu_seconds_per_100k": "a follower's CPU seconds per 100,000",
    "written_bytes_per_command": "bytes written to the disk per command, all servers",
    "network_bytes_per_command": "bytes on the network per command, all servers",
    "leader_rss_anon_mib": "leader's anonymous memory, MiB",
    "follower_rss_anon_mib": "a follower's anonymous memory, MiB",
}
_PLAIN = (
    "p99_times",
    "p50_us",
    "per_second",
    "seconds",
    "core_percent",
    "leader_grew_mib",
    *list(_COSTS)[-2:],
)

Values = dict[tuple[str, str, str, str], dict[int, float]]
"""By group, work, subject and figure: the value of each round."""


def values_of(groups: Iterable[Group], sessions: Iterable[Session]) -> Values:
    """Every figure of the sessions that belong to ``groups`` and are not void."""
    wanted = {(group.name, group.digest()) for group in groups}
    found: Values = {}
    for session in sessions:
        if session.void or (session.group, session.digest) not in wanted:
            continue
        for work, figures in session.figures.items():
            for name, value in figures.items():
                key = (session.group, work, session.subject, name)
                found.setdefault(key, {})[session.round] = value
    return found


def rows(values: Values) -> list[dict[str, Any]]:
    """For programs: one row for each figure, with the median, the range and every round."""
    made = []
    for (group, work, subject, name), by_round in values.items():
        each = [by_round[round] for round in sorted(by_round)]
        row = {"group": group, "work": work, "subject": subject, "figure": name, "values": each}
        made.append({**row, **vars(spread(each))})
    return made


def report(groups: Sequence[Group], sessions: Sequence[Session]) -> str:
    """Every table that the groups' kinds have."""
    values = values_of(groups, sessions)
    parts = []
    for group in groups:
        if group.kind == "load":
            parts += load_tables(group, values)
            parts += cost_tables(group, values)
        elif group.kind == "failover":
            parts.append(failover_table(group, values))
        else:
            parts += plain_tables(group, values)
    parts += void_lines(groups, sessions)
    return "\n\n".join(parts)


def load_tables(group: Group, values: Values) -> list[str]:
    """Latency or throughput of each work; the largest throughput at the end."""
    lines: list[list[str]] = []
    for work in group.works:
        lines.append([work.title, *(_cell(values, group, work, subject) for subject in group.subjects)])
        if work.name == "one":
            for figure, title in (("p99_us", "p99"), ("p999_us", "p99.9")):
                cells = [_figure(values, group, work.name, subject, figure) for subject in group.subjects]
                lines.append([f"one at a time, {title}", *cells])
    peaks = [peak(values, group, subject) for subject in group.subjects]
    lines.append(["largest throughput", *("–" if each is None else rate(each) for each in peaks)])
    return _in_columns(_heading(group), group.subjects, lines)


def peak(values: Values, group: Group, subject: Subject) -> float | None:
    """The largest median throughput of any work with plain commands."""
    medians = [
        median(by_round.values())
        for (name, work, whose, figure), by_round in values.items()
        if (name, whose, figure) == (group.name, subject.name, "per_second")
        and work.startswith(("clients", "tasks", "outstanding"))
    ]
    return max(medians, default=None)


def cost_tables(group: Group, values: Values) -> list[str]:
    """What the works with the most on their way cost in CPU, disk, network and memory."""
    tables = []
    for work in group.works:
        if work.name not in ("one", "outstanding-1024"):
            continue
        lines = []
        for figure, title in _COSTS.items():
            cells = []
            for subject in group.subjects:
                by_round = values.get((group.name, work.name, subject.name, figure))
                cells.append("–" if not by_round else number(median(by_round.values())))
            lines.append([title, *cells])
        tables += _in_columns(f"### {group.name}: what it costs, {work.title}", group.subjects, lines)
    return tables


def plain_tables(group: Group, values: Values) -> list[str]:
    """A row for every work and each of its figures that says something new."""
    lines = []
    names = dict.fromkeys((work, figure) for name, work, _, figure in values if name == group.name)
    for work, figure in names:
        shown = (*_PLAIN, *_LATENCIES) if group.kind == "disturbed" else _PLAIN
        if figure not in shown or (figure == "per_second" and (work, "p50_us") in names):
            continue
        cells = [_figure(values, group, work, subject, figure) for subject in group.subjects]
        lines.append([f"{work}, {figure.replace('_', ' ')}", *cells])
    return _in_columns(_heading(group), group.subjects, lines)


def failover_seconds(group: Group, subject: Subject, values: Values) -> list[float]:
    """Of every kill in every round."""
    return [
        value
        for (name, _, whose, figure), by_round in values.items()
        if (name, whose, figure) == (group.name, subject.name, "seconds")
        for value in by_round.values()
    ]


def failover_table(group: Group, values: Values) -> str:
    lines = ["| | kills | median | 95 % interval of the median | range |", "|---|---|---|---|---|"]
    for subject in group.subjects:
        seconds = failover_seconds(group, subject, values)
        if seconds:
            low, high = median_interval(seconds)
            lines.append(
                f"| {subject.title} | {len(seconds)} | {median(seconds):.2f} s | {low:.2f}–{high:.2f} s "
                f"| {min(seconds):.2f}–{max(seconds):.2f} s |"
            )
    return f"{_heading(group)}\n\n" + "\n".join(lines)


def void_lines(groups: Sequence[Group], sessions: Sequence[Session]) -> list[str]:
    """Which rounds are void, and why: nothing is swept under the carpet."""
    wanted = {(group.name, group.digest()) for group in groups}
    lines = [
        f"- {session.group}, round {session.round + 1}, {session.subject}: {_last_line(session.void)}"
        for session in sessions
        if session.void and (session.group, session.digest) in wanted
    ]
    return ["### Void attempts\n\n" + "\n".join(lines)] if lines else []


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200]


def _heading(group: Group) -> str:
    return f"### {group.name}: {group.servers} server{'s' if group.servers > 1 else ''}"


def _cell(values: Values, group: Group, work: Work, subject: Subject) -> str:
    return _figure(values, group, work.name, subject, work.figure)


def _figure(values: Values, group: Group, work: str, subject: Subject, figure: str) -> str:
    by_round = values.get((group.name, work, subject.name, figure))
    if not by_round:
        return "failed" if (group.name, work, subject.name, "failed") in values else "–"
    return with_range(spread(list(by_round.values())), figure)


def with_range(found: Spread, figure: str) -> str:
    """``12.3 k/s (11.0–14.1)``; without a range if there was one round only."""
    if figure in _LATENCIES:
        show, unit = microseconds(found.median)
        scale = 1 if unit == "µs" else 1000
        outside = f"{found.low / scale:,.4g}–{found.high / scale:,.4g}"
        text = f"{show} {unit}"
    elif figure == "per_second":
        scale = 1000 if found.median >= 1000 else 1
        outside = f"{found.low / scale:.3g}–{found.high / scale:.3g}"
        text = rate(found.median)
    else:
        text, outside = number(found.median), f"{number(found.low)}–{number(found.high)}"
    return text if found.rounds == 1 else f"{text} ({outside})"


def rate(per_second: float) -> str:
    return f"{per_second / 1000:.1f} k/s" if per_second >= 1000 else f"{per_second:.0f} /s"


def microseconds(value: float) -> tuple[str, str]:
    return (f"{value:,.0f}", "µs") if value < 10_000 else (f"{value / 1000:,.0f}", "ms")


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _in_columns(heading: str, subjects: Sequence[Subject], lines: list[list[str]]) -> list[str]:
    """Tables of at most ``_COLUMNS`` subjects each, without rows that nobody has a value in."""
    tables = []
    for first in range(0, len(subjects), _COLUMNS):
        some = subjects[first : first + _COLUMNS]
        titles = ["", *(subject.title for subject in some)]
        chosen = [[line[0], *line[1 + first : 1 + first + _COLUMNS]] for line in lines]
        chosen = [line for line in chosen if set(line[1:]) != {"–"}]
        if chosen:
            tables.append(f"{heading}\n\n{markdown([titles, *chosen])}")
            heading = f"{heading.removesuffix(', continued')}, continued"
    return tables


def markdown(lines: list[list[str]]) -> str:
    """A table whose columns stand below each other also where nobody renders it."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]

    def row(cells: list[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |"

    rule = (
        "|"
        + "|".join([f":{'-' * (widths[0] + 1)}", *(f"{'-' * (width + 1)}:" for width in widths[1:])])
        + "|"
    )
    return "\n".join([row(lines[0]), rule, *(row(line) for line in lines[1:])])
