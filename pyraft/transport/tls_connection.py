"""A TCP connection whose bytes are encrypted.

OpenSSL works on memory here, because the connection must do what its sockets cannot: send without
blocking from any thread while another one receives.  What is encrypted first must be sent first:
so one lock is held from encrypting to the place in the line.  Who sends alone and blocks does
not hold it meanwhile, so that who receives can go on.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..runtime import Runtime
from .tcp_connection import RECEIVE_BYTES, Connection

_LAST_WORDS_SECONDS = 0.2


class TlsConnection(Connection):
    """As ``Connection``, once ``handshake`` is over."""

    def __init__(
        self,
        runtime: Runtime,
        submit: Callable[[Callable[[], None]], Any],
        timeout: float,
        context: ssl.SSLContext,
        peer_host: str = "",
        sock: socket.socket | None = None,
    ) -> None:
        """Take ``sock``, which was accepted, or none until ``connect``.

        Args:
            peer_host: what the certificate of a server that is called must be for.
        """
        super().__init__(runtime, submit, timeout, sock)
        self._tls_lock = runtime.lock()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=sock is not None,
            server_hostname=peer_host if sock is None else None,
        )

    def handshake(self, deadline: float) -> None:
        """Agree on keys, and see each other's certificates.

        Raises:
            OSError: one of them is not good enough, or the other side does not speak TLS.
            TimeoutError: it took too long.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                is_over = False
            except ssl.SSLError:
                with suppress(OSError):
                    super().send(self._outgoing.read())  # why, for the other side
                raise
            else:
                is_over = True
            super().send(self._outgoing.read())
            if is_over:
                return
            left = deadline - self._runtime.now()
            if left <= 0:
                raise TimeoutError("no TLS handshake in time")
            data = super().receive(left)
            if not data:
                raise ConnectionAbortedError("it hung up in the TLS handshake")
            self._incoming.write(data)

    @property
    def is_quiet(self) -> bool:
        return not self._incoming.pending and not self._tls.pending() and super().is_quiet

    def receive(self, timeout: float, max_bytes: int = RECEIVE_BYTES) -> bytes:
        while True:
            try:
                with self._tls_lock:
                    return self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            data = super().receive(timeout)
            with self._tls_lock:
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    def put(self, data: bytes) -> None:
        with self._tls_lock:
            try:
                encrypted = self._encrypt(data)
            except ssl.SSLError:  # the other side has ended it
                self.abort()
                return
            super().put(encrypted)

    def send(self, data: bytes) -> None:
        with self._tls_lock:
            encrypted = self._encrypt(data)
        try:
            super().send(encrypted)
        except (ConnectionResetError, BrokenPipeError):
            # Perhaps it does not like our certificate, which it says only after the handshake.
            with suppress(TimeoutError, ConnectionResetError):
                self.receive(_LAST_WORDS_SECONDS)
            raise

    def _encrypt(self, data: bytes) -> bytes:
        if data:  # OpenSSL would take nothing for an end
            self._tls.write(data)
        return self._outgoing.read()
