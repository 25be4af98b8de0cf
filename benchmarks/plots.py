"""Pictures of a run's tables.  Needs matplotlib, which nothing else here does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .plan import Group
from .subjects import Subject
from .tables import Values, failover_seconds

_COLOURS = {
    "lmdb": "tab:blue",
    "memory": "tab:cyan",
    "boltdb": "tab:orange",
    "boltdb-cached": "tab:brown",
    "wal": "tab:green",
    "wal-cached": "tab:olive",
    "journal": "tab:gray",
}


def is_possible() -> bool:
    try:
        import matplotlib
    except ImportError:
        return False
    return bool(matplotlib)


def draw(groups: Sequence[Group], values: Values, folder: Path, command: str) -> list[Path]:
    """Write every picture that there are figures for; return their paths.

    Args:
        command: what made the figures; it stands below each picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made = []
    for name, plot in PICTURES.items():
        figure, axes = pyplot.subplots(figsize=(10, 5.5))
        if plot(axes, groups, values):
            axes.grid(True, alpha=0.3)
            figure.text(0.01, 0.01, command, fontsize=7, color="gray")
            figure.tight_layout(rect=(0, 0.03, 1, 1))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=110)
            made.append(path)
        pyplot.close(figure)
    return made


def throughput_over_clients(axes: Any, groups: Sequence[Group], values: Values) -> bool:
    group = _named(groups, "load")
    if group is None:
        return False
    for subject in _shown(group):
        _line(axes, _points(group, subject, values, "clients", "per_second"), subject)
        if subject.library == "pyraft":
            dots = _points(group, subject, values, "tasks", "per_second")
            _line(
                axes,
                dots,
                subject,
                f"{subject.title}, asyncio tasks",
                "x" if subject.transport == "tcp" else "+",
            )
    axes.set(xscale="log", yscale="log", xlabel="clients, each waiting for its own command")
    axes.set(ylabel="commands per second", title="Throughput over clients: 3 servers, 128-byte commands")
    return _legend(axes)


def latency_over_load(axes: Any, groups: Sequence[Group], values: Values) -> bool:
    group = _named(groups, "load")
    if group is None:
        return False
    for subject in _shown(group):
        rates = _points(group, subject, values, "clients", "per_second")
        times = dict(_points(group, subject, values, "clients", "p50_us"))
        points = [(rate, times[number] / 1000) for number, rate in rates if number in times]
        _line(axes, points, subject)
    axes.set(xscale="log", yscale="log", xlabel="commands per second", ylabel="p50 latency, milliseconds")
    axes.set(title="Latency over load: 16 to 4,096 blocking clients")
    return _legend(axes)


def scaling_with_servers(axes: Any, groups: Sequence[Group], values: Values) -> bool:
    scaled = [group for group in groups if group.name.startswith("servers-")]
    subjects = dict.fromkeys(subject for group in scaled for subject in group.subjects)
    for subject in subjects:
        points = []
        for group in scaled:
            best = [
                median(by_round.values())
                for (name, _, whose, figure), by_round in values.items()
                if (name, whose, figure) == (group.name, subject.name, "per_second")
            ]
            if best:
                points.append((float(group.servers), max(best)))
        _line(axes, points, subject)
    axes.set(xlabel="servers", ylabel="commands per second, largest", title="Throughput over servers")
    axes.set(yscale="log", xticks=sorted({group.servers for group in scaled}))
    return _legend(axes)


def scaling_with_size(axes: Any, groups: Sequence[Group], values: Values) -> bool:
    group = _named(groups, "sizes")
    if group is None:
        return False
    for subject in group.subjects:
        points = [
            (float(work.arguments["size"]), median(by_round.values()) * work.arguments["size"] / 1e6)
            for work in group.works
            if work.name.startswith("outstanding")
            and (by_round := values.get((group.name, work.name, subject.name, "per_second")))
        ]
        _line(axes, points, subject)
    axes.set(xscale="log", yscale="log", xlabel="bytes of a command", ylabel="MB of commands per second")
    axes.set(title="Throughput over size: one producer")
    return _legend(axes)


def failover(axes: Any, groups: Sequence[Group], values: Values) -> bool:
    group = _named(groups, "failover")
    if group is None:
        return False
    found = [(subject, failover_seconds(group, subject, values)) for subject in group.subjects]
    found = [(subject, seconds) for subject, seconds in found if seconds]
    if not found:
        return False
    axes.boxplot([seconds for _, seconds in found], orientation="horizontal", whis=(0, 100))
    axes.set_yticklabels([f"{subject.title}\n{len(seconds)} kills" for subject, seconds in found])
    axes.set(xlabel="seconds from the leader's SIGKILL to the next acknowledged write", title="Failover")
    axes.set_xlim(left=0)
    return True


PICTURES: dict[str, Callable[[Any, Sequence[Group], Values], bool]] = {
    "throughput-over-clients": throughput_over_clients,
    "latency-over-load": latency_over_load,
    "scaling-with-servers": scaling_with_servers,
    "scaling-with-size": scaling_with_size,
    "failover": failover,
}


def _named(groups: Sequence[Group], name: str) -> Group | None:
    return next((group for group in groups if group.name == name), None)


def _shown(group: Group) -> list[Subject]:
    return [subject for subject in group.subjects if subject.store != "memory"]


def _points(
    group: Group, subject: Subject, values: Values, workload: str, figure: str
) -> list[tuple[float, float]]:
    points = []
    for work in group.works:
        by_round = values.get((group.name, work.name, subject.name, figure))
        if work.workload == workload and work.name.startswith(f"{workload}-") and by_round:
            points.append((float(work.arguments["clients"]), median(by_round.values())))
    return points


def _line(
    axes: Any, points: list[tuple[float, float]], subject: Subject, label: str = "", marker: str = ""
) -> None:
    """Colour: the store; marker: the transport; thick: this library; dashed: the others at their defaults."""
    if not points:
        return
    is_ours = subject.library == "pyraft"
    axes.plot(
        *zip(*points, strict=True),
        linestyle="-" if is_ours or subject.tuned else "--",
        color=_COLOURS[subject.store],
        linewidth=2.4 if is_ours else 1.2,
        marker=marker or {"tcp": "o", "grpc": "s"}[subject.transport],
        markersize=5,
        label=label or subject.title,
    )


def _legend(axes: Any) -> bool:
    """Whether there is anything in the picture."""
    if not axes.get_legend_handles_labels()[0]:
        return False
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return True
