"""The simulated store and the real one answer every call alike, also after crashes and failed commits.

What the simulator finds out about the library is worth as much as this: a store that is kinder
than LMDB hides bugs, one that is harsher invents them.  Both are driven through the same calls
and compared, call by call, with each other and with a dict.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pyraft.errors import RaftError
from pyraft.log import Log, LogType
from pyraft.logstore import LMDBStore
from pyraft.logstore.records import LARGEST_INDEX
from pyraft.testing.sim_disk import SimDisk, SimStore
from pyraft.testing.sim_runtime import Group, Scheduler, SimRuntime

INDEXES = st.integers(1, 30)
SIZES = st.sampled_from([0, 1, 10, 300, 3000])
TYPES = st.sampled_from([LogType.COMMAND, LogType.COMMAND, LogType.NOOP, LogType.CONFIGURATION])
KEYS = st.sampled_from([b"", b"a", b"b", b"k" * 510])
FAILURES = {
    "StorageError": (lmdb.Error("Input/output error"), "io_error"),
    "StoreFullError": (lmdb.DiskError("No space left on device"), "full"),
}


class Chance:
    """Stands for a disk's random numbers where the test decides: a half and more means not landed."""

    def __init__(self, number):
        self.number = number

    def random(self):
        return self.number

    def expovariate(self, rate):
        return 0.0


class Simulated:
    """The simulated store and its disk."""

    def __init__(self):
        self.scheduler = Scheduler(seed=1)
        self.disk = SimDisk(self.scheduler, "n1")
        self.open()

    def open(self):
        self.store = SimStore(self.disk, SimRuntime(self.scheduler, Group("n1")))

    def reopen(self):
        self.store.close()
        self.open()

    def crash(self):
        self.disk.crash()
        self.open()

    def break_next_commit(self, fault, landed):
        setattr(self.disk.conditions, FAILURES[fault][1], 1.0)
        self.disk._random = Chance(0.0 if landed else 0.5)

    def mend(self):
        self.disk.conditions.io_error = self.disk.conditions.full = 0.0

    def discard(self):
        pass


class Real:
    """The real store and its directory.  A crash leaves the files as they are: their copy is reopened."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="pyraft-machine-"))
        self.life = 0
        self.open()

    def open(self):
        self.store = LMDBStore(self.home / str(self.life), map_size=4 << 20, sync=False)

    def reopen(self):
        self.store.close()
        self.open()

    def crash(self):
        before, left = self.store, self.home / str(self.life)
        self.life += 1
        shutil.copytree(left, self.home / str(self.life))
        self.open()
        before.close()
        shutil.rmtree(left)

    def break_next_commit(self, fault, landed):
        def commit(txn):
            if landed:
                txn.commit()
            raise FAILURES[fault][0]

        self.store._commit = commit

    def mend(self):
        pass

    def discard(self):
        self.store.close()
        shutil.rmtree(self.home)


def answer(call, store):
    """What a call returns, or the kind of error it raises."""
    try:
        return call(store)
    except (RaftError, OverflowError) as error:
        return type(error).__name__


class BothStores(RuleBasedStateMachine):
    """Every rule is one call to both stores; ``expect`` compares with what the dict says."""

    simulated: type = Simulated

    @initialize()
    def begin(self):
        self.sides = [self.simulated(), Real()]
        self.model: dict[int, Log] = {}
        self.values: dict[bytes, bytes] = {}
        self.term = 0

    def teardown(self):
        for side in getattr(self, "sides", ()):
            side.discard()

    def expect(self, expected, call):
        """Both stores answer ``call`` with ``expected``."""
        answers = {type(side).__name__: answer(call, side.store) for side in self.sides}
        assert answers == dict.fromkeys(answers, expected)

    def make(self, indexes, size=0, type=LogType.COMMAND, extensions=b""):
        self.term += 1
        return [Log(i, self.term, type, bytes([i % 256]) * size, extensions) for i in indexes]

    def store_in_model(self, logs):
        self.model |= {log.index: log for log in logs}

    def cut_model(self, first, last):
        self.model = {i: log for i, log in self.model.items() if not first <= i <= last}

    # -- writing -----------------------------------------------------------------------------------

    @rule(count=st.integers(1, 12), size=SIZES, type=TYPES)
    def append(self, count, size, type):
        first = max(self.model, default=0) + 1
        logs = self.make(range(first, first + count), size, type)
        self.expect(None, lambda store: store.store_logs(logs))
        self.store_in_model(logs)

    @rule(index=INDEXES, size=SIZES)
    def store_log(self, index, size):
        [log] = self.make([index], size, extensions=b"e" * size)
        self.expect(None, lambda store: store.store_log(log))
        self.store_in_model([log])

    @rule(indexes=st.sets(INDEXES, max_size=8), size=SIZES, type=TYPES)
    def store_with_gaps(self, indexes, size, type):
        logs = self.make(sorted(indexes), size, type)
        self.expect(None, lambda store: store.store_logs(logs))
        self.store_in_model(logs)

    @rule(first=INDEXES, count=st.integers(0, 12), size=SIZES, type=TYPES)
    def replace_suffix(self, first, count, size, type):
        logs = self.make(range(first, first + count), size, type)
        self.expect(None, lambda store: store.replace_suffix(logs))
        if logs:
            self.cut_model(first, LARGEST_INDEX)
            self.store_in_model(logs)

    @rule(
        kind=st.sampled_from(["prefix", "suffix", "all", "any"]), a=st.integers(-2, 35), b=st.integers(-2, 35)
    )
    def delete_range(self, kind, a, b):
        oldest, newest = min(self.model, default=0), max(self.model, default=0)
        first, last = {"prefix": (oldest, b), "suffix": (a, newest), "all": (oldest, newest), "any": (a, b)}[
            kind
        ]
        self.expect(None, lambda store: store.delete_range(first, last))
        self.cut_model(first, last)

    @rule(key=KEYS, value=st.binary(max_size=20))
    def set(self, key, value):
        self.expect(None, lambda store: store.set(key, value))
        self.values[key] = value

    @rule(key=KEYS, number=st.sampled_from([0, 1, 2**63, 2**64 - 1]))
    def set_uint64(self, key, number):
        self.expect(None, lambda store: store.set_uint64(key, number))
        self.expect(number, lambda store: store.get_uint64(key))
        self.values[key] = number.to_bytes(8, "big")

    # -- bad arguments -----------------------------------------------------------------------------

    @rule(indexes=st.sampled_from([[0], [0, 1], [2, 2], [3, 1], [1, 2, 9, 8], [LARGEST_INDEX + 1]]))
    def store_what_does_not_ascend(self, indexes):
        logs = self.make(indexes)
        self.expect("ConfigError", lambda store: store.store_logs(logs))
        self.expect("ConfigError", lambda store: store.replace_suffix(logs))

    @rule()
    def use_a_bad_key_or_number(self):
        self.expect("ConfigError", lambda store: store.set(b"k" * 511, b""))
        self.expect("ConfigError", lambda store: store.get(b"k" * 511))
        for number in (-1, 2**64):
            self.expect("OverflowError", lambda store, number=number: store.set_uint64(b"a", number))

    # -- reading -----------------------------------------------------------------------------------

    @rule(
        skip=st.integers(-1, 3), count=st.integers(0, 20), max_bytes=st.sampled_from([0, 1, 25, 600, 20000])
    )
    def get_logs(self, skip, count, max_bytes):
        first = min(self.model, default=0) + skip
        expected, size = [], 0
        for index in range(first, first + count):
            log = self.model.get(index)
            size += len(log.data) + len(log.extensions) if log else 0
            if log is None or (expected and size > max_bytes):
                break
            expected.append(log)
        if not expected or log is None:
            expected = "LogNotFoundError"
        self.expect(expected, lambda store: store.get_logs(first, first + count - 1, max_bytes))

    @invariant()
    def both_hold_what_the_dict_holds(self):
        if not hasattr(self, "sides"):
            return
        self.expect(min(self.model, default=0), lambda store: store.first_index())
        self.expect(max(self.model, default=0), lambda store: store.last_index())
        configurations = sorted(i for i, log in self.model.items() if log.type is LogType.CONFIGURATION)
        self.expect(tuple(configurations), lambda store: store.configuration_indexes())
        for index in range(-1, max(self.model, default=0) + 2):
            expected = self.model.get(index, "LogNotFoundError")
            self.expect(expected, lambda store, index=index: store.get_log(index))
        for key in (b"", b"a", b"b", b"never set"):
            self.expect(self.values.get(key), lambda store, key=key: store.get(key))

    # -- life --------------------------------------------------------------------------------------

    @rule()
    def reopen(self):
        for side in self.sides:
            side.reopen()

    @rule()
    def crash(self):
        for side in self.sides:
            side.crash()

    @rule()
    def use_after_close(self):
        for side in self.sides:
            side.store.close()
            side.store.close()
        self.expect("StorageError", lambda store: store.last_index())
        self.expect("StorageError", lambda store: store.get_log(1))
        self.expect("StorageError", lambda store: store.get(b"a"))
        self.expect("StorageError", lambda store: store.set(b"a", b""))
        for side in self.sides:
            side.open()

    @precondition(lambda self: self.model)
    @rule(fault=st.sampled_from([*FAILURES]), landed=st.booleans(), crash=st.booleans())
    def fail_a_commit(self, fault, landed, crash):
        """Nobody knows whether a failed commit happened, until the store is opened again."""
        landed = landed and fault == "StorageError"
        first = max(self.model)
        logs = self.make([first, first + 1], 10)
        for side in self.sides:
            side.break_next_commit(fault, landed)
        self.expect(fault, lambda store: store.replace_suffix(logs))
        for side in self.sides:
            side.mend()
        self.expect("StorageError", lambda store: store.set(b"a", b"after a failed commit"))
        self.expect("StorageError", lambda store: store.store_logs(logs))
        for side in self.sides:
            side.crash() if crash else side.reopen()
        if landed:
            self.store_in_model(logs)


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, derandomize=True)


# -- it would notice ----------------------------------------------------------------------------------


class ForgetsToCut(SimStore):
    def replace_suffix(self, logs):
        self.store_logs(logs)


class CutsOneTooMany(SimStore):
    def delete_range(self, first, last):
        super().delete_range(first, last + 1)


class IgnoresMaxBytes(SimStore):
    def get_logs(self, first, last, max_bytes):
        return super().get_logs(first, last, 1 << 30)


class WritesAfterAFailure(SimStore):
    def _commit(self, transaction):
        self._latched = None
        super()._commit(transaction)


class TakesAnyOrder(SimStore):
    def store_logs(self, logs):
        super().store_logs(sorted(logs, key=lambda log: log.index))


class RemembersOldConfigurations(SimStore):
    def configuration_indexes(self):
        self._most = max(super().configuration_indexes(), getattr(self, "_most", ()), key=len)
        return self._most


class WorksAfterClose(SimStore):
    def close(self):
        pass


PLANTED = [
    ForgetsToCut,
    CutsOneTooMany,
    IgnoresMaxBytes,
    WritesAfterAFailure,
    TakesAnyOrder,
    RemembersOldConfigurations,
    WorksAfterClose,
]


@pytest.mark.parametrize("broken", PLANTED)
def test_a_difference_is_found(broken):
    class Broken(Simulated):
        def open(self):
            self.store = broken(self.disk, SimRuntime(self.scheduler, Group("n1")))

    class Machine(BothStores):
        simulated = Broken

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                TestBothStores.settings, report_multiple_bugs=False, phases=["generate"], print_blob=False
            ),
        )
