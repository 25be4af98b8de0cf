"""Figure 2, AppendEntries RPC: receiver steps 1 to 5, each as its own claim."""

import pytest

from pyraft.errors import CorruptStoreError, StorageError, TransportError, UnsupportedProtocolError
from pyraft.messages import AppendEntriesRequest, RpcHeader
from pyraft.rpc_handlers import answer_heartbeat, answer_request, on_append_entries
from pyraft.rules.commitment import follower_commit_index
from pyraft.rules.replication import count_already_stored, is_contiguous
from pyraft.state import RaftState
from tests.logs import entries, node_log, terms
from tests.nodes import FailingStore, append_request, restarted, server


def drawn(node):
    return terms(node.state.log)


# -- step 1: reply false if term < currentTerm --


def test_step_1_a_leader_of_an_older_term_is_refused_and_told_the_newer_one():
    node = server("11", term=5)

    answer = on_append_entries(node, append_request(4, prev=(2, 1), logs=entries("4", first=3)))

    assert (answer.success, answer.term) == (False, 5)
    assert drawn(node) == "11"


def test_step_1_a_leader_of_an_older_term_does_not_count_as_heard():
    node = server("11", term=5)

    on_append_entries(node, append_request(4))

    assert node.state.last_contact is None
    assert node.state.leader is None


# -- step 2: reply false if the log has no entry at prevLogIndex whose term is prevLogTerm --


@pytest.mark.parametrize(
    "prev", [(3, 1), (9, 1), (2, 2)], ids=["one past the end", "far past the end", "another term there"]
)
def test_step_2_without_the_entry_before_them_entries_are_refused(prev):
    node = server("11", term=2)

    answer = on_append_entries(node, append_request(2, prev=prev, logs=entries("2", first=prev[0] + 1)))

    assert not answer.success
    assert answer.last_log == 2  # where the leader may go on looking
    assert answer.no_retry_backoff
    assert drawn(node) == "11"


def test_step_2_a_refusal_drops_nothing_even_though_the_logs_differ():
    node = server("1122", term=3)

    on_append_entries(node, append_request(3, prev=(4, 3)))

    assert drawn(node) == "1122"


def test_step_2_a_refused_leader_is_the_leader_all_the_same():
    node = server("11", term=2)

    on_append_entries(node, append_request(2, prev=(9, 2)))

    assert node.state.leader == ("s2", "s2")
    assert node.state.last_contact == node.runtime.at


def test_step_2_nothing_stands_before_the_first_entry_so_everybody_agrees_there():
    node = server("")

    answer = on_append_entries(node, append_request(1, prev=(0, 0), logs=entries("1")))

    assert answer.success
    assert drawn(node) == "1"


# -- step 3: an entry that conflicts goes, with all that follow it --


def test_step_3_a_conflicting_entry_and_all_that_follow_are_replaced():
    node = server("11222", term=3)

    answer = on_append_entries(node, append_request(3, prev=(2, 1), logs=entries("3", first=3)))

    assert answer.success
    assert drawn(node) == "113"


def test_step_3_the_conflict_may_lie_in_the_middle_of_the_request():
    node = server("1122", term=3)

    on_append_entries(node, append_request(3, prev=(1, 1), logs=entries("1333", first=2)))

    assert drawn(node) == "11333"


def test_step_3_what_was_replaced_is_gone_after_a_crash_too():
    store = FailingStore()
    store.store_logs(entries("11222"))
    node = server(store=store, term=3)

    on_append_entries(node, append_request(3, prev=(2, 1), logs=entries("3", first=3)))

    assert drawn(restarted(node, store)) == "113"


def test_step_3_a_committed_entry_is_never_replaced():
    node = server("111", term=2)
    node.state.commit_index = 2

    with pytest.raises(CorruptStoreError, match="committed up to 2"):
        on_append_entries(node, append_request(3, prev=(1, 1), logs=entries("3", first=2)))

    assert drawn(node) == "111"


def test_step_3_is_also_the_rule_count_already_stored():
    log = node_log("1122")

    known = count_already_stored(entries("133", first=2), log.last.index, log.term_at)

    assert known == 1  # entry 2; entry 3 is the conflict


# -- step 4: append what is not in the log yet --


def test_step_4_new_entries_are_appended_and_durable_before_the_answer():
    store = FailingStore()
    node = server(store=store)

    answer = on_append_entries(node, append_request(1, logs=entries("111")))

    assert answer.success
    assert answer.last_log == 3
    assert drawn(restarted(node, store)) == "111"


def test_step_4_the_term_is_on_disk_before_the_entries_of_that_term():
    store = FailingStore()
    node = server(store=store)
    store.writes.clear()

    on_append_entries(node, append_request(1, logs=entries("1")))

    assert store.writes == ["ballot", "entries"]


def test_step_4_entries_that_cannot_be_stored_are_not_acknowledged():
    store = FailingStore()
    node = server(store=store, term=1)
    store.error = OSError("no space left")

    with pytest.raises(StorageError):
        on_append_entries(node, append_request(1, logs=entries("1")))


def test_step_4_an_old_request_that_was_overtaken_takes_nothing_away():
    # §5.3: "the follower MUST NOT truncate": a delayed request proves only what it carries.
    node = server("11111", term=1)

    answer = on_append_entries(node, append_request(1, prev=(1, 1), logs=entries("11", first=2)))

    assert answer.success
    assert drawn(node) == "11111"


def test_step_4_a_request_that_repeats_what_is_there_writes_nothing():
    store = FailingStore()
    store.store_logs(entries("111"))
    node = server(store=store, term=1)
    store.writes.clear()

    on_append_entries(node, append_request(1, prev=(0, 0), logs=entries("111")))

    assert store.writes == []


@pytest.mark.parametrize("torn", [[1, 3], [2, 1], [3, 4]], ids=str)
def test_step_4_entries_that_do_not_follow_each_other_are_refused_whole(torn):
    node = server("1", term=1)
    damaged = [entries("11111")[index - 1] for index in torn]

    answer = on_append_entries(node, append_request(1, prev=(1, 1), logs=damaged))

    assert isinstance(answer, TransportError)
    assert drawn(node) == "1"


def test_terms_never_fall_along_a_log():
    assert is_contiguous(0, 0, entries("1123"), 3)
    assert not is_contiguous(0, 0, entries("121"), 3)
    assert not is_contiguous(2, 2, entries("1", first=3), 3)  # earlier than the one before it
    assert not is_contiguous(0, 0, entries("14"), 3)  # later than its leader


# -- step 5: commitIndex = min(leaderCommit, index of last new entry) --


@pytest.mark.parametrize(
    ("current", "leader_commit", "last_proven", "expected"),
    [
        (0, 2, 3, 2),
        (0, 9, 3, 3),
        (3, 2, 9, 3),
        (3, 9, 2, 3),
        (0, 0, 9, 0),
    ],
    ids=[
        "the leader's, if we hold more",
        "ours, if the leader is ahead",
        "never back to an older commit",
        "never back to an older proof",
        "nothing is committed",
    ],
)
def test_step_5_the_smaller_of_what_is_committed_and_what_is_proven(
    current, leader_commit, last_proven, expected
):
    assert follower_commit_index(current, leader_commit, last_proven) == expected


def test_step_5_a_follower_does_not_commit_its_own_leftovers():
    # Our log is 1 1 2 2; the request proves only index 2, and says that 4 is committed.
    node = server("1122", term=3)

    on_append_entries(node, append_request(3, prev=(2, 1), commit=4))

    assert node.state.commit_index == 2


def test_step_5_entries_of_this_very_request_can_be_committed_by_it():
    node = server("")

    on_append_entries(node, append_request(1, logs=entries("111"), commit=2))

    assert node.state.commit_index == 2


def test_step_5_a_refused_request_commits_nothing():
    node = server("11", term=2)

    on_append_entries(node, append_request(2, prev=(2, 2), commit=2))

    assert node.state.commit_index == 0


# -- what belongs to no step --


def test_a_heartbeat_in_gos_form_is_accepted_and_moves_nothing():
    node = server("1122", term=3)

    answer = on_append_entries(node, append_request(3))

    assert answer.success
    assert drawn(node) == "1122"
    assert node.state.commit_index == 0


@pytest.mark.parametrize("version", [0, 1, 4])
def test_a_request_of_a_protocol_version_unknown_here_is_refused(version):
    node = server("1", term=1)
    request = AppendEntriesRequest(RpcHeader("s2", "s2", version), 2)

    answer = answer_request(node, request)

    assert isinstance(answer, UnsupportedProtocolError)
    assert node.state.ballot.term == 1


def following(leader="s2", term=3):
    node = server("1", term=term)
    on_append_entries(node, append_request(term, leader=leader))
    return node


def test_a_transport_thread_answers_a_heartbeat_of_the_leader_that_is_followed():
    node = following()
    node.runtime.at += 0.5

    answer = answer_heartbeat(node, append_request(3))

    assert answer.success
    assert node.state.last_contact == node.runtime.at


@pytest.mark.parametrize(
    "request_", [append_request(2), append_request(4), append_request(3, leader="s3")], ids=str
)
def test_a_heartbeat_that_could_change_anything_is_left_to_the_main_thread(request_):
    node = following()
    heard = node.state.last_contact
    node.runtime.at += 0.5

    assert answer_heartbeat(node, request_) is None
    assert node.state.last_contact == heard


@pytest.mark.parametrize("role", [RaftState.CANDIDATE, RaftState.LEADER, RaftState.SHUTDOWN])
def test_only_a_follower_lets_a_transport_thread_answer(role):
    node = following()
    node.state.role = role

    assert answer_heartbeat(node, append_request(3)) is None
