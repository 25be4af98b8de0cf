"""A leader leaves its queue alone while callers who were just answered are on their way, and never for long."""

from __future__ import annotations

import pytest

from pyraft.errors import RaftError
from pyraft.events import ProposalsWaiting, StopRequested, TransferRequested
from pyraft.futures import ApplyFuture, RaftFuture
from pyraft.log import LogType
from pyraft.roles.base import RoleName
from pyraft.roles.follower import Follower
from pyraft.roles.leader import _LONGEST_WAIT_FOR_CALLERS, Leader
from pyraft.runtime import CallerSignal
from tests.nodes import PATIENCE, eventually, server, stage
from tests.threads import in_thread


class Inbox:
    """Of a main thread that is alone: where nothing is left, time passes until the deadline."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.events = []
        self.passed = 0.0
        self.idle = []  # what happens, one after the other, when there are no events

    def put(self, event):
        self.events.append(event)

    def take(self, deadline):
        if not self.events and self.idle:
            self.idle.pop(0)()
        if self.runtime.at >= deadline != self.passed:  # once for each: no flood may starve a timer
            self.passed = deadline
            return None
        if self.events:
            return self.events.pop(0)
        self.runtime.at = max(self.runtime.at, deadline)
        return None


class Steps:
    """A leader whose peers are silent.  ``are_coming``: whether callers are on their way."""

    def __init__(self):
        self.node = server("1", term=1)
        self.runtime = self.node.runtime
        self.are_coming = True
        self.asked = 0
        self.hurried_at = []
        self.come = None  # what they do once they are there
        self.runtime.after_callers = self.after_callers
        self.runtime.hurry_callers = lambda: self.hurried_at.append(self.runtime.at)
        self.node.inbox = self.inbox = self.node.proposals.channel._inbox = Inbox(self.runtime)
        self.node.spawn = lambda name, run: None
        self.node.snapshots = None
        self.leader = Leader(self.node)
        self.leader._begin()
        self.meet()

    def after_callers(self, call):
        self.asked += 1
        self.come = call
        return self.are_coming

    def meet(self):
        """The voters answer, so that the lease goes on."""
        for session in self.leader._leadership.sessions.values():
            session.contact = self.runtime.at

    def put(self, *commands):
        for command in commands:
            self.node.proposals.put((LogType.COMMAND, command, b"", ApplyFuture(self.runtime)))

    def serve(self, *idle):
        """Let the leader run; whenever it has nothing to do, the next of ``idle`` happens."""
        stop = lambda: self.inbox.put(StopRequested())  # noqa: E731
        self.inbox.idle = [*idle, stop]
        return self.leader._serve()

    @property
    def batches(self):
        return [[log.data for log in batch.logs] for batch in self.leader._in_flight if batch.logs[0].data]


def nothing():
    pass


def test_what_comes_while_it_waits_becomes_one_batch_and_wakes_nobody():
    s = Steps()
    seen = []

    s.serve(
        lambda: s.put(b"1"),
        lambda: (s.put(b"2", b"3"), seen.append((list(s.inbox.events), s.batches)), s.come()),
    )

    assert seen == [([], [])]
    assert s.batches == [[b"1", b"2", b"3"]]
    assert s.hurried_at == []


def test_where_nobody_is_on_the_way_it_takes_what_there_is_at_once():
    s = Steps()
    s.are_coming = False

    s.serve(lambda: s.put(b"1"), lambda: s.put(b"2"))

    assert s.batches == [[b"1"], [b"2"]]
    assert s.asked == 2


def test_if_they_do_not_come_it_goes_on_in_time_and_has_them_hurry():
    s = Steps()
    began = s.runtime.at
    taken_at = []
    stage_logs = s.node.state.log.stage
    s.node.state.log.stage = lambda logs: taken_at.append(s.runtime.at) or stage_logs(logs)

    s.serve(lambda: s.put(b"1"), nothing)

    assert taken_at == [began + _LONGEST_WAIT_FOR_CALLERS] == s.hurried_at


def test_an_earlier_timer_does_not_end_the_wait():
    s = Steps()
    began = s.runtime.at
    checked_at = []
    s.leader._next_lease_check = lambda: s.runtime.at + 0.8 * _LONGEST_WAIT_FOR_CALLERS
    s.leader._check_lease = lambda: checked_at.append(s.runtime.at)

    s.serve(lambda: s.put(b"1"), nothing, nothing)

    assert s.batches == [[b"1"]]
    assert s.hurried_at == [began + _LONGEST_WAIT_FOR_CALLERS]
    assert checked_at[0] == began + 0.8 * _LONGEST_WAIT_FOR_CALLERS


def test_one_wait_after_the_other_puts_no_other_timer_off():
    s = Steps()
    checked_at = []
    s.leader._check_lease = lambda: checked_at.append(s.runtime.at)
    lease_ends = s.leader._next_lease_check()

    def later():
        s.runtime.at += 0.8 * _LONGEST_WAIT_FOR_CALLERS

    waits = [lambda: s.put(b"1"), lambda: (later(), s.come())] * 30
    s.serve(*waits)

    assert len(s.batches) == 30
    assert checked_at
    assert checked_at[0] <= lease_ends + _LONGEST_WAIT_FOR_CALLERS


@pytest.mark.parametrize(
    ("seconds", "count", "is_slow"),
    [
        (0.002, 1, False),
        (0.01, 1, True),
        (0.01, 20, False),
        (0.04, 30, True),
        (0.04, 40, False),
        (0.04, 8, True),
    ],
)
def test_callers_that_take_long_for_as_many_as_they_are_are_hurried(seconds, count, is_slow):
    s = Steps()

    def come():
        s.put(*[b"x"] * (count - 1))
        s.runtime.at += seconds
        s.come()

    s.serve(lambda: s.put(b"x"), come)

    assert bool(s.hurried_at) == is_slow
    assert [len(batch) for batch in s.batches] == [count]


def test_what_ends_a_wait_begins_no_other_and_the_next_command_does():
    s = Steps()

    s.serve(lambda: s.put(b"1"), lambda: s.come(), lambda: s.put(b"2"), lambda: s.put(b"3"), lambda: s.come())

    assert s.batches == [[b"1"], [b"2", b"3"]]
    assert s.asked == 2


def test_it_does_not_wait_with_a_whole_batch():
    for limit in (dict(max_append_entries=2), dict(max_append_bytes=100)):
        s = Steps()
        s.node.config = s.node.config.__class__(local_id="s1", **limit)
        s.put(b"1", b"2")

        s.serve()

        assert s.asked == 0
        assert [command for batch in s.batches for command in batch] == [b"1", b"2"]


def test_it_does_not_wait_before_the_rest_of_a_queue():
    s = Steps()
    s.node.config = s.node.config.__class__(local_id="s1", max_append_entries=2)
    s.put(b"1", b"2", b"3")

    s.serve()

    assert s.batches == [[b"1", b"2"], [b"3"]]
    assert s.asked == 0


def test_it_does_not_wait_for_the_first_command():
    s = Steps()
    s.inbox.put(ProposalsWaiting())  # of what was taken long ago

    s.serve()

    assert s.asked == 0


def test_who_waits_for_room_ends_the_wait():
    s = Steps()
    s.put(*[b"%d" % n for n in range(100)])  # all that it holds
    s.inbox.events.clear()
    s.inbox.put(ProposalsWaiting())
    joined = []

    def one_more():
        joined.append(in_thread(lambda: s.put(b"late")))
        eventually(lambda: s.inbox.events, "it insists")

    s.serve(one_more, lambda: joined[0]())

    assert len(s.batches[0]) == 100
    assert s.hurried_at == []


def test_a_handover_refuses_what_waits_as_soon_as_the_wait_is_over():
    s = Steps()
    handed_over = RaftFuture(s.runtime)

    s.serve(
        lambda: s.put(b"1"),
        lambda: s.inbox.put(TransferRequested(handed_over, None, None)),
        nothing,
        lambda: s.put(b"2"),
    )

    assert s.batches == []
    assert len(s.node.proposals) == 0
    assert s.asked == 1  # during the handover it waits for nobody


def test_the_next_role_refuses_what_was_left_waiting_and_hears_of_more():
    s = Steps()
    s.serve(lambda: s.put(b"1"))
    [(_, _, _, waiting)] = s.node.proposals._items
    s.leader._end()
    refused = []
    s.node.notifier.fail = lambda futures, make_error: refused.extend(futures)

    s.inbox.idle = [lambda: s.inbox.put(StopRequested())]
    Follower(s.node).run()
    assert refused == [waiting]
    s.put(b"2")

    assert s.inbox.events == [ProposalsWaiting()]


def test_a_leader_whose_lease_ended_meanwhile_takes_nothing():
    s = Steps()
    both_at = s.runtime.at + _LONGEST_WAIT_FOR_CALLERS
    s.leader._next_lease_check = lambda: both_at
    s.leader._lease_ends_at = lambda now: both_at - 1  # everybody has been silent

    transition = s.serve(lambda: s.put(b"1"), nothing)

    assert transition.role is RoleName.FOLLOWER
    assert s.batches == []


def test_a_leader_that_is_no_member_any_more_takes_nothing():
    s = Steps()
    s.put(b"1")
    s.leader._append_waiting()
    s.runtime.at += 1
    s.leader._lease_check_at = s.runtime.at + 1
    s.leader._departure = "somewhere"

    assert s.leader._on_timer() is None
    assert s.batches == []


def test_a_write_after_a_wait_that_takes_too_long_ends_the_leadership():
    s = Steps()
    write = s.node.state.log.write_staged

    def slowly(commit):
        write(commit)
        s.runtime.at += s.node.config.election_timeout
        s.meet()

    s.node.state.log.write_staged = slowly

    transition = s.serve(lambda: s.put(b"1"), nothing, nothing)

    assert transition.role is RoleName.FOLLOWER
    assert s.batches == [[b"1"]]


# -- with real threads --


@pytest.fixture
def nobody_looks_for_itself(monkeypatch):
    monkeypatch.setattr(CallerSignal, "LOOKS_EVERY", 10 * PATIENCE)


def lose_lanes(raft):
    raft._runtime._command_lanes._free.clear()
    raft._runtime._lanes._free.clear()


@pytest.mark.usefixtures("nobody_looks_for_itself")
def test_callers_of_a_leader_are_all_answered_though_a_lane_is_lost():
    with stage(heartbeat_timeout=1.0, election_timeout=1.0, leader_lease_timeout=0.2) as s:
        s.make_it_lead()
        lose_lanes(s.raft)

        answers = [in_thread(lambda n=n: s.raft.apply(b"c%d" % n).result()) for n in range(40)]

        assert [joined() for joined in answers] == [b"C%d" % n for n in range(40)]


@pytest.mark.usefixtures("nobody_looks_for_itself")
def test_who_waits_for_a_barrier_is_answered_though_its_lane_is_lost(monkeypatch):
    asleep = []
    sleep = CallerSignal._sleep
    monkeypatch.setattr(CallerSignal, "_sleep", lambda self, left: asleep.append(self) or sleep(self, left))
    with stage(heartbeat_timeout=1.0, election_timeout=1.0, leader_lease_timeout=0.2) as s:
        s.make_it_lead()
        eventually(lambda: s.raft.commit_index == s.raft.last_index, "its term is settled")
        s.s2.holds_appends = s.s3.holds_appends = True
        answer = in_thread(lambda: s.raft.barrier().result())
        eventually(lambda: asleep, "it sleeps")
        lose_lanes(s.raft)

        s.s2.let_go()

        assert answer() == s.raft.last_index


@pytest.mark.usefixtures("nobody_looks_for_itself")
def test_callers_hear_of_the_end_though_a_lane_is_lost():
    with stage() as s:
        s.make_it_lead()
        s.s2.holds_appends = s.s3.holds_appends = True
        answers = [in_thread(lambda: s.raft.apply(b"x").exception()) for _ in range(40)]
        signals = lambda: len(s.raft._proposals) + s.raft.last_index  # noqa: E731
        eventually(lambda: signals() >= 41, "all are in flight")
        lose_lanes(s.raft)

        s.raft.shutdown(timeout=5)

        assert all(isinstance(joined(), RaftError) for joined in answers)


def test_many_callers_and_one_who_never_blocks_are_all_answered():
    with stage() as s:
        s.make_it_lead()

        def work(number):
            return [s.raft.apply(b"%d-%d" % (number, n)).result(PATIENCE) for n in range(50)]

        crowd = [in_thread(lambda n=n: work(n)) for n in range(20)]
        lone = [s.raft.apply(b"lone%d" % n) for n in range(50)]

        assert [joined() for joined in crowd] == [[b"%d-%d" % (m, n) for n in range(50)] for m in range(20)]
        assert [future.result(PATIENCE) for future in lone] == [b"LONE%d" % n for n in range(50)]
