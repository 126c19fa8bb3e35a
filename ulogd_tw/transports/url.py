"""Addresses of transports as they are configured: ``udp:4739``, ``tcp:127.0.0.1:4739``, ``udp:[::1]:4739``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ulogd_tw.core.keys import nearest

_DTLS_OVER_SCTP = ("sctps", "dtls+sctp", "sctp+dtls", "dtls-sctp", "sctp-dtls")

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class Url:
    """A transport, a host (name or address, without brackets; empty for all addresses) and a port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """The form that `parse` reads."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}:{host}:{self.port}" if host else f"{self.scheme}:{self.port}"


def parse(text: str, ports: Mapping[str, int], default_host: str = "", default_port: int | None = None) -> Url:
    """The URL of ``SCHEME:[HOST:]PORT`` or ``SCHEME:HOST``; an IPv6 address stands in brackets.

    `ports` has the schemes, each with its own port, which a missing one is without `default_port`. Raises ValueError
    with the reason.
    """
    scheme, colon, rest = text.strip().partition(":")
    scheme = scheme.lower()
    if colon and scheme in _DTLS_OVER_SCTP:
        raise ValueError(
            f"{text!r}: DTLS over SCTP is not supported; use tls: or dtls: where the path is not protected"
        )
    if not colon or scheme not in ports:
        schemes = ", ".join(f"{s}:" for s in ports)
        raise ValueError(f"{text!r} does not begin with one of {schemes}; write {_with_scheme(text.strip(), ports)}")
    rest = rest.removeprefix("//").removesuffix("/")
    host, port = _split(text, rest)
    number = _port(text, port) if port else ports[scheme] if default_port is None else default_port
    return Url(scheme, _host(text, host) if host else default_host, number)


def _with_scheme(text: str, ports: Mapping[str, int]) -> str:
    """The address as it was probably meant."""
    scheme, colon, rest = text.partition(":")
    meant = nearest(scheme.lower(), ports) or next(iter(ports))
    return f"{meant}:{rest if colon and scheme.isalpha() else text}"


def _split(text: str, rest: str) -> tuple[str, str]:
    """Host and port, either of them empty where it is not there."""
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        if not bracket or not host or (after and not after.startswith(":")):
            raise ValueError(f"{text!r} is not of the form SCHEME:[IPV6]:PORT, as in udp:[::1]:4739")
        if ":" not in host:
            raise ValueError(f"{text!r}: only an IPv6 address may be in brackets; write it without them")
        return host, after[1:]
    if rest.count(":") > 1:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in udp:[::1]:4739")
    host, colon, port = rest.partition(":")
    return (host, port) if colon or not host.isdecimal() else ("", host)


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r}: {port} is not a port (1 to 65535)")
    return int(port)


def _host(text: str, host: str) -> str:
    """The host, if it can be one; names are not looked up."""
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host} is not an IPv6 address") from None
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host} is not an IPv4 address") from None
    elif not _NAME.fullmatch(host):
        raise ValueError(f"{text!r}: {host} is not a host name")
    return host
