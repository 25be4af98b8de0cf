"""``python -m tests.sim.mutants``: plant every bug of the catalogue, and see whether it is caught."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .catalogue import MUTANTS
from .run import DEFAULT_STATE, Runner, report


def main(arguments: list[str]) -> int:
    """Run, print the table; 0 if all are caught."""
    options = _parser().parse_args(arguments)
    mutants = [m for m in MUTANTS if not options.names or any(name in m.name for name in options.names)]
    if options.threads:
        mutants = [m for m in mutants if m.threads]
    if not mutants:
        print(f"no mutant is called anything like {' or '.join(options.names)}", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}{' [threads]' if mutant.threads else ''}: {mutant.source}")
        return 0
    if options.fresh:
        options.state.unlink(missing_ok=True)
    limit = options.minutes * 60
    runner = Runner(mutants, most_seeds=options.seeds, jobs=options.jobs, state=options.state, limit=limit)
    runner.run()
    return 0 if report(runner) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.sim.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants whose name holds one of these")
    parser.add_argument("--threads", action="store_true", help="only those about threads")
    parser.add_argument("--list", action="store_true", help="print the catalogue and end")
    parser.add_argument("--seeds", type=int, default=2000, help="most seeds for each (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="workers at a time (%(default)s)")
    parser.add_argument("--minutes", type=float, default=115, help="begin nothing new later (%(default)s)")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="where to go on (%(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run found")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
