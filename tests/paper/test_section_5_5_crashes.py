"""§5.5: Raft RPCs are idempotent, so a server that does not answer is simply asked again."""

import pytest

from pyraft.messages import AppendEntriesRequest
from pyraft.rpc_handlers import on_append_entries, on_request_vote
from tests.logs import entries, indexes, terms
from tests.nodes import FailingStore, append_request, eventually, restarted, server, stage, vote_request


@pytest.mark.parametrize("times", [2, 5])
def test_the_same_append_entries_again_does_no_harm(times):
    node = server("11", term=2)
    request = append_request(2, prev=(2, 1), logs=entries("22", first=3), commit=3)

    answers = [on_append_entries(node, request) for _ in range(times)]

    assert len(set(answers)) == 1
    assert terms(node.state.log) == "1122"
    assert node.state.commit_index == 3


def test_the_same_request_vote_again_gets_the_same_answer():
    node = server("11", term=2)

    answers = [on_request_vote(node, vote_request(3, last=(2, 1))) for _ in range(3)]

    assert len(set(answers)) == 1
    assert answers[0].granted


def test_a_server_that_crashed_after_the_write_and_before_the_answer_takes_the_repeat():
    store = FailingStore()
    node = server(store=store)
    request = append_request(1, logs=entries("111"), commit=2)
    on_append_entries(node, request)  # the answer is lost with the server

    again = restarted(node, store)
    answer = on_append_entries(again, request)

    assert answer.success
    assert terms(again.state.log) == "111"
    assert again.state.commit_index == 2


def test_requests_that_arrive_in_the_wrong_order_leave_the_longer_log():
    node = server("1", term=2)
    first = append_request(2, prev=(1, 1), logs=entries("2", first=2))
    second = append_request(2, prev=(1, 1), logs=entries("222", first=2))

    on_append_entries(node, second)
    on_append_entries(node, first)

    assert terms(node.state.log) == "1222"


def test_the_commit_index_is_volatile_and_learned_anew():
    store = FailingStore()
    node = server(store=store)
    on_append_entries(node, append_request(1, logs=entries("111"), commit=3))

    again = restarted(node, store)

    assert again.state.commit_index == 0
    assert terms(again.state.log) == "111"


def test_a_leader_asks_a_silent_follower_again_until_it_answers():
    with stage(election_timeout=5.0, heartbeat_timeout=5.0, leader_lease_timeout=5.0) as s:
        s.network.drop(src="s1", dst="s3", when=lambda m: isinstance(m, AppendEntriesRequest) and m.entries)
        s.make_it_lead()
        s.raft.apply(b"a").result(30)
        assert s.s3.matched == 0

        s.network.heal()

        eventually(lambda: s.s3.matched == s.raft.last_index, "s3 has caught up")
        assert indexes(s.s3.received_entries())[-1] == s.raft.last_index


def test_a_crashed_minority_does_not_keep_the_others_from_going_on():
    with stage() as s:
        s.s3.transport.close()
        s.make_it_lead()

        assert s.raft.apply(b"a").result(30) == b"A"
