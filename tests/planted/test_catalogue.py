"""The planted bugs fit the library as it is, and what plants them tells a bug from none."""

from __future__ import annotations

import pytest

from tests.planted.__main__ import look_for, main
from tests.planted.catalogue import SUITES
from tests.sim.mutants.catalogue import Mutant
from tests.sim.mutants.planting import PROJECT, mutated_files

MUTANTS = [mutant for suite in SUITES for mutant in suite.mutants]


def test_each_has_its_own_name_and_its_tests_are_there():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 80
    for suite in SUITES:
        assert all((PROJECT / test).is_file() for test in suite.tests)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_fits_the_library_and_compiles(mutant):
    for file, text in mutated_files(mutant).items():
        compile(text, file, "exec")


def test_a_bug_is_found_and_what_changes_nothing_is_not():
    tests = ("tests/snapshots/test_crc64.py",)
    file, before = "snapshots/crc64.py", "from __future__ import annotations\n"
    harmless = Mutant("harmless", file, before, before + "\n", "nothing")
    wrong = Mutant("wrong", file, "return register ^ _ONES", "return register", "the standard's last step")
    broken = Mutant("broken", file, before, before + "raise ValueError()\n", "nothing")

    assert look_for(harmless, tests) == ""
    assert "tests/snapshots/test_crc64.py::" in look_for(wrong, tests)
    with pytest.raises(RuntimeError, match="pytest could not run"):
        look_for(broken, tests)


def test_a_name_that_nothing_has_is_an_error(capsys):
    assert main(["no such bug"]) == 2
    assert "no bug is called" in capsys.readouterr().err
