"""The states of servers are compared however the state machine gives its snapshot."""

from __future__ import annotations

import pytest

from pyraft import FSMSnapshot
from pyraft.testing import KvFsm, SimCluster, Violation
from pyraft.testing.sim_kv import encode_command


class Captured(FSMSnapshot):
    def __init__(self, data):
        self.data = data
        self.released = False

    def persist(self, sink):
        assert not self.released
        sink.write(self.data[:1])
        sink.write(self.data[1:])
        sink.close()

    def release(self):
        self.released = True


class Streams(KvFsm):
    made = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.made.append(self)

    def snapshot(self):
        self.captured = Captured(super().snapshot())
        return self.captured


class Drifts(Streams):
    def apply(self, log):
        result = super().apply(log)
        if self is self.made[-1]:
            self.data["x"] = "mine"
        return result


@pytest.mark.parametrize("fsm", [Streams, Drifts])
def test_states_that_are_written_later_are_compared(fsm):
    Streams.made.clear()
    with SimCluster(servers=3, seed=7, fsm=fsm) as cluster:
        cluster.apply(encode_command("y", ("put", "1")))
        if fsm is Drifts:
            with pytest.raises(Violation, match=r"I5: the states of n\d and n\d differ"):
                cluster.check()
        else:
            cluster.check()
            captured = [fsm.captured for fsm in Streams.made if hasattr(fsm, "captured")]
            assert captured
            assert all(state.released for state in captured)
