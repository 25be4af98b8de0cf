"""Faults that wait for their moment: each looks at the cluster and strikes when it hurts most.

A strike *arms* an adversary.  From then until it relents, a thread of its own looks at the
cluster every fraction of a millisecond, and acts when things are just so.  It knows everything, as
bad luck does: roles, disks, queues.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..messages import AnyRequest, AnyResponse, AppendEntriesRequest
from ..state import RaftState
from .faults import Fault, any_server, links_between

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .sim_runtime import SimTask

_LOOK_EVERY = 0.0005  # virtual seconds, less than a message or a commit takes


class Plot:
    """One armed strike: what it does ends when the fault relents."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.over = False

    def wait(self, condition: Callable[[], object], seconds: float = 1e9) -> bool:
        """Whether ``condition()`` came true before ``seconds`` had passed and the fault relented."""
        scheduler = self.cluster.scheduler
        deadline = scheduler.time + seconds
        while scheduler.time < deadline:
            scheduler.sleep(_LOOK_EVERY)  # first, so that no loop around this one stops the clock
            if self.over:
                return False
            if condition():
                return True
        return False

    def pause(self, seconds: float) -> bool:
        """Let ``seconds`` pass; False if the fault relented meanwhile."""
        self.wait(lambda: False, seconds)
        return not self.over


class Adversary(Fault):
    """A fault that is armed by its strike."""

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        self._plot = Plot(cluster)

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        self._plot = plot = Plot(cluster)
        cluster.scheduler.spawn(f"fault-{self.name}-armed", partial(self.act, plot, rng))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        self._plot.over = True
        cluster.scheduler.unhold(self)
        cluster.network.mend(self)
        self.repair(cluster)
        cluster.revive_all()

    @abstractmethod
    def act(self, plot: Plot, rng: random.Random) -> None:
        """What it does once it is armed, on a thread of its own.  It ends when ``plot.over``."""

    def repair(self, cluster: SimCluster) -> None:
        """Undo what is not undone by mending its cuts, releasing its threads and reviving servers."""


def leads(server: SimServer, after_term: int = 0) -> bool:
    """Whether the server believes that it leads a term above ``after_term``."""
    raft = server.raft
    return server.is_up and raft is not None and raft.state is RaftState.LEADER and raft.term > after_term


def _term(server: SimServer) -> int:
    return server.raft.term if server.raft is not None else 0


def _has_uncommitted(server: SimServer) -> bool:
    """Whether entries of its own term are durable at this leader, and not committed."""
    raft, disk = server.raft, server.disk
    last = disk.last_index
    return raft is not None and last > raft.commit_index and disk.entry(last).term == raft.term


def _others(cluster: SimCluster, *servers: SimServer) -> list[SimServer]:
    return [other for other in cluster.servers.values() if other not in servers]


def _cut_off(cluster: SimCluster, owner: object, server: SimServer) -> None:
    others = _others(cluster, server)
    cluster.network.cut(
        owner, links_between(cluster, [server], others) + links_between(cluster, others, [server])
    )


class CrashWithUncommitted(Adversary):
    """The leader crashes just when its disk holds entries that nobody has committed."""

    name = "crash with uncommitted"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        while plot.wait(lambda: any(map(leads, cluster.servers.values()))):
            leader = cluster.current_leader()
            if leader is None or not plot.wait(lambda: leads(leader) and _has_uncommitted(leader), 0.5):  # noqa: B023
                continue
            cluster.scheduler.note("crashed with uncommitted entries", leader.id)
            cluster.crash(leader, power_loss=rng.random() < 0.5)
            if not plot.pause(rng.choice([0.02, 0.3, 2.0])):
                return
            if not leader.is_up:
                cluster.revive(leader)


class CrashBeforeAck(Adversary):
    """A follower dies between the flush of entries or a vote and its answer."""

    name = "crash before ack"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        followers = [server for server in cluster.servers.values() if not leads(server)]
        victim = rng.choice(followers)
        victim.disk.conditions.late_return = rng.choice([0.002, 0.02, 0.1])
        commits = victim.disk.counts["commits"] + rng.randrange(20)
        if plot.wait(lambda: victim.disk.counts["commits"] > commits):
            cluster.scheduler.note("dies before its answer", victim.id)
            cluster.crash(victim, power_loss=rng.random() < 0.7)
        victim.disk.conditions.late_return = 0.0

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            server.disk.conditions.late_return = 0.0


class CutNewLeader(Adversary):
    """Whoever becomes leader is cut off at once, takes commands alone, and comes back later."""

    name = "cut new leader"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        servers = cluster.servers.values()
        term = max(map(_term, servers))
        if rng.random() < 0.5:  # make room for a new one
            leader = cluster.current_leader()
            if leader is not None:
                cluster.crash(leader)
        while plot.wait(lambda: any(leads(server, term) for server in servers)):  # noqa: B023
            leader = next(server for server in servers if leads(server, term))
            term = _term(leader)
            _cut_off(cluster, self, leader)
            cluster.scheduler.note("cut off when elected", leader.id, term)
            plot.wait(lambda: _has_uncommitted(leader), 1.0)  # noqa: B023
            plot.pause(rng.choice([0.0, 0.1, 1.0]))
            cluster.network.mend(self)
            cluster.revive_all()


class ThawAtCommit(Adversary):
    """The leader freezes with requests in flight, and wakes when the next leader's first entry commits."""

    name = "thaw at commit"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        while plot.wait(cluster.current_leader):
            old = cluster.current_leader()
            if old is None or old.is_frozen or not plot.wait(lambda: _has_uncommitted(old), 0.5):  # noqa: B023
                continue
            term = _term(old)
            cluster.freeze(old)
            others = _others(cluster, old)
            early = rng.random() < 0.3
            plot.wait(lambda: any(self._has_begun(one, term, early) for one in others), 10.0)  # noqa: B023
            cluster.thaw(old)
            if not plot.pause(rng.choice([0.05, 0.5])):
                return

    @staticmethod
    def _has_begun(server: SimServer, term: int, early: bool) -> bool:
        if not leads(server, term) or server.raft is None:
            return False
        commit = server.raft.commit_index
        return early or (commit > 0 and server.disk.entry(commit).term > term)

    def repair(self, cluster: SimCluster) -> None:
        for server in cluster.servers.values():
            cluster.thaw(server)


class TwoLogs(Adversary):
    """Figure 8: two servers lead in turns, each with entries that the other lacks.

    One takes commands that reach few or nobody and dies; another is elected and dies before its
    first entry leaves it; the first comes back, spreads its old entries, and dies in the moment
    when they are on a majority and its new entry is not; then the second comes back.
    """

    name = "two logs"

    def act(self, plot: Plot, rng: random.Random) -> None:
        while plot.wait(plot.cluster.current_leader):
            first = plot.cluster.current_leader()
            if first is not None:
                self._one_round(plot, rng, first)
            plot.cluster.network.mend(self)
            self.repair(plot.cluster)
            plot.cluster.revive_all()
            plot.pause(0.05)

    def _one_round(self, plot: Plot, rng: random.Random, first: SimServer) -> None:
        cluster = plot.cluster
        others = rng.sample(_others(cluster, first), len(cluster.servers) - 1)
        helpers, rest = others[: len(others) // 2 - 1], others[len(others) // 2 - 1 :]
        # (a) entries reach a minority.
        self._isolate(cluster, [first, *helpers])
        if not plot.wait(lambda: self._holds_alone(first, rest), 1.0):
            return
        index, term = first.disk.last_index, _term(first)
        plot.wait(lambda: all(h.disk.last_index >= index for h in helpers), 0.2)
        cluster.crash(first)
        # (b) another is elected by the rest, and dies with its first entry.
        voters = [*rest, *helpers[1:]]
        self._isolate(cluster, voters)
        if not plot.wait(lambda: any(leads(one, term) for one in voters), 8.0):
            return
        second = next(one for one in voters if leads(one, term))
        _cut_off(cluster, self, second)
        plot.wait(
            lambda: second.disk.last_index and second.disk.entry(second.disk.last_index).term > term, 0.5
        )
        cluster.crash(second)
        # (c) the first is back and spreads what it had; helpers are slow to take anything newer.
        alive = [one for one in cluster.servers.values() if one is not second]
        if not first.is_up:
            cluster.revive(first)
        self._isolate(cluster, alive)
        if not plot.wait(lambda: any(leads(one, term) for one in alive), 8.0):
            return
        third = next(one for one in alive if leads(one, term))
        for helper in helpers:
            cluster.slow_disk(helper, rng.choice([0.1, 0.4]), lasting=2.0)
        idle = rng.choice([one for one in alive if one is not third and one not in helpers] or [None])
        if idle is not None and len(alive) > 3:
            self._isolate(cluster, [one for one in alive if one is not idle])
        plot.wait(lambda: self._old_is_everywhere(alive, third, index), 1.0)
        plot.pause(rng.choice([0.0, 0.002, 0.02]))  # for the answers
        # (d) the first dies, and the second comes back with a later term than the old entries'.
        cluster.crash(third, power_loss=rng.random() < 0.5)
        cluster.network.mend(self)
        cluster.revive(second)
        plot.wait(lambda: leads(second, term + 1), 4.0)
        plot.pause(0.2)

    def _isolate(self, cluster: SimCluster, group: list[SimServer]) -> None:
        rest = _others(cluster, *group)
        cluster.network.cut(self, links_between(cluster, group, rest) + links_between(cluster, rest, group))

    @staticmethod
    def _holds_alone(first: SimServer, rest: list[SimServer]) -> bool:
        return _has_uncommitted(first) and all(one.disk.last_index < first.disk.last_index for one in rest)

    @staticmethod
    def _old_is_everywhere(alive: list[SimServer], leader: SimServer, index: int) -> bool:
        """Whether two thirds of who is left hold what stood at ``index`` in the leader's log."""
        mine = leader.disk.last_index >= index and leader.disk.entry(index).term
        holders = [
            one for one in alive if one.disk.last_index >= index and one.disk.entry(index).term == mine
        ]
        return len(holders) > len(alive) // 2

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
        cluster = plot.cluster
        servers = cluster.servers.values()
        term = max(map(_term, servers))
        while not plot.over:
            old = list(self._sent)
            same_term = rng.random() < 0.3
            if not same_term and not plot.wait(lambda: any(leads(one, term) for one in servers)):  # noqa: B023
                return
            term = max(map(_term, servers))
            for src, dst, request in rng.sample(old, min(len(old), 10)):
                cluster.network.deliver_again(src, dst, request, rng.expovariate(1.0) * 0.05)
            plot.pause(rng.choice([0.05, 0.5]))


class OldSessionReplies(Adversary):
    """Threads of a leadership that ended go on with its answers only when the same server leads again."""

    name = "old session replies"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        while plot.wait(cluster.current_leader):
            old = cluster.current_leader()
            if old is None or not plot.wait(lambda: _has_uncommitted(old), 0.5):  # noqa: B023
                continue
            self._hold_answers(cluster, old, rng)
            if rng.random() < 0.6:  # or the replies are late without a change of leaders
                _cut_off(cluster, self, old)
                plot.wait(lambda: not leads(old), 5.0)  # noqa: B023
                cluster.network.mend(self)
                if rng.random() < 0.5:
                    plot.wait(cluster.current_leader, 5.0)
                    self._let_only(cluster, old)
                plot.wait(lambda: leads(old), 4.0)  # noqa: B023
            plot.pause(rng.choice([0.0, 0.01, 0.1]))
            cluster.scheduler.unhold(self)
            cluster.network.mend(self)
            cluster.revive_all()
            if not plot.pause(rng.choice([0.1, 1.0])):
                return

    def _hold_answers(self, cluster: SimCluster, leader: SimServer, rng: random.Random) -> None:
        kinds = rng.choice([("-repl-",), ("-repl-", "-stream-"), ("-stream-",), ("-beat-",)])
        peer = rng.choice(_others(cluster, leader) or [leader]).id
        numbers = [
            task.number
            for task in cluster.scheduler.tasks(leader.group)
            if peer in task.name and any(kind in task.name for kind in kinds)
        ]
        cluster.scheduler.note("holds the answers of", peer, "to", leader.id)
        cluster.scheduler.hold(self, lambda task: task.number in numbers)

    def _let_only(self, cluster: SimCluster, server: SimServer) -> None:
        """Make room for ``server`` to lead once more: who leads now is cut off."""
        leader = cluster.current_leader()
        if leader is not None and leader is not server:
            _cut_off(cluster, self, leader)


class StarveAtQueue(Adversary):
    """Threads of a server do not run for some milliseconds, just when commands wait in its queue."""

    name = "starve at queue"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        while plot.wait(lambda: any(map(self._waits, cluster.servers.values()))):
            server = next((one for one in cluster.servers.values() if self._waits(one)), None)
            if server is None:
                continue
            group, kind = server.group, rng.choice(["-main", "-fsm", "-repl-", "-notify", "net-", "user-"])

            def matches(task: SimTask, group: object = group, kind: str = kind) -> bool:
                return task.group is group and kind in task.name

            cluster.scheduler.note("starves with commands waiting", server.id, kind)
            cluster.scheduler.hold(self, matches)
            plot.pause(rng.expovariate(1.0) * rng.choice([0.001, 0.01, 0.05]))
            cluster.scheduler.unhold(self)
            if not plot.pause(rng.expovariate(1.0) * 0.1):
                return

    @staticmethod
    def _waits(server: SimServer) -> bool:
        raft = server.raft
        return server.is_up and raft is not None and len(raft._proposals) > 0


class StopUnderLoad(Adversary):
    """A server is shut down in good order just when commands wait in its queue or are under way."""

    name = "stop under load"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster = plot.cluster
        server = any_server(cluster, rng)

        def is_busy() -> bool:
            raft = server.raft
            return server.is_serving and raft is not None and raft.last_index > raft.applied_index

        calm = not server.fsm_delay and not server.is_frozen
        if calm and plot.wait(is_busy, 2.0) and not cluster.scheduler.is_holding and not server.is_frozen:
            cluster.stop(server)


ADVERSARIES: tuple[type[Adversary], ...] = (
    CrashWithUncommitted,
    CrashBeforeAck,
    CutNewLeader,
    ThawAtCommit,
    TwoLogs,
    LateEntries,
    OldSessionReplies,
    StarveAtQueue,
    StopUnderLoad,
)
