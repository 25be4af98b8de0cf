"""What a server knows about itself.  The main thread changes it; others read single values.

Everything durable is saved before memory changes, so memory never runs ahead of disk.
"""

from __future__ import annotations

import struct
from enum import Enum

from .configuration import Configuration, decode_configuration
from .errors import CorruptStoreError, LogNotFoundError, NodeFailedError, StorageError
from .log import Log, LogType
from .logstore.base import LogStore, StableStore
from .node_log import NodeLog
from .rules.election import LAST_TERM, START_OF_LOG, Ballot, LogPosition, Newborn
from .rules.membership import Configurations
from .snapshots.base import SnapshotMeta, SnapshotStore

BALLOT_KEY = b"Ballot"


class RaftState(Enum):
    """The role a server is in."""

    FOLLOWER = "Follower"
    CANDIDATE = "Candidate"
    LEADER = "Leader"
    SHUTDOWN = "Shutdown"

    def __str__(self) -> str:
        return self.value


class NodeState:
    """Ballot, log, commit index, configurations, and who leads.

    Attributes:
        role: as other threads may see it.
        leader: (id, address) of the leader as far as known, or None.  Replaced whole.
        last_contact: when a leader was heard last, an instant of the runtime's clock, or None.
        commit_index: highest index known to be committed; after a start, the snapshot's or what
            was stored with the entries (restore_committed_logs).
    """

    def __init__(
        self,
        server_id: str,
        log_store: LogStore,
        stable_store: StableStore,
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        """Read what the stores hold.

        Args:
            snapshot: the newest readable one, or None.

        Raises:
            StorageError: they cannot be read, or hold what cannot be.
        """
        self.server_id = server_id
        self.role = RaftState.FOLLOWER
        self.leader: tuple[str, str] | None = None
        self.last_contact: float | None = None
        position = START_OF_LOG if snapshot is None else LogPosition(snapshot.term, snapshot.index)
        self.commit_index = position.index
        self._stable = stable_store
        self.ballot = load_ballot(stable_store)
        self.log = NodeLog(log_store, position)
        self.log.check_holds_commit(server_id)
        self.configurations = _read_configurations(log_store, self.log, snapshot)

    def check_ballot(self) -> None:
        """Refuse a ballot that is older than the log, which nobody writes without a ballot of its term.

        Raises:
            CorruptStoreError: the latest ballot is lost, and perhaps a vote with it.
        """
        if self.ballot.term < self.log.last.term:
            raise CorruptStoreError(
                f"log and snapshot of {self.server_id} end in term {self.log.last.term}, and its ballot is of term "
                f"{self.ballot.term}: the latest ballot is lost, and perhaps a vote with it. Remove this server from "
                f"the cluster, clear its directory and add it anew"
            )

    @property
    def configuration(self) -> Configuration:
        """The latest configuration in the log: the one in force."""
        return self.configurations.latest

    @property
    def has_just_come(self) -> bool:
        """Whether it has neither a log nor members yet."""
        return self.log.last.index == 0 and not self.configuration.servers

    @property
    def is_voter(self) -> bool:
        return self.configurations.latest.is_voter(self.server_id)

    @property
    def may_be_needed(self) -> bool:
        """Whether this server votes, or has given its vote back in an entry that may not be committed.

        Those who lack that entry may not be able to elect anybody without it, so it has to stand
        until the entry is committed; its own vote does not count (dissertation §4.2.2).
        """
        known = self.configurations
        was_voter = known.latest_index > self.commit_index and known.committed.is_voter(self.server_id)
        return self.is_voter or was_voter

    def save_ballot(self, ballot: Ballot) -> None:
        """Make ``ballot`` durable, then current.

        Raises:
            StorageError: it may or may not be stored; this server must stop.
        """
        if ballot == self.ballot:
            return
        if ballot.term < self.ballot.term:
            raise CorruptStoreError(
                f"{self.server_id} would go back from term {self.ballot.term} to {ballot.term}. Keep its data "
                f"directory and report a bug: Raft forbids this (§5.1)."
            )
        try:
            self._stable.set(BALLOT_KEY, encode_ballot(ballot))
        except NodeFailedError:
            raise
        except Exception as error:
            raise StorageError(f"the stable store could not save term {ballot.term}: {error}") from error
        if ballot.term > self.ballot.term:
            self.leader = None  # nobody is known to lead the new term
        self.ballot = ballot

    def adopt_term(self, term: int) -> None:
        """Enter ``term`` if it is above ours, with an unspent vote (§5.1)."""
        if self.ballot.term < term <= LAST_TERM:
            self.save_ballot(self.ballot.at_term(term))

    def take_configurations(self, logs: list[Log]) -> None:
        """Put the configurations among ``logs``, which were just appended, in force.

        Raises:
            CorruptStoreError: one of them cannot be read.
        """
        for log in logs:
            if log.type is LogType.CONFIGURATION:
                self.configurations = self.configurations.with_appended(
                    decode_configuration(log.data), log.index
                )

    def take_snapshot_position(self, meta: SnapshotMeta) -> None:
        """A snapshot of a leader, durable here, takes the place of the log up to its position.

        Entries after it stay only if the log agrees with it there (Figure 13, steps 6 and 7).

        Raises:
            StorageError: the old log could not be dropped; this server must stop.
        """
        log = self.log
        position = LogPosition(meta.term, meta.index)
        if log.term_at(meta.index) == meta.term:
            log.snapshot = position
            self.configurations = self.configurations.with_snapshot(
                meta.configuration, meta.configuration_index
            )
        else:
            log.reset(position)
            self.configurations = Configurations.of_snapshot(meta.configuration, meta.configuration_index)
        self.commit_index = meta.index

    def advance_commit(self, index: int) -> None:
        """Note that everything up to ``index`` is committed.  It never goes back."""
        if index <= self.commit_index:
            return
        if index > self.log.last.index:
            raise CorruptStoreError(
                f"{self.server_id} would commit entry {index}, but its log ends at {self.log.last.index}. Keep its "
                f"data directory and report a bug: Raft forbids this (§5.3)."
            )
        self.commit_index = index
        self.configurations = self.configurations.with_commit(index)


def encode_ballot(ballot: Ballot) -> bytes:
    """The one record that holds term, vote and newborn mark: version, numbers, then the vote.

    Version 2 has a position between them: for whom a newborn that has joined may vote.
    """
    newborn = ballot.newborn
    vote = b"" if ballot.voted_for is None else ballot.voted_for.encode()
    joined = None if newborn is None else newborn.votes_for
    return (
        _BALLOT.pack(
            1 if joined is None else 2,
            ballot.term,
            ballot.voted_for is not None,
            newborn is not None,
            newborn.term if newborn else 0,
            newborn.target if newborn else 0,
        )
        + (b"" if joined is None else _POSITION.pack(joined.term, joined.index))
        + vote
    )


_BALLOT = struct.Struct(">BQ??QQ")
_POSITION = struct.Struct(">QQ")


def load_ballot(stable_store: StableStore) -> Ballot:
    """The ballot that ``stable_store`` holds; term 0 if there is none.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        record = stable_store.get(BALLOT_KEY)
    except NodeFailedError:
        raise
    except Exception as error:
        raise StorageError(f"the stable store could not read term and vote: {error}") from error
    if record is None:
        return Ballot()
    if record and record[0] not in (1, 2):
        raise CorruptStoreError(
            f"the record of term and vote has version {record[0]}, and this pyraft knows "
            f"versions 1 and 2: use the pyraft that wrote it, or a newer one"
        )
    try:
        version, term, has_vote, is_newborn, born_term, target = _BALLOT.unpack_from(record)
        at, joined = _BALLOT.size, None
        if version == 2:
            joined = LogPosition(*_POSITION.unpack_from(record, at))
            at += _POSITION.size
        vote = record[at:].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptStoreError(f"the record of term and vote cannot be read: {error}") from error
    newborn = Newborn(born_term, target, joined) if is_newborn else None
    return Ballot(term, vote if has_vote else None, newborn)


def is_empty(log_store: LogStore, stable_store: StableStore, snapshot_store: SnapshotStore) -> bool:
    """Tell whether nothing says yet how this server began: the others must be asked whether they know it.

    Also true after a crash before it had heard enough of them.  Reads from disk.

    Raises:
        StorageError, CorruptStoreError: as ``load_ballot``.
    """
    if log_store.last_index() > 0 or len(snapshot_store.list()) > 0:
        return False
    return load_ballot(stable_store).newborn is None


def _read_configurations(store: LogStore, log: NodeLog, snapshot: SnapshotMeta | None) -> Configurations:
    """The snapshot's configuration, then those among the entries behind it.

    Each one found makes the one before it committed.
    """
    found = Configurations()
    if snapshot is not None:
        found = Configurations.of_snapshot(snapshot.configuration, snapshot.configuration_index)
    if not log.first_index:
        return found
    indexes = getattr(store, "configuration_indexes", None)
    for index in indexes() if indexes else range(log.first_index, log.last.index + 1):
        if index <= log.snapshot.index:
            continue
        try:
            entry = log.stored(index)
        except LogNotFoundError:
            continue  # a gap, which some stores may have
        if entry.type is LogType.CONFIGURATION:
            found = found.with_appended(decode_configuration(entry.data), index)
    return found
