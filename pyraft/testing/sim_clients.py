"""Clients of a simulated cluster: threads of a server's own program that call ``apply``.

``submit_all`` asks once; a ``KvClient`` goes on asking and writes down what it saw, for the
linearizability check.  Operation number k of a client draws from a stream of its own, so leaving
some out does not change what the others are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import NotAppliedError, NotLeaderError, RaftError, RaftShutdownError, TransportError
from ..futures import ApplyFuture
from .arguments import check_command
from .linearizability import Operation
from .sim_kv import CommandRefused, draw_operation, encode_command
from .sim_runtime import SimSignal

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..raft import Raft
    from .cluster import SimCluster, SimServer


class Patience(NamedTuple):
    """How long a caller waits.  Virtual seconds.

    Attributes:
        answers: for all answers together.
        room: for room in the queue, for each command.
        is_short: less than a healthy cluster may need, so that running into it proves nothing.
    """

    answers: float = 5.0
    room: float = inf
    is_short: bool = False


class Outcome:
    """What became of one command.

    Attributes:
        error: None once it succeeded; TimeoutError while there is no answer.
        index: the log index of a command that succeeded.
        certain: False if it may be applied later although there is an error.
        asked_at: the instant at which ``apply`` was called.
        answered_at: the instant at which its future was done.
        gave_up: the caller stopped waiting before that.
        in_haste: the caller waited for less than a healthy cluster may need.
    """

    def __init__(self, command: bytes, in_haste: bool = False) -> None:
        self.command = command
        self.in_haste = in_haste
        self.value: Any = None
        self.index = 0
        self.error: BaseException | None = TransportError("connection refused")
        self.certain = True
        self.asked_at = 0.0
        self.answered_at = 0.0
        self.gave_up = False

    def fail(self, error: BaseException) -> None:
        """Note ``error``, and whether it leaves the outcome open."""
        self.error = error
        self.certain = _is_certain(error)


def _is_certain(error: BaseException) -> bool:
    if isinstance(error, NotAppliedError):
        return True
    if isinstance(error, CommandRefused):
        return not error.has_applied
    if isinstance(error, RaftShutdownError):
        return not error.outcome_unknown
    return not isinstance(error, RaftError | TimeoutError)  # others are the FSM's answer


def submit_all(
    cluster: SimCluster,
    server: SimServer,
    commands: Sequence[bytes],
    patience: Patience,
) -> list[Outcome]:
    """Call ``apply`` for each on one thread of ``server``'s process, then wait for all the answers.

    Returns within ``patience`` and a little, whatever happens to the server.
    """
    outcomes = [Outcome(command, patience.is_short) for command in commands]
    raft, group = server.raft, server.group
    if raft is None or not server.is_up:
        return outcomes
    over = SimSignal(cluster.world)
    server.callers[over] = None
    work = partial(_ask, cluster, server, raft, outcomes, patience, over)
    cluster.scheduler.spawn(f"user-{server.id}", work, group)
    began = cluster.now
    is_over = over.wait(patience.answers + 1.0)
    server.callers.pop(over, None)
    for outcome in outcomes:
        if not is_over and not outcome.asked_at:  # that thread stands still, and may ask when it goes on
            outcome.asked_at = began
            outcome.fail(TimeoutError("no answer"))
        cluster.judge.answered(outcome)
    return outcomes


def _ask(
    cluster: SimCluster,
    server: SimServer,
    raft: Raft,
    outcomes: list[Outcome],
    patience: Patience,
    over: SimSignal,
) -> None:
    """On a thread of the server's process."""
    group, judge = server.group, cluster.judge
    deadline = cluster.now + patience.answers
    waiting: list[tuple[Outcome, ApplyFuture]] = []
    for outcome in outcomes:
        outcome.asked_at = cluster.now
        outcome.fail(TimeoutError("no answer"))
        # Those before it in the burst may have waited for room until little of the time was left.
        outcome.in_haste |= deadline - cluster.now < patience.answers / 2
        try:
            future = raft.apply(outcome.command, min(max(deadline - cluster.now, 0.0), patience.room))
        except Exception as error:
            outcome.fail(error)
            continue
        judge.asked(server, group, outcome.command, future)
        future.add_done_callback(partial(_note_instant, cluster, outcome))
        waiting.append((outcome, future))
    for outcome, future in waiting:
        began = cluster.now
        try:
            outcome.value = future.result(max(deadline - cluster.now, 0.0))
            outcome.index = future.index
            _note_instant(cluster, outcome, future)
            outcome.error = None  # last: its client may look at any moment
        except Exception as error:
            outcome.fail(error)
            outcome.gave_up = isinstance(error, TimeoutError) and not future.done()
        judge.woken(server, outcome, began)
    over.set()


def _note_instant(cluster: SimCluster, outcome: Outcome, future: Future[Any]) -> None:
    outcome.answered_at = outcome.answered_at or cluster.now  # callbacks come after those who wait
    if outcome.gave_up:
        cluster.judge.scout.reached("answer after the caller gave up")


class KvClient:
    """Asks a ``KvFsm`` for one thing after the other, or for many at once.

    Attributes:
        task: its thread.
        begun: the number of the latest operation that it began, 0 = none yet.
    """

    def __init__(
        self,
        cluster: SimCluster,
        name: str,
        rate: float,
        keys: int,
        burst: int = 1,
        left_out: Container[int] = (),
        haste: float = 0.0,
    ) -> None:
        """Start it.

        Args:
            rate: how often a second it asks, as long as answers come at once.
            keys: how many keys it uses; a burst uses a key for each of its commands instead, so
                that few commands of one key are under way together.
            burst: most commands that it submits before it waits for the first answer.
            left_out: numbers of operations, from 1, that it does not send.
            haste: the probability that it does not wait as long as an answer, or room in the queue, may take.
        """
        self._haste = haste
        self._cluster = cluster
        self._name = name
        self._rate = rate
        self._keys = keys
        self._burst = burst
        self._left_out = left_out
        self._goes_on = True
        self.begun = 0
        self._seen: dict[str, str | None] = {}
        self._target: str | None = None
        self.task = cluster.scheduler.spawn(name, self._run)

    def stop(self) -> None:
        """Begin nothing new."""
        self._goes_on = False

    def _run(self) -> None:
        first = 1
        while True:
            rng = self._stream("pace", first)
            self._cluster.scheduler.sleep(rng.expovariate(self._rate))
            if not self._goes_on:
                return
            target = rng.choice(list(self._cluster.servers))
            size = 1 if self._burst == 1 else 1 + int(rng.random() * self._burst)
            numbers = range(first, first + size)
            first += size
            self.begun = first - 1
            wanted = [(number, place) for place, number in enumerate(numbers) if number not in self._left_out]
            if wanted:
                self._ask(self._target or target, wanted, self._patience(first - size))

    def _patience(self, number: int) -> Patience:
        """For the operations from ``number`` on that it does at once."""
        if not self._haste:
            return Patience()
        rng = self._stream("patience", number)
        if rng.random() >= self._haste:
            return Patience()
        if self._burst > 1 and rng.random() < 0.7:
            return Patience(room=rng.choice([0.0, 0.001, 0.02]), is_short=True)
        return Patience(answers=rng.expovariate(1.0) * rng.choice([0.005, 0.1]), is_short=True)

    def _stream(self, purpose: str, number: int) -> random.Random:
        return self._cluster.scheduler.random(f"{purpose}:{self._name}:{number}")

    def _draw(self, number: int, place: int) -> tuple[str, tuple[str, ...]]:
        """(key, operation) of operation ``number``, at ``place`` in its burst."""
        rng = self._stream("client", number)
        key = f"k{int(rng.random() * self._keys)}" if self._burst == 1 else f"b{place}"
        return key, draw_operation(rng, f"{self._name}.{number}", self._seen.get(key))

    def _ask(self, target: str, wanted: list[tuple[int, int]], patience: Patience) -> None:
        """Do the operations of these (numbers, places in their burst)."""
        cluster = self._cluster
        operations = [self._draw(number, place) for number, place in wanted]
        commands = [encode_command(key, operation) for key, operation in operations]
        outcomes = self._submit(target, commands, patience)
        for (key, operation), outcome in zip(operations, outcomes, strict=True):
            error = outcome.error
            if error is None:
                self._remember(key, operation, outcome.value)
                cluster.history.append(
                    Operation(
                        self._name, key, operation, outcome.value, outcome.asked_at, outcome.answered_at
                    )
                )
            elif operation[0] == "get":
                pass  # whether it was applied makes no difference
            elif outcome.certain and isinstance(error, RaftError):
                cluster.judge.not_applied(outcome.command)
            elif not outcome.certain:
                cluster.judge.in_doubt(outcome.command)
                cluster.history.append(Operation(self._name, key, operation, None, outcome.asked_at))

    def _submit(self, target: str, commands: list[bytes], patience: Patience) -> list[Outcome]:
        outcomes = submit_all(self._cluster, self._cluster.servers[target], commands, patience)
        last = outcomes[-1].error
        self._target = target if last is None else None
        if isinstance(last, NotLeaderError):
            self._target = last.leader_id
        return outcomes

    def _remember(self, key: str, operation: tuple[str, ...], value: Any) -> None:
        match operation:
            case ("put", new):
                self._seen[key] = new
            case ("cas", _, new):
                self._seen[key] = new if value else None
            case _:
                self._seen[key] = value


class CommandClient(KvClient):
    """Sends commands of the user's own, and writes down what it saw in ``SimCluster.commands``."""

    def __init__(
        self,
        cluster: SimCluster,
        name: str,
        rate: float,
        burst: int,
        left_out: Container[int],
        haste: float,
        draw_command: Callable[[random.Random], bytes],
    ) -> None:
        """Start it; ``draw_command`` makes each command from the stream it is given."""
        self._draw_command = draw_command
        super().__init__(cluster, name, rate, 1, burst, left_out, haste)

    def _ask(self, target: str, wanted: list[tuple[int, int]], patience: Patience) -> None:
        commands = [self._draw_command(self._stream("client", number)) for number, _ in wanted]
        for command in commands:
            check_command(command)
        for outcome in self._submit(target, commands, patience):
            asked = Operation(self._name, None, outcome.command, None, outcome.asked_at)
            if outcome.error is None:
                asked = replace(asked, output=outcome.value, returned=outcome.answered_at)
            elif outcome.certain:
                continue  # it was not applied, or changed nothing
            self._cluster.commands.append(asked)
