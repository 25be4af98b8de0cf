"""Bad days of the TCP transport: each ends soon, with a TransportError or a line in the log that helps."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from pyraft.configuration import Configuration, Server
from pyraft.errors import ConfigError, RaftError, TransportError, UnsupportedProtocolError
from pyraft.log import Log, LogType
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestPreVoteRequest,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
    StandingRequest,
)
from pyraft.runtime import ThreadRuntime
from pyraft.testing import check_transport
from pyraft.transport import TcpTransport, Tls
from pyraft.transport import msgpack_wire as wire
from pyraft.transport import tcp_transport as module
from tests.certificates import make_tls

HEADER = RpcHeader("a", "10.0.0.1:7000")
VOTE = RequestVoteRequest(HEADER, 7, 3, 2)
READ_INDEX = ReadIndexRequest(HEADER)
GRANTED = RequestVoteResponse(RpcHeader("b", "10.0.0.2:7000"), 7, True)
ROOT = Path(__file__).parent.parent.parent


class Answering:
    """Grants votes, acknowledges appends, reads snapshots."""

    def receive(self, rpc):
        rpc.respond(answer_to(rpc.request))

    def receive_snapshot(self, request, source):
        self.read = 0
        while data := source.read(1 << 20):
            self.read += len(data)
        return InstallSnapshotResponse(GRANTED.header, 7, True)


class Keeping:
    """Keeps what it is asked."""

    def __init__(self):
        self.received = SimpleQueue()

    def receive(self, rpc):
        self.received.put(rpc)


class Refusing(Answering):
    def receive_snapshot(self, request, source):
        return RaftError("boom 42")


def answer_to(request):
    if isinstance(request, RequestVoteRequest):
        return GRANTED
    return AppendEntriesResponse(GRANTED.header, 7, request.prev_log_entry, True)


def append(number, size=1):
    return AppendEntriesRequest(HEADER, 7, number, 7, (Log(number + 1, 7, LogType.COMMAND, b"x" * size),), 0)


def snapshot(size):
    return InstallSnapshotRequest(HEADER, 7, 42, 6, Configuration((Server("a", "a1"),)), 17, size)


def eventually(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


@pytest.fixture
def make():
    made = []

    def make(handler=None, **options):
        transport = TcpTransport("127.0.0.1:0", **options)
        made.append(transport)
        if handler is not None:
            transport.serve(handler)
        return transport

    yield make
    for transport in made:
        transport.close()


def peer_of(transport):
    return Server("b", transport.local_address)


def connect(transport):
    host, _, port = transport.local_address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def rest_of(sock):
    """What the other side sends until it closes."""
    data = b""
    with suppress(ConnectionResetError):
        while piece := sock.recv(4096):
            data += piece
    return data


def test_it_keeps_every_promise_of_a_transport():
    check_transport(lambda: (TcpTransport("127.0.0.1:0"), TcpTransport("127.0.0.1:0")))


def test_it_keeps_them_without_a_pool():
    check_transport(lambda: tuple(TcpTransport("127.0.0.1:0", max_pool=0, timeout=5) for _ in "ab"))


# ── addresses ──


def test_a_taken_port_is_refused_at_once_and_the_text_helps(make):
    taken = make().local_address
    with pytest.raises(TransportError) as refused:
        TcpTransport(taken)
    assert f"cannot listen on {taken}" in str(refused.value)
    assert "in use" in str(refused.value)


def test_a_port_is_free_again_after_close_served_or_not(make):
    for handler in (None, Answering()):
        first = make(handler)
        address = first.local_address
        first.close()
        TcpTransport(address).close()


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", ":0"])
def test_an_unspecified_address_is_not_advertised(bind):
    with pytest.raises(ConfigError, match="advertise="):
        TcpTransport(bind)
    with pytest.raises(ConfigError, match="no address that others could call"):
        TcpTransport("127.0.0.1:0", advertise=bind)
    with closing(TcpTransport("0.0.0.0:0", advertise="127.0.0.1:0")) as transport:
        host, _, port = transport.local_address.rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
    with closing(TcpTransport("127.0.0.1:0", advertise="raft-1.example:7000")) as transport:
        assert transport.local_address == "raft-1.example:7000"


@pytest.mark.parametrize("bind", ["", "localhost", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "::1:80"])
def test_what_is_no_address_is_refused(bind):
    with pytest.raises(ConfigError, match="is not host:port"):
        TcpTransport(bind)


@pytest.mark.parametrize(
    "options", [{"max_pool": -1}, {"max_pool": True}, {"timeout": 0}, {"timeout": float("nan")}]
)
def test_numbers_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        TcpTransport("127.0.0.1:0", **options)


@pytest.mark.parametrize("address", ["", "not an address", "127.0.0.1:99999", "a..b:1", "no-such.invalid:7"])
def test_an_address_that_is_none_is_a_transport_error(make, address):
    transport = make()
    with pytest.raises(TransportError):
        transport.call(Server("b", address), VOTE, 2)
    errors = SimpleQueue()
    with suppress(TransportError):
        transport.pipeline(Server("b", address), print, errors.put).send(append(1))
        assert isinstance(errors.get(timeout=10), TransportError)


def test_names_are_looked_up(make):
    server = make(Answering())
    port = server.local_address.rpartition(":")[2]
    assert make().call(Server("b", f"localhost:{port}"), VOTE, 10) == GRANTED


# ── connections ──


def test_calls_use_one_connection_again_and_keep_no_more_than_the_pool(make):
    server, client = make(Answering()), make(max_pool=1)
    for _ in range(5):
        assert client.call(peer_of(server), VOTE, 10) == GRANTED
    assert len(server._inbound) == 1
    callers = [
        threading.Thread(target=client.call, args=(peer_of(server), VOTE, 10), daemon=True) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    eventually(lambda: len(server._inbound) == 1)
    client.forget(peer_of(server))
    eventually(lambda: len(server._inbound) == 0)
    assert client.call(peer_of(server), VOTE, 10) == GRANTED


def test_a_peer_that_comes_back_is_reached_at_once_in_spite_of_old_connections(make):
    server, client = make(Answering()), make()
    peer = peer_of(server)
    assert client.call(peer, VOTE, 10) == GRANTED
    server.close()
    with pytest.raises(TransportError):
        client.call(peer, VOTE, 1)
    with closing(TcpTransport(peer.address)) as again:
        again.serve(Answering())
        assert client.call(peer, VOTE, 10) == GRANTED
        old = client._peers[peer.address]._idle[0]
        again.close()
        eventually(lambda: not old.connection.is_quiet)
        with closing(TcpTransport(peer.address)) as third:
            third.serve(Answering())
            assert client.call(peer, VOTE, 10) == GRANTED


def test_only_so_many_connections_are_served_and_nameless_ones_give_way(make, monkeypatch):
    monkeypatch.setattr(module, "_MAX_INBOUND", 2)
    server, client = make(Answering()), make()
    with connect(server) as first, connect(server):
        eventually(lambda: len(server._inbound) == 2)
        assert client.call(peer_of(server), VOTE, 10) == GRANTED
        assert rest_of(first) == b""


class Exhausted:
    """A listening socket whose program is out of descriptors, for the first ``failures`` tries."""

    def __init__(self, listener, failures):
        self._listener, self.failures = listener, failures

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(24, "Too many open files")
        return self._listener.accept()

    def __getattr__(self, name):
        return getattr(self._listener, name)


def test_a_listener_that_cannot_accept_pauses_and_tries_again(make, caplog):
    server = make()
    server._listener = Exhausted(server._listener, failures=3)
    pauses = SimpleQueue()
    wait, server._over.wait = server._over.wait, lambda seconds: pauses.put(seconds) or wait(0.001)

    server.serve(Answering())

    assert make().call(peer_of(server), VOTE, 10) == GRANTED
    assert [pauses.get(timeout=1) for _ in range(3)] == [module._ACCEPT_AGAIN_SECONDS] * 3
    assert pauses.empty()
    assert caplog.text.count("cannot accept a connection") == 3


# ── peers of another kind ──

GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("160301020001000201fc0303"),
    "an unknown call": b"\x05\x80",
    "many fields": b"\x00\xdf\xff\xff\xff\xff",
    "no msgpack": b"\x01\xc1",
    "an impossible snapshot": b"\x02" + wire._pack({"Size": 2**63}),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_closes_the_connection_with_a_line_in_the_log(make, caplog, garbage):
    server, client = make(Answering()), make()
    with connect(server) as stranger:
        stranger.sendall(garbage)
        assert rest_of(stranger) == b""
        name = ":".join(map(str, stranger.getsockname()))
    assert f"closed a connection from={name}: " in caplog.text
    assert client.call(peer_of(server), VOTE, 10) == GRANTED
    eventually(lambda: len(server._inbound) == 1)


def test_half_a_message_closes_the_connection_once_nothing_more_comes(make, caplog):
    server = make(Answering(), timeout=0.2)
    with connect(server) as stranger:
        stranger.sendall(wire.encode_request(VOTE)[:-1])
        assert rest_of(stranger) == b""
    assert "half a message" in caplog.text
    with connect(server) as stranger:
        stranger.sendall(b"\x01\x81\xa1x\xdb\x7f\xff\xff\xff")
        assert rest_of(stranger) == b""


@pytest.fixture
def silences(monkeypatch):
    """Every wait for bytes is in vain a few times first."""
    real = module.Connection.receive
    seen = []

    def receive(self, timeout, *rest):
        seen.append(self)
        if len(seen) % 4:
            raise TimeoutError("nothing came")
        return real(self, timeout, *rest)

    monkeypatch.setattr(module.Connection, "receive", receive)
    return seen


def test_a_silent_connection_may_stay(make, silences):
    server = make(Answering())
    with connect(server) as quiet:
        for _ in range(2):
            quiet.sendall(wire.encode_request(VOTE))
            assert quiet.recv(1000) == wire.encode_answer(wire.call_of(VOTE), GRANTED)
    assert len(silences) >= 8


def test_a_value_that_is_none_is_answered_by_an_error_and_the_connection_goes_on(make):
    server = make(Answering())
    with connect(server) as stranger:
        stranger.sendall(b"\x01" + wire._pack({"Term": "seven"}) + wire.encode_request(VOTE))
        stream = wire.MessageReader(lambda _: stranger.recv(4096))
        stream.begin()
        assert "RequestVote: Term is" in wire.read_answer(stream, wire.call_of(VOTE))
        assert wire.read_answer(stream, wire.call_of(VOTE)) == GRANTED


def test_an_error_of_the_handler_is_on_the_wire_word_for_word(make):
    keeping = Keeping()
    server = make(keeping)
    with connect(server) as go:
        go.sendall(wire.encode_request(VOTE))
        keeping.received.get(timeout=10).respond(
            RaftError("operation not supported with current protocol version")
        )
        assert go.recv(1000) == wire._pack("operation not supported with current protocol version") + b"\xc0"


def test_a_handler_that_raises_what_it_should_not_is_an_error_that_says_so(make, caplog):
    class Failing:
        def receive(self, rpc):
            raise ValueError("oops 42")

        receive_snapshot = receive

    client, server = make(), make(Failing())
    with pytest.raises(TransportError, match="oops 42"):
        client.call(peer_of(server), VOTE, 10)
    assert "oops 42" in caplog.text
    with pytest.raises(TransportError, match="the handler failed on InstallSnapshot"):
        client.install_snapshot(peer_of(server), snapshot(10), io.BytesIO(bytes(10)), 10, lambda: False)


@pytest.fixture
def go_server():
    """Like Go's: hangs up on calls that it does not know, grants votes."""

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                data = sock.recv(65536)
                asked.append(data[0])
                if data[0] < 4:  # an old one, without pre-votes
                    sock.sendall(wire.encode_answer(wire.call_of(VOTE), GRANTED))

    asked = []
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Server("b", f"127.0.0.1:{listener.getsockname()[1]}"), asked
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


@pytest.mark.parametrize("request_", [StandingRequest(HEADER), ReadIndexRequest(HEADER)])
def test_a_go_server_does_not_know_our_calls(make, go_server, request_):
    peer, asked = go_server
    client = make()
    with pytest.raises(UnsupportedProtocolError, match="does not know this call"):
        client.call(peer, request_, 10)
    assert len(asked) == 2
    assert client.call(peer, VOTE, 10) == GRANTED


def test_a_go_server_is_not_asked_over_and_over_what_it_does_not_know(make, go_server, monkeypatch):
    peer, asked = go_server
    client = make()

    def ask(request_=READ_INDEX):
        with pytest.raises(UnsupportedProtocolError, match="does not know this call"):
            client.call(peer, request_, 10)
        return len(asked)

    assert [ask(), ask(), ask(), ask(StandingRequest(HEADER))] == [2, 4, 4, 4]
    monkeypatch.setattr(ThreadRuntime, "now", lambda _: time.monotonic() + module._STRANGER_SECONDS)
    assert [ask(), ask()] == [6, 6]
    client.forget(peer)
    assert ask() == 8


def test_a_server_that_started_again_is_asked_at_once(make):
    class Knowing(Answering):
        def receive(self, rpc):
            is_ours = isinstance(rpc.request, ReadIndexRequest)
            rpc.respond(ReadIndexResponse(GRANTED.header, 7, 9) if is_ours else answer_to(rpc.request))

    server, client = make(Answering()), make()
    peer = peer_of(server)
    assert client.call(peer, VOTE, 10) == GRANTED  # leaves a connection, which ends with the server
    for _ in range(2):
        client._connect(peer).hung_up_on(wire.call_of(READ_INDEX))
    with pytest.raises(UnsupportedProtocolError):
        client.call(peer, READ_INDEX, 10)
    server.close()

    with closing(TcpTransport(server.local_address)) as again:
        again.serve(Knowing())
        eventually(lambda: not client._connect(peer)._idle[0].connection.is_quiet)
        assert client.call(peer, VOTE, 10) == GRANTED
        assert client.call(peer, READ_INDEX, 10).index == 9


def test_a_go_server_older_than_pre_votes_does_not_know_them(make, go_server):
    peer, asked = go_server
    with pytest.raises(UnsupportedProtocolError, match="does not know this call"):
        make().call(peer, RequestPreVoteRequest(HEADER, 7, 3, 2), 10)
    assert asked == [4, 4]


def test_a_server_that_has_ended_is_not_taken_for_a_go_server(make):
    server, client = make(Keeping()), make()
    assert isinstance(server._handler, Keeping)
    threading.Thread(
        target=lambda: (server._handler.received.get(timeout=10), server.close()), daemon=True
    ).start()
    with pytest.raises(TransportError):
        client.call(peer_of(server), StandingRequest(HEADER), 10)


def test_an_answer_that_is_none_closes_the_connection(make):
    for nonsense in (b"\xa0\xc0", b"\xc1", b"HTTP/1.1 400 Bad Request\r\n", b"\xa0\x82"):
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            peer = Server("b", f"127.0.0.1:{stranger.getsockname()[1]}")

            def answer(stranger=stranger, nonsense=nonsense):
                with stranger.accept()[0] as sock:
                    sock.recv(4096)
                    sock.sendall(nonsense)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            with pytest.raises(TransportError, match="the answer is"):
                make().call(peer, VOTE, 10)
            thread.join(10)


# ── peers that vanish ──


@pytest.fixture
def silent():
    """The address of somebody who accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield Server("b", f"127.0.0.1:{sock.getsockname()[1]}")


def test_a_peer_that_says_nothing_ends_a_pipeline(make, silent):
    events = SimpleQueue()
    pipeline = make(timeout=0.2).pipeline(silent, events.put, events.put)
    pipeline.send(append(1))
    assert re.search("no (answer within 0.2 s|connection in time)", str(events.get(timeout=30)))
    with pytest.raises(TransportError):
        pipeline.send(append(2))


def test_a_peer_that_takes_no_bytes_ends_a_pipeline_and_a_call(make, silent):
    events = SimpleQueue()
    client = make(timeout=0.3)
    pipeline = client.pipeline(silent, events.put, events.put)
    with suppress(TransportError):
        for number in range(20):
            pipeline.send(append(number, 3 << 20))
    assert isinstance(events.get(timeout=10), TransportError)
    with pytest.raises(TransportError):
        client.call(silent, append(1, 30 << 20), 0.3)


def test_an_idle_pipeline_stays(make, silences):
    events = SimpleQueue()
    pipeline = make(timeout=60).pipeline(peer_of(make(Answering())), events.put, events.put)
    for number in (1, 2):
        pipeline.send(append(number))
        assert events.get(timeout=10).last_log == number
    pipeline.close()
    assert len(silences) >= 8


CHILD = """
import sys
sys.path.insert(0, {root!r})
from pyraft.transport import TcpTransport, Tls
from tests.transport.test_tcp_transport import *
transport = TcpTransport("127.0.0.1:0")
handler = Answering()
transport.serve(handler)
print(transport.local_address, flush=True)
{rest}
"""


def child(rest):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.format(root=str(ROOT), rest=rest)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_peer_that_is_killed_is_noticed_at_once(make):
    server = child("sys.stdin.read()")
    try:
        peer = Server("b", server.stdout.readline().strip())
        client, events = make(), SimpleQueue()
        assert client.call(peer, VOTE, 30) == GRANTED
        pipeline = client.pipeline(peer, events.put, events.put)
        pipeline.send(append(1))
        assert isinstance(events.get(timeout=10), AppendEntriesResponse)
        server.send_signal(signal.SIGKILL)
        assert isinstance(events.get(timeout=10), TransportError)
        with pytest.raises(TransportError):
            client.call(peer, VOTE, 600)
    finally:
        server.kill()
        server.communicate()


def test_a_program_that_ends_without_closing_anything_exits():
    program = child(
        "import threading; transport.pipeline(Server('b', transport.local_address), print, print)"
    )
    _, _ = program.communicate(timeout=60)
    assert program.returncode == 0


# ── snapshots ──


def test_a_go_sender_hears_an_early_answer_once_it_has_sent_all(make):
    server = make(Refusing())
    with connect(server) as go:
        go.sendall(wire.encode_install_snapshot(snapshot(3 << 20)) + bytes(3 << 20))
        assert go.recv(1000) == wire._pack("boom 42") + b"\xc0"
        go.sendall(wire.encode_request(VOTE))  # the connection is in step
        assert go.recv(1000) == wire.encode_answer(wire.call_of(VOTE), GRANTED)


def test_the_answer_to_a_snapshot_is_gos_and_early_bytes_count(make):
    handler = Answering()
    server = make(handler)
    with connect(server) as go:
        go.sendall(wire.encode_install_snapshot(snapshot(11)) + b"hello world")
        answer = InstallSnapshotResponse(GRANTED.header, 7, True)
        assert go.recv(1000) == wire.encode_answer(wire.INSTALL_SNAPSHOT, answer)
    assert handler.read == 11


def test_a_snapshot_of_any_size_takes_the_memory_of_a_few_pieces(make):
    class Zeros:
        def read(self, size):
            return bytes(size)

    handler = Answering()
    client, server = make(), make(handler)
    size = 256 << 20
    # What the objects of this process take; what it takes from the system also depends on the
    # tests before this one, and on when the allocator gives memory back.
    tracemalloc.start()
    try:
        answer = client.install_snapshot(peer_of(server), snapshot(size), Zeros(), 60, lambda: False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer == InstallSnapshotResponse(GRANTED.header, 7, True)
    assert handler.read == size
    assert peak < 64 << 20


def test_a_newer_snapshot_of_the_same_sender_takes_over(make):
    outcomes = SimpleQueue()

    class Telling(Answering):
        def receive_snapshot(self, request, source):
            try:
                return super().receive_snapshot(request, source)
            except TransportError as error:
                outcomes.put(error)
                raise

    server = make(Telling())
    with connect(server) as first, connect(server) as second:
        first.sendall(wire.encode_install_snapshot(snapshot(100)) + b"x")
        eventually(lambda: len(server._snapshots) == 1)
        second.sendall(wire.encode_install_snapshot(snapshot(1)) + b"x")
        assert second.recv(1000)
        assert "took over" in str(outcomes.get(timeout=10))


def test_a_sender_that_falls_silent_is_given_up(make, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    server = make(Answering())
    with connect(server) as go:
        go.sendall(wire.encode_install_snapshot(snapshot(100)) + b"x")
        assert rest_of(go) == b""
    eventually(lambda: not len(server._snapshots))


# ── TLS ──


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Makes certificates, each call with an authority of its own."""
    return lambda name: make_tls(tmp_path_factory.mktemp(name), name)


def test_it_keeps_every_promise_over_tls(authority):
    tls = authority("promises")
    check_transport(lambda: (TcpTransport("127.0.0.1:0", tls=tls), TcpTransport("127.0.0.1:0", tls=tls)))


def test_mutual_tls(make, authority, caplog):
    ours, foreign = authority("ours"), authority("foreign")
    server = make(Answering(), tls=ours)
    peer = peer_of(server)
    assert make(tls=ours).call(peer, VOTE, 10) == GRANTED
    for stranger in (None, foreign, Tls(foreign.certificate, foreign.private_key, ours.ca)):
        refused = make(tls=stranger)
        with pytest.raises(TransportError):
            refused.call(peer, VOTE, 10)
        errors = SimpleQueue()
        with suppress(TransportError):
            pipeline = refused.pipeline(peer, lambda _: None, errors.put)
            pipeline.send(append(1))
        assert isinstance(errors.get(timeout=10), TransportError)
        with pytest.raises(TransportError):
            refused.install_snapshot(peer, snapshot(9), io.BytesIO(bytes(9)), 10, lambda: False)
    assert caplog.text.count("refused a connection from=") >= 3
    assert make(tls=ours).call(peer, VOTE, 10) == GRANTED
    eventually(lambda: len(server._inbound) <= 2)


def test_a_certificate_must_be_for_the_host_that_is_called(make, authority):
    ours = authority("ours")
    server, client = make(Answering(), tls=ours), make(tls=ours)
    port = server.local_address.rpartition(":")[2]

    assert client.call(Server("b", f"localhost:{port}"), VOTE, 10) == GRANTED
    with pytest.raises(TransportError, match="127.0.0.2"):
        client.call(Server("b", f"127.0.0.2:{port}"), VOTE, 10)
    for address in ("nonsense", ":7", f"{'x' * 70}.test:{port}"):
        with pytest.raises(TransportError):
            client.call(Server("b", address), VOTE, 10)


def test_what_is_sent_is_not_readable(make, authority):
    ours = authority("ours")
    relayed = SimpleQueue()
    server, client = make(Answering(), tls=ours), make(tls=ours)
    secret = b"the secret of the house"

    def relay():
        from_client, _ = listener.accept()
        with from_client, connect(server) as to_server:
            answering = threading.Thread(target=copy, args=(to_server, from_client), daemon=True)
            answering.start()
            copy(from_client, to_server)
            answering.join(10)

    def copy(source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                relayed.put(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=relay, daemon=True)
        thread.start()
        peer = Server("b", f"127.0.0.1:{listener.getsockname()[1]}")
        entries = (Log(2, 7, LogType.COMMAND, secret),)
        assert client.call(peer, AppendEntriesRequest(HEADER, 7, 1, 7, entries, 0), 10).success
        client.forget(peer)
        thread.join(10)
    seen = b"".join(relayed.get() for _ in range(relayed.qsize()))
    assert len(seen) > 1000 and secret not in seen and b"LastLog" not in seen


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 50, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70_000)]
)
def test_what_is_no_tls_is_refused_with_a_line_in_the_log(make, authority, caplog, garbage):
    ours = authority("ours")
    server = make(Answering(), tls=ours, timeout=1.0)
    with connect(server) as stranger:
        with suppress(OSError):
            stranger.sendall(garbage)
        rest_of(stranger)
    eventually(lambda: not len(server._inbound))
    assert "refused a connection from=" in caplog.text


def test_tls_material_that_cannot_work_is_refused(authority):
    ours, foreign = authority("mine"), authority("yours")
    for tls in (
        Tls(ours.certificate, foreign.private_key, ours.ca),
        Tls(ours.certificate, ours.private_key, b"-----BEGIN NOTHING-----"),
        Tls(ours.certificate, b"-----BEGIN \xff", ours.ca),
    ):
        with pytest.raises(ConfigError, match="do not belong together"):
            TcpTransport("127.0.0.1:0", tls=tls)
