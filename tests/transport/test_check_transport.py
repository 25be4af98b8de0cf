"""The transports that come with pyraft keep every promise."""

import importlib
import threading
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from pyraft.errors import ConfigError, TransportError
from pyraft.log import Log
from pyraft.messages import AppendEntriesRequest, RequestVoteRequest, RequestVoteResponse, RpcHeader
from pyraft.testing import check_transport
from pyraft.transport import GrpcTransport, InmemNetwork, InmemTransport
from pyraft.transport.base import AppendPipeline, IncomingRpc

# By its full name: the package may export the function under the same one.
checks = importlib.import_module("pyraft.testing.check_transport")


def inmem_pair(delay=0.0):
    network = InmemNetwork()
    network.delay(delay)
    return InmemTransport(network, "a:1"), InmemTransport(network, "b:1")


def grpc_pair():
    return GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")


def test_inmem():
    check_transport(inmem_pair)


def test_inmem_with_delays():
    check_transport(lambda: inmem_pair(0.001))


@pytest.mark.parametrize("promise", checks.PROMISES, ids=lambda promise: promise.__name__)
def test_grpc(promise, monkeypatch):
    monkeypatch.setattr(checks, "PROMISES", (promise,))
    check_transport(grpc_pair)


# ── transports that break a promise are found, by name ──


class Broken(InmemTransport):
    """Does what the subclass does to everything that it serves or calls."""


class Pipe(AppendPipeline):
    """A pipeline around another one, to break it."""

    def __init__(self, inner):
        self.inner = inner

    def send(self, request):
        self.inner.send(request)

    def close(self):
        self.inner.close()


class StartsAThread(Broken):
    def __init__(self, network, address):
        super().__init__(network, address)
        self._end = threading.Event()
        threading.Thread(target=self._end.wait, daemon=True).start()

    def close(self):
        super().close()
        self._end.set()


class ForgetsExtensions(Broken):
    def call(self, peer, request, timeout):
        if isinstance(request, AppendEntriesRequest):
            entries = [Log(e.index, e.term, e.type, e.data, b"", e.appended_at) for e in request.entries]
            request = replace(request, entries=entries)
        return super().call(peer, request, timeout)


class ForgetsTheTransferFlag(Broken):
    def call(self, peer, request, timeout):
        if isinstance(request, RequestVoteRequest):
            request = replace(request, leadership_transfer=False)
        return super().call(peer, request, timeout)


class WeighsNothing(Broken):
    def serve(self, handler):
        def receive(rpc):
            handler.receive(IncomingRpc(rpc.request, rpc.respond, 0, lambda: rpc.abandoned))

        super().serve(SimpleNamespace(receive=receive))


class OneCallAtATime(Broken):
    def __init__(self, network, address):
        super().__init__(network, address)
        self._one = threading.Lock()

    def call(self, peer, request, timeout):
        with self._one:
            return super().call(peer, request, timeout)


class IgnoresTheDeadline(Broken):
    def call(self, peer, request, timeout):
        return super().call(peer, request, timeout + 30)


class GivesUpAtOnce(Broken):
    def call(self, peer, request, timeout):
        return super().call(peer, request, timeout / 10 if timeout < 1 else timeout)


class RaisesTimeoutError(Broken):
    def call(self, peer, request, timeout):
        try:
            return super().call(peer, request, timeout)
        except TransportError as error:
            if "no answer" in str(error):
                raise TimeoutError from error
            raise


class NeverSaysAbandoned(Broken):
    def serve(self, handler):
        def receive(rpc):
            handler.receive(IncomingRpc(rpc.request, rpc.respond, rpc.size_bytes))

        super().serve(SimpleNamespace(receive=receive))


class HidesTheReason(Broken):
    def call(self, peer, request, timeout):
        try:
            return super().call(peer, request, timeout)
        except TransportError as error:
            raise TransportError(f"{peer.address}: failed") from error


class DoesNotSayWho(Broken):
    def call(self, peer, request, timeout):
        try:
            return super().call(peer, request, timeout)
        except TransportError as error:
            raise TransportError(str(error).replace(peer.address, "it")) from error


class SwapsReplies(Broken):
    def pipeline(self, peer, on_reply, on_error):
        held = []

        def swapped(reply):
            held.append(reply)
            if len(held) == 2:
                on_reply(held.pop())
                on_reply(held.pop())

        return super().pipeline(peer, swapped, on_error)


class RepeatsReplies(Broken):
    def pipeline(self, peer, on_reply, on_error):
        return super().pipeline(peer, lambda reply: (on_reply(reply), on_reply(reply)), on_error)


class WaitsForEachReply(Broken):
    def pipeline(self, peer, on_reply, on_error):
        done = SimpleQueue()

        class Waiting(Pipe):
            def send(self, request):
                self.inner.send(request)
                done.get()

        return Waiting(super().pipeline(peer, lambda r: (on_reply(r), done.put(r)), on_error))


class SwallowsErrors(Broken):
    def pipeline(self, peer, on_reply, on_error):
        return super().pipeline(peer, on_reply, lambda error: None)


class ReportsErrorsTwice(Broken):
    def pipeline(self, peer, on_reply, on_error):
        return super().pipeline(peer, on_reply, lambda error: (on_error(error), on_error(error)))


class SendsAfterClose(Broken):
    def pipeline(self, peer, on_reply, on_error):
        class Silent(Pipe):
            def send(self, request):
                with suppress(TransportError):
                    self.inner.send(request)

        return Silent(super().pipeline(peer, on_reply, on_error))


class LeavesCallersWaiting(Broken):
    def close(self):
        self._open = {one for one in self._open if not hasattr(one, "answered")}
        super().close()


class ClosesOnlyOnce(Broken):
    def close(self):
        if self._closed:
            raise RuntimeError("already closed")
        super().close()


class CallsAfterClose(Broken):
    def call(self, peer, request, timeout):
        if self._closed:
            return RequestVoteResponse(RpcHeader(), 0)
        return super().call(peer, request, timeout)


class ForgetsForEver(Broken):
    def forget(self, peer):
        self.close()


class Rewrites(Broken):
    """Changes each request on its way through a pipeline."""

    def pipeline(self, peer, on_reply, on_error):
        rewrite = self.rewrite

        class Rewriting(Pipe):
            def send(self, request):
                self.inner.send(rewrite(request))

        return Rewriting(super().pipeline(peer, on_reply, on_error))


class LosesExtensionsOnPipelines(Rewrites):
    def rewrite(self, request):
        entries = [Log(e.index, e.term, e.type, e.data, b"", e.appended_at) for e in request.entries]
        return replace(request, entries=entries)


class LosesTheTimeOfAppending(Rewrites):
    def rewrite(self, request):
        entries = [Log(e.index, e.term, e.type, e.data, e.extensions) for e in request.entries]
        return replace(request, entries=entries)


class TakesNoEntriesForAHeartbeat(Rewrites):
    def rewrite(self, request):
        return request if request.entries else AppendEntriesRequest(request.header, request.term)


class CutsRequestsShort(Rewrites):
    def rewrite(self, request):
        return replace(request, entries=request.entries[:1000])


class RefusesLargeEntries(Broken):
    def call(self, peer, request, timeout):
        if any(len(e.data) > 1 << 20 for e in getattr(request, "entries", ())):
            raise TransportError("message larger than max")
        return super().call(peer, request, timeout)


class OvertakesOnAPipeline(Broken):
    def pipeline(self, peer, on_reply, on_error):
        held = []

        class Overtaking(Pipe):
            def send(self, request):
                held.append(request)
                if len(held) == 2:
                    self.inner.send(held.pop())
                    self.inner.send(held.pop())

        return Overtaking(super().pipeline(peer, on_reply, on_error))


class ForgetsWhoAsks(Broken):
    def call(self, peer, request, timeout):
        return super().call(peer, replace(request, header=RpcHeader()), timeout)


class GivesTheAnswerBefore(Broken):
    def call(self, peer, request, timeout):
        answer = super().call(peer, request, timeout)
        before, self.before = getattr(self, "before", answer), answer
        return before


class AnswersErrorsItself(Broken):
    def call(self, peer, request, timeout):
        try:
            return super().call(peer, request, timeout)
        except TransportError:
            return RequestVoteResponse(request.header, request.term, False)


class ServesAfterClose(Broken):
    def close(self):
        pass


class SendsOtherBytes(Broken):
    def install_snapshot(self, peer, request, source, timeout, is_over):
        turned = SimpleNamespace(read=lambda size=-1: source.read(size)[::-1])
        return super().install_snapshot(peer, request, turned, timeout, is_over)


class HidesWhyASnapshotWasRefused(Broken):
    def install_snapshot(self, peer, request, source, timeout, is_over):
        try:
            return super().install_snapshot(peer, request, source, timeout, is_over)
        except TransportError as error:
            raise TransportError(f"{peer.address}: failed") from error


class SaysASnapshotWasTaken(Broken):
    def install_snapshot(self, peer, request, source, timeout, is_over):
        return replace(super().install_snapshot(peer, request, source, timeout, is_over), success=True)


class AsksNeverWhetherItIsOver(Broken):
    def install_snapshot(self, peer, request, source, timeout, is_over):
        return super().install_snapshot(peer, request, source, timeout, lambda: False)


class LeavesAThread(Broken):
    def serve(self, handler):
        super().serve(handler)
        self._end = threading.Event()
        threading.Thread(target=self._end.wait, args=(30,), daemon=True).start()


BROKEN = {
    StartsAThread: checks.making_one_starts_no_thread,
    ForgetsExtensions: checks.every_message_arrives_as_it_was_sent,
    ForgetsTheTransferFlag: checks.every_message_arrives_as_it_was_sent,
    WeighsNothing: checks.size_bytes_weighs_the_entries,
    OneCallAtATime: checks.a_waiting_request_delays_no_other,
    IgnoresTheDeadline: checks.a_call_ends_at_its_deadline,
    GivesUpAtOnce: checks.a_call_ends_at_its_deadline,
    RaisesTimeoutError: checks.a_call_ends_at_its_deadline,
    NeverSaysAbandoned: checks.a_caller_that_gave_up_can_be_told,
    HidesTheReason: checks.an_error_answer_reaches_the_caller,
    DoesNotSayWho: checks.nobody_there_is_an_error_that_names_the_peer,
    SwapsReplies: checks.a_pipeline_keeps_the_order,
    RepeatsReplies: checks.a_pipeline_keeps_the_order,
    WaitsForEachReply: checks.a_pipeline_does_not_wait_for_answers,
    SwallowsErrors: checks.an_error_answer_ends_a_pipeline,
    ReportsErrorsTwice: checks.an_error_answer_ends_a_pipeline,
    SendsAfterClose: checks.an_error_answer_ends_a_pipeline,
    LeavesCallersWaiting: checks.close_wakes_callers,
    ClosesOnlyOnce: checks.a_closed_transport_says_so,
    CallsAfterClose: checks.a_closed_transport_says_so,
    ForgetsForEver: checks.a_forgotten_peer_can_be_called_again,
    LeavesAThread: checks.close_ends_every_thread,
    SendsOtherBytes: checks.a_snapshot_arrives_as_it_was_sent,
    HidesWhyASnapshotWasRefused: checks.a_snapshot_that_is_refused_says_why,
    SaysASnapshotWasTaken: checks.a_snapshot_may_be_answered_without_reading_it,
    AsksNeverWhetherItIsOver: checks.a_snapshot_that_is_over_ends_soon,
    LosesExtensionsOnPipelines: checks.a_pipeline_carries_every_field,
    LosesTheTimeOfAppending: checks.a_pipeline_carries_every_field,
    TakesNoEntriesForAHeartbeat: checks.a_pipeline_carries_every_field,
    CutsRequestsShort: checks.large_messages_pass,
    RefusesLargeEntries: checks.large_messages_pass,
    OvertakesOnAPipeline: checks.a_pipeline_keeps_the_order,
    ForgetsWhoAsks: checks.every_message_arrives_as_it_was_sent,
    GivesTheAnswerBefore: checks.everybody_gets_their_own_answer,
    AnswersErrorsItself: checks.an_error_answer_reaches_the_caller,
    ServesAfterClose: checks.nobody_there_is_an_error_that_names_the_peer,
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_transport_is_refused_with_the_promise_that_it_breaks(broken, monkeypatch):
    promise = BROKEN[broken]
    monkeypatch.setattr(checks, "_PATIENCE", 0.5)
    # What is broken may break earlier promises too: the question is whether this one notices.
    monkeypatch.setattr(checks, "PROMISES", (promise,))

    def pair():
        network = InmemNetwork()
        return broken(network, "a:1"), broken(network, "b:1")

    with pytest.raises(AssertionError) as refused:
        check_transport(pair)
    assert f"broken promise: {promise.__doc__}" in refused.value.__notes__


def test_every_promise_is_said_in_words():
    assert all(promise.__doc__ for promise in checks.PROMISES)
    assert len({promise.__doc__ for promise in checks.PROMISES}) == len(checks.PROMISES)


@pytest.mark.parametrize(
    ("make_pair", "text"),
    [
        (7, "make_pair=7 is not callable"),
        (lambda: 1 / 0, "cannot make transports: ZeroDivisionError"),
        (lambda: inmem_pair()[0], "is no pair of transports"),
        (lambda: (1, 2), "is no pair of transports"),
        (lambda: inmem_pair()[:1] * 2, "the same transport twice"),
    ],
)
def test_what_makes_no_pair_is_refused(make_pair, text):
    with pytest.raises(ConfigError, match=text):
        check_transport(make_pair)
