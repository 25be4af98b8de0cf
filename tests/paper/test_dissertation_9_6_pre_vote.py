"""Dissertation §9.6: a server asks whether it would be elected before it raises its term."""

import pytest

from pyraft import RaftState
from pyraft.errors import TransportError, UnsupportedProtocolError
from pyraft.messages import RequestPreVoteRequest, RequestPreVoteResponse, RequestVoteRequest
from pyraft.rpc_handlers import on_append_entries, on_request_pre_vote
from pyraft.rules.election import Ballot, Newborn, would_vote
from pyraft.transport import InmemTransport
from tests.logs import end_of
from tests.nodes import S1_TO_S3, FailingStore, append_request, eventually, pre_vote_request, server, stage

IMPATIENT = dict(heartbeat_timeout=0.02, election_timeout=0.02, leader_lease_timeout=0.02)


@pytest.mark.parametrize(
    ("ballot", "own", "term", "candidate", "yes"),
    [
        (Ballot(3), "12", 4, "12", True),
        (Ballot(3), "12", 4, "122", True),
        (Ballot(3), "12", 4, "1", False),
        (Ballot(5), "12", 4, "12", False),
        (Ballot(4, "s3"), "12", 4, "12", True),
        (Ballot(3, None, Newborn(3, 9)), "", 4, "12", False),
    ],
    ids=[
        "an equal log",
        "a longer log",
        "a log that is behind",
        "a term that is over",
        "a vote is not spent by pre-voting",
        "a newborn says no",
    ],
)
def test_would_it_vote(ballot, own, term, candidate, yes):
    assert would_vote(ballot, end_of(own), S1_TO_S3, "s2", term, end_of(candidate)) is yes


def test_nobody_pre_votes_for_a_stranger():
    assert not would_vote(Ballot(3), end_of("1"), S1_TO_S3, "s9", 4, end_of("1"))


def test_pre_voting_changes_nothing_at_the_voter():
    store = FailingStore()
    node = server(term=3, store=store)
    store.writes.clear()

    answer = on_request_pre_vote(node, pre_vote_request(9, last=(0, 0)))

    assert answer.granted
    assert answer.term == 9  # the one asked about
    assert node.state.ballot == Ballot(3)
    assert node.state.last_contact is None
    assert store.writes == []


def test_a_refused_pre_vote_answers_in_the_voters_own_term():
    answer = on_request_pre_vote(server("12", term=7), pre_vote_request(3, last=(0, 0)))

    assert (answer.granted, answer.term) == (False, 7)


def test_nobody_pre_votes_while_it_hears_from_a_leader():
    node = server("1", term=2)
    on_append_entries(node, append_request(2, leader="s3"))

    assert not on_request_pre_vote(node, pre_vote_request(3, last=(1, 1))).granted

    node.runtime.at += node.config.heartbeat_timeout
    assert on_request_pre_vote(node, pre_vote_request(3, last=(1, 1))).granted


def test_a_server_that_nobody_would_elect_does_not_raise_its_term():
    with stage(votes=False, **IMPATIENT) as s:
        eventually(lambda: len(s.s2.received(RequestPreVoteRequest)) >= 3)

        assert s.raft.term == 1
        assert not s.s2.received(RequestVoteRequest)


def test_with_a_majority_of_pre_votes_it_stands_in_the_term_it_asked_about():
    with stage(**IMPATIENT) as s:
        eventually(lambda: s.raft.state is RaftState.LEADER)

        asked = s.s2.received(RequestPreVoteRequest)[-1]
        stood = s.s2.received(RequestVoteRequest)[-1]
        assert asked.term == stood.term == s.raft.term


def test_a_pre_vote_refused_from_a_larger_term_makes_the_server_catch_up():
    with stage(votes=False, **IMPATIENT) as s:
        s.s2.term = 9

        eventually(lambda: s.raft.term == 9)


def test_a_voter_that_does_not_know_pre_votes_counts_as_one_that_agrees():
    with stage(**IMPATIENT) as s:
        for old in (s.s2, s.s3):
            really = old.answer

            def answer(rpc, really=really):
                if isinstance(rpc.request, RequestPreVoteRequest):
                    rpc.respond(TransportError("unexpected command"))
                else:
                    really(rpc)

            old.answer = answer

        eventually(lambda: s.raft.state is RaftState.LEADER)


def test_a_voter_whose_transport_does_not_know_pre_votes_counts_as_one_that_agrees(monkeypatch):
    call = InmemTransport.call

    def as_of_an_older_version(self, peer, request, timeout):
        if isinstance(request, RequestPreVoteRequest):
            raise UnsupportedProtocolError("that server does not know this call")
        return call(self, peer, request, timeout)

    monkeypatch.setattr(InmemTransport, "call", as_of_an_older_version)
    with stage(**IMPATIENT) as s:
        eventually(lambda: s.raft.state is RaftState.LEADER)


def test_a_server_whose_pre_votes_are_granted_late_does_not_count_them_in_a_later_election():
    # s1 asks in term 2; the answers arrive as answers of another election and term.
    with stage(**IMPATIENT) as s:
        for peer in (s.s2, s.s3):
            really = peer.answer

            def answer(rpc, peer=peer, really=really):
                if isinstance(rpc.request, RequestPreVoteRequest):
                    rpc.respond(RequestPreVoteResponse(rpc.request.header, rpc.request.term - 1, True))
                else:
                    really(rpc)

            peer.answer = answer

        eventually(lambda: len(s.s2.received(RequestPreVoteRequest)) >= 3)

        assert not s.s2.received(RequestVoteRequest)
