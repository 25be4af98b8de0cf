"""What a transport must do: carry Raft's RPCs between servers.  Users may bring their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from ..configuration import Server
from ..errors import RaftError, UnsupportedProtocolError
from ..messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Request,
    Response,
)


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


class SnapshotSource(Protocol):
    """The bytes of a snapshot that another server is sending.  One thread reads it."""

    def read(self, max_bytes: int) -> bytes:
        """The next bytes, at least one; b"" once all that were announced have been read, and no more came.

        Blocks until there are some.

        Raises:
            TransportError: the stream broke, brought nothing for too long, ended early, or
                carries more than was announced.  What was read of it is worthless.
        """


class RpcHandler(Protocol):
    """The server behind a transport."""

    def receive(self, rpc: IncomingRpc) -> None:
        """Take ``rpc``; it is answered later from any thread.  Never blocks.

        Called on the transport's threads.
        """

    def receive_snapshot(
        self, request: InstallSnapshotRequest, source: SnapshotSource
    ) -> InstallSnapshotResponse | RaftError:
        """Read the snapshot from ``source``, store it, and return the answer to the sender.

        Called on a thread of the transport, which may block here until the snapshot is stored.
        Nothing needs to be read if the answer is known without.  A RaftError, returned or
        raised, reaches the sender as text.
        """


class AppendPipeline(ABC):
    """A stream of AppendEntries to one peer, answered in order."""

    @abstractmethod
    def send(self, request: AppendEntriesRequest) -> None:
        """Send one more request without waiting for the answers to earlier ones.

        Called by one thread at a time, though not always the same: the server's main thread sends
        small requests itself.  So never wait for the network here; queue what it does not take.

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

    def attach(self, raft: Any) -> None:  # noqa: B027  (optional to override)
        """Learn whose transport this is: ``raft`` is the ``pyraft.Raft``, about to ``serve``.

        For a transport that lets operators control the server from afar.
        """

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

    def install_snapshot(
        self,
        peer: Server,
        request: InstallSnapshotRequest,
        source: BinaryIO,
        timeout: float,
        is_over: Callable[[], bool],
    ) -> InstallSnapshotResponse:
        """Send a snapshot, ``request.size`` bytes of ``source``, and wait for the answer.

        Blocks the calling thread, which reads ``source`` piece by piece.  Heartbeats, votes and
        other calls to the peer do not queue behind it.  If it ends in an error before the last
        byte, the peer's handler cannot take what it got for a complete snapshot.

        Args:
            timeout: seconds without progress (the peer takes no more bytes) after which it
                fails, however long the whole takes.  The answer may come up to ten times as
                long after the last byte: the peer may load the snapshot before it answers.
            is_over: asked several times a second; once it says True the stream is cancelled.

        Raises:
            TransportError: no progress, no answer in time, no connection, the peer answered an
                error, ``is_over``, or ``source`` failed or ended early (see ``__cause__``).
            UnsupportedProtocolError: this transport, or the peer, cannot do it.
        """
        raise UnsupportedProtocolError(f"{type(self).__name__} cannot send snapshots")

    def forget(self, peer: Server) -> None:  # noqa: B027  (optional to override)
        """Free connections and threads kept for ``peer``.  It may be called again later."""

    @abstractmethod
    def close(self) -> None:
        """Stop serving, fail every call in flight with TransportError, free everything.  Idempotent."""
