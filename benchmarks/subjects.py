"""Who is measured: a library with a store, a transport and a setting, and how to start a server of it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import peers

CHECKOUT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Subject:
    """One way to build a server.  Its name says all of it: ``hashicorp-wal-tcp-tuned``."""

    library: str
    """``pyraft``, ``hashicorp`` or ``pysyncobj``."""
    store: str
    transport: str
    tuned: bool = False
    checkout: str = ""
    """pyraft only: another checkout of it, an absolute path; empty = this one."""
    label: str = ""

    @property
    def libraries(self) -> tuple[str, ...]:
        """All that its servers need."""
        return (self.library,)

    @property
    def name(self) -> str:
        own = f"{self.library}-{self.store}-{self.transport}{'-tuned' if self.tuned else ''}"
        return f"{own}@{self.label}" if self.label else own

    @property
    def title(self) -> str:
        """For people."""
        stores = {
            "lmdb": "LMDB",
            "memory": "memory",
            "boltdb": "boltdb",
            "boltdb-cached": "boltdb with LogCache",
            "wal": "raft-wal",
            "wal-cached": "raft-wal with LogCache",
            "journal": "journal",
        }
        libraries = {"pyraft": "pyraft", "hashicorp": "Go", "pysyncobj": "PySyncObj"}
        transports = {"tcp": "TCP", "grpc": "gRPC"}
        words = f"{libraries[self.library]}, {stores[self.store]}, {transports[self.transport]}"
        words += ", tuned" if self.tuned else ""
        words += ", never flushes" if self.library == "pysyncobj" else ""
        return f"{words} ({self.label})" if self.label else words

    @property
    def is_durable(self) -> bool:
        """Does an acknowledged command survive a power cut of all servers?"""
        return self.store not in ("memory", "journal")

    def command(self, settings: dict[str, Any]) -> list[str]:
        """What starts a server with these settings: id, path, members, config."""
        whole = {
            **settings,
            "store": self.store,
            "transport": self.transport,
            "tuned": self.tuned,
            "library": self.checkout or str(CHECKOUT),
        }
        text = json.dumps(whole)
        if self.library == "hashicorp":
            return [str(peers.go_program()), text]
        if self.library == "pysyncobj":
            return [str(peers.pysyncobj_python()), "-m", "benchmarks.pysyncobj_server", text]
        return [sys.executable, "-m", "benchmarks.server", text]


_NEVER_FIRST = {"heartbeat_timeout": 30.0, "election_timeout": 30.0}


@dataclass(frozen=True)
class Mixed(Subject):
    """Three servers of which the first leads; ``third`` is the library of the last, the second is of Go."""

    third: str = ""

    @property
    def libraries(self) -> tuple[str, ...]:
        return ("pyraft", "hashicorp")

    @property
    def name(self) -> str:
        return f"mixed-{self.library}-leads-{self.transport}"

    @property
    def title(self) -> str:
        leads, transport = ("pyraft", "Go")[self.library == "hashicorp"], self.transport
        return f"mixed, {leads} leads, {'TCP' if transport == 'tcp' else 'gRPC'}"

    def command(self, settings: dict[str, Any]) -> list[str]:
        """As Subject.command(); all but the first wait for so long that the first stands for election."""
        ids = [id for id, _ in settings["members"]]
        library = (self.library, "hashicorp", self.third)[ids.index(settings["id"])]
        if settings["id"] != ids[0]:
            settings = {**settings, "config": {**settings["config"], **_NEVER_FIRST}}
        return _pure(library, self.transport).command(settings)


def _pure(library: str, transport: str) -> Subject:
    """What a mixed cluster consists of, and is compared with."""
    if library == "pyraft":
        return Subject("pyraft", "lmdb", transport)
    return Subject("hashicorp", "boltdb", transport, tuned=True)


OURS_GRPC = Subject("pyraft", "lmdb", "grpc")
OURS_TCP = Subject("pyraft", "lmdb", "tcp")
OURS_MEMORY = Subject("pyraft", "memory", "tcp")
OURS = [OURS_TCP, OURS_GRPC, OURS_MEMORY]
GO = [
    Subject("hashicorp", store, transport, tuned)
    for store in ("boltdb", "wal")
    for transport in ("tcp", "grpc")
    for tuned in (False, True)
]
GO += [Subject("hashicorp", store, "tcp", True) for store in ("boltdb-cached", "wal-cached")]
GO_MEMORY = [Subject("hashicorp", "memory", "tcp", tuned) for tuned in (False, True)]
OURS_MEMORY_GRPC = Subject("pyraft", "memory", "grpc")
PYSYNCOBJ = Subject("pysyncobj", "journal", "tcp")
EVERY = {subject.name: subject for subject in [*OURS, OURS_MEMORY_GRPC, *GO, *GO_MEMORY, PYSYNCOBJ]}
MIXED = [
    Mixed(leads, "lmdb", transport, third=third)
    for transport in ("tcp", "grpc")
    for leads, third in (("pyraft", "hashicorp"), ("hashicorp", "pyraft"))
]


def pure_of(mixed: Subject) -> list[Subject]:
    """The clusters of one library that ``mixed`` is compared with."""
    return [_pure(library, mixed.transport) for library in ("pyraft", "hashicorp")]
