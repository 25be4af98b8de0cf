"""One server as a process of its own: orders on standard input, answers on standard output, a line of JSON each.

It ends when its standard input does, so it never outlives the test that started it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
import time
import traceback
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from pyraft import (
    FSM,
    Config,
    FSMSnapshot,
    Log,
    NotAppliedError,
    NothingNewToSnapshotError,
    OutcomeUnknownError,
    Raft,
    RaftError,
    RaftShutdownError,
)
from pyraft.snapshots import SnapshotSink
from pyraft.transport import TcpTransport

PATIENCE = 40.0
"""Seconds that an order may take."""
_LAST_WORDS = 10.0
"""Seconds for an orderly end once the parent is gone."""
_PIECE = 64 * 1024
_BODY = bytes(range(256)) * (_PIECE // 256 - 1) + bytes(248)  # the rest of a piece, behind its number


class Ledger(FSM):
    """Every command, a number each, in the order in which they were applied."""

    def __init__(self) -> None:
        self.applied: list[int] = []

    def apply(self, log: Log) -> int:
        self.applied.append(int(log.data))
        return len(self.applied)

    def snapshot(self) -> bytes:
        return json.dumps(self.applied).encode()

    def restore(self, source: BinaryIO) -> None:
        self.applied = json.load(source)

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.applied).encode()).hexdigest()


class Vast(FSM):
    """A state of as many MiB as the latest command says.  It is never in memory, only its checksum is."""

    def __init__(self) -> None:
        self.mib = 0
        self.checksum = 0

    def apply(self, log: Log) -> int:
        self.mib = int(log.data)
        return self.mib

    def snapshot(self) -> FSMSnapshot:
        return _VastSnapshot(self.mib)

    def restore(self, source: BinaryIO) -> None:
        size = checksum = 0
        while piece := source.read(_PIECE):
            size += len(piece)
            checksum = zlib.crc32(piece, checksum)
        self.mib, self.checksum = size >> 20, checksum

    def digest(self) -> str:
        return f"{self.mib} MiB, {self.checksum:08x}"


class _VastSnapshot(FSMSnapshot):
    def __init__(self, mib: int) -> None:
        self._mib = mib

    def persist(self, sink: SnapshotSink) -> None:
        for piece in vast_pieces(self._mib):
            sink.write(piece)


def vast_pieces(mib: int) -> Any:
    """The state of ``mib`` MiB, piece by piece, no two of them equal."""
    for number in range((mib << 20) // _PIECE):
        yield number.to_bytes(8, "big") + _BODY


def anonymous_bytes() -> int:
    """Memory of this process that no file stands for, as the kernel counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not count anonymous memory")


class MemoryWatch:
    """Looks every few milliseconds how much anonymous memory this process has."""

    def __init__(self) -> None:
        self._peak = 0
        threading.Thread(target=self._watch, daemon=True, name="memory").start()

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, anonymous_bytes())
            time.sleep(0.005)

    def start_anew(self) -> int:
        self._peak = now = anonymous_bytes()
        return now

    def peak(self) -> int:
        return max(self._peak, anonymous_bytes())


class Orders:
    """What the parent may ask.  Each order runs on a thread of its own."""

    def __init__(self, raft: Raft, fsm: Any) -> None:
        self._raft = raft
        self._fsm = fsm
        self._memory = MemoryWatch() if isinstance(fsm, Vast) else None

    def write(self, number: int) -> str:
        """``ok``, ``not applied`` (certainly), or ``unknown``."""
        try:
            self._raft.apply(b"%d" % number, timeout=PATIENCE).result(timeout=PATIENCE)
        except NotAppliedError:
            return "not applied"
        except (OutcomeUnknownError, RaftShutdownError):
            return "unknown"
        return "ok"

    def leads(self) -> int:
        """The term that it leads, 0 if it does not."""
        return self._raft.term if str(self._raft.state) == "Leader" else 0

    def change(self, what: str, *arguments: str) -> str:
        """One change of members or leadership: ``ok``, or which kind of error it was."""
        try:
            getattr(self._raft, what)(*arguments).result(timeout=PATIENCE)
        except RaftError as error:
            return type(error).__name__
        return "ok"

    def snapshot(self) -> int:
        """The index of a snapshot that was taken now, or of one that covers everything already."""
        try:
            return self._raft.snapshot().result(timeout=PATIENCE).index
        except NothingNewToSnapshotError:
            return self._raft.status().snapshot_index

    def last_index(self) -> int:
        """The end of the log, all of it applied here.  On a leader."""
        self._raft.barrier().result(timeout=PATIENCE)
        return self._raft.last_index

    def members(self) -> list[str]:
        return [server.id for server in self._raft.get_configuration().result(0).servers]

    def status(self) -> dict[str, Any]:
        status = self._raft.status()
        return {
            "snapshot": status.snapshot_index,
            "applied": status.applied_index,
            "first": status.first_index,
        }

    def digest(self, index: int) -> str:
        """Of the state once everything up to ``index`` is in it."""
        self._raft.wait_applied(index, PATIENCE)
        return self._fsm.digest()

    def applied(self) -> list[int]:
        return self._fsm.applied

    def measure(self) -> int:
        """Bytes of anonymous memory now; the peak is counted from here."""
        return self._memory.start_anew()

    def peak(self) -> int:
        return self._memory.peak()


def main() -> None:
    settings = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    fsm = {"ledger": Ledger, "vast": Vast}[settings["fsm"]]()
    where: dict[str, Any] = {"address": settings["address"]}
    if settings["transport"] == "tcp":
        where = {"transport": TcpTransport(settings["address"])}
    raft = Raft.open(
        settings["path"],
        id=settings["id"],
        fsm=fsm,
        bootstrap=settings["bootstrap"],
        config=Config(**settings["config"]),
        **where,
    )
    raft.start()
    orders = Orders(raft, fsm)
    speaking = threading.Lock()

    def answer(number: int, **text: Any) -> None:
        with speaking:
            print(json.dumps({"number": number, **text}), flush=True)

    def obey(order: dict[str, Any]) -> None:
        try:
            answer(order["number"], ok=getattr(orders, order["do"])(*order["with"]))
        except Exception:
            answer(order["number"], error=traceback.format_exc())

    for line in sys.stdin:
        threading.Thread(target=obey, args=(json.loads(line),), daemon=True).start()
    ending = threading.Timer(_LAST_WORDS, os._exit, (1,))
    ending.daemon = True
    ending.start()
    raft.shutdown().result(timeout=_LAST_WORDS)
    os._exit(0)


if __name__ == "__main__":
    main()
