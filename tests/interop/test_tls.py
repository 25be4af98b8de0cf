"""TcpTransport over TLS, and Go's NetworkTransport over crypto/tls, call each other."""

import io
import subprocess
from contextlib import closing, contextmanager

import pytest

from pyraft.configuration import Server
from pyraft.errors import TransportError
from pyraft.transport import TcpTransport
from tests.certificates import make_tls
from tests.interop.markers import built_or_skip
from tests.transport.test_tcp_transport import GRANTED, VOTE, Answering, append, snapshot

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Makes certificates, each call with an authority of its own."""
    return lambda name: make_tls(tmp_path_factory.mktemp(name), name)


@pytest.fixture(scope="module")
def go_program(tmp_path_factory):
    program = tmp_path_factory.mktemp("go") / "tls"
    built_or_skip("goldens", "./tls", program)
    return program


@contextmanager
def go_peer(program, home, tls, address):
    """The Go program: what it says of its calls, and its address."""
    home.mkdir()
    for name, data in (("cert.pem", tls.certificate), ("key.pem", tls.private_key), ("ca.pem", tls.ca)):
        (home / name).write_bytes(data)
    with subprocess.Popen(
        [program, home, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.stdout.readline().strip()
            yield said, Server("go", process.stdout.readline().removeprefix("at ").strip())
        finally:
            process.stdin.close()
            process.wait(60)


def test_go_and_python_call_each_other_over_tls(go_program, authority, tmp_path):
    ours, foreign = authority("ours"), authority("foreign")
    handler = Answering()
    with closing(TcpTransport("127.0.0.1:0", tls=ours)) as transport:
        transport.serve(handler)
        with go_peer(go_program, tmp_path / "ours", ours, transport.local_address) as (said, go):
            assert said == "granted true installed true <nil>"
            assert handler.read == 1_000_000
            assert transport.call(go, VOTE, 30).granted is GRANTED.granted
            assert transport.call(go, append(5, size=300_000), 30).last_log == 1
            offered = snapshot(2_000_000)
            assert transport.install_snapshot(
                go, offered, io.BytesIO(bytes(2_000_000)), 30, lambda: False
            ).success
        with go_peer(go_program, tmp_path / "foreign", foreign, transport.local_address) as (said, go):
            assert said.startswith("refused")
            with pytest.raises(TransportError):
                transport.call(go, VOTE, 30)
