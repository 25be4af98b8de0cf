"""What goes into the pictures, drawn on axes that only remember."""

from benchmarks import plots, tables
from benchmarks.plan import LOAD, Group, failover, scaling, sizes
from benchmarks.results import Session
from benchmarks.subjects import EVERY, OURS_TCP

GO = EVERY["hashicorp-boltdb-tcp"]
SUBJECTS = [OURS_TCP, GO]


class Axes:
    """Remembers the lines and boxes."""

    def __init__(self) -> None:
        self.lines: dict[str, tuple[list[float], list[float]]] = {}
        self.boxes: list[list[float]] = []

    def plot(self, x, y, *, label, **_):
        self.lines[label] = (list(x), list(y))

    def boxplot(self, data, **_):
        self.boxes = data

    def get_legend_handles_labels(self):
        return list(self.lines), list(self.lines)

    def __getattr__(self, name):
        return lambda *_, **__: None  # titles, scales and the like


def drawn(picture, groups, sessions):
    axes = Axes()
    is_there = plots.PICTURES[picture](axes, groups, tables.values_of(groups, sessions))
    return is_there, axes


def session(which, subject, **figures):
    return Session(which.name, subject.name, 0, which.digest(), figures)


def load():
    return Group("load", SUBJECTS, 3, LOAD)


def test_throughput_has_a_line_for_each_subject_and_one_for_our_tasks():
    which = load()
    found = [
        session(which, OURS_TCP, **{"clients-16": {"per_second": 5.0}, "tasks-1024": {"per_second": 9.0}}),
        session(which, GO, **{"clients-16": {"per_second": 4.0}, "clients-64": {"per_second": 8.0}}),
    ]

    is_there, axes = drawn("throughput-over-clients", [which], found)

    assert is_there
    assert axes.lines == {
        OURS_TCP.title: ([16.0], [5.0]),
        f"{OURS_TCP.title}, asyncio tasks": ([1024.0], [9.0]),
        GO.title: ([16.0, 64.0], [4.0, 8.0]),
    }


def test_latency_stands_over_the_throughput_of_the_same_load():
    which = load()
    found = [session(which, GO, **{"clients-16": {"per_second": 4000.0, "p50_us": 2500.0}})]

    _, axes = drawn("latency-over-load", [which], found)

    assert axes.lines == {GO.title: ([4000.0], [2.5])}


def test_scaling_takes_the_best_of_each_number_of_servers():
    groups = scaling(SUBJECTS, (3, 5), 3)
    found = [
        session(which, GO, one={"per_second": 1.0}, **{"clients-256": {"per_second": 100.0 / which.servers}})
        for which in groups
    ]

    _, axes = drawn("scaling-with-servers", groups, found)

    assert axes.lines == {GO.title: ([3.0, 5.0], [100.0 / 3, 20.0])}


def test_sizes_are_shown_in_bytes_per_second():
    which = Group("sizes", SUBJECTS, 3, sizes())
    found = [session(which, GO, **{"outstanding-1024b": {"per_second": 2000.0}})]

    _, axes = drawn("scaling-with-size", [which], found)

    assert axes.lines == {GO.title: ([1024.0], [2.048])}


def test_failover_has_a_box_for_each_subject_that_was_killed():
    which = failover(1)
    found = [session(which, GO, **{"failover-0": {"seconds": 1.5}, "failover-1": {"seconds": 2.0}})]

    is_there, axes = drawn("failover", [which], found)

    assert is_there
    assert axes.boxes == [[1.5, 2.0]]


def test_there_is_no_picture_of_what_was_not_measured():
    for picture in plots.PICTURES:
        assert not drawn(picture, [load(), failover(1), *scaling(SUBJECTS, (3,), 3)], [])[0]
