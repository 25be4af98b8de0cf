"""check_fsm() finds what is wrong with a state machine, and says what and why."""

from __future__ import annotations

import datetime
import importlib
import io
import json
import os
import pickle
import random
import sqlite3
import struct
import subprocess
import sys
import time
import uuid
from pathlib import Path
from time import time as seconds_since_1970

import pytest

from pyraft import FSM, BatchingFSM, ConfigError, FSMSnapshot
from pyraft.testing import KvFsm, check_fsm
from pyraft.testing.describe import describe
from pyraft.testing.sim_kv import encode_command

# By its full name: the package exports the function under the same one.
checks = importlib.import_module("pyraft.testing.check_fsm")

COMMANDS = [b"%d key%d" % (number * 37 % 101, number % 5) for number in range(30)] + [
    b"no command",
    b"7 key1",
]


class Sums(FSM):
    """A sum for each key, and how many commands there were: nothing wrong with it."""

    def __init__(self):
        self.sums = {}
        self.count = 0

    def apply(self, log):
        number, key = log.data.split()
        self.count += 1
        self.sums[key.decode()] = self.sums.get(key.decode(), 0) + int(number)
        return self.sums[key.decode()]

    def state(self):
        return {"sums": self.sums, "count": self.count}

    def snapshot(self):
        return json.dumps(self.state(), sort_keys=True).encode()

    def restore(self, source):
        self.__dict__.update(json.loads(source.read()))


class Copy(FSMSnapshot):
    def __init__(self, state):
        self.state = state
        self.released = 0

    def persist(self, sink):
        for key, value in sorted(self.state.items()):
            sink.write(json.dumps([key, value]).encode() + b"\n")
        sink.close()

    def release(self):
        self.released += 1
        assert self.released == 1


class Streams(Sums):
    """Persists later, line by line: nothing wrong with it."""

    def state(self):
        return {"count": self.count, **self.sums}

    def snapshot(self):
        return Copy(self.state())

    def restore(self, source):
        self.sums = dict(json.loads(line) for line in source)
        self.count = self.sums.pop("count")


class Batches(BatchingFSM, Sums):
    """Nothing wrong with it."""

    def apply_batch(self, logs):
        results = []
        for log in logs:
            try:
                results.append(Sums.apply(self, log))
            except ValueError as error:
                results.append(error)
        return results


class Pickles(Sums):
    """Nothing wrong with it, as long as all that runs is of one version."""

    def snapshot(self):
        return pickle.dumps(sorted(self.state().items()))

    def restore(self, source):
        self.__dict__.update(pickle.load(source))  # noqa: S301


class Lengths(Sums):
    """Reads as many bytes as the header says: nothing wrong with it."""

    def snapshot(self):
        body = super().snapshot()
        return struct.pack(">I", len(body)) + body

    def restore(self, source):
        (length,) = struct.unpack(">I", source.read(4))
        super().restore(io.BytesIO(source.read(length)))


class UsesTheEntrysTime(Sums):
    """The time at which the leader appended it is the same everywhere."""

    def apply(self, log):
        return super().apply(log), log.appended_at, log.index, log.term, {"a set", "of texts"}


GOOD = [Sums, Streams, Batches, Pickles, Lengths, UsesTheEntrysTime]


# ── deliberately broken ones ──


class StopsAtABadCommand(Sums):
    def is_fatal(self, error):
        return True


class ExitsAtABadCommand(Sums):
    def apply(self, log):
        if log.data == b"no command":
            sys.exit("no such command")
        return super().apply(log)


class RaisesFromABatch(Batches):
    def apply_batch(self, logs):
        return [Sums.apply(self, log) for log in logs]


class ForgetsResultsOfABatch(Batches):
    def apply_batch(self, logs):
        super().apply_batch(logs)
        return []


class DecodesInPlace(Sums):
    def apply(self, log):
        result = super().apply(log)
        log.data = log.data.decode()
        return result


class LooksAtTheClock(Sums):
    def apply(self, log):
        return super().apply(log), int(time.time() / 86400)


class LooksAtTheImportedClock(Sums):
    def apply(self, log):
        if seconds_since_1970() // 86400 % 7 >= 0:
            self.sums["day"] = seconds_since_1970() // 86400
        return super().apply(log)


class MeasuresAndKeeps(Sums):
    def apply(self, log):
        began = time.perf_counter()
        result = super().apply(log)
        self.count += time.perf_counter() - began
        return result


class AsksForTheYear(Sums):
    def apply(self, log):
        return super().apply(log), datetime.datetime.now().year


class UsesLocalTime(Sums):
    def apply(self, log):
        return super().apply(log), datetime.datetime.fromtimestamp(log.appended_at / 1e9).hour


class ThrowsDice(Sums):
    def apply(self, log):
        return super().apply(log) + (random.random() < 0.3)


class MakesNames(Sums):
    def apply(self, log):
        super().apply(log)
        return str(uuid.uuid4())


class TakesAnyOfASet(Sums):
    def apply(self, log):
        super().apply(log)
        return next(iter(set(self.sums)))


class SnapshotsASet(Sums):
    def snapshot(self):
        return json.dumps([list(set(self.sums)), self.sums, self.count]).encode()

    def restore(self, source):
        _, self.sums, self.count = json.loads(source.read())


class RemembersItsProcess(Sums):
    def apply(self, log):
        return super().apply(log), os.getpid()


class SharesItsState(Sums):
    sums = {}  # noqa: RUF012  (that is the bug)

    def __init__(self):
        self.count = 0


class ReturnsItsState(Sums):
    def apply(self, log):
        super().apply(log)
        return self.sums


class CountsBatches(Batches):
    def apply_batch(self, logs):
        results = super().apply_batch(logs)
        self.count += 1
        return results


class LastOneOfABatchWins(Batches):
    def apply_batch(self, logs):
        return super().apply_batch(logs)[-1:] * len(logs)


class CountsSnapshots(Sums):
    def snapshot(self):
        self.count += 1
        return super().snapshot()


class ClearsWhenReleased(Streams):
    def snapshot(self):
        captured = super().snapshot()
        captured.release = self.sums.clear
        return captured


class CapturesNothing(Streams):
    def state(self):
        return self.sums

    def restore(self, source):
        self.sums = dict(json.loads(line) for line in source)


class CapturesTheOutside(Sums):
    """A copy, but not of what is inside."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def apply(self, log):
        result = super().apply(log)
        self.seen.setdefault("indexes", []).append(log.index)
        return result

    def snapshot(self):
        return Copy({"seen": self.seen} | self.state() | {"sums": dict(self.sums)})

    def restore(self, source):
        self.__dict__.update(dict(json.loads(line) for line in source))


class ForgetsAField(Sums):
    def apply(self, log):
        return super().apply(log), self.count

    def snapshot(self):
        return json.dumps(self.sums, sort_keys=True).encode()

    def restore(self, source):
        self.__init__()
        self.sums = json.loads(source.read())


class RestoresAnotherType(Sums):
    def __init__(self):
        super().__init__()
        self.by_number = {}

    def apply(self, log):
        key = len(log.data) % 3
        self.by_number[key] = self.by_number.get(key, 0) + 1
        return self.by_number[key]

    def state(self):
        return self.by_number

    def restore(self, source):
        self.by_number = json.loads(source.read())


class SeededOnce(Sums):
    """Random numbers that are the same everywhere, but for the server that was restored."""

    def __init__(self):
        super().__init__()
        self.random = random.Random(1)

    def apply(self, log):
        return super().apply(log) + self.random.randrange(1000)

    def restore(self, source):
        super().restore(source)
        self.random = random.Random(1)


class AddsToWhatIsThere(Sums):
    def restore(self, source):
        state = json.loads(source.read())
        self.sums.update(state["sums"])
        self.count = state["count"]


class KeepsItsCache(Sums):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def apply(self, log):
        result = super().apply(log)
        return self.cache.setdefault(log.data.split()[1], result)

    def state(self):
        return super().state() | {"firsts": {key.decode(): value for key, value in self.cache.items()}}

    def restore(self, source):
        state = json.loads(source.read())
        self.sums, self.count = state["sums"], state["count"]
        for key, value in state["firsts"].items():
            self.cache.setdefault(key.encode(), value)


class IgnoresAnEmptySnapshot(Streams):
    def restore(self, source):
        found = dict(json.loads(line) for line in source)
        if found["count"]:
            self.count = found.pop("count")
            self.sums = found


class Seeks(Sums):
    def restore(self, source):
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        super().restore(io.BytesIO(source.read(size)))


class ReadsAPart(Streams):
    def restore(self, source):
        text = source.read(1 << 20).decode()
        pairs = (json.loads(line) for line in text.splitlines() if line.endswith("]"))
        self.sums = dict(pairs)
        self.count = self.sums.pop("count", 0)


class ReturnsADict(Sums):
    def snapshot(self):
        return self.state()


class PersistsText(Streams):
    def snapshot(self):
        captured = super().snapshot()
        captured.persist = lambda sink: sink.write(json.dumps(captured.state))
        return captured


class PersistsToAFile(Streams):
    def snapshot(self):
        captured = super().snapshot()
        captured.persist = lambda sink: os.write(sink.fileno(), b"state")
        return captured


class CancelsTheSink(Streams):
    def snapshot(self):
        captured = super().snapshot()
        captured.persist = lambda sink: sink.cancel()
        return captured


class OfOneThread(Sums):
    """A connection of sqlite3 serves the thread that made it only."""

    def __init__(self):
        super().__init__()
        self.database = sqlite3.connect(":memory:")

    def apply(self, log):
        self.database.execute("select 1")
        return super().apply(log)


BROKEN = {
    StopsAtABadCommand: ("a_command_stops_no_server", "is_fatal"),
    ExitsAtABadCommand: ("a_command_stops_no_server", "SystemExit"),
    RaisesFromABatch: ("a_command_stops_no_server", r"apply_batch\(\) raised ValueError"),
    ForgetsResultsOfABatch: ("a_command_stops_no_server", "1 commands and returned 0 results"),
    DecodesInPlace: ("entries_are_left_as_they_are", "after command 0"),
    LooksAtTheClock: ("equal_logs_give_equal_states", "another clock"),
    LooksAtTheImportedClock: ("equal_logs_give_equal_states", "another clock"),
    MeasuresAndKeeps: ("equal_logs_give_equal_states", "count"),
    ThrowsDice: ("equal_logs_give_equal_states", "command"),
    MakesNames: ("equal_logs_give_equal_states", "command 0"),
    SharesItsState: ("equal_logs_give_equal_states", "command"),
    AsksForTheYear: ("every_process_agrees", "another clock"),
    UsesLocalTime: ("every_process_agrees", "time zone"),
    TakesAnyOfASet: ("every_process_agrees", "PYTHONHASHSEED"),
    SnapshotsASet: ("every_process_agrees", "it ends otherwise"),
    RemembersItsProcess: ("every_process_agrees", "command 0"),
    ReturnsItsState: ("an_answer_stays_as_it_is", "once all commands were applied"),
    CountsBatches: ("batches_make_no_difference", "batches of 32"),
    LastOneOfABatchWins: ("batches_make_no_difference", "batches of 32, command 0"),
    CountsSnapshots: ("a_snapshot_disturbs_nothing", "after many snapshots"),
    ClearsWhenReleased: ("a_snapshot_disturbs_nothing", "with a snapshot before each command"),
    CapturesNothing: ("a_snapshot_is_of_the_moment_it_was_taken", "after 0 commands"),
    CapturesTheOutside: ("a_snapshot_is_of_the_moment_it_was_taken", "indexes"),
    ForgetsAField: ("restored_is_as_good_as_replayed", "after 3 commands, command 3"),
    RestoresAnotherType: ("restored_is_as_good_as_replayed", "restored from a snapshot after 3"),
    SeededOnce: ("restored_is_as_good_as_replayed", "after 3 commands, command 3"),
    AddsToWhatIsThere: ("restore_replaces_everything", "one that applied every command"),
    KeepsItsCache: ("restore_replaces_everything", "one that applied"),
    IgnoresAnEmptySnapshot: ("restore_replaces_everything", "after 0 commands"),
    Seeks: ("restored_is_as_good_as_replayed", "UnsupportedOperation"),
    ReadsAPart: ("restore_reads_to_the_end", "restored a part"),
    ReturnsADict: ("a_snapshot_is_bytes_or_written_to_its_sink", "neither bytes nor an FSMSnapshot"),
    PersistsText: ("a_snapshot_is_bytes_or_written_to_its_sink", "takes bytes, not str"),
    PersistsToAFile: ("a_snapshot_is_bytes_or_written_to_its_sink", "fileno"),
    CancelsTheSink: ("a_snapshot_is_bytes_or_written_to_its_sink", "cancelled"),
    OfOneThread: ("a_command_stops_no_server", "refused every command: .*created in a thread"),
}


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_a_state_machine_without_a_fault_passes(kind):
    check_fsm(kind, COMMANDS)


def test_the_simulators_own_passes():
    operations = [("put", "a"), ("append", "b"), ("cas", "ab", "c"), ("cas", "x", "y"), ("get",)]
    check_fsm(KvFsm, [encode_command(f"k{i % 3}", operations[i % 5]) for i in range(40)] + [b"no JSON"])


@pytest.mark.parametrize(("kind", "finding"), BROKEN.items(), ids=[kind.__name__ for kind in BROKEN])
def test_a_broken_state_machine_is_rejected_with_the_promise_it_breaks(kind, finding):
    SharesItsState.sums.clear()
    promise, text = finding
    with pytest.raises(AssertionError, match=f"breaks the promise {promise}: .*Promised: ") as rejected:
        check_fsm(kind, COMMANDS)
    assert type(rejected.value) is AssertionError
    assert rejected.match(f"{promise}: .*{text}.* Promised: ")


def test_one_command_is_enough_to_be_checked():
    check_fsm(Sums, [b"1 x"])
    with pytest.raises(AssertionError, match="equal_logs_give_equal_states"):
        check_fsm(LooksAtTheClock, [b"1 x"])


def test_a_factory_without_a_name_is_checked_in_this_process_alone():
    check_fsm(lambda: Sums(), COMMANDS)
    check_fsm(lambda: TakesAnyOfASet(), COMMANDS)
    with pytest.raises(AssertionError, match="restore_replaces_everything"):
        check_fsm(lambda: AddsToWhatIsThere(), COMMANDS)


def test_the_clock_is_right_again_afterwards():
    real = time.time, time.monotonic, time.perf_counter, seconds_since_1970
    state = random.getstate()
    with pytest.raises(AssertionError):
        check_fsm(LooksAtTheImportedClock, COMMANDS)
    assert (time.time, time.monotonic, time.perf_counter, seconds_since_1970) == real
    assert random.getstate() == state


def test_other_threads_see_the_right_clock_meanwhile():
    class Asks(Sums):
        def apply(self, log):
            seen.append(checks._on_another_thread(time.time))
            return super().apply(log)

    seen, before = [], time.time()
    check_fsm(Asks, COMMANDS)
    assert before <= min(seen) <= max(seen) <= time.time()


CHECKS_AT_ITS_TOP = """
from pyraft.testing import KvFsm, check_fsm

class Mine(KvFsm):
    pass

check_fsm(Mine, [b'["key", ["get"]]'])
print("checked")
"""


def test_a_program_that_checks_at_its_top_does_not_start_processes_for_ever(tmp_path):
    (tmp_path / "mine.py").write_text(CHECKS_AT_ITS_TOP)
    done = subprocess.run(
        [sys.executable, "-c", "import mine"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "checked\n", done.stderr


@pytest.mark.parametrize(
    ("factory", "commands", "text"),
    [
        (Sums, [], "commands is empty"),
        (Sums, b"1 x", "not a list of commands"),
        (Sums, "1 x", "not a list of commands"),
        (Sums, None, "not a list of commands"),
        (Sums, ["1 x"], r"commands\[0\]='1 x' is not bytes"),
        (Sums, [b"1 x", 7], r"commands\[1\]=7 is not bytes"),
        (Sums(), [b"1 x"], "is a state machine: pass its class"),
        (7, [b"1 x"], "not callable"),
        (int, [b"1 x"], "not an instance of a subclass of pyraft.FSM"),
        (lambda: 1 / 0, [b"1 x"], "cannot be built: ZeroDivisionError"),
        (lambda name: Sums(), [b"1 x"], "callable without arguments"),
        (FSM, [b"1 x"], "cannot be built: TypeError.*abstract"),
        (lambda same=Sums(): same, [b"1 x"], "same object twice"),  # noqa: B008
    ],
)
def test_arguments_that_could_find_nothing_are_refused(factory, commands, text):
    with pytest.raises(ConfigError, match=text):
        check_fsm(factory, commands)


def test_every_promise_gives_a_reason():
    for promise in checks.PROMISES:
        assert len(promise.__doc__) > 150, promise.__name__


def test_values_are_described_by_what_they_hold():
    class Plain:
        def __init__(self, value):
            self.value = value

    class Slots:
        __slots__ = ("a", "b")

        def __init__(self):
            self.b = 2

    itself = []
    itself.append(itself)
    assert describe(Plain({"b", "a"})) == "Plaindict('value': set('a', 'b'))"
    assert describe(Slots()) == "Slotsdict('b': 2)"
    assert describe({"b": 1, "a": [1.5, None]}) == describe({"a": [1.5, None], "b": 1})
    assert describe([1, 2]) != describe([2, 1]) != describe((2, 1))
    assert describe(KeyError("x")) == "KeyErrortuple('x')"
    assert describe(lambda: 1) == describe(lambda: 1)
    assert "…" in describe(itself)
