"""A running leader among scripted peers: what it sends, counts, commits, and leaves behind."""

import pytest

from pyraft import LeadershipLostError, LogType, NotLeaderError, RaftState, TransportError
from pyraft.events import StopRequested
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestVoteRequest,
    RpcHeader,
    TimeoutNowRequest,
)
from pyraft.roles.base import RoleName
from pyraft.roles.leader import Leader
from tests.logs import entries, indexes, stored
from tests.nodes import PATIENCE, StallingStore, append_request, eventually, server, stage, vote_request


def test_a_new_leader_begins_its_term_with_a_no_op_and_shows_it_to_no_fsm():
    with stage() as s:
        s.make_it_lead()

        eventually(lambda: s.raft.commit_index == 2)

        entry = s.store.get_log(2)
        assert (entry.type, entry.term) == (LogType.NOOP, s.raft.term)
        assert s.fsm.applied == []


def test_a_command_is_committed_with_one_of_two_followers():
    with stage() as s:
        s.make_it_lead()
        s.s3.holds_appends = True

        future = s.raft.apply(b"a")

        assert future.result(PATIENCE) == b"A"
        assert future.index == s.s2.matched == s.raft.commit_index


def test_a_command_without_a_majority_is_not_committed_until_there_is_one():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True
        before = s.raft.commit_index

        future = s.raft.apply(b"b")
        eventually(lambda: s.s2.held and s.s3.held, "both followers have been asked")
        assert s.raft.commit_index == before
        assert not future.done()

        s.s3.let_go()
        assert future.result(PATIENCE) == b"B"


def test_an_entry_of_an_older_term_is_committed_only_with_the_no_op():
    # Both followers take the old entry and leave the no-op unanswered.
    with stage() as s:
        s.s2.sends(append_request(2, prev=(1, 1), logs=entries("2", first=2)))
        s.s2.matched = s.s3.matched = 2
        s.s2.holds_appends = s.s3.holds_appends = True
        s.make_it_lead()
        eventually(lambda: s.s2.held and s.s3.held)
        assert s.raft.commit_index == 0

        s.s2.let_go()

        eventually(lambda: s.raft.commit_index == 3)
        eventually(lambda: indexes(s.fsm.applied) == [2])


def test_commands_that_wait_together_are_written_together():
    store = StallingStore()
    with stage(store=store) as s:
        s.make_it_lead()
        s.raft.apply(b"x").result(PATIENCE)
        store.open.clear()
        first = s.raft.apply(b"first")
        assert store.stalled.wait(PATIENCE)
        written = s.raft.metrics()["appended_batches_total"]

        futures = [s.raft.apply(b"%d" % n) for n in range(50)]
        store.open.set()

        assert first.result(PATIENCE) == b"FIRST"
        assert [f.result(PATIENCE) for f in futures] == [b"%d" % n for n in range(50)]
        assert s.raft.metrics()["appended_batches_total"] - written == 2


def test_results_belong_to_their_commands_in_the_order_of_the_log():
    with stage() as s:
        s.make_it_lead()

        futures = [s.raft.apply(b"c%d" % n) for n in range(200)]

        assert [f.result(PATIENCE) for f in futures] == [b"C%d" % n for n in range(200)]
        assert [f.index for f in futures] == indexes(s.fsm.applied)


def test_a_follower_that_lacks_entries_is_found_by_its_hint_and_sent_them():
    with stage() as s:
        s.make_it_lead()
        for n in range(20):
            s.raft.apply(b"%d" % n).result(PATIENCE)

        # s3 says that it holds nothing: then everything from the first entry on is sent.
        refused = []

        def refuse_once(rpc):
            if (
                isinstance(rpc.request, AppendEntriesRequest)
                and rpc.request.prev_log_entry > 0
                and not refused
            ):
                refused.append(rpc.request.prev_log_entry)
                rpc.respond(AppendEntriesResponse(RpcHeader("s3", "s3"), rpc.request.term, 0, False, True))
            else:
                really(rpc)

        really, s.s3.answer = s.s3.answer, refuse_once
        s.s3.requests.clear()
        s.raft.apply(b"more").result(PATIENCE)

        eventually(lambda: s.s3.matched == s.raft.last_index)
        assert indexes(s.s3.received_entries())[-s.raft.last_index :] == list(range(1, s.raft.last_index + 1))


def test_no_request_says_that_more_is_committed_than_it_proves():
    with stage() as s:
        s.make_it_lead()
        for n in range(30):
            s.raft.apply(b"%d" % n).result(PATIENCE)
        eventually(lambda: s.s2.matched == s.s3.matched == s.raft.last_index)

        for peer in (s.s2, s.s3):
            for request in peer.received(AppendEntriesRequest):
                assert request.leader_commit_index <= request.prev_log_entry + len(request.entries)


def test_followers_learn_of_the_last_commit_though_nothing_else_is_sent():
    with stage(commit_timeout=0.01) as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)

        for peer in (s.s2, s.s3):
            eventually(
                lambda peer=peer: max(r.leader_commit_index for r in peer.received(AppendEntriesRequest)) == 3
            )


# -- losing leadership --


def test_what_was_in_flight_when_leadership_ended_has_an_unknown_outcome():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True
        futures = [s.raft.apply(b"%d" % n) for n in range(3)]
        eventually(lambda: s.s2.held)

        s.s3.sends(append_request(s.raft.term + 1, leader="s3"))

        assert all(isinstance(f.exception(PATIENCE), LeadershipLostError) for f in futures)
        assert s.raft.apply(b"b").exception(PATIENCE).leader_id == "s3"


def test_commands_that_never_got_into_the_log_are_refused_as_not_applied():
    # The log may not run further ahead of the FSM, so these wait in the queue; then leadership ends.
    # Nobody stands within the minute: what refuses them is the end of the leadership itself.
    patient = dict(heartbeat_timeout=60.0, election_timeout=60.0, leader_lease_timeout=60.0)
    with stage(max_uncommitted_entries=1, max_append_entries=1, **patient) as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True
        in_log = s.raft.apply(b"in the log")
        eventually(lambda: s.s2.held)
        waiting = [s.raft.apply(b"%d" % n) for n in range(3)]

        s.s3.sends(append_request(s.raft.term + 1, leader="s3"))

        assert isinstance(in_log.exception(PATIENCE), LeadershipLostError)
        assert all(isinstance(f.exception(PATIENCE), NotLeaderError) for f in waiting)


def test_acknowledgements_of_a_former_leadership_count_for_nothing():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        s.s2.holds_appends = s.s3.holds_appends = True
        s.raft.apply(b"lost")
        eventually(lambda: s.s2.held)
        late, s.s2.held = s.s2.held, []
        s.s3.sends(append_request(s.raft.term + 1, leader="s3"))
        before = s.raft.commit_index
        s.make_it_lead()
        eventually(lambda: s.s2.held and s.s3.held, "the new term's entries are held as well")

        for rpc in late:
            s.s2.answer(rpc)

        assert s.raft.commit_index == before
        s.s3.let_go()
        eventually(lambda: s.raft.commit_index > before)


def test_a_leader_that_no_quorum_answers_steps_down():
    with stage(heartbeat_timeout=0.1, election_timeout=0.1, leader_lease_timeout=0.1) as s:
        s.make_it_lead()

        s.s2.mute = s.s3.mute = True

        eventually(lambda: s.raft.state is not RaftState.LEADER)
        assert s.raft.leader_id is None


def test_one_of_two_followers_is_quorum_enough_to_go_on_leading():
    with stage(heartbeat_timeout=1.0, election_timeout=1.0, leader_lease_timeout=1.0) as s:
        s.make_it_lead()
        term = s.raft.term
        s.s3.mute = True
        s.s2.requests.clear()

        eventually(lambda: len(s.s2.received(AppendEntriesRequest)) >= 15)  # more than one lease

        assert (s.raft.state, s.raft.term) == (RaftState.LEADER, term)


def test_a_removed_leader_of_an_older_term_is_told_so():
    with stage() as s:
        s.make_it_lead()

        answer = s.s2.sends(append_request(1, leader="s2"))

        assert (answer.success, answer.term) == (False, s.raft.term)
        assert s.raft.state is RaftState.LEADER


def test_a_leader_gives_way_to_a_candidate_that_it_chose_itself():
    with stage() as s:
        s.make_it_lead()
        s.raft.apply(b"a").result(PATIENCE)
        term = s.raft.term

        answer = s.s2.sends(
            vote_request(term + 1, last=(s.raft.last_index, term), candidate="s2", transfer=True)
        )

        assert answer.granted
        eventually(lambda: s.raft.state is RaftState.FOLLOWER)
        assert s.raft.term == term + 1


def test_a_leader_whose_very_first_write_stalls_steps_down_when_it_returns():
    store = stored("1")
    node = server(term=2, store=store)
    node.spawn = lambda name, run: None
    node.snapshots = None
    really = store.store_logs

    def stall(logs):
        node.runtime.at += 60
        really(logs)

    store.store_logs = stall
    node.inbox.put(StopRequested())  # what it would find if it went on leading

    assert Leader(node).run().role is RoleName.FOLLOWER


# -- standing because the leader says so --


def test_timeout_now_makes_a_follower_stand_without_a_pre_vote():
    with stage() as s:
        s.make_it_lead()

        assert [r.leadership_transfer for r in s.s3.received(RequestVoteRequest)] == [True]


@pytest.mark.parametrize("who", ["s3", "s9"], ids=["another member", "a stranger"])
def test_timeout_now_of_somebody_who_does_not_lead_is_refused(who):
    with stage() as s:
        s.s2.sends(append_request(2, leader="s2"))

        with pytest.raises(TransportError, match="s1 does not stand"):
            s.s2.sends(TimeoutNowRequest(RpcHeader(who, who)))
        s.s2.sends(append_request(2, leader="s2"))  # answered after it

        assert s.raft.state is RaftState.FOLLOWER
        assert not s.s3.received(RequestVoteRequest)
