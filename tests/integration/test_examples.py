"""The examples do what they say, and the demo's check would notice if they did not."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pyraft import Log, LogType

PROJECT = Path(__file__).parent.parent.parent
COUNTER = PROJECT / "examples" / "counter.py"
LIFE = PROJECT / "examples" / "life_of_a_cluster.py"
DEMO = PROJECT / "examples" / "failover_demo"
PATIENCE = 60.0  # seconds; for a machine that is busy with something else

needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")


def load(name: str) -> ModuleType:
    """A module of the demo, which is no package."""
    spec = importlib.util.spec_from_file_location(f"failover_demo_{name}", DEMO / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


check = load("check")
connection = load("connection")


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(folder)}


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
        time.sleep(0.02)


# counter.py


def test_the_counter_survives_its_leader(tmp_path):
    done = subprocess.run(
        [sys.executable, str(COUNTER)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 0, done.stderr
    first, five, cut_off, second, seven, told, everywhere = done.stdout.splitlines()
    assert five == "counter: 5"
    assert cut_off == "cut off: " + first.removeprefix("leader: ")
    assert second.removeprefix("next leader: ") != first.removeprefix("leader: ")
    assert seven == "counter: 7"
    assert told.endswith("LeadershipLostError")
    assert everywhere == "everywhere: {'ann': 7, 'bob': 7, 'cyd': 7}"
    assert done.stderr == ""


# life_of_a_cluster.py


def test_a_cluster_lives_through_snapshots_changes_and_a_handover(tmp_path):
    done = subprocess.run(
        [sys.executable, str(LIFE)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 0, done.stderr
    alone, snapshot, grown, bobs, handover, count, cyds, left = done.stdout.splitlines()
    assert alone == "ann is alone and has: Ada Bo Cy"
    assert snapshot.endswith("b'Ada\\nBo\\nCy'")
    assert grown == "now there are: ann bob cyd"
    assert bobs == "bob began with the snapshot of entry 5 and has: Ada Bo Cy"
    assert handover == "ann hands over to bob, who leads: True"
    assert count == "number of names, from the next write: 4"
    assert cyds == "cyd is asked at once and has: Ada Bo Cy Di"
    assert left == "ann leaves: bob cyd"
    assert done.stderr == ""


# key_value_server.py

SERVER = PROJECT / "examples" / "key_value_server.py"


def free_base() -> int:
    """A port that is free with the two behind it and the three that are ten above."""
    for base in random.SystemRandom().sample(range(12_000, 30_000, 20), 50):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (*range(base, base + 3), *range(base + 10, base + 13)):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise AssertionError("no free ports")


class Client:
    """One connection to one server."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, request: str) -> str:
        self.writer.write(f"{request}\n".encode())
        return (await asyncio.wait_for(self.reader.readline(), PATIENCE)).decode().strip()


async def port_of_leader(base: int) -> int:
    port = base + 10
    async with asyncio.timeout(PATIENCE):
        while True:
            async with Client(port) as client:
                said = await client.ask("set leader found")
            if said == "ok":
                return port
            if said.startswith("ask "):
                port = int(said.rpartition(":")[2])
            await asyncio.sleep(0.05)


async def use_key_value_servers(base: int) -> None:
    leader = await port_of_leader(base)
    others = [port for port in range(base + 10, base + 13) if port != leader]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(leader)) for _ in range(100)]
        said = await asyncio.gather(*(each.ask(f"set k{n} v {n}") for n, each in enumerate(clients)))
        assert said == ["ok"] * 100
        readers = [await stack.enter_async_context(Client(port)) for port in others]
        for number in range(0, 100, 9):
            assert [await each.ask(f"get k{number}") for each in readers] == [f"v {number}"] * 2
        assert await readers[0].ask("set k0 other") == f"ask 127.0.0.1:{leader}"
        assert (await readers[0].ask("nonsense")).startswith("what?")
        assert await readers[0].ask("get nothing") == ""
    async with Client(leader) as hasty:
        hasty.writer.write(b"set hasty gone\n")  # and hangs up; the command goes on
        await hasty.writer.drain()
    async with Client(others[0]) as patient, asyncio.timeout(PATIENCE):
        while await patient.ask("get hasty") != "gone":
            await asyncio.sleep(0.05)


def test_the_asyncio_server_serves_a_hundred_clients_at_once_and_reads_anywhere(tmp_path):
    base = free_base()
    servers = [
        subprocess.Popen(
            [sys.executable, str(SERVER), name, "--port", str(base), "--data", str(tmp_path / "data")],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("n1", "n2", "n3")
    ]
    try:
        for server in servers:
            assert server.stdout is not None
            assert server.stdout.readline().endswith("serves clients\n")
        asyncio.run(use_key_value_servers(base))
    finally:
        for server in servers:
            server.terminate()
        ends = [(*server.communicate(timeout=PATIENCE), server.returncode) for server in servers]
    for _, complaints, code in ends:
        assert (code, "Traceback" in complaints) == (0, False), complaints


# find_the_bug/

BUGS = PROJECT / "examples" / "find_the_bug"


def run_in(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=BUGS,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout + done.stderr


def test_the_bugs_of_the_lock_service_are_found_and_its_last_version_has_none(tmp_path):
    said = run_in(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_locks.py")

    assert re.search(r"^[6-9] passed", said, re.MULTILINE), said


FOUND_TWICE = """
from first_tries import ExpiresOncePerBatch
from test_locks import a_follower_is_away_for_a_while

for _ in range(2):
    try:
        a_follower_is_away_for_a_while(ExpiresOncePerBatch)
    except AssertionError as found:
        print(found, *found.__notes__)
"""


def test_a_bug_is_found_again_with_the_seed_that_is_shown(tmp_path):
    said = run_in(tmp_path, "-c", FOUND_TWICE)

    half = len(said) // 2
    assert said[:half] == said[half:]
    assert "seed 7, policy RandomPolicy()" in said


# the failover demo


@pytest.mark.slow
def test_the_short_demo_loses_nothing_and_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, str(DEMO / "main.py"), "--quick"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    table = {words[0]: words[1] for line in done.stdout.splitlines() if len(words := line.split()) > 1}
    assert int(table["acknowledged"].replace(",", "")) > 0
    assert (table["lost"], table["doubled"]) == ("0", "0")
    assert done.stdout.count("SIGKILL") == 1
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_the_demo(number, tmp_path):
    demo = subprocess.Popen(
        [sys.executable, str(DEMO / "main.py"), "--plain"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    with demo.stdout:
        next(line for line in demo.stdout if "leads term" in line)
        assert len(processes_of(tmp_path)) == 3

        demo.send_signal(number)

        code = demo.wait(PATIENCE)
    assert code == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    wait_until(lambda: processes_of(tmp_path) == [], "the servers end")
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def processes_of(folder: Path) -> list[int]:
    """The processes whose arguments name something in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has just ended
    return found


TAKEN_AT_FIRST = """
import socket, sys
from pathlib import Path

import cluster

other = socket.create_server((cluster.HOST, 0))
free = cluster.free_ports

def free_but_for_one(count):
    cluster.free_ports = free
    return [*free(count - 1), other.getsockname()[1]]

cluster.free_ports = free_but_for_one
started = cluster.Cluster.start(["n1"], Path(sys.argv[1]))
print(started.stop())
"""


@pytest.mark.slow
def test_a_port_that_somebody_takes_meanwhile_leads_to_another_start(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_AT_FIRST, str(tmp_path)],
        env={**environment(tmp_path), "PYTHONPATH": os.pathsep.join([str(PROJECT), str(DEMO)])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["try-1", "try-2"]


class Server:
    """One server of the demo, alone in its cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            self.port, self.client_port = first.getsockname()[1], second.getsockname()[1]
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        arguments = ["n1", str(self.folder / "n1"), str(self.client_port), f"n1={self.port}"]
        process = subprocess.Popen(
            [sys.executable, str(DEMO / "server.py"), *arguments],
            env=environment(self.folder),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.process = process
        wait_until(lambda: (self.ask("status") or {}).get("state") == "Leader", "the server leads")
        return process

    def ask(self, do: str, **more: str) -> dict | None:
        try:
            to_server = connection.Connection(self.client_port, 10.0)
        except OSError:
            return None
        try:
            return to_server.ask({"do": do, **more})
        finally:
            to_server.close()

    def stop(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.slow
def test_a_server_recognises_no_duplicates_and_keeps_what_it_was_told(server):
    indexes = [server.ask("write", command=command)["index"] for command in ("a:1", "a:2", "a:2")]
    before = server.ask("dump")
    assert server.stop() == 0

    server.start()

    assert before["entries"] == [[indexes[0], "a:1"], [indexes[1], "a:2"], [indexes[2], "a:2"]]
    wait_until(lambda: server.ask("dump")["entries"] == before["entries"], "the state is back")
    assert server.stop() == 0
    log = check.read_log(server.folder / "n1", committed=indexes[-1])
    assert [entry.data for entry in log if entry.type is LogType.COMMAND] == [b"a:1", b"a:2", b"a:2"]


# the demo's check

ACKNOWLEDGED = {"a:1": 2, "a:3": 4, "b:1": 5}
UNKNOWN = {"a:2", "b:2"}
GOOD = [(2, "a:1"), (3, "a:2"), (4, "a:3"), (5, "b:1")]


def states(third: list[tuple[int, str]]) -> dict[str, list[tuple[int, str]]]:
    return {"n1": GOOD, "n2": GOOD, "n3": third}


def test_three_equal_states_with_all_that_was_acknowledged_are_good():
    verdict = check.check_states(ACKNOWLEDGED, UNKNOWN, states(GOOD))

    assert verdict.is_good
    assert verdict.problems() == []
    assert verdict.applied_unknown == 1


@pytest.mark.parametrize(
    ("third", "problem"),
    [
        (GOOD[:-1], "acknowledged and lost: 1 (b:1)"),
        ([*GOOD, (6, "b:1")], "applied more than once: 1 (b:1)"),
        ([*GOOD[:2], (4, "a:2"), *GOOD[2:]], "applied more than once: 1 (a:2)"),
        ([*GOOD, (6, "c:1")], "n3 applied what nobody sent or what was refused: 1 (c:1)"),
        ([*GOOD[:-1], (6, "b:1")], "n3 has at another index than the client was told: 1 (b:1)"),
        ([GOOD[1], GOOD[0], *GOOD[2:]], "n3 did not apply in the order of the log"),
        ([*GOOD, (6, "b:2")], "state: after 4 equal entries n1 has [] and n3 has [(6, 'b:2')]"),
        ([GOOD[0], *GOOD[2:]], "state: after 1 equal entries n1 has [(3, 'a:2')] and n3 has [(4, 'a:3')]"),
    ],
)
def test_a_state_that_differs_is_found(third, problem):
    verdict = check.check_states(ACKNOWLEDGED, UNKNOWN, states(third))

    assert not verdict.is_good
    assert problem in verdict.problems()


def logs_of(*entries: tuple[int, str], terms: str) -> list[Log]:
    commands = [
        Log(index, int(term), LogType.COMMAND, command.encode())
        for (index, command), term in zip(entries, terms, strict=True)
    ]
    return [Log(1, 1, LogType.NOOP), *commands]


def test_a_log_that_holds_what_was_applied_is_good_even_behind_a_snapshot():
    whole = logs_of(*GOOD, terms="1122")

    assert check.check_logs({"n1": whole, "n2": whole, "n3": whole[3:]}, states(GOOD)) == []


@pytest.mark.parametrize(
    "third",
    [
        logs_of(*GOOD[:-1], terms="112"),
        logs_of(*GOOD, (6, "b:2"), terms="11222"),
        logs_of(*GOOD, terms="1123"),
        logs_of(*GOOD[:-1], (5, "x:1"), terms="1122"),
    ],
    ids=["an entry is missing", "one too many", "another term", "another command"],
)
def test_a_log_that_differs_is_found(third):
    good = logs_of(*GOOD, terms="1122")

    assert check.check_logs({"n1": good, "n2": good, "n3": third}, states(GOOD)) != []
