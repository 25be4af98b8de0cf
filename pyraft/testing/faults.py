"""What goes wrong in a simulated cluster: each kind a small class, the mix drawn from the seed.

A fault *strikes* every so often, lasts a while, and *relents*.  Both are means of exponential
distributions, in virtual seconds.  Each strike draws from a stream of random numbers of its own, so
leaving one out changes nothing that is drawn for the others.
"""

from __future__ import annotations

import errno
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ..errors import ConfigError

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer


class Fault(ABC):
    """One kind of trouble."""

    name: ClassVar[str]

    def __init__(self, every: float = 10.0, lasting: float = 3.0) -> None:
        """``every``: mean seconds of peace; ``lasting``: mean seconds of trouble."""
        for what, seconds in (("every", every), ("lasting", lasting)):
            if not seconds > 0:
                raise ConfigError(f"{self.name}: {what}={seconds!r} is not above 0 seconds")
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


def _any_server(cluster: SimCluster, rng: random.Random) -> SimServer:
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
            cluster.partition([_any_server(cluster, rng)])
        else:
            groups: list[list[SimServer]] = [[], [], []]
            for server in servers:
                groups[rng.choice([0, 0, 1, 1, 2])].append(server)
            cluster.partition(*groups)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.heal()


class SlowLinks(Fault):
    """Some links take much longer than others."""

    name = "slow links"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
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
        cluster.crash(_any_server(cluster, rng), power_loss=rng.random() < 0.5)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.revive_all()


class CrashAll(Crash):
    """All servers lose power at once."""

    name = "crash of all"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            cluster.crash(server, power_loss=True)


class Stop(Crash):
    """A server is shut down in good order in the middle of its work, and started again."""

    name = "stop"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = _any_server(cluster, rng)
        calm = not server.fsm_delay and not server.is_frozen and not cluster.scheduler.is_holding
        if server.is_serving and calm:
            cluster.stop(server)


class Freeze(Fault):
    """A server's process stands still and goes on later, as if nothing had been."""

    name = "freeze"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = _any_server(cluster, rng)
        if server.is_up:
            cluster.freeze(server)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            cluster.thaw(server)


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
        conditions = _any_server(cluster, rng).disk.conditions
        conditions.commit_time = rng.choice([0.001, 0.02, 0.3])
        conditions.stall = rng.choice([0.01, 0.1])
        conditions.stall_for = rng.choice([0.5, 2.0, 6.0])

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            fresh = type(server.disk.conditions)()
            server.disk.conditions.commit_time = fresh.commit_time
            server.disk.conditions.stall = 0.0


class FailingDisk(Fault):
    """A server's disk is full, or answers EIO with unknown outcome; the server is restarted later."""

    name = "failing disk"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        server = _any_server(cluster, rng)
        if rng.random() < 0.5:
            server.disk.is_full = True
        else:
            server.disk.conditions.io_error = rng.choice([0.05, 1.0])

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.disk.is_full = False
            server.disk.conditions.io_error = 0.0
        cluster.revive_all()


class LostDisk(Fault):
    """A server's disk is damaged or replaced by an empty one; never more than one at a time.

    It comes back by asking the others, and does not vote before it has caught up.
    """

    name = "lost disk"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        if any(not cluster.judge.holds_its_past(server) for server in cluster.servers.values()):
            return
        if len(cluster.servers) < 3:
            return
        server = rng.choice(list(cluster.servers.values()))
        if rng.random() < 0.5:
            cluster.scheduler.note("bit flip", server.id, server.disk.flip_bit())
            cluster.judge.damaged(server.id)
            cluster.crash(server)
        else:
            cluster.wipe(server)

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        cluster.revive_all()


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


class SlowFsm(Fault):
    """A server's state machine takes long for every command."""

    name = "slow FSM"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        _any_server(cluster, rng).fsm_delay = rng.choice([0.001, 0.05, 1.0])

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.fsm_delay = 0.0


class FailingFsm(Fault):
    """A server's state machine finds its disk full, which stops that server."""

    name = "failing FSM"

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        _any_server(cluster, rng).fsm_error = OSError(errno.ENOSPC, "no space left on device")

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        for server in cluster.servers.values():
            server.fsm_error = None
        cluster.revive_all()


KINDS: tuple[type[Fault], ...] = (
    BadNetwork,
    Partition,
    SlowLinks,
    Crash,
    CrashAll,
    Stop,
    Freeze,
    StarveThreads,
    SlowDisk,
    FailingDisk,
    LostDisk,
    BadClocks,
    SlowFsm,
    FailingFsm,
)


def draw_faults(rng: random.Random) -> list[Fault]:
    """A mix of kinds and rates: sometimes a few, sometimes nearly all."""
    share = rng.choice([0.15, 0.3, 0.6])
    drawn: list[Fault] = []
    for kind in KINDS:
        every, lasting = rng.choice([3.0, 8.0, 20.0]), rng.choice([0.1, 0.5, 2.0, 5.0])
        if kind is CrashAll:  # or nothing else would ever happen
            every, lasting = 5 * every, min(lasting, 2.0)
        if rng.random() < share:
            drawn.append(kind(every, lasting))
    return drawn
