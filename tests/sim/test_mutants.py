"""The planted bugs fit the library as it is, and some are caught here and now."""

from __future__ import annotations

import pytest

from tests.sim.mutants.catalogue import MUTANTS, Mutant
from tests.sim.mutants.planting import DoesNotFitError, mutated_files
from tests.sim.mutants.run import Runner


def named(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def test_there_are_enough_and_each_has_its_own_name():
    assert len(MUTANTS) >= 100
    assert sum(mutant.threads for mutant in MUTANTS) >= 12
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fits_the_library_and_compiles(mutant):
    for file, text in mutated_files(mutant).items():
        compile(text, file, "exec")


def test_an_edit_must_fit_exactly_once():
    for before in ("this text is nowhere", "import"):
        with pytest.raises(DoesNotFitError, match=r"state\.py holds the text to replace"):
            mutated_files(Mutant("wrong", "state.py", before, "", "nothing"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adopted-term-not-saved", "entries-encoded-anew"])
def test_is_caught_within_few_seeds(name):
    runner = Runner([named(name)], most_seeds=20, jobs=1)

    runner.run()

    assert runner.records[name].caught is not None


@pytest.mark.slow
def test_what_changes_nothing_is_not_caught():
    harmless = Mutant("harmless", "state.py", "import struct\n", "import struct  # as before\n", "nothing")
    runner = Runner([harmless], most_seeds=2, jobs=1)

    runner.run()

    record = runner.records["harmless"]
    assert (record.caught, record.tried, record.calm) == (None, 2, True)
