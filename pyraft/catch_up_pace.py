"""How fast a peer that is far behind is served from the store, so that new commands do not suffer.

Decoding what the store holds needs the interpreter, and so does every command.  So it is read in
pieces with rests between them: smaller pieces and longer rests while commands come.
"""

from __future__ import annotations

from .runtime import Runtime

MOST_ENTRIES = 512
MOST_BYTES = 256 * 1024
"""Most that is read at once: about a millisecond of the interpreter."""
_REST_TIMES = 2.0
"""Such a reading is followed by so many times its duration without another, so that a new
command, which needs the interpreter some five times, nearly always finds it free."""
_LONGEST_REST = 0.02  # seconds, where it was the disk that took its time
_BESIDE_COMMANDS_ENTRIES = 160
_BESIDE_COMMANDS_REST = 0.008  # seconds, at least
"""Pieces and rests while commands come: the peer, too, works off what it gets in bursts, and where
servers share a machine or a disk, a command that meets such a burst waits for its end."""
_COMMANDS_COME = 1.0  # for so many seconds after the latest one


class CatchUpPace:
    """Of one peer.  For its replicator's thread only.

    Attributes:
        read_count: entries of the latest reading; large ones are few.
        rest_until: when the store may be read again.
    """

    def __init__(self, runtime: Runtime, end: int) -> None:
        self._runtime = runtime
        self._end = end  # of the log, at the latest look
        self._end_when_read = end  # and at the latest reading
        self._grew_at = -_COMMANDS_COME  # when it was found to have grown
        self._is_beside_commands = False  # whether the latest reading was in the way of commands
        self.read_count = _BESIDE_COMMANDS_ENTRIES
        self.rest_until = 0.0

    def saw_end(self, end: int, now: float) -> None:
        """The log ends at ``end``."""
        if end != self._end:
            self._end, self._grew_at = end, now

    def begin_reading(self) -> int:
        """Return how many entries to read at once, at most; MOST_BYTES bounds them, too."""
        self._is_beside_commands = self._do_commands_come()
        return _BESIDE_COMMANDS_ENTRIES if self._is_beside_commands else MOST_ENTRIES

    def rest(self, began: float) -> None:
        """Leave the interpreter to the others for a while, after a reading that began at ``began``."""
        now = self._runtime.now()
        shortest = _BESIDE_COMMANDS_REST if self._is_beside_commands else 0.0
        self.rest_until = now + min(max((now - began) * _REST_TIMES, shortest), _LONGEST_REST)

    def _do_commands_come(self) -> bool:
        """Whether commands come, but not so many that small pieces would never reach the end."""
        grown, self._end_when_read = self._end - self._end_when_read, self._end
        is_quiet = self._runtime.now() - self._grew_at >= _COMMANDS_COME
        return not is_quiet and 2 * grown < self.read_count
