"""The arrows of ARCHITECTURE.md: who may import whom, and who may touch the outside.

They are what makes the library testable: rules without a clock, a disk or a thread need no
simulator, and threads that take time and chance from a Runtime can run in one.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pyraft"

# From the core outwards.  A module may import its own layer and earlier ones.
LAYERS = {
    "foundation": ["disk", "errors", "lanes", "runtime"],
    "values": ["config", "configuration", "log", "messages", "metrics"],
    "rules": ["rules", "rules.*"],
    "seams": [
        "events",
        "fsm",
        "futures",
        "observers",
        "sessions",
        "waiting",
        "logstore.base",
        "snapshots.base",
        "transport.base",
    ],
    "state": ["node_log", "state", "status"],
    "parts of threads": ["catch_up_pace", "snapshot_sending"],
    "handlers and threads": [
        "context",
        "fsm_runner",
        "heartbeat",
        "installing",
        "notifier",
        "proposals",
        "reads",
        "replicator",
        "recovery",
        "restoring",
        "snapshot_writing",
        "rpc_handlers",
        "snapshotter",
    ],
    "roles": ["roles", "roles.*"],
    "node": ["node"],
    "raft": ["raft"],
    "opening": ["opening"],
    "public API": ["__init__"],
}

# Beside the layers: what users pass to Raft, and so may replace.
IMPLEMENTATIONS = ["logstore", "logstore.*", "snapshots", "snapshots.*", "transport", "transport.*"]
IMPLEMENTATIONS_MAY_IMPORT = {"foundation", "values", "seams"}
MAY_IMPORT_IMPLEMENTATIONS = ["opening"]
MAY_NAME_IMPLEMENTATIONS_AS_TYPES = ["raft", "__init__"]  # the signature of Raft.open

# Shipped to users for their tests: may import everything, and nothing imports it.
TESTING = ["testing", "testing.*"]

GENERATED = ["*_pb2", "*_pb2_grpc"]
MAY_TOUCH_GENERATED = ["transport.wire", "transport.admin", "transport.leader_health"]

# Against the arrows, but only inside a function, when it is called.
LATE = {("raft", "opening"): "Raft.open: the stores and transports are imported by those who use it"}

# Where time, chance and threads of their own are needed and cannot come from a Runtime: these
# are never simulated, but replaced as a whole.
OUTSIDE_THE_SIMULATOR = [
    "runtime",
    "logstore.lmdb_store",
    "logstore.gate",
    "transport.admin",
    "transport.grpc_transport",
    "transport.tcp_transport",
    "snapshots.file_store",
    "testing",
    "testing.*",
]

# Modules of the outside world, and who may use each.  As mere types, everybody may.
CONFINED = {
    **dict.fromkeys(
        ["threading", "_thread", "queue", "time", "random", "secrets", "uuid"], OUTSIDE_THE_SIMULATOR
    ),
    "datetime": [*OUTSIDE_THE_SIMULATOR, "logstore.directory"],
    "grpc": ["transport.grpc_transport", "transport.admin", "transport.leader_health", *GENERATED],
    "lmdb": ["logstore.lmdb_store", "logstore.lmdb_file"],
    "google": ["transport.wire", *GENERATED],
    "pickle": [],
    "marshal": [],
    "pytest": [],
    # Would hide imports from this file; packages use it to load what they re-export late.
    "importlib": ["__init__", "logstore", "snapshots", "transport", "testing"],
}

HEAVY = {"grpc", "lmdb", "msgpack", "google.protobuf"}


@dataclass(frozen=True)
class Import:
    target: str
    """Dotted, below pyraft (``__init__`` is pyraft itself) or of the outside world."""
    inside: bool
    line: int
    late: bool
    """In a function."""
    type_only: bool
    """Under ``if TYPE_CHECKING``."""


def matches(module: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(module, pattern) for pattern in patterns)


def layer_of(module: str) -> str | None:
    """The module's layer; None for those beside them and for unknown ones."""
    return next((layer for layer, patterns in LAYERS.items() if matches(module, patterns)), None)


def violations(package: Path) -> list[str]:
    """Everything in ``package`` that the arrows forbid, in words."""
    paths = {module_name(path, package): path for path in sorted(package.rglob("*.py"))}
    found = []
    for module, path in paths.items():
        place = path.relative_to(package.parent).as_posix()
        if not (layer_of(module) or matches(module, [*IMPLEMENTATIONS, *TESTING])):
            found.append(
                f"{place} belongs to no layer: choose one in LAYERS of tests/test_import_layers.py, "
                f"and add the file to the layout in ARCHITECTURE.md"
            )
            continue
        for imported in imports_of(path, package, set(paths)):
            objection = (
                object_inside(module, imported) if imported.inside else object_outside(module, imported)
            )
            if objection:
                found.append(f"{place}:{imported.line} imports {imported.target}; {objection}")
    return found


def object_inside(module: str, imported: Import) -> str | None:
    target = imported.target
    if matches(target, GENERATED):
        allowed = matches(module, [*MAY_TOUCH_GENERATED, *GENERATED])
        return (
            None
            if allowed
            else "only transport/wire.py, admin.py and leader_health.py may touch generated code"
        )
    if matches(module, TESTING):
        return None
    if matches(target, TESTING):
        return "testing/ is for users' tests, nothing inside may need it"
    if (module, target) in LATE:
        return None if imported.late else "only inside a function: " + LATE[module, target]

    home, target_layer = layer_of(module), layer_of(target)
    if home is None:  # an implementation
        if target_layer in IMPLEMENTATIONS_MAY_IMPORT or same_package(module, target):
            return None
        return "implementations may use errors, runtime, values, seams, and their own package"
    if target_layer is None:  # an implementation, or unknown, which is reported by itself
        if not matches(target, IMPLEMENTATIONS) or matches(module, MAY_IMPORT_IMPLEMENTATIONS):
            return None
        if imported.type_only and matches(module, MAY_NAME_IMPLEMENTATIONS_AS_TYPES):
            return None
        return "users pass implementations in; only opening.py knows them by name"
    ranks = list(LAYERS)
    if ranks.index(target_layer) > ranks.index(home):
        return f"{home!r} lies nearer to the core than {target_layer!r}"
    return None


def object_outside(module: str, imported: Import) -> str | None:
    allowed = CONFINED.get(imported.target.split(".")[0])
    if allowed is None or imported.type_only or matches(module, allowed):
        return None
    return f"only {', '.join(allowed) or 'nobody'} may"


def same_package(module: str, target: str) -> bool:
    return module.split(".")[0] == target.split(".")[0]


def module_name(path: Path, package: Path) -> str:
    parts = list(path.relative_to(package).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        del parts[-1]
    return ".".join(parts)


def imports_of(path: Path, package: Path, modules: set[str]) -> Iterator[Import]:
    """Every import in the file, wherever it stands."""
    home = path.relative_to(package).parent.parts

    def below(absolute: str) -> str | None:
        """The dotted name below pyraft, or None for the outside world."""
        first, _, rest = absolute.partition(".")
        return (rest or "__init__") if first == package.name else None

    def visit(node: ast.AST, late: bool, type_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                inside = below(alias.name)
                yield Import(inside or alias.name, inside is not None, node.lineno, late, type_only)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                prefix = ".".join(home[: len(home) - (node.level - 1)])
                base: str | None = ".".join(filter(None, [prefix, node.module])) or "__init__"
            else:
                base = below(node.module or "")
            if base is None:
                yield Import(node.module or "", False, node.lineno, late, type_only)
                return
            for alias in node.names:
                member = alias.name if base == "__init__" else f"{base}.{alias.name}"
                target = member if member in modules else base
                yield Import(target, True, node.lineno, late, type_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, late, True)
            for child in node.orelse:
                yield from visit(child, late, type_only)
        else:
            late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, late, type_only)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False, False)


def test_imports_point_only_towards_the_core_and_the_outside_world_is_touched_in_one_place():
    found = violations(PACKAGE)

    assert not found, "\n".join(["", *found])


def test_importing_pyraft_imports_no_store_and_no_transport():
    probe = f"import sys, pyraft; print(*({HEAVY} & sys.modules.keys()))"

    assert run_python(probe).split() == []


def test_testing_needs_no_test_runner():
    probe = "import sys, pyraft.testing; print('pytest' in sys.modules, 'hypothesis' in sys.modules)"

    assert run_python(probe).split() == ["False", "False"]


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PLANTED = {
    "an arrow outwards": ("rules/election.py", "from ..state import x", "lies nearer to the core"),
    "an arrow outwards, inside a function": (
        "state.py",
        "def f():\n    from .roles import leader",
        "lies nearer to the core",
    ),
    "an arrow outwards, absolute": ("log.py", "import pyraft.node", "lies nearer to the core"),
    "an arrow outwards, as a type": (
        "errors.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .log import Log",
        "lies nearer to the core",
    ),
    "an arrow to the public API": ("raft.py", "from . import __version__", "lies nearer to the core"),
    "a store known by name": ("raft.py", "from .logstore.inmem import InmemStore", "only opening.py"),
    "a store known by its package": ("raft.py", "from .logstore import InmemStore", "only opening.py"),
    "a store known by a package import": ("node.py", "from . import logstore", "only opening.py"),
    "a store as a type in the core": (
        "node.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .logstore import InmemStore",
        "only opening.py",
    ),
    "opening imported early": ("raft.py", "from .opening import open_parts", "only inside a function"),
    "a store that uses another's package": (
        "logstore/inmem.py",
        "from ..transport.inmem import InmemNetwork",
        "their own package",
    ),
    "a store that knows the state": (
        "logstore/inmem.py",
        "from ..state import NodeState",
        "their own package",
    ),
    "testing needed inside": ("node.py", "from .testing import cluster", "for users' tests"),
    "a clock of one's own": ("node.py", "import time", "runtime"),
    "a thread of one's own": ("replicator.py", "from threading import Thread", "runtime"),
    "a queue of one's own": ("logstore/cache.py", "def f():\n    import queue", "runtime"),
    "chance that is not only a type": (
        "rules/timing.py",
        "if True:\n    import random",
        "runtime",
    ),
    "grpc elsewhere": ("transport/wire.py", "import grpc.aio", "only transport.grpc_transport"),
    "lmdb elsewhere": ("opening.py", "import lmdb", "only logstore.lmdb_store, logstore.lmdb_file"),
    "generated code elsewhere": (
        "transport/grpc_transport.py",
        "from . import raft_transport_pb2",
        "only transport/wire.py",
    ),
    "generated code in testing": (
        "testing/cluster.py",
        "from ..transport.raft_transport_pb2 import Log",
        "only transport/wire.py",
    ),
    "a hidden import": ("node.py", "from importlib import import_module", "may"),
    "an unknown module": ("helpers.py", "", "LAYERS of tests/test_import_layers.py"),
    "an unknown package": ("admin/service.py", "", "LAYERS of tests/test_import_layers.py"),
}

HARMLESS = {
    "its own layer": ("rules/membership.py", "from .election import majority"),
    "towards the core": ("roles/leader.py", "from .. import rpc_handlers\nfrom ..log import Log"),
    "a seam": ("node.py", "from .logstore.base import LogStore"),
    "a seam, by its package": ("node.py", "from .logstore import base"),
    "chance as a type": (
        "rules/timing.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import random",
    ),
    "a transport's options as a type in the API": (
        "raft.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .transport.inmem import Tls",
    ),
    "opening imported late": ("raft.py", "def open():\n    from .opening import open_parts"),
    "opening knows stores": ("opening.py", "from .logstore.lmdb_store import LMDBStore"),
    "a thread in the runtime": ("runtime.py", "import threading, time, queue, random"),
    "wire uses generated code": ("transport/wire.py", "from . import raft_transport_pb2"),
    "testing uses everything": (
        "testing/cluster.py",
        "import time\nfrom .. import Raft\nfrom ..node import x",
    ),
    "a store uses its package": ("logstore/lmdb_store.py", "import lmdb\nfrom .records import encode"),
}


@pytest.fixture
def planted_package(tmp_path):
    """A package laid out as ours, every file empty."""
    package = tmp_path / "pyraft"
    names = ["logstore/inmem", "logstore/records", "transport/inmem", "transport/raft_transport_pb2"]
    names += ["roles/leader", "rules/election", "testing/cluster"]
    for patterns in LAYERS.values():
        names += [pattern.replace(".", "/") for pattern in patterns if "*" not in pattern]
    for name in names:
        if (PACKAGE / name).is_dir() or name in ("rules", "roles"):
            name += "/__init__"
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in ("logstore", "transport", "snapshots", "testing"):
        (package / folder / "__init__.py").touch()
    return package


def plant(package: Path, place: str, source: str) -> None:
    path = package / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(source + "\n")


def test_the_checker_finds_nothing_in_an_innocent_package(planted_package):
    assert violations(planted_package) == []


@pytest.mark.parametrize(("place", "source", "objection"), PLANTED.values(), ids=PLANTED)
def test_the_checker_finds(planted_package, place, source, objection):
    plant(planted_package, place, source)

    (found,) = violations(planted_package)

    assert place in found
    assert objection in found


@pytest.mark.parametrize(("place", "source"), HARMLESS.values(), ids=HARMLESS)
def test_the_checker_allows(planted_package, place, source):
    plant(planted_package, place, source)

    assert violations(planted_package) == []
