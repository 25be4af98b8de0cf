"""How a server ends: every future resolved, no thread left, whatever it was doing.

The interleavings that lose a hand-over between two threads are forced here, by stopping
one of them at the very place, and not hoped for.
"""

import concurrent.futures
import dataclasses
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from pyraft import (
    Configuration,
    FSMFailedError,
    FSMSnapshot,
    LeadershipLostError,
    Log,
    LogType,
    NodeFailedError,
    NotLeaderError,
    Raft,
    RaftError,
    RaftShutdownError,
    RaftState,
    Server,
    ShutdownTimeoutError,
    TransportError,
)
from pyraft.fsm_runner import FsmRunner
from pyraft.futures import ApplyFuture, RaftFuture
from pyraft.logstore import InmemStore
from pyraft.node_log import NodeLog
from pyraft.notifier import Notifier
from pyraft.proposals import ProposalQueue
from pyraft.runtime import NotifyChannel, ThreadInbox, ThreadRuntime
from pyraft.snapshots import DiscardSnapshotStore, InmemSnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport
from pyraft.waiting import Waiters
from tests.integration.clusters import (
    ALONE,
    PATIENCE,
    Cluster,
    Gated,
    Recorder,
    alone,
    config,
    eventually,
    leaves_no_thread,
    pyraft_threads,
)
from tests.interrupting import interrupted_at_each_line


def parts(transport=None, fsm=None, **changes):
    """What a single server that knows no cluster yet is made of."""
    store = InmemStore()
    transport = transport or InmemTransport(InmemNetwork(), "n1.test:1")
    settings = dataclasses.replace(config(ALONE, **changes), local_id="n1")
    return settings, fsm or Recorder(), store, store, DiscardSnapshotStore(), transport


def error_of(future):
    return future.exception(timeout=PATIENCE)


# -- every pending future resolves, at every stage -------------------------------------------------


def test_shutdown_resolves_what_the_fsm_has_what_the_log_has_and_what_still_waits():
    """One command is in FSM.apply, some are queued behind it, the rest is not in the log yet."""
    fsm = Gated()
    with leaves_no_thread():
        raft = alone(fsm, max_uncommitted_entries=8, max_append_entries=4)
        futures = [raft.apply(b"%d" % n) for n in range(30)] + [raft.barrier()]
        fsm.inside.wait(PATIENCE)
        eventually(lambda: raft.commit_index > 4, "some more are committed")

        stopped = raft.shutdown()
        # Those that are in no log are told so before the FSM returns.
        assert error_of(futures[-1]).outcome_unknown is False
        eventually(lambda: raft._node.context.fsm.stopping, "the end has come to the FSM's thread")
        fsm.gate.set()
        stopped.result(timeout=PATIENCE)

        assert all(future.done() for future in futures)
        assert futures[0].result() == 1  # apply() was let finish, and its caller told
        assert fsm.applied == [b"0"]
        errors = [future.exception() for future in futures[1:]]
        assert {type(error) for error in errors} == {RaftShutdownError}
        unknown = [error.outcome_unknown for error in errors]
        assert True in unknown
        assert False in unknown
        assert unknown == sorted(unknown, reverse=True), (
            "in order: first what is in the log, then what is not"
        )


def test_shutdown_resolves_what_is_in_flight_on_a_leader_without_a_quorum():
    with leaves_no_thread(), Cluster(settings=config(1.0)) as cluster:
        leader = cluster.start().leader()
        cluster.write()
        cluster.lose_entries()  # heartbeats go through, so it goes on leading
        futures = [leader.raft.apply(b"%d" % n) for n in range(10)] + [leader.raft.barrier()]
        eventually(lambda: leader.raft.last_index - leader.raft.commit_index == 11, "all are in flight")

        leader.raft.shutdown().result(timeout=PATIENCE)

        for future in futures:
            error = future.exception(timeout=0)
            assert type(error) is LeadershipLostError
            assert "may still be applied" in str(error)
            assert future.index > 0


def test_shutdown_resolves_a_bootstrap_that_nobody_has_looked_at_yet():
    """The main thread is held up while the request arrives; it finds the order to stop first."""
    raft = Raft(*parts())
    held, go_on = threading.Event(), threading.Event()
    take = raft._node.context.take

    def hold(deadline):
        held.set()
        go_on.wait(PATIENCE)
        return take(deadline)

    raft._node.context.take = hold
    with leaves_no_thread():
        raft.start()
        assert held.wait(PATIENCE)
        stopped = raft.shutdown()
        future = raft.bootstrap_cluster(Configuration((Server("n1", "n1.test:1"),)))
        go_on.set()
        stopped.result(timeout=PATIENCE)
        error = future.exception(timeout=0)
    assert type(error) is RaftShutdownError
    assert error.outcome_unknown is False


def test_shutdown_resolves_what_the_notify_thread_still_has_to_tell():
    """A callback keeps the notify thread busy while refusals pile up behind it."""
    busy, go_on = threading.Event(), threading.Event()
    raft = Raft(*parts())
    with leaves_no_thread():
        raft.start()

        def block(_):
            busy.set()
            go_on.wait(PATIENCE)

        nobody = Configuration((Server("n2", "n2.test:1"),))
        raft.bootstrap_cluster(nobody).add_done_callback(block)
        assert busy.wait(PATIENCE)
        futures = [raft.bootstrap_cluster(nobody) for _ in range(5)]
        stopped = raft.shutdown()
        eventually(lambda: raft.state is RaftState.SHUTDOWN, "it is on its way down")
        assert not any(future.done() for future in futures)
        go_on.set()
        stopped.result(timeout=PATIENCE)
        assert all(future.done() for future in futures)


def test_every_future_is_done_before_the_shutdown_is(tmp_path):
    with leaves_no_thread(), Cluster(root=tmp_path) as cluster:
        leader = cluster.start().leader()
        futures = [leader.raft.apply(b"%d" % n) for n in range(500)]
        done_before = []
        leader.raft.shutdown().add_done_callback(
            lambda _: done_before.extend(future.done() for future in futures)
        )
        eventually(lambda: done_before, "it is down")
        assert all(done_before)


# -- shutdown in every state -----------------------------------------------------------------------


def test_shutdown_before_start_frees_what_was_opened_and_wakes_who_waits(tmp_path):
    network = InmemNetwork()

    def open_it():
        return Raft.open(
            str(tmp_path),
            id="n1",
            fsm=Recorder(),
            bootstrap={"n1": "n1.test:1"},
            transport=InmemTransport(network, "n1.test:1"),
            config=config(ALONE),
        )

    raft = open_it()
    with leaves_no_thread():
        waiting = concurrent.futures.ThreadPoolExecutor(1)
        waits = waiting.submit(raft.wait_stopped, PATIENCE)
        eventually(lambda: raft._node._stop_waiters.signals, "somebody waits")
        assert raft.shutdown() is raft.shutdown()
        raft.shutdown().result(timeout=PATIENCE)
        assert waits.result(timeout=PATIENCE) is True
        waiting.shutdown()
    assert raft.state is RaftState.SHUTDOWN
    open_it().shutdown().result(timeout=PATIENCE)


def test_shutdown_is_idempotent_also_after_a_with_block():
    with Raft(*parts()) as raft:
        first = raft.shutdown()
        assert raft.shutdown() is first
    assert first.done()
    raft.shutdown().result(timeout=0)
    assert raft.wait_stopped(timeout=0)
    assert raft.failure is None


@pytest.mark.parametrize("started", [True, False], ids=["running", "not started"])
def test_many_threads_may_shut_it_down_at_once(started):
    with leaves_no_thread():
        raft = Raft(*parts())
        if started:
            raft.start()
        together = threading.Barrier(8)

        def shut_down():
            together.wait()
            raft.shutdown().result(timeout=PATIENCE)
            return raft.wait_stopped(timeout=0)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(future.result(PATIENCE) for future in [pool.submit(shut_down) for _ in range(8)])


def test_start_and_shutdown_at_the_same_time_leave_nothing():
    for _ in range(20):
        with leaves_no_thread():
            raft = Raft(*parts())
            together = threading.Barrier(2)

            def start(raft=raft, together=together):
                together.wait()
                try:
                    raft.start()
                except (RaftShutdownError, TransportError):
                    pass

            starter = threading.Thread(target=start)
            starter.start()
            together.wait()
            raft.shutdown().result(timeout=PATIENCE)
            starter.join(PATIENCE)
            raft.shutdown().result(timeout=PATIENCE)
            assert raft.state is RaftState.SHUTDOWN


def test_shutdown_while_elections_run():
    """All votes are lost, so candidates ask on for ever, on threads of their own."""
    for pause in (0.0, 0.02, 0.05, 0.1):
        with leaves_no_thread(), Cluster(settings=config(0.03)) as cluster:
            cluster.network.drop(when=lambda message: "Vote" in type(message).__name__)
            cluster.start()
            eventually(
                lambda cluster=cluster: all(
                    m.raft.state is RaftState.CANDIDATE for m in cluster.members.values()
                ),
                "all stand",
            )
            threading.Event().wait(pause)  # somewhere within a round


def test_shutdown_of_a_whole_cluster_under_load(tmp_path):
    with leaves_no_thread(), Cluster(root=tmp_path) as cluster:
        leader = cluster.start().leader()
        futures = []
        over = threading.Event()

        def client():
            while not over.is_set():
                futures.append(leader.raft.apply(b"x", timeout=0.1))
                if len(futures) % 200 == 0:
                    futures[-1].exception(timeout=PATIENCE)

        clients = [threading.Thread(target=client) for _ in range(3)]
        for one in clients:
            one.start()
        eventually(lambda: leader.raft.commit_index > 50, "it is under load")
        cluster.stop("n1", "n2", "n3")
        over.set()
        for one in clients:
            one.join(PATIENCE)
        assert len(futures) > 50
        assert all(future.done() for future in futures)


def test_a_server_that_cannot_serve_does_not_start_and_leaves_nothing():
    class Broken(InmemTransport):
        def serve(self, handler):
            raise TransportError("the address is gone: choose another")

    with leaves_no_thread():
        raft = Raft(*parts(Broken(InmemNetwork(), "n1.test:1")))
        with pytest.raises(TransportError, match="choose another"):
            raft.start()
        assert raft.wait_stopped(timeout=PATIENCE)
        raft.shutdown().result(timeout=PATIENCE)


# -- user code that does not return ------------------------------------------------------------------


def test_an_fsm_that_never_returns_fails_the_shutdown_and_names_thread_and_place():
    fsm = Gated()
    raft = alone(fsm)
    stuck, queued, barrier = raft.apply(b"for ever"), raft.apply(b"behind it"), raft.barrier()
    fsm.inside.wait(PATIENCE)

    began = time.monotonic()
    error = error_of(raft.shutdown(timeout=0.2))

    assert 0.2 <= time.monotonic() - began < PATIENCE / 2
    assert type(error) is ShutdownTimeoutError
    assert isinstance(error, TimeoutError)
    for words in ("pyraft-n1-fsm", "FSM.apply", "0.2 s", "self.gate.wait()", "clusters.py"):
        assert words in str(error)
    for future in (stuck, queued, barrier):
        assert future.exception(timeout=0).outcome_unknown is True
    assert raft.state is RaftState.SHUTDOWN
    assert raft.wait_stopped(timeout=0)

    # It ends as soon as the user's code returns, and nothing is applied any more.
    threads = [thread for thread in threading.enumerate() if thread.name == "pyraft-n1-fsm"]
    fsm.gate.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert fsm.applied == [b"for ever"]
    assert type(stuck.exception()) is RaftShutdownError


def test_a_state_that_is_never_written_fails_the_shutdown_and_whoever_waits_for_a_snapshot():
    class Stuck(FSMSnapshot):
        inside, gate = threading.Event(), threading.Event()

        def persist(self, sink):
            self.inside.set()
            self.gate.wait()
            sink.write(b"state")

        def release(self):
            pass

    class Stubborn(Recorder):
        def snapshot(self):
            return Stuck()

    with Cluster(["n1"], settings=config(ALONE), fsm=Stubborn, make_snapshots=InmemSnapshotStore) as cluster:
        cluster.start().write(1)
        raft = cluster.leader().raft
        running = raft.snapshot()
        assert Stuck.inside.wait(PATIENCE)
        waiting = raft.snapshot()
        try:
            error = error_of(raft.shutdown(timeout=0.1))

            assert type(error) is ShutdownTimeoutError
            for words in ("pyraft-n1-snap", "FSMSnapshot.persist", "self.gate.wait()"):
                assert words in str(error)
            for future in (running, waiting):
                assert type(future.exception(timeout=0)) is RaftShutdownError
        finally:
            Stuck.gate.set()
    eventually(lambda: not pyraft_threads(), "it ends as soon as the user's code returns")


def test_a_with_block_keeps_to_the_timeout_that_an_earlier_shutdown_gave():
    fsm = Gated()
    raft = alone(fsm, shutdown_grace=60.0)
    raft.apply(b"for ever")
    fsm.inside.wait(PATIENCE)
    with pytest.raises(ShutdownTimeoutError), raft:
        raft.shutdown(timeout=0.05)
    fsm.gate.set()


def test_an_fsm_that_returns_after_shutdown_began_is_waited_for_and_its_caller_told():
    fsm = Gated()
    with leaves_no_thread():
        raft = alone(fsm)
        future, behind = raft.apply(b"slow"), raft.apply(b"behind")
        fsm.inside.wait(PATIENCE)
        stopped = raft.shutdown(timeout=PATIENCE)
        eventually(lambda: raft._node.context.fsm.stopping, "the end has come to the FSM's thread")
        assert not stopped.done()
        fsm.gate.set()
        stopped.result(timeout=PATIENCE)
    assert future.result(timeout=0) == 1
    assert behind.exception(timeout=0).outcome_unknown is True
    assert fsm.applied == [b"slow"]


@pytest.mark.parametrize("how_many", [1, 3])
def test_a_callback_that_never_returns_fails_the_shutdown_and_others_are_told(how_many):
    """All callbacks are often the same function, so the next one blocks where the first does."""
    go_on = threading.Event()
    raft = Raft(*parts())
    raft.start()
    nobody = Configuration((Server("n2", "n2.test:1"),))
    busy = threading.Event()

    def block(_):
        busy.set()
        go_on.wait()

    raft.bootstrap_cluster(nobody).add_done_callback(block)
    assert busy.wait(PATIENCE)
    others = [raft.bootstrap_cluster(nobody) for _ in range(3)]
    for future in others[: how_many - 1]:
        future.add_done_callback(block)

    error = error_of(raft.shutdown(timeout=0.1))

    assert type(error) is ShutdownTimeoutError
    for words in ("pyraft-n1-notify", "callback", "go_on.wait()"):
        assert words in str(error)
    assert all(future.done() for future in others)
    go_on.set()
    for future in others:
        assert type(error_of(future)) is RaftShutdownError or "n1" in str(error_of(future))


# -- a script that just ends -------------------------------------------------------------------------

SCRIPT = """
import sys, time
from pyraft import Config, FSM, Raft
from tests.integration.clusters import Cluster, Gated, Recorder, config
from pathlib import Path

kind, ending, directory = sys.argv[1:]
cluster = Cluster(
    root=Path(directory) if kind == "gRPC and LMDB" else None,
    over_grpc=kind == "gRPC and LMDB",
    settings=config(0.3),
    fsm=Gated if ending == "while the FSM hangs" else Recorder,
)
leader = cluster.start().leader()
future = leader.raft.apply(b"x")
if ending == "while the FSM hangs":
    leader.fsm.inside.wait(20)
else:
    future.result(timeout=20)
print(f"up {time.time()}", flush=True)
if ending == "raises":
    raise RuntimeError("the script's own trouble")
if ending == "exits":
    sys.exit(7)
"""

ENDINGS = {"ends": 0, "raises": 1, "exits": 7, "while the FSM hangs": 0}


@pytest.mark.parametrize("kind", ["in memory", "gRPC and LMDB"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_script_without_shutdown_exits(tmp_path, kind, ending):
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, ending, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    ended_at = time.time()

    assert ran.returncode == ENDINGS[ending], ran.stderr
    assert ended_at - float(ran.stdout.split()[1]) < 10, "it should exit promptly"
    if ending == "raises":
        assert "the script's own trouble" in ran.stderr
    assert "Fatal Python error" not in ran.stderr


# -- a thread that dies of a surprise ------------------------------------------------------------------


class Surprising(InmemTransport):
    """Raises what no transport should, once it is told to."""

    surprise: BaseException | None = None
    on = ""

    def call(self, peer, request, timeout):
        if self.surprise is not None and self.on in type(request).__name__:
            raise self.surprise
        return super().call(peer, request, timeout)


class SurprisingCluster(Cluster):
    def transport(self, id):
        return Surprising(self.network, self.members[id].address)


@pytest.mark.parametrize("surprise", [ZeroDivisionError("a bug"), SystemExit(3)], ids=repr)
def test_a_transport_that_raises_a_surprise_stops_the_leader_loudly_and_the_others_go_on(surprise, caplog):
    """Heartbeats and probes are calls: both threads of a peer die of it."""
    with leaves_no_thread(), SurprisingCluster() as cluster:
        leader = cluster.start().leader()
        cluster.write(5)
        cluster.lose_entries()
        futures = [leader.raft.apply(b"lost %d" % n) for n in range(5)]
        transport = leader.raft._transport
        transport.on, transport.surprise = "AppendEntries", surprise

        assert leader.raft.wait_stopped(timeout=PATIENCE)

        failure = leader.raft.failure
        assert type(failure) is NodeFailedError
        assert failure.__cause__ is surprise
        for words in (f"pyraft-{leader.id}-", repr(surprise), "this is a bug", "traceback is in the log"):
            assert words in str(failure)
        assert "Traceback" in caplog.text
        assert leader.raft.state is RaftState.SHUTDOWN
        lost = {type(future.exception(timeout=0)) for future in futures}
        assert lost <= {LeadershipLostError, RaftShutdownError, NotLeaderError}
        assert error_of(leader.raft.apply(b"x")).__cause__ is failure
        leader.raft.shutdown().result(timeout=PATIENCE)

        cluster.network.heal()
        cluster.check_nothing_lost(*(member.id for member in cluster.followers(of=leader)))


def test_a_vote_thread_that_dies_stops_its_server(caplog):
    with leaves_no_thread(), SurprisingCluster() as cluster:
        cluster.start("n1")
        transport = cluster.members["n1"].raft._transport
        transport.on, transport.surprise = "Vote", ZeroDivisionError("a bug")
        assert cluster.members["n1"].raft.wait_stopped(timeout=PATIENCE)
        assert "pyraft-n1-vote-" in str(cluster.members["n1"].raft.failure)
        with pytest.raises(RaftShutdownError) as refused:
            cluster.members["n1"].raft.wait_for_leader(timeout=PATIENCE)
        assert refused.value.__cause__ is cluster.members["n1"].raft.failure


def test_a_main_thread_that_dies_resolves_everything_and_says_why(caplog):
    with leaves_no_thread():
        fsm = Gated()
        raft = alone(fsm)
        futures = [raft.apply(b"%d" % n) for n in range(3)]
        fsm.inside.wait(PATIENCE)

        class Exploding:
            def __getattr__(self, name):
                raise ZeroDivisionError("an observer of the main thread")

        raft._node.context.metrics = Exploding()
        futures += [raft.apply(b"fatal") for _ in range(3)]
        eventually(lambda: raft.state is RaftState.SHUTDOWN, "it stops")
        fsm.gate.set()
        assert raft.wait_stopped(timeout=PATIENCE)

        assert type(raft.failure) is NodeFailedError
        assert "the main thread of n1 died of ZeroDivisionError" in str(raft.failure)
        assert type(raft.failure.__cause__) is ZeroDivisionError
        assert "an observer of the main thread" in caplog.text
        assert all(future.done() for future in futures)
        assert type(futures[-1].exception()) in (LeadershipLostError, RaftShutdownError)


def test_an_fsm_thread_that_dies_stops_the_server(caplog):
    with leaves_no_thread():
        raft = alone()
        raft._node.context.fsm._on_progress = lambda: 1 // 0
        raft.apply(b"x").exception(timeout=PATIENCE)
        assert raft.wait_stopped(timeout=PATIENCE)
        assert "pyraft-n1-fsm died of ZeroDivisionError" in str(raft.failure)


# -- hand-overs, with the bad interleaving forced ------------------------------------------------------


def test_a_callback_added_at_any_point_of_the_finish_is_called_exactly_once():
    def make():
        future, called = RaftFuture(ThreadRuntime()), []

        def check():
            assert called == [future]

        return partial(future.try_set_result, "x"), partial(future.add_done_callback, called.append), check

    interrupted_at_each_line(RaftFuture._finish, make)


def test_a_callback_added_while_another_is_being_called_is_called_exactly_once():
    def make():
        future, called = RaftFuture(ThreadRuntime()), []
        future.add_done_callback(called.append)

        def check():
            assert called == [future, future]

        return partial(future.try_set_result, "x"), partial(future.add_done_callback, called.append), check

    interrupted_at_each_line(RaftFuture._tell_watchers, make)


def test_a_finish_at_any_point_of_adding_a_callback_calls_it_exactly_once():
    def make():
        future, called = RaftFuture(ThreadRuntime()), []

        def check():
            assert called == [future]

        return partial(future.add_done_callback, called.append), partial(future.try_set_result, "x"), check

    interrupted_at_each_line(RaftFuture.add_done_callback, make)
    interrupted_at_each_line(RaftFuture._queue, make)


@pytest.mark.parametrize(
    "wait",
    [lambda future: future.result(PATIENCE), lambda future: concurrent.futures.wait([future], PATIENCE)],
    ids=["result", "concurrent.futures.wait"],
)
def test_a_wait_that_begins_at_any_point_of_the_finish_is_woken(wait):
    def make():
        future, woken = RaftFuture(ThreadRuntime()), []

        def waits():
            began = time.monotonic()
            wait(future)
            woken.append(time.monotonic() - began)

        def check():
            assert future.done()
            assert woken[0] < PATIENCE / 2, "it was not woken, its patience ended"

        return partial(future.try_set_result, "x"), waits, check

    interrupted_at_each_line(RaftFuture._finish, make)


@pytest.mark.parametrize("how", ["wait", "as_completed"])
@pytest.mark.parametrize(
    ("function", "looked_at_before"),
    [
        (RaftFuture._finish, False),
        (RaftFuture._finish, True),
        (RaftFuture._tell_watchers, True),
        (RaftFuture._tell_standard_waiters, True),
    ],
)
def test_a_wait_for_two_that_begins_at_any_point_of_the_finish_of_one_waits_for_both(
    function, looked_at_before, how
):
    def make():
        one, other = RaftFuture(ThreadRuntime()), RaftFuture(ThreadRuntime())
        if looked_at_before:
            repr(one), repr(other)  # which makes the condition
        seen, has_ended = [], threading.Event()

        def waits():
            try:
                if how == "wait":
                    seen.append(concurrent.futures.wait([one, other], PATIENCE).done)
                else:
                    seen.append(set(concurrent.futures.as_completed([one, other], PATIENCE)))
            except KeyError as error:
                seen.append(error)
            finally:
                has_ended.set()

        def finish():
            one.try_set_result(1)
            has_ended.wait(0.02)  # too early: the other one is not done
            other.try_set_result(2)

        def check():
            assert seen == [{one, other}]

        return finish, waits, check

    interrupted_at_each_line(function, make)


def test_a_finish_at_any_point_of_a_wait_ends_it():
    def make():
        future = RaftFuture(ThreadRuntime())
        began = time.monotonic()

        def check():
            assert time.monotonic() - began < PATIENCE / 2

        return partial(future.result, PATIENCE), partial(future.try_set_result, "x"), check

    interrupted_at_each_line(RaftFuture._wait, make)


@pytest.mark.parametrize("first", ["result", "exception"])
def test_of_two_that_finish_at_once_exactly_one_wins(first):
    def make():
        future, won = RaftFuture(ThreadRuntime()), []
        succeed = partial(future.try_set_result, "x")
        fail = partial(future.try_set_exception, FSMFailedError("y"))
        one, other = (succeed, fail) if first == "result" else (fail, succeed)

        def check():
            assert sorted(won) == [("one", False), ("other", True)] or sorted(won) == [
                ("one", True),
                ("other", False),
            ]
            first_won = ("one", True) in won
            assert (future.exception(timeout=0) is None) is (first_won is (first == "result"))

        return lambda: won.append(("one", one())), lambda: won.append(("other", other())), check

    interrupted_at_each_line(RaftFuture._finish, make)


@pytest.mark.parametrize("interrupted", ["put", "close", "drain"])
def test_an_event_that_is_put_while_the_inbox_closes_is_disposed_of_exactly_once(interrupted):
    def make():
        inbox, found = ThreadInbox(), []
        inbox.put("earlier")
        put, close = partial(inbox.put, "event"), partial(inbox.close, found.append)

        def check():
            assert sorted(found) == ["earlier", "event"]

        return (put, close, check) if interrupted == "put" else (close, put, check)

    function = {"put": ThreadInbox.put, "close": ThreadInbox.close, "drain": ThreadInbox._drain}[interrupted]
    interrupted_at_each_line(function, make)


@pytest.mark.parametrize("interrupted", ["put", "close"])
def test_a_command_that_is_put_while_the_queue_closes_is_refused_or_handed_back(interrupted):
    def make():
        runtime = ThreadRuntime()
        channel = NotifyChannel(ThreadInbox(), "poke")
        queue = ProposalQueue(runtime, channel, 10, 1000)
        proposal = (LogType.COMMAND, b"x", b"", ApplyFuture(runtime))
        refused, back = [], []

        def put():
            try:
                queue.put(proposal, timeout=PATIENCE)
            except RaftShutdownError as error:
                refused.append(error)

        def close():
            back.extend(queue.close(RaftShutdownError))

        def check():
            assert len(refused) + len(back) == 1

        return (put, close, check) if interrupted == "put" else (close, put, check)

    for function in (
        (ProposalQueue.put, ProposalQueue._offer) if interrupted == "put" else (ProposalQueue.close,)
    ):
        interrupted_at_each_line(function, make)


def test_a_queue_that_closes_while_somebody_waits_for_room_wakes_it():
    def make():
        runtime = ThreadRuntime()
        queue = ProposalQueue(runtime, NotifyChannel(ThreadInbox(), "poke"), 1, 1000)
        queue.put((LogType.COMMAND, b"first", b"", ApplyFuture(runtime)))
        refused = []

        def put():
            try:
                queue.put((LogType.COMMAND, b"x", b"", ApplyFuture(runtime)), timeout=PATIENCE)
            except RaftError as error:
                refused.append(error)

        def check():
            assert [type(error) for error in refused] == [RaftShutdownError]

        return put, partial(queue.close, RaftShutdownError), check

    interrupted_at_each_line(ProposalQueue._put_when_there_is_room, make)


def test_a_batch_that_is_committed_while_the_fsm_thread_ends_is_failed():
    def make():
        runtime = ThreadRuntime()
        notifier = Notifier(runtime, "n1")
        runner = FsmRunner(runtime, "n1", Recorder(), NodeLog(InmemStore()), lambda: None, notifier.fail)
        runner.stop()
        future = ApplyFuture(runtime)

        def check():
            notifier.stop()
            notifier.run()  # which ends later, and tells the callers
            error = future.exception(timeout=0)
            assert type(error) is RaftShutdownError
            assert error.outcome_unknown is True

        return runner.run, partial(runner.committed, [Log(1, 1)], [future]), check

    interrupted_at_each_line(FsmRunner.run, make)


def test_a_future_that_is_handed_over_while_the_notify_thread_ends_is_resolved():
    def make():
        runtime = ThreadRuntime()
        notifier = Notifier(runtime, "n1")
        notifier.stop()
        future = RaftFuture(runtime)

        def check():
            assert future.result(timeout=0) == "news"

        return notifier.run, partial(notifier.resolve, future, "news"), check

    interrupted_at_each_line(Notifier.run, make)


def test_news_at_any_point_of_a_wait_ends_it():
    def make():
        waiters, news = Waiters(ThreadRuntime()), []
        began = time.monotonic()

        def publish():
            news.append("it came true")
            waiters.notify()

        def check():
            assert time.monotonic() - began < PATIENCE / 2, "it was not woken, its patience ended"

        return partial(waiters.wait_until, lambda: bool(news), PATIENCE), publish, check

    interrupted_at_each_line(Waiters.wait_until, make)


def test_an_apply_that_passed_the_look_at_the_role_before_the_server_ended_is_refused():
    raft = alone()
    put = raft._proposals.put

    def late(proposal, timeout):
        raft.shutdown().result(timeout=PATIENCE)
        put(proposal, timeout)

    raft._proposals.put = late
    error = raft.apply(b"x").exception(timeout=0)
    assert type(error) is RaftShutdownError
    assert error.outcome_unknown is False


def test_an_apply_that_passed_the_look_at_the_role_before_leadership_ended_is_refused():
    with Cluster() as cluster:
        leader = cluster.start().leader()
        put = leader.raft._proposals.put

        def late(proposal, timeout):
            cluster.cut_off(leader.id)
            eventually(lambda: leader.raft.state is not RaftState.LEADER, "it stepped down")
            put(proposal, timeout)

        leader.raft._proposals.put = late
        error = leader.raft.apply(b"x").exception(timeout=PATIENCE)
        assert type(error) is NotLeaderError


def test_a_poke_between_the_take_and_the_look_is_not_lost():
    """The consumer clears the mark and then looks; a producer that comes in between pokes anew."""
    raft = alone()
    channel = raft._proposals.channel
    clear, nested = channel.clear, []

    class Clearing:
        def __getattr__(self, name):
            return getattr(channel, name)

        def clear(self):
            clear()
            if not nested:
                nested.append(None)
                nested.append(raft.apply(b"in between", timeout=0))

    raft._proposals.channel = Clearing()
    first = raft.apply(b"first")

    assert first.result(timeout=PATIENCE) == 1
    assert nested[1].result(timeout=PATIENCE) == 2
    raft.shutdown().result(timeout=PATIENCE)


def test_a_bootstrap_request_that_comes_when_main_has_closed_its_inbox_is_refused():
    raft = Raft(*parts())
    raft.start()
    put = raft._node._inbox.put

    class Late:
        def __getattr__(self, name):
            return getattr(inbox, name)

        def put(self, event):
            raft._node._inbox = inbox
            raft.shutdown().result(timeout=PATIENCE)
            put(event)

    inbox, raft._node._inbox = raft._node._inbox, Late()
    error = raft.bootstrap_cluster(Configuration((Server("n1", "n1.test:1"),))).exception(timeout=PATIENCE)
    assert type(error) is RaftShutdownError


def test_an_idle_server_ends_without_blame_however_short_the_grace():
    raft = Raft(*parts())
    raft.start()

    assert error_of(raft.shutdown(timeout=0)) is None
