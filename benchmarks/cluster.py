"""Servers under test, each an operating-system process of its own, on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on right now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class Server:
    """A child process that takes orders (see server.py)."""

    def __init__(self, id: str, settings: dict[str, Any], stderr: Path) -> None:
        self.id = id
        self._stderr = stderr
        with stderr.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.server", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parent.parent,
            )

    def wait_ready(self) -> None:
        self._answer()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Have the server do something; return what it answers, raise what went wrong there."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"server {self.id} died; its log says:\n{self._stderr.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"server {self.id}: {answer['error']}")
        return answer["ok"]


class Cluster:
    """Three (or more) servers and who leads them."""

    def __init__(self, folder: Path, servers: int = 3, config: dict[str, Any] | None = None) -> None:
        ports = free_ports(servers)
        members = {f"n{i + 1}": f"127.0.0.1:{port}" for i, port in enumerate(ports)}
        self.servers = [
            Server(
                id,
                {"id": id, "path": str(folder / id), "members": members, "config": config or {}},
                folder / f"{id}.log",
            )
            for id in members
        ]
        for server in self.servers:
            server.wait_ready()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.close()

    def leader(self) -> Server:
        """The server that all agree on; asks until they do."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            named = {server.ask("who_leads") for server in self.servers}
            if len(named) == 1 and named != {None}:
                id = named.pop()
                return next(server for server in self.servers if server.id == id)
            time.sleep(0.05)
        raise RuntimeError("the servers do not agree on a leader")

    def check_equal(self) -> int:
        """Compare what all servers applied; return how many commands that is.

        Raises:
            RuntimeError: they differ, so no figure of this run means anything.
        """
        index = self.leader().ask("last_index")
        states = [server.ask("applied", index=index) for server in self.servers]
        if len({(state["count"], state["digest"]) for state in states}) != 1:
            raise RuntimeError(f"the servers differ: {states}")
        return int(states[0]["count"])
