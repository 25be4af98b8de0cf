"""A configuration's bytes are those of the Go library; vectors made with hashicorp/raft v1.7.3."""

import msgpack
import pytest

from pyraft.configuration import (
    Configuration,
    Server,
    Suffrage,
    decode_configuration,
    encode_configuration,
)
from pyraft.errors import CorruptStoreError

ONE_VOTER = Configuration((Server("n1", "127.0.0.1:9001"),))
THREE_KINDS = Configuration(
    (
        Server("n1", "a1"),
        Server("n2", "a2", Suffrage.NONVOTER),
        Server("n3", "a3", Suffrage.STAGING),
    )
)
GOLDEN = {
    "one voter": (
        ONE_VOTER,
        "81a7536572766572739183a741646472657373ae3132372e302e302e313a39303031a24944a26e31"
        "a8537566667261676500",
    ),
    "voter, nonvoter, staging": (
        THREE_KINDS,
        "81a7536572766572739383a741646472657373a26131a24944a26e31a853756666726167650083a741646472"
        "657373a26132a24944a26e32a853756666726167650183a741646472657373a26133a24944a26e33a85375666"
        "67261676502",
    ),
    "empty": (Configuration(), "81a75365727665727390"),
    "id of 40 bytes": (
        Configuration((Server("x" * 40, "a1"),)),
        "81a7536572766572739183a741646472657373a26131a24944da0028" + "78" * 40 + "a8537566667261676500",
    ),
}
GOLDEN_STARTS = {
    "id of 300 bytes": (
        Configuration((Server("x" * 300, "a1"),)),
        "81a7536572766572739183a741646472657373a26131a24944da012c" + "78" * 32,
    ),
    "20 servers": (
        Configuration(tuple(Server(f"{i}", f"a{i}") for i in range(20))),
        "81a753657276657273dc001483a741646472657373a26130a24944a130a8",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_encoded_as_go_does_and_decoded_back(name):
    configuration, expected = GOLDEN[name]
    assert encode_configuration(configuration).hex() == expected
    assert decode_configuration(bytes.fromhex(expected)) == configuration


@pytest.mark.parametrize("name", GOLDEN_STARTS)
def test_long_values_begin_as_go_writes_them(name):
    configuration, expected = GOLDEN_STARTS[name]
    encoded = encode_configuration(configuration)
    assert encoded.hex().startswith(expected)
    assert decode_configuration(encoded) == configuration


SERVER = {"Address": "127.0.0.1:9001", "ID": "n1", "Suffrage": 0}
TOLERATED = {
    "nil servers": (bytes.fromhex("81a753657276657273c0"), Configuration()),
    "no servers key": (b"\x80", Configuration()),
    "text and binary of the newer format": (
        msgpack.packb({"Servers": [{**SERVER, "Address": b"127.0.0.1:9001"}]}, use_bin_type=True),
        ONE_VOTER,
    ),
    "keys as binary": (
        msgpack.packb({b"Servers": [{k.encode(): v for k, v in SERVER.items()}]}, use_bin_type=True),
        ONE_VOTER,
    ),
    "long strings in the newer form": (
        msgpack.packb({"Servers": [{**SERVER, "ID": "x" * 40}]}, use_bin_type=True),
        Configuration((Server("x" * 40, "127.0.0.1:9001"),)),
    ),
    "unknown keys": (
        msgpack.packb({"Epoch": 7, "Servers": [{**SERVER, "Zone": "b"}]}, use_bin_type=False),
        ONE_VOTER,
    ),
    "keys in another order": (
        msgpack.packb({"Servers": [dict(reversed(SERVER.items()))]}, use_bin_type=False),
        ONE_VOTER,
    ),
    "missing suffrage": (
        msgpack.packb({"Servers": [{"Address": "127.0.0.1:9001", "ID": "n1"}]}, use_bin_type=False),
        ONE_VOTER,
    ),
    "structs as arrays": (msgpack.packb([[[0, "n1", "127.0.0.1:9001"]]], use_bin_type=False), ONE_VOTER),
    "servers as arrays in a map": (
        msgpack.packb({"Servers": [[0, "n1", "127.0.0.1:9001"]]}, use_bin_type=False),
        ONE_VOTER,
    ),
}


@pytest.mark.parametrize("name", TOLERATED)
def test_what_go_takes_is_taken(name):
    data, expected = TOLERATED[name]
    assert decode_configuration(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x07",
        b"\xa3abc",
        b"\x90",
        bytes.fromhex(GOLDEN["one voter"][1])[:-1],
        bytes.fromhex(GOLDEN["one voter"][1]) + b"\x00",
        msgpack.packb({"Servers": [{**SERVER, "Suffrage": 9}]}, use_bin_type=False),
        msgpack.packb({"Servers": [{**SERVER, "ID": b"\xff"}]}, use_bin_type=False),
        msgpack.packb({"Servers": [{**SERVER, "ID": 7.5}]}, use_bin_type=False),
        msgpack.packb({"Servers": [7]}, use_bin_type=False),
        msgpack.packb({"Servers": 7}, use_bin_type=False),
        msgpack.packb({"Servers": [[0, "n1"]]}, use_bin_type=False),
    ],
    ids=bytes.hex,
)
def test_what_is_no_configuration_is_refused_with_one_kind_of_error(data):
    with pytest.raises(CorruptStoreError):
        decode_configuration(data)


def test_every_byte_string_is_a_configuration_or_one_kind_of_error():
    good = bytes.fromhex(GOLDEN["voter, nonvoter, staging"][1])
    for at in range(len(good)):
        for value in (0x00, 0x80, 0xC0, 0xC1, 0xD9, 0xDF, 0xFF):
            try:
                decode_configuration(good[:at] + bytes((value,)) + good[at + 1 :])
            except CorruptStoreError:
                pass
