"""The leader replaces the state of the whole cluster by a snapshot from outside: disaster recovery.

Main thread only; the snap thread reads and writes the bytes.  The snapshot is given an index
that no entry has, so that no log reaches there: every follower must take the snapshot.
Until the no-op behind it is committed, the restored state is this server's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from ..context import NodeContext
from ..errors import (
    AbortedByRestoreError,
    ConfigError,
    EnqueueTimeoutError,
    LeadershipLostError,
    LeadershipTransferInProgressError,
    NodeFailedError,
    RaftError,
    StorageError,
    StoreFullError,
)
from ..events import RestoreAsked, RestoreEnded, RestorePlace, RestoreWritten
from ..futures import RaftFuture


class RestoringLeader(Protocol):
    """What a restore needs of the leader."""

    def is_settled(self) -> bool:
        """Whether the configuration in force and an entry of this term are committed.

        A start relies on the latter, to know which snapshot nobody committed (restoring.check_reaches).
        """

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
        self._deadline = inf

    @property
    def is_active(self) -> bool:
        return self._of is not None

    @property
    def wake_at(self) -> float:
        return self._deadline

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
            self._deadline = inf if event.deadline is None else event.deadline
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
        # Durable only here, where this server leads: otherwise the next start would find a
        # snapshot that the cluster knows nothing of.
        leadership.write_began_at = node.runtime.now()
        try:
            event.sink.close()
        except StoreFullError as error:  # nothing of it is there
            event.answer(error)
            self.end()
            return
        except Exception as error:
            # It may be there all the same, and from its index on this leader would write other things.
            failure = error if isinstance(error, NodeFailedError) else _unknown(error)
            event.answer(failure)
            raise failure from error
        finally:
            leadership.write_began_at = None
        node.log.warning(
            "restoring a snapshot from outside index=%d bytes=%d", event.meta.index, event.meta.size
        )
        event.answer(None)
        self._of, self._deadline = None, inf
        try:
            self._leader.stand_on_snapshot(event, _replaced)
        except NodeFailedError:
            node.notifier.fail([event.future], _cut_off)
            raise
        self._leader.take_commands()

    def expire(self) -> None:
        """Let commands go on if the bytes take too long to come."""
        future = self._of
        if future is None or self._node.runtime.now() < self._deadline:
            return
        self._node.notifier.fail([future], _too_slow)
        self.end()

    def gave_up(self, event: RestoreEnded) -> None:
        """The bytes could not be read or written."""
        if self._of is event.future:
            self.end()

    def end(self) -> None:
        self._of, self._deadline = None, inf
        self._leader.take_commands()


def _unknown(error: Exception) -> StorageError:
    return StorageError(
        f"the snapshot from outside could not be completed, and may be on the disk all the same: {error}"
    )


def _cut_off() -> LeadershipLostError:
    return LeadershipLostError(
        "this server failed with the snapshot from outside on its disk: it may be the state of the cluster once it is "
        "started again. Read the state before restoring it again"
    )


def _too_slow() -> EnqueueTimeoutError:
    return EnqueueTimeoutError(
        "reading the snapshot took longer than the caller allowed: nothing has changed"
    )


def _replaced() -> AbortedByRestoreError:
    return AbortedByRestoreError(
        "a snapshot from outside replaced the log while the command was in flight: it may be on a majority and come "
        "back if this leader is lost now. Read the state before sending it again"
    )
