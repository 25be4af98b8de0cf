"""What the judges must say when an answer counts for too long, a waiter is forgotten, or the last news is lost."""

from __future__ import annotations

from math import inf

import pytest

from pyraft.fsm_runner import FsmRunner
from pyraft.roles.transfer import Transfers
from pyraft.sessions import Session
from pyraft.testing import SimCluster, Violation
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


@pytest.mark.parametrize("kind", TRAPS, ids=lambda kind: kind.name)
def test_a_trap_leaves_a_cluster_that_works(kind):
    with SimCluster(5, 3, faults=[kind(0.5, 2.0)]) as cluster:
        cluster.client(rate=20.0)
        cluster.client(rate=1.0, burst=50)
        cluster.run(5.0)

        cluster.check()

        assert cluster.strikes
