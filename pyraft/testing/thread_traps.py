"""Faults that hold one thread of a server in the middle of what it does until that is out of date."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..errors import RaftError
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
        session = leader.sessions.get(peer.id)
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
        end = old.disk.last_index
        plot.cut_off(old)
        plot.wait(lambda: _leader_after(_others(cluster, old), term), 6.0)
        plot.mend()
        plot.wait(lambda: _last_term(old) > term and old.disk.last_index > end, 2.0)
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
            if found is not None and leads(leader) and (rng.random() < 0.2 or _is_sending(found)):
                return found
        return None


def _is_sending(task: SimTask) -> bool:
    """Whether the thread has made sure of its session, and looks at the log next."""
    return "_send_what_is_due" in task.stack()


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


class CutWithChange(Adversary):
    """A leader is cut off with a change of membership that few hold, soon after another; a later leader drops it."""

    name = "cut with a change"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, leader = plot.cluster, _next_leader(plot)
        raft, term = leader.raft, _term(leader)
        others = rng.sample(_others(cluster, leader), len(cluster.servers) - 1)
        if raft is None or len(others) < 2:
            return
        friends = others[: (len(others) - 1) // 2]  # with the leader a minority
        # Not a vote of the others': without it they elect nobody, and this leader commits alone.
        first = friends[0] if friends else others[-1]
        if rng.random() < 0.7 and (friends or not cluster.judge.members.is_voter(first.id)):
            self._change(plot, leader, first)
            plot.wait(lambda: raft.commit_index == raft.last_index, 0.3)
        plot.pause(rng.choice([0.0, 0.0, 0.2]))
        plot.cut_off(leader, *friends)
        self._change(plot, leader, others[-2])
        if rng.random() < 0.5:
            self._change(plot, leader, first)  # which has to wait, in vain
        found = plot.wait(lambda: _leader_after(others[len(friends) :], term), 8.0)
        if found is not None and rng.random() < 0.4:
            self._change(plot, found, leader)  # before it has committed anything
        plot.pause(rng.choice([0.02, 0.3]))
        if rng.random() < 0.4:  # what they know of the change is then what their disks say
            for one in (leader, *friends):
                plot.crash(one)
            plot.revive(leader, *friends)
        plot.mend()
        plot.wait(lambda: _last_term(leader) > term, 2.0)
        if rng.random() < 0.5:
            plot.let_win(leader, cluster.servers.values())
            plot.pause(1.0)
            plot.mend()
        plot.pause(rng.choice([0.1, 0.5]))

    @staticmethod
    def _change(plot: Plot, leader: SimServer, other: SimServer) -> None:
        """Ask for the vote of ``other`` to be taken, or given back."""
        raft = leader.raft
        if raft is None or not leader.is_serving:
            return

        def ask() -> None:
            with suppress(RaftError, TimeoutError):
                if raft.get_configuration().result(1.0).is_voter(other.id):
                    raft.demote_voter(other.id, timeout=2.0).result(3.0)
                else:
                    raft.add_voter(other.id, other.address, timeout=2.0).result(3.0)

        plot.note("asks for a change", leader.id, other.id)
        cluster = plot.cluster
        cluster.askers.append(cluster.scheduler.spawn(f"user-{leader.id}-changes", ask, leader.group))
        plot.pause(0.02)


TRAPS: tuple[type[Adversary], ...] = (
    OldStreamReplies,
    HeldReplicator,
    StopBeforeCommands,
    StopWithBacklog,
    CutWithChange,
)
