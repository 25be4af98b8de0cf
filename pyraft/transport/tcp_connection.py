"""One TCP connection: deadlines, and answers and requests that are written without a thread's help.

Several threads may send, one receives.  The socket is closed by the receiver, once nobody is
inside it: a descriptor closed under another thread's hands may already be somebody else's.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..errors import TransportError
from ..runtime import Runtime

RECEIVE_BYTES = 64 * 1024
_LONGEST_TIMEOUT = 10_000_000.0
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPALIVE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""Seconds of silence, seconds between probes, and probes without answer after which a peer is gone."""


class Connection:
    """A connection, made or accepted."""

    def __init__(
        self,
        runtime: Runtime,
        submit: Callable[[Callable[[], None]], Any],
        timeout: float,
        sock: socket.socket | None = None,
    ) -> None:
        """Take ``sock``, or none until ``connect``.

        Args:
            submit: runs a job on another thread.
            timeout: seconds without progress after which sending fails.
        """
        self._runtime = runtime
        self._submit = submit
        self._timeout = timeout
        self._lock = runtime.lock()
        self._backlog: deque[bytes | memoryview] = deque()
        self._writing = False
        self._aborted = False
        self._closed = False
        self._receive_timeout = 0.0
        self._sock = sock
        if sock is not None:
            self._prepare(sock)

    def connect(self, addresses: Sequence[Any], deadline: float) -> None:
        """Connect to the first of ``addresses`` (of getaddrinfo) that answers.

        Raises:
            OSError: none does; TimeoutError: not by ``deadline``.
        """
        failure: OSError = OSError("it has no address")
        for family, kind, protocol, _, address in addresses:
            left = deadline - self._runtime.now()
            if left <= 0:
                raise TimeoutError("no connection in time")
            sock = socket.socket(family, kind, protocol)
            with self._lock:
                if self._aborted:
                    sock.close()
                    raise ConnectionAbortedError("closed")
                self._sock = sock
            try:
                sock.settimeout(left)
                sock.connect(address)
                self._prepare(sock)
            except OSError as error:
                failure = error
                with self._lock:
                    self._sock = None
                    sock.close()
                continue
            if self._aborted:
                raise ConnectionAbortedError("closed")
            return
        raise failure

    def handshake(self, deadline: float) -> None:
        """Do what must be done before the first byte: nothing here.  By the thread that receives."""

    def _prepare(self, sock: socket.socket) -> None:
        # Timeouts of the operating system's: Python's would cost a poll for each call.
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._timeout))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    @property
    def is_quiet(self) -> bool:
        """Whether it is open and nothing has come that nobody asked for."""
        sock = self._sock
        if sock is None:
            return False
        try:
            sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def receive(self, timeout: float, max_bytes: int = RECEIVE_BYTES) -> bytes:
        """The next bytes, b"" once the peer has closed.

        Raises:
            TimeoutError: none came for ``timeout`` seconds.
            OSError: the connection is broken.
        """
        sock = self._sock
        if sock is None:
            return b""
        if timeout != self._receive_timeout:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout))
            self._receive_timeout = timeout
        try:
            return sock.recv(max_bytes)
        except BlockingIOError as error:
            raise TimeoutError(f"nothing came for {timeout:g} s") from error

    def put(self, data: bytes) -> None:
        """Send ``data`` after all that was put before.  Any thread; never blocks.

        What the connection does not take at once is written by another thread.  If it breaks,
        who receives learns of it.
        """
        with self._lock:
            if self._closed or self._aborted:
                return
            if self._writing:
                self._backlog.append(data)
                return
            sent = self._send_at_once(data)
            if sent == len(data):
                return
            self._backlog.append(memoryview(data)[sent:])
            self._writing = True
        try:
            self._submit(self._write)
        except RuntimeError:  # the workers have been shut down
            self._write_ended()
            self.abort()

    def _send_at_once(self, data: bytes) -> int:
        assert self._sock is not None
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            self._shut_down()
            return len(data)

    def _write(self) -> None:
        while True:
            with self._lock:
                piece = self._backlog.popleft() if self._backlog and not self._aborted else None
                if piece is None:
                    break
            try:
                self._send_all(piece)
            except OSError:
                self.abort()
        self._write_ended()

    def send(self, data: bytes) -> None:
        """Send ``data``, and block until the connection has taken it.  For who is the only sender.

        Raises:
            OSError: it broke, or took nothing for the timeout.
        """
        with self._lock:
            if self._closed or self._aborted:
                raise ConnectionAbortedError("closed")
            self._writing = True
        try:
            self._send_all(data)
        finally:
            self._write_ended()

    def _send_all(self, data: bytes | memoryview) -> None:
        assert self._sock is not None
        left = memoryview(data)
        while left:
            left = left[self._sock.send(left) :]

    def _write_ended(self) -> None:
        with self._lock:
            more = bool(self._backlog) and not self._aborted and not self._closed
            self._writing = more
            if self._closed and self._sock is not None:
                self._sock.close()
        if more:  # put between the last look and now
            self._submit(self._write)

    def abort(self) -> None:
        """Break the connection, and wake who is blocked in it.  Any thread."""
        with self._lock:
            self._aborted = True
            self._backlog.clear()
            if not self._closed:
                self._shut_down()

    def close(self) -> None:
        """Give it back.  Of the threads that may receive, the only one that still does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._backlog.clear()
            self._shut_down()
            if self._sock is not None and not self._writing:
                self._sock.close()

    def _shut_down(self) -> None:
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)


def _timeval(seconds: float) -> bytes:
    microseconds = max(int(min(seconds, _LONGEST_TIMEOUT) * 1_000_000), 1)  # 0 would be for ever
    return struct.pack("ll", *divmod(microseconds, 1_000_000))


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        TransportError: the address cannot be had.
    """
    where = f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(128)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise TransportError(
            f"cannot listen on {where}: {error.strerror or error}. If another program has the port, "
            f"`ss -ltnp 'sport = :{port}'` names it: stop it, or choose another address"
        ) from error
    return sock
