"""One server as a process of its own; takes orders on standard input, answers on standard output.

Ends when its standard input does, so it never outlives the benchmark.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from pyraft import FSM, Config, Log, Raft

from .workloads import WORKLOADS


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


def process_figures() -> dict[str, float]:
    """Anonymous memory in bytes and CPU seconds of this process, as the kernel counts them."""
    anon = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            anon = int(line.split()[1]) * 1024
    times = os.times()
    return {"rss_anon_bytes": anon, "cpu_seconds": times.user + times.system, "wall": time.monotonic()}


class Orders:
    """What the parent may ask of this server."""

    def __init__(self, raft: Raft, fsm: Tally) -> None:
        self._raft = raft
        self._fsm = fsm

    def who_leads(self) -> str | None:
        return self._raft.leader_id

    def run(self, workload: str, **arguments: Any) -> dict[str, float]:
        return WORKLOADS[workload](self._raft, **arguments)

    def applied(self, index: int) -> dict[str, Any]:
        self._raft.wait_applied(index, 60)
        return {"count": self._fsm.count, "digest": self._fsm.digest, "index": self._raft.applied_index}

    def last_index(self) -> int:
        self._raft.barrier().result(60)
        return self._raft.last_index

    def process(self) -> dict[str, float]:
        return process_figures()

    def metrics(self) -> dict[str, float]:
        return self._raft.metrics()


def main() -> None:
    settings = json.loads(sys.argv[1])
    fsm = Tally()
    raft = Raft.open(
        settings["path"],
        id=settings["id"],
        address=settings["members"][settings["id"]],
        fsm=fsm,
        bootstrap=settings["members"],
        config=Config(**settings.get("config", {})),
    )
    with raft:
        raft.wait_for_leader(30)
        orders = Orders(raft, fsm)
        print(json.dumps({"ok": "ready"}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            try:
                result = getattr(orders, order["do"])(**order.get("with", {}))
                print(json.dumps({"ok": result}), flush=True)
            except Exception:
                print(json.dumps({"error": traceback.format_exc()}), flush=True)


if __name__ == "__main__":
    main()
