"""Operators who replace the state of the whole cluster by a snapshot from outside.

For whoever checks what clients saw it is one write of every key, by a client that nobody knows.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..configuration import Configuration
from ..errors import NotAppliedError, SnapshotFailedError, StoreFullError, TransportError
from ..snapshots.base import SnapshotMeta
from .asking import Reply, ask
from .member_faults import Askers, _any_target
from .question_watch import Kind
from .restored import Restored
from .sim_kv import KvFsm

if TYPE_CHECKING:
    from ..raft import Raft
    from .cluster import SimCluster, SimServer

_PATIENCE = 6.0  # virtual seconds that an operator waits for an answer
_CERTAIN = (NotAppliedError, SnapshotFailedError, StoreFullError, TransportError)


def restore(
    cluster: SimCluster,
    server: SimServer,
    state: bytes,
    index: int = 0,
    read_takes: float = 0.0,
    unless: Callable[[], bool] = lambda: False,
) -> Reply:
    """Have ``server`` restore ``state``, as its own program would; wait for the end.

    Args:
        index: of the snapshot's last entry where it comes from.
        read_takes: virtual seconds that the snapshot's reader takes.
        unless: looked at when it is really asked for, which a frozen server does late.
    """
    meta = SnapshotMeta("outside", index, 1, Configuration(), 0, len(state))

    def question(raft: Raft) -> object:
        if unless():
            raise TransportError("the operator mends something else first")
        return raft.restore(meta, _SlowReader(cluster, state, read_takes), _PATIENCE)

    reply = ask(cluster, server, Kind.RESTORE, question, _PATIENCE)  # type: ignore[arg-type]
    if isinstance(server.fsm, KvFsm) and not isinstance(reply.error, _CERTAIN):
        ended = reply.looked_at if reply.error is None else float("inf")
        cluster.restores.append(Restored(json.loads(state), reply.asked_at, ended))
    return reply


class _SlowReader(io.BytesIO):
    def __init__(self, cluster: SimCluster, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._sleep = partial(cluster.scheduler.sleep, seconds)

    def read(self, size: int | None = -1) -> bytes:
        self._sleep()
        return super().read(size)


class Restores(Askers):
    """Operators restore snapshots from outside, also while leaders come and go.

    A leader that is lost with its restore is a server lost.  So none is asked for while a server is.
    """

    name = "restores"
    most = 1
    paces = (0.5, 2.0)

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        super().begin(cluster, rng)
        self._number = 0

    def ask_once(self, cluster: SimCluster, name: str, rng: random.Random) -> None:
        server = _any_target(cluster, rng)
        state = self._draw_state(cluster, server, rng)
        if state is None:
            return
        index = rng.choice([0, server.disk.last_index + rng.randint(0, 3)])
        read_takes = rng.choice([0.0, 0.001, 0.1])
        restore(cluster, server, state, index, read_takes, unless=lambda: not cluster.judge.may_lose_one())

    def _draw_state(self, cluster: SimCluster, server: SimServer, rng: random.Random) -> bytes | None:
        """Some keys that nobody else writes so; of a user's own state machine, the state of some snapshot."""
        if isinstance(server.fsm, KvFsm):
            self._number += 1
            keys = [f"{letter}{number}" for letter in "kb" for number in range(3) if rng.random() < 0.5]
            return json.dumps({key: f"restored.{self._number}" for key in keys}).encode()
        kept = [stored for other in cluster.servers.values() for stored in other.disk.snapshots]
        return rng.choice(kept).data if kept else None
