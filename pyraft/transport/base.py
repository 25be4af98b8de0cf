"""What a transport must do: carry Raft's RPCs between servers.  Users may bring their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from ..configuration import Server
from ..errors import RaftError
from ..messages import AppendEntriesRequest, AppendEntriesResponse, Request, Response


class IncomingRpc:
    """A request from another server, on its way to this server's main thread.

    Attributes:
        request: what was asked.
        size_bytes: what it weighs while it waits, as the transport received it.
    """

    __slots__ = ("_is_abandoned", "_respond", "request", "size_bytes")

    def __init__(
        self,
        request: Request,
        respond: Callable[[Response | RaftError], None],
        size_bytes: int = 0,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> None:
        """Wrap ``request``; ``respond`` must be callable from any thread, once, without blocking."""
        self.request = request
        self.size_bytes = size_bytes
        self._respond = respond
        self._is_abandoned = is_abandoned

    def respond(self, answer: Response | RaftError) -> None:
        """Send the answer, or an error whose text the caller gets.  Any thread; never blocks."""
        self._respond(answer)

    @property
    def abandoned(self) -> bool:
        """True once the caller has given up, so that answering is a waste."""
        return self._is_abandoned is not None and self._is_abandoned()


class RpcHandler(Protocol):
    """The server behind a transport."""

    def receive(self, rpc: IncomingRpc) -> None:
        """Take ``rpc``; it is answered later from any thread.  Never blocks.

        Called on the transport's threads.
        """


class AppendPipeline(ABC):
    """A stream of AppendEntries to one peer, answered in order."""

    @abstractmethod
    def send(self, request: AppendEntriesRequest) -> None:
        """Send one more request without waiting for the answers to earlier ones.

        Raises:
            TransportError: the pipeline is broken or closed; nothing of it can be trusted.
        """

    @abstractmethod
    def close(self) -> None:
        """End the stream and free what it holds.  Idempotent; wakes whoever is blocked in it."""


class Transport(ABC):
    """Serves the RPCs of other servers and calls theirs.

    Methods may be called from any thread.  Constructing a transport may bind its address, but
    starts no thread; ``serve`` does.
    """

    @property
    @abstractmethod
    def local_address(self) -> str:
        """The address under which other servers reach this one (the advertised one)."""

    @abstractmethod
    def serve(self, handler: RpcHandler) -> None:
        """Begin handing incoming requests to ``handler``.  Called once."""

    @abstractmethod
    def call(self, peer: Server, request: Request, timeout: float) -> Response:
        """Send ``request`` to ``peer`` and wait for the answer, at most ``timeout`` seconds.

        Heartbeats and votes never queue behind bulk data.

        Raises:
            TransportError: no answer in time, no connection, or the peer answered an error.
            UnsupportedProtocolError: the peer does not know this call.
        """

    @abstractmethod
    def pipeline(
        self,
        peer: Server,
        on_reply: Callable[[AppendEntriesResponse], None],
        on_error: Callable[[RaftError], None],
    ) -> AppendPipeline:
        """Open a stream of AppendEntries to ``peer``.

        ``on_reply`` gets the answers in the order of the requests; ``on_error`` is called at
        most once, when the stream breaks, and nothing is called after it.  Both run on a
        thread of the transport and must not block.  After ``close`` a late call is possible:
        the receiver tells streams apart.

        Raises:
            TransportError: the stream cannot even be begun.
        """

    def forget(self, peer: Server) -> None:  # noqa: B027  (optional to override)
        """Free connections and threads kept for ``peer``.  It may be called again later."""

    @abstractmethod
    def close(self) -> None:
        """Stop serving, fail every call in flight with TransportError, free everything.  Idempotent."""
