"""The FSM thread: log order, never a gap, every future told, and what stops the server."""

import errno
import io
import threading

import pytest

from pyraft import BatchingFSM, ConfigurationStore
from pyraft.configuration import encode_configuration
from pyraft.errors import (
    CorruptStoreError,
    FSMFailedError,
    NodeFailedError,
    OutcomeUnknownError,
    RaftShutdownError,
)
from pyraft.fsm_runner import FsmRunner
from pyraft.futures import ApplyFuture
from pyraft.log import Log, LogType
from pyraft.rules.election import LogPosition
from pyraft.runtime import ThreadRuntime
from pyraft.snapshots.base import SnapshotMeta
from tests.logs import entries, indexes, node_log
from tests.nodes import PATIENCE, RecordingFSM, eventually, fail_here, voters
from tests.threads import in_thread

RUNTIME = ThreadRuntime()


class Raising(RecordingFSM):
    """Raises ``error`` at the command ``b"bad"``."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def apply(self, log):
        if log.data == b"bad":
            raise self.error
        return super().apply(log)


class Batching(BatchingFSM):
    """Gives the results that ``results`` makes of a batch."""

    def __init__(self, results=None):
        self.batches = []
        self.results = results or (lambda logs: [log.data.upper() for log in logs])

    def apply_batch(self, logs):
        self.batches.append(indexes(logs))
        return self.results(logs)

    def snapshot(self):
        return b""

    def restore(self, source):
        pass


class Stuck(RecordingFSM):
    """Its first apply() returns when ``leave`` is set."""

    def __init__(self):
        super().__init__()
        self.entered, self.leave = threading.Event(), threading.Event()

    def apply(self, log):
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        return super().apply(log)


def commands(*data, first=1):
    return [Log(index, 1, data=d) for index, d in enumerate(data, first)]


def futures(count):
    return [ApplyFuture(RUNTIME) for _ in range(count)]


class Running:
    """A runner on a thread; ``end()`` gives what its run() raised, or None."""

    def __init__(self, fsm, log=None):
        self.fsm = fsm
        self.progress = 0
        self.runner = FsmRunner(RUNTIME, "n1", fsm, log or node_log(""), self._count, fail_here)
        self.joined = in_thread(self.runner.run)

    def _count(self):
        self.progress += 1

    def apply(self, *data, first=1):
        given = futures(len(data))
        self.runner.committed(commands(*data, first=first), given)
        return given

    def end(self):
        self.runner.stop()
        return self.joined()


# -- order --


def test_commands_are_applied_in_log_order_and_each_future_has_its_own_result():
    running = Running(RecordingFSM())

    given = running.apply(b"a", b"b") + running.apply(b"c", first=3)

    assert [f.result(PATIENCE) for f in given] == [b"A", b"B", b"C"]
    assert indexes(running.fsm.applied) == [1, 2, 3]
    assert running.end() is None


def test_applied_index_counts_only_what_is_really_applied():
    running = Running(Stuck())
    running.apply(b"a", b"b")
    assert running.fsm.entered.wait(PATIENCE)

    assert running.runner.applied_index == 0

    running.fsm.leave.set()
    eventually(lambda: running.runner.applied_index == 2)
    running.end()


def test_what_is_no_command_is_not_shown_to_the_fsm_but_counts_as_applied():
    running = Running(RecordingFSM())
    logs = [Log(1, 1, LogType.NOOP), Log(2, 1, LogType.BARRIER), *commands(b"a", first=3)]
    given = futures(3)

    running.runner.committed(logs, given)

    assert [f.result(PATIENCE) for f in given] == [None, None, b"A"]
    assert indexes(running.fsm.applied) == [3]
    running.end()


def test_what_was_committed_without_being_handed_over_is_read_from_the_log():
    running = Running(RecordingFSM(), node_log("11122"))

    running.runner.committed_up_to(5)

    eventually(lambda: running.runner.applied_index == 5)
    assert running.fsm.applied == entries("11122")
    running.end()


def test_entries_before_a_batch_are_caught_up_with_first():
    running = Running(RecordingFSM(), node_log("111"))

    given = running.apply(b"d", first=4)

    assert given[0].result(PATIENCE) == b"D"
    assert indexes(running.fsm.applied) == [1, 2, 3, 4]
    running.end()


def test_what_is_applied_already_is_not_applied_again():
    running = Running(RecordingFSM(), node_log("111"))
    running.runner.committed_up_to(2)

    running.runner.committed(entries("111"))
    running.runner.committed_up_to(1)

    eventually(lambda: running.runner.applied_index == 3)
    running.end()
    assert indexes(running.fsm.applied) == [1, 2, 3]


def test_a_gap_stops_the_server_and_nothing_behind_it_is_applied():
    log = node_log("1111")
    log.read = lambda first, last, max_bytes: entries("11", first=first + 1)
    running = Running(RecordingFSM(), log)

    running.runner.committed_up_to(4)

    assert isinstance(running.joined(), CorruptStoreError)
    assert running.fsm.applied == []


def test_progress_is_reported_and_waiters_are_woken():
    running = Running(RecordingFSM())
    woken = in_thread(
        lambda: running.runner.applied.wait_until(lambda: running.runner.applied_index >= 2, PATIENCE)
    )

    running.apply(b"a", b"b")

    assert woken() is True
    running.end()
    assert running.progress >= 1


# -- exceptions that are results --


@pytest.mark.parametrize(
    "error", [ValueError("no money"), KeyError("x"), OSError(errno.EPERM, "no")], ids=repr
)
def test_what_the_fsm_raises_is_the_result_of_that_command_and_the_log_goes_on(error):
    running = Running(Raising(error))

    given = running.apply(b"a", b"bad", b"c")

    assert given[0].result(PATIENCE) == b"A"
    assert given[1].exception(PATIENCE) is error
    assert given[2].result(PATIENCE) == b"C"
    assert running.end() is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOSPC, "no space left on device"),
        OSError(errno.EIO, "input/output error"),
        OSError(errno.EMFILE, "too many open files"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
    ],
    ids=repr,
)
def test_what_depends_on_this_server_stops_it_and_tells_the_rest_that_their_outcome_is_unknown(error):
    running = Running(Raising(error))

    given = running.apply(b"a", b"bad", b"c")
    behind = running.apply(b"d", first=4)

    stopped = running.joined()
    assert isinstance(stopped, FSMFailedError)
    assert stopped.__cause__ is error
    assert given[0].result(PATIENCE) == b"A"
    assert isinstance(given[1].exception(PATIENCE), FSMFailedError)
    for future in (given[2], behind[0]):
        failed = future.exception(PATIENCE)
        assert isinstance(failed, RaftShutdownError)
        assert failed.outcome_unknown
    assert running.runner.applied_index == 1


def test_is_fatal_can_make_an_error_of_ones_own_stop_the_server():
    class Strict(Raising):
        def is_fatal(self, error):
            return True

    running = Running(Strict(ValueError("diverged")))
    running.apply(b"bad")

    assert isinstance(running.joined(), FSMFailedError)


def test_is_fatal_can_make_a_memory_error_a_result():
    class Lenient(Raising):
        def is_fatal(self, error):
            return False

    running = Running(Lenient(MemoryError()))

    assert isinstance(running.apply(b"bad")[0].exception(PATIENCE), MemoryError)
    assert running.end() is None


def test_an_is_fatal_that_raises_stops_the_server():
    class Broken(Raising):
        def is_fatal(self, error):
            raise ZeroDivisionError

    running = Running(Broken(ValueError()))
    given = running.apply(b"bad")

    assert isinstance(running.joined(), FSMFailedError)
    assert isinstance(given[0].exception(PATIENCE), FSMFailedError)


# -- batching --


def test_a_batching_fsm_gets_neighbouring_commands_together():
    running = Running(Batching())
    logs = [*commands(b"a", b"b"), Log(3, 1, LogType.BARRIER), *commands(b"c", first=4)]
    given = futures(4)

    running.runner.committed(logs, given)

    assert [f.result(PATIENCE) for f in given] == [b"A", b"B", None, b"C"]
    assert running.fsm.batches == [[1, 2], [4]]
    running.end()


def test_a_batching_fsm_without_commands_gets_no_empty_batch():
    running = Running(Batching())
    given = futures(1)

    running.runner.committed([Log(1, 1, LogType.NOOP)], given)

    given[0].result(PATIENCE)
    assert running.fsm.batches == []
    running.end()


def test_an_exception_in_the_results_of_a_batch_is_that_commands_error():
    error = ValueError("no money")
    running = Running(Batching(lambda logs: [1, error, 3]))

    given = running.apply(b"a", b"b", b"c")

    assert given[0].result(PATIENCE) == 1
    assert given[1].exception(PATIENCE) is error
    assert given[2].result(PATIENCE) == 3
    assert running.end() is None


@pytest.mark.parametrize(
    "results",
    [
        lambda logs: [1],
        lambda logs: [1, 2, 3],
        lambda logs: None,
        lambda logs: (result for result in "ab"),
        lambda logs: 1 / 0,
        lambda logs: [1, MemoryError()],
        lambda logs: [SystemExit(), 2],
    ],
    ids=["too few", "too many", "none", "a generator", "raising", "memory error", "system exit"],
)
def test_a_batch_that_went_wrong_stops_the_server_and_leaves_no_future_open(results):
    running = Running(Batching(results))

    given = running.apply(b"a", b"b")

    assert isinstance(running.joined(), FSMFailedError)
    assert all(f.done() for f in given)


def test_a_batching_fsm_whose_is_fatal_raises_stops_the_server():
    class Broken(Batching):
        def is_fatal(self, error):
            raise ZeroDivisionError

    running = Running(Broken(lambda logs: [ValueError()]))
    given = running.apply(b"a")

    assert isinstance(running.joined(), FSMFailedError)
    assert isinstance(given[0].exception(PATIENCE), FSMFailedError)


# -- configurations --


class Configured(RecordingFSM, ConfigurationStore):
    def __init__(self):
        super().__init__()
        self.configurations = []

    def store_configuration(self, index, configuration):
        self.configurations.append((index, configuration, len(self.applied)))


def configuration_entry(index):
    return Log(index, 1, LogType.CONFIGURATION, encode_configuration(voters("n1")))


def test_an_fsm_that_wants_to_know_configurations_gets_them_in_log_order():
    running = Running(Configured())
    given = futures(3)

    running.runner.committed([*commands(b"a"), configuration_entry(2), *commands(b"b", first=3)], given)

    given[2].result(PATIENCE)
    assert running.fsm.configurations == [(2, voters("n1"), 1)]
    running.end()


def test_an_fsm_that_does_not_want_to_know_is_not_asked():
    running = Running(RecordingFSM())
    given = futures(1)

    running.runner.committed([configuration_entry(1)], given)

    assert given[0].result(PATIENCE) is None
    running.end()


def test_a_store_configuration_that_raises_stops_the_server():
    class Broken(Configured):
        def store_configuration(self, index, configuration):
            raise ValueError

    running = Running(Broken())
    running.runner.committed([configuration_entry(1)], futures(1))

    stopped = running.joined()
    assert isinstance(stopped, FSMFailedError)
    assert "store_configuration" in str(stopped)


# -- snapshots that replace the state --


def snapshot_of(index, state=b"state"):
    return SnapshotMeta(f"up-to-{index}", index, 1, voters("n1"), 1, len(state)), lambda: io.BytesIO(state)


def pruned():
    raise CorruptStoreError("no such snapshot")


def test_a_command_whose_effect_came_with_a_snapshot_says_that_its_outcome_is_unknown():
    log = node_log("11111")
    running = Running(Stuck(), log)
    running.apply(b"busy")
    assert running.fsm.entered.wait(PATIENCE)
    [replaced] = running.apply(b"replaced", first=4)
    log.reset(LogPosition(2, 100))
    running.runner.restore(*snapshot_of(100))
    running.fsm.leave.set()

    error = replaced.exception(PATIENCE)

    assert type(error) is OutcomeUnknownError
    eventually(lambda: running.runner.applied_index == 100, "it goes on")
    assert running.end() is None


@pytest.mark.parametrize("asked_first", [True, False])
def test_a_read_that_a_restore_overtakes_asks_for_another_index(asked_first):
    """The snapshot may be from outside, and not committed: only the leader can tell when it is."""
    log, again = node_log("1"), []
    running = Running(RecordingFSM(), log)
    running.runner.ask_again = again.extend
    old, new = futures(2)
    log.reset(LogPosition(1, 100))
    if asked_first:
        running.runner.read_at(99, [old])
    running.runner.restore(*snapshot_of(100))
    if not asked_first:
        running.runner.read_at(99, [old])
    running.runner.read_at(100, [new])

    assert new.result(PATIENCE) == 100
    assert again == [old]
    assert running.end() is None


def test_of_two_snapshots_that_came_while_the_fsm_was_busy_only_the_newer_one_is_opened():
    log = node_log("1")
    running = Running(Stuck(), log)
    running.apply(b"busy")
    assert running.fsm.entered.wait(PATIENCE)
    for index, kept in ((50, False), (100, True)):
        meta, opener = snapshot_of(index)
        log.reset(LogPosition(1, index))
        running.runner.restore(meta, opener if kept else pruned)  # the store keeps the newest one only
    running.fsm.leave.set()

    eventually(lambda: running.runner.applied_index == 100 or running.runner.stopping, "it has the newer one")
    assert running.end() is None


# -- stopping --


def test_stopping_in_the_middle_of_a_batch_ends_after_the_entry_and_tells_the_rest():
    running = Running(Stuck())
    given = running.apply(b"a", b"b", b"c")
    behind = running.apply(b"d", first=4)
    assert running.fsm.entered.wait(PATIENCE)

    running.runner.stop()
    running.fsm.leave.set()

    assert running.joined() is None
    assert given[0].result(PATIENCE) == b"A"
    for future in [*given[1:], *behind]:
        error = future.exception(PATIENCE)
        assert isinstance(error, RaftShutdownError)
        assert error.outcome_unknown
    assert indexes(running.fsm.applied) == [1]


def test_what_is_committed_after_the_end_is_failed_at_once():
    running = Running(RecordingFSM())
    running.end()

    given = running.apply(b"a")

    assert isinstance(given[0].exception(0), RaftShutdownError)


@pytest.mark.parametrize("drain", [False, True])
def test_abandoning_a_stuck_thread_fails_all_it_still_has_and_its_late_result_changes_nothing(drain):
    running = Running(Stuck())
    given = running.apply(b"a", b"b")
    behind = running.apply(b"c", first=3)
    assert running.fsm.entered.wait(PATIENCE)
    assert running.runner.calling == "apply"

    running.runner.stop(drain)
    running.runner.abandon()

    errors = [future.exception(0) for future in [*given, *behind]]
    assert all(isinstance(error, RaftShutdownError) and error.outcome_unknown for error in errors)
    running.fsm.leave.set()
    assert running.joined() is None
    assert given[0].exception(0) is errors[0]


def test_a_log_that_cannot_be_read_stops_the_server():
    log = node_log("111")
    log._store.get_logs = lambda *a: 1 / 0
    running = Running(RecordingFSM(), log)

    running.runner.committed_up_to(3)

    assert isinstance(running.joined(), NodeFailedError)
    assert running.runner.stopping
