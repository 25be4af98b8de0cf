"""What other servers should not be, or hold: of another cluster, without an address, damaged."""

from pathlib import Path

import pytest

from tests.interop.clusters import Cluster, Member, eventually
from tests.interop.markers import MARKS, TRANSPORTS, at_length
from tests.interop.stories import MIB, forget_old_entries

pytestmark = MARKS

REFUSAL = "given to two clusters"


@TRANSPORTS
def test_a_go_cluster_that_was_given_our_address_neither_deposes_nor_changes_ours(
    go_server, tmp_path, transport
):
    ours = Cluster(tmp_path / "ours", ("py", "go", "py"), transport, go_server)
    theirs = Cluster(tmp_path / "theirs", ("go",), transport, go_server, ids="foreign")
    with ours, theirs:
        for cluster in (ours, theirs):
            cluster.start()
            cluster.bootstrap(*cluster.members.values())
            cluster.write(20)
        for _ in range(8):  # a later term than any of ours
            theirs.kill("foreign1")
            theirs.start("foreign1")
            theirs.write(1)
        follower, leader = (member for member in ours.members.values() if member.language == "py")
        ours.lead(leader)
        before = ours.converge()
        assert theirs.leader().status()["term"] > before["term"] + 3

        for number, victim in enumerate((follower, leader)):
            theirs.leader().ask("add_nonvoter", id=f"foreign{number + 2}", address=victim.address)
            eventually(lambda victim=victim: REFUSAL in victim.process.last_words(), "it is refused")

        def undisturbed():
            ours.lead(leader)
            first = ours.converge()
            ours.write(50)
            now = ours.converge()
            return (now["term"], now["leader"]) == (first["term"], leader.id)

        # A busy machine may depose a leader, too, but not time and again.
        assert any(undisturbed() for _ in range(5))
        theirs.write(5)


@TRANSPORTS
def test_an_address_that_nobody_can_parse_harms_nobody(go_server, tmp_path, transport):
    with Cluster(tmp_path, ("py", "go", "go"), transport, go_server) as cluster:
        cluster.start()
        cluster.bootstrap(cluster.of("go"))
        for number, address in enumerate(("no address at all", "[::1", "127.0.0.1:no-port")):
            nowhere = Member(f"nowhere{number}", "py", {"advertise": address})
            cluster.change("add_nonvoter", nowhere, by=cluster.of("py"))
            for language in ("go", "py"):
                cluster.lead(cluster.of(language))
                cluster.write(10)
            cluster.converge()
            cluster.change("remove", nowhere, by=cluster.of("go"))
        cluster.write(10)
        cluster.converge()


@pytest.mark.parametrize(
    ("transport", "language", "complaint"),
    [
        ("tcp", "py", "checksum"),
        ("grpc", "go", "CRC"),
        pytest.param("grpc", "py", "checksum", marks=at_length),
        pytest.param("tcp", "go", "CRC", marks=at_length),
    ],
)
def test_a_damaged_snapshot_is_not_sent_and_the_cluster_goes_on(
    go_server, tmp_path, transport, language, complaint
):
    other = "go" if language == "py" else "py"
    with Cluster(tmp_path, (language, other, language), transport, go_server) as cluster:
        cluster.start()
        cluster.bootstrap(cluster.of("py"))
        leader, away = cluster.of(language), cluster.of(other)
        cluster.lead(leader)
        cluster.converge()
        cluster.stop(away.id)
        for _ in range(4):  # more than a Python leader keeps in memory
            cluster.apply(3 * MIB - 1024)
        cluster.write(20)
        forget_old_entries(leader, cluster.running())
        damage_snapshots(Path(leader.settings["path"]))

        cluster.start(away.id)
        eventually(lambda: complaint in leader.process.log.read_text(errors="replace"), "the damage is found")
        cluster.write(20)
        if language == "go":  # Python's leader takes a new one by itself
            leader.ask("snapshot")
        cluster.converge()


def damage_snapshots(folder):
    """Flip a bit in the middle of every snapshot's state."""
    states = list(folder.glob("**/state.bin"))
    assert states
    for state in states:
        with state.open("r+b") as file:
            file.seek(state.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes((byte ^ 1,)))
