"""Could one copy of the data, doing one thing at a time, have given these answers?

``check_linearizable`` searches for an order of the operations that respects real time and in
which a sequential model gives every answer that was seen.  The search is Wing and Gong's with
Lowe's memory of what was tried, one key at a time, because each key's history must be
linearizable by itself (Herlihy and Wing 1990; Lowe 2017).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from ..errors import ConfigError
from .arguments import check_count


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client.

    Attributes:
        key: what it is about; operations on different keys do not touch each other.
        call: the instant at which it was sent.
        returned: the instant of the answer; infinity if there was none, so that it may have
            happened at any time since, or never.
        output: the answer; ignored if there was none.
    """

    client: str
    key: Hashable
    input: Any
    output: Any
    call: float
    returned: float = inf


class Model(Protocol):
    """What one key does when nothing happens at the same time.  States must be hashable."""

    def initial(self) -> Hashable:
        """The state before the first operation."""

    def step(self, state: Any, input: Any) -> tuple[Hashable, Any]:
        """(the next state, the answer)."""


class Undecided(Exception):
    """The search took more than its budget: shorten the history or use more keys."""


@dataclass(frozen=True, slots=True)
class NotLinearizable:
    """A key whose operations no order explains."""

    key: Hashable
    operations: Sequence[Operation]

    def __str__(self) -> str:
        lines = [f"no order explains what clients saw of key {self.key!r}:"]
        for operation in sorted(self.operations, key=lambda o: o.call):
            returned = f"{operation.returned:.6f} -> {operation.output!r}"
            end = "no answer" if operation.returned == inf else returned
            lines.append(f"  {operation.client}: {operation.input!r} at {operation.call:.6f}, {end}")
        return "\n".join(lines)


def check_linearizable(
    history: Iterable[Operation], model: Model, budget: int = 2_000_000
) -> NotLinearizable | None:
    """None if ``history`` is linearizable, otherwise the first key that is not.

    Leave out operations that certainly did not happen, and reads without an answer.

    Raises:
        ConfigError: the arguments make no sense.
        Undecided: a key took more than ``budget`` steps.
    """
    operations_seen = _checked_history(history)
    _check_model(model)
    check_count("budget", budget, 2_000_000)
    by_key: dict[Hashable, list[Operation]] = {}
    for operation in operations_seen:
        by_key.setdefault(operation.key, []).append(operation)
    for key, operations in by_key.items():
        if not _Search(operations, model, budget).succeeds():
            return NotLinearizable(key, operations)
    return None


def _checked_history(history: Any) -> list[Operation]:
    if not isinstance(history, Iterable):
        raise ConfigError(f"history={history!r} is not a list of Operation: pass for example cluster.history")
    operations = list(history)
    for number, operation in enumerate(operations):
        if not isinstance(operation, Operation):
            raise ConfigError(f"history[{number}]={operation!r} is not an Operation")
        if not operation.call <= operation.returned:
            raise ConfigError(f"history[{number}]={operation!r} returned before it was called")
    return operations


def _check_model(model: Any) -> None:
    if isinstance(model, type):
        raise ConfigError(f"model={model!r} is a class: pass an instance")
    for method in ("initial", "step"):
        if not callable(getattr(model, method, None)):
            raise ConfigError(f"model={model!r} has no {method}(): see pyraft.testing.Model")


class _Node:
    """A call or a return in the list of what is not yet ordered."""

    __slots__ = ("match", "next", "number", "previous")

    def __init__(self, number: int) -> None:
        self.number = number
        self.match: _Node | None = None  # of a call: its return
        self.previous: _Node | None = None
        self.next: _Node | None = None


class _Search:
    def __init__(self, operations: Sequence[Operation], model: Model, budget: int) -> None:
        self._operations = operations
        self._model = model
        self._budget = budget
        self._must_return = sum(1 for operation in operations if operation.returned != inf)
        self._head = _Node(-1)
        self._link()

    def _link(self) -> None:
        """Calls and returns as one list in order of time; of equal instants calls come first."""
        moments: list[tuple[float, int, int]] = []
        for number, operation in enumerate(self._operations):
            moments.append((operation.call, 0, number))
            moments.append((operation.returned, 1, number))
        calls: dict[int, _Node] = {}
        tail = self._head
        for _, is_return, number in sorted(moments):
            node = _Node(number)
            if is_return:
                calls[number].match = node
            else:
                calls[number] = node
            tail.next, node.previous = node, tail
            tail = node

    def succeeds(self) -> bool:
        """Whether an order exists.

        Raises:
            Undecided: the budget is used up.
        """
        state: Any = self._model.initial()
        done = 0  # a bit for each operation that has its place in the order
        answered_left = self._must_return
        tried: set[tuple[int, Any]] = set()
        chosen: list[tuple[_Node, Any]] = []
        entry = self._head.next
        while answered_left:
            self._budget -= 1
            if self._budget < 0:
                raise Undecided(f"{len(self._operations)} operations of one key took too many steps")
            if entry is not None and entry.match is not None:
                operation = self._operations[entry.number]
                next_state, output = self._model.step(state, operation.input)
                answered = operation.returned != inf
                if not answered or output == operation.output:
                    after = done | 1 << entry.number
                    if (after, next_state) not in tried:
                        tried.add((after, next_state))
                        chosen.append((entry, state))
                        state, done = next_state, after
                        answered_left -= answered
                        _lift(entry)
                        entry = self._head.next
                        continue
                entry = entry.next
                continue
            if not chosen:  # an answer that nothing before it explains
                return False
            entry, state = chosen.pop()
            done &= ~(1 << entry.number)
            answered_left += self._operations[entry.number].returned != inf
            _unlift(entry)
            entry = entry.next
        return True


def _lift(call: _Node) -> None:
    """Take a call and its return out of the list."""
    for node in (call, call.match):
        assert node is not None and node.previous is not None
        node.previous.next = node.next
        if node.next is not None:
            node.next.previous = node.previous


def _unlift(call: _Node) -> None:
    """Put them back."""
    for node in (call.match, call):
        assert node is not None and node.previous is not None
        node.previous.next = node
        if node.next is not None:
            node.next.previous = node
