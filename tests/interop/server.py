"""A pyraft server as a process of its own, with the same orders as the Go one (go/server/main.go).

    python -m tests.interop.server SETTINGS

SETTINGS is JSON (``Settings``).  Orders come on standard input, one JSON object a line, and are
answered on standard output in whatever order they are done.  Ends when its standard input does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pyraft import (
    FSM,
    Config,
    Configuration,
    Log,
    NotAppliedError,
    OutcomeUnknownError,
    Raft,
    RaftError,
    RaftShutdownError,
    Server,
    Suffrage,
)
from pyraft.transport import GrpcTransport, TcpTransport, Transport

PATIENCE = 20.0
"""Seconds that something may wait for room in a queue; the tests have their own for the rest."""


class Chain(FSM):
    """Keeps every command in order, and a digest over all of them: ``chain`` of go/server/fsm.go.

    A snapshot holds each command behind its length in four bytes, big-endian.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commands: list[bytes] = []
        self._digest = bytes(32)

    def apply(self, log: Log) -> int:
        with self._lock:
            self._add(log.data)
            return len(self._commands)

    def _add(self, command: bytes) -> None:
        self._commands.append(command)
        self._digest = hashlib.sha256(self._digest + command).digest()

    def snapshot(self) -> bytes:
        with self._lock:
            return b"".join(struct.pack(">I", len(each)) + each for each in self._commands)

    def restore(self, source: BinaryIO) -> None:
        with self._lock:
            self._commands, self._digest = [], bytes(32)
            while length := source.read(4):
                self._add(source.read(struct.unpack(">I", length)[0]))

    def describe(self) -> tuple[int, str]:
        with self._lock:
            return len(self._commands), self._digest.hex()

    def starting(self, prefix: bytes) -> list[bytes]:
        with self._lock:
            return [each for each in self._commands if each.startswith(prefix)]


class Orders:
    """What the tests may ask of this server; each method blocks until it is done."""

    def __init__(self, raft: Raft, chain: Chain) -> None:
        self._raft = raft
        self._chain = chain

    def bootstrap(self, servers: list[dict[str, str]]) -> None:
        members = tuple(Server(s["id"], s["address"], Suffrage[s["suffrage"].upper()]) for s in servers)
        self._raft.bootstrap_cluster(Configuration(members)).result()

    def status(self) -> dict[str, Any]:
        now = self._raft.status()
        count, digest = self._chain.describe()
        return {
            "state": self._raft.state.name.capitalize(),
            "leader": self._raft.leader_id or "",
            "term": now.term,
            "last_index": now.last_index,
            "commit_index": now.commit_index,
            "snapshot_index": now.snapshot_index,
            "members": [
                {"id": s.id, "address": s.address, "suffrage": s.suffrage.name.capitalize()}
                for s in self._raft.get_configuration().configuration.servers
            ],
            "count": count,
            "digest": digest,
        }

    def apply(self, size: int, prefix: str = "") -> dict[str, int]:
        """Have one command of ``size`` bytes applied, which begins with ``prefix`` as far as that fits."""
        future = self._raft.apply(prefix.encode()[:size].ljust(size, b"\0"), PATIENCE)
        response = future.result()
        return {"index": future.index, "response": response}

    def write(self, count: int, prefix: str) -> int:
        """Have the commands prefix0, prefix1, … applied without waiting in between; how many were."""
        futures = [self._raft.apply(b"%s%d" % (prefix.encode(), i), PATIENCE) for i in range(count)]
        errors = [error for future in futures if (error := future.exception())]
        if len(errors) == count and errors:
            raise errors[-1]
        return count - len(errors)

    def barrier(self) -> None:
        self._raft.barrier(PATIENCE).result()

    def verify(self) -> None:
        self._raft.verify_leader().result()

    def read_index(self) -> int:
        """Of the Python server alone: from which index on a read is linearizable."""
        return self._raft.read_index(PATIENCE).result()

    def snapshot(self) -> int:
        future = self._raft.snapshot()
        future.result()
        return future.meta.index

    def add_voter(self, id: str, address: str) -> int:
        return _index(self._raft.add_voter(id, address, timeout=PATIENCE))

    def add_nonvoter(self, id: str, address: str) -> int:
        return _index(self._raft.add_nonvoter(id, address, timeout=PATIENCE))

    def demote(self, id: str) -> int:
        return _index(self._raft.demote_voter(id, timeout=PATIENCE))

    def remove(self, id: str) -> int:
        return _index(self._raft.remove_server(id, timeout=PATIENCE))

    def transfer(self, id: str = "", address: str = "") -> None:
        self._raft.leadership_transfer(id or None, address or None).result()

    def commands(self, prefix: str) -> list[str]:
        return [each.decode() for each in self._chain.starting(prefix.encode())]

    def shutdown(self) -> None:
        self._raft.shutdown().result()


def _index(future: Any) -> int:
    future.result()
    return int(future.index)


def outcome(error: Exception) -> str:
    """What an error means for a command: "refused" is in nobody's log, "unknown" may be applied yet."""
    if isinstance(error, NotAppliedError):
        return "refused"
    if isinstance(error, OutcomeUnknownError | RaftShutdownError):
        return "unknown"
    return "other"


def obey(orders: Orders, order: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    try:
        result = getattr(orders, order["do"])(**order["with"])
        say({"n": order["n"], "ok": result})
    except RaftError as error:
        say({"n": order["n"], "error": str(error), "outcome": outcome(error)})
    except Exception as error:
        logging.exception("order %s", order["do"])
        say({"n": order["n"], "error": repr(error), "outcome": "other"})


def open_server(settings: dict[str, Any], chain: Chain) -> Raft:
    """A server as Go's settings say (go/server/server.go)."""
    timeout = settings["timeout"]
    transport: Transport
    if settings["transport"] == "tcp":
        transport = TcpTransport(settings["bind"], settings["advertise"], timeout=5.0)
    else:
        transport = GrpcTransport(settings["bind"], settings["advertise"])
    return Raft.open(
        settings["path"],
        id=settings["id"],
        transport=transport,
        fsm=chain,
        bootstrap=settings.get("members"),
        config=Config(
            heartbeat_timeout=timeout,
            election_timeout=timeout,
            leader_lease_timeout=timeout,
            commit_timeout=settings["commit_timeout"],
            snapshot_interval=settings["snapshot_interval"],
            snapshot_threshold=settings["snapshot_threshold"],
            trailing_logs=settings["trailing_logs"],
            pre_vote=settings["pre_vote"],
        ),
    )


def main() -> None:
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = json.loads(sys.argv[1])
    chain = Chain()
    speaking = threading.Lock()

    def say(answer: dict[str, Any]) -> None:
        with speaking:
            print(json.dumps(answer), flush=True)

    raft = open_server(settings, chain)
    raft.start()
    orders = Orders(raft, chain)
    say({"n": 0, "ok": "ready"})
    for line in sys.stdin:
        threading.Thread(target=obey, args=(orders, json.loads(line), say), daemon=True).start()
    os._exit(0)  # as abruptly as the Go server; who wants it otherwise sends "shutdown"


if __name__ == "__main__":
    main()
