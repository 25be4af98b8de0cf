"""One snapshot on its way: what both ends do on every transport.

The sender reads a piece whenever the peer has room for one; the receiver's pieces wait in an
inbox until its handler reads them.  A transport brings the pieces, in order, and the news that
one was taken; neither end ever holds more than a few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from ..errors import RaftError, TransportError
from ..messages import InstallSnapshotRequest, InstallSnapshotResponse
from ..runtime import Inbox, Runtime

CHUNK_BYTES = 128 * 1024
"""A link that needs longer than the sender's timeout for one piece is too slow: at 10 s, below 13 KB/s."""
CHUNKS_AHEAD = 4
"""So many pieces may be on their way that the receiver has not taken yet."""
PATIENCE_SECONDS = 30.0
"""A sender from which nothing came for so long is gone."""

_LOOK_SECONDS = 0.1
"""How often a sender that waits asks whether it is over."""
_ANSWER_TIMEOUTS = 10
"""A Go server loads the snapshot before it answers."""


class SnapshotSender:
    """The end that sends."""

    def __init__(
        self,
        runtime: Runtime,
        what: str,
        request: InstallSnapshotRequest,
        source: BinaryIO,
        timeout: float,
        is_over: Callable[[], bool],
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Send nothing yet.

        Args:
            what: how errors name it.
            source, timeout, is_over: see ``Transport.install_snapshot``.
        """
        self.what = what
        self._runtime = runtime
        self._request = request
        self._source = source
        self._timeout = timeout
        self._is_over = is_over
        self._chunk_bytes = chunk_bytes
        self._inbox: Inbox = runtime.inbox(what)
        self._outcome: InstallSnapshotResponse | RaftError | None = None

    def make_room(self) -> None:
        """Say that the peer takes one more piece.  Any thread."""
        self._inbox.put(_ROOM)

    def finish(self, outcome: InstallSnapshotResponse | RaftError) -> None:
        """Say how it ended; an error is raised as it is, and the first outcome counts.  Any thread."""
        self._inbox.put(outcome)

    def fail(self, reason: str) -> None:
        """End it with an error.  Any thread."""
        self.finish(TransportError(f"{self.what}: {reason}"))

    def run(self, carry: Callable[[bytes], None], close: Callable[[], None]) -> InstallSnapshotResponse:
        """Give ``carry`` one piece after the other, then call ``close``, and return the peer's answer.

        Raises:
            TransportError: there is none.  If ``close`` was not called, what was carried is no snapshot.
            RaftError: what ``finish`` was given.
        """
        left = self._request.size
        while left > 0:
            chunk = self._read(min(left, self._chunk_bytes))
            if not self._has_room():
                break  # the peer answered without reading on
            carry(chunk)
            left -= len(chunk)
        else:
            close()
        return self._answer()

    def _read(self, max_bytes: int) -> bytes:
        try:
            chunk = self._source.read(max_bytes)
        except Exception as error:
            raise TransportError(f"{self.what}: reading the snapshot failed: {error!r}") from error
        if not chunk:
            raise TransportError(f"{self.what}: the snapshot ends before its {self._request.size} bytes")
        return bytes(chunk)  # the source may use its buffer again

    def _has_room(self) -> bool:
        if not self._wait(self._timeout):
            raise TransportError(f"{self.what}: the peer took no bytes for {self._timeout:g} s")
        return self._outcome is None

    def _answer(self) -> InstallSnapshotResponse:
        timeout = self._timeout * _ANSWER_TIMEOUTS
        while self._outcome is None:
            if not self._wait(timeout):
                raise TransportError(f"{self.what}: no answer within {timeout:g} s after the last byte")
        if isinstance(self._outcome, RaftError):
            raise self._outcome
        return self._outcome

    def _wait(self, timeout: float) -> bool:
        """Take one piece of news; False: there was none in time."""
        deadline = self._runtime.now() + timeout
        while True:
            if self._is_over():
                raise TransportError(f"{self.what}: it is no longer wanted")
            look = min(self._runtime.now() + _LOOK_SECONDS, deadline)
            news = self._inbox.take(look)
            if news is None:
                if look >= deadline:
                    return False
                continue
            if news is not _ROOM and self._outcome is None:
                self._outcome = news
            return True


class SnapshotReceiver:
    """The end that receives; a ``SnapshotSource`` for the handler."""

    def __init__(
        self,
        runtime: Runtime,
        size: int,
        taken: Callable[[], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Expect ``size`` bytes.

        Args:
            taken: called once for every piece that the handler has begun to read.
            patience: seconds without news from the sender after which the stream is broken.
        """
        self._runtime = runtime
        self._size = size
        self._taken = taken
        self._patience = patience
        self._inbox: Inbox = runtime.inbox("snapshot")
        self._rest = memoryview(b"")
        self._received = 0
        self._complete = False
        self._failure = ""

    def put(self, data: bytes) -> None:
        """Bring the next piece.  Any thread, in order; never blocks."""
        self._inbox.put(data)

    def close(self) -> None:
        """Say that this was all.  Any thread."""
        self._inbox.put(_END)

    def fail(self, reason: str) -> None:
        """Say that the stream is broken.  Any thread."""
        self._inbox.put(_Broken(reason))

    def read(self, max_bytes: int) -> bytes:
        """See ``SnapshotSource.read``."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes}: read at least one byte")
        while not self._rest and not self._complete:
            self._take()
        data, self._rest = bytes(self._rest[:max_bytes]), self._rest[max_bytes:]
        return data

    def _take(self) -> None:
        if self._failure:
            raise TransportError(self._failure)
        news = self._inbox.take(self._runtime.now() + self._patience)
        if news is None:
            raise self._break(f"nothing came for {self._patience:g} s")
        if isinstance(news, _Broken):
            raise self._break(news.reason)
        if news is _END:
            if self._received < self._size:
                raise self._break("short read")
            self._complete = True
            return
        self._taken()
        self._received += len(news)
        if self._received > self._size:
            raise self._break("it goes on after its announced end")
        self._rest = memoryview(news)

    def _break(self, reason: str) -> TransportError:
        self._failure = f"the snapshot's stream broke after {self._received} of {self._size} bytes: {reason}"
        return TransportError(self._failure)


_ROOM = object()
_END = object()


class _Broken:
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason
