"""Rows 1 to 78 of the conformance list, where no test elsewhere claims just that."""

import dataclasses

import pytest

from pyraft import (
    BatchingFSM,
    CantBootstrapError,
    Configuration,
    ConfigurationStore,
    EnqueueTimeoutError,
    LeadershipLostError,
    NothingNewToSnapshotError,
    NotLeaderError,
    NotVoterError,
    RaftShutdownError,
    RaftState,
    Server,
    Suffrage,
    TransportError,
    has_existing_state,
)
from pyraft.logstore import InmemStore, LogCache
from pyraft.messages import AppendEntriesRequest, InstallSnapshotRequest, RpcHeader
from pyraft.rpc_handlers import answer_request, on_append_entries, on_request_pre_vote, on_request_vote
from pyraft.snapshots import InmemSnapshotStore
from pyraft.transport import wire
from tests.integration.clusters import ALONE, PATIENCE, Cluster, Gated, Recorder, alone, config, eventually
from tests.logs import entries
from tests.nodes import append_request, pre_vote_request, server, stage, vote_request

CALM = 2.0
"""Seconds: an election timeout that a busy machine does not miss."""


@pytest.fixture
def trio():
    with Cluster(settings=config(CALM)) as made:
        made.start()
        made.leader()
        yield made


def members_of(raft):
    return {s.id: s.suffrage for s in raft.get_configuration().configuration.servers}


AFTER_THE_END = {
    "apply": lambda raft: raft.apply(b"x"),
    "barrier": lambda raft: raft.barrier(),
    "add_voter": lambda raft: raft.add_voter("n2", "n2:1"),
    "add_nonvoter": lambda raft: raft.add_nonvoter("n2", "n2:1"),
    "remove_server": lambda raft: raft.remove_server("n1"),
    "demote_voter": lambda raft: raft.demote_voter("n1"),
    "snapshot": lambda raft: raft.snapshot(),
    "leadership_transfer": lambda raft: raft.leadership_transfer(),
    "verify_leader": lambda raft: raft.verify_leader(),
    "read_index": lambda raft: raft.read_index(),
    "campaign": lambda raft: raft.campaign(),
    "bootstrap_cluster": lambda raft: raft.bootstrap_cluster(Configuration.of_voters({"n1": "n1:1"})),
}


def test_row_2_after_shutdown_every_call_is_refused_and_shutdown_may_be_repeated():
    raft = alone()
    raft.shutdown().result(PATIENCE)

    for name, ask in AFTER_THE_END.items():
        assert isinstance(ask(raft).exception(PATIENCE), RaftShutdownError), name
    raft.shutdown().result(PATIENCE)


def test_row_3_one_of_three_running_servers_is_bootstrapped_and_they_become_a_cluster():
    with Cluster(["n1"], settings=config(CALM)) as cluster:
        del cluster.members["n1"]
        for id in ("n1", "n2", "n3"):
            cluster.join(id)
        first = Configuration.of_voters(cluster.addresses)
        one = cluster.members["n1"].raft

        one.bootstrap_cluster(first).result(PATIENCE)

        cluster.leader()
        cluster.write(3)
        cluster.check_nothing_lost()
        assert isinstance(one.bootstrap_cluster(first).exception(PATIENCE), CantBootstrapError)


def test_row_4_a_server_without_a_vote_cannot_begin_a_cluster():
    with Cluster(["n1"], settings=config(CALM)) as cluster:
        new = cluster.join("n2")
        first = Configuration((Server("n3", "n3:1"), Server("n2", new.address, Suffrage.NONVOTER)))

        assert isinstance(new.raft.bootstrap_cluster(first).exception(PATIENCE), NotVoterError)


def test_row_7_a_server_has_state_once_it_was_part_of_a_cluster():
    store, snapshots = InmemStore(), InmemSnapshotStore()
    assert not has_existing_state(store, store, snapshots)

    with Cluster(["n1"], settings=config(ALONE)) as cluster:
        cluster.start().leader()
        joined = cluster.join("n2")
        assert not has_existing_state(joined.store, joined.store, joined.snapshots)
        cluster.change(lambda raft: raft.add_nonvoter("n2", joined.address))
        eventually(lambda: joined.raft.last_index > 0, "it joined")
        cluster.stop("n2")
        assert has_existing_state(joined.store, joined.store, joined.snapshots)


def test_row_8_a_server_alone_leads_and_applies():
    with Cluster(["n1"], settings=config(ALONE)) as cluster:
        raft = cluster.start().members["n1"].raft
        cluster.leader()

        future = raft.apply(b"test")

        assert future.result(PATIENCE) == future.response == 1
        assert future.index > 0
        assert cluster.members["n1"].fsm.applied == [b"test"]


def test_row_12_a_follower_refuses_and_says_so_again(trio):
    follower = trio.followers(trio.leader())[0]
    future = follower.raft.apply(b"x")

    for _ in range(2):
        assert isinstance(future.exception(PATIENCE), NotLeaderError)


def test_row_14_a_queue_that_is_full_ends_the_wait_for_room():
    fsm = Gated()
    raft = alone(fsm, max_proposals=1, max_uncommitted_entries=1)
    try:
        raft.apply(b"stuck in the FSM")
        assert fsm.inside.wait(PATIENCE)
        futures = [raft.apply(b"x", timeout=0.001) for _ in range(3)]
        assert isinstance(futures[-1].exception(PATIENCE), EnqueueTimeoutError)
    finally:
        fsm.gate.set()
        raft.shutdown().result(PATIENCE)


class Configured(Recorder, ConfigurationStore):
    def __init__(self):
        super().__init__()
        self.configurations = []

    def store_configuration(self, index, configuration):
        self.configurations.append((index, configuration))


def test_row_16_an_fsm_that_wants_to_know_hears_of_every_configuration():
    with Cluster(["n1"], settings=config(CALM), fsm=Configured) as cluster:
        cluster.start().leader()
        for id in ("n2", "n3"):
            new = cluster.join(id)
            cluster.change(lambda raft, id=id, new=new: raft.add_voter(id, new.address, timeout=PATIENCE))

        for member in cluster.members.values():
            eventually(lambda m=member: len(m.fsm.configurations) == 3, f"{member.id} heard of three")
            sizes = [len(configuration.servers) for _, configuration in member.fsm.configurations]
            assert sizes == [1, 2, 3]
            indexes = [index for index, _ in member.fsm.configurations]
            assert indexes == sorted(indexes)


def test_row_17_a_removed_follower_stays_a_follower(trio):
    leader = trio.leader()
    removed = trio.followers(leader)[0]

    leader.raft.remove_server(removed.id).result(PATIENCE)

    for member in trio.members.values():
        eventually(lambda m=member: removed.id not in members_of(m.raft), f"{member.id} knows")
    assert removed.raft.state is RaftState.FOLLOWER


def test_row_19_a_removed_leader_that_stays_takes_nothing_and_has_no_vote():
    with Cluster(settings=config(CALM, shutdown_on_remove=False)) as cluster:
        leader = cluster.start().leader()

        leader.raft.remove_server(leader.id).result(PATIENCE)

        eventually(lambda: leader.raft.state is RaftState.FOLLOWER, "it follows")
        assert isinstance(leader.raft.apply(b"x").exception(PATIENCE), NotLeaderError)
        assert leader.id not in members_of(leader.raft)


def test_row_20_a_split_half_cannot_shrink_itself_to_a_majority():
    with Cluster(["n1", "n2", "n3", "n4"], settings=config(0.5)) as cluster:
        leader = cluster.start().leader()
        near, *far = cluster.followers(leader)
        cluster.cut_off_together(leader.id, near.id)

        error = leader.raft.remove_server(near.id).exception(PATIENCE)

        assert isinstance(error, LeadershipLostError | NotLeaderError)
        cluster.network.heal()
        cluster.write(1)
        left = members_of(cluster.leader().raft)  # whether the removal survives is open
        assert {leader.id, *(member.id for member in far)} <= set(left)
        cluster.check_nothing_lost(*left)


def test_row_21_adding_a_voter_again_is_an_entry_that_changes_nothing(trio):
    leader = trio.leader()
    before = leader.raft.get_configuration()
    known = trio.followers(leader)[0]

    future = leader.raft.add_voter(known.id, known.address)
    future.result(PATIENCE)

    after = leader.raft.get_configuration()
    assert (after.configuration, after.index) == (before.configuration, future.index)
    assert after.index > before.index


def test_row_32_a_snapshot_needs_something_applied():
    with Cluster(["n1"], settings=config(ALONE), make_snapshots=InmemSnapshotStore) as cluster:
        raft = cluster.start().leader().raft
        eventually(lambda: raft.applied_index == raft.last_index, "the no-op is applied")
        raft.snapshot().exception(PATIENCE)  # the bootstrap counts: it is in the snapshot
        assert isinstance(raft.snapshot().exception(PATIENCE), NothingNewToSnapshotError)
        cluster.write(1)

        future = raft.snapshot()

        assert future.result(PATIENCE).index == raft.applied_index
        for _ in range(2):  # it may be opened more than once
            with future.open() as source:
                assert source.read() == b"\n".join(cluster.acknowledged)


def test_row_37_a_leader_that_lost_its_only_follower_says_so_and_names_nobody():
    with Cluster(["n1", "n2"], settings=config(0.3)) as cluster:
        leader = cluster.start().leader()
        other = cluster.followers(leader)[0]
        changes = leader.raft.leadership_changes()
        cluster.cut_off(other.id)

        assert changes.get(PATIENCE) is False
        eventually(
            lambda: (leader.raft.leader_id, leader.raft.leader_address) == (None, None), "nobody leads there"
        )
        assert leader.raft.last_contact is None or leader.raft.last_contact >= 0


def test_row_38_a_barrier_comes_after_everything_before_it(trio):
    leader = trio.leader()
    for n in range(100):
        leader.raft.apply(b"%d" % n)

    index = leader.raft.barrier().result(PATIENCE)

    assert len(leader.fsm.applied) == 100
    for member in trio.followers(leader):
        member.raft.wait_applied(index, PATIENCE)
        assert member.fsm.applied == leader.fsm.applied


def test_row_40_a_server_alone_has_proved_at_once_that_it_leads():
    raft = alone()
    assert raft.verify_leader().result(PATIENCE) is None
    raft.shutdown().result(PATIENCE)


def test_row_41_a_peer_in_a_later_term_ends_a_leadership_and_its_proof():
    with stage() as s:
        s.make_it_lead()
        later = s.raft.term + 5
        s.s2.mute = True
        s.s3.term = later

        error = s.raft.verify_leader().exception(PATIENCE)

        assert isinstance(error, NotLeaderError)
        eventually(lambda: s.raft.term >= later, "it knows the later term")
        assert s.raft.leader_id is None or s.raft.state is not RaftState.LEADER


def test_row_42_one_of_two_followers_is_enough_for_a_proof():
    with stage() as s:
        s.make_it_lead()
        s.s3.mute = True

        assert s.raft.verify_leader().exception(PATIENCE) is None


@pytest.mark.parametrize(
    ("header", "leader"),
    [(RpcHeader("s2", "s2"), b""), (RpcHeader(), b"s2")],
    ids=["header", "deprecated field"],
)
def test_row_44_the_leader_is_named_by_the_header_or_by_the_deprecated_field(header, leader):
    from pyraft.transport import raft_transport_pb2 as pb

    message = pb.AppendEntriesRequest.FromString(wire.encode_append_entries(AppendEntriesRequest(header, 3)))
    message.leader = leader
    node = server("1", term=3)

    answer = on_append_entries(node, wire.decode_append_entries(message.SerializeToString()))

    assert answer.success
    assert node.state.leader == ("s2", "s2")


@pytest.mark.parametrize("without", [1, 2, 3])
def test_row_45_servers_with_and_without_pre_votes_elect_together(without):
    ids = ["n1", "n2", "n3"]
    with Cluster(ids, settings=config(0.5)) as cluster:
        with_pre_vote = cluster.settings
        for number, id in enumerate(ids):
            cluster.settings = dataclasses.replace(with_pre_vote, pre_vote=number >= without)
            cluster.start(id)
        old = cluster.leader()
        cluster.write(1)

        cluster.cut_off(old.id)

        others = [id for id in ids if id != old.id]
        cluster.leader(others)
        cluster.write(1, among=others)
        cluster.network.heal()
        cluster.check_nothing_lost()


def test_row_46_a_server_that_was_cut_off_raises_no_term():
    with stage(votes=False, heartbeat_timeout=0.05, election_timeout=0.05, leader_lease_timeout=0.05) as s:
        s.s2.sends(append_request(2, leader="s2"))
        from pyraft.messages import RequestPreVoteRequest

        eventually(lambda: len(s.s3.received(RequestPreVoteRequest)) >= 3, "it has asked again and again")

        assert s.raft.term == 2


def following_s2(drawn="11", term=2):
    node = server(drawn, term=term)
    on_append_entries(node, append_request(term, leader="s2"))
    return node


def test_row_47_a_vote_while_a_leader_is_heard():
    for candidate, transfer, granted in (("s2", False, True), ("s3", False, False), ("s3", True, True)):
        request = vote_request(3, last=(2, 1), candidate=candidate, transfer=transfer)
        assert on_request_vote(following_s2(), request).granted is granted, (candidate, transfer)


@pytest.mark.parametrize(
    ("version", "is_refused"), [(4, True), (-1, True), (3, False), (2, False), (1, True)]
)
def test_row_48_a_protocol_version_that_is_not_spoken_is_refused(version, is_refused):
    node = server("1", term=1)
    requests = [
        AppendEntriesRequest(RpcHeader("s2", "s2", version), 1),
        dataclasses.replace(vote_request(1, last=(1, 1)), header=RpcHeader("s2", "s2", version)),
        dataclasses.replace(pre_vote_request(1, last=(1, 1)), header=RpcHeader("s2", "s2", version)),
    ]

    for request in requests:
        answer = answer_request(node, request)
        assert ("protocol version" in str(answer)) is is_refused


def test_row_51_every_server_knows_the_leaders_id_and_address(trio):
    leader = trio.leader()

    for member in trio.members.values():
        eventually(
            lambda m=member: (m.raft.leader_id, m.raft.leader_address) == (leader.id, leader.address),
            f"{member.id} knows",
        )


def test_row_66_the_configuration_of_a_running_server_is_what_its_stores_hold(trio):
    from pyraft.state import NodeState

    leader = trio.leader()
    live = leader.raft.get_configuration()
    trio.stop(leader.id)

    offline = NodeState(leader.id, leader.store, leader.store)

    assert (offline.configuration, offline.configurations.latest_index) == (live.configuration, live.index)


def test_row_68_a_write_that_failed_under_a_cache_does_not_come_back_after_a_restart():
    store = InmemStore()
    cache = LogCache(64, store)
    cache.store_logs(entries("111"))

    def full(logs):
        raise OSError("no space left")

    store.store_logs = full
    with pytest.raises(OSError, match="no space left"):
        cache.store_logs(entries("1", first=4))
    del store.store_logs

    assert cache.last_index() == 3
    assert server(store=store).state.log.last.index == 3
    again = LogCache(64, store)
    again.store_logs(entries("2", first=4))
    assert again.get_log(4).term == 2


def test_row_71_a_snapshot_of_the_oldest_version_with_bad_peers_is_refused():
    from pyraft.transport import raft_transport_pb2 as pb

    request = InstallSnapshotRequest(RpcHeader("s2", "s2"), 1, 1, 1, Configuration(), 1, 0)
    message = pb.InstallSnapshotRequest.FromString(wire.encode_install_snapshot(request))
    message.snapshot_version = 0
    message.peers = b"\x01bad"

    with pytest.raises(TransportError, match="failed to decode peers"):
        wire.decode_install_snapshot(message.SerializeToString())


def test_row_72_a_removed_server_gets_no_vote_and_its_term_is_not_adopted():
    node = server("11", term=2)

    answer = on_request_vote(node, vote_request(50, last=(2, 1), candidate="s9"))

    assert (answer.granted, node.state.ballot.term) == (False, 2)


def test_row_73_a_nonvoter_with_a_later_term_is_taken_in_and_does_not_lead(trio):
    from pyraft.rules.election import Ballot
    from pyraft.state import BALLOT_KEY, encode_ballot

    new = trio._enrol("n4", joins=True)
    new.store = InmemStore()
    new.store.set(BALLOT_KEY, encode_ballot(Ballot(trio.leader().raft.term + 20)))
    trio._start(new, is_eager=False)
    later = new.raft.term

    trio.change(lambda raft: raft.add_nonvoter("n4", new.address))

    eventually(lambda: trio.leader().raft.term >= later, "the cluster adopts the term")
    trio.write(3)
    trio.check_nothing_lost()
    assert new.raft.state is RaftState.FOLLOWER
    trio.change(lambda raft: raft.add_voter("n4", new.address, timeout=PATIENCE))
    trio.write(1)


def test_row_74_a_follower_that_restarts_causes_no_election(trio):
    trio.write(1)
    leader = trio.leader()
    term = leader.raft.term
    one = trio.followers(leader)[0]

    trio.stop(one.id)
    trio.start(one.id)
    trio.write(2)
    trio.check_nothing_lost()

    assert (trio.leader() is leader, leader.raft.term) == (True, term)


def suffrage_of_s1(suffrage):
    others = (Server("s2", "s2"), Server("s3", "s3"))
    if suffrage is None:
        return Configuration(others)
    return Configuration((Server("s1", "s1", suffrage), *others))


@pytest.mark.parametrize(
    ("suffrage", "stands"),
    [(Suffrage.VOTER, True), (Suffrage.NONVOTER, False), (Suffrage.STAGING, False), (None, False)],
)
def test_row_75_who_stands_when_nobody_is_heard(suffrage, stands):
    from pyraft.roles.follower import Follower

    node = server("1", term=1, configuration=suffrage_of_s1(suffrage))

    assert Follower(node)._may_stand() is stands


def test_rows_77_and_78_pre_votes_while_a_leader_is_heard():
    for candidate, granted in (("s2", True), ("s3", False)):
        node = following_s2()
        request = pre_vote_request(3, last=(2, 1), candidate=candidate)
        assert on_request_pre_vote(node, request).granted is granted, candidate


# -- the table that hashicorp/raft's tests wish for ----------------------------------------------

NO_ENTRIES = ""


@pytest.mark.parametrize(
    ("term", "prev", "sent", "success", "left"),
    [
        (1, (3, 1), "1", False, "112"),  # the leader's term is older
        (3, (0, 0), "112", True, "112"),  # all known
        (3, (3, 2), NO_ENTRIES, True, "112"),  # nothing sent
        (3, (3, 2), "33", True, "11233"),  # all new
        (3, (1, 1), "1233", True, "11233"),  # known and new
        (3, (0, 0), "333", True, "333"),  # all in conflict
        (3, (1, 1), "133", True, "1133"),  # known and in conflict
        (3, (3, 3), "3", False, "112"),  # another term before them
        (3, (4, 3), "3", False, "112"),  # a gap
        (3, (99, 3), NO_ENTRIES, False, "112"),  # far past the end
    ],
)
def test_the_append_entries_table(term, prev, sent, success, left):
    from tests.logs import terms

    node = server("112", term=2)

    answer = on_append_entries(node, append_request(term, prev=prev, logs=entries(sent, first=prev[0] + 1)))

    assert (answer.success, terms(node.state.log)) == (success, left)


class Batching(Recorder, BatchingFSM):
    """The build tag ``batchtest``: everything works with batches as well."""

    def apply_batch(self, logs):
        return [Recorder.apply(self, log) for log in logs]

    def apply(self, log):
        raise AssertionError("in batches only")


def test_a_cluster_with_batches_loses_nothing_either():
    with Cluster(settings=config(CALM), fsm=Batching) as cluster:
        cluster.start().write(20)
        cluster.check_nothing_lost()


def test_row_124_an_empty_store_has_no_oldest_entry():
    store = InmemStore()
    assert store.first_index() == 0
    store.store_logs(entries("111", first=5))
    assert store.first_index() == 5
