"""The loads, as they run inside the leader's process.

Each returns plain numbers.  Times are seconds unless a name says otherwise.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pyraft import Raft

TIMEOUT = 60.0


def one_at_a_time(raft: Raft, size: int, seconds: float) -> dict[str, float]:
    """One caller that waits for each command: the latency that a user feels."""
    command = bytes(size)
    times = []
    end = time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        if began >= end and len(times) >= 20:
            break
        raft.apply(command).result(TIMEOUT)
        times.append(time.perf_counter() - began)
    times.sort()
    return {
        "count": len(times),
        "p50_us": 1e6 * statistics.median(times),
        "p99_us": 1e6 * times[min(len(times) - 1, int(len(times) * 0.99))],
    }


def blocking_clients(raft: Raft, size: int, seconds: float, clients: int) -> dict[str, float]:
    """Many threads, each waiting for its own command."""
    command = bytes(size)
    counts = [0] * clients
    failures: list[BaseException] = []
    stop_at = time.perf_counter() + seconds

    def client(number: int) -> None:
        try:
            while time.perf_counter() < stop_at:
                raft.apply(command).result(TIMEOUT)
                counts[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failures:
        raise failures[0]
    return {"count": sum(counts), "per_second": sum(counts) / took}


def outstanding(raft: Raft, size: int, seconds: float, window: int) -> dict[str, float]:
    """One producer that keeps ``window`` commands on their way."""
    command = bytes(size)
    waiting: deque[Any] = deque()
    count = 0
    began = time.perf_counter()
    end = began + seconds
    while time.perf_counter() < end:
        for _ in range(64):
            if len(waiting) >= window:
                waiting.popleft().result(TIMEOUT)
                count += 1
            waiting.append(raft.apply(command))
    while waiting:
        waiting.popleft().result(TIMEOUT)
        count += 1
    return {"count": count, "per_second": count / (time.perf_counter() - began)}


def fill(raft: Raft, size: int, count: int) -> dict[str, float]:
    """Exactly ``count`` commands, for what depends on how many there were."""
    command = bytes(size)
    waiting: deque[Any] = deque()
    for _ in range(count):
        if len(waiting) >= 4096:
            waiting.popleft().result(TIMEOUT)
        waiting.append(raft.apply(command))
    while waiting:
        waiting.popleft().result(TIMEOUT)
    return {"count": count}


def busy_host(raft: Raft, size: int, seconds: float, switch_interval: float | None) -> dict[str, float]:
    """One at a time, while another thread of the same process burns CPU in Python."""
    stop = threading.Event()

    def burn() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number = (number * 31 + 7) % 1_000_003

    before = sys.getswitchinterval()
    if switch_interval is not None:
        sys.setswitchinterval(switch_interval)
    thread = threading.Thread(target=burn)
    thread.start()
    try:
        return one_at_a_time(raft, size, seconds)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)


WORKLOADS: dict[str, Callable[..., dict[str, float]]] = {
    "one_at_a_time": one_at_a_time,
    "blocking_clients": blocking_clients,
    "outstanding": outstanding,
    "fill": fill,
    "busy_host": busy_host,
}
