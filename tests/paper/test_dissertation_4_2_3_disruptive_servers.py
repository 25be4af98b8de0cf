"""Dissertation §4.2.3: servers that were removed, or cut off, must not depose a leader that works."""

import pytest

from pyraft.configuration import Configuration
from pyraft.errors import CorruptStoreError, TransportError
from pyraft.installing import answer_snapshot
from pyraft.messages import AppendEntriesRequest, InstallSnapshotRequest, RpcHeader
from pyraft.roles.candidate import Candidate
from pyraft.rpc_handlers import on_append_entries, on_request_pre_vote, on_request_vote
from pyraft.rules.election import Ballot, LogPosition, Newborn, may_be_heard
from pyraft.transport.base import IncomingRpc
from tests.logs import entries
from tests.nodes import S1_TO_S3, append_request, pre_vote_request, server, stage, vote_request


@pytest.mark.parametrize(
    ("leader", "candidate", "transfer", "heard"),
    [
        (None, "s2", False, True),
        ("s3", "s2", False, False),
        ("s2", "s2", False, True),
        ("s3", "s2", True, True),
        (None, "s9", False, False),
        (None, "s9", True, False),
    ],
    ids=[
        "nobody leads",
        "another one leads",
        "the leader itself asks",
        "the leader hands over to it",
        "it is not a member",
        "not a member, whatever it says",
    ],
)
def test_who_may_be_heard(leader, candidate, transfer, heard):
    assert may_be_heard(S1_TO_S3, leader, candidate, transfer) is heard


def test_a_server_that_knows_no_members_yet_hears_everybody():
    assert may_be_heard(Configuration(), None, "s9", False)


def following_s3():
    node = server("1", term=2)
    on_append_entries(node, append_request(2, leader="s3"))
    return node


def test_a_candidate_does_not_raise_the_term_of_servers_that_hear_from_a_leader():
    node = following_s3()

    answer = on_request_vote(node, vote_request(50, last=(9, 9), candidate="s2"))

    assert (answer.granted, answer.term) == (False, 2)
    assert node.state.ballot.term == 2


def test_once_the_leader_has_been_silent_for_the_heartbeat_timeout_a_candidate_is_heard():
    node = following_s3()
    node.runtime.at += node.config.heartbeat_timeout

    assert on_request_vote(node, vote_request(3, last=(1, 1), candidate="s2")).granted


def test_a_candidate_that_the_leader_chose_is_heard_at_once():
    node = following_s3()

    assert on_request_vote(node, vote_request(3, last=(1, 1), candidate="s2", transfer=True)).granted


def test_a_removed_server_changes_nothing_even_when_nobody_leads():
    node = server("1", term=2)

    answer = on_request_vote(node, vote_request(50, last=(1, 1), candidate="s9"))

    assert not answer.granted
    assert node.state.ballot.term == 2


def test_a_candidate_that_we_do_not_know_gets_our_vote_if_its_log_goes_further():
    """It may be a voter by a configuration that we lack, and nobody else can lead (§4.1)."""
    node = server("1", term=2)

    assert on_request_pre_vote(node, pre_vote_request(3, last=(2, 1), candidate="s9")).granted
    assert on_request_vote(node, vote_request(3, last=(2, 1), candidate="s9")).granted
    assert node.state.ballot == Ballot(3, "s9")


def test_a_leader_is_not_deposed_by_the_larger_term_of_a_server_that_was_cut_off():
    with stage() as s:
        s.make_it_lead()
        term = s.raft.term

        answer = s.s3.sends(vote_request(term + 40, last=(9, term), candidate="s3"))

        assert not answer.granted
        assert s.raft.leader_id == "s1"
        assert s.raft.term == term


def test_a_leader_of_another_cluster_neither_leads_nor_deposes_while_ours_is_heard():
    node = following_s3()

    for request in (
        append_request(50, leader="s9"),
        append_request(2, (1, 1), entries("2", first=2), leader="s9"),
        append_request(1, leader="s9"),
    ):
        refusal = on_append_entries(node, request)
        assert isinstance(refusal, TransportError) and "given to two clusters" in str(refusal)

    assert (node.state.ballot.term, node.current_leader(), node.state.log.last.index) == (2, "s3", 1)


def test_a_snapshot_of_another_clusters_leader_is_refused_before_it_is_received():
    node = following_s3()
    request = InstallSnapshotRequest(RpcHeader("s9", "s9"), 50, 900, 40, S1_TO_S3, 1, 5)

    assert isinstance(answer_snapshot(node, request, None), TransportError)
    assert (node.state.ballot.term, node.current_leader()) == (2, "s3")


@pytest.mark.parametrize("header", [RpcHeader("s2", "elsewhere"), RpcHeader("", "s2"), RpcHeader("", "")])
def test_a_member_is_believed_whatever_its_address_and_if_it_names_only_that_or_nothing(header):
    node = following_s3()

    assert on_append_entries(node, AppendEntriesRequest(header, 3)).success


def test_a_leader_that_we_do_not_know_is_believed_once_ours_is_silent():
    """It may lead us by entries that we lack (§4.1), and nobody hears a deposed leader for long."""
    node = following_s3()
    node.runtime.at += node.config.heartbeat_timeout

    assert on_append_entries(node, append_request(3, (1, 1), entries("3", first=2), leader="s9")).success
    assert node.current_leader() == "s9"


def test_who_wants_to_replace_what_is_committed_leads_another_cluster_and_is_not_heard_again():
    node = server("12", term=2)
    on_append_entries(node, append_request(2, (2, 2), commit=2, leader="s3"))
    node.runtime.at += node.config.heartbeat_timeout

    conflict = append_request(50, (1, 1), entries("3", first=2), leader="s9")
    assert isinstance(on_append_entries(node, conflict), TransportError)

    assert (node.state.log.last.index, node.state.log.last.term) == (2, 2)
    assert node.current_leader() is None  # so that votes are given
    assert isinstance(on_append_entries(node, append_request(51, leader="s9")), TransportError)
    assert on_request_vote(node, vote_request(52, last=(2, 2), candidate="s2")).granted


def test_a_member_that_wants_to_replace_what_is_committed_stops_this_server():
    node = server("12", term=2)
    on_append_entries(node, append_request(2, (2, 2), commit=2, leader="s3"))

    with pytest.raises(CorruptStoreError, match="Raft forbids this"):
        on_append_entries(node, append_request(3, (1, 1), entries("3", first=2), leader="s2"))


def test_a_leader_is_not_deposed_by_the_leader_of_another_cluster():
    with stage(("s2", "s3")) as s:
        s.make_it_lead()
        term = s.raft.term
        stray = append_request(term + 40, leader="s9")

        with pytest.raises(TransportError, match="given to two clusters"):
            s.s3.sends(stray)

        assert (s.raft.leader_id, s.raft.term) == ("s1", term)


def test_an_empty_server_that_is_offered_a_snapshot_first_waits_for_an_entry_of_the_leaders_term():
    node = server("", configuration=Configuration())
    request = InstallSnapshotRequest(RpcHeader("s3", "s3"), 12, 144, 9, S1_TO_S3, 1, 5)

    assert answer_snapshot(node, request, None) is None  # go on
    assert node.state.ballot.newborn == Newborn(12, 144, LogPosition(12, 144))


def compacted():
    """A server whose snapshot ends at its commit index, and whose leader is silent."""
    node = server("1223", term=3)
    on_append_entries(node, append_request(3, (4, 3), commit=4, leader="s3"))
    node.state.log.snapshot = LogPosition(3, 4)
    node.runtime.at += node.config.heartbeat_timeout
    return node


@pytest.mark.parametrize("is_snapshot", [False, True])
def test_another_clusters_leader_does_not_stop_a_server_that_has_a_snapshot(is_snapshot):
    node = compacted()
    snapshot = InstallSnapshotRequest(RpcHeader("s9", "s9"), 9, 3, 9, S1_TO_S3, 1, 5)

    answer = (
        answer_snapshot(node, snapshot, None)
        if is_snapshot
        else on_append_entries(node, append_request(9, (3, 9), leader="s9"))
    )

    assert isinstance(answer, TransportError) and "leader is not known: was the address" in str(answer)
    assert node.current_leader() is None


def test_a_candidate_does_not_give_up_for_the_leader_of_another_cluster():
    node = compacted()
    on_append_entries(node, append_request(9, (3, 9), leader="s9"))

    assert node.foreign_leader == ("s9", "s9")
    rpc = Answered(append_request(20, leader="s9"))
    assert Candidate(node)._on_rpc(rpc) is None
    assert isinstance(rpc.answer, TransportError)


class Answered(IncomingRpc):
    def __init__(self, request):
        super().__init__(request, lambda answer: setattr(self, "answer", answer))
