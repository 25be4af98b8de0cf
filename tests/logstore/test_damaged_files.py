"""Whatever is damaged in the files of a stopped server: an error of ours, or what was written; never anything else.

Each try damages a copy in one place and looks at it in a process of its own, because LMDB maps its
file into memory: what it does not notice may kill the process.

    python -m tests.logstore.test_damaged_files DIRECTORY FIRST LAST

tries other seeds, without limit.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from pyraft.errors import ConfigError, LogNotFoundError, StorageError
from pyraft.log import Log
from pyraft.logstore.lmdb_store import LMDBStore
from pyraft.snapshots import FileSnapshotStore, SnapshotMeta
from tests.snapshots.snaps import begin

PAGE = 4096
TRIES = 120


def write(home: Path) -> LMDBStore:
    """A log with some history, a ballot, and two snapshots; copied while the store is open, as of a killed server."""
    rng = random.Random(1)
    store = LMDBStore(home, map_size=4 << 20, server_id="n1")
    for first in range(1, 800, 20):
        store.stage_commit_index(first)
        store.store_logs(
            [Log(i, 1 + i // 300, data=rng.randbytes(i % 700)) for i in range(first, first + 20)]
        )
        store.set(b"Ballot", b"term %d" % first)
    store.delete_range(1, 333)
    store.replace_suffix([Log(790, 3, data=b"another")])
    store.set(b"Ballot", b"the last")
    for first in range(791, 830, 4):  # these are in the journal only
        store.store_logs([Log(i, 3, data=rng.randbytes(i % 700)) for i in range(first, first + 4)])
    snapshots = FileSnapshotStore(home)
    for index in (300, 500):
        with begin(snapshots, index) as sink:
            sink.write(rng.randbytes(9000))
    return store


def read(home: Path) -> list[object]:
    """Everything that is there, as it is given out."""
    store = LMDBStore(home, map_size=4 << 20, server_id="n1")
    first, last = store.first_index(), store.last_index()
    logs = [log.encoded for log in store.get_logs(first, last, 1 << 30)]
    found: list[object] = [first, last, store.get_commit_index(), store.get(b"Ballot"), logs]
    snapshots = FileSnapshotStore(home)
    for meta in snapshots.list():
        reader = snapshots.open(meta.id)[1]
        with reader:
            found.append((_protected(meta), reader.read()))
    # The damage may be met only where something is written.
    store.store_logs([Log(last + 1, 9, data=b"x" * 5000)])
    store.delete_range(first, first + 100)
    store.set(b"Ballot", b"a later one")
    assert store.get_log(last + 1).data == b"x" * 5000
    assert [log.encoded for log in store.get_logs(first + 101, last, 1 << 30)] == logs[101:]
    store.close()
    return found


def _protected(meta: SnapshotMeta) -> tuple[object, ...]:
    """What of a meta.json is said twice; hashicorp's format has no checksum for the rest of it."""
    return meta.id, meta.index, meta.term, meta.size, len(meta.configuration.voters)


def damage(home: Path, rng: random.Random) -> str:
    """Change one file in one place; return what was done."""
    files = sorted(
        path for path in home.rglob("*") if path.is_file() and path.suffix not in (".lock", ".log")
    )
    data = home / "data.mdb"
    path = rng.choice([*files, data, data, data, home / "pyraft.journal"])
    size = path.stat().st_size
    where = rng.randrange(size)
    if path == data and rng.random() < 0.4:  # the heads of pages, where they say what they are
        where = rng.randrange(size // PAGE) * PAGE + rng.randrange(64)
    elif path != data and path.name == "pyraft.journal":  # its beginning, where there is something
        where = rng.randrange(12 * PAGE)
    how = rng.choice(["bit", "bit", "bit", "byte", "zeros", "page", "truncate"])
    with path.open("r+b") as file:
        if how == "truncate":
            file.truncate(where)
            return f"{path.name} cut to {where} bytes"
        file.seek(where)
        old = file.read(PAGE if how == "page" else 100 if how == "zeros" else 1)
        new = {
            "bit": bytes([old[0] ^ 1 << rng.randrange(8)]),
            "byte": rng.randbytes(1),
            "zeros": bytes(len(old)),
            "page": rng.randbytes(len(old)),
        }[how]
        file.seek(where)
        file.write(new)
    return f"{path.name}: {how} at {where} (page {where // PAGE}, byte {where % PAGE})"


def judge(home: Path, expected: list[object]) -> str:
    """What became of a damaged copy: "served", "refused", or what must not be."""
    try:
        found = read(home)
    except (
        StorageError,
        ConfigError,
        LogNotFoundError,
    ):  # an entry that is committed and not there stops the server
        return "refused"
    # A snapshot may be left out, the log says so; what is given out is what was written.
    is_right = found[:5] == expected[:5] and all(snapshot in expected[5:] for snapshot in found[5:])
    return (
        "served" if is_right else f"wrong: {[a == b for a, b in zip(found[:5], expected[:5], strict=True)]}"
    )


def in_a_process(home: Path, expected: list[object]) -> str:
    """As ``judge``; what kills the process or lasts for a minute is told, too."""
    out, into = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            result = judge(home, expected)
        except BaseException as error:
            result = f"not one of ours: {error!r}"
        os.write(into, result.encode()[:4000])
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as reader:
        result = reader.read()
    _, status = os.waitpid(child, 0)
    return result if not status else f"died of signal {os.WTERMSIG(status)} {result}"


def main(directory: str, first: str, last: str) -> None:
    logging.disable()
    healthy, copy = Path(directory) / "healthy", Path(directory) / "copy"
    store = write(healthy)
    shutil.copytree(healthy, copy)
    shutil.copytree(healthy, killed := Path(directory) / "killed")
    store.close()
    expected, results, bad = read(copy), Counter(), []
    for seed in range(int(first), int(last)):
        rng = random.Random(seed)
        shutil.rmtree(copy)
        shutil.copytree(rng.choice([healthy, killed]), copy)
        what = damage(copy, rng)
        result = in_a_process(copy, expected)
        results[result.split(":")[0]] += 1
        if result not in ("served", "refused"):
            bad.append(f"seed {seed}: {what}: {result}")
    print(json.dumps([results, bad]))


def test_damaged_files_are_refused_or_harmless(tmp_path):
    command = [sys.executable, "-m", "tests.logstore.test_damaged_files", str(tmp_path), "0", str(TRIES)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500)

    assert not run.returncode, run.stderr
    results, bad = json.loads(run.stdout)
    assert bad == []
    assert set(results) == {"served", "refused"}


if __name__ == "__main__":
    main(*sys.argv[1:])
