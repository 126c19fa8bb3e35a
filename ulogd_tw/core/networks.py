"""Networks and addresses as text."""

from __future__ import annotations

import ipaddress
import re

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks(tuple[Network, ...]):
    """Networks of both families. `loose`: the texts of those with bits behind the prefix, which are ignored."""

    loose: tuple[str, ...] = ()


def networks(text: str) -> Networks:
    """``10.0.0.0/8, 2001:db8::/32, 192.0.2.7``, with blanks or commas. Raises ValueError with the one that is wrong."""
    found, loose = [], []
    for word in text.replace(",", " ").split():
        try:
            interface = ipaddress.ip_interface(word)
        except ValueError:
            raise ValueError(f"{word} is not a network such as 192.0.2.0/24 or 2001:db8::/32, or an address") from None
        found.append(interface.network)
        if interface.ip != interface.network.network_address:
            loose.append(word)
    made = Networks(found)
    made.loose = tuple(loose)
    return made


_IPV4 = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:/(\d{1,2}))?", re.ASCII)
_IPV6 = re.compile(r"([0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(?:/(\d{1,3}))?", re.ASCII)

Span = tuple[int, int, int]
"""A network: version of IP, first and last address."""


def span(text: str) -> Span:
    """The network or address in a text; ValueError for other texts. Files have many: one takes 1 us, of IPv6 5 us."""
    match = _IPV4.fullmatch(text)
    if match is not None:
        a, b, c, d, bits = match.groups(default="32")
        octets, length = (int(a), int(b), int(c), int(d)), int(bits)
        if max(octets) < 256 and length <= 32:
            address = octets[0] << 24 | octets[1] << 16 | octets[2] << 8 | octets[3]
            rest = (1 << 32 - length) - 1
            return 4, address & ~rest, address | rest
    if (match := _IPV6.fullmatch(text)) is not None and (length := int(match[2] or "128")) <= 128:
        number, rest = int(ipaddress.IPv6Address(match[1])), (1 << 128 - length) - 1
        return 6, number & ~rest, number | rest
    network = ipaddress.ip_network(text, strict=False)
    return network.version, int(network.network_address), int(network.broadcast_address)
