"""Small exercises while nothing is wrong: whoever waits is woken at once, and whoever was away catches up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from ..errors import EnqueueTimeoutError, LeadershipTransferInProgressError, RaftError
from ..log import LogType
from .sim_kv import KvFsm, encode_command

if TYPE_CHECKING:
    from ..futures import ApplyFuture
    from ..raft import Raft
    from .cluster import SimCluster, SimServer

_LATENCY = 0.02  # virtual seconds until a thread that is woken goes on, others first
_LOOK_EVERY = 0.00002
_RETURNS = 2
_REPLAY = 0.2  # seconds that a server takes to apply what it has missed
_SHORT_LOG = 500  # entries that a server gets soon, a few at a time
_AT_WORK = 6  # commands that a server has when it is asked to end
_PATIENCE = 2.0  # and what a leader needs to notice that a stream leads nowhere any more


class Exercises:
    """What the drill does besides asking for barriers."""

    def __init__(self, cluster: SimCluster, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._cluster = cluster
        self._broken = broken
        self._waiting = 0

    def await_applied(self, server: SimServer, index: int) -> None:
        """Let a thread of the server's program wait until ``index`` is applied, from its commit on."""
        raft = server.raft
        if raft is None or not server.is_serving:
            return
        self._waiting += 1
        self._cluster.scheduler.spawn(
            f"user-{server.id}-waits", partial(self._wait, server, raft, index), server.group
        )

    def check_woken(self) -> None:
        """Everybody who waits goes on by now, although nothing more is applied."""
        deadline = self._cluster.now + 4 * _LATENCY
        while self._waiting and self._cluster.now < deadline:
            self._cluster.run(0.002)

    def _wait(self, server: SimServer, raft: Raft, index: int) -> None:
        """On a thread of the server's process."""
        scheduler = self._cluster.scheduler
        deadline = scheduler.time + _LATENCY
        try:
            while raft.commit_index < index and scheduler.time < deadline:
                scheduler.sleep(_LOOK_EVERY)
            if raft.commit_index < index:
                return
            began = scheduler.time
            with suppress(TimeoutError, RaftError):
                raft.wait_applied(index, 3 * _LATENCY)
            took = scheduler.time - began
        finally:
            self._waiting -= 1
        if took > 2 * _LATENCY and raft.applied_index >= index:
            self._broken(
                "latency",
                f"who waited for entry {index} on {server.id} went on {took:.3f} s after its commit",
            )

    def check_barrier(self, leader: SimServer) -> None:
        """A barrier is through once everything before it is applied, and not when that is committed."""
        raft = leader.raft
        if raft is None or not isinstance(leader.fsm, KvFsm):
            return
        leader.fsm_delay = 0.002
        before = self._give_work(leader, raft)
        try:
            raft.barrier(_PATIENCE).result(_PATIENCE)
        except (RaftError, TimeoutError):
            return  # somebody else leads
        finally:
            leader.fsm_delay = 0.0
        open_ = sum(not future.done() for future in before)
        if open_:
            self._broken(
                "I11", f"a barrier of {leader.id} was through before {open_} commands that came before it"
            )
            self._cluster.run(0)

    def check_catching_up(self, leader: SimServer) -> None:
        """A server comes back, and one command comes while it applies what it has missed; then none."""
        cluster = self._cluster
        rng = cluster.scheduler.random("returns")
        for _ in range(_RETURNS):
            others = [one for one in cluster.servers.values() if one is not leader and one.is_serving]
            raft = leader.raft
            if not others or raft is None:
                return
            server = rng.choice(others)
            if not raft.get_configuration().result(_PATIENCE).is_voter(server.id):
                continue
            server.fsm_delay = _REPLAY / max(1, self._commands_to_replay(server))
            cluster.crash(server)
            cluster.revive(server)
            cluster.run(rng.random() * _REPLAY)
            try:
                raft.barrier(_PATIENCE).result(_PATIENCE)
            except (RaftError, TimeoutError):
                return  # somebody else leads: what comes next brings everybody up to date
            self._check_returned(server, raft)
            server.fsm_delay = 0.0

    def _commands_to_replay(self, server: SimServer) -> int:
        """How many commands lie behind the server's snapshot."""
        judge = self._cluster.judge
        snapshot = judge.seen(server.id).disk.snapshot
        logs = judge.committed[1 if snapshot is None else snapshot.index + 1 :]
        return sum(log.type is LogType.COMMAND for log in logs)

    def check_failed_transfer(self, leader: SimServer) -> None:
        """A leader that could not hand over, because the target is down, goes on taking commands."""
        cluster, raft = self._cluster, leader.raft
        if raft is None:
            return
        voters = raft.get_configuration().result(_PATIENCE).voters
        ids = [voter.id for voter in voters if voter.id != leader.id and voter.id in cluster.servers]
        if len(voters) < 3 or not ids:
            return  # without the target it would not lead any longer
        target = cluster.servers[cluster.scheduler.random("failed transfer").choice(ids)]
        cluster.crash(target)
        future = raft.leadership_transfer(target.id)
        deadline = cluster.now + 4 * cluster.config.election_timeout + _PATIENCE
        while not future.done() and cluster.now < deadline:
            cluster.run(0.02)
        cluster.revive(target)
        try:
            raft.barrier(_PATIENCE).result(_PATIENCE)
        except LeadershipTransferInProgressError as error:
            self._broken("I14", f"{leader.id} could not hand over, and takes no commands any more: {error}")
            cluster.run(0)
        except (RaftError, TimeoutError):
            pass  # somebody else leads

    def check_readmission(self, leader: SimServer) -> None:
        """A server that was removed, while entries went on coming, is a voter again as soon as it is added."""
        cluster, raft = self._cluster, leader.raft
        rng = cluster.scheduler.random("readmission")
        if raft is None or rng.random() < 0.5:
            return
        voters = raft.get_configuration().result(_PATIENCE).voters
        others = [voter for voter in voters if voter.id != leader.id and voter.id in cluster.servers]
        if len(voters) < 3 or not others:
            return
        member = rng.choice(others)
        server, seconds = cluster.servers[member.id], _PATIENCE + 4 * cluster.config.election_timeout
        try:
            raft.remove_server(member.id).result(seconds)
            raft.barrier(_PATIENCE).result(_PATIENCE)
            cluster.run(rng.choice([0.0, 0.1, 2 * cluster.config.election_timeout]))
            is_short = raft.last_index < _SHORT_LOG  # or it would not be there again in time
            if is_short and rng.random() < 0.5 and cluster.judge.roster.is_forgotten(server.id):
                self._begin_anew(leader, raft, server)
            if not server.is_serving:
                cluster.revive(server)
            raft.add_voter(member.id, member.address, timeout=seconds).result(2 * seconds)
        except EnqueueTimeoutError as error:
            self._broken("I14", f"{leader.id} removed {member.id}, and cannot add it again: {error}")
            cluster.run(0)
        except (RaftError, TimeoutError):
            return  # somebody else leads
        cluster.crash(server)  # by what its log says of the members it goes from now on
        cluster.revive(server)
        self._check_returned(server, raft)

    def _begin_anew(self, leader: SimServer, raft: Raft, server: SimServer) -> None:
        """The removed server gets an empty disk, and is cut off as soon as it has some entries: it may not stand."""
        cluster = self._cluster
        cluster.renew(server)
        raft.add_voter(server.id, server.address, timeout=_PATIENCE)
        deadline = cluster.now + _PATIENCE
        while server.disk.last_index < 1 and cluster.now < deadline:
            cluster.run(0.0002)
        cluster.partition([server])
        cluster.run(4 * cluster.config.election_timeout)
        cluster.heal()

    def check_end_at_work(self, server: SimServer) -> None:
        """I12: a server that is asked to end while commands wait in its queue, or are half applied, answers all."""
        cluster, raft, group = self._cluster, server.raft, server.group
        if raft is None or not isinstance(server.fsm, KvFsm):
            return
        is_half_applied = cluster.scheduler.random("end at work").random() < 0.5
        cluster.scheduler.hold(self, lambda task: task.group is group and task.name.endswith("-main"))
        if is_half_applied:
            server.fsm_delay = 0.005
            self._give_work(server, raft)
            before = raft.last_index
            cluster.scheduler.unhold(self)
            deadline = cluster.now + _PATIENCE
            while raft.applied_index <= before and cluster.now < deadline:
                cluster.run(0.001)
            future = raft.shutdown()
        else:
            future = raft.shutdown()
            self._give_work(server, raft)
            cluster.scheduler.unhold(self)
        future.result(60.0)
        server.fsm_delay = 0.0
        cluster.judge.check_stopped(server, group)

    def _give_work(self, server: SimServer, raft: Raft) -> list[ApplyFuture]:
        """Leave commands in the server's queue, in one go; they change nothing."""
        futures = []
        for number in range(_AT_WORK):
            command = encode_command(f"{server.id}.{number}", ("get",))
            with suppress(RaftError):
                futures.append(raft.apply(command, 0.0))
                self._cluster.judge.asked(server, server.group, command, futures[-1])
        return futures

    def _check_returned(self, server: SimServer, leader: Raft) -> None:
        cluster, last = self._cluster, leader.last_index
        patience = _PATIENCE + 4 * cluster.config.election_timeout
        deadline = cluster.now + patience
        while cluster.now < deadline:
            if server.raft is not None and server.raft.applied_index >= last:
                return
            cluster.run(0.01)
        if leader.last_index == last and leader.leader_id is not None:
            self._broken(
                "latency", f"{server.id} came back, and has not applied entry {last} after {patience:g} s"
            )
            cluster.run(0)
