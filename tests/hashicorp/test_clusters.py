"""Rows of the conformance list that take a whole cluster, where no test elsewhere claims just that."""

import random
import threading

import pytest

from pyraft import (
    ConfigError,
    Configuration,
    LeadershipTransferInProgressError,
    Log,
    LogType,
    NotAppliedError,
    OutcomeUnknownError,
    RaftState,
    Server,
    Suffrage,
)
from pyraft.events import PeerMatched, TransferRequested
from pyraft.futures import RaftFuture
from pyraft.logstore import InmemStore
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
    TimeoutNowRequest,
    TimeoutNowResponse,
)
from pyraft.roles.leader import Leader
from pyraft.snapshots import InmemSnapshotStore
from pyraft.transport import wire
from tests.integration.clusters import PATIENCE, Cluster, config, eventually
from tests.nodes import server

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


def test_row_11_a_follower_that_missed_a_hundred_entries_catches_up(trio):
    behind = trio.followers(trio.leader())[0]
    trio.cut_off(behind.id)
    others = [id for id in trio.members if id != behind.id]
    trio.write(100, among=others)
    assert len(behind.fsm.applied) < 100

    trio.network.heal()

    trio.check_nothing_lost()
    assert behind.raft.last_contact is not None


class Monotonic(InmemStore):
    """A store that allows no gaps, as raft-wal's."""

    def is_monotonic(self):
        return True


@pytest.mark.parametrize("kind", [InmemStore, Monotonic])
def test_row_24_a_restart_from_a_snapshot_leaves_the_log_as_it_is(kind):
    settings = config(0.05, trailing_logs=5, restore_committed_logs=False)
    made = dict(settings=settings, make_store=lambda id: kind(), make_snapshots=InmemSnapshotStore)
    with Cluster(["n1"], **made) as cluster:
        cluster.start().write(20)
        member = cluster.members["n1"]
        position = member.raft.snapshot().result(PATIENCE)
        eventually(lambda: member.store.first_index() == member.store.last_index() - 4, "the log is cut")
        cluster.stop("n1")
        before = (member.store.first_index(), member.store.last_index())

        raft = cluster._from_parts(member, cluster.transport("n1"))

        assert (member.store.first_index(), member.store.last_index()) == before
        assert raft.applied_index == raft.commit_index == position.index
        raft.shutdown().result(PATIENCE)


class Forgetful(InmemStore):
    """Does not keep the commit index, which LogStore does not ask for."""

    def get_commit_index(self):
        return 0


def test_row_27_a_store_without_a_commit_index_starts_and_waits_for_a_leader():
    with Cluster(settings=config(CALM), make_store=lambda id: Forgetful()) as cluster:
        cluster.start().write(5)
        cluster.check_nothing_lost()
        cluster.stop(*cluster.members)

        one = cluster.members["n1"]
        cluster.start("n1")
        assert (one.raft.applied_index, one.raft.commit_index) == (0, 0)
        cluster.start()

        cluster.check_nothing_lost()


def test_row_36_a_follower_that_was_removed_comes_back(trio):
    leader = trio.leader()
    back = trio.followers(leader)[0]
    leader.raft.remove_server(back.id).result(PATIENCE)
    others = [id for id in trio.members if id != back.id]
    trio.write(3, among=others)

    trio.change(lambda raft: raft.add_voter(back.id, back.address, timeout=PATIENCE))

    trio.write(3)
    trio.check_nothing_lost()
    for member in trio.members.values():
        eventually(lambda m=member: len(members_of(m.raft)) == 3, f"{member.id} knows three members")


def chosen(servers, matches):
    """Whom a leader that is ``s1`` hands over to, or the error's text."""
    node = server("1", term=2, configuration=Configuration(servers))
    told = []
    node.spawn = lambda name, run: told.append(name)
    node.snapshots = None
    leader = Leader(node)
    leader._begin()
    for id, index in matches.items():
        leader._on_matched(PeerMatched(leader.session_of(id), index))
    future = RaftFuture(node.runtime)
    leader._transfers.begin(TransferRequested(future, None, None))
    node.notifier.stop()
    node.notifier.run()
    if future.done():
        return str(future.exception(0))
    return leader._transfers._target.id


S1, S2, S3 = (Server(id, id) for id in ("s1", "s2", "s3"))
N4 = Server("s4", "s4", Suffrage.NONVOTER)


@pytest.mark.parametrize(
    ("servers", "matches", "target"),
    [
        ((S1, S2, S3), {"s2": 1, "s3": 2}, "s3"),
        ((S1, S2, S3), {"s2": 2, "s3": 1}, "s2"),
        ((S1, S2, N4), {"s4": 2}, "s2"),
        ((S2, S1), {}, "s2"),
        ((S1,), {}, "there is no other voter"),
        ((S1, N4), {"s4": 2}, "there is no other voter"),
    ],
)
def test_rows_53_and_64_the_most_up_to_date_voter_is_picked_and_never_another(servers, matches, target):
    assert target in chosen(servers, matches)


@pytest.mark.parametrize("size", [3, 7])
def test_rows_56_57_and_90_leadership_goes_to_whom_it_is_given_while_commands_are_written(size):
    with Cluster([f"n{n}" for n in range(size)], settings=config(CALM)) as cluster:
        cluster.start().leader()
        over = threading.Event()
        unexpected = []

        def write():
            number = 0
            while not over.is_set():
                number += 1
                try:
                    cluster.leader().raft.apply(b"w%d" % number).result(PATIENCE)
                except (NotAppliedError, OutcomeUnknownError):
                    pass
                except Exception as error:
                    unexpected.append(error)
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(2):
                old = cluster.leader()
                target = cluster.followers(old)[-1]
                old.raft.leadership_transfer(target.id, target.address).result(PATIENCE)
                eventually(lambda t=target: t.raft.state is RaftState.LEADER, f"{target.id} leads")
        finally:
            over.set()
            writer.join(PATIENCE)
        assert unexpected == []
        cluster.check_nothing_lost()


def test_row_59_another_address_than_the_members_own_is_refused(trio):
    leader = trio.leader()
    target = trio.followers(leader)[0]

    with pytest.raises(ConfigError, match=rf"{target.id} is at '{target.address}' and not at 'elsewhere:1'"):
        leader.raft.leadership_transfer(target.id, "elsewhere:1").result(PATIENCE)

    trio.write(1)


def test_row_62_while_it_hands_over_a_leader_takes_nothing(trio):
    leader = trio.leader()
    target = trio.followers(leader)[0]
    trio.network.drop(dst=target.address, when=lambda message: bool(getattr(message, "entries", ())))
    trio.write(1, among=[leader.id])
    handing_over = leader.raft.leadership_transfer(target.id)

    for ask in (
        lambda: leader.raft.apply(b"x"),
        lambda: leader.raft.barrier(),
        lambda: leader.raft.leadership_transfer(),
    ):
        assert isinstance(ask().exception(PATIENCE), LeadershipTransferInProgressError)
    assert leader.raft.verify_leader().exception(PATIENCE) is None
    change = leader.raft.add_nonvoter("n9", "n9:1")  # waits for its turn
    trio.network.heal()

    handing_over.result(PATIENCE)
    assert isinstance(change.exception(PATIENCE), NotAppliedError)


def test_rows_79_84_and_85_a_cluster_grows_loses_servers_and_shrinks_again():
    settings = config(CALM, snapshot_threshold=20, snapshot_interval=0.02, trailing_logs=5)
    with Cluster(["n1"], settings=settings, make_snapshots=InmemSnapshotStore) as cluster:
        cluster.start().write(10)
        for id in ("n2", "n3", "n4", "n5"):
            new = cluster.join(id)
            cluster.change(lambda raft, id=id, new=new: raft.add_voter(id, new.address, timeout=PATIENCE))
            cluster.write(10)
        cluster.check_nothing_lost()

        away = cluster.followers(cluster.leader())[0].id
        cluster.stop(away)
        present = [id for id in cluster.members if id != away]
        cluster.write(60, among=present)
        cluster.start(away)
        cluster.check_nothing_lost()

        leader = cluster.leader()
        gone = [member.id for member in cluster.followers(leader)][:2]
        for id in gone:
            cluster.change(lambda raft, id=id: raft.remove_server(id))
        cluster.stop(*gone)
        left = [id for id in cluster.members if id not in gone]
        cluster.write(5, among=left)
        last = cluster.leader(left)
        cluster.stop(last.id)
        two = [id for id in left if id != last.id]
        cluster.write(5, among=two)
        cluster.check_nothing_lost(*two)
        assert set(members_of(cluster.leader(two).raft)) == set(left)


def test_row_87_a_server_that_is_removed_while_it_is_cut_off_disturbs_nobody_later(trio):
    leader = trio.leader()
    away = trio.followers(leader)[0]
    trio.cut_off(away.id)
    others = [id for id in trio.members if id != away.id]
    leader.raft.remove_server(away.id).result(PATIENCE)
    trio.write(3, among=others)
    term = leader.raft.term

    trio.network.heal()
    away.raft.campaign().exception(PATIENCE)

    trio.write(3, among=others)
    trio.check_nothing_lost(*others)
    assert leader.raft.term == term


# -- 172 to 181: a thousand messages of each kind ------------------------------------------------


class Draw:
    """Values that may stand in a message."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def number(self):
        return self.rng.choice([0, 1, 127, 128, 2**32, 2**63 - 1, self.rng.getrandbits(40)])

    def text(self):
        return "".join(self.rng.choices("abcé:.0 ☃", k=self.rng.randrange(20)))

    def name(self):
        return "x" + self.text()

    def bytes(self):
        return self.rng.randbytes(self.rng.choice([0, 1, 5, 300]))

    def yes(self):
        return self.rng.random() < 0.5

    def header(self):
        return RpcHeader(self.name(), self.text(), 3)

    def log(self):
        kind = self.rng.choice([LogType.COMMAND, LogType.NOOP, LogType.BARRIER, LogType.CONFIGURATION])
        return Log(self.number(), self.number(), kind, self.bytes(), self.bytes(), self.number())

    def configuration(self):
        servers = [Server(self.name(), self.name(), self.rng.choice(list(Suffrage))) for _ in range(3)]
        return Configuration(servers)


def drawn(kind, d):
    header, n = d.header(), d.number
    return {
        AppendEntriesRequest: lambda: kind(
            header, n(), n(), n(), [d.log() for _ in range(d.rng.randrange(4))], n()
        ),
        AppendEntriesResponse: lambda: kind(header, n(), n(), d.yes(), d.yes()),
        RequestVoteRequest: lambda: kind(header, n(), n(), n(), d.yes()),
        RequestVoteResponse: lambda: kind(header, n(), d.yes()),
        RequestPreVoteRequest: lambda: kind(header, n(), n(), n()),
        RequestPreVoteResponse: lambda: kind(header, n(), d.yes()),
        TimeoutNowRequest: lambda: kind(header, n()),
        TimeoutNowResponse: lambda: kind(header),
        InstallSnapshotRequest: lambda: kind(
            header, n(), n(), n(), d.configuration(), n(), d.rng.getrandbits(40)
        ),
        InstallSnapshotResponse: lambda: kind(header, n(), d.yes()),
    }[kind]()


def there_and_back(message):
    kind = type(message)
    if kind is InstallSnapshotRequest:
        return wire.decode_install_snapshot(wire.encode_install_snapshot(message))[0]
    if kind is InstallSnapshotResponse:
        return wire.decode_install_snapshot_response(wire.encode_install_snapshot_response(message))
    for request, method in wire.METHODS.items():
        if kind is request:
            return method.decode_request(method.encode_request(message))
        if kind.__name__ == request.__name__.removesuffix("Request") + "Response":
            return method.decode_response(method.encode_response(message))
    raise AssertionError(kind)


KINDS = [
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_172_to_181_whatever_a_message_holds_arrives(kind):
    d = Draw(kind.__name__)
    for _ in range(1000):
        sent = drawn(kind, d)
        got = there_and_back(sent)
        if kind is AppendEntriesRequest:
            assert list(got.entries) == list(sent.entries)
            assert (got.header, got.term, got.prev_log_entry) == (sent.header, sent.term, sent.prev_log_entry)
            assert got.prev_log_term == sent.prev_log_term
            assert got.leader_commit_index == sent.leader_commit_index
        else:
            assert got == sent


def test_row_131_an_address_is_the_same_text_on_both_sides():
    d = Draw("addresses")
    for _ in range(200):
        header = d.header()
        assert there_and_back(TimeoutNowResponse(header)).header == header
