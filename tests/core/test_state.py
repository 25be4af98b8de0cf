"""NodeState: what is durable is saved before memory changes, and nothing goes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyraft.configuration import encode_configuration
from pyraft.errors import CorruptStoreError, StorageError
from pyraft.log import Log, LogType
from pyraft.logstore import InmemStore
from pyraft.rules.election import Ballot, LogPosition, Newborn
from pyraft.state import BALLOT_KEY, NodeState, encode_ballot, load_ballot
from tests.nodes import FailingStore, voters

numbers = st.integers(0, 2**64 - 1)
ballots = st.builds(
    Ballot,
    numbers,
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.builds(Newborn, numbers, numbers, st.none() | st.builds(LogPosition, numbers, numbers)),
)


def with_record(record):
    store = InmemStore()
    store.set(BALLOT_KEY, record)
    return store


@given(ballots)
def test_a_ballot_that_was_stored_is_read_back(ballot):
    assert load_ballot(with_record(encode_ballot(ballot))) == ballot


def test_a_store_without_a_ballot_is_one_of_term_0():
    assert load_ballot(InmemStore()) == Ballot()


@given(st.binary(max_size=40) | st.binary(max_size=60).map(lambda rest: b"\x02" + rest))
def test_a_damaged_record_is_read_or_refused_as_corrupt(record):
    try:
        load_ballot(with_record(record))
    except CorruptStoreError:
        pass


@pytest.mark.parametrize("rest", [encode_ballot(Ballot(7, "s2"))[1:], b"", b"\xff" * 40], ids=len)
def test_a_record_of_a_version_from_the_future_is_refused_whatever_it_looks_like(rest):
    with pytest.raises(CorruptStoreError, match="version 3.* knows versions 1 and 2"):
        load_ballot(with_record(b"\x03" + rest))


def test_a_record_that_cannot_be_read_is_a_storage_error():
    store = InmemStore()
    store.get = lambda key: 1 / 0

    with pytest.raises(StorageError, match="could not read term and vote"):
        load_ballot(store)


# -- saving --


def test_a_ballot_is_durable_before_it_is_current():
    store = FailingStore()
    state = NodeState("s1", store, store)
    seen = []
    really = store.set
    store.set = lambda key, value: (seen.append(state.ballot), really(key, value))

    state.save_ballot(Ballot(2, "s2"))

    assert seen == [Ballot()]
    assert state.ballot == load_ballot(store) == Ballot(2, "s2")


def test_a_ballot_that_cannot_be_stored_is_not_current():
    store = FailingStore()
    state = NodeState("s1", store, store)
    store.error = OSError("disk")

    with pytest.raises(StorageError, match="could not save term 2"):
        state.save_ballot(Ballot(2))

    assert state.ballot == Ballot()


def test_saving_what_is_current_writes_nothing():
    store = FailingStore()
    state = NodeState("s1", store, store)
    state.save_ballot(Ballot(2))
    store.writes.clear()

    state.save_ballot(Ballot(2))
    state.adopt_term(1)

    assert store.writes == []


def test_a_vote_within_a_term_keeps_the_leader_and_a_new_term_forgets_it():
    store = InmemStore()
    state = NodeState("s1", store, store)
    state.adopt_term(2)
    state.leader = ("s2", "s2")

    state.save_ballot(state.ballot.voting_for("s2"))
    assert state.leader == ("s2", "s2")

    state.adopt_term(3)
    assert state.leader is None


# -- configurations found in the log --


def configuration_entry(index, *names):
    return Log(index, 1, LogType.CONFIGURATION, encode_configuration(voters(*names)))


@pytest.mark.parametrize(
    "has_an_index", [True, False], ids=["a store that knows where", "one that is searched"]
)
def test_after_a_restart_the_newest_configuration_is_in_force_and_the_one_before_is_committed(has_an_index):
    store = InmemStore()
    store.store_logs([configuration_entry(1, "s1"), Log(2, 1), configuration_entry(3, "s1", "s2"), Log(4, 1)])
    if not has_an_index:
        store.configuration_indexes = None

    state = NodeState("s1", store, store)

    assert state.configuration == voters("s1", "s2")
    assert (state.configurations.latest_index, state.configurations.committed_index) == (3, 1)
    assert state.configurations.committed == voters("s1")


def test_a_configuration_entry_that_cannot_be_read_is_a_corrupt_store():
    store = InmemStore()
    store.store_logs([Log(1, 1, LogType.CONFIGURATION, b"\xff garbage")])

    with pytest.raises(CorruptStoreError):
        NodeState("s1", store, store)


def test_committing_a_configuration_entry_commits_the_configuration():
    store = InmemStore()
    store.store_logs([configuration_entry(1, "s1"), configuration_entry(2, "s1", "s2")])
    state = NodeState("s1", store, store)

    state.advance_commit(2)

    assert state.configurations.committed == voters("s1", "s2")


def test_whether_a_server_votes_follows_the_configuration_in_force():
    store = InmemStore()
    state = NodeState("s1", store, store)
    assert not state.is_voter

    state.take_configurations([Log(1, 1), configuration_entry(2, "s1")])

    assert state.is_voter
