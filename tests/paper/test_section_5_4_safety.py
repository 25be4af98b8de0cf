"""§5.4: who may lead, and what a leader may call committed."""

from itertools import combinations

import pytest

from pyraft.rpc_handlers import on_request_vote
from pyraft.rules.commitment import leader_commit_index
from pyraft.rules.election import Ballot, decide_vote, grants, is_elected, majority
from tests.logs import end_of
from tests.nodes import S1_TO_S3, S1_TO_S5, server, vote_request

# -- 5.4.1 election restriction --


@pytest.mark.parametrize(
    ("voter", "candidate", "granted"),
    [
        ("1", "2", True),
        ("111", "12", True),
        ("12", "111", False),
        ("12", "122", True),
        ("122", "12", False),
        ("12", "12", True),
        ("", "", True),
        ("1", "", False),
        ("", "1", True),
    ],
)
def test_5_4_1_the_later_last_term_is_more_up_to_date_and_then_the_longer_log(voter, candidate, granted):
    after = decide_vote(Ballot(3), end_of(voter), S1_TO_S3, "s2", 3, end_of(candidate))

    assert grants(after, "s2", 3) is granted


FIGURE_7_VOTERS = ["111445566", "1114", "11144556666", "111445566677", "1114444", "11122233333"]


def test_5_4_1_the_leader_of_figure_7_could_be_elected_by_a_b_e_f_and_itself():
    candidate = "1114455666"

    votes = [
        grants(decide_vote(Ballot(7), end_of(log), S1_TO_S3, "s2", 8, end_of(candidate)), "s2", 8)
        for log in FIGURE_7_VOTERS
    ]

    assert votes == [True, True, False, False, True, True]
    assert sum(votes) + 1 >= majority(7)


def test_5_4_1_the_handler_compares_with_the_log_as_it_is_not_with_what_is_committed():
    node = server("12", term=2)  # nothing of it is known to be committed

    assert not on_request_vote(node, vote_request(3, last=(1, 1))).granted
    assert on_request_vote(node, vote_request(4, last=(2, 2))).granted


# -- 5.4.2 committing entries from previous terms: Figure 8 --
#
# S1 to S5; index 2 was appended by S1 in term 2, by S5 in term 3.


def matched(**up_to):
    return {"s1": 0, "s2": 0, "s3": 0, "s4": 0, "s5": 0, **up_to}.values()


FIGURE_8 = {
    "a": {"s1": "12", "s2": "12", "s3": "1", "s4": "1", "s5": "1"},
    "b": {"s1": "12", "s2": "12", "s3": "1", "s4": "1", "s5": "13"},
    "c": {"s1": "124", "s2": "12", "s3": "12", "s4": "1", "s5": "13"},
    "d": {"s1": "13", "s2": "13", "s3": "13", "s4": "13", "s5": "13"},
    "e": {"s1": "124", "s2": "124", "s3": "124", "s4": "1", "s5": "13"},
}


def who_would_vote_for(candidate, logs):
    return {name for name, log in logs.items() if end_of(log) <= end_of(logs[candidate])}


def test_figure_8a_an_entry_on_a_minority_is_not_committed():
    assert leader_commit_index(1, matched(s1=2, s2=2, s3=1, s4=1, s5=1), first_of_term=2) == 1


def test_figure_8b_s5_can_be_elected_with_the_votes_of_s3_s4_and_its_own():
    logs = FIGURE_8["a"]  # as the logs are when it asks

    assert who_would_vote_for("s5", logs) == {"s3", "s4", "s5"}
    assert is_elected(S1_TO_S5, who_would_vote_for("s5", logs))


def test_figure_8c_copies_on_a_majority_do_not_commit_an_entry_of_an_older_term():
    # S1 leads term 4.  Its term-2 entry at index 2 is on S1, S2 and S3, yet S5 could still
    # win and overwrite it, as in (d).
    assert leader_commit_index(1, matched(s1=3, s2=2, s3=2, s4=1, s5=1), first_of_term=3) == 1


def test_figure_8d_s5_can_win_after_c_and_so_nothing_of_c_may_have_been_committed():
    logs = FIGURE_8["c"]

    supporters = who_would_vote_for("s5", {**logs, "s1": "12"})  # S1 crashed before it sent term 4

    assert {"s2", "s3", "s4", "s5"} <= supporters
    assert is_elected(S1_TO_S5, supporters)


def test_figure_8e_an_entry_of_its_own_term_commits_the_older_ones_before_it():
    assert leader_commit_index(1, matched(s1=3, s2=3, s3=3, s4=1, s5=1), first_of_term=3) == 3


def test_figure_8e_after_that_s5_cannot_be_elected_any_more():
    supporters = who_would_vote_for("s5", FIGURE_8["e"])

    assert supporters == {"s4", "s5"}
    assert not is_elected(S1_TO_S5, supporters)


def test_the_commit_index_never_goes_back():
    assert leader_commit_index(5, [1, 1, 1], first_of_term=1) == 5


@pytest.mark.parametrize(
    ("up_to", "committed"),
    [([7], 7), ([7, 5], 5), ([7, 5, 0], 5), ([7, 7, 5, 0], 5), ([9, 7, 5, 3, 1], 5)],
    ids=["one server", "two", "three", "four", "five"],
)
def test_committed_is_what_a_majority_of_the_voters_holds(up_to, committed):
    assert leader_commit_index(0, up_to, first_of_term=1) == committed


def test_without_voters_nothing_is_committed():
    assert leader_commit_index(3, [], first_of_term=1) == 3


# -- 5.4.3 the safety argument: Figure 9 --


@pytest.mark.parametrize("servers", [3, 4, 5])
def test_5_4_3_every_elected_server_got_a_vote_from_one_that_took_the_committed_entry(servers):
    # Figure 9: S1 (term T) commits a new entry; S5 is elected later (term U).
    names = [f"s{n}" for n in range(1, servers + 1)]
    size = majority(servers)

    for holders in combinations(names, size):
        for supporters in combinations(names, size):
            assert set(holders) & set(supporters)


@pytest.mark.parametrize("candidate", ["1", "11", "12", "13", "113"])
def test_5_4_3_the_voter_that_took_the_committed_entry_refuses_whoever_lacks_it(candidate):
    # The voter holds 1 1 3 3, of which index 4, term 3, is committed.
    node = server("1133", term=3)

    answer = on_request_vote(node, vote_request(9, last=(len(candidate), int(candidate[-1]))))

    assert not answer.granted
