"""Feeds the decoders of both transports with bytes that a broken or hostile peer might send.

    python -m tests.transport.fuzz --inputs 1000000

Whatever comes in, a decoder returns a message that can be encoded again, or raises a RaftError;
it ends; and what it takes of memory is bounded by the size of the input.  An input that breaks
this is printed with its number, which makes it again: ``--seed S --first N --inputs 1``.

Inputs are Go's recorded messages and our own with a few bytes damaged, well-formed values with
senseless fields, and noise.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import resource
import struct
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyraft.configuration import Configuration, Server, Suffrage, decode_configuration, decode_peers
from pyraft.errors import RaftError
from pyraft.log import Log, LogType
from pyraft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RpcHeader,
    StandingRequest,
    StandingResponse,
    TimeoutNowRequest,
)
from pyraft.transport import msgpack_wire, wire

FREE_BYTES = 512 * 1024
"""What decoding may take however small the input is: buffers, caches, the text of an error."""
TIMES_INPUT = 64
"""What it may take for each byte of the input beyond that."""
HANG_SECONDS = 120.0
INPUTS_BETWEEN_SIGNS_OF_LIFE = 1000
_MEMORY_EVERY = 64
"""Tracing allocations is slow, so one of so many inputs is traced."""

HEADER = RpcHeader("n1", "10.0.0.1:7000")
CONFIGURATION = Configuration((Server("n1", "a:1"), Server("n2", "b:2", Suffrage.NONVOTER)))
OURS = [
    StandingRequest(HEADER),
    ReadIndexRequest(HEADER),
    TimeoutNowRequest(HEADER, 7),
    AppendEntriesRequest(
        HEADER, 3, 6, 2, [Log(7 + i, 3, LogType.COMMAND, b"x" * i, b"e", 10**18) for i in range(5)], 6
    ),
    AppendEntriesRequest(
        HEADER, 3, 6, 2, [Log((1 << 20) + i, 3, LogType.COMMAND, b"x" * 16, b"", 10**18) for i in range(9)], 6
    ),
]
OUR_ANSWERS = [
    StandingResponse(HEADER, 7, 9, CONFIGURATION),
    ReadIndexResponse(HEADER, 7, 9),
    AppendEntriesResponse(HEADER, 7, 9, False, True, 8, 6),
]

Decode = Callable[[bytes], object]


def golden(transport: str) -> dict[str, bytes]:
    """Go's recorded messages of one transport, by name."""
    lines = (Path(__file__).parent / f"golden_{transport}.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: bytes.fromhex(data) for name, data in fields if data != "-"}


# ── what is decoded ──


def _again(decode: Callable[[bytes], object], encode: Callable[[object], bytes], data: bytes) -> object:
    """Decode, encode, and decode what that gave: it must be encoded to the same bytes again."""
    message = decode(data)
    encoded = encode(message)
    assert encode(decode(encoded)) == encoded, f"{message!r} becomes something else on the way"
    return message


def _grpc_snapshot(data: bytes) -> object:
    def decode(data: bytes) -> object:
        return wire.decode_install_snapshot(data)[0]

    return _again(decode, wire.encode_install_snapshot, data)


def protobuf_decoders() -> dict[str, Decode]:
    """Every decoder of the gRPC transport, by the name of what it decodes."""
    decoders: dict[str, Decode] = {}
    for method in [*wire.METHODS.values(), wire.PIPELINE]:
        decoders[f"{method.name} request"] = partial(_again, method.decode_request, method.encode_request)
        decoders[f"{method.name} response"] = partial(_again, method.decode_response, method.encode_response)
    decoders["InstallSnapshot request"] = _grpc_snapshot
    decoders["InstallSnapshot data"] = wire.decode_snapshot_chunk
    decoders["InstallSnapshot response"] = partial(
        _again, wire.decode_install_snapshot_response, wire.encode_install_snapshot_response
    )
    return decoders


def _reader(data: bytes, step: int) -> msgpack_wire.MessageReader:
    """A connection on which ``data`` comes in pieces of ``step`` bytes, and then ends."""
    position = 0

    def fill(_: bool) -> bytes:
        nonlocal position
        piece = data[position : position + step]
        position += step
        return piece

    return msgpack_wire.MessageReader(fill)


def _stays_the_same(encoded: bytes) -> None:
    call, fields = msgpack_wire.read_request(_started(encoded))
    assert msgpack_wire.encode_request(call.decode_request(fields)) == encoded, encoded


def _started(data: bytes) -> msgpack_wire.MessageReader:
    reader = _reader(data, len(data))
    reader.begin()
    return reader


def _requests(step: int, data: bytes) -> object:
    """A connection of requests, read as the transport does."""
    reader = _reader(data, step)
    count = 0
    while reader.begin():
        count += 1
        assert count <= len(data), "more messages than bytes"
        call, fields = msgpack_wire.read_request(reader)
        try:
            request = call.decode_request(fields)
        except msgpack_wire.MalformedError:
            raise
        except RaftError:  # is answered, and the connection goes on
            request = None
        if request is not None:
            _stays_the_same(msgpack_wire.encode_request(request))
        if call is msgpack_wire.INSTALL_SNAPSHOT:
            left = msgpack_wire.size_of_snapshot(fields)
            while left and (piece := reader.raw(min(left, 4096))):
                left -= len(piece)
            return count
    return count


def _answers(call: msgpack_wire.Call, data: bytes) -> object:
    reader = _reader(data, 1000)
    count = 0
    while reader.begin():
        count += 1
        assert count <= len(data), "more answers than bytes"
        answer = msgpack_wire.read_answer(reader, call)
        if not isinstance(answer, str):
            msgpack_wire.encode_answer(call, answer)
    return count


def msgpack_decoders() -> dict[str, Decode]:
    """Every decoder of the TCP transport, by the name of what it decodes."""
    decoders: dict[str, Decode] = {
        "requests": partial(_requests, 65536),
        "requests, bytewise": partial(_requests, 1),
        "requests, in pieces": partial(_requests, 7),
        "log entry": msgpack_wire.decode_log,
        "configuration": decode_configuration,
        "peers": decode_peers,
    }
    for call in msgpack_wire._CALLS.values():
        decoders[f"{call.name} answer"] = partial(_answers, call)
    return decoders


# ── what is fed ──

_TELLING_BYTES = bytes.fromhex(
    "00 01 02 0a 12 1a 32 3a 52 7f 80 8f 90 9f a0 bf c0 c1 c2 c4 c7 c9 ca cb cc cf"
)
_TELLING_BYTES += bytes.fromhex("d0 d3 d4 d8 d9 da db dc dd de df e0 fe ff")
_TELLING_LENGTHS = [bytes.fromhex(h) for h in ("ffffffff", "7fffffff", "80000000", "00100000", "ffffffff07")]


def damage(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """``data`` with one to eight accidents."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(8):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.choice(_TELLING_BYTES)
            case 2:
                del out[at : at + rng.randint(1, 8)]
            case 3:
                out[at:at] = out[at : at + rng.randint(1, 32)] * rng.choice((1, 1, 2, 30))
            case 4:
                out[at:at] = rng.randbytes(rng.randint(1, 4))
            case 5:
                del out[at:]
            case 6:
                out[at : at + 4] = rng.choice(_TELLING_LENGTHS)
            case _:
                other = rng.choice(others)
                out[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(out[:65536])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes((value,))


def _number(rng: random.Random) -> int:
    return rng.choice((rng.randrange(6), rng.randrange(300), 1 << rng.randrange(64), (1 << 64) - 1))


def protobuf_value(rng: random.Random, depth: int = 0) -> bytes:
    """A well-formed message whose fields mean nothing."""
    out = b""
    for _ in range(rng.choice((0, 1, 3, 8))):
        number = rng.choice((*range(1, 13), 1001, 1002, 536_870_911))
        kind = rng.choice((0, 0, 0, 2, 2, 2, 1, 5))
        out += _varint(number << 3 | kind)
        match kind:
            case 0:
                out += _varint(_number(rng))
            case 2:
                inner = rng.randbytes(rng.randrange(9)) if depth > 3 or rng.random() < 0.4 else None
                inner = protobuf_value(rng, depth + 1) if inner is None else inner
                out += _varint(len(inner)) + inner
            case _:
                out += rng.randbytes(8 if kind == 1 else 4)
    return out


_NAMES = sorted(
    {name for call in msgpack_wire._CALLS.values() for name in (*call.request_fields, *call.response_fields)}
    | {b"Index", b"Type", b"Data", b"Extensions", b"AppendedAt", b"Servers", b"Address", b"Suffrage"}
    | {b"TakesEarlyAnswer", b"HintIndex", b"HintTerm"}
)


def msgpack_value(rng: random.Random, depth: int = 0) -> bytes:
    """A well-formed value whose fields mean nothing."""
    match rng.randrange(9 if depth < 5 else 6):
        case 0:
            return bytes((rng.choice((0, 1, 2, 3, 4, 0x70, 0x71, 0x7F, 0xE0, 0xFF)),))
        case 1:
            return rng.choice(
                (b"\xc0", b"\xc2", b"\xc3", b"\xca" + rng.randbytes(4), b"\xcb" + rng.randbytes(8))
            )
        case 2:
            return b"\xcf" + struct.pack(">Q", min(_number(rng), 2**64 - 1))
        case 3:
            return rng.choice((b"\xd1", b"\xcd")) + rng.randbytes(2)
        case 4:
            data = rng.choice((rng.randbytes(rng.randrange(32)), rng.choice(_NAMES), b"\x01" + bytes(14)))
            return rng.choice((b"\xd9", b"\xc4")) + bytes((len(data),)) + data
        case 5:
            size = rng.choice((1, 2, 4, 8, 16))
            code = {1: b"\xd4", 2: b"\xd5", 4: b"\xd6", 8: b"\xd7", 16: b"\xd8"}[size]
            return code + rng.choice((b"\xff", b"\x05")) + rng.randbytes(size)
        case 6:
            count = rng.choice((0, 1, 3, 12))
            return bytes((0x90 | count,)) + b"".join(msgpack_value(rng, depth + 1) for _ in range(count))
        case _:
            count = rng.choice((1, 3, 9, 12))
            return bytes((0x80 | count,)) + b"".join(
                _msgpack_name(rng) + msgpack_value(rng, depth + 1) for _ in range(count)
            )


def _msgpack_name(rng: random.Random) -> bytes:
    name = rng.choice(_NAMES)
    return bytes((0xA0 | len(name),)) + name


def _msgpack_stream(rng: random.Random) -> bytes:
    number = bytes((rng.choice((0, 0, 0, 1, 2, 3, 4, 0x70, 0x71)),))
    return rng.choice((number, b"\xa0", b"")) + msgpack_value(rng)


def _repeated(rng: random.Random, grow: Callable[[random.Random], bytes]) -> bytes:
    """Something small very often, which is what costs memory."""
    piece = rng.choice(
        (grow(rng), rng.randbytes(rng.randint(1, 3)), bytes((rng.choice(_TELLING_BYTES),)) * 2)
    )
    times = rng.randint(1, 65536 // max(len(piece), 16))
    return rng.randbytes(rng.randrange(4)) + (piece or b"\x90") * times


class Target:
    """Decoders, and what they are fed with."""

    def __init__(
        self, decoders: dict[str, Decode], seeds: dict[str, bytes], grow: Callable[[random.Random], bytes]
    ) -> None:
        self.decoders = decoders
        self._names = sorted(decoders)
        self._seeds = list(seeds.values())
        self._own_seeds = {name: _seeds_for(name, seeds) for name in decoders}
        self._grow = grow

    def make(self, seed: int, number: int) -> tuple[str, bytes]:
        """Input ``number``: for which decoder, and its bytes."""
        rng = random.Random((seed << 40) + number)
        name = self._names[number % len(self._names)]
        luck = rng.random()
        if luck < 0.6:
            good = rng.choice(self._own_seeds[name] if rng.random() < 0.8 else self._seeds)
            return name, damage(rng, good * rng.choice((1, 1, 3)), self._seeds)
        if luck < 0.85:
            return name, self._grow(rng)
        if luck < 0.86:
            return name, _repeated(rng, self._grow)
        if luck < 0.93:
            return name, damage(rng, self._grow(rng), self._seeds)
        return name, rng.randbytes(rng.randrange(200))


def _seeds_for(decoder: str, seeds: dict[str, bytes]) -> list[bytes]:
    """Those of the messages that ``decoder`` is for: the words of its name are in theirs."""
    words = (
        decoder.lower().replace("requests", "request").replace("answer", "response").replace(",", "").split()
    )
    words = [word for word in words if word not in ("bytewise", "in", "pieces", "entry")]
    found = [data for name, data in seeds.items() if all(word in name.replace("_", "") for word in words)]
    return found or list(seeds.values())


def targets() -> dict[str, Target]:
    grpc, tcp = golden("grpc"), golden("tcp")
    grpc["append_entries_pipeline_request"] = grpc["append_entries_request"]
    for request in OURS:
        name = type(request).__name__.removesuffix("Request") + "_ours_request"
        grpc[name.lower()] = wire.METHODS[type(request)].encode_request(request)
        tcp[name.lower()] = msgpack_wire.encode_request(request)
    for request, answer in zip((OURS[0], OURS[1], OURS[3]), OUR_ANSWERS, strict=True):
        name = type(request).__name__.removesuffix("Request") + "_ours_response"
        grpc[name.lower()] = wire.METHODS[type(request)].encode_response(answer)
        tcp[name.lower()] = msgpack_wire.encode_answer(msgpack_wire.call_of(request), answer)
    tcp["peers"] = b"\x92\xa2a1\xa5addr3"
    return {
        "protobuf": Target(protobuf_decoders(), grpc, protobuf_value),
        "msgpack": Target(msgpack_decoders(), tcp, _msgpack_stream),
    }


# ── feeding ──


class Broken(Exception):
    """A decoder did what it must not."""


def feed(decode: Decode, data: bytes, trace: bool) -> str:
    """Decode once; return what came of it.

    Raises:
        Broken: another exception than ours, or too much memory.
    """
    if trace:
        tracemalloc.start()
    try:
        decode(data)
        outcome = "read"
    except RaftError as error:
        outcome = type(error).__name__
    except Exception as error:
        raise Broken(f"{type(error).__name__}: {error}") from error
    finally:
        peak = tracemalloc.get_traced_memory()[1] if trace else 0
        tracemalloc.stop()
    if peak > FREE_BYTES + TIMES_INPUT * len(data):
        raise Broken(f"{peak} bytes of memory for {len(data)} bytes")
    return outcome


def run(target: Target, seed: int, first: int, inputs: int) -> Counter[str]:
    """Feed so many inputs; return how they ended.

    Raises:
        Broken: naming the input.
    """
    outcomes: Counter[str] = Counter()
    for number in range(first, first + inputs):
        if number % INPUTS_BETWEEN_SIGNS_OF_LIFE == 0 and HANG_SECONDS:
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        name, data = target.make(seed, number)
        try:
            outcomes[feed(target.decoders[name], data, number % _MEMORY_EVERY == 0)] += 1
        except Broken as broken:
            raise Broken(f"seed {seed}, input {number}, {name}: {broken}\n{data.hex()}") from broken.__cause__
    faulthandler.cancel_dump_traceback_later()
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="for each of the two formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", choices=["protobuf", "msgpack"])
    options = parser.parse_args()
    for name, target in targets().items():
        if options.only not in (None, name):
            continue
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        try:
            outcomes = run(target, options.seed, options.first, options.inputs)
        except Broken as broken:
            print(f"{name}: {broken}", file=sys.stderr)
            return 1
        took = time.monotonic() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        how = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        print(
            f"{name}: {options.inputs} inputs in {took:.0f} s: {how}; memory grew by {grown / 1024:.1f} MiB"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
