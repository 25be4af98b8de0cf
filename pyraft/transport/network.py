"""What transports on a real network have in common: an address, peers' connections, a handler, an end."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from ..configuration import Server
from ..errors import RaftError, TransportError
from ..messages import InstallSnapshotRequest, InstallSnapshotResponse
from ..runtime import Runtime, ThreadRuntime
from .base import IncomingRpc, RpcHandler, SnapshotSource, Transport
from .workers import Workers

_log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
"""So long closing waits for the threads to end."""


class Connections(Protocol):
    """What a transport has open to one address."""

    def close(self) -> None:
        """Fail what is going on, and free the rest."""

    def join(self, timeout: float) -> None:
        """Wait, at most ``timeout`` seconds each, until threads of its own have ended."""


C = TypeVar("C", bound=Connections)


class NetworkTransport(Transport, Generic[C]):
    """Keeps the connections by address, and hands what comes in to the handler."""

    def __init__(self, name: str, max_workers: int) -> None:
        """``name`` is for the threads; the subclass sets ``_address`` once it has one."""
        self._runtime: Runtime = ThreadRuntime()
        self._lock = self._runtime.lock()
        self._workers = Workers(self._runtime, name, max_workers)
        self._address = ""
        self._closed = False
        self._handler: RpcHandler | None = None
        self._peers: dict[str, C] = {}

    @abstractmethod
    def _new_connections(self, address: str) -> C:
        """Connections to ``address``, none of them made yet.  Under the lock."""

    @abstractmethod
    def _stop(self, served: bool) -> None:
        """Stop serving; ``served``: it ever began to.  The connections to peers are closed already."""

    @property
    def local_address(self) -> str:
        return self._address

    def serve(self, handler: RpcHandler) -> None:
        with self._lock:
            if self._closed:
                raise TransportError(self._why_closed())
            self._handler = handler

    def forget(self, peer: Server) -> None:
        with self._lock:
            connections = self._peers.pop(peer.address, None)
        if connections is not None:
            connections.close()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            peers, self._peers = list(self._peers.values()), {}
        for connections in peers:
            connections.close()
        self._stop(self._handler is not None)
        self._workers.shutdown(wait=False)
        self._workers.join(CLOSE_SECONDS)
        for connections in peers:
            connections.join(CLOSE_SECONDS)

    def _connect(self, peer: Server) -> C:
        connections = self._peers.get(peer.address)
        if connections is not None:
            return connections
        with self._lock:
            if self._closed:
                raise TransportError(f"to {peer.id} at {peer.address}: {self._why_closed()}")
            connections = self._peers.get(peer.address)
            if connections is None:
                connections = self._peers[peer.address] = self._new_connections(peer.address)
            return connections

    def _why_closed(self, otherwise: str = "") -> str:
        """Why something that was open is not any more; ``otherwise``, unless the whole transport was closed."""
        if self._closed:
            return f"the transport at {self._address} is closed"
        return otherwise or "its connections were closed meanwhile"

    def _deliver(self, name: str, rpc: IncomingRpc) -> None:
        """Let the handler take ``rpc``, and answer it later; if it cannot, that is the answer."""
        try:
            self._present_handler().receive(rpc)
        except Exception as error:
            rpc.respond(_answer_of(error, name))

    def _deliver_snapshot(
        self, name: str, request: InstallSnapshotRequest, source: SnapshotSource
    ) -> InstallSnapshotResponse | RaftError:
        """Let the handler read the snapshot; its answer, or why there is none."""
        try:
            return self._present_handler().receive_snapshot(request, source)
        except Exception as error:
            return _answer_of(error, name)

    def _present_handler(self) -> RpcHandler:
        handler = self._handler
        if handler is None or self._closed:
            raise TransportError(f"the server at {self._address} is closing")
        return handler


def _answer_of(error: Exception, name: str) -> RaftError:
    if isinstance(error, RaftError):
        return error
    _log.error("the handler failed on %s", name, exc_info=error)
    return TransportError(f"the handler failed on {name}: {error!r}")
