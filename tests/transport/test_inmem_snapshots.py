"""Snapshots in one process: what the network of a test does to them."""

import threading
from io import BytesIO
from queue import SimpleQueue

import pytest

from pyraft.configuration import Configuration, Server
from pyraft.errors import RaftError, TransportError
from pyraft.messages import InstallSnapshotRequest, InstallSnapshotResponse, RpcHeader, SnapshotChunk
from pyraft.transport import InmemNetwork, InmemTransport

HEADER = RpcHeader("n1", "n1")
ANSWER = InstallSnapshotResponse(HEADER, 7, True)
DATA = bytes(range(256)) * 4096  # 8 pieces


class Storing:
    def __init__(self):
        self.outcomes = SimpleQueue()
        self.go_on = threading.Event()
        self.go_on.set()

    def receive(self, rpc):
        raise AssertionError("nothing else was expected")

    def receive_snapshot(self, request, source):
        try:
            data = b"".join(iter(lambda: self.go_on.wait(10) and source.read(10**6), b""))
        except TransportError as error:
            self.outcomes.put(error)
            raise
        self.outcomes.put(data)
        return ANSWER


@pytest.fixture
def network():
    return InmemNetwork()


@pytest.fixture
def servers(network):
    made = {name: InmemTransport(network, name) for name in ("n1", "n2", "n3")}
    handlers = {name: Storing() for name in made}
    for name, transport in made.items():
        transport.serve(handlers[name])
    made["n1"].peers = handlers
    yield made
    for handler in handlers.values():
        handler.go_on.set()
    for transport in made.values():
        transport.close()


def send(servers, dst="n2", data=DATA, timeout=20.0):
    request = InstallSnapshotRequest(HEADER, 7, 42, 6, Configuration(), 1, len(data))
    return servers["n1"].install_snapshot(Server(dst, dst), request, BytesIO(data), timeout, lambda: False)


def handler(servers, name="n2"):
    return servers["n1"].peers[name]


def broken(servers):
    outcome = handler(servers).outcomes.get(timeout=10)
    assert isinstance(outcome, TransportError), "taken for complete"
    return str(outcome)


def test_nobody_there_is_an_error_that_names_the_peer(servers):
    with pytest.raises(TransportError, match="snapshot to n9 at n9: nobody serves there"):
        send(servers, "n9")


@pytest.mark.parametrize("number", [1, 2, 8, 9])  # 9: the end of the stream
def test_a_piece_that_is_lost_breaks_the_stream_on_both_sides(network, servers, number):
    seen = []

    def lost(message):
        if isinstance(message, SnapshotChunk):
            seen.append(message)
        return len(seen) == number

    network.drop(dst="n2", when=lost)
    with pytest.raises(TransportError, match="a message was lost"):
        send(servers)
    assert "a message was lost" in broken(servers)


def test_a_request_that_is_lost_never_reaches_the_handler(network, servers):
    network.drop(dst="n2", when=lambda message: isinstance(message, InstallSnapshotRequest))
    with pytest.raises(TransportError, match="a message was lost"):
        send(servers)
    assert handler(servers).outcomes.empty()


@pytest.mark.parametrize("answer", [ANSWER, RaftError("no")])
def test_an_answer_that_is_lost_is_an_error(network, servers, answer):
    handler(servers).receive_snapshot = lambda request, source: answer
    network.drop(dst="n1")
    with pytest.raises(TransportError, match="the answer was lost"):
        send(servers)


def test_a_partition_breaks_a_snapshot_that_is_on_its_way(network, servers):
    waiting = handler(servers)
    waiting.go_on.clear()
    outcome = SimpleQueue()

    def run():
        try:
            outcome.put(send(servers))
        except TransportError as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    network.partition(["n1"])
    waiting.go_on.set()
    assert "lost" in str(outcome.get(timeout=10))
    network.heal()
    assert send(servers, "n3") == ANSWER


def test_a_delay_keeps_the_order(network, servers):
    delays = iter(range(100, 0, -1))
    network.delay(lambda src, dst: next(delays) / 10_000)
    assert send(servers) == ANSWER
    assert handler(servers).outcomes.get(timeout=10) == DATA


def test_a_source_may_use_its_buffer_again(servers):
    class Reusing(BytesIO):
        buffer = bytearray(10**6)

        def read(self, size):
            piece = super().read(size)
            self.buffer[: len(piece)] = piece
            return memoryview(self.buffer)[: len(piece)]

    request = InstallSnapshotRequest(HEADER, 7, 42, 6, Configuration(), 1, len(DATA))
    waiting = handler(servers)
    waiting.go_on.clear()
    threading.Timer(0.02, waiting.go_on.set).start()
    data = bytes(reversed(DATA[: 2**17])) + DATA[2**17 :]  # the first piece is another than the second
    servers["n1"].install_snapshot(Server("n2", "n2"), request, Reusing(data), 20.0, lambda: False)
    assert waiting.outcomes.get(timeout=10) == data


def test_a_restarted_receiver_does_not_go_on_with_half_a_snapshot(network, servers):
    waiting = handler(servers)
    waiting.go_on.clear()
    outcome = SimpleQueue()

    def run():
        try:
            outcome.put(send(servers))
        except TransportError as error:
            outcome.put(error)

    sender = threading.Thread(target=run, daemon=True)
    sender.start()
    while not servers["n2"]._open:
        sender.join(0.001)
    servers["n2"].close()
    again = InmemTransport(network, "n2")
    again.serve(Storing())
    servers["again"] = again
    assert "closed" in str(outcome.get(timeout=10))
    waiting.go_on.set()
    assert again._handler.outcomes.empty()
