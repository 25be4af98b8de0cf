"""Known defects of hashicorp/raft that callers meet: futures, reads, transfers, the end; not here.

Each test is named after the item of the list in README.md beside this file.
"""

import threading

import pytest

from pyraft import (
    AbortedByRestoreError,
    CommandTooLargeError,
    Configuration,
    EnqueueTimeoutError,
    LeadershipTransferInProgressError,
    NotAppliedError,
    NotLeaderError,
    NotVoterError,
    OutcomeUnknownError,
    RaftShutdownError,
    RaftState,
    Server,
    Suffrage,
    TransferFailedError,
)
from pyraft.events import PeerMatched, TransferRequested
from pyraft.futures import RaftFuture
from pyraft.log import Log, LogType
from pyraft.messages import (
    AppendEntriesRequest,
    ReadIndexRequest,
    ReadIndexResponse,
    RpcHeader,
    TimeoutNowRequest,
)
from pyraft.roles.leader import Leader
from pyraft.roles.read_rounds import ReadRounds
from pyraft.sessions import Leadership
from tests.nodes import (
    PATIENCE,
    RecordingFSM,
    StallingStore,
    append_request,
    eventually,
    server,
    stage,
    vote_request,
)

# -- F: what a future says, and when -----------------------------------------------------------


def test_fix_F1_the_outcome_of_a_command_that_a_restore_aborted_is_unknown():
    """It may be on a majority, and come back if the leader dies before the restore is committed."""
    assert issubclass(AbortedByRestoreError, OutcomeUnknownError)
    assert not issubclass(AbortedByRestoreError, NotAppliedError)


ON_A_LEADER = {
    "apply": lambda raft: raft.apply(b"x"),
    "barrier": lambda raft: raft.barrier(),
    "verify_leader": lambda raft: raft.verify_leader(),
    "read_index": lambda raft: raft.read_index(),
    "add_nonvoter": lambda raft: raft.add_nonvoter("n8", "n8:1"),
    "add_voter": lambda raft: raft.add_voter("n9", "n9:1"),
    "remove_server": lambda raft: raft.remove_server("s3"),
    "leadership_transfer": lambda raft: raft.leadership_transfer("s2"),
    "campaign": lambda raft: raft.campaign(),
    "snapshot": lambda raft: raft.snapshot(),
    "get_configuration": lambda raft: raft.get_configuration(),
}


@pytest.mark.parametrize("last", ["apply", "leadership_transfer"])
def test_fix_F3_every_future_is_resolved_when_a_leader_shuts_down(last):
    """Go leaves those in its buffers for ever: some thousands of 42 000."""
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"first").result(PATIENCE)
        s.s2.mute = s.s3.mute = True
        names = [name for name in ON_A_LEADER if name != last] + [last]

        futures = [ON_A_LEADER[name](s.raft) for name in names for _ in range(3)]
        s.raft.shutdown().result(PATIENCE)

        assert all(future.done() for future in futures)


def test_fix_F3_what_the_main_thread_has_not_looked_at_yet_is_resolved_too():
    store = StallingStore()
    with stage(store=store, max_uncommitted_entries=1) as s:
        s.make_it_lead()
        s.raft.apply(b"first").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True  # so that there is no room, and commands wait
        store.open.clear()
        s.raft.apply(b"keeps the main thread in its write")
        assert store.stalled.wait(PATIENCE)

        futures = [ask(s.raft) for ask in ON_A_LEADER.values() for _ in range(20)]
        over = s.raft.shutdown()
        futures += [ask(s.raft) for ask in ON_A_LEADER.values()]  # behind it in the queue
        store.open.set()

        over.result(PATIENCE)
        assert [future for future in futures if not future.done()] == []


def test_fix_F3_a_transfer_that_waits_for_the_next_leader_is_resolved_too():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"first").result(PATIENCE)
        future = s.raft.leadership_transfer("s2")
        eventually(lambda: s.s2.received(TimeoutNowRequest), "it is told to stand")
        s.s2.sends(vote_request(s.raft.term + 1, last=(99, 99), transfer=True))
        eventually(lambda: s.raft.state is RaftState.FOLLOWER, "it has stepped down")
        assert not future.done()

        s.raft.shutdown().result(PATIENCE)

        assert future.done()


class Slow(RecordingFSM):
    """Stays in apply() until the gate is opened."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.inside = threading.Event()

    def apply(self, log):
        self.inside.set()
        assert self.gate.wait(PATIENCE)
        return super().apply(log)


def test_fix_F3_what_is_committed_and_not_applied_yet_is_resolved_as_unknown():
    fsm = Slow()
    with stage(fsm=fsm) as s:
        s.make_it_lead()
        futures = [s.raft.apply(b"%d" % n) for n in range(50)]
        assert fsm.inside.wait(PATIENCE)
        eventually(lambda: s.raft.commit_index >= 52, "all are committed")

        over = s.raft.shutdown()
        fsm.gate.set()

        over.result(PATIENCE)
        errors = [future.exception(0) for future in futures]
        failed = [error for error in errors if error is not None]
        assert all(isinstance(error, RaftShutdownError) and error.outcome_unknown for error in failed)


def test_fix_F4_a_wait_may_end_and_the_command_goes_on():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True
        future = s.raft.apply(b"b")

        with pytest.raises(TimeoutError):
            future.result(timeout=0.01)
        assert not future.done()

        s.s2.let_go()
        assert future.result(PATIENCE) == b"B"


def test_fix_F4_the_timeout_of_apply_is_for_the_queue_and_certainly_not_applied():
    store = StallingStore()
    with stage(store=store, max_proposals=1) as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        store.open.clear()
        s.raft.apply(b"in the write")
        assert store.stalled.wait(PATIENCE)
        s.raft.apply(b"fills the queue")

        error = s.raft.apply(b"no room", timeout=0.01).exception(PATIENCE)
        store.open.set()

        assert isinstance(error, EnqueueTimeoutError)
        assert isinstance(error, NotAppliedError)
        s.raft.barrier().result(PATIENCE)
        assert b"no room" not in [log.data for log in s.fsm.applied]


# -- G: proof of leadership --------------------------------------------------------------------


class Rounds:
    """ReadRounds with the contacts that a test says."""

    def __init__(self, *contacts):
        self.node = server("1")
        self.contacts = list(contacts)
        self.beats = 0
        self.answers = []
        self.leadership = Leadership(1, 0, self.node.config)
        self.rounds = ReadRounds(self.node, self.leadership, lambda: self.contacts, self.beat)

    def beat(self):
        self.beats += 1

    def verify(self, at):
        self.node.runtime.at = at
        self.rounds.verify(self.answers.append)

    def hear(self, *contacts):
        self.contacts = list(contacts)
        self.rounds.look()


INF = float("inf")


def test_fix_G3_answers_to_requests_from_before_the_question_prove_nothing():
    r = Rounds(INF, 0.0, 0.0)

    r.verify(at=10.0)
    assert r.beats == 1  # it does not wait for the next heartbeat
    r.hear(INF, 9.9, 9.9)
    r.hear(INF, 10.0, 10.0)  # sent at that very instant: perhaps before the question
    assert r.answers == []

    r.hear(INF, 10.1, 0.0)
    assert len(r.answers) == 1


def test_fix_G3_each_question_needs_answers_of_its_own():
    r = Rounds(INF, 0.0, 0.0)
    r.verify(at=10.0)
    r.verify(at=20.0)

    r.hear(INF, 15.0, 0.0)
    assert len(r.answers) == 1
    assert r.leadership.asked_at == 20.0

    r.hear(INF, 15.0, 20.5)
    assert len(r.answers) == 2
    assert r.leadership.asked_at == INF


def test_fix_G3_only_voters_count():
    """Go: three voters and two non-voters; cut off from both other voters, it is still 'verified'."""
    nonvoters = tuple(Server(id, id, Suffrage.NONVOTER) for id in ("n4", "n5"))
    five = Configuration((Server("s1", "s1"), Server("s2", "s2"), Server("s3", "s3"), *nonvoters))
    node = server("1", term=2, configuration=five)
    node.spawn = lambda name, run: None
    node.snapshots = None
    leader = Leader(node)
    leader._begin()
    answers = []
    leader._reads.verify(answers.append)
    node.runtime.at += 1

    for id in ("n4", "n5"):
        leader.session_of(id).heard(node.runtime.at)
    leader._reads.look()
    assert answers == []

    leader.session_of("s2").heard(node.runtime.at)
    leader._reads.look()
    assert len(answers) == 1


def test_fix_G4_a_read_index_waits_for_the_leaders_first_own_commit():
    """Before it the commit index may be behind what an earlier leader acknowledged."""
    with stage() as s:
        s.s2.holds_appends = s.s3.holds_appends = True
        s.make_it_lead()
        eventually(lambda: s.s2.held and s.s3.held, "the no-op is on its way")

        future = s.raft.read_index()
        s.raft.verify_leader().result(PATIENCE)  # a majority answers, and that is not enough
        assert not future.done()
        s.s2.let_go()

        assert future.result(PATIENCE) >= s.store.last_index()


def test_fix_G4_a_read_index_is_given_when_it_is_applied_here():
    fsm = Slow()
    with stage(fsm=fsm) as s:
        s.make_it_lead()
        written = s.raft.apply(b"a")
        assert fsm.inside.wait(PATIENCE)

        future = s.raft.read_index()
        s.raft.verify_leader().result(PATIENCE)
        assert not future.done()
        fsm.gate.set()

        assert future.result(PATIENCE) >= written.index
        assert s.raft.applied_index >= written.index


def test_fix_G4_a_follower_that_is_behind_the_read_index_applies_first():
    with stage() as s:
        commands = [Log(index, 2, LogType.COMMAND, b"%d" % index) for index in range(2, 6)]
        s.s2.sends(append_request(2, prev=(1, 1), logs=commands, commit=3))
        eventually(lambda: s.raft.applied_index == 3, "a part is applied")

        def confirms(rpc):
            if isinstance(rpc.request, ReadIndexRequest):
                rpc.respond(ReadIndexResponse(RpcHeader("s2", "s2"), 2, 5))

        s.s2.answer = confirms
        future = s.raft.read_index()
        runner = s.raft._node.context.fsm
        eventually(lambda: runner._reads or future.done(), "the leader has answered")
        assert not future.done()

        s.s2.sends(append_request(2, prev=(5, 2), commit=5))

        assert future.result(PATIENCE) == 5
        assert s.raft.applied_index == 5


# -- I: handing over ---------------------------------------------------------------------------


def test_fix_I6_a_target_without_a_vote_is_refused_and_nothing_is_disturbed():
    """Go lets it burn a term, deposes the leader, and reports success."""
    with stage() as s:
        s.make_it_lead()
        s.raft.add_nonvoter("n4", "n4:1").result(PATIENCE)
        term = s.raft.term

        with pytest.raises(NotVoterError, match="not a voter"):
            s.raft.leadership_transfer("n4").result(PATIENCE)

        assert (s.raft.state, s.raft.term) == (RaftState.LEADER, term)
        assert s.raft.apply(b"a").result(PATIENCE) == b"A"


@pytest.mark.parametrize(("winner", "succeeds"), [("s2", True), ("s3", False)])
def test_fix_I6_a_transfer_succeeds_when_its_target_leads_and_not_when_another_does(winner, succeeds):
    node = server("1", term=2)
    future = RaftFuture(node.runtime)
    node.watch_transfer(future, "s2", term=2, deadline=node.runtime.at + 60)

    node.heard_leader(append_request(2, leader="s1"))  # nobody new
    node.heard_leader(append_request(4, leader=winner))
    node.notifier.stop()
    node.notifier.run()

    if succeeds:
        assert future.result(0) is None
    else:
        with pytest.raises(TransferFailedError, match="s3 became leader instead"):
            future.result(0)


def test_fix_I6_a_transfer_whose_target_never_leads_fails():
    node = server("1", term=2)
    told = []
    node.spawn = lambda name, run: told.append(name)
    node.snapshots = None
    leader = Leader(node)
    leader._begin()
    leader._on_matched(PeerMatched(leader.session_of("s2"), 2))
    future = RaftFuture(node.runtime)

    leader._transfers.begin(TransferRequested(future, "s2", None))
    assert "transfer-s2" in told  # it takes the call to stand, and does nothing
    node.runtime.at += 60
    leader._transfers.expire()
    node.notifier.stop()
    node.notifier.run()

    with pytest.raises(TransferFailedError, match="s2 was told to stand and did not become leader in time"):
        future.result(0)
    assert not leader._transfers.is_active  # it takes commands again


def test_fix_I6_commands_during_a_transfer_are_certainly_not_applied():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.holds_appends = True
        s.raft.apply(b"b").result(PATIENCE)  # s2 lacks it, so the transfer waits
        s.raft.leadership_transfer("s2")

        error = s.raft.apply(b"c").exception(PATIENCE)

        assert isinstance(error, LeadershipTransferInProgressError)
        assert isinstance(error, NotAppliedError)
        assert b"c" not in [log.data for log in s.s3.received_entries()]


# -- J: the end, and limits --------------------------------------------------------------------


def test_fix_J9_shutdown_does_not_wait_for_peers_that_never_answer():
    """Go waits for its replicators first, and those for calls without a deadline."""
    patient = dict(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=600.0)
    with stage(**patient) as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.mute = s.s3.mute = True
        s.raft.verify_leader()  # sends a heartbeat at once, which nobody answers
        for peer in (s.s2, s.s3):
            eventually(
                lambda p=peer: p.received(AppendEntriesRequest)[-1].is_heartbeat, "a call is under way"
            )

        s.raft.shutdown().result(PATIENCE)


def test_fix_J9_a_second_shutdown_waits_as_the_first_does():
    fsm = Slow()
    with stage(fsm=fsm) as s:
        s.make_it_lead()
        s.raft.apply(b"a")
        assert fsm.inside.wait(PATIENCE)

        first, second = s.raft.shutdown(), s.raft.shutdown()
        assert not first.done()
        assert not second.done()
        fsm.gate.set()

        first.result(PATIENCE)
        second.result(PATIENCE)


def test_fix_J12_a_command_that_no_message_could_carry_is_refused_before_it_is_in_any_log():
    with stage(max_command_bytes=100) as s:
        s.make_it_lead()
        s.raft.apply(b"x" * 100).result(PATIENCE)
        before = s.raft.last_index

        with pytest.raises(CommandTooLargeError, match="max_command_bytes is 100"):
            s.raft.apply(b"x" * 101)

        assert s.raft.last_index == before


def test_top_finding_10_the_index_of_a_configuration_is_the_real_one():
    """Go's is always 0, so that nobody can use it as prev_index."""
    with stage() as s:
        s.make_it_lead()
        assert s.raft.get_configuration().index == 1

        future = s.raft.add_nonvoter("n8", "n8:1", prev_index=1)
        future.result(PATIENCE)

        assert s.raft.get_configuration().index == future.index
        assert s.raft.stats()["latest_configuration_index"] == str(future.index)


def test_keep_F1_a_follower_refuses_what_it_never_appended():
    with stage() as s:
        error = s.raft.apply(b"a").exception(PATIENCE)

        assert isinstance(error, NotLeaderError)
        assert isinstance(error, NotAppliedError)
