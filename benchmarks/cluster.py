"""Servers under test, each an operating-system process of its own, on loopback."""

from __future__ import annotations

import json
import math
import os
import select
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from .subjects import CHECKOUT, Subject
from .workloads import UnsupportedError

ORDER_SECONDS = 120.0


class WrongResultError(Exception):
    """The servers do not hold what they must, so no figure of this round means anything."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on right now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Server:
    """A child process that takes orders (see orders.py)."""

    def __init__(self, subject: Subject, settings: dict[str, Any], stderr: Path) -> None:
        self.id: str = settings["id"]
        self._subject = subject
        self._settings = settings
        self._stderr = stderr
        self.start()

    def start(self) -> None:
        """Start the process; ``wait_ready`` waits until the server knows a leader."""
        self._received = b""
        with self._stderr.open("ab") as log:
            self.process = subprocess.Popen(
                self._subject.command(self._settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=CHECKOUT,
            )

    def wait_ready(self) -> None:
        library = self.receive(60)["library"]
        checkout = self._subject.checkout
        if checkout and not Path(library).is_relative_to(checkout):
            raise WrongResultError(f"server {self.id} took {library} and not the library in {checkout}")

    def ask(self, do: str, limit: float = ORDER_SECONDS, **arguments: Any) -> Any:
        """Have the server do something; return what it answers, raise what went wrong there."""
        self.send(do, **arguments)
        return self.receive(limit)

    def send(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "with": arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def fileno(self) -> int:
        """Readable when an answer, or a part of one, is there."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def receive(self, limit: float) -> Any:
        """The next answer.

        Raises:
            UnsupportedError: the library has no such operation.
            RuntimeError: the order failed, the server died, or ``limit`` seconds have passed.
        """
        end = time.monotonic() + limit
        while b"\n" not in self._received:
            if not select.select([self], [], [], max(0.0, end - time.monotonic()))[0]:
                raise RuntimeError(f"server {self.id} did not answer within {limit:g} s")
            data = os.read(self.fileno(), 1 << 16)
            if not data:
                raise RuntimeError(f"server {self.id} died; its log says:\n{self._log()}")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer = json.loads(line)
        error: str | None = answer.get("error")
        if error is None:
            return answer["ok"]
        if error.startswith("unsupported: "):
            raise UnsupportedError(error.removeprefix("unsupported: "))
        raise RuntimeError(f"server {self.id}: {error}")

    def kill(self) -> None:
        """SIGKILL; what the server had written to files stays."""
        self.process.kill()
        self._reap()

    def close(self) -> None:
        """Let it end by itself, and make sure that it does."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
        self._reap()

    def _reap(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # an order that it did not live to read

    def _log(self) -> str:
        return self._stderr.read_text(errors="replace")[-2000:]


class Cluster:
    """Servers of one subject, and who leads them."""

    def __init__(
        self, subject: Subject, folder: Path, servers: int = 3, config: dict[str, Any] | None = None
    ) -> None:
        members = [[f"n{i + 1}", f"127.0.0.1:{port}"] for i, port in enumerate(free_ports(servers))]
        self.submitted = 0
        """How many commands every server must have applied."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.servers: list[Server] = []
        try:
            for id, _ in members:
                settings = {"id": id, "path": str(folder / id), "members": members, "config": config or {}}
                self.servers.append(Server(subject, settings, folder / f"{id}.log"))
            for server in self.servers:
                server.wait_ready()
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        for server in self.servers:
            server.close()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def leader(self) -> Server:
        """The server that all agree on; asks until they do."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            named = {server.ask("who_leads") for server in self.servers}
            if len(named) == 1 and named != {None}:
                id = named.pop()
                return next(server for server in self.servers if server.id == id)
            time.sleep(0.02)
        raise RuntimeError("the servers do not agree on a leader")

    def run(self, leader: Server, limit: float = ORDER_SECONDS, **work: Any) -> dict[str, float]:
        """Have the leader do some work; what it submits is accounted for."""
        figures: dict[str, float] = leader.ask("run", limit, **work)
        if work.get("operation", "apply") == "apply":
            self.submitted += int(figures["submitted"])
        return figures

    def check_equal(self, exactly: bool = True, seconds: float = 60) -> int:
        """Compare what all servers applied; return how many commands that is.

        Args:
            exactly: it must also be as many as were submitted.

        Raises:
            WrongResultError: it is not.
        """
        index = self.leader().ask("last_index")
        states = [
            server.ask("applied", seconds + 10, index=index, seconds=seconds) for server in self.servers
        ]
        return check_states(states, self.submitted if exactly else None)


def check_states(states: list[dict[str, int]], submitted: int | None) -> int:
    """The count that all states share; see ``Cluster.check_equal``."""
    if len({(state["count"], state["digest"]) for state in states}) != 1:
        raise WrongResultError(f"the servers differ: {states}")
    count = states[0]["count"]
    if submitted is not None and count != submitted:
        raise WrongResultError(f"{submitted} commands were acknowledged, and {count} applied")
    return count


def first_to_write(servers: list[Server], dead: str, limit: float) -> float:
    """Have all of ``servers`` try to write; return the time (monotonic) of the first acknowledgement.

    Raises:
        RuntimeError: nobody could write within ``limit`` seconds.
    """
    for server in servers:
        server.send("write_when_leading", dead=dead, seconds=limit)
    first = math.inf
    waiting = list(servers)
    while waiting:
        for server in select.select(waiting, [], [], limit + 10)[0] or waiting:
            if server.receive(limit + 10):
                first = min(first, time.monotonic())
            waiting.remove(server)
    if first == math.inf:
        raise RuntimeError("nobody could write")
    return first
