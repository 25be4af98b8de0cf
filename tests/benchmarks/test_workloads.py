"""The loads, on a library that answers at once."""

import asyncio
import os
from concurrent.futures import Future

import pytest

from benchmarks import workloads
from benchmarks.processes import disk_bytes
from benchmarks.sessions import costs, shared_costs
from benchmarks.workloads import UnsupportedError


class Echo:
    """Answers every command at once, and remembers it."""

    def __init__(self, fails_after: int = 10**9) -> None:
        self.commands: list[bytes] = []
        self.fails_after = fails_after

    def apply(self, command: bytes) -> Future:
        future: Future = Future()
        self.commands.append(command)
        if len(self.commands) > self.fails_after:
            future.set_exception(RuntimeError("no leader"))
        else:
            future.set_result(len(self.commands))
        return future


SHORT = {"size": 32, "seconds": 0.02, "warm_up": 0.01}


@pytest.mark.parametrize(
    "work",
    [
        {"workload": "clients", "clients": 1},
        {"workload": "clients", "clients": 2},
        {"workload": "clients", "clients": 1, "busy": True, "switch_interval": 0.001},
        {"workload": "tasks", "clients": 8},
        {"workload": "outstanding", "window": 4},
        {"workload": "outstanding", "window": 1000},
    ],
    ids=str,
)
def test_every_command_is_accounted_for_and_distinct(work):
    library = Echo()
    arguments = {**SHORT, **work}

    figures = workloads.WORKLOADS[arguments.pop("workload")](library, **arguments)

    assert figures["submitted"] == len(library.commands) > 0
    assert len(set(library.commands)) == len(library.commands)
    assert {len(command) for command in library.commands} == {32}
    assert figures["per_second"] > 0


def test_a_fill_is_exact():
    library = Echo()

    assert workloads.fill(library, size=16, count=1000, window=64)["submitted"] == 1000
    assert len(library.commands) == 1000


@pytest.mark.parametrize("workload", ["clients", "tasks"])
def test_a_client_that_fails_fails_the_load(workload):
    with pytest.raises(RuntimeError, match="no leader"):
        workloads.WORKLOADS[workload](Echo(fails_after=5), **SHORT, clients=2)


def test_an_operation_that_a_library_lacks():
    with pytest.raises(UnsupportedError, match="read_index"):
        workloads.clients(Echo(), **SHORT, clients=1, operation="read_index")


def test_percentiles_are_values_that_occurred():
    figures = workloads.percentiles([number / 1e6 for number in range(1000, 0, -1)])

    assert figures == {
        "p50_us": pytest.approx(500),
        "p99_us": pytest.approx(990),
        "p999_us": pytest.approx(999),
    }


def test_what_can_be_awaited_is_awaited_itself():
    class Own:
        def __await__(self):
            return iter(())

    own = Own()
    assert workloads.awaitable(own) is own

    async def wraps():
        return await workloads.awaitable(Echo().apply(b""))

    assert asyncio.run(wraps()) == 1


def test_costs_are_per_command_and_apart_for_leader_and_followers():
    before = {id: {"cpu_seconds": 1.0, "rss_anon_bytes": 0} for id in ("a", "b", "c")}
    after = {
        "a": {"cpu_seconds": 3.0, "rss_anon_bytes": 2**20},
        "b": {"cpu_seconds": 1.5, "rss_anon_bytes": 2**21},
        "c": {"cpu_seconds": 2.5, "rss_anon_bytes": 2**22},
    }

    found = costs(before, after, "a", 1000)

    assert found == {
        "leader_cpu_seconds_per_100k": 200.0,
        "follower_cpu_seconds_per_100k": 100.0,
        "leader_rss_anon_mib": 1.0,
        "follower_rss_anon_mib": 4.0,
    }


def test_what_all_servers_share_is_counted_where_the_kernel_tells_it():
    before = {"network": 100.0, "written": None}
    after = {"network": 2_100.0, "written": None}

    assert shared_costs(before, after, 1000) == {"network_bytes_per_command": 2.0}


def test_bytes_on_their_way_to_the_disk_are_counted_as_they_are(tmp_path):
    if disk_bytes(tmp_path) is None:
        pytest.skip("the directory for temporary files is on no disk whose writes the kernel tells")
    before = disk_bytes(tmp_path)
    with open(tmp_path / "file", "wb") as file:
        file.write(os.urandom(1_000_000))
        file.flush()
        os.fsync(file.fileno())

    assert disk_bytes(tmp_path) - before >= 1_000_000
