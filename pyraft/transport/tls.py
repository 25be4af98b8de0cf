"""The certificates of a server, for every transport."""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """Mutual TLS: both sides show a certificate, and both must be signed by ``ca``.

    Any certificate that ``ca`` signed is let in, so give the cluster an authority of its own.
    The certificate must name the host under which other servers reach this one.
    """

    certificate: bytes
    """PEM; intermediate certificates may follow."""
    private_key: bytes = field(repr=False)
    """PEM."""
    ca: bytes
    """PEM."""

    def __post_init__(self) -> None:
        for name in ("certificate", "private_key", "ca"):
            value = getattr(self, name)
            if not isinstance(value, bytes) or b"-----BEGIN" not in value:
                raise ConfigError(
                    f"tls: {name} is not PEM: pass the bytes of a file that contains a line '-----BEGIN ...'"
                )


def contexts(tls: Tls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the standard library needs to accept connections, and to make them.

    Raises:
        ConfigError: the certificate, the key or the authority cannot be used.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    accepting, _ = made
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.num_tickets = 0  # they would be bytes that nobody asked for on an idle connection
    try:
        with tempfile.TemporaryDirectory(prefix="pyraft-tls-") as home:  # only files are taken
            pem = Path(home) / "pem"
            pem.touch(mode=0o600)
            pem.write_bytes(tls.private_key + b"\n" + tls.certificate)
            for context in made:
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                context.load_cert_chain(pem)
                context.load_verify_locations(cadata=tls.ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"cannot use this tls: certificate and private_key do not belong together, or one of them or "
            f"ca cannot be read ({error})"
        ) from error
    return made
