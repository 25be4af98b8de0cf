"""Bad days of the gRPC transport: each ends soon, with a TransportError that helps."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from queue import Empty, SimpleQueue

import grpc
import pytest

from pyraft.configuration import Server
from pyraft.errors import ConfigError, RaftError, TransportError, UnsupportedProtocolError
from pyraft.log import Log, LogType
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestPreVoteRequest,
    RequestVoteRequest,
    RequestVoteResponse,
    RpcHeader,
)
from pyraft.runtime import ThreadRuntime
from pyraft.transport import GrpcTransport, Tls
from pyraft.transport import grpc_transport as module
from pyraft.transport.workers import Workers
from tests.certificates import make_tls

HEADER = RpcHeader("a", "10.0.0.1:7000")
VOTE = RequestVoteRequest(HEADER, 7, 3, 2)
GRANTED = RequestVoteResponse(RpcHeader("b", "10.0.0.2:7000"), 7, True)


class Answering:
    """Grants votes, acknowledges appends."""

    def receive(self, rpc):
        rpc.respond(answer_to(rpc.request))


class Keeping:
    """Keeps what it is asked."""

    def __init__(self):
        self.received = SimpleQueue()

    def receive(self, rpc):
        self.received.put(rpc)


def answer_to(request):
    if isinstance(request, RequestVoteRequest):
        return GRANTED
    return AppendEntriesResponse(GRANTED.header, 7, request.prev_log_entry, True)


def append(number, header=HEADER, size=1):
    return AppendEntriesRequest(header, 7, number, 7, (Log(number + 1, 7, LogType.COMMAND, b"x" * size),), 0)


def eventually(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


@pytest.fixture
def make():
    made = []

    def make(handler=None, **options):
        transport = GrpcTransport("127.0.0.1:0", **options)
        made.append(transport)
        if handler is not None:
            transport.serve(handler)
        return transport

    yield make
    for transport in made:
        transport.close()


def peer_of(transport):
    return Server("b", transport.local_address)


# ── addresses ──


def test_a_taken_port_is_refused_at_once_and_the_text_helps(make):
    taken = make().local_address
    with pytest.raises(TransportError) as refused:
        GrpcTransport(taken)
    text = str(refused.value)
    assert taken in text
    assert "in use" in text
    assert f"ss -ltnp 'sport = :{taken.rpartition(':')[2]}'" in text
    assert refused.value.__cause__ is not None


def test_a_port_is_free_again_after_close_served_or_not(make):
    for handler in (None, Answering()):
        first = make(handler)
        address = first.local_address
        first.close()
        GrpcTransport(address).close()


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(TransportError, match=r"cannot listen on 192\.0\.2\.1:0: .*ssign"):
        GrpcTransport("192.0.2.1:0")


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", ":0"])
def test_an_unspecified_address_is_not_advertised(bind):
    with pytest.raises(ConfigError, match="advertise="):
        GrpcTransport(bind)
    with closing(GrpcTransport("0.0.0.0:0", advertise="127.0.0.1:0")) as transport:
        host, _, port = transport.local_address.rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
    with closing(GrpcTransport("127.0.0.1:0", advertise="raft-1.example:7000")) as transport:
        assert transport.local_address == "raft-1.example:7000"
    with pytest.raises(ConfigError, match="no address that others could call"):
        GrpcTransport("127.0.0.1:0", advertise=bind)


@pytest.mark.parametrize("bind", ["", "localhost", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "::1:80"])
def test_what_is_no_address_is_refused(bind):
    with pytest.raises(ConfigError, match="is not host:port"):
        GrpcTransport(bind)


def test_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    with closing(GrpcTransport("[::1]:0")) as server, closing(GrpcTransport("[::1]:0")) as client:
        server.serve(Answering())
        assert client.call(peer_of(server), VOTE, 10) == GRANTED


# ── peers that are not there, or silent ──


def test_an_unresolvable_peer(make):
    began = time.monotonic()
    with pytest.raises(TransportError, match=r"RequestVote to b at no-such-host\.invalid:7000"):
        make().call(Server("b", "no-such-host.invalid:7000"), VOTE, 5)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["", "not an address", "127.0.0.1:99999", "bogus:///x"])
def test_an_address_that_is_none_is_a_transport_error_too(make, address):
    transport = make()
    with pytest.raises(TransportError):
        transport.call(Server("b", address), VOTE, 2)
    errors = SimpleQueue()
    with suppress(TransportError):
        transport.pipeline(Server("b", address), print, errors.put).send(append(1))
        assert isinstance(errors.get(timeout=10), TransportError)


def test_a_peer_that_accepts_and_says_nothing(make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(TransportError, match=address):
            make().call(Server("b", address), VOTE, 0.3)
        assert time.monotonic() - began < 5


def test_a_proxy_variable_does_not_lead_astray(make, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert make().call(peer_of(make(Answering())), VOTE, 10) == GRANTED


FROZEN_SERVER = """
import sys
sys.path.insert(0, {root!r})
from pyraft.transport import GrpcTransport
from tests.transport.test_grpc_transport import Answering
transport = GrpcTransport("127.0.0.1:0")
transport.serve(Answering())
print(transport.local_address, flush=True)
sys.stdin.read()
"""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_frozen_peer_is_noticed_and_called_again_once_it_thaws(make, monkeypatch):
    monkeypatch.setattr(module, "_SILENT_SECONDS", 0.1)
    server = subprocess.Popen(
        [sys.executable, "-c", FROZEN_SERVER.format(root=ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        peer = Server("b", server.stdout.readline().strip())
        transport = make()
        events = SimpleQueue()
        pipeline = transport.pipeline(peer, events.put, events.put)
        pipeline.send(append(1))
        assert isinstance(events.get(timeout=10), AppendEntriesResponse)
        assert transport.call(peer, VOTE, 10) == GRANTED

        server.send_signal(signal.SIGSTOP)
        pipeline.send(append(2))
        deadline = time.monotonic() + 10
        with pytest.raises(Empty):
            while time.monotonic() < deadline:
                began = time.monotonic()
                with pytest.raises(TransportError):
                    transport.call(peer, VOTE, 0.05)
                assert time.monotonic() - began < 2
                if not events.empty():
                    assert isinstance(events.get(), TransportError)  # the pipeline is broken, and says so
                    events.get(timeout=0.05)
        with pytest.raises(TransportError):
            pipeline.send(append(3))

        server.send_signal(signal.SIGCONT)
        began = time.monotonic()
        while True:
            try:
                assert transport.call(peer, VOTE, 1) == GRANTED
                break
            except TransportError:
                assert time.monotonic() - began < 10
        again = transport.pipeline(peer, events.put, events.put)
        again.send(append(4))
        assert events.get(timeout=10).last_log == 4
    finally:
        server.kill()
        server.communicate()


def test_a_peer_that_comes_back_is_reached_soon(make):
    client, server = make(), make(Answering())
    peer = peer_of(server)
    assert client.call(peer, VOTE, 10) == GRANTED
    server.close()
    for _ in range(5):
        with pytest.raises(TransportError):
            client.call(peer, VOTE, 0.2)
    with closing(GrpcTransport(peer.address)) as again:
        again.serve(Answering())
        began = time.monotonic()
        while True:
            with suppress(TransportError):
                assert client.call(peer, VOTE, 0.5) == GRANTED
                break
            assert time.monotonic() - began < 10


# ── peers of another kind ──


def test_garbage_on_the_port_breaks_nothing(make):
    server, client = make(Answering()), make()
    host, _, port = server.local_address.rpartition(":")
    rng = random.Random(7)
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        rng.randbytes(4096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(512),
        b"",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as stranger:
            stranger.settimeout(10)
            with suppress(OSError):
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(4096):
                    pass
        assert client.call(peer_of(server), VOTE, 10) == GRANTED


@pytest.fixture
def raw(make):
    """A server, and a plain channel to it."""
    server = make(Keeping())
    with grpc.insecure_channel(server.local_address) as channel:
        yield server, channel


def test_garbage_in_a_call_is_answered_by_an_error(raw):
    server, channel = raw
    for path in ("/RaftTransport/AppendEntries", "/RaftTransport/RequestVote", "/PyRaft/Standing"):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(path)(b"\xff\xff\xff", timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNKNOWN
    call = channel.stream_stream("/RaftTransport/AppendEntriesPipeline")(iter([b"\xff\xff\xff"]), timeout=10)
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    assert refused.value.code() is grpc.StatusCode.UNKNOWN
    assert server._handler.received.empty()
    eventually(lambda: not server._streams)


def test_an_error_answer_has_the_status_and_text_that_go_sends(raw):
    server, channel = raw
    answer = channel.unary_unary("/RaftTransport/TimeoutNow").future(b"\x0a\x00", timeout=10)
    server._handler.received.get(timeout=10).respond(RaftError("operation not supported"))
    with pytest.raises(grpc.RpcError) as refused:
        answer.result(timeout=10)
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.UNKNOWN,
        "operation not supported",
    )


def test_a_call_the_peer_does_not_know(make):
    foreign = grpc.server(Workers(ThreadRuntime(), "foreign", 4))
    port = foreign.add_insecure_port("127.0.0.1:0")
    foreign.start()
    try:
        with pytest.raises(UnsupportedProtocolError, match="RequestPreVote to b"):
            make().call(Server("b", f"127.0.0.1:{port}"), RequestPreVoteRequest(HEADER, 7, 3, 2), 10)
    finally:
        foreign.stop(None)


@pytest.mark.parametrize("answer", [b"\xff\xff", b"\x0a\x03\x12\x01\xff"])
def test_a_peer_that_answers_garbage(make, answer):
    handlers = {
        "RequestVote": grpc.unary_unary_rpc_method_handler(lambda request, context: answer),
        "AppendEntriesPipeline": grpc.stream_stream_rpc_method_handler(
            lambda requests, context: (answer for _ in requests)
        ),
    }
    workers = Workers(ThreadRuntime(), "foreign", 4)
    foreign = grpc.server(workers, handlers=[grpc.method_handlers_generic_handler("RaftTransport", handlers)])
    port = foreign.add_insecure_port("127.0.0.1:0")
    foreign.start()
    try:
        peer, events = Server("b", f"127.0.0.1:{port}"), SimpleQueue()
        transport = make()
        with pytest.raises(TransportError, match="the answer is"):
            transport.call(peer, VOTE, 10)
        pipeline = transport.pipeline(peer, events.put, events.put)
        pipeline.send(append(1))
        error = events.get(timeout=10)
        assert isinstance(error, TransportError)
        assert "the answer is" in str(error)
    finally:
        foreign.stop(None)


def test_a_message_above_the_limit_is_an_error_and_nothing_else_breaks(make):
    server = make(Answering(), max_message_bytes=100_000)
    client = make()
    peer, events = peer_of(server), SimpleQueue()
    with pytest.raises(TransportError, match="RESOURCE_EXHAUSTED"):
        client.call(peer, append(1, size=200_000), 10)
    pipeline = client.pipeline(peer, events.put, events.put)
    pipeline.send(append(1, size=200_000))
    assert "RESOURCE_EXHAUSTED" in str(events.get(timeout=10))
    with pytest.raises(TransportError, match="RESOURCE_EXHAUSTED"):
        make(max_message_bytes=1000).call(peer, append(1, size=2000), 10)
    assert client.call(peer, append(1, size=50_000), 10).success


def test_as_much_as_a_go_leader_sends_at_once_is_taken(make):
    """It counts 64 entries, whatever their size; of 1 MiB each, which is twice what it advises."""
    server, client = make(Answering()), make()
    data = b"x" * 1024 * 1024
    entries = tuple(Log(number, 7, LogType.COMMAND, data) for number in range(1, 65))
    assert client.call(peer_of(server), AppendEntriesRequest(HEADER, 7, 0, 0, entries, 0), 60).success


def test_a_handler_that_raises_is_an_error_at_the_caller(make, caplog):
    class Broken:
        def receive(self, rpc):
            raise ValueError("a bug")

    client, peer = make(), peer_of(make(Broken()))
    for _ in range(2):
        with pytest.raises(TransportError, match="a bug"):
            client.call(peer, VOTE, 10)
    assert "the handler failed" in caplog.text


# ── streams ──


def test_a_newer_pipeline_of_a_server_ends_the_older(make):
    server = make(Answering())
    older, newer, other = SimpleQueue(), SimpleQueue(), SimpleQueue()
    client = make()
    first = client.pipeline(peer_of(server), older.put, older.put)
    first.send(append(1))
    assert older.get(timeout=10).last_log == 1
    stranger = client.pipeline(peer_of(server), other.put, other.put)
    stranger.send(append(1, header=RpcHeader("c", "c")))
    assert other.get(timeout=10).last_log == 1

    second = make().pipeline(peer_of(server), newer.put, newer.put)
    second.send(append(2))

    assert newer.get(timeout=10).last_log == 2
    error = older.get(timeout=10)
    assert isinstance(error, TransportError)
    assert "a newer stream of a took over" in str(error)
    stranger.send(append(3, header=RpcHeader("c", "c")))
    assert other.get(timeout=10).last_log == 3
    eventually(lambda: len(server._streams) == 2)


def test_streams_never_take_the_workers_of_votes(make, monkeypatch):
    monkeypatch.setattr(module, "_MAX_INBOUND_STREAMS", 4)
    server = make(Answering())
    client = make()
    events = [SimpleQueue() for _ in range(12)]
    for number, queue in enumerate(events):
        stream = client.pipeline(peer_of(server), queue.put, queue.put)
        with suppress(TransportError):  # refused already
            stream.send(append(1, header=RpcHeader(f"server{number}", "x")))
    outcomes = [queue.get(timeout=10) for queue in events]
    assert sum(isinstance(outcome, AppendEntriesResponse) for outcome in outcomes) >= 4
    assert len(server._streams) <= 4
    assert client.call(peer_of(server), VOTE, 10) == GRANTED


def test_a_stream_reads_ahead_but_not_for_ever(make, monkeypatch):
    monkeypatch.setattr(module, "_MAX_UNANSWERED", 4)
    handler = Keeping()
    server, events = make(handler), SimpleQueue()
    stream = make().pipeline(peer_of(server), events.put, events.put)
    for number in range(20):
        stream.send(append(number))
    waiting = [handler.received.get(timeout=10) for _ in range(4)]  # without any answer
    with pytest.raises(Empty):
        handler.received.get(timeout=0.1)
    for rpc in reversed(waiting):  # answered out of order, sent in order
        rpc.respond(answer_to(rpc.request))
    for _ in range(16):
        rpc = handler.received.get(timeout=10)
        rpc.respond(answer_to(rpc.request))
    assert [events.get(timeout=10).last_log for _ in range(20)] == list(range(20))


def test_requests_of_a_closed_stream_are_abandoned(make):
    handler = Keeping()
    server = make(handler)
    stream = make().pipeline(peer_of(server), print, print)
    stream.send(append(1))
    rpc = handler.received.get(timeout=10)
    eventually(lambda: any(stream._unanswered for stream in server._streams))
    assert not rpc.abandoned
    stream.close()
    eventually(lambda: rpc.abandoned)
    rpc.respond(answer_to(rpc.request))
    eventually(lambda: not server._streams)


# ── threads ──


def names_of_new_threads(before):
    return sorted(t.name for t in set(threading.enumerate()) - before)


def test_forgetting_a_peer_ends_its_threads(make):
    server = make(Answering())
    client, events = make(), SimpleQueue()
    before = set(threading.enumerate())
    for _ in range(3):
        stream = client.pipeline(Server("gone", server.local_address), events.put, events.put)
        stream.send(append(1))
        events.get(timeout=10)
    assert any("gone" in name for name in names_of_new_threads(before))
    client.forget(Server("gone", server.local_address))
    eventually(lambda: not any("gone" in name for name in names_of_new_threads(before)))
    eventually(lambda: not any("consume" in name for name in names_of_new_threads(before)))


def test_pipelines_leave_no_thread_behind(make):
    server, client = make(Answering()), make()
    assert client.call(peer_of(server), VOTE, 10) == GRANTED
    before = {t for t in threading.enumerate() if "spin" not in t.name}
    for _ in range(20):
        events = SimpleQueue()
        stream = client.pipeline(peer_of(server), events.put, events.put)
        stream.send(append(1))
        events.get(timeout=10)
        stream.close()
    nobody = Server("b", "127.0.0.1:1")
    for _ in range(5):  # nor do those that never come to anything
        errors = SimpleQueue()
        client.pipeline(nobody, print, errors.put)
        assert isinstance(errors.get(timeout=10), TransportError)
    eventually(lambda: not [n for n in names_of_new_threads(before) if "stream" in n or "consume" in n])
    client.close()
    server.close()
    eventually(lambda: not names_of_new_threads(before))


def test_closing_while_calls_come_in(make):
    """Every call ends, with an answer or a TransportError, and close() does not hang."""
    server, client = make(Keeping()), make()
    outcomes = SimpleQueue()

    def call_until_refused():
        while True:
            try:
                client.call(peer_of(server), VOTE, 0.5)
            except TransportError as error:
                if "is closed" in str(error):
                    outcomes.put(error)
                    return
            except BaseException as error:
                outcomes.put(error)
                return

    callers = [threading.Thread(target=call_until_refused, daemon=True) for _ in range(8)]
    for caller in callers:
        caller.start()
    server._handler.received.get(timeout=10)
    server.close()
    client.close()
    for _ in callers:
        assert isinstance(outcomes.get(timeout=20), TransportError)


ABANDONING = """
import sys
sys.path.insert(0, {root!r})
from pyraft.configuration import Server
from pyraft.transport import GrpcTransport
from tests.transport.test_grpc_transport import Answering, Keeping, VOTE, append
import threading
server, stuck, client = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")
server.serve(Answering())
stuck.serve(Keeping())
client.call(Server("b", server.local_address), VOTE, 10)
for one in (server, stuck):
    client.pipeline(Server("b", one.local_address), print, print).send(append(1))
threading.Thread(target=client.call, args=(Server("b", stuck.local_address), VOTE, 600), daemon=True).start()
stuck._handler.received.get(timeout=10)
stuck._handler.received.get(timeout=10)
{end}
"""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("raise ValueError('oops')", 1), ("sys.exit(3)", 3)])
def test_a_script_that_ends_without_closing_exits(end, status):
    ended = subprocess.run(
        [sys.executable, "-c", ABANDONING.format(root=ROOT, end=end)],
        timeout=30,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == status, ended.stderr


def test_importing_transports_does_not_import_grpc():
    code = "import sys, pyraft.transport; from pyraft.transport import InmemTransport; print('grpc' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, timeout=30, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "False"


# ── TLS ──


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Makes certificates, each call with an authority of its own."""
    return lambda name: make_tls(tmp_path_factory.mktemp(name), name)


def test_mutual_tls(make, authority):
    ours, foreign = authority("ours"), authority("foreign")
    server = make(Answering(), tls=ours)
    assert make(tls=ours).call(peer_of(server), VOTE, 10) == GRANTED
    for stranger in (None, foreign, Tls(foreign.certificate, foreign.private_key, ours.ca)):
        with pytest.raises(TransportError):
            make(tls=stranger).call(peer_of(server), VOTE, 2)
    assert make(tls=ours).call(peer_of(server), VOTE, 10) == GRANTED
    assert "PRIVATE" not in repr(ours)


def test_tls_material_that_cannot_work_is_refused(authority):
    ours, foreign = authority("mine"), authority("yours")
    with pytest.raises(ConfigError, match="private_key is not PEM"):
        Tls(ours.certificate, b"secret", ours.ca)
    with pytest.raises(ConfigError, match="do not belong together"):
        GrpcTransport("127.0.0.1:0", tls=Tls(ours.certificate, foreign.private_key, ours.ca))
