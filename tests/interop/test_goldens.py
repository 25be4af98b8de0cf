"""Go reads what we write, field by field, and the golden files are what Go writes today."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.interop.markers import built_or_skip
from tests.transport import test_golden_tcp_full as tcp
from tests.transport import test_wire as grpc

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]

MODULE = Path(__file__).parent / "go" / "goldens"


def written_for_grpc():
    lines = {name: log.encoded for name, log in grpc.LOGS.items()}
    lines |= {name: method.encode_request(message) for name, (method, message) in grpc.REQUESTS.items()}
    lines |= {name: method.encode_response(message) for name, (method, message) in grpc.RESPONSES.items()}
    for name, message in grpc.SNAPSHOT_REQUESTS.items():
        lines[name] = grpc.wire.encode_install_snapshot(message)
    for name, message in grpc.SNAPSHOT_RESPONSES.items():
        lines[name] = grpc.wire.encode_install_snapshot_response(message)
    return lines


def test_go_reads_what_we_write_and_the_golden_files_are_gos(tmp_path):
    program = tmp_path / "goldens.test"
    built_or_skip("goldens", ".", program, "test", "-c")
    environment = dict(os.environ)
    for name, messages in (("GRPC", written_for_grpc()), ("TCP", tcp.written())):
        path = tmp_path / name
        path.write_text("".join(f"{message} {data.hex()}\n" for message, data in messages.items()))
        environment[f"PYRAFT_{name}"] = str(path)

    done = subprocess.run([program, "-test.v"], cwd=MODULE, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("--- PASS") == 3
