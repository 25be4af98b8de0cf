"""The checker against histories whose verdict is known."""

from __future__ import annotations

import random

import pytest

from pyraft.testing import Operation, SimCluster, Violation, check_linearizable
from pyraft.testing.linearizability import Undecided
from pyraft.testing.sim_kv import KvModel


def op(input, output, call, returned=float("inf"), key="x", client="c"):
    return Operation(client, key, input, output, call, returned)


LINEARIZABLE = {
    "nothing happened": [],
    "one after the other": [op(("put", "1"), None, 0, 1), op(("get",), "1", 2, 3)],
    "a read beside a write may see the old value": [op(("put", "1"), None, 0, 3), op(("get",), None, 1, 2)],
    "a read beside a write may see the new value": [op(("put", "1"), None, 0, 3), op(("get",), "1", 1, 2)],
    "a write without an answer may happen late": [
        op(("put", "1"), None, 0),
        op(("get",), None, 1, 2),
        op(("get",), "1", 3, 4),
    ],
    "a write without an answer may never happen": [op(("put", "1"), None, 0), op(("get",), None, 1, 2)],
    "keys are apart": [op(("put", "1"), None, 0, 1, key="x"), op(("get",), None, 2, 3, key="y")],
}

NOT_LINEARIZABLE = {
    "a stale read": [op(("put", "1"), None, 0, 1), op(("get",), None, 2, 3)],
    "a value from nowhere": [op(("get",), "7", 0, 1)],
    "the new value, then the old one": [
        op(("put", "1"), None, 0, 9),
        op(("get",), "1", 1, 2),
        op(("get",), None, 3, 4),
    ],
    "a write that happened twice": [op(("append", "a"), "a", 0, 1), op(("get",), "aa", 2, 3)],
    "a lost write without an answer that was seen": [
        op(("put", "1"), None, 0),
        op(("get",), "1", 1, 2),
        op(("get",), None, 3, 4),
    ],
    "two that both compared successfully": [
        op(("put", "0"), None, 0, 1),
        op(("cas", "0", "a"), True, 2, 3),
        op(("cas", "0", "b"), True, 2, 3),
    ],
}


@pytest.mark.parametrize("history", LINEARIZABLE.values(), ids=LINEARIZABLE)
def test_it_accepts(history):
    assert check_linearizable(history, KvModel()) is None


@pytest.mark.parametrize("history", NOT_LINEARIZABLE.values(), ids=NOT_LINEARIZABLE)
def test_it_rejects(history):
    found = check_linearizable(history, KvModel())

    assert found is not None
    assert found.key == "x"
    assert "no order explains" in str(found)


def simulated(rng, count, unknown):
    """A history of one real copy: each operation takes effect at an instant between its ends."""
    model, state, history, instant = KvModel(), model_state(), [], 0.0
    for number in range(count):
        instant += rng.random()
        input = rng.choice(
            [("get",), ("put", str(number)), ("append", "."), ("cas", state or "", str(number))]
        )
        state, output = model.step(state, input)
        call, returned = instant - 2 * rng.random(), instant + 2 * rng.random()
        if rng.random() < unknown and input != ("get",):
            returned = float("inf")
        history.append(op(input, output, call, returned, client=f"c{number}"))
    return history


def model_state():
    return KvModel().initial()


@pytest.mark.parametrize("seed", range(20))
def test_it_accepts_what_one_copy_did_and_rejects_it_with_one_answer_changed(seed):
    rng = random.Random(seed)
    history = simulated(rng, 60, unknown=0.05)
    assert check_linearizable(history, KvModel()) is None

    victim = rng.choice([i for i, o in enumerate(history) if o.input == ("get",) and o.output is not None])
    old = history[victim]
    history[victim] = op(old.input, "never written", old.call, old.returned)

    assert check_linearizable(history, KvModel()) is not None


def test_a_search_that_takes_too_long_says_so():
    history = [op(("put", str(n)), None, 0) for n in range(30)] + [op(("get",), "wrong", 0, 9)]

    with pytest.raises(Undecided, match="31 operations"):
        check_linearizable(history, KvModel(), budget=1000)


@pytest.mark.parametrize("wrong", [False, True])
def test_of_a_history_that_cannot_be_decided_the_beginning_is(wrong):
    early = [op(("put", "1"), None, 0, 1, client="a"), op(("get",), "2" if wrong else "1", 2, 3, client="a")]
    hopeless = [op(("put", f"u{n}"), None, 10 + n, client=f"c{n}") for n in range(40)]
    late = [op(("get",), "nobody's", 60 + n, 61 + n, client="z") for n in range(3)]
    with SimCluster(servers=1, seed=1) as cluster:
        cluster.history = early + hopeless + late

        if wrong:
            with pytest.raises(Violation, match="no order explains"):
                cluster.check_history()
        else:
            cluster.check_history()
