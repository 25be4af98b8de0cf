"""Whether servers do in time what they must: step down, stand for election, answer.

True virtual time is compared with what servers say and do.  Time in which a server could not act,
because its threads were held back or its disk wrote, does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import RaftError
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestVoteResponse,
)
from ..rules.election import majority
from ..state import RaftState
from .exercises import Exercises
from .sim_policies import Policy, PriorityPolicy

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer
    from .sim_runtime import Group

_TICK = 0.05  # virtual seconds between two looks; there are none while nobody sends anything
_SLACK = 0.2  # for late looks, a clock that runs slow, and threads that others keep waiting
_SLOWEST_CLOCK = 0.9
_STOPS_WITHIN = 3.0  # seconds from the moment at which a server gives up until its threads are gone

_ROUNDS = 30  # of the drill
_PATTERNS = ((1, 1, 0.00003), (1, 1, 0.003), (4, 1, 0.002), (1, 6, 0.001))
"""How often in a row a caller asks, for how many barriers at once, and within how many seconds all
callers begin.  News gets lost when it comes while older news is being looked at."""
_CHANGES = (8, 20, 60)
"""Every how many steps the thread that runs has to let all others go first, until nothing is left to do."""
_LONGEST = 5.0  # seconds that anybody waits for one
_STREAMS_EACH = 3  # that a leader may open to a peer meanwhile: it may have just come back
_LATENCY = 0.02  # on a network and disks that take about a millisecond
_LATENCY_WITH_LINES = 0.06  # where threads are held between lines, too
_ATTEMPTS = 5


class _Instant:
    """When something happened, and how long the server had been unable to act until then."""

    __slots__ = ("at", "excused")

    def __init__(self, at: float = 0.0, excused: float = 0.0) -> None:
        self.at = at
        self.excused = excused


class Timekeeper:
    """Looks at every server now and then."""

    def __init__(self, cluster: SimCluster, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._cluster = cluster
        self._broken = broken
        self._excused: dict[str, float] = {}
        self._was_excused: dict[str, bool] = {}
        self._signs: dict[str, _Instant] = {}  # of life: reasons not to stand for election yet
        self._answers: dict[str, dict[str, _Instant]] = {}  # leader -> who answered it in its term
        self._down: dict[str, tuple[Group, _Instant]] = {}  # who stopped by itself
        self._exercises = Exercises(cluster, broken)
        self._turns: dict[str, dict[int, int]] = {}  # of threads that could have run at the last look
        self._outvoted: dict[str, _Instant] = {}  # leaders that are no voters, since when
        self._receiving: dict[tuple[str, str], Group] = {}  # (sender, receiver) of a snapshot
        self._asked_at: dict[
            tuple[Group, str], float
        ] = {}  # (leader, peer) -> its clock at the latest request
        self._contacts: dict[tuple[Group, str], tuple[object, float]] = {}  # what it said of that before
        self._due = 0.0
        self._looked_at = 0.0

    # -- what happens ------------------------------------------------------------------------------

    def sign_of_life(self, server: str) -> None:
        """The server began, changed its role, or has a reason to wait for a leader."""
        self._signs[server] = self._instant(server)

    def elected(self, server: str) -> None:
        """A leader gets one lease to reach its peers."""
        self._answers[server] = {}
        self.voters_changed(server)

    def voters_changed(self, leader: str) -> None:
        """It gets one more when others count."""
        answers = self._answers.get(leader)
        if answers is not None:
            voters = self._cluster.judge.seen(leader).disk.members.voters
            answers.update({voter.id: self._instant(leader) for voter in voters})

    def gave_up(self, server: SimServer) -> None:
        """The server is about to stop."""
        self._down[server.id] = (server.group, self._instant(server.id))

    def died(self, server: SimServer) -> None:
        """Its process is gone."""
        self._look_for_leftovers(server)
        self._down.pop(server.id, None)

    def request_sent(self, src: SimServer, dst: SimServer, request: AnyRequest) -> None:
        """``src`` asks ``dst``."""
        if isinstance(request, InstallSnapshotRequest):
            self._receiving[src.id, dst.id] = dst.group
        elif isinstance(request, AppendEntriesRequest):
            self._check_contact(src, dst.id)
            self._asked_at[src.group, dst.id] = src.clock.read()

    def _check_contact(self, leader: SimServer, peer: str) -> None:
        """An answer proves nothing about the time after its question was sent (dissertation §6.4)."""
        leadership = leader.raft._node.context.leadership if leader.raft is not None else None
        session = leadership.sessions.get(peer) if leadership is not None else None
        if session is None:
            return
        link = leader.group, peer
        known, before = self._contacts.get(link, (None, 0.0))
        contact = session.contact
        self._contacts[link] = session, contact
        if known is session and contact != before and contact > self._asked_at.get(link, contact):
            late = contact - self._asked_at[link]
            self._broken(
                "lease",
                f"{leader.id} counts an answer of {peer} from {late:.6f} s after the latest question on",
            )

    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None:
        """``src`` answers ``dst``; both are ids."""
        if isinstance(response, InstallSnapshotResponse) and isinstance(request, InstallSnapshotRequest):
            self._receiving.pop((dst, src), None)
            if response.term == request.term:
                self.sign_of_life(src)
        elif isinstance(response, AppendEntriesResponse) and isinstance(request, AppendEntriesRequest):
            if response.term == request.term:
                self.sign_of_life(src)
                answers = self._answers.get(dst)
                if answers is not None:
                    answers[src] = self._instant(dst)
        elif isinstance(response, RequestVoteResponse) and response.granted:
            self.sign_of_life(src)

    # -- looking -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look, if it is time to."""
        now = self._cluster.scheduler.time
        if now < self._due:
            return
        self._due = now + _TICK
        passed, self._looked_at = now - self._looked_at, now
        gap = max(2 * _TICK, self._cluster.config.heartbeat_timeout / 2)  # leaders send more often
        self._cluster.judge.scout.tick(self._cluster.scheduler.is_holding)
        for server in self._cluster.servers.values():
            is_excused = self._is_held(server) or self._is_passed_over(server)
            if is_excused or self._was_excused.get(server.id) or passed > gap:
                self._excused[server.id] = self._excused.get(server.id, 0.0) + passed
            self._was_excused[server.id] = is_excused
            if server.is_up and server.raft is not None:
                self._look_at(server)

    def silence(self, leader: str) -> float:
        """For how long ``leader`` has had no answer of a majority, by what it could know."""
        answers = self._answers.get(leader)
        if answers is None:
            return 0.0
        voters = [voter.id for voter in self._cluster.judge.seen(leader).disk.members.voters]
        silences = sorted(
            self._since(leader, answers[voter]) if voter != leader and voter in answers else 0.0
            for voter in voters
        )
        return silences[majority(len(silences)) - 1] if silences else 0.0

    def could_act_for(self, server: str, since: float) -> float:
        """Seconds since ``since``, or since threads were last let go; none if the server was held back lately."""
        if self._was_excused.get(server) or self._cluster.scheduler.is_holding:
            return 0.0
        return self._cluster.scheduler.time - max(since, self._cluster.scheduler.held_until)

    def _look_at(self, server: SimServer) -> None:
        config, id = self._cluster.config, server.id
        seen = self._cluster.judge.seen(id)
        if seen.role is RaftState.LEADER:
            self._check_in_office(server)
            silence = self.silence(id)
            if silence > config.leader_lease_timeout / _SLOWEST_CLOCK + _SLACK:
                self._broken(
                    "lease", f"{id} leads term {seen.led_in}, and no majority answered for {silence:.3f} s"
                )
        elif seen.role is RaftState.FOLLOWER and self._should_stand(server):
            idle = self._since(id, self._signs.get(id, _Instant()))
            if idle > 2 * config.heartbeat_timeout / _SLOWEST_CLOCK + _SLACK:
                self._broken(
                    "campaign", f"{id} hears from nobody for {idle:.3f} s and does not stand for election"
                )
        elif seen.role is RaftState.SHUTDOWN:
            self._look_for_leftovers(server)

    def _check_in_office(self, server: SimServer) -> None:
        """Who is no voter any more, and has committed that, leads no longer (dissertation §4.2.2)."""
        seen = self._cluster.judge.seen(server.id)
        is_over = seen.commit >= seen.disk.members_index and not seen.disk.members.is_voter(server.id)
        if not is_over:
            self._outvoted.pop(server.id, None)
        elif self._since(server.id, self._outvoted.setdefault(server.id, self._instant(server.id))) > _SLACK:
            self._broken(
                "lease", f"{server.id} leads term {seen.led_in}, and has committed that it votes no more"
            )

    def _look_for_leftovers(self, server: SimServer) -> None:
        """A server that stopped by itself must not leave threads of its own, or futures."""
        group, down = self._down.get(server.id, (None, None))
        if group is None or down is None or group is not server.group or group.dead:
            return
        slow = server.fsm_delay + self._cluster.config.election_timeout
        if self._since(server.id, down) < _STOPS_WITHIN + slow:
            return
        self._down.pop(server.id)
        left = self._cluster.judge.leftovers(group)
        if left is not None:
            self._broken("I12", f"{server.id} stopped by itself and left {left}")

    def _is_held(self, server: SimServer) -> bool:
        scheduler, lately = self._cluster.scheduler, self._looked_at - _TICK
        if server.disk.in_flight is not None or server.disk.returns_at > lately:
            return True  # its main thread is with the disk
        if server.clock.held_until > lately:
            return True
        return scheduler.is_holding and any(task.holds for task in scheduler.tasks(server.group))

    def _is_passed_over(self, server: SimServer) -> bool:
        """Whether its main thread, or one that takes messages in, could run and never has since the last look.

        A policy may let others go first for long, the more so if one of them never waits.
        """
        before, turns = self._turns.get(server.id, {}), {}
        for task in self._cluster.scheduler.tasks(server.group):
            if task.slot >= 0 and (task.name.endswith("-main") or task.name.startswith("net-")):
                turns[task.number] = task.turns
        self._turns[server.id] = turns
        return any(before.get(number) == count for number, count in turns.items())

    def _should_stand(self, server: SimServer) -> bool:
        """Whether it is a voter with a past; while a snapshot comes in, the sender's word may be newer."""
        seen = self._cluster.judge.seen(server.id)
        if seen.ballot.newborn is not None or not seen.disk.members.is_voter(server.id):
            return False
        return not any(
            link[1] == server.id and group is server.group for link, group in self._receiving.items()
        )

    def _instant(self, server: str) -> _Instant:
        return _Instant(self._cluster.scheduler.time, self._excused.get(server, 0.0))

    def _since(self, server: str, instant: _Instant) -> float:
        excused = self._excused.get(server, 0.0) - instant.excused
        return self._cluster.scheduler.time - instant.at - excused

    # -- the drill ---------------------------------------------------------------------------------

    def check_latency(self) -> None:
        """Ask for barriers while nothing is wrong at all; each must be through within a few round trips.

        A wake-up that gets lost is made up for by the next event or timer, so it does no lasting
        harm; it shows only in how long things take.
        """
        cluster = self._cluster
        held_until = max(server.clock.held_until for server in cluster.servers.values())
        cluster.run(max(held_until - cluster.now, 0.0) + 0.1)
        before = cluster.network.conditions.jitter
        cluster.network.conditions.jitter = 0.0
        for server in cluster.servers.values():
            server.disk.conditions.commit_time = 0.0002
        for attempt in range(_ATTEMPTS):
            leader = cluster.leader()
            if self._drill(leader, attempt):
                cluster.network.conditions.jitter = before
                self._exercises.check_barrier(leader)
                self._exercises.check_catching_up(leader)
                self._exercises.check_failed_transfer(leader)
                self._exercises.check_readmission(cluster.leader())
                return
        self._broken("latency", "nothing is wrong, and no leader keeps its office for a second")
        cluster.run(0)

    def check_end_at_work(self) -> None:
        """Let the leader end in the middle of its work, if there is one."""
        leader = self._cluster.current_leader()
        if leader is not None:
            self._exercises.check_end_at_work(leader)

    @property
    def _latency(self) -> float:
        return _LATENCY if self._cluster.scheduler.lines is None else _LATENCY_WITH_LINES

    def _drill(self, leader: SimServer, attempt: int) -> bool:
        """Return False if somebody else leads now."""
        scheduler = self._cluster.scheduler
        policy = scheduler.policy
        try:
            return self._rounds(leader, attempt, policy)
        finally:
            scheduler.policy = policy

    def _rounds(self, leader: SimServer, attempt: int, own_policy: Policy) -> bool:
        cluster = self._cluster
        rng = cluster.scheduler.random(f"drill:{attempt}")
        opened = cluster.network.streams_opened[leader.address]
        for number in range(_ROUNDS):
            if number % 4:
                cluster.scheduler.policy = hasty = PriorityPolicy(rng.choice(_CHANGES))
                hasty.seed(cluster.scheduler.random(f"drill:{attempt}:{number}"))
            else:
                cluster.scheduler.policy = own_policy
            took: list[float] = []
            errors: list[BaseException] = []
            callers = 2 + int(rng.random() * 3)
            in_a_row, at_once, spread = rng.choice(_PATTERNS)
            if leader.raft is not None:
                self._exercises.await_applied(leader, leader.raft.last_index + callers * in_a_row * at_once)
            for _ in range(callers):
                work = partial(self._ask, leader, rng.random() * spread, in_a_row, at_once, took, errors)
                cluster.scheduler.spawn(f"drill-{leader.id}", work, leader.group)
            deadline = cluster.now + _LONGEST
            while len(took) < callers * in_a_row and not errors and cluster.now < deadline:
                cluster.run(0.002)
            if leader.raft is None or leader.raft.state is not RaftState.LEADER or errors:
                return False
            longest = max(took) if len(took) == callers * in_a_row else _LONGEST
            if longest > self._latency:
                self._broken(
                    "latency", f"nothing is wrong, and {leader.id} took {longest:.3f} s for a barrier"
                )
            self._check_followers(leader, leader.raft.last_index)
            self._exercises.check_woken()
            cluster.run(rng.choice([0.0, 0.0, 0.003, 0.05]))
        self._check_streams(leader, cluster.network.streams_opened[leader.address] - opened)
        return True

    def _check_streams(self, leader: SimServer, opened: int) -> None:
        """A stream goes on while nothing is wrong: what it is to carry is at hand, and nobody ends it."""
        if opened > _STREAMS_EACH * (len(self._cluster.servers) - 1):
            self._broken("latency", f"nothing is wrong, and {leader.id} began {opened} streams to its peers")
            self._cluster.run(0)

    def _ask(
        self,
        leader: SimServer,
        after: float,
        in_a_row: int,
        at_once: int,
        took: list[float],
        errors: list[BaseException],
    ) -> None:
        """Ask for barriers ``in_a_row`` times, ``at_once`` so many.  On a thread of the leader's process."""
        scheduler, raft = self._cluster.scheduler, leader.raft
        assert raft is not None
        scheduler.sleep(after)
        try:
            for _ in range(in_a_row):
                began = scheduler.time
                for future in [raft.barrier(_LONGEST) for _ in range(at_once)]:
                    future.result(_LONGEST)
                took.append(scheduler.time - began)
        except TimeoutError:
            took.append(_LONGEST)
        except RaftError as error:
            errors.append(error)

    def _check_followers(self, leader: SimServer, last: int) -> None:
        """Entries reach every follower at once, and news of the commit after ``commit_timeout``."""
        patience = {
            "last_index": self._latency,
            "applied_index": 2.2 * self._cluster.config.commit_timeout + self._latency,
        }
        for what, seconds in patience.items():
            behind = self._behind(what, last)
            deadline = self._cluster.now + seconds
            while behind and self._cluster.now < deadline:
                self._cluster.run(0.002)
                behind = self._behind(what, last)
            if leader.raft is None or leader.raft.state is not RaftState.LEADER:
                return
            if behind:
                self._broken(
                    "latency",
                    f"nothing is wrong, and the {what} of {', '.join(behind)} is not {last} after {seconds:.3f} s",
                )
                self._cluster.run(0)

    def _behind(self, what: str, last: int) -> list[str]:
        return [
            server.id
            for server in self._cluster.judge.roster.member_servers()
            if server.raft is None or getattr(server.raft, what) < last
        ]
