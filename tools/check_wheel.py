"""Build the package, install it where this folder is out of sight, and use it there.

Tests run against the working tree and would not notice a module, a type stub or a
dependency that the package lacks.   python tools/check_wheel.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pyraft-wheel-") as folder:
        scratch = Path(folder)
        # The wheel is made from the source distribution, so that is complete as well.
        # Without isolation: what builds need is in the dev extra.
        step("build")
        run([sys.executable, "-m", "build", "--no-isolation", "--outdir", scratch, PROJECT], quiet=True)
        (wheel,) = scratch.glob("*.whl")
        check_contents(wheel)

        step(f"install {wheel.name} into a clean environment")
        run([sys.executable, "-m", "venv", scratch / "clean"])
        python = scratch / "clean" / "bin" / "python"
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel])

        step("use it from another folder")
        elsewhere = scratch / "elsewhere"
        elsewhere.mkdir()
        program = Path(shutil.copy(PROJECT / "tools" / "smoke.py", elsewhere))
        run([python, "-I", program], cwd=elsewhere)

        step("type-check a user's program against it")
        options = ["--strict", "--cache-dir", os.devnull, "--python-executable", python]
        run([sys.executable, "-m", "mypy", *options, program.name], cwd=elsewhere)


def check_contents(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("pyraft/")}
    wanted = {
        path.relative_to(PROJECT).as_posix()
        for pattern in ("*.py", "*.pyi", "py.typed")
        for path in (PROJECT / "pyraft").rglob(pattern)
    }
    if packed != wanted:
        sys.exit(f"missing from the wheel: {sorted(wanted - packed)}; too much: {sorted(packed - wanted)}")
    others = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()} - {"pyraft"}
    if not all(name.endswith(".dist-info") for name in others):
        sys.exit(f"the wheel would install more than pyraft: {sorted(others)}")


def step(what: str) -> None:
    print(f"wheel: {what}", flush=True)


def run(command: list[str | Path], *, cwd: Path | None = None, quiet: bool = False) -> None:
    # Nothing of this environment may help: no PYTHONPATH to the working tree.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        timeout=600,
        text=True,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
    )
    if done.returncode != 0:
        if quiet:
            print(done.stdout)
        sys.exit(f"wheel: failed with exit code {done.returncode}: {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
