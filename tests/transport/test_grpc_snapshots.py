"""Snapshots over gRPC: bytes that no pyraft sender sends, processes that die, memory that stays small."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from pyraft.configuration import Configuration, Server
from pyraft.errors import TransportError
from pyraft.messages import InstallSnapshotRequest, InstallSnapshotResponse, RpcHeader
from pyraft.transport import GrpcTransport, snapshot_stream, wire
from pyraft.transport import grpc_transport as module

HEADER = RpcHeader("a", "10.0.0.1:7000")
ANSWER = InstallSnapshotResponse(RpcHeader("b", "10.0.0.2:7000"), 7, True)
MEMBERS = Configuration.of_voters({"a": "10.0.0.1:7000", "b": "10.0.0.2:7000"})
ENDLESS = 2**50


class Zeros:
    """A source without an end."""

    def __init__(self):
        self.given = 0

    def read(self, size):
        self.given += size
        return bytes(size)


class Storing:
    """Reads snapshots to their end and keeps how they ended; waits for ``go_on`` before each."""

    def __init__(self, reads=10**9):
        self.began, self.outcomes = SimpleQueue(), SimpleQueue()
        self.go_on = threading.Event()
        self.go_on.set()
        self.reads = reads

    def receive(self, rpc):
        rpc.respond(TransportError("nothing else was expected"))

    def receive_snapshot(self, request, source):
        self.began.put(request)
        self.go_on.wait(10)
        data = bytearray()
        try:
            for _ in range(self.reads):
                piece = source.read(65536)
                if not piece:
                    break
                data += piece if len(data) < 2**20 else b""
        except TransportError as error:
            self.outcomes.put(error)
            raise
        self.outcomes.put(bytes(data))
        return ANSWER


@pytest.fixture
def make():
    made = []

    def make(handler=None):
        transport = GrpcTransport("127.0.0.1:0")
        made.append(transport)
        if handler is not None:
            transport.serve(handler)
        return transport

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def handler():
    handler = Storing()
    yield handler
    handler.go_on.set()


def announce(size, header=HEADER):
    return InstallSnapshotRequest(header, 7, 42, 6, MEMBERS, 1, size)


def first(size, header=HEADER):
    return wire.encode_install_snapshot(announce(size, header))


def send(client, address, size, source, timeout=600.0, is_over=lambda: False, header=HEADER):
    return client.install_snapshot(Server("b", address), announce(size, header), source, timeout, is_over)


def soon(function):
    """What ``function`` puts out on a thread of its own: its result or its error."""
    outcome = SimpleQueue()

    def run():
        try:
            outcome.put(function())
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


# ── what Go's library sends, and what it never would ──


def upload(server, messages):
    """Send ``messages`` as they are, as somebody else's client does; the answer, or the error."""
    with grpc.insecure_channel(server.local_address) as channel:
        call = channel.stream_unary("/RaftTransport/InstallSnapshot")
        try:
            return wire.decode_install_snapshot_response(call(iter(messages), timeout=20))
        except grpc.RpcError as error:
            return error


def test_a_go_server_s_stream_is_taken(make, handler):
    data = os.urandom(100_000)
    chunks = [wire.encode_snapshot_chunk(data[at : at + 16_384]) for at in range(0, len(data), 16_384)]
    assert upload(make(handler), [first(len(data)), *chunks]) == ANSWER
    assert handler.began.get(timeout=10) == announce(len(data))
    assert handler.outcomes.get(timeout=10) == data


def test_bytes_in_the_first_message_count(make, handler):
    server = make(handler)
    messages = [first(5) + wire.encode_snapshot_chunk(b"abc"), wire.encode_snapshot_chunk(b"de")]
    assert upload(server, messages) == ANSWER
    assert handler.outcomes.get(timeout=10) == b"abcde"
    assert upload(server, [first(3) + wire.encode_snapshot_chunk(b"abc")]) == ANSWER
    assert handler.outcomes.get(timeout=10) == b"abc"


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([first(5), wire.encode_snapshot_chunk(b"abcd")], "short read"),
        ([first(5)], "short read"),
        ([first(5), wire.encode_snapshot_chunk(b"abcd"), wire.encode_snapshot_chunk(b"ef")], "announced end"),
        ([first(0), wire.encode_snapshot_chunk(b"a")], "announced end"),
        ([first(5), b"\xff\xff\xff"], "no InstallSnapshotRequest"),
    ],
)
def test_a_stream_that_is_not_what_it_announced_is_broken_for_the_handler(make, handler, messages, text):
    error = upload(make(handler), messages)
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert text in error.details()
    outcome = handler.outcomes.get(timeout=10)
    assert isinstance(outcome, TransportError)
    assert text in str(outcome)


@pytest.mark.parametrize(
    "messages", [[], [b""], [b"\xff"], [b"\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]]
)
def test_a_stream_without_a_good_beginning_never_reaches_the_handler(make, handler, messages):
    error = upload(make(handler), messages)
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "InstallSnapshot: " in error.details()
    assert handler.began.empty()


def test_a_go_server_hears_an_early_answer_once_it_has_sent_all(make):
    """Its client would not read an answer before, and begin anew for ever."""
    handler = Storing(reads=1)
    sent = []

    def messages():
        yield first(200 * 65536)
        for number in range(200):
            sent.append(number)
            yield wire.encode_snapshot_chunk(bytes(65536))

    assert upload(make(handler), messages()) == ANSWER
    assert len(sent) == 200


def test_a_sender_of_ours_hears_an_early_answer_at_once(make):
    source = Zeros()
    assert send(make(), make(Storing(reads=1)).local_address, ENDLESS, source) == ANSWER


def test_a_handler_that_raises_what_it_should_not_is_an_error_that_says_so(make, caplog):
    handler = Storing()
    handler.receive_snapshot = lambda request, source: 1 / 0
    with pytest.raises(TransportError, match="ZeroDivisionError"):
        send(make(), make(handler).local_address, 5, Zeros())
    assert "the handler failed on InstallSnapshot" in caplog.text


def test_an_impossible_size_is_refused_before_anything_is_sent(make, handler):
    with pytest.raises(TransportError, match="cannot be"):
        send(make(), make(handler).local_address, -1, Zeros())


# ── limits ──


def test_only_so_many_snapshots_come_in_at_a_time(make, handler, monkeypatch):
    monkeypatch.setattr(module, "_MAX_INBOUND_SNAPSHOTS", 2)
    server, client = make(handler), make()
    over = threading.Event()
    started = []
    for number in range(2):
        header = RpcHeader(f"server{number}", "x")
        address = server.local_address
        started.append(
            soon(partial(send, client, address, ENDLESS, Zeros(), is_over=over.is_set, header=header))
        )
        handler.began.get(timeout=10)
    with pytest.raises(TransportError, match="2 snapshots are coming in"):
        send(client, server.local_address, 5, Zeros(), header=RpcHeader("server3", "x"))
    over.set()
    for outcome in started:
        assert "no longer wanted" in str(outcome.get(timeout=10))


def test_a_stream_that_never_begins_gives_way(make, handler, monkeypatch):
    monkeypatch.setattr(module, "_MAX_INBOUND_SNAPSHOTS", 1)
    server, never = make(handler), threading.Event()
    with grpc.insecure_channel(server.local_address) as channel:
        silent = channel.stream_unary("/RaftTransport/InstallSnapshot")
        call = silent.future(iter(lambda: never.wait(20) and b"", b""))
        deadline = time.monotonic() + 10
        while not len(server._snapshots):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert send(make(), server.local_address, 5, Zeros()) == ANSWER
        assert isinstance(call.exception(timeout=10), grpc.RpcError)
        never.set()


def test_a_newer_snapshot_of_the_same_sender_takes_over(make, handler):
    """The sender has forgotten the older one, or its host has vanished and come back."""
    server, client = make(handler), make()
    older = soon(lambda: send(client, server.local_address, ENDLESS, Zeros()))
    handler.began.get(timeout=10)
    newer = make()
    assert send(newer, server.local_address, 5, Zeros()) == ANSWER
    assert isinstance(older.get(timeout=10), TransportError)
    outcomes = [handler.outcomes.get(timeout=10) for _ in range(2)]
    assert bytes(5) in outcomes
    (broken,) = [one for one in outcomes if one != bytes(5)]
    assert "a newer stream of a took over" in str(broken)


def test_a_sender_that_falls_silent_is_given_up(make, handler, monkeypatch):
    patience = partial(snapshot_stream.SnapshotReceiver, patience=0.05)
    monkeypatch.setattr(module, "SnapshotReceiver", patience)
    server, never = make(handler), threading.Event()

    def messages():
        yield first(5)
        never.wait(20)

    outcome = soon(lambda: upload(server, messages()))
    assert "nothing came for 0.05 s" in str(handler.outcomes.get(timeout=10))
    assert "nothing came for 0.05 s" in outcome.get(timeout=10).details()
    never.set()


# ── other processes ──

CHILD = """
import sys, threading
sys.path[:0] = {path!r}
from test_grpc_snapshots import *

def memory_peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

"""


@pytest.fixture
def child():
    """Starts a Python process that runs ``code``; what it prints can be read line by line."""
    started = []

    def start(code):
        here = Path(__file__).parent
        script = CHILD.format(path=[str(here), str(here.parent.parent)]) + code
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


SERVE = """
handler = Storing()
server = GrpcTransport("127.0.0.1:0")
server.serve(handler)
print(server.local_address, flush=True)
handler.began.get()
print("began", flush=True)
sys.stdin.read()
"""


def test_a_receiver_that_is_killed_ends_the_snapshot_at_once(make, child):
    process = child(SERVE)
    address = process.stdout.readline().strip()
    outcome = soon(lambda: send(make(), address, ENDLESS, Zeros()))
    assert process.stdout.readline() == "began\n"
    process.kill()
    assert isinstance(outcome.get(timeout=10), TransportError)


def test_a_receiver_that_is_frozen_is_noticed_for_want_of_progress(make, child):
    process = child(SERVE)
    address = process.stdout.readline().strip()
    outcome = soon(lambda: send(make(), address, ENDLESS, Zeros(), timeout=1.5))
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGSTOP)
    assert "took no bytes for 1.5 s" in str(outcome.get(timeout=20))


def test_a_sender_that_is_killed_ends_the_snapshot_at_once(make, child, handler):
    server = make(handler)
    process = child(f"send(GrpcTransport('127.0.0.1:0'), {server.local_address!r}, ENDLESS, Zeros())")
    handler.began.get(timeout=20)
    process.kill()
    assert isinstance(handler.outcomes.get(timeout=10), TransportError)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory was used")
def test_a_snapshot_of_any_size_takes_the_memory_of_a_few_pieces(child):
    process = child("""
server, client = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")
server.serve(Storing())
send(client, server.local_address, 4 * 2**20, Zeros())
before = memory_peak()
send(client, server.local_address, 64 * 2**20, Zeros())
print(memory_peak() - before)
""")
    grown = int(process.stdout.readline())
    assert grown < 24 * 2**20, f"{grown} bytes more for a snapshot of 64 MiB"


def test_a_program_that_ends_in_the_middle_of_a_snapshot_exits(child):
    process = child("""
server, client, handler = GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0"), Storing()
server.serve(handler)
soon(lambda: send(client, server.local_address, ENDLESS, Zeros()))
handler.began.get()
sys.exit(3)
""")
    assert process.wait(timeout=60) == 3
