"""pyraft: replicated state machines on Raft, for programs that must not lose data.

Subclass ``FSM``, open a ``Raft`` server, ``apply`` commands and wait on their futures.
Importing this loads neither gRPC nor LMDB; they come when they are used.
"""

import logging

from .config import Config, ReloadableConfig
from .configuration import Configuration, Server, Suffrage
from .errors import (
    AbortedByRestoreError,
    CantBootstrapError,
    CommandTooLargeError,
    ConfigError,
    CorruptStoreError,
    EnqueueTimeoutError,
    ForkedProcessError,
    FSMFailedError,
    LeadershipLostError,
    LeadershipTransferInProgressError,
    LogNotFoundError,
    NodeFailedError,
    NotAppliedError,
    NothingNewToSnapshotError,
    NotLeaderError,
    NotStartedError,
    NotVoterError,
    OutcomeUnknownError,
    RaftError,
    RaftShutdownError,
    ReadTimeoutError,
    ShutdownTimeoutError,
    SnapshotFailedError,
    StorageError,
    StoreFullError,
    TransferFailedError,
    TransportError,
    UnsupportedProtocolError,
    WouldDeadlockError,
)
from .fsm import FSM, BatchingFSM, ConfigurationStore, FSMSnapshot
from .futures import ApplyFuture, ConfigurationFuture, IndexFuture, RaftFuture, SnapshotFuture
from .log import Log, LogType
from .observers import (
    FailedHeartbeatObservation,
    LeaderObservation,
    LeadershipChanges,
    Observer,
    PeerObservation,
    ResumedHeartbeatObservation,
)
from .raft import Raft, ServerInfo, bootstrap_cluster, has_existing_state
from .recovery import read_config_json, read_peers_json, recover_cluster
from .state import RaftState
from .status import PeerState, PeerStatus, Status

__version__ = "0.1.0"

# What pyraft logs goes where the program says, and nowhere if it says nothing.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "FailedHeartbeatObservation",
    "LeadershipChanges",
    "LeaderObservation",
    "Observer",
    "PeerObservation",
    "ResumedHeartbeatObservation",
    "PeerState",
    "PeerStatus",
    "Status",
    "ReloadableConfig",
    "FSM",
    "AbortedByRestoreError",
    "ApplyFuture",
    "BatchingFSM",
    "CantBootstrapError",
    "CommandTooLargeError",
    "Config",
    "ConfigError",
    "Configuration",
    "ConfigurationFuture",
    "ConfigurationStore",
    "CorruptStoreError",
    "EnqueueTimeoutError",
    "FSMFailedError",
    "FSMSnapshot",
    "ForkedProcessError",
    "IndexFuture",
    "LeadershipLostError",
    "LeadershipTransferInProgressError",
    "Log",
    "LogNotFoundError",
    "LogType",
    "NodeFailedError",
    "NotAppliedError",
    "NotLeaderError",
    "NotStartedError",
    "NotVoterError",
    "NothingNewToSnapshotError",
    "OutcomeUnknownError",
    "Raft",
    "RaftError",
    "RaftFuture",
    "RaftShutdownError",
    "RaftState",
    "ReadTimeoutError",
    "Server",
    "ServerInfo",
    "ShutdownTimeoutError",
    "SnapshotFailedError",
    "SnapshotFuture",
    "StorageError",
    "StoreFullError",
    "Suffrage",
    "TransferFailedError",
    "TransportError",
    "UnsupportedProtocolError",
    "WouldDeadlockError",
    "bootstrap_cluster",
    "has_existing_state",
    "read_config_json",
    "read_peers_json",
    "recover_cluster",
]
