"""A user's program against the installed package: two small clusters through the public API.

tools/check_wheel.py copies it to another folder, type-checks it there and runs it in an
environment that has the built package and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyraft
from pyraft import FSM, Config, Configuration, Log, NotAppliedError, Raft
from pyraft.logstore import InmemStore
from pyraft.snapshots import DiscardSnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport


class Counter(FSM):
    def __init__(self) -> None:
        self.value = 0

    def apply(self, log: Log) -> int:
        self.value += int(log.data)
        return self.value

    def snapshot(self) -> bytes:
        return str(self.value).encode()

    def restore(self, source: BinaryIO) -> None:
        self.value = int(source.read())


def check_package() -> None:
    home = Path(pyraft.__file__).parent
    assert home.is_relative_to(sysconfig.get_path("purelib")), f"{home} is not the installed package"
    assert importlib.metadata.version("pyraft-consensus") == pyraft.__version__
    assert (home / "py.typed").is_file()
    for generated in home.rglob("*_pb2.py"):
        assert generated.with_suffix(".pyi").is_file(), f"{generated.name} lacks its types"
    heavy = {"grpc", "lmdb", "msgpack", "google.protobuf"} & sys.modules.keys()
    assert not heavy, f"importing pyraft alone imported {heavy}"


def apply_on_leader(servers: Sequence[Raft], command: bytes, timeout: float = 20.0) -> tuple[Raft, int, int]:
    """Apply ``command`` on whoever leads; the leader, what the FSM returned, and the index."""
    deadline = time.monotonic() + timeout
    while True:
        for raft in servers:
            try:
                future = raft.apply(command, timeout=1)
                return raft, future.result(timeout=5), future.index
            except NotAppliedError:
                assert time.monotonic() < deadline, "nobody led in time"
        time.sleep(0.02)


def check_three_servers_in_memory() -> None:
    network = InmemNetwork()
    members = {name: f"inmem-{name}" for name in ("ann", "bob", "cyd")}
    counters = [Counter() for _ in members]
    servers = []
    for (name, address), counter in zip(members.items(), counters, strict=True):
        config = Config(local_id=name, heartbeat_timeout=0.3, election_timeout=0.3, leader_lease_timeout=0.2)
        store = InmemStore()
        transport = InmemTransport(network, address)
        servers.append(Raft(config, counter, store, store, DiscardSnapshotStore(), transport))
    try:
        for raft in servers:
            raft.start()
        servers[0].bootstrap_cluster(Configuration.of_voters(members)).result(timeout=5)

        leader, value, index = apply_on_leader(servers, b"5")
        assert value == 5
        for raft in servers:
            raft.wait_applied(index, timeout=10)
        assert [counter.value for counter in counters] == [5, 5, 5]

        leader.shutdown().result(timeout=10)
        others = [raft for raft in servers if raft is not leader]
        _, value, _ = apply_on_leader(others, b"2")
        assert value == 7, "what was acknowledged did not survive the leader"
    finally:
        for raft in servers:
            raft.shutdown().result(timeout=10)


def check_one_durable_server() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as data:
        for expected in (5, 10):  # the second time, the first command comes from the disk
            with Raft.open(data, id="n1", address=address, fsm=Counter(), bootstrap={"n1": address}) as raft:
                raft.wait_for_leader(timeout=20)
                _, value, _ = apply_on_leader([raft], b"5")
                assert value == expected, f"counted {value}, not {expected}"


def main() -> None:
    check_package()
    check_three_servers_in_memory()
    check_one_durable_server()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("pyraft-")]
    assert not left, f"threads left after shutdown: {left}"
    print(f"pyraft {pyraft.__version__} works")


if __name__ == "__main__":
    main()
