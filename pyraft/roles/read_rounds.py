"""Proof that this server still leads: a majority of the voters that answered *after* the question.

Main thread only.  Everybody who asks while a round is on its way shares the next one.

Source: dissertation §6.4.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from ..context import NodeContext
from ..errors import RaftError
from ..rules.timing import majority_contact
from ..sessions import Leadership

Answer = Callable[["int | RaftError"], None]


class _Asked(NamedTuple):
    at: float
    commit: int
    answer: Answer


class ReadRounds:
    """Who waits for the proof."""

    def __init__(
        self,
        node: NodeContext,
        leadership: Leadership,
        contacts: Callable[[], list[float]],
        beat_now: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            contacts: for every voter, when the latest request was sent that it answered.
            beat_now: let every heartbeat thread send one at once.
        """
        self._node = node
        self._leadership = leadership
        self._contacts = contacts
        self._beat_now = beat_now
        self._early: list[Answer] = []  # reads that came before our own-term commit
        self._asked: list[_Asked] = []

    def verify(self, answer: Answer) -> None:
        """Answer once a majority has confirmed this leadership; the number says nothing."""
        self._ask([answer])

    def read(self, answer: Answer, may_read: bool) -> None:
        """Answer with the read index.

        Args:
            may_read: whether an entry of our own term is committed.  Before that our commit
                index may be behind what an earlier leader acknowledged (§6.4, step 1).
        """
        if may_read:
            self._ask([answer])
        else:
            self._early.append(answer)

    def own_term_committed(self) -> None:
        """From now on our commit index covers every acknowledged write."""
        early, self._early = self._early, []
        if early:
            self._ask(early)

    def look(self) -> None:
        """Answer those whose question a majority has answered by now."""
        if not self._asked:
            return
        confirmed = majority_contact(self._contacts())
        # A request that was sent at the very instant of the question may have left before it.
        done = [asked for asked in self._asked if asked.at < confirmed]
        self._asked = [asked for asked in self._asked if asked.at >= confirmed]
        self._leadership.asked_at = self._asked[0].at if self._asked else inf
        for asked in done:
            asked.answer(asked.commit)

    def end(self, make_error: Callable[[], RaftError]) -> None:
        """The leadership ends: nobody gets an answer from it."""
        answers = [*self._early, *(asked.answer for asked in self._asked)]
        self._early, self._asked = [], []
        for answer in answers:
            answer(make_error())

    def _ask(self, answers: list[Answer]) -> None:
        now, commit = self._node.runtime.now(), self._node.state.commit_index
        self._asked += [_Asked(now, commit, answer) for answer in answers]
        self._leadership.asked_at = self._asked[0].at  # before the beat: its answer looks at it
        self._beat_now()
        self.look()  # a single voter needs nobody
