"""Faults that wait for an election: who is asked just then, and whose votes come late."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from ..state import RaftState
from .adversaries import (
    Adversary,
    Plot,
    _leader_after,
    _next_leader,
    _others,
    _term,
    _term_at,
    leads,
)
from .asking import Question, ask
from .member_faults import _read, _verify
from .question_watch import Kind

if TYPE_CHECKING:
    from ..raft import Raft
    from .cluster import SimCluster, SimServer

_PATIENCE = 4.0  # virtual seconds that a reader waits for an answer


class LateVotes(Adversary):
    """Votes reach a candidate when it stands for election once more, and nobody hears it then."""

    name = "late votes"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, former = plot.cluster, _next_leader(plot)
        term = _term(former)
        others = _others(cluster, former)
        plot.cut_off(former)
        found = plot.wait(lambda: next((one for one in others if _stands(one, term)), None), 6.0)
        if found is None:
            return
        candidate, group, stood = found, found.group, _term(found)
        held = [task for task in cluster.scheduler.tasks(group) if "-vote-" in task.name]
        plot.note("holds the votes for", candidate.id, stood, len(held))
        plot.hold(lambda task: task in held)
        plot.let_win(candidate, others)
        if plot.wait(lambda: _stands(candidate, stood), 4.0, look_every=1e-4):
            plot.cut_off(candidate)
        plot.release()
        plot.pause(rng.choice([0.05, 0.5]))
        plot.mend()
        plot.pause(rng.choice([0.0, 0.5]))


def _stands(server: SimServer, after_term: int) -> bool:
    """Whether its vote for itself in a term above ``after_term`` is durable, and it has not won."""
    raft = server.raft
    if raft is None or not server.is_up or raft.state is not RaftState.CANDIDATE:
        return False
    ballot = raft._state.ballot
    return ballot.term > after_term and ballot.voted_for == server.id


class AskNewLeader(Adversary):
    """A leader dies when only it knows what is committed; its successor is asked for reads as it begins."""

    name = "ask new leader"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, old = plot.cluster, _next_leader(plot)
        others, term = _others(cluster, old), _term(old)
        if not plot.wait(lambda: leads(old) and _knows_more(old, others), 1.0, look_every=1e-4):
            return
        plot.crash(old, power_loss=rng.random() < 0.3)
        for one in others:  # entries take long, and heartbeats do not
            cluster.slow_disk(one, rng.choice([0.0, 0.005, 0.02]))
        new = plot.wait(lambda: _leader_after(others, term), 8.0, look_every=1e-4)
        if new is not None:
            cluster.slow_disk(new, 0.0)
            plot.note("asks who leads now", new.id)
            _ask_all(cluster, new, self.name, rng.choice([1, 3]))
            plot.pause(0.05)
        self.repair(cluster)
        plot.revive(old)
        plot.pause(rng.choice([0.1, 0.5]))

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            cluster.slow_disk(server, 0.0)


def _knows_more(leader: SimServer, others: list[SimServer]) -> bool:
    """Whether the leader has committed what none of the others knows as committed."""
    commit = leader.raft.commit_index if leader.raft is not None else 0
    return all(one.raft is None or one.raft.commit_index < commit for one in others)


class AskFormerLeader(Adversary):
    """A leader hands over and is cut off; it is asked when its successor has committed something."""

    name = "ask former leader"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, old = plot.cluster, _next_leader(plot)
        term, target = _term(old), rng.choice(_others(cluster, old))
        others = _others(cluster, old)
        question: Question = partial(_hand_over, target=target.id)
        work = partial(ask, cluster, old, Kind.TRANSFER, question, _PATIENCE, target.id)
        cluster.askers.append(cluster.scheduler.spawn(f"{self.name}-hands-over", lambda: _drop(work())))
        if not plot.wait(lambda: _is_candidate(target, term), 1.0, look_every=1e-5):
            plot.pause(0.5)
            return
        plot.cut_off(old)
        plot.wait(lambda: any([_has_begun(one, term) for one in others]), 2.0)
        if leads(old):
            plot.note("asks who has handed over", old.id)
            _ask_all(cluster, old, self.name, rng.choice([1, 3]))
        plot.pause(rng.choice([0.05, 0.5]))
        plot.mend()
        plot.pause(rng.choice([0.1, 0.5]))


def _hand_over(raft: Raft, target: str) -> Any:
    return raft.leadership_transfer(target)


def _drop(reply: object) -> None:
    pass


def _is_candidate(server: SimServer, term: int) -> bool:
    raft = server.raft
    if raft is None or not server.is_up:
        return False
    return raft.state is RaftState.CANDIDATE or leads(server, term)


def _has_begun(server: SimServer, term: int) -> bool:
    """Whether it leads a term above ``term``, and has committed an entry of it."""
    return (
        leads(server, term) and server.raft is not None and _term_at(server, server.raft.commit_index) > term
    )


def _ask_all(cluster: SimCluster, server: SimServer, name: str, times: int) -> None:
    """Let readers ask ``server``, each on a thread of its own."""
    for kind, question in [(Kind.READ, _read), (Kind.VERIFY, _verify)] * times:
        work = partial(ask, cluster, server, kind, question, _PATIENCE)
        cluster.askers.append(cluster.scheduler.spawn(name, lambda work=work: _drop(work())))  # type: ignore[misc]


ELECTION_TRAPS: tuple[type[Adversary], ...] = (LateVotes, AskNewLeader, AskFormerLeader)
