"""The five lines of README.md, run as README says: in three processes."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.cluster import free_ports

README = Path(__file__).parent.parent.parent / "README.md"


def the_five_lines() -> str:
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    program = block.group(1)
    for number, port in enumerate(free_ports(3), 1):
        program = program.replace(f"127.0.0.1:700{number}", f"127.0.0.1:{port}")
    return program


@pytest.mark.slow
def test_three_processes_agree_on_a_leader_and_one_of_them_prints_the_result(tmp_path):
    program = the_five_lines()
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", program, id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for id in ("n1", "n2", "n3")
    ]
    printed: list[str] = []
    answered = threading.Event()

    def read(server: subprocess.Popen[str]) -> None:
        for line in server.stdout:
            printed.append(line.strip())
            answered.set()

    readers = [threading.Thread(target=read, args=(server,)) for server in servers]
    for reader in readers:
        reader.start()
    try:
        assert answered.wait(60), [server.poll() for server in servers]
    finally:
        for server in servers:
            server.stdin.close()
        for server in servers:
            server.wait(30)
        for reader in readers:
            reader.join(30)

    assert printed == ["5"]
    assert [server.returncode for server in servers] == [0, 0, 0], [s.stderr.read() for s in servers]
