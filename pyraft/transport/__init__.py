"""How servers talk: the interface, and the transports that come with pyraft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Transport

if TYPE_CHECKING:
    from .grpc_transport import GrpcTransport
    from .inmem import InmemNetwork, InmemTransport
    from .tcp_transport import TcpTransport
    from .tls import Tls

__all__ = ["GrpcTransport", "InmemNetwork", "InmemTransport", "TcpTransport", "Tls", "Transport"]

_HOMES = {
    "GrpcTransport": "grpc_transport",
    "InmemNetwork": "inmem",
    "InmemTransport": "inmem",
    "TcpTransport": "tcp_transport",
    "Tls": "tls",
}


def __getattr__(name: str) -> Any:
    # Late, so that programs that never use gRPC (or msgpack) do not pay for importing it.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
