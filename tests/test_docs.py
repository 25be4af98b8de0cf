"""What the documentation shows must run: a reader will type it in.

- ```` ```python ````: run as a program of its own, in an empty folder, within a minute.
- ```` ```console ````, ``sh``, ``bash``, ``make``: not run, but every ``make X`` must be a target and
  every file that is named must exist.

A comment on the line before a python block changes that, and says why:

- ``<!-- fragment: why -->``: not a program by itself; it is only compiled.
- ``<!-- continues: why -->``: runs after the python blocks before it, in one program.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
REQUIRED = ["README.md", "ARCHITECTURE.md"]
PROGRAM_TIMEOUT = 60

FENCE = re.compile(r"^(?P<indent>[ ]*)(?P<fence>`{3,})[ ]*(?P<language>[\w+-]*)[^`\n]*$")
MARK = re.compile(r"<!--\s*(?P<kind>\w+)\s*:\s*(?P<why>.*?)\s*-->")
SHELLS = ("console", "sh", "bash", "shell", "make")


@dataclass(frozen=True)
class Block:
    place: str
    """``README.md:12``, the line of its first line of code."""
    language: str
    code: str
    mark: str
    """``fragment``, ``continues`` or empty."""


def blocks_of(text: str, name: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        start = number + 1
        closing = re.compile(rf"^ *`{{{len(opening['fence'])},}} *$")
        end = next((i for i in range(start, len(lines)) if closing.match(lines[i])), None)
        if end is None:
            raise ValueError(f"{name}:{start}: this block is never closed")
        mark = MARK.search(lines[number - 1]) if number else None
        if mark and not mark["why"]:
            raise ValueError(f"{name}:{number}: say why, as in <!-- {mark['kind']}: why -->")
        code = textwrap.dedent("\n".join(lines[start:end])) + "\n"
        found.append(
            Block(f"{name}:{start + 1}", opening["language"].lower(), code, mark["kind"] if mark else "")
        )
        number = end + 1
    return found


def pages() -> list[Path]:
    named = [PROJECT / name for name in (*REQUIRED, "CONTRIBUTING.md")]
    return [path for path in [*named, *sorted((PROJECT / "docs").rglob("*.md"))] if path.is_file()]


def programs(blocks: list[Block]) -> list[tuple[Block, str]]:
    """The python blocks that run, each with what it continues."""
    found: list[tuple[Block, str]] = []
    before = ""
    for block in blocks:
        if block.language != "python" or block.mark == "fragment":
            continue
        before = before + "\n" + block.code if block.mark == "continues" else block.code
        found.append((block, before))
    return found


BLOCKS = [
    block
    for page in pages()
    for block in blocks_of(page.read_text(encoding="utf-8"), page.relative_to(PROJECT).as_posix())
]
PROGRAMS = [
    pair
    for page in pages()
    for pair in programs(blocks_of(page.read_text(encoding="utf-8"), page.relative_to(PROJECT).as_posix()))
]
FRAGMENTS = [block for block in BLOCKS if block.language == "python" and block.mark == "fragment"]
SHELL_BLOCKS = [block for block in BLOCKS if block.language in SHELLS]


@pytest.mark.parametrize("name", REQUIRED)
def test_there_is(name):
    assert (PROJECT / name).is_file()


@pytest.mark.parametrize(("block", "program"), PROGRAMS, ids=[block.place for block, _ in PROGRAMS])
def test_the_program_runs(block, program, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")

    try:
        done = subprocess.run(
            [sys.executable, str(path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROGRAM_TIMEOUT,
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"{block.place} did not end within {PROGRAM_TIMEOUT} s; it printed: {late.stdout}")
    assert done.returncode == 0, f"{block.place}:\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", FRAGMENTS, ids=[block.place for block in FRAGMENTS])
def test_the_fragment_compiles(block):
    compile(block.code, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=[block.place for block in SHELL_BLOCKS])
def test_the_commands_name_what_exists(block):
    assert objections(block) == []


def test_no_python_hides_under_another_name():
    assert [block.place for block in BLOCKS if block.language in ("py", "python3", "pycon")] == []


def test_every_mark_is_known():
    assert [block.place for block in BLOCKS if block.mark not in ("", "fragment", "continues")] == []


# What a shell block names


def objections(block: Block) -> list[str]:
    """What the commands of the block name and the project does not have."""
    found = []
    for command in commands(block):
        # One `make X` after another, and programs before and after pipes.
        for part in re.split(r"&&|\|\||[;|]", command):
            try:
                words = shlex.split(part, comments=True)
            except ValueError as unreadable:
                found.append(f"{block.place}: {part!r}: {unreadable}")
                continue
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]  # NAME=value before the program
            found += [f"{block.place}: {what}" for what in missing(words)]
    return found


def commands(block: Block) -> list[str]:
    """The lines that a reader types: all, or those after ``$`` where some are output."""
    lines = block.code.replace("\\\n", " ").splitlines()
    typed = [line.strip().removeprefix("$").strip() for line in lines if line.lstrip().startswith("$ ")]
    return typed if typed or block.language == "console" else [line.strip() for line in lines]


def missing(words: list[str]) -> list[str]:
    if not words:
        return []
    found = []
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        found += [f"make has no target {word}" for word in targets if word not in make_targets()]
    elif "-m" in words[:-1] and re.match(r"(.*/)?python[\d.]*$", words[0]):
        module = words[words.index("-m") + 1]
        package = PROJECT / module.split(".")[0]
        if package.is_dir():
            path = PROJECT / module.replace(".", "/")
            if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
                found.append(f"there is no program {module}")
    found += [f"there is no file {word}" for word in words if is_ours(word) and not exists(word)]
    return found


def is_ours(word: str) -> bool:
    """Whether the word looks like a path into the project, and not one that it makes."""
    if re.search(r"[<>*$~:=]|^[-/]|^\.venv|^data\b", word):
        return False
    top, slash, _ = word.removeprefix("./").partition("/")
    return bool(slash and (PROJECT / top).exists()) or bool(re.search(r"\w\.(py|sh|cfg|toml|proto)$", word))


def exists(word: str) -> bool:
    path, _, _test = word.partition("::")
    return (PROJECT / path).exists()


def make_targets() -> set[str]:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE))


# The checker itself

PAGE = """
```python
x = 1
```

<!-- continues: uses x -->
```python
print(x + 1)
```

- in a list

  <!-- fragment: needs a server -->
  ```python
  await raft.apply(b"5")
  ```

````text
```python
not a block
```
````
"""


def test_the_blocks_of_a_page_are_found():
    blocks = blocks_of(PAGE, "PAGE.md")

    assert [(block.place, block.language, block.mark) for block in blocks] == [
        ("PAGE.md:3", "python", ""),
        ("PAGE.md:8", "python", "continues"),
        ("PAGE.md:15", "python", "fragment"),
        ("PAGE.md:19", "text", ""),
    ]
    assert blocks[2].code == 'await raft.apply(b"5")\n'
    assert [program for _, program in programs(blocks)] == ["x = 1\n", "x = 1\n\nprint(x + 1)\n"]


@pytest.mark.parametrize("page", ["```python\nx = 1\n", "<!-- fragment: -->\n```python\nx\n```\n"])
def test_a_page_that_cannot_be_read_is_refused(page):
    with pytest.raises(ValueError, match=r"PAGE\.md"):
        blocks_of(page, "PAGE.md")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("console", "$ make no-such-target\n"),
        ("make", "make test && make no-such-target\n"),
        ("sh", "make test ARGS=-x no-such-target\n"),
        ("console", "$ python examples/no_such_program.py\noutput/that.py is not looked at\n"),
        ("console", "$ .venv/bin/python -m pytest tests/no_such_folder\n"),
        ("sh", "python -m tests.no_such_module\n"),
        ("sh", "echo 'unclosed\n"),
    ],
)
def test_a_command_that_names_nothing_is_found(language, code):
    assert len(objections(Block("PAGE.md:1", language, code, ""))) == 1


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (
            "console",
            '$ PYTHON=python3.13 make -j2 test ARGS="-k election -x"  # all of it\n3 passed in tests/x.py\n',
        ),
        ("sh", "make check\n.venv/bin/python -m pytest tests/test_docs.py::test_there_is\n"),
        ("sh", "pip install pyraft-consensus\nls data/n1 ~/x.py\n"),
    ],
)
def test_a_command_that_works_is_left_alone(language, code):
    assert objections(Block("PAGE.md:1", language, code, "")) == []
