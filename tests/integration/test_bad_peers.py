"""Peers that cannot be found, speak garbage, or never answer: a majority goes on without them."""

import logging
import os
import socket
import threading

import grpc
import pytest

from pyraft import Raft
from tests.integration.clusters import (
    PATIENCE,
    Cluster,
    Member,
    Recorder,
    config,
    eventually,
    leaves_no_thread,
)


class Listener:
    """Something that is no Raft server and listens where one is expected."""

    def __init__(self, answer):
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._connections = []
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                if self._answer:
                    connection.sendall(self._answer)
            except OSError:
                return

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._connections:
            connection.close()
        self._thread.join(PATIENCE)


GARBAGE = os.urandom(10_000)
BAD_PEERS = {
    "an unresolvable name": lambda: "no-such-host.invalid:7000",
    "nobody there": lambda: "127.0.0.1:1",
    "one that speaks garbage": lambda: Listener(GARBAGE),
    "one that speaks another protocol": lambda: Listener(b"220 mail.test ESMTP ready\r\n"),
    "one that never answers": lambda: Listener(b""),
}


@pytest.mark.parametrize("kind", BAD_PEERS)
def test_a_majority_goes_on_without_a_bad_peer_and_says_which_it_is(kind, caplog):
    caplog.set_level(logging.WARNING, "pyraft")
    with leaves_no_thread():
        bad = BAD_PEERS[kind]()
        with Cluster(["n1", "n2"], settings=config(0.5), over_grpc=True) as cluster:
            address = bad if isinstance(bad, str) else bad.address
            cluster.members["n3"] = Member("n3", address)
            cluster.start("n1", "n2")
            leader = cluster.leader(among=["n1", "n2"])
            before = threading.active_count()
            cluster.write(20, among=["n1", "n2"])
            eventually(lambda: "cannot reach peer=n3" in caplog.text, "the log says who is missing")
            cluster.check_nothing_lost("n1", "n2")

            assert leader.raft.failure is None
            # Trying again and again piles up no threads.
            failures = caplog.text.count("cannot reach peer=n3")
            assert failures <= 4, "once per spell, not per try"
            assert threading.active_count() <= before + 10
        if not isinstance(bad, str):
            bad.close()


def test_a_new_server_that_cannot_ask_its_peers_says_whom_it_waits_for(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "pyraft")
    with (
        leaves_no_thread(),
        Cluster(["n1", "n2"], root=tmp_path, settings=config(0.5), over_grpc=True) as cluster,
    ):
        cluster.members["n3"] = Member("n3", "no-such-host.invalid:7000")
        cluster.start("n1", "n2")
        for words in ("waiting to hear from 1 more of n3", "the disk is empty", "no-such-host.invalid:7000"):
            eventually(lambda words=words: words in caplog.text, f"the log says: {words}")
        with pytest.raises(TimeoutError, match="knows no leader"):
            cluster.members["n1"].raft.wait_for_leader(timeout=0.01)


ADDRESSED_TO_A_PORT = {
    "random bytes": GARBAGE,
    "an HTTP/1.1 request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "an HTTP/2 preface, then garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + GARBAGE,
    "a TLS client hello": bytes.fromhex("16030100") + GARBAGE,
    "a frame that claims 16 MiB": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
}


def test_garbage_that_comes_to_the_port_harms_nobody():
    with leaves_no_thread(), Cluster(settings=config(0.5), over_grpc=True) as cluster:
        leader = cluster.start().leader()
        cluster.write()
        term = leader.raft.term
        sockets = []
        for member in cluster.members.values():
            host, port = member.address.split(":")
            for garbage in ADDRESSED_TO_A_PORT.values():
                one = socket.create_connection((host, int(port)), timeout=PATIENCE)
                one.sendall(garbage)
                sockets.append(one)
            sockets += [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(20)]

        cluster.write(20)  # while all of these are open
        for one in sockets:
            one.close()
        cluster.check_nothing_lost()
        assert all(member.raft.failure is None for member in cluster.members.values())
        assert leader.raft.term >= term


METHODS = [
    "AppendEntries",
    "RequestVote",
    "RequestPreVote",
    "TimeoutNow",
    "AppendEntriesPipeline",
    "NoSuchMethod",
]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff" * 50, GARBAGE, b"\x0a\xff\xff\xff\xff\x0f", b"\x32\x05\xff\xff\xff\xff\xff"],
    ids=["empty", "ones", "random", "a length beyond the end", "an entry that is none"],
)
def test_garbage_inside_grpc_is_answered_with_an_error_and_harms_nobody(payload):
    with leaves_no_thread(), Cluster(settings=config(0.5), over_grpc=True) as cluster:
        leader = cluster.start().leader()
        cluster.write(3)
        term = leader.raft.term
        for member in cluster.members.values():
            with grpc.insecure_channel(member.address) as channel:
                for method in METHODS:
                    path = f"/RaftTransport/{method}"
                    try:
                        if "Pipeline" in method:
                            list(channel.stream_stream(path)(iter([payload] * 3), timeout=PATIENCE))
                        else:
                            channel.unary_unary(path)(payload, timeout=PATIENCE)
                    except grpc.RpcError as error:
                        assert error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, method
        cluster.write(3)
        cluster.check_nothing_lost()
        assert all(member.raft.failure is None for member in cluster.members.values())
        assert leader.raft.state is not None
        assert max(member.raft.term for member in cluster.members.values()) <= term + 2


def test_a_server_that_opens_beside_bad_peers_can_be_shut_down_at_once(tmp_path):
    listener = Listener(b"")
    with leaves_no_thread():
        raft = Raft.open(
            str(tmp_path),
            id="n1",
            fsm=Recorder(),
            address="127.0.0.1:0",
            config=config(5.0),
        )
        with raft:
            pass
    listener.close()
