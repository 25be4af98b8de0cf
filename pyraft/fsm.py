"""What users implement: the state machine that the replicated log drives."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from .configuration import Configuration
    from .log import Log
    from .snapshots.base import SnapshotSink

_SERVER_ERRNOS = frozenset(
    {
        errno.EIO,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)


class FSM(ABC):
    """Your state machine.  pyraft calls it from one thread, in log order.

    Every server runs ``apply`` for every committed command, and again after a restart for
    the commands since the last snapshot.
    """

    @abstractmethod
    def apply(self, log: Log) -> Any:
        """Change the state as ``log.data`` says; return what the caller of Raft.apply() gets.

        Called on the ``pyraft-<id>-fsm`` thread.  Let the result depend on the state and the
        command only: no clock, no randomness, no iteration over a set, no call whose answer
        may differ on another server.

        Raise to report an application error: the caller gets your exception from its
        future, and the log goes on.  What you raise must be as deterministic as a result.
        Errors that depend on the server (see ``is_fatal``) stop it with FSMFailedError:
        going on would be silent divergence.
        """

    @abstractmethod
    def snapshot(self) -> FSMSnapshot | bytes:
        """Capture the state at this point: quickly, because no command is applied meanwhile.

        Called on the FSM thread.  Return bytes, or an FSMSnapshot that is written later on a
        thread of its own while ``apply`` goes on.
        """

    @abstractmethod
    def restore(self, source: BinaryIO) -> None:
        """Replace the whole state by the snapshot that ``source`` reads.  Read it from front to end: it need not have
        ``seek``.

        Called on the FSM thread, never together with ``apply``.
        """

    def is_fatal(self, error: Exception) -> bool:
        """Tell whether ``error``, raised by ``apply``, depends on this server alone.

        True stops the server with FSMFailedError.  The default says so of MemoryError and of
        an OSError that speaks of a full or failing disk or of exhausted handles.
        """
        if isinstance(error, MemoryError):
            return True
        return isinstance(error, OSError) and error.errno in _SERVER_ERRNOS


class BatchingFSM(FSM):
    """An FSM that takes many committed commands in one call."""

    @abstractmethod
    def apply_batch(self, logs: Sequence[Log]) -> Sequence[Any]:
        """Apply ``logs`` in order; return one result for each.

        A result that is an exception is delivered as that command's error.  Raising, or
        returning another number of results, stops the server with FSMFailedError.
        """

    def apply(self, log: Log) -> Any:
        """Apply a single command: a batch of one."""
        return self.apply_batch([log])[0]


class ConfigurationStore(FSM):
    """An FSM that also wants to know every committed configuration, in log order."""

    @abstractmethod
    def store_configuration(self, index: int, configuration: Configuration) -> None:
        """Take note of the configuration committed at ``index``.  On the FSM thread."""


class FSMSnapshot(ABC):
    """A captured state that can be written while commands go on being applied."""

    @abstractmethod
    def persist(self, sink: SnapshotSink) -> None:
        """Write everything to ``sink``.  Called once, on the ``pyraft-<id>-snap`` thread."""

    def release(self) -> None:  # noqa: B027  (optional to override)
        """Free what was captured.  Always called once, after persist() or instead of it."""
