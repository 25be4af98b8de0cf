"""§5.3: the leader makes every follower's log equal to its own.

Logs are written as Figure 7 draws them: one digit per entry, its term, from index 1.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyraft.rpc_handlers import on_append_entries
from pyraft.rules.replication import (
    agreement_bound,
    count_already_stored,
    next_index_after_hint,
    next_index_after_rejection,
)
from tests.logs import entries, node_log, terms
from tests.nodes import append_request, server

FIGURE_7_LEADER = "1114455666"
FIGURE_7_FOLLOWERS = {
    "a misses the last entry": "111445566",
    "b misses six entries": "1114",
    "c has one entry too many": "11144556666",
    "d has two of a later term": "111445566677",
    "e has two that were never committed": "1114444",
    "f led terms 2 and 3 and told nobody": "11122233333",
}


def replicate(leader, follower, term, batch=1):
    """Do as the leader does: probe backwards until accepted, then send the rest; return the refusals."""
    next_index, refused = len(leader), 0
    while True:
        prev = next_index - 1
        prev_term = int(leader[prev - 1]) if prev else 0
        sent = entries(leader)[prev : prev + batch]
        answer = on_append_entries(follower, append_request(term, prev=(prev, prev_term), logs=sent))
        if answer.success:
            next_index += len(sent)
            if next_index > len(leader):
                return refused
        else:
            refused += 1
            next_index = next_index_after_rejection(next_index, answer.last_log)


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("follower_log", FIGURE_7_FOLLOWERS.values(), ids=FIGURE_7_FOLLOWERS)
def test_figure_7_every_follower_ends_with_the_log_of_the_leader_of_term_8(follower_log, batch):
    leader = FIGURE_7_LEADER + "8"  # a new leader starts by appending a no-op
    follower = server(follower_log, term=7)

    replicate(leader, follower, term=8, batch=batch)

    assert terms(follower.state.log) == leader


@pytest.mark.parametrize(
    ("name", "conflict"),
    [
        ("a misses the last entry", 10),
        ("b misses six entries", 5),
        ("c has one entry too many", 11),
        ("d has two of a later term", 11),
        ("e has two that were never committed", 6),
        ("f led terms 2 and 3 and told nobody", 4),
    ],
)
def test_figure_7_the_first_entry_that_is_sent_anew_is_where_the_logs_part(name, conflict):
    log = node_log(FIGURE_7_FOLLOWERS[name])

    known = count_already_stored(entries(FIGURE_7_LEADER + "8"), log.last.index, log.term_at)

    assert known + 1 == conflict


def test_a_leader_never_changes_its_own_log_to_please_a_follower():
    # What replicate() shows the follower are only values: the rule has no way back to the leader.
    leader = node_log(FIGURE_7_LEADER)
    follower = server(FIGURE_7_FOLLOWERS["d has two of a later term"], term=7)

    replicate(FIGURE_7_LEADER, follower, term=8)

    assert terms(leader) == FIGURE_7_LEADER


def test_a_refusal_moves_next_index_back_by_one():
    assert next_index_after_rejection(next_index=11, last_log_hint=12) == 10


def test_a_follower_that_is_far_behind_is_reached_in_one_step():
    assert next_index_after_rejection(next_index=1000, last_log_hint=3) == 4


def test_next_index_never_falls_below_the_first_entry():
    assert next_index_after_rejection(next_index=1, last_log_hint=0) == 1
    assert next_index_after_rejection(next_index=2, last_log_hint=0) == 1


@given(st.integers(2, 10_000), st.integers(0, 20_000))
def test_every_refusal_makes_progress_so_probing_ends(next_index, hint):
    assert 1 <= next_index_after_rejection(next_index, hint) < next_index


def test_figure_7_b_is_found_at_the_second_attempt():
    follower = server(FIGURE_7_FOLLOWERS["b misses six entries"], term=4)

    refused = replicate(FIGURE_7_LEADER + "8", follower, term=8)

    assert refused == 1


ascending = st.lists(st.integers(1, 7), max_size=12).map(lambda terms_: "".join(map(str, sorted(terms_))))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), ascending, ascending, st.integers(1, 5))
def test_whatever_a_follower_holds_it_ends_with_the_leaders_log(shared, leader, follower, batch):
    leader += "8"
    agreed = leader[: min(shared, len(leader) - 1)]
    # After the common part the follower has entries that no leader's log has: other terms.
    rest = "".join(t for t in follower if t > agreed[-1:] and t not in leader)
    node = server(agreed + rest, term=7)

    replicate(leader, node, term=8, batch=batch)

    assert terms(node.state.log) == leader


def test_a_log_that_agrees_on_an_entry_agrees_on_all_before_it_because_each_append_was_checked():
    # The induction step: entry 5 is taken only where entry 4 is the leader's.
    follower = server("1112", term=2)

    refused = on_append_entries(follower, append_request(4, prev=(4, 4), logs=entries("4", first=5)))

    assert not refused.success
    assert terms(follower.state.log) == "1112"


# -- one round trip for each term in conflict, not for each entry (§5.3, at its end) --


def term_in(terms):
    return lambda index: 0 if index == 0 else terms[index - 1] if index <= len(terms) else None


def probes_until_agreement(leader, follower):
    """How many requests a leader needs to find where the follower's log agrees with its own."""
    next_index, probes = len(leader) + 1, 0
    while True:
        probes += 1
        prev = next_index - 1
        if term_in(follower)(prev) == term_in(leader)(prev):
            return probes, prev
        upto = min(prev - 1, len(follower))
        hint = agreement_bound(term_in(follower), 0, upto, term_in(leader)(prev))
        bound = agreement_bound(term_in(leader), 0, hint.index, hint.term)
        next_index = next_index_after_hint(next_index, bound.index)


ascending_terms = st.lists(st.integers(1, 6), max_size=60).map(sorted)


@given(ascending_terms, ascending_terms)
def test_hints_find_agreement_in_about_one_probe_for_each_term(leader, follower):
    # Made-up logs may hold equal positions behind different beginnings, which real ones cannot:
    # what is found is then an agreement all the same, never a position where they differ.
    probes, agreed = probes_until_agreement(leader, follower)

    assert term_in(leader)(agreed) == term_in(follower)(agreed)
    assert probes <= len({*leader, *follower}) + 2


@given(ascending_terms, ascending_terms)
def test_hints_never_jump_over_an_agreement(leader, follower):
    _, agreed = probes_until_agreement(leader, follower)
    later = range(agreed + 1, min(len(leader), len(follower)) + 1)

    assert not any(leader[index - 1] == follower[index - 1] for index in later)


def test_a_thousand_entries_in_conflict_cost_two_probes():
    leader, follower = [1] * 10 + [3] * 1000, [1] * 10 + [2] * 1000

    assert probes_until_agreement(leader, follower) == (2, 10)
