"""Every public name of pyraft.testing refuses at once what makes no sense, and says what would."""

from __future__ import annotations

import random
from math import inf, nan

import pytest

from pyraft import FSM, ConfigError
from pyraft.testing import (
    KvFsm,
    Operation,
    SimCluster,
    SimulationError,
    check_linearizable,
    draw_faults,
)
from pyraft.testing.faults import Crash, Partition
from pyraft.testing.sim_kv import KvModel
from pyraft.testing.sim_policies import PriorityPolicy, RandomPolicy, StickyPolicy


class Needs(KvFsm):
    def __init__(self, name):
        super().__init__()


class Counter(FSM):
    def __init__(self):
        self.value = 0

    def apply(self, log):
        self.value += int(log.data)
        return self.value

    def snapshot(self):
        return str(self.value).encode()

    def restore(self, source):
        self.value = int(source.read())


@pytest.fixture
def cluster():
    with SimCluster(servers=3, seed=1) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"servers": 0}, "servers=0 is not a number of servers"),
        ({"servers": -1}, "servers=-1"),
        ({"servers": 2.5}, "servers=2.5"),
        ({"servers": True}, "servers=True"),
        ({"servers": ["n1", "n2"]}, "servers="),
        ({"seed": True}, "seed=True is not a whole number"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": "7"}, "seed='7'"),
        ({"seed": None}, "seed=None"),
        ({"fsm": int}, "not an instance of a subclass of pyraft.FSM"),
        ({"fsm": KvFsm()}, "is a state machine: pass its class"),
        ({"fsm": Needs}, "cannot be built: TypeError.*without arguments"),
        ({"fsm": lambda: 1 / 0}, "cannot be built: ZeroDivisionError"),
        ({"fsm": lambda same=KvFsm(): same}, "the same object twice"),  # noqa: B008
        ({"fsm": None}, "fsm=None cannot be built"),
        ({"fsm": FSM}, "cannot be built: TypeError.*abstract"),
        ({"config": {"election_timeout": 1}}, "is not a pyraft.Config"),
        ({"faults": ["crash"]}, "'crash' is not a Fault"),
        ({"faults": "crash"}, "faults='crash' is not a list"),
        ({"faults": 5}, "faults=5 is not a list"),
        ({"faults": Crash()}, "is not a list"),
        ({"faults": [Crash]}, "is not a Fault: use instances"),
        ({"policy": "random"}, "policy='random' is not a Policy"),
        ({"policy": RandomPolicy}, "is not a Policy: use an instance"),
        ({"preempt_lines": 2.0}, "preempt_lines=2.0 is not a probability"),
        ({"preempt_lines": -0.1}, "preempt_lines=-0.1"),
        ({"preempt_lines": nan}, "preempt_lines=nan"),
        ({"preempt_lines": True}, "preempt_lines=True"),
    ],
    ids=repr,
)
def test_no_cluster_is_made_of(arguments, text):
    with pytest.raises(ConfigError, match=text):
        SimCluster(**arguments)


CALLS = {
    "run(-1)": (lambda c: c.run(-1), "seconds=-1 is not a number of seconds"),
    "run(nan)": (lambda c: c.run(nan), "seconds=nan"),
    "run(inf)": (lambda c: c.run(inf), "seconds=inf"),
    "run('5')": (lambda c: c.run("5"), "seconds='5'"),
    "run(True)": (lambda c: c.run(True), "seconds=True"),
    "run_until(value)": (lambda c: c.run_until(True), "condition=True is not callable"),
    "run_until(-1)": (lambda c: c.run_until(lambda: True, -1), "timeout=-1"),
    "leader(nan)": (lambda c: c.leader(nan), "timeout=nan"),
    "partition(unknown)": (lambda c: c.partition(["n9"]), "there is no server 'n9': there are n1, n2, n3"),
    "partition(twice)": (lambda c: c.partition(["n1"], ["n1", "n2"]), "n1 is in two groups"),
    "partition(number)": (lambda c: c.partition([1]), "there is no server 1"),
    "block(unknown)": (lambda c: c.block("n1", "n4"), "there is no server 'n4'"),
    "crash(unknown)": (lambda c: c.crash("N1"), "there is no server 'N1'"),
    "crash(None)": (lambda c: c.crash(None), "there is no server None"),
    "restart(unknown)": (lambda c: c.restart("n0"), "there is no server 'n0'"),
    "stop(unknown)": (lambda c: c.stop(""), "there is no server ''"),
    "stop(-1)": (lambda c: c.stop("n1", -1), "timeout=-1"),
    "freeze(unknown)": (lambda c: c.freeze("n7"), "there is no server 'n7'"),
    "thaw(unknown)": (lambda c: c.thaw(["n1"]), "there is no server"),
    "wipe(unknown)": (lambda c: c.wipe("n7"), "there is no server 'n7'"),
    "slow_disk(unknown)": (lambda c: c.slow_disk("n7", 1), "there is no server 'n7'"),
    "slow_disk(-1)": (lambda c: c.slow_disk("n1", -1), "seconds=-1"),
    "slow_disk(lasting=nan)": (lambda c: c.slow_disk("n1", 1, nan), "lasting=nan"),
    "client(0)": (lambda c: c.client(0), "rate=0 is not above 0"),
    "client(-1)": (lambda c: c.client(-1), "rate=-1"),
    "client(nan)": (lambda c: c.client(nan), "rate=nan"),
    "client(inf)": (lambda c: c.client(inf), "rate=inf"),
    "client('fast')": (lambda c: c.client("fast"), "rate='fast'"),
    "client(keys=0)": (lambda c: c.client(keys=0), "keys=0 is not a whole number above 0"),
    "client(burst=True)": (lambda c: c.client(burst=True), "burst=True"),
    "client(burst=1.5)": (lambda c: c.client(burst=1.5), "burst=1.5"),
    "client(left_out=1)": (lambda c: c.client(left_out=1), "left_out=1 is not a set"),
    "client(draw_command)": (lambda c: c.client(draw_command=b"1"), "draw_command=b'1' is not callable"),
    "apply(str)": (lambda c: c.apply("1"), "command='1' is not bytes"),
    "apply(-1)": (lambda c: c.apply(b"1", -1), "timeout=-1"),
    "submit(unknown)": (lambda c: c.submit("n9", b"1", 1.0), "there is no server 'n9'"),
    "stop_clients(-1)": (lambda c: c.stop_clients(-1), "timeout=-1"),
    "revive(unknown)": (lambda c: c.revive("n9"), "there is no server 'n9'"),
    "check(-1)": (lambda c: c.check(-1), "liveness=-1"),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_cluster_does(call, cluster):
    function, text = CALLS[call]
    before = cluster.now, cluster.scheduler.digest

    with pytest.raises(ConfigError, match=text):
        function(cluster)

    assert (cluster.now, cluster.scheduler.digest) == before
    cluster.run(0.1)


def test_a_server_of_another_cluster_is_none_of_this_one(cluster):
    with (
        SimCluster(servers=1, seed=1) as other,
        pytest.raises(ConfigError, match="there is no server <SimServer"),
    ):
        cluster.crash(other.servers["n1"])


def test_a_server_that_is_down_can_be_crashed_and_one_that_runs_restarted(cluster):
    cluster.crash("n1")
    cluster.crash("n1", power_loss=True)
    assert not cluster.servers["n1"].is_up
    cluster.restart("n1")
    first = cluster.servers["n1"].raft
    cluster.restart("n1")
    assert cluster.servers["n1"].raft is not first
    cluster.thaw("n1")
    cluster.check()


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.run(1),
        lambda c: c.leader(),
        lambda c: c.apply(b"1"),
        lambda c: c.client(),
        lambda c: c.crash("n1"),
        lambda c: c.restart("n1"),
        lambda c: c.partition(["n1"]),
        lambda c: c.heal(),
        lambda c: c.check(),
    ],
)
def test_a_closed_cluster_says_so(use):
    cluster = SimCluster(servers=1, seed=1)
    cluster.close()
    cluster.close()
    with pytest.raises(SimulationError, match="the cluster was closed: make another one"):
        use(cluster)


def test_clients_of_a_state_machine_of_ones_own_need_commands():
    with SimCluster(servers=1, seed=1, fsm=Counter) as cluster:
        with pytest.raises(ConfigError, match="pass draw_command=, a function that makes a command"):
            cluster.client()

        cluster.client(rate=20, draw_command=lambda rng: b"%d" % rng.randrange(1, 9))
        cluster.run(2)
        cluster.check()

        assert len(cluster.commands) > 10
        answers = [operation.output for operation in cluster.commands if operation.returned < inf]
        assert sorted(answers) == answers
        assert cluster.history == []


class CounterModel:
    def initial(self):
        return 0

    def step(self, state, input):
        return state + int(input), state + int(input)


def test_what_they_were_answered_can_be_judged_by_a_model_of_ones_own():
    with SimCluster(servers=3, seed=5, fsm=Counter) as cluster:
        for _ in range(2):
            cluster.client(rate=20, draw_command=lambda rng: b"%d" % rng.randrange(1, 9))
        cluster.run(2)
        cluster.crash(cluster.leader())
        cluster.run(3)
        cluster.check()

        assert check_linearizable(cluster.commands, CounterModel()) is None
        first = cluster.commands[0]
        wrong = Operation("c9", None, b"1", first.output, first.call, first.returned)
        assert check_linearizable([*cluster.commands, wrong], CounterModel()) is not None


def test_a_client_that_makes_no_bytes_stops_the_simulation():
    with SimCluster(servers=1, seed=1, fsm=Counter) as cluster:
        cluster.client(draw_command=lambda rng: "1")
        with pytest.raises(Exception, match="command='1' is not bytes"):
            cluster.run(5)


@pytest.mark.parametrize("kind", [Crash, Partition])
@pytest.mark.parametrize("seconds", [0, -1, nan, inf, "5", True, None])
def test_no_fault_comes_every(kind, seconds):
    with pytest.raises(ConfigError, match=f"every={seconds!r} is not"):
        kind(every=seconds)
    with pytest.raises(ConfigError, match=f"lasting={seconds!r} is not"):
        kind(lasting=seconds)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: StickyPolicy(1.0), "stay=1.0 is not a probability below 1"),
        (lambda: StickyPolicy(nan), "stay=nan"),
        (lambda: PriorityPolicy(0), "change_every=0"),
        (lambda: draw_faults(7), "rng=7 is not a random.Random"),
        (lambda: check_linearizable(5, KvModel()), "history=5 is not a list of Operation"),
        (lambda: check_linearizable([("put", 1)], KvModel()), r"history\[0\]=.* is not an Operation"),
        (lambda: check_linearizable([], KvFsm()), "has no initial"),
        (lambda: check_linearizable([], KvModel), "is a class: pass an instance"),
        (lambda: check_linearizable([], KvModel(), 0), "budget=0 is not a whole number above 0"),
        (lambda: check_linearizable([Operation("c", "k", 1, 1, 2.0, 1.0)], KvModel()), "returned before"),
    ],
)
def test_others_refuse(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_a_drawn_mix_can_be_used():
    with SimCluster(servers=3, seed=1, faults=draw_faults(random.Random(1))) as cluster:
        cluster.run(0.5)
