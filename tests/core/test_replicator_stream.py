"""When a stream of entries is given up, and when it is not."""

import threading

import pytest

from pyraft.config import Config
from pyraft.configuration import Server
from pyraft.errors import TransportError
from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore
from pyraft.messages import AppendEntriesResponse, RpcHeader
from pyraft.node_log import NodeLog
from pyraft.replicator import Replicator
from pyraft.runtime import ThreadRuntime
from pyraft.sessions import Leadership, Session
from tests.logs import entries, node_log
from tests.nodes import PATIENCE, ClockRuntime, eventually

LEADER, FOLLOWER = RpcHeader("n1", "n1.test:1"), RpcHeader("n2", "n2.test:1")


class Pipeline:
    def __init__(self, refuses, on_reply, on_error):
        self.refuses, self.on_reply, self.on_error = refuses, on_reply, on_error
        self.sent = []
        self.closed = False

    def send(self, request):
        if self.refuses:
            raise TransportError("too large")
        self.sent.append(request)

    def close(self):
        self.closed = True

    def answer(self):
        request = self.sent[-1]
        last = request.prev_log_entry + len(request.entries)
        self.on_reply(AppendEntriesResponse(FOLLOWER, 1, last, True))


class Peer:
    """Accepts every probe; streams are answered by the test, or refuse to carry anything."""

    def __init__(self, refuses=False):
        self.refuses = refuses
        self.pipelines = []
        self.probes = 0
        self.asked = []

    def call(self, peer, request, timeout):
        self.probes += 1
        self.asked.append(request.prev_log_entry)
        return AppendEntriesResponse(FOLLOWER, 1, 0, request.prev_log_entry == 0, True)

    def pipeline(self, peer, on_reply, on_error):
        self.pipelines.append(Pipeline(self.refuses, on_reply, on_error))
        return self.pipelines[-1]


@pytest.fixture
def start():
    running = []

    def start(peer):
        runtime = ThreadRuntime()
        session = Session(
            Server("n2", "n2.test:1"), Leadership(1, 0, Config(local_id="n1")), runtime.now(), 4
        )
        facts = []
        replicator = Replicator(
            runtime=runtime,
            header=LEADER,
            log=node_log("111"),
            transport=peer,
            session=session,
            to_main=facts.append,
            snapshots=None,
        )
        thread = threading.Thread(target=replicator.run)
        thread.start()
        running.append((session, replicator, thread))
        return replicator, facts

    yield start
    for session, replicator, thread in running:
        session.end()
        replicator.stop()
        thread.join(PATIENCE)


def test_a_heartbeat_that_returns_does_not_end_a_stream_that_owes_an_answer(start):
    peer = Peer()
    replicator, facts = start(peer)
    eventually(lambda: peer.pipelines and peer.pipelines[0].sent, "the entries are on their way")
    stream = peer.pipelines[0]

    replicator.peer_is_reachable()
    stream.answer()  # stands behind it in the inbox, so both were looked at once this one was

    eventually(lambda: not replicator._in_flight, "the answer was looked at")
    assert (len(peer.pipelines), stream.closed) == (1, False)
    assert facts[-1].index == 3


def test_a_heartbeat_that_returns_makes_an_idle_stream_ask_again_what_the_peer_holds(start):
    peer = Peer()
    replicator, _ = start(peer)
    eventually(lambda: peer.pipelines and peer.pipelines[0].sent, "the entries are on their way")
    peer.pipelines[0].answer()
    eventually(lambda: not replicator._in_flight, "the answer was looked at")
    probes = peer.probes

    replicator.peer_is_reachable()

    eventually(lambda: peer.probes > probes, "it probes")
    assert peer.pipelines[0].closed


def test_an_accepted_probe_does_not_excuse_a_batch_that_never_gets_through(start):
    peer = Peer(refuses=True)
    replicator, _ = start(peer)

    eventually(lambda: replicator._failures >= 4, "the back-off grows")


class SlowToRead(InmemStore):
    """Each reading takes some seconds of the test's clock."""

    def __init__(self, runtime, seconds, entries):
        super().__init__()
        self._runtime, self._seconds = runtime, seconds
        self.store_logs(entries)

    def get_logs(self, first, last, max_bytes):
        self._runtime.at += self._seconds
        return super().get_logs(first, last, max_bytes)


def far_behind(seconds, entries):
    """A replicator that streams to a peer without any log; the test is its thread."""
    runtime, peer = ClockRuntime(), Peer()
    leadership = Leadership(1, 0, Config(local_id="n1"))
    session = Session(Server("n2", "n2.test:1"), leadership, runtime.now(), 1)
    replicator = Replicator(
        runtime=runtime,
        header=LEADER,
        log=NodeLog(SlowToRead(runtime, seconds, entries)),
        transport=peer,
        session=session,
        to_main=lambda event: None,
        snapshots=None,
    )
    assert replicator._open_stream()
    return runtime, replicator, peer.pipelines[0].sent


def test_a_peer_that_is_far_behind_leaves_the_interpreter_free_between_small_requests():
    runtime, replicator, sent = far_behind(0.001, entries("1" * 2000))

    for count in (1, 2, 3, 4):
        wake_at = replicator._send_what_is_due()
        assert [len(request.entries) for request in sent] == [512, 512, 512, 464][:count]
        if count < 4:
            assert wake_at == pytest.approx(runtime.at + 0.002)
            assert replicator._send_what_is_due() == wake_at  # news in between changes nothing
        runtime.at = wake_at


def test_a_slow_disk_does_not_make_a_peer_that_is_far_behind_wait_longer_still():
    runtime, replicator, sent = far_behind(3.0, entries("1" * 600))

    assert replicator._send_what_is_due() == pytest.approx(runtime.at + 0.02)
    assert len(sent) == 1


def test_a_request_from_the_store_is_bounded_in_bytes():
    large = [Log(index, 1, LogType.COMMAND, bytes(100_000)) for index in range(1, 20)]
    _, replicator, sent = far_behind(0.001, large)

    replicator._send_what_is_due()

    assert len(sent[0].entries) in (2, 3)


def test_beside_commands_a_peer_that_is_far_behind_gets_less_at_once_and_rarer():
    runtime, replicator, sent = far_behind(0.001, entries("1" * 2000))
    append(replicator, 10)

    wake_at = replicator._send_what_is_due()

    assert [len(request.entries) for request in sent] == [160]
    assert wake_at == pytest.approx(runtime.at + 0.008)
    runtime.at += 1.0  # no further command
    wake_at = replicator._send_what_is_due()
    assert [len(request.entries) for request in sent] == [160, 512]
    assert wake_at == pytest.approx(runtime.at + 0.002)


def test_the_end_of_the_log_does_not_run_away_from_a_peer_that_is_far_behind():
    runtime, replicator, _sent = far_behind(0.001, entries("1" * 20_000))
    missing = [20_000]

    for _ in range(20):
        append(replicator, 100)  # in the time of one piece and its rest
        runtime.at = replicator._send_what_is_due()
        missing.append(replicator._entries.last.index - replicator._next + 1)

    assert missing[-1] < missing[0] - 20 * 100


def test_nor_does_it_where_commands_are_large_and_few_of_them_fit_into_a_request():
    large = [Log(index, 1, LogType.COMMAND, bytes(10_000)) for index in range(1, 601)]
    runtime, replicator, sent = far_behind(0.001, large)
    began = runtime.at

    for _ in range(8):
        log = replicator._entries
        log.stage([Log(log.last.index + 1 + n, 1, LogType.COMMAND, bytes(10_000)) for n in range(16)])
        log.write_staged()
        log._recent = ()  # as they are once more have come
        runtime.at = replicator._send_what_is_due()

    assert {len(request.entries) for request in sent} == {26}
    assert runtime.at - began < 8 * 0.004  # without the long rests


def append(replicator, count):
    log = replicator._entries
    log.stage(entries("1" * count, first=log.last.index + 1))
    log.write_staged()


def test_what_is_in_memory_is_sent_without_a_pause():
    _, replicator, sent = far_behind(0.001, entries("1"))
    replicator._next = 2
    for first in (2, 2002):
        replicator._entries.stage(entries("1" * 2000, first=first))
        replicator._entries.write_staged()
        replicator._send_what_is_due()

    assert [len(request.entries) for request in sent] == [2000, 2000]


# ── entries that the main thread sends itself ──


class Watched(Pipeline):
    """Knows which thread sent, and can be told to keep it there."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.senders = []
        self.inside, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def send(self, request):
        super().send(request)
        self.senders.append(threading.get_ident())
        self.inside.set()
        assert self.gate.wait(PATIENCE)


class WatchedPeer(Peer):
    def pipeline(self, peer, on_reply, on_error):
        self.pipelines.append(Watched(self.refuses, on_reply, on_error))
        return self.pipelines[-1]


def stage(replicator, *data):
    """What the leader does with new commands, up to its own write."""
    log = replicator._entries
    before = log.last
    logs = [Log(before.index + 1 + number, 1, data=each) for number, each in enumerate(data)]
    size = log.stage(logs)
    later = replicator.offer(logs, size, before, replicator._runtime.now())
    log.write_staged()
    return later


@pytest.fixture
def parked(start):
    """A replicator whose peer has everything, and its stream."""
    peer = WatchedPeer()
    replicator, facts = start(peer)
    eventually(lambda: peer.pipelines and peer.pipelines[0].sent, "the entries are on their way")
    stream = peer.pipelines[0]
    stream.answer()
    eventually(lambda: not replicator._in_flight and replicator._turn, "the thread waits again")
    return replicator, stream, facts


def indexes(stream):
    return [[log.index for log in request.entries] for request in stream.sent]


def test_a_command_on_its_own_is_sent_by_the_thread_that_brings_it(parked):
    replicator, stream, _ = parked

    stage(replicator, b"x")

    assert indexes(stream)[-1] == [4]
    assert (stream.sent[-1].prev_log_entry, stream.sent[-1].prev_log_term) == (3, 1)
    assert stream.senders[-1] == threading.get_ident()


def test_a_command_behind_one_that_is_on_its_way_is_left_to_the_replicator(parked):
    replicator, stream, _ = parked
    stage(replicator, b"x")
    sent = len(stream.sent)

    stage(replicator, b"y", b"z")

    eventually(lambda: len(stream.sent) > sent, "the next ones are sent")
    assert indexes(stream)[-1] == [5, 6]
    assert stream.senders[-1] != threading.get_ident()


@pytest.mark.parametrize("data", [[b"x"] * 64, [b"x" * 40_000]], ids=["many", "large"])
def test_much_at_once_is_left_to_the_replicator(parked, data):
    replicator, stream, _ = parked
    sent = len(stream.sent)

    stage(replicator, *data)

    eventually(lambda: len(stream.sent) > sent, "they are sent")
    assert stream.senders[-1] != threading.get_ident()


def test_what_is_offered_while_the_replicator_works_is_sent_by_it_afterwards(parked):
    replicator, stream, _ = parked
    stream.gate.clear()
    stream.inside.clear()
    stage(replicator, *[b"x"] * 64)
    assert stream.inside.wait(PATIENCE)
    sent = len(stream.sent)

    stage(replicator, b"y")  # would wait at the gate for ever if it were sent here
    assert len(stream.sent) == sent
    stream.gate.set()
    stream.answer()

    eventually(lambda: indexes(stream)[-1] == [68], "it is sent after them")


def test_a_replicator_that_wakes_while_the_main_thread_sends_waits_for_its_turn(parked):
    replicator, stream, _ = parked
    stream.gate.clear()
    stream.inside.clear()
    main = threading.Thread(target=stage, args=(replicator, b"x"))
    main.start()
    assert stream.inside.wait(PATIENCE)
    sent = len(stream.sent)

    replicator._entries.stage([Log(5, 1, data=b"y")])
    replicator.poke()
    stream.answer()
    eventually(lambda: replicator._is_turn_wanted, "it is awake")
    assert len(stream.sent) == sent
    stream.gate.set()

    eventually(lambda: indexes(stream)[-1] == [5], "it goes on once it has its turn")
    main.join(PATIENCE)
    assert indexes(stream)[-2] == [4]


def test_an_answer_that_leaves_nothing_to_do_waits_for_whoever_looks_next(parked):
    replicator, stream, facts = parked
    for index in range(4, 40):
        stage(replicator, b"x")
        stream.answer()
        assert facts[-1].index == index  # the leader knows at once
    eventually(lambda: not replicator._in_flight, "the thread has looked")

    senders = stream.senders[-36:]
    assert senders.count(threading.get_ident()) > 30  # the thread may have been awake now and then


def test_the_peer_hears_of_a_commit_although_nothing_woke_the_replicator(parked):
    replicator, stream, _ = parked
    stage(replicator, b"x")
    stream.answer()
    replicator._session.leadership.commit_index = 4

    eventually(lambda: stream.sent[-1].leader_commit_index == 4, "the news of the commit")
    assert not stream.sent[-1].entries


def test_after_a_long_silence_the_replicator_is_to_be_poked_when_the_write_is_done(parked):
    """Or else nobody would look for the answer before its long wait is over."""
    replicator, stream, _ = parked
    replicator._session.leadership.commit_index = 3
    eventually(lambda: stream.sent[-1].leader_commit_index == 3, "the news of the commit")
    stream.answer()
    eventually(
        lambda: replicator._turn and replicator._wakes_at > replicator._runtime.now() + 0.5,
        "it waits for long",
    )

    assert stage(replicator, b"x")


def test_a_refused_command_is_looked_at_at_once(parked):
    replicator, stream, _ = parked
    stage(replicator, b"x")

    stream.on_reply(AppendEntriesResponse(FOLLOWER, 1, 0, False, True))

    eventually(lambda: stream.closed, "it goes back to probing")


def test_a_stream_that_breaks_under_the_main_threads_hands_is_given_up_by_the_replicator(parked):
    replicator, stream, _ = parked
    stream.refuses = True

    stage(replicator, b"x")

    eventually(lambda: stream.closed, "the stream is given up")
    eventually(lambda: replicator._failures or replicator._transport.probes > 1, "it probes")


def test_a_tick_that_finds_the_stream_broken_does_not_end_the_thread(parked):
    replicator, stream, _ = parked
    stream.refuses = True
    replicator._session.leadership.commit_index = 3

    eventually(lambda: stream.closed, "the tick finds it broken")
    eventually(lambda: len(replicator._transport.pipelines) > 1, "a new stream is opened")


def test_an_answer_that_came_before_the_stream_broke_counts(parked):
    replicator, stream, _ = parked
    peer = replicator._transport
    del peer.asked[:]
    stage(replicator, b"x")
    stream.answer()
    stream.on_error(TransportError("the peer has gone"))

    eventually(lambda: peer.asked, "it probes")
    assert peer.asked[0] == 4


def test_a_command_does_not_overtake_the_news_that_the_peer_is_back(parked):
    """On the old stream it might wait for ever; the news has been put, and the thread has not taken it."""
    replicator, stream, _ = parked
    replicator._inbox.put = lambda event: None
    sent = len(stream.sent)
    replicator.peer_is_reachable()

    stage(replicator, b"x")

    assert len(stream.sent) == sent
    del replicator._inbox.put
    replicator.peer_is_reachable()
    eventually(lambda: len(replicator._transport.pipelines) > 1, "a new stream is opened")
