"""Known defects of hashicorp/raft on the receiving side of RPCs, and that they are not here.

Each test is named after the item of the list in README.md beside this file.
"""

from types import SimpleNamespace

import pytest

from pyraft import Configuration, CorruptStoreError, Server, StorageError, Suffrage, TransportError
from pyraft.errors import UnsupportedProtocolError
from pyraft.installing import answer_snapshot
from pyraft.log import LogType
from pyraft.messages import InstallSnapshotRequest, InstallSnapshotResponse, RpcHeader, TimeoutNowRequest
from pyraft.roles.base import RoleName, accept_timeout_now
from pyraft.rpc_handlers import answer_heartbeat, answer_request, on_append_entries, on_request_vote
from pyraft.rules.election import Ballot, LogPosition
from pyraft.snapshots.base import SnapshotMeta
from pyraft.state import RaftState
from pyraft.transport.base import IncomingRpc
from tests.logs import entries, stored, terms
from tests.nodes import (
    S1_TO_S3,
    FailingStore,
    StallingStore,
    append_request,
    eventually,
    restarted,
    server,
    stage,
    vote_request,
)
from tests.threads import in_thread


def following(leader="s2", drawn="111", term=3, **how):
    """A follower that has just heard from ``leader``."""
    node = server(drawn, term=term, **how)
    on_append_entries(node, append_request(term, leader=leader))
    return node


# -- A: who may change what --------------------------------------------------------------------


def later_term(node):
    return append_request(9, leader="s2")


def another_leader(node):
    return append_request(3, leader="s3")


def a_candidate_here(node):
    node.state.role = RaftState.CANDIDATE
    return append_request(3, leader="s2")


def a_leader_here(node):
    node.state.role = RaftState.LEADER
    return append_request(3, leader="s2")


@pytest.mark.parametrize("situation", [later_term, another_leader, a_candidate_here, a_leader_here])
def test_fix_A5_a_heartbeat_that_could_change_anything_is_left_to_the_main_thread(situation):
    node = following()
    heartbeat = situation(node)
    before = (node.state.ballot, node.state.role, node.state.leader, node.state.last_contact)
    node.runtime.at += 1

    assert answer_heartbeat(node, heartbeat) is None

    assert (node.state.ballot, node.state.role, node.state.leader, node.state.last_contact) == before


def test_fix_A5_a_leader_appends_in_the_term_it_was_elected_in_and_no_other():
    store = StallingStore()
    with stage(store=store) as s:
        s.make_it_lead()
        s.raft.apply(b"x").result(30)
        term = s.raft.term
        store.open.clear()
        s.raft.apply(b"being written")
        assert store.stalled.wait(30)
        s.raft.apply(b"waits")

        heard = in_thread(lambda: s.s3.sends(append_request(term + 1, leader="s3")))
        assert s.raft.term == term  # whoever hears of the later term has to wait for the main thread
        store.open.set()

        heard()
        eventually(lambda: s.raft.term == term + 1, "it follows the later leader")
        own = [store.get_log(index) for index in range(2, store.last_index() + 1)]
        assert {log.term for log in own} == {term}


@pytest.mark.parametrize("version", [-1, 4, 99])
def test_fix_A6_the_fast_path_looks_at_the_protocol_version_too(version):
    node = following()
    heartbeat = append_request(3)
    header = RpcHeader("s2", "s2", version)
    heartbeat = type(heartbeat)(header, 3)

    assert answer_heartbeat(node, heartbeat) is None
    assert isinstance(answer_request(node, heartbeat), UnsupportedProtocolError)


# -- B: votes ----------------------------------------------------------------------------------


def test_fix_B11_a_new_term_never_comes_with_an_old_vote():
    """The torn record: the term of the new election beside the vote of the one before."""
    store = FailingStore()
    store.store_logs(entries("3333333333"))
    node = server(term=5, voted_for="s2", store=store)

    for _ in range(2):  # the second time nothing but the record could speak for it
        assert not on_request_vote(node, vote_request(6, last=(1, 1))).granted
        node = restarted(node, store)
        assert node.state.ballot == Ballot(6, None)


def test_fix_B11_term_and_vote_are_one_write():
    store = FailingStore()
    store.store_logs(entries("11"))
    node = server(term=5, voted_for="s3", store=store)
    store.writes.clear()

    assert on_request_vote(node, vote_request(6, last=(2, 1))).granted

    assert store.writes == ["ballot"]
    assert restarted(node, store).state.ballot == Ballot(6, "s2")


def test_fix_B11_a_write_that_fails_leaves_neither_half():
    store = FailingStore()
    node = server(term=5, voted_for="s3", store=store)
    store.error = OSError("the disk is gone")

    with pytest.raises(StorageError):
        on_request_vote(node, vote_request(6, last=(0, 0)))

    store.error = None
    assert node.state.ballot == restarted(node, store).state.ballot == Ballot(5, "s3")


def test_fix_B12_a_vote_is_for_a_server_and_not_for_an_address():
    node = server("11", term=2)
    at_a = vote_request(3, last=(2, 1), candidate="s2")
    assert on_request_vote(node, at_a).granted

    moved = type(at_a)(RpcHeader("s2", "elsewhere:1"), 3, 2, 1)
    in_its_place = type(at_a)(RpcHeader("s3", "s2"), 3, 2, 1)

    assert on_request_vote(node, moved).granted
    assert not on_request_vote(node, in_its_place).granted
    assert node.state.ballot.voted_for == "s2"


# -- E: entries --------------------------------------------------------------------------------


def test_fix_E7_a_replacement_that_fails_leaves_the_log_as_it_is_stored():
    store = FailingStore()
    store.store_logs(entries("11222"))
    node = server(term=3, store=store)
    store.error = OSError("no space left")

    with pytest.raises(StorageError):
        on_append_entries(node, append_request(3, prev=(2, 1), logs=entries("33", first=3)))

    assert node.state.log.last == LogPosition(2, 5)
    assert terms(node.state.log) == "11222"
    store.error = None
    assert terms(restarted(node, store).state.log) == "11222"


@pytest.mark.parametrize("committed", [3, 4, 5])
def test_fix_E8_what_is_committed_is_never_cut_off(committed):
    node = server("11111", term=2)
    node.state.commit_index = committed

    with pytest.raises(CorruptStoreError, match=f"replace entry 3, but we committed up to {committed}"):
        on_append_entries(node, append_request(3, prev=(2, 1), logs=entries("33", first=3)))

    assert terms(node.state.log) == "11111"


def test_fix_E10_a_follower_commits_what_the_request_proves_and_not_its_own_leftovers():
    """Go: duplicates of 3 and 4 with commit index 8 commit and apply the stale 5 to 8."""
    node = server("11111111", term=2)

    answer = on_append_entries(node, append_request(2, prev=(2, 1), logs=entries("11", first=3), commit=8))

    assert answer.success
    assert node.state.commit_index == 4


# -- H: snapshots ------------------------------------------------------------------------------

MEMBERS = Configuration((*S1_TO_S3.servers, Server("s4", "s4", Suffrage.NONVOTER)))


def offered(index, snapshot_term, term=5, leader="s2"):
    return InstallSnapshotRequest(
        RpcHeader(leader, leader), term, index, snapshot_term, MEMBERS, min(index, 2), 10
    )


def meta_of(request):
    return SnapshotMeta(
        "x", request.last_log_index, request.last_log_term, MEMBERS, request.configuration_index, 10
    )


def receiver(drawn, committed=0, store=None, **how):
    """A follower that can take snapshots; ``restored`` collects what its FSM is given."""
    store = stored(drawn) if store is None else store
    node = server(term=5, store=store, **how)
    node.state.commit_index = committed
    node.snapshots = SimpleNamespace(opener=lambda meta: None)
    node.restored = []
    node.fsm.restore = lambda meta, open: node.restored.append(meta.index)
    return node


@pytest.mark.parametrize("index", [1, 4, 10])
@pytest.mark.parametrize("moment", ["before the first byte", "once it is stored"])
def test_fix_H9_a_snapshot_of_what_is_committed_already_changes_nothing(index, moment):
    """Go: applied goes from 10 back to 4, with the commit index left at 10."""
    node = receiver("1111111111", committed=10)
    before = (node.state.log.last, node.state.log.snapshot, node.state.configurations)
    request = offered(index, 1)

    verdict = answer_snapshot(node, request, meta_of(request) if moment.startswith("once") else None)

    assert isinstance(verdict, InstallSnapshotResponse)
    assert verdict.success
    assert node.restored == []
    assert node.state.commit_index == 10
    assert (node.state.log.last, node.state.log.snapshot, node.state.configurations) == before


def test_fix_H10_everything_in_a_snapshot_is_committed():
    node = receiver("111", committed=2)
    request = offered(10, 4)
    assert answer_snapshot(node, request, None) is None  # it is wanted

    assert answer_snapshot(node, request, meta_of(request)).success

    assert node.state.commit_index == 10
    assert node.restored == [10]
    assert node.state.configurations.committed == node.state.configuration == MEMBERS


class Monotonic(FailingStore):
    """A store that allows no gaps, as raft-wal's."""

    def is_monotonic(self):
        return True

    def store_logs(self, logs):
        assert not self.last_index() or logs[0].index <= self.last_index() + 1, "a gap"
        super().store_logs(logs)


@pytest.mark.parametrize("kind", [FailingStore, Monotonic])
@pytest.mark.parametrize("drawn", ["1112222222", "11122222222222", "111"])
def test_fix_H11_a_log_that_contradicts_the_snapshot_goes_and_replication_goes_on_behind_it(drawn, kind):
    """Go keeps it, and is sent the same snapshot for ever."""
    store = kind()
    store.store_logs(entries(drawn))
    node = receiver("", committed=2, store=store)
    request = offered(8, 4)

    answer_snapshot(node, request, meta_of(request))

    assert node.state.log.last == LogPosition(4, 8)
    assert store.last_index() == 0
    answer = on_append_entries(node, append_request(5, prev=(8, 4), logs=entries("55", first=9), commit=10))
    assert answer.success
    assert node.state.log.last == LogPosition(5, 10)


def test_fix_H11_a_log_that_agrees_keeps_what_stands_behind_the_snapshot():
    node = receiver("1112222", committed=2)
    request = offered(5, 2)

    answer_snapshot(node, request, meta_of(request))

    assert node.state.log.last == LogPosition(2, 7)
    assert node.state.commit_index == 5


def test_fix_H11_a_configuration_of_the_dropped_suffix_is_not_in_force_any_more():
    from pyraft.configuration import encode_configuration
    from pyraft.log import Log

    store = stored("111")
    store.store_logs(
        [Log(4, 2, LogType.CONFIGURATION, encode_configuration(Configuration.of_voters({"s9": "s9"})))]
    )
    node = receiver("", store=store)
    node.state.take_configurations([store.get_log(4)])
    assert node.state.configuration.find("s9")
    request = offered(4, 4)

    answer_snapshot(node, request, meta_of(request))

    assert node.state.configuration == MEMBERS


# -- I: the call to stand ----------------------------------------------------------------------


def asked_to_stand(node, sender="s2", term=3):
    answers = []
    transition = accept_timeout_now(
        node, IncomingRpc(TimeoutNowRequest(RpcHeader(sender, sender), term), answers.append)
    )
    return transition, answers[0]


def without_a_vote(node):
    node.state.configurations = type(node.state.configurations)(
        Configuration(
            tuple(
                Server(s.id, s.address, Suffrage.NONVOTER if s.id == "s1" else s.suffrage)
                for s in S1_TO_S3.servers
            )
        ),
        1,
    )


def long_silent(node):
    node.runtime.at += 60


@pytest.mark.parametrize(
    ("arrange", "sender", "term"),
    [
        (None, "s9", 3),
        (None, "s3", 3),
        (None, "s2", 2),
        (without_a_vote, "s2", 3),
        (long_silent, "s2", 3),
    ],
    ids=["a stranger", "another member", "in an older term", "to a non-voter", "a leader long silent"],
)
def test_fix_I5_only_the_present_leader_makes_a_voter_stand(arrange, sender, term):
    node = following()
    if arrange is not None:
        arrange(node)

    transition, answer = asked_to_stand(node, sender, term)

    assert transition is None
    assert isinstance(answer, TransportError)
    assert node.state.ballot.term == 3


@pytest.mark.parametrize("term", [3, 0], ids=["pyraft", "Go, which does not say"])
def test_fix_I5_the_leader_itself_is_obeyed(term):
    transition, _ = asked_to_stand(following(), "s2", term)

    assert transition.role is RoleName.TRANSFER_CANDIDATE
