"""What ``Raft.open`` puts together: the only place that knows LMDB and gRPC by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .config import Config
from .configuration import Configuration, check_configuration
from .errors import ConfigError
from .fsm import FSM
from .logstore.lmdb_store import LMDBStore
from .snapshots.base import SnapshotStore
from .snapshots.file_store import RETAIN, FileSnapshotStore, check_retain
from .state import is_empty
from .transport.base import Transport

if TYPE_CHECKING:
    from .transport.tls import Tls


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server is made of, and how to close what was opened for it."""

    config: Config
    store: LMDBStore
    snapshot_store: SnapshotStore
    transport: Transport
    arrival: Configuration | None
    close: Callable[[], None]


def open_parts(
    path: str,
    id: str,
    fsm: FSM,
    address: str | None,
    bootstrap: Mapping[str, str] | Configuration | None,
    config: Config | None,
    advertise: str | None,
    transport: Transport | None,
    tls: Tls | None,
    snapshot_store: SnapshotStore | None,
    retain: int | None,
) -> Parts:
    """Check everything that can be checked first, then open store and transport.

    Raises:
        ConfigError, StorageError, TransportError: as ``Raft.open`` says; nothing stays open.
    """
    config = _config_for(id, config)
    if not isinstance(fsm, FSM):
        raise ConfigError(f"fsm={fsm!r} is not an FSM: pass an instance of a subclass of pyraft.FSM")
    _check_addresses(address, advertise, transport)
    _check_snapshot_options(snapshot_store, retain)
    first_members = _first_members(bootstrap, id)
    store = LMDBStore(os.fspath(path), server_id=id)
    own_transport: Transport | None = None
    try:
        if transport is None:
            from .transport.grpc_transport import GrpcTransport

            assert address is not None
            transport = own_transport = GrpcTransport(address, advertise=advertise, tls=tls)
        _check_own_address(first_members, id, transport)
        if snapshot_store is None:
            snapshot_store = FileSnapshotStore(path, RETAIN if retain is None else retain)
        arrives = is_empty(store, store, snapshot_store)
    except BaseException:
        if own_transport is not None:
            own_transport.close()  # one that was passed in stays the caller's until all is well
        store.close()
        raise
    arrival = first_members if arrives else None
    return Parts(config, store, snapshot_store, transport, arrival, store.close)


def _config_for(id: str, config: Config | None) -> Config:
    if not id or id.__class__ is not str:
        raise ConfigError(f"id={id!r} is not a name: give every server a name (str) it keeps for life")
    if config is None:
        return Config(local_id=id)
    if config.local_id not in ("", id):
        raise ConfigError(
            f"id={id!r} and config.local_id={config.local_id!r} differ: leave local_id out, open() sets it"
        )
    return replace(config, local_id=id)


def _check_addresses(address: str | None, advertise: str | None, transport: Transport | None) -> None:
    if transport is None:
        if address is None:
            raise ConfigError('there is no address to listen on: pass address="host:port", or a transport')
        return
    for name, value in (("address", address), ("advertise", advertise)):
        if value is not None and value != transport.local_address:
            raise ConfigError(
                f"{name}={value!r} differs from the transport's address {transport.local_address!r}: others would "
                f"look for this server in the wrong place. Leave {name} out"
            )


def _check_snapshot_options(snapshot_store: SnapshotStore | None, retain: int | None) -> None:
    if snapshot_store is None:
        if retain is not None:
            check_retain(retain)
        return
    if not isinstance(snapshot_store, SnapshotStore):
        raise ConfigError(
            f"snapshot_store={snapshot_store!r} is not a SnapshotStore: pass an instance of a subclass of pyraft's "
            f"SnapshotStore, or leave it out to keep snapshots below the directory"
        )
    if retain is not None:
        raise ConfigError(
            f"retain={retain!r} is for the snapshots below the directory, and snapshot_store={snapshot_store!r} takes "
            f"their place: leave retain out, and give the number to your store"
        )


def _first_members(bootstrap: Mapping[str, str] | Configuration | None, id: str) -> Configuration | None:
    if bootstrap is None:
        return None
    if not isinstance(bootstrap, Mapping | Configuration):
        raise ConfigError(f"bootstrap={bootstrap!r} is not a mapping: pass a dict from every id to address")
    members = bootstrap if isinstance(bootstrap, Configuration) else Configuration.of_voters(bootstrap)
    check_configuration(members)
    if members.find(id) is None:
        raise ConfigError(
            f"bootstrap names {', '.join(s.id for s in members.servers)} and not this server {id!r}: it would begin a "
            f"cluster that it is no member of. Add {id!r} with its address, or leave bootstrap out and add the server "
            f"to a running cluster"
        )
    return members


def _check_own_address(members: Configuration | None, id: str, transport: Transport) -> None:
    own = members.find(id) if members is not None else None
    if own is not None and own.address != transport.local_address:
        raise ConfigError(
            f"bootstrap says that {id} is at {own.address!r}, but it is reached at {transport.local_address!r}: others "
            f"would look for it in the wrong place. Use the same address in both, or advertise={own.address!r}"
        )
