"""Dissertation §10.2.1: the leader writes to its disk while it replicates, and counts itself last."""

from pyraft import LeadershipLostError, RaftState, StorageError
from pyraft.rules.commitment import leader_commit_index
from tests.logs import entries, indexes, node_log
from tests.nodes import PATIENCE, StallingStore, eventually, stage


def test_followers_have_an_entry_before_the_leader_has_written_it_and_nothing_is_committed_then():
    store = StallingStore()
    with stage(store=store) as s:
        s.make_it_lead()
        s.raft.apply(b"first").result(PATIENCE)
        before = s.raft.commit_index
        store.open.clear()

        future = s.raft.apply(b"second")
        assert store.stalled.wait(PATIENCE)
        eventually(lambda: s.s2.matched == s.s3.matched == before + 1, "both followers hold it")

        # A majority holds it durably, and still the leader, which does not, commits nothing.
        assert s.store.last_index() == before
        assert s.raft.commit_index == before
        assert not future.done()

        store.open.set()
        assert future.result(PATIENCE) == b"SECOND"


def test_the_leader_counts_itself_only_up_to_what_it_has_written():
    # Entry 5 is staged at the leader and durable at one of two followers: not a majority.
    written, matched = 4, [5, 0]

    assert leader_commit_index(3, [written, *matched], first_of_term=1) == 4


def test_a_staged_entry_is_readable_and_not_yet_stored():
    log = node_log("11")
    store = log._store
    log.stage(entries("2", first=3))

    assert indexes(log.read(3, 3, 1000)) == [3]
    assert (log.last.index, store.last_index()) == (3, 2)


def test_a_write_that_fails_after_followers_took_the_entry_ends_leadership_with_outcome_unknown():
    store = StallingStore()
    with stage(store=store) as s:
        s.make_it_lead()
        s.raft.apply(b"first").result(PATIENCE)
        store.open.clear()
        future = s.raft.apply(b"second")
        assert store.stalled.wait(PATIENCE)
        eventually(lambda: s.s2.matched == s.raft.commit_index + 1, "a follower holds it already")

        store.error = OSError("no space left on device")
        store.open.set()

        error = future.exception(PATIENCE)
        assert isinstance(error, LeadershipLostError)
        assert isinstance(error.__cause__, StorageError)
        assert s.raft.wait_stopped(PATIENCE)
        assert s.raft.state is RaftState.SHUTDOWN
        assert isinstance(s.raft.failure, StorageError)
