"""Make the virtual environment that the Makefile works with.   tools/make_env.py <folder>

Any number may run at once, in one folder: one of them works, the others wait for it.  One
that was interrupted leaves no stamp, so that the next begins again.  Standard library only.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
MADE_FROM = [PROJECT / "setup.cfg", PROJECT / "pyproject.toml", *Path(__file__).parent.glob("make_env.*")]


def main(venv: Path) -> None:
    venv.mkdir(parents=True, exist_ok=True)
    with (venv / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = venv / ".installed"
        if stamp.exists() and all(stamp.stat().st_mtime >= path.stat().st_mtime for path in MADE_FROM):
            return  # another one made it while we waited

        python = venv / "bin" / "python"
        if not runs(python):
            version = ".".join(map(str, sys.version_info[:3]))
            print(
                f"Making {venv} with Python {version} ({sys.executable}): once, about a minute.", flush=True
            )
            empty(venv)
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-e",
                f"{PROJECT}[dev]",
            ],
            check=True,
        )
        stamp.touch()


def runs(python: Path) -> bool:
    """Whether the environment is whole; not after an interruption, or without its interpreter."""
    ask = "import sys, pip; sys.exit(sys.prefix == sys.base_prefix)"
    try:
        return subprocess.run([str(python), "-c", ask], capture_output=True).returncode == 0
    except OSError:
        return False


def empty(venv: Path) -> None:
    for path in venv.iterdir():
        if path.name == ".lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except subprocess.CalledProcessError as failure:
        sys.exit(f"{' '.join(failure.cmd)} failed; its messages are above")
