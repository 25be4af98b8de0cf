"""The transports that come with pyraft keep every promise."""

import pytest

from pyraft.testing import check_transport as checks
from pyraft.testing.check_transport import check_transport
from pyraft.transport import GrpcTransport, InmemNetwork, InmemTransport


def inmem_pair(delay=0.0):
    network = InmemNetwork()
    network.delay(delay)
    return InmemTransport(network, "a:1"), InmemTransport(network, "b:1")


def grpc_pair():
    return GrpcTransport("127.0.0.1:0"), GrpcTransport("127.0.0.1:0")


def test_inmem():
    check_transport(inmem_pair)


def test_inmem_with_delays():
    check_transport(lambda: inmem_pair(0.001))


@pytest.mark.parametrize("promise", checks.PROMISES, ids=lambda promise: promise.__name__)
def test_grpc(promise, monkeypatch):
    monkeypatch.setattr(checks, "PROMISES", (promise,))
    check_transport(grpc_pair)
