"""Servers that are processes of the operating system, for tests; none outlives its ``Processes``."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.integration.clusters import PATIENCE

_ROOT = Path(__file__).parent.parent.parent


class ServerDiedError(Exception):
    """The process ended before it answered."""


class ServerProcess:
    """One server while its process lives.  See server_process.py for what it can be asked."""

    def __init__(self, settings: dict[str, Any], log: Path) -> None:
        self.id: str = settings["id"]
        self.address: str = settings["address"]
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.server_process", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=_ROOT,
            )
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._over = False
        self._reader = threading.Thread(target=self._read, name=f"answers of {self.id}")
        self._reader.start()

    def ask(self, do: str, *arguments: Any) -> Any:
        """What the server answers.

        Raises:
            ServerDiedError: it is dead, or died meanwhile.
            RuntimeError: what went wrong there.
        """
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            try:
                if self._over:
                    raise BrokenPipeError
                self._waiting[number] = future
                self._process.stdin.write(json.dumps({"number": number, "do": do, "with": arguments}) + "\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                raise ServerDiedError(f"{self.id} is not there to be asked for {do}") from None
        return future.result(2 * PATIENCE)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it at once, as a power cut or the kernel would."""
        self._process.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """Let it shut down."""
        with self._lock:
            self._over = True
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self.kill()

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-3000:]

    def _wait(self) -> None:
        self._process.wait()
        self._reader.join()
        with self._lock:
            self._over = True
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                break  # it was killed in the middle of a line
            future = self._waiting.pop(answer["number"])
            if "error" in answer:
                future.set_exception(RuntimeError(f"{self.id}: {answer['error']}"))
            else:
                future.set_result(answer["ok"])
        with self._lock:
            self._over = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(ServerDiedError(f"{self.id} died; it said:\n{self.said()}"))


class Processes:
    """A cluster of them.  ``with`` ends every process, whatever happens in the block."""

    def __init__(self, root: Path, *, fsm: str = "ledger", transport: str = "grpc", **config: Any) -> None:
        self.running: dict[str, ServerProcess] = {}
        self._root = root
        self._common = {"fsm": fsm, "transport": transport, "config": config}
        self._addresses: dict[str, str] = {}
        self._first: dict[str, str] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for server in self.running.values():
            server.kill()

    def begin(self, *ids: str) -> None:
        """Start the first members of a new cluster."""
        self._first = {id: self._address(id) for id in ids}
        for id in ids:
            self.start(id)

    def start(self, id: str, *, joins: bool = False) -> ServerProcess:
        """Start the process of ``id``, on the directory that it had; ``joins``: as one that knows no cluster."""
        settings = {
            **self._common,
            "id": id,
            "path": str(self._root / id),
            "address": self._address(id),
            "bootstrap": self._first if id in self._first and not joins else None,
        }
        self.running[id] = ServerProcess(settings, self._root / f"{id}.log")
        return self.running[id]

    def kill(self, id: str) -> None:
        self.running.pop(id).kill()

    def stop(self, id: str) -> None:
        self.running.pop(id).stop()

    def wipe(self, id: str) -> None:
        shutil.rmtree(self._root / id)

    def leader(self) -> ServerProcess:
        """Wait for one that leads, of the highest term."""

        def look() -> ServerProcess | None:
            terms = []
            for server in list(self.running.values()):
                try:
                    terms.append((server.ask("leads"), server.id, server))
                except ServerDiedError:
                    continue
            term, _, server = max(terms, default=(0, "", None))
            return server if term else None

        return self.eventually(look, "somebody leads", pause=0.05)

    def change(self, what: str, *arguments: str) -> None:
        """Have the leader make a change, again if leadership moves meanwhile."""
        deadline = time.monotonic() + PATIENCE
        may_be_made = False
        while (answer := self.leader().ask("change", what, *arguments)) != "ok":
            if answer == "ConfigError":
                assert may_be_made, f"{what}{arguments} is illegal\n{self.said()}"
                return  # it was made, so it cannot be made again
            assert time.monotonic() < deadline, f"{what}{arguments}: {answer}\n{self.said()}"
            may_be_made |= answer == "LeadershipLostError"

    def join(self, id: str, what: str = "add_voter") -> ServerProcess:
        """Start ``id`` as a server that knows no cluster, and add it."""
        server = self.start(id, joins=True)
        server.ask("status")  # it is there, however long that took
        self.change(what, id, server.address)
        return server

    def eventually(self, holds: Callable[[], Any], what: str, pause: float = 0.02) -> Any:
        """Wait until ``holds()`` and return what it returned."""
        deadline = time.monotonic() + PATIENCE
        while not (found := holds()):
            dead = [id for id, server in list(self.running.items()) if server.has_ended]
            assert not [id for id in dead if id in self.running], f"{dead} ended by themselves\n{self.said()}"
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{self.said()}"
            time.sleep(pause)
        return found

    def said(self) -> str:
        return "\n".join(f"--- {id}\n{server.said()}" for id, server in self.running.items())

    def _address(self, id: str) -> str:
        if id not in self._addresses:
            self._addresses[id] = f"127.0.0.1:{_free_port()}"
        return self._addresses[id]


def _free_port() -> int:
    """One that nobody listens on, and that the kernel gives to no outgoing connection."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Writer:
    """Writes numbers, one after the other, through whoever leads, until it is told to stop.

    A number is never sent again once its outcome is unknown.

    Attributes:
        acknowledged: those that are certainly in the state, each once.
    """

    def __init__(self, cluster: Processes) -> None:
        self.acknowledged: list[int] = []
        self._cluster = cluster
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer")

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        if error[0] is None and self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Write no more; the last write is over on return."""
        self._over.set()
        self._thread.join()

    def goes_on(self, count: int = 10) -> None:
        """Wait until ``count`` more writes were acknowledged."""
        target = len(self.acknowledged) + count
        self._cluster.eventually(lambda: self._failure or len(self.acknowledged) >= target, "writes go on")
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        leader = None
        number = 1
        try:
            while not self._over.is_set():
                leader = leader or self._cluster.leader()
                try:
                    outcome = leader.ask("write", number)
                except ServerDiedError:
                    outcome = "unknown"
                if outcome == "ok":
                    self.acknowledged.append(number)
                else:
                    leader = None
                if outcome != "not applied":
                    number += 1
        except BaseException as error:
            self._failure = error
