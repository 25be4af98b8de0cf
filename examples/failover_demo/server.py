"""One server of the demo: Raft between the servers, lines of JSON for the clients.

It keeps every command in a list and recognises no duplicates: a command that is applied
twice is in the list twice.  It runs until its standard input ends, so it never survives the
demo that started it.

A write is answered by one of

- ``{"outcome": "ok", "index": 41, "server": "n1"}``: committed and applied here,
- ``{"outcome": "not_leader", "leader": "n2"}``: not applied; ``leader`` is null if it is not known,
- ``{"outcome": "not_applied", "error": "..."}``: not applied, and never will be,
- ``{"outcome": "unknown", "error": "..."}``: it may have been applied, or may be later.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import signal
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from connection import HOST, Message, encode

from pyraft import (
    FSM,
    Config,
    Log,
    NotAppliedError,
    NotLeaderError,
    Raft,
    RaftError,
    RaftShutdownError,
    TransportError,
)

PORT_TAKEN = 3
"""Exit code: another program has taken one of the ports meanwhile."""

WRITE_TIMEOUT = 5.0  # seconds for a command to be applied

# Short, so that little time passes while nobody leads; long enough for three servers and
# their clients on two busy cores.
CONFIG = Config(heartbeat_timeout=0.6, election_timeout=0.6, leader_lease_timeout=0.5)


class Ledger(FSM):
    """Every command that was ever applied, with its log index, in order."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, str]] = []

    def apply(self, log: Log) -> int:
        self.entries.append((log.index, log.data.decode()))
        return log.index

    def snapshot(self) -> bytes:
        return json.dumps(self.entries).encode()

    def restore(self, source: BinaryIO) -> None:
        self.entries = [(index, command) for index, command in json.load(source)]


def write(raft: Raft, command: str) -> Message:
    """Apply ``command`` and say what became of it."""
    try:
        index = raft.apply(command.encode(), timeout=WRITE_TIMEOUT).result(WRITE_TIMEOUT)
    except NotLeaderError as error:
        return {"outcome": "not_leader", "leader": error.leader_id}
    except NotAppliedError as error:
        return {"outcome": "not_applied", "error": str(error)}
    except RaftShutdownError as error:
        return {"outcome": "unknown" if error.outcome_unknown else "not_applied", "error": str(error)}
    except (RaftError, TimeoutError) as error:
        return {"outcome": "unknown", "error": f"{type(error).__name__}: {error}"}
    return {"outcome": "ok", "index": index}


def status(raft: Raft) -> Message:
    """What this server thinks of itself and of the leader."""
    return {
        "state": str(raft.state),
        "term": raft.term,
        "leader": raft.leader_id,
        "last": raft.last_index,
        "committed": raft.commit_index,
        "applied": raft.applied_index,
    }


class ClientHandler(socketserver.StreamRequestHandler):
    """One client's connection, on a thread of its own."""

    server: ClientListener
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            for line in self.rfile:
                self.wfile.write(encode(self._answer(json.loads(line))))
        except OSError:
            pass  # the client is gone

    def _answer(self, request: Message) -> Message:
        raft, ledger = self.server.raft, self.server.ledger
        match request["do"]:
            case "write":
                return write(raft, request["command"])
            case "status":
                return status(raft)
            case "dump":
                return {"applied": raft.applied_index, "entries": list(ledger.entries)}
            case unknown:
                return {"error": f"cannot do {unknown}"}


class ClientListener(socketserver.ThreadingTCPServer):
    """Accepts clients."""

    allow_reuse_address = True  # the port of a server that was killed is free at once
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, raft: Raft, ledger: Ledger) -> None:
        super().__init__((HOST, port), ClientHandler)
        self.raft = raft
        self.ledger = ledger


def run(options: argparse.Namespace) -> int:
    """Serve until standard input ends or Raft stops by itself; return the exit code."""
    ledger = Ledger()
    members = {name: f"{HOST}:{port}" for name, port in (m.split("=") for m in options.members)}
    try:
        raft = Raft.open(
            str(options.data),
            id=options.id,
            address=members[options.id],
            fsm=ledger,
            bootstrap=members,
            config=CONFIG,
        )
        listener = ClientListener(options.client_port, raft, ledger)
    except (TransportError, OSError) as error:
        logging.error("cannot listen: %s", error)
        return PORT_TAKEN
    with raft:
        in_background(listener.serve_forever)
        in_background(lambda: (sys.stdin.buffer.read(), raft.shutdown()))
        raft.wait_stopped()
    return 0 if raft.failure is None else 1


def in_background(run: Callable[[], object]) -> None:
    threading.Thread(target=run, daemon=True).start()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("id")
    parser.add_argument("data", type=Path, help="directory")
    parser.add_argument("client_port", type=int)
    parser.add_argument("members", nargs="+", help="name=port of every server's Raft, this one's too")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(threadName)s %(message)s")
    faulthandler.register(signal.SIGUSR1)  # prints where every thread stands
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
