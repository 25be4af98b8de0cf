"""Every exception pyraft raises on purpose, by what the caller should do next.

RaftError
├── NotAppliedError             safe to retry: the command is in nobody's log
│   ├── NotLeaderError            ... on another server, if it names one
│   ├── EnqueueTimeoutError       ... later: too many commands are waiting
│   ├── CommandTooLargeError      ... in smaller pieces
│   ├── LeadershipTransferInProgressError
│   ├── NotStartedError
│   └── ForkedProcessError        ... in the process that opened the server
├── OutcomeUnknownError         do not retry blindly: it may still be applied
│   ├── LeadershipLostError
│   └── AbortedByRestoreError
├── RaftShutdownError           .outcome_unknown tells which of the two
├── NodeFailedError             this server must be restarted or repaired
│   ├── StorageError → StoreFullError, CorruptStoreError
│   └── FSMFailedError
├── ConfigError                 (also a ValueError) fix the call
├── WouldDeadlockError          (also a RuntimeError) waited where waiting can never end
├── ShutdownTimeoutError        (also a TimeoutError) user code does not return
├── LogNotFoundError            (also a KeyError)
├── ReadTimeoutError            (also a TimeoutError) ask again: a read changes nothing
└── CantBootstrapError, NotVoterError, NothingNewToSnapshotError, SnapshotFailedError, TransferFailedError,
    UnsupportedProtocolError, TransportError

Imports nothing, so that every layer may use it.
"""

from __future__ import annotations


class RaftError(Exception):
    """Base class; catch it to catch everything pyraft raises on purpose."""


class NotAppliedError(RaftError):
    """The command was refused before it reached any log.  Retrying is safe."""


class NotLeaderError(NotAppliedError):
    """Only the leader takes commands; ``leader_id`` and ``leader_address`` name it if it is known."""

    def __init__(self, server: str, leader_id: str | None = None, leader_address: str | None = None) -> None:
        self.leader_id = leader_id
        self.leader_address = leader_address
        if leader_id is None:
            advice = "no leader is known yet; try any server again after an election timeout"
        else:
            advice = f"send the command to {leader_id} at {leader_address}"
        super().__init__(f"{server} is not the leader: {advice}")


class EnqueueTimeoutError(NotAppliedError, TimeoutError):
    """The queue of commands stayed full for the whole timeout."""


class CommandTooLargeError(NotAppliedError, ValueError):
    """More than one message can carry; such an entry could be stored but never replicated."""


class LeadershipTransferInProgressError(NotAppliedError):
    """The leader is handing over and takes no commands meanwhile."""


class NotStartedError(NotAppliedError):
    """The server has not been started: call start(), or use it in a with block."""


class ForkedProcessError(NotAppliedError):
    """The server belongs to the process that opened it, and this is a forked child."""


class OutcomeUnknownError(RaftError):
    """The command reached a log and its fate is open.

    It may be applied later, or never.  Retry only commands that the FSM can
    recognise as duplicates (Raft paper §8: a client id and a serial number).
    """


class LeadershipLostError(OutcomeUnknownError):
    """This server stopped leading after the command had reached its log."""


class AbortedByRestoreError(OutcomeUnknownError):
    """An external snapshot replaced the log while the command was in flight."""


class RaftShutdownError(RaftError):
    """The server is shutting down or has stopped.

    ``outcome_unknown`` is True when the command had reached the log, so that it may
    still be applied; False when it certainly was not.
    """

    def __init__(self, message: str = "", *, outcome_unknown: bool = False) -> None:
        self.outcome_unknown = outcome_unknown
        if not message:
            message = (
                "the server stopped after the command had reached its log: it may still be applied"
                if outcome_unknown
                else "the server is shut down: open it again, or send the command to another server"
            )
        super().__init__(message)


class NodeFailedError(RaftError):
    """This server can no longer keep its promises and has stopped."""


class StorageError(NodeFailedError):
    """The disk or the store failed.  What was being written may or may not be there."""


class StoreFullError(StorageError):
    """The disk or the store's size limit is full.  Nothing of the write is stored."""


class CorruptStoreError(StorageError):
    """Stored bytes are not what was written, or contradict what Raft guarantees."""


class FSMFailedError(NodeFailedError):
    """The user's state machine failed in a way that depends on this server."""


class ConfigError(RaftError, ValueError):
    """A setting or an argument is invalid; the text says which value works."""


class WouldDeadlockError(RaftError, RuntimeError):
    """Waiting here could never end: on a pyraft thread, or where an asyncio loop runs."""


class LogNotFoundError(RaftError, KeyError):
    """The log holds no entry at that index."""

    def __init__(self, index: int) -> None:
        self.index = index
        super().__init__(f"no log entry at index {index}")

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


class CantBootstrapError(RaftError):
    """Bootstrapping works only on a server without state, and not on a candidate or leader."""


class NotVoterError(RaftError):
    """The operation needs this server to be a voter of the configuration."""


class NothingNewToSnapshotError(RaftError):
    """Nothing was applied since the last snapshot."""


class SnapshotFailedError(RaftError):
    """A snapshot was not taken, or not stored; the server goes on without it."""


class TransferFailedError(RaftError):
    """Leadership was not handed over; the text says where it stopped.  Who leads goes on leading."""


class ReadTimeoutError(RaftError, TimeoutError):
    """A read index was not confirmed, or not applied here, in the time that the caller gave it."""


class UnsupportedProtocolError(RaftError):
    """The other server speaks a protocol version or lacks a call that this needs."""


class TransportError(RaftError):
    """A peer could not be reached, did not answer in time, or answered with an error."""


class ShutdownTimeoutError(RaftError, TimeoutError):
    """User code (an FSM, a callback, an observer) did not return while the server shut down."""
