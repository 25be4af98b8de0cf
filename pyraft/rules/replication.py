"""Where two logs agree, and where to go on.  Pure.

Source: Raft paper, Figure 2 (AppendEntries RPC), §5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..log import Log


def is_contiguous(prev_log_entry: int, prev_log_term: int, entries: Sequence[Log], leader_term: int) -> bool:
    """Tell whether ``entries`` follow the entry before them without a gap and in order of terms.

    No leader has entries of a later term than its own.
    """
    expected, term = prev_log_entry + 1, prev_log_term
    for entry in entries:
        if entry.index != expected or entry.term < term:
            return False
        expected, term = expected + 1, entry.term
    return term <= leader_term


def count_already_stored(
    entries: Sequence[Log], last_index: int, term_at: Callable[[int], int | None]
) -> int:
    """How many of ``entries``, from the first on, our log holds already.

    What follows is either new or the start of a conflict: the first entry with the same
    index and another term.  A request that only repeats what we have truncates nothing: it
    may be an old one that was overtaken.

    Source: Figure 2, AppendEntries RPC, receiver steps 3 and 4.
    """
    for count, entry in enumerate(entries):
        if entry.index > last_index or term_at(entry.index) != entry.term:
            return count
    return len(entries)


def next_index_after_rejection(next_index: int, last_log_hint: int, rejections: int = 1) -> int:
    """Where to retry after a follower did not find the entry before ``next_index``.

    Args:
        next_index: of the request that was refused.
        last_log_hint: the follower's last index: a shorter log is skipped in one step.
        rejections: how many in a row this is.  The steps back double, so that a long conflict
            costs few round trips; sending a few entries that match again does no harm.

    Source: §5.3.
    """
    step = 1 << min(rejections - 1, 20)
    return max(1, min(next_index - step, last_log_hint + 1))
