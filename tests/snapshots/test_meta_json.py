"""meta.json is Go's, byte for byte, and what is not is refused with a reason."""

import base64
import json
from pathlib import Path

import pytest

from pyraft.configuration import Configuration, Server, Suffrage
from pyraft.snapshots import SnapshotMeta
from pyraft.snapshots.meta_json import decode_meta, encode_meta

GOLDEN = sorted((Path(__file__).parent / "golden" / "snapshots").iterdir())

VOTER = Server("n1", "a1")


def fields(**changes):
    """A good meta.json, as a dictionary; None takes a field out."""
    good = {
        "Version": 1,
        "ID": "3-10-1795188631124",
        "Index": 10,
        "Term": 3,
        "Peers": "kaJhMQ==",
        "Configuration": {"Servers": [{"Suffrage": 0, "ID": "n1", "Address": "a1"}]},
        "ConfigurationIndex": 2,
        "Size": 11,
        "CRC": "UwN+ze8jUto=",
    }
    return {key: value for key, value in (good | changes).items() if value is not ...}


def decoded(**changes):
    return decode_meta(json.dumps(fields(**changes)).encode())


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
def test_what_go_wrote_is_read_and_written_again_byte_for_byte(folder):
    written_by_go = (folder / "meta.json").read_bytes()

    meta, crc = decode_meta(written_by_go)

    assert meta.id == folder.name
    assert encode_meta(meta, crc) == written_by_go


def test_the_golden_folders_cover_what_they_should():
    metas = [decode_meta((folder / "meta.json").read_bytes())[0] for folder in GOLDEN]
    suffrages = {server.suffrage for meta in metas for server in meta.configuration.servers}

    assert suffrages == set(Suffrage)
    assert Configuration() in [meta.configuration for meta in metas]
    assert max(meta.index for meta in metas) == 2**64 - 1
    assert any("\u2028" in server.id for meta in metas for server in meta.configuration.servers)


def test_one_line_in_gos_order():
    meta = SnapshotMeta("3-10-1795188631124", 10, 3, Configuration((VOTER,)), 2, 11)

    assert encode_meta(meta, 0x53037ECDEF2352DA) == (
        b'{"Version":1,"ID":"3-10-1795188631124","Index":10,"Term":3,"Peers":"kaJhMQ==",'
        b'"Configuration":{"Servers":[{"Suffrage":0,"ID":"n1","Address":"a1"}]},'
        b'"ConfigurationIndex":2,"Size":11,"CRC":"UwN+ze8jUto="}\n'
    )


def test_peers_are_the_voters_only():
    servers = (Server("x", "a1"), Server("y", "a2", Suffrage.NONVOTER), Server("z", "addr3"))
    meta = SnapshotMeta("1-1-1", 1, 1, Configuration(servers), 1, 0)

    peers = base64.b64decode(json.loads(encode_meta(meta, 0))["Peers"])

    assert peers == bytes.fromhex("92 a2 6131 a5 6164647233")


@pytest.mark.parametrize("version", [0, ...], ids=["version 0", "no version, as in 2016"])
def test_version_0_takes_the_servers_from_its_peers(version):
    meta, _ = decoded(
        Version=version,
        Peers=base64.b64encode(bytes.fromhex("92a26131a56164647233")).decode(),
        Configuration=...,
        ConfigurationIndex=...,
    )

    assert meta.version == 0
    assert meta.configuration == Configuration((Server("a1", "a1"), Server("addr3", "addr3")))
    assert meta.configuration_index == 10  # its own index, as hashicorp/raft takes it


def test_keys_of_a_later_release_are_passed_over():
    assert decoded(Comment="taken before the upgrade") == decoded()


DAMAGED = {
    "a version of the future": {"Version": 2},
    "a negative version": {"Version": -1},
    "a version that is no number": {"Version": "1"},
    "no id": {"ID": ...},
    "an id that is no text": {"ID": 7},
    "no index": {"Index": ...},
    "a negative index": {"Index": -1},
    "an index beyond 64 bits": {"Index": 2**64},
    "an index with thousands of digits": {"Index": 10**4000},
    "an index that is true": {"Index": True},
    "an index that is a fraction": {"Index": 10.0},
    "no term": {"Term": ...},
    "a term that is null": {"Term": None},
    "no configuration": {"Configuration": ...},
    "a configuration that is a list": {"Configuration": []},
    "servers that are no list": {"Configuration": {"Servers": {"n1": "a1"}}},
    "a server that is no object": {"Configuration": {"Servers": ["n1"]}},
    "a server without address": {"Configuration": {"Servers": [{"Suffrage": 0, "ID": "n1"}]}},
    "a suffrage that nobody knows": {
        "Configuration": {"Servers": [{"Suffrage": 3, "ID": "n1", "Address": "a1"}]}
    },
    "a configuration whose servers are called otherwise": {"Configuration": {"Sdrvers": []}},
    "a configuration and no version": {"Version": ...},
    "a voter that lost its vote": {
        "Configuration": {"Servers": [{"Suffrage": 1, "ID": "n1", "Address": "a1"}]}
    },
    "another index than its id says": {"Index": 11},
    "another term than its id says": {"Term": 2},
    "a server twice": {
        "Configuration": {
            "Servers": [
                {"Suffrage": 0, "ID": "n1", "Address": "a1"},
                {"Suffrage": 1, "ID": "n1", "Address": "a2"},
            ]
        }
    },
    "no peers": {"Peers": ...},
    "no index of the configuration": {"ConfigurationIndex": ...},
    "no size": {"Size": ...},
    "a negative size": {"Size": -1},
    "a size beyond 63 bits": {"Size": 2**63},
    "a size that is text": {"Size": "11"},
    "no checksum": {"CRC": ...},
    "a checksum that is null, as Go begins": {"CRC": None},
    "a checksum that is no base64": {"CRC": "UwN+ze8jUto"},
    "a checksum with foreign characters": {"CRC": "UwN+ze8jUto=\n!"},
    "a checksum of 32 bits": {"CRC": "UwN+zQ=="},
    "version 0 without peers": {"Version": 0, "Peers": ...},
    "version 0 with peers that are no msgpack": {"Version": 0, "Peers": "wQ=="},
    "version 0 with peers that are numbers": {"Version": 0, "Peers": "kQE="},
    "version 0 with peers cut off": {"Version": 0, "Peers": "kqJh"},
    "version 0 with peers that are no text": {"Version": 0, "Peers": "kaH/"},
}


@pytest.mark.parametrize("changes", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_field_is_refused(changes):
    with pytest.raises(ValueError, match=r"^.{10,}"):
        decoded(**changes)


GOOD = json.dumps(fields()).encode()
NO_JSON = {
    "nothing": b"",
    "zeros, as after a power cut": bytes(300),
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "other bytes": bytes(range(256)),
    "two of them": GOOD + GOOD,
    "something after it": GOOD + b"x",
    "brackets, very deep": b"[" * 200_000,
    "a number with 10,000 digits": b'{"Version":' + b"1" * 10_000 + b"}",
} | {f"cut off after {size} bytes": GOOD[:size] for size in range(1, len(GOOD), 7)}


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_meta_is_refused(data):
    with pytest.raises(ValueError):
        decode_meta(data)
