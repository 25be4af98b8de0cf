"""The judge reports every promise that is broken on purpose: by a planted bug, or by a forged event."""

from __future__ import annotations

import errno
import logging

import pytest

from pyraft.errors import ConfigError, NotLeaderError
from pyraft.fsm_runner import FsmRunner
from pyraft.futures import RaftFuture
from pyraft.heartbeat import Heartbeat
from pyraft.log import Log, LogType
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
)
from pyraft.node import Node
from pyraft.replicator import Replicator
from pyraft.roles import candidate, leader
from pyraft.roles.follower import Follower
from pyraft.state import NodeState
from pyraft.testing import SimCluster, Violation
from pyraft.testing.coverage import SITUATIONS, Coverage, never_reached
from pyraft.testing.sim_clients import Outcome
from pyraft.testing.sim_disk import Transaction
from pyraft.testing.sim_kv import encode_command

PUT = encode_command("x", ("put", "1"))


@pytest.fixture
def start():
    clusters = []

    def start_cluster(servers=3, seed=1, **kwargs):
        clusters.append(SimCluster(servers, seed, **kwargs))
        return clusters[-1]

    yield start_cluster
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def busy(start):
    """A cluster with a leader and some entries that every server has applied."""
    cluster = start()
    for _ in range(3):
        cluster.apply(PUT)
    cluster.run(0.5)
    return cluster


def condemned(cluster, promise, text, seconds=0.001):
    with pytest.raises(Violation, match=f"^{promise}: .*{text}"):
        cluster.run(seconds)


# ── forged events ──


def others(cluster):
    first = cluster.leader()
    return first, [server for server in cluster.servers.values() if server is not first]


def sends(cluster, server, to, **fields):
    term = fields.pop("term", cluster.leader().raft.term)
    header = RpcHeader(server.id, server.address)
    cluster.judge.request_sent(server.address, to.address, AppendEntriesRequest(header, term, **fields))


def test_a_follower_that_sends_entries_as_a_leader(busy):
    _, (follower, other) = others(busy)

    sends(busy, follower, other)

    condemned(busy, "I1", "sends entries of term 2, which it does not lead")


@pytest.mark.parametrize(
    ("fields", "promise", "text"),
    [
        ({"prev_log_entry": 3, "prev_log_term": 1}, "I2", "that its log of term 2 has not got"),
        (
            {"prev_log_entry": 1, "prev_log_term": 1, "entries": [Log(2, 2, data=b"other")]},
            "I3",
            "has another log up to entry 2",
        ),
        (
            {"prev_log_entry": 1, "prev_log_term": 1, "entries": [Log(3, 2)]},
            "I9",
            "sends entry 3 where 2 should be",
        ),
        ({"prev_log_entry": 2, "prev_log_term": 2, "leader_commit_index": 3}, "I6", "with entries up to 2"),
        ({"prev_log_entry": 9, "prev_log_term": 2, "leader_commit_index": 9}, "I6", "has committed 5"),
    ],
)
def test_a_leader_that_sends_what_it_should_not(busy, fields, promise, text):
    first, (other, _) = others(busy)

    sends(busy, first, other, **fields)

    condemned(busy, promise, text)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"term": 9}, "answers in term 9"),
        ({"term": 1, "success": True}, "accepts a request of term 2 in term 1"),
        ({"term": 2, "success": True}, "acknowledged entry 8 of term 2, and its disk ends at 5"),
    ],
)
def test_an_answer_that_the_disk_does_not_back(busy, response, text):
    first, (follower, _) = others(busy)
    header = RpcHeader(first.id, first.address)
    request = AppendEntriesRequest(header, 2, prev_log_entry=8, prev_log_term=2)

    busy.judge.response_sent(
        follower.address, first.address, request, AppendEntriesResponse(header, **response)
    )

    condemned(busy, "I8", text)


def test_a_vote_that_is_not_on_disk(busy):
    first, (follower, _) = others(busy)
    header = RpcHeader(first.id, first.address)

    busy.judge.response_sent(
        follower.address,
        first.address,
        RequestVoteRequest(header, 7, 9, 9),
        RequestVoteResponse(header, 7, granted=True),
    )

    condemned(busy, "I8", "grants n\\d term 7")


@pytest.mark.parametrize(
    ("transaction", "promise", "text"),
    [
        (Transaction(logs=[Log(9, 2)]), "I9", "a gap"),
        (Transaction(logs=[Log(6, 1)]), "I3", "after one of term 2"),
        (Transaction(logs=[Log(6, 7)]), "I8", "stores entry 6 of term 7"),
        (Transaction(delete=(5, 5)), "I4", "drops entry 5, which is committed"),
        (
            Transaction(logs=[Log(6, 2, LogType.CONFIGURATION), Log(7, 2, LogType.CONFIGURATION)]),
            "I10",
            "before 6 is committed",
        ),
    ],
)
def test_a_disk_that_takes_what_it_should_not(busy, transaction, promise, text):
    _, (follower, _) = others(busy)

    busy.judge.disk_changed(follower.id, transaction)

    condemned(busy, promise, text)


def test_an_acknowledged_entry_that_is_dropped_in_the_same_term(busy):
    first, (follower, other) = others(busy)
    busy.partition([first, follower], [other])
    busy.freeze(other)
    busy.judge.committed.pop()  # as if the last entry were not committed yet

    busy.judge.disk_changed(follower.id, Transaction(delete=(5, 5)))

    condemned(busy, "I7", "acknowledged 5 in the same term 2")


def test_a_state_machine_that_gets_an_entry_twice(busy):
    _, (follower, _) = others(busy)

    busy.judge.applied(follower, busy.judge.committed[5], None)

    condemned(busy, "I5", "applied entry 5 after entry 5")


def test_a_state_machine_that_skips_an_entry(busy):
    _, (follower, _) = others(busy)
    busy.judge.seen(follower.id).applied = 3

    busy.judge.applied(follower, busy.judge.committed[5], None)

    condemned(busy, "I5", "and never entry 4")


def test_a_command_that_was_refused_and_is_committed(busy):
    busy.judge.not_applied(PUT)

    condemned(busy, "I11", "was refused, and is committed")


def test_a_caller_that_is_not_woken(busy):
    outcome = Outcome(PUT)
    outcome.answered_at = busy.now - 1.0

    busy.judge.woken(busy.leader(), outcome, 0.0)

    condemned(busy, "I11", "was not woken")


def test_a_future_that_changes_its_mind(busy):
    first = busy.leader()
    future = first.raft.apply(PUT)
    busy.judge.asked(first, first.group, PUT, future)
    busy.run(0.2)
    assert future.done()

    future._result = "something else"
    busy.judge.futures.check_all()

    condemned(busy, "I11", "says 'something else' now")


# ── planted bugs ──


def test_a_candidate_that_wins_with_its_own_vote(start, monkeypatch):
    monkeypatch.setattr(candidate, "is_elected", lambda configuration, votes: True)

    condemned(start(), "I1", "voted for it", 5)


def test_a_leader_that_commits_entries_of_older_terms_by_counting(start, monkeypatch):
    monkeypatch.setattr(
        leader,
        "leader_commit_index",
        lambda now, matched, first: max(now, sorted(matched)[(len(matched) - 1) // 2]),
    )

    condemned(start(), "I6", "of term 1 by counting", 5)


def test_a_leader_that_commits_what_is_on_too_few_disks(start, monkeypatch):
    monkeypatch.setattr(leader, "leader_commit_index", lambda now, matched, first: max(matched))

    condemned(start(servers=5), "I6", "disks only", 5)


def test_a_vote_that_is_kept_in_memory(start, monkeypatch):
    monkeypatch.setattr(NodeState, "save_ballot", lambda self, ballot: setattr(self, "ballot", ballot))

    condemned(start(), "I8", "goes by", 5)


def test_a_leader_that_ignores_its_lease(busy, monkeypatch):
    monkeypatch.setattr(leader.Leader, "_check_lease", lambda self: None)

    busy.partition([busy.leader()])

    condemned(busy, "lease", "no majority answered for", 5)


def test_a_follower_that_never_stands_for_election(busy, monkeypatch):
    monkeypatch.setattr(Follower, "_silent_too_long", lambda self: False)

    busy.crash(busy.leader())

    with pytest.raises(Violation, match="campaign: n\\d hears from nobody"):
        for _ in range(100):
            busy.run(0.05)
            busy.judge.timekeeper.tick()


def test_a_follower_whose_disk_is_long_in_returning_is_excused(busy):
    follower = next(server for server in busy.servers.values() if server is not busy.leader())
    follower.disk.conditions.late_return = 20.0
    busy.apply(PUT)
    busy.run_until(lambda: follower.disk.returns_at > busy.now + 5.0)
    follower.disk.conditions.late_return = 0.0
    busy.partition([follower])
    while busy.now < follower.disk.returns_at:
        busy.run(0.05)
        busy.judge.timekeeper.tick()

    busy.heal()
    busy.check()


def test_a_wait_counts_from_when_threads_were_let_go(busy):
    """Nobody need have looked while they were held: time jumps where nothing can run."""
    scheduler, began = busy.scheduler, busy.now
    scheduler.hold("callers", lambda task: task.name.startswith("user-"))
    busy.run(1.0)
    scheduler.unhold("callers")

    assert busy.now - began >= 1.0
    assert busy.judge.timekeeper.could_act_for("n1", began) == 0.0
    busy.run(0.5)
    assert 0.4 < busy.judge.timekeeper.could_act_for("n1", began) < 0.6


def test_a_replicator_that_is_not_poked(busy, monkeypatch):
    monkeypatch.setattr(Replicator, "poke", lambda self: None)
    monkeypatch.setattr(Replicator, "offer", lambda self, *of_entries: False)

    with pytest.raises(Violation, match="latency: nothing is wrong"):
        busy.check()


def test_answers_that_go_to_the_wrong_callers(start, monkeypatch):
    committed = FsmRunner.committed
    monkeypatch.setattr(
        FsmRunner,
        "committed",
        lambda self, logs, futures=None: committed(self, logs, futures and futures[::-1]),
    )
    cluster = start()
    cluster.client(rate=50, burst=20)

    condemned(cluster, "I11", "was answered", 5)


def test_a_future_that_two_can_finish(start, monkeypatch):
    def finish(self, value, error, run_callbacks=True):
        self._unclaimed = True
        return own(self, value, error, run_callbacks)

    own = RaftFuture._finish
    monkeypatch.setattr(RaftFuture, "_finish", finish)
    cluster = start()
    first = cluster.leader()
    future = first.raft.apply(PUT)
    cluster.judge.asked(first, first.group, PUT, future)
    cluster.run(0.2)

    future.try_set_exception(NotLeaderError("n1"))
    with pytest.raises(Violation, match="I11: the future of .* said"):
        cluster.check()


def test_a_server_that_stops_by_itself_and_leaves_a_thread(busy, monkeypatch):
    finish = Node._finish

    def leave_a_thread(self, stuck):
        self._runtime.spawn("left-over", self._runtime.inbox("left").take)
        finish(self, stuck)

    monkeypatch.setattr(Node, "_finish", leave_a_thread)
    _, (follower, _) = others(busy)
    follower.fsm_error = OSError(errno.ENOSPC, "no room")

    busy.apply(PUT)

    condemned(busy, "I12", "stopped by itself and left threads", 8)


def test_an_error_that_is_logged(busy, monkeypatch):
    beat = Heartbeat._beat

    def complain(self):
        logging.getLogger("pyraft.heartbeat").error("this should not %s", "be")
        beat(self)

    monkeypatch.setattr(Heartbeat, "_beat", complain)

    condemned(busy, "log", "this should not be", 1)


def test_what_a_crashed_server_logs_on_its_way_out_is_no_error(busy):
    busy.crash(busy.leader())

    busy.check()


# ── situations ──


def test_unknown_situations_are_refused():
    coverage = Coverage()

    with pytest.raises(ConfigError, match="'nonsense' is not a situation"):
        coverage.reached("nonsense")


def test_what_was_never_reached_is_listed(busy):
    busy.crash(busy.leader())
    busy.check()

    never = never_reached(busy.judge.coverage)

    assert "leader crashed" not in never
    assert "disk wiped" in never
    assert len(SITUATIONS) >= 40
