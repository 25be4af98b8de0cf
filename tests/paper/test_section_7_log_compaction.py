"""§7, dissertation §5: what a server may forget, and what it must still know about it."""

import pytest

from pyraft import CorruptStoreError
from pyraft.configuration import Configuration
from pyraft.rpc_handlers import on_append_entries
from pyraft.rules.election import LogPosition
from pyraft.snapshots.base import SnapshotMeta
from tests.logs import entries, node_log, terms
from tests.nodes import append_request, server


def snapshot_of(index, term):
    return SnapshotMeta("s", index, term, Configuration.of_voters({"n1": "a1"}), 1, 0)


def compacted(drawn, upto, trailing=0):
    """A follower that holds ``drawn``, all of it committed, with a snapshot up to ``upto``."""
    node = server(drawn, term=int(drawn[-1]))
    log = node.state.log
    node.state.commit_index = log.last.index
    log.snapshot = LogPosition(log.term_at(upto), upto)
    while log.drop_prefix(upto - trailing, at_most=2):
        pass
    return node


def test_the_position_of_the_snapshot_is_known_when_its_entries_are_gone():
    log = compacted("1112223", upto=4).state.log

    assert (log.first_index, log.term_at(4), log.term_at(3), log.term_at(5)) == (5, 2, None, 2)


def test_nothing_can_be_sent_from_the_beginning_of_a_log_that_is_cut():
    log = compacted("1112223", upto=4).state.log

    assert log.term_at(0) is None
    assert node_log("11").term_at(0) == 0
    assert node_log("").term_at(0) == 0


def test_a_log_without_entries_still_ends_where_its_snapshot_does():
    log = compacted("1112", upto=4).state.log

    assert log.first_index == 0
    assert log.last == LogPosition(2, 4)
    log.replace_suffix(entries("3", first=5))
    assert (log.first_index, terms(log)[-1]) == (5, "3")


@pytest.mark.parametrize("trailing", [0, 2])
@pytest.mark.parametrize("prev", range(8))
@pytest.mark.parametrize("count", range(9))
def test_a_late_request_for_entries_that_are_compacted_changes_nothing(prev, count, trailing):
    """It may be a copy of an old one; what the snapshot covers agrees with every leader (§5.4.3).

    It is accepted if it shows that it agrees with the snapshot's end, or before it.
    """
    drawn = "11122233"
    node = compacted(drawn, upto=6, trailing=trailing)
    logs = entries(drawn)[prev : prev + count]

    answer = on_append_entries(
        node, append_request(3, prev=(prev, int(drawn[prev - 1]) if prev else 0), logs=logs, commit=8)
    )

    shows_agreement = prev + len(logs) >= 6 or prev >= 7 - trailing
    assert answer.success is shows_agreement
    assert node.state.log.last == LogPosition(3, 8)
    assert node.state.commit_index == 8


def test_a_log_that_contradicts_the_end_of_a_snapshot_is_met_with_alarm():
    # No leader can lack what is committed: one of the two servers was recovered by hand.
    node = compacted("1112", upto=4)

    with pytest.raises(CorruptStoreError, match="went another way"):
        on_append_entries(node, append_request(3, prev=(3, 1), logs=entries("1113")[3:]))


@pytest.mark.parametrize(("prev", "drawn"), [((2, 3), ""), ((1, 1), "3"), ((3, 1), "1"), ((4, 1), "3")])
def test_a_log_that_cannot_hold_the_end_of_a_snapshot_shows_it_before_it_gets_there(prev, drawn):
    # Terms never decrease along a log, so what has term 3 at entry 2 has not got term 2 at entry 4.
    node = compacted("1112", upto=4)

    with pytest.raises(CorruptStoreError, match="went another way"):
        on_append_entries(node, append_request(3, prev=prev, logs=entries(drawn, first=prev[0] + 1)))


def test_a_heartbeat_needs_no_agreement():
    node = compacted("1112", upto=4)

    assert on_append_entries(node, append_request(3)).success


def test_a_request_that_reaches_from_the_compacted_part_beyond_the_end_appends_the_rest():
    node = compacted("1112", upto=4)

    answer = on_append_entries(node, append_request(2, prev=(1, 1), logs=entries("1112222")[1:], commit=6))

    assert answer.success
    assert node.state.log.last == LogPosition(2, 7)
    assert node.state.commit_index == 6


def test_a_snapshot_beyond_the_log_replaces_it():
    node = server("111", term=3)

    node.state.take_snapshot_position(snapshot_of(10, 2))

    assert node.state.log.last == LogPosition(2, 10)
    assert node.state.log.first_index == 0
    assert node.state.commit_index == 10


def test_a_snapshot_that_the_log_contradicts_replaces_all_of_it():
    node = server("111222", term=3)

    node.state.take_snapshot_position(snapshot_of(4, 3))

    assert node.state.log.last == LogPosition(3, 4)
    assert node.state.log.term_at(5) is None


def test_entries_behind_a_snapshot_that_the_log_agrees_with_stay():
    node = server("111222", term=3)

    node.state.take_snapshot_position(snapshot_of(4, 2))

    assert node.state.log.last == LogPosition(2, 6)
    assert node.state.commit_index == 4


@pytest.mark.parametrize(
    ("drawn", "snapshot", "left"),
    [
        ("111", LogPosition(2, 10), LogPosition(2, 10)),  # it ends before the snapshot
        ("111222", LogPosition(3, 4), LogPosition(3, 4)),  # it contradicts the snapshot
        ("111222", LogPosition(2, 4), LogPosition(2, 6)),  # it agrees and goes on
        ("", LogPosition(2, 4), LogPosition(2, 4)),
    ],
)
def test_a_restart_finishes_what_a_crash_left_between_snapshot_and_log(drawn, snapshot, left):
    from pyraft.node_log import NodeLog
    from tests.logs import stored

    store = stored(drawn)

    assert NodeLog(store, snapshot).last == left
    assert NodeLog(store, snapshot).last == left  # and finds it done


def test_a_log_that_begins_behind_its_snapshot_is_refused():
    from pyraft.node_log import NodeLog

    store = compacted("1111111", upto=5).state.log._store

    with pytest.raises(
        CorruptStoreError, match="begins at entry 6, and the newest readable snapshot ends at 3"
    ):
        NodeLog(store, LogPosition(1, 3))


def test_slices_drop_no_more_than_asked():
    log = node_log("1111111")
    log.snapshot = LogPosition(1, 5)

    assert log.drop_prefix(7, at_most=3)
    assert log.first_index == 4
    assert not log.drop_prefix(7, at_most=3)
    assert log.first_index == 6
