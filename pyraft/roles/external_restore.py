"""The leader replaces the state of the whole cluster by a snapshot from outside: disaster recovery.

Main thread only; the snap thread reads and writes the bytes.  The snapshot is given an index
that no entry has, so that no log reaches there: every follower must take the snapshot.
Until the no-op behind it is committed, the restored state is this server's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..context import NodeContext
from ..errors import AbortedByRestoreError, ConfigError, LeadershipTransferInProgressError, RaftError
from ..events import RestoreAsked, RestoreEnded, RestorePlace, RestoreWritten
from ..futures import RaftFuture


class RestoringLeader(Protocol):
    """What a restore needs of the leader."""

    def is_settled(self) -> bool:
        """Whether the configuration in force and an entry of this term are committed."""

    def is_handing_over(self) -> bool: ...

    def stand_on_snapshot(self, written: RestoreWritten, lost: Callable[[], RaftError]) -> None:
        """Give up the log for the snapshot, and append the no-op that finishes its future."""

    def take_commands(self) -> None:
        """Commands that waited may go on."""


class ExternalRestore:
    """At most one at a time; commands and changes of membership wait meanwhile."""

    def __init__(self, node: NodeContext, leader: RestoringLeader) -> None:
        self._node = node
        self._leader = leader
        self._of: RaftFuture[None] | None = None

    @property
    def is_active(self) -> bool:
        return self._of is not None

    def ask(self, event: RestoreAsked) -> None:
        """Say where the snapshot is to stand, and hold everything else back."""
        if self._leader.is_handing_over():
            event.answer(LeadershipTransferInProgressError(f"{self._node.id} is handing over its leadership"))
        elif self.is_active:
            event.answer(ConfigError("another restore is under way: wait for its end"))
        elif not self._leader.is_settled():
            event.answer(
                ConfigError(
                    "cannot restore a snapshot now: a configuration is not committed yet; try again in a moment"
                )
            )
        else:
            self._of = event.future
            state = self._node.state
            configurations = state.configurations
            event.answer(
                RestorePlace(
                    max(state.log.last.index, event.meta.index) + 1,
                    state.ballot.term,
                    configurations.latest,
                    configurations.latest_index,
                )
            )

    def written(self, event: RestoreWritten) -> None:
        """The bytes are written, not yet durable: make them so, and go on from there.

        Raises:
            StorageError: the disk failed; this server must stop.
        """
        if self._of is not event.future:
            event.answer(ConfigError("this restore was given up"))
            return
        node = self._node
        leadership = node.leadership
        assert leadership is not None
        # Durable only here, where nobody else can have become leader meanwhile: otherwise the
        # next start would find a snapshot that the cluster knows nothing of.
        leadership.write_began_at = node.runtime.now()
        try:
            event.sink.close()
        except RaftError as error:
            event.answer(error)
            self.end()
            return
        finally:
            leadership.write_began_at = None
        node.log.warning(
            "restoring a snapshot from outside index=%d bytes=%d", event.meta.index, event.meta.size
        )
        event.answer(None)
        self._of = None
        self._leader.stand_on_snapshot(event, _replaced)
        self._leader.take_commands()

    def gave_up(self, event: RestoreEnded) -> None:
        """The bytes could not be read or written."""
        if self._of is event.future:
            self.end()

    def end(self) -> None:
        self._of = None
        self._leader.take_commands()


def _replaced() -> AbortedByRestoreError:
    return AbortedByRestoreError(
        "a snapshot from outside replaced the log while the command was in flight: it may be on a majority and come "
        "back if this leader is lost now. Read the state before sending it again"
    )
