"""One PySyncObj server as a process of its own: it takes orders (orders.py) as server.py does.

Runs in an environment that has PySyncObj and not pyraft.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

from .orders import answer, obey
from .workloads import WORKLOADS, commands

SETTINGS = json.loads(sys.argv[1])


class Tally(SyncObj):
    """Counts commands and chains their bytes, so that servers can be compared."""

    def __init__(self, own: str, others: list[str], conf: SyncObjConf) -> None:
        super().__init__(own, others, conf)
        self.__state = (0, 0)

    @replicated
    def take(self, command: bytes) -> int:
        count, digest = self.__state
        self.__state = (count + 1, zlib.crc32(command, digest))
        return count + 1

    def state(self) -> tuple[int, int]:
        return self.__state


class Library:
    """PySyncObj behind the one method that the loads use."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def apply(self, command: bytes) -> Future[int]:
        future: Future[int] = Future()

        def done(result: Any, error: int) -> None:
            if error:
                future.set_exception(RuntimeError(f"PySyncObj refused or lost it: reason {error}"))
            else:
                future.set_result(result)

        self._tally.take(command, callback=done)
        return future


class Orders:
    """What may be asked of this server."""

    def __init__(self, tally: Tally, ids: dict[str, str]) -> None:
        self._tally = tally
        self._ids = ids

    def who_leads(self) -> str | None:
        leader = self._tally._getLeader()
        return None if leader is None else self._ids[str(leader)]

    def run(self, workload: str, **arguments: Any) -> dict[str, float]:
        return WORKLOADS[workload](Library(self._tally), **arguments)

    def last_index(self) -> int:
        """How many commands this server has applied: there is no barrier, but also none on its way."""
        return self._tally.state()[0]

    def applied(self, index: int, seconds: float) -> dict[str, int]:
        end = time.monotonic() + seconds
        while self._tally.state()[0] < index:
            if time.monotonic() > end:
                raise TimeoutError(f"applied {self._tally.state()[0]} of {index} in time")
            time.sleep(0.002)
        count, digest = self._tally.state()
        return {"count": count, "digest": digest}

    def snapshot(self) -> None:
        self._tally.forceLogCompaction()
        time.sleep(1)

    def write_when_leading(self, dead: str, seconds: float) -> bool:
        library, make = Library(self._tally), commands(1 << 40, 128)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            leader = self.who_leads()
            if leader == SETTINGS["id"]:
                try:
                    library.apply(make()).result(5)
                    return True
                except (RuntimeError, TimeoutError):
                    continue
            if leader not in (None, dead):
                return False
            time.sleep(0.002)
        raise TimeoutError("nobody leads in time")


def main() -> None:
    members = dict(SETTINGS["members"])
    own = members.pop(SETTINGS["id"])
    folder = Path(SETTINGS["path"])
    folder.mkdir(parents=True, exist_ok=True)
    # Its defaults, apart from the election timeouts, which are the others'.
    timeout = SETTINGS["config"].get("election_timeout", 1.0)
    ready = threading.Event()
    conf = SyncObjConf(
        journalFile=str(folder / "journal"),
        fullDumpFile=str(folder / "dump"),
        raftMinTimeout=timeout,
        raftMaxTimeout=2 * timeout,
        onReady=ready.set,
    )
    tally = Tally(own, list(members.values()), conf)
    ready.wait(30)
    answer(ok={"library": "PySyncObj"})
    obey(Orders(tally, {address: id for id, address in SETTINGS["members"]}))
    tally.destroy()


if __name__ == "__main__":
    main()
