"""A running server gets what it should not get: it answers as Go would, or hangs up, and goes on."""

import socket
import tracemalloc
from io import BytesIO

import grpc
import pytest

from pyraft import RaftState
from pyraft.configuration import Configuration, Server
from pyraft.errors import TransportError
from pyraft.messages import (
    AppendEntriesRequest,
    InstallSnapshotRequest,
    RequestPreVoteRequest,
    RequestVoteRequest,
    RpcHeader,
    TimeoutNowRequest,
)
from pyraft.transport import GrpcTransport, TcpTransport, msgpack_wire, wire
from tests.integration.clusters import ALONE, Cluster, config, eventually

GOS_TEXT = "operation not supported with current protocol version"


@pytest.fixture(params=["tcp", "grpc"])
def cluster(request):
    """One server that leads."""
    over = {f"over_{request.param}": True}
    with Cluster(["n1"], settings=config(ALONE), **over) as cluster:
        cluster.start()
        cluster.leader()
        cluster.over_tcp = request.param == "tcp"
        yield cluster
        cluster.leader().raft.apply(b"still here").result(30)


@pytest.fixture
def stranger(cluster):
    transport = (TcpTransport if cluster.over_tcp else GrpcTransport)("127.0.0.1:0")
    yield transport
    transport.close()


def requests(header, term):
    return [
        AppendEntriesRequest(header, term, 1000, term - 1, (), 5),
        RequestVoteRequest(header, term, 1000, term),
        RequestPreVoteRequest(header, term, 1000, term),
        TimeoutNowRequest(header, term),
    ]


@pytest.fixture
def keeps_leading(cluster):
    """What is refused must not even cost the leader its office: nobody may act upon it."""
    raft = cluster.leader().raft
    roles = raft.leadership_changes()
    term = raft.term
    yield
    raft.apply(b"after it").result(30)
    assert (raft.state, raft.term) == (RaftState.LEADER, term)
    with pytest.raises(TimeoutError):
        roles.get(0)


@pytest.mark.parametrize("version", [-1, 1, 4])
def test_a_protocol_version_of_another_age_gets_gos_error(cluster, stranger, keeps_leading, version):
    peer = Server("n1", cluster.members["n1"].address)
    header = RpcHeader("n9", "10.0.0.9:7000", version)

    for request in requests(header, 99):
        with pytest.raises(TransportError, match=f"it answered: {GOS_TEXT}$"):
            stranger.call(peer, request, 30)
    offer = InstallSnapshotRequest(header, 99, 10, 9, Configuration((Server("n9", "a:1"),)), 1, 5)
    with pytest.raises(TransportError, match=f"it answered: {GOS_TEXT}$"):
        stranger.install_snapshot(peer, offer, BytesIO(b"12345"), 30, lambda: False)


def test_a_term_beyond_all_bounds_is_believed_by_nobody(cluster, stranger, keeps_leading):
    peer = Server("n1", cluster.members["n1"].address)
    header = RpcHeader("n9", "10.0.0.9:7000")

    for request in requests(header, 2**63)[:3]:
        with pytest.raises(TransportError, match="beyond all bounds"):
            stranger.call(peer, request, 30)
    for offer in (
        InstallSnapshotRequest(header, 2**63, 10, 9, Configuration((Server("n9", "a:1"),)), 1, 5),
        InstallSnapshotRequest(header, 99, 10, 100, Configuration((Server("n9", "a:1"),)), 1, 5),
    ):
        with pytest.raises(TransportError, match="this request is damaged"):
            stranger.install_snapshot(peer, offer, BytesIO(b"12345"), 30, lambda: False)


def test_the_error_is_on_the_wire_as_go_writes_it(cluster):
    request = requests(RpcHeader("n9", "10.0.0.9:7000", 9), 99)[1]
    address = cluster.members["n1"].address
    if cluster.over_tcp:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(msgpack_wire.encode_request(request))
            assert connection.recv(1000) == b"\xda\x00\x35" + GOS_TEXT.encode() + b"\xc0"
        return
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        method = wire.METHODS[RequestVoteRequest]
        channel.unary_unary(method.path)(method.encode_request(request), timeout=30)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNKNOWN, GOS_TEXT)


def test_a_candidate_of_another_cluster_gets_no_vote_and_changes_no_term(cluster, stranger):
    server = cluster.members["n1"]
    peer = Server("n1", server.address)
    term = server.raft.term

    for request in requests(RpcHeader("of-another-cluster", "10.0.0.9:7000"), 99)[1:3]:
        assert not stranger.call(peer, request, 30).granted
    assert server.raft.term == term


def test_a_leader_of_another_cluster_is_refused_with_the_reason(cluster, stranger, keeps_leading):
    server = cluster.members["n1"]
    peer = Server("n1", server.address)
    header = RpcHeader("of-another-cluster", "10.0.0.9:7000")
    last = server.raft.last_index

    for _ in range(2):
        with pytest.raises(TransportError, match="was the address of n1 given to two clusters"):
            stranger.call(peer, requests(header, 99)[0], 30)
    assert server.raft.last_index == last


@pytest.mark.parametrize("address", ["nonsense", "host:port", "10.0.0.1:99999", "[::1", ":", "a b:1"])
def test_a_member_whose_address_is_none_does_no_harm(cluster, address):
    leader = cluster.leader()
    leader.raft.add_nonvoter("n2", address).result(30)
    leader.raft.apply(b"x").result(30)
    leader.raft.remove_server("n2").result(30)


GARBAGE = {
    "an unknown call": b"\x05\x80",
    "two gigabytes": b"\x01\x81\xa1x\xdb\x7f\xff\xff\xff" + bytes(100_000),
    "two gigabytes of entries": b"\x00\x81\xa7Entries\xdd\x7f\xff\xff\xff" + b"\x80" * 100_000,
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "half a message": b"\x01\x81\xa1x",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_costs_the_connection_and_bounded_memory(garbage):
    with Cluster(["n1"], settings=config(ALONE), over_tcp=True) as cluster:
        cluster.start()
        leader = cluster.leader()
        host, _, port = leader.address.rpartition(":")
        tracemalloc.start()
        try:
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass
            eventually(lambda: not len(leader.raft._transport._inbound), "the connection is forgotten")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * 1024 * 1024
        leader.raft.apply(b"still here").result(30)
