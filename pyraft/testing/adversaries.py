"""Faults that wait for their moment: each looks at the cluster and strikes when it hurts most.

A strike *arms* an adversary.  From then until it relents, a thread of its own looks at the
cluster every fraction of a millisecond, and acts when things are just so.  It knows everything, as
bad luck does: roles, disks, queues.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ..errors import CorruptStoreError, LogNotFoundError
from ..messages import AnyRequest, AnyResponse, AppendEntriesRequest
from ..state import RaftState
from .faults import Fault, any_server, ask_for_snapshot, links_between
from .invariants import Violation

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .sim_runtime import Scheduler, SimTask

T = TypeVar("T")

_LOOK_EVERY = 0.0005  # virtual seconds between two looks at least, less than a message takes


class Relented(Exception):
    """The fault relented: whoever acts for it ends."""


class Plot:
    """One armed strike.  What it does through this object ends with ``Relented`` once the fault relents.

    Attributes:
        cluster: whose trouble it is.
        over: whether the fault has relented.
    """

    def __init__(self, cluster: SimCluster, owner: Fault) -> None:
        self.cluster = cluster
        self.over = False
        self._owner = owner

    def wait(
        self, condition: Callable[[], T], seconds: float | None = None, look_every: float = _LOOK_EVERY
    ) -> T | None:
        """What ``condition()`` returned when it came true; None if it did not within ``seconds``."""
        scheduler = self.cluster.scheduler
        until = None if seconds is None else scheduler.time + seconds
        scheduler.sleep(look_every)  # first, so that no loop around this one stops the clock
        self._check()
        came = scheduler.wait_until(lambda: self.over or condition(), until)
        self._check()
        return condition() or None if came else None

    def pause(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.wait(lambda: None, max(seconds, _LOOK_EVERY))

    def crash(self, server: SimServer, power_loss: bool = False) -> None:
        """As ``SimCluster.crash``."""
        self._check()
        self.cluster.crash(server, power_loss)

    def revive(self, *servers: SimServer) -> None:
        """Start those of ``servers`` that are down."""
        for server in servers:
            self._check()
            if not server.is_serving and not server.is_frozen:
                self.cluster.revive(server)
        self._check()

    def cut_off(self, *group: SimServer) -> None:
        """Let ``group`` and the others not reach each other, in place of an earlier cut."""
        self._check()
        cluster = self.cluster
        rest = _others(cluster, *group)
        links = links_between(cluster, group, rest) + links_between(cluster, rest, group)
        cluster.network.cut(self._owner, links)

    def let_win(self, favourite: SimServer, voters: Iterable[SimServer]) -> None:
        """Leave only the links between ``favourite`` and ``voters``: nobody else can win an election."""
        self._check()
        voters = list(voters)
        servers = self.cluster.servers.values()
        kept = {*links_between(self.cluster, [favourite], voters)}
        kept.update(links_between(self.cluster, voters, [favourite]))
        links = links_between(self.cluster, servers, servers)
        self.cluster.network.cut(self._owner, [link for link in links if link not in kept])

    def mend(self) -> None:
        """End the cut."""
        self._check()
        self.cluster.network.mend(self._owner)

    def hold(self, matches: Callable[[SimTask], bool]) -> None:
        """Keep the threads that match from running, until ``release``."""
        self._check()
        self.cluster.scheduler.hold(self._owner, matches)

    def release(self) -> None:
        """Let the threads go on."""
        self._check()
        self.cluster.scheduler.unhold(self._owner)

    def note(self, *what: object) -> None:
        """Write down what happens."""
        self.cluster.scheduler.note(*what)

    def _check(self) -> None:
        if self.over:
            raise Relented


class Adversary(Fault):
    """A fault that is armed by its strike."""

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        self._plot = Plot(cluster, self)

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        self._plot = plot = Plot(cluster, self)
        cluster.scheduler.spawn(f"fault-{self.name}-armed", partial(self._run, plot, rng))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        self._plot.over = True
        cluster.scheduler.unhold(self)
        cluster.network.mend(self)
        self.repair(cluster)
        cluster.revive_all()

    def _run(self, plot: Plot, rng: random.Random) -> None:
        try:
            while True:
                plot.pause(0.0)
                self.act(plot, rng)
        except Relented:
            pass
        except Violation as violation:
            plot.cluster.scheduler.fail(violation)

    @abstractmethod
    def act(self, plot: Plot, rng: random.Random) -> None:
        """What it does while it is armed, over and over, on a thread of its own."""

    def repair(self, cluster: SimCluster) -> None:
        """Undo what is not undone by mending its cuts, releasing its threads and reviving servers."""


def _leader_after(servers: Iterable[SimServer], term: int) -> SimServer | None:
    """One of ``servers`` that leads a term above ``term``, or None."""
    return next((server for server in servers if leads(server, term)), None)


def leads(server: SimServer, after_term: int = 0) -> bool:
    """Whether the server believes that it leads a term above ``after_term``."""
    raft = server.raft
    return server.is_up and raft is not None and raft.state is RaftState.LEADER and raft.term > after_term


def _term(server: SimServer) -> int:
    return server.raft.term if server.raft is not None else 0


def _term_at(server: SimServer, index: int) -> int:
    """The term of an entry on the server's disk, 0 if it is not there or damaged."""
    try:
        return server.disk.entry(index).term
    except (LogNotFoundError, CorruptStoreError):
        return 0


def _has_uncommitted(server: SimServer) -> bool:
    """Whether entries of its own term are durable at this leader, and not committed."""
    raft, last = server.raft, server.disk.last_index
    return raft is not None and last > raft.commit_index and _term_at(server, last) == raft.term


def _uncommitted(leader: SimServer) -> int:
    """How many entries on this leader's disk are not committed, as far as it knows."""
    return leader.disk.last_index - leader.raft.commit_index if leader.raft is not None else 0


def _first_uncommitted(leader: SimServer) -> int:
    """The first entry of its own term that a leader has not committed, 0 if there is none."""
    indexes = range(leader.raft.commit_index + 1 if leader.raft else 1, leader.disk.last_index + 1)
    return next((index for index in indexes if _term_at(leader, index) == _term(leader)), 0)


def _last_term(server: SimServer) -> int:
    return _term_at(server, server.disk.last_index)


def _holds_alone(first: SimServer, rest: list[SimServer]) -> bool:
    return _has_uncommitted(first) and all(one.disk.last_index < first.disk.last_index for one in rest)


def _next_leader(plot: Plot) -> SimServer:
    """Who leads, once somebody does."""
    leader = plot.wait(plot.cluster.current_leader)
    if leader is None:
        raise Relented
    return leader


def _others(cluster: SimCluster, *servers: SimServer) -> list[SimServer]:
    return [other for other in cluster.servers.values() if other not in servers]


class CrashWithUncommitted(Adversary):
    """The leader crashes just when its disk holds entries that nobody has committed."""

    name = "crash with uncommitted"

    def act(self, plot: Plot, rng: random.Random) -> None:
        leader = _next_leader(plot)
        if not plot.wait(lambda: leads(leader) and _has_uncommitted(leader), 0.5):
            return
        plot.note("crashed with uncommitted entries", leader.id)
        plot.crash(leader, power_loss=rng.random() < 0.5)
        plot.pause(rng.choice([0.02, 0.3, 2.0]))
        plot.revive(leader)


class CrashBeforeAck(Adversary):
    """A follower dies between the flush of entries or a vote and its answer."""

    name = "crash before ack"

    def act(self, plot: Plot, rng: random.Random) -> None:
        victim = rng.choice([one for one in plot.cluster.servers.values() if not leads(one)])
        disk = victim.disk
        disk.conditions.late_return = rng.choice([0.002, 0.02, 0.1])
        commits = disk.counts["commits"] + rng.randrange(20)
        if plot.wait(lambda: disk.counts["commits"] > commits, 5.0):
            plot.note("dies before its answer", victim.id)
            plot.crash(victim, power_loss=rng.random() < 0.7)
        disk.conditions.late_return = 0.0
        plot.pause(rng.choice([0.05, 1.0]))
        plot.revive(victim)
        plot.pause(0.3)

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            server.disk.conditions.late_return = 0.0


class CrashInSnapshot(Adversary):
    """A server dies while its disk takes a snapshot in: one of its own, or one that its leader sends."""

    name = "crash in snapshot"

    def act(self, plot: Plot, rng: random.Random) -> None:
        asked = any_server(plot.cluster, rng)
        plot.pause(rng.expovariate(1.0) * 0.2)
        ask_for_snapshot(plot.cluster, asked)
        victim = plot.wait(lambda: self._that_closes_one(plot.cluster), 1.0)
        if victim is None:
            return
        plot.note("dies in a snapshot", victim.id)
        plot.crash(victim, power_loss=rng.random() < 0.5)
        plot.pause(rng.choice([0.05, 1.0]))
        plot.revive(victim)
        plot.pause(rng.choice([0.1, 1.0]))

    @staticmethod
    def _that_closes_one(cluster: SimCluster) -> SimServer | None:
        return next((one for one in cluster.servers.values() if one.is_up and one.disk.closing), None)


class CutNewLeader(Adversary):
    """Whoever becomes leader is cut off at once, takes commands alone, and comes back later."""

    name = "cut new leader"

    def act(self, plot: Plot, rng: random.Random) -> None:
        servers = plot.cluster.servers.values()
        term = max(map(_term, servers))
        former = plot.cluster.current_leader()
        if former is not None and rng.random() < 0.7:  # make room for a new one
            plot.cut_off(former)
        leader = plot.wait(lambda: _leader_after(servers, term), 10.0)
        if leader is None:
            return
        plot.cut_off(leader)
        plot.note("cut off when elected", leader.id, term)
        plot.wait(lambda: _has_uncommitted(leader), 1.0)
        plot.pause(rng.choice([0.0, 0.1, 1.0]))
        plot.mend()
        plot.pause(rng.choice([0.0, 0.1, 1.0]))


class ThawAtCommit(Adversary):
    """The leader freezes with requests in flight, and wakes when the next leader's first entry commits."""

    name = "thaw at commit"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, old = plot.cluster, _next_leader(plot)
        if old.is_frozen or not plot.wait(lambda: leads(old) and _has_uncommitted(old), 0.5):
            return
        term = _term(old)
        cluster.freeze(old)
        others = _others(cluster, old)
        early = rng.random() < 0.3
        plot.wait(lambda: any([self._has_begun(one, term, early) for one in others]), 10.0)
        cluster.thaw(old)
        plot.pause(rng.choice([0.05, 0.5]))

    @staticmethod
    def _has_begun(server: SimServer, term: int, early: bool) -> bool:
        if not leads(server, term) or server.raft is None:
            return False
        commit = server.raft.commit_index
        return early or _term_at(server, commit) > term

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            cluster.thaw(server)


class TwoLogs(Adversary):
    """Figure 8: two servers lead in turns, each with entries that the other lacks.

    One takes commands that reach few or nobody and dies; another is elected and dies before its
    first entry leaves it; the first comes back, spreads its old entries, and dies in the moment
    when they are on a majority and its new entry is not; then the second comes back.

    Not while a snapshot from outside is not committed: who has got that and must do without it has lost
    its log, and here it would be a majority, which no cluster survives.
    """

    name = "two logs"

    def act(self, plot: Plot, rng: random.Random) -> None:
        self._one_round(plot, rng, _next_leader(plot))
        plot.mend()
        self.repair(plot.cluster)
        plot.revive(*plot.cluster.servers.values())
        plot.pause(0.05)

    def _one_round(self, plot: Plot, rng: random.Random, first: SimServer) -> None:
        cluster = plot.cluster
        others = rng.sample(_others(cluster, first), len(cluster.servers) - 1)
        few = (len(cluster.servers) - 1) // 2 - 1  # with the first still a minority
        helpers, rest = others[:few], others[few:]
        # (a) entries of the first reach a minority.
        plot.cut_off(first, *helpers)
        if not plot.wait(lambda: leads(first) and _holds_alone(first, rest), 1.0):
            return
        plot.pause(rng.choice([0.0, 0.0, 0.2]))  # for more than fit into one message
        if not cluster.judge.may_lose_one():
            return
        index, term = _first_uncommitted(first), _term(first)
        plot.wait(lambda: all(_term_at(one, index) == term for one in helpers), 0.2)
        plot.note("(a)", first.id, "has entry", index, "of term", term, "with", [one.id for one in helpers])
        plot.crash(first)
        # (b) another is elected by the rest, and dies with its own first entry.
        second = plot.wait(lambda: _leader_after(rest, term), 8.0)
        if second is None:
            return
        plot.cut_off(second)
        plot.wait(lambda: _last_term(second) > term, 0.5)
        plot.note("(b)", second.id, "has entry", second.disk.last_index, "of its own")
        plot.crash(second)
        # (c) the first, or a helper, leads the rest and spreads the old entries.
        alive = _others(cluster, second)
        plot.mend()
        plot.revive(first)
        third = plot.wait(lambda: _leader_after(alive, term), 8.0)
        if third is None:
            return
        holders = [one for one in (first, *helpers) if one is not third]
        self._spread(plot, rng, third, holders, index)
        # (d) it dies, and the second comes back, whose last term is later than the old entries'.
        # Whoever took the third's own entry is cut off; whoever was about to take it loses power.
        plot.note("(d)", third.id, "dies and", second.id, "comes back")
        plot.crash(third, power_loss=rng.random() < 0.5)
        for holder in holders:
            plot.crash(holder, power_loss=True)
        self.repair(cluster)
        plot.let_win(
            second, [one for one in cluster.servers.values() if _last_term(one) <= _last_term(second)]
        )
        plot.revive(second, *holders)
        plot.wait(lambda: leads(second, term), 6.0)
        plot.pause(0.2)

    def _spread(
        self, plot: Plot, rng: random.Random, leader: SimServer, holders: list[SimServer], index: int
    ) -> None:
        """Let the old entries get onto a majority, and the leader's own entry onto none."""
        cluster = plot.cluster
        for holder in holders:  # they answer that they hold the old entries, and store nothing newer
            cluster.slow_disk(holder, 1.0, lasting=2.0)
        lacking = [one for one in _others(cluster, leader, *holders) if one.is_up] or [leader]
        if not holders:  # then a majority holds the old entries only between two messages
            cluster.slow_disk(lacking[0], 0.02, lasting=2.0)
        most = (len(cluster.servers) + 1) // 2 - len(holders) - 1
        if len(lacking) > most and rng.random() < 0.8:
            plot.cut_off(leader, *holders, *lacking[:most])
        voters = _others(cluster)

        def is_on_majority() -> bool:
            old = _term_at(leader, index)
            return 2 * sum(1 for one in voters if _term_at(one, index) == old) > len(voters)

        plot.wait(is_on_majority, 1.0)
        plot.pause(rng.choice([0.0, 0.005, 0.05]))  # for the answers
        plot.note("(c)", leader.id, "has spread entry", index)

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            cluster.slow_disk(server, 0.0)


class LateEntries(Adversary):
    """What a leader sent arrives once more, when another leads: AppendEntries of a former term."""

    name = "late entries"
    _KEPT = 50

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        super().begin(cluster, rng)
        self._sent: list[tuple[str, str, AppendEntriesRequest]] = []
        cluster.network.watchers.append(self)

    def request_sent(self, src: str, dst: str, request: AnyRequest) -> None:
        """As ``NetworkWatcher``."""
        if isinstance(request, AppendEntriesRequest) and (request.entries or request.leader_commit_index):
            self._sent.append((src, dst, request))
            del self._sent[: -self._KEPT]

    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None:
        """As ``NetworkWatcher``."""

    def act(self, plot: Plot, rng: random.Random) -> None:
        servers = plot.cluster.servers.values()
        term, old = max(map(_term, servers)), list(self._sent)
        if rng.random() < 0.7:
            plot.wait(lambda: _leader_after(servers, term), 10.0)
        for src, dst, request in rng.sample(old, min(len(old), 10)):
            plot.cluster.network.deliver_again(src, dst, request, rng.expovariate(1.0) * 0.05)
        plot.pause(rng.choice([0.05, 0.5]))


class OldSessionReplies(Adversary):
    """A thread is held with a follower's answer in its hands until the same server leads once more.

    In between, another leader drops from both logs what the answer is about.
    """

    name = "old session replies"

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        super().begin(cluster, rng)
        self._answers: dict[tuple[str, str], int] = {}
        cluster.network.watchers.append(self)

    def request_sent(self, src: str, dst: str, request: AnyRequest) -> None:
        """As ``NetworkWatcher``."""

    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None:
        """As ``NetworkWatcher``."""
        if isinstance(request, AppendEntriesRequest) and request.entries:
            self._answers[src, dst] = self._answers.get((src, dst), 0) + 1

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, leader = plot.cluster, _next_leader(plot)
        servers = cluster.servers.values()
        peers = rng.sample(_others(cluster, leader), len(servers) - 1)
        friends = peers[: (len(servers) - 1) // 2 - 1]  # with the leader a minority
        term = _term(leader)
        many = rng.choice([1, 10, 20])  # more than the next leader will put in their place
        plot.wait(lambda: leads(leader) and _uncommitted(leader) >= many, 1.5)
        if friends:
            plot.cut_off(leader, *friends)
        held = self._catch_answer(plot, rng, leader, (friends or peers)[0])
        if held is None:
            plot.mend()
            return
        plot.note("holds", held.name)
        plot.hold(lambda task: task is held)
        plot.cut_off(leader, *friends)
        plot.wait(lambda: _leader_after(_others(cluster, leader, *friends), term), 6.0)
        plot.mend()
        plot.wait(lambda: _last_term(leader) > term, 2.0)
        plot.pause(rng.choice([0.0, 0.0, 0.1]))
        plot.let_win(leader, servers)
        if plot.wait(lambda: leads(leader, term), 5.0):
            plot.note("leads again", leader.id)
        plot.pause(rng.choice([0.0, 0.001, 0.005]))
        plot.release()
        plot.pause(rng.choice([0.0, 0.01]))
        plot.mend()
        plot.pause(rng.choice([0.1, 0.5]))

    def _catch_answer(
        self, plot: Plot, rng: random.Random, leader: SimServer, peer: SimServer
    ) -> SimTask | None:
        """A thread of the leader that has begun with an answer of ``peer``."""
        name, link = f"net-{leader.address}-stream-{peer.address}", (peer.address, leader.address)
        scheduler = plot.cluster.scheduler

        def find() -> SimTask | None:
            return next((task for task in scheduler.tasks(leader.group) if task.name == name), None)

        for _ in range(20):
            before = self._answers.get(link, 0)
            if not plot.wait(lambda: self._answers.get(link, 0) > before, 0.5):  # noqa: B023
                return None
            if plot.wait(find, 0.005, look_every=2e-6):  # it has three steps to do
                plot.wait(lambda: None, rng.random() * 4e-6, look_every=1e-6)
                found = find()
                if found is not None:
                    return found
        return None


class StarveAtQueue(Adversary):
    """Threads of a server do not run for some milliseconds, just when commands wait in its queue."""

    name = "starve at queue"

    def act(self, plot: Plot, rng: random.Random) -> None:
        servers = plot.cluster.servers.values()
        server = plot.wait(lambda: next(filter(self._waits, servers), None))
        if server is None:
            return
        group, kind = server.group, rng.choice(["-main", "-fsm", "-repl-", "-notify", "net-", "user-"])
        plot.note("starves with commands waiting", server.id, kind)
        plot.hold(lambda task: task.group is group and kind in task.name)
        plot.pause(rng.expovariate(1.0) * rng.choice([0.001, 0.01, 0.05]))
        plot.release()
        plot.pause(rng.expovariate(1.0) * 0.1)

    @staticmethod
    def _waits(server: SimServer) -> bool:
        raft = server.raft
        return server.is_up and raft is not None and len(raft._proposals) > 0


class StopUnderLoad(Adversary):
    """A server is shut down in good order just when its program calls ``apply``.

    Often the calling threads are held wherever they stand, and find a closed server when they go on.
    """

    name = "stop under load"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        server = cluster.current_leader() if rng.random() < 0.6 else any_server(cluster, rng)
        plot.pause(rng.expovariate(1.0) * 0.3)
        if server is None or server.fsm_delay or server.is_frozen:
            return
        callers = plot.wait(lambda: _callers(cluster.scheduler, server), 1.0)
        if not callers or not server.is_serving or cluster.scheduler.is_holding:
            return
        if rng.random() < 0.8:
            plot.hold(lambda task: task in callers)
            cluster.scheduler.spawn("fault-release", partial(self._release_when_down, plot, server))
        plot.note("stops under load", server.id, len(callers))
        cluster.stop(server)
        plot.pause(rng.choice([0.1, 1.0]))
        plot.revive(server)
        plot.pause(rng.choice([0.1, 1.0]))

    def _release_when_down(self, plot: Plot, server: SimServer) -> None:
        with suppress(Relented):
            plot.wait(lambda: not server.is_serving, 5.0)
            plot.pause(0.05)
        plot.cluster.scheduler.unhold(self)


def _callers(scheduler: Scheduler, server: SimServer) -> list[SimTask]:
    """The threads of the server's own program that can run now: they are calling ``apply``."""
    if not server.is_serving:
        return []
    tasks = scheduler.tasks(server.group)
    return [task for task in tasks if task.name.startswith("user-") and task.slot >= 0]


ADVERSARIES: tuple[type[Adversary], ...] = (
    CrashWithUncommitted,
    CrashBeforeAck,
    CrashInSnapshot,
    CutNewLeader,
    ThawAtCommit,
    TwoLogs,
    LateEntries,
    OldSessionReplies,
    StarveAtQueue,
    StopUnderLoad,
)
