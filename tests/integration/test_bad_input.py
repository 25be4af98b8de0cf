"""What users get wrong: commands, settings, first members, directories, addresses.

The error says what was wrong, why that matters and what to do now, and the advice works.
"""

import dataclasses
import re
import socket
import subprocess
import sys

import pytest

from pyraft import (
    CommandTooLargeError,
    Config,
    ConfigError,
    Configuration,
    Log,
    NotAppliedError,
    Raft,
    RaftError,
    Server,
    StorageError,
    Suffrage,
    TransportError,
)
from pyraft.config import LARGEST_MESSAGE_BYTES
from pyraft.errors import CorruptStoreError
from pyraft.logstore import InmemStore, LMDBStore
from pyraft.snapshots import DiscardSnapshotStore
from pyraft.transport import InmemNetwork, InmemTransport
from tests.integration.clusters import (
    ALONE,
    PATIENCE,
    Cluster,
    Recorder,
    alone,
    config,
    eventually,
    leaves_no_thread,
)


def says(error, *words):
    """Assert that the text of ``error`` has each of ``words``."""
    for word in words:
        assert str(word) in str(error), f"{word!r} is not in: {error}"


# -- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["text", 7, None, ["a"]], ids=repr)
def test_a_command_that_is_not_bytes_is_a_type_error_and_the_next_one_works(command):
    raft = alone()

    with pytest.raises(TypeError) as refused:
        raft.apply(command)
    says(refused.value, "bytes", type(command).__name__, "encode")
    with pytest.raises(TypeError):
        raft.apply_log(Log(data=b"", extensions=command))

    assert raft.apply(b"next").result(timeout=PATIENCE) == 1
    raft.shutdown().result(timeout=PATIENCE)


def test_an_empty_command_is_a_command_and_reaches_every_fsm():
    with Cluster() as cluster:
        leader = cluster.start().leader()

        assert leader.raft.apply(b"").result(timeout=PATIENCE) == 1

        for member in cluster.members.values():
            eventually(lambda fsm=member.fsm: fsm.applied == [b""], f"{member.id} has the empty command")


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_command_is_taken_as_it_was_when_it_was_given(kind):
    """A caller may reuse the buffer at once."""
    fsm = Recorder()
    raft = alone(fsm)
    buffer = bytearray(b"before")

    future = raft.apply(kind(buffer))
    buffer[:] = b"after!"

    future.result(timeout=PATIENCE)
    assert fsm.applied == [b"before"]
    raft.shutdown().result(timeout=PATIENCE)


def test_a_command_above_the_limit_is_refused_before_it_reaches_any_log():
    fsm = Recorder()
    raft = alone(fsm, max_command_bytes=1000)
    last = raft.last_index

    with pytest.raises(CommandTooLargeError) as refused:
        raft.apply(b"x" * 1001)
    assert isinstance(refused.value, NotAppliedError)
    assert isinstance(refused.value, ValueError)
    says(refused.value, 1001, "max_command_bytes", 1000, "Split it")
    with pytest.raises(CommandTooLargeError):  # extensions travel, too
        raft.apply_log(Log(data=b"x" * 600, extensions=b"y" * 401))

    assert raft.last_index == last
    raft.apply(b"x" * 1000).result(timeout=PATIENCE)
    assert [len(command) for command in fsm.applied] == [1000]
    raft.shutdown().result(timeout=PATIENCE)


def test_the_largest_command_of_all_replicates_over_grpc_to_every_disk(tmp_path):
    largest = bytes(range(256)) * (LARGEST_MESSAGE_BYTES // 256)
    assert len(largest) == LARGEST_MESSAGE_BYTES
    with leaves_no_thread(), Cluster(root=tmp_path, settings=config(0.5), over_grpc=True) as cluster:
        cluster.start()
        cluster.write()
        # Each probe and each pipelined request carries one of them; and with neighbours.
        futures = [cluster.leader().raft.apply(command) for command in (largest, b"small", largest[::-1])]
        for future in futures:
            future.result(timeout=PATIENCE)
        cluster.write()

        for member in cluster.members.values():
            eventually(lambda fsm=member.fsm: len(fsm.applied) == 5, f"{member.id} has all five")
            assert member.fsm.applied[1:4] == [largest, b"small", largest[::-1]]


# -- settings ------------------------------------------------------------------------------------

BAD_SETTINGS = [
    ({"heartbeat_timeout": 0}, ["heartbeat_timeout=0", "elections"]),
    ({"heartbeat_timeout": -1.0}, ["heartbeat_timeout=-1", "below"]),
    ({"heartbeat_timeout": float("nan")}, ["heartbeat_timeout=nan", "not a number of seconds"]),
    ({"election_timeout": float("inf")}, ["election_timeout=inf", "not a number of seconds"]),
    ({"election_timeout": "1s"}, ["election_timeout='1s'", "not a number of seconds"]),
    ({"election_timeout": True}, ["election_timeout=True", "not a number of seconds"]),
    ({"heartbeat_timeout": 1e10, "election_timeout": 1e10}, ["heartbeat_timeout=1e+10", "Use at most"]),
    ({"commit_timeout": 0.0}, ["commit_timeout=0", "below"]),
    ({"leader_lease_timeout": 0.0001}, ["leader_lease_timeout=0.0001", "below"]),
    ({"shutdown_grace": -5}, ["shutdown_grace=-5", "below"]),
    ({"snapshot_interval": 0}, ["snapshot_interval=0", "below"]),
    ({"snapshot_threshold": -1}, ["snapshot_threshold=-1", "below 0"]),
    ({"trailing_logs": 0.5}, ["trailing_logs=0.5", "whole number"]),
    ({"catch_up_rounds": -1}, ["catch_up_rounds=-1", "below 0"]),
    ({"election_timeout": 0.9}, ["election_timeout=0.9", "heartbeat_timeout=1", "give up"]),
    ({"leader_lease_timeout": 1.5}, ["leader_lease_timeout=1.5", "heartbeat_timeout=1", "cut off"]),
    ({"max_append_entries": 0}, ["max_append_entries=0", "below 1"]),
    ({"max_append_entries": 1.5}, ["max_append_entries=1.5", "whole number"]),
    ({"max_append_bytes": -1}, ["max_append_bytes=-1", "below 1"]),
    ({"max_append_bytes": 4 << 20}, ["max_append_bytes=4194304", "4 MiB"]),
    ({"max_command_bytes": 0}, ["max_command_bytes=0", "below 1"]),
    ({"max_command_bytes": 4 << 20}, ["max_command_bytes=4194304", "never be replicated"]),
    ({"max_inflight_appends": 0}, ["max_inflight_appends=0", "below 1"]),
    ({"max_proposals": 0}, ["max_proposals=0", "below 1"]),
    ({"max_proposals": True}, ["max_proposals=True", "whole number"]),
    ({"max_proposal_bytes": 1000}, ["max_proposal_bytes=1000", "max_command_bytes=3145728", "never get in"]),
    ({"max_uncommitted_entries": 0}, ["max_uncommitted_entries=0", "below 1"]),
    (
        {"max_uncommitted_bytes": 1 << 20},
        ["max_uncommitted_bytes=1048576", "max_command_bytes", "never get in"],
    ),
]


@pytest.mark.parametrize(("values", "words"), BAD_SETTINGS, ids=[repr(values) for values, _ in BAD_SETTINGS])
def test_a_bad_setting_is_refused_and_following_the_advice_works(values, words):
    with pytest.raises(ConfigError) as refused:
        Config(**values)
    assert isinstance(refused.value, RaftError)
    assert isinstance(refused.value, ValueError)
    says(refused.value, *words)

    # Not more than a few steps: each advice is about one relation.
    for _ in range(3):
        name = re.match(r"(\w+)=", str(refused.value)).group(1)
        advised = re.search(r"Use at (?:least|most) ([0-9.e+]*[0-9])", str(refused.value)).group(1)
        number = (
            float(advised) if any(word in name for word in ("timeout", "grace", "interval")) else int(advised)
        )
        values = {**values, name: number}
        try:
            Config(**values)
            return
        except ConfigError as error:
            refused = pytest.ExceptionInfo.from_exc_info((ConfigError, error, error.__traceback__))
    raise AssertionError(f"the advice leads nowhere: {refused.value}")


def test_every_setting_that_is_a_number_is_in_the_table():
    tested = {name for values, _ in BAD_SETTINGS for name in values}
    numbers = {field.name for field in dataclasses.fields(Config) if field.type in ("int", "float")}
    assert numbers <= tested


@pytest.mark.parametrize("values", [{"local_id": 5}, {"pre_vote": "no"}], ids=repr)
def test_a_setting_of_the_wrong_type_is_refused(values):
    with pytest.raises(ConfigError) as refused:
        Config(**values)
    says(refused.value, *values, repr(next(iter(values.values()))), "use")


@pytest.mark.parametrize("part", range(6))
def test_a_part_of_the_wrong_type_is_refused_by_name(part):
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    store = InmemStore()
    parts = [Config(local_id="n1"), Recorder(), store, store, DiscardSnapshotStore(), transport]
    names = ["config", "fsm", "log_store", "stable_store", "snapshot_store", "transport"]
    wrong = [*parts[:part], "wrong", *parts[part + 1 :]]

    with pytest.raises(ConfigError) as refused:
        Raft(*wrong)
    says(refused.value, f"{names[part]}='wrong'", "pass an instance")

    Raft(*parts).shutdown().result(timeout=PATIENCE)


def test_a_server_needs_a_name():
    store = InmemStore()
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    with pytest.raises(ConfigError, match="local_id is empty.*name"):
        Raft(Config(), Recorder(), store, store, DiscardSnapshotStore(), transport)


# -- the first members -----------------------------------------------------------------------------

N1, N2, N3 = (Server(f"n{i}", f"n{i}.test:1") for i in (1, 2, 3))

BAD_MEMBERS = [
    ({}, ["no voter"]),
    ({"n2": "n2.test:1"}, ["n2", "not this server 'n1'", "Add 'n1'"]),
    ({"n1": "n1.test:1", "n2": "n1.test:1"}, ["n1 and n2", "same address n1.test:1", "other's messages"]),
    ({"n1": "n1.test:1", "n2": ""}, ["n2", "empty address"]),
    ({"n1": "n1.test:1", "": "n2.test:1"}, ["n2.test:1", "empty id"]),
    ({"n1": "elsewhere:1"}, ["n1 is at 'elsewhere:1'", "reached at 'n1.test:1'", "same address"]),
    ({"n1": "n1.test:1", "n2": 7001}, ["n2", "7001", "host:port"]),
    (["n1", "n2"], ["['n1', 'n2']", "id to address"]),
    (Configuration((N1, N2, Server("n1", "n3.test:1"))), ["n1 stands twice"]),
    (Configuration((N2, N3)), ["n2, n3", "not this server 'n1'"]),
    (
        Configuration((Server("n1", "n1.test:1", Suffrage.NONVOTER),)),
        ["no voter", "nobody could ever lead"],
    ),
]


@pytest.mark.parametrize(("members", "words"), BAD_MEMBERS, ids=[repr(members) for members, _ in BAD_MEMBERS])
def test_bad_first_members_are_refused_and_leave_nothing_behind(tmp_path, members, words):
    network = InmemNetwork()
    transport = InmemTransport(network, "n1.test:1")

    with leaves_no_thread(), pytest.raises(ConfigError) as refused:
        Raft.open(
            str(tmp_path / "n1"),
            id="n1",
            fsm=Recorder(),
            bootstrap=members,
            transport=transport,
            config=config(ALONE),
        )
    says(refused.value, *words)
    with pytest.raises(TransportError, match="taken"):  # the caller's transport is still the caller's
        InmemTransport(network, "n1.test:1")

    # Mended, the same directory and the same transport do: neither is held or bound to anything.
    with Raft.open(
        str(tmp_path / "n1"),
        id="n1",
        fsm=Recorder(),
        bootstrap={"n1": "n1.test:1"},
        transport=transport,
        config=config(ALONE),
    ) as raft:
        raft.wait_for_leader(timeout=PATIENCE)
        assert raft.apply(b"x").result(timeout=PATIENCE) == 1


def test_a_live_bootstrap_with_bad_members_fails_its_future_and_a_good_one_works():
    from pyraft import CantBootstrapError, NotVoterError

    store = InmemStore()
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    parts = [Recorder(), store, store, DiscardSnapshotStore(), transport]
    with Raft(dataclasses.replace(config(ALONE), local_id="n1"), *parts) as raft:
        for members, kind, words in [
            (Configuration(()), ConfigError, ["no voter"]),
            (Configuration((N1, N1)), ConfigError, ["n1 stands twice"]),
            (Configuration((N2, N3)), NotVoterError, ["n1 is not a voter"]),
        ]:
            error = raft.bootstrap_cluster(members).exception(timeout=PATIENCE)
            assert type(error) is kind
            says(error, *words)

        raft.bootstrap_cluster(Configuration((N1,))).result(timeout=PATIENCE)
        raft.wait_for_leader(timeout=PATIENCE)
        assert raft.apply(b"x").result(timeout=PATIENCE) == 1

        error = raft.bootstrap_cluster(Configuration((N1,))).exception(timeout=PATIENCE)
        assert type(error) is CantBootstrapError
        says(error, "n1", "already")


def test_bootstrapping_stores_that_have_state_is_refused():
    from pyraft import CantBootstrapError, bootstrap_cluster, has_existing_state

    store = InmemStore()
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    parts = [Config(local_id="n1"), store, store, DiscardSnapshotStore(), transport]
    with pytest.raises(ConfigError, match="no voter"):
        bootstrap_cluster(*parts, Configuration(()))
    assert not has_existing_state(store, store, DiscardSnapshotStore())

    bootstrap_cluster(*parts, Configuration((N1,)))
    with pytest.raises(CantBootstrapError, match="n1 has state already.*new clusters"):
        bootstrap_cluster(*parts, Configuration((N1,)))


# -- directories and addresses -----------------------------------------------------------------------


def open_alone(directory, id="n1", address=None):
    """A server that is a cluster by itself, with its data in ``directory``."""
    transport = None
    if address is None:
        address = f"{id}.test:1"
        transport = InmemTransport(InmemNetwork(), address)
    return Raft.open(
        str(directory),
        id=id,
        fsm=Recorder(),
        address=address,
        bootstrap={id: address},
        transport=transport,
        config=config(ALONE),
    )


def test_a_directory_of_another_server_is_refused_and_unharmed(tmp_path):
    with open_alone(tmp_path, "n1") as raft:
        raft.wait_for_leader(timeout=PATIENCE)
        raft.apply(b"mine").result(timeout=PATIENCE)

    with leaves_no_thread(), pytest.raises(ConfigError) as refused:
        open_alone(tmp_path, "n2")
    says(refused.value, tmp_path, "'n1'", "'n2'", "own directory")

    with open_alone(tmp_path, "n1") as raft:
        raft.wait_for_leader(timeout=PATIENCE)
        raft.barrier().result(timeout=PATIENCE)
        assert raft._node.context.fsm._fsm.applied == [b"mine"]


def test_a_directory_that_this_process_has_open_is_refused_and_the_open_server_goes_on(tmp_path):
    with open_alone(tmp_path) as raft:
        raft.wait_for_leader(timeout=PATIENCE)
        with pytest.raises(StorageError) as refused:
            open_alone(tmp_path)
        says(refused.value, tmp_path, "in use", "this process", "close the store there first")
        assert not isinstance(refused.value, CorruptStoreError)
        assert raft.apply(b"x").result(timeout=PATIENCE) == 1

    open_alone(tmp_path).shutdown().result(timeout=PATIENCE)


HOLD_OPEN = """
import sys
from pyraft.logstore import LMDBStore
store = LMDBStore(sys.argv[1], server_id="n1")
print("open", flush=True)
sys.stdin.read()
"""


def test_a_directory_that_another_process_has_open_is_refused_until_that_process_is_gone(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_OPEN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StorageError) as refused:
            open_alone(tmp_path)
        says(
            refused.value, tmp_path, "in use", f"process {holder.pid}", "'n1'", "close the store there first"
        )
    finally:
        holder.kill()
        holder.communicate()

    open_alone(tmp_path).shutdown().result(timeout=PATIENCE)


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError) as refused:
        open_alone(tmp_path / "file" / "n1")

    says(refused.value, "cannot open", tmp_path / "file", "Not a directory")


def test_a_taken_port_is_refused_and_nothing_stays_open(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with leaves_no_thread(), pytest.raises(TransportError) as refused:
            open_alone(tmp_path, address=f"127.0.0.1:{port}")
        says(refused.value, f"cannot listen on 127.0.0.1:{port}", "in use", "choose another address")

    # Once the port is free, the same call works: the directory was given back, too.
    with open_alone(tmp_path, address=f"127.0.0.1:{port}") as raft:
        raft.wait_for_leader(timeout=PATIENCE)
        assert raft.apply(b"x").result(timeout=PATIENCE) == 1


def test_a_port_taken_by_a_server_of_ours_is_refused_and_that_server_goes_on(tmp_path):
    from pyraft.transport import GrpcTransport

    with Cluster(["n1"], root=tmp_path / "first", settings=config(ALONE), over_grpc=True) as cluster:
        leader = cluster.start().leader()
        with pytest.raises(TransportError, match="cannot listen"):
            GrpcTransport(leader.address)
        cluster.write()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["no address", "host:port"]),
        ({"address": "localhost"}, ["'localhost'", "host:port", "10.0.0.1:7000"]),
        ({"address": "127.0.0.1:seven"}, ["'127.0.0.1:seven'", "host:port"]),
        ({"address": "127.0.0.1:70000"}, ["'127.0.0.1:70000'", "65535"]),
        ({"address": "0.0.0.0:0"}, ["'0.0.0.0:0'", "advertise="]),
        (
            {"address": "127.0.0.1:0", "advertise": "0.0.0.0:7000"},
            ["advertise='0.0.0.0:7000'", "host name or IP"],
        ),
        ({"address": "127.0.0.1:0", "id": ""}, ["id=''", "name"]),
        ({"address": "127.0.0.1:0", "id": 7}, ["id=7", "name"]),
        ({"address": "127.0.0.1:0", "config": Config(local_id="n9")}, ["'n1'", "'n9'", "leave local_id out"]),
        ({"address": "127.0.0.1:0", "fsm": object()}, ["fsm=", "pyraft.FSM"]),
        ({"address": "127.0.0.1:0", "retain": 0}, ["retain is 0", "at least one"]),
        ({"address": "127.0.0.1:0", "retain": "2"}, ["retain is '2'", "at least one"]),
        ({"address": "127.0.0.1:0", "snapshot_store": "data"}, ["'data'", "SnapshotStore", "leave it out"]),
        (
            {"address": "127.0.0.1:0", "snapshot_store": DiscardSnapshotStore(), "retain": 3},
            ["retain=3", "takes their place", "leave retain out"],
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_open_are_refused_before_anything_is_held(tmp_path, arguments, words):
    with leaves_no_thread(), pytest.raises(ConfigError) as refused:
        Raft.open(str(tmp_path), **{"id": "n1", "fsm": Recorder(), **arguments})
    says(refused.value, *words)

    LMDBStore(tmp_path).close()  # it is free


def test_an_address_that_differs_from_the_transports_is_refused(tmp_path):
    transport = InmemTransport(InmemNetwork(), "n1.test:1")
    with pytest.raises(ConfigError) as refused:
        Raft.open(str(tmp_path), id="n1", fsm=Recorder(), address="n1.test:2", transport=transport)
    says(refused.value, "'n1.test:2'", "'n1.test:1'", "wrong place", "Leave address out")

    Raft.open(str(tmp_path), id="n1", fsm=Recorder(), transport=transport).shutdown().result(timeout=PATIENCE)


def test_an_address_that_differs_from_the_bootstrap_set_is_refused(tmp_path):
    with leaves_no_thread(), pytest.raises(ConfigError) as refused:
        Raft.open(
            str(tmp_path), id="n1", fsm=Recorder(), address="127.0.0.1:0", bootstrap={"n1": "10.0.0.1:7000"}
        )
    says(refused.value, "n1 is at '10.0.0.1:7000'", "reached at '127.0.0.1:", "advertise='10.0.0.1:7000'")

    LMDBStore(tmp_path).close()
