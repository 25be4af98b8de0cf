"""Certificates for tests, made with the openssl command."""

import subprocess
from pathlib import Path

import pytest

from pyraft.transport import Tls


def make_tls(home: Path, name: str) -> Tls:
    """A certificate for 127.0.0.1 and localhost, of a new authority; skips the test where that is impossible."""
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca = ["-keyout", f"{home}/ca.key", "-out", f"{home}/ca.pem", "-subj", f"/CN={name}"]
    _openssl("req", "-x509", *ec, *ca, "-days", "2")
    _openssl("req", *ec, "-keyout", f"{home}/key.pem", "-out", f"{home}/csr", "-subj", "/CN=server")
    (home / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signing = ["-CA", f"{home}/ca.pem", "-CAkey", f"{home}/ca.key", "-CAcreateserial"]
    _openssl(
        *["x509", "-req", "-in", f"{home}/csr", *signing, "-days", "2"],
        *["-extfile", f"{home}/ext", "-out", f"{home}/cert.pem"],
    )
    return Tls(*((home / file).read_bytes() for file in ("cert.pem", "key.pem", "ca.pem")))


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
