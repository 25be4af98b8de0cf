"""When a majority of the servers is lost for good: decide by hand who is left, and go on.

Offline: on stores that no running server uses.  What the lost servers alone had
acknowledged is gone; what only the survivor had in its log counts as committed.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any
from zlib import crc32

from .config import Config
from .configuration import Configuration, Server, Suffrage, check_configuration, decode_configuration
from .errors import ConfigError, NodeFailedError, RaftError, SnapshotFailedError, StorageError
from .fsm import FSM, ConfigurationStore, FSMSnapshot
from .fsm_runner import Captured, fsm_failure
from .log import Log, LogType
from .logstore.base import LogStore, StableStore
from .node_log import NodeLog
from .restoring import check_reaches, restore_newest
from .rules.election import LAST_TERM, START_OF_LOG, Ballot, LogPosition
from .snapshot_writing import write_snapshot
from .snapshots.base import SnapshotMeta, SnapshotStore
from .state import BALLOT_KEY, encode_ballot, load_ballot
from .transport.base import Transport

_READ_BYTES = 1024 * 1024
_TERMS_APART = 2**16
"""More terms than a cluster goes through unheard by a server that is left."""


def recover_cluster(
    config: Config,
    fsm: FSM,
    log_store: LogStore,
    stable_store: StableStore,
    snapshot_store: SnapshotStore,
    transport: Transport,
    configuration: Configuration,
) -> None:
    """Make ``configuration`` the members of the cluster, as far as this server's stores go.

    Stop every server that is left, do this on the one whose log goes furthest, with itself as
    the only voter, start it, and add the others with empty stores.  (On several it is right only
    if their logs end at the same entry: each makes its own end of the log final.)

    The whole log is applied to ``fsm`` and becomes a snapshot, which holds the new
    configuration.  ``fsm`` is used up by this: pass another one to Raft.

    Raises:
        ConfigError: the configuration is invalid; the stores are empty, or in use.
        StorageError: the stores cannot be read or written.
        FSMFailedError, SnapshotFailedError: the FSM cannot be brought to the end of the log.
    """
    check_configuration(configuration)
    refuse_used(log_store, stable_store)
    restored = restore_newest(snapshot_store, fsm, config.local_id, log_store, with_any_members=True)
    position = START_OF_LOG if restored is None else LogPosition(restored.term, restored.index)
    if not load_ballot(stable_store).term and not log_store.last_index() and restored is None:
        raise ConfigError(
            f"refused to recover cluster with no initial state: the stores of {config.local_id} are empty. Is this the "
            f"right directory?"
        )
    log = NodeLog(log_store, position)
    _apply_all(fsm, log, position.index)
    if not log.last.index:
        raise ConfigError(f"the log of {config.local_id} is empty: bootstrap a new cluster instead")
    check_reaches(snapshot_store, None, log.last, log_store)
    log.check_holds_commit(config.local_id)
    ballot = load_ballot(stable_store)
    ballot = Ballot(_term_of_its_own(ballot, log.last, config.local_id), None, ballot.newborn)
    _save(stable_store, ballot)
    try:
        state = fsm.snapshot()
    except Exception as error:
        raise SnapshotFailedError(
            f"FSM.snapshot failed at the log's end with {error!r}: mend the FSM"
        ) from error
    if not isinstance(state, FSMSnapshot | bytes):
        raise SnapshotFailedError(
            f"FSM.snapshot returned {type(state).__name__}: return bytes or an FSMSnapshot"
        )
    captured = Captured(state, log.last.index, log.last.term, configuration, log.last.index)
    meta = write_snapshot(snapshot_store, captured, transport)
    _check_newest(snapshot_store, meta)
    if ballot.newborn is not None:  # nobody is left who could show that it has caught up
        _save(stable_store, replace(ballot, newborn=None))
    log.reset(log.last)


def _term_of_its_own(ballot: Ballot, last: LogPosition, server_id: str) -> int:
    """A term in which no server that is lost, or is recovered by itself, has led.

    Whoever led in a term that this server never heard of may have written other entries at the places
    that come next.  With the same terms nobody could tell them apart if that disk came back.
    """
    return min(
        max(ballot.term, last.term) + _TERMS_APART + crc32(server_id.encode()) % _TERMS_APART, LAST_TERM
    )


def _check_newest(store: SnapshotStore, meta: SnapshotMeta) -> None:
    """Raise StorageError unless a server would start from this snapshot: only it names the new members."""
    kept = [other.id for other in store.list()]
    if meta.id not in kept:
        raise StorageError("the snapshot store did not keep the snapshot, so the log stays as it was")
    if kept[0] != meta.id:
        raise StorageError(
            f"snapshot {kept[0]} comes before it in the snapshot store's list, so a server might not start from "
            f"{meta.id}, which is there now; the log stays as it was. Move the other one away, and recover again"
        )


def _save(stable_store: StableStore, ballot: Ballot) -> None:
    try:
        stable_store.set(BALLOT_KEY, encode_ballot(ballot))
    except NodeFailedError:
        raise
    except Exception as error:
        raise StorageError(
            f"the stable store could not save this server's ballot: {error!r}. Mend that and recover again"
        ) from error


def _apply_all(fsm: FSM, log: NodeLog, after: int) -> None:
    applied = after
    while applied < log.last.index:
        for entry in log.read(applied + 1, log.last.index, _READ_BYTES):
            if entry.type is LogType.COMMAND:
                _apply(fsm, entry)
            elif entry.type is LogType.CONFIGURATION and isinstance(fsm, ConfigurationStore):
                fsm.store_configuration(entry.index, decode_configuration(entry.data))
            applied = entry.index


def _apply(fsm: FSM, entry: Log) -> None:
    try:
        fsm.apply(entry)
    except Exception as error:
        if fsm.is_fatal(error):
            raise fsm_failure("apply", entry, error) from error


def refuse_used(log_store: LogStore, stable_store: StableStore) -> None:
    """Raise ConfigError if a server of this process uses one of the stores.

    Those of other processes keep a lock in the directory, so they cannot even be opened.
    """
    for store in (log_store, stable_store):
        user = getattr(store, "in_use_by", None)
        if user is not None:
            raise ConfigError(
                f"the store {store!r} is in use by the running server {user}: shut it down first"
            )


def read_peers_json(path: str | os.PathLike[str]) -> Configuration:
    """The configuration in a file of the oldest form: ``["10.0.0.1:7000", ...]``, all voters, id = address.

    Raises:
        ConfigError: it cannot be read, or is not that.
    """
    addresses = _read_json(path)
    if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
        raise ConfigError(f'{path}: not a list of addresses: write ["host:port", ...]')
    return _checked(path, Configuration(tuple(Server(address, address) for address in addresses)))


def read_config_json(path: str | os.PathLike[str]) -> Configuration:
    """The configuration in a file like ``[{"id": "n1", "address": "10.0.0.1:7000", "non_voter": false}, ...]``.

    Raises:
        ConfigError: it cannot be read, or is not that.
    """
    members = _read_json(path)
    if not isinstance(members, list):
        raise ConfigError(f'{path}: not a list: write [{{"id": "n1", "address": "host:port"}}, ...]')
    return _checked(path, Configuration(tuple(_member(path, member) for member in members)))


def _member(path: str | os.PathLike[str], member: Any) -> Server:
    known = {"id": str, "address": str, "non_voter": bool}
    if not isinstance(member, dict) or not {"id", "address"} <= member.keys() <= known.keys():
        raise ConfigError(
            f'{path}: {member!r} is no server: write {{"id": "n1", "address": "host:port", "non_voter": false}}'
        )
    for name, value in member.items():
        if not isinstance(value, known[name]):
            raise ConfigError(f"{path}: {name}={value!r} of {member!r} is not a {known[name].__name__}")
    suffrage = Suffrage.NONVOTER if member.get("non_voter", False) else Suffrage.VOTER
    return Server(member["id"], member["address"], suffrage)


def _read_json(path: str | os.PathLike[str]) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read as JSON: {error}. Nothing has changed; check the path, and write a list as "
            f"docs/operations.md shows it"
        ) from error


def _checked(path: str | os.PathLike[str], configuration: Configuration) -> Configuration:
    try:
        check_configuration(configuration)
    except RaftError as error:
        raise ConfigError(f"{path}: {error}") from error
    return configuration
