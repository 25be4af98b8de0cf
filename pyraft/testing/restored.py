"""What a restore from outside did to the keys of a ``KvFsm``, for whoever checks what clients saw."""

from __future__ import annotations

from typing import NamedTuple

from .linearizability import Operation


class Restored(NamedTuple):
    """A restore that has happened, or may have.

    Attributes:
        data: the state of a ``KvFsm``; empty for others.
        returned: the instant of the answer, infinity if there was none.
    """

    data: dict[str, str]
    call: float
    returned: float

    def operation(self, key: str) -> Operation:
        """What it does to one key."""
        return Operation("restore", key, ("restore", self.data.get(key)), None, self.call, self.returned)
