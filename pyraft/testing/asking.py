"""Asks a server something on a thread of its own program, as that program would, and waits for the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import TransportError
from .question_watch import Kind
from .sim_runtime import SimSignal

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..raft import Raft
    from .cluster import SimCluster, SimServer

Question = Callable[["Raft"], "Future[Any]"]
"""Makes a future, as ``lambda raft: raft.verify_leader()``."""


class Reply:
    """What became of one question.

    Attributes:
        error: None once it succeeded; TimeoutError while there is no answer.
        looked: what ``look`` returned.
        asked_at: the instant of the question.
        looked_at: the instant at which ``look`` had returned, 0 before.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.error: BaseException | None = TransportError("connection refused")
        self.looked: Any = None
        self.asked_at = 0.0
        self.looked_at = 0.0


def ask(
    cluster: SimCluster,
    server: SimServer,
    kind: Kind,
    question: Question,
    patience: float,
    target: str | None = None,
    look: Callable[[], Any] = lambda: None,
) -> Reply:
    """Ask ``question`` on a thread of ``server``'s process; the judge looks at the answer.

    Returns within ``patience`` virtual seconds and a little, whatever happens to the server.

    Args:
        target: who is to lead, of a transfer.
        look: called on that thread at once when the answer is a success.
    """
    reply = Reply()
    raft = server.raft
    if raft is None or not server.is_up:
        return reply
    over = SimSignal(cluster.world)
    server.callers[over] = None

    def work() -> None:
        reply.asked_at, reply.error = cluster.now, TimeoutError("no answer")
        asked = cluster.judge.questions.asking(server, kind, target)
        try:
            future = question(raft)
            cluster.judge.questions.asked(asked, future)
            reply.value = future.result(patience)
            reply.looked = look()
            reply.looked_at = cluster.now
            reply.error = None
        except Exception as error:
            reply.error = error
        over.set()

    cluster.scheduler.spawn(f"user-{server.id}-{kind.value}", work, server.group)
    if not over.wait(patience + 1.0) and not reply.asked_at:
        reply.error = TimeoutError("no answer")  # that thread stands still, and may ask when it goes on
    server.callers.pop(over, None)
    return reply
