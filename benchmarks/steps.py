"""``python -m benchmarks.steps [subject]``: where the time of one command goes, step by step.

Three servers, one caller that waits for each command.  Inside of each server, instants are noted at
the hand-overs that every command passes; all processes read one clock, so they can be put in one
line.  What is printed are medians of when each step was reached, counted from the call.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from .subjects import CHECKOUT, EVERY
from .workloads import TIMEOUT, commands

COMMANDS = 2_000
_WARM_UP = 200

LEADER = ("call", "taken", "staged", "sent", "written", "answered", "committed", "applied", "woken")
FOLLOWER = ("decoded", "storing", "stored", "acknowledged")

Marks = dict[str, dict[int, int]]
"""By step and log index: nanoseconds on the clock that all processes share."""


class Recorder:
    """Notes instants in this process.  The earliest or the latest of several counts, as the step wants."""

    def __init__(self) -> None:
        self.marks: Marks = defaultdict(dict)

    def first(self, step: str, index: int) -> None:
        self.marks[step].setdefault(index, time.monotonic_ns())

    def last(self, step: str, index: int) -> None:
        self.marks[step][index] = time.monotonic_ns()


def watch() -> Recorder:
    """Note from now on what the pyraft server in this process does."""
    from pyraft.fsm_runner import FsmRunner
    from pyraft.node_log import NodeLog
    from pyraft.proposals import ProposalQueue
    from pyraft.replicator import Replicator
    from pyraft.roles.leader import Leader
    from pyraft.transport.base import IncomingRpc
    from pyraft.transport.network import NetworkTransport

    recorder = Recorder()
    taken_at = 0

    def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
        inner = getattr(owner, name)
        setattr(owner, name, lambda *arguments, **more: around(inner, *arguments, **more))

    def take(inner: Any, *arguments: Any) -> Any:
        nonlocal taken_at
        taken_at = time.monotonic_ns()
        return inner(*arguments)

    def stage(inner: Any, log: Any, entries: Any) -> Any:
        size = inner(log, entries)
        recorder.marks["taken"][entries[0].index] = taken_at
        recorder.last("staged", entries[0].index)
        return size

    def write_staged(inner: Any, log: Any, *arguments: Any) -> None:
        index = log.last.index
        inner(log, *arguments)
        recorder.last("written", index)

    def note_sent(inner: Any, replicator: Any, stream: Any, request: Any, *arguments: Any) -> None:
        inner(replicator, stream, request, *arguments)
        if request.entries:  # the message is made and handed to the system right after this
            recorder.first("sent", request.entries[0].index)

    def report(inner: Any, replicator: Any, request: Any, *arguments: Any) -> None:
        if request.entries:
            recorder.first("answered", request.entries[0].index)
        inner(replicator, request, *arguments)

    def hand_over(inner: Any, leader: Any, before: int, commit: int) -> None:
        recorder.first("committed", commit)
        inner(leader, before, commit)

    def apply(inner: Any, runner: Any, fsm: Any, logs: Sequence[Any], futures: Any) -> None:
        recorder.first("applied", logs[0].index)
        inner(runner, fsm, logs, futures)

    def deliver(inner: Any, transport: Any, name: str, rpc: Any) -> None:
        if getattr(rpc.request, "entries", ()):
            recorder.first("decoded", rpc.request.entries[0].index)
        inner(transport, name, rpc)

    def replace_suffix(inner: Any, log: Any, entries: Any, *arguments: Any) -> None:
        recorder.first("storing", entries[0].index)
        inner(log, entries, *arguments)
        recorder.last("stored", entries[0].index)

    def respond(inner: Any, rpc: Any, answer: Any) -> None:
        inner(rpc, answer)
        if getattr(rpc.request, "entries", ()):
            recorder.first("acknowledged", rpc.request.entries[0].index)

    wrap(ProposalQueue, "take", take)
    wrap(NodeLog, "stage", stage)
    wrap(NodeLog, "write_staged", write_staged)
    wrap(Replicator, "_note_sent", note_sent)
    wrap(Replicator, "_report", report)
    wrap(Leader, "_hand_over", hand_over)
    wrap(FsmRunner, "_apply_one_by_one", apply)
    wrap(NetworkTransport, "_deliver", deliver)
    wrap(NodeLog, "replace_suffix", replace_suffix)
    wrap(IncomingRpc, "respond", respond)
    return recorder


def call_one_by_one(raft: Any, recorder: Recorder) -> None:
    """The load, on the leader."""
    make = commands(0, 128)
    for _ in range(_WARM_UP + COMMANDS):
        began = time.monotonic_ns()
        future = raft.apply(make())
        future.result(TIMEOUT)
        recorder.last("woken", future.index)
        recorder.marks["call"][future.index] = began


def timeline(leader: Marks, followers: list[Marks]) -> list[tuple[str, str, float]]:
    """Where, which step, and the median of microseconds from the call to it.

    Of the followers, the one counts that acknowledged the command first: with two, it decides.
    """
    indexes = sorted(leader["call"])[_WARM_UP:]
    since: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in indexes:
        faster = min(followers, key=lambda marks: marks["acknowledged"].get(index, 1 << 62))
        for where, steps, marks in (("leader", LEADER, leader), ("follower", FOLLOWER, faster)):
            for step in steps:
                if index in marks[step]:
                    since[where, step].append(marks[step][index] - leader["call"][index])
    middles = [(where, step, median(times) / 1000) for (where, step), times in since.items()]
    return sorted(middles, key=lambda row: row[2])


def main(subject_name: str) -> None:
    from .cluster import Cluster

    with (
        tempfile.TemporaryDirectory(dir=_on_the_disk()) as folder,
        Cluster(EVERY[subject_name], Path(folder)) as cluster,
    ):
        leader = cluster.leader()
        for server in cluster.servers:
            server.ask("watch_steps")
        leader.ask("take_steps")
        cluster.check_equal(exactly=False)
        marks = {server.id: _with_numbers(server.ask("steps")) for server in cluster.servers}
    rows = timeline(marks.pop(leader.id), list(marks.values()))
    print(f"{subject_name}: one command at a time, medians of {COMMANDS:,}, microseconds since the call")
    for where, step, at in rows:
        print(f"{at:8,.0f}  {'':{0 if where == 'leader' else 14}}{where}: {step}")


def _on_the_disk() -> Path:
    """Where other benchmarks have their files: a folder for temporary files may be in memory."""
    home = CHECKOUT / "benchmarks" / "results"
    home.mkdir(exist_ok=True)
    return home


def _with_numbers(marks: dict[str, dict[str, int]]) -> Marks:
    """What JSON made text of."""
    return defaultdict(dict, {step: {int(i): at for i, at in of.items()} for step, of in marks.items()})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pyraft-lmdb-tcp")
