"""How the bugs were found.   python -m pytest examples/find_the_bug/test_locks.py"""

import pytest
from first_tries import ByMyOwnClock, ExpiresOncePerBatch, ForgetsItsTokens
from locks import Locks, acquire, release

from pyraft.testing import SimCluster, SimulationError, Violation, check_fsm


def a_follower_is_away_for_a_while(fsm):
    """A story: ann's lease runs out while one server cannot hear it; then that server is back."""
    with SimCluster(servers=3, seed=7, fsm=fsm) as cluster:
        leader = cluster.leader()
        away = next(server for server in cluster.servers.values() if server is not leader)

        cluster.partition([away])
        assert cluster.apply(acquire("door", "ann", lease=1)) == 1
        assert cluster.apply(acquire("door", "bob", lease=1)) is None
        cluster.run(2)
        assert cluster.apply(acquire("door", "bob", lease=60)) == 2

        cluster.heal()
        cluster.check()
        return away.fsm.held["door"][0]


def a_busy_day(fsm, seed):
    """Another one: clients, a leader that crashes, a power cut, and whatever the seed brings."""
    with SimCluster(servers=3, seed=seed, fsm=fsm) as cluster:
        for _ in range(3):
            cluster.client(rate=20, draw_command=fsm.draw_command)
        cluster.run(2)
        cluster.crash(cluster.leader())
        cluster.run(2)
        cluster.crash(cluster.leader(), power_loss=True)
        cluster.run(2)
        cluster.check()


COMMANDS = [
    acquire("door", "ann", lease=60),
    acquire("gate", "bob", lease=2),
    acquire("door", "bob", lease=60),
    release("gate", "bob"),
    release("gate", "ann"),
    acquire("gate", "cyd", lease=60),
    b"not a command",
]


# 1. The simulator refuses a state machine that looks at the real clock, at the first command.


def test_a_clock_of_its_own_is_refused():
    with pytest.raises(
        SimulationError, match=r"time\.time\(\) was called inside a simulation, at .*first_tries"
    ):
        a_follower_is_away_for_a_while(ByMyOwnClock)


# 2. With the leader's clock, but looking at it once per batch, the states drift apart.


def test_a_server_that_was_away_gives_the_lock_to_somebody_else():
    with pytest.raises(Violation, match=r"I5: .* differ"):
        a_follower_is_away_for_a_while(ExpiresOncePerBatch)


# 3. What is missing in a snapshot shows only on a server that was restored from it.


def test_a_restored_server_hands_out_a_token_twice():
    with pytest.raises(AssertionError, match=r"restored_is_as_good_as_replayed.* returned 2; .* returned 3"):
        check_fsm(ForgetsItsTokens, COMMANDS)


# And now.


def test_every_server_agrees_who_has_the_lock():
    assert a_follower_is_away_for_a_while(Locks) == "bob"


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_day(seed):
    a_busy_day(Locks, seed)


def test_the_lock_service_keeps_the_promises_of_a_state_machine():
    check_fsm(Locks, COMMANDS)
