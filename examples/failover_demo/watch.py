"""Asks every server a few times a second what it is, and says so when another one leads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from cluster import Process, ServerProcess
from connection import Connection, Message

EVERY = 0.1  # seconds
ANSWER_TIMEOUT = 0.5


class Watch:
    """What each server last said about itself.

    One thread per server, so that one that is frozen does not hide the others.
    """

    def __init__(
        self, servers: Mapping[str, ServerProcess], on_new_leader: Callable[[str, int], None]
    ) -> None:
        """``on_new_leader`` gets the name and the term; it is called on the threads of this class."""
        self._servers = servers
        self._on_new_leader = on_new_leader
        self._latest: dict[str, Message | None] = dict.fromkeys(servers)
        self._lock = threading.Lock()
        self._newest_term = 0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(server,), daemon=True) for server in servers.values()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def status(self, name: str) -> Message | None:
        """What the server said a moment ago; None if it does not answer."""
        return self._latest[name]

    def leader(self) -> tuple[str, int] | None:
        """The running server that leads in the newest term, and that term."""
        leaders = [
            (said["term"], name)
            for name, said in self._latest.items()
            if said is not None
            and said["state"] == "Leader"
            and self._servers[name].process is Process.RUNNING
        ]
        if not leaders:
            return None
        term, name = max(leaders)
        return name, term

    def wait_for_leader(self, timeout: float) -> tuple[str, int]:
        """Block until somebody leads; return who, and in which term.

        Raises:
            TimeoutError: nobody does in time.
        """
        deadline = time.monotonic() + timeout
        while (leader := self.leader()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no server leads after {timeout:g} s")
            time.sleep(0.01)
        return leader

    def _watch(self, server: ServerProcess) -> None:
        connection: Connection | None = None
        while not self._over.wait(EVERY):
            try:
                if connection is None:
                    connection = Connection(server.client_port, ANSWER_TIMEOUT)
                said = connection.ask({"do": "status"})
            except OSError:
                if connection is not None:
                    connection.close()
                connection = None
                self._latest[server.name] = None
                continue
            self._latest[server.name] = said
            if said["state"] == "Leader":
                self._leads(server.name, said["term"])
        if connection is not None:
            connection.close()

    def _leads(self, name: str, term: int) -> None:
        with self._lock:
            is_news = term > self._newest_term
            self._newest_term = max(term, self._newest_term)
        if is_news:
            self._on_new_leader(name, term)
