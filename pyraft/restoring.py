"""What a server does with its snapshots when it starts: restore the newest one that can be.

Source: Raft paper §7.
"""

from __future__ import annotations

import logging

from .configuration import Configuration
from .errors import CorruptStoreError, LogNotFoundError, NodeFailedError, RaftError, StorageError
from .fsm import FSM, ConfigurationStore
from .fsm_runner import restore_failure
from .logstore.base import LogStore
from .rules.election import LogPosition
from .snapshots.base import SnapshotMeta, SnapshotStore

_log = logging.getLogger(__name__)

OTHER_MEMBERS = "a later one of the same entry cannot be read, and this one may name members that are lost"


def restore_newest(
    store: SnapshotStore, fsm: FSM, server_id: str, log_store: LogStore, with_any_members: bool = False
) -> SnapshotMeta | None:
    """Restore ``fsm`` from the newest snapshot that works; return its description, None without any.

    One that the log shows to be overtaken is left out.  One that is damaged, or that the FSM
    refuses, is passed over, loudly.  So are older ones of the same entry that name other members:
    it was a recovery's, and those are lost.  Whether the log goes on from the one before, and
    reaches beyond, is checked later (NodeLog, check_reaches).

    Args:
        with_any_members: those are welcome, too: somebody is about to say who is left.

    Raises:
        StorageError: there are snapshots, and none works; or the store cannot list them.
    """
    try:
        metas = store.list()
    except RaftError:
        raise
    except Exception as error:
        raise StorageError(f"the snapshot store cannot list its snapshots: {error!r}") from error
    reasons = []
    passed_over: dict[LogPosition, Configuration] = {}
    for meta in metas:
        if _is_overtaken(meta, log_store):
            _log.warning(
                "snapshot=%s is left out: the cluster went on without it [id=%s]", meta.id, server_id
            )
            continue
        try:
            members = passed_over.get(position_of(meta), meta.configuration)
            if members != meta.configuration and not with_any_members:
                raise CorruptStoreError(OTHER_MEMBERS)
            _restore(store, fsm, meta)
        except RaftError as error:
            _log.error("snapshot=%s cannot be restored: %s [id=%s]", meta.id, error, server_id)
            reasons.append(f"{meta.id}: {error}")
            passed_over.setdefault(position_of(meta), meta.configuration)
            continue
        _log.info("restored snapshot=%s index=%d [id=%s]", meta.id, meta.index, server_id)
        return meta
    if reasons:
        raise CorruptStoreError(
            "none of the snapshots can be restored, and the log begins behind them. Remove this server from the "
            "cluster, clear its directory and add it anew. " + "; ".join(reasons)
        )
    return None


def position_of(meta: SnapshotMeta) -> LogPosition:
    """Of the last entry that the snapshot covers."""
    return LogPosition(meta.term, meta.index)


def check_reaches(
    store: SnapshotStore, restored: SnapshotMeta | None, last: LogPosition, log_store: LogStore
) -> None:
    """Refuse a log that ends before a snapshot which is there and could not be restored.

    An older one would take this server back behind what it has promised.  What is newer is decided
    as in elections (§5.4.1), for one of an earlier term that reaches further was never committed: it
    was from outside (Raft.restore), and its leader had committed an entry of its own term before,
    so whoever led later held that, and went on without the snapshot.

    Args:
        restored: which one was.
        last: where it and the log end together.

    Raises:
        CorruptStoreError: the state behind the older snapshot is lost.
    """
    for meta in store.list():
        if position_of(meta) > last and not _is_overtaken(meta, log_store):
            raise _lost(f"snapshot {meta.id} (entry {meta.index}) cannot be restored", last)
    for term, index in store.unreadable():
        position = LogPosition(term, index)
        if position > last:
            raise _lost(f"a snapshot of entry {index}, term {term}, cannot be read", last)
        if restored is not None and position == position_of(restored):
            raise _lost(f"snapshot {restored.id} is not the newest of its entry: {OTHER_MEMBERS}", last)


def _lost(what: str, last: LogPosition) -> CorruptStoreError:
    return CorruptStoreError(
        f"{what}, and snapshot and log together end at entry {last.index}: the state between is lost. Bring the "
        f"snapshot back from a backup, or remove this server from the cluster, clear its directory and add it anew"
    )


def _is_overtaken(meta: SnapshotMeta, log_store: LogStore) -> bool:
    """Whether our log has gone on without that snapshot.

    Mostly it was from outside (Raft.restore), and durable here only after this server had begun to
    follow another leader, so it was refused.  If it had been committed in its own term, every entry
    of a later term would stand behind it (§5.4.3).  Otherwise a later leader committed it (§5.4.2,
    Figure 8), and this server stopped between receiving it and dropping a log that had to go: then
    it has acknowledged nothing of it, and stands where it stood before.
    """
    try:
        first, last = log_store.first_index(), log_store.last_index()
        if not last or log_store.get_log(last).term <= meta.term:
            return False
        return last < meta.index or (first <= meta.index and log_store.get_log(meta.index).term != meta.term)
    except LogNotFoundError:
        return False
    except NodeFailedError:
        raise
    except Exception as error:
        raise StorageError(f"the log store could not be read: {error!r}") from error


def _restore(store: SnapshotStore, fsm: FSM, meta: SnapshotMeta) -> None:
    try:
        _, source = store.open(meta.id)
    except RaftError:
        raise
    except Exception as error:
        raise StorageError(f"the snapshot store could not open it: {error!r}") from error
    try:
        with source:
            fsm.restore(source)
        if isinstance(fsm, ConfigurationStore):
            fsm.store_configuration(meta.configuration_index, meta.configuration)
    except Exception as error:
        raise restore_failure(meta, error) from error
