"""Leadership is handed over, asked for, proved, and watched."""

from __future__ import annotations

from math import inf

import pytest

from pyraft import (
    ConfigError,
    LeaderObservation,
    LeadershipTransferInProgressError,
    NotLeaderError,
    NotVoterError,
    Observer,
    RaftState,
    ReadTimeoutError,
    TransferFailedError,
)
from tests.integration.clusters import ALONE, PATIENCE, Cluster, Gated, config, eventually
from tests.nodes import append_request, stage


@pytest.fixture
def cluster():
    with Cluster(settings=config(0.5)) as made:
        made.start()
        made.leader()
        yield made


# -- transfer (dissertation §3.10) --


@pytest.mark.parametrize("named", [True, False])
def test_leadership_is_handed_over_and_nothing_is_lost(cluster, named):
    cluster.write(10)
    old = cluster.leader()
    target = cluster.followers(old)[0] if named else None

    old.raft.leadership_transfer(target and target.id).result(PATIENCE)

    new = cluster.leader()
    assert new is not old
    assert target in (None, new)
    cluster.check_nothing_lost()


def test_a_target_that_lags_is_brought_up_to_date_first(cluster):
    old = cluster.leader()
    target = cluster.followers(old)[0]
    cluster.network.drop(dst=target.address, when=lambda message: bool(getattr(message, "entries", ())))
    cluster.write(5)

    future = old.raft.leadership_transfer(target.id)
    with pytest.raises(LeadershipTransferInProgressError):
        old.raft.apply(b"meanwhile").result(PATIENCE)
    with pytest.raises(LeadershipTransferInProgressError):
        old.raft.leadership_transfer().result(PATIENCE)
    cluster.network.heal()

    future.result(PATIENCE)
    assert cluster.leader() is target
    cluster.check_nothing_lost()
    assert b"meanwhile" not in target.fsm.applied


def test_a_dead_target_ends_the_transfer_and_the_leader_goes_on(cluster):
    old = cluster.leader()
    target = cluster.followers(old)[0]
    cluster.cut_off(target.id)
    cluster.write(1, among=[old.id])

    with pytest.raises(TransferFailedError, match=f"{target.id} did not catch up in time"):
        old.raft.leadership_transfer(target.id).result(PATIENCE)

    cluster.write(1)


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("self", ConfigError, "to itself"),
        ("n9", ConfigError, "not a member"),
        ("n4", NotVoterError, "not a voter"),
    ],
)
def test_who_cannot_lead_is_refused(cluster, target, error, text):
    leader = cluster.leader()
    leader.raft.add_nonvoter("n4", "n4:1").result(PATIENCE)

    with pytest.raises(error, match=text):
        leader.raft.leadership_transfer(leader.id if target == "self" else target).result(PATIENCE)

    assert leader.raft.state is RaftState.LEADER


def test_a_server_that_is_alone_has_nobody_to_hand_over_to():
    with Cluster(["n1"], settings=config(0.05)) as made, pytest.raises(ConfigError, match="no other voter"):
        made.start().leader().raft.leadership_transfer().result(PATIENCE)


def test_a_follower_cannot_hand_over(cluster):
    follower = cluster.followers(cluster.leader())[0]

    with pytest.raises(NotLeaderError):
        follower.raft.leadership_transfer().result(PATIENCE)


# -- campaign --


def test_a_server_stands_at_once_when_asked_and_its_leader_stays_with_pre_votes(cluster):
    leader = cluster.leader()
    follower = cluster.followers(leader)[0]

    follower.raft.campaign().result(PATIENCE)
    leader.raft.campaign().result(PATIENCE)

    cluster.write(1)


def test_a_nonvoter_does_not_stand(cluster):
    new = cluster.join("n4")
    with pytest.raises(NotVoterError, match="knows no cluster"):
        new.raft.campaign().result(PATIENCE)
    cluster.leader().raft.add_nonvoter("n4", new.address).result(PATIENCE)
    cluster.write(1)
    eventually(lambda: new.raft.applied_index > 1, "it follows")

    with pytest.raises(NotVoterError, match="not a voter"):
        new.raft.campaign().result(PATIENCE)


# -- proof of leadership, and reads (dissertation §6.4) --


def test_a_leader_proves_that_it_leads_and_a_follower_cannot(cluster):
    leader = cluster.leader()

    leader.raft.verify_leader().result(PATIENCE)

    with pytest.raises(NotLeaderError):
        cluster.followers(leader)[0].raft.verify_leader().result(PATIENCE)


def test_a_leader_that_is_cut_off_cannot_prove_it(cluster):
    leader = cluster.leader()
    cluster.cut_off(leader.id)

    with pytest.raises(NotLeaderError):
        leader.raft.verify_leader().result(PATIENCE)


def test_the_answers_of_nonvoters_prove_nothing(cluster):
    leader = cluster.leader()
    for id in ("n4", "n5"):
        new = cluster.join(id)
        leader.raft.add_nonvoter(id, new.address).result(PATIENCE)
    cluster.cut_off_together(leader.id, "n4", "n5")

    with pytest.raises(NotLeaderError):
        leader.raft.verify_leader().result(PATIENCE)


def test_a_read_sees_every_write_acknowledged_before_it_on_any_member(cluster):
    new = cluster.join("n4")
    cluster.leader().raft.add_nonvoter("n4", new.address).result(PATIENCE)
    for round in range(5):
        cluster.write(3)
        for member in cluster.members.values():
            index = member.raft.read_index(PATIENCE).result(PATIENCE)
            assert member.raft.applied_index >= index
            assert member.fsm.applied[-1] == cluster.acknowledged[-1], (round, member.id)


def test_a_frozen_old_leader_answers_no_read(cluster):
    old = cluster.leader()
    cluster.cut_off(old.id)

    with pytest.raises(ReadTimeoutError):
        old.raft.read_index(0.3).result(PATIENCE)


def test_a_read_goes_on_through_an_election(cluster):
    old = cluster.leader()
    follower = cluster.followers(old)[0]
    cluster.write(2)
    cluster.cut_off(old.id)

    index = follower.raft.read_index(PATIENCE).result(PATIENCE)

    assert follower.raft.applied_index >= index
    assert follower.fsm.applied[-1] == cluster.acknowledged[-1]


@pytest.mark.parametrize("leads", [True, False])
def test_a_read_ends_in_time_while_nobody_answers(leads):
    with stage(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=600.0) as s:
        if leads:
            s.make_it_lead()
            s.raft.apply(b"a").result(PATIENCE)
        else:
            s.s2.sends(append_request(2))
        s.s2.mute = s.s3.mute = True

        with pytest.raises(ReadTimeoutError):
            s.raft.read_index(timeout=0.05).result(PATIENCE)


def test_a_read_ends_in_time_while_the_fsm_is_busy():
    with Cluster(["n1"], settings=config(ALONE), fsm=Gated) as cluster:
        raft = cluster.start().leader().raft
        raft.apply(b"busy")
        assert cluster.members["n1"].fsm.inside.wait(PATIENCE)

        with pytest.raises(ReadTimeoutError):
            raft.read_index(timeout=0.2).result(PATIENCE)


def test_a_read_with_little_time_does_not_wait_for_the_end_of_an_earlier_question():
    with stage(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=600.0) as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.mute = s.s3.mute = True
        patient = s.raft.read_index()
        eventually(lambda: s.raft._node.context.leadership.asked_at < inf, "the question is under way")

        with pytest.raises(ReadTimeoutError):
            s.raft.read_index(timeout=0.05).result(PATIENCE)

        assert not patient.done()


def test_reads_end_with_the_server(cluster):
    follower = cluster.followers(cluster.leader())[0]
    cluster.cut_off(follower.id)
    future = follower.raft.read_index()

    cluster.stop(follower.id)

    assert "RaftShutdownError" in type(future.exception(PATIENCE)).__name__


# -- watching --


def test_a_subscription_tells_the_latest_change_only(cluster):
    old = cluster.leader()
    changes = old.raft.leadership_changes()
    with pytest.raises(TimeoutError):
        changes.get(timeout=0.01)

    old.raft.leadership_transfer().result(PATIENCE)
    assert changes.get(PATIENCE) is False
    cluster.leader().raft.leadership_transfer(old.id).result(PATIENCE)
    assert changes.get(PATIENCE) is True

    cluster.stop(old.id)
    assert list(changes) in ([], [False])


def test_observers_see_leaders_come_and_go_and_a_full_one_counts_what_it_loses(cluster):
    leader = cluster.leader()
    follower = cluster.followers(leader)[0]
    observer = Observer(lambda seen: isinstance(seen, LeaderObservation))
    tiny = Observer(capacity=1)
    follower.raft.register_observer(observer)
    follower.raft.register_observer(tiny)

    leader.raft.leadership_transfer(cluster.followers(leader)[1].id).result(PATIENCE)

    eventually(lambda: observer.observed_total, "it saw the new leader")
    assert isinstance(observer.get(PATIENCE), LeaderObservation)
    eventually(lambda: tiny.dropped_total, "it was full")
    follower.raft.deregister_observer(observer)
    cluster.stop(follower.id)
    assert all(isinstance(seen, LeaderObservation) for seen in observer)


def test_the_status_of_a_leader_tells_how_far_its_peers_are(cluster):
    cluster.write(3)
    leader = cluster.leader()
    behind = cluster.followers(leader)[0]
    cluster.cut_off(behind.id)
    cluster.write(3, among=[leader.id])

    status = leader.raft.status()

    assert status.state is RaftState.LEADER
    assert set(status.peers) == {member.id for member in cluster.followers(leader)}
    assert status.peers[behind.id].match < status.last_index
    eventually(lambda: str(leader.raft.status().peers[behind.id].state) == "probe", "it is asked again")
    assert cluster.followers(leader)[1].raft.status().peers == {}
