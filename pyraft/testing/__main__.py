"""``python -m pyraft.testing run | replay | shrink``: the simulator for many seeds, or for one.

Exit codes: 0 = everything held, 1 = something did not, 2 = the arguments make no sense.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..errors import ConfigError
from .campaign import Campaign, Plan
from .campaign_report import Progress, summary, unreached
from .campaign_worker import usable_cpus
from .coverage import SITUATIONS
from .options import Options, add_options, read_options
from .recorder import ReachedStep
from .replay import replay, story
from .scenario import Scenario, load_fsm, load_scenario
from .shrink import shrink


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    parser = _Parser(
        prog="python -m pyraft.testing", description=__doc__.split("\n", 1)[0] if __doc__ else ""
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|replay|shrink")
    _add_run(commands)
    _add_replay(commands)
    _add_shrink(commands)
    given = parser.parse_args(arguments)
    try:
        return int(given.act(given))
    except ConfigError as error:
        print(f"{parser.prog} {given.command}: error: {error}", file=sys.stderr)
        return 2


# -- run -----------------------------------------------------------------------------------------


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("run", help="run many seeds and judge them")
    parser.set_defaults(act=_run)
    seeds = parser.add_argument_group("which seeds, and how long")
    seeds.add_argument("--seeds", type=_seed_range, default=(0, 100), metavar="FIRST:END", help="(0:100)")
    seeds.add_argument("--forever", action="store_true", help="count seeds upward from FIRST until stopped")
    seeds.add_argument(
        "--jobs", type=_count, default=usable_cpus(), help="how many processes (one for each CPU)"
    )
    seeds.add_argument("--budget", type=_seconds, metavar="SECONDS", help="begin no seed after this time ...")
    seeds.add_argument("--at-least", type=_count, default=0, metavar="K", help="... once K seeds have begun")
    seeds.add_argument(
        "--check-determinism",
        type=_count,
        default=0,
        metavar="N",
        help="run every N-th seed twice, and compare",
    )
    seeds.add_argument("--fail-fast", action="store_true", help="begin nothing more after a failure")
    seeds.add_argument("--hang-after", type=_seconds, default=900.0, metavar="SECONDS", help="per seed (900)")
    files = parser.add_argument_group("files")
    files.add_argument("--keep", type=Path, metavar="DIR", help="write scenarios that fail to this folder")
    files.add_argument(
        "--resume", type=Path, metavar="FILE", help="go on where the run with this file stopped"
    )
    add_options(parser)


def _run(given: argparse.Namespace) -> int:
    options = read_options(given)
    load_fsm(options.fsm)
    first, end = given.seeds
    if given.jobs < 1:
        raise ConfigError("--jobs 0: at least one process is needed")
    if end is None and not given.forever:
        raise ConfigError("--seeds without an end is for --forever: write FIRST:END")
    plan = Plan(
        first=first,
        end=None if given.forever else end,
        jobs=given.jobs,
        budget=given.budget,
        at_least=given.at_least,
        compare_every=given.check_determinism,
        keep=given.keep,
        resume=given.resume,
        fail_fast=given.fail_fast,
        hang_after=given.hang_after,
    )
    progress = Progress(options)
    campaign = Campaign(plan, options, progress.report, lambda: progress.tick(campaign))
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number])  # the second time it is meant seriously
        campaign.stop()

    for number in before:
        signal.signal(number, stop)
    try:
        campaign.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    progress.clear()
    known = known_situations()
    print(summary(campaign.totals, known), flush=True)
    if campaign.totals.failures:
        return 1
    if given.forever:
        return 1 if unreached(campaign.totals, known) else 0
    return 130 if campaign.is_stopped else 0


# -- replay --------------------------------------------------------------------------------------


def _add_replay(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("replay", help="run one seed again, and tell what happens")
    parser.set_defaults(act=_replay)
    _add_what(parser)
    parser.add_argument("--messages", action="store_true", help="tell of messages and disk writes too")
    parser.add_argument("--until-step", type=_count, metavar="N", help="stop at step N")


def _replay(given: argparse.Namespace) -> int:
    result = replay(_given_scenario(given), print, messages=given.messages, until_step=given.until_step)
    return 0 if result.failure is None or isinstance(result.failure, ReachedStep) else 1


# -- shrink --------------------------------------------------------------------------------------


def _add_shrink(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser("shrink", help="make a run that fails as small as it can be")
    parser.set_defaults(act=_shrink)
    _add_what(parser)
    parser.add_argument("--limit", type=_seconds, default=300.0, metavar="SECONDS", help="real ones (300)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where the scenario goes (seed-N-small.json)"
    )
    parser.add_argument("--rows", type=_count, default=90, help="the longest diagram (90)")


def _shrink(given: argparse.Namespace) -> int:
    scenario = _given_scenario(given)
    path: Path = given.out or Path(f"seed-{scenario.seed}-small.json")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.absolute().parent}")
    shrunk = shrink(scenario, seconds=given.limit, tell=lambda line: print(line, flush=True))
    shrunk.scenario.save(path)
    for line in story(shrunk.scenario, most_rows=given.rows):
        print(line)
    print(f"the scenario is in {path}: python -m pyraft.testing replay {path} --messages")
    return 1


def _add_what(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, help="a scenario, as `run --keep` and `shrink` write it"
    )
    parser.add_argument("--seed", type=int, help="the seed, if there is no file")
    add_options(parser)


def _given_scenario(given: argparse.Namespace) -> Scenario:
    options = read_options(given)
    if (given.file is None) == (given.seed is None):
        raise ConfigError("what shall run? Give --seed, or a file with a scenario")
    if given.seed is not None:
        scenario = options.scenario(given.seed)
    elif options != Options():
        raise ConfigError(f"the file says everything: leave out{options.words()}")
    else:
        scenario = load_scenario(given.file)
    load_fsm(scenario.fsm)
    return scenario


def known_situations() -> list[str]:
    """The situations that a long run must reach."""
    return list(SITUATIONS)


def _seed_range(text: str) -> tuple[int, int | None]:
    first, colon, end = text.partition(":")
    try:
        seeds = int(first or "0"), int(end) if end else None if colon else int(first) + 1
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:END, two whole numbers") from error
    if seeds[1] is not None and seeds[1] <= seeds[0]:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed: FIRST must be below END")
    return seeds


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from error
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
