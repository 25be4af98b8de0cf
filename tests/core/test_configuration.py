"""Configurations: which ones a cluster can work with, and which one is in force."""

import pytest

from pyraft.configuration import Configuration, Server, Suffrage, check_configuration
from pyraft.errors import ConfigError
from pyraft.rules.membership import Configurations
from tests.nodes import voters

A, B, C = voters("s1"), voters("s1", "s2"), voters("s1", "s2", "s3")


# -- checks --


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ([], "no voter"),
        ([Server("n1", "a:1", Suffrage.NONVOTER)], "no voter"),
        ([Server("n1", "a:1", Suffrage.STAGING)], "no voter"),
        ([Server("", "a:1")], "empty id"),
        ([Server("n1", "")], "empty address"),
        ([Server("n1", "a:1"), Server("n1", "a:2")], "id n1 stands twice"),
        ([Server("n1", "a:1"), Server("n2", "a:1")], "n1 and n2 have the same address a:1"),
    ],
)
def test_a_configuration_that_no_cluster_can_work_with_is_refused(servers, why):
    with pytest.raises(ConfigError, match=why):
        check_configuration(Configuration(servers))


def test_a_voter_is_enough():
    check_configuration(voters("n1"))


def test_only_voters_vote():
    configuration = Configuration(
        [Server("n1", "a"), Server("n2", "b", Suffrage.NONVOTER), Server("n3", "c", Suffrage.STAGING)]
    )

    assert [s.id for s in configuration.voters] == ["n1"]
    assert [configuration.is_voter(name) for name in ("n1", "n2", "n3", "n4")] == [True, False, False, False]


def test_a_member_is_found_by_its_id_alone():
    assert C.find("s2") == Server("s2", "s2")
    assert C.find("a:1") is None


# -- which one is in force (dissertation §4.1) --


def test_before_anything_nothing_is_in_force():
    assert Configurations().latest == Configuration()


def test_a_configuration_is_in_force_as_soon_as_it_is_in_the_log():
    now = Configurations().with_appended(A, 1)

    assert (now.latest, now.latest_index) == (A, 1)
    assert (now.committed, now.committed_index) == (Configuration(), 0)


def test_it_is_committed_with_its_entry_and_not_before():
    appended = Configurations(A, 1, A, 1).with_appended(B, 5)

    assert appended.with_commit(4) is appended
    assert appended.with_commit(5) == Configurations(B, 5, B, 5)
    assert appended.with_commit(9) == Configurations(B, 5, B, 5)


def test_when_its_entry_is_dropped_the_committed_one_is_in_force_again():
    appended = Configurations(A, 1, A, 1).with_appended(B, 5)

    assert appended.with_truncation(6) is appended
    assert appended.with_truncation(5) == Configurations(A, 1, A, 1)
    assert appended.with_truncation(2) == Configurations(A, 1, A, 1)


def test_a_second_change_means_that_the_first_was_committed():
    # A leader appends no second one before; so dropping the second leads back to the first.
    now = Configurations(A, 1, A, 1).with_appended(B, 5).with_appended(C, 9)

    assert now.with_truncation(9) == Configurations(B, 5, B, 5)


def test_a_bootstrap_entry_that_another_leader_replaces_leaves_nothing_in_force():
    assert Configurations().with_appended(A, 1).with_truncation(1) == Configurations()


def test_committing_twice_changes_nothing():
    now = Configurations().with_appended(A, 1).with_commit(1)

    assert now.with_commit(1) is now
    assert now.with_commit(7) is now
