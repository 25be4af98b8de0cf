"""Does a state machine keep its promises?  For whoever writes one; needs no test framework.

    def test_my_fsm():
        check_fsm(MyFSM, [b"first command", b"second", ...])

Each promise is a function whose docstring says what it is, why Raft needs it, and what to do.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, BinaryIO, cast

from ..errors import ConfigError
from ..fsm import FSM, BatchingFSM, FSMSnapshot
from ..log import Log
from .captured import MemorySink
from .describe import describe, short
from .fsm_worlds import live_elsewhere, other_clock_and_chance
from .processes import NotReachable

FsmFactory = Callable[[], FSM]

_CUTS = 12  # most places at which the commands are cut in two, however many there are
_FIRST_INDEX = 3  # a log begins with a configuration and the first leader's entry
_APPENDED_AT = 1_700_000_000_000_000_000


def check_fsm(factory: FsmFactory, commands: Iterable[bytes]) -> None:
    """Raise AssertionError, naming the broken promise and its reason, unless the FSM keeps them all.

    Snapshots are compared byte by byte: equal states must give equal bytes, which is also how
    the simulator, and you, can tell whether two servers agree.

    A factory that can be imported by its name (a class or function at the top of a module
    other than the program itself) is also tried in processes with another hash seed, clock and
    time zone; only there the order of sets of texts and ``datetime.now()`` differ for certain.

    Args:
        factory: makes a state machine, each time a new one without any state; often its class.
        commands: that together use everything it can do, including what it refuses.

    Raises:
        ConfigError: the arguments are none with which anything could be found.
    """
    checked = _checked_commands(commands)
    _check_factory(factory)
    for promise in PROMISES:
        try:
            promise(_Bench(factory, checked))
        except Exception as error:
            finding = str(error) if isinstance(error, _Broken) else f"it raised {error!r}"
            raise AssertionError(_complaint(promise, finding)) from error


def replay(factory: FsmFactory, commands: Sequence[bytes]) -> tuple[list[str], bytes]:
    """What a new state machine does with each command, as text, and its snapshot at the end."""
    fsm = factory()
    return _feed(fsm, _logs_of(commands)), _persisted(fsm.snapshot())


class _Broken(Exception):
    """A promise is broken; the text says what was seen."""


def _complaint(promise: Callable[[_Bench], None], finding: str) -> str:
    reason = " ".join((promise.__doc__ or "").split())
    return f"the state machine breaks the promise {promise.__name__}: {finding}. Promised: {reason}"


# ── arguments ──


def _checked_commands(commands: Any) -> list[bytes]:
    if isinstance(commands, bytes | bytearray | str) or not isinstance(commands, Iterable):
        raise ConfigError(f"commands={short(repr(commands))} is not a list of commands: use [b'...', b'...']")
    listed = list(commands)
    if not listed:
        raise ConfigError("commands is empty: give commands that use everything the state machine can do")
    for number, command in enumerate(listed):
        if not isinstance(command, bytes):
            raise ConfigError(
                f"commands[{number}]={short(repr(command))} is not bytes: encode it as for apply()"
            )
    return cast("list[bytes]", listed)


def _check_factory(factory: Any) -> None:
    if isinstance(factory, FSM):
        raise ConfigError(
            f"factory={factory!r} is a state machine: pass its class, or a function that makes one"
        )
    if not callable(factory):
        raise ConfigError(f"factory={factory!r} is not callable: pass a class, or a function that makes one")
    try:
        first, second = factory(), factory()
    except Exception as error:
        raise ConfigError(
            f"factory={factory!r} cannot be built: {error!r}; it must be callable without arguments"
        ) from error
    for made in (first, second):
        if not isinstance(made, FSM):
            raise ConfigError(
                f"factory={factory!r} made {made!r}, which is not an instance of a subclass of pyraft.FSM"
            )
    if first is second:
        raise ConfigError(
            f"factory={factory!r} returned the same object twice: it must make a new one each time"
        )


# ── how a state machine is driven ──


class _Bench:
    """A factory, the log, and what one state machine that was fed command by command did with it."""

    def __init__(self, factory: FsmFactory, commands: list[bytes]) -> None:
        self.factory = factory
        self.commands = commands

    def make(self) -> FSM:
        """A new one, made on another thread than the one that calls it, as a program does."""
        return cast(FSM, _on_another_thread(self.factory))

    def logs(self) -> list[Log]:
        """The log, in fresh objects."""
        return _logs_of(self.commands)

    def fed(self, count: int | None = None) -> FSM:
        """One that was given the first ``count`` commands."""
        fsm = self.make()
        _feed(fsm, self.logs()[:count])
        return fsm

    def expected(self) -> tuple[list[str], bytes]:
        """Outcomes and the snapshot at the end."""
        fsm = self.make()
        return _feed(fsm, self.logs()), _persisted(fsm.snapshot())

    def cuts(self, most: int = _CUTS) -> list[int]:
        """Numbers of commands, the first and last possible ones among them."""
        count = len(self.commands)
        return sorted({round(step * count / (most - 1)) for step in range(most)})

    def compare(self, found: Sequence[str], wanted: Sequence[str], start: int, where: str) -> None:
        """Outcomes of the commands from number ``start`` on."""
        for number, (one, other) in enumerate(zip(found, wanted, strict=True), start):
            if one != other:
                command = short(repr(self.commands[number]))
                raise _Broken(
                    f"{where}, command {number} {command} {short(one)}; otherwise it {short(other)}"
                )


def _logs_of(commands: Sequence[bytes]) -> list[Log]:
    """Commands as entries: with gaps in the indexes where a new leader's entry is, and rising terms."""
    return [
        Log(
            index=_FIRST_INDEX + number + number // 7,
            term=1 + number // 7,
            data=command,
            appended_at=_APPENDED_AT + number * 1_000_000_007,
        )
        for number, command in enumerate(commands)
    ]


def _feed(fsm: FSM, logs: Sequence[Log]) -> list[str]:
    """Apply one by one; what became of each, as text."""
    return [_outcome(*_apply(fsm, log)) for log in logs]


def _apply(fsm: FSM, log: Log) -> tuple[str, Any]:
    if isinstance(fsm, BatchingFSM):
        return _sorted_out(fsm, log, _batch(fsm, [log])[0])
    try:
        result = fsm.apply(log)
    except BaseException as error:
        return _refused(fsm, log, error)
    return "returned", result


def _sorted_out(fsm: FSM, log: Log, result: Any) -> tuple[str, Any]:
    return _refused(fsm, log, result) if isinstance(result, BaseException) else ("returned", result)


def _batch(fsm: BatchingFSM, logs: Sequence[Log]) -> Sequence[Any]:
    try:
        results = fsm.apply_batch(logs)
        count = len(results)
    except BaseException as error:
        raise _Stops(
            f"apply_batch() raised {error!r} for {[short(repr(log.data), 60) for log in logs[:3]]}"
        ) from error
    if count != len(logs):
        raise _Stops(f"apply_batch() was given {len(logs)} commands and returned {count} results")
    return results


def _refused(fsm: FSM, log: Log, error: BaseException) -> tuple[str, Any]:
    if not isinstance(error, Exception):
        raise _Stops(
            f"apply() raised {error!r}, which is no Exception, for {short(repr(log.data))}"
        ) from error
    try:
        fatal = fsm.is_fatal(error)
    except BaseException as raised:
        raise _Stops(f"is_fatal({error!r}) raised {raised!r}") from raised
    if fatal:
        raise _Stops(
            f"apply() raised {error!r} for {short(repr(log.data))}, and is_fatal() is true of it"
        ) from error
    return "raised", error


class _Stops(_Broken):
    """A command would stop the server."""


def _outcome(what: str, value: Any) -> str:
    return f"{what} {describe(value)}"


def _on_another_thread(function: Callable[[], Any]) -> Any:
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="check-fsm")
    thread.start()
    thread.join()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


# ── snapshots ──


def _persisted(captured: Any) -> bytes:
    """The bytes of what ``snapshot`` returned; an FSMSnapshot is persisted and released."""
    if isinstance(captured, bytes):
        return captured
    if not isinstance(captured, FSMSnapshot):
        raise _Broken(
            f"snapshot() returned {short(repr(captured))}, which is neither bytes nor an FSMSnapshot"
        )
    sink = MemorySink()
    try:
        _on_another_thread(lambda: captured.persist(sink))
    except Exception as error:
        raise _Broken(f"persist() raised {error!r}") from error
    finally:
        captured.release()
    if sink.is_cancelled:
        raise _Broken("persist() cancelled the sink and raised nothing")
    return bytes(sink.data)


class _Pipe(io.RawIOBase):
    """Can only be read, once, from the beginning to the end; a raw read returns little."""

    def __init__(self, data: bytes, at_once: int) -> None:
        super().__init__()
        self._data = data
        self._position = 0
        self._at_once = at_once

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._position : self._position + min(len(buffer), self._at_once)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def _restore(fsm: FSM, data: bytes) -> FSM:
    """Restored from a reader that gives all it is asked for and cannot seek."""
    fsm.restore(cast(BinaryIO, io.BufferedReader(_Pipe(data, 1000))))
    return fsm


def _differ(found: bytes, wanted: bytes) -> str:
    """Where two snapshots differ, around the first byte that does."""
    place = next(
        (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
        min(len(found), len(wanted)),
    )
    start = max(place - 20, 0)
    return (
        f"their snapshots differ from byte {place} on: {found[start : place + 40]!r} "
        f"and {wanted[start : place + 40]!r}"
    )


# ── the promises ──


def a_command_stops_no_server(bench: _Bench) -> None:
    """A command is answered, or refused by an exception that is_fatal() does not call this server's own.

    What stops one server stops all: each applies the same command, and again after a restart.
    Refuse bad commands by raising, say, ValueError; return one result for each of a batch.  If all
    are refused, nothing can be found: give others, or mend what binds it to the thread that made it.
    """
    outcomes = _feed(bench.make(), bench.logs())
    if all(outcome.startswith("raised ") for outcome in outcomes):
        raise _Broken(f"it refused every command: the first {short(outcomes[0])}")


def a_snapshot_is_bytes_or_written_to_its_sink(bench: _Bench) -> None:
    """snapshot() returns bytes, or an FSMSnapshot whose persist() writes bytes to its sink, or raises.

    persist() runs on another thread, and the sink may be a file, a stream, or memory: use its
    write() and close() only.  What was cancelled, or never written, restores nobody.
    """
    for cut in (0, len(bench.commands)):
        _persisted(bench.fed(cut).snapshot())


def entries_are_left_as_they_are(bench: _Bench) -> None:
    """apply() changes no attribute of the Log that it is given.

    Other threads share the object: one may be sending it to a follower, or writing it to disk.
    Copy what you need.
    """
    given, as_given = bench.logs(), bench.logs()
    _feed(bench.make(), given)
    for number, (log, before) in enumerate(zip(given, as_given, strict=True)):
        if log != before or log.encoded != before.encoded:
            raise _Broken(f"after command {number} its entry is {log!r} data={short(repr(log.data))}")


def equal_logs_give_equal_states(bench: _Bench) -> None:
    """The same commands give the same answers and the same state on every server.

    That is the whole idea of a replicated state machine (Raft paper, §2), and nothing repairs a
    server whose state differs.  No clock, no random numbers, no order of a set, no attribute of
    the class or module: take such things from the command, into which whoever proposes it puts them.
    """
    outcomes, snapshot = bench.expected()
    for again in ("a second one", "a third one"):
        fsm = bench.make()
        with other_clock_and_chance(_modules_of(fsm)):
            found = _feed(fsm, bench.logs())
        bench.compare(found, outcomes, 0, f"in {again}, with another clock and other random numbers")
        state = _persisted(fsm.snapshot())
        if state != snapshot:
            raise _Broken(
                f"{again}, with another clock and other random numbers, ends otherwise: {_differ(state, snapshot)}"
            )


def _modules_of(fsm: FSM) -> list[ModuleType]:
    """Where the classes of a state machine were written."""
    names = dict.fromkeys(kind.__module__ for kind in type(fsm).__mro__)
    return [
        sys.modules[name]
        for name in names
        if name in sys.modules and name.split(".")[0] not in ("builtins", "abc", "pyraft")
    ]


def an_answer_stays_as_it_is(bench: _Bench) -> None:
    """What apply() returned does not change with later commands.

    The caller reads it on another thread while the next commands are applied.  Return a copy of
    what belongs to the state.
    """
    fsm = bench.make()
    answers: list[tuple[str, Any]] = []
    texts: list[str] = []
    for log in bench.logs():
        answers.append(_apply(fsm, log))
        texts.append(_outcome(*answers[-1]))
    bench.compare([_outcome(*answer) for answer in answers], texts, 0, "once all commands were applied")


def batches_make_no_difference(bench: _Bench) -> None:
    """apply_batch() does what the same commands do one by one, however they are divided.

    Each server gets them in other batches: what happens to be committed together there.
    """
    if not isinstance(bench.make(), BatchingFSM):
        return
    outcomes, snapshot = bench.expected()
    for size in (len(outcomes), 2, 3, 64):
        fsm = cast(BatchingFSM, bench.make())
        logs, found = bench.logs(), []
        for start in range(0, len(logs), size):
            batch = logs[start : start + size]
            for log, result in zip(batch, _batch(fsm, batch), strict=True):
                found.append(_outcome(*_sorted_out(fsm, log, result)))
        bench.compare(found, outcomes, 0, f"in batches of {size}")
        state = _persisted(fsm.snapshot())
        if state != snapshot:
            raise _Broken(f"batches of {size} end otherwise than single commands: {_differ(state, snapshot)}")


def a_snapshot_disturbs_nothing(bench: _Bench) -> None:
    """Taking a snapshot, and persisting or only releasing it, changes neither state nor answers.

    Each server takes its snapshots at other times, or none; release() is called in every case.
    """
    outcomes, snapshot = bench.expected()
    fsm = bench.make()
    found = []
    for number, log in enumerate(bench.logs()):
        captured = fsm.snapshot()
        if number % 2 and isinstance(captured, FSMSnapshot):
            captured.release()
        else:
            _persisted(captured)
        found.append(_outcome(*_apply(fsm, log)))
    bench.compare(found, outcomes, 0, "with a snapshot before each command")
    for when in ("first", "second"):
        state = _persisted(fsm.snapshot())
        if state != snapshot:
            raise _Broken(
                f"after many snapshots the {when} one at the end is another: {_differ(state, snapshot)}"
            )


def a_snapshot_is_of_the_moment_it_was_taken(bench: _Bench) -> None:
    """What an FSMSnapshot persists is the state when snapshot() was called, without any later command.

    persist() runs on a thread of its own while commands go on.  The snapshot is labelled with
    the last index before it, and a server restored from it applies the later commands again
    (hashicorp/raft, FSM.Snapshot).  Copy the state, or share only what is never changed in place.
    """
    for cut in bench.cuts():
        wanted = _persisted(bench.fed(cut).snapshot())
        fsm = bench.fed(cut)
        captured = fsm.snapshot()
        _feed(fsm, bench.logs()[cut:])
        found = _persisted(captured)
        if found != wanted:
            raise _Broken(
                f"a snapshot taken after {cut} commands, and persisted after {len(bench.commands)}, is not what it "
                f"was: {_differ(found, wanted)}"
            )


def restored_is_as_good_as_replayed(bench: _Bench) -> None:
    """A state machine restored from a snapshot has the state, and goes on, as one that applied the commands.

    A follower that was away gets a snapshot and the commands after it (Raft paper, §7).  What
    the snapshot forgets, that server forgets.  Put every attribute that apply() uses into it.
    """
    outcomes, snapshot = bench.expected()
    for cut in bench.cuts():
        taken = _persisted(bench.fed(cut).snapshot())
        _expect_same(bench, _restore(bench.make(), taken), cut, (outcomes, snapshot), "a new one", taken)


def restore_replaces_everything(bench: _Bench) -> None:
    """restore() leaves nothing of the state that was there before.

    A follower that fell behind is restored while it holds an older state (hashicorp/raft,
    FSM.Restore: "must discard any previous state").  Assign every attribute, don't update.
    """
    outcomes, snapshot = bench.expected()
    count = len(bench.commands)
    for cut in bench.cuts(5):
        taken = _persisted(bench.fed(cut).snapshot())
        used = [("one that applied every command", bench.fed())]
        other = bench.make()
        _feed(other, _logs_of(bench.commands[::-1]))
        used.append((f"one that applied the {count} commands backwards", other))
        for who, fsm in used:
            _expect_same(bench, _restore(fsm, taken), cut, (outcomes, snapshot), who, taken)


def _expect_same(
    bench: _Bench, restored: FSM, cut: int, wanted: tuple[list[str], bytes], who: str, taken: bytes
) -> None:
    """``restored`` has the state after ``cut`` commands and goes on from there as ``wanted``."""
    where = f"{who}, restored from a snapshot after {cut} commands"
    state = _persisted(restored.snapshot())
    if state != taken:
        raise _Broken(f"{where}, has another state: {_differ(state, taken)}")
    bench.compare(_feed(restored, bench.logs()[cut:]), wanted[0][cut:], cut, f"in {where}")
    state = _persisted(restored.snapshot())
    if state != wanted[1]:
        raise _Broken(f"{where}, ends otherwise: {_differ(state, wanted[1])}")


def restore_reads_to_the_end(bench: _Bench) -> None:
    """restore() takes all that its source has, or raises; it never goes on with a part.

    The source is read once from the beginning: it cannot seek.  Some readers return less than
    they are asked for, so read() without a number, or in a loop until it returns b"".
    """
    taken = _persisted(bench.fed().snapshot())
    for at_once in (1, 7):
        fsm = bench.fed(len(bench.commands) // 2)
        try:
            fsm.restore(cast(BinaryIO, _Pipe(taken, at_once)))
        except Exception:  # noqa: S112  (it has noticed)
            continue
        state = _persisted(fsm.snapshot())
        if state != taken:
            raise _Broken(
                f"from a source that gives {at_once} bytes at once it restored a part: {_differ(state, taken)}"
            )


def every_process_agrees(bench: _Bench) -> None:
    """Another process, with another hash seed, clock and time zone, answers the same and ends the same.

    Servers are processes of their own.  Sort what comes out of a set before its order matters,
    in snapshots, too; compute with the times in the commands, in UTC.
    """
    outcomes, snapshot = bench.expected()
    for hash_seed in (1, 2):
        where = f"in a process with PYTHONHASHSEED={hash_seed} and another clock and time zone"
        try:
            found, state = live_elsewhere(bench.factory, bench.commands, hash_seed)
        except NotReachable:
            return
        bench.compare(found, outcomes, 0, where)
        if state != snapshot:
            raise _Broken(f"{where}, it ends otherwise: {_differ(state, snapshot)}")


PROMISES: tuple[Callable[[_Bench], None], ...] = (
    a_command_stops_no_server,
    entries_are_left_as_they_are,
    a_snapshot_is_bytes_or_written_to_its_sink,
    equal_logs_give_equal_states,
    an_answer_stays_as_it_is,
    batches_make_no_difference,
    a_snapshot_disturbs_nothing,
    a_snapshot_is_of_the_moment_it_was_taken,
    restored_is_as_good_as_replayed,
    restore_replaces_everything,
    restore_reads_to_the_end,
    every_process_agrees,
)
