"""Figure 3: the five properties that Raft guarantees at all times, as far as rules can show them."""

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyraft.errors import CorruptStoreError
from pyraft.rpc_handlers import on_append_entries, on_request_vote
from pyraft.rules.commitment import leader_commit_index
from pyraft.rules.election import is_elected, majority
from tests.logs import end_of, entries, terms
from tests.nodes import append_request, restarted, server, vote_request, voters

NAMES = ["s1", "s2", "s3", "s4", "s5", "s6", "s7"]


# -- Election Safety: at most one leader can be elected in a given term --


@pytest.mark.parametrize("count", range(1, 8))
def test_election_safety_any_two_majorities_share_a_server_and_no_smaller_groups_do(count):
    servers = range(count)
    size = majority(count)

    assert all(set(a) & set(b) for a in combinations(servers, size) for b in combinations(servers, size))
    assert any(
        not set(a) & set(b) for a in combinations(servers, size - 1) for b in combinations(servers, size - 1)
    )


@pytest.mark.parametrize("count", range(1, 6))
def test_election_safety_however_the_votes_of_a_term_fall_at_most_one_is_elected(count):
    names = NAMES[:count]
    configuration = voters(*names)

    for votes in product([None, *names], repeat=count):  # whom each server voted for
        elected = [
            name
            for name in names
            if is_elected(configuration, {v for v, c in zip(names, votes, strict=True) if c == name})
        ]
        assert len(elected) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["s2", "s3"]), st.booleans()), min_size=1, max_size=12
    )
)
def test_election_safety_a_server_votes_once_in_a_term_whatever_is_asked_and_whenever_it_crashes(asked):
    node = server()
    store = node.state._stable
    given_to = {}

    for term, candidate, crash_after in asked:
        if on_request_vote(node, vote_request(term, last=(0, 0), candidate=candidate)).granted:
            assert given_to.setdefault(term, candidate) == candidate
        if crash_after:
            node = restarted(node, store)


# -- Log Matching: equal index and term means equal logs up to there --

logs_of_leaders = st.lists(
    # (which earlier leader's log this one continues, how many entries it keeps, how many it adds)
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 3)),
    min_size=1,
    max_size=6,
)


def histories(choices):
    """The logs of successive leaders, term 1 on: each continues some prefix of an earlier one."""
    logs = [""]
    for term, (base, keep, added) in enumerate(choices, 1):
        chosen = logs[base % len(logs)]
        logs.append(chosen[: keep % (len(chosen) + 1)] + str(term) * added)
    return logs[1:]


@settings(max_examples=150, deadline=None)
@given(
    logs_of_leaders, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 4)), max_size=15)
)
def test_log_matching_a_follower_fed_by_many_leaders_agrees_with_each_wherever_an_index_and_term_agree(
    choices, deliveries
):
    leaders = histories(choices)
    node = server()

    for who, prev, count in deliveries:
        leader = leaders[who % len(leaders)]
        prev %= len(leader) + 1
        sent = entries(leader)[prev : prev + count]
        prev_term = int(leader[prev - 1]) if prev else 0
        on_append_entries(node, append_request(int(leader[-1]), prev=(prev, prev_term), logs=sent))

        follower = terms(node.state.log)
        for other in leaders:
            for index in range(min(len(other), len(follower)), 0, -1):
                if other[index - 1] == follower[index - 1]:
                    assert other[:index] == follower[:index]
                    break


# -- Leader Completeness: what is committed is in the logs of all later leaders --


def test_leader_completeness_whoever_wins_after_a_commit_holds_what_was_committed():
    # Brute force: every three logs of at most three entries with terms 1 to 3, the first the leader's.
    drawings = [
        "".join(terms_)
        for length in range(4)
        for terms_ in product("123", repeat=length)
        if list(terms_) == sorted(terms_)
    ]
    checked = 0
    for leader in drawings:
        if not leader:
            continue
        term = leader[-1]
        first_of_term = leader.index(term) + 1
        for other, third in product(drawings, repeat=2):
            # Only logs that can stand side by side, and of the leader's term at most.
            if max(other + third, default="0") > term:
                continue
            if not all(_can_coexist(*pair) for pair in combinations((leader, other, third), 2)):
                continue
            if not all(leader.startswith(log) for log in (other, third) if log.endswith(term)):
                continue  # only the leader itself appends in its term
            shared = [_common(log, leader) for log in (other, third)]
            commit = leader_commit_index(0, [len(leader), *shared], first_of_term)
            for candidate in (leader, other, third):
                votes = sum(end_of(voter) <= end_of(candidate) for voter in (leader, other, third))
                if commit and votes >= majority(3):
                    assert candidate[:commit] == leader[:commit]
                    checked += 1
    assert checked > 100


def _common(log, leader):
    """How far ``log`` is the leader's."""
    count = 0
    while count < min(len(log), len(leader)) and log[count] == leader[count]:
        count += 1
    return count


def _can_coexist(a, b):
    """One leader wrote all entries of a term, after one and the same log."""
    return all(a[: a.index(term)] == b[: b.index(term)] for term in set(a) & set(b))


# -- State Machine Safety: no server applies another entry at an index that one has applied --


def test_state_machine_safety_a_leader_that_would_undo_a_commit_is_a_bug_and_stops_this_server():
    node = server("")
    on_append_entries(node, append_request(1, logs=entries("11"), commit=2))

    with pytest.raises(CorruptStoreError, match="§5.4"):
        on_append_entries(node, append_request(2, prev=(1, 1), logs=entries("2", first=2)))

    assert terms(node.state.log) == "11"


def test_state_machine_safety_the_commit_index_cannot_pass_the_end_of_the_log():
    node = server("11")

    with pytest.raises(CorruptStoreError):
        node.state.advance_commit(3)


def test_state_machine_safety_the_commit_index_never_goes_back():
    node = server("11")
    node.state.advance_commit(2)

    node.state.advance_commit(1)

    assert node.state.commit_index == 2
