"""Three servers in one process agree on a counter.   python examples/counter.py"""

import logging
import time

from pyraft import FSM, Config, Configuration, OutcomeUnknownError, Raft, RaftState
from pyraft.logstore import InmemStore
from pyraft.snapshots import DiscardSnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport


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


def server(name, fsm, network):
    config = Config(local_id=name, heartbeat_timeout=0.2, election_timeout=0.2, leader_lease_timeout=0.2)
    store = InmemStore()  # for the log and for the ballot
    return Raft(config, fsm, store, store, DiscardSnapshotStore(), InmemTransport(network, name))


def leader_of(rafts):
    while not any(raft.state is RaftState.LEADER for raft in rafts):
        time.sleep(0.01)
    return next(raft for raft in rafts if raft.state is RaftState.LEADER)


logging.getLogger("pyraft").setLevel(logging.ERROR)  # what it warns of, we do on purpose
network = InmemNetwork()
counters = {name: Counter() for name in ("ann", "bob", "cyd")}
rafts = [server(name, counter, network) for name, counter in counters.items()]
for raft in rafts:
    raft.start()
rafts[0].bootstrap_cluster(Configuration.of_voters({name: name for name in counters})).result()

first = leader_of(rafts)
print("leader:", name := first.leader_id)
print("counter:", first.apply(b"5").result(timeout=1))

network.partition([name])
print("cut off:", name)
unheard = first.apply(b"1000")  # it cannot know yet that nobody hears it
second = leader_of([raft for raft in rafts if raft is not first])
print("next leader:", second.leader_id)
print("counter:", second.apply(b"2").result(timeout=1))
try:
    print("counter:", unheard.result(timeout=1))
except OutcomeUnknownError as error:
    print(f"what {name} was told alone:", type(error).__name__)

network.heal()
for raft in rafts:
    raft.wait_applied(second.barrier().result(timeout=1), timeout=5)
print("everywhere:", {name: counter.value for name, counter in counters.items()})
for raft in rafts:
    raft.shutdown().result()
