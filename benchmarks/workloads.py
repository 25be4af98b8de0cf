"""The loads, as they run inside the leader's process.  benchmarks/go/workloads.go has the same ones.

Each takes anything whose ``apply(command)`` returns a future, and returns plain numbers: how many
operations it ``submitted`` in all, and what it saw after its warm-up.  Seconds unless a name says
otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

TIMEOUT = 60.0
_AT_ONCE = 64
"""Blocked clients that begin together."""
_BETWEEN_SECONDS = 0.005
_STACK_BYTES = 256 * 1024
"""Of each client's thread: there are up to 4,096 of them."""

Figures = dict[str, float]


class UnsupportedError(Exception):
    """This library has no such operation."""


def commands(client: int, size: int) -> Callable[[], bytes]:
    """A function that makes distinct commands, so that a lost, doubled or exchanged one shows."""
    head = client.to_bytes(8, "big")
    tail = bytes(size - 16)
    number = 0

    def make() -> bytes:
        nonlocal number
        number += 1
        return head + number.to_bytes(8, "big") + tail

    return make


def operation(raft: Any, name: str, client: int, size: int) -> Callable[[], Any]:
    """What one client does again and again: a call that returns a future."""
    if not hasattr(raft, name):
        raise UnsupportedError(name)
    if name != "apply":
        call: Callable[[], Any] = getattr(raft, name)
        return call
    make = commands(client, size)
    apply = raft.apply
    return lambda: apply(make())


class Tally:
    """What the clients have done; each writes only its own places."""

    def __init__(self, clients: int) -> None:
        self.counts = [0] * clients
        self.times: list[list[float]] = [[] for _ in range(clients)]
        self.failures: list[BaseException] = []
        self.is_counting = False
        self.is_stopped = False
        self._total = 0
        self._since = 0.0
        self._rate = 0.0

    def begin(self) -> None:
        self.is_counting = True
        self._total, self._since = sum(self.counts), time.perf_counter()

    def end(self) -> None:
        self._rate = (sum(self.counts) - self._total) / (time.perf_counter() - self._since)
        self.is_stopped = True  # a latency that ends later counts: else the longest would not

    def figures(self) -> Figures:
        """What all clients together saw.

        Raises:
            BaseException: the first failure of any of them.
        """
        if self.failures:
            raise self.failures[0]
        return {
            "submitted": sum(self.counts),
            "per_second": self._rate,
            **percentiles([seconds for times in self.times for seconds in times]),
        }


def percentiles(times: list[float]) -> Figures:
    """Of latencies in seconds: p50, p99 and p99.9 in microseconds; empty without any."""
    if not times:
        return {}
    times.sort()
    shares = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}
    return {name: 1e6 * times[math.ceil(share * len(times)) - 1] for name, share in shares.items()}


def clients(
    raft: Any,
    *,
    size: int,
    seconds: float,
    warm_up: float,
    clients: int,
    operation: str = "apply",
    busy: bool = False,
    switch_interval: float | None = None,
) -> Figures:
    """Threads that each wait for their own operation; one of them is the test of latency.

    Args:
        busy: another thread of the process burns CPU in Python meanwhile.
        switch_interval: what the interpreter's switch interval is set to meanwhile.
    """
    tally = Tally(clients)
    calls = [globals()["operation"](raft, operation, number, size) for number in range(clients)]

    gates = [threading.Event() for _ in range(0, clients, _AT_ONCE)]

    def client(number: int) -> None:
        call, times, clock = calls[number], tally.times[number], time.perf_counter
        gates[number // _AT_ONCE].wait()
        try:
            while not tally.is_stopped:
                began = clock()
                call().result(TIMEOUT)
                tally.counts[number] += 1
                if tally.is_counting:
                    times.append(clock() - began)
        except BaseException as error:
            tally.failures.append(error)

    before = threading.stack_size(_STACK_BYTES)
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    with burning() if busy else contextlib.nullcontext(), switching(switch_interval):
        # A thread that starts beside others at work takes 10 ms to say that it runs.
        for thread in threads:
            thread.start()
        threading.stack_size(before)
        # All at once would keep the leader's own threads from running for a second: it would step down.
        for gate in gates:
            gate.set()
            time.sleep(_BETWEEN_SECONDS)
        time.sleep(warm_up)
        tally.begin()
        time.sleep(seconds)
        tally.end()
        for thread in threads:
            thread.join()
    return tally.figures()


def tasks(raft: Any, *, size: int, seconds: float, warm_up: float, clients: int) -> Figures:
    """The same with asyncio tasks of one loop, each awaiting its own command."""
    tally = Tally(clients)

    async def client(number: int) -> None:
        call, times, clock = operation(raft, "apply", number, size), tally.times[number], time.perf_counter
        try:
            while not tally.is_stopped:
                began = clock()
                await awaitable(call())
                tally.counts[number] += 1
                if tally.is_counting:
                    times.append(clock() - began)
        except BaseException as error:
            tally.failures.append(error)

    async def all_of_them() -> None:
        running = [asyncio.create_task(client(number)) for number in range(clients)]
        await asyncio.sleep(warm_up)
        tally.begin()
        await asyncio.sleep(seconds)
        tally.end()
        await asyncio.gather(*running)

    asyncio.run(all_of_them())
    return tally.figures()


def awaitable(future: Any) -> Any:
    """The future itself if it can be awaited, or what asyncio makes of it."""
    return future if hasattr(future, "__await__") else asyncio.wrap_future(future)


def outstanding(raft: Any, *, size: int, seconds: float, warm_up: float, window: int) -> Figures:
    """One producer that keeps ``window`` commands on their way, and waits for the oldest.

    What is counted begins and ends with nothing on its way.
    """
    make = commands(0, size)
    warm, _ = _produce(raft.apply, make, window, warm_up)
    counted, took = _produce(raft.apply, make, window, seconds)
    return {"submitted": warm + counted, "per_second": counted / took}


def _produce(
    apply: Callable[[bytes], Any], make: Callable[[], bytes], window: int, seconds: float
) -> tuple[int, float]:
    waiting: deque[Any] = deque()
    submitted = 0
    began = time.perf_counter()
    while submitted % 64 or time.perf_counter() - began < seconds:
        if len(waiting) >= window:
            waiting.popleft().result(TIMEOUT)
        waiting.append(apply(make()))
        submitted += 1
    for future in waiting:
        future.result(TIMEOUT)
    return submitted, time.perf_counter() - began


def fill(raft: Any, *, size: int, count: int, window: int) -> Figures:
    """Exactly ``count`` commands, for what depends on how many there were."""
    make, apply = commands(0, size), raft.apply
    waiting: deque[Any] = deque()
    began = time.perf_counter()
    for _ in range(count):
        if len(waiting) >= window:
            waiting.popleft().result(TIMEOUT)
        waiting.append(apply(make()))
    for future in waiting:
        future.result(TIMEOUT)
    return {"submitted": count, "per_second": count / (time.perf_counter() - began)}


@contextlib.contextmanager
def burning() -> Iterator[None]:
    """A thread computes in Python for as long as this lasts, as one of an embedding program may."""
    stop = threading.Event()

    def burn() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number = (number * 31 + 7) % 1_000_003

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def switching(interval: float | None) -> Iterator[None]:
    """The interpreter switches threads after ``interval`` seconds for as long as this lasts."""
    before = sys.getswitchinterval()
    if interval is not None:
        sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


WORKLOADS: dict[str, Callable[..., Figures]] = {
    "clients": clients,
    "tasks": tasks,
    "outstanding": outstanding,
    "fill": fill,
}
