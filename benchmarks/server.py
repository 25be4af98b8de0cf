"""One pyraft server as a process of its own: it takes orders (orders.py), and ends when its input does."""

from __future__ import annotations

import json
import sys
import time
import zlib
from typing import Any, BinaryIO

from .orders import answer, obey
from .steps import Marks, call_one_by_one, watch
from .workloads import WORKLOADS, commands

SETTINGS = json.loads(sys.argv[1]) if __name__ == "__main__" else {}
if SETTINGS.get("library"):
    sys.path.insert(0, SETTINGS["library"])  # another checkout than the one whose benchmarks these are

import pyraft  # noqa: E402
from pyraft import FSM, Config, Log, Raft, RaftError, RaftState  # noqa: E402


class Tally(FSM):
    """Counts commands and chains their bytes, so that servers can be compared."""

    def __init__(self) -> None:
        self.count = 0
        self.digest = 0

    def apply(self, log: Log) -> int:
        self.count += 1
        self.digest = zlib.crc32(log.data, self.digest)
        return self.count

    def snapshot(self) -> bytes:
        return json.dumps([self.count, self.digest]).encode()

    def restore(self, source: BinaryIO) -> None:
        self.count, self.digest = json.loads(source.read())


class Orders:
    """What may be asked of this server."""

    def __init__(self, raft: Raft, fsm: Tally) -> None:
        self._raft = raft
        self._fsm = fsm

    def who_leads(self) -> str | None:
        return self._raft.leader_id

    def run(self, workload: str, **arguments: Any) -> dict[str, float]:
        return WORKLOADS[workload](self._raft, **arguments)

    def last_index(self) -> int:
        self._raft.barrier().result(60)
        return self._raft.last_index

    def applied(self, index: int, seconds: float) -> dict[str, int]:
        """Wait until everything up to ``index`` has been applied here; return the state."""
        self._raft.wait_applied(index, seconds)
        return {"count": self._fsm.count, "digest": self._fsm.digest}

    def snapshot(self) -> None:
        self._raft.snapshot().result(60)

    def metrics(self) -> dict[str, float]:
        return dict(self._raft.metrics())

    def watch_steps(self) -> None:
        """Note the instants of every command's steps from now on (steps.py)."""
        self._recorder = watch()

    def take_steps(self) -> None:
        call_one_by_one(self._raft, self._recorder)

    def steps(self) -> Marks:
        return self._recorder.marks

    def write_when_leading(self, dead: str, seconds: float) -> bool:
        """Try to write until a write is acknowledged here (True), or another than ``dead`` leads."""
        make = commands(1 << 40, 128)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._raft.state is RaftState.LEADER:
                try:
                    self._raft.apply(make()).result(1)
                    return True
                except (RaftError, TimeoutError):
                    continue
            if self._raft.leader_id not in (None, dead, SETTINGS["id"]):
                return False
            time.sleep(0.002)
        raise TimeoutError("nobody leads in time")


def open_server(settings: dict[str, Any], fsm: Tally) -> Raft:
    """The server that ``settings`` describe (see subjects.py)."""
    members = dict(settings["members"])
    address = members[settings["id"]]
    config = Config(local_id=settings["id"], **settings["config"])
    transport: Any = None
    if settings["transport"] == "tcp":
        from pyraft.transport import TcpTransport

        transport = TcpTransport(address)
    if settings["store"] == "memory":
        if transport is None:
            from pyraft.transport import GrpcTransport

            transport = GrpcTransport(address)
        return _in_memory(config, fsm, members, transport)
    return Raft.open(
        settings["path"],
        id=settings["id"],
        address=address if transport is None else None,
        fsm=fsm,
        bootstrap=members,
        config=config,
        transport=transport,
    )


def _in_memory(config: Config, fsm: Tally, members: dict[str, str], transport: Any) -> Raft:
    from pyraft import Configuration, bootstrap_cluster
    from pyraft.logstore import InmemStore
    from pyraft.snapshots import InmemSnapshotStore

    store, snapshots = InmemStore(), InmemSnapshotStore()
    bootstrap_cluster(config, store, store, snapshots, transport, Configuration.of_voters(members))
    return Raft(config, fsm, store, store, snapshots, transport)


def main() -> None:
    fsm = Tally()
    with open_server(SETTINGS, fsm) as raft:
        raft.wait_for_leader(30)
        answer(ok={"library": pyraft.__file__})
        obey(Orders(raft, fsm))


if __name__ == "__main__":
    main()
