"""Clients that write without pause, and remember exactly what they were told.

Each write has a name of its own, ``client:number``.  The rule that the whole demo stands on:
a write whose outcome is unknown is never sent again.  One that was certainly not applied is.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from connection import Connection, Message

ANSWER_TIMEOUT = 1.0  # seconds; a write without an answer by then has an unknown outcome
PAUSE = 0.02  # seconds before a refused write is sent again
DISTRUST = 1.0  # seconds for which a server that did not answer is left alone, whoever names it leader


class Acknowledged(NamedTuple):
    """A write that was answered ``ok``; instants of ``time.monotonic``."""

    command: str
    log_index: int
    sent_at: float
    answered_at: float


class Client(threading.Thread):
    """One client: one write at a time, to whoever is said to lead."""

    def __init__(self, name: str, ports: Mapping[str, int], stop: threading.Event) -> None:
        super().__init__(name=f"client-{name}", daemon=True)
        self.acknowledged: list[Acknowledged] = []
        self.unknown: list[str] = []
        self.failure: Exception | None = None
        self._id = name
        self._ports = ports
        self._stop_asked = stop
        self._server = random.choice(list(ports))
        self._connection: Connection | None = None
        self._distrusted: str | None = None
        self._distrusted_until = 0.0

    def run(self) -> None:
        try:
            number = 0
            while not self._stop_asked.is_set():
                number += 1
                self._write(f"{self._id}:{number}")
        except Exception as error:  # the demo must not go on as if this client had nothing to say
            self.failure = error
            raise
        finally:
            self._disconnect()

    def _write(self, command: str) -> None:
        """Send ``command`` until it is acknowledged or its outcome is unknown."""
        while not self._stop_asked.is_set():
            sent_at = time.monotonic()
            answer = self._attempt(command)
            if answer["outcome"] == "ok":
                done = Acknowledged(command, answer["index"], sent_at, time.monotonic())
                self.acknowledged.append(done)
                return
            if answer["outcome"] == "unknown":
                self.unknown.append(command)
                return
            self._turn_to(answer.get("leader"))

    def _attempt(self, command: str) -> Message:
        if self._connection is None:
            try:
                self._connection = Connection(self._ports[self._server], ANSWER_TIMEOUT)
            except OSError:
                return {"outcome": "not_applied"}  # it was never sent
        try:
            return self._connection.ask({"do": "write", "command": command})
        except OSError as error:
            self._disconnect()
            self._distrusted, self._distrusted_until = self._server, time.monotonic() + DISTRUST
            self._server = self._another()
            return {"outcome": "unknown", "error": str(error)}

    def _turn_to(self, leader: str | None) -> None:
        """Choose where to send a refused write next."""
        if time.monotonic() > self._distrusted_until:
            self._distrusted = None
        if leader in (None, self._server, self._distrusted):
            self._stop_asked.wait(PAUSE)  # nobody leads yet, or the one who did is gone
            leader = self._another()
        assert leader is not None
        self._disconnect()
        self._server = leader

    def _another(self) -> str:
        avoided = (self._server, self._distrusted)
        return random.choice([name for name in self._ports if name not in avoided])

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Clients:
    """All clients, and what they know together."""

    def __init__(self, count: int, ports: Mapping[str, int]) -> None:
        self._stop = threading.Event()
        self.each: Sequence[Client] = [Client(f"c{i}", ports, self._stop) for i in range(1, count + 1)]

    def start(self) -> None:
        for client in self.each:
            client.start()

    def stop(self) -> None:
        """Let every client finish the write that it is at.  Returns once all have."""
        self._stop.set()
        for client in self.each:
            if client.ident is not None:
                client.join()

    @property
    def acknowledged_count(self) -> int:
        return sum(len(client.acknowledged) for client in self.each)

    @property
    def unknown_count(self) -> int:
        return sum(len(client.unknown) for client in self.each)

    def acknowledged(self) -> dict[str, int]:
        """Every acknowledged write and the log index that its answer named."""
        return {done.command: done.log_index for client in self.each for done in client.acknowledged}

    def unknown(self) -> set[str]:
        """Every write of which nobody could say what became of it."""
        return {command for client in self.each for command in client.unknown}

    def failures(self) -> list[str]:
        return [f"{client.name} died of {client.failure!r}" for client in self.each if client.failure]

    def first_answer_after(self, instant: float) -> float | None:
        """When the first ``ok`` arrived for a write that was *sent* after ``instant``.

        An answer to an earlier write may have been under way already, so it proves nothing.
        """
        found = []
        for client in self.each:
            position = bisect_left(client.acknowledged, instant, key=lambda done: done.sent_at)
            if position < len(client.acknowledged):
                found.append(client.acknowledged[position].answered_at)
        return min(found, default=None)
