"""When a stream of entries is given up, and when it is not."""

import threading

import pytest

from pyraft.config import Config
from pyraft.configuration import Server
from pyraft.errors import TransportError
from pyraft.messages import AppendEntriesResponse, RpcHeader
from pyraft.replicator import Replicator
from pyraft.runtime import ThreadRuntime
from pyraft.sessions import Leadership, Session
from tests.logs import node_log
from tests.nodes import PATIENCE, eventually

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

    def call(self, peer, request, timeout):
        self.probes += 1
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
