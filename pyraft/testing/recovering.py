"""A majority of the servers is lost for good, and an operator brings the cluster back from one that is left.

It is the one whose log goes furthest, as ``recover_cluster`` asks for.  So nothing that was acknowledged
is lost, what was in its log alone is committed, and the histories of clients can be judged as ever.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..configuration import Configuration
from ..errors import RaftError
from ..fsm import FSM
from ..log import Log
from ..recovery import recover_cluster
from .asking import ask
from .faults import Fault
from .question_watch import Kind
from .sim_disk import SimStore
from .sim_network import SimTransport
from .sim_runtime import Group, SimRuntime
from .sim_snapshots import SimSnapshotStore

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer

_PATIENCE = 3.0  # virtual seconds that the operator waits for each server to be added
_TRIES = 4


def recover(cluster: SimCluster, cut_off_after: Sequence[float] = ()) -> SimServer | None:
    """Lose all servers but the one whose log goes furthest, recover that, and start it; the others begin empty.

    Args:
        cut_off_after: virtual seconds after which tries lose their power, before one is made in peace.

    Returns who is left: the only member.  None if nobody holds all that it ever promised.
    """
    servers = list(cluster.servers.values())
    cluster.is_recovering = True
    try:
        for server in servers:
            cluster.crash(server)
        cluster.network.lose_all()
        judge = cluster.judge
        whole = [server for server in servers if judge.holds_its_past(server)]
        if not whole:
            return None
        left = max(whole, key=lambda one: (judge.seen(one.id).logs[-1].term, len(judge.seen(one.id).logs)))
        cluster.scheduler.note("recover", left.id)
        judge.recovering(left, Configuration.of_voters({left.id: left.address}))
        left.disk.conditions, left.disk.is_full = type(left.disk.conditions)(), False
        for seconds in (*cut_off_after, None):
            _recover_disk(cluster, left, seconds)
        for server in servers:
            if server is not left:
                cluster.renew(server)
    finally:
        cluster.is_recovering = False
    cluster.revive(left)
    return left


def _recover_disk(cluster: SimCluster, server: SimServer, seconds: float | None) -> None:
    """One try; with ``seconds`` it is cut off after so long."""
    group = Group(f"{server.id}-recovery")
    runtime = SimRuntime(cluster.scheduler, group, server.clock)
    errors: list[RaftError] = []

    def work() -> None:
        store = SimStore(server.disk, runtime)
        try:
            recover_cluster(
                replace(cluster.config, local_id=server.id),
                _same_fsm(cluster),
                store,
                store,
                SimSnapshotStore(server.disk, runtime),
                SimTransport(cluster.network, runtime, server.address),
                Configuration.of_voters({server.id: server.address}),
            )
        except RaftError as error:
            errors.append(error)

    task = cluster.scheduler.spawn(f"operator-{server.id}", work, group)
    if seconds is None:
        task.join()
    else:
        cluster.scheduler.sleep(seconds)
    server.disk.crash()
    cluster.scheduler.kill(group)
    if errors:
        raise errors[0]


def _same_fsm(cluster: SimCluster) -> FSM:
    """A state machine that refuses what those of the servers refuse."""
    fsm = cluster.make_fsm()
    own_apply = fsm.apply

    def apply(log: Log) -> Any:
        refused, result = cluster.refusal(log.data), None
        if refused is None or refused.has_applied:
            result = own_apply(log)
        if refused is not None:
            raise refused
        return result

    fsm.apply = apply  # type: ignore[method-assign]
    return fsm


class LostMajority(Fault):
    """A majority is lost for good; an operator recovers the cluster from who is left, and adds the others anew."""

    name = "lost majority"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        cuts = [rng.expovariate(1.0) * 0.002 for _ in range(rng.choice([0, 0, 1, 2]))]
        left = recover(cluster, cuts)
        if left is None:
            return
        cluster.judge.scout.reached("majority lost and recovered")
        for server in list(cluster.servers.values()):
            if server is not left:
                self._add(cluster, server)

    def _add(self, cluster: SimCluster, server: SimServer) -> None:
        id, address = server.id, server.address
        for _ in range(_TRIES):
            leader = cluster.current_leader()
            if leader is None:
                cluster.scheduler.sleep(cluster.config.election_timeout)
                continue
            reply = ask(
                cluster,
                leader,
                Kind.CHANGE,
                lambda raft: raft.add_voter(id, address, 0, _PATIENCE),
                _PATIENCE,
            )
            if reply.error is None:
                return

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.revive_all()
