"""Names of elements in the other direction of a flow (RFC 5103)."""

from __future__ import annotations

from ulogd_tw.core.keys import known

_ENDS = (("source", "destination"), ("Source", "Destination"), ("saddr", "daddr"), ("sport", "dport"))


def reverse(name: str) -> str:
    """The name of the Reverse Information Element: reverseOctetDeltaCount for octetDeltaCount."""
    return "reverse" + name[0].upper() + name[1:]


def other_end(name: str) -> str | None:
    """destinationTransportPort for sourceTransportPort; None for what is not of a source."""
    for one, two in _ENDS:
        if one in name and known(name.replace(one, two)):
            return name.replace(one, two)
    return None
