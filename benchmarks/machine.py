"""What a figure depends on besides the code: the machine, its load, and the versions of everything."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import limits, peers
from .subjects import CHECKOUT


def facts(home: Path, libraries: set[str]) -> dict[str, Any]:
    """For the head of a report.  Takes a second: the disk below ``home`` is measured."""
    found: dict[str, Any] = {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "disk": file_system(home),
        "flush_us": round(1e6 * limits.file_flush(home), 1),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in ("grpcio", "protobuf", "lmdb", "msgpack")},
    }
    for library in sorted(libraries - {"pyraft"}):
        found["versions"].update(peers.versions(library))
    return found


def code_of(checkout: Path) -> str:
    """Changes with the library's sources, and with the programs that measure it."""
    digest = hashlib.sha256()
    for folder in (checkout / "pyraft", CHECKOUT / "benchmarks"):
        for source in sorted(folder.rglob("*")):
            if source.suffix in (".py", ".go", ".mod", ".sum") and "results" not in source.parts:
                digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def commit_of(checkout: Path) -> str:
    """As git describes it, with a + if files differ from it; empty outside of git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"], cwd=checkout, capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip()


def file_system(path: Path) -> str:
    """Type of the file system that holds ``path``, such as ``ext4``; ``?`` if nobody says."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "?"
    best = ("", "?")
    for line in mounts:
        _, point, kind, *_ = line.split()
        if path.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
