"""What a server counts: plain numbers, written by one thread each and read by anybody.

``METRICS`` is the table of all names.  Nothing is exported here: read ``Raft.metrics()``.
"""

from __future__ import annotations

from dataclasses import dataclass

COUNTER = "counter"
GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number: its name (unit last), its kind and what it says."""

    name: str
    kind: str
    meaning: str


METRICS = (
    Metric("elections_total", COUNTER, "Times this server stood for election, pre-votes not counted."),
    Metric("leaderships_total", COUNTER, "Times this server became leader."),
    Metric("appended_entries_total", COUNTER, "Entries this server appended as leader."),
    Metric("appended_batches_total", COUNTER, "Log writes of this server as leader; entries share them."),
    Metric("received_entries_total", COUNTER, "Entries this server stored as follower."),
    Metric("rejected_rpcs_total", COUNTER, "Requests turned away because too many bytes waited."),
    Metric(
        "main_lateness_seconds",
        GAUGE,
        "How late the main thread woke for its latest timer: time it waited for the interpreter.",
    ),
    Metric("main_lateness_max_seconds", GAUGE, "The largest lateness since the start."),
    Metric("log_write_seconds", GAUGE, "How long the latest log write took."),
    Metric("log_write_max_seconds", GAUGE, "The longest log write since the start."),
    Metric("proposals_waiting", GAUGE, "Commands accepted by apply() and not yet in the log."),
    Metric("proposals_waiting_bytes", GAUGE, "Their bytes."),
    Metric("unapplied_entries", GAUGE, "Committed entries that the FSM has not applied yet."),
)


class Metrics:
    """The numbers of one server; the table's gauges about queues are read when asked for."""

    __slots__ = (
        "appended_batches_total",
        "appended_entries_total",
        "elections_total",
        "leaderships_total",
        "log_write_max_seconds",
        "log_write_seconds",
        "main_lateness_max_seconds",
        "main_lateness_seconds",
        "received_entries_total",
        "rejected_rpcs_total",
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
        self.log_write_seconds = 0.0
        self.log_write_max_seconds = 0.0

    def main_woke_late(self, seconds: float) -> None:
        """Main thread only."""
        self.main_lateness_seconds = seconds
        if seconds > self.main_lateness_max_seconds:
            self.main_lateness_max_seconds = seconds

    def log_written(self, seconds: float) -> None:
        """Main thread only."""
        self.log_write_seconds = seconds
        if seconds > self.log_write_max_seconds:
            self.log_write_max_seconds = seconds

    def as_dict(self) -> dict[str, int | float]:
        return {name: getattr(self, name) for name in self.__slots__}
