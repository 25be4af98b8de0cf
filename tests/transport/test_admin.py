"""The remote control, as a client of any language sees it: paths, bytes, tokens."""

import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import contextmanager

import grpc
import pytest

from pyraft import NotLeaderError, Raft, RaftState
from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.errors import ConfigError
from pyraft.futures import ApplyFuture, IndexFuture, RaftFuture
from pyraft.logstore import InmemStore
from pyraft.runtime import ThreadRuntime
from pyraft.snapshots import InmemSnapshotStore
from pyraft.transport import GrpcTransport, admin, leader_health
from pyraft.transport import raft_admin_pb2 as pb
from tests.integration.clusters import Recorder, config, eventually

RUNTIME = ThreadRuntime()


class Controlled:
    """Remembers what it was asked, and lets the test say how it ends."""

    state = RaftState.CANDIDATE
    leader_address = None
    last_index, applied_index = 12, 11
    last_contact = None

    def __init__(self):
        self.asked = []
        self.futures = []
        self.shut_down = threading.Event()

    def __getattr__(self, name):
        def ask(*arguments):
            self.asked.append((name, *arguments))
            self.futures.append(IndexFuture(RUNTIME) if "er" in name else RaftFuture(RUNTIME))
            return self.futures[-1]

        return ask

    def apply_log(self, log, timeout):
        self.asked.append(("apply_log", log.data, log.extensions))
        self.futures.append(ApplyFuture(RUNTIME))
        return self.futures[-1]

    def stats(self):
        return {"state": "Candidate", "term": "3"}

    def get_configuration(self):
        future = Future()
        future.set_result(
            Configuration(
                (Server("n1", "a:1"), Server("n2", "b:2", Suffrage.NONVOTER), Server("ö", "c:3", 2))
            )
        )
        return future

    def shutdown(self):
        self.shut_down.set()
        return RaftFuture(RUNTIME)


class Client:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])

    def __call__(self, name, request=None, reply=pb.Future, timeout=20.0):
        return self.begin(name, request, reply, timeout).result()

    def begin(self, name, request=None, reply=pb.Future, timeout=20.0):
        call = self.channel.unary_unary(
            f"/RaftAdmin/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return call.future(request or pb.Empty(), timeout=timeout)

    def wait_for(self, future, timeout=20.0):
        return self("Await", future, pb.AwaitResponse, timeout)


class Deaf:
    def receive(self, rpc):
        pass


@contextmanager
def controlled(raft, **options):
    transport = GrpcTransport("127.0.0.1:0", **{"admin": True, **options})
    client = Client(transport.local_address)
    try:
        if raft is not None:
            transport.attach(raft)
        transport.serve(Deaf())
        yield client
    finally:
        client.channel.close()
        transport.close()


@pytest.fixture
def raft():
    return Controlled()


@pytest.fixture
def client(raft):
    with controlled(raft) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "request_bytes", "asked"),
    [
        ("AddVoter", b"\x0a\x02n4\x12\x03d:4\x18\x96\x01", ("add_voter", "n4", "d:4", 150)),
        ("AddNonvoter", b"\x0a\x02n4\x12\x03d:4", ("add_nonvoter", "n4", "d:4", 0)),
        ("DemoteVoter", b"\x0a\x02n4\x10\x07", ("demote_voter", "n4", 7)),
        ("RemoveServer", b"\x0a\x02n4", ("remove_server", "n4", 0)),
        ("ApplyLog", b"\x0a\x01\xff\x12\x02ex", ("apply_log", b"\xff", b"ex")),
        ("Barrier", b"", ("barrier",)),
        ("VerifyLeader", b"", ("verify_leader",)),
        ("Snapshot", b"", ("snapshot",)),
        ("LeadershipTransfer", b"", ("leadership_transfer",)),
        ("LeadershipTransferToServer", b"\x0a\x02n4\x12\x03d:4", ("leadership_transfer", "n4", "d:4")),
    ],
)
def test_what_takes_its_time_is_begun_and_answered_with_a_token(raft, client, name, request_bytes, asked):
    token = client.channel.unary_unary(f"/RaftAdmin/{name}")(request_bytes, timeout=20)

    assert raft.asked[0][: len(asked)] == asked
    assert token[:2] == b"\x0a\x28" and len(token) == 42
    raft.futures[0].try_set_result(None)
    assert client.wait_for(pb.Future.FromString(token)).error == ""


def test_the_callers_deadline_bounds_a_change_and_none_means_none(raft, client):
    client("AddVoter", pb.AddRequest(id="n4", address="d:4"), timeout=None)
    client("AddVoter", pb.AddRequest(id="n4", address="d:4"), timeout=30)

    assert raft.asked[0][-1] is None
    assert 0 < raft.asked[1][-1] <= 31


def test_looking_answers_at_once(raft, client):
    assert client("State", reply=pb.StateResponse).SerializeToString() == b"\x08\x01"
    assert client("LastIndex", reply=pb.IndexResponse).index == 12
    assert client("AppliedIndex", reply=pb.IndexResponse).index == 11
    assert client("Leader", reply=pb.LeaderResponse).address == ""
    assert dict(client("Stats", reply=pb.StatsResponse).stats) == {"state": "Candidate", "term": "3"}
    servers = client("GetConfiguration", reply=pb.ConfigurationResponse).servers
    assert [(s.suffrage, s.id, s.address) for s in servers] == [
        (0, "n1", "a:1"),
        (1, "n2", "b:2"),
        (2, "ö", "c:3"),
    ]

    raft.leader_address, raft.state = "10.0.0.9:7000", RaftState.SHUTDOWN
    assert client("Leader", reply=pb.LeaderResponse).address == "10.0.0.9:7000"
    assert client("State", reply=pb.StateResponse).state == 3


def test_the_last_contact_is_an_instant_and_gos_zero_time_if_there_was_none(raft, client):
    assert client("LastContact", reply=pb.LastContactResponse).unix_nano == -6795364578871345152

    raft.last_contact = 100.0
    before = time.time_ns()
    instant = client("LastContact", reply=pb.LastContactResponse).unix_nano
    assert before - 100 * 10**9 <= instant <= time.time_ns() - 100 * 10**9


def test_await_waits_for_the_end_as_often_as_one_likes(raft, client):
    token = client("RemoveServer", pb.MemberRequest(id="n2"))
    waiting = [client.begin("Await", token, pb.AwaitResponse) for _ in range(3)]
    raft.futures[0]._index = 77
    raft.futures[0].try_set_result(None)

    assert [call.result() for call in waiting] == [pb.AwaitResponse(index=77)] * 3
    assert client.wait_for(token).index == 77


def test_an_error_is_told_as_text_however_it_is_made(raft, client):
    token = client("Barrier")
    raft.futures[0].try_set_exception(NotLeaderError("n1", "n2", "b:2"))
    assert "is not the leader" in client.wait_for(token).error

    for error, text in [(KeyError(), "KeyError"), (ValueError("\ud800" + "x" * 9999), "?" + "x" * 3999)]:
        token = client("ApplyLog", pb.ApplyLogRequest(data=b"x"))
        raft.futures[-1].try_set_exception(error)
        assert client.wait_for(token).error == text


def test_what_is_refused_at_once_has_no_token(raft, client):
    def refuse(*_):
        raise ConfigError("add_voter: address='' is empty")

    raft.add_voter = refuse

    with pytest.raises(grpc.RpcError) as refused:
        client("AddVoter", pb.AddRequest(id="n4"))

    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.UNKNOWN,
        "add_voter: address='' is empty",
    )


def test_forgotten_and_unknown_tokens_are_no_longer_known(raft, client):
    token = client("Barrier")
    client("Forget", token, pb.Empty)
    client("Forget", token, pb.Empty)

    with pytest.raises(grpc.RpcError, match="is unknown"):
        client.wait_for(token)
    with pytest.raises(grpc.RpcError, match="is unknown"):
        client.wait_for(pb.Future(operation_token="x" * 100_000))


def test_what_is_over_makes_room_and_what_goes_on_does_not(raft, client, monkeypatch):
    monkeypatch.setattr(admin, "_MAX_OPERATIONS", 3)
    tokens = [client("Barrier") for _ in range(3)]

    with pytest.raises(grpc.RpcError, match="3 operations are under way"):
        client("Barrier")
    assert len(raft.futures) == 3

    raft.futures[1].try_set_result(5)
    tokens.append(client("Barrier"))

    with pytest.raises(grpc.RpcError, match="is unknown"):
        client.wait_for(tokens[1])
    for number in (0, 2, 3):
        raft.futures[number].try_set_result(5)
        assert client.wait_for(tokens[number]).error == ""


def test_of_what_is_over_only_the_outcome_is_kept(raft, client):
    token = client("ApplyLog", pb.ApplyLogRequest(data=b"x"))

    class Large:
        pass

    freed = []
    result = Large()
    weakref.finalize(result, freed.append, True)
    raft.futures[0].try_set_result(result)
    del result
    raft.futures.clear()

    eventually(lambda: freed, "the result is freed")
    assert client.wait_for(token).error == ""


def test_those_who_wait_do_not_keep_others_out_for_ever(raft, client, monkeypatch):
    monkeypatch.setattr(admin, "_MAX_CALLS", 2)
    token = client("Barrier")
    waiting = [client.begin("Await", token, pb.AwaitResponse, timeout=None) for _ in range(2)]

    def is_refused():
        try:
            client("Leader", reply=pb.LeaderResponse)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return True
        return False

    eventually(is_refused, "both wait")
    for call in waiting:
        call.cancel()
    eventually(lambda: not is_refused(), "those who have gone make room")


def test_shutdown_is_answered_before_the_connection_ends(raft, client, monkeypatch):
    monkeypatch.setattr(admin, "_SHUTDOWN_SECONDS", 1000.0)
    token = client("Shutdown")
    assert client.wait_for(token).error == ""
    assert not raft.shut_down.is_set()
    client("Forget", token, pb.Empty)

    assert raft.shut_down.wait(20)


def test_shutdown_does_not_wait_for_a_client_that_has_gone(raft, client, monkeypatch):
    monkeypatch.setattr(admin, "_SHUTDOWN_SECONDS", 0.01)
    client("Shutdown")

    assert raft.shut_down.wait(20)


def test_without_admin_and_without_a_server_there_is_no_control(raft):
    with controlled(raft, admin=False) as client, pytest.raises(grpc.RpcError) as refused:
        client("Leader", reply=pb.LeaderResponse)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    with controlled(None) as client, pytest.raises(grpc.RpcError) as refused:
        client("Shutdown")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_transport_that_closes_wakes_those_who_wait(raft):
    with controlled(raft) as client:
        token = client("Barrier")
        waiting = client.begin("Await", token, pb.AwaitResponse, timeout=None)

    assert isinstance(waiting.exception(timeout=20), grpc.RpcError)


def test_a_real_server_is_controlled_and_shut_down():
    transport = GrpcTransport("127.0.0.1:0", admin=True)
    address = transport.local_address
    store = InmemStore()
    raft = Raft(config(0.05, local_id="n1"), Recorder(), store, store, InmemSnapshotStore(), transport)
    client = Client(address)
    try:
        raft.start()
        raft.bootstrap_cluster(Configuration.of_voters({"n1": address})).result(20)
        eventually(lambda: raft.state is RaftState.LEADER, "it leads")
        for name, request in [
            ("ApplyLog", pb.ApplyLogRequest(data=b"x")),
            ("Barrier", None),
            ("AddNonvoter", pb.AddRequest(id="n2", address="127.0.0.1:1")),
        ]:
            done = client.wait_for(client(name, request))
            assert (done.error, done.index > 0) == ("", True)
        assert "n1" in client.wait_for(client("DemoteVoter", pb.MemberRequest(id="n1"))).error
        token = client("Shutdown")
        assert client.wait_for(token) == pb.AwaitResponse()
        client("Forget", token, pb.Empty)
        assert raft.wait_stopped(20)
    finally:
        client.channel.close()
        raft.shutdown().result()


# ── who leads ──


def health(client, call, service=b"quis.RaftLeader", timeout=20.0):
    path = f"/grpc.health.v1.Health/{call}"
    request = b"\x0a" + bytes((len(service),)) + service if service else b""
    if call == "Check":
        return client.channel.unary_unary(path)(request, timeout=timeout)
    return client.channel.unary_stream(path)(request, timeout=timeout)


SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def test_the_leader_alone_is_healthy(raft, client):
    assert health(client, "Check") == NOT_SERVING
    raft.state = RaftState.LEADER
    assert health(client, "Check") == SERVING
    assert health(client, "Check", b"") == SERVING
    with pytest.raises(grpc.RpcError) as unknown:
        health(client, "Check", b"other")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_who_watches_hears_of_each_change(raft, client):
    watching = health(client, "Watch", timeout=None)
    assert next(watching) == NOT_SERVING
    for state, status in [(RaftState.LEADER, SERVING), (RaftState.FOLLOWER, NOT_SERVING)] * 2:
        raft.state = state
        assert next(watching) == status
    watching.cancel()
    assert next(health(client, "Watch", b"other")) == SERVICE_UNKNOWN


def test_only_so_many_watch_and_those_who_have_gone_make_room(raft, client, monkeypatch):
    monkeypatch.setattr(leader_health, "_MAX_WATCHERS", 2)
    watching = [health(client, "Watch", timeout=None) for _ in range(2)]
    assert [next(one) for one in watching] == [NOT_SERVING] * 2
    with pytest.raises(grpc.RpcError, match="2 clients are watching"):
        next(health(client, "Watch"))
    watching[0].cancel()

    def is_let_in():
        try:
            return next(health(client, "Watch")) == NOT_SERVING
        except grpc.RpcError:
            return False

    eventually(is_let_in, "there is room again")


def test_a_transport_that_closes_ends_the_watching(raft):
    with controlled(raft) as client:
        watching = health(client, "Watch", timeout=None)
        assert next(watching) == NOT_SERVING
    with pytest.raises(grpc.RpcError):
        next(watching)


def test_without_admin_nobody_is_told_who_leads(raft):
    with controlled(raft, admin=False) as client, pytest.raises(grpc.RpcError) as refused:
        health(client, "Check")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
