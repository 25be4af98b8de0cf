"""Compares what the clients were told with what the servers hold.

Two witnesses, and each must agree with the clients and with the other: what the state
machines of the running servers held, and what their logs hold on disk after they ended.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from pyraft import Log, LogType
from pyraft.logstore import LMDBStore

Entries: TypeAlias = Sequence[tuple[int, str]]
"""(log index, command), in the order in which a server applied them."""

_READ_BYTES = 1 << 20


@dataclass
class Verdict:
    """What is wrong; nothing, one hopes."""

    lost: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    applied_unknown: int = 0
    """Writes of unknown outcome that turned out to be applied: allowed, once."""
    other: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.other)

    def problems(self) -> list[str]:
        found = []
        if self.lost:
            found.append(f"acknowledged and lost: {_some(self.lost)}")
        if self.doubled:
            found.append(f"applied more than once: {_some(self.doubled)}")
        return found + self.other


def check_states(
    acknowledged: Mapping[str, int], unknown: AbstractSet[str], states: Mapping[str, Entries]
) -> Verdict:
    """Judge the state machines.

    Args:
        acknowledged: every write that was answered ``ok``, with the log index in the answer.
        unknown: every write whose outcome the client does not know.
        states: what each server's state machine holds, once all have applied everything.
    """
    verdict = Verdict()
    for name, entries in states.items():
        times = Counter(command for _, command in entries)
        index_of = {command: index for index, command in entries}
        verdict.lost |= acknowledged.keys() - times.keys()
        verdict.doubled |= {command for command, count in times.items() if count > 1}
        verdict.applied_unknown = len(times.keys() & unknown)
        strangers = times.keys() - acknowledged.keys() - unknown
        if strangers:
            verdict.other.append(f"{name} applied what nobody sent or what was refused: {_some(strangers)}")
        moved = {c for c, index in acknowledged.items() if index_of.get(c, index) != index}
        if moved:
            verdict.other.append(f"{name} has at another index than the client was told: {_some(moved)}")
        indexes = [index for index, _ in entries]
        if any(first >= second for first, second in itertools.pairwise(indexes)):
            verdict.other.append(f"{name} did not apply in the order of the log")
    verdict.other += _differences("state", states)
    return verdict


def check_logs(logs: Mapping[str, Sequence[Log]], states: Mapping[str, Entries]) -> list[str]:
    """What the logs on disk say otherwise than the state machines, or than each other.

    A log may begin late, behind a snapshot; from there on it must have every command.
    """
    found = []
    for name, log in logs.items():
        first = log[0].index if log else 1
        commands = [(entry.index, entry.data.decode()) for entry in log if entry.type is LogType.COMMAND]
        applied = [(index, command) for index, command in states[name] if index >= first]
        found += _differences("log and state", {f"{name} on disk": commands, f"{name} applied": applied})
    start = max((log[0].index for log in logs.values() if log), default=1)
    common = {
        name: [
            (entry.index, f"{entry.type.name} of term {entry.term}") for entry in log if entry.index >= start
        ]
        for name, log in logs.items()
    }
    return found + _differences("log", common)


def read_log(directory: Path, committed: int) -> list[Log]:
    """The entries up to ``committed``, as far as they are there, of a server that is not running.

    Raises:
        StorageError: they cannot be read.
    """
    store = LMDBStore(directory)
    try:
        entries: list[Log] = []
        index = store.first_index()
        last = min(committed, store.last_index())
        while 0 < index <= last:
            entries += store.get_logs(index, last, _READ_BYTES)
            index = entries[-1].index + 1
        return entries
    finally:
        store.close()


def _differences(what: str, sequences: Mapping[str, Entries]) -> list[str]:
    """One line for each sequence that is not the first one, saying where they part."""
    (name, expected), *others = sequences.items()
    found = []
    for other, entries in others:
        if list(entries) == list(expected):
            continue
        pairs = zip(expected, entries, strict=False)
        shorter = min(len(expected), len(entries))
        same = next((at for at, (mine, theirs) in enumerate(pairs) if mine != theirs), shorter)
        mine, theirs = expected[same : same + 1], entries[same : same + 1]
        found.append(f"{what}: after {same} equal entries {name} has {mine} and {other} has {theirs}")
    return found


def _some(commands: AbstractSet[str]) -> str:
    few = ", ".join(sorted(commands)[:8])
    return f"{len(commands)} ({few}{', …' if len(commands) > 8 else ''})"
