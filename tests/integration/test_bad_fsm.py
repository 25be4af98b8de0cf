"""State machines that raise, return nonsense, or fail because of the server they run on."""

import errno
import os

import pytest

from pyraft import BatchingFSM, ConfigurationStore, FSMFailedError, NodeFailedError, RaftShutdownError
from tests.integration.clusters import PATIENCE, Cluster, Recorder, alone, eventually, leaves_no_thread


class Picky(Recorder):
    """Refuses some commands, on every server alike."""

    def apply(self, log):
        if log.data.startswith(b"bad"):
            raise LookupError(log.data)
        return super().apply(log)


def test_what_an_fsm_raises_is_that_commands_result_and_the_log_goes_on_everywhere():
    with Cluster(fsm=Picky) as cluster:
        leader = cluster.start().leader()
        futures = [leader.raft.apply(command) for command in (b"1", b"bad 2", b"3", b"bad 4", b"5")]

        assert [future.exception(timeout=PATIENCE) is None for future in futures] == [True, False] * 2 + [
            True
        ]
        assert [futures[n].result(timeout=0) for n in (0, 2, 4)] == [1, 2, 3]
        with pytest.raises(LookupError) as raised:
            futures[1].result(timeout=0)
        assert raised.value.args == (b"bad 2",)
        assert futures[1].index == futures[0].index + 1
        for member in cluster.members.values():
            eventually(lambda fsm=member.fsm: fsm.applied == [b"1", b"3", b"5"], f"{member.id} went on")
            assert member.raft.failure is None


class OnlyHere(Recorder):
    """Fails at one command, with what it is told to fail with; ``mended`` ends that."""

    failure: BaseException | None = None

    def apply(self, log):
        if log.data == b"fatal" and self.failure is not None:
            raise self.failure
        return super().apply(log)


FATAL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    MemoryError(),
    SystemExit(3),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("failure", FATAL, ids=repr)
@pytest.mark.parametrize("where", ["leader", "follower"])
def test_a_failure_that_depends_on_the_server_stops_it_and_the_others_go_on(where, failure):
    with leaves_no_thread(), Cluster(fsm=OnlyHere) as cluster:
        leader = cluster.start().leader()
        cluster.write(3)
        victim = leader if where == "leader" else cluster.followers(of=leader)[0]
        victim.fsm.failure = failure

        future = leader.raft.apply(b"fatal")
        behind = leader.raft.apply(b"behind")
        assert victim.raft.wait_stopped(timeout=PATIENCE)

        stopped = victim.raft.failure
        assert type(stopped) is FSMFailedError
        assert isinstance(stopped, NodeFailedError)
        assert stopped.__cause__ is failure
        for words in ("FSM.apply failed at entry", repr(failure), "start it again", "applied anew"):
            assert words in str(stopped)
        assert b"fatal" not in victim.fsm.applied, "the next entry must not be applied"
        assert b"behind" not in victim.fsm.applied
        if where == "leader":
            assert future.exception(timeout=PATIENCE) is stopped
            # Committed or not, nobody here knows what became of it.
            assert behind.exception(timeout=PATIENCE) is not None
        else:
            future.result(timeout=PATIENCE)
        victim.raft.shutdown().result(timeout=PATIENCE)
        cluster.write(3, among=[id for id in cluster.members if id != victim.id])

        # Mended (a new FSM without the failure) it applies the entry anew.
        cluster.start(victim.id)
        cluster.check_nothing_lost()
        eventually(lambda: b"fatal" in victim.fsm.applied, "the entry was applied after all")


@pytest.mark.parametrize("fatal", [True, False], ids=["fatal", "not fatal"])
def test_is_fatal_decides(fatal):
    class Deciding(OnlyHere):
        def is_fatal(self, error):
            return fatal

    fsm = Deciding()
    fsm.failure = ValueError("mine") if fatal else OSError(errno.EIO, "mine")
    raft = alone(fsm)
    error = raft.apply(b"fatal").exception(timeout=PATIENCE)

    if fatal:
        assert type(error) is FSMFailedError
        assert error.__cause__ is fsm.failure
        assert raft.wait_stopped(timeout=PATIENCE)
    else:
        assert error is fsm.failure
        assert raft.apply(b"next").result(timeout=PATIENCE) == 1
    raft.shutdown().result(timeout=PATIENCE)


def test_an_is_fatal_that_raises_stops_the_server():
    class Confused(OnlyHere):
        def is_fatal(self, error):
            raise RuntimeError("is_fatal itself")

    fsm = Confused()
    fsm.failure = ValueError("mine")
    raft = alone(fsm)
    error = raft.apply(b"fatal").exception(timeout=PATIENCE)
    assert type(error) is FSMFailedError
    assert "is_fatal itself" in str(error)
    assert raft.wait_stopped(timeout=PATIENCE)
    assert raft.failure is error


class Batching(BatchingFSM):
    def __init__(self, batch):
        self.applied = []
        self._batch = batch

    def apply_batch(self, logs):
        results = self._batch(logs)
        self.applied += [log.data for log in logs]
        return results

    def snapshot(self):
        return b""

    def restore(self, source):
        pass


def test_a_batch_may_contain_errors_as_values():
    fsm = Batching(lambda logs: [LookupError(log.data) if log.data == b"bad" else log.data for log in logs])
    raft = alone(fsm)
    futures = [raft.apply(command) for command in (b"1", b"bad", b"3")]
    assert [type(future.exception(timeout=PATIENCE)) for future in futures] == [
        type(None),
        LookupError,
        type(None),
    ]
    assert futures[2].result(timeout=0) == b"3"
    assert raft.failure is None
    raft.shutdown().result(timeout=PATIENCE)


def _raise(error):
    raise error


BAD_BATCHES = {
    "raises": (lambda logs: _raise(ValueError("mine")), ["ValueError('mine')"]),
    "one result too few": (lambda logs: [], ["given 1 commands", "returned 0 results"]),
    "one result too many": (lambda logs: [None] * (len(logs) + 1), ["returned 2 results"]),
    "no list": (lambda logs: None, ["TypeError"]),
    "a fatal error as a value": (lambda logs: [MemoryError("here")] * len(logs), ["MemoryError('here')"]),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_a_batch_that_cannot_be_believed_stops_the_server(kind):
    batch, words = BAD_BATCHES[kind]
    raft = alone(Batching(batch))
    future = raft.apply(b"x")
    error = future.exception(timeout=PATIENCE)

    assert type(error) is FSMFailedError
    for word in ("apply_batch", *words):
        assert word in str(error)
    assert raft.wait_stopped(timeout=PATIENCE)
    assert raft.failure is error
    raft.shutdown().result(timeout=PATIENCE)


def test_a_configuration_store_that_raises_stops_the_server():
    class Failing(Recorder, ConfigurationStore):
        def store_configuration(self, index, configuration):
            raise ValueError("mine")

    with Cluster(["n1"], fsm=Failing) as cluster:
        raft = cluster.start().members["n1"].raft
        assert raft.wait_stopped(timeout=PATIENCE)
        assert type(raft.failure) is FSMFailedError
        assert "FSM.store_configuration failed at entry 1" in str(raft.failure)
        error = raft.apply(b"x").exception(timeout=0)
        assert type(error) is RaftShutdownError
        assert error.__cause__ is raft.failure
