"""Faults that send a leader's snapshot to somebody who needs none of it, or not all."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..configuration import Server
from ..errors import NothingNewToSnapshotError, RaftError
from ..messages import InstallSnapshotRequest
from .adversaries import (
    Adversary,
    Plot,
    _leader_after,
    _next_leader,
    _others,
    _term,
    _term_at,
    _uncommitted,
    leads,
)
from .member_traps import _give_votes_back
from .thread_traps import CutWithChange

if TYPE_CHECKING:
    from ..raft import Raft
    from .cluster import SimCluster, SimServer


class NeedlessSnapshot(Adversary):
    """A leader takes a snapshot and sends it to somebody who has the log, and often knows more by then."""

    name = "needless snapshot"

    def act(self, plot: Plot, rng: random.Random) -> None:
        leader = _next_leader(plot)
        peer = rng.choice(_others(plot.cluster, leader))
        plot.note("sends a needless snapshot", leader.id, peer.id)
        _spawn_sender(plot, leader, peer, rng.choice([0.0, 0.05, 0.2]))
        plot.pause(rng.choice([0.1, 0.5]))


class ContradictingSnapshot(Adversary):
    """A server with entries of its own gets a snapshot that ends among them, of a leader with others."""

    name = "contradicting snapshot"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, peer = plot.cluster, _next_leader(plot)
        term, many = _term(peer), rng.choice([2, 5, 10])
        plot.cut_off(peer)
        plot.wait(lambda: _uncommitted(peer) >= many, 1.0)
        leader = plot.wait(lambda: _leader_after(_others(cluster, peer), term), 8.0)
        if leader is None:
            return
        sender, raft = f"-repl-{peer.id}", leader.raft
        plot.hold(lambda task: task.group is leader.group and sender in task.name)
        plot.wait(lambda: raft is not None and _term_at(leader, raft.applied_index) > term, 1.0)
        members = cluster.judge.members
        if rng.random() < 0.4:  # the snapshot brings another configuration, too
            CutWithChange._change(plot, leader, peer)
            plot.wait(lambda: cluster.judge.members is not members, 0.5)
            plot.pause(0.01)
        if raft is not None and leader.is_serving:
            plot.note("sends a snapshot that contradicts", leader.id, peer.id)
            sent = _spawn_sender(plot, leader, peer)
            plot.wait(lambda: sent.is_due, 1.0, look_every=1e-5)
        plot.mend()
        plot.pause(0.05)
        plot.release()
        plot.pause(rng.choice([0.1, 0.5]))
        if members is not cluster.judge.members:
            _give_votes_back(plot)


class SnapshotInTheMiddle(Adversary):
    """A leader's snapshot ends between what a follower knows as committed and where its equal log ends."""

    name = "snapshot in the middle"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, leader = plot.cluster, _next_leader(plot)
        peer, raft = rng.choice(_others(cluster, leader)), leader.raft
        for one in _others(cluster, leader, peer):
            cluster.slow_disk(one, rng.choice([0.01, 0.05]))
        answers, sender = f"net-{leader.address}-stream-{peer.address}", f"-repl-{peer.id}"
        plot.hold(lambda task: task.group is leader.group and task.name == answers)
        came = raft is not None and plot.wait(lambda: self._is_between(leader, peer), 1.0, look_every=1e-4)
        if raft is None or not came:
            self.repair(cluster)
            plot.release()
            return
        # From here on it commits nothing and the peer hears nothing, until the snapshot is there.
        plot.hold(
            lambda task: task.group is leader.group and (task.name.startswith("net-") or sender in task.name)
        )
        plot.note("takes a snapshot in the middle", leader.id, peer.id)
        taken = _spawn_sender(plot, leader, peer)
        plot.wait(lambda: taken.is_due, 0.5, look_every=1e-4)
        plot.hold(lambda task: task.group is leader.group and sender in task.name)
        plot.pause(0.1)
        self.repair(cluster)
        plot.release()
        plot.pause(rng.choice([0.1, 0.5]))

    @staticmethod
    def _is_between(leader: SimServer, peer: SimServer) -> bool:
        if leader.raft is None or peer.raft is None or not leads(leader):
            return False
        applied, last = leader.raft.applied_index, peer.disk.last_index
        return peer.raft.commit_index < applied < last and _term_at(peer, last) == _term(leader)

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            cluster.slow_disk(server, 0.0)


class _Flag:
    is_due = False


def _spawn_sender(plot: Plot, leader: SimServer, peer: SimServer, after: float = 0.0) -> _Flag:
    """Let the leader take a snapshot and send it ``after`` so long; return what tells when it is taken."""
    taken, raft = _Flag(), leader.raft
    if raft is None or not leader.is_serving:
        return taken
    work = partial(_send_snapshot, plot.cluster, raft, peer, taken, after)
    plot.cluster.scheduler.spawn(f"user-{leader.id}-snapshot", work, leader.group)
    return taken


def _send_snapshot(cluster: SimCluster, raft: Raft, peer: SimServer, taken: _Flag, after: float) -> None:
    """On a thread of the leader's process."""
    node = raft._node.context
    leadership = node.leadership
    if leadership is None:
        return
    with suppress(RaftError, TimeoutError):
        with suppress(NothingNewToSnapshotError):
            raft.snapshot().result(3.0)
        meta, source = node.snapshots.open_newest()
        taken.is_due = True
        cluster.scheduler.sleep(after)
        request = InstallSnapshotRequest(
            node.header,
            leadership.term,
            meta.index,
            meta.term,
            meta.configuration,
            meta.configuration_index,
            meta.size,
        )
        with source:
            if leadership.alive:
                to = Server(peer.id, peer.address)
                node.transport.install_snapshot(to, request, source, 5.0, lambda: False)


SNAPSHOT_TRAPS: tuple[type[Adversary], ...] = (NeedlessSnapshot, ContradictingSnapshot, SnapshotInTheMiddle)
