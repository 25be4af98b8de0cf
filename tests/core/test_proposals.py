"""The queue of commands: bounded by count and by bytes, and whoever waits for room is told the end."""

import asyncio
from types import SimpleNamespace

import pytest

from pyraft.errors import EnqueueTimeoutError, NotLeaderError
from pyraft.events import ProposalsWaiting
from pyraft.futures import ApplyFuture
from pyraft.log import LogType
from pyraft.proposals import ProposalQueue, _size_of
from pyraft.runtime import NotifyChannel, ThreadRuntime
from tests.nodes import PATIENCE, eventually
from tests.threads import in_thread, on_pyraft_thread

RUNTIME = ThreadRuntime()
OVERHEAD = _size_of((LogType.COMMAND, b"", b"", None))


def refused():
    return NotLeaderError("n1")


def queue(max_count=3, max_bytes=10_000):
    inbox = RUNTIME.inbox("main")
    made = ProposalQueue(RUNTIME, NotifyChannel(inbox, ProposalsWaiting()), max_count, max_bytes)
    made.inbox = inbox
    return made


def command(data=b"x"):
    return LogType.COMMAND, data, b"", ApplyFuture(RUNTIME)


def full(max_count=3):
    made = queue(max_count)
    for _ in range(max_count):
        made.put(command())
    return made


def waiting_for_room(proposals, timeout=None):
    """A thread that puts one more; returned once it waits."""
    before = len(proposals._waiting)
    joined = in_thread(lambda: proposals.put(command(b"late"), timeout))
    eventually(lambda: len(proposals._waiting) > before, "it waits for room")
    return joined


def test_commands_come_out_in_the_order_in_which_they_went_in():
    proposals = queue()
    for data in (b"a", b"b", b"c"):
        proposals.put(command(data))

    assert [data for _, data, _, _ in proposals.take(10, 10_000)] == [b"a", b"b", b"c"]
    assert (len(proposals), proposals.waiting_bytes) == (0, 0)


def test_a_put_pokes_the_main_thread_once_until_it_looks():
    proposals = queue()
    proposals.put(command())
    proposals.put(command())

    assert proposals.inbox.take(0) == ProposalsWaiting()
    assert proposals.inbox.take(0) is None


def test_no_more_than_max_count_wait():
    with pytest.raises(EnqueueTimeoutError):
        full(3).put(command(), timeout=0)


def test_no_more_than_max_bytes_wait():
    proposals = queue(max_count=100, max_bytes=2 * OVERHEAD + 10)
    proposals.put(command(b"12345"))
    proposals.put(command(b"12345"))

    with pytest.raises(EnqueueTimeoutError):
        proposals.put(command(b""), timeout=0)


def test_an_empty_queue_takes_a_command_of_any_size():
    proposals = queue(max_bytes=10)

    proposals.put(command(b"x" * 1000), timeout=0)

    assert len(proposals) == 1


def test_a_refused_command_is_not_in_the_queue():
    proposals = full(3)

    with pytest.raises(EnqueueTimeoutError):
        proposals.put(command(b"late"), timeout=0)

    assert [data for _, data, _, _ in proposals.take(10, 10_000)] == [b"x"] * 3


@pytest.mark.parametrize(("max_count", "taken"), [(1, 1), (2, 2), (5, 5), (100, 5)])
def test_take_gives_at_most_max_count(max_count, taken):
    proposals = queue(max_count=10)
    for _ in range(5):
        proposals.put(command())

    assert len(proposals.take(max_count, 10_000)) == taken
    assert len(proposals) == 5 - taken
    assert proposals.waiting_bytes == (5 - taken) * (OVERHEAD + 1)


def test_take_gives_no_more_once_past_max_bytes_but_at_least_one():
    proposals = queue(max_count=10)
    for _ in range(3):
        proposals.put(command(b"x" * 100))

    assert len(proposals.take(10, 10)) == 1
    assert len(proposals.take(10, 2 * (OVERHEAD + 100))) == 2


def test_taking_from_an_empty_queue_gives_nothing():
    assert queue().take(10, 10) == []


def test_the_longest_wait_is_that_of_the_oldest_that_was_taken(monkeypatch):
    proposals = queue(max_count=1000, max_bytes=1 << 20)
    instant = 0.0
    monkeypatch.setattr(proposals, "_runtime", SimpleNamespace(measured=lambda: instant))
    for number in range(200):
        instant = float(number)
        proposals.put(command())

    instant = 1000.0
    proposals.take(100, 1 << 20)  # the instants of 0 and 64 are known
    assert proposals.longest_wait() == 1000.0
    proposals.take(10, 1 << 20)  # of 100 to 109
    assert proposals.longest_wait() is None
    proposals.take(1000, 1 << 20)
    assert proposals.longest_wait() == 1000.0 - 128
    proposals.take(1000, 1 << 20)
    assert proposals.longest_wait() is None


def test_whoever_waits_for_room_gets_in_when_some_is_made():
    proposals = full(3)
    joined = waiting_for_room(proposals)

    proposals.take(1, 10_000)

    assert joined() is None
    assert [data for _, data, _, _ in proposals.take(10, 10_000)] == [b"x", b"x", b"late"]


def test_only_the_first_that_waits_for_room_insists_until_there_was_some():
    proposals = full()
    assert proposals.inbox.take(0) == ProposalsWaiting()  # and its consumer leaves the mark set
    joined = [waiting_for_room(proposals) for _ in range(3)]

    proposals.close(refused)

    assert all(isinstance(each(), NotLeaderError) for each in joined)
    assert proposals.inbox.take(0.5) == ProposalsWaiting()
    assert proposals.inbox.take(0.5) is None


def test_who_may_not_wait_for_room_asks_for_it_too_once_for_each_time_that_it_is_full():
    proposals = full()
    assert proposals.inbox.take(0.25) == ProposalsWaiting()
    for round in range(2):
        for _ in range(3):
            assert isinstance(on_pyraft_thread(lambda: proposals.put(command())), EnqueueTimeoutError)

        assert proposals.inbox.take(0.5 + round) == ProposalsWaiting()
        assert proposals.inbox.take(0.5 + round) is None
        proposals.take(10, 10_000)
        for _ in range(3):
            proposals.put(command())


def test_every_waiter_gets_in_in_the_end():
    proposals = full(1)
    waiters = [waiting_for_room(proposals) for _ in range(4)]
    taken = []

    eventually(lambda: taken.extend(proposals.take(1, 10_000)) or len(taken) == 5, "all came through")

    assert [joined() for joined in waiters] == [None] * 4


def test_a_wait_for_room_ends_after_its_timeout():
    proposals = full(3)

    with pytest.raises(EnqueueTimeoutError, match="3 commands .* kept waiting for 0.001 s"):
        proposals.put(command(), timeout=0.001)


def test_waiters_that_gave_up_leave_nothing_behind():
    # As long as nobody takes (the FSM is stuck, say), callers may come and go for hours.
    proposals = full(3)

    for _ in range(50):
        with pytest.raises(EnqueueTimeoutError):
            proposals.put(command(), timeout=0)

    assert len(proposals._waiting) == 0


def test_closing_returns_what_waited_and_refuses_the_rest():
    proposals = full(3)

    left = proposals.close(refused)

    assert len(left) == 3
    assert (len(proposals), proposals.waiting_bytes) == (0, 0)
    with pytest.raises(NotLeaderError):
        proposals.put(command())


def test_closing_tells_whoever_waits_for_room():
    proposals = full(3)
    waiters = [waiting_for_room(proposals) for _ in range(3)]

    proposals.close(refused)

    assert all(isinstance(joined(), NotLeaderError) for joined in waiters)


def test_no_command_is_both_returned_by_close_and_accepted_afterwards():
    for _ in range(30):
        proposals = queue(max_count=100)
        accepted = []

        def put(proposals=proposals, accepted=accepted):
            for _ in range(20):
                one = command()
                try:
                    proposals.put(one, PATIENCE)
                except NotLeaderError:
                    return
                accepted.append(one)

        threads = [in_thread(put) for _ in range(3)]
        taken = proposals.take(1, 10_000)
        taken += proposals.close(refused)
        for joined in threads:
            joined()

        assert sorted(map(id, taken)) == sorted(map(id, accepted))


def test_on_a_pyraft_thread_a_full_queue_is_refused_at_once():
    proposals = full(3)

    error = on_pyraft_thread(lambda: proposals.put(command()))

    assert isinstance(error, EnqueueTimeoutError)
    assert "must not wait" in str(error)


def test_where_a_loop_is_running_a_full_queue_is_refused_at_once():
    proposals = full(3)

    async def main():
        proposals.put(command())

    with pytest.raises(EnqueueTimeoutError, match="asyncio"):
        asyncio.run(main())


def test_on_a_pyraft_thread_a_queue_with_room_takes_the_command():
    proposals = queue()

    assert on_pyraft_thread(lambda: proposals.put(command())) is None
    assert len(proposals) == 1
