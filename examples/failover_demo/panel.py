"""What the demo shows while it runs: who leads, and how the writes get on."""

from __future__ import annotations

import itertools
import time
from collections import deque

from client import Clients
from cluster import Cluster, Process
from screen import BOLD, DIM, GREEN, RED, YELLOW, styled
from watch import Watch

_BARS = "▁▂▃▄▅▆▇█"
_SLOT = 0.25  # seconds that one bar stands for
_SLOTS = 60


class ClusterPanel:
    """Three servers and a curve of the writes."""

    def __init__(self, cluster: Cluster, watch: Watch, clients: Clients) -> None:
        self._cluster = cluster
        self._watch = watch
        self._clients = clients
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=1000)

    def lines(self) -> list[str]:
        self._sample()
        return [
            *(self._server_line(name) for name in self._cluster.servers),
            f"acknowledged {styled(f'{self._clients.acknowledged_count:,}', BOLD)}   "
            f"unknown {self._clients.unknown_count}   {self._per_second():,.0f} writes/s",
            self._curve(),
        ]

    def line(self) -> str:
        self._sample()
        leader = self._watch.leader()
        return (
            f"acknowledged={self._clients.acknowledged_count} unknown={self._clients.unknown_count} "
            f"writes/s={self._per_second():.0f} leader={leader[0] if leader else 'none'}"
        )

    def _server_line(self, name: str) -> str:
        said = self._watch.status(name)
        match self._cluster.servers[name].process:
            case Process.DOWN:
                return f"{name}  {styled('down', RED)}"
            case Process.FROZEN:
                return f"{name}  {styled('frozen', YELLOW)}"
        if said is None:
            return f"{name}  {styled('starting', DIM)}"
        role = f"{said['state'].lower():9}"
        style = GREEN + BOLD if said["state"] == "Leader" else ""
        return f"{name}  {styled(role, style)}  term {said['term']:<4} applied {said['applied']:,}"

    def _sample(self) -> None:
        self._samples.append((time.monotonic(), self._clients.acknowledged_count))

    def _count_at(self, instant: float) -> float:
        """Writes acknowledged until ``instant``, between two samples by proportion."""
        before_at, before = self._samples[0]
        for at, count in self._samples:
            if at >= instant:
                share = (instant - before_at) / (at - before_at) if at > before_at else 1.0
                return before + (count - before) * max(share, 0.0)
            before_at, before = at, count
        return before

    def _per_second(self) -> float:
        """Over the last two seconds, or since the first sample."""
        now, count = self._samples[-1]
        since = max(now - 2.0, self._samples[0][0])
        return (count - self._count_at(since)) / (now - since) if now > since else 0.0

    def _curve(self) -> str:
        """Writes per slot over the last seconds, as high as the best of them allows."""
        now = self._samples[-1][0]
        counts = [self._count_at(now - _SLOT * slot) for slot in range(_SLOTS, -1, -1)]
        rates = [after - before for before, after in itertools.pairwise(counts)]
        highest = max(rates)
        if highest <= 0:
            return ""
        return "".join(" " if r <= 0 else _BARS[min(int(r / highest * 8), 7)] for r in rates)
