"""Files with names of numbers: marks and zones of connections, interfaces of exporters."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ulogd_tw.core.entries import entries
from ulogd_tw.core.networks import span
from ulogd_tw.core.types import Type
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Texts
from ulogd_tw.naming.prefixes import Families, PrefixTable

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_ALL = 0xFFFFFFFF


class Marks:
    """Names of numbers, some under a mask; of several matching masks the one with the most bits counts."""

    def __init__(self, entries: dict[tuple[int, int], bytes]) -> None:
        """`entries` are names by (mask, number)."""
        names: dict[bytes, int] = {b"": 0}
        self._masks = []
        for mask in sorted({mask for mask, _ in entries}, key=lambda mask: (-mask.bit_count(), -mask)):
            numbers = sorted(number for of, number in entries if of == mask)
            codes = [names.setdefault(entries[mask, number], len(names)) for number in numbers]
            self._masks.append((np.uint32(mask), np.array(numbers, np.uint32), np.array(codes, np.int32)))
        self.labels = Texts(list(names))

    def codes(self, numbers: np.ndarray) -> np.ndarray:
        """The code of each number; 0 for a number without a name."""
        found = np.zeros(len(numbers), np.int32)
        real = numbers <= _ALL
        numbers = np.where(real, numbers, 0).astype(np.uint32)
        for mask, known, codes in self._masks:
            masked = numbers & mask
            place = np.minimum(np.searchsorted(known, masked), len(known) - 1)
            hit = (found == 0) & (known[place] == masked) & real
            found[hit] = codes[place[hit]]
        return found


def marks(octets: bytes) -> Marks:
    """The marks or zones of a file: NUMBER,NAME or NUMBER/MASK,NAME on each line, decimal or 0x hexadecimal.

    Of several lines with the same number the last one counts. Raises `NamesError`.
    """
    found = {}
    for line, number, name in _lines(octets):
        value, slash, mask = number.partition("/")
        numbers = [_read(word, line) for word in ([value, mask] if slash else [value])]
        mask = numbers[1] if slash else _ALL
        if numbers[0] & ~mask:
            raise NamesError(f"{number}: the number has bits outside its mask, so it never matches", line)
        found[mask, numbers[0]] = name
    return Marks(found)


class Interfaces:
    """Names of interfaces, by exporter and number; names without an exporter hold for all other exporters."""

    def __init__(self, exporters: PrefixTable, entries: dict[tuple[int, int], bytes]) -> None:
        """`exporters` gives a number from 1 for the address of an exporter, `entries` names by (that or 0, index)."""
        self._exporters = exporters
        names: dict[bytes, int] = {b"": 0}
        keys = sorted(entries)
        self._keys = np.array([exporter << 32 | index for exporter, index in keys] or [_ALL], np.uint64)
        self._codes = np.array([names.setdefault(entries[key], len(names)) for key in keys] or [0], np.int32)
        self.labels = Texts(list(names))

    def codes(self, indices: np.ndarray, exporters: np.ndarray | None, type_: Type | None) -> np.ndarray:
        """The code of each interface; 0 for an interface without a name. `exporters` are addresses of `type_`."""
        real = indices <= _ALL
        indices = np.where(real, indices, 0).astype(np.uint64)
        found = self._find(indices)
        if exporters is not None:
            of = self._exporters.codes(exporters, type_)
            own = np.where(of > 0, self._find(of.astype(np.uint64) << np.uint64(32) | indices), np.int32(0))
            found = np.where(own > 0, own, found)
        return np.where(real, found, np.int32(0))

    def _find(self, keys: np.ndarray) -> np.ndarray:
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._codes[place], np.int32(0))


def interfaces(octets: bytes) -> Interfaces:
    """The interfaces of a file: EXPORTER,INDEX,NAME on each line; EXPORTER is an address or prefix, or empty or *.

    Raises `NamesError`.
    """
    families, numbers, names = Families(), {}, {}
    for line, exporter, rest in _lines(octets):
        index, comma, name = rest.partition(b",")
        if not comma or not name.strip():
            raise NamesError("write each line as EXPORTER,INDEX,NAME, such as 192.0.2.1,3,uplink", line)
        number = 0
        if exporter not in ("", "*"):
            try:
                network = span(exporter)
            except ValueError:
                raise NamesError(f"{exporter!r} is not an address or prefix of an exporter", line) from None
            number = numbers.get(network)
            if number is None:
                number = numbers[network] = len(numbers) + 1
                families.add(network, number)
        names[number, _read(index.decode("ascii", "replace").strip(), line)] = name.strip()
    return Interfaces(PrefixTable(families.four, families.six), names)


def _lines(octets: bytes) -> Iterator[tuple[int, str, bytes]]:
    """(number of the line, first word, text after the comma) of each line that is not empty."""
    for number, line in entries(octets):
        first, comma, rest = line.partition(",")
        if not comma or not rest.strip():
            raise NamesError(f"{line!r} has no name after a comma", number)
        yield number, first.strip(), rest.strip().encode("utf-8", "surrogateescape")


def _read(text: str, line: int) -> int:
    if not _NUMBER.fullmatch(text) or int(text, 0 if text[:2].lower() == "0x" else 10) > _ALL:
        raise NamesError(f"{text!r} is not a number of 32 bits such as 16 or 0x10", line)
    return int(text, 0 if text[:2].lower() == "0x" else 10)
