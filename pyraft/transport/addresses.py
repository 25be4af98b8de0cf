"""Addresses that servers are reached at."""

from __future__ import annotations

from ..errors import ConfigError

_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104  (refused, not bound)


def split_address(address: str, name: str) -> tuple[str, int]:
    """Host, without brackets, and port of ``address``.

    Raises:
        ConfigError: it is not host:port; the text calls it ``name``.
    """
    host, colon, port = address.rpartition(":")
    plain = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdigit() and int(port) <= 65535
    if not colon or not is_port or (":" in host) != ("[" in host):
        raise ConfigError(
            f"{name}={address!r} is not host:port: write it like '10.0.0.1:7000' or '[::1]:7000', port 0 to 65535"
        )
    return plain, int(port)


def check_advertised(bind: str, advertise: str | None) -> str:
    """The address under which others reach a server that listens on ``bind``; port 0 = as bound.

    Raises:
        ConfigError: others could not call it.
    """
    host, _ = split_address(bind, "bind")
    if advertise is None:
        if host in _EVERYWHERE:
            raise ConfigError(
                f"bind={bind!r} means every address of this machine and none that others could call: "
                f"pass advertise= too, the address under which the other servers reach this one"
            )
        return bind
    host, _ = split_address(advertise, "advertise")
    if host in _EVERYWHERE:
        raise ConfigError(
            f"advertise={advertise!r} is no address that others could call: use this machine's host name or IP"
        )
    return advertise
