"""§5.1: terms are a logical clock, exchanged with every message and kept on disk."""

import pytest

from pyraft.errors import CorruptStoreError, StorageError
from pyraft.rpc_handlers import answer_request
from pyraft.rules.election import Ballot
from pyraft.state import load_ballot
from tests.nodes import FailingStore, append_request, pre_vote_request, restarted, server, vote_request


@pytest.mark.parametrize(
    "request_", [append_request(7), vote_request(7, last=(0, 0))], ids=["AppendEntries", "RequestVote"]
)
def test_a_larger_term_is_adopted_and_is_on_disk_before_the_answer(request_):
    store = FailingStore()
    node = server(term=3, store=store)

    answer = answer_request(node, request_)

    assert answer.term == 7
    assert load_ballot(store).term == 7


@pytest.mark.parametrize(
    "request_", [append_request(2), vote_request(2, last=(9, 2)), pre_vote_request(2, last=(9, 2))], ids=str
)
def test_a_request_of_a_stale_term_is_refused_with_the_current_one(request_):
    node = server("1", term=3)

    answer = answer_request(node, request_)

    assert answer.term == 3
    assert not getattr(answer, "granted", False)
    assert not getattr(answer, "success", False)
    assert node.state.ballot == Ballot(3)


def test_a_new_term_comes_with_an_unspent_vote():
    assert Ballot(3, "s2").at_term(4) == Ballot(4, None)


def test_a_term_that_is_not_new_leaves_the_vote_as_it_is():
    assert Ballot(3, "s2").at_term(3) == Ballot(3, "s2")
    assert Ballot(3, "s2").at_term(2) == Ballot(3, "s2")


def test_the_term_survives_a_crash():
    store = FailingStore()
    node = server(store=store)
    answer_request(node, append_request(7))

    assert restarted(node, store).state.ballot.term == 7


def test_a_term_that_cannot_be_stored_is_not_adopted():
    store = FailingStore()
    node = server(store=store, term=3)
    store.error = OSError("read-only file system")

    with pytest.raises(StorageError):
        answer_request(node, append_request(7))

    assert node.state.ballot.term == 3


def test_the_current_term_never_goes_back():
    node = server(term=3)

    with pytest.raises(CorruptStoreError, match="§5.1"):
        node.state.save_ballot(Ballot(2))

    assert node.state.ballot.term == 3
