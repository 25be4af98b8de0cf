"""Servers for tests: one without threads for its handlers, and a running one among scripted peers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager

from pyraft import FSM, Config, Raft
from pyraft.configuration import Configuration, Server
from pyraft.context import NodeContext
from pyraft.events import ProposalsWaiting
from pyraft.fsm_runner import FsmRunner
from pyraft.log import Log
from pyraft.logstore import InmemStore
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
    TimeoutNowRequest,
)
from pyraft.notifier import Notifier
from pyraft.proposals import ProposalQueue
from pyraft.raft import bootstrap_cluster
from pyraft.rules.election import Ballot
from pyraft.rules.membership import Configurations
from pyraft.runtime import NotifyChannel, ThreadRuntime
from pyraft.snapshots import DiscardSnapshotStore, SnapshotStore
from pyraft.state import NodeState, encode_ballot
from pyraft.transport import InmemNetwork, InmemTransport
from pyraft.transport.base import IncomingRpc
from tests.logs import stored

PATIENCE = 30.0
"""Seconds after which a condition that should hold by now counts as failed."""


def fail_here(futures, make_error):
    """What a notify thread does, on this one."""
    for future in futures:
        future.try_set_exception(make_error())


def eventually(holds: Callable[[], object], what: str = "") -> None:
    """Wait until ``holds()``; fail after PATIENCE."""
    give_up_at = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up_at, f"never came true: {what or holds}"
        time.sleep(0.001)


class ClockRuntime(ThreadRuntime):
    """The real thing, but time passes only when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def random(self, stream: str) -> random.Random:
        return random.Random(stream)


class RecordingFSM(FSM):
    """Remembers what it was given; returns the command in capitals."""

    def __init__(self) -> None:
        self.applied: list[Log] = []

    def apply(self, log: Log) -> object:
        self.applied.append(log)
        return log.data.upper()

    def snapshot(self) -> bytes:
        return b""

    def restore(self, source: object) -> None:
        self.applied = []


def voters(*names: str) -> Configuration:
    """A configuration in which each of ``names`` votes; addresses are the names."""
    return Configuration.of_voters({name: name for name in names})


S1_TO_S3 = voters("s1", "s2", "s3")
S1_TO_S5 = voters("s1", "s2", "s3", "s4", "s5")


class FailingStore(InmemStore):
    """Notes every write in order; fails on request, before anything is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.error: Exception | None = None

    def _note(self, what: str) -> None:
        if self.error is not None:
            raise self.error
        self.writes.append(what)

    def set(self, key: bytes, value: bytes) -> None:
        self._note("ballot")
        super().set(key, value)

    def store_logs(self, logs: Sequence[Log]) -> None:
        self._note("entries")
        super().store_logs(logs)

    def replace_suffix(self, logs: Sequence[Log]) -> None:
        self._note("entries")
        super().replace_suffix(logs)


class StallingStore(InmemStore):
    """Its writes wait while ``open`` is cleared, and then fail with ``error`` if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.stalled = threading.Event()
        self.error: Exception | None = None

    def store_logs(self, logs: Sequence[Log]) -> None:
        if not self.open.is_set():
            self.stalled.set()
            assert self.open.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        super().store_logs(logs)


def server(
    drawn: str = "",
    *,
    term: int = 0,
    voted_for: str | None = None,
    id: str = "s1",
    configuration: Configuration = S1_TO_S3,
    store: InmemStore | None = None,
) -> NodeContext:
    """One server's parts with the log ``drawn`` and no thread running.

    The configuration is put in force beside the log, so that logs can be drawn as in the
    figures, where index 1 holds a command.
    """
    if store is None:
        store = stored(drawn)
    if term or voted_for:
        store.set(b"Ballot", encode_ballot(Ballot(term, voted_for)))
    runtime = ClockRuntime()
    state = NodeState(id, store, store)
    state.configurations = Configurations(configuration, 0, configuration, 0)
    inbox = runtime.inbox("main")
    node = NodeContext(
        config=Config(local_id=id),
        runtime=runtime,
        transport=InmemTransport(InmemNetwork(runtime), id),
        state=state,
        inbox=inbox,
        proposals=ProposalQueue(runtime, NotifyChannel(inbox, ProposalsWaiting()), 100, 10_000),
        fsm=FsmRunner(runtime, id, RecordingFSM(), state.log, lambda: None, fail_here),
        notifier=Notifier(runtime, id),
        spawn=lambda name, run: runtime.spawn(name, run),
    )
    return node


def restarted(node: NodeContext, store: InmemStore) -> NodeContext:
    """The server of ``node`` after a crash: only what its store holds is left."""
    return server(id=node.id, configuration=node.state.configuration, store=store)


def append_request(
    term: int,
    prev: tuple[int, int] = (0, 0),
    logs: Sequence[Log] = (),
    commit: int = 0,
    leader: str = "s2",
) -> AppendEntriesRequest:
    """``prev`` is (index, term), as Figure 2 names them."""
    return AppendEntriesRequest(RpcHeader(leader, leader), term, prev[0], prev[1], logs, commit)


def vote_request(term: int, last: tuple[int, int], candidate: str = "s2", transfer: bool = False):
    """``last`` is (index, term) of the candidate's last entry."""
    return RequestVoteRequest(RpcHeader(candidate, candidate), term, last[0], last[1], transfer)


def pre_vote_request(term: int, last: tuple[int, int], candidate: str = "s2"):
    return RequestPreVoteRequest(RpcHeader(candidate, candidate), term, last[0], last[1])


class ScriptedPeer:
    """Another server as the one under test sees it: grants votes and takes entries unless told otherwise.

    Attributes:
        requests: everything it received, in order.
        matched: index of the last entry that it took.
        mute: it answers nothing at all.
        holds_appends: it keeps requests with entries unanswered, in ``held``.
        term: of its answers; None = that of the request.
    """

    def __init__(self, network: InmemNetwork, id: str) -> None:
        self.id = id
        self.requests: list[object] = []
        self.matched = 0
        self.mute = False
        self.votes = True
        self.holds_appends = False
        self.held: list[IncomingRpc] = []
        self.term: int | None = None
        self._header = RpcHeader(id, id)
        self._lock = threading.Lock()
        self.transport = InmemTransport(network, id)
        self.transport.serve(self)

    def receive(self, rpc: IncomingRpc) -> None:
        request = rpc.request
        with self._lock:
            self.requests.append(request)
            if self.mute:
                return
            if self.holds_appends and isinstance(request, AppendEntriesRequest) and request.entries:
                self.held.append(rpc)
                return
        self.answer(rpc)

    def answer(self, rpc: IncomingRpc) -> None:
        request = rpc.request
        term = self.term if self.term is not None else request.term
        if isinstance(request, AppendEntriesRequest):
            success = term == request.term
            if success and request.entries:
                self.matched = request.entries[-1].index
            rpc.respond(AppendEntriesResponse(self._header, term, self.matched, success))
        elif isinstance(request, RequestVoteRequest):
            rpc.respond(RequestVoteResponse(self._header, term, self.votes and term == request.term))
        elif isinstance(request, RequestPreVoteRequest):
            rpc.respond(RequestPreVoteResponse(self._header, term, self.votes and term == request.term))

    def let_go(self) -> None:
        """Answer what was held, and hold nothing more."""
        with self._lock:
            self.holds_appends = False
            held, self.held = self.held, []
        for rpc in held:
            self.answer(rpc)

    def received(self, kind: type) -> list:
        return [request for request in list(self.requests) if isinstance(request, kind)]

    def received_entries(self) -> list[Log]:
        """Every entry it was ever sent, in order of arrival."""
        return [log for request in self.received(AppendEntriesRequest) for log in request.entries]

    def sends(self, request: object, to: str = "s1", timeout: float = PATIENCE):
        """Ask the server under test."""
        return self.transport.call(Server(to, to), request, timeout)


class Stage:
    """A running server ``s1`` among scripted peers, on a network in memory."""

    def __init__(self, network: InmemNetwork, raft: Raft, fsm: FSM, store: InmemStore, peers) -> None:
        self.network = network
        self.raft = raft
        self.fsm = fsm
        self.store = store
        self.peers: dict[str, ScriptedPeer] = peers

    def __getattr__(self, name: str) -> ScriptedPeer:
        try:
            return self.peers[name]
        except KeyError:
            raise AttributeError(name) from None

    def make_it_lead(self) -> None:
        """Let the first peer lead for a moment and hand over: no election timeout passes."""
        first = next(iter(self.peers.values()))
        first.sends(append_request(self.raft.term + 1, leader=first.id))
        first.sends(TimeoutNowRequest(RpcHeader(first.id, first.id)))
        eventually(lambda: self.raft.leader_id == "s1", "s1 leads")


@contextmanager
def stage(
    peers: Sequence[str] = ("s2", "s3"),
    *,
    store: InmemStore | None = None,
    fsm: FSM | None = None,
    votes: bool = True,
    snapshots: SnapshotStore | None = None,
    **settings: object,
):
    """Run ``s1`` with scripted peers; everything is stopped at the end."""
    network = InmemNetwork()
    store = InmemStore() if store is None else store
    fsm = RecordingFSM() if fsm is None else fsm
    snapshots = DiscardSnapshotStore() if snapshots is None else snapshots
    # Long, so that a busy machine does not depose anybody; make_it_lead() waits for none of it.
    defaults = dict(heartbeat_timeout=5.0, election_timeout=5.0, leader_lease_timeout=5.0)
    config = Config(local_id="s1", **{**defaults, **settings})
    transport = InmemTransport(network, "s1")
    if not store.last_index():
        bootstrap_cluster(config, store, store, snapshots, transport, voters("s1", *peers))
    scripted = {name: ScriptedPeer(network, name) for name in peers}
    for peer in scripted.values():
        peer.votes = votes
    with ExitStack() as stack:
        raft = Raft(config, fsm, store, store, snapshots, transport)
        stack.callback(lambda: raft.shutdown(timeout=5).exception(PATIENCE))
        raft.start()
        yield Stage(network, raft, fsm, store, scripted)
