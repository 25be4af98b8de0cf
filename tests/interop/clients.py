"""Clients of a mixed cluster that write all along, whoever leads and whoever is away."""

from __future__ import annotations

import itertools
import threading

from tests.interop.clusters import Cluster, GoneError, Member, NotDoneError

_AGAIN_SECONDS = 0.02
"""How long a client waits before it tries a command again that was refused."""
_ANSWER_SECONDS = 5.0
_STATUS_SECONDS = 0.3
"""How long a client waits for an answer before it turns to another server."""


class Writers:
    """Threads that write one numbered command after the other.

    What was acknowledged is in ``cluster.acknowledged`` at the end.  A command whose outcome is
    unknown is never sent again, so that each may be there at most once.
    """

    def __init__(self, cluster: Cluster, count: int = 2) -> None:
        self._cluster = cluster
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._done = threading.Condition(self._lock)
        self._acknowledged: list[str] = []
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._write, args=(i,), daemon=True) for i in range(count)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client is stuck"
        self._cluster.acknowledged += self._acknowledged
        assert not self._errors, self._errors

    def wait_for_more(self, count: int = 20) -> None:
        """Wait until ``count`` further commands were acknowledged."""
        with self._done:
            goal = len(self._acknowledged) + count
            assert self._done.wait_for(lambda: self._errors or len(self._acknowledged) >= goal, 60), (
                "no progress"
            )

    def _write(self, client: int) -> None:
        leader: Member | None = None
        try:
            for number in itertools.count():
                command = f"w-client{client}-{number}"
                while not self._over.is_set():
                    leader = leader or self._leader()
                    outcome = self._outcome(leader, command)
                    if outcome == "acknowledged":
                        break
                    leader = None
                    if outcome == "unknown":
                        break
                    self._over.wait(_AGAIN_SECONDS)
                if self._over.is_set():
                    return
        except BaseException as error:
            with self._done:
                self._errors.append(error)
                self._done.notify_all()

    def _outcome(self, leader: Member, command: str) -> str:
        try:
            leader.send("apply", prefix=command, size=len(command)).result(_ANSWER_SECONDS)
        except NotDoneError as error:
            assert error.outcome in ("refused", "unknown"), error
            return error.outcome
        except (GoneError, TimeoutError):
            return "unknown"
        with self._done:
            self._acknowledged.append(command)
            self._done.notify_all()
        return "acknowledged"

    def _leader(self) -> Member:
        """Who says that it leads; anybody if nobody does, who will refuse then."""
        members = self._cluster.running()
        for member in members:
            try:
                if member.send("status").result(_STATUS_SECONDS)["state"] == "Leader":
                    return member
            except (GoneError, NotDoneError, TimeoutError):
                continue
        return members[0]
