"""A cluster grows, takes a snapshot, and changes hands.   python examples/life_of_a_cluster.py"""

import logging

from pyraft import FSM, Config, Configuration, Raft, RaftState
from pyraft.logstore import InmemStore
from pyraft.snapshots import InmemSnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport


class Guestbook(FSM):
    def __init__(self):
        self.names = []

    def apply(self, log):
        self.names.append(log.data.decode())
        return len(self.names)

    def snapshot(self):
        return "\n".join(self.names).encode()

    def restore(self, source):
        self.names = source.read().decode().split("\n")


def start(name):
    """A server with nothing in its stores, which knows no cluster yet."""
    config = Config(local_id=name, leader_lease_timeout=1.0, trailing_logs=0)
    store = InmemStore()  # for the log and for the ballot
    books[name] = Guestbook()
    raft = Raft(config, books[name], store, store, InmemSnapshotStore(), InmemTransport(network, name))
    raft.start()
    return raft


def read(name):
    """What has been written until now, by whomever: any server may be asked."""
    rafts[name].read_index(timeout=30).result()
    return books[name].names


logging.getLogger("pyraft").setLevel(logging.ERROR)
network, books = InmemNetwork(), {}
rafts = {"ann": start("ann")}
ann = rafts["ann"]
ann.bootstrap_cluster(Configuration.of_voters({"ann": "ann"})).result()
ann.wait_for_leader(timeout=30)
for name in ("Ada", "Bo", "Cy"):
    ann.apply(name.encode()).result(timeout=30)
print("ann is alone and has:", *read("ann"))

taken = ann.snapshot()
meta = taken.result(timeout=30)
with taken.open() as reader:
    print(f"a snapshot of {meta.size} bytes stands for the log up to entry {meta.index}:", reader.read())

for newcomer in ("bob", "cyd"):
    rafts[newcomer] = start(newcomer)
    ann.add_voter(newcomer, newcomer, timeout=30).result()
members = ann.get_configuration().configuration.servers
print("now there are:", *(server.id for server in members))
print(f"bob began with the snapshot of entry {rafts['bob'].status().snapshot_index} and has:", *read("bob"))

ann.leadership_transfer("bob").result(timeout=30)
bob = rafts["bob"]
print("ann hands over to bob, who leads:", bob.state is RaftState.LEADER)
print("number of names, from the next write:", bob.apply(b"Di").result(timeout=30))
print("cyd is asked at once and has:", *read("cyd"))

bob.remove_server("ann", timeout=30).result()
members = bob.get_configuration().configuration.servers
print("ann leaves:", *(server.id for server in members))
for raft in rafts.values():
    raft.shutdown().result()
