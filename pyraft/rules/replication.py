"""Where two logs agree, and where to go on.  Pure.

Source: Raft paper, Figure 2 (AppendEntries RPC), §5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..log import Log
from .election import LogPosition


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
    entries: Sequence[Log], last_index: int, term_at: Callable[[int], int | None], snapshot_index: int = 0
) -> int:
    """How many of ``entries``, from the first on, our log holds already.

    What a snapshot covers is committed, so every leader has it as it is here (§5.4.3), even
    if the entries themselves are gone; where it ends, the term is known, and checked.

    What follows is either new or the start of a conflict: the first entry with the same
    index and another term.  A request that only repeats what we have truncates nothing: it
    may be an old one that was overtaken.

    Source: Figure 2, AppendEntries RPC, receiver steps 3 and 4.
    """
    for count, entry in enumerate(entries):
        if entry.index < snapshot_index:
            continue
        if entry.index > last_index or term_at(entry.index) != entry.term:
            return count
    return len(entries)


def went_another_way(snapshot: LogPosition, index: int, term: int) -> bool:
    """Whether a log with an entry of ``term`` at ``index`` does not hold what ``snapshot`` stands for.

    A snapshot is of committed entries, so no leader's log does that, but for one from outside
    (Raft.restore) whose leader was lost before a majority had it.

    Source: §5.3, Log Matching: terms never decrease along a log.
    """
    return (
        term > snapshot.term if index < snapshot.index else index == snapshot.index and term != snapshot.term
    )


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


def agreement_bound(term_at: Callable[[int], int | None], oldest: int, index: int, term: int) -> LogPosition:
    """The last position up to ``index`` whose term is at most ``term``: no later one can agree.

    Terms never decrease along a log, so if another log has ``term`` at ``index``, the two
    differ wherever this one has a later term.  Both sides apply this in turn, the follower to
    its own log and then the leader to its own, and so skip a whole term in one round trip.

    Args:
        term_at: of this log; None where it does not reach.
        oldest: the oldest index whose term this log knows; returned if all later terms are above.
        index: where to begin, at most the end of this log.

    Source: §5.3, the optimisation at its end.
    """
    low, high = oldest, index
    while low < high:
        middle = (low + high + 1) // 2
        found = term_at(middle)
        if found is not None and found <= term:
            low = middle
        else:
            high = middle - 1
    return LogPosition(term_at(low) or 0, low)


def next_index_after_hint(next_index: int, agreement: int) -> int:
    """Where to retry after a follower said how far the logs can agree at most.

    Args:
        next_index: of the request that was refused.
        agreement: index of the ``agreement_bound`` of our log, applied to the follower's hint.
    """
    return max(1, min(next_index - 1, agreement + 1))
