"""A Python server hears from a Go leader what a sound leader never sends, and stays sound itself.

The requests are made and sent by Go's own transports; most of them are what faults of the Go library
lead to.  The server under test never stands for election: its timeouts are longer than the test.
"""

import base64
from dataclasses import dataclass
from typing import Any

import pytest

from tests.interop.clusters import Cluster, Member, NotDoneError, eventually
from tests.interop.markers import MARKS

pytestmark = MARKS


@dataclass
class Scene:
    """The Go server, which plays the leader, and the Python server that hears it."""

    cluster: Cluster
    go: Member
    python: Member
    configuration: str
    """As Go encodes it, in base64."""

    def call(
        self, kind: str, request: dict[str, Any], state: bytes = b"", id: str = "n1", version: int = 3
    ) -> Any:
        header = {"ProtocolVersion": version, "ID": text(id.encode()), "Addr": text(self.go.address.encode())}
        if kind in ("append_entries", "install_snapshot"):
            header["Leader"] = header["Addr"]
        return self.go.ask(
            "call",
            kind=kind,
            id=self.python.id,
            address=self.python.address,
            request=header | request,
            state=text(state),
        )

    def append(
        self, prev: tuple[int, int], entries: list[tuple[int, int]], commit: int = 0, term: int = 2
    ) -> Any:
        """Send entries (index, term) behind the position ``prev`` (index, term)."""
        return self.call(
            "append_entries",
            {
                "Term": term,
                "PrevLogEntry": prev[0],
                "PrevLogTerm": prev[1],
                "LeaderCommitIndex": commit,
                "Entries": [
                    {"Index": index, "Term": of, "Type": 0, "Data": text(f"w-{index}-{of}".encode())}
                    for index, of in entries
                ],
            },
        )

    def snapshot(self, index: int, snapshot_term: int, commands: list[bytes], term: int = 2) -> Any:
        state = b"".join(len(each).to_bytes(4, "big") + each for each in commands)
        request = {
            "SnapshotVersion": 1,
            "Term": term,
            "LastLogIndex": index,
            "LastLogTerm": snapshot_term,
            "Configuration": self.configuration,
            "ConfigurationIndex": 1,
            "Size": len(state),
        }
        return self.call("install_snapshot", request, state)

    def commands(self) -> list[str]:
        return list(self.python.ask("commands", prefix="w"))

    def wait_for(self, *commands: str) -> None:
        eventually(lambda: self.commands() == list(commands), f"exactly {commands} are applied")


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(params=["tcp", "grpc"])
def scene(go_server, tmp_path, request):
    with Cluster(tmp_path, ("go", "py", "py"), request.param, go_server, timeout=300.0) as cluster:
        go, python = cluster.members["n1"], cluster.members["n2"]
        cluster.start("n1", "n2")
        cluster.bootstrap(python)
        servers = [cluster.entry(member) for member in cluster.members.values()]
        yield Scene(cluster, go, python, go.ask("encode_configuration", servers=servers))


def test_what_a_faulty_go_leader_sends(scene):
    nothing_beyond_what_a_request_proves_is_committed(scene)
    heartbeat_says_nothing_about_the_log(scene)
    late_snapshot_takes_nothing_back(scene)
    snapshot_replaces_the_log_that_contradicts_it(scene)
    strangers_change_nothing(scene)
    errors_are_those_that_go_knows(scene)


def nothing_beyond_what_a_request_proves_is_committed(scene):
    answer = scene.append((1, 1), [(index, 2) for index in range(2, 9)], commit=3)
    assert answer["Success"]
    scene.wait_for("w-2-2", "w-3-2")
    # Duplicates, and a commit index that is that of a longer log: 5 to 8 may differ there.
    answer = scene.append((3, 2), [(4, 2)], commit=8)
    assert answer["Success"]
    scene.wait_for("w-2-2", "w-3-2", "w-4-2")
    assert scene.python.status()["commit_index"] == 4


def heartbeat_says_nothing_about_the_log(scene):
    answer = scene.append((0, 0), [], commit=0)
    assert answer["Success"] and answer["LastLog"] == 8
    now = scene.python.status()
    assert (now["last_index"], now["commit_index"]) == (8, 4)


def late_snapshot_takes_nothing_back(scene):
    """Go's leader sends one again whose answer it has missed, and Go's follower then goes back."""
    assert scene.snapshot(2, 2, [b"w-2-2"])["Success"]
    assert scene.commands() == ["w-2-2", "w-3-2", "w-4-2"]
    now = scene.python.status()
    assert (now["last_index"], now["commit_index"]) == (8, 4)


def snapshot_replaces_the_log_that_contradicts_it(scene):
    """A Go follower keeps 7 and 8, and refuses for ever what follows the snapshot."""
    before = [b"w-2-2", b"w-3-2", b"w-4-2", b"w-5-3", b"w-6-3"]
    assert scene.snapshot(6, 3, before, term=3)["Success"]
    answer = scene.append((6, 3), [(7, 3)], commit=7, term=3)
    assert answer["Success"]
    scene.wait_for(*[each.decode() for each in before], "w-7-3")
    assert scene.python.status()["last_index"] == 7


def strangers_change_nothing(scene):
    before = scene.python.status()
    vote = {"Term": 99, "LastLogIndex": 99, "LastLogTerm": 99, "Candidate": text(b"10.0.0.9:1")}
    assert not scene.call("request_vote", vote, id="stranger")["Granted"]
    try:
        scene.call("timeout_now", {}, id="stranger")
    except NotDoneError:
        pass
    now = scene.python.status()
    assert (now["term"], now["state"], now["leader"]) == (before["term"], "Follower", "n1")


def errors_are_those_that_go_knows(scene):
    request = {"Term": 3, "PrevLogEntry": 7, "PrevLogTerm": 3, "LeaderCommitIndex": 7}
    with pytest.raises(NotDoneError, match="operation not supported with current protocol version"):
        scene.call("append_entries", request, version=9)
    assert scene.call("append_entries", request)["Success"]
