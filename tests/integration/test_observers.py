"""What people and programs can watch: every kind of observation, ``status()`` and ``stats()``."""

from __future__ import annotations

import threading

import pytest

from pyraft import (
    ConfigError,
    Configuration,
    FailedHeartbeatObservation,
    LeaderObservation,
    Observer,
    PeerObservation,
    PeerState,
    RaftError,
    RaftState,
    ResumedHeartbeatObservation,
    Server,
    Suffrage,
)
from pyraft.configuration import encode_configuration
from pyraft.log import Log, LogType
from pyraft.messages import RequestPreVoteRequest, RequestVoteRequest
from tests.nodes import (
    PATIENCE,
    append_request,
    eventually,
    pre_vote_request,
    stage,
    vote_request,
    voters,
)


def watching(raft, *kinds, capacity=1000):
    """An observer of ``kinds`` on ``raft``."""
    observer = Observer(lambda seen: isinstance(seen, kinds), capacity)
    raft.register_observer(observer)
    return observer


def seen(observer, count):
    return [observer.get(PATIENCE) for _ in range(count)]


def test_every_change_of_role_is_observed_and_nothing_else_of_that_kind():
    with stage() as s:
        observer = watching(s.raft, RaftState)
        s.make_it_lead()
        s.s3.sends(append_request(s.raft.term + 1, leader="s3"))
        s.s3.sends(append_request(s.raft.term, leader="s3"))  # no change

        assert seen(observer, 3) == [RaftState.CANDIDATE, RaftState.LEADER, RaftState.FOLLOWER]
        s.raft.shutdown().result(PATIENCE)
        assert list(observer) in ([], [RaftState.SHUTDOWN])


def test_leaders_come_and_go():
    with stage() as s:
        observer = watching(s.raft, LeaderObservation)
        s.s2.sends(append_request(2, leader="s2"))
        s.s2.sends(append_request(2, leader="s2"))
        s.s3.sends(append_request(3, leader="s3"))

        assert seen(observer, 2) == [LeaderObservation("s2", "s2"), LeaderObservation("s3", "s3")]


def test_a_leader_that_falls_silent_is_nobodys_leader_any_more():
    with stage(votes=False, heartbeat_timeout=0.3, election_timeout=0.3, leader_lease_timeout=0.3) as s:
        observer = watching(s.raft, LeaderObservation)
        s.s2.sends(append_request(2, leader="s2"))

        assert seen(observer, 2) == [LeaderObservation("s2", "s2"), LeaderObservation(None, None)]


def test_a_vote_in_a_later_term_forgets_the_leader_of_the_one_before():
    # Nobody stands within the minutes: the vote itself must tell.
    with stage(heartbeat_timeout=600.0, election_timeout=600.0, leader_lease_timeout=600.0) as s:
        observer = watching(s.raft, LeaderObservation)
        s.s2.sends(append_request(2, leader="s2"))
        s.s3.sends(vote_request(3, last=(9, 2), candidate="s3", transfer=True))

        assert seen(observer, 2) == [LeaderObservation("s2", "s2"), LeaderObservation(None, None)]


def test_a_leader_that_steps_down_is_nobodys_leader_any_more():
    with stage() as s:
        s.make_it_lead()
        observer = watching(s.raft, LeaderObservation)
        s.s3.sends(vote_request(s.raft.term + 1, last=(99, 99), candidate="s3", transfer=True))

        assert seen(observer, 1) == [LeaderObservation(None, None)]


def test_a_leader_tells_whom_it_begins_and_ends_to_replicate_to():
    with stage(catch_up_rounds=0) as s:
        observer = watching(s.raft, PeerObservation)
        s.make_it_lead()
        assert seen(observer, 2) == [PeerObservation(Server("s2", "s2")), PeerObservation(Server("s3", "s3"))]

        s.raft.add_nonvoter("n4", "n4:1").result(PATIENCE)
        s.raft.remove_server("n4").result(PATIENCE)

        new = Server("n4", "n4:1", Suffrage.NONVOTER)
        assert seen(observer, 2) == [PeerObservation(new), PeerObservation(new, removed=True)]


def test_every_question_for_a_vote_is_observed_whatever_becomes_of_it():
    with stage() as s:
        observer = watching(s.raft, RequestVoteRequest, RequestPreVoteRequest)
        asked = [
            vote_request(2, last=(1, 1)),
            pre_vote_request(3, last=(1, 1), candidate="s3"),
            vote_request(9, last=(99, 9), candidate="s9"),  # a stranger
            vote_request(1, last=(1, 1), candidate="s3"),  # of an older term
        ]
        for request in asked:
            s.s2.sends(request)

        assert seen(observer, 4) == asked


def test_heartbeats_that_fail_and_are_answered_again():
    with stage(heartbeat_timeout=2.0, election_timeout=30.0, leader_lease_timeout=2.0) as s:
        failed = watching(s.raft, FailedHeartbeatObservation)
        resumed = watching(s.raft, ResumedHeartbeatObservation)
        s.make_it_lead()
        s.s3.mute = True

        first = failed.get(PATIENCE)
        assert first.peer_id == "s3"
        assert first.last_contact > 0
        s.s3.mute = False

        assert resumed.get(PATIENCE) == ResumedHeartbeatObservation("s3")
        s.raft.apply(b"x").result(PATIENCE)


def test_an_observer_that_nobody_reads_loses_the_newest_and_counts_them():
    with stage() as s:
        observer = watching(s.raft, RequestVoteRequest, capacity=2)
        later = watching(s.raft, RequestVoteRequest)
        asked = [vote_request(1, last=(0, 0), candidate=f"s{n}") for n in range(5)]
        for request in asked:
            s.s2.sends(request)
        assert seen(later, 5) == asked

        assert (observer.observed_total, observer.dropped_total) == (2, 3)
        assert seen(observer, 2) == asked[:2]


def test_a_filter_that_never_returns_holds_up_no_thread_of_the_server_but_the_one_for_observers():
    gate = threading.Event()
    with stage() as s:
        s.raft.register_observer(Observer(lambda seen: gate.wait(PATIENCE)))
        s.make_it_lead()
        assert s.raft.apply(b"a").result(PATIENCE) == b"A"
        gate.set()


def test_a_filter_that_raises_harms_nobody(caplog):
    with stage() as s:
        s.raft.register_observer(Observer(lambda seen: 1 / 0))
        good = watching(s.raft, LeaderObservation)
        s.s2.sends(append_request(2, leader="s2"))

        assert good.get(PATIENCE) == LeaderObservation("s2", "s2")
    assert "an observer's filter failed" in caplog.text


def test_an_observer_sees_what_happens_from_its_registration_until_its_end():
    with stage() as s:
        s.s2.sends(append_request(2, leader="s2"))
        observer = watching(s.raft, LeaderObservation)
        s.raft.register_observer(observer)  # twice is once
        s.s3.sends(append_request(3, leader="s3"))
        assert observer.get(PATIENCE) == LeaderObservation("s3", "s3")

        s.raft.deregister_observer(observer)
        s.raft.deregister_observer(observer)
        s.s2.sends(append_request(4, leader="s2"))

        assert list(observer) == []
        with pytest.raises(RaftError, match="not registered any more"):
            observer.get(0)
        s.raft.register_observer(observer)
        s.s3.sends(append_request(5, leader="s3"))
        assert observer.get(PATIENCE) == LeaderObservation("s3", "s3")


def test_what_is_no_observer_and_what_has_no_room_is_refused():
    with stage() as s, pytest.raises(ConfigError, match=r"make one with pyraft.Observer\(\)"):
        s.raft.register_observer(lambda seen: None)
    for capacity in (0, -1, "1", True):
        with pytest.raises(ConfigError, match="use at least 1"):
            Observer(capacity=capacity)
    with pytest.raises(RaftError, match=r"pass it to Raft.register_observer\(\) first"):
        Observer().get(0)
    with stage() as s:
        observer = watching(s.raft, LeaderObservation)
        with pytest.raises(TimeoutError, match="nothing was observed within 0 s"):
            observer.get(0)


def test_who_waits_for_an_observation_is_woken_by_the_end_of_the_server():
    with stage() as s:
        observer = watching(s.raft, PeerObservation)
        got = []
        thread = threading.Thread(target=lambda: got.extend(observer))
        thread.start()

        s.raft.shutdown().result(PATIENCE)

        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert got == []
        late = watching(s.raft, PeerObservation)
        assert list(late) == []


# -- who leads (hashicorp's LeaderCh) ----------------------------------------------------------


def test_only_the_latest_change_of_leadership_is_told():
    with stage() as s:
        changes = s.raft.leadership_changes()
        s.make_it_lead()
        assert changes.get(PATIENCE) is True
        s.s3.sends(append_request(s.raft.term + 1, leader="s3"))
        s.make_it_lead()

        assert changes.get(PATIENCE) is True  # lost and regained
        with pytest.raises(TimeoutError, match="did not change within 0 s"):
            changes.get(0)
        s.raft.shutdown().result(PATIENCE)
        assert changes.get(PATIENCE) is False
        with pytest.raises(RaftError, match="has stopped"):
            changes.get(PATIENCE)


def test_each_subscription_is_told_for_itself():
    with stage() as s:
        one, other = s.raft.leadership_changes(), s.raft.leadership_changes()
        s.make_it_lead()

        assert one.get(PATIENCE) is True
        assert other.get(PATIENCE) is True
        late = s.raft.leadership_changes()
        with pytest.raises(TimeoutError):
            late.get(0)


# -- stats and status --------------------------------------------------------------------------

HASHICORPS_KEYS = {
    "state",
    "term",
    "last_log_index",
    "last_log_term",
    "commit_index",
    "applied_index",
    "fsm_pending",
    "last_snapshot_index",
    "last_snapshot_term",
    "protocol_version",
    "protocol_version_min",
    "protocol_version_max",
    "snapshot_version_min",
    "snapshot_version_max",
    "latest_configuration",
    "latest_configuration_index",
    "num_peers",
    "last_contact",
}


def test_stats_has_exactly_hashicorps_keys_and_only_text():
    with stage() as s:
        for role in ("follower", "leader"):
            stats = s.raft.stats()
            assert set(stats) == HASHICORPS_KEYS, role
            assert all(isinstance(value, str) for value in stats.values()), role
            if role == "follower":
                assert (stats["state"], stats["last_contact"], stats["num_peers"]) == (
                    "Follower",
                    "never",
                    "2",
                )
                s.make_it_lead()
        assert (stats["state"], stats["last_contact"]) == ("Leader", "0")
        assert (stats["protocol_version_min"], stats["protocol_version_max"]) == ("2", "3")


def test_the_figures_of_stats_are_those_of_the_server():
    with stage() as s:
        s.make_it_lead()
        index = 0
        for _ in range(5):
            future = s.raft.apply(b"x")
            future.result(PATIENCE)
            index = future.index
        s.raft.barrier().result(PATIENCE)
        stats = s.raft.stats()

        assert stats["last_log_index"] == stats["commit_index"] == stats["applied_index"] == str(index + 1)
        assert stats["term"] == stats["last_log_term"] == str(s.raft.term)
        assert (stats["fsm_pending"], stats["last_snapshot_index"]) == ("0", "0")
        assert stats["latest_configuration"] == "[{VOTER s1 s1} {VOTER s2 s2} {VOTER s3 s3}]"
        assert stats["latest_configuration_index"] == "1"


def test_a_server_without_a_vote_counts_no_peers_and_says_when_it_heard_its_leader():
    with stage() as s:
        only_others = Configuration((Server("s1", "s1", Suffrage.NONVOTER), *voters("s2", "s3").servers))
        entry = Log(2, 2, LogType.CONFIGURATION, encode_configuration(only_others))
        s.s2.sends(append_request(2, prev=(1, 1), logs=[entry]))

        stats = s.raft.stats()
        assert stats["num_peers"] == "0"
        assert stats["last_contact"].endswith("s")
        assert 0 <= float(stats["last_contact"][:-1]) < PATIENCE


def test_status_tells_the_same_with_types_and_more():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"x").result(PATIENCE)
        s.raft.barrier().result(PATIENCE)
        eventually(lambda: s.s2.matched == s.s3.matched == s.raft.last_index, "both have it")
        eventually(lambda: all(p.match == s.raft.last_index for p in s.raft.status().peers.values()), "known")
        status = s.raft.status()

        assert (status.id, status.address, status.state) == ("s1", "s1", RaftState.LEADER)
        assert (status.leader_id, status.leader_address, status.last_contact) == ("s1", "s1", 0.0)
        assert status.last_index == status.commit_index == status.applied_index == s.raft.last_index
        assert (status.first_index, status.last_term, status.term) == (1, s.raft.term, s.raft.term)
        assert (status.snapshot_index, status.snapshot_term) == (0, 0)
        assert status.configuration == voters("s1", "s2", "s3")
        assert status.configuration_index == 1
        assert (status.proposals_waiting, status.proposals_waiting_bytes) == (0, 0)
        assert (status.uncommitted_entries, status.unapplied_entries) == (0, 0)
        assert status.failure is None
        for peer in status.peers.values():
            assert (peer.suffrage, peer.state) == (Suffrage.VOTER, PeerState.REPLICATE)
            assert (peer.next, peer.in_flight) == (status.last_index + 1, 0)


def test_status_counts_what_waits():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"x").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True
        for n in range(3):
            s.raft.apply(b"%d" % n)

        eventually(lambda: s.raft.status().uncommitted_entries == 3, "three wait for a majority")
        eventually(lambda: s.raft.status().peers["s2"].in_flight >= 1, "and are on their way")
        s.s2.let_go()
        eventually(lambda: s.raft.status().uncommitted_entries == 0, "committed")
