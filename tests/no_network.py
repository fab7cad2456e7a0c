"""Connections of the test process to other machines are refused; those within this machine are not."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from functools import wraps
from typing import Any

METHODS = ("connect", "connect_ex", "sendto")
NAMES = {"localhost", "", socket.gethostname()}


class NetworkRefusedError(RuntimeError):
    """Represents a connection to another machine."""


def is_local(host: object) -> bool:
    """Whether a host is this machine: its name, a loopback address, or the address of no or any interface."""
    if host is None or isinstance(host, bytes) or host in NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse_network() -> None:
    """Refuses connections and the resolution of names in this process from now on."""
    for name in METHODS:
        setattr(socket.socket, name, _checked(getattr(socket.socket, name)))
    found = socket.getaddrinfo

    @wraps(found)
    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        _check(host)
        return found(host, *arguments, **options)

    socket.getaddrinfo = getaddrinfo


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def checked(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple):
            _check(address[0])
        return method(self, *arguments)

    return checked


def _check(host: object) -> None:
    if not is_local(host):
        raise NetworkRefusedError(f"a test connects to {host!r}: tests use loopback addresses alone")
