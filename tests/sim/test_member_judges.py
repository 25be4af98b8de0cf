"""The judges of members, transfers and reads report bugs that are planted."""

from __future__ import annotations

import pytest

from pyraft.config import Config
from pyraft.configuration import Configuration, Server
from pyraft.fsm_runner import FsmRunner
from pyraft.roles import membership_changes
from pyraft.roles.leader import Leader
from pyraft.roles.read_rounds import ReadRounds
from pyraft.roles.transfer import Transfers
from pyraft.rules.membership import Configurations
from pyraft.testing import SimCluster, Violation
from pyraft.testing.asking import ask
from pyraft.testing.member_faults import AskAtThaw
from pyraft.testing.punctuality import Timekeeper
from pyraft.testing.question_watch import Kind
from pyraft.testing.sim_kv import encode_command

QUICK = Config(heartbeat_timeout=0.2, election_timeout=0.2, leader_lease_timeout=0.1)
PUT = encode_command("x", ("put", "1"))


@pytest.fixture
def cluster():
    with SimCluster(3, 1, config=QUICK) as cluster:
        cluster.apply(PUT)
        yield cluster


def on(server, kind, cluster, question, target=None):
    """Let ``question`` be asked in the cluster's time."""
    cluster.scheduler.spawn("asker", lambda: ask(cluster, server, kind, question, 3.0, target))


def replace_leader(cluster):
    """(the old one, which is cut off, the new one)."""
    old = cluster.leader()
    cluster.partition([old])
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    return old, cluster.leader()


def condemned(cluster, promise, text, seconds=3.0):
    with pytest.raises(Violation, match=f"^{promise}: .*{text}"):
        cluster.run(seconds)


def trust_itself(rounds):
    asked, rounds._asked = rounds._asked, []
    for one in asked:
        one.answer(one.commit)


@pytest.mark.parametrize(
    ("kind", "question", "text"),
    [
        (Kind.READ, lambda raft: raft.read_index(3), "was committed before it was asked"),
        (Kind.VERIFY, lambda raft: raft.verify_leader(), "had left it"),
    ],
)
def test_a_leader_that_asks_nobody_whether_it_leads(cluster, monkeypatch, kind, question, text):
    monkeypatch.setattr(ReadRounds, "look", trust_itself)
    monkeypatch.setattr(Leader, "_check_lease", lambda leader: None)
    monkeypatch.setattr(Timekeeper, "tick", lambda timekeeper: None)  # the lease has a judge of its own
    old, _ = replace_leader(cluster)
    cluster.apply(PUT)

    on(old, kind, cluster, question)

    condemned(cluster, "I13", text)


def test_a_read_that_does_not_wait_for_the_state_machine(cluster, monkeypatch):
    def at_once(runner, index, futures):
        for future in futures:
            (future[0] if isinstance(future, tuple) else future).try_set_result(index)

    monkeypatch.setattr(FsmRunner, "read_at", at_once)
    leader = cluster.leader()
    slow = next(server for server in cluster.servers.values() if server is not leader)
    slow.fsm_delay = 1.0
    cluster.apply(PUT)

    on(slow, Kind.READ, cluster, lambda raft: raft.read_index(3))

    condemned(cluster, "I13", "its FSM has not got")


def test_a_transfer_that_succeeds_when_the_target_was_told(cluster, monkeypatch):
    def tell(transfers, target):
        transfers._node.notifier.resolve(transfers._future)

    monkeypatch.setattr(Transfers, "_tell", tell)
    leader = cluster.leader()
    target = next(id for id in cluster.servers if id != leader.id)

    on(leader, Kind.TRANSFER, cluster, lambda raft: raft.leadership_transfer(target), target)

    condemned(cluster, "transfer", f"handed over to {target}")


def test_two_changes_under_way(cluster, monkeypatch):
    monkeypatch.setattr(Leader, "can_change", lambda leader: True)
    leader = cluster.leader()
    cluster.partition([leader])

    leader.raft.add_nonvoter("n8", "n8:1")
    leader.raft.add_nonvoter("n9", "n9:1")

    condemned(cluster, "I10", "before 4 is committed")


def test_a_change_before_an_entry_of_the_term_is_committed(cluster, monkeypatch):
    monkeypatch.setattr(Leader, "can_change", lambda leader: True)
    monkeypatch.setattr(Leader, "_advance_commit", lambda leader: None)
    _, new = replace_leader(cluster)

    new.raft.add_nonvoter("n9", "n9:1")

    condemned(cluster, "I10", "has committed no entry of it")


def test_a_change_of_two_voters_at_once(cluster, monkeypatch):
    def twice(current, index, change):
        return Configuration((*current.servers, Server("n8", "n8:1"), Server("n9", "n9:1")))

    monkeypatch.setattr(membership_changes, "next_configuration", twice)

    cluster.leader().raft.add_nonvoter("n8", "n8:1")

    condemned(cluster, "I10", "changes n8, n9 at once")


def test_a_configuration_that_is_not_rolled_back(cluster, monkeypatch):
    monkeypatch.setattr(Configurations, "with_truncation", lambda configurations, first: configurations)
    old = cluster.leader()
    cluster.partition([old])
    old.raft.add_nonvoter("n9", "n9:1")
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    cluster.apply(PUT)

    cluster.heal()

    condemned(cluster, "I10", "goes by configuration .* and its log says")


def test_a_candidate_that_goes_by_another_configuration_than_its_log(cluster):
    leader = cluster.leader()

    cluster.judge._members.stands(leader.id, cluster.judge.seen(leader.id), Configuration())

    condemned(cluster, "I10", "goes by .* and its log says")


def test_a_leader_that_stays_in_office_without_a_vote(cluster, monkeypatch):
    monkeypatch.setattr(Leader, "_configuration_committed", Leader.end_strangers)
    leader = cluster.leader()

    leader.raft.remove_server(leader.id)

    condemned(cluster, "lease", "has committed that it votes no more")


def test_a_member_without_a_vote_that_leads(cluster):
    leader = cluster.leader()
    server = next(server for server in cluster.servers.values() if server is not leader)
    leader.raft.demote_voter(server.id).result(5)
    cluster.run(1)

    cluster.judge._elected(server, cluster.judge.seen(server.id), 99)

    condemned(cluster, "I1", "no vote by its own log", 0.001)


@pytest.mark.parametrize("is_broken", [False, True], ids=["as it is", "a leader that asks nobody"])
def test_askers_at_a_thaw_meet_leaders_that_lead_no_more(monkeypatch, is_broken):
    if is_broken:
        monkeypatch.setattr(ReadRounds, "look", trust_itself)
    with SimCluster(3, 1, config=QUICK, faults=[AskAtThaw(0.5, 3.0)]) as cluster:
        cluster.client(rate=20)
        if is_broken:
            condemned(cluster, "I13", "", 6)
        else:
            cluster.run(6)
            cluster.check()
            assert cluster.judge.coverage["leadership not confirmed"] > 3
