"""Mixed clusters under faults at random, while clients write: nothing is lost, and all end up equal."""

import os
import random
import time

import pytest

from tests.interop.clients import Writers
from tests.interop.clusters import Cluster, GoneError, Member, NotDoneError
from tests.interop.markers import MARKS, TRANSPORTS, at_length

pytestmark = MARKS

SECONDS = float(os.environ.get("INTEROP_STORM_SECONDS", "30"))


class Storm:
    """Does something to some server of a cluster, and undoes it later; at most a minority is away."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._away: dict[str, str] = {}  # id -> what was done to it
        self.done: list[str] = []

    def blow(self) -> None:
        """One change."""
        minority = (len(self._cluster.members) - 1) // 2
        if self._away and (len(self._away) >= minority or self._rng.random() < 0.4):
            self.undo(self._rng.choice(sorted(self._away)))
            return
        here = sorted(self._cluster.members.keys() - self._away.keys())
        what = self._rng.choice(["kill", "cut", "pause", "transfer", "snapshot"])
        member = self._cluster.members[self._rng.choice(here)]
        self.done.append(f"{what} {member.id}")
        if what == "transfer":
            self._transfer(member)
        elif what == "snapshot":
            _try(member, "snapshot")
        else:
            self._away[member.id] = what
            if what == "kill":
                self._cluster.kill(member.id)
            elif what == "pause":
                self._cluster.pause(member.id)
            self._cut()

    def undo(self, id: str) -> None:
        what = self._away.pop(id)
        self.done.append(f"un{what} {id}")
        if what == "kill":
            self._cluster.start(id)
        elif what == "pause":
            self._cluster.resume(id)
        self._cut()

    def end(self) -> None:
        for id in sorted(self._away):
            self.undo(id)

    def _cut(self) -> None:
        self._cluster.links.cut_off(*[id for id, what in self._away.items() if what == "cut"])

    def _transfer(self, target: Member) -> None:
        for member in self._cluster.running():
            if self._away.get(member.id) != "pause" and member is not target:
                _try(member, "transfer", id=target.id, address=target.address)


def _try(member: Member, do: str, **arguments: str) -> None:
    try:
        member.send(do, **arguments).result(2)
    except (GoneError, NotDoneError, TimeoutError):
        pass


@at_length
@TRANSPORTS
@pytest.mark.parametrize("seed", [1, 2])
def test_storm(go_server, tmp_path, transport, seed):
    rng = random.Random(seed)
    with Cluster(
        tmp_path, ("go", "py", "go", "py", "py"), transport, go_server, trailing_logs=2000
    ) as cluster:
        cluster.start()
        cluster.bootstrap(cluster.members["n1"])
        cluster.leader()
        storm = Storm(cluster, rng)
        try:
            with Writers(cluster, 4):
                end = time.monotonic() + SECONDS
                while time.monotonic() < end:
                    storm.blow()
                    time.sleep(rng.uniform(0.1, 2.0))  # weather takes its time
                storm.end()
        finally:
            print(", ".join(storm.done))
        cluster.write(20)
        cluster.converge()
        print(f"{len(cluster.acknowledged)} commands were acknowledged")
