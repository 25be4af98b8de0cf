"""A server with an empty disk: its disk may be new, or it may have been wiped.

If it was wiped, it has forgotten votes and acknowledgements that others count on.  So it
asks first, and what it cannot know of, it does not promise again.
"""

import logging
import random
import threading
from collections import defaultdict

import grpc
import pytest

from pyraft import CantBootstrapError, NotLeaderError, Raft, RaftState, Server, UnsupportedProtocolError
from pyraft.messages import (
    AppendEntriesRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    RequestVoteResponse,
    StandingRequest,
    StandingResponse,
)
from pyraft.roles import arrival
from pyraft.transport import InmemTransport
from tests.integration.clusters import (
    PATIENCE,
    Cluster,
    Member,
    Recorder,
    config,
    eventually,
    leaves_no_thread,
)

SHORT = 0.2
"""A timeout for tests in which elections are held in vain."""


class Watched(Cluster):
    """Notes who led in which term, and who asked whom for a vote."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.leaders = defaultdict(set)
        self.asked = defaultdict(int)
        self.answered = defaultdict(int)
        self.watch()

    def watch(self):
        """``heal`` ends every rule, this one included."""
        self.network.drop(when=self._see)

    def heal(self):
        self.network.heal()
        self.watch()

    def _see(self, message):
        if isinstance(message, AppendEntriesRequest):
            self.leaders[message.term].add(message.header.id)
        elif isinstance(message, RequestVoteRequest | RequestPreVoteRequest):
            self.asked[message.header.id] += 1
        elif isinstance(message, StandingResponse):
            self.answered[message.header.id] += 1
        return False

    def asks_in_vain(self, candidate, voter, times=3):
        """Wait until ``candidate`` has asked both others for votes some more, and see that nobody leads."""
        before = self.asked[candidate]
        eventually(lambda: self.asked[candidate] >= before + 2 * times, f"{candidate} stands again and again")
        for id in (candidate, voter):
            assert self.members[id].raft.state is not RaftState.LEADER
            assert self.members[id].raft.leader_id is None

    def check_one_leader_per_term(self):
        assert all(len(ids) == 1 for ids in self.leaders.values()), dict(self.leaders)


def ballot(member):
    return member.raft._state.ballot


def is_newborn(member):
    return ballot(member).newborn is not None


def lose_what_one_follower_alone_had(cluster):
    """Writes that only the leader and one follower have, whose disk is lost then.

    Returns the leader, the follower that was cut off before those writes, and the wiped one, which is down.
    """
    stale = cluster.start().followers(of=cluster.leader())[0]
    cluster.write(5)
    cluster.check_nothing_lost()
    cluster.cut_off(stale.id)
    rest = [id for id in cluster.members if id != stale.id]
    cluster.write(10, among=rest)
    leader = cluster.leader(among=rest)
    victim = next(member for member in cluster.followers(of=leader) if member is not stale)
    cluster.stop(victim.id)
    cluster.wipe(victim.id)
    return leader, stale, victim


def everything_is_there_and_the_wiped_one_votes_again(cluster, leader, stale, victim):
    cluster.check_nothing_lost()
    eventually(lambda: not is_newborn(victim), "the wiped one has caught up")
    cluster.check_one_leader_per_term()

    # Its vote is needed now: without the old leader there are only two.
    cluster.cut_off(leader.id)
    cluster.write(3, among=[stale.id, victim.id])
    cluster.heal()
    cluster.check_nothing_lost()
    cluster.check_one_leader_per_term()


def test_a_wiped_server_elects_nobody_while_it_has_not_heard_the_leader(tmp_path):
    with leaves_no_thread(), Watched(root=tmp_path, settings=config(SHORT)) as cluster:
        leader, stale, victim = lose_what_one_follower_alone_had(cluster)
        cluster.cut_off(leader.id)  # and the stale one is back

        cluster.start(victim.id)

        cluster.asks_in_vain(stale.id, victim.id)
        assert victim.raft.last_index == 0
        assert ballot(victim).term == 0
        assert type(victim.raft.apply(b"x").exception(timeout=PATIENCE)) is NotLeaderError
        cluster.heal()
        everything_is_there_and_the_wiped_one_votes_again(cluster, leader, stale, victim)


def lets_through(last):
    """Lose every entry after index ``last``."""
    return lambda message: (
        isinstance(message, AppendEntriesRequest)
        and bool(message.entries)
        and message.entries[-1].index > last
    )


@pytest.mark.parametrize("reaches", [0, 4], ids=["nothing", "the beginning of the log"])
@pytest.mark.parametrize("pre_vote", [True, False], ids=["pre-vote", "no pre-vote"])
def test_a_newborn_elects_neither_a_stale_server_nor_itself(tmp_path, reaches, pre_vote):
    """It has heard the leader, and then loses it before it has got back what it once acknowledged."""
    settings = config(SHORT, max_append_entries=1, pre_vote=pre_vote)
    with leaves_no_thread(), Watched(root=tmp_path, settings=settings) as cluster:
        leader, stale, victim = lose_what_one_follower_alone_had(cluster)
        asked_before = cluster.asked[victim.id]

        # It hears both, but of the log only a part that is shorter than the stale server's.
        cluster.network.drop(dst=victim.address, when=lets_through(reaches))
        cluster.network.drop(dst=stale.address, when=lets_through(stale.raft.last_index))
        cluster.network.partition()
        cluster.start(victim.id)
        eventually(lambda: is_newborn(victim), "it knows that it was wiped")
        eventually(lambda: victim.raft.last_index == reaches, "it has got what it may get")
        assert reaches < stale.raft.last_index < leader.raft.commit_index <= ballot(victim).newborn.target
        cluster.cut_off(leader.id)

        cluster.asks_in_vain(stale.id, victim.id)
        assert cluster.asked[victim.id] == asked_before, "it must not stand itself"
        assert is_newborn(victim)

        cluster.heal()
        everything_is_there_and_the_wiped_one_votes_again(cluster, leader, stale, victim)


def test_a_newborn_that_restarts_is_still_one(tmp_path):
    with leaves_no_thread(), Watched(root=tmp_path, settings=config(SHORT)) as cluster:
        leader, stale, victim = lose_what_one_follower_alone_had(cluster)
        for other in (stale, victim):
            cluster.network.drop(dst=other.address, when=lets_through(0))
        cluster.network.partition()
        cluster.start(victim.id)
        eventually(lambda: is_newborn(victim), "it knows that it was wiped")
        was = ballot(victim).newborn

        cluster.stop(victim.id)
        cluster.cut_off(leader.id)
        cluster.start(victim.id)

        assert ballot(victim).newborn == was
        cluster.asks_in_vain(stale.id, victim.id)
        cluster.heal()
        everything_is_there_and_the_wiped_one_votes_again(cluster, leader, stale, victim)


def test_a_server_wiped_after_its_first_vote_does_not_vote_again_in_that_term(tmp_path):
    """n2 voted for n1, whose disk remembers the term; the answer and n2's disk are lost."""
    settings = config(0.5, pre_vote=False)
    with leaves_no_thread(), Watched(root=tmp_path, settings=settings) as cluster:
        cluster.network.drop(when=lambda message: isinstance(message, RequestVoteResponse))
        cluster.start()
        eventually(
            lambda: ballot(cluster.members["n2"]).voted_for in ("n1", "n3"), "n2 has voted for another"
        )
        voted = ballot(cluster.members["n2"])
        cluster.stop("n2")
        cluster.wipe("n2")

        cluster.start("n2")
        eventually(lambda: cluster.members["n2"].raft.last_index == 1, "it has arrived")
        now = ballot(cluster.members["n2"])
        assert now.term >= voted.term
        # Whether it bootstrapped in that term or has seen a later one since: never unspent below.
        assert now.term > voted.term or now.voted_for == "n2"
        assert now.newborn is None

        cluster.heal()
        cluster.check_nothing_lost()
        cluster.check_one_leader_per_term()


def test_a_server_wiped_in_the_middle_of_the_first_election_finds_its_way(tmp_path):
    """At whatever message: the first, the second, ... of the election that passes by."""
    for count in range(1, 9):
        root = tmp_path / str(count)
        with leaves_no_thread(), Watched(root=root, settings=config(0.15)) as cluster:
            seen = threading.Semaphore(0)

            def count_messages(message, seen=seen):
                if not isinstance(message, StandingRequest):
                    seen.release()
                return False

            cluster.network.drop(when=count_messages)
            cluster.start()
            for _ in range(count):
                assert seen.acquire(timeout=PATIENCE)
            cluster.stop("n2")
            cluster.wipe("n2")
            cluster.start("n2")
            cluster.check_nothing_lost()
            cluster.check_one_leader_per_term()


def test_three_servers_that_start_at_the_same_instant_always_find_a_leader():
    """In memory and with short timeouts, many times; each time all three take part in the end."""
    for _ in range(50):
        start_all_at_once()


def start_all_at_once():
    with leaves_no_thread(), Cluster(settings=config(0.1), arrives=True) as cluster:
        together = threading.Barrier(3)

        def start(id):
            together.wait()
            cluster.start(id)

        threads = [threading.Thread(target=start, args=[id]) for id in cluster.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        cluster.check_nothing_lost()


def test_servers_that_are_wiped_one_after_the_other_lose_nothing(tmp_path):
    """Each is wiped only once the one before has grown up; another is cut off meanwhile."""
    dice = random.Random(7)
    with leaves_no_thread(), Watched(root=tmp_path, settings=config(0.2)) as cluster:
        cluster.start()
        for _ in range(6):
            victim, away = dice.sample(sorted(cluster.members), 2)
            cluster.write(3)
            cluster.cut_off(away)
            rest = [id for id in cluster.members if id != away]
            cluster.write(3, among=rest)
            cluster.stop(victim)
            cluster.wipe(victim)
            cluster.start(victim)
            if dice.random() < 0.5:
                cluster.heal()
                cluster.write(2)
            cluster.heal()
            cluster.check_nothing_lost()
            eventually(lambda victim=victim: not is_newborn(cluster.members[victim]), "it has grown up")
        cluster.check_one_leader_per_term()


class Counting:
    """Counts the calls for votes of a transport."""

    def __init__(self, transport):
        self.votes = 0
        self._call = transport.call
        transport.call = self

    def __call__(self, peer, request, timeout):
        if isinstance(request, RequestVoteRequest | RequestPreVoteRequest):
            self.votes += 1
        return self._call(peer, request, timeout)


def test_over_grpc_a_wiped_server_waits_for_the_one_that_knows(tmp_path):
    with leaves_no_thread(), Cluster(root=tmp_path, settings=config(0.3), over_grpc=True) as cluster:
        stale = cluster.start().followers(of=cluster.leader())[0]
        rest = [id for id in cluster.members if id != stale.id]
        cluster.write(3)
        cluster.check_nothing_lost()
        cluster.stop(stale.id)
        cluster.write(5, among=rest)
        leader = cluster.leader(among=rest)
        victim = next(member for member in cluster.followers(of=leader) if member is not stale)
        cluster.stop(*rest)
        cluster.wipe(victim.id)

        cluster.start(stale.id, victim.id)
        counting = Counting(stale.raft._transport)
        eventually(lambda: counting.votes >= 4, "the stale one stands again and again")
        assert {stale.raft.state, victim.raft.state} <= {RaftState.FOLLOWER, RaftState.CANDIDATE}
        assert victim.raft.last_index == 0

        cluster.start(leader.id)
        cluster.check_nothing_lost()
        eventually(lambda: not is_newborn(victim), "the wiped one has caught up")
        cluster.stop(leader.id)
        cluster.write(2, among=[stale.id, victim.id])


# -- peers that cannot say what they hold ------------------------------------------------------------


class AskingInVain(InmemTransport):
    """As if the others did not know the question; what every Raft server knows they answer."""

    def call(self, peer, request, timeout):
        if isinstance(request, StandingRequest):
            raise UnsupportedProtocolError(f"{peer.id} does not know this call")
        return super().call(peer, request, timeout)


class AmongOlder(Watched):
    """n2 and n3 have begun a cluster; n1 arrives there with an empty disk, and they know no such question."""

    def transport(self, id):
        kind = AskingInVain if id == "n1" else InmemTransport
        return kind(self.network, self.members[id].address)

    def arrive(self):
        self._arrives = True
        self.start("n1")
        return self.members["n1"]


def warned_of(peer, caplog):
    return any(
        record.levelno == logging.WARNING and f"peer={peer} cannot say what it holds" in record.getMessage()
        for record in caplog.records
    )


def test_peers_that_do_not_know_the_question_and_held_no_election_let_it_begin_with_a_warning(caplog):
    with leaves_no_thread(), AmongOlder() as cluster:
        cluster.network.drop(
            when=lambda message: (
                isinstance(message, RequestVoteRequest | RequestPreVoteRequest) and message.term > 0
            )
        )
        cluster.start("n2", "n3")
        one = cluster.arrive()
        eventually(lambda: one.raft.last_index == 1, "it has begun")
        assert warned_of("n2", caplog)
        assert warned_of("n3", caplog)
        assert not is_newborn(one)

        cluster.heal()
        cluster.check_nothing_lost()
        cluster.check_one_leader_per_term()


def test_peers_that_do_not_know_the_question_and_held_elections_make_it_a_newborn_for_their_term(caplog):
    with leaves_no_thread(), AmongOlder() as cluster:
        cluster.start("n2", "n3")
        cluster.write(3, among=["n2", "n3"])
        one = cluster.arrive()
        eventually(lambda: is_newborn(one), "it knows that there is a cluster")
        cluster.check_nothing_lost()
        assert warned_of("n2", caplog)
        assert warned_of("n3", caplog)
        born_in = ballot(one).newborn.term

        # How far it must catch up nobody could tell; the next term's first commit is far enough.
        leader = cluster.leader(among=["n2", "n3"])
        cluster.stop(leader.id)
        cluster.start(leader.id)
        cluster.check_nothing_lost()
        eventually(lambda: not is_newborn(one), "it votes")
        assert max(cluster.leaders) > born_in
        cluster.check_one_leader_per_term()


def test_over_grpc_a_server_without_our_service_counts_as_heard(tmp_path, caplog, monkeypatch):
    """It has the calls that Go servers have."""
    from pyraft.transport import grpc_transport

    with leaves_no_thread(), Cluster(["n1"], settings=config(0.3), over_grpc=True) as cluster:
        known = {
            kind: method for kind, method in grpc_transport.METHODS.items() if kind is not StandingRequest
        }
        with monkeypatch.context() as older:
            older.setattr(grpc_transport, "METHODS", known)
            two = grpc_transport.GrpcTransport("127.0.0.1:0")
        cluster.members["n2"] = Member("n2", two.local_address)
        cluster._transports["n2"] = two
        cluster.start("n2")
        cluster._arrives = True
        cluster.start("n1")
        one = cluster.members["n1"]
        eventually(lambda: one.raft.last_index >= 1, "it has arrived")
        assert warned_of("n2", caplog)
        cluster.check_nothing_lost()


def test_over_grpc_a_stranger_on_a_peers_port_is_not_that_peer(caplog):
    from concurrent.futures import ThreadPoolExecutor

    stranger = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    port = stranger.add_insecure_port("127.0.0.1:0")
    stranger.start()
    try:
        with Cluster(["n1"], settings=config(0.3), over_grpc=True, arrives=True) as cluster:
            cluster.members["n2"] = Member("n2", f"127.0.0.1:{port}")
            cluster.start("n1")
            eventually(lambda: "waiting to hear from 1 more of n2" in caplog.text, "it says that it waits")
            eventually(lambda: f"n2 at 127.0.0.1:{port}" in caplog.text, "and what came of asking")
            assert cluster.members["n1"].raft.last_index == 0
            assert not warned_of("n2", caplog)
    finally:
        stranger.stop(None).wait(PATIENCE)


class Swapped(Cluster):
    """The address of n3 leads to n2."""

    def transport(self, id):
        swapped = self.members["n2"].address

        class Misled(InmemTransport):
            def call(self, peer, request, timeout):
                address = swapped if peer.id == "n3" else peer.address
                return super().call(Server(peer.id, address), request, timeout)

        return Misled(self.network, self.members[id].address)


def test_another_server_under_a_peers_address_is_not_that_peer(caplog):
    with leaves_no_thread(), Swapped(arrives=True) as cluster:
        cluster.start("n1", "n2")
        eventually(lambda: "where n3 should be" in caplog.text, "it says who answers there")
        assert cluster.members["n1"].raft.last_index == 0


# -- while it waits, and when it is interrupted ----------------------------------------------------------


def test_a_server_that_waits_for_the_others_says_so_and_promises_nothing(tmp_path, caplog):
    from pyraft import Configuration

    with leaves_no_thread(), Cluster(root=tmp_path) as cluster:
        cluster.start("n1", "n2")
        one = cluster.members["n1"]
        eventually(lambda: "n1" in caplog.text and "waiting to hear from 1 more" in caplog.text, "it says so")
        assert "n3" in caplog.text
        for member in (one, cluster.members["n2"]):
            assert member.raft.last_index == 0
            assert ballot(member).term == 0
            assert type(member.raft.apply(b"x").exception(timeout=PATIENCE)) is NotLeaderError
        refused = one.raft.bootstrap_cluster(Configuration.of_voters(cluster.addresses)).exception(PATIENCE)
        assert type(refused) is CantBootstrapError
        assert "by itself" in str(refused)

        cluster.start("n3")
        cluster.check_nothing_lost()


def test_a_server_that_waits_for_the_others_can_be_shut_down_at_once(tmp_path):
    with leaves_no_thread(), Cluster(root=tmp_path, settings=config(30.0)) as cluster:
        # Silence, not refusal: the questions hang in their calls.
        cluster.start("n1", "n2")
        cluster.network.drop()
        cluster.stop("n1", "n2")


class Crash(Exception):
    """Ends the main thread where a power cut would."""


def test_a_crash_between_ballot_and_bootstrap_entry_is_made_good_at_the_next_start(tmp_path, monkeypatch):
    # Long enough that the two others do not elect one of them before this one has asked them.
    with leaves_no_thread(), Watched(root=tmp_path, settings=config(1.0)) as cluster:

        def crash(node, configuration):
            if node.id == "n1":
                raise Crash
            begin(node, configuration)

        begin = arrival.begin_cluster
        monkeypatch.setattr(arrival, "begin_cluster", crash)
        cluster.start()
        one = cluster.members["n1"]
        assert one.raft.wait_stopped(timeout=PATIENCE)
        assert ballot(one).voted_for == "n1"
        assert one.raft.last_index == 0
        one.raft.shutdown().result(timeout=PATIENCE)

        monkeypatch.setattr(arrival, "begin_cluster", begin)
        cluster.start("n1")
        cluster.check_nothing_lost()
        assert is_newborn(one) is False
        cluster.check_one_leader_per_term()


def test_a_crash_of_all_three_in_the_middle_of_arrival_is_made_good(tmp_path, monkeypatch):
    with leaves_no_thread(), Watched(root=tmp_path) as cluster:

        def crash(node, configuration):
            raise Crash

        with monkeypatch.context() as patched:
            patched.setattr(arrival, "begin_cluster", crash)
            cluster.start()
            # Those that crashed early do not answer the others, who then go on asking.
            eventually(lambda: any(not member.runs for member in cluster.members.values()), "one crashed")
            cluster.stop(*cluster.members)
        cluster.start()
        cluster.check_nothing_lost()
        cluster.check_one_leader_per_term()


def test_a_directory_that_has_state_ignores_the_bootstrap_set(tmp_path):
    with leaves_no_thread(), Cluster(root=tmp_path) as cluster:
        cluster.start().leader()
        cluster.write(3)
        cluster.check_nothing_lost()
        cluster.stop("n1")
        fsm = Recorder()
        one = cluster.members["n1"]
        others = {"n1": one.address, "n8": "n8.test:1", "n9": "n9.test:1"}
        with Raft.open(
            str(cluster.directory("n1")),
            id="n1",
            fsm=fsm,
            bootstrap=others,
            transport=cluster.transport("n1"),
            config=cluster.settings,
        ) as raft:
            assert {server.id for server in raft._state.configuration.servers} == {"n1", "n2", "n3"}
            eventually(lambda: fsm.applied == cluster.acknowledged, "it is a member as before")


def test_a_cluster_of_one_asks_nobody(tmp_path):
    with leaves_no_thread(), Cluster(["n1"], root=tmp_path, settings=config(0.05)) as cluster:
        cluster.start().leader()
        cluster.check_nothing_lost()


def test_a_new_cluster_begins_when_all_its_voters_are_there(tmp_path):
    ids = [f"n{n}" for n in range(1, 6)]
    with leaves_no_thread(), Watched(ids, root=tmp_path) as cluster:
        cluster.start(*ids[:4])
        eventually(lambda: min(cluster.answered[id] for id in ids[:4]) >= 3, "all four have answered all")
        assert [cluster.members[id].raft.last_index for id in ids[:4]] == [0] * 4

        cluster.start("n5")

        cluster.check_nothing_lost()


def test_a_wiped_server_waits_for_the_one_that_alone_knows_of_its_promise(tmp_path):
    """Of five, only the leader and the wiped one had an entry; three others know nothing of it.

    The wiped one's copy may still be counted: were it to help the three elect one of them
    now, an entry that the old leader commits with that copy would be lost.
    """
    ids = [f"n{n}" for n in range(1, 6)]
    with leaves_no_thread(), Watched(ids, root=tmp_path) as cluster:
        leader = cluster.start().leader()
        cluster.write(3)
        cluster.check_nothing_lost()
        victim, *three = cluster.followers(of=leader)
        cluster.cut_off_together(leader.id, victim.id)
        leader.raft.apply(b"a promise")
        eventually(
            lambda: (
                victim.raft.last_index == leader.raft.last_index or leader.raft.state is not RaftState.LEADER
            ),
            "the wiped one has a copy, or there never was one",
        )
        cluster.stop(victim.id)
        cluster.wipe(victim.id)
        cluster.cut_off(leader.id)
        cluster.answered.clear()
        cluster.start(victim.id)

        eventually(lambda: all(cluster.answered[member.id] for member in three), "the three have answered")
        others = [member.id for member in three]
        cluster.write(3, among=others)  # they are a majority, and work meanwhile
        assert victim.raft.last_index == 0
        assert ballot(victim).term == 0
        assert ballot(victim).newborn is None

        cluster.heal()
        cluster.check_nothing_lost()
        eventually(lambda: not is_newborn(victim), "it votes again")
        cluster.check_one_leader_per_term()


def test_a_wiped_server_also_hears_voters_that_joined_after_the_bootstrap(tmp_path, caplog):
    with Cluster(root=tmp_path, settings=config(0.5)) as cluster:
        cluster.start().write(3)
        new = cluster.join("n4")
        cluster.change(lambda raft: raft.add_voter("n4", new.address, timeout=PATIENCE))
        cluster.write(1)
        victim = next(id for id in ("n1", "n2", "n3") if cluster.members[id].raft.state.value != "Leader")
        cluster.stop(victim)
        cluster.wipe(victim)
        cluster.stop("n4")  # it may know of a promise that nobody else knows of

        cluster.start(victim)
        eventually(lambda: "waiting to hear from 1 more of n4" in caplog.text, "it says whom it misses")
        cluster.start("n4")

        cluster.check_nothing_lost()
