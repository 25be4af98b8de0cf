"""§5.6: broadcast time << election timeout << mean time between failures, as relations of settings."""

import random

import pytest

from pyraft import Config, ConfigError
from pyraft.rules.timing import back_off, heartbeat_interval, lease_ends_at


def test_the_defaults_obey_the_relations():
    config = Config()

    assert config.leader_lease_timeout <= config.heartbeat_timeout <= config.election_timeout
    assert config.commit_timeout < config.heartbeat_timeout


def test_a_candidate_must_not_give_up_before_the_others_notice_that_the_leader_is_gone():
    with pytest.raises(ConfigError, match="election_timeout=0.9 is below heartbeat_timeout=1"):
        Config(election_timeout=0.9)


def test_a_leader_that_was_cut_off_must_give_up_before_the_others_elect_a_new_one():
    with pytest.raises(ConfigError, match="leader_lease_timeout=1.1 is above heartbeat_timeout=1"):
        Config(leader_lease_timeout=1.1)


@pytest.mark.parametrize("timeout", [0.005, 0.3, 1.0, 60.0])
def test_five_heartbeats_or_more_fit_into_the_patience_of_a_follower(timeout):
    rng = random.Random(timeout)

    assert all(5 * heartbeat_interval(timeout, rng) <= timeout for _ in range(100))


def test_a_peer_that_failed_is_left_alone_for_longer_and_longer_but_not_for_ever():
    waits = [back_off(failures, longest=0.5) for failures in range(10)]

    assert waits == [0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]
    assert back_off(10_000, longest=0.5) == 0.5


# -- check quorum: how long a leader may believe in itself --


@pytest.mark.parametrize(
    ("contacts", "ends"),
    [
        ([10.0], 10.5),
        ([10.0, 3.0], 3.5),
        ([10.0, 3.0, 1.0], 3.5),
        ([10.0, 9.0, 3.0, 1.0], 3.5),
        ([10.0, 9.0, 8.0, 1.0, 0.0], 8.5),
    ],
    ids=["one server", "two", "three", "four", "five"],
)
def test_a_lease_lasts_from_the_oldest_contact_of_the_best_majority(contacts, ends):
    assert lease_ends_at(contacts, lease=0.5) == ends
    assert lease_ends_at(contacts[::-1], lease=0.5) == ends


def test_without_voters_there_is_nothing_to_lose():
    assert lease_ends_at([], lease=0.5) == float("inf")
