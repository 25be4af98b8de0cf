"""One small session of each kind of subject that is there, on one server: nothing here has to be in time."""

import pytest

from benchmarks import peers, sessions
from benchmarks.plan import ONE, Group, outstanding, tasks
from benchmarks.subjects import EVERY

WORKS = [ONE, tasks(4), outstanding(64)]
SOON = {"heartbeat_timeout": 0.4, "election_timeout": 0.4, "leader_lease_timeout": 0.4}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pyraft-lmdb-tcp", "hashicorp-wal-tcp-tuned", "hashicorp-boltdb-grpc", "pysyncobj-journal-tcp"]
)
def test_a_session(name, tmp_path):
    subject = EVERY[name]
    if not peers.is_there(subject.library):
        pytest.skip("the benchmarks have not built this peer: make bench-peers")
    group = Group("smoke", [subject], 1, WORKS, servers=1, seconds=0.05, warm_up=0.02, config=SOON)

    figures = sessions.load(group, subject, 0, tmp_path)

    expected = {work.name for work in WORKS if subject.library in work.libraries}
    assert figures.keys() == expected
    assert all("failed" not in each for each in figures.values())
    assert figures["one"]["p50_us"] <= figures["one"]["p999_us"]
