"""The server processes: start, kill, freeze, restart, and never leave one behind.

Each server's standard input is a pipe that only this process holds, so a server ends with us
however we end.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from connection import HOST, Connection, Message
from server import PORT_TAKEN

START_TIMEOUT = 20.0  # seconds from starting a process to its first answer
STOP_TIMEOUT = 15.0
DUMP_TIMEOUT = 15.0

# Below the ports that systems give to outgoing connections (from 32768 on Linux, 49152
# elsewhere): the port of a server that was killed must still be free when it is restarted.
PORTS = range(15_000, 32_000)


class ClusterError(Exception):
    """The servers do not do what the demo needs; the text says which and what."""


class PortTaken(ClusterError):
    """Another program was faster."""


class Process(StrEnum):
    """What the demo has done to a server."""

    DOWN = "down"
    RUNNING = "running"
    FROZEN = "frozen"


class ServerProcess:
    """One server: its directory and ports, which it keeps, and its process, which comes and goes."""

    def __init__(self, name: str, folder: Path, client_port: int, members: list[str]) -> None:
        self.name = name
        self.directory = folder / name
        self.log_path = folder / f"{name}.log"
        self.client_port = client_port
        self.process = Process.DOWN
        self._members = members
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it answers a little later."""
        program = Path(__file__).with_name("server.py")
        arguments = [self.name, str(self.directory), str(self.client_port), *self._members]
        with self.log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, str(program), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo; it ends the servers itself
            )
        self.process = Process.RUNNING

    def wait_ready(self) -> None:
        """Block until the server answers.

        Raises:
            PortTaken: it could not listen.
            ClusterError: it ended, or does not answer in time.
        """
        assert self._popen is not None
        deadline = time.monotonic() + START_TIMEOUT
        while self.ask({"do": "status"}, 1.0) is None:
            code = self._popen.poll()
            if code == PORT_TAKEN:
                raise PortTaken(f"{self.name} cannot listen: another program has taken its port")
            if code is not None:
                raise ClusterError(f"{self.name} ended with exit code {code} instead of starting")
            if time.monotonic() > deadline:
                raise ClusterError(f"{self.name} does not answer {START_TIMEOUT:g} s after its start")
            time.sleep(0.02)

    def ask(self, request: Message, timeout: float) -> Message | None:
        """The server's answer, or None if there is none in time."""
        try:
            connection = Connection(self.client_port, timeout)
        except OSError:
            return None
        try:
            return connection.ask(request)
        except OSError:
            return None
        finally:
            connection.close()

    def dump(self) -> list[tuple[int, str]]:
        """What the server's state machine holds: (log index, command), in the order of applying."""
        answer = self.ask({"do": "dump"}, DUMP_TIMEOUT)
        if answer is None:
            raise ClusterError(f"{self.name} does not say what it holds within {DUMP_TIMEOUT:g} s")
        return [(index, command) for index, command in answer["entries"]]

    def kill(self) -> None:
        """SIGKILL: no goodbye, no flush.  Returns once the process is gone."""
        assert self._popen is not None and self._popen.stdin is not None
        self.process = Process.DOWN
        self._popen.kill()
        self._popen.wait()
        self._popen.stdin.close()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its memory and connections and does nothing.  Returns once it stands still."""
        assert self._popen is not None
        self.process = Process.FROZEN
        os.kill(self._popen.pid, signal.SIGSTOP)
        _, how = os.waitpid(self._popen.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(how):
            raise ClusterError(f"{self.name} ended by itself (wait status {how}) when it was to be frozen")

    def thaw(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        assert self._popen is not None
        os.kill(self._popen.pid, signal.SIGCONT)
        self.process = Process.RUNNING

    def ask_to_stop(self) -> None:
        """End its standard input; it shuts down in order."""
        if self._popen is not None and self._popen.stdin is not None:
            self._popen.stdin.close()

    def wait_stopped(self) -> int:
        """The exit code, once it has shut down."""
        assert self._popen is not None
        try:
            code = self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.log_stacks()
            raise ClusterError(f"{self.name} has not shut down within {STOP_TIMEOUT:g} s") from None
        self.process = Process.DOWN
        return code

    def ended_by_itself(self) -> bool:
        """Whether the process is gone although nobody touched it."""
        return self.process is Process.RUNNING and self._popen is not None and self._popen.poll() is not None

    def log_stacks(self) -> None:
        """Let the process write where each of its threads stands into its log."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.send_signal(signal.SIGUSR1)
            time.sleep(0.2)


class Cluster:
    """Three servers."""

    def __init__(self, servers: Mapping[str, ServerProcess]) -> None:
        self.servers = servers

    @classmethod
    def start(cls, names: list[str], folder: Path, attempts: int = 5) -> Cluster:
        """Start a server for each name below ``folder``, on ports that are free.

        A port may be taken between finding it free and listening on it; then everything is
        started again on other ports, in other directories.
        """
        for attempt in range(1, attempts + 1):
            cluster = cls._on_free_ports(names, folder / f"try-{attempt}")
            try:
                for server in cluster.servers.values():
                    server.start()
                for server in cluster.servers.values():
                    server.wait_ready()
                return cluster
            except PortTaken:
                cluster.close()
                if attempt == attempts:
                    raise
            except BaseException:
                cluster.close()
                raise
        raise AssertionError("not reached")

    @classmethod
    def _on_free_ports(cls, names: list[str], folder: Path) -> Cluster:
        folder.mkdir(parents=True)
        ports = free_ports(2 * len(names))
        members = [f"{name}={port}" for name, port in zip(names, ports, strict=False)]
        return cls(
            {
                name: ServerProcess(name, folder, port, members)
                for name, port in zip(names, ports[len(names) :], strict=True)
            }
        )

    @property
    def client_ports(self) -> dict[str, int]:
        return {name: server.client_port for name, server in self.servers.items()}

    def stop(self) -> list[str]:
        """Shut every server down in order; return what went wrong."""
        for server in self.servers.values():
            server.ask_to_stop()
        codes = {name: server.wait_stopped() for name, server in self.servers.items()}
        return [f"{name} shut down with exit code {code}" for name, code in codes.items() if code != 0]

    def close(self) -> None:
        """Leave no process behind, whatever state it is in."""
        for server in self.servers.values():
            if server._popen is not None and server._popen.poll() is None:
                server.kill()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nobody listens at this moment."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"there are no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")
