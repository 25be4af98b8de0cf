"""The other libraries: built and installed below benchmarks/results/, and found there again."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE / "results" / "peers"
PYSYNCOBJ_VERSION = "0.3.17"


class MissingPeerError(Exception):
    """Another library is not there, and the text says how it gets there."""


@cache
def go_program() -> Path:
    """Where the Go program of exactly these sources is, built or not."""
    digest = hashlib.sha256()
    for source in sorted([*HERE.glob("go/*.go"), HERE / "go" / "go.mod", HERE / "go" / "go.sum"]):
        digest.update(source.read_bytes())
    return HOME / f"hashicorp-{digest.hexdigest()[:12]}"


def pysyncobj_python() -> Path:
    """The interpreter of PySyncObj's environment, made or not."""
    return HOME / f"pysyncobj-{PYSYNCOBJ_VERSION}" / "bin" / "python"


def is_there(library: str) -> bool:
    """May servers of ``library`` be started?"""
    if library == "hashicorp":
        return go_program().is_file()
    return library != "pysyncobj" or pysyncobj_python().is_file()


def provide(library: str) -> None:
    """Build or install ``library`` unless it is there.

    Raises:
        MissingPeerError: that did not work.
    """
    if is_there(library):
        return
    HOME.mkdir(parents=True, exist_ok=True)
    if library == "hashicorp":
        _build_go()
    else:
        _install_pysyncobj()


def versions(library: str) -> dict[str, str]:
    """What the peer is made of, as it says itself."""
    if library == "hashicorp":
        done = subprocess.run([str(go_program()), "versions"], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)["ok"]
        kept = ("go", "/raft", "/raft-boltdb/v2", "/raft-wal", "/raft-grpc-transport", "/bbolt", "/grpc")
        return {name: value for name, value in found.items() if name.endswith(kept)}
    return {"pysyncobj": PYSYNCOBJ_VERSION}


def _build_go() -> None:
    go = shutil.which("go")
    if go is None:
        raise MissingPeerError("there is no Go here: install Go 1.24 or newer, or leave hashicorp out")
    print("building the Go peer; the first time takes a minute or two", flush=True)
    unfinished = go_program().with_suffix(".new")
    _run([go, "build", "-o", str(unfinished), "."], HERE / "go", "the Go peer does not build")
    unfinished.replace(go_program())


def _install_pysyncobj() -> None:
    print("installing PySyncObj into an environment of its own", flush=True)
    home = pysyncobj_python().parent.parent
    unfinished = home.with_name(home.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    wanted = f"pysyncobj=={PYSYNCOBJ_VERSION}"
    _run([sys.executable, "-m", "venv", str(unfinished)], HERE, "no environment for PySyncObj")
    python = str(unfinished / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", wanted], HERE, "PySyncObj cannot be installed")
    unfinished.rename(home)


def _run(command: list[str], folder: Path, failure: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise MissingPeerError(f"{failure}:\n{done.stderr[-2000:]}")
