"""Whole clusters for the tests of this folder: servers that can be cut off, wiped, stopped and restarted.

Everything waits on conditions; nothing sleeps to let things settle.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyraft import (
    FSM,
    ApplyFuture,
    Config,
    ConfigError,
    Configuration,
    NotAppliedError,
    NotLeaderError,
    OutcomeUnknownError,
    Raft,
    RaftFuture,
    RaftShutdownError,
    RaftState,
    bootstrap_cluster,
)
from pyraft.logstore import InmemStore
from pyraft.snapshots import DiscardSnapshotStore, SnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport, Transport

PATIENCE = 40.0
"""Seconds after which something that should happen counts as not happening.  Nearly never used up."""


def config(timeout: float = 0.3, **changes: object) -> Config:
    """Settings for tests; ``timeout`` is how soon an election begins.

    0.3 lets a leader stay leader on a busy machine of two cores; less is for single servers.
    """
    values: dict[str, object] = {
        "heartbeat_timeout": timeout,
        "election_timeout": timeout,
        "leader_lease_timeout": timeout,
        "commit_timeout": min(0.02, timeout),
        **changes,
    }
    return Config(**values)  # type: ignore[arg-type]


ALONE = 0.05
"""A timeout for clusters of one server, which need no heartbeats."""


class Recorder(FSM):
    """Remembers the commands in the order in which they were applied."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, log):
        self.applied.append(log.data)
        return len(self.applied)

    def snapshot(self):
        return b"\n".join(self.applied)

    def restore(self, source):
        state = source.read()
        self.applied = state.split(b"\n") if state else []


class Gated(Recorder):
    """An FSM that stays in apply() until the gate is opened; ``inside`` says that it got there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.inside = threading.Event()

    def apply(self, log):
        self.inside.set()
        self.gate.wait()
        return super().apply(log)


def eventually(holds: Callable[[], object], what: str, timeout: float = PATIENCE) -> object:
    """Wait until ``holds()`` is true and return what it returned; AssertionError naming ``what``."""
    deadline = time.monotonic() + timeout
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}\n{_stacks()}")
        time.sleep(0.003)


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"--- {names.get(ident)}\n{''.join(traceback.format_stack(frame)[-4:])}"
        for ident, frame in sys._current_frames().items()
    )


def pyraft_threads() -> set[threading.Thread]:
    """Those of servers; the simulator keeps its workers for the next simulation."""
    return {
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("pyraft-") and not thread.name.startswith("pyraft-sim-")
    }


@contextmanager
def leaves_no_thread():
    """What is in the block ends every thread that it starts.

    gRPC's own threads end a moment after its objects; pyraft's must be gone at once, but for
    the instant in which a thread that was joined is still listed.
    """
    before = set(threading.enumerate())
    yield
    left = pyraft_threads() - before
    assert not left, f"threads left behind: {sorted(thread.name for thread in left)}\n{_stacks()}"
    eventually(lambda: not set(threading.enumerate()) - before, "the threads of libraries have ended")


class Eager:
    """Random numbers for a server that stands for its first election soon, to save the tests' time."""

    def __init__(self, rng: random.Random, timeout: float) -> None:
        self._rng = rng
        self._first = min(0.05 / timeout - 1, 0.0)  # patience is timeout * (1 + this)

    def random(self) -> float:
        first, self._first = self._first, 0.0
        return first or self._rng.random()


@dataclass
class Member:
    """One server of a cluster: while it runs, and what is kept while it does not."""

    id: str
    address: str
    raft: Raft | None = None
    fsm: FSM | None = None
    store: InmemStore | None = None
    """Only for servers that are made of parts; ``Raft.open`` makes its own."""
    snapshots: SnapshotStore | None = None
    joins: bool = False
    """It is added to a running cluster, and not bootstrapped."""

    @property
    def runs(self) -> bool:
        return self.raft is not None and self.raft.state is not RaftState.SHUTDOWN


OVER_TCP = os.environ.get("CLUSTERS_OVER") == "tcp"
"""Whether clusters that do not say which network they are on are on TCP (make test-tcp)."""


class Cluster:
    """Servers on one InmemNetwork, on gRPC or on TCP, with stores in memory or in directories.

    Commands are numbered; a number is never sent again once its outcome is unknown, so
    ``check_nothing_lost`` can insist on each acknowledged one being there exactly once.
    """

    def __init__(
        self,
        ids: Iterable[str] = ("n1", "n2", "n3"),
        *,
        root: Path | None = None,
        settings: Config | None = None,
        fsm: Callable[[], FSM] = Recorder,
        make_store: Callable[[str], object] | None = None,
        make_snapshots: Callable[[], SnapshotStore] = DiscardSnapshotStore,
        over_grpc: bool = False,
        over_tcp: bool = False,
        arrives: bool = False,
    ) -> None:
        """Start nothing.

        Args:
            root: servers are opened by ``Raft.open(bootstrap=...)`` in directories below it.
                None: they are made of parts, with stores in memory or from ``make_store``,
                and bootstrapped on each.
            arrives: without a root: do as ``Raft.open`` does with an empty directory.
        """
        self._network = InmemNetwork()
        self.settings = config() if settings is None else settings
        self.acknowledged: list[bytes] = []
        self._root = root
        self._make_fsm = fsm
        self._make_store = make_store or (lambda id: InmemStore())
        self._make_snapshots = make_snapshots
        over_tcp = over_tcp or OVER_TCP
        self._connect = _grpc_transport if over_grpc else _tcp_transport if over_tcp else None
        self._arrives = arrives
        self._transports: dict[str, Transport] = {}
        self._numbers = itertools.count(1)
        self.members: dict[str, Member] = {}
        for id in ids:
            self._enrol(id)

    def _enrol(self, id: str, joins: bool = False) -> Member:
        address = f"{id}.test:1"
        if self._connect is not None:
            # Any free port; the transport keeps it until its server is started.
            self._transports[id] = self._connect("127.0.0.1:0")
            address = self._transports[id].local_address
        self.members[id] = Member(id, address, joins=joins)
        return self.members[id]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    @property
    def first_members(self) -> dict[str, str]:
        return {member.id: member.address for member in self.members.values() if not member.joins}

    @property
    def addresses(self) -> dict[str, str]:
        return {member.id: member.address for member in self.members.values()}

    @property
    def network(self) -> InmemNetwork:
        """The one in memory, whose wires can be cut; real ones are cut in tests/interop/links.py and in the demo."""
        if self._connect is not None:
            pytest.skip("it cuts the wires of the network in memory, and this run is over TCP")
        return self._network

    def directory(self, id: str) -> Path:
        assert self._root is not None
        return self._root / id

    # -- coming and going ----------------------------------------------------------------------

    def start(self, *ids: str) -> Cluster:
        """Start the servers ``ids``, or all that do not run."""
        first_of_all = not any(member.runs for member in self.members.values())
        starting = ids or [member.id for member in self.members.values() if not member.runs]
        for id in starting:
            is_last = id == starting[-1]
            self._start(self.members[id], is_eager=first_of_all and is_last and len(starting) > 1)
        return self

    def join(self, id: str) -> Member:
        """Start one more server, which knows no cluster yet."""
        member = self._enrol(id, joins=True)
        self._start(member, is_eager=False)
        return member

    def transport(self, id: str) -> Transport:
        """A transport at the address of ``id``."""
        member = self.members[id]
        if id in self._transports:
            return self._transports.pop(id)
        if self._connect is not None:
            return self._connect(member.address)
        return InmemTransport(self._network, member.address)

    def _start(self, member: Member, is_eager: bool) -> None:
        member.fsm = self._make_fsm()
        transport = self.transport(member.id)
        if self._root is not None:
            member.raft = Raft.open(
                str(self.directory(member.id)),
                id=member.id,
                fsm=member.fsm,
                bootstrap=None if member.joins else self.first_members,
                config=self.settings,
                transport=transport,
            )
        else:
            member.raft = self._from_parts(member, transport)
        if is_eager:
            context = member.raft._node.context
            context.rng = Eager(context.rng, self.settings.heartbeat_timeout)
        member.raft.start()

    def _from_parts(self, member: Member, transport: Transport) -> Raft:
        import dataclasses

        settings = dataclasses.replace(self.settings, local_id=member.id)
        if member.snapshots is None:
            member.snapshots = self._make_snapshots()
        snapshots = member.snapshots
        if member.store is None:
            member.store = self._make_store(member.id)
            store = member.store
            if store.last_index() == 0 and not self._arrives and not member.joins:
                first = Configuration.of_voters(self.first_members)
                bootstrap_cluster(settings, store, store, snapshots, transport, first)
        store = member.store
        if self._arrives and store.last_index() == 0:
            raft = Raft.__new__(Raft)
            first = Configuration.of_voters(self.addresses)
            raft._set_up(settings, member.fsm, store, store, snapshots, transport, None, first)
            return raft
        return Raft(settings, member.fsm, store, store, snapshots, transport)

    def stop(self, *ids: str) -> None:
        """Shut the servers ``ids`` down."""
        futures = [self.members[id].raft.shutdown() for id in ids]
        for future in futures:
            future.result(timeout=PATIENCE)

    def wipe(self, id: str) -> None:
        """Lose the directory of a stopped server."""
        shutil.rmtree(self.directory(id))

    def close_store(self, id: str) -> None:
        """Forget the store of a stopped server, so that the next start opens it anew."""
        member = self.members[id]
        if member.store is not None:
            member.store.close()
            member.store = None

    def shutdown(self) -> None:
        """End every server, whatever state it is in."""
        for member in self.members.values():
            if isinstance(member.fsm, Gated):
                member.fsm.gate.set()
        futures = [member.raft.shutdown() for member in self.members.values() if member.raft is not None]
        for transport in self._transports.values():
            transport.close()
        for future in futures:
            future.exception(timeout=PATIENCE)
        for id in self.members:
            self.close_store(id)

    # -- who is what -----------------------------------------------------------------------------

    def leader(self, among: Iterable[str] | None = None) -> Member:
        """Wait for a leader (of the latest term that has one) and return it."""
        ids = list(self.members if among is None else among)

        def leading() -> Member | None:
            leaders = [
                member
                for member in (self.members[id] for id in ids)
                if member.raft is not None and member.raft.state is RaftState.LEADER
            ]
            return max(leaders, key=lambda member: member.raft.term, default=None)

        found = eventually(leading, f"one of {', '.join(ids)} leads: {self.describe()}")
        assert isinstance(found, Member)
        return found

    def followers(self, of: Member) -> list[Member]:
        return [member for member in self.members.values() if member is not of]

    def cut_off(self, *ids: str) -> None:
        """Let the servers ``ids`` reach nobody at all."""
        self.network.partition(*([self.members[id].address] for id in ids))

    def cut_off_together(self, *ids: str) -> None:
        """Let the servers ``ids`` reach each other and nobody else."""
        self.network.partition([self.members[id].address for id in ids])

    def lose_entries(self) -> None:
        """Lose every request that carries entries: leaders stay leaders, and commit nothing."""
        self.network.drop(when=lambda message: bool(getattr(message, "entries", ())))

    def describe(self) -> str:
        return ", ".join(
            f"{member.id}: {'not started' if member.raft is None else member.raft!r}"
            for member in self.members.values()
        )

    # -- writing and checking ----------------------------------------------------------------------

    def write(self, count: int = 1, among: Iterable[str] | None = None, size: int = 0) -> None:
        """Have ``count`` commands of at least ``size`` bytes acknowledged, by whoever leads, one by one."""
        deadline = time.monotonic() + PATIENCE
        done = 0
        command = (b"command %d " % next(self._numbers)).ljust(size, b".")
        while done < count:
            assert time.monotonic() < deadline, f"{count} writes were not taken: {self.describe()}"
            try:
                self.leader(among).raft.apply(command, timeout=PATIENCE).result(timeout=PATIENCE)
            except NotAppliedError:
                continue
            except (OutcomeUnknownError, RaftShutdownError):
                pass  # it may be applied later: its number is spent
            else:
                self.acknowledged.append(command)
                done += 1
            command = (b"command %d " % next(self._numbers)).ljust(size, b".")

    def change(self, ask: Callable[[Raft], RaftFuture[object]]) -> None:
        """Have the leader make the change ``ask(raft)``, again if leadership moves meanwhile."""
        deadline = time.monotonic() + PATIENCE
        may_be_made = False
        while True:
            try:
                ask(self.leader().raft).result(PATIENCE)
                return
            except (NotLeaderError, OutcomeUnknownError) as error:
                assert time.monotonic() < deadline, f"the change was not made: {self.describe()}"
                may_be_made |= isinstance(error, OutcomeUnknownError)
            except ConfigError:
                if not may_be_made:
                    raise
                return  # it was made, so it cannot be made again

    def push(self, member: Member, until: Callable[[], object], size: int = 20_000) -> list[ApplyFuture]:
        """Send ``member`` large commands until something is true; return the futures, all done.

        Those that it acknowledges are noted as ``write`` does.
        """
        commands, futures = [], []
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline, f"it never came to that: {self.describe()}"
            commands.append((b"command %d " % next(self._numbers)).ljust(size, b"."))
            futures.append(member.raft.apply(commands[-1], timeout=0.1))
            if len(futures) % 4 == 0:
                wait(futures[-1:], timeout=PATIENCE)
        wait(futures, timeout=PATIENCE)
        for command, future in zip(commands, futures, strict=True):
            if future.exception(timeout=0) is None:
                self.acknowledged.append(command)
        return futures

    def check_nothing_lost(self, *ids: str) -> None:
        """Every acknowledged command is on every server (or ``ids``), once, in the same order."""
        # A write through the present leader puts a bound on what is still on its way.
        self.write(among=ids or None)
        members = [self.members[id] for id in ids or self.members]
        for member in members:
            eventually(
                lambda member=member: self.acknowledged[-1] in member.fsm.applied,
                f"{member.id} has all that was acknowledged: {self.describe()}",
            )
        longest = max((member.fsm.applied for member in members), key=len)
        for member in members:
            mine = list(member.fsm.applied)
            assert mine == longest[: len(mine)], f"{member.id} applied another order"
            assert len(set(mine)) == len(mine), f"{member.id} applied a command twice"
        known = set(self.acknowledged)
        assert [command for command in longest if command in known] == self.acknowledged


def _grpc_transport(bind: str) -> Transport:
    from pyraft.transport import GrpcTransport

    return GrpcTransport(bind)


def _tcp_transport(bind: str) -> Transport:
    from pyraft.transport import TcpTransport

    return TcpTransport(bind)


def alone(fsm: FSM | None = None, **changes: object) -> Raft:
    """A started server that is a cluster by itself, in memory, and leads."""
    changes.setdefault("timeout", ALONE)
    cluster = Cluster(["n1"], settings=config(**changes), fsm=lambda: fsm or Recorder())
    raft = cluster.start().members["n1"].raft
    cluster.leader()
    return raft
