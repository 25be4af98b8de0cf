"""A whole cluster in a simulation: for tests that read like stories.

    cluster = SimCluster(servers=5, seed=7, fsm=MyFSM)
    leader = cluster.leader()
    cluster.partition([leader])
    cluster.run(5)
    cluster.crash("n2", power_loss=True)
    cluster.check()

All seconds are virtual; the same seed gives the same run.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from random import Random
from time import perf_counter
from types import TracebackType
from typing import Any, BinaryIO

from ..config import Config
from ..configuration import Configuration
from ..errors import (
    ConfigError,
    CorruptStoreError,
    NotAppliedError,
    RaftError,
    TransportError,
)
from ..fsm import FSM, BatchingFSM
from ..log import Log
from ..raft import Raft, bootstrap_cluster
from ..sessions import Session
from ..state import RaftState, is_empty
from .arguments import (
    check_callable,
    check_cluster,
    check_command,
    check_count,
    check_probability,
    check_rate,
    check_seconds,
)
from .end_checks import EndChecks
from .error_log import ErrorLog
from .faults import Fault
from .invariants import Judge, Violation
from .linearizability import NotLinearizable, Operation, Undecided, check_linearizable
from .recorder import Recorder
from .restored import Restored
from .sim_clients import CommandClient, KvClient, Outcome, Patience, submit_all
from .sim_disk import SimDisk, SimStore
from .sim_kv import CommandRefused, KvFsm, KvModel
from .sim_network import SimNetwork, SimTransport
from .sim_policies import Policy
from .sim_runtime import Group, Scheduler, SimClock, SimRuntime, SimSignal, SimTask, SimulationError, one_cpu
from .sim_snapshots import SimSnapshotStore, SnapshotReader

_SLICE = 0.01  # virtual seconds between two looks at a condition
_CALM = 3.0  # virtual seconds in which clients go on after the faults have ended

FsmFactory = Callable[[], FSM]


class SimServer:
    """One server, through all its restarts.

    Attributes:
        raft: the present incarnation's handle, None while it is down or still opening.
        fsm: the present incarnation's state machine.
        group: the tasks of the present incarnation.
    """

    def __init__(self, id: str, disk: SimDisk, clock: SimClock) -> None:
        self.id = id
        self.address = f"{id}:7000"
        self.disk = disk
        self.clock = clock
        self.group = Group(f"{id}#0")
        self.group.dead = True
        self.incarnation = 0
        self.raft: Raft | None = None
        self.fsm: FSM | None = None
        self.boot_error: Exception | None = None
        self.is_frozen = False
        self.frozen_at = 0.0
        self.asks_first = False  # its disk was wiped: a start asks the others until it knows its past
        self.fsm_delay = 0.0
        self.fsm_error: BaseException | None = None
        self.callers: dict[SimSignal, None] = {}  # clients that wait for an answer of this incarnation

    @property
    def is_up(self) -> bool:
        """Whether its process runs (it may have stopped serving by itself)."""
        return not self.group.dead

    @property
    def is_serving(self) -> bool:
        """Whether it runs and has not stopped by itself."""
        return self.is_up and self.raft is not None and self.raft.state is not RaftState.SHUTDOWN

    @property
    def sessions(self) -> Mapping[str, Session]:
        """What it knows, as a leader, of those that it sends to, by id; nothing if it does not lead."""
        leadership = self.raft._node.context.leadership if self.raft is not None and self.is_up else None
        return {} if leadership is None else leadership.sessions

    def __repr__(self) -> str:
        state = self.raft.state if self.raft is not None and self.is_up else "down"
        return f"<SimServer {self.group.name} {state}>"


class SimCluster:
    """Servers that run the real library on a simulated runtime, network and disk.

    Attributes:
        servers: by id: "n1", "n2", ...
        history: what the clients of ``client`` asked and were answered.
        commands: the same of those with a ``draw_command``: the input is the command, the key None.
        restores: the snapshots from outside that have replaced the state of a ``KvFsm``, or may have.
        clients: those of ``client``, oldest first.
        strikes: (number of the fault, number of the strike) of every strike that happened.
        configuration: the members that the cluster was bootstrapped with.
        make_fsm: makes a state machine of the servers' kind.
        is_recovering: an operator is at work on the disks, so no server is started.
        askers: threads of faults that ask for things; ``check`` waits for their ends.
        refusal: what every state machine raises for a command, None = nothing.  Whoever sets it
            does so before the first command and for good: servers apply commands again.
    """

    def __init__(
        self,
        servers: int = 5,
        seed: int = 7,
        fsm: FsmFactory = KvFsm,
        config: Config | None = None,
        faults: Sequence[Fault] | None = None,
        *,
        policy: Policy | None = None,
        preempt_lines: float = 0.0,
        recorder: Recorder | None = None,
    ) -> None:
        """Start a cluster of ``servers`` voters.

        Args:
            seed: decides everything: the schedule, delays, timeouts, faults, and what clients do.
            fsm: makes a state machine; called for every start of every server.
            config: the settings of every server.
            faults: go on from now until ``stop_faults``; None = a calm network and perfect disks.
            policy: which thread runs next; None = at random.
            preempt_lines: the probability of a switch at every line of pyraft's code (slow).
            recorder: writes down all that happens.

        Raises:
            ConfigError: an argument is invalid.
        """
        check_cluster(servers, seed, fsm, config, faults, policy, preempt_lines)
        self.seed = seed
        self.scheduler = Scheduler(seed, policy, preempt_lines)
        self.judge = Judge(self)
        self._error_log = ErrorLog(self.scheduler, self.judge.logged_error)
        self._error_log.install()
        self.network = SimNetwork(self.scheduler, [self.judge])
        self.world = SimRuntime(self.scheduler)
        self.history: list[Operation] = []
        self.config = config or Config()
        self.real_seconds = 0.0
        self.make_fsm = fsm
        self.clients: list[KvClient] = []
        self._faults = list(faults or [])
        self.commands: list[Operation] = []
        self.restores: list[Restored] = []
        self.askers: list[SimTask] = []
        self._is_closed = False
        self._faults_go_on = True
        self.is_recovering = False
        self.strikes: list[tuple[int, int]] = []
        self.refusal: Callable[[bytes], CommandRefused | None] = lambda command: None
        self.servers: dict[str, SimServer] = {}
        for number in range(1, servers + 1):
            self._make_server(f"n{number}")
        self.configuration = Configuration.of_voters({s.id: s.address for s in self.servers.values()})
        self._recorder = recorder
        if recorder is not None:
            recorder.attach(self)
        with one_cpu():
            for server in self.servers.values():
                self._bootstrap(server)
                self._start(server)
        for number, fault in enumerate(self._faults):
            self._let_loose(number, fault)

    # -- time ------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.scheduler.time

    def run(self, seconds: float) -> None:
        """Let ``seconds`` pass.

        Raises:
            Violation: a property of Raft does not hold.
            SimulationError: a thread died, or a deadlock.
        """
        check_seconds("seconds", seconds)
        self._check_open()
        began = perf_counter()
        collects = gc.isenabled()
        gc.disable()  # when it runs depends on what ran before in this process
        try:
            with one_cpu():
                self.scheduler.sleep(seconds)
        except BaseException as failure:
            self._explain(failure)
            raise
        finally:
            self.real_seconds += perf_counter() - began
            if collects:
                gc.enable()

    def run_until(self, condition: Callable[[], Any], timeout: float = 30.0) -> None:
        """Run until ``condition()`` is true.

        Raises:
            TimeoutError: it did not come true within ``timeout``.
        """
        check_callable("condition", condition, "whether to go on")
        check_seconds("timeout", timeout)
        deadline = self.now + timeout
        while not condition():
            if self.now >= deadline:
                name = getattr(condition, "__qualname__", condition)
                raise TimeoutError(
                    f"seed {self.seed}: not within {timeout:g} virtual s: {name}\n{self.describe()}"
                )
            self.run(_SLICE)

    # -- looking ---------------------------------------------------------------------------------

    def current_leader(self) -> SimServer | None:
        """Who leads in the highest term, as far as published; None if nobody does."""
        leaders = [
            server
            for server in self.servers.values()
            if server.is_serving and server.raft is not None and server.raft.state is RaftState.LEADER
        ]
        return max(leaders, key=lambda s: s.raft.term if s.raft else 0, default=None)

    def leader(self, timeout: float = 60.0) -> SimServer:
        """Who leads; runs until somebody does.

        Raises:
            TimeoutError: nobody does within ``timeout``.
        """
        self.run_until(self.current_leader, timeout)
        leader = self.current_leader()
        assert leader is not None
        return leader

    def describe(self) -> str:
        """Every server in a line."""
        lines = [f"virtual time {self.now:.3f} s, step {self.scheduler.steps}"]
        for server in self.servers.values():
            raft = server.raft
            if raft is None or not server.is_up:
                lines.append(
                    f"  {server.id}: down, disk ends at {server.disk.last_index} {server.boot_error or ''}"
                )
                continue
            lines.append(
                f"  {server.id}: {raft.state} term={raft.term} leader={raft.leader_id} last={raft.last_index} "
                f"commit={raft.commit_index} applied={raft.applied_index}"
                f"{' frozen' if server.is_frozen else ''}{f' failure={raft.failure}' if raft.failure else ''}"
            )
        return "\n".join(lines)

    # -- doing -----------------------------------------------------------------------------------

    def partition(self, *groups: Iterable[SimServer | str] | SimServer | str) -> None:
        """Let only servers of one group reach each other; those named in none form one more."""
        listed = [[group] if isinstance(group, str | SimServer) else list(group) for group in groups]
        named = [self._server(one).id for group in listed for one in group]
        for id in named:
            if named.count(id) > 1:
                raise ConfigError(f"{id} is in two groups, or twice in one: put each server into one group")
        self.network.partition(*[[self._server(one).address for one in group] for group in listed])
        self.scheduler.note("partition", [[self._server(one).id for one in group] for group in listed])

    def block(self, src: SimServer | str, dst: SimServer | str) -> None:
        """Lose what ``src`` sends to ``dst``; the other way stays open."""
        self.network.block(self._server(src).address, self._server(dst).address)
        self.scheduler.note("block", self._server(src).id, self._server(dst).id)

    def heal(self) -> None:
        """End partitions, one-way blocks and slow links."""
        self._check_open()
        self.network.heal()
        self.scheduler.note("heal")

    def crash(self, server: SimServer | str, power_loss: bool = False) -> None:
        """Kill a server's process; with ``power_loss`` its machine (its disk keeps what was flushed).

        Nothing happens to a server that is down.
        """
        server = self._server(server)
        if not server.is_up:
            return
        self.scheduler.note("power loss" if power_loss else "crash", server.group.name)
        self.judge.crashing(server)
        self.thaw(server)
        transaction, cut = server.disk.in_flight, server.disk.counts["cut"]
        if power_loss:
            server.disk.lose_power()
        else:
            server.disk.crash()
        self.judge.scout.crashed(transaction, landed=server.disk.counts["cut"] == cut)
        self.scheduler.kill(server.group)
        if not power_loss:
            self.network.reset_connections(server.address)
        for caller in list(server.callers):
            caller.happen()
        server.callers.clear()
        server.raft = None

    def add_server(self, id: str | None = None) -> SimServer:
        """Start one more server, with an empty disk and no cluster: a leader's ``add_voter`` makes it a member.

        Args:
            id: "n<next number>" unless it is given.

        Raises:
            ConfigError: there is a server with that id.
        """
        self._check_open()
        if id is None:
            numbers = itertools.count(len(self.servers) + 1)
            id = next(f"n{number}" for number in numbers if f"n{number}" not in self.servers)
        if not id or ":" in id:
            raise ConfigError(f"id={id!r} is not a name without a colon: use for example 'n6'")
        if id in self.servers:
            raise ConfigError(f"there is a server {id} already: ids name one server each, for life")
        server = self._make_server(id)
        if self._recorder is not None:
            server.disk.watchers.append(self._recorder)
        self.scheduler.note("add server", id)
        self._start(server)
        return server

    def renew(self, server: SimServer | str) -> None:
        """Start a server that is no member any more on a new machine, with an empty disk.

        The caller makes sure that nobody counts on what it held.
        """
        server = self._server(server)
        self.crash(server, power_loss=True)
        self.scheduler.note("renew", server.id)
        server.disk.wipe()
        server.asks_first = False
        self.judge.renewed(server.id)
        self._start(server)

    def restart(self, server: SimServer | str) -> None:
        """Start a server again; one that runs is crashed first.

        Raises:
            StorageError: its disk cannot be used.
        """
        server = self._server(server)
        self.crash(server)
        self._start(server)
        if server.boot_error is not None:
            raise server.boot_error

    def stop(self, server: SimServer | str, timeout: float = 60.0) -> None:
        """Shut a server down in good order, while others may still use it; I12 is checked.

        Raises:
            TimeoutError: it does not end within ``timeout``.
        """
        check_seconds("timeout", timeout)
        server = self._server(server)
        raft, group = server.raft, server.group
        if raft is None or not server.is_up:
            return
        self.scheduler.note("stop", group.name)
        self.judge.stopping(server)
        over = SimSignal(self.world)
        server.callers[over] = None
        errors: list[RaftError] = []

        def work() -> None:
            try:
                raft.shutdown().result()
            except RaftError as error:
                errors.append(error)
            over.set()

        self.scheduler.spawn(f"stop-{server.id}", work, group)
        ended = over.wait(timeout)
        server.callers.pop(over, None)
        if not ended:
            raise TimeoutError(
                f"{server.id} is not down {timeout:g} virtual s after shutdown()\n{self.scheduler.stacks()}"
            )
        if not errors and not group.dead:
            self.scheduler.sleep(0.5)  # what waits for its futures goes on
            self.judge.check_stopped(server, group)

    def freeze(self, server: SimServer | str) -> None:
        """Let none of a server's threads run: a stopped process, or a long pause of its machine."""
        server = self._server(server)
        server.is_frozen, server.frozen_at = True, self.now
        self.scheduler.note("freeze", server.id)
        self.scheduler.hold(("freeze", server.id), lambda task: task.group is server.group)

    def thaw(self, server: SimServer | str) -> None:
        """Let a frozen server go on where it stood."""
        server = self._server(server)
        if server.is_frozen:
            server.is_frozen = False
            self.judge.scout.thawed(self.judge.seen(server.id), self.now - server.frozen_at)
            self.scheduler.note("thaw", server.id)
            self.scheduler.unhold(("freeze", server.id))

    def slow_disk(self, server: SimServer | str, seconds: float, lasting: float = float("inf")) -> None:
        """Let every commit of a server take ``seconds`` more; 0 = as before."""
        check_seconds("seconds", seconds)
        check_seconds("lasting", lasting, most=inf)
        disk = self._server(server).disk
        disk.slow_by = seconds
        disk.slow_until = self.now + lasting

    def wipe(self, server: SimServer | str) -> None:
        """Replace a server's disk by an empty one; it crashes.  Its starts ask the others first, until it has."""
        server = self._server(server)
        self.crash(server, power_loss=True)
        self.scheduler.note("wipe", server.id)
        server.disk.wipe()
        server.asks_first = True

    def client(
        self,
        rate: float = 20.0,
        keys: int = 10,
        burst: int = 1,
        left_out: Container[int] = (),
        draw_command: Callable[[Random], bytes] | None = None,
        haste: float = 0.0,
    ) -> None:
        """One more client of a ``KvFsm``: it asks ``rate`` times a second until ``stop_clients``.

        Args:
            burst: each time it submits up to that many commands before it waits for an answer.
            left_out: numbers of operations, from 1, that it does not send.
            draw_command: makes its commands, for a state machine that is no ``KvFsm``; what it
                was answered is in ``commands``.
            haste: the probability that it does not wait as long as an answer, or room in the queue, may take.
        """
        check_rate(rate)
        check_count("keys", keys, 10)
        check_count("burst", burst, 100)
        check_probability("haste", haste)
        if not isinstance(left_out, Container):
            raise ConfigError(
                f"left_out={left_out!r} is not a set of numbers of operations: use for example {{1, 2}}"
            )
        if draw_command is not None:
            check_callable("draw_command", draw_command, "a command, as bytes, drawn from a random.Random")
        elif not all(isinstance(server.fsm, KvFsm | None) for server in self.servers.values()):
            raise ConfigError(
                "a client of its own accord sends commands of a KvFsm, and these servers have another state "
                "machine: pass draw_command=, a function that makes a command from a random.Random"
            )
        self._check_open()
        name = f"c{len(self.clients) + 1}"
        if draw_command is None:
            self.clients.append(KvClient(self, name, rate, keys, burst, left_out, haste))
        else:
            self.clients.append(CommandClient(self, name, rate, burst, left_out, haste, draw_command))

    def apply(self, command: bytes, timeout: float = 30.0) -> Any:
        """Have ``command`` applied by whoever leads, trying again while that is safe; its result.

        Raises:
            TimeoutError: not within ``timeout``.
            RaftError: the outcome is unknown.
        """
        check_command(command)
        check_seconds("timeout", timeout)
        self._check_open()
        deadline = self.now + timeout
        while self.now < deadline:
            leader = self.leader(deadline - self.now)
            outcome = self.submit(leader, command, deadline - self.now)
            if not isinstance(outcome.error, NotAppliedError | TransportError):
                if outcome.error is not None:
                    raise outcome.error
                return outcome.value
            self.run(_SLICE)
        raise TimeoutError(f"no leader took the command within {timeout:g} s\n{self.describe()}")

    def submit(self, server: SimServer | str, command: bytes, timeout: float) -> Outcome:
        """Call ``apply`` on a thread of ``server``'s process, as its own program would; wait for the end."""
        check_command(command)
        check_seconds("timeout", timeout)
        return submit_all(self, self._server(server), [command], Patience(timeout))[0]

    # -- the end ---------------------------------------------------------------------------------

    def stop_faults(self) -> None:
        """Mend everything: the network, the disks, clocks; let every server run that can."""
        self._faults_go_on = False
        for number, fault in enumerate(self._faults):
            fault.relent(self, self.scheduler.random(f"mend:{number}"))
        self.heal()
        self.network.conditions = type(self.network.conditions)()
        for server in self.servers.values():
            self.thaw(server)
            server.disk.conditions = type(server.disk.conditions)()
            server.disk.is_full = False
            server.disk.slow_by = 0.0
            server.fsm_delay, server.fsm_error = 0.0, None
        self.revive_all()

    def revive(self, server: SimServer | str) -> None:
        """Do what an operator does with a server that is down: restart it, replacing a damaged disk."""
        server = self._server(server)
        if self.is_recovering:
            return
        failure = server.raft.failure if server.raft is not None else server.boot_error
        if isinstance(failure, CorruptStoreError):
            self.wipe(server)
        else:
            self.crash(server)
        self._start(server)
        if server.boot_error is not None:
            self.wipe(server)
            self._start(server)

    def revive_all(self) -> None:
        """Revive every server that is down or has stopped by itself, but those that were removed and left."""
        if self.is_recovering:
            return
        for server in self.servers.values():
            if not self._faults_go_on:
                self._move_back(server)
            if not server.is_serving and not server.is_frozen and not self.judge.roster.has_left(server):
                self.revive(server)

    def _move_back(self, server: SimServer) -> None:
        """Let a server have the address at which the others look for it."""
        address = self.judge.roster.sought_at(server.id, server.address)
        if address != server.address:
            self.crash(server)
            server.address = address
            self.scheduler.note("move", server.id, server.address)

    def stop_clients(self, timeout: float = 40.0) -> None:
        """Let the clients finish what they are doing."""
        check_seconds("timeout", timeout)
        for client in self.clients:
            client.stop()
        self.run_until(lambda: all(client.task.ended for client in self.clients), timeout)

    def check(self, liveness: float = 60.0) -> None:
        """End the faults and judge everything: progress, equal state, histories, a clean shutdown.

        Args:
            liveness: seconds within which the cluster must be whole again.

        Raises:
            Violation: something does not hold; the text says what and how to see it again.
        """
        check_seconds("liveness", liveness)
        self._check_open()
        end = EndChecks(self)
        try:
            self.stop_faults()
            end.check_liveness(liveness)
            if self.clients:
                self.run(_CALM)
            self.stop_clients()
            self.run_until(lambda: all(task.ended for task in self.askers), liveness)
            end.check_equal_states(liveness)
            end.check_reads()
            self.judge.timekeeper.check_latency()
            self.judge.futures.check_all()
            self.check_history()
            end.check_shutdown()
        except BaseException as failure:
            self._explain(failure)
            raise

    def check_history(self) -> None:
        """Check what the clients saw for linearizability.

        Where too many outcomes of a key are unknown, as much of its beginning as can be decided.

        Raises:
            Violation: no order explains it.
        """
        by_key: dict[Hashable, list[Operation]] = {}
        for operation in self.history:
            by_key.setdefault(operation.key, []).append(operation)
        for key, operations in by_key.items():
            found = _check_beginning([*operations, *(one.operation(str(key)) for one in self.restores)])
            if found is not None:
                raise Violation("linearizability", str(found))

    def close(self) -> None:
        """End every thread of the simulation; then nothing of it can be used.  Idempotent."""
        self._is_closed = True
        self._error_log.remove()
        with one_cpu():
            for server in self.servers.values():
                self.scheduler.unhold(("freeze", server.id))
                self.scheduler.kill(server.group)
            self.scheduler.kill(self.scheduler.world)
        gc.collect()

    def __enter__(self) -> SimCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------

    def _server(self, server: SimServer | str) -> SimServer:
        self._check_open()
        if isinstance(server, SimServer) and self.servers.get(server.id) is server:
            return server
        found = self.servers.get(server) if isinstance(server, str) else None
        if found is None:
            raise ConfigError(f"there is no server {server!r}: there are {', '.join(self.servers)}")
        return found

    def _check_open(self) -> None:
        if self._is_closed:
            raise SimulationError("the cluster was closed: make another one")

    def _make_server(self, id: str) -> SimServer:
        disk = SimDisk(self.scheduler, id, [self.judge])
        offset = self.scheduler.random(f"clock:{id}").random() * 1000
        server = SimServer(id, disk, SimClock(self.scheduler, offset))
        self.servers = {**self.servers, id: server}  # whoever goes through the old one is not disturbed
        return server

    def _bootstrap(self, server: SimServer) -> None:
        runtime = SimRuntime(self.scheduler, Group(f"{server.id}-bootstrap"), server.clock)
        store = SimStore(server.disk, runtime)
        transport = SimTransport(self.network, runtime, server.address)
        config = replace(self.config, local_id=server.id)
        bootstrap_cluster(
            config, store, store, SimSnapshotStore(server.disk, runtime), transport, self.configuration
        )

    def _start(self, server: SimServer) -> None:
        """Start a new incarnation on a thread of its own process."""
        server.incarnation += 1
        server.group = group = Group(f"{server.id}#{server.incarnation}")
        server.raft, server.boot_error = None, None
        self.scheduler.note("start", group.name)
        boot = self.scheduler.spawn(f"boot-{server.id}", partial(self._boot, server, group), group)
        boot.join()

    def _boot(self, server: SimServer, group: Group) -> None:
        runtime = SimRuntime(self.scheduler, group, server.clock)
        fsm = self.make_fsm()
        self.scheduler.guard_modules(kind.__module__ for kind in type(fsm).__mro__)
        self._watch_fsm(server, fsm, runtime)
        self.judge.starting(server)
        config = replace(self.config, local_id=server.id)
        try:
            store = SimStore(server.disk, runtime)
            transport = SimTransport(self.network, runtime, server.address)
            raft = Raft.__new__(Raft)
            snapshots = SimSnapshotStore(server.disk, runtime)
            arrives = server.asks_first and is_empty(store, store, snapshots)
            arrival = self.configuration if arrives else None
            raft._set_up(config, fsm, store, store, snapshots, transport, runtime, arrival)
        except RaftError as error:
            server.boot_error = error
            return
        server.fsm, server.raft = fsm, raft
        self.judge.watch(server, group, raft)
        raft.start()

    def _watch_fsm(self, server: SimServer, fsm: FSM, runtime: SimRuntime) -> None:
        """Let the judge and the faults see the user's state machine; its class stays as it is."""
        own_apply = fsm.apply

        def before(log: Log) -> None:
            runtime.enter()
            self.judge.applying(server, log)
            if server.fsm_delay:
                runtime.sleep(server.fsm_delay)
            if server.fsm_error is not None:
                raise server.fsm_error

        def apply(log: Log) -> Any:
            before(log)
            refused, result = self.refusal(log.data), None
            if refused is None or refused.has_applied:
                result = own_apply(log)
            self.judge.applied(server, log, result)
            runtime.enter()
            if refused is not None:
                raise refused
            return result

        own_restore = fsm.restore

        def restore(source: BinaryIO) -> None:
            runtime.enter()
            own_restore(source)
            if isinstance(source, SnapshotReader):
                self.judge.restored(server, source.meta)
            runtime.enter()

        fsm.restore = restore  # type: ignore[method-assign]
        if isinstance(fsm, BatchingFSM):
            own_apply_batch = fsm.apply_batch

            def apply_batch(logs: Sequence[Log]) -> Sequence[Any]:
                before(logs[0])
                refused = [self.refusal(log.data) for log in logs]
                kept = [log for log, no in zip(logs, refused, strict=True) if no is None or no.has_applied]
                results = own_apply_batch(kept) if kept else ()
                if len(results) != len(kept):
                    return results  # the library's to complain about
                own = {log.index: answer for log, answer in zip(kept, results, strict=True)}
                answers = [no or own[log.index] for log, no in zip(logs, refused, strict=True)]
                for log, answer in zip(logs, answers, strict=True):
                    self.judge.applied(server, log, answer)
                runtime.enter()
                return answers

            fsm.apply_batch = apply_batch  # type: ignore[method-assign]
        else:
            fsm.apply = apply  # type: ignore[method-assign]

    def _let_loose(self, number: int, fault: Fault) -> None:
        """Let a fault strike and relent on a thread of its own.

        Its strikes keep their instants and what they draw whichever of them are left out.
        """
        occurrence = sum(1 for other in self._faults[:number] if other.name == fault.name)
        stream = f"fault:{fault.name}:{occurrence}"

        def run() -> None:
            fault.begin(self, self.scheduler.random(stream))
            due = self.now
            for strike in itertools.count():
                rng = self.scheduler.random(f"{stream}:{strike}")
                due += fault.peace(rng)
                late = due < self.now  # the strike before took longer than it was meant to
                self.scheduler.sleep(due - self.now)
                if not self._faults_go_on:
                    return
                happens = not late and (fault.only is None or strike in fault.only)
                lasting = fault.trouble(rng)
                if happens:
                    self.scheduler.note("fault", fault.name, strike)
                    self.strikes.append((number, strike))
                    fault.strike(self, rng)
                due += lasting
                self.scheduler.sleep(due - self.now)
                if not happens:
                    continue
                if self._faults_go_on:
                    fault.relent(self, rng)

        self.scheduler.spawn(f"fault-{fault.name}", run)

    def _explain(self, failure: BaseException) -> None:
        """Add to a failure what one needs to understand it."""
        if isinstance(failure, Violation | SimulationError | TimeoutError) and not getattr(
            failure, "__notes__", None
        ):
            latest = [
                f"  {event[0]:.6f} {' '.join(map(str, event[1:]))}"
                for event in list(self.scheduler.events)[-60:]
            ]
            failure.add_note(
                f"seed {self.seed}, policy {self.scheduler.policy!r}\n{self.describe()}\nlatest events:\n"
                + "\n".join(latest)
            )


def _check_beginning(operations: list[Operation]) -> NotLinearizable | None:
    try:
        return check_linearizable(operations, KvModel(), budget=1_000_000)
    except Undecided:
        # What had begun by an instant is a history, too; what had not ended may end any time.
        until = sorted(operation.call for operation in operations)[len(operations) // 2]
        begun = [operation for operation in operations if operation.call < until]
        ended = [operation for operation in begun if operation.returned <= until]
        writes = [op for op in begun if op.returned > until and op.input[0] != "get"]
        unknown = [replace(op, output=None, returned=inf) for op in writes]
        return _check_beginning([*ended, *unknown])
