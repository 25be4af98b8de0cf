"""Requests and answers between the demo and its servers: a line of JSON each, over TCP.

Requests: ``{"do": "write", "command": "c1:17"}``, ``{"do": "status"}`` and ``{"do": "dump"}``.
What the server answers is said in server.py.
"""

from __future__ import annotations

import json
import socket
from typing import Any, TypeAlias

HOST = "127.0.0.1"

Message: TypeAlias = dict[str, Any]


def encode(message: Message) -> bytes:
    """``message`` as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Connection:
    """A client's end: ask, and wait for the answer."""

    def __init__(self, port: int, timeout: float) -> None:
        """Connect to the server at ``port``; every step may take ``timeout`` seconds.

        Raises:
            OSError: nobody answers there.  Nothing was sent.
        """
        self._socket = socket.create_connection((HOST, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def ask(self, request: Message) -> Message:
        """Send ``request`` and return the answer.

        Raises:
            OSError: the connection broke or nothing came in time.  Whether the server got the
                request, and whether it will still do what it says, is open.
        """
        self._socket.sendall(encode(request))
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection ended before the answer")
        answer: Message = json.loads(line)
        return answer

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
