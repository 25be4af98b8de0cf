"""Which entries are committed.  Pure; the two subtlest lines of Raft live here."""

from __future__ import annotations

from collections.abc import Collection


def leader_commit_index(current: int, matched: Collection[int], first_of_term: int) -> int:
    """Highest index the leader may call committed.  Never less than ``current``.

    Args:
        current: the commit index so far.
        matched: for every voter, the leader included if it votes, the highest index known
            to be durable there.
        first_of_term: index of the first entry this leader appended (its no-op).

    Source: Figure 2, Rules for Servers, Leaders, last rule; §5.4.2.
    """
    if not matched:
        return current
    on_a_majority = sorted(matched)[(len(matched) - 1) // 2]
    # Entries of earlier terms are committed only by standing before one of ours.  Counting
    # copies of them is the bug in Figure 8.
    if on_a_majority < first_of_term:
        return current
    return max(current, on_a_majority)


def follower_commit_index(current: int, leader_commit: int, last_proven: int) -> int:
    """Highest index a follower may call committed after one AppendEntries.

    Args:
        current: the commit index so far.
        leader_commit: the leader's commit index, from the request.
        last_proven: index of the last entry *this request* showed to be the leader's.  Our
            own log may go on after it with leftovers of a deposed leader; those must not be
            applied.

    Source: Figure 2, AppendEntries RPC, receiver step 5.
    """
    return max(current, min(leader_commit, last_proven))
