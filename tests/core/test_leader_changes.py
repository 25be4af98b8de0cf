"""Changes of membership and transfers on a leader's main thread, step by step: no other thread runs."""

import pytest

from pyraft import Configuration
from pyraft.configuration import Server, Suffrage
from pyraft.errors import (
    EnqueueTimeoutError,
    LeadershipTransferInProgressError,
    TransferFailedError,
    TransportError,
)
from pyraft.events import MembershipRequested, PeerMatched, StopRequested, TransferAnswered, TransferRequested
from pyraft.futures import IndexFuture, RaftFuture
from pyraft.roles.leader import Leader
from pyraft.rules.reconfiguration import Change, MembershipChange
from tests.nodes import S1_TO_S3, server, voters

A_LONG_TIME = 1000.0


class Steps:
    """A leader ``s1`` whose peers hold what the test says, when it says so."""

    def __init__(self, configuration=S1_TO_S3):
        self.node = server("1", term=1, configuration=configuration)
        self.leader = Leader(self.node)
        self.node.spawn = lambda name, run: None
        self.node.snapshots = None
        self.leader._begin()
        self.commit()

    def hold(self, id, index=None):
        """``id`` acknowledges the log, or all of it up to ``index``."""
        index = self.node.state.log.last.index if index is None else index
        session = self.leader.session_of(id)
        session.contact = self.node.runtime.now()
        self.leader._on_matched(PeerMatched(session, index))

    def commit(self):
        for voter in self.node.state.configuration.voters:
            if voter.id != "s1":
                self.hold(voter.id)

    def change(self, kind, id, address=None, timeout=None):
        future = IndexFuture(self.node.runtime)
        deadline = None if timeout is None else self.node.runtime.now() + timeout
        change = MembershipChange(kind, id, address or id)
        self.leader._on_request(MembershipRequested(future, change, deadline))
        return future

    def transfer(self, target=None):
        future = RaftFuture(self.node.runtime)
        self.leader._on_request(TransferRequested(future, target, None))
        return future

    def pass_time(self, seconds):
        """Time in which every voter goes on answering heartbeats."""
        self.node.runtime.at += seconds
        for session in self.leader._leadership.sessions.values():
            session.contact = self.node.runtime.now()
        self.leader._on_timer()

    def serve(self, event):
        """Let the leader's loop see ``event``, and end."""
        self.node.inbox.put(event)
        self.node.inbox.put(StopRequested())
        self.leader._serve()

    def error_of(self, future):
        """What a future was told by now."""
        self.node.notifier.stop()
        self.node.notifier.run()
        return future.exception(0)

    @property
    def members(self):
        return [member.id for member in self.node.state.configuration.servers]


def test_a_promotion_to_a_wrong_address_that_is_given_up_leaves_the_member_where_it_was():
    s4 = Server("s4", "s4", Suffrage.NONVOTER)
    steps = Steps(Configuration((*S1_TO_S3.servers, s4)))
    future = steps.change(Change.ADD_VOTER, "s4", "elsewhere", timeout=1)
    assert steps.leader.session_of("s4").peer.address == "elsewhere"

    steps.pass_time(2)

    assert steps.leader.session_of("s4").peer.address == "s4"
    assert steps.leader.session_of("s4").alive
    error = steps.error_of(future)
    assert isinstance(error, EnqueueTimeoutError)
    assert "Nothing has changed" in str(error)


def test_a_change_that_is_asked_for_during_a_transfer_is_refused_at_once():
    steps = Steps()
    steps.transfer("s2")

    future = steps.change(Change.ADD_NONVOTER, "s9")

    assert isinstance(steps.error_of(future), LeadershipTransferInProgressError)
    assert "s9" not in steps.members


@pytest.mark.parametrize("ending", ["the target cannot be told", "it takes too long"])
def test_a_change_that_had_waited_before_a_transfer_is_made_when_that_has_failed(ending):
    steps = Steps()
    steps.change(Change.ADD_NONVOTER, "s8")  # not committed yet
    steps.change(Change.ADD_NONVOTER, "s9")  # waits for it
    transfer = steps.transfer("s2")
    steps.commit()
    assert "s9" not in steps.members

    if ending == "it takes too long":
        steps.pass_time(A_LONG_TIME)
    else:
        steps.serve(TransferAnswered(transfer, TransportError("nobody serves there")))

    assert "s9" in steps.members
    assert isinstance(steps.error_of(transfer), TransferFailedError)


def test_a_server_that_has_caught_up_during_a_transfer_becomes_a_voter_when_that_has_failed():
    steps = Steps()
    steps.change(Change.ADD_VOTER, "s4")
    transfer = steps.transfer("s2")  # which was told to stand: it has the whole log
    end = steps.node.state.log.last

    steps.hold("s4")
    assert steps.node.state.log.last == end

    steps.pass_time(steps.node.config.election_timeout)
    assert "s4" in steps.members
    assert isinstance(steps.error_of(transfer), TransferFailedError)


def test_changes_that_waited_behind_one_that_is_given_up_are_made_one_after_the_other():
    steps = Steps(voters("s1"))
    missing = steps.change(Change.ADD_VOTER, "s9", timeout=1)
    before = steps.node.state.log.last.index
    for n in range(400):
        steps.change(Change.ADD_NONVOTER, "s2", f"s2:{n}")
    assert steps.node.state.log.last.index == before

    steps.pass_time(2)

    assert steps.node.state.configuration.find("s2").address == "s2:399"
    assert isinstance(steps.error_of(missing), EnqueueTimeoutError)
    assert steps.node.state.commit_index == before + 400


@pytest.mark.parametrize("silent", ["s2", "s3"])
def test_leadership_goes_to_a_voter_that_was_heard_lately_rather_than_to_one_that_is_silent(silent):
    steps = Steps()
    steps.node.runtime.at += A_LONG_TIME
    steps.hold(({"s2", "s3"} - {silent}).pop())

    steps.transfer()

    assert {steps.leader._transfers._target.id, silent} == {"s2", "s3"}
