"""What the machine itself can do: the units in which the library's figures are read."""

from __future__ import annotations

import os
import queue
import statistics
import tempfile
import time
from concurrent import futures
from pathlib import Path

import grpc
import lmdb


def lmdb_commit(entries: int, rounds: int, home: Path | None = None) -> float:
    """Median seconds of one durable LMDB transaction that appends ``entries`` records of 160 bytes."""
    with (
        tempfile.TemporaryDirectory(dir=home) as folder,
        lmdb.open(folder, map_size=1 << 32, lib_version=0) as env,
    ):
        times = []
        for first in range(0, rounds * entries, entries):
            items = [(index.to_bytes(8, "big"), bytes(160)) for index in range(first, first + entries)]
            began = time.perf_counter()
            with env.begin(write=True) as transaction, transaction.cursor() as cursor:
                cursor.putmulti(items, append=True)
            times.append(time.perf_counter() - began)
        return statistics.median(times)


def file_flush(home: Path | None = None, rounds: int = 200) -> float:
    """Median seconds of a 160-byte append and its flush, in a file below ``home``."""
    with tempfile.TemporaryDirectory(dir=home) as folder:
        handle = os.open(Path(folder) / "file", os.O_WRONLY | os.O_CREAT)
        times = []
        try:
            for _ in range(rounds):
                began = time.perf_counter()
                os.write(handle, bytes(160))
                os.fdatasync(handle)
                times.append(time.perf_counter() - began)
        finally:
            os.close(handle)
        return statistics.median(times)


def grpc_round_trip(rounds: int = 500) -> float:
    """Median seconds of one message there and back on a gRPC stream, within one process."""

    def echo(requests: object, context: object) -> object:
        yield from requests  # type: ignore[misc]

    handler = grpc.method_handlers_generic_handler(
        "Limit", {"Echo": grpc.stream_stream_rpc_method_handler(echo)}
    )
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    times = []
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        replies = channel.stream_stream("/Limit/Echo")(iter(outbox.get, None))
        for _ in range(rounds):
            began = time.perf_counter()
            outbox.put(bytes(200))
            next(replies)
            times.append(time.perf_counter() - began)
        outbox.put(None)
    server.stop(None).wait()
    return statistics.median(times)
