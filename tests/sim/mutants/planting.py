"""Plant a bug in a copy of the library."""

from __future__ import annotations

import shutil
from hashlib import blake2b
from pathlib import Path

from .catalogue import Mutant

PROJECT = Path(__file__).parents[3]


class DoesNotFitError(Exception):
    """The text that an edit replaces is not in the library exactly once."""


def mutated_files(mutant: Mutant, package: Path = PROJECT / "pyraft") -> dict[str, str]:
    """The new text of every file that ``mutant`` changes, by its path below ``package``.

    Raises:
        DoesNotFitError: an edit does not fit.
    """
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        text = texts.get(edit.file)
        if text is None:
            text = (package / edit.file).read_text(encoding="utf-8")
        count = text.count(edit.before)
        if count != 1:
            raise DoesNotFitError(
                f"{mutant.name}: {edit.file} holds the text to replace {count} times:\n{edit.before}"
            )
        texts[edit.file] = text.replace(edit.before, edit.after)
    return texts


def copy_library(target: Path, mutant: Mutant | None = None) -> None:
    """Make ``target``/pyraft: the library, with a bug planted if ``mutant`` is given.

    Raises:
        DoesNotFitError: an edit does not fit; there is no copy then.
    """
    changed = {} if mutant is None else mutated_files(mutant)
    shutil.copytree(PROJECT / "pyraft", target / "pyraft", ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in changed.items():
        (target / "pyraft" / file).write_text(text, encoding="utf-8")


def library_digest() -> str:
    """Changes whenever any file of the library does."""
    digest = blake2b(digest_size=8)
    for path in sorted((PROJECT / "pyraft").rglob("*.py")):
        digest.update(path.relative_to(PROJECT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
