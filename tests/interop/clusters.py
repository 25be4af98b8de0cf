"""Clusters of Go and Python servers, each a process of its own, under one set of orders.

Everything waits on conditions, with patience that is nearly never used up.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from .links import Links

PATIENCE = 60.0
"""Seconds after which something that should happen counts as not happening."""

_BUILD_SECONDS = 400

PROJECT = Path(__file__).parent.parent.parent
GO_MODULES = Path(__file__).parent / "go"

SETTINGS = {
    "timeout": 1.0,
    "commit_timeout": 0.02,
    "snapshot_interval": 3600.0,
    "snapshot_threshold": 1_000_000,
    "trailing_logs": 5,
    "max_append_entries": 1024,
    "pre_vote": True,
    "pipeline": True,
    "store": "boltdb",
}
"""What servers get unless a test says otherwise; snapshots are taken when they are asked for."""


class NotDoneError(Exception):
    """A server answered with an error.  ``outcome``: "refused" (in nobody's log), "unknown" or "other"."""

    def __init__(self, server: str, text: str, outcome: str) -> None:
        super().__init__(f"{server}: {text} [{outcome}]")
        self.outcome = outcome


class GoneError(Exception):
    """The server's process ended before it answered."""


def build_go(module: str, package: str, target: Path, *command: str) -> str | None:
    """Build ``package`` of the Go module ``module`` as ``target``; return why that is impossible, or None.

    Args:
        command: of Go, with which to build; "build" if left out.
    """
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return "there is no Go to build the other implementation with"
    try:
        built = subprocess.run(
            [go, *(command or ("build",)), "-buildvcs=false", "-mod=readonly", "-o", target, package],
            cwd=GO_MODULES / module,
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"the other implementation cannot be built within {_BUILD_SECONDS} s"
    return f"the other implementation cannot be built: {built.stderr[-500:]}" if built.returncode else None


def eventually(holds: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Wait until ``holds()`` is true, and return what it returned; AssertionError naming ``what``."""
    deadline = time.monotonic() + timeout
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.02)
    return found


class Process:
    """A server process that takes orders (go/server/main.go, server.py)."""

    def __init__(self, id: str, command: list[str], log: Path) -> None:
        self.id = id
        self.log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=PROJECT
            )
        self.pid = self._process.pid
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {0: Future()}
        self._numbers = itertools.count(1)
        self._ready = self._waiting[0]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        self._ready.result(PATIENCE)

    def send(self, do: str, **arguments: Any) -> Future[Any]:
        """Give an order; the future has what the server answers, NotDoneError or GoneError."""
        number, future = next(self._numbers), Future[Any]()
        assert self._process.stdin is not None
        with self._lock:
            if self._waiting is _NOBODY:
                future.set_exception(GoneError(f"{self.id} has ended"))
                return future
            self._waiting[number] = future
            try:
                self._process.stdin.write(json.dumps({"n": number, "do": do, "with": arguments}) + "\n")
                self._process.stdin.flush()
            except OSError:
                pass  # it has ended, and the reader says so to everybody who waits
        return future

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does, and wait until it is gone."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for end in (self._process.stdin, self._process.stdout):
            try:
                assert end is not None
                end.close()
            except OSError:
                pass

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                future = self._waiting.pop(answer["n"])
            if "error" in answer:
                future.set_exception(NotDoneError(self.id, answer["error"], answer["outcome"]))
            else:
                future.set_result(answer.get("ok"))
        with self._lock:
            left, self._waiting = self._waiting, _NOBODY
        for future in left.values():
            future.set_exception(GoneError(f"{self.id} has ended; its log says:\n{self.last_words()}"))

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


_NOBODY: dict[int, Future[Any]] = {}


class Member:
    """One server of a cluster, while it runs and while it does not."""

    def __init__(self, id: str, language: str, settings: dict[str, Any]) -> None:
        self.id = id
        self.language = language
        self.settings = settings
        self.process: Process | None = None

    @property
    def address(self) -> str:
        return str(self.settings["advertise"])

    def send(self, do: str, **arguments: Any) -> Future[Any]:
        """As ``Process.send``; also while it does not run."""
        process = self.process
        if process is None:
            gone = Future[Any]()
            gone.set_exception(GoneError(f"{self.id} does not run"))
            return gone
        return process.send(do, **arguments)

    def ask(self, do: str, **arguments: Any) -> Any:
        return self.send(do, **arguments).result(PATIENCE)

    def status(self) -> dict[str, Any]:
        return dict(self.ask("status"))


def done(leader: Member, do: str, **arguments: Any) -> bool:
    """Whether ``leader`` did it; False if it was deposed meanwhile, which a busy machine does, too."""
    try:
        leader.ask(do, **arguments)
    except NotDoneError as error:
        assert error.outcome != "other", error
        return False
    return True


class Cluster:
    """Servers n1, n2, … in the given languages ("go", "py"), and what was acknowledged to clients."""

    def __init__(
        self,
        folder: Path,
        languages: Iterable[str],
        transport: str,
        go_server: Path,
        *,
        ids: str = "n",
        **settings: Any,
    ) -> None:
        """Make them, without starting any.

        Args:
            ids: what stands before the numbers in their ids.
            settings: other than SETTINGS.
        """
        self._ids = ids
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._go_server = go_server
        self._settings = {**SETTINGS, "transport": transport, **settings}
        self.links = Links()
        self.members: dict[str, Member] = {}
        self.acknowledged: list[str] = []
        self._names = itertools.count(1)
        for language in languages:
            self.enrol(language)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        for member in self.members.values():
            if member.process is not None:
                member.process.kill()
                if error is not None:
                    print(f"---- {member.id} ({member.language}):\n{member.process.last_words()}")
        self.links.__exit__()

    # Servers.

    def enrol(self, language: str) -> Member:
        """A further server; it does not run yet and belongs to nobody."""
        id = f"{self._ids}{len(self.members) + 1}"
        bind, advertise = self.links.add(id)
        settings = {**self._settings, "id": id, "bind": bind, "advertise": advertise}
        self.members[id] = Member(id, language, settings)
        return self.members[id]

    def of(self, language: str) -> Member:
        """The first server that is written in ``language``."""
        return next(member for member in self.members.values() if member.language == language)

    def start(self, *ids: str) -> None:
        """Start servers, all if none is named, and wait until they take orders."""
        chosen = [self.members[id] for id in ids or self.members]
        for member in chosen:
            member.settings["path"] = str(self._folder / f"{member.id}-{member.language}")
            settings = json.dumps(member.settings)
            command = [str(self._go_server), settings]
            if member.language == "py":
                command = [sys.executable, "-m", "tests.interop.server", settings]
            member.process = Process(member.id, command, self._folder / f"{member.id}.log")
            self.links.runs_as(member.id, member.process.pid)
        for member in chosen:
            assert member.process is not None
            member.process.wait_ready()

    def kill(self, *ids: str) -> None:
        for id in ids:
            process, self.members[id].process = self.members[id].process, None
            assert process is not None
            process.kill()

    def stop(self, id: str) -> None:
        """Shut a server down in good order."""
        member = self.members[id]
        assert member.process is not None
        try:
            member.send("shutdown").result(PATIENCE if member.language == "py" else 10)
        except TimeoutError:
            # Go's Shutdown() waits for replication threads, which may wait for ever themselves.
            assert member.language == "go", f"{id} does not shut down"
            member.process.signal(signal.SIGQUIT)  # its stacks go to its log
        self.kill(id)

    def pause(self, id: str) -> None:
        process = self.members[id].process
        assert process is not None
        process.signal(signal.SIGSTOP)

    def resume(self, id: str) -> None:
        process = self.members[id].process
        assert process is not None
        process.signal(signal.SIGCONT)

    def running(self) -> list[Member]:
        return [member for member in self.members.values() if member.process is not None]

    def bootstrap(self, *by: Member) -> None:
        for member in by:
            member.ask("bootstrap", servers=[self.entry(other) for other in self.members.values()])

    def entry(self, member: Member, suffrage: str = "Voter") -> dict[str, str]:
        return {"id": member.id, "address": member.address, "suffrage": suffrage}

    # Leaders.

    def leader(self, among: Iterable[Member] | None = None) -> Member:
        """Wait until most of those asked (all that run) name one of them, who leads; return that one."""
        asked = list(among or self.running())

        def agreed() -> Member | None:
            said = {member.id: member.status() for member in asked}
            for member in asked:
                followed = sum(s["leader"] == member.id for s in said.values())
                if said[member.id]["state"] == "Leader" and followed > len(self.voters(said)) // 2:
                    return member
            return None

        found = eventually(agreed, f"one of {[member.id for member in asked]} leads")
        assert isinstance(found, Member)
        return found

    def voters(self, said: dict[str, dict[str, Any]]) -> list[str]:
        """Of the configuration that the furthest of those who were asked has."""
        furthest = max(said.values(), key=lambda status: (status["term"], status["last_index"]))
        return [m["id"] for m in furthest["members"] if m["suffrage"] == "Voter"]

    def lead(self, member: Member, among: Iterable[Member] | None = None) -> Member:
        """Have leadership transferred until ``member`` has it."""

        def leads() -> bool:
            leader = self.leader(among)
            if leader is member:
                return True
            try:
                leader.ask("transfer", id=member.id, address=member.address)
            except NotDoneError:
                pass  # elections on a busy machine; asked again
            return False

        eventually(leads, f"{member.id} leads")
        return member

    # Clients.

    def apply(self, size: int, among: Iterable[Member] | None = None) -> None:
        """Have one command of ``size`` bytes applied by who leads."""
        while self._outcome(among, "apply", size=size, prefix="") is None:
            pass

    def write(self, count: int, among: Iterable[Member] | None = None) -> None:
        """Have ``count`` small commands applied by who leads; each must be there once at the end."""
        done = None
        while done != count:
            prefix = f"w{next(self._names)}-"  # what is in doubt is not sent again
            done = self._outcome(among, "write", count=count, prefix=prefix)
        self.acknowledged += [f"{prefix}{i}" for i in range(count)]

    def _outcome(self, among: Iterable[Member] | None, do: str, **arguments: Any) -> Any:
        """What the leader answers; None if it was deposed meanwhile, which a busy machine does, too."""
        try:
            return self.leader(among).ask(do, **arguments)
        except NotDoneError as error:
            assert error.outcome != "other", error
            return None

    def verify(self, leader: Member) -> None:
        """Have ``leader`` make sure that it leads; again where it was deposed meanwhile."""

        def verified() -> bool:
            self.lead(leader)
            return done(leader, "verify")

        eventually(verified, f"{leader.id} knows that it leads")

    def change(
        self, do: str, member: Member, by: Member | None = None, among: Iterable[Member] | None = None
    ) -> None:
        """Add, demote or remove ``member``, by who leads or by ``by``; again where that one was deposed meanwhile."""
        suffrage = {"add_voter": "Voter", "add_nonvoter": "Nonvoter", "demote": "Nonvoter", "remove": None}[
            do
        ]
        arguments = {"id": member.id} | ({"address": member.address} if do.startswith("add") else {})

        def changed() -> bool:
            leader = self.lead(by, among) if by is not None else self.leader(among)
            present = {m["id"]: m["suffrage"] for m in leader.status()["members"]}
            if present.get(member.id) == suffrage:
                return done(leader, "barrier")
            return done(leader, do, **arguments)

        eventually(changed, f"{do} {member.id}")

    # What must hold.

    def converge(self) -> dict[str, Any]:
        """Wait until all that run have applied the same; return what the leader says of itself.

        Raises:
            AssertionError: they do not, or something acknowledged is missing or there twice.
        """
        while True:
            leader = self.leader()
            try:
                leader.ask("barrier")
                break
            except NotDoneError:
                continue
        goal = leader.status()

        def equal() -> bool:
            return all(
                (s["count"], s["digest"]) == (goal["count"], goal["digest"])
                for s in (member.status() for member in self.running())
            )

        try:
            eventually(equal, "all have applied the same")
        except AssertionError as error:
            said = {member.id: (member.language, member.status()) for member in self.running()}
            raise AssertionError(f"{error}: {said}") from None
        for member in self.running():
            kept = member.ask("commands", prefix="w")
            assert len(kept) == len(set(kept)), f"{member.id} applied something twice"
            missing = set(self.acknowledged) - set(kept)
            assert not missing, f"{member.id} has lost {sorted(missing)[:5]} and {len(missing)} in all"
        return goal
