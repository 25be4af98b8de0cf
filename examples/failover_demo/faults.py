"""What is done to the servers, and for how long nothing could be written afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from client import Clients
from cluster import Cluster, ClusterError, ServerProcess
from screen import GREEN, RED, YELLOW
from watch import Watch

RECOVERY_TIMEOUT = 20.0  # seconds; far more than any election takes
FROZEN_S = 3.0


@dataclass(frozen=True)
class Outage:
    """One fault, and the time from it to the next acknowledged write."""

    fault: str
    seconds: float


class Faults:
    """Does one thing after another; every method returns when writes go on again.

    Each raises ClusterError or TimeoutError if they do not.
    """

    def __init__(
        self,
        cluster: Cluster,
        watch: Watch,
        clients: Clients,
        say: Callable[[str, str], None],
        calm_s: float,
    ) -> None:
        """``say`` gets a text and its style; ``calm_s``: seconds of peace before and after a restart."""
        self.outages: list[Outage] = []
        self._cluster = cluster
        self._watch = watch
        self._clients = clients
        self._say = say
        self._calm_s = calm_s

    def none(self) -> None:
        """Let the clients write undisturbed."""
        time.sleep(self._calm_s)
        self._check_nothing_else_broke()

    def kill_leader(self) -> None:
        """SIGKILL the leader, and start it again when the others have gone on without it."""
        leader, name, term = self._leader()
        struck_at = time.monotonic()
        leader.kill()
        self._say(f"SIGKILL {name}, leader of term {term}", RED)
        self._wait_for_writes(f"{name}, leader of term {term}, killed", struck_at)
        self.none()
        self._restart(leader)
        self.none()

    def freeze_leader(self) -> None:
        """SIGSTOP the leader for a while: it will wake up believing that it still leads."""
        leader, name, term = self._leader()
        struck_at = time.monotonic()
        leader.freeze()
        self._say(f"SIGSTOP {name}, leader of term {term}", YELLOW)
        self._wait_for_writes(f"{name}, leader of term {term}, frozen for {FROZEN_S:g} s", struck_at)
        time.sleep(max(struck_at + FROZEN_S - time.monotonic(), 0))
        leader.thaw()
        self._say(f"SIGCONT {name}, which has missed {time.monotonic() - struck_at:.1f} s", YELLOW)
        self._wait_caught_up(leader)
        self.none()

    def kill_all(self) -> None:
        """SIGKILL all servers at once, and start them again."""
        struck_at = time.monotonic()
        for server in self._cluster.servers.values():
            server.kill()
        self._say("SIGKILL all servers at once", RED)
        gone_at = time.monotonic()
        for server in self._cluster.servers.values():
            server.start()
        for server in self._cluster.servers.values():
            server.wait_ready()
        self._wait_for_writes("all killed at once and restarted", struck_at, gone_at)
        self.none()

    def _leader(self) -> tuple[ServerProcess, str, int]:
        name, term = self._watch.wait_for_leader(RECOVERY_TIMEOUT)
        return self._cluster.servers[name], name, term

    def _restart(self, server: ServerProcess) -> None:
        self._say(f"restart {server.name}", "")
        server.start()
        server.wait_ready()
        self._wait_caught_up(server)

    def _wait_caught_up(self, server: ServerProcess) -> None:
        """Block until ``server`` has applied what is committed now."""
        began = time.monotonic()
        known = [self._watch.status(name) for name in self._cluster.servers]
        target = max(said["committed"] for said in known if said is not None)
        while True:
            said = server.ask({"do": "status"}, 1.0)
            if said is not None and said["applied"] >= target:
                break
            if time.monotonic() - began > RECOVERY_TIMEOUT:
                raise ClusterError(f"{server.name} has not applied entry {target}; it says {said}")
            self._check_nothing_else_broke()
            time.sleep(0.02)
        self._say(f"{server.name} has caught up with entry {target}", GREEN)

    def _wait_for_writes(self, fault: str, struck_at: float, gone_at: float | None = None) -> None:
        """Block until a write that was sent after ``gone_at`` is acknowledged; note how long it took."""
        gone_at = time.monotonic() if gone_at is None else gone_at
        while (answered_at := self._clients.first_answer_after(gone_at)) is None:
            if time.monotonic() - struck_at > RECOVERY_TIMEOUT:
                raise ClusterError(f"no write was acknowledged within {RECOVERY_TIMEOUT:g} s: {fault}")
            self._check_nothing_else_broke()
            time.sleep(0.01)
        self.outages.append(Outage(fault, answered_at - struck_at))
        self._say(f"writes go on after {answered_at - struck_at:.2f} s", GREEN)

    def _check_nothing_else_broke(self) -> None:
        ended = [name for name, server in self._cluster.servers.items() if server.ended_by_itself()]
        if ended:
            raise ClusterError(f"ended although nobody touched it: {', '.join(ended)}")
        failures = self._clients.failures()
        if failures:
            raise ClusterError("; ".join(failures))
