"""The wires between server processes on loopback, which tests can cut.

Each server advertises the address of a relay here, which forwards to where the server listens.  Who
dialled is found in the kernel's tables (Linux only), so neither side's program knows of any of this.
A wire that is cut carries nothing and stays open, as a real one would; what was sent meanwhile
arrives when it is mended.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
_CHUNK_BYTES = 256 * 1024


class Links:
    """Relays for any number of servers, on one thread.  Methods are called from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()
        self._pids: dict[str, int] = {}
        self._groups: dict[str, int] = {}  # server -> which side it is on; all others are on side 0
        self._changed = asyncio.Event()
        self._pumps: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def add(self, id: str) -> tuple[str, str]:
        """Where the server ``id`` must listen, and the address under which the others reach it."""
        port = _port_for_a_server()
        relay = asyncio.run_coroutine_threadsafe(self._relay(id, port), self._loop).result(20)
        return f"{LOOPBACK}:{port}", f"{LOOPBACK}:{relay}"

    def runs_as(self, id: str, pid: int) -> None:
        """From now on connections of the process ``pid`` are those of the server ``id``."""
        self._pids[id] = pid

    def cut_off(self, *ids: str) -> None:
        """Separate ``ids``, who still reach each other, from all others."""
        self._set_groups(dict.fromkeys(ids, 1))

    def mend(self) -> None:
        self._set_groups({})

    def _set_groups(self, groups: dict[str, int]) -> None:
        def change() -> None:
            self._groups = groups
            self._changed.set()
            self._changed = asyncio.Event()

        self._loop.call_soon_threadsafe(change)

    # On the loop's thread.

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _relay(self, id: str, port: int) -> int:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._pumps.add(task)
            try:
                await self._carry(id, port, reader, writer)
            except asyncio.CancelledError:
                pass  # the end of all
            finally:
                self._pumps.discard(task)
                writer.close()

        server = await asyncio.start_server(accepted, LOOPBACK, 0, limit=_CHUNK_BYTES)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _carry(
        self, id: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        dialler = self._owner(writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1])
        await self._mended(dialler, id)
        try:
            onward, outward = await asyncio.open_connection(LOOPBACK, port, limit=_CHUNK_BYTES)
        except OSError:
            return  # nobody listens there now: the dialler sees its connection closed
        for each in (writer, outward):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.gather(
                self._pump(dialler, id, reader, outward), self._pump(id, dialler, onward, writer)
            )
        finally:
            outward.close()

    async def _pump(
        self,
        source: str | None,
        target: str | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._mended(source, target)
                writer.write(data)
                await writer.drain()
        await self._mended(source, target)
        with suppress(OSError):
            writer.write_eof()

    async def _mended(self, source: str | None, target: str | None) -> None:
        while self._groups.get(source or "", 0) != self._groups.get(target or "", 0):
            await self._changed.wait()

    def _owner(self, port: int, listener: int) -> str | None:
        """Which server has the connection from ``port`` of loopback to ``listener``; None if no one does."""
        inode = _inode(port, listener)
        for id, pid in self._pids.items():
            with suppress(OSError):
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        if inode and os.readlink(descriptor) == f"socket:[{inode}]":
                            return id
        return None


def _port_for_a_server() -> int:
    """A port on which nobody listens, and which no connection that is dialled gets while its server is down."""
    dialled_from = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, dialled_from)
        with socket.socket() as chosen, suppress(OSError):
            chosen.bind((LOOPBACK, port))
            return port


def _inode(local: int, remote: int) -> str | None:
    here = struct.unpack("=I", socket.inet_aton(LOOPBACK))[0]
    ends = (f"{here:08X}:{local:04X}", f"{here:08X}:{remote:04X}")
    # Sockets that speak IPv6 as well are listed apart, with the address mapped.
    for table, before in (("tcp", ""), ("tcp6", "0000000000000000FFFF0000")):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if (fields[1], fields[2]) == tuple(before + end for end in ends):
                    return fields[9]
    return None
