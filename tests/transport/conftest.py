"""What the tests of several transports need."""

import subprocess

import pytest

from pyraft.transport import Tls


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Makes certificates for 127.0.0.1, each call with an authority of its own."""

    def openssl(*arguments):
        try:
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
        except FileNotFoundError:
            pytest.skip("needs the openssl command")

    def make(name):
        home = tmp_path_factory.mktemp(name)
        ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        ca = ["-keyout", f"{home}/ca.key", "-out", f"{home}/ca.pem", "-subj", f"/CN={name}"]
        openssl("req", "-x509", *ec, *ca, "-days", "2")
        openssl("req", *ec, "-keyout", f"{home}/key.pem", "-out", f"{home}/csr", "-subj", "/CN=server")
        (home / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        signing = ["-CA", f"{home}/ca.pem", "-CAkey", f"{home}/ca.key", "-CAcreateserial"]
        openssl(
            *["x509", "-req", "-in", f"{home}/csr", *signing, "-days", "2"],
            *["-extfile", f"{home}/ext", "-out", f"{home}/cert.pem"],
        )
        return Tls(*((home / file).read_bytes() for file in ("cert.pem", "key.pem", "ca.pem")))

    return make
