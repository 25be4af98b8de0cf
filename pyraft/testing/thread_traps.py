"""Faults that hold one thread of a server in the middle of what it does until that is out of date."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..sessions import Session
from .adversaries import (
    Adversary,
    OldSessionReplies,
    Plot,
    Relented,
    _last_term,
    _leader_after,
    _next_leader,
    _others,
    _term,
    leads,
)

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .sim_runtime import SimTask


class OldStreamReplies(OldSessionReplies):
    """A thread is held with a follower's answer in its hands until the leader has begun another stream."""

    name = "old stream replies"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, leader = plot.cluster, _next_leader(plot)
        peer = rng.choice(_others(cluster, leader))
        held = self._catch_answer(plot, rng, leader, peer)
        if held is None:
            return
        plot.note("holds", held.name)
        plot.hold(lambda task: task is held)
        plot.pause(2.2 * cluster.config.election_timeout)  # by then the leader has given the stream up
        plot.wait(lambda: self._waits_for_answers(leader, peer), 0.5)
        plot.release()
        plot.pause(rng.choice([0.0, 0.1, 0.5]))

    @staticmethod
    def _waits_for_answers(leader: SimServer, peer: SimServer) -> bool:
        session = _session(leader, peer)
        return session is not None and session.state == "replicate" and session.in_flight > 0


class HeldReplicator(Adversary):
    """A leader's thread is held between two looks at the log until another leader has replaced its end."""

    name = "held replicator"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, old = plot.cluster, _next_leader(plot)
        term = _term(old)
        held = self._catch_sender(plot, rng, old)
        if held is None:
            return
        plot.note("holds", held.name)
        plot.hold(lambda task: task is held)
        plot.cut_off(old)
        plot.wait(lambda: _leader_after(_others(cluster, old), term), 6.0)
        plot.mend()
        plot.wait(lambda: _last_term(old) > term, 2.0)
        plot.pause(rng.choice([0.0, 0.02]))
        plot.release()
        plot.pause(rng.choice([0.05, 0.5]))

    def _catch_sender(self, plot: Plot, rng: random.Random, leader: SimServer) -> SimTask | None:
        """One of the leader's threads that send entries, while it is about to."""
        scheduler, group = plot.cluster.scheduler, leader.group

        def find() -> SimTask | None:
            tasks = scheduler.tasks(group)
            return next((task for task in tasks if "-repl-" in task.name and task.slot >= 0), None)

        for _ in range(20):
            if not plot.wait(find, 0.5, look_every=1e-5):
                return None
            plot.wait(lambda: None, rng.random() * 2e-5, look_every=5e-6)
            found = find()
            if found is not None and leads(leader):
                return found
        return None


class StopBeforeCommands(Adversary):
    """A server is asked to stop, and commands come before its main thread hears of it."""

    name = "stop before commands"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, server = plot.cluster, _next_leader(plot)
        plot.pause(rng.expovariate(1.0) * 0.3)
        raft, group = server.raft, server.group
        if raft is None or not server.is_serving or server.fsm_delay or cluster.scheduler.is_holding:
            return
        plot.note("stops before commands", server.id)
        plot.hold(lambda task: task.group is group and task.name.endswith("-main"))
        cluster.scheduler.spawn("fault-release", partial(self._release, plot, server))
        cluster.stop(server)
        plot.pause(rng.choice([0.1, 0.5]))
        plot.revive(server)
        plot.pause(rng.choice([0.1, 1.0]))

    def _release(self, plot: Plot, server: SimServer) -> None:
        """Once commands wait, or none have come for some time."""
        raft = server.raft
        with suppress(Relented):
            plot.pause(0.002)
            plot.wait(lambda: raft is None or len(raft._proposals) > 0, 0.5)
            plot.pause(0.001)
        plot.cluster.scheduler.unhold(self)


class StopWithBacklog(Adversary):
    """The leader is asked to stop while committed commands, whose callers wait, are not applied yet."""

    name = "stop with backlog"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, server = plot.cluster, _next_leader(plot)
        raft = server.raft
        if raft is None or server.fsm_delay:
            return
        server.fsm_delay = rng.choice([0.005, 0.02, 0.1])
        backlog = rng.choice([1, 2, 5])
        plot.wait(lambda: raft.commit_index >= raft.applied_index + backlog, 1.0)
        plot.pause(rng.random() * 0.02)
        if server.is_serving and not server.is_frozen and not cluster.scheduler.is_holding:
            plot.note("stops with a backlog", server.id, raft.commit_index - raft.applied_index)
            cluster.stop(server)
        server.fsm_delay = 0.0
        plot.pause(rng.choice([0.1, 0.5]))
        plot.revive(server)
        plot.pause(rng.choice([0.1, 1.0]))

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            server.fsm_delay = 0.0


def _session(leader: SimServer, peer: SimServer) -> Session | None:
    leadership = leader.raft._node.context.leadership if leader.raft is not None else None
    return leadership.sessions.get(peer.id) if leadership is not None else None


TRAPS: tuple[type[Adversary], ...] = (OldStreamReplies, HeldReplicator, StopBeforeCommands, StopWithBacklog)
