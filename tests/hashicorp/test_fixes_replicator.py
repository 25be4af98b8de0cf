"""Known defects of hashicorp/raft in how a leader replicates, and that they are not here.

Each test is named after the item of the list in README.md beside this file.
"""

import threading

import pytest

from pyraft import Config, ConfigError, LogNotFoundError, TransportError
from pyraft.configuration import Server
from pyraft.events import PeerMatched
from pyraft.futures import IndexFuture
from pyraft.log import Log, LogType
from pyraft.messages import AppendEntriesResponse, RpcHeader
from pyraft.node_log import NodeLog
from pyraft.replicator import Replicator
from pyraft.roles.base import RoleName
from pyraft.roles.leader import Leader
from pyraft.rules.timing import back_off
from pyraft.runtime import ThreadRuntime
from pyraft.sessions import Leadership, Session
from tests.logs import entries, indexes, stored
from tests.nodes import PATIENCE, eventually, server, voters

LEADER, FOLLOWER = RpcHeader("n1", "n1"), RpcHeader("n2", "n2")
NEVER = 3600.0
"""Seconds.  A test that needs such a timer to fire does not end in time."""


class Stream:
    """A pipeline of the peer's.  It answers at once, or when the test says so."""

    def __init__(self, peer, on_reply, on_error):
        self.peer, self.on_reply, self.on_error = peer, on_reply, on_error
        self.unanswered = []
        self.closed = False

    def send(self, request):
        self.peer.received.append(request)
        if self.peer.answers:
            self.on_reply(self.peer.accept(request))
        else:
            self.unanswered.append(request)

    def refuse(self):
        """As Go does when its disk fails: no, and look again later."""
        self.unanswered.pop(0)
        self.on_reply(AppendEntriesResponse(FOLLOWER, 1, self.peer.holds, False))

    def close(self):
        self.closed = True


class Peer:
    """A follower as the replicator's transport shows it."""

    def __init__(self, answers=True, holds=0):
        self.answers = answers
        self.holds = holds
        self.reachable = True
        self.calls = 0
        self.received = []
        self.streams = []

    def accept(self, request):
        fits = request.prev_log_entry <= self.holds
        if fits:
            self.holds = max(self.holds, request.prev_log_entry + len(request.entries))
        return AppendEntriesResponse(FOLLOWER, 1, self.holds, fits, not fits)

    def call(self, peer, request, timeout):
        self.calls += 1
        if not self.reachable:
            raise TransportError("nobody serves there")
        return self.accept(request)

    def pipeline(self, peer, on_reply, on_error):
        self.streams.append(Stream(self, on_reply, on_error))
        return self.streams[-1]


class Running:
    """A replicator on a thread of its own."""

    def __init__(self, peer, log, **settings):
        self.peer = peer
        config = Config(local_id="n1", commit_timeout=NEVER, **settings)
        self.runtime = ThreadRuntime()
        self.leadership = Leadership(1, 0, config)
        next_index = log.last.index + 1
        self.session = Session(Server("n2", "n2"), self.leadership, self.runtime.now(), next_index)
        self.facts = []
        self.replicator = Replicator(
            runtime=self.runtime,
            header=LEADER,
            log=log,
            transport=peer,
            session=self.session,
            to_main=self.facts.append,
            snapshots=None,
        )
        self.thread = threading.Thread(target=self.replicator.run)

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.session.end()
        self.replicator.stop()
        if self.thread.ident is not None:
            self.thread.join(PATIENCE)


@pytest.fixture
def running():
    made = []

    def run(*args, started=True, **settings):
        made.append(Running(*args, **settings))
        return made[-1].start() if started else made[-1]

    yield run
    for one in made:
        one.stop()


def log_of(count):
    return NodeLog(stored("1" * count))


def test_fix_D9_one_poke_is_enough_for_a_burst_of_any_length(running):
    """Go sends one batch for each poke, and the rest of a burst with one batch for each CommitTimeout."""
    log = log_of(1)
    peer = Peer(holds=1)
    run = running(peer, log, max_append_entries=64)
    eventually(lambda: run.session.state == "replicate", "it streams")

    burst = entries("1" * 5000, first=2)
    log.stage(burst)
    log.write_staged()
    run.replicator.poke()

    eventually(lambda: peer.holds == 5001, "all of it arrived")
    assert max(len(request.entries) for request in peer.received) == 64


@pytest.mark.parametrize("window", [1, 2, 16])
def test_fix_D10_a_refusal_in_the_middle_of_a_stream_is_recovered_from(running, window):
    """Go waits for ever for the answers behind the refused one, while heartbeats look healthy."""
    peer = Peer(answers=False)
    running(peer, log_of(500), max_append_entries=20, max_inflight_appends=window)
    eventually(lambda: peer.streams and len(peer.streams[0].unanswered) >= min(window, 2), "it streams")

    peer.answers = True  # and what is behind the refused request is never answered
    peer.streams[0].refuse()

    eventually(lambda: peer.holds == 500, "it got everything")
    assert peer.streams[0].closed


def test_fix_D10_closing_wakes_a_sender_whose_window_is_full(running):
    peer = Peer(answers=False)
    run = running(peer, log_of(500), max_append_entries=20, max_inflight_appends=1)
    eventually(lambda: peer.streams and peer.streams[0].unanswered, "the window is full")

    run.stop()

    assert not run.thread.is_alive()
    assert peer.streams[0].closed


@pytest.mark.parametrize("window", [1, 3])
def test_row_140_no_more_requests_are_on_their_way_than_the_window_allows(running, window):
    peer = Peer(answers=False)
    running(peer, log_of(500), max_append_entries=100, max_inflight_appends=window)
    for answered in range(5):
        eventually(lambda n=answered: len(peer.received) >= min(n + window, 5), "the next one is sent")
        [stream] = peer.streams
        assert len(stream.unanswered) <= window
        stream.on_reply(peer.accept(stream.unanswered.pop(0)))

    eventually(lambda: peer.holds == 500, "it got everything")


def test_fix_C18_a_stream_that_breaks_is_no_sign_of_life(running):
    peer = Peer(answers=False)
    run = running(peer, log_of(3))
    eventually(lambda: peer.streams and peer.streams[0].unanswered, "entries are on their way")
    contact, facts, calls = run.session.contact, len(run.facts), peer.calls

    peer.reachable = False
    peer.streams[0].on_error(TransportError("the connection broke"))

    eventually(lambda: peer.calls > calls, "it asks again")
    assert run.session.contact == contact
    assert len(run.facts) == facts


def test_fix_D5_the_back_off_never_outlasts_the_heartbeat_timeout():
    for failures in range(200):
        assert back_off(failures, 0.5) <= 0.5


def waiting_long(running):
    """A replicator that would wait for minutes before it asks its peer again."""
    peer = Peer()
    run = running(
        peer,
        log_of(3),
        started=False,
        heartbeat_timeout=NEVER,
        election_timeout=NEVER,
        leader_lease_timeout=NEVER,
    )
    run.replicator._failures = 100
    assert back_off(100, run.replicator._longest_back_off()) > PATIENCE
    return peer, run.start()


def test_fix_D5_the_end_of_a_session_ends_a_back_off(running):
    _, run = waiting_long(running)

    run.stop()

    assert not run.thread.is_alive()


@pytest.mark.parametrize("news", ["poke", "peer_is_reachable"])
def test_fix_D5_news_ends_a_back_off(running, news):
    peer, run = waiting_long(running)

    getattr(run.replicator, news)()

    eventually(lambda: peer.holds == 3, "it got everything")


@pytest.mark.parametrize("limit", [1, 2_000, 10_000])
def test_fix_D3_a_request_is_bounded_in_bytes(running, limit):
    log = log_of(0)
    logs = [Log(index, 1, data=b"x" * 1000) for index in range(1, 101)]
    log.stage(logs)
    log.write_staged()
    peer = Peer()

    running(peer, log, max_append_bytes=limit)

    eventually(lambda: peer.holds == 100, "it got everything")
    for request in peer.received:
        assert len(request.entries) <= 1 or sum(len(log.encoded) for log in request.entries) <= limit


def test_fix_D3_no_setting_allows_a_message_that_go_would_refuse():
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        Config(max_append_bytes=4 * 1024 * 1024)
    with pytest.raises(ConfigError, match="could never be replicated"):
        Config(max_command_bytes=4 * 1024 * 1024)


def test_fix_E10_a_leader_never_says_that_more_is_committed_than_its_request_proves(running):
    """A Go follower would commit leftovers of its own."""
    peer = Peer()
    run = running(peer, log_of(100), started=False, max_append_entries=7)
    run.leadership.commit_index = 100
    run.start()

    eventually(lambda: peer.holds == 100, "it got everything")
    for request in peer.received:
        assert request.leader_commit_index <= request.prev_log_entry + len(request.entries)


# -- sessions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["session", "leadership"])
def test_fix_D16_what_was_read_before_the_end_of_a_session_is_not_sent(running, ends):
    """Go reads the entry before and the entries at different times, and can send a mix of two logs."""
    run = running(Peer(), log_of(10), started=False)
    replicator = run.replicator
    replicator._next = 4
    assert indexes(replicator._build().entries) == list(range(4, 11))
    really = replicator._entries.read

    def read_late(first, last, max_bytes):
        if ends == "session":
            run.session.end()
        else:
            run.leadership.alive = False
        return really(first, last, max_bytes)

    replicator._entries.read = read_late

    assert replicator._build() is None


def test_fix_D16_term_and_commit_index_are_those_of_the_leadership(running):
    run = running(Peer(), log_of(10), started=False)
    run.leadership.commit_index = 6
    run.replicator._next = 11

    request = run.replicator._build()

    assert (request.term, request.leader_commit_index) == (1, 6)


def test_fix_D16_an_ended_session_asks_no_more(running):
    run = running(Peer(), log_of(3), started=False)
    run.session.end()

    run.start()

    run.thread.join(PATIENCE)
    assert not run.thread.is_alive()
    assert run.peer.calls == 0


def leading(drawn="1", term=2):
    """A leader without threads, just elected, with its no-op in the log."""
    node = server(drawn, term=term)
    node.spawn = lambda name, run: None
    node.snapshots = None
    leader = Leader(node)
    leader._begin()
    return node, leader


def matched(leader, id, index):
    leader._on_matched(PeerMatched(leader.session_of(id), index))


def test_fix_D13_answers_from_before_a_server_was_removed_do_not_count_when_it_is_back():
    """It may have come back with an empty disk: what it held once is gone."""
    node, leader = leading()
    matched(leader, "s3", 2)
    assert node.state.commit_index == 2
    former = leader.session_of("s2")
    leader.append_configuration(voters("s1", "s3"), IndexFuture(node.runtime))
    matched(leader, "s3", 3)
    assert leader.session_of("s2") is None
    leader.append_configuration(voters("s1", "s2", "s3"), IndexFuture(node.runtime))

    leader._on_matched(PeerMatched(former, 4))

    assert leader.session_of("s2") is not former
    assert leader.session_of("s2").match_index == 0
    assert node.state.commit_index == 3
    matched(leader, "s2", 4)
    assert node.state.commit_index == 4


def test_fix_D13_answers_of_an_earlier_leadership_do_not_count():
    node, leader = leading()
    former = leader.session_of("s2")
    leader._end()
    again = Leader(node)
    again._begin()

    again._on_matched(PeerMatched(former, 3))

    assert again.session_of("s2").match_index == 0
    assert node.state.commit_index == 0


def test_top_finding_10_a_leader_whose_disk_stalls_sends_nothing():
    """Go's goes on with heartbeats, so that nobody else can lead."""
    leadership = Leadership(1, 0, Config(local_id="n1"))
    session = Session(Server("n2", "n2"), leadership, 100.0, 1)
    assert session.may_send(100.0, patience=1.0)

    leadership.write_began_at = 100.0

    assert session.may_send(100.9, patience=1.0)
    assert not session.may_send(101.0, patience=1.0)
    leadership.write_began_at = None
    assert session.may_send(500.0, patience=1.0)


def test_top_finding_10_a_leader_whose_disk_stalled_steps_down_when_it_returns():
    node, leader = leading()
    really = node.state.log._store.store_logs

    def stall(logs):
        node.runtime.at += node.config.election_timeout
        really(logs)

    node.state.log._store.store_logs = stall

    transition = leader._append([leader._own_entry(LogType.NOOP, b"")], [None])

    assert transition.role is RoleName.FOLLOWER


def test_keep_D2_a_hole_in_the_log_leads_to_a_snapshot_and_never_to_a_crash(running):
    run = running(Peer(), log_of(10), started=False)
    run.replicator._next = 4

    def gone(first, last, max_bytes):
        raise LogNotFoundError(first)

    run.replicator._entries.read = gone

    assert run.replicator._build() is None
    assert run.replicator._needs_snapshot
