"""The project around the package: its files, its commands and its metadata agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

import pyraft

PROJECT = Path(__file__).parent.parent

FILES = [
    ".ci/run",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "pyproject.toml",
    "pyraft/py.typed",
    "ruff.toml",
    "setup.cfg",
    "tools/make_env.py",
    "tools/make_env.sh",
]

# Put together here, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.~-])/(?:work|root|home)/\w",
    "the host of a package registry": "|".join(
        rf"\b{host}\.{top}\b"
        for host, top in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "(?:org|com)"),
            ("crates", "io"),
            (r"(?:proxy|sum)\.golang", "org"),
            ("rubygems", "org"),
            ("anaconda", "org"),
        ]
    ),
}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.mark.parametrize("name", FILES)
def test_there_is(name):
    assert (PROJECT / name).is_file()


@pytest.mark.parametrize("name", [".ci/run", "tools/make_env.sh"])
def test_is_executable(name):
    assert os.access(PROJECT / name, os.X_OK)


def test_the_changelog_starts_with_the_version_of_the_package():
    headings = re.findall(r"^## \[(\d[^\]]*)\]", read("CHANGELOG.md"), flags=re.MULTILINE)

    assert headings[0] == pyraft.__version__


def test_the_license_is_the_one_that_the_metadata_names():
    assert setup_cfg()["metadata"]["license_expression"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in read("LICENSE")


# The Makefile


@needs_make
def test_make_without_a_target_explains_every_target():
    makefile = read("Makefile").replace("\\\n", " ")  # a line may go on after a backslash
    targets = re.findall(r"^([a-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)

    explained = re.findall(r"^ *make ([\w-]+)", make(), flags=re.MULTILINE)

    assert sorted(explained) == sorted(set(targets) - {"help"})
    assert sorted(phony.split()) == sorted(targets)


@needs_make
@pytest.mark.parametrize(
    "target",
    ["demo", "test", "check", "proto", "bench", "bench-peers", "bench-all", "bench-compare", "clean"],
)
def test_make_knows(target):
    make("-n", target)


def make(*arguments: str) -> str:
    # A make around this one must not hand its flags on.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    done = subprocess.run(
        ["make", *arguments], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_python_that_does_not_run_is_passed_over(tmp_path):
    shim = program(tmp_path / "shims" / "python3.13", "echo 'python3.13: not installed' >&2; exit 127")
    works = program(tmp_path / "bin" / "python3.13", 'test "$1" = -c || echo "$0 $*"')

    made = make_env(tmp_path / "new", path=[shim.parent, works.parent])

    assert made.stdout.strip() == f"{works} {PROJECT / 'tools/make_env.py'} {tmp_path / 'new'}"


def test_a_later_python_is_taken_before_an_earlier_one(tmp_path):
    older = program(tmp_path / "first" / "python3.11", 'test "$1" = -c || echo "$0 $*"')
    newer = program(tmp_path / "second" / "python3.12", 'test "$1" = -c || echo "$0 $*"')

    made = make_env(tmp_path / "new", path=[older.parent, newer.parent])

    assert made.stdout.startswith(f"{newer} ")


def test_where_no_python_works_the_reader_is_told_what_to_do(tmp_path):
    shim = program(tmp_path / "shims" / "python3", "exit 127")

    made = make_env(tmp_path / "new", path=[shim.parent])
    named = make_env(tmp_path / "new", str(shim), path=[shim.parent])

    assert made.returncode == named.returncode == 1
    assert "make PYTHON=" in made.stderr
    assert str(shim) in named.stderr
    assert not (tmp_path / "new").exists()


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def make_env(*arguments: str | Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(PROJECT / "tools" / "make_env.sh"), *map(str, arguments)],
        env={"PATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=60,
    )


# Dependencies


def test_the_floors_of_dependencies_are_what_the_generated_code_asks_for():
    stamps = {
        "protobuf": [stamp(path, r"^# Protobuf Python Version: ([\d.]+)$") for path in generated("*_pb2.py")],
        "grpcio": [
            stamp(path, r"^GRPC_GENERATED_VERSION = '([\d.]+)'$") for path in generated("*_pb2_grpc.py")
        ],
    }
    if not stamps["protobuf"]:
        pytest.skip("nothing is generated yet")

    for package, found in stamps.items():
        for version in found:
            assert floor(package) == version, f"{package}: raise or lower it in setup.cfg"


def test_the_generator_is_pinned_and_not_newer_than_the_runtime_that_users_may_have():
    (pinned,) = re.findall(r"grpcio-tools==([\d.]+)", setup_cfg()["options.extras_require"]["dev"])

    assert floor("grpcio") == pinned


def generated(pattern: str) -> list[Path]:
    return sorted((PROJECT / "pyraft").rglob(pattern))


def stamp(path: Path, pattern: str) -> str:
    (version,) = re.findall(pattern, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return version


def floor(package: str) -> str:
    (version,) = re.findall(
        rf"^{package}>=([\d.]+)", setup_cfg()["options"]["install_requires"], flags=re.MULTILINE
    )
    return version


# What must not be in any file


@pytest.mark.parametrize(("what", "pattern"), FORBIDDEN.items(), ids=FORBIDDEN)
def test_no_file_names(what, pattern):
    search = re.compile(pattern)
    found = []
    for path in project_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if search.search(line):
                found.append(f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:120]}")

    assert found == [], f"{what}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "root/notes",
        "open('/" + "work/main')",
        "https://" + "pypi." + "org/simple",
        "files.python" + "hosted.org",
    ],
)
def test_a_forbidden_name_would_be_found(line):
    assert any(re.search(pattern, line) for pattern in FORBIDDEN.values())


@pytest.mark.parametrize(
    "line",
    ["the framework/root/node split", "https://example.org/work/it", "$ORIGIN/home/", "a pypi package"],
)
def test_innocent_names_are_left_alone(line):
    assert not any(re.search(pattern, line) for pattern in FORBIDDEN.values())


def project_files() -> Iterator[Path]:
    """The files under version control; all but the made ones where git cannot say."""
    listed = None
    if (PROJECT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, timeout=60
        )
    if listed is not None and listed.returncode == 0:
        names = [PROJECT / name for name in listed.stdout.split("\0") if name]
        yield from (path for path in names if path.is_file() and not path.is_symlink())
        return
    made = re.compile(r"^(\.git|\.venv.*|\.\w+_cache|\.hypothesis|__pycache__|build|dist|.*\.egg-info)$")
    for folder, folders, files in os.walk(PROJECT):
        folders[:] = [name for name in folders if not made.match(name)]
        yield from (Path(folder, name) for name in files if not name.endswith(".pyc"))


def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(PROJECT / "setup.cfg", encoding="utf-8")
    return parser


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")
