"""The story of a run as text: a column for each server, time downwards, messages as arrows.

    0.3587  |                    * is Candidate t2    |
    0.3588  |<---vote? t2 #1/t1--|                    |
    0.3589  [ballot t2 for n2]   |                    |

``x`` at the end of an arrow: the message never arrives.  ``m12``: what is sent here arrives further
down.  Heartbeats and empty appends are left out, and of a long story all but its end and what
led to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .linearizability import Operation
from .recorder import Event, Message

_TIME = 11  # characters
_NARROWEST = 22
_WIDEST = 34
_LINE = 118


@dataclass
class _Row:
    time: float
    order: float
    text: str
    is_turn: bool
    """Whether it stays where the story is shortened: roles, faults, crashes."""


def diagram(
    servers: Sequence[str],
    events: Iterable[Event],
    history: Sequence[Operation] = (),
    most_rows: int = 90,
) -> list[str]:
    """The lines of a diagram.

    Args:
        history: what clients did, to be told where it happened.
        most_rows: about how many lines at most, beside the longest ones of a failure.
    """
    drawing = _Drawing(servers)
    rows = drawing.rows([event for event in events if _matters(event)])
    rows += [row for operation in history for row in _operation_rows(operation)]
    rows.sort(key=lambda row: (row.time, row.order))
    return [drawing.head(), *(row.text for row in _shortened(rows, most_rows))]


def _matters(event: Event) -> bool:
    message = event.message
    if message is None:
        return not (event.kind == "note" and event.words.startswith(("commit", "failure")))
    return not message.is_idle or message.words.startswith("no ")


def _shortened(rows: list[_Row], most: int) -> list[_Row]:
    if len(rows) <= most:
        return rows
    end = rows[-(most * 2 // 3) :]
    before = rows[: len(rows) - len(end)]
    turns = [row for row in before if row.is_turn][-(most // 3) :]
    gap = f"{'':{_TIME}}... {len(before) - len(turns)} lines left out up to here, all but the turns above ..."
    return [*turns, _Row(0.0, 0.0, gap, False), *end]


class _Drawing:
    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = list(servers)
        width = (_LINE - _TIME) // max(len(self._servers), 1)
        self._width = min(max(width, _NARROWEST), _WIDEST)

    def head(self) -> str:
        return f"{'time':{_TIME}}" + "".join(f"{server:{self._width}}" for server in self._servers).rstrip()

    def rows(self, events: Sequence[Event]) -> list[_Row]:
        drawn: list[_Row] = []
        busy = self._busy_places(events)
        for event in events:
            message = event.message
            if message is None:
                drawn.append(self._happening(event))
            elif event.kind == "sent":
                drawn += self._sending(event, message, busy)
            else:
                drawn.append(self._arrival(event, message, busy))
        return drawn

    def _busy_places(self, events: Sequence[Event]) -> dict[str, list[int]]:
        """Where each server does something that is shown, beside sending."""
        busy: dict[str, list[int]] = {server: [] for server in self._servers}
        for event in events:
            if event.kind != "sent" and event.server:
                busy[event.server].append(event.place)
        return busy

    def _is_direct(self, message: Message, busy: dict[str, list[int]]) -> bool:
        """Whether one arrow can stand for sending and arrival: its sender does nothing in between."""
        sent, arrived = message.sent[1], message.arrived[0][1]
        return not any(sent < place < arrived for place in busy[message.src])

    def _sending(self, event: Event, message: Message, busy: dict[str, list[int]]) -> list[_Row]:
        if not message.arrived:
            return [self._row(event, self._arrow(message, message.words, lost=True))]
        if self._is_direct(message, busy):
            return []  # the arrow is drawn where it arrives
        words = f"o m{message.number} to {message.dst}: {message.words}"
        return [self._row(event, self._beside(message.src, words))]

    def _arrival(self, event: Event, message: Message, busy: dict[str, list[int]]) -> _Row:
        words = message.words
        if event.place != message.arrived[0][1]:
            words = f"again m{message.number} {words}"
        elif not self._is_direct(message, busy):
            words = f"m{message.number} {words}"
        return self._row(event, self._arrow(message, words))

    def _happening(self, event: Event) -> _Row:
        is_turn = event.kind in ("role", "fault", "note", "failure")
        if not event.server:
            mark = "!!" if event.kind == "failure" else "=="
            first = event.words.split("\\n")[0].split("\n")[0]
            return self._row(event, f"{mark} {first} {mark}"[: _LINE - _TIME], is_turn)
        words = {
            "role": f"* is {event.words}",
            "write": f"[{event.words}]",
            "commit": f": {event.words}",
        }.get(event.kind, f"== {event.words} ==")
        return self._row(event, self._beside(event.server, words), is_turn)

    def _row(self, event: Event, text: str, is_turn: bool = False) -> _Row:
        return _Row(event.time, event.place, f"{event.time:<{_TIME}.6f}{text}".rstrip(), is_turn)

    def _column(self, server: str) -> int:
        return self._servers.index(server) * self._width

    def _beside(self, server: str, words: str) -> str:
        """A row with ``words`` in a server's column; long ones run over those to the right."""
        line = list(self._lifelines())
        column = self._column(server)
        line[column : column + len(words)] = words[: _LINE - _TIME - column]
        return "".join(line)

    def _arrow(self, message: Message, words: str, lost: bool = False) -> str:
        line = list(self._lifelines())
        src, dst = self._column(message.src), self._column(message.dst)
        left, right = min(src, dst), max(src, dst)
        room = right - left - 5
        label = words if len(words) <= room else words[: max(room - 2, 0)] + ".."
        body = label.center(right - left - 1, "-")
        line[left + 1 : right] = body
        tip = "x" if lost else ">" if dst > src else "<"
        line[right - 1 if dst > src else left + 1] = tip
        return "".join(line)

    def _lifelines(self) -> str:
        return ("|" + " " * (self._width - 1)) * len(self._servers)


def _operation_rows(operation: Operation) -> list[_Row]:
    asked = " ".join(str(word) for word in operation.input)
    who = f"{operation.client} {operation.key}"
    asking = f"{operation.call:<{_TIME}.6f}({who}: {asked})"
    rows = [_Row(operation.call, 0.0, asking, False)]
    if operation.returned != float("inf"):
        answer = f"{operation.returned:<{_TIME}.6f}({who}: {asked} -> {operation.output!r})"
        rows.append(_Row(operation.returned, 1e18, answer, False))
    return rows
