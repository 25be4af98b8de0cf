"""Faults that ask for what operators and readers ask for: changes of members, transfers, reads.

Each strike sets some askers to work, threads that go on until the fault relents.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..configuration import Configuration, Suffrage
from ..errors import TransportError
from .adversaries import Plot, ThawAtCommit, _next_leader, _others, leads
from .asking import Question, Reply, ask
from .faults import Fault
from .linearizability import Operation
from .question_watch import Kind
from .sim_kv import KvFsm

if TYPE_CHECKING:
    from ..raft import Raft
    from .cluster import SimCluster, SimServer

_MORE_SERVERS = 3  # that churn adds at most
_PATIENCE = 4.0  # virtual seconds that an operator waits for an answer


class _Shift:
    """What the askers of one strike share."""

    def __init__(self, cluster: SimCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.is_over = False


class Askers(Fault):
    """A fault whose strike sets askers to work."""

    most = 2
    paces: tuple[float, ...] = (0.05, 0.3, 1.0)  # mean seconds between two questions

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        self._shift = _Shift(cluster, rng)
        self._count = 0

    def strike(self, cluster: SimCluster, rng: random.Random) -> None:
        self._shift = shift = _Shift(cluster, rng)
        for _ in range(rng.randint(1, self.most)):
            self._count += 1
            name = f"{self.name}-{self._count}"
            pace, stream = rng.choice(self.paces), random.Random(rng.random())
            cluster.askers.append(
                cluster.scheduler.spawn(name, partial(self._work, shift, name, pace, stream))
            )

    def relent(self, cluster: SimCluster, rng: random.Random) -> None:
        self._shift.is_over = True

    def _work(self, shift: _Shift, name: str, pace: float, rng: random.Random) -> None:
        while True:
            shift.cluster.scheduler.sleep(rng.expovariate(1.0) * pace)
            if shift.is_over:
                return
            self.ask_once(shift.cluster, name, rng)

    @abstractmethod
    def ask_once(self, cluster: SimCluster, name: str, rng: random.Random) -> None:
        """Ask for one thing and wait for the answer; on the thread of the asker called ``name``."""


def _any_target(cluster: SimCluster, rng: random.Random) -> SimServer:
    """The leader mostly, or any server."""
    leader = cluster.current_leader()
    if leader is not None and rng.random() < 0.85:
        return leader
    return rng.choice(list(cluster.servers.values()))


class Churn(Askers):
    """Operators change who is a member, also in ways that are not allowed.

    Servers are added, promoted, demoted, removed, moved to other addresses, and added again, with
    their old disk or an empty one.
    """

    name = "churn"

    def begin(self, cluster: SimCluster, rng: random.Random) -> None:
        super().begin(cluster, rng)
        self._most_servers = len(cluster.servers) + _MORE_SERVERS
        self._asked: dict[str, int] = {}  # server -> how many changes of it may yet be on their way

    def ask_once(self, cluster: SimCluster, name: str, rng: random.Random) -> None:
        members = cluster.judge.members
        actions: list[tuple[int, Callable[[SimCluster, Configuration, random.Random], None]]] = [
            (3 if len(cluster.servers) < self._most_servers else 0, self._add_new),
            (4, self._add_again),
            (2, self._promote),
            (2 if len(members.voters) > 2 else 0, self._demote),
            (4 if len(members.voters) > 2 else 1, self._remove),
            (2, self._move),
            (1, self._break_the_rules),
        ]
        rng.choices([action for _, action in actions], [weight for weight, _ in actions])[0](
            cluster, members, rng
        )

    # -- what an operator does ---------------------------------------------------------------------

    def _add_new(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        self._add(cluster, cluster.add_server(), rng)

    def _add_again(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        strangers = [server for server in cluster.servers.values() if members.find(server.id) is None]
        if not strangers:
            return
        server = rng.choice(strangers)
        if rng.random() < 0.5 and self._may_renew(cluster, server):
            cluster.renew(server)
        elif not server.is_serving and not server.is_frozen:
            cluster.revive(server)
        self._add(cluster, server, rng)

    def _may_renew(self, cluster: SimCluster, server: SimServer) -> bool:
        """Whether nobody counts on what the server held, nor will because of what is on its way."""
        if server.is_frozen or self._asked.get(server.id):
            return False
        return cluster.judge.roster.is_forgotten(server.id)

    def _add(self, cluster: SimCluster, server: SimServer, rng: random.Random) -> None:
        id, address = server.id, server.address
        if rng.random() < 0.7:
            self._change(cluster, rng, id, lambda raft, prev, s: raft.add_voter(id, address, prev, s))
        else:
            self._change(cluster, rng, id, lambda raft, prev, s: raft.add_nonvoter(id, address, prev, s))

    def _promote(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        others = [one for one in members.servers if one.suffrage is not Suffrage.VOTER]
        if others:
            chosen = rng.choice(others)
            id, address = chosen.id, chosen.address
            self._change(cluster, rng, id, lambda raft, prev, s: raft.add_voter(id, address, prev, s))

    def _demote(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        id = self._any_voter(cluster, members, rng)
        self._change(cluster, rng, id, lambda raft, prev, s: raft.demote_voter(id, prev, s))

    def _remove(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        others = [one.id for one in members.servers if one.suffrage is not Suffrage.VOTER]
        if len(members.voters) > 2 and (not others or rng.random() < 0.7):
            id = self._any_voter(cluster, members, rng)
        elif others:
            id = rng.choice(others)
        else:
            return
        self._change(cluster, rng, id, lambda raft, prev, s: raft.remove_server(id, prev, s))

    def _any_voter(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> str:
        leader = cluster.current_leader()
        if leader is not None and members.is_voter(leader.id) and rng.random() < 0.3:
            return leader.id
        return rng.choice(members.voters).id

    def _move(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        """A member's machine gets another address; then the others are told."""
        server = cluster.servers[rng.choice(members.servers).id]
        if server.is_frozen or not server.is_up:
            return
        cluster.crash(server)
        server.address = f"{server.id}:{7000 + rng.randrange(3)}"
        cluster.scheduler.note("move", server.id, server.address)
        cluster.revive(server)
        id, address = server.id, server.address
        for _ in range(5):  # until somebody hears of it the others cannot reach it
            reply = self._change(
                cluster, rng, id, lambda raft, prev, s: raft.add_nonvoter(id, address, prev, s)
            )
            if reply.error is None:
                return

    def _break_the_rules(self, cluster: SimCluster, members: Configuration, rng: random.Random) -> None:
        chosen = rng.choice(members.servers)
        stale = rng.choice([1, 1 << 40])
        change: Callable[[Raft, int, float], Any] = rng.choice(
            [
                lambda raft, prev, s: raft.remove_server("nobody", prev, s),
                lambda raft, prev, s: raft.demote_voter("nobody", prev, s),
                lambda raft, prev, s: _add_twin(raft, chosen.id, s),
                lambda raft, prev, s: raft.remove_server(members.servers[0].id, stale, s),
            ]
        )
        self._change(cluster, rng, "nobody", change)

    def _change(
        self, cluster: SimCluster, rng: random.Random, id: str, change: Callable[[Raft, int, float], Any]
    ) -> Reply:
        """Ask for a change of the server ``id``."""
        decides_upon = rng.random() < 0.3  # the configuration that it has looked at
        seconds = rng.choice([0.1, 1.0, 3.0])
        hands_over = rng.random() < 0.1  # and another operator has just asked for that

        def question(raft: Raft) -> Any:
            if hands_over:
                raft.leadership_transfer()
            return change(raft, raft.get_configuration().index if decides_upon else 0, seconds)

        self._asked[id] = self._asked.get(id, 0) + 1
        reply = ask(cluster, _any_target(cluster, rng), Kind.CHANGE, question, _PATIENCE)
        if type(reply.error) is not TimeoutError:
            self._asked[id] -= 1  # else it may be appended later, so this stays
        return reply


def _add_twin(raft: Raft, of: str, seconds: float) -> Any:
    """Ask for a server at an address that is taken, as long as that is so: it may be moved meanwhile."""
    found = raft.get_configuration()
    servers = found.configuration.servers
    if not servers:
        raise TransportError("this server knows no address that is taken")
    taken = next((server for server in servers if server.id == of), servers[0])
    return raft.add_nonvoter("twin", taken.address, found.index, seconds)


class Transfers(Askers):
    """Operators hand leadership over, to anybody, and let servers stand for election."""

    name = "transfers"
    paces = (0.1, 0.5, 2.0)

    def ask_once(self, cluster: SimCluster, name: str, rng: random.Random) -> None:
        server = _any_target(cluster, rng)
        if rng.random() < 0.2:
            ask(cluster, rng.choice(list(cluster.servers.values())), Kind.CAMPAIGN, _campaign, _PATIENCE)
            return
        target = rng.choice([None, *cluster.servers])
        question: Question = lambda raft: raft.leadership_transfer(target)  # noqa: E731
        ask(cluster, server, Kind.TRANSFER, question, _PATIENCE, target)


def _campaign(raft: Raft) -> Any:
    return raft.campaign()


class Reads(Askers):
    """Clients that ask any server for a read index, and then look at its state machine."""

    name = "reads"
    most = 3
    paces = (0.03, 0.1, 0.5)

    def ask_once(self, cluster: SimCluster, name: str, rng: random.Random) -> None:
        if rng.random() < 0.15:
            ask(cluster, _any_target(cluster, rng), Kind.VERIFY, _verify, _PATIENCE)
            return
        server = rng.choice(list(cluster.servers.values()))
        seconds = rng.choice([0.1, 1.0, 3.0])
        fsm, key = server.fsm, rng.choice(["k0", "k1", "k2", "b0", "b1"])

        def look() -> str | None:
            return fsm.data.get(key) if isinstance(fsm, KvFsm) else None

        reply = ask(cluster, server, Kind.READ, lambda raft: raft.read_index(seconds), _PATIENCE, look=look)
        if reply.error is None and isinstance(fsm, KvFsm):
            cluster.history.append(
                Operation(name, key, ("get",), reply.looked, reply.asked_at, reply.looked_at)
            )


def _verify(raft: Raft) -> Any:
    return raft.verify_leader()


class AskAtThaw(ThawAtCommit):
    """A leader freezes until another has committed something; its own readers are the first to go on."""

    name = "ask at thaw"

    def act(self, plot: Plot, rng: random.Random) -> None:
        cluster, old = plot.cluster, _next_leader(plot)
        if old.is_frozen or old.raft is None or not leads(old):
            return
        term = old.raft.term
        cluster.freeze(old)
        others = _others(cluster, old)
        plot.wait(lambda: any([self._has_begun(one, term, False) for one in others]), 10.0)
        for kind, question in [(Kind.READ, _read), (Kind.VERIFY, _verify)] * 2:
            cluster.askers.append(
                cluster.scheduler.spawn(self.name, partial(_ask, cluster, old, kind, question))
            )
        plot.pause(0.001)
        cluster.thaw(old)
        plot.pause(rng.choice([0.05, 0.5]))


def _ask(cluster: SimCluster, server: SimServer, kind: Kind, question: Question) -> None:
    ask(cluster, server, kind, question, _PATIENCE)


def _read(raft: Raft) -> Any:
    return raft.read_index(1.0)
