"""What a follower does besides answering: growing up, catching up, standing back."""

import pytest

from pyraft import (
    CantBootstrapError,
    ConfigError,
    Configuration,
    NotVoterError,
    StorageError,
    TransportError,
)
from pyraft.configuration import Server, Suffrage, encode_configuration
from pyraft.installing import SnapshotStep
from pyraft.log import Log, LogType
from pyraft.messages import InstallSnapshotRequest, RpcHeader, TimeoutNowRequest
from pyraft.roles.base import accept_timeout_now, answer
from pyraft.rpc_handlers import on_append_entries
from pyraft.rules.election import Ballot, Newborn
from pyraft.snapshots.base import SnapshotMeta
from pyraft.state import load_ballot
from pyraft.transport.base import IncomingRpc
from tests.logs import entries, indexes
from tests.nodes import PATIENCE, S1_TO_S3, append_request, eventually, server, stage, voters


def newborn(target, term=3):
    node = server(term=term)
    node.state.save_ballot(Ballot(term, "s1", Newborn(term, target)))
    return node


def test_a_newborn_votes_again_once_it_holds_what_it_may_have_held_before():
    node = newborn(target=3)

    on_append_entries(node, append_request(3, logs=entries("113"), commit=2))
    assert node.state.ballot.newborn is not None

    on_append_entries(node, append_request(3, prev=(3, 3), commit=3))
    assert node.state.ballot == Ballot(3, "s1")
    assert load_ballot(node.state._stable).newborn is None


def test_a_newborn_has_grown_up_when_an_entry_of_a_later_term_is_committed():
    node = newborn(target=1000)

    on_append_entries(node, append_request(4, logs=entries("14"), commit=2))

    assert node.state.ballot.newborn is None


def timeout_now(node, leader="s2"):
    answers = []
    stands = accept_timeout_now(
        node, IncomingRpc(TimeoutNowRequest(RpcHeader(leader, leader)), answers.append)
    )
    assert len(answers) == 1
    return stands


def test_a_follower_stands_when_its_leader_says_so():
    node = server("1", term=1)
    on_append_entries(node, append_request(1))

    assert timeout_now(node) is not None


def test_a_newborn_does_not_stand_even_when_its_leader_says_so():
    node = newborn(target=1000)
    on_append_entries(node, append_request(3))

    assert timeout_now(node) is None


def test_a_member_that_does_not_vote_does_not_stand_even_when_its_leader_says_so():
    members = Configuration([Server("s1", "s1", Suffrage.NONVOTER), Server("s2", "s2")])
    node = server("1", term=1, configuration=members)
    on_append_entries(node, append_request(1))

    assert timeout_now(node) is None


# -- configurations --


def configuration_entry(index, term, *names):
    return Log(index, term, LogType.CONFIGURATION, encode_configuration(voters(*names)))


def test_a_configuration_is_in_force_on_a_follower_as_soon_as_it_is_appended():
    node = server("1", term=1)

    on_append_entries(node, append_request(1, prev=(1, 1), logs=[configuration_entry(2, 1, "s1", "s2")]))

    assert node.state.configuration == voters("s1", "s2")
    assert node.state.configurations.committed == S1_TO_S3


def test_a_configuration_that_was_replaced_is_not_in_force_any_more():
    node = server("1", term=1)
    on_append_entries(node, append_request(1, prev=(1, 1), logs=[configuration_entry(2, 1, "s1", "s2")]))

    on_append_entries(node, append_request(2, prev=(1, 1), logs=entries("2", first=2)))

    assert node.state.configuration == S1_TO_S3


def test_a_configuration_that_replaces_another_is_the_one_in_force():
    node = server("1", term=1)
    on_append_entries(node, append_request(1, prev=(1, 1), logs=[configuration_entry(2, 1, "s1", "s2")]))

    on_append_entries(node, append_request(2, prev=(1, 1), logs=[configuration_entry(2, 2, "s1", "s3")]))

    assert node.state.configuration == voters("s1", "s3")
    assert node.state.configurations.committed == S1_TO_S3


# -- snapshots of a leader --


def test_who_waits_for_a_snapshot_to_be_installed_is_answered_even_if_the_disk_fails():
    node = server("11", term=2)
    request = InstallSnapshotRequest(RpcHeader("s2", "s2"), 2, 10, 2, S1_TO_S3, 1, 5)
    step = SnapshotStep(node, request, SnapshotMeta("s", 10, 2, S1_TO_S3, 1, 5))

    def full(*args):
        raise OSError(28, "No space left on device")

    node.state.log._store.delete_range = full

    with pytest.raises(StorageError):
        answer(node, step)

    assert step._over.wait(0)
    assert isinstance(step.wait(), TransportError)


# -- on a running server --


def test_what_a_leader_says_is_committed_reaches_the_fsm_in_order():
    with stage() as s:
        s.s2.sends(append_request(2, prev=(1, 1), logs=entries("222", first=2), commit=3))
        eventually(lambda: s.raft.applied_index == 3)
        assert indexes(s.fsm.applied) == [2, 3]

        s.s2.sends(append_request(2, prev=(4, 2), commit=4))
        eventually(lambda: indexes(s.fsm.applied) == [2, 3, 4])


def test_entries_that_are_not_in_memory_any_more_reach_the_fsm_too(monkeypatch):
    monkeypatch.setattr("pyraft.node_log._RECENT_ENTRIES", 1)
    with stage() as s:
        for index in range(2, 8):
            s.s2.sends(
                append_request(2, prev=(index - 1, 2 if index > 2 else 1), logs=entries("2", first=index))
            )

        s.s2.sends(append_request(2, prev=(7, 2), commit=7))

        eventually(lambda: indexes(s.fsm.applied) == [2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize(
    ("configuration", "error"),
    [
        (voters("s1"), CantBootstrapError),
        (voters("s2"), NotVoterError),
        (Configuration(), ConfigError),
    ],
    ids=["it has state already", "it would not vote", "nobody would"],
)
def test_a_live_bootstrap_is_refused(configuration, error):
    with stage() as s:
        assert isinstance(s.raft.bootstrap_cluster(configuration).exception(PATIENCE), error)
