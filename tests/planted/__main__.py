"""``python -m tests.planted``: plant every bug of the catalogue, and see whether its tests find it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.sim.mutants.catalogue import Mutant
from tests.sim.mutants.planting import PROJECT, copy_library

from .catalogue import SUITES

HANGS = 300
"""Seconds after which tests count as having found something."""
_NEVER_END = "its tests never end"


def main(arguments: list[str]) -> int:
    """Run, print a line for each; 0 if all are found."""
    parser = argparse.ArgumentParser(prog="tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*", help="only bugs whose name holds one of these")
    names = parser.parse_args(arguments).names
    chosen = [
        (mutant, suite.tests)
        for suite in SUITES
        for mutant in suite.mutants
        if not names or any(name in mutant.name for name in names)
    ]
    if not chosen:
        print(f"no bug is called anything like {' or '.join(names)}", file=sys.stderr)
        return 2
    survivors = []
    for mutant, tests in chosen:
        found_by = look_for(mutant, tests)
        print(f"{mutant.name}: {found_by or 'NOT FOUND'}", flush=True)
        if not found_by:
            survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} found")
    return 1 if survivors else 0


def look_for(mutant: Mutant, tests: tuple[str, ...]) -> str:
    """Which test finds the bug in a copy of the project; "" if none does."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        copy_library(home, mutant)
        shutil.copytree(PROJECT / "tests", home / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.cfg", "pyproject.toml"):
            shutil.copy(PROJECT / name, home / name)
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": folder}
        try:
            done = subprocess.run(
                command, cwd=home, env=environment, capture_output=True, text=True, timeout=HANGS
            )
        except subprocess.TimeoutExpired:
            return _NEVER_END
        if "Timeout (" in done.stdout + done.stderr:  # pytest's own, which ends the process
            return _NEVER_END
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.name}: pytest could not run:\n{done.stdout}{done.stderr}")
        failed = [
            line for line in done.stdout.splitlines() if line.startswith(("FAILED tests", "ERROR tests"))
        ]
        return failed[0].split(" - ")[0] if failed else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
