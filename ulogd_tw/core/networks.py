"""Networks and addresses as text."""

from __future__ import annotations

import ipaddress
import re

_IPV4 = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:/(\d{1,2}))?", re.ASCII)

Span = tuple[int, int, int]
"""A network: version of IP, first and last address."""


def span(text: str) -> Span:
    """The network or address in a text; ValueError for other texts. An IPv4 network takes 1 us: files have many."""
    match = _IPV4.fullmatch(text)
    if match is not None:
        a, b, c, d, bits = match.groups(default="32")
        octets, length = (int(a), int(b), int(c), int(d)), int(bits)
        if max(octets) < 256 and length <= 32:
            address = octets[0] << 24 | octets[1] << 16 | octets[2] << 8 | octets[3]
            rest = (1 << 32 - length) - 1
            return 4, address & ~rest, address | rest
    network = ipaddress.ip_network(text, strict=False)
    return network.version, int(network.network_address), int(network.broadcast_address)
