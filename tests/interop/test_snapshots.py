"""Go's FileSnapshotStore and ours read each other's folders."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.snapshots import FileSnapshotStore
from tests.interop.markers import built_or_skip
from tests.snapshots.snaps import TRANSPORT, ids, read

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def go_store(tmp_path_factory):
    """Runs the Go program: go_store("read", directory) returns what it prints."""
    program = tmp_path_factory.mktemp("go") / "snapshots"
    built_or_skip("goldens", "./snapshots", program)

    def run(what, directory):
        done = subprocess.run([program, what, directory], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_go_reads_what_we_write(go_store, tmp_path):
    store = FileSnapshotStore(tmp_path, retain=9)
    servers = (Server("n1", "10.0.0.1:7000"), Server("<n&2>\u2028", "hôte:1", Suffrage.NONVOTER))
    taken = []
    for index, configuration, state in (
        (2**64 - 1, Configuration(servers), bytes(range(256)) * 8192),
        (20, Configuration(servers), b"twenty"),
        (3, Configuration(), b""),
    ):
        with store.create(1, index, 7, configuration, 2, TRANSPORT) as sink:
            sink.write(state)
        taken.append((sink.id, index, state))

    lines = [line.rsplit(" ", 1) for line in go_store("read", tmp_path).splitlines()]

    assert [state for _, state in lines] == [state.hex() for _, _, state in taken]
    assert [line.split(" ")[:5] for line, _ in lines] == [
        [id, str(index), "7", "2", str(len(state))] for id, index, state in taken
    ]
    assert "Voter n1 10.0.0.1:7000" in lines[0][0] and "Nonvoter <n&2>" in lines[0][0]


def test_we_read_what_go_writes_today(go_store, tmp_path):
    shutil.copytree(Path(__file__).parent.parent / "snapshots" / "golden", tmp_path / "golden")
    go_store("write", tmp_path / "today")

    golden, today = (FileSnapshotStore(tmp_path / name, retain=9) for name in ("golden", "today"))

    assert [read(today, id) for id in ids(today)] == [read(golden, id) for id in ids(golden)]
    assert [meta.configuration for meta in today.list()] == [meta.configuration for meta in golden.list()]
