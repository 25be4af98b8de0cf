"""Which tests with Go servers run where."""

import os
import sys

import pytest

from tests.interop.clusters import build_go

TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "grpc"])

MARKS = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="who dialled is found in Linux's tables"),
]

AT_LENGTH = bool(os.environ.get("INTEROP_AT_LENGTH"))

at_length = pytest.mark.skipif(not AT_LENGTH, reason="only `make interop` goes to such length")


def built_or_skip(module, package, program, *command):
    """Build a Go program; where that is impossible skip the test, or fail it if all was asked for."""
    if why := build_go(module, package, program, *command):
        (pytest.fail if AT_LENGTH else pytest.skip)(why)
