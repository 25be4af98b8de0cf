"""Writes down what happens in a simulated cluster: messages, disk writes, roles, commits, faults.

It only looks on: a run with a recorder has the digest of one without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..messages import AnyRequest, AnyResponse
from .sim_disk import StoredSnapshot, Transaction
from .sim_runtime import SimulationError
from .wording import is_idle, message_words, write_words

if TYPE_CHECKING:
    from .cluster import SimCluster, SimServer

_MOST = 400_000  # events that are kept, the latest ones


@dataclass(slots=True)
class Message:
    """One message on its way.

    Attributes:
        sent: (virtual time, place among the events) of its sending.
        arrived: the same of each arrival; none if it was lost, two if it was doubled.
        is_idle: whether it is a heartbeat or an empty append, or the answer to one.
    """

    number: int
    src: str
    dst: str
    words: str
    is_idle: bool
    sent: tuple[float, int]
    arrived: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Event:
    """Something that happened.

    Attributes:
        place: its number among all events.
        kind: sent, arrived, write, role, commit, fault, note or failure.
        server: on whom; "" = on none in particular.
    """

    place: int
    time: float
    step: int
    kind: str
    server: str
    words: str
    message: Message | None = None


class Recorder:
    """Sees everything of one cluster.

    Attributes:
        events: the latest ones, oldest first.
        dropped: how many older ones were not kept.
    """

    def __init__(self, until_step: int | None = None) -> None:
        """``until_step``: stop the simulation at the first event from this step on."""
        self.events: deque[Event] = deque(maxlen=_MOST)
        self._until_step = until_step
        self._messages: dict[int, tuple[object, Message]] = {}  # id() -> (the object, so that it stays; ours)
        self._published: dict[str, tuple[str, int]] = {}
        self._commits: dict[str, int] = {}
        self._count = 0

    @property
    def dropped(self) -> int:
        return self._count - len(self.events)

    def attach(self, cluster: SimCluster) -> None:
        """Begin to watch; called before the first server starts."""
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        cluster.network.watchers.append(self)
        cluster.network.journal = self
        for server in cluster.servers.values():
            server.disk.watchers.append(self)
        cluster.scheduler.events = _Tap(self._noted, cluster.scheduler.events)

    # -- what the network tells ------------------------------------------------------------------

    def request_sent(self, src: str, dst: str, request: AnyRequest) -> None:
        self._sent(src, dst, request, is_idle(request))

    def response_sent(self, src: str, dst: str, request: AnyRequest, response: AnyResponse) -> None:
        self._sent(src, dst, response, is_idle(request))

    def follow(self, message: object, arrive: Callable[[], None]) -> Callable[[], None]:
        """``arrive``, which also tells this recorder."""
        _, known = self._messages.pop(id(message), (None, None))
        if known is None:
            return arrive

        def arrived() -> None:
            known.arrived.append((self._scheduler.time, self._count))
            self._add("arrived", known.dst, known.words, known)
            arrive()

        return arrived

    def _sent(self, src: str, dst: str, message: AnyRequest | AnyResponse, idle: bool) -> None:
        source, target = src.split(":")[0], dst.split(":")[0]
        self._look(source)
        words = self._undisturbed(lambda: message_words(message))
        sent = self._scheduler.time, self._count
        known = Message(self._count, source, target, words, idle, sent)
        self._messages[id(message)] = message, known
        self._add("sent", source, words, known)

    # -- what disks and the scheduler tell ---------------------------------------------------------

    def disk_changed(self, server: str, transaction: Transaction) -> None:
        self._look(server)
        self._add("write", server, self._undisturbed(lambda: write_words(transaction)))

    def snapshot_kept(self, server: str, snapshot: StoredSnapshot) -> None:
        meta = snapshot.meta
        self._add("write", server, f"snapshot of entry {meta.index} of term {meta.term}")

    def disk_wiped(self, server: str) -> None:
        """Told by a note as well."""

    def _noted(self, event: tuple[Any, ...]) -> None:
        _, _, what, *details = event
        if what == "commit":  # of a disk: ``disk_changed`` says more
            return
        kind = what if what in ("fault", "failure") else "note"
        server, words = "", f"{what} {' '.join(str(detail) for detail in details)}".strip()
        if len(details) == 1 and isinstance(details[0], str):
            place = details[0].split("#")[0]
            if place in self._cluster.servers:
                server, words = place, what
        self._add(kind, server, words)

    # -- what servers publish ----------------------------------------------------------------------

    def _look(self, id: str) -> None:
        server = self._cluster.servers[id]
        if server.raft is not None and server.is_up:
            self._undisturbed(lambda: self._compare(server))

    def _compare(self, server: SimServer) -> None:
        raft = server.raft
        assert raft is not None
        role, term, commit = str(raft.state), raft.term, raft.commit_index
        if self._published.get(server.id) != (role, term):
            self._published[server.id] = role, term
            self._add("role", server.id, f"{role} t{term}")
        before = self._commits.get(server.group.name, 0)
        if commit != before:
            self._commits[server.group.name] = commit
            self._add("commit", server.id, f"commit index #{commit}")

    def _undisturbed(self, look: Callable[[], Any]) -> Any:
        """Call ``look`` without switches between its lines, which are production code's."""
        scheduler = self._scheduler
        before, scheduler.undisturbed = scheduler.undisturbed, True
        try:
            return look()
        finally:
            scheduler.undisturbed = before

    def _add(self, kind: str, server: str, words: str, message: Message | None = None) -> None:
        scheduler = self._scheduler
        self.events.append(Event(self._count, scheduler.time, scheduler.steps, kind, server, words, message))
        self._count += 1
        if self._until_step is not None and scheduler.steps >= self._until_step:
            self._until_step = None
            scheduler.fail(ReachedStep(f"stopped at step {scheduler.steps}, as asked\n{scheduler.stacks()}"))


class ReachedStep(SimulationError):
    """The step up to which somebody wanted to look."""


class _Tap(deque[tuple[Any, ...]]):
    """The scheduler's events, which are told on as they come."""

    def __init__(self, tell: Callable[[tuple[Any, ...]], None], before: deque[tuple[Any, ...]]) -> None:
        super().__init__(before, before.maxlen)
        self._tell = tell

    def append(self, event: tuple[Any, ...]) -> None:
        super().append(event)
        self._tell(event)
