"""What a store holds as one value: the part in the database, and the tail that the journal has alone.

Pure: readers take the value once, and no write changes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import CorruptStoreError
from .journal import JournalDamage
from .records import Append, Batch, Block, decode_append, encode_block, read_block


class Content(NamedTuple):
    """What the log holds, as of the last write.  Replaced as a whole, after the write returned.

    Attributes:
        tail: blocks at its end that the journal has and the database has not.
        tail_from: index of the tail's first entry; behind the last one if it is empty.
        epoch: of the journal.  While there is a tail, the end of the log in the database is of this
            epoch exactly: the transaction that changes it stores the next one.
    """

    first: int
    last: int
    configurations: tuple[int, ...]
    committed: int
    tail: tuple[tuple[bytes, bytes], ...]
    tail_from: int
    epoch: int

    def is_followed_by(self, batch: Batch) -> bool:
        """Whether ``batch`` has no gaps and goes on where the log ends."""
        return len(batch.runs) == 1 and (not self.last or batch.runs[0][0] == self.last + 1)

    def with_appended(self, append: Append) -> Content:
        """What the log holds once ``append`` is the end of its tail."""
        return Content(
            self.first or append.first,
            append.last,
            (*self.configurations, *append.configurations),
            append.committed,
            (*self.tail, *append.items),
            self.tail_from if self.tail else append.first,
            self.epoch,
        )

    def without_tail(self) -> Content:
        """The same, all of it in the database."""
        return self._replace(tail=(), tail_from=self.last + 1)


def with_tail(stored: Content, records: Sequence[bytes]) -> Content:
    """What a log holds whose database holds ``stored`` and whose journal holds ``records``.

    Raises:
        JournalDamage: they do not go together.
    """
    content = stored
    for record in records:
        try:
            append = decode_append(record)
        except CorruptStoreError as error:
            raise JournalDamage(str(error)) from error
        if content.last and append.first != content.last + 1:
            raise JournalDamage(f"it goes on with entry {append.first} after entry {content.last}")
        content = content.with_appended(append)
    configurations = tuple(sorted(set(content.configurations)))
    return content._replace(configurations=configurations, committed=max(stored.committed, content.committed))


def tail_blocks(content: Content, first: int) -> Iterator[Block]:
    """The blocks of the tail that end at or after ``first``, ascending."""
    for key, value in content.tail:
        if int.from_bytes(key, "big") >= first:
            yield read_block(key, value)


def left_of(block: Block, runs: Sequence[tuple[int, int]]) -> Iterator[tuple[bytes, bytes]]:
    """What is left of ``block`` without the ascending ``runs``, as blocks."""
    for first, last in _outside(block.first, block.last, runs):
        yield encode_block(last, list(block.encoded(first, last)))


def _outside(first: int, last: int, runs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is left of ``first`` to ``last`` without the ascending ``runs``, as runs."""
    for run_first, run_last in runs:
        if run_last < first or run_first > last:
            continue
        if run_first > first:
            yield first, run_first - 1
        first = run_last + 1
    if first <= last:
        yield first, last
