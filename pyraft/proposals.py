"""The queue of commands between the threads that call apply() and the leader loop.

Bounded by count and by bytes.  It is apart from the main thread's inbox, which gets only
a poke, so that commands never stand in front of RPCs or timers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .errors import EnqueueTimeoutError, RaftError
from .futures import IndexFuture
from .log import LogType
from .runtime import NotifyChannel, Runtime, Signal

_OVERHEAD_BYTES = 64  # of the objects around a command
_EACH_MEASURED = 63  # of 64 commands that wait one knows since when; a power of two less one


Proposal = tuple[LogType, bytes, bytes, IndexFuture[Any]]
"""What wants to become a log entry (type, data, extensions), and the future of whoever asked.

A plain tuple, because one is made for every command: a sixth of the cost of an object.
"""


def futures_of(proposals: list[Proposal]) -> list[IndexFuture[Any]]:
    """Of those who wait for ``proposals``."""
    return [proposal[3] for proposal in proposals]


def _size_of(proposal: Proposal) -> int:
    return len(proposal[1]) + len(proposal[2]) + _OVERHEAD_BYTES


class ProposalQueue:
    """Many threads put, the main thread takes all that waits in one go."""

    def __init__(self, runtime: Runtime, channel: NotifyChannel, max_count: int, max_bytes: int) -> None:
        self.channel = channel
        self._runtime = runtime
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._lock = runtime.lock()
        self._items: list[Proposal] = []
        self._bytes = 0
        self._taken = 0  # in all
        self._instants: deque[tuple[int, float]] = deque()  # which of all, and when it was put
        self._oldest_put_at: float | None = None  # of what was taken last
        self._waiting: list[Signal] = []
        self._is_told_full = False  # the leader loop, since it took something
        self._closed: Callable[[], RaftError] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def has(self, count: int, size: int) -> bool:
        """Whether so many commands wait, or so many bytes."""
        return len(self._items) >= count or self._bytes >= size

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def put(self, proposal: Proposal, timeout: float | None = None) -> None:
        """Leave ``proposal`` for the leader loop; wait for room at most ``timeout`` seconds.

        On a pyraft thread, or where an asyncio loop runs, it never waits.  None = no limit.

        Raises:
            EnqueueTimeoutError: no room in time; the command is in nobody's log.
            RaftError: the queue was closed, with the reason it was closed for.
        """
        if not self._offer(proposal):
            self._put_when_there_is_room(proposal, timeout)
        if not self.channel.is_marked:  # poke() looks, too: but most commands find it marked
            self.channel.poke()

    def take(self, max_count: int, max_bytes: int) -> list[Proposal]:
        """What waits, oldest first: at most ``max_count``, and no more once past ``max_bytes``.

        Main thread only.  Wakes whoever waits for room.
        """
        with self._lock:
            items = self._items
            if len(items) <= max_count and self._bytes <= max_bytes:
                self._items, self._bytes = [], 0
            else:
                items = self._cut(max_count, max_bytes)
            self._taken += len(items)
            self._is_told_full = False
            self._find_oldest()
            waiting, self._waiting = self._waiting, []
        for signal in waiting:
            signal.set()
        return items

    def longest_wait(self) -> float | None:
        """Seconds that about the oldest of what was just taken has waited; None: not measured.  Main thread only."""
        put_at = self._oldest_put_at
        return None if put_at is None else self._runtime.measured() - put_at

    def close(self, make_error: Callable[[], RaftError]) -> list[Proposal]:
        """Refuse everything from now on with an error from ``make_error``; return what still waited."""
        with self._lock:
            self._closed = make_error
            items, self._items, self._bytes = self._items, [], 0
            waiting, self._waiting = self._waiting, []
        for signal in waiting:
            signal.set()
        return items

    def _offer(self, proposal: Proposal, room: Signal | None = None) -> bool:
        """Put if there is room; otherwise let ``room`` know when there may be."""
        # Every command comes through here, so what can be done without a call is.
        size = len(proposal[1]) + len(proposal[2]) + _OVERHEAD_BYTES
        with self._lock:
            items = self._items
            count, size = len(items), size + self._bytes
            # An empty queue takes anything, or a command near the limit could never get in.
            if count and (count >= self._max_count or size > self._max_bytes):
                self._refuse_if_closed()
                if room is not None:
                    self._waiting.append(room)
                return False
            if not count & _EACH_MEASURED:
                self._refuse_if_closed()  # closed, it is empty for ever, so this is enough
                self._instants.append((self._taken + count, self._runtime.measured()))
            items.append(proposal)
            self._bytes = size
            return True

    def _refuse_if_closed(self) -> None:
        if self._closed is not None:
            raise self._closed()

    def _put_when_there_is_room(self, proposal: Proposal, timeout: float | None) -> None:
        reason = self._runtime.must_not_wait()
        if reason is not None:
            self._ask_for_room()
            raise EnqueueTimeoutError(
                f"{len(self._items)} commands are waiting already, and apply() must not wait for room here "
                f"because {reason}: try again later, or from another thread"
            )
        deadline = None if timeout is None else self._runtime.now() + timeout
        while True:
            room = self._runtime.signal()
            if self._offer(proposal, room):
                return
            self._ask_for_room()
            left = None if deadline is None else deadline - self._runtime.now()
            if (left is not None and left <= 0) or not room.wait(left):
                with self._lock:
                    if room in self._waiting:
                        self._waiting.remove(room)
                raise EnqueueTimeoutError(
                    f"{len(self._items)} commands ({self._bytes} bytes) kept waiting for {timeout:g} s: the "
                    f"cluster is slower than its clients. Try again later, or allow more time or more "
                    f"max_proposals and max_proposal_bytes"
                )

    def _ask_for_room(self) -> None:
        """The leader loop may be waiting for more; but to be told once is enough."""
        if self._is_told_full:
            self.channel.poke()
            return
        self._is_told_full = True
        self.channel.insist()

    def _cut(self, max_count: int, max_bytes: int) -> list[Proposal]:
        size = count = 0
        for proposal in self._items:
            more = _size_of(proposal)
            if count and (count >= max_count or size + more > max_bytes):
                break
            size += more
            count += 1
        taken, self._items = self._items[:count], self._items[count:]
        self._bytes -= size
        return taken

    def _find_oldest(self) -> None:
        self._oldest_put_at = None
        while self._instants and self._instants[0][0] < self._taken:
            _, put_at = self._instants.popleft()
            if self._oldest_put_at is None:
                self._oldest_put_at = put_at
