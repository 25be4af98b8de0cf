"""The network of one process, and the ways in which it fails."""

import threading
import time
from queue import Empty, SimpleQueue

import pytest

from pyraft.configuration import Server
from pyraft.errors import RaftError, TransportError
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
)
from pyraft.transport import InmemNetwork, InmemTransport

HEADER = RpcHeader("n1", "n1")
VOTE = RequestVoteRequest(HEADER, 7, 3, 2)
GRANTED = RequestVoteResponse(HEADER, 7, True)


class Answering:
    def __init__(self):
        self.threads = []

    def receive(self, rpc):
        self.threads.append(threading.current_thread())
        request = rpc.request
        if isinstance(request, RequestVoteRequest):
            rpc.respond(GRANTED)
        else:
            rpc.respond(AppendEntriesResponse(HEADER, 7, request.prev_log_entry, True))


@pytest.fixture
def network():
    return InmemNetwork()


@pytest.fixture
def servers(network):
    made = {name: InmemTransport(network, name) for name in ("n1", "n2", "n3")}
    for transport in made.values():
        transport.serve(Answering())
    yield made
    for transport in made.values():
        transport.close()


def reaches(transport, peer):
    try:
        return transport.call(Server(peer, peer), VOTE, 0.02) == GRANTED
    except TransportError:
        return False


def reachable(servers):
    return {
        f"{a}-{b}" for a, transport in servers.items() for b in servers if a < b and reaches(transport, b)
    }


def append(number):
    return AppendEntriesRequest(HEADER, 7, number)


class Stream:
    def __init__(self, servers, src="n1", dst="n2"):
        self.events = SimpleQueue()
        self.pipeline = servers[src].pipeline(Server(dst, dst), self.events.put, self.events.put)

    def next(self):
        return self.events.get(timeout=10)


def test_without_delay_the_callers_thread_does_everything(servers):
    before = threading.active_count()
    assert reachable(servers) == {"n1-n2", "n1-n3", "n2-n3"}
    stream = Stream(servers)
    stream.pipeline.send(append(1))
    assert stream.events.get_nowait().last_log == 1  # answered before send() returned
    assert threading.active_count() == before
    assert set(servers["n2"]._handler.threads) == {threading.main_thread()}


def test_a_partition_is_silence_and_heals(network, servers):
    network.partition(["n1"], ["n2", "n3"])
    assert reachable(servers) == {"n2-n3"}
    network.partition(["n3"])  # replaces the other one; the rest is a group
    assert reachable(servers) == {"n1-n2"}
    network.heal()
    assert reachable(servers) == {"n1-n2", "n1-n3", "n2-n3"}


def test_dropping_one_direction(network, servers):
    network.drop("n1", "n2")
    assert reachable(servers) == {"n1-n3", "n2-n3"}
    assert not reaches(servers["n2"], "n1")  # the answer is lost
    assert servers["n1"]._handler.threads  # the request was not
    network.heal()
    network.drop(dst="n3")
    assert reachable(servers) == {"n1-n2"}


def test_dropping_by_a_predicate(network, servers):
    network.drop("n1", "n2", lambda message: isinstance(message, RequestVoteRequest))
    assert not reaches(servers["n1"], "n2")
    assert reaches(servers["n2"], "n1")
    assert servers["n1"].call(Server("n2", "n2"), append(5), 10).last_log == 5


def test_dropping_by_chance(network, servers):
    network.drop("n1", "n2", 0.5)
    stream_breaks = 0
    for _ in range(200):
        stream = Stream(servers)
        stream.pipeline.send(append(1))
        stream_breaks += isinstance(stream.next(), RaftError)
    assert 50 < stream_breaks < 150


@pytest.mark.parametrize("lost", [("n1", "n2"), ("n2", "n1")], ids=["request", "answer"])
def test_a_pipeline_that_loses_a_message_breaks(network, servers, lost):
    stream = Stream(servers)
    stream.pipeline.send(append(1))
    network.drop(*lost)
    stream.pipeline.send(append(2))
    assert stream.next().last_log == 1
    assert "was lost" in str(stream.next())
    with pytest.raises(TransportError, match="pipeline to n2 at n2"):
        stream.pipeline.send(append(3))
    assert stream.events.empty()


def test_delays_keep_the_order_of_a_stream(network, servers):
    delays = iter([0.02, 0.001] * 1000)
    network.delay(lambda src, dst: next(delays))
    stream = Stream(servers)
    for number in range(20):
        stream.pipeline.send(append(number))
    network.delay(0)
    for number in range(20, 40):
        stream.pipeline.send(append(number))
    assert [stream.next().last_log for _ in range(40)] == list(range(40))


def test_a_delay_takes_as_long_as_it_says_each_way(network, servers):
    network.delay(0.03)
    began = time.monotonic()
    assert servers["n1"].call(Server("n2", "n2"), VOTE, 10) == GRANTED
    assert time.monotonic() - began >= 0.06


def test_a_partition_stops_what_is_on_its_way(network, servers):
    network.delay(0.05)
    stream = Stream(servers)
    stream.pipeline.send(append(1))
    network.partition(["n1"])
    assert "was lost" in str(stream.next())
    assert not servers["n2"]._handler.threads


def test_the_thread_of_delays_ends_with_the_last_transport(network):
    a, b = InmemTransport(network, "a"), InmemTransport(network, "b")
    b.serve(Answering())
    network.delay(0.001)
    assert a.call(Server("b", "b"), VOTE, 10) == GRANTED
    courier = [t for t in threading.enumerate() if t.name == "pyraft-inmem-network"]
    assert courier
    a.close()
    b.close()
    for thread in courier:
        thread.join(10)
        assert not thread.is_alive()
    # And the network can be used again.
    again, other = InmemTransport(network, "a"), InmemTransport(network, "b")
    other.serve(Answering())
    assert again.call(Server("b", "b"), VOTE, 10) == GRANTED
    again.close()
    other.close()


def test_an_address_is_taken_until_its_transport_closes(network, servers):
    with pytest.raises(TransportError, match="n1 is taken"):
        InmemTransport(network, "n1")
    servers["n1"].close()
    InmemTransport(network, "n1").close()


def test_a_server_that_is_not_there_refuses_at_once(network, servers):
    began = time.monotonic()
    with pytest.raises(TransportError, match="RequestVoteRequest to x at n9: nobody serves there"):
        servers["n1"].call(Server("x", "n9"), VOTE, 60)
    with pytest.raises(TransportError, match="nobody serves there"):
        Stream(servers, dst="n9")
    assert time.monotonic() - began < 10


def test_messages_are_handed_over_as_they_are(network):
    received = SimpleQueue()

    class Handler:
        def receive(self, rpc):
            received.put(rpc)
            rpc.respond(GRANTED)

    a, b = InmemTransport(network, "a"), InmemTransport(network, "b")
    b.serve(Handler())
    assert a.call(Server("b", "b"), VOTE, 10) is GRANTED
    assert received.get().request is VOTE
    a.close()
    b.close()


def test_answers_out_of_order_are_delivered_in_order(network):
    kept = []

    class Keeping:
        def receive(self, rpc):
            kept.append(rpc)

    transports = {"n1": InmemTransport(network, "n1"), "n2": InmemTransport(network, "n2")}
    transports["n2"].serve(Keeping())
    stream = Stream(transports)
    for number in range(3):
        stream.pipeline.send(append(number))
    for number in (2, 1):
        kept[number].respond(AppendEntriesResponse(HEADER, 7, number, True))
    with pytest.raises(Empty):
        stream.events.get_nowait()
    kept[0].respond(AppendEntriesResponse(HEADER, 7, 0, True))
    assert [stream.next().last_log for _ in range(3)] == [0, 1, 2]
    for transport in transports.values():
        transport.close()
