"""Members come, go, and change their suffrage, while commands are written."""

from __future__ import annotations

import pytest

from pyraft import (
    ConfigError,
    EnqueueTimeoutError,
    NotLeaderError,
    RaftState,
    Suffrage,
)
from tests.integration.clusters import PATIENCE, Cluster, config, eventually


@pytest.fixture
def cluster():
    with Cluster(settings=config(1.0)) as made:
        made.start()
        made.leader()
        yield made


def members_of(raft):
    return {server.id: server.suffrage for server in raft.get_configuration().configuration.servers}


def test_a_new_voter_has_caught_up_when_it_begins_to_count(cluster):
    cluster.write(20)
    new = cluster.join("n4")
    leader = cluster.leader()

    future = leader.raft.add_voter("n4", new.address, timeout=PATIENCE)
    future.result(PATIENCE)

    assert new.raft.last_index >= future.index - 1
    assert leader.raft.get_configuration().index == future.index
    assert members_of(leader.raft)["n4"] is Suffrage.VOTER
    cluster.write(3)
    cluster.check_nothing_lost()


def test_a_server_that_does_not_answer_never_becomes_a_voter(cluster):
    leader = cluster.leader()

    with pytest.raises(
        EnqueueTimeoutError, match=r"add_voter\('n9', 'n9.test:1'\) is refused.*Nothing has changed"
    ):
        leader.raft.add_voter("n9", "n9.test:1", timeout=0.3).result(PATIENCE)

    assert "n9" not in members_of(cluster.leader().raft)
    cluster.write(1)


def test_a_server_that_stays_away_is_given_up_without_a_timeout_too():
    with Cluster(["n1"], settings=config(0.05)) as made:
        leader = made.start().leader()

        with pytest.raises(EnqueueTimeoutError, match="it cannot be reached"):
            leader.raft.add_voter("n9", "n9.test:1").result(PATIENCE)


def test_without_rounds_a_voter_counts_at_once():
    with Cluster(["n1", "n2", "n3"], settings=config(catch_up_rounds=0)) as made:
        leader = made.start().leader()

        leader.raft.add_voter("n9", "n9.test:1").result(PATIENCE)

        assert members_of(leader.raft)["n9"] is Suffrage.VOTER


def test_a_nonvoter_gets_the_log_and_has_no_vote(cluster):
    new = cluster.join("n4")
    cluster.leader().raft.add_nonvoter("n4", new.address).result(PATIENCE)
    cluster.write(5)

    cluster.cut_off("n4")  # nobody needs it
    cluster.write(5)

    cluster.network.heal()
    cluster.check_nothing_lost()
    assert new.raft.state is RaftState.FOLLOWER


def test_a_nonvoter_becomes_a_voter_and_is_demoted_again(cluster):
    new = cluster.join("n4")
    leader = cluster.leader()
    leader.raft.add_nonvoter("n4", new.address).result(PATIENCE)

    leader.raft.add_voter("n4", new.address).result(PATIENCE)
    assert members_of(leader.raft)["n4"] is Suffrage.VOTER
    leader.raft.demote_voter("n4").result(PATIENCE)

    assert members_of(leader.raft)["n4"] is Suffrage.NONVOTER
    cluster.check_nothing_lost()


def test_a_removed_server_learns_it_and_disturbs_nobody(cluster):
    leader = cluster.leader()
    victim = cluster.followers(leader)[0]

    leader.raft.remove_server(victim.id).result(PATIENCE)

    eventually(lambda: victim.id not in members_of(victim.raft), "it knows that it was removed")
    others = [id for id in cluster.members if id != victim.id]
    term = leader.raft.term
    cluster.write(5, among=others)
    assert leader.raft.term == term


def test_a_leader_that_removes_itself_commits_it_and_shuts_down(cluster):
    leader = cluster.leader()
    cluster.write(3)

    leader.raft.remove_server(leader.id).result(PATIENCE)

    assert leader.raft.wait_stopped(PATIENCE)
    assert leader.raft.failure is None
    others = [id for id in cluster.members if id != leader.id]
    cluster.write(3, among=others)
    cluster.check_nothing_lost(*others)


def test_a_removed_leader_may_stay_as_a_follower_of_nobody():
    with Cluster(settings=config(shutdown_on_remove=False)) as made:
        leader = made.start().leader()

        leader.raft.remove_server(leader.id).result(PATIENCE)

        eventually(lambda: leader.raft.state is RaftState.FOLLOWER, "it follows")
        others = [id for id in made.members if id != leader.id]
        made.write(2, among=others)
        assert leader.raft.state is RaftState.FOLLOWER


def test_a_demoted_leader_steps_down_and_goes_on_following(cluster):
    leader = cluster.leader()

    leader.raft.demote_voter(leader.id).result(PATIENCE)

    others = [id for id in cluster.members if id != leader.id]
    cluster.write(3, among=others)
    cluster.check_nothing_lost()
    assert leader.raft.state is RaftState.FOLLOWER


def test_a_moved_server_keeps_its_identity():
    with Cluster() as made:
        made.start()
        leader = made.leader()
        moved = made.followers(leader)[0]
        made.stop(moved.id)
        assert made.network  # for its names
        moved.address = "elsewhere.test:1"

        leader.raft.add_voter(moved.id, moved.address).result(PATIENCE)
        made.start(moved.id)

        made.check_nothing_lost()
        assert leader.raft.get_configuration().configuration.find(moved.id).address == moved.address


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raft: raft.remove_server("n9"), "there is no server 'n9'"),
        (lambda raft: raft.demote_voter("n9"), "there is no server 'n9'"),
        (
            lambda raft: raft.add_voter("n9", raft.get_configuration().configuration.find("n1").address),
            "same address",
        ),
        (lambda raft: raft.add_voter("", "x:1"), "empty id"),
        (lambda raft: raft.add_nonvoter("n9", ""), "empty address"),
        (lambda raft: raft.add_nonvoter("n9", "n9:1", prev_index=999), r"since 999 \(latest is 1\)"),
    ],
)
def test_an_illegal_change_is_refused_with_its_reason(cluster, change, reason):
    leader = cluster.leader()

    with pytest.raises(ConfigError, match=reason):
        change(leader.raft).result(PATIENCE)

    assert leader.raft.get_configuration().index == 1


@pytest.mark.parametrize("change", ["remove_server", "demote_voter"])
def test_the_last_voter_stays(change):
    with Cluster(["n1"], settings=config(0.05)) as made:
        raft = made.start().leader().raft

        with pytest.raises(ConfigError, match="need at least one voter"):
            getattr(raft, change)("n1").result(PATIENCE)


def test_of_two_operators_who_decided_upon_the_same_configuration_one_wins(cluster):
    raft = cluster.leader().raft
    index = raft.get_configuration().index

    first = raft.add_nonvoter("n8", "n8:1", prev_index=index)
    second = raft.add_nonvoter("n9", "n9:1", prev_index=index)

    first.result(PATIENCE)
    with pytest.raises(ConfigError, match="configuration changed since 1"):
        second.result(PATIENCE)


def test_a_change_waits_its_turn_and_no_longer_than_its_timeout(cluster):
    leader = cluster.leader()
    cluster.lose_entries()  # so that the first change is never committed
    leader.raft.add_nonvoter("n8", "n8:1")

    with pytest.raises((EnqueueTimeoutError, NotLeaderError)):
        leader.raft.add_nonvoter("n9", "n9:1", timeout=0.05).result(PATIENCE)


def test_only_a_leader_takes_changes(cluster):
    follower = cluster.followers(cluster.leader())[0]

    with pytest.raises(NotLeaderError):
        follower.raft.remove_server("n1").result(PATIENCE)


def test_an_uncommitted_configuration_is_rolled_back_when_its_entry_is_replaced(cluster):
    cluster.write(1)  # before that no change is taken (dissertation §4.1)
    old = cluster.leader()
    cluster.cut_off(old.id)
    old.raft.add_nonvoter("n9", "n9:1")
    eventually(lambda: "n9" in members_of(old.raft), "in force as soon as it is in the log")
    others = [id for id in cluster.members if id != old.id]
    cluster.write(2, among=others)

    cluster.network.heal()

    eventually(lambda: "n9" not in members_of(old.raft), "rolled back")
    cluster.check_nothing_lost()
