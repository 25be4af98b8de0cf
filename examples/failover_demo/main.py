"""Three servers, clients that write without pause, and everything that kills servers.

    python examples/failover_demo/main.py

Three processes keep one list of commands.  Their leader is killed three times and frozen once,
and in the end all three are killed at the same instant.  Then the demo checks, with what the
servers answer and with their logs on disk, that every write that was acknowledged is there
exactly once, in the same order on all three.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from check import Verdict, check_logs, check_states, read_log
from client import Clients
from cluster import Cluster, ClusterError
from faults import Faults
from panel import ClusterPanel
from screen import BOLD, GREEN, RED, Screen, styled
from watch import Watch

from pyraft import StorageError

NAMES = ["n1", "n2", "n3"]
SETTLE_TIMEOUT = 20.0  # seconds for all to apply the same entries once nothing disturbs them


def main() -> int:
    options = parse_options()
    signal.signal(signal.SIGTERM, _interrupt)  # so that it cleans up as after Ctrl-C
    folder = Path(tempfile.mkdtemp(prefix="pyraft-demo-"))
    screen = Screen(options.plain)
    began = time.monotonic()
    try:
        problems = run(options, screen, folder)
    except (ClusterError, TimeoutError, StorageError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    finally:
        screen.close()
    for problem in problems:
        screen.print(styled(f"WRONG: {problem}", RED))
    if problems:
        logs = sorted(str(path) for path in folder.rglob("*.log"))
        screen.print("data and logs of the servers are kept:\n  " + "\n  ".join(logs))
        return 1
    screen.print(styled(f"All is well, after {time.monotonic() - began:.1f} s.", GREEN + BOLD))
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="kill one leader only; a few seconds")
    parser.add_argument(
        "--seconds", type=float, help="undisturbed time before and after restarts (default 1)"
    )
    parser.add_argument("--clients", type=int, default=6, help="how many write at a time (default 6)")
    parser.add_argument("--plain", action="store_true", help="lines without colours or drawing")
    options = parser.parse_args()
    if options.seconds is None:
        options.seconds = 0.5 if options.quick else 1.0
    return options


def run(options: argparse.Namespace, screen: Screen, folder: Path) -> list[str]:
    """The whole demo; returns what was found wrong."""
    screen.event("starting three servers")
    cluster = Cluster.start(NAMES, folder)
    watch = Watch(cluster.servers, lambda name, term: screen.event(f"{name} leads term {term}", BOLD))
    clients = Clients(options.clients, cluster.client_ports)
    try:
        screen.show(ClusterPanel(cluster, watch, clients))
        watch.start()
        watch.wait_for_leader(SETTLE_TIMEOUT)
        clients.start()
        faults = Faults(cluster, watch, clients, screen.event, options.seconds)
        disturb(faults, options.quick)
        clients.stop()
        screen.event("the clients have stopped; comparing")
        screen.close()
        verdict = examine(cluster, clients)
    except (ClusterError, TimeoutError):
        for server in cluster.servers.values():
            server.log_stacks()
        raise
    finally:
        clients.stop()
        watch.stop()
        cluster.close()
    report(screen, clients, faults, verdict)
    return verdict.problems() + clients.failures()


def disturb(faults: Faults, quick: bool) -> None:
    """The story."""
    faults.none()
    faults.kill_leader()
    if quick:
        return
    faults.kill_leader()
    faults.kill_leader()
    faults.freeze_leader()
    faults.kill_all()


def examine(cluster: Cluster, clients: Clients) -> Verdict:
    """Compare the clients' notes, the servers' states and, after stopping them, their logs."""
    committed = wait_settled(cluster)
    states = {name: server.dump() for name, server in cluster.servers.items()}
    verdict = check_states(clients.acknowledged(), clients.unknown(), states)
    verdict.other += cluster.stop()
    logs = {name: read_log(server.directory, committed) for name, server in cluster.servers.items()}
    verdict.other += check_logs(logs, states)
    return verdict


def wait_settled(cluster: Cluster) -> int:
    """Block until all servers have applied one and the same last entry; return its index."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while True:
        known = {name: server.ask({"do": "status"}, 1.0) for name, server in cluster.servers.items()}
        ends = {said[key] if said else 0 for said in known.values() for key in ("last", "applied")}
        if len(ends) == 1 and 0 not in ends:
            return int(ends.pop())
        if time.monotonic() > deadline:
            raise ClusterError(f"not all have applied the same after {SETTLE_TIMEOUT:g} s: {known}")
        time.sleep(0.05)


def report(screen: Screen, clients: Clients, faults: Faults, verdict: Verdict) -> None:
    """The closing table."""
    rows = [
        ("acknowledged", f"{clients.acknowledged_count:,}", "writes that a client was told are done"),
        ("unknown", f"{clients.unknown_count:,}", f"{verdict.applied_unknown} of them were applied"),
        ("lost", f"{len(verdict.lost):,}", "acknowledged, and missing somewhere"),
        ("doubled", f"{len(verdict.doubled):,}", "applied more than once"),
    ]
    screen.print()
    for what, count, meaning in rows:
        screen.print(f"  {what:14}{count:>8}   {meaning}")
    screen.print("\n  unavailable")
    for outage in faults.outages:
        screen.print(f"  {outage.seconds:20.2f} s {outage.fault}")
    screen.print()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
