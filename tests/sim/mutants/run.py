"""Try every mutant until the simulator catches it, in rounds, and say how many seeds that took.

The first round gives each mutant a few seeds, later rounds give the survivors more, so the quick
ones cost little and a limit on the time is spent on those that need it.  What was found is written
down after every step: run again, and it goes on where it stopped.  A change of the library or of a
mutant makes what was known of it void.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Timer
from time import monotonic
from typing import Any

from .catalogue import Mutant
from .planting import PROJECT, copy_library, library_digest

SECONDS = 10.0  # virtual, for each seed
HANG = 600.0  # real seconds without a word from a worker; one that computes ends itself much sooner
_ROUNDS = (0, 5, 20, 60, 200, 600, 2000)
_WORKER = Path(__file__).with_name("worker.py")


@dataclass
class Record:
    """What is known of one mutant.

    Attributes:
        digest: of the library and the mutant that it is known of.
        tried: how many seeds, from 0 on, are done.
        caught: which seed failed, None while none has.
        promise: which promise broke.
        seconds: real ones, all workers together.
        calm: whether a calm cluster works in spite of it; None = not tried.
        shared: seeds that fail without the mutant, too: they do not count.
        odd: failures that are nobody's verdict.
    """

    digest: str
    tried: int = 0
    caught: int | None = None
    promise: str = ""
    text: str = ""
    seconds: float = 0.0
    calm: bool | None = None
    shared: dict[str, str] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)

    @property
    def seeds_needed(self) -> int | None:
        return None if self.caught is None else self.caught + 1


class Runner:
    """Tries mutants, a few at a time.

    Attributes:
        records: by the mutant's name.
    """

    def __init__(
        self,
        mutants: Sequence[Mutant],
        *,
        most_seeds: int = 2000,
        jobs: int = 2,
        state: Path | None = None,
        limit: float | None = None,
    ) -> None:
        """Read what an earlier run wrote to ``state``.

        Args:
            limit: real seconds after which no further work begins.
        """
        self._mutants = {mutant.name: mutant for mutant in mutants}
        self._most_seeds = most_seeds
        self._jobs = jobs
        self._state = state
        self._ends_at = None if limit is None else monotonic() + limit
        self._lock = Lock()
        self._slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(jobs):
            self._slots.put(slot)
        library = library_digest()
        known = _read(state)
        self.records: dict[str, Record] = {}
        self._others = {name: record for name, record in known.items() if name not in self._mutants}
        for name, mutant in self._mutants.items():
            digest = blake2b(f"{library}{mutant.edits!r}{SECONDS}".encode(), digest_size=8).hexdigest()
            record = known.get(name)
            self.records[name] = record if record and record.digest == digest else Record(digest)

    def run(self) -> None:
        """Go through all rounds, or until the time is over."""
        with tempfile.TemporaryDirectory(prefix="pyraft-mutants-") as folder:
            self._folder = Path(folder)
            copy_library(self._folder / "original")
            self._check_the_original()
            for name, mutant in self._mutants.items():
                copy_library(self._folder / name, mutant)
            for first, end in pairwise(_ROUNDS):
                end = min(end, self._most_seeds)
                if first < end:
                    self._round(end)

    def _check_the_original(self) -> None:
        """Raise SystemExit unless a worker can run a seed of the library as it is."""
        for said in self._work("original", "seeds", 0, 1):
            if said["promise"] and not said["judged"]:
                raise SystemExit(f"the library cannot be simulated as it is: {said['text']}")

    def _round(self, end: int) -> None:
        names = [name for name, r in self.records.items() if r.caught is None and r.tried < end]
        with ThreadPoolExecutor(self._jobs) as pool:
            for done in [pool.submit(self._try, name, end) for name in names]:
                done.result()

    def _try(self, name: str, end: int) -> None:
        record = self.records[name]
        if record.calm is None and self._has_time():
            record.calm = self._is_calm(name)
        while record.caught is None and record.tried < end and self._has_time():
            self._try_seeds(name, record, min(end, record.tried + 50))
            self._write()
        if record.caught is not None:
            _say(f"caught  {name}: seed {record.caught}, {record.promise}: {record.text}")
        elif record.tried >= end:
            _say(f"escapes {name}: {record.tried} seeds so far")

    def _try_seeds(self, name: str, record: Record, end: int) -> None:
        """Run the seeds up to ``end``, or to the first that fails."""
        began = monotonic()
        # All of it before the confirmation, which needs the worker's place.
        for said in list(self._work(name, "seeds", record.tried, end)):
            seed, promise = said["seed"], said["promise"]
            if promise and not said["judged"]:
                record.odd[str(seed)] = f"{promise}: {said['text']}"
            elif promise:
                shared = self._fails_without(seed)
                if shared:
                    record.shared[str(seed)] = shared
                    _say(f"seed {seed} fails without {name}, too: {shared}")
                else:
                    record.caught, record.promise, record.text = seed, promise, said["text"]
            record.tried = seed + 1
        record.seconds += monotonic() - began

    def _fails_without(self, seed: int) -> str:
        """What the unchanged library breaks with this seed; empty if nothing."""
        said = list(self._work("original", "seeds", seed, seed + 1))
        return f"{said[0]['promise']} {said[0]['text']}" if said[0]["promise"] else ""

    def _is_calm(self, name: str) -> bool:
        return any(said.get("calm") for said in self._work(name, "calm", 0, 0))

    def _work(self, name: str, what: str, first: int, end: int) -> Iterator[dict[str, Any]]:
        """What a worker says; a failure of its own if it stops saying anything."""
        copy = self._folder / name
        arguments = [str(copy), what] + ([] if what == "calm" else [str(first), str(end), str(SECONDS)])
        with self._slot() as slot:
            environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONHASHSEED": "0", "WORKER": str(slot)}
            process = subprocess.Popen(
                [sys.executable, str(_WORKER), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                cwd=self._folder,
            )
            last = first - 1
            try:
                for line in _lines_until_hang(process):
                    said = json.loads(line)
                    last = said.get("seed", last)
                    yield said
            finally:
                process.kill()
                errors = process.stderr.read() if process.stderr else ""
                process.wait()
                if process.stdout:
                    process.stdout.close()
                if process.stderr:
                    process.stderr.close()
        if what == "seeds" and last < first:
            yield from self._silent(process.returncode, first, errors)

    @staticmethod
    def _silent(code: int, seed: int, errors: str) -> Iterator[dict[str, Any]]:
        hangs = code in (-signal.SIGKILL, -signal.SIGPROF)
        text = "no end in sight" if hangs else (errors.strip().splitlines() or ["?"])[-1]
        yield {"seed": seed, "promise": "hang" if hangs else "crash", "judged": hangs, "text": text}

    @contextmanager
    def _slot(self) -> Iterator[int]:
        """A number for one worker: it stays on one CPU, since its threads hand a baton around."""
        slot = self._slots.get()
        try:
            yield slot
        finally:
            self._slots.put(slot)

    def _has_time(self) -> bool:
        return self._ends_at is None or monotonic() < self._ends_at

    def _write(self) -> None:
        if self._state is None:
            return
        with self._lock:
            everything = {**self._others, **self.records}
            text = json.dumps({name: asdict(record) for name, record in everything.items()}, indent=1)
            self._state.parent.mkdir(parents=True, exist_ok=True)
            draft = self._state.with_suffix(".new")
            draft.write_text(text, encoding="utf-8")
            draft.replace(self._state)


def report(runner: Runner) -> bool:
    """Print the table; return whether every mutant was caught."""
    records = runner.records
    width = max(len(name) for name in records)
    print(f"\n{'mutant':{width}}  {'seeds':>6}  {'seconds':>7}  {'calm':4}  caught by")
    for name, record in records.items():
        seeds = str(record.seeds_needed) if record.caught is not None else f">{record.tried}"
        calm = {True: "yes", False: "no", None: "?"}[record.calm]
        how = f"{record.promise}: {record.text}" if record.caught is not None else "ESCAPES"
        print(f"{name:{width}}  {seeds:>6}  {record.seconds:7.1f}  {calm:4}  {how[:110]}")
    needed = [r.seeds_needed if r.seeds_needed is not None else r.tried for r in records.values()]
    escaped = [name for name, record in records.items() if record.caught is None]
    calm_count = sum(record.calm is True for record in records.values())
    print(
        f"\n{len(records)} mutants, {len(escaped)} escape; seeds needed: median {statistics.median(needed):g}, "
        f"most {max(needed)}; a calm cluster works under {calm_count} of them; "
        f"{sum(r.seconds for r in records.values()) / 60:.1f} minutes of workers"
    )
    for name in escaped:
        print(f"ESCAPES: {name}")
    for name, record in records.items():
        for seed, what in {**record.shared, **record.odd}.items():
            print(f"not counted: {name}, seed {seed}: {what}")
    return not escaped


def _lines_until_hang(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that ``process`` prints; it is killed when it says nothing for too long."""
    assert process.stdout is not None
    while True:
        watchdog = Timer(HANG, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            process.wait()
            return
        yield line


def _read(state: Path | None) -> dict[str, Record]:
    if state is None or not state.exists():
        return {}
    return {name: Record(**values) for name, values in json.loads(state.read_text(encoding="utf-8")).items()}


def _say(text: str) -> None:
    print(text, flush=True)


DEFAULT_STATE = PROJECT / "build" / "mutants.json"
