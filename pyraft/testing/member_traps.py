"""Faults that take votes away and then cut the leader off with those whose word does not count."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from .adversaries import Plot, _next_leader, _others, leads
from .member_faults import _ask, _read
from .question_watch import Kind
from .thread_traps import CutWithChange

if TYPE_CHECKING:
    from .cluster import SimCluster


def _give_votes_back(plot: Plot) -> None:
    """Let every member vote again that can."""
    cluster = plot.cluster
    for server in list(cluster.servers.values()):
        leader = _next_leader(plot)
        member = cluster.judge.members.find(server.id)
        if member is not None and not cluster.judge.members.is_voter(server.id):
            CutWithChange._change(plot, leader, server)
            plot.wait(lambda: cluster.judge.members.is_voter(server.id), 1.0)  # noqa: B023


class CutWithNonvoters(CutWithChange):
    """A leader is left with servers that do not vote, more of them than of those it is cut off from."""

    name = "cut with nonvoters"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, leader = plot.cluster, _next_leader(plot)
        members = cluster.judge.members
        others = rng.sample(_others(cluster, leader), len(cluster.servers) - 1)
        company = others[: len(others) // 2 + len(others) % 2]
        for one in company:
            if cluster.judge.members.is_voter(one.id):
                self._change(plot, leader, one)
                plot.wait(lambda: not cluster.judge.members.is_voter(one.id), 0.5)  # noqa: B023
        if leads(leader) and members is not cluster.judge.members:
            plot.cut_off(leader, *company)
            plot.note("left with nonvoters", leader.id, [one.id for one in company])
            plot.pause(cluster.config.leader_lease_timeout * rng.choice([0.5, 2.5]))
            self._read(cluster, plot)
            plot.pause(2 * cluster.config.leader_lease_timeout + 0.5)
            plot.mend()
        _give_votes_back(plot)
        plot.pause(rng.choice([0.1, 0.5]))

    @staticmethod
    def _read(cluster: SimCluster, plot: Plot) -> None:
        """Ask everybody who believes to lead."""
        for server in cluster.servers.values():
            if leads(server):
                work = partial(_ask, cluster, server, Kind.READ, _read)
                cluster.askers.append(cluster.scheduler.spawn("read of nonvoters", work))


class DemotesItself(CutWithChange):
    """A leader gives its vote back, often while it reaches one too few of the others."""

    name = "demotes itself"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, leader = plot.cluster, _next_leader(plot)
        others = rng.sample(_others(cluster, leader), len(cluster.servers) - 1)
        if rng.random() < 0.6:
            plot.cut_off(leader, *others[: len(others) // 2])
        plot.note("demotes itself", leader.id)
        self._change(plot, leader, leader)
        plot.pause(rng.choice([0.05, 0.5]))
        plot.mend()
        plot.pause(rng.choice([0.2, 1.0]))
        _give_votes_back(plot)
        plot.pause(rng.choice([0.1, 0.5]))


MEMBER_TRAPS: tuple[type[CutWithChange], ...] = (CutWithNonvoters, DemotesItself)
