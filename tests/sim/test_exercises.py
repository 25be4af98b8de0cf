"""What the judges must say when an answer counts for too long, a waiter is forgotten, or the last news is lost."""

from __future__ import annotations

from math import inf

import pytest

from pyraft import fsm_runner
from pyraft.errors import RaftShutdownError
from pyraft.fsm_runner import FsmRunner
from pyraft.log import LogType
from pyraft.node_log import NodeLog
from pyraft.proposals import ProposalQueue
from pyraft.roles.leader import Leader
from pyraft.roles.transfer import Transfers
from pyraft.sessions import Session
from pyraft.testing import SimCluster, Violation
from pyraft.testing.adversaries import Plot
from pyraft.testing.election_traps import ELECTION_TRAPS, AskFormerLeader, AskNewLeader, LateVotes
from pyraft.testing.member_traps import MEMBER_TRAPS, CutWithNonvoters, DemotesItself
from pyraft.testing.snapshot_traps import SNAPSHOT_TRAPS, ContradictingSnapshot, SnapshotInTheMiddle
from pyraft.testing.thread_traps import TRAPS
from pyraft.waiting import Waiters


@pytest.fixture
def cluster():
    with SimCluster(3, 5) as cluster:
        yield cluster


def test_an_answer_that_counts_from_its_arrival(cluster, monkeypatch):
    def heard(session, sent_at):
        session.contact = max(session.contact, sent_at + 0.001)
        return False

    monkeypatch.setattr(Session, "heard", heard)

    with pytest.raises(
        Violation, match=r"lease: n\d counts an answer of n\d from .* s after the latest question"
    ):
        cluster.run(2.0)


def test_a_peer_that_is_counted_for_what_it_has_not_got(cluster):
    leader = cluster.leader()
    cluster.run(0.5)

    leader.raft._node.context.leadership.sessions["n1" if leader.id != "n1" else "n2"].match_index = 99

    with pytest.raises(Violation, match=r"I6: n\d counts n\d up to entry 99, and its disk ends at \d"):
        cluster.run(1.0)


def test_waiters_that_nobody_wakes(cluster, monkeypatch):
    cluster.leader()
    monkeypatch.setattr(Waiters, "notify", lambda waiters: None)

    with pytest.raises(Violation, match=r"latency: who waited for entry \d+ on n\d went on"):
        cluster.check()


def test_a_barrier_that_is_through_at_its_commit(cluster, monkeypatch):
    committed = FsmRunner.committed

    def too_early(runner, logs, futures=None):
        committed(runner, logs, futures)
        for log, future in zip(logs, futures or (), strict=False):
            if log.type is LogType.BARRIER and future is not None:
                future.try_set_result(None)

    monkeypatch.setattr(FsmRunner, "committed", too_early)

    with pytest.raises(Violation, match=r"I11: a barrier of n\d was through before \d commands"):
        cluster.check()


def test_streams_that_end_again_and_again(cluster, monkeypatch):
    stage = NodeLog.stage

    def forgetful(log, logs):
        size = stage(log, logs)
        log._recent = ()
        return size

    monkeypatch.setattr(NodeLog, "stage", forgetful)

    with pytest.raises(Violation, match=r"latency: nothing is wrong, and n\d began \d+ streams"):
        cluster.check()


def test_a_server_that_came_back_and_missed_the_last_news(cluster, monkeypatch):
    cluster.client(rate=20.0)
    cluster.run(2.0)
    catch_up = FsmRunner._catch_up
    monkeypatch.setattr(FsmRunner, "_catch_up", lambda runner, last: catch_up(runner, last - 1))

    with pytest.raises(Violation, match=r"latency: n\d came back, and has not applied entry \d+ after"):
        cluster.check()


def test_a_leader_that_refuses_commands_for_good(cluster, monkeypatch):
    monkeypatch.setattr(Transfers, "_clear", lambda transfers: setattr(transfers, "_deadline", inf))
    cluster.leader()

    with pytest.raises(Violation, match=r"I14: n\d could not hand over, and takes no commands any more"):
        cluster.check()


def end_at_work(cluster, *, half_applied):
    """Let the leader end with commands in its queue, or in the middle of applying some."""
    cluster.leader()
    draw = cluster.scheduler.random("end at work")
    draw.random = lambda: 0.0 if half_applied else 0.9
    cluster.scheduler.random = lambda name: draw
    cluster.judge.timekeeper.check_end_at_work()


@pytest.mark.parametrize("half_applied", [False, True])
def test_a_server_that_ends_at_work_answers_all(cluster, half_applied):
    end_at_work(cluster, half_applied=half_applied)

    assert not cluster.current_leader()


def test_commands_in_the_queue_that_nobody_answers_at_the_end(cluster, monkeypatch):
    close = ProposalQueue.close
    monkeypatch.setattr(ProposalQueue, "close", lambda queue, error: close(queue, error)[:0])

    with pytest.raises(Violation, match=r"I12: the shutdown of n\d left 6 futures"):
        end_at_work(cluster, half_applied=False)


def test_a_batch_at_hand_that_nobody_answers_at_the_end(cluster, monkeypatch):
    monkeypatch.setattr(FsmRunner, "_dispose", lambda runner, event: None)

    with pytest.raises(Violation, match=r"I12: the shutdown of n\d left \d futures"):
        end_at_work(cluster, half_applied=True)


def test_committed_commands_that_are_said_to_be_not_applied(cluster, monkeypatch):
    monkeypatch.setattr(fsm_runner, "RaftShutdownError", lambda outcome_unknown: RaftShutdownError())

    with pytest.raises(Violation, match=r"I11: .* failed as not applied, and is committed as entry \d+"):
        end_at_work(cluster, half_applied=True)


def test_a_removed_server_that_is_never_brought_up_to_date_again(monkeypatch):
    monkeypatch.setattr(Leader, "begin_catching_up", lambda leader, server: None)

    with (
        SimCluster(3, 6) as cluster,
        pytest.raises(Violation, match=r"I14: n\d removed n\d, and cannot add it again"),
    ):
        cluster.check()


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        (LateVotes, "holds the votes for"),
        (AskNewLeader, "asks who leads now"),
        (AskFormerLeader, "asks who has handed over"),
        (CutWithNonvoters, "left with nonvoters"),
        (DemotesItself, "demotes itself"),
        (ContradictingSnapshot, "sends a snapshot that contradicts"),
        (SnapshotInTheMiddle, "takes a snapshot in the middle"),
    ],
)
def test_a_trap_finds_its_moment(kind, moment, monkeypatch):
    noted = []
    monkeypatch.setattr(Plot, "note", lambda plot, *what: noted.append(what[0]))
    with SimCluster(5, 3, faults=[kind(0.5, 2.0)]) as cluster:
        cluster.client(rate=40.0)
        cluster.run(4.0)

    assert moment in noted


@pytest.mark.parametrize(
    "kind", (*TRAPS, *ELECTION_TRAPS, *MEMBER_TRAPS, *SNAPSHOT_TRAPS), ids=lambda kind: kind.name
)
def test_a_trap_leaves_a_cluster_that_works(kind):
    with SimCluster(5, 3, faults=[kind(0.5, 2.0)]) as cluster:
        cluster.client(rate=20.0)
        cluster.client(rate=1.0, burst=50)
        cluster.run(5.0)

        cluster.check()

        assert cluster.strikes
