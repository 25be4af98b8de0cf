"""Rows 91 to 106 of the conformance list: commitment, configurations, and how they change."""

import copy

import pytest

from pyraft import ConfigError, Configuration, CorruptStoreError, Server, Suffrage
from pyraft.configuration import (
    check_configuration,
    decode_configuration,
    decode_peers,
    encode_configuration,
    encode_peers,
)
from pyraft.events import PeerMatched
from pyraft.futures import IndexFuture
from pyraft.roles.leader import Leader
from pyraft.rules.commitment import leader_commit_index
from pyraft.rules.membership import Configurations
from pyraft.rules.reconfiguration import Change, MembershipChange, next_configuration
from tests.nodes import server, voters

VOTER, NONVOTER, STAGING = Suffrage.VOTER, Suffrage.NONVOTER, Suffrage.STAGING


# -- 91 to 97: what is committed ---------------------------------------------------------------


def leading(*names):
    """A leader without threads, in a cluster of ``names``, whose no-op is entry 2."""
    node = server("1", term=2, configuration=voters(*names))
    node.spawn = lambda name, run: None
    node.snapshots = None
    leader = Leader(node)
    leader._begin()
    return node, leader


def matched(leader, id, index):
    leader._on_matched(PeerMatched(leader.session_of(id), index))


def change(node, leader, *names):
    leader.append_configuration(voters(*names), IndexFuture(node.runtime))


def test_91_what_peers_hold_is_remembered_when_the_voters_change():
    node, leader = leading("s1", "s2", "s3", "s4", "s5")
    matched(leader, "s2", 2)
    matched(leader, "s3", 2)
    assert node.state.commit_index == 2
    change(node, leader, "s1", "s2", "s3", "s4")  # entry 3
    matched(leader, "s2", 3)
    assert node.state.commit_index == 2

    matched(leader, "s3", 3)
    assert node.state.commit_index == 3
    change(node, leader, "s1", "s2", "s3")  # entry 4
    matched(leader, "s4", 4)  # no voter any more
    assert node.state.commit_index == 3
    matched(leader, "s2", 4)
    assert node.state.commit_index == 4


def test_92_a_lower_match_is_ignored():
    node, leader = leading("s1", "s2", "s3", "s4", "s5")
    change(node, leader, "s1", "s2", "s3", "s4", "s5")
    matched(leader, "s2", 3)
    matched(leader, "s2", 1)
    matched(leader, "s2", 2)

    matched(leader, "s3", 3)

    assert node.state.commit_index == 3


def test_93_nobody_else_commits_anything():
    node, leader = leading("s1", "s2", "s3")
    nonvoter = Server("s4", "s4", NONVOTER)
    entry = Configuration((*voters("s1", "s2", "s3").servers, nonvoter))
    leader.append_configuration(entry, IndexFuture(node.runtime))

    matched(leader, "s4", 3)

    assert node.state.commit_index == 0


@pytest.mark.parametrize(
    ("matches", "commit"),
    [
        ([30, 20, 10, 5, 1], 10),
        ([30, 20, 20, 5, 1], 20),
        ([30, 30, 30, 1, 1], 30),
        ([30, 20, 10], 20),
        ([30, 10, 10], 10),
        ([30, 30, 10], 30),
        ([30, 20, 10, 5], 10),
        ([30, 20, 20, 5], 20),
        ([30, 30, 20, 20], 20),
    ],
)
def test_94_the_arithmetic_of_majorities(matches, commit):
    for order in (matches, matches[::-1]):
        assert leader_commit_index(0, order, 1) == commit


@pytest.mark.parametrize(
    ("matches", "commit"), [([3, 3, 3], 0), ([4, 3, 3], 0), ([4, 4, 3], 4), ([9, 5, 1], 5)]
)
def test_95_nothing_is_committed_before_the_first_entry_of_the_leaders_term(matches, commit):
    assert leader_commit_index(0, matches, 4) == commit


@pytest.mark.parametrize("before", [0, 7])
def test_96_without_voters_nothing_more_is_committed(before):
    assert leader_commit_index(before, [], 1) == before


def test_97_a_voter_alone_commits_what_it_has_written():
    node, _ = leading("s1")

    assert node.state.commit_index == 2
    assert leader_commit_index(0, [12], 4) == 12
    assert leader_commit_index(0, [3], 4) == 0


# -- 98 to 101: values -------------------------------------------------------------------------

SAMPLE = Configuration((Server("a", "a:1"), Server("b", "b:1", NONVOTER), Server("c", "c:1", STAGING)))


def test_98_a_configuration_cannot_be_changed_so_nobody_needs_a_copy():
    listed = [Server("a", "a:1")]
    configuration = Configuration(listed)
    listed.append(Server("b", "b:1"))

    assert configuration.servers == (Server("a", "a:1"),)
    with pytest.raises(AttributeError):
        configuration.servers = ()
    with pytest.raises(AttributeError):
        configuration.servers[0].address = "x"
    assert copy.deepcopy(SAMPLE) == SAMPLE
    assert hash(copy.deepcopy(SAMPLE)) == hash(SAMPLE)


def test_99_latest_and_committed_cannot_be_changed_either():
    both = Configurations(SAMPLE, 2, voters("a"), 1)

    with pytest.raises(AttributeError):
        both.latest = voters("x")
    after = both.with_commit(2)
    assert (both.committed, after.committed) == (voters("a"), SAMPLE)


@pytest.mark.parametrize(("id", "votes"), [("a", True), ("b", False), ("c", False), ("x", False)])
def test_100_only_a_voter_votes(id, votes):
    assert SAMPLE.is_voter(id) is votes


@pytest.mark.parametrize(
    ("servers", "reason"),
    [
        ((), "at least one voter"),
        ((Server("b", "b:1", NONVOTER), Server("c", "c:1", STAGING)), "at least one voter"),
        ((Server("", "a:1"),), "empty id"),
        ((Server("a", ""),), "empty address"),
        ((Server("a", "a:1"), Server("a", "b:1", NONVOTER)), "a stands twice"),
        ((Server("a", "a:1"), Server("b", "a:1", STAGING)), "same address a:1"),
    ],
)
def test_101_a_configuration_that_cannot_work_is_refused(servers, reason):
    with pytest.raises(ConfigError, match=reason):
        check_configuration(Configuration(servers))


# -- 102 to 104: changes -----------------------------------------------------------------------

THREE = Configuration((Server("v", "v:1"), Server("s", "s:1", STAGING), Server("n", "n:1", NONVOTER)))
PAIR = voters("v", "w")
ALONE = voters("v")
NOBODY = Configuration()
UNKNOWN = "there is no server"

TRANSITIONS = [
    # (before, change, id, suffrage afterwards, or the reason why not)
    (NOBODY, Change.ADD_VOTER, "v", VOTER),
    (ALONE, Change.ADD_VOTER, "x", VOTER),
    (ALONE, Change.ADD_VOTER, "v", VOTER),
    (PAIR, Change.ADD_VOTER, "w", VOTER),
    (THREE, Change.ADD_VOTER, "v", VOTER),
    (THREE, Change.ADD_VOTER, "s", VOTER),
    (THREE, Change.ADD_VOTER, "n", VOTER),
    (THREE, Change.ADD_VOTER, "x", VOTER),
    (NOBODY, Change.ADD_NONVOTER, "v", "at least one voter"),
    (ALONE, Change.ADD_NONVOTER, "x", NONVOTER),
    (ALONE, Change.ADD_NONVOTER, "v", VOTER),
    (THREE, Change.ADD_NONVOTER, "v", VOTER),
    (THREE, Change.ADD_NONVOTER, "s", STAGING),
    (THREE, Change.ADD_NONVOTER, "n", NONVOTER),
    (THREE, Change.ADD_NONVOTER, "x", NONVOTER),
    (ALONE, Change.DEMOTE_VOTER, "x", UNKNOWN),
    (ALONE, Change.DEMOTE_VOTER, "v", "at least one voter"),
    (PAIR, Change.DEMOTE_VOTER, "w", NONVOTER),
    (THREE, Change.DEMOTE_VOTER, "s", NONVOTER),
    (THREE, Change.DEMOTE_VOTER, "n", NONVOTER),
    (ALONE, Change.REMOVE_SERVER, "x", UNKNOWN),
    (ALONE, Change.REMOVE_SERVER, "v", "at least one voter"),
    (PAIR, Change.REMOVE_SERVER, "w", None),
    (THREE, Change.REMOVE_SERVER, "s", None),
    (THREE, Change.REMOVE_SERVER, "n", None),
    (THREE, Change.REMOVE_SERVER, "v", "at least one voter"),
]


@pytest.mark.parametrize(
    ("before", "kind", "id", "after"),
    TRANSITIONS,
    ids=lambda value: value.value if isinstance(value, Change) else None,
)
def test_102_every_change_of_every_kind_of_server(before, kind, id, after):
    adds = kind in (Change.ADD_VOTER, Change.ADD_NONVOTER)
    asked = MembershipChange(kind, id, "new:1" if adds else "")
    if isinstance(after, str):
        with pytest.raises(ConfigError, match=after):
            next_configuration(before, 1, asked)
        return

    result = next_configuration(before, 1, asked)

    found = result.find(id)
    assert (found and found.suffrage) == after
    if adds:
        assert found.address == "new:1"
    elif found:
        assert found.address == before.find(id).address
    others = [known for known in before.servers if known.id != id]
    assert [known for known in result.servers if known.id != id] == others
    assert len(TRANSITIONS) == 26


def test_103_a_change_can_be_bound_to_the_configuration_it_was_decided_upon():
    add = dict(kind=Change.ADD_VOTER, id="x", address="x:1")

    with pytest.raises(ConfigError, match=r"configuration changed since 1 \(latest is 2\)"):
        next_configuration(ALONE, 2, MembershipChange(**add, prev_index=1))

    for prev_index in (0, 2):
        assert next_configuration(ALONE, 2, MembershipChange(**add, prev_index=prev_index)).is_voter("x")


def test_104_a_change_is_checked_by_what_it_makes():
    with pytest.raises(ConfigError, match=r"add_nonvoter\('x', 'x:1'\) would make.*at least one voter"):
        next_configuration(NOBODY, 1, MembershipChange(Change.ADD_NONVOTER, "x", "x:1"))


# -- 105, 106: bytes ---------------------------------------------------------------------------


def test_105_peers_are_the_addresses_of_the_voters():
    assert decode_peers(encode_peers(SAMPLE)) == Configuration((Server("a:1", "a:1"),))
    with pytest.raises(CorruptStoreError):
        decode_peers(b"\x01\x02\x03")


def test_106_a_configuration_is_read_back_as_it_was():
    for configuration in (SAMPLE, THREE, PAIR, NOBODY):
        assert decode_configuration(encode_configuration(configuration)) == configuration
