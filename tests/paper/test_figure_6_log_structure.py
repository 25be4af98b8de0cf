"""Figure 6: logs are made of entries with a term and a command; an entry on a majority is committed."""

from pyraft.rules.commitment import leader_commit_index
from pyraft.rules.election import LogPosition
from tests.logs import entries, node_log, terms

LEADER = "11123333"
FOLLOWERS = ["11123", "11123333", "11", "1112333"]


def test_the_entries_of_the_figure_have_the_terms_and_indexes_that_it_shows():
    log = node_log(LEADER)

    assert terms(log) == LEADER
    assert [log.term_at(index) for index in (1, 4, 8)] == [1, 2, 3]
    assert log.last == LogPosition(term=3, index=8)


def test_the_figures_entries_are_committed_up_to_index_7():
    matched = [len(LEADER), *(len(follower) for follower in FOLLOWERS)]

    assert leader_commit_index(0, matched, first_of_term=LEADER.index("3") + 1) == 7


def test_before_the_log_begins_stands_term_0_and_after_it_ends_nothing():
    log = node_log(LEADER)

    assert log.term_at(0) == 0
    assert log.term_at(9) is None


def test_an_entry_holds_the_command_it_was_given():
    assert node_log(LEADER).read(4, 4, 1000) == [entries(LEADER)[3]]
