"""Which streams of other servers a transport has open: only so many, and one for each sender."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from ..errors import RaftError, TransportError
from ..runtime import Runtime


class InboundStream(Protocol):
    """A stream that another server has opened."""

    def end(self) -> None:
        """Wake everybody who waits in it, so that they leave it."""

    def fail(self, error: RaftError) -> None:
        """End it, and tell the other side why."""


S = TypeVar("S", bound=InboundStream)


class Admission(Generic[S]):
    """The inbound streams of one kind, and whose they are."""

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._limit = limit
        self._lock = runtime.lock()
        self._senders: dict[S, str | None] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._senders))

    def admit(self, stream: S) -> bool:
        """Whether there is room for one more, at the price of one that has not said whose it is."""
        nameless = None
        with self._lock:
            if len(self._senders) >= self._limit:
                nameless = next((s for s, sender in self._senders.items() if sender is None), None)
                if nameless is None:
                    return False
                del self._senders[nameless]
            self._senders[stream] = None
        if nameless is not None:
            nameless.end()
        return True

    def name(self, stream: S, sender: str) -> None:
        """End the stream that ``sender`` had before: it has forgotten it, or will never know."""
        if self._senders.get(stream, sender) == sender:
            return  # known, or ended already
        with self._lock:
            older = [s for s, known in self._senders.items() if known == sender and s is not stream]
            for one in older:
                del self._senders[one]
            if stream in self._senders:
                self._senders[stream] = sender
        for one in older:
            one.fail(TransportError(f"a newer stream of {sender} took over"))

    def drop(self, stream: S) -> None:
        """It has ended."""
        with self._lock:
            self._senders.pop(stream, None)
