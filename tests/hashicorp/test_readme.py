"""README.md beside this file names tests that exist, and leaves no row of the conformance list out."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
ROWS = 205
MOST_REASONS = 15
FIXES = "A5 A6 B11 B12 C18 D3 D5 D9 D10 D13 D16 E7 E8 E10 F1 F3 F4 G3 G4 H1 H8 H9 H10 H11 H13 I5 I6 J6 J9 J12"


def named():
    return sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", README)))


def functions_in(path, cache={}):  # noqa: B006  (each file is read once)
    if path not in cache:
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        cache[path] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return cache[path]


def section(title):
    """The first cells of the rows of the table under ``title``."""
    text = README.split(f"{title}\n", 1)[1].split("\n#", 1)[0]
    return re.findall(r"^\| ([^|]+?) \|", text, flags=re.MULTILINE)[1:]


def numbers(title):
    return [int(cell) for cell in section(title) if cell.isdigit()]


@pytest.mark.parametrize("name", named())
def test_the_test_that_it_names_exists(name):
    path, function = name.split("::")
    assert (TESTS / path).is_file(), f"README.md names {path}: change the row, or bring the file back"
    assert function in functions_in(path), f"README.md names {name}: change the row, or bring the test back"


def test_every_row_is_there_once():
    tested, excused = numbers("## The conformance list"), numbers("### Rows without a test, and why")

    assert sorted(tested + excused) == list(range(1, ROWS + 1))
    assert len(excused) <= MOST_REASONS
    assert f"{len(tested)} of {ROWS} rows" in README


def test_every_defect_has_tests_that_carry_its_name():
    first_words = {cell.split()[0] for cell in section("## Its known defects, which are not here")}

    assert set(FIXES.split()) <= first_words
    for fix in FIXES.split():
        assert any(f"::test_fix_{fix}_" in name for name in named()), f"no test_fix_{fix}_… is named"


def test_every_departure_has_a_reason():
    table = README.split("## Departures", 1)[1]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 20
    for row in rows:
        assert len(row) == 3, row
        assert all(len(cell.strip()) > 5 for cell in row), row


def test_there_is_nothing_to_find_where_nothing_is_named():
    assert len(named()) > 150
    assert "test_nowhere" not in functions_in("hashicorp/test_readme.py")
