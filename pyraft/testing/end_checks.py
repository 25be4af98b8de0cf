"""What must hold at the end of a run, when nothing is wrong any more: progress, equal states, clean ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RaftError
from .captured import captured_bytes
from .invariants import Violation
from .question_watch import Kind
from .sim_runtime import ServerDownError

if TYPE_CHECKING:
    from .cluster import SimCluster

_READS_WITHIN = 10.0  # virtual seconds, while nothing is wrong


class EndChecks:
    """Runs a cluster, whose faults have ended, and looks at what becomes of it."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._judge = cluster.judge

    def check_liveness(self, timeout: float) -> None:
        """I14: somebody leads and new commands succeed.

        Raises:
            Violation: not within ``timeout``.
        """
        cluster = self._cluster
        deadline = cluster.now + timeout
        while cluster.now < deadline:
            cluster.revive_all()  # a damaged record may be met only now
            leader = cluster.current_leader()
            if leader is not None and leader.raft is not None:
                try:
                    leader.raft.barrier(1.0).result(2.0)
                    self._judge.calm_since = cluster.now
                    return
                except (RaftError, TimeoutError, ServerDownError):
                    pass  # a fault that struck before may still crash somebody
            cluster.run(0.05)
        raise Violation("I14", f"no new command succeeded within {timeout:g} s after the faults ended")

    def check_equal_states(self, timeout: float) -> None:
        """I14, I5: every server applies the whole log, and all end in the same state.

        Raises:
            Violation: they do not.
        """
        cluster = self._cluster
        try:
            cluster.run_until(self._all_caught_up, timeout)
        except TimeoutError as error:
            raise Violation("I14", "not every server caught up after the faults ended") from error
        states: dict[bytes, str] = {}
        for server in self._judge.roster.member_servers():
            if server.fsm is not None:
                states.setdefault(captured_bytes(server.fsm.snapshot()), server.id)
        if len(states) > 1:
            raise Violation("I5", f"the states of {' and '.join(states.values())} differ after the same log")

    def _all_caught_up(self) -> bool:
        self._cluster.revive_all()
        leader = self._cluster.current_leader()
        if leader is None or leader.raft is None:
            return False
        last = leader.raft.last_index
        return all(
            server.is_serving and server.raft is not None and server.raft.applied_index == last
            for server in self._judge.roster.member_servers()
        )

    def check_reads(self) -> None:
        """I13, I14: every member can read.

        Raises:
            Violation: it cannot.
        """
        for server in self._judge.roster.member_servers():
            if server.raft is None:
                continue
            asked = self._judge.questions.asking(server, Kind.READ)
            future = server.raft.read_index(_READS_WITHIN)
            self._judge.questions.asked(asked, future)
            try:
                future.result(_READS_WITHIN + 1.0)
            except (RaftError, TimeoutError, ServerDownError) as error:
                raise Violation("I14", f"nothing is wrong, and {server.id} cannot read: {error!r}") from error

    def check_shutdown(self) -> None:
        """I12: every server ends when it is asked to, and leaves no thread and no future.

        Raises:
            Violation: it does not.
        """
        cluster = self._cluster
        self._judge.timekeeper.check_end_at_work()
        for server in cluster.servers.values():
            if server.raft is None or not server.is_up:
                continue
            self._judge.check_failure(server)
            server.raft.shutdown().result(60.0)
            self._judge.check_stopped(server, server.group)
