"""A file of networks and their names: PREFIX,NAME[,MORE ...] on each line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.entries import entries
from ulogd_tw.core.networks import span
from ulogd_tw.core.types import Type
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Labels, Texts
from ulogd_tw.naming.prefixes import Families, PrefixTable
from ulogd_tw.naming.validity import ALWAYS, Timed, moment

FROM, UNTIL = "net.from", "net.until"
"""Columns with times: the name is valid from the first until before the second; empty: always."""
HEADINGS = frozenset({"prefix", "network", "net", "cidr", "subnet"})
"""First words of a line with the names of columns."""


@dataclass
class Names:
    """Networks, and for each column the labels of their numbers."""

    table: PrefixTable | Timed
    columns: dict[str, Labels]

    @property
    def timed(self) -> bool:
        """Whether the labels depend on the time of a row."""
        return isinstance(self.table, Timed)

    def codes(self, column: np.ndarray, type_: Type, missing: np.ndarray | None, times: np.ndarray) -> np.ndarray:
        """The number of the network of each address, int32; 0 for none. `times`: seconds, if `timed`."""
        return self.table.codes(column, type_, missing, *((times,) if self.timed else ()))


def read(octets: bytes, columns: Iterable[str] = ("net",)) -> Names:
    """The networks of a file; `columns` are those after the prefix. A network without a name is called by its prefix.

    Of several lines with the same network the last one counts; with the columns `FROM` and `UNTIL`, the last one valid
    at the time. Raises `NamesError`. About 2 us a line, 5 us with times.
    """
    columns = tuple(columns)
    families = Families()
    codes: dict[str, int] = {}
    times = _Times(columns) if {FROM, UNTIL} & set(columns) else None
    for number, prefix, rest in _lines(octets):
        try:
            network = span(prefix)
        except ValueError:
            if number == 1 and prefix.lower() in HEADINGS:
                continue
            wrong = f"{prefix!r} is neither an address nor a prefix such as 10.0.0.0/8 or 2001:db8::/32"
            raise NamesError(wrong, number) from None
        code = codes.setdefault(rest or prefix, len(codes) + 1)
        if times is None:
            families.add(network, code)
        elif (node := times.add(network, rest, code, number)) is not None:
            families.add(network, node)
    rows = [_words(rest, len(columns)) for rest in codes]
    texts = {name: Texts([b"", *(row[place] for row in rows)]) for place, name in enumerate(columns)}
    if times is None:
        return Names(PrefixTable(families.four, families.six), texts)
    return Names(Timed(families.four, families.six, times.names), texts)


class _Times:
    """The periods of validity of the names of networks."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._places = tuple(columns.index(name) if name in columns else -1 for name in (FROM, UNTIL))
        self._nodes: dict[tuple[int, int, int], int] = {}
        self.names: list[list[tuple[tuple[int, int], int]]] = []

    def add(self, network: tuple[int, int, int], rest: str, code: int, line: int) -> int | None:
        """Add a line with a name of a network; returns the number of the network."""
        words = [b"", *_words(rest, max(self._places) + 1)]
        found = []
        for place, usual in zip(self._places, ALWAYS, strict=True):
            text = words[place + 1].decode("utf-8", "replace") if place >= 0 else ""
            try:
                found.append(moment(text) if text else usual)
            except ValueError:
                wrong = f"{text!r} is no time such as 2026-11-23, 2026-11-23T14:00:00Z or 1795435200"
                raise NamesError(wrong, line) from None
        if found[0] >= found[1]:
            raise NamesError("the end of its validity is not after the beginning", line)
        node = self._nodes.get(network)
        if node is None:
            self.names.append([])
            self._nodes[network] = len(self.names)
        self.names[(node or len(self.names)) - 1].append(((found[0], found[1]), code))
        return None if node else len(self.names)


def _lines(octets: bytes) -> Iterator[tuple[int, str, str]]:
    """(number of the line, prefix, rest of the line) of each line that is not empty."""
    for number, line in entries(octets):
        prefix, comma, rest = line.partition(",")
        if not comma:
            prefix, rest = line, ""
            if len(words := line.split(None, 1)) == 2:
                prefix, rest = words
        yield number, prefix.strip(' \t"'), rest.strip()


def _words(rest: str, n: int) -> list[bytes]:
    """The values of n columns; empty where the line is shorter."""
    words = next(csv.reader([rest], skipinitialspace=True), []) if '"' in rest else rest.split(",")
    found = [word.strip().encode("utf-8", "surrogateescape") for word in words[:n]]
    return found + [b""] * (n - len(found))
