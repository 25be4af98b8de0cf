"""Watches every future that a simulated program was given: it is resolved once, and truthfully."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import FSMFailedError, NotAppliedError, OutcomeUnknownError, RaftError, RaftShutdownError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..futures import ApplyFuture
    from .cluster import SimCluster, SimServer
    from .sim_runtime import Group

_SENSIBLE = (NotAppliedError, OutcomeUnknownError, RaftShutdownError, FSMFailedError)


class _Watched:
    """A future, and what it said when it was done."""

    __slots__ = ("command", "error", "future", "is_done", "value")

    def __init__(self, command: bytes, future: ApplyFuture) -> None:
        self.command = command
        self.future = future
        self.is_done = False
        self.error: BaseException | None = None
        self.value: Any = None


class FutureWatch:
    """The futures of every incarnation that still runs."""

    def __init__(self, cluster: SimCluster, broken: Callable[[str, str], None]) -> None:
        """``broken`` is told of every promise that does not hold."""
        self._cluster = cluster
        self._broken = broken
        self._watched: dict[Group, list[_Watched]] = {}

    def made(self, server: SimServer, group: Group, command: bytes, future: ApplyFuture) -> None:
        """``future`` is of ``command``, given to ``server``."""
        watched = _Watched(command, future)
        self._watched.setdefault(group, []).append(watched)
        future.add_done_callback(partial(self._done, server, group, watched))

    def pending(self, group: Group) -> int:
        """How many futures of an incarnation are not done."""
        return sum(not watched.future.done() for watched in self._watched.get(group, ()))

    def check(self, group: Group) -> None:
        """Whether the futures of an incarnation still say what they said when they were done."""
        for watched in self._watched.get(group, ()):
            if watched.is_done:
                self._check_unchanged(watched)

    def check_all(self) -> None:
        """The same for all that still run."""
        for group in self._watched:
            self.check(group)

    def ended(self, group: Group) -> None:
        """An incarnation is over: nobody looks at its futures any more."""
        self.check(group)
        self._watched.pop(group, None)

    def _done(self, server: SimServer, group: Group, watched: _Watched, future: Future[Any]) -> None:
        """On the thread that resolved it."""
        scheduler = self._cluster.scheduler
        if group.dead:
            return
        before, scheduler.undisturbed = scheduler.undisturbed, True
        if watched.is_done:
            self._broken("I11", f"the future of {watched.command!r} called its callbacks twice")
        watched.is_done = True
        watched.error, watched.value = _said(watched.future)
        if watched.error is None:
            self._check_success(server, watched)
        else:
            self._check_error(watched)
        scheduler.undisturbed = before

    def _check_success(self, server: SimServer, watched: _Watched) -> None:
        judge = self._cluster.judge
        command, index = watched.command, watched.future.index
        entry = judge.committed[index] if 0 < index < len(judge.committed) else None
        if entry is None or entry.data != command:
            self._broken("I11", f"{command!r} was answered as entry {index}, which is {entry!r}")
            return
        results = judge.seen(server.id).results
        if index not in results:
            self._broken(
                "I11", f"{command!r} was answered, and the FSM of {server.id} never got entry {index}"
            )
        elif results[index] is not watched.value:
            said = f"{watched.value!r} where its FSM said {results[index]!r}"
            self._broken("I11", f"{command!r} was answered with {said}")

    def _check_error(self, watched: _Watched) -> None:
        error = watched.error
        assert error is not None
        if isinstance(error, RaftError) and not isinstance(error, _SENSIBLE):
            self._broken("I11", f"the future of {watched.command!r} failed with {error!r}")
        judge, index = self._cluster.judge, getattr(watched.future, "_index", 0)
        is_committed = 0 < index < len(judge.committed) and judge.committed[index].data == watched.command
        if is_committed and _says_not_applied(error):
            self._broken(
                "I11",
                f"{watched.command!r} failed as not applied, and is committed as entry {index}: {error!r}",
            )
        self._cluster.judge.scout.future_failed(error)

    def _check_unchanged(self, watched: _Watched) -> None:
        error, value = _said(watched.future)
        if error is not watched.error or value is not watched.value:
            before = repr(watched.error or watched.value)
            self._broken(
                "I11", f"the future of {watched.command!r} said {before} and says {error or value!r} now"
            )


def _says_not_applied(error: BaseException) -> bool:
    if isinstance(error, RaftShutdownError):
        return not error.outcome_unknown
    return isinstance(error, NotAppliedError)


def _said(future: ApplyFuture) -> tuple[BaseException | None, Any]:
    error = future.exception(0)
    return error, None if error is not None else future.result(0)
