"""Sends one snapshot to one peer, as long as that is of use.

Source: Raft paper §7.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import BinaryIO, Protocol

from .messages import InstallSnapshotRequest, InstallSnapshotResponse, RpcHeader
from .runtime import Runtime
from .sessions import Session
from .snapshots.base import SnapshotMeta
from .transport.base import Transport

_log = logging.getLogger(__name__)

_PROGRESS_TIMEOUTS = 10
"""Election timeouts without any progress after which sending is given up."""
_FORGOTTEN_TIMEOUTS = 4
"""Election timeouts without any progress after which a peer that was away has forgotten the beginning."""


class Snapshots(Protocol):
    """Where snapshots for peers come from."""

    def open_newest(self) -> tuple[SnapshotMeta, BinaryIO]:
        """The newest one that can be read.

        Raises:
            RaftError: there is none now.
        """


class _Progress(io.RawIOBase):
    """A snapshot's bytes, and when some of them last went out.

    Attributes:
        began, at: instants: of the beginning, and of the latest piece.
    """

    def __init__(self, source: BinaryIO, runtime: Runtime) -> None:
        self._source = source
        self._runtime = runtime
        self.began = self.at = runtime.now()

    def read(self, size: int = -1) -> bytes:
        self.at = self._runtime.now()
        return self._source.read(size)


class SnapshotSender:
    """Of one session.  Used by its replicator's thread."""

    def __init__(self, runtime: Runtime, header: RpcHeader, transport: Transport, session: Session) -> None:
        self._runtime = runtime
        self._header = header
        self._transport = transport
        self._session = session

    def send(
        self, meta: SnapshotMeta, source: BinaryIO, back_at: Callable[[], float]
    ) -> InstallSnapshotResponse:
        """Send one snapshot and wait for what the peer says.

        Args:
            back_at: returns when the peer was last found to be back after it had been away.

        Raises:
            TransportError: it did not get through, or the session ended meanwhile.
        """
        session, config = self._session, self._session.leadership.config
        _log.info(
            "sending snapshot=%s to peer=%s bytes=%d [id=%s]",
            meta.id,
            session.peer.id,
            meta.size,
            self._header.id,
        )
        session.state = "snapshot"
        progress = _Progress(source, self._runtime)

        def is_over() -> bool:
            # A peer that was away, is back and says nothing has forgotten what was on its way.
            now, came_back = self._runtime.now(), back_at()
            silent_s = now - max(progress.at, came_back)
            is_forgotten = (
                came_back > progress.began
                and silent_s > _FORGOTTEN_TIMEOUTS * session.leadership.config.election_timeout
            )
            return is_forgotten or not session.may_send(now, config.election_timeout)

        # A snapshot is of committed entries only, so it is right to send even if this
        # leadership should end at this moment; to go on for hours would be a waste.
        return self._transport.install_snapshot(
            session.peer,
            self._request(meta),
            progress,  # type: ignore[arg-type]  # it only reads
            _PROGRESS_TIMEOUTS * config.election_timeout,
            is_over,
        )

    def _request(self, meta: SnapshotMeta) -> InstallSnapshotRequest:
        return InstallSnapshotRequest(
            self._header,
            self._session.leadership.term,
            meta.index,
            meta.term,
            meta.configuration,
            meta.configuration_index,
            meta.size,
        )
