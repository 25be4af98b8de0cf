"""§5.2: elections, split votes, randomized timeouts; Figure 2, Rules for Servers (followers, candidates)."""

import random
import time

import pytest

from pyraft import RaftState
from pyraft.messages import AppendEntriesRequest, RequestPreVoteRequest, RequestVoteRequest
from pyraft.rpc_handlers import on_append_entries, on_request_vote
from pyraft.rules.election import is_elected
from pyraft.rules.timing import heartbeat_interval, randomized
from tests.nodes import (
    S1_TO_S5,
    append_request,
    eventually,
    server,
    stage,
    vote_request,
)

IMPATIENT = dict(heartbeat_timeout=0.02, election_timeout=0.02, leader_lease_timeout=0.02)


# -- who wins --


@pytest.mark.parametrize(
    ("votes", "wins"), [({"s1"}, False), ({"s1", "s2"}, False), ({"s1", "s2", "s3"}, True)], ids=str
)
def test_a_candidate_wins_with_the_votes_of_a_majority(votes, wins):
    assert is_elected(S1_TO_S5, votes) is wins


def test_votes_of_strangers_count_for_nothing():
    assert not is_elected(S1_TO_S5, {"s1", "s2", "s8", "s9"})


def test_a_cluster_without_voters_elects_nobody():
    assert not is_elected(type(S1_TO_S5)(), {"s1"})


def test_the_same_voter_answering_twice_is_one_vote():
    # Five servers, and only s2 grants: however often it says so, two votes are no majority.
    with stage(("s2", "s3", "s4", "s5"), **IMPATIENT) as s:
        for silent in (s.s3, s.s4, s.s5):
            silent.mute = True

        eventually(lambda: len(s.s2.received(RequestPreVoteRequest)) >= 3)

        assert s.raft.state is not RaftState.LEADER
        assert not s.s2.received(RequestVoteRequest)


# -- randomized timeouts, split votes --


def test_an_election_timeout_is_drawn_from_a_fixed_interval_anew_each_time():
    rng = random.Random(5)

    drawn = [randomized(0.15, rng) for _ in range(1000)]

    assert all(0.15 <= seconds < 0.30 for seconds in drawn)
    assert len(set(drawn)) == 1000
    assert min(drawn) < 0.16
    assert max(drawn) > 0.29


def test_servers_draw_different_timeouts():
    one, other = random.Random("s1"), random.Random("s2")

    assert [randomized(1, one) for _ in range(5)] != [randomized(1, other) for _ in range(5)]


def test_a_follower_is_sent_several_heartbeats_within_its_patience():
    rng = random.Random(1)

    assert all(0.1 <= heartbeat_interval(1.0, rng) <= 0.2 for _ in range(1000))


def test_a_follower_that_hears_from_nobody_stands_for_election():
    with stage(**IMPATIENT) as s:
        eventually(lambda: s.raft.state is RaftState.LEADER)

        asked = s.s2.received(RequestVoteRequest)[0]
        assert asked.term == 2  # the bootstrap entry is of term 1
        assert asked.last_log_index == 1


def test_a_candidate_raises_its_term_and_has_voted_for_itself_before_it_asks():
    with stage(pre_vote=False, votes=False, **IMPATIENT) as s:
        eventually(lambda: s.s2.received(RequestVoteRequest))

        ballot = s.raft._state.ballot
        assert ballot.voted_for == "s1"
        assert ballot.term >= s.s2.received(RequestVoteRequest)[0].term == 2


def test_a_split_vote_ends_with_a_new_election_in_a_new_term():
    with stage(pre_vote=False, votes=False, **IMPATIENT) as s:
        eventually(lambda: len({request.term for request in s.s2.received(RequestVoteRequest)}) >= 3)

        s.s3.votes = True

        eventually(lambda: s.raft.state is RaftState.LEADER)
        terms = [request.term for request in s.s2.received(RequestVoteRequest)]
        assert terms == sorted(terms)


def test_a_candidate_that_hears_from_a_leader_of_its_term_follows_it():
    with stage(
        votes=False, election_timeout=60.0, heartbeat_timeout=0.02, leader_lease_timeout=0.02, pre_vote=False
    ) as s:
        eventually(lambda: s.raft.state is RaftState.CANDIDATE and s.raft.term == 2)

        answer = s.s3.sends(append_request(2, leader="s3"))

        assert answer.success
        assert s.raft.leader_id == "s3"


def test_a_candidate_refuses_a_leader_of_an_older_term_and_remains_candidate():
    with stage(
        votes=False, election_timeout=60.0, heartbeat_timeout=0.02, leader_lease_timeout=0.02, pre_vote=False
    ) as s:
        eventually(lambda: s.raft.state is RaftState.CANDIDATE and s.raft.term == 2)

        answer = s.s3.sends(append_request(1, leader="s3"))

        assert (answer.success, answer.term) == (False, 2)
        assert s.raft.state is RaftState.CANDIDATE


def test_a_candidate_that_learns_of_a_larger_term_gives_up_and_adopts_it():
    with stage(
        votes=False, election_timeout=60.0, heartbeat_timeout=0.02, leader_lease_timeout=0.02, pre_vote=False
    ) as s:
        s.s2.term = s.s3.term = 9

        eventually(lambda: s.raft.term >= 9)

        # It stands again later, in a term that nobody has seen yet.
        eventually(lambda: any(request.term > 9 for request in s.s2.received(RequestVoteRequest)))


def test_a_follower_that_hears_heartbeats_stays_a_follower():
    with stage(heartbeat_timeout=0.3, election_timeout=0.3, leader_lease_timeout=0.3) as s:
        s.s2.sends(append_request(5))
        began = heard = time.monotonic()

        while heard - began < 0.7:  # more than the longest patience
            accepted = s.s2.sends(append_request(5)).success
            before, heard = heard, time.monotonic()
            if heard - before > 0.25:
                pytest.skip("this machine is too busy to send heartbeats in time")
            assert accepted

        assert not s.s3.received(RequestPreVoteRequest)


# -- leaders --


def test_a_new_leader_speaks_at_once_so_that_nobody_else_stands():
    with stage() as s:
        s.make_it_lead()

        for peer in (s.s2, s.s3):
            eventually(lambda peer=peer: any(r.is_heartbeat for r in peer.received(AppendEntriesRequest)))
        assert {r.term for r in s.s3.received(AppendEntriesRequest)} == {s.raft.term}


def test_a_leader_that_is_answered_from_a_larger_term_steps_down():
    with stage() as s:
        s.make_it_lead()
        term = s.raft.term

        s.s2.term = term + 3
        s.raft.apply(b"x")

        eventually(lambda: s.raft.state is RaftState.FOLLOWER)
        assert s.raft.term == term + 3


def test_a_leader_that_hears_from_a_leader_of_a_later_term_follows_it():
    with stage() as s:
        s.make_it_lead()
        later = s.raft.term + 1

        answer = s.s3.sends(append_request(later, leader="s3"))

        assert answer.success
        assert (s.raft.state, s.raft.leader_id, s.raft.term) == (RaftState.FOLLOWER, "s3", later)


def test_a_server_of_a_single_voter_cluster_elects_itself():
    with stage((), **IMPATIENT) as s:
        eventually(lambda: s.raft.state is RaftState.LEADER)

        assert s.raft.apply(b"alone").result(30) == b"ALONE"


# -- what a vote says about leaders --


def test_whoever_votes_in_a_new_term_no_longer_names_the_leader_of_the_old_one():
    node = server("1", term=1, configuration=S1_TO_S5)
    on_append_entries(node, append_request(1, leader="s2"))
    node.runtime.at += 60  # s2 fell silent

    assert on_request_vote(node, vote_request(2, last=(1, 1), candidate="s3")).granted

    assert node.state.leader is None


def test_a_vote_for_a_candidate_that_fails_does_not_protect_the_silent_old_leader():
    # s3 got our vote and lost.  s4 stands soon after: nobody leads, so it must be heard.
    node = server("1", term=1, configuration=S1_TO_S5)
    on_append_entries(node, append_request(1, leader="s2"))
    node.runtime.at += 60
    on_request_vote(node, vote_request(2, last=(1, 1), candidate="s3"))
    node.runtime.at += 0.1

    assert on_request_vote(node, vote_request(3, last=(1, 1), candidate="s4")).granted
