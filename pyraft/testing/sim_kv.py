"""The state machine and the clients that the simulator brings along: a small key-value store."""

from __future__ import annotations

import json
import random
from collections.abc import Hashable
from typing import Any, BinaryIO

from ..fsm import FSM
from ..log import Log


class CommandRefused(Exception):
    """What a state machine raises for a command when a fault wants it to: its answer, on every server alike.

    Attributes:
        command: the bytes that it was given.
        has_applied: whether it changed its state before it raised.
    """

    def __init__(self, command: bytes, has_applied: bool) -> None:
        super().__init__(f"{command!r} {'was applied, and then ' if has_applied else ''}failed")
        self.command = command
        self.has_applied = has_applied


class KvFsm(FSM):
    """Keys and texts; the commands are get, put, append and cas (compare and set)."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}

    def apply(self, log: Log) -> Any:
        key, operation = json.loads(log.data)
        state, result = KvModel().step(self.data.get(key), tuple(operation))
        if state is not None:
            self.data[key] = state
        return result

    def snapshot(self) -> bytes:
        return json.dumps(self.data, sort_keys=True).encode()

    def restore(self, source: BinaryIO) -> None:
        self.data = json.loads(source.read())


class KvModel:
    """What one key does: the state is its text, or None."""

    def initial(self) -> Hashable:
        return None

    def step(self, state: Any, input: Any) -> tuple[Any, Any]:
        match input:
            case ("put", value):
                return value, state
            case ("append", value):
                text = (state or "") + value
                return text, text
            case ("cas", expected, value):
                return (value, True) if state == expected else (state, False)
            case ("restore", value):  # of the whole store by a snapshot; never a command
                return value, None
            case _:
                return state, state


def encode_command(key: str, operation: tuple[str, ...]) -> bytes:
    """The bytes that ``KvFsm`` takes."""
    return json.dumps([key, operation]).encode()


def draw_operation(rng: random.Random, name: str, known: str | None) -> tuple[str, ...]:
    """Something for a client to do; ``name`` is unique, ``known`` a value that the key may have."""
    kind = rng.random()
    if kind < 0.4:
        return ("get",)
    if kind < 0.7:
        return ("put", name)
    if kind < 0.85:
        return ("append", "+" + name) if known is None or len(known) < 80 else ("put", name)
    return ("cas", known or "", name)
