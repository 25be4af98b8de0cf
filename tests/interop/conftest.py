"""The Go program that the tests here run."""

import pytest

from tests.interop.markers import built_or_skip


@pytest.fixture(scope="session")
def go_server(tmp_path_factory):
    """The Go server program (go/server), built."""
    program = tmp_path_factory.mktemp("go") / "server"
    built_or_skip("server", ".", program)
    return program
