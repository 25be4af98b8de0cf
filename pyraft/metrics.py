"""What a server counts: plain numbers, written by one thread each and read by anybody.

``METRICS`` is the table of all names.  Nothing is exported here: read ``Raft.metrics()``.

Times are counted per batch or request and never per command, with a clock that nothing is
decided by, so that counting costs next to nothing and changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

COUNTER = "counter"
GAUGE = "gauge"
HISTOGRAM = "histogram"

ENTRIES = "entries"
BYTES = "bytes"
SECONDS = "seconds"
TIMES = "times"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: a name, its kind, its unit and what it says.

    A counter only grows, a gauge is what it is now.  A histogram named ``x`` is several numbers:
    ``x_count``, how many were measured; ``x_sum``, all of them together; and for each of
    ``BOUNDS`` ``x_le_<bound>``, how many of them were at most that.
    """

    name: str
    kind: str
    unit: str
    meaning: str


METRICS = (
    Metric("elections_total", COUNTER, TIMES, "This server stood for election, pre-votes not counted."),
    Metric("leaderships_total", COUNTER, TIMES, "This server became leader."),
    Metric("appended_entries_total", COUNTER, ENTRIES, "Appended by this server as leader."),
    Metric("appended_batches_total", COUNTER, TIMES, "It wrote its log as leader; entries share that."),
    Metric("received_entries_total", COUNTER, ENTRIES, "Stored by this server as follower."),
    Metric("rejected_rpcs_total", COUNTER, TIMES, "A request was turned away: too many bytes waited."),
    Metric(
        "main_lateness_seconds",
        GAUGE,
        SECONDS,
        "How late the main thread woke for its latest timer: time it waited for the interpreter.",
    ),
    Metric("main_lateness_max_seconds", GAUGE, SECONDS, "The largest lateness since the start."),
    Metric("log_write_latest_seconds", GAUGE, SECONDS, "How long the latest log write took."),
    Metric("log_write_max_seconds", GAUGE, SECONDS, "The longest log write since the start."),
    Metric("proposals_waiting", GAUGE, ENTRIES, "Commands accepted by apply() and not yet in the log."),
    Metric("proposals_waiting_bytes", GAUGE, BYTES, "Their bytes."),
    Metric("unapplied_entries", GAUGE, ENTRIES, "Committed, and not applied by the FSM yet."),
    Metric(
        "queue_seconds",
        HISTOGRAM,
        SECONDS,
        "How long about the oldest command of each batch waited before the leader took it.",
    ),
    Metric("log_write_seconds", HISTOGRAM, SECONDS, "Each log write, on leaders and followers."),
    Metric(
        "replication_seconds",
        HISTOGRAM,
        SECONDS,
        "From sending entries to a peer to its answer that they are durable, each request.",
    ),
    Metric("commit_seconds", HISTOGRAM, SECONDS, "From appending to committing, each entry of this leader."),
    Metric("apply_seconds", HISTOGRAM, SECONDS, "The FSM's time for the entries that it gets at once."),
    Metric("read_round_seconds", HISTOGRAM, SECONDS, "Each question for a read index; reads share them."),
    Metric("capture_seconds", HISTOGRAM, SECONDS, "Each FSM.snapshot(): commands wait for it."),
    Metric("snapshot_seconds", HISTOGRAM, SECONDS, "Writing each snapshot that this server took."),
    Metric("restore_seconds", HISTOGRAM, SECONDS, "Each FSM.restore() while running: commands wait for it."),
)

BOUNDS = tuple(digit * 10.0**power for power in range(-5, 2) for digit in (1, 2, 5))
"""Of every histogram, in seconds: 10 µs to 50 s.  What is longer counts in ``_count`` only."""

_LE = tuple(f"_le_{bound:.5f}".rstrip("0").rstrip(".") for bound in BOUNDS)
"""What stands behind a histogram's name for each bound: "_le_0.00001" to "_le_50"."""


class Histogram:
    """How many measurements fell between the bounds.  One thread writes."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Note ``count`` measurements of ``seconds`` each."""
        self.counts[bisect_left(BOUNDS, seconds)] += count
        self.sum += seconds * count

    def numbers(self, name: str) -> Iterator[tuple[str, int | float]]:
        """What ``Raft.metrics()`` has of it."""
        *upto, total = accumulate(self.counts)
        yield f"{name}_count", total
        yield f"{name}_sum", self.sum
        for suffix, count in zip(_LE, upto, strict=True):
            yield name + suffix, count


def quantile(numbers: Mapping[str, int | float], name: str, share: float) -> float | None:
    """About how many seconds the share ``share`` (0.99: all but one in a hundred) took at most.

    Exact to the bounds of the histogram ``name``, interpolated in between; None if it counted
    nothing.  Give the differences of two ``Raft.metrics()`` to look at the time between them.

    Raises:
        KeyError: ``numbers`` has no such histogram.
    """
    wanted = share * numbers[f"{name}_count"]
    if not wanted:
        return None
    lower, before = 0.0, 0.0
    for bound, suffix in zip(BOUNDS, _LE, strict=True):
        upto = numbers[name + suffix]
        if upto >= wanted:
            return lower + (bound - lower) * (wanted - before) / (upto - before)
        lower, before = bound, upto
    return BOUNDS[-1]


_HISTOGRAMS = tuple(metric.name for metric in METRICS if metric.kind == HISTOGRAM)


class Metrics:
    """The numbers of one server; the table's gauges about queues are read when asked for."""

    __slots__ = (
        "appended_batches_total",
        "appended_entries_total",
        "apply_seconds",
        "capture_seconds",
        "commit_seconds",
        "elections_total",
        "leaderships_total",
        "log_write_latest_seconds",
        "log_write_max_seconds",
        "log_write_seconds",
        "main_lateness_max_seconds",
        "main_lateness_seconds",
        "queue_seconds",
        "read_round_seconds",
        "received_entries_total",
        "rejected_rpcs_total",
        "replication_seconds",
        "restore_seconds",
        "snapshot_seconds",
    )

    def __init__(self) -> None:
        self.elections_total = 0
        self.leaderships_total = 0
        self.appended_entries_total = 0
        self.appended_batches_total = 0
        self.received_entries_total = 0
        self.rejected_rpcs_total = 0
        self.main_lateness_seconds = 0.0
        self.main_lateness_max_seconds = 0.0
        self.log_write_latest_seconds = 0.0
        self.log_write_max_seconds = 0.0
        # The main thread's:
        self.queue_seconds = Histogram()
        self.log_write_seconds = Histogram()
        self.replication_seconds = Histogram()
        self.commit_seconds = Histogram()
        # The FSM thread's:
        self.apply_seconds = Histogram()
        self.capture_seconds = Histogram()
        self.restore_seconds = Histogram()
        # The read thread's and the snap thread's:
        self.read_round_seconds = Histogram()
        self.snapshot_seconds = Histogram()

    def main_woke_late(self, seconds: float) -> None:
        """Main thread only."""
        self.main_lateness_seconds = seconds
        if seconds > self.main_lateness_max_seconds:
            self.main_lateness_max_seconds = seconds

    def log_written(self, seconds: float) -> None:
        """Main thread only."""
        self.log_write_seconds.add(seconds)
        self.log_write_latest_seconds = seconds
        if seconds > self.log_write_max_seconds:
            self.log_write_max_seconds = seconds

    def as_dict(self) -> dict[str, int | float]:
        """All of them, in a dict of its own."""
        numbers: dict[str, int | float] = {
            name: getattr(self, name) for name in self.__slots__ if name not in _HISTOGRAMS
        }
        for name in _HISTOGRAMS:
            histogram: Histogram = getattr(self, name)
            numbers.update(histogram.numbers(name))
        return numbers
