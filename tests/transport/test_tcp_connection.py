"""A connection's bytes arrive whole and in order, though nobody waits while they are sent."""

import socket
import threading
from contextlib import closing

import pytest

from pyraft.runtime import ThreadRuntime
from pyraft.transport.tcp_connection import Connection


def submit(job):
    threading.Thread(target=job, daemon=True).start()


@pytest.fixture
def pair():
    """A connection, and the plain socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.create_connection(listener.getsockname(), timeout=20)
        sock, _ = listener.accept()
    with plain, closing(Connection(ThreadRuntime(), submit, 20.0, sock)) as connection:
        yield connection, plain


def test_what_the_connection_does_not_take_at_once_follows_in_order(pair):
    connection, plain = pair
    pieces = [bytes([number]) * 3_000_000 for number in range(10)]
    pieces[5:5] = [b"small"] * 3
    for piece in pieces:
        connection.put(piece)  # returns, though nobody reads
    sent = b"".join(pieces)
    received = bytearray()
    while len(received) < len(sent):
        received += plain.recv(1 << 20)
    assert received == sent
    connection.put(b"and on")
    assert plain.recv(100) == b"and on"


def test_to_abort_wakes_who_receives_and_who_sends(pair):
    connection, _ = pair
    connection.put(bytes(30_000_000))
    connection.abort()
    assert connection.receive(600) == b""
    connection.put(b"nothing")
    with pytest.raises(OSError, match="closed"):
        connection.send(b"nothing")
