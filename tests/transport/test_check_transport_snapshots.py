"""Transports that break a promise about snapshots are found, by name."""

import importlib
import threading
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pyraft.configuration import Configuration
from pyraft.errors import TransportError, UnsupportedProtocolError
from pyraft.testing.check_transport import check_transport
from pyraft.transport import InmemNetwork, InmemTransport, Transport

# By its full name: the package may export the function under the same one.
checks = importlib.import_module("pyraft.testing.check_transport")


class Changed:
    """A source around another one."""

    def __init__(self, inner, change=lambda data: data):
        self.inner = inner
        self.change = change

    def read(self, size):
        return self.change(self.inner.read(size))


class ReceivesOtherwise(InmemTransport):
    """Its handler is asked by ``receive_snapshot(ask, request, source)``."""

    def serve(self, handler):
        def receive_snapshot(request, source):
            return self.receive_snapshot(handler.receive_snapshot, request, source)

        super().serve(SimpleNamespace(receive=handler.receive, receive_snapshot=receive_snapshot))


class ForgetsWhoWasThere(InmemTransport):
    def install_snapshot(self, peer, request, *rest):
        return super().install_snapshot(peer, replace(request, configuration=Configuration()), *rest)


class TurnsABit(InmemTransport):
    def install_snapshot(self, peer, request, source, *rest):
        changed = Changed(source, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        return super().install_snapshot(peer, request, changed, *rest)


class TurnsEveryPieceAround(ReceivesOtherwise):
    def receive_snapshot(self, ask, request, source):
        return ask(request, Changed(source, lambda data: data[::-1]))


class AlwaysSucceeds(ReceivesOtherwise):
    def receive_snapshot(self, ask, request, source):
        return replace(ask(request, source), success=True, term=7)


class HidesTheReason(ReceivesOtherwise):
    def receive_snapshot(self, ask, request, source):
        answer = None
        with suppress(Exception):
            answer = ask(request, source)
        return TransportError("no") if answer is None or isinstance(answer, Exception) else answer


class AnswersWhenAllHasCome(ReceivesOtherwise):
    def receive_snapshot(self, ask, request, source):
        answer = ask(request, source)
        with suppress(TransportError):
            while source.read(10**6):
                pass
        return answer


class FillsUpWhatIsShort(InmemTransport):
    def install_snapshot(self, peer, request, source, *rest):
        filled = bytearray()

        def read(size):
            with suppress(OSError):
                data = source.read(size)
                if data:
                    return data
            filled.extend(bytes(size))
            return bytes(size)

        return super().install_snapshot(peer, request, SimpleNamespace(read=read), *rest)


class TakesABreakForTheEnd(ReceivesOtherwise):
    def receive_snapshot(self, ask, request, source):
        def read(size):
            try:
                return source.read(size)
            except TransportError:
                return b""

        return ask(request, SimpleNamespace(read=read))


class KeepsItAllInMemory(ReceivesOtherwise):
    def receive_snapshot(self, ask, request, source):
        read = 0
        while read < min(request.size, 70 * 2**20):
            read += len(source.read(10**6))
        return ask(request, source)


class WaitsForEver(InmemTransport):
    def install_snapshot(self, peer, request, source, timeout, is_over):
        return super().install_snapshot(peer, request, source, timeout * 1000, is_over)


class OneThingAtATime(InmemTransport):
    def __init__(self, network, address):
        super().__init__(network, address)
        self._one = threading.Lock()

    def call(self, *arguments):
        with self._one:
            return super().call(*arguments)

    def install_snapshot(self, *arguments):
        with self._one:
            return super().install_snapshot(*arguments)


class NeverAsksWhetherItIsOver(InmemTransport):
    def install_snapshot(self, peer, request, source, timeout, is_over):
        return super().install_snapshot(peer, request, source, timeout, lambda: False)


class LeavesSnapshotsAlone(InmemTransport):
    def close(self):
        self._open = {one for one in self._open if "Snapshot" not in type(one).__name__}
        super().close()


BROKEN = {
    ForgetsWhoWasThere: checks.a_snapshot_arrives_as_it_was_sent,
    TurnsABit: checks.a_snapshot_arrives_as_it_was_sent,
    TurnsEveryPieceAround: checks.a_snapshot_arrives_as_it_was_sent,
    AlwaysSucceeds: checks.a_snapshot_may_be_answered_without_reading_it,
    HidesTheReason: checks.a_snapshot_that_is_refused_says_why,
    AnswersWhenAllHasCome: checks.a_snapshot_may_be_answered_without_reading_it,
    FillsUpWhatIsShort: checks.a_broken_source_is_no_snapshot,
    TakesABreakForTheEnd: checks.a_broken_source_is_no_snapshot,
    KeepsItAllInMemory: checks.a_peer_that_reads_nothing_holds_a_snapshot_back,
    WaitsForEver: checks.a_peer_that_reads_nothing_holds_a_snapshot_back,
    OneThingAtATime: checks.a_snapshot_delays_no_other,
    NeverAsksWhetherItIsOver: checks.a_snapshot_that_is_over_ends_soon,
    LeavesSnapshotsAlone: checks.close_ends_snapshots,
}


@pytest.fixture
def pair():
    """Makes pairs of transports of a kind, and closes them for good."""
    made = []

    def make(kind):
        network = InmemNetwork()
        made.extend((kind(network, "a:1"), kind(network, "b:1")))
        return made[-2], made[-1]

    yield make
    for transport in made:
        for stream in list(transport._open):
            stream.fail("the test is over")


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_transport_is_refused_with_the_promise_that_it_breaks(broken, monkeypatch, pair):
    promise = BROKEN[broken]
    monkeypatch.setattr(checks, "_PATIENCE", 0.5)
    monkeypatch.setattr(checks, "PROMISES", (promise,))
    with pytest.raises(AssertionError) as refused:
        check_transport(lambda: pair(broken))
    assert f"broken promise: {promise.__doc__}" in refused.value.__notes__


def test_a_transport_that_goes_on_for_ever_does_not_after_the_check(monkeypatch, pair):
    ended = threading.Event()

    class EndlessUnlessStopped(LeavesSnapshotsAlone):
        def install_snapshot(self, *arguments):
            try:
                return super().install_snapshot(*arguments)
            finally:
                ended.set()

    monkeypatch.setattr(checks, "_PATIENCE", 0.5)
    monkeypatch.setattr(checks, "PROMISES", (checks.close_ends_snapshots,))
    with pytest.raises(AssertionError):
        check_transport(lambda: pair(EndlessUnlessStopped))
    assert ended.wait(20)


def test_a_transport_of_a_time_before_snapshots_is_as_good_as_ever(monkeypatch, pair):
    class Older(InmemTransport):
        install_snapshot = Transport.install_snapshot

    monkeypatch.setattr(checks, "PROMISES", checks.SNAPSHOT_PROMISES)
    check_transport(lambda: pair(Older))
    with pytest.raises(UnsupportedProtocolError, match="Older cannot send snapshots"):
        pair(Older)[0].install_snapshot(None, None, None, 1.0, lambda: False)


def test_every_promise_about_snapshots_is_seen_to_be_broken():
    assert set(BROKEN.values()) | {checks.closing_the_sender_ends_snapshots} == set(checks.SNAPSHOT_PROMISES)
