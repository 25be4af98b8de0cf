"""Logs drawn as the paper's figures draw them: one digit per entry, its term, from index 1."""

from __future__ import annotations

from collections.abc import Iterable

from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore
from pyraft.node_log import NodeLog
from pyraft.rules.election import LogPosition


def entries(drawn: str, first: int = 1) -> list[Log]:
    """The entries of ``drawn``, from index ``first`` on; each command names its place."""
    return [
        Log(index, int(term), LogType.COMMAND, b"%d in term %s" % (index, term.encode()))
        for index, term in enumerate(drawn, first)
    ]


def stored(drawn: str) -> InmemStore:
    """A store that holds the log ``drawn``."""
    store = InmemStore()
    if drawn:
        store.store_logs(entries(drawn))
    return store


def node_log(drawn: str) -> NodeLog:
    """The log ``drawn`` as a server finds it when it starts: all of it in the store."""
    return NodeLog(stored(drawn))


def terms(log: NodeLog) -> str:
    """Draw ``log``."""
    return "".join(str(log.term_at(index)) for index in range(1, log.last.index + 1))


def end_of(drawn: str) -> LogPosition:
    """Where the log ``drawn`` ends."""
    return LogPosition(int(drawn[-1]), len(drawn)) if drawn else LogPosition(0, 0)


def indexes(logs: Iterable[Log]) -> list[int]:
    return [log.index for log in logs]
