"""A server with an empty disk: whom it must hear, how it begins, and when it has grown up."""

from dataclasses import replace

import pytest

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.rules.election import Ballot, LogPosition, Newborn, decide_vote, grants, would_vote
from pyraft.rules.membership import (
    UNKNOWN_TARGET,
    Standing,
    ballot_on_arrival,
    ballot_on_refusal,
    is_grown_up,
    voters_to_hear,
)

SIZES = range(1, 8)


def members(*ids, at=""):
    return Configuration.of_voters({id: f"{id}{at}" for id in ids})


@pytest.mark.parametrize("n", SIZES)
def test_whoever_a_promise_was_made_to_is_among_those_heard(n):
    others = {f"s{number}" for number in range(1, n)}

    assert voters_to_hear("s0", members("s0", *others), []).keys() == others


def test_voters_that_joined_later_are_heard_too_as_soon_as_anybody_tells_of_them():
    listed = members("s1", "s2", "s3")
    told = Standing(4, 90, members("s1", "s2", "s3", "s4"))

    assert voters_to_hear("s1", listed, [Standing(4, 80, listed), told]).keys() == {"s2", "s3", "s4"}


def test_a_voter_that_moved_is_looked_for_at_both_addresses():
    told = Standing(4, 90, members("s1", "s2", at="-new"))

    assert voters_to_hear("s1", members("s1", "s2"), [told]) == {"s2": {"s2", "s2-new"}}


def test_nonvoters_promise_nothing_and_need_not_be_heard():
    told = Standing(4, 90, Configuration((Server("s9", "s9", Suffrage.NONVOTER),)))

    assert voters_to_hear("s1", members("s1", "s2"), [told]).keys() == {"s2"}


def test_hearing_one_member_of_every_majority_would_not_be_enough():
    # y leads and has entry 100; x acknowledged it and was wiped; z, w and v end at 99.
    # They are a member of every majority, and know nothing of x's promise.
    ballot, _ = arrives(Standing(5, 99), Standing(5, 99), Standing(5, 99))
    without_y = is_grown_up(ballot.newborn, commit_index=99, commit_term=5)
    ballot, _ = arrives(Standing(5, 99), Standing(5, 99), Standing(5, 99), Standing(5, 100))
    with_y = is_grown_up(ballot.newborn, commit_index=99, commit_term=5)

    assert (without_y, with_y) == (True, False)


def arrives(*heard, own=Ballot()):  # noqa: B008  (a value)
    standings = {f"s{n}": standing for n, standing in enumerate(heard, 2)}
    return ballot_on_arrival(own, "s1", standings)


def test_where_nobody_holds_anything_a_cluster_is_begun():
    assert arrives(Standing(0, 0), Standing(0, 0)) == (Ballot(1, "s1"), True)


def test_a_bootstrap_entry_alone_is_no_history():
    assert arrives(Standing(1, 1), Standing(0, 0)) == (Ballot(1, "s1"), True)


def test_the_vote_of_the_highest_term_heard_is_spent_because_it_may_have_been_given():
    # Somebody stood in term 7, perhaps with our vote, and no entry was appended yet.
    ballot, is_new = arrives(Standing(1, 1), Standing(7, 1))

    assert is_new
    assert ballot == Ballot(7, "s1")


def test_where_somebody_is_past_the_bootstrap_entry_it_begins_as_a_newborn():
    ballot, is_new = arrives(Standing(3, 40), Standing(4, 12))

    assert not is_new
    assert ballot == Ballot(4, "s1", Newborn(term=4, target=40))


def test_a_peer_that_cannot_say_what_it_holds_still_says_by_its_term_whether_there_were_elections():
    assert arrives(Standing(1, None), Standing(0, None)) == (Ballot(1, "s1"), True)
    assert arrives(Standing(3, None), Standing(3, 9)) == (
        Ballot(3, "s1", Newborn(3, UNKNOWN_TARGET)),
        False,
    )


def test_a_server_that_is_alone_begins_at_once():
    assert arrives() == (Ballot(1, "s1"), True)


def test_it_never_goes_back_in_term():
    ballot, _ = arrives(Standing(3, 9), own=Ballot(8))

    assert ballot.term == 8


@pytest.mark.parametrize(
    ("commit_index", "commit_term", "grown_up"),
    [
        (39, 4, False),
        (40, 4, True),
        (41, 4, True),
        (12, 5, True),
        (12, 3, False),
        (40, 3, False),
    ],
    ids=[
        "one short of the target",
        "at the target",
        "past it",
        "an entry of a term that began after it came",
        "an entry of an older term",
        "an entry of an older term at the target: another may have been acknowledged there",
    ],
)
def test_when_it_has_grown_up(commit_index, commit_term, grown_up):
    assert is_grown_up(Newborn(term=4, target=40), commit_index, commit_term) is grown_up


NEW = Ballot(3, "s2")


@pytest.mark.parametrize(
    ("leader", "commit", "prev", "expected"),
    [
        (3, 0, LogPosition(1, 1), None),
        (3, 40, LogPosition(3, 60), Newborn(3, 40, LogPosition(3, 40))),
        (3, 40, LogPosition(2, 60), Newborn(3, 40, LogPosition(2, 60))),
        (3, 0, LogPosition(2, 60), Newborn(3, 0, LogPosition(2, 60))),
    ],
    ids=[
        "a new cluster",
        "a leader that has committed in its term",
        "one that has just been elected",
        "one that does not know its commit index",
    ],
)
def test_who_comes_empty_has_to_hold_what_its_leader_had_committed(leader, commit, prev, expected):
    ballot = ballot_on_refusal(NEW, True, leader, commit, prev)

    assert ballot == replace(NEW, newborn=expected)


def test_a_later_refusal_raises_what_it_has_to_hold_and_never_lowers_it():
    once = ballot_on_refusal(NEW, True, 3, 40, LogPosition(3, 60))

    assert ballot_on_refusal(once, False, 4, 30, LogPosition(3, 50)).newborn == Newborn(
        4, 40, LogPosition(3, 50)
    )
    assert ballot_on_refusal(once, False, 3, 20, LogPosition(2, 20)) == once


def test_a_server_that_lags_or_was_wiped_is_none_that_has_just_come():
    wiped = Ballot(3, "s2", Newborn(3, 9))

    assert ballot_on_refusal(NEW, False, 5, 40, LogPosition(4, 60)) == NEW
    assert ballot_on_refusal(wiped, True, 5, 40, LogPosition(4, 60)) == wiped


def test_who_has_joined_votes_for_those_whose_logs_reach_as_far():
    ballot = Ballot(4, None, Newborn(3, 40, LogPosition(2, 60)))
    nobody_known = Configuration()

    for last, granted in ((LogPosition(2, 59), False), (LogPosition(2, 60), True), (LogPosition(3, 1), True)):
        after = decide_vote(ballot, LogPosition(0, 0), nobody_known, "s3", 4, last)
        assert grants(after, "s3", 4) is granted
        assert would_vote(ballot, LogPosition(0, 0), nobody_known, "s3", 5, last) is granted
