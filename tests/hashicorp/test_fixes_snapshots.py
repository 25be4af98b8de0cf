"""Known defects of hashicorp/raft around snapshots and restarts, and that they are not here.

Each test is named after the item of the list in README.md beside this file.
"""

import io
import threading

import pytest

from pyraft import Config, Configuration, Raft, RaftState, Server
from pyraft.configuration import encode_configuration
from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from pyraft.rules.election import Ballot, LogPosition
from pyraft.snapshots import DiscardSnapshotStore, InmemSnapshotStore
from pyraft.snapshotter import Snapshotter
from pyraft.state import BALLOT_KEY, encode_ballot
from pyraft.transport import InmemNetwork, InmemTransport, wire
from pyraft.transport import raft_transport_pb2 as pb
from tests.nodes import (
    PATIENCE,
    S1_TO_S3,
    RecordingFSM,
    append_request,
    eventually,
    server,
    stage,
    vote_request,
    voters,
)


@pytest.mark.parametrize(
    ("applied", "due"), [(0, False), (50, False), (100, False), (8291, False), (8292, True)]
)
def test_fix_H1_an_empty_log_behind_a_snapshot_is_no_reason_for_another(applied, due):
    """Go subtracts without a sign: the threshold is then always exceeded."""
    node = server("")
    node.state.log.snapshot = LogPosition(1, 100)
    node.fsm.applied_index = applied

    assert Snapshotter(node, DiscardSnapshotStore())._is_due() is due


class Restoring(RecordingFSM):
    """Stays in restore() until the gate is opened."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.inside = threading.Event()
        self.state = b""

    def restore(self, source):
        self.inside.set()
        assert self.gate.wait(PATIENCE)
        self.state = source.read()


def install(peer, term, index=10, snapshot_term=1, data=b"the state"):
    """Send the server under test a snapshot; return its answer."""
    request = InstallSnapshotRequest(
        RpcHeader(peer.id, peer.id), term, index, snapshot_term, S1_TO_S3, 1, len(data)
    )
    return peer.transport.install_snapshot(
        Server("s1", "s1"), request, io.BytesIO(data), PATIENCE, lambda: False
    )


def test_fix_H13_a_follower_goes_on_answering_while_its_fsm_restores():
    """Go's main thread waits; the leader gives up and sends the whole snapshot again."""
    fsm = Restoring()
    with stage(fsm=fsm, snapshots=InmemSnapshotStore()) as s:
        assert install(s.s2, term=3).success
        assert fsm.inside.wait(PATIENCE)

        beat = s.s2.sends(append_request(3, prev=(10, 1)))
        stored = s.s2.sends(append_request(3, prev=(10, 1), logs=[Log(11, 3, LogType.NOOP)], commit=11))
        refused = s.s3.sends(vote_request(2, last=(99, 2), candidate="s3"))
        assert (beat.success, stored.success, refused.granted) == (True, True, False)
        assert s.raft.applied_index == 0
        fsm.gate.set()

        eventually(lambda: s.raft.applied_index == 11, "it goes on behind the snapshot")
        assert fsm.state == b"the state"


def test_fix_H8_a_candidate_follows_a_leader_of_its_term_that_sends_a_snapshot():
    with stage(votes=False, pre_vote=False, snapshots=InmemSnapshotStore()) as s:
        s.raft.campaign().result(PATIENCE)
        eventually(lambda: s.s2.received(RequestVoteRequest), "it stands")
        assert s.raft.state is RaftState.CANDIDATE
        term = s.raft.term

        answer = install(s.s2, term)

        assert (answer.success, answer.term) == (True, term)
        assert s.raft.state is RaftState.FOLLOWER
        assert s.raft.leader_id == "s2"


def test_fix_H8_the_answer_says_who_gives_it():
    with stage(snapshots=InmemSnapshotStore()) as s:
        assert install(s.s2, term=3).header == RpcHeader("s1", "s1")


@pytest.mark.parametrize("index", [2, 4])
def test_fix_H9_a_late_snapshot_takes_a_running_fsm_nowhere(index):
    with stage(snapshots=InmemSnapshotStore()) as s:
        commands = [Log(i, 2, LogType.COMMAND, b"%d" % i) for i in range(2, 6)]
        s.s2.sends(append_request(2, prev=(1, 1), logs=commands, commit=5))
        eventually(lambda: s.raft.applied_index == 5, "all is applied")

        assert install(s.s2, 2, index, 2).success

        s.s2.sends(append_request(2, prev=(5, 2), logs=[Log(6, 2, LogType.COMMAND, b"6")], commit=6))
        eventually(lambda: s.raft.applied_index == 6, "it goes on")
        assert [log.data for log in s.fsm.applied] == [b"2", b"3", b"4", b"5", b"6"]


# -- J: restarts -------------------------------------------------------------------------------

MANY = 20_000
"""More than hashicorp/raft's 128 batches of 64, at which it blocks for ever."""


def restarted_with(store, snapshots=None, fsm=None):
    """A server that finds ``store``, and never hears from anybody."""
    config = Config(local_id="s1", heartbeat_timeout=600.0, election_timeout=600.0)
    snapshots = DiscardSnapshotStore() if snapshots is None else snapshots
    fsm = RecordingFSM() if fsm is None else fsm
    return Raft(config, fsm, store, store, snapshots, InmemTransport(InmemNetwork(), "s1")), fsm


def long_log(configuration_at, committed, first=1):
    store = InmemStore()
    logs = [Log(index, 1, LogType.COMMAND, b"x") for index in range(first, MANY + 1)]
    if first == 1:
        logs[0] = Log(1, 1, LogType.CONFIGURATION, encode_configuration(S1_TO_S3))
    logs[configuration_at - first] = Log(
        configuration_at, 1, LogType.CONFIGURATION, encode_configuration(voters("s1", "s7"))
    )
    store.set(BALLOT_KEY, encode_ballot(Ballot(1)))
    store.stage_commit_index(committed)
    store.store_logs(logs)
    return store


def test_fix_J6_any_number_of_committed_entries_is_applied_without_a_leader():
    raft, fsm = restarted_with(long_log(configuration_at=100, committed=MANY))
    with raft:
        eventually(lambda: raft.applied_index == MANY, "all of it is applied")
        assert len(fsm.applied) == MANY - 2
        assert raft.leader_id is None


@pytest.mark.parametrize("at", [2, 15_000, MANY])
def test_fix_J6_a_configuration_among_the_committed_entries_is_in_force(at):
    """Go looks for configurations only behind what it has applied, and then knows none."""
    raft, _ = restarted_with(long_log(configuration_at=at, committed=MANY))
    with raft:
        assert raft.get_configuration().configuration == voters("s1", "s7")
        assert raft.get_configuration().index == at


def test_fix_J6_a_configuration_between_snapshot_and_commit_index_is_in_force():
    snapshots = InmemSnapshotStore()
    transport = InmemTransport(InmemNetwork(), "s1")
    with snapshots.create(1, 1000, 1, S1_TO_S3, 1, transport) as sink:
        sink.write(b"state")
    raft, fsm = restarted_with(long_log(5000, committed=6000, first=900), snapshots)
    with raft:
        assert raft.get_configuration().configuration == voters("s1", "s7")
        eventually(lambda: raft.applied_index == 6000, "what is committed is applied")
        assert fsm.applied[0].index == 1001


# -- top finding 11: Go crashes if a message has no header ---------------------------------------

NOBODY = RpcHeader()
MESSAGES = [
    (AppendEntriesRequest(NOBODY, 1), pb.AppendEntriesRequest),
    (RequestVoteRequest(NOBODY, 1, 0, 0), pb.RequestVoteRequest),
    (RequestPreVoteRequest(NOBODY, 1, 0, 0), pb.RequestPreVoteRequest),
    (TimeoutNowRequest(NOBODY), pb.TimeoutNowRequest),
    (AppendEntriesResponse(NOBODY, 1, 0, True), pb.AppendEntriesResponse),
    (RequestVoteResponse(NOBODY, 1), pb.RequestVoteResponse),
    (RequestPreVoteResponse(NOBODY, 1), pb.RequestPreVoteResponse),
    (TimeoutNowResponse(NOBODY), pb.TimeoutNowResponse),
    (InstallSnapshotRequest(NOBODY, 1, 1, 1, Configuration(), 1, 0), pb.InstallSnapshotRequest),
    (InstallSnapshotResponse(NOBODY, 1), pb.InstallSnapshotResponse),
]


def encoded(message):
    if isinstance(message, InstallSnapshotRequest):
        return wire.encode_install_snapshot(message)
    if isinstance(message, InstallSnapshotResponse):
        return wire.encode_install_snapshot_response(message)
    for request, method in wire.METHODS.items():
        if isinstance(message, request):
            return method.encode_request(message)
        if type(message).__name__ == request.__name__.removesuffix("Request") + "Response":
            return method.encode_response(message)
    raise AssertionError(message)


@pytest.mark.parametrize(("message", "kind"), MESSAGES, ids=lambda value: type(value).__name__)
def test_top_finding_11_every_message_has_a_header_even_an_empty_one(message, kind):
    assert kind.FromString(encoded(message)).HasField("rpc_header")
