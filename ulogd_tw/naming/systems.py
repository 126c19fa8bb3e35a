"""Autonomous systems of networks: from a database in MaxMind's format, or from a text in pyasn's format."""

from __future__ import annotations

import re

from ulogd_tw.core.entries import entries
from ulogd_tw.core.networks import span
from ulogd_tw.naming import maxmind
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Numbers, Texts
from ulogd_tw.naming.networks import HEADINGS, Names
from ulogd_tw.naming.prefixes import Families, PrefixTable

_SYSTEM = re.compile(r"\{?(?:AS)?(\d{1,10})(?:_[\d_]*|(?:,\d+)*\})?(?:[\s,]+(.*))?", re.ASCII)


def read(octets: bytes) -> Names:
    """The systems of a file of either format. Raises `NamesError`."""
    return maxmind.systems(octets) if maxmind.is_database(octets) else _text(octets)


def _text(octets: bytes) -> Names:
    """PREFIX and NUMBER, and an optional name, on each line, separated by blanks or a comma; ; and # begin comments. Of
    a set of systems, 64500_64501 or {64500,64501}, the first counts."""
    if b"\0" in octets[:4096]:
        raise NamesError("it is neither a database in MaxMind's format nor a text with PREFIX NUMBER on each line")
    families, numbers, names = Families(), [0], [b""]
    codes: dict[str, int] = {}
    for line, text in entries(octets, ";#"):
        prefix, *rest = re.split(r"[\s,]+", text, maxsplit=1)
        words = rest[0] if rest else ""
        if line == 1 and prefix.lower() in HEADINGS:
            continue
        code = codes.get(words)
        try:
            network = span(prefix)
            if code is None:
                match = _SYSTEM.fullmatch(words)
                if match is None or int(match[1]) >> 32:
                    raise ValueError
                code = codes[words] = len(numbers)
                numbers.append(int(match[1]))
                names.append((match[2] or "").strip(' "').encode("utf-8", "surrogateescape"))
        except ValueError:
            raise NamesError(f"{text!r} is not a network and number such as 192.0.2.0/24 64500", line) from None
        families.add(network, code)
    return Names(PrefixTable(families.four, families.six), {"as": Numbers(numbers), "as.name": Texts(names)})
