"""Any sequence of calls leaves LMDBStore with what a dict would hold, also after reopening."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyraft.errors import LogNotFoundError
from pyraft.log import Log, LogType
from pyraft.logstore import LMDBStore, journal, lmdb_file, records

SIZES = st.sampled_from([0, 10, 300, 3000])
INDEXES = st.integers(1, 60)
TYPES = st.sampled_from([LogType.COMMAND, LogType.COMMAND, LogType.CONFIGURATION])


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def open_new(self):
        self.home = Path(tempfile.mkdtemp(prefix="pyraft-model-"))
        self.kept = records.BLOCK_BYTES, journal.FILE_BYTES, journal.LARGEST_RECORD
        records.BLOCK_BYTES = 1000  # so that batches make several
        journal.FILE_BYTES, journal.LARGEST_RECORD = 8 * journal.BLOCK, 10_000  # so that it is full soon
        self.model: dict[int, Log] = {}
        self.values: dict[bytes, bytes] = {}
        self.term = 0
        self.staged = self.committed = 0
        self.store = LMDBStore(self.home, map_size=256 * 1024, sync=False)

    def teardown(self):
        if hasattr(self, "store"):
            records.BLOCK_BYTES, journal.FILE_BYTES, journal.LARGEST_RECORD = self.kept
            self.store.close()
            shutil.rmtree(self.home)

    def entries(self, indexes, size, type=LogType.COMMAND):
        self.term += 1
        self.committed = max(self.committed, self.staged)  # stored with what follows
        return [Log(index, self.term, type, bytes([index % 256]) * size) for index in indexes]

    @rule(count=st.integers(1, 40), size=SIZES, type=TYPES)
    def append(self, count, size, type):
        first = max(self.model, default=0) + 1
        logs = self.entries(range(first, first + count), size, type)
        self.store.store_logs(logs)
        self.model |= {log.index: log for log in logs}

    @rule(indexes=st.sets(INDEXES, min_size=1, max_size=20), size=SIZES, type=TYPES)
    def store_anywhere(self, indexes, size, type):
        logs = self.entries(sorted(indexes), size, type)
        self.store.store_logs(logs)
        self.model |= {log.index: log for log in logs}

    @rule(first=INDEXES, count=st.integers(1, 30), size=SIZES, type=TYPES)
    def replace_suffix(self, first, count, size, type):
        logs = self.entries(range(first, first + count), size, type)
        self.store.replace_suffix(logs)
        self.model = {index: log for index, log in self.model.items() if index < first}
        self.model |= {log.index: log for log in logs}

    @rule(first=st.integers(0, 70), count=st.integers(0, 70))
    def delete_range(self, first, count):
        self.store.delete_range(first, first + count - 1)
        for index in range(first, first + count):
            self.model.pop(index, None)

    @rule(key=st.binary(max_size=8), value=st.binary(max_size=50))
    def set(self, key, value):
        self.store.set(key, value)
        self.values[key] = value

    @rule()
    def reopen(self):
        self.store.close()
        self.staged = 0
        self.store = LMDBStore(self.home, map_size=256 * 1024, sync=False)

    @rule()
    def reopen_as_after_a_kill(self):
        """From the files as they are, which is what a killed process leaves."""
        home = Path(tempfile.mkdtemp(prefix="pyraft-model-"))
        shutil.copytree(self.home, home, dirs_exist_ok=True)
        self.store.close()
        self.staged = 0
        shutil.rmtree(self.home)
        self.home = home
        self.store = LMDBStore(self.home, map_size=256 * 1024, sync=False)

    @rule(index=st.integers(1, 100))
    def stage(self, index):
        self.staged = index
        self.store.stage_commit_index(index)

    @rule(first=INDEXES, count=st.integers(1, 40), max_bytes=st.integers(0, 20000))
    def read_a_range(self, first, count, max_bytes):
        expected, size = [], 0
        for index in range(first, first + count):
            size += len(self.model[index].data) if index in self.model else 0
            if expected and size > max_bytes:
                break
            if index not in self.model:
                with pytest.raises(LogNotFoundError):
                    self.store.get_logs(first, first + count - 1, max_bytes)
                return
            expected.append(self.model[index])
        assert self.store.get_logs(first, first + count - 1, max_bytes) == expected

    @invariant()
    def holds_what_the_model_holds(self):
        if not hasattr(self, "store"):
            return
        assert self.store.first_index() == min(self.model, default=0)
        assert self.store.last_index() == max(self.model, default=0)
        assert self.store.get_commit_index() == self.committed
        assert self.store.configuration_indexes() == tuple(
            sorted(index for index, log in self.model.items() if log.type is LogType.CONFIGURATION)
        )
        for index in range(0, max(self.model, default=0) + 2):
            if index in self.model:
                assert self.store.get_log(index) == self.model[index]
            else:
                with pytest.raises(LogNotFoundError):
                    self.store.get_log(index)
        for key, value in self.values.items():
            assert self.store.get(key) == value

    @invariant()
    def the_file_is_as_long_as_it_says(self):
        # Or the next opening would take a healthy store for a truncated one.
        if hasattr(self, "store"):
            lmdb_file.check_data_file(self.home / "data.mdb")


TestLMDBStoreModel = StoreMachine.TestCase
TestLMDBStoreModel.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, derandomize=True
)
