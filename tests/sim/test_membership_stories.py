"""Stories of changing members, of leadership handed over, and of reads, each a few virtual seconds long."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pyraft.config import Config
from pyraft.configuration import Suffrage
from pyraft.errors import (
    ConfigError,
    EnqueueTimeoutError,
    LeadershipLostError,
    LeadershipTransferInProgressError,
    NotLeaderError,
    RaftError,
    RaftShutdownError,
    ReadTimeoutError,
)
from pyraft.state import RaftState
from pyraft.testing import KvFsm, SimCluster
from pyraft.testing.member_faults import Churn, Reads, Transfers, _add_twin
from pyraft.testing.sim_kv import encode_command

ONE_BY_ONE = {"max_append_entries": 4, "max_inflight_appends": 1}
QUICK = Config(heartbeat_timeout=0.2, election_timeout=0.2, leader_lease_timeout=0.1)


@pytest.fixture
def start():
    clusters = []

    def start_cluster(*args, config=QUICK, **kwargs):
        clusters.append(SimCluster(*args, config=config, **kwargs))
        return clusters[-1]

    yield start_cluster
    for cluster in clusters:
        cluster.close()


def put(cluster, key, value):
    return cluster.apply(encode_command(key, ("put", value)))


def members(cluster):
    return {server.id: server.suffrage for server in cluster.judge.members.servers}


def change(cluster, ask):
    """Have whoever leads make a change; ask again when its leadership ends."""
    while True:
        try:
            return ask(cluster.leader().raft).result(20)
        except (NotLeaderError, LeadershipLostError, RaftShutdownError):
            cluster.run(0.2)


def add(cluster, server):
    change(cluster, lambda raft: raft.add_voter(server.id, server.address))


def remove(cluster, id):
    change(cluster, lambda raft: raft.remove_server(id))


def follower(cluster):
    leader = cluster.leader()
    return next(server for server in cluster.servers.values() if server is not leader)


@pytest.mark.parametrize("moves", [False, True])
def test_churn_adds_no_twin_where_the_address_was_taken_when_it_looked(start, moves):
    cluster = start(servers=3, seed=1)
    raft, moved = cluster.leader().raft, follower(cluster)
    put(cluster, "k", "1")
    looked_at = raft.get_configuration()
    if moves:
        raft.add_voter(moved.id, f"{moved.id}:7009").result(5)
    looks_early = SimpleNamespace(get_configuration=lambda: looked_at, add_nonvoter=raft.add_nonvoter)

    error = _add_twin(looks_early, moved.id, 1.0).exception(5)

    assert isinstance(error, ConfigError)
    assert ("changed since" in str(error)) == moves
    assert "twin" not in members(cluster)


def test_a_cluster_of_one_grows_to_five_and_shrinks_back_under_clients(start):
    cluster = start(servers=1, seed=1)
    cluster.client(rate=50)
    for _ in range(4):
        add(cluster, cluster.add_server())

    assert list(members(cluster)) == ["n1", "n2", "n3", "n4", "n5"]
    for id in ("n1", "n2", "n3", "n4"):
        remove(cluster, id)

    assert members(cluster) == {"n5": Suffrage.VOTER}
    cluster.run_until(lambda: cluster.servers["n5"].raft.state is RaftState.LEADER)
    cluster.check()
    assert len(cluster.history) > 50


def test_a_server_gets_a_number_or_the_name_it_is_given(start):
    cluster = start(servers=2, seed=1)

    assert cluster.add_server("n3").id == "n3"
    assert cluster.add_server().id == "n4"
    for name in ("n1", "", "n:1"):
        with pytest.raises(ConfigError):
            cluster.add_server(name)


def test_a_leader_that_is_removed_commits_that_and_shuts_down(start):
    cluster = start(servers=3, seed=2)
    old = cluster.leader()

    old.raft.remove_server(old.id).result(10)
    cluster.run(2)

    assert old.raft.state is RaftState.SHUTDOWN
    assert old.raft.failure is None
    assert cluster.leader() is not old
    assert cluster.judge.roster.has_left(old)
    cluster.check()
    assert old.raft.state is RaftState.SHUTDOWN
    assert cluster.judge.coverage["leader removed itself"] == 1


def test_a_leader_that_takes_its_own_vote_away_follows(start):
    cluster = start(servers=3, seed=3)
    old = cluster.leader()

    old.raft.demote_voter(old.id).result(10)
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    put(cluster, "x", "1")

    assert members(cluster)[old.id] is Suffrage.NONVOTER
    assert old.raft.state is RaftState.FOLLOWER
    cluster.run_until(lambda: old.fsm.data == {"x": "1"})
    cluster.check()
    assert cluster.judge.coverage["leader demoted itself"] == 1


def test_leadership_is_handed_over_under_load_and_nothing_refused_is_applied(start):
    cluster = start(servers=3, seed=4)
    cluster.client(rate=100, burst=10)
    cluster.client(rate=100)
    for _ in range(5):
        leader, target = cluster.leader(), follower(cluster)
        leader.raft.leadership_transfer(target.id).result(10)
        assert cluster.leader() is target
        cluster.run(0.3)

    cluster.check()
    assert cluster.judge.coverage["candidate told to stand"] >= 5


def test_commands_are_refused_while_leadership_is_handed_to_a_server_that_is_cut_off(start):
    cluster = start(servers=3, seed=5)
    leader, target = cluster.leader(), follower(cluster)
    cluster.partition([target])
    put(cluster, "x", "1")

    future = leader.raft.leadership_transfer(target.id)
    cluster.run(0.01)
    refused = leader.raft.apply(encode_command("x", ("put", "refused")))

    assert isinstance(refused.exception(10), LeadershipTransferInProgressError)
    assert "not handed over" in str(future.exception(10))
    put(cluster, "x", "2")
    assert cluster.leader() is leader
    cluster.check()
    assert leader.fsm.data == {"x": "2"}


def test_a_server_that_was_removed_while_it_was_cut_off_disturbs_nobody(start):
    cluster = start(servers=3, seed=6)
    leader, removed = cluster.leader(), follower(cluster)
    cluster.partition([removed])
    cluster.run(2)
    leader.raft.remove_server(removed.id).result(10)

    cluster.heal()
    term = leader.raft.term
    cluster.run(5)

    assert cluster.leader() is leader
    assert leader.raft.term == term
    assert cluster.judge.coverage["removed server knocked"] > 0
    cluster.check()


def test_a_configuration_that_was_not_committed_is_rolled_back(start):
    cluster = start(servers=3, seed=7)
    put(cluster, "x", "0")
    old, stranger = cluster.leader(), cluster.add_server()
    cluster.partition([old])

    future = old.raft.add_nonvoter(stranger.id, stranger.address)
    cluster.run(1)
    pending = old.raft.get_configuration().result().find(stranger.id)
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    put(cluster, "x", "1")
    cluster.heal()
    cluster.run(2)

    assert pending is not None
    assert isinstance(future.exception(1), LeadershipLostError)
    assert old.raft.get_configuration().result().find(stranger.id) is None
    assert cluster.judge.coverage["configuration rolled back"] == 1
    cluster.check()


def test_two_operators_at_once_make_one_change_after_the_other(start):
    cluster = start(servers=3, seed=8)
    leader = cluster.leader()
    first, second = cluster.add_server(), cluster.add_server()
    index = leader.raft.get_configuration().index

    added = leader.raft.add_voter(first.id, first.address, index)
    refused = leader.raft.add_voter(second.id, second.address, index)
    waited = leader.raft.add_voter(second.id, second.address)

    assert added.result(10) is None
    assert "configuration changed since" in str(refused.exception(10))
    assert waited.result(10) is None
    assert list(members(cluster)) == ["n1", "n2", "n3", "n4", "n5"]
    cluster.check()


def test_a_voter_that_does_not_know_the_new_one_yet_votes_for_it(start):
    cluster = start(servers=2, seed=1)
    put(cluster, "x", "1")
    leader, lagging, new = cluster.leader(), follower(cluster), cluster.add_server()
    cluster.network.slow(leader.address, lagging.address, 0.05)
    future = leader.raft.add_voter(new.id, new.address)
    cluster.run_until(lambda: new.disk.last_index == leader.disk.last_index)
    cluster.partition([lagging])
    future.result(5)
    assert lagging.raft.get_configuration().result().find(new.id) is None

    cluster.run(0.06)  # what was on its way is lost
    cluster.crash(leader)
    cluster.heal()

    assert cluster.leader(10) is new  # nobody else has the whole log, and two of three are there
    cluster.check()


def test_a_new_voter_that_cannot_be_reached_is_not_added_and_harms_nobody(start):
    cluster = start(servers=3, seed=9)
    leader, stranger = cluster.leader(), cluster.add_server()
    cluster.crash(stranger)

    future = leader.raft.add_voter(stranger.id, stranger.address)
    put(cluster, "x", "1")

    assert isinstance(future.exception(30), EnqueueTimeoutError)
    assert list(members(cluster)) == ["n1", "n2", "n3"]
    cluster.check()


def test_a_server_moves_to_another_address_and_keeps_its_name(start):
    cluster = start(servers=3, seed=10)
    moved = follower(cluster)
    cluster.crash(moved)
    moved.address = f"{moved.id}:7001"
    cluster.restart(moved)

    add(cluster, moved)
    put(cluster, "x", "1")

    cluster.run_until(lambda: moved.fsm.data == {"x": "1"})
    assert cluster.judge.members.find(moved.id).address == moved.address
    assert len(cluster.judge.members.voters) == 3
    cluster.check()


def test_a_server_is_moved_where_the_one_looks_for_it_that_alone_can_win(start):
    cluster = start(servers=2, seed=10)
    leader = cluster.leader()
    other = follower(cluster)
    cluster.partition([leader])
    cluster.scheduler.spawn(
        "operator", lambda: leader.raft.add_voter(other.id, f"{other.id}:7001"), leader.group
    )

    cluster.run(3)  # nobody else has that entry
    cluster.check()

    assert other.address == f"{other.id}:7001"


def test_a_leader_that_was_frozen_answers_no_read_from_before(start):
    cluster = start(servers=3, seed=11)
    put(cluster, "x", "old")
    old = cluster.leader()
    cluster.freeze(old)
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))
    put(cluster, "x", "new")
    acknowledged = len(cluster.judge.committed) - 1

    future = old.raft.read_index(5)
    cluster.thaw(old)

    assert future.result(10) >= acknowledged
    assert old.fsm.data == {"x": "new"}
    cluster.check()


def test_a_leader_that_was_frozen_is_not_confirmed(start):
    cluster = start(servers=3, seed=12)
    old = cluster.leader()
    cluster.freeze(old)
    cluster.run_until(lambda: cluster.current_leader() not in (None, old))

    future = old.raft.verify_leader()
    cluster.thaw(old)

    assert isinstance(future.exception(10), NotLeaderError)
    cluster.check()


@pytest.mark.parametrize("suffrage", ["voter", "nonvoter"])
def test_every_member_can_read_what_was_acknowledged(start, suffrage):
    cluster = start(servers=3, seed=13)
    server = cluster.add_server()
    ask = (lambda raft: raft.add_voter) if suffrage == "voter" else (lambda raft: raft.add_nonvoter)
    change(cluster, lambda raft: ask(raft)(server.id, server.address))
    for number in range(5):
        put(cluster, "x", str(number))
        for one in cluster.servers.values():
            one.raft.read_index(5).result(6)
            assert one.fsm.data["x"] == str(number)
    cluster.check()


def test_a_read_on_a_server_that_is_cut_off_times_out(start):
    cluster = start(servers=3, seed=14)
    lonely = follower(cluster)
    cluster.partition([lonely])

    assert isinstance(lonely.raft.read_index(2).exception(10), ReadTimeoutError)
    cluster.heal()
    cluster.check()


def test_a_new_voter_is_brought_up_to_date_by_a_snapshot_alone(start):
    config = Config(
        heartbeat_timeout=0.2,
        election_timeout=0.2,
        leader_lease_timeout=0.1,
        snapshot_interval=0.1,
        snapshot_threshold=1,
        trailing_logs=0,
    )
    cluster = start(servers=1, seed=15, config=config)
    for number in range(30):
        put(cluster, f"k{number}", "1")
    cluster.run(1)

    server = cluster.add_server()
    add(cluster, server)

    cluster.run_until(lambda: len(server.fsm.data) == 30)
    assert server.disk.first_index > 1 or server.disk.last_index == 0
    assert cluster.judge.coverage["new voter had got a snapshot"] > 0
    cluster.check()


def test_a_removed_server_may_be_added_again_with_its_old_disk_or_an_empty_one(start):
    cluster = start(servers=3, seed=16)
    server = follower(cluster)
    for is_renewed in (False, True):
        remove(cluster, server.id)
        put(cluster, "x", f"without {is_renewed}")
        if is_renewed:
            cluster.renew(server)
        add(cluster, server)
        put(cluster, "x", f"with {is_renewed}")
        cluster.run_until(lambda: server.fsm.data == {"x": f"with {is_renewed}"})  # noqa: B023
    cluster.check()
    assert cluster.judge.coverage["removed server added again"] >= 2


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_removed_server_with_an_empty_disk_does_not_go_by_members_of_long_ago(start, is_restarted):
    """It began the cluster, alone: by the first entries that it gets back its own vote is a majority."""
    cluster = start(servers=1, seed=20, config=replace(QUICK, **ONE_BY_ONE))
    first = cluster.leader()
    for number in range(20):
        put(cluster, f"k{number}", "1")
    for _ in range(2):
        add(cluster, cluster.add_server())
    remove(cluster, first.id)
    cluster.renew(first)
    leader = cluster.leader()
    cluster.network.slow(leader.address, first.address, 0.05)
    leader.raft.add_voter(first.id, first.address)
    cluster.run_until(lambda: 4 <= first.disk.last_index < 16)
    assert [voter.id for voter in first.raft.get_configuration().result().voters] == [first.id]

    cluster.partition([first])
    if is_restarted:
        cluster.restart(first)
    cluster.run(3)

    assert (first.raft.state, first.raft.commit_index < 16) == (RaftState.FOLLOWER, True)
    cluster.network.slow(leader.address, first.address, 0.0)
    cluster.heal()
    add(cluster, first)
    put(cluster, "x", "1")
    cluster.run_until(lambda: first.fsm.data == leader.fsm.data)
    cluster.check()


def test_a_server_that_is_not_up_to_date_yet_votes_for_one_that_is(start):
    """Of two voters both are needed: who has just come may not be the reason why nobody leads any more."""
    cluster = start(servers=1, seed=21, config=replace(QUICK, **ONE_BY_ONE, catch_up_rounds=0))
    first, second = cluster.leader(), cluster.add_server()
    for number in range(40):
        put(cluster, f"k{number}", "1")
    cluster.network.slow(first.address, second.address, 0.02)
    first.raft.add_voter(second.id, second.address)
    cluster.run_until(lambda: 4 <= second.disk.last_index < 20)

    cluster.crash(first)
    cluster.run(1)
    cluster.restart(first)
    cluster.network.slow(first.address, second.address, 0.0)

    assert cluster.leader(10) is first
    put(cluster, "x", "1")
    cluster.run_until(lambda: second.fsm.data == first.fsm.data)
    cluster.check()


def joins_slowly(cluster, leader, others=()):
    """A voter that nobody waited for, and that has got a part of the log."""
    new = cluster.add_server()
    for number in range(60):
        put(cluster, f"k{number}", "1")
    cluster.run(0.5)
    for server in (leader, *others):
        cluster.network.slow(server.address, new.address, 0.02)
    leader.raft.add_voter(new.id, new.address)
    cluster.run_until(lambda: 4 <= new.disk.last_index < 20)
    return new


def leads_and_is_heard_by(leader, other, term):
    ballot = other.raft._state.ballot
    return leader.raft.state is RaftState.LEADER and (other.raft.leader_id, ballot.term) == (leader.id, term)


def test_a_new_voter_does_not_wait_for_what_only_a_lost_leader_had(start):
    cluster = start(servers=2, seed=31, config=replace(QUICK, **ONE_BY_ONE, catch_up_rounds=0))
    first, second = cluster.leader(), follower(cluster)
    new = joins_slowly(cluster, first, [second])
    cluster.crash(first)
    cluster.crash(second)
    cluster.restart(first)
    cluster.run_until(lambda: leads_and_is_heard_by(first, new, 3))
    cluster.run(0.04)

    cluster.crash(first)  # for good
    cluster.restart(second)
    cluster.network.slow(second.address, new.address, 0.0)

    assert cluster.leader(20) is second


def test_a_new_voter_does_not_wait_for_what_its_leader_had_not_written(start):
    cluster = start(servers=1, seed=33, config=replace(QUICK, **ONE_BY_ONE, catch_up_rounds=0))
    first = cluster.leader()
    new = joins_slowly(cluster, first)
    cluster.crash(first)
    cluster.run(1)
    cluster.restart(first)
    cluster.network.slow(first.address, new.address, 0.0)
    cluster.slow_disk(first, 0.08)
    cluster.run_until(lambda: leads_and_is_heard_by(first, new, 3))

    cluster.crash(first)
    cluster.slow_disk(first, 0.0)
    cluster.restart(first)

    assert cluster.leader(20) is first
    cluster.check()


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_leader_that_gave_its_vote_back_unheard_stands_until_that_is_committed(start, is_removed):
    cluster = start(servers=2, seed=19)
    old, other = cluster.leader(), follower(cluster)
    put(cluster, "x", "1")
    cluster.partition([old], [other])
    raft = old.raft
    future = raft.remove_server(old.id) if is_removed else raft.demote_voter(old.id)
    cluster.run(2)
    assert isinstance(future.exception(), LeadershipLostError)
    cluster.heal()

    cluster.run_until(lambda: other.raft.state is RaftState.LEADER)

    put(cluster, "x", "2")
    assert list(members(cluster)) == ([other.id] if is_removed else sorted([old.id, other.id]))
    assert [server.id for server in cluster.judge.members.voters] == [other.id]
    cluster.check()


def compact(cluster, server):
    """The server takes a snapshot and drops all of its log."""
    server.raft.snapshot().result(5)
    cluster.run_until(lambda: server.disk.last_index == 0)


def catches_up(cluster, server):
    last = cluster.leader().raft.last_index
    cluster.run_until(lambda: server.raft.applied_index >= last, 3)


def test_a_server_whose_snapshot_is_ahead_of_the_leaders_is_added_again(start):
    cluster = start(servers=3, seed=18, config=replace(QUICK, trailing_logs=0))
    leader, server = cluster.leader(), follower(cluster)
    put(cluster, "x", "1")
    compact(cluster, leader)
    put(cluster, "x", "2")
    catches_up(cluster, server)
    compact(cluster, server)

    remove(cluster, server.id)
    cluster.run(0.5)
    cluster.revive(server)
    cluster.leader().raft.add_voter(server.id, server.address, timeout=3).result(5)

    catches_up(cluster, server)
    assert cluster.leader() is leader
    assert "snapshot sent" not in cluster.judge.coverage
    cluster.check()


def test_a_server_whose_answers_were_lost_until_it_had_dropped_its_log_goes_on(start):
    cluster = start(servers=3, seed=18, config=replace(QUICK, trailing_logs=0))
    leader, server = cluster.leader(), follower(cluster)
    cluster.network.slow(server.address, leader.address, 0.15)
    put(cluster, "x", "1")
    put(cluster, "x", "2")  # brings news of the commit of the one before
    cluster.run_until(lambda: server.raft.applied_index == leader.raft.last_index - 1)
    server.raft.snapshot().result(5)
    cluster.run_until(lambda: server.disk.first_index == leader.raft.last_index)
    cluster.block(server, leader)
    cluster.run(0.5)
    cluster.network.slow(server.address, leader.address, 0.0)
    cluster.heal()

    put(cluster, "x", "3")

    catches_up(cluster, server)
    assert cluster.leader() is leader
    cluster.check()


def test_a_server_that_a_leader_is_about_to_add_is_not_forgotten(start):
    cluster = start(servers=3, seed=16)
    leader, new = cluster.leader(), cluster.add_server()
    assert cluster.judge.roster.is_forgotten(new.id)

    cluster.crash(new)
    cluster.scheduler.spawn(
        "operator", lambda: leader.raft.add_voter(new.id, new.address, timeout=3.0), leader.group
    )
    cluster.run(0.1)

    assert not cluster.judge.roster.is_forgotten(new.id)
    cluster.run_until(lambda: not leader.sessions.get(new.id), 10.0)
    assert cluster.judge.roster.is_forgotten(new.id)


def test_users_of_another_state_machine_can_change_members(start):
    class Quiet(KvFsm):
        pass

    cluster = start(servers=1, seed=17, fsm=Quiet)

    add(cluster, cluster.add_server())

    assert all(isinstance(server.fsm, Quiet) for server in cluster.servers.values())
    with pytest.raises(RaftError):
        cluster.leader().raft.remove_server("nobody").result(5)
    cluster.check()


def test_churn_transfers_and_reads_do_what_their_names_say(start):
    faults = [Churn(0.3, 3.0), Transfers(0.3, 2.0), Reads(0.3, 3.0)]
    cluster = start(servers=3, seed=18, faults=faults)
    cluster.client(rate=5)

    cluster.run(6)
    cluster.check()

    reached = cluster.judge.coverage
    wanted = [
        "configuration changed",
        "server added",
        "transfer succeeded",
        "read on a leader",
        "read on a follower",
    ]
    assert [situation for situation in wanted if not reached.get(situation)] == []
    assert 3 < len(cluster.servers) <= 6
    assert any(operation.client.startswith("reads") for operation in cluster.history)
    assert all(task.ended for task in cluster.askers)
