"""Calls at the wrong moment or in the wrong place: an error at once, never a hang, and the server goes on.

Before start, after shutdown, in a forked child, inside the FSM or a callback, where an
asyncio loop runs, and while the queue of commands is full.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import subprocess
import sys
import time

import pytest

from pyraft import (
    Configuration,
    EnqueueTimeoutError,
    LeadershipLostError,
    Log,
    NotAppliedError,
    NotLeaderError,
    NotStartedError,
    Raft,
    RaftError,
    RaftShutdownError,
    RaftState,
    Server,
    WouldDeadlockError,
)
from pyraft.logstore import InmemStore
from pyraft.snapshots import DiscardSnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport
from tests.integration.clusters import (
    ALONE,
    PATIENCE,
    Cluster,
    Gated,
    Recorder,
    alone,
    config,
    eventually,
)

AT_ONCE = 2.0
"""Seconds.  What must not wait may be delayed by a busy machine, but not by this much."""


def not_started(**changes):
    store = InmemStore()
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    settings = dataclasses.replace(config(ALONE, **changes), local_id="n1")
    return Raft(settings, Recorder(), store, store, DiscardSnapshotStore(), transport)


CALLS = {
    "apply": lambda raft: raft.apply(b"x"),
    "apply_log": lambda raft: raft.apply_log(Log(data=b"x")),
    "barrier": lambda raft: raft.barrier(),
    "bootstrap_cluster": lambda raft: raft.bootstrap_cluster(Configuration((Server("n1", "n1.test:1"),))),
    "wait_for_leader": lambda raft: raft.wait_for_leader(timeout=PATIENCE),
    "wait_applied": lambda raft: raft.wait_applied(10, timeout=PATIENCE),
}
PROPERTIES = [
    "state",
    "leader_id",
    "leader_address",
    "term",
    "last_index",
    "commit_index",
    "applied_index",
    "last_contact",
    "failure",
]


def outcome(call, raft):
    """The error of ``call``, wherever it shows: raised at once or in the future."""
    try:
        future = call(raft)
    except RaftError as error:
        return error
    return future.exception(timeout=PATIENCE)


# -- before start, after shutdown --------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_before_start_every_call_says_to_start_first(name):
    raft = not_started()

    with pytest.raises(NotStartedError) as refused:
        CALLS[name](raft)

    assert isinstance(refused.value, NotAppliedError)
    assert "n1" in str(refused.value)
    assert "call start()" in str(refused.value)
    raft.shutdown().result(timeout=PATIENCE)


@pytest.mark.parametrize("name", CALLS)
def test_after_shutdown_every_call_fails_at_once(name):
    raft = alone()
    raft.shutdown().result(timeout=PATIENCE)

    began = time.monotonic()
    error = outcome(CALLS[name], raft)

    assert time.monotonic() - began < AT_ONCE
    assert type(error) is RaftShutdownError
    assert error.outcome_unknown is False
    assert "shut down" in str(error)
    assert "open it again" in str(error)


def test_what_is_known_can_be_asked_at_any_time():
    raft = not_started()
    for when in ("before start", "running", "after shutdown"):
        for name in PROPERTIES:
            getattr(raft, name)
        assert raft.stats()["state"] == str(raft.state), when
        assert raft.metrics(), when
        assert "n1" in repr(raft), when
        if when == "before start":
            raft.start()
        elif when == "running":
            raft.shutdown().result(timeout=PATIENCE)
    assert raft.state is RaftState.SHUTDOWN
    assert raft.wait_stopped(timeout=0)


def test_starting_twice_is_harmless_and_starting_after_shutdown_is_refused():
    raft = alone()
    raft.start()
    assert raft.apply(b"x").result(timeout=PATIENCE) == 1
    raft.shutdown().result(timeout=PATIENCE)
    with pytest.raises(RaftShutdownError):
        raft.start()


# -- waiting that runs out ---------------------------------------------------------------------------


def test_a_wait_that_runs_out_changes_nothing_and_the_command_goes_on():
    fsm = Gated()
    raft = alone(fsm)
    future = raft.apply(b"slow")
    fsm.inside.wait(PATIENCE)

    for wait in (future.result, future.exception):
        with pytest.raises(TimeoutError, match=r"not done after 0.01 s; the operation itself goes on"):
            wait(timeout=0.01)
    assert concurrent.futures.wait([future], timeout=0.01).not_done == {future}
    assert future.cancel() is False
    with pytest.raises(TimeoutError, match="n1 has applied 2 and not 3 after"):
        raft.wait_applied(3, timeout=0.01)

    fsm.gate.set()
    assert future.result(timeout=PATIENCE) == 1
    assert fsm.applied == [b"slow"]
    raft.wait_applied(future.index, timeout=PATIENCE)
    raft.shutdown().result(timeout=PATIENCE)


def test_waiting_for_a_leader_that_cannot_come_says_who_is_needed():
    with Cluster() as cluster:
        cluster.start("n1")
        with pytest.raises(TimeoutError) as ran_out:
            cluster.members["n1"].raft.wait_for_leader(timeout=0.05)
        for words in ("n1 knows no leader after 0.05 s", "majority of n1, n2, n3", "reach each other"):
            assert words in str(ran_out.value)

        cluster.start()
        cluster.members["n1"].raft.wait_for_leader(timeout=PATIENCE)


# -- the queue of commands is full ---------------------------------------------------------------------


class Stuck:
    """A leader that takes no command for the time being, with a queue that is full.

    One entry may be ahead of the FSM, the FSM stands in it, and the queue takes two more.
    """

    def __init__(self):
        self.fsm = Gated()
        self.raft = alone(self.fsm, max_uncommitted_entries=1, max_proposals=2)
        self.futures = [self.raft.apply(b"in the fsm", timeout=PATIENCE)]
        self.fsm.inside.wait(PATIENCE)
        eventually(lambda: not self.raft.metrics()["proposals_waiting"], "it was taken")
        self.futures += [self.raft.apply(b"waits %d" % n, timeout=PATIENCE) for n in range(2)]

    def finish(self, *applied):
        self.fsm.gate.set()
        concurrent.futures.wait(self.futures, timeout=PATIENCE)
        assert [future.exception(timeout=0) for future in self.futures] == [None] * 3
        assert self.fsm.applied == [b"in the fsm", b"waits 0", b"waits 1", *applied]
        self.raft.shutdown().result(timeout=PATIENCE)


def test_a_full_queue_makes_apply_wait_for_its_timeout_and_no_longer():
    stuck = Stuck()

    error = stuck.raft.apply(b"one too many", timeout=0.05).exception(timeout=0)

    assert type(error) is EnqueueTimeoutError
    assert isinstance(error, NotAppliedError)
    assert isinstance(error, TimeoutError)
    for words in ("2 commands", "0.05 s", "Try again later", "max_proposals"):
        assert words in str(error)
    stuck.finish()


def test_a_thread_that_waits_for_room_gets_in_once_there_is_room():
    stuck = Stuck()
    got = concurrent.futures.ThreadPoolExecutor(1).submit(stuck.raft.apply, b"patient", None)
    eventually(lambda: stuck.raft._proposals._waiting, "it waits for room")

    stuck.fsm.gate.set()

    assert got.result(timeout=PATIENCE).result(timeout=PATIENCE) == 4
    stuck.finish(b"patient")


def test_a_thread_that_waits_for_room_is_told_of_the_shutdown():
    stuck = Stuck()
    got = concurrent.futures.ThreadPoolExecutor(1).submit(stuck.raft.apply, b"too late", None)
    eventually(lambda: stuck.raft._proposals._waiting, "it waits for room")

    stopped = stuck.raft.shutdown()

    error = got.result(timeout=PATIENCE).exception(timeout=PATIENCE)
    assert type(error) is RaftShutdownError
    assert error.outcome_unknown is False
    stuck.fsm.gate.set()
    stopped.result(timeout=PATIENCE)


def test_a_callback_that_applies_while_the_queue_is_full_is_refused_at_once():
    """It runs on the FSM thread; were it to wait for room, the FSM could never make any."""
    stuck = Stuck()
    seen = []

    def again(done):
        began = time.monotonic()
        for n in range(3):
            future = stuck.raft.apply(b"again %d" % n, timeout=None)
            seen.append((time.monotonic() - began, future.done() and future.exception()))

    # While this callback runs, the queue is as full as it was.
    stuck.futures[0].add_done_callback(again)
    stuck.fsm.gate.set()
    eventually(lambda: len(seen) == 3, "the callback came back")

    for seconds, error in seen:
        assert seconds < AT_ONCE
        assert type(error) is EnqueueTimeoutError
        assert "pyraft-n1-fsm" in str(error)
        assert "from another thread" in str(error)
    stuck.finish()


def test_a_callback_may_apply_while_there_is_room():
    fsm = Recorder()
    raft = alone(fsm)
    chained = []
    raft.apply(b"first").add_done_callback(lambda done: chained.append(raft.apply(b"second")))

    eventually(lambda: chained, "the callback ran")
    assert chained[0].result(timeout=PATIENCE) == 2
    assert fsm.applied == [b"first", b"second"]
    raft.shutdown().result(timeout=PATIENCE)


def test_where_an_asyncio_loop_runs_a_full_queue_is_refused_at_once():
    stuck = Stuck()

    async def client():
        began = time.monotonic()
        future = stuck.raft.apply(b"from a coroutine", timeout=None)
        assert time.monotonic() - began < AT_ONCE
        assert future.done()
        with pytest.raises(EnqueueTimeoutError, match="asyncio loop"):
            await future

    asyncio.run(client())
    stuck.finish()


# -- asyncio -------------------------------------------------------------------------------------------


def test_awaiting_apply_gives_what_the_fsm_returned_or_raises_what_it_raised():
    class Picky(Recorder):
        def apply(self, log):
            if log.data == b"bad":
                raise KeyError("bad")
            return super().apply(log)

    raft = alone(Picky())

    async def client():
        assert await raft.apply(b"one") == 1
        done = raft.apply(b"two")
        others = await asyncio.gather(*(_await(raft.apply(b"more")) for _ in range(20)))
        assert sorted([await done, *others]) == list(range(2, 23))
        with pytest.raises(KeyError):
            await raft.apply(b"bad")
        assert await done == 2  # once more

    asyncio.run(client())
    raft.shutdown().result(timeout=PATIENCE)


async def _await(future):
    return await future


def test_a_cancelled_await_changes_nothing_and_the_command_goes_on():
    fsm = Gated()
    raft = alone(fsm)

    async def client():
        future = raft.apply(b"slow")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_await(future), timeout=0.02)
        assert not future.done()
        fsm.gate.set()
        assert await future == 1

    asyncio.run(client())
    raft.shutdown().result(timeout=PATIENCE)


def test_blocking_calls_where_a_loop_runs_are_refused_and_awaiting_works():
    fsm = Gated()
    raft = alone(fsm)

    async def client():
        future = raft.apply(b"slow")
        for wait in (future.result, future.exception, lambda: raft.wait_applied(99)):
            with pytest.raises(WouldDeadlockError, match="asyncio loop"):
                wait()
        fsm.gate.set()
        await future
        await raft.shutdown()  # only asks, and is awaited

    asyncio.run(client())
    eventually(lambda: raft.state is RaftState.SHUTDOWN, "it is down")


def test_a_loop_that_is_gone_harms_nobody():
    fsm = Gated()
    raft = alone(fsm)
    future = raft.apply(b"slow")

    async def client():
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(client())
    fsm.gate.set()
    assert future.result(timeout=PATIENCE) == 1
    assert raft.apply(b"next").result(timeout=PATIENCE) == 2
    raft.shutdown().result(timeout=PATIENCE)


# -- inside the FSM and in callbacks -------------------------------------------------------------------


class Inside(Recorder):
    """Does ``job`` in the middle of apply(), and returns what came of it."""

    job = staticmethod(lambda: None)

    def apply(self, log):
        super().apply(log)
        return self.job()


FORBIDDEN = {
    "wait for its own future": lambda raft, own: own.result(),
    "wait for its own future with a timeout": lambda raft, own: own.exception(timeout=60),
    "wait for a new command": lambda raft, own: raft.apply(b"inner").result(),
    "wait for a barrier": lambda raft, own: raft.barrier().result(timeout=60),
    "wait for an index": lambda raft, own: raft.wait_applied(10**9),
    "wait for the end": lambda raft, own: raft.wait_stopped(),
    "shut down": lambda raft, own: raft.shutdown(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_inside_apply_waiting_raises_instead_of_deadlocking_and_the_log_goes_on(what):
    fsm = Inside()
    raft = alone(fsm)
    own = concurrent.futures.Future()
    fsm.job = lambda: FORBIDDEN[what](raft, own.result(timeout=PATIENCE))

    future = raft.apply(b"outer")
    own.set_result(future)

    error = future.exception(timeout=PATIENCE)
    assert type(error) is WouldDeadlockError
    assert isinstance(error, RuntimeError)
    assert "pyraft-n1-fsm" in str(error)
    assert "another thread" in str(error) or "add_done_callback" in str(error)

    fsm.job = lambda: "fine"
    assert raft.apply(b"next").result(timeout=PATIENCE) == "fine"
    assert raft.failure is None
    raft.shutdown().result(timeout=PATIENCE)


def test_inside_apply_a_command_may_be_proposed_without_waiting():
    fsm = Inside()
    raft = alone(fsm)
    inner = []

    def propose():
        if fsm.applied == [b"outer"]:
            inner.append(raft.apply(b"inner"))
        return len(fsm.applied)

    fsm.job = propose
    assert raft.apply(b"outer").result(timeout=PATIENCE) == 1
    assert inner[0].result(timeout=PATIENCE) == 2
    raft.shutdown().result(timeout=PATIENCE)


def test_in_a_callback_of_the_notify_thread_waiting_raises():
    store = InmemStore()
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    settings = dataclasses.replace(config(ALONE), local_id="n1")
    raft = Raft(settings, Recorder(), store, store, DiscardSnapshotStore(), transport)
    raft.start()
    found = []

    def wait(_):
        for call in (lambda: raft.apply(b"x").result(), lambda: raft.wait_applied(10**9), raft.shutdown):
            try:
                found.append(call())
            except Exception as error:
                found.append(error)

    raft.bootstrap_cluster(Configuration((Server("n1", "n1.test:1"),))).add_done_callback(wait)

    eventually(lambda: len(found) == 3, "the callback came back")
    assert type(found[0]) in (WouldDeadlockError, NotLeaderError)  # the election may not be over
    assert [type(error) for error in found[1:]] == [WouldDeadlockError] * 2
    assert "pyraft-n1-notify" in str(found[1])
    raft.shutdown().result(timeout=PATIENCE)


def test_a_callback_that_raises_harms_nobody(caplog):
    raft = alone()

    def explode(_):
        raise RuntimeError("a callback's own trouble")

    future = raft.apply(b"x")
    called = []
    for callback in (explode, lambda done: sys.exit(3), called.append):
        future.add_done_callback(callback)
    future.result(timeout=PATIENCE)
    eventually(lambda: called, "the callbacks after it are called")
    raft.apply(b"y").result(timeout=PATIENCE)
    assert "a callback's own trouble" in caplog.text
    raft.shutdown().result(timeout=PATIENCE)


# -- a forked child ------------------------------------------------------------------------------------

IN_A_CHILD = """
import logging, os, sys, time
logging.basicConfig(level=logging.ERROR)
from pyraft import Config, ForkedProcessError, Raft, RaftError, WouldDeadlockError
from tests.integration.clusters import Gated, eventually
{imports}

directory = sys.argv[1]
fsm = Gated()
raft = Raft.open(
    directory, id="n1", fsm=fsm, config=Config(heartbeat_timeout=.05, election_timeout=.05, leader_lease_timeout=.05),
    {arguments}
)
raft.start()
raft.wait_for_leader(timeout=20)
pending = raft.apply(b"before the fork")
assert fsm.inside.wait(20)

child = os.fork()
if child == 0:
    status = 1
    try:
        calls = [
            lambda: raft.apply(b"from the child"), raft.barrier, raft.shutdown, raft.start,
            lambda: raft.wait_for_leader(timeout=20), lambda: raft.wait_applied(99),
            raft.__enter__, lambda: raft.__exit__(None, None, None),
            raft.wait_stopped, pending.result, pending.exception,
        ]
        for number, call in enumerate(calls):
            try:
                call()
            except RaftError as error:
                assert "forked" in str(error), error
                # Waiting for a future of the parent's is refused as any wait that cannot end.
                assert isinstance(error, WouldDeadlockError if number > 8 else ForkedProcessError), error
            else:
                raise AssertionError(f"call {{number}} did not raise")
        raft.state, raft.stats(), raft.leader_id
        try:
            Raft.open(directory, id="n1", fsm=Gated(), {arguments})
            raise AssertionError("the parent's directory was opened a second time")
        except RaftError as error:
            pass
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)

deadline = time.monotonic() + 20
while True:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    if time.monotonic() > deadline:
        os.kill(child, 9)
        os.waitpid(child, 0)
        sys.exit("the child hangs")
    time.sleep(0.01)
assert status == 0, status

# The parent goes on, and still holds its directory.
fsm.gate.set()
assert pending.result(timeout=20) == 1
assert raft.apply(b"after the fork").result(timeout=20) == 2
assert fsm.applied == [b"before the fork", b"after the fork"]
raft.shutdown().result(timeout=20)
print("fine")
"""

IN_MEMORY = (
    "from pyraft.transport import InmemNetwork, InmemTransport",
    'bootstrap={"n1": "n1.test:1"}, transport=InmemTransport(InmemNetwork(), "n1.test:1")',
)
OVER_GRPC = (
    "from pyraft.transport import GrpcTransport; transport = GrpcTransport('127.0.0.1:0')",
    'bootstrap={"n1": transport.local_address}, transport=transport',
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("parts", [IN_MEMORY, OVER_GRPC], ids=["in memory", "gRPC"])
def test_in_a_forked_child_every_call_is_an_error_and_the_parent_goes_on(tmp_path, parts):
    imports, arguments = parts
    program = IN_A_CHILD.format(imports=imports, arguments=arguments)

    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=100
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "fine\n"


# -- on the wrong server -------------------------------------------------------------------------------


def test_a_follower_refuses_and_names_the_leader():
    with Cluster() as cluster:
        leader = cluster.start().leader()
        for follower in cluster.followers(of=leader):
            follower.raft.wait_for_leader(timeout=PATIENCE)
            for call in (lambda raft: raft.apply(b"x"), lambda raft: raft.barrier()):
                error = call(follower.raft).exception(timeout=0)
                assert type(error) is NotLeaderError
                assert (error.leader_id, error.leader_address) == (leader.id, leader.address)
                assert f"send the command to {leader.id} at {leader.address}" in str(error)


def test_commands_that_wait_for_room_are_refused_when_their_leader_steps_down():
    """The room would come from the FSM, and on a leader without a quorum the FSM has nothing to do."""
    settings = config(1.0, max_uncommitted_entries=4, max_proposals=4)
    with Cluster(settings=settings) as cluster:
        leader = cluster.start().leader()
        cluster.write()
        cluster.lose_entries()  # heartbeats go through: it leads, and commits nothing
        in_log = [leader.raft.apply(b"in the log %d" % n, timeout=PATIENCE) for n in range(4)]
        eventually(lambda: leader.raft.last_index - leader.raft.applied_index >= 4, "there is no room")
        queued = [leader.raft.apply(b"queued %d" % n, timeout=0) for n in range(4)]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waits = pool.submit(leader.raft.apply, b"waits", None)
            eventually(lambda: leader.raft._proposals._waiting, "one more waits for room")

            cluster.cut_off(leader.id)

            queued.append(waits.result(timeout=PATIENCE))
        assert {type(future.exception(timeout=PATIENCE)) for future in in_log} == {LeadershipLostError}
        assert {type(future.exception(timeout=PATIENCE)) for future in queued} == {NotLeaderError}

        cluster.network.heal()
        cluster.check_nothing_lost()
