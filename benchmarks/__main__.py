"""``python -m benchmarks``: what servers on this machine do; README.md here says what is measured.

python -m benchmarks                  this library, about two minutes
python -m benchmarks peers            beside other libraries, under 40 minutes
python -m benchmarks all              everything, hours; goes on where it stopped
python -m benchmarks compare <ref>    this checkout against another
python -m benchmarks show <plan>      the tables and pictures of what has been measured
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import compare, limits, machine, peers, plots, ratios, rounds, sessions, tables
from .plan import PLANS, Group
from .results import Results, Session, read
from .subjects import CHECKOUT, EVERY

HOME = Path(__file__).parent / "results"


def main() -> int:
    arguments = parse(sys.argv[1:])
    home: Path = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    if arguments.what == "show":
        return show(arguments)
    if arguments.what == "compare":
        return run_compare(arguments)
    groups = chosen(PLANS[arguments.what](), arguments)
    provide(groups)
    path = result_path(arguments)
    if arguments.what == "ours" or arguments.fresh:
        path.unlink(missing_ok=True)
    results = Results(path, head(home, groups), machine.code_of(CHECKOUT))
    print(heading(results.header), flush=True)
    void = rounds.run(groups, results, sessions_of, home, say)
    finish(groups, results.header, results.sessions, arguments)
    return 1 if void else 0


def parse(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", default="ours", choices=[*PLANS, "compare", "show"])
    parser.add_argument("ref", nargs="?", help="compare: a commit; show: a plan")
    parser.add_argument("--quick", action="store_true", help="a look at whether everything works")
    parser.add_argument("--rounds", type=int, help="instead of the plan's")
    parser.add_argument("--groups", help="only these, separated by commas")
    parser.add_argument("--subjects", help=f"only these, separated by commas: {', '.join(EVERY)}")
    parser.add_argument("--works", help="only these, separated by commas, as they are named in the JSON")
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--transports", default="tcp,grpc", help="compare: which of tcp, grpc, memory")
    parser.add_argument("--home", type=Path, default=HOME, help="for results and the servers' files")
    parser.add_argument("--json", type=Path, help="write the rows for programs to this file, too")
    parser.add_argument("--fresh", action="store_true", help="do not go on where the last run stopped")
    arguments = parser.parse_args(given)
    arguments.home = arguments.home.resolve()
    return arguments


def chosen(groups: list[Group], arguments: argparse.Namespace) -> list[Group]:
    """``groups`` as the command line wants them."""
    names = {name: set(value.split(",")) for name, value in vars(arguments).items() if isinstance(value, str)}
    kept = []
    for group in groups:
        if "groups" in names and group.name not in names["groups"]:
            continue
        if "subjects" in names:
            some = [each for each in group.subjects if each.name in names["subjects"]]
            group = replace(group, subjects=some)
        if "works" in names:
            group = replace(group, works=[work for work in group.works if work.name in names["works"]])
        if arguments.quick:
            group = replace(group, rounds=1, seconds=0.2, warm_up=0.1)
        if arguments.seconds:
            group = replace(group, seconds=arguments.seconds)
        if arguments.rounds:
            group = replace(group, rounds=arguments.rounds)
        if group.subjects and (group.works or group.kind != "load"):
            kept.append(group)
    return kept


def provide(groups: list[Group]) -> None:
    """Build or install what is missing, before anything is measured."""
    try:
        for library in sorted(libraries_of(groups)):
            peers.provide(library)
    except peers.MissingPeerError as error:
        raise SystemExit(str(error)) from error


def libraries_of(groups: list[Group]) -> set[str]:
    return {library for group in groups for subject in group.subjects for library in subject.libraries}


def result_path(arguments: argparse.Namespace) -> Path:
    home: Path = arguments.home
    name = arguments.what if arguments.what != "show" else arguments.ref or "ours"
    return home / f"{name}.jsonl"


def head(home: Path, groups: list[Group]) -> dict[str, Any]:
    return {
        **machine.facts(home, libraries_of(groups)),
        "commit": machine.commit_of(CHECKOUT),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "limits_us": {
            "append and flush 160 bytes": 1e6 * limits.file_flush(home),
            "LMDB commit of 1 entry": 1e6 * limits.lmdb_commit(1, 200, home),
            "LMDB commit of 4,096 entries": 1e6 * limits.lmdb_commit(4096, 5, home),
            "gRPC stream round trip": 1e6 * limits.grpc_round_trip(300),
        },
    }


def heading(header: dict[str, Any]) -> str:
    """For people: on what the figures were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    lines = [
        f"{header['cores']} cores, {header['cpu']}, load average {header['load_average']} at the start",
        f"{header['system']}, Python {header['python']}, {versions}",
        f"files on {header['disk']}; commit {header['commit']}",
        "limits of the machine: "
        + ", ".join(f"{name} {value:,.0f} µs" for name, value in header["limits_us"].items()),
    ]
    if header["disk"] in ("tmpfs", "ramfs"):
        lines.append("These files are in memory: nothing is ever flushed. Choose a disk with --home.")
    return "\n".join([*lines, ""])


def sessions_of(group: Group, subject: Any, round: int, folder: Path) -> Any:
    return sessions.KINDS[group.kind](group, subject, round, folder)


def say(text: str) -> None:
    print(text, flush=True)


def finish(
    groups: list[Group], header: dict[str, Any], found: list[Session], arguments: argparse.Namespace
) -> None:
    """Print and keep the tables, the rows and the pictures."""
    values = tables.values_of(groups, found)
    text = tables.report(groups, found)
    standing = ratios.table(groups, values)
    whole = "\n\n".join(part for part in (text, standing) if part)
    print(f"\n{whole}\n\nload average {os.getloadavg()[0]:.2f} now")
    path = result_path(arguments)
    path.with_suffix(".md").write_text(f"{heading(header)}\n{whole}\n")
    data = json.dumps({**header, "rows": tables.rows(values)}, indent=1)
    for target in (path.with_suffix(".json"), arguments.json):
        if target is not None:
            target.write_text(data)
    if plots.is_possible():
        for picture in plots.draw(groups, values, arguments.home / f"{path.stem}-plots", header["command"]):
            print(picture)


def show(arguments: argparse.Namespace) -> int:
    path = result_path(arguments)
    if path.stem not in PLANS or not path.exists():
        raise SystemExit(f"{path}: nothing has been measured there; plans are {', '.join(PLANS)}")
    header, found = read(path)
    groups = chosen(PLANS[path.stem](), arguments)
    print(heading(header))
    finish(groups, header, found, arguments)
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    if not arguments.ref:
        raise SystemExit("compare with what? make bench-compare BASE=<commit>")
    try:
        base = compare.unpack(arguments.ref, arguments.home)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    groups = chosen(
        compare.groups(base, compare.ROUNDS, arguments.transports.split(",")),
        arguments,
    )
    code = f"{machine.code_of(CHECKOUT)}-{machine.code_of(base)}"
    path = result_path(arguments)
    if arguments.fresh:
        path.unlink(missing_ok=True)
    results = Results(path, head(arguments.home, groups), code)
    print(heading(results.header), flush=True)
    rounds.run(groups, results, sessions_of, arguments.home, say)
    found = compare.ratios(groups, tables.values_of(groups, results.sessions))
    print("\n" + compare.report(found))
    return 1 if compare.is_slower(found) else 0


if __name__ == "__main__":
    sys.exit(main())
