"""What goes wrong in a simulated cluster: each kind a small class, the mix drawn from the seed.

A fault *strikes* every so often, lasts a while, and *relents*.  Both are means of exponential
distributions, in virtual seconds.  Each strike draws from a stream of random numbers of its own, so
leaving one out changes nothing that is drawn for the others.
"""

from __future__ import annotations

import errno
import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, ClassVar

from ..errors import ConfigError, RaftError
from .sim_disk import Sync
from .sim_kv import CommandRefused

if TYPE_CHECKING:
    from ..raft import Raft
    from .cluster import SimCluster, SimServer


class Fault(ABC):
    """One kind of trouble."""

    name: ClassVar[str]

    def __init__(self, every: float = 10.0, lasting: float = 3.0) -> None:
        """``every``: mean seconds of peace; ``lasting``: mean seconds of trouble."""
        for what, seconds in (("every", every), ("lasting", lasting)):
            _check_seconds(f"{self.name}: {what}", seconds)
        self.every = every
        self.lasting = lasting
        self.only: Sequence[int] | None = None  # the numbers of the strikes that happen; None = all

    def peace(self, rng: random.Random) -> float:
        """Seconds until the next strike."""
        return rng.expovariate(1.0) * self.every

    def trouble(self, rng: random.Random) -> float:
        """Seconds that one strike lasts."""
        return rng.expovariate(1.0) * self.lasting

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:  # noqa: B027  (optional)
        """Called once: for what is there from the start."""

    @abstractmethod
    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        """Begin the trouble."""

    @abstractmethod
    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        """End it, if it is there."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(every={self.every:.3g}, lasting={self.lasting:.3g})"


def _check_seconds(what: str, seconds: object) -> None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < inf:  # type: ignore[operator]
        raise ConfigError(f"{what}={seconds!r} is not a number of seconds above 0")


class _Switch:
    """Lets a thread of a fault know when to end."""

    def __init__(self) -> None:
        self.on = True


def links_between(
    cluster: SimCluster, sources: Iterable[SimServer], targets: Iterable[SimServer]
) -> list[tuple[str, str]]:
    """The links on which ``sources`` send to ``targets``, as ``SimNetwork.cut`` takes them."""
    targets = list(targets)
    return [(a.address, b.address) for a in sources for b in targets if a is not b]


def any_server(cluster: SimCluster, rng: random.Random) -> SimServer:
    """Any server; the leader more often, because there it hurts most."""
    leader = cluster.current_leader()
    if leader is not None and rng.random() < 0.4:
        return leader
    return rng.choice(list(cluster.servers.values()))


# ── network ──


class BadNetwork(Fault):
    """Messages are lost, doubled, overtaken, and delivered long after everything has changed."""

    name = "bad network"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        conditions = cluster.network.conditions
        conditions.loss = rng.choice([0.0, 0.01, 0.1, 0.3])
        conditions.duplication = rng.choice([0.0, 0.02, 0.2])
        conditions.lateness = rng.choice([0.0, 0.01, 0.1])
        conditions.late_by = rng.choice([0.2, 2.0, 8.0])
        conditions.jitter = rng.choice([0.0002, 0.002, 0.02, 0.2])
        conditions.knows_of_breaks = rng.random()

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.network.conditions = type(cluster.network.conditions)()


class Partition(Fault):
    """Two or three groups that cannot reach each other, or links that lose one direction."""

    name = "partition"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        servers = list(cluster.servers.values())
        if rng.random() < 0.35:
            for src in servers:
                for dst in servers:
                    if src is not dst and rng.random() < 0.3:
                        cluster.block(src, dst)
        elif rng.random() < 0.3:
            cluster.partition([any_server(cluster, rng)])
        else:
            groups: list[list[SimServer]] = [[], [], []]
            for server in servers:
                groups[rng.choice([0, 0, 1, 1, 2])].append(server)
            cluster.partition(*groups)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.heal()


class FlappingPartition(Fault):
    """A server is cut off and reached again, over and over, each time for a moment."""

    name = "flapping partition"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = any_server(cluster, rng)
        others = [other for other in cluster.servers.values() if other is not server]
        ways = [(server,), others] if rng.random() < 0.7 else [(server,), [rng.choice(others or [server])]]
        links = links_between(cluster, *ways) + links_between(cluster, *reversed(ways))
        mean = rng.choice([0.02, 0.1, 0.4])
        self._flaps = flaps = _Switch()
        cluster.scheduler.note("flapping", server.id, mean)
        cluster.scheduler.spawn("fault-flaps", partial(self._flap, cluster, rng, flaps, links, mean))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        self._flaps.on = False
        cluster.network.mend(self)

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        self._flaps = _Switch()

    def _flap(
        self,
        cluster: SimCluster,
        rng: random.Random,
        flaps: _Switch,
        links: list[tuple[str, str]],
        mean: float,
    ) -> None:
        while flaps.on:
            cluster.network.cut(self, links)
            cluster.scheduler.sleep(rng.expovariate(1.0) * mean)
            if flaps.on:
                cluster.network.mend(self)
                cluster.scheduler.sleep(rng.expovariate(1.0) * mean)


class BridgePartition(Fault):
    """Two halves that cannot reach each other, and one server that reaches both."""

    name = "bridge partition"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        bridge, *others = rng.sample(list(cluster.servers.values()), len(cluster.servers))
        left, right = others[: len(others) // 2], others[len(others) // 2 :]
        cluster.scheduler.note("bridge", bridge.id, [s.id for s in left], [s.id for s in right])
        links = links_between(cluster, left, right) + links_between(cluster, right, left)
        cluster.network.cut(self, links)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.network.mend(self)


class HalfDeafLeader(Fault):
    """The leader reaches nobody, or nobody reaches the leader: one direction of its links is lost."""

    name = "half-deaf leader"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        leader = cluster.current_leader() or any_server(cluster, rng)
        others = cluster.servers.values()
        is_deaf = rng.random() < 0.5
        cluster.scheduler.note("deaf" if is_deaf else "mute", leader.id)
        ways = (others, [leader]) if is_deaf else ([leader], others)
        cluster.network.cut(self, links_between(cluster, *ways))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.network.mend(self)


class SlowLinks(Fault):
    """Some links take much longer than others, often in one direction only, or all take too long for elections."""

    name = "slow links"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        kind = rng.random()
        if kind > 0.75:  # there and back takes about as long as a candidate waits
            seconds = rng.choice([0.55, 0.8, 1.2]) * cluster.config.election_timeout
            for link in links_between(cluster, cluster.servers.values(), cluster.servers.values()):
                cluster.network.slow(*link, seconds)
            return
        if kind < 0.4:
            server, seconds = any_server(cluster, rng), rng.choice([0.01, 0.1, 0.7])
            inwards = rng.random() < 0.5
            for other in cluster.servers.values():
                ways = (other, server) if inwards else (server, other)
                cluster.network.slow(ways[0].address, ways[1].address, seconds)
            return
        for src in cluster.servers.values():
            for dst in cluster.servers.values():
                if src is not dst and rng.random() < 0.3:
                    cluster.network.slow(src.address, dst.address, rng.choice([0.01, 0.1, 0.7]))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for src in cluster.servers.values():
            for dst in cluster.servers.values():
                cluster.network.slow(src.address, dst.address, 0.0)


# ── processes and machines ──


class Crash(Fault):
    """A server's process dies, or its machine loses power, and it is started again."""

    name = "crash"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.crash(any_server(cluster, rng), power_loss=rng.random() < 0.5)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.revive_all()


class CrashAll(Crash):
    """All servers lose power at once."""

    name = "crash of all"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            cluster.crash(server, power_loss=True)


class RestartStorm(Crash):
    """One server dies again and again, as soon as it is up or a little later."""

    name = "restart storm"

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        self._storm = _Switch()

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        self._storm = storm = _Switch()
        server = any_server(cluster, rng)
        cluster.scheduler.spawn("fault-storm", partial(self._rage, cluster, rng, storm, server))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        self._storm.on = False
        super().relent(cluster, rng)

    def _rage(self, cluster: SimCluster, rng: random.Random, storm: _Switch, server: SimServer) -> None:
        mean = rng.choice([0.005, 0.05, 0.5])
        while storm.on:
            cluster.crash(server, power_loss=rng.random() < 0.5)
            cluster.scheduler.sleep(rng.expovariate(1.0) * mean)
            if storm.on:
                cluster.revive(server)
            cluster.scheduler.sleep(rng.expovariate(1.0) * mean)


class SlowRestart(Crash):
    """A server dies and comes back while every commit of its disk takes long."""

    name = "slow restart"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = any_server(cluster, rng)
        cluster.slow_disk(server, rng.choice([0.05, 0.4, 3.0]), lasting=rng.choice([0.5, 2.0, 6.0]))
        cluster.crash(server, power_loss=rng.random() < 0.5)
        cluster.revive(server)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            cluster.slow_disk(server, 0.0)
        super().relent(cluster, rng)


class Stop(Crash):
    """A server is shut down in good order in the middle of its work, and started again."""

    name = "stop"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = any_server(cluster, rng)
        delay, server.fsm_delay = server.fsm_delay, rng.choice([server.fsm_delay, 0.02, 0.2])
        cluster.scheduler.sleep(rng.random() * 0.3)  # so that there is a backlog to give up
        can_end = not server.is_frozen and not cluster.scheduler.is_holding
        if server.is_serving and can_end:
            cluster.stop(server)
        server.fsm_delay = delay


class Freeze(Fault):
    """A server's process stands still and goes on later, as if nothing had been."""

    name = "freeze"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = any_server(cluster, rng)
        if server.is_up:
            cluster.freeze(server)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            cluster.thaw(server)


class FreezeAll(Freeze):
    """Every server stands still at once: the machine that they all run on was suspended."""

    name = "freeze of all"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            if server.is_up:
                cluster.freeze(server)


class StarveThreads(Fault):
    """One kind of thread does not run for a while, on every server or on one."""

    name = "starve threads"
    _KINDS = ("-main", "-fsm", "-notify", "-repl-", "-beat-", "-vote-", "net-", "user-")

    def trouble(self, rng: random.Random) -> float:
        return rng.expovariate(1.0) * rng.choice([0.01, 0.2, 1.5])

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        kind = rng.choice(self._KINDS)
        server = rng.choice([None, *cluster.servers])

        def matches(task: object) -> bool:
            name = getattr(task, "name", "")
            return kind in name and (server is None or server in name)

        cluster.scheduler.note("starve", kind, server)
        cluster.scheduler.hold(self, matches)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.scheduler.unhold(self)


# ── disks ──


class SlowDisk(Fault):
    """The commits of a server take long, some longer than an election timeout."""

    name = "slow disk"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        conditions = any_server(cluster, rng).disk.conditions
        conditions.commit_time = rng.choice([0.001, 0.02, 0.3])
        conditions.stall = rng.choice([0.01, 0.1])
        conditions.stall_for = rng.choice([0.5, 2.0, 6.0])
        conditions.late_return = rng.choice([0.0, 0.001, 0.02])

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            fresh = type(server.disk.conditions)()
            server.disk.conditions.commit_time = fresh.commit_time
            server.disk.conditions.stall = 0.0
            server.disk.conditions.late_return = 0.0


class FailingDisk(Fault):
    """A server's disk is full, or answers EIO with unknown outcome; the server is restarted later."""

    name = "failing disk"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = any_server(cluster, rng)
        if rng.random() < 0.5:
            server.disk.is_full = True
        else:
            server.disk.conditions.io_error = rng.choice([0.05, 1.0])

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.disk.is_full = False
            server.disk.conditions.io_error = 0.0
        cluster.revive_all()


def _may_lose_a_disk(cluster: SimCluster) -> bool:
    """Whether the others can do without the disk of any one server."""
    servers, judge = list(cluster.servers.values()), cluster.judge
    return len(servers) >= 3 and all(map(judge.holds_its_past, servers)) and judge.may_lose_one()


class LostDisk(Fault):
    """A server's disk is damaged, truncated or replaced by an empty one; never more than one at a time.

    It comes back by asking the others, and does not vote before it has caught up.
    """

    name = "lost disk"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        if not _may_lose_a_disk(cluster):
            return
        server = rng.choice(list(cluster.servers.values()))
        damage = rng.choice(["bit flip", "misdirected write", "lost write", "truncation", "wipe", "wipe"])
        if damage == "wipe":
            cluster.wipe(server)
            return
        disk = server.disk
        if damage == "bit flip":
            index = disk.flip_bit()
        elif damage == "misdirected write":
            index = disk.misdirect_write()
        elif damage == "lost write":
            index = disk.lose_write()
        else:
            index, disk.is_truncated = 0, True
        cluster.scheduler.note(damage, server.id, index)
        cluster.judge.damaged(server.id)
        cluster.crash(server)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.revive_all()


class DamagedSnapshot(Fault):
    """The newest snapshot of a server cannot be read any more; never on more than one server at a time."""

    name = "damaged snapshot"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        if not _may_lose_a_disk(cluster):
            return
        server = rng.choice(list(cluster.servers.values()))
        damaged = server.disk.damage_snapshot()
        if damaged:
            cluster.scheduler.note("damaged snapshot", server.id, damaged)
            cluster.judge.damaged(server.id)
            cluster.judge.scout.reached("snapshot damaged")
            cluster.crash(server)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.revive_all()


class AskForSnapshot(Fault):
    """Somebody asks a server for a snapshot, at any moment."""

    name = "ask for snapshot"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        ask_for_snapshot(cluster, any_server(cluster, rng))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        pass


def ask_for_snapshot(cluster: SimCluster, server: SimServer) -> None:
    """Let the server's own program ask for a snapshot, if it can; does not wait."""
    raft = server.raft
    if raft is not None and server.is_up and not server.is_frozen:
        cluster.scheduler.spawn(f"user-{server.id}-snapshot", lambda: _ask(raft), server.group)


def _ask(raft: Raft) -> None:
    try:
        raft.snapshot().result(10.0)
    except (RaftError, TimeoutError):
        pass  # nothing new, or the server is stopping


# ── clocks and state machines ──


class BadClocks(Fault):
    """Clocks run too fast or too slow; wall clocks jump."""

    name = "bad clocks"

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.clock.drift(1.0 + rng.uniform(-0.02, 0.02))

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        clock = rng.choice(list(cluster.servers.values())).clock
        clock.drift(1.0 + rng.uniform(-0.05, 0.05))
        clock.wall_offset += rng.uniform(-3600, 3600)
        if rng.random() < 0.3:
            clock.leap(rng.choice([0.1, 1.0, 10.0]))

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.clock.drift(1.0)


class HeldAfterClockRead(Fault):
    """A thread is held for a while between reading a clock and using what it read."""

    name = "held after clock read"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        chance, mean = rng.choice([0.001, 0.01, 0.05]), rng.choice([0.01, 0.1, 1.0, 3.0])
        victims = [any_server(cluster, rng)] if rng.random() < 0.7 else list(cluster.servers.values())

        def draw() -> float:
            return rng.expovariate(1.0) * mean if rng.random() < chance else 0.0

        for server in victims:
            server.clock.held_after_read = draw

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.clock.held_after_read = None


class SlowCallers(Fault):
    """Leaders find callers on their way and leave their queue alone until they come, now and then in vain."""

    name = "slow callers"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        share, lost = rng.choice([0.3, 0.9, 1.0]), rng.choice([0.0, 0.1, 1.0])
        mean = rng.choice([0.0, 0.001, 0.02, 0.2])

        def draw() -> float | None:
            if rng.random() >= share:
                return None
            return inf if rng.random() < lost else rng.expovariate(1.0) * mean

        cluster.scheduler.callers = draw

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.scheduler.callers = None


class SlowFsm(Fault):
    """A server's state machine takes long for every command."""

    name = "slow FSM"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        any_server(cluster, rng).fsm_delay = rng.choice([0.001, 0.05, 1.0])

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.fsm_delay = 0.0


class FailingFsm(Fault):
    """A server's state machine finds its disk full, which stops that server."""

    name = "failing FSM"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        any_server(cluster, rng).fsm_error = OSError(errno.ENOSPC, "no space left on device")

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.fsm_error = None
        cluster.revive_all()


class RaisingFsm(Fault):
    """The state machines raise for some commands, before or after they changed their state.

    Which commands, their bytes decide, so every server does alike, also when it applies them
    again: the exception is the command's answer, and the servers go on.  From the start and for good.
    """

    name = "raising FSM"

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        salt, one_in = rng.randrange(1 << 32), rng.choice([5, 20])

        def refusal(command: bytes) -> CommandRefused | None:
            number = zlib.crc32(command, salt)
            if number % one_in:
                return None
            return CommandRefused(command, has_applied=number // one_in % 2 == 1)

        cluster.refusal = refusal

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        pass

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        pass


# ── experiments: disks that lie about what is durable; the judges must catch each ──


class _LyingDisks(CrashAll):
    """All disks call commits durable that are not, and all servers lose power now and then."""

    sync: ClassVar[Sync]

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.disk.sync = self.sync


class NoMetaSync(_LyingDisks):
    """As LMDB with ``metasync=False``: a power loss may undo the last commit.  Not in the drawn mix."""

    name = "no meta sync"
    sync = Sync.NO_META


class NoSync(_LyingDisks):
    """As LMDB with ``sync=False``: a power loss may undo the last few commits.  Not in the drawn mix."""

    name = "no sync"
    sync = Sync.NONE
