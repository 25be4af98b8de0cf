"""Heartbeats to one peer: proof of leadership that queues behind neither disk nor entries.

Runs on the ``pyraft-<id>-beat-<peer>`` thread, on a connection apart from the entries'.
A leader whose own disk has stalled sends none, so that the others elect a new one.

Source: Raft paper §5.2; Figure 2, Rules for Servers, Leaders.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .config import Config
from .errors import RaftError
from .events import HigherTermSeen, PeerHeard
from .messages import AppendEntriesRequest, AppendEntriesResponse, RpcHeader
from .observers import FailedHeartbeatObservation, Observation, ResumedHeartbeatObservation
from .rules.timing import back_off, heartbeat_interval
from .runtime import Inbox, NotifyChannel, Runtime
from .sessions import Session
from .transport.base import Transport

_log = logging.getLogger(__name__)


class _Stop:
    pass


class _BeatNow:
    """A poke: somebody waits for an answer to a request that is sent from now on."""


class Heartbeat:
    """Tells one peer, again and again, that this server leads."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        header: RpcHeader,
        transport: Transport,
        session: Session,
        to_main: Callable[[Any], None],
        on_reachable: Callable[[], None],
        observe: Callable[[Observation], None],
    ) -> None:
        """``on_reachable`` is called when the peer is back: after failures, or without its log."""
        self._runtime = runtime
        self._request = AppendEntriesRequest(header, session.leadership.term)
        self._transport = transport
        self._session = session
        self._to_main = to_main
        self._on_reachable = on_reachable
        self._observe = observe
        self._rng = runtime.random(f"heartbeat:{header.id}:{session.peer.id}")
        self._inbox: Inbox = runtime.inbox(f"{header.id}-beat-{session.peer.id}")
        self._question = NotifyChannel(self._inbox, _BeatNow())
        self._failures = 0

    @property
    def _config(self) -> Config:
        return self._session.leadership.config

    def beat_now(self) -> None:
        """Send one without waiting for the next interval.  Any thread."""
        self._question.poke()

    def stop(self) -> None:
        """Let the thread end.  Any thread; the session must have been ended before."""
        self._inbox.put(_Stop())

    def run(self) -> None:
        """The thread's life: until the session ends."""
        while self._session.alive:
            self._question.clear()  # before the beat, which answers what was asked until now
            if self._session.may_send(self._runtime.now(), self._config.election_timeout):
                self._beat()
            if isinstance(self._inbox.take(self._runtime.now() + self._pause()), _Stop):
                return

    def _beat(self) -> None:
        session = self._session
        holds = session.holds  # before the question, so that the answer cannot honestly be less
        sent_at = self._runtime.now()
        try:
            response = self._transport.call(session.peer, self._request, self._config.heartbeat_timeout)
        except RaftError:
            self._failures += 1
            self._observe(FailedHeartbeatObservation(session.peer.id, self._runtime.now() - session.contact))
            return
        if not isinstance(response, AppendEntriesResponse):
            return
        if self._failures or response.last_log < holds:
            if self._failures:
                self._observe(ResumedHeartbeatObservation(session.peer.id))
            self._failures = 0
            self._on_reachable()
        if response.term > session.leadership.term:
            self._to_main(HigherTermSeen(session, response.term))
        elif response.term == session.leadership.term and session.heard(sent_at):
            self._to_main(PeerHeard(session))

    def _pause(self) -> float:
        interval = heartbeat_interval(self._config.heartbeat_timeout, self._rng)
        return max(interval, back_off(self._failures, self._config.heartbeat_timeout / 2))
