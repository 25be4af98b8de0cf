"""What the tests of snapshot stores share."""

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.transport import InmemNetwork, InmemTransport

TRANSPORT = InmemTransport(InmemNetwork(), "here:1")
CONFIGURATION = Configuration((Server("n1", "a1"), Server("n2", "a2", Suffrage.NONVOTER)))


def begin(store, index=10, term=3):
    return store.create(1, index, term, CONFIGURATION, 2, TRANSPORT)


def take(store, state=b"hello world", index=10, term=3):
    """A complete snapshot; returns its id."""
    with begin(store, index, term) as sink:
        sink.write(state)
    return sink.id


def ids(store):
    return [meta.id for meta in store.list()]


def read(store, id):
    with store.open(id)[1] as reader:
        return reader.read()
