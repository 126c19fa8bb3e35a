"""A file of networks and their names: PREFIX,NAME[,MORE ...] on each line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ulogd_tw.core.prefix import span
from ulogd_tw.core.textlines import lines
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Labels, Texts
from ulogd_tw.naming.prefixes import Networks, PrefixTable

_HEADINGS = frozenset({"prefix", "network", "net", "cidr", "subnet"})
"""First words of a line with the names of columns."""


@dataclass
class Names:
    """Networks, and for each column what their numbers stand for."""

    table: PrefixTable
    columns: dict[str, Labels]


def read(octets: bytes, columns: Iterable[str] = ("net",)) -> Names:
    """The networks of a file; `columns` are those behind the prefix. A network without a name is called by its prefix.

    Of a network that is there twice the last line counts. Raises `NamesError`. About 2 us a line.
    """
    columns = tuple(columns)
    families = {4: Networks(), 6: Networks()}
    codes: dict[str, int] = {}
    for number, prefix, rest in _lines(octets):
        try:
            version, first, last = span(prefix)
        except ValueError:
            if number == 1 and prefix.lower() in _HEADINGS:
                continue
            wrong = f"{prefix!r} is no address, and no prefix such as 10.0.0.0/8 or 2001:db8::/32"
            raise NamesError(wrong, number) from None
        width = 32 if version == 4 else 128
        code = codes.setdefault(rest or prefix, len(codes) + 1)
        families[version].add(first, width - (last - first).bit_length(), code)
    rows = [_words(rest, len(columns)) for rest in codes]
    texts = {name: Texts([b"", *(row[place] for row in rows)]) for place, name in enumerate(columns)}
    return Names(PrefixTable(families[4], families[6]), texts)


def _lines(octets: bytes) -> Iterator[tuple[int, str, str]]:
    """(number of the line, prefix, what is behind it) of each line that is not empty."""
    for number, line in enumerate(lines(octets), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        prefix, comma, rest = line.partition(",")
        if not comma:
            prefix, rest = line, ""
            if len(words := line.split(None, 1)) == 2:
                prefix, rest = words
        yield number, prefix.strip(' \t"'), rest.strip()


def _words(rest: str, n: int) -> list[bytes]:
    """The values of n columns; empty ones where the line has fewer."""
    words = next(csv.reader([rest], skipinitialspace=True), []) if '"' in rest else rest.split(",")
    found = [word.strip().encode("utf-8", "surrogateescape") for word in words[:n]]
    return found + [b""] * (n - len(found))
