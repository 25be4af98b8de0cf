"""How servers talk: the interface, and the transports that come with pyraft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import Transport

if TYPE_CHECKING:
    from .grpc_transport import GrpcTransport, Tls
    from .inmem import InmemNetwork, InmemTransport

__all__ = ["GrpcTransport", "InmemNetwork", "InmemTransport", "Tls", "Transport"]

_HOMES = {
    "GrpcTransport": "grpc_transport",
    "InmemNetwork": "inmem",
    "InmemTransport": "inmem",
    "Tls": "grpc_transport",
}


def __getattr__(name: str) -> Any:
    # Late, so that programs that never use gRPC do not pay for importing it.
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
