"""What the kernel counts of a process, of a disk and of the loopback interface.  Empty where there is no /proc."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SECTOR_BYTES = 512  # whatever the disk's own may be
HAS_PROC = sys.platform == "linux"


def process_figures(pid: int) -> dict[str, float]:
    """CPU seconds, and anonymous memory in bytes."""
    if not HAS_PROC:
        return {}
    home = Path(f"/proc/{pid}")
    fields = (home / "stat").read_text().rpartition(")")[2].split()
    return {
        "cpu_seconds": (int(fields[11]) + int(fields[12])) / _TICKS,
        "rss_anon_bytes": 1024 * _number(home / "status", "RssAnon:"),
    }


def disk_bytes(folder: Path) -> float | None:
    """Bytes written since the machine started to the disk that ``folder`` is on, by everybody.

    What /proc says of a process is of no use: it counts the whole piece of the page cache in which a byte
    changed, which may be half a MiB.
    """
    device = os.stat(folder).st_dev
    try:
        counts = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except OSError:
        return None  # in memory, or not Linux
    return float(counts[6]) * _SECTOR_BYTES


def loopback_bytes() -> float | None:
    """Bytes sent over the loopback interface since the machine started, by everybody."""
    if not HAS_PROC:
        return None
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return float(counts.split()[8])
    return None


def _number(path: Path, label: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    return 0
