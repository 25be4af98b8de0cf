"""Figure 2, RequestVote RPC: receiver steps 1 and 2, and what is on disk before the answer leaves."""

import pytest

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.errors import StorageError
from pyraft.roles.follower import Follower
from pyraft.rpc_handlers import answer_request, on_request_vote
from pyraft.rules.election import Ballot, LogPosition, Newborn, decide_vote, grants
from pyraft.state import load_ballot
from tests.logs import end_of
from tests.nodes import S1_TO_S3, FailingStore, restarted, server, vote_request


def decide(ballot, own_log, candidate, term, candidate_log, configuration=S1_TO_S3):
    return decide_vote(ballot, end_of(own_log), configuration, candidate, term, end_of(candidate_log))


# -- the rule --


def test_step_1_a_candidate_of_an_older_term_gets_no_vote_and_changes_nothing():
    ballot = Ballot(term=5)

    after = decide(ballot, "1", "s2", 4, "1")

    assert after == ballot
    assert not grants(after, "s2", 4)


def test_step_2_a_candidate_whose_log_is_up_to_date_gets_an_unspent_vote():
    after = decide(Ballot(5), "115", "s2", 5, "115")

    assert after == Ballot(5, "s2")
    assert grants(after, "s2", 5)


def test_step_2_a_vote_given_to_one_candidate_is_refused_to_every_other_in_that_term():
    after = decide(Ballot(5, "s2"), "1", "s3", 5, "11")

    assert after == Ballot(5, "s2")
    assert not grants(after, "s3", 5)


def test_step_2_the_same_candidate_gets_the_same_answer_again():
    after = decide(Ballot(5, "s2"), "1", "s2", 5, "1")

    assert grants(after, "s2", 5)


def test_step_2_a_candidate_whose_log_is_behind_is_refused_but_its_term_is_adopted():
    after = decide(Ballot(5), "12", "s2", 6, "1")

    assert after == Ballot(6)


def test_a_new_term_is_a_new_vote():
    after = decide(Ballot(5, "s2"), "1", "s3", 6, "1")

    assert after == Ballot(6, "s3")


def test_a_vote_of_one_term_grants_nothing_in_another():
    assert not grants(Ballot(5, "s2"), "s2", 4)
    assert not grants(Ballot(5, "s2"), "s2", 6)


@pytest.mark.parametrize("suffrage", [Suffrage.NONVOTER, Suffrage.STAGING])
def test_a_member_that_does_not_vote_cannot_be_voted_for_but_its_term_counts(suffrage):
    configuration = Configuration((Server("s1", "s1"), Server("s2", "s2", suffrage)))

    after = decide(Ballot(5), "1", "s2", 6, "1", configuration)

    assert after == Ballot(6)


def test_a_server_that_knows_no_configuration_yet_votes():
    after = decide(Ballot(), "", "s2", 1, "1", Configuration())

    assert grants(after, "s2", 1)


def test_a_newborn_adopts_the_term_stays_newborn_and_votes_for_nobody():
    newborn = Newborn(term=3, target=9)

    after = decide(Ballot(3, "s1", newborn), "", "s2", 4, "1")

    assert after == Ballot(4, None, newborn)


# -- the handler: decide, persist, reply --


def test_a_granted_vote_is_on_disk_before_the_answer_leaves():
    store = FailingStore()
    node = server(term=1, store=store)

    answer = on_request_vote(node, vote_request(2, last=(0, 0)))

    assert answer.granted
    assert load_ballot(store) == Ballot(2, "s2")


def test_a_vote_that_cannot_be_stored_is_not_answered_and_not_remembered():
    store = FailingStore()
    node = server(term=1, store=store)
    store.error = OSError("disk on fire")

    with pytest.raises(StorageError):
        on_request_vote(node, vote_request(2, last=(0, 0)))

    assert node.state.ballot == Ballot(1)


def test_after_a_crash_the_vote_still_holds():
    store = FailingStore()
    on_request_vote(server(store=store, term=1), vote_request(2, last=(0, 0), candidate="s2"))

    again = restarted(server(store=store), store)

    assert on_request_vote(again, vote_request(2, last=(0, 0), candidate="s2")).granted
    assert not on_request_vote(again, vote_request(2, last=(0, 0), candidate="s3")).granted


def test_a_refusal_that_changes_nothing_writes_nothing():
    store = FailingStore()
    node = server(term=5, store=store)
    written = list(store.writes)

    answer = on_request_vote(node, vote_request(4, last=(9, 4)))

    assert (answer.granted, answer.term) == (False, 5)
    assert store.writes == written


def test_the_answer_carries_the_term_that_the_candidate_must_catch_up_with():
    answer = answer_request(server("11", term=7), vote_request(3, last=(2, 1)))

    assert answer.term == 7


def last_news(node):
    """The instant from which this server, as a follower, counts its patience."""
    return Follower(node)._election_at()


def test_a_granted_vote_gives_the_candidate_time_to_win():
    node = server(term=1)
    node.state.last_contact = node.runtime.at - 60

    on_request_vote(node, vote_request(2, last=(0, 0)))

    assert last_news(node) == node.runtime.at


def test_a_refused_vote_gives_nobody_time():
    node = server("12", term=2)
    node.state.last_contact = heard = node.runtime.at - 60

    on_request_vote(node, vote_request(3, last=(1, 1)))

    assert last_news(node) == heard


def test_a_candidate_that_sends_no_id_is_known_by_its_address():
    node = server(term=1)
    request = vote_request(2, last=(0, 0))
    nameless = type(request)(type(request.header)("", "s2"), 2, 0, 0)

    assert on_request_vote(node, nameless).granted
    assert node.state.ballot == Ballot(2, "s2")


def test_positions_compare_by_term_first_and_length_second():
    assert LogPosition(term=1, index=9) < LogPosition(term=2, index=1) < LogPosition(term=2, index=2)
