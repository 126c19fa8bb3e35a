"""Databases in MaxMind's format: the search tree becomes ranges, the records become columns.

The tree is walked here, level by level with NumPy. The library maxminddb reads the metadata, and each record once. Its
Python part is used, because its C extension ends the process at some damaged files (3.2.0). The format:
https://maxmind.github.io/MaxMind-DB/, version 2.0.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.labels import Labels, Numbers, Texts
from ulogd_tw.naming.networks import Names
from ulogd_tw.naming.prefixes import Networks, PrefixTable

_MOST_NODES = 1 << 23
"""Most nodes on one level; a damaged tree can have loops."""
_SEPARATOR = 16
"""Octets of zero between the tree and the records."""
_COUNTRY = ("country.iso_code", "registered_country.iso_code", "country_code", "country")
_AS = ("autonomous_system_number", "as_number", "asn")
_AS_NAME = ("autonomous_system_organization", "as_name", "as_organization", "org", "name")
"""Paths to the country, the number and the name, in databases of several makers."""


def countries(octets: bytes) -> Names:
    """The countries of a database: codes of two letters (ISO 3166). Raises `NamesError`."""
    return _names(octets, {"country": lambda records: _texts(records, _COUNTRY)})


def systems(octets: bytes) -> Names:
    """The numbers and names of the autonomous systems of a database. Raises `NamesError`."""
    return _names(octets, {
        "as": lambda records: Numbers([_number(record) for record in records]),
        "as.name": lambda records: _texts(records, _AS_NAME),
    })  # fmt: skip


def is_database(octets: bytes) -> bool:
    """Whether a file has this format: a marker near its end begins the metadata."""
    return octets.rfind(b"\xab\xcd\xefMaxMind.com", max(len(octets) - (128 << 10), 0)) >= 0


def _names(octets: bytes, columns: dict[str, Callable[[list[Any]], Labels]]) -> Names:
    if not is_there("maxminddb"):
        raise NamesError(f"a database of MaxMind's format needs maxminddb: {install('maxminddb')}")
    from maxminddb import MODE_FD
    from maxminddb.decoder import Decoder
    from maxminddb.reader import Reader

    try:
        with Reader(_File(octets), MODE_FD) as reader:
            metadata = reader.metadata()
        four, six = _tree(octets, metadata.node_count, metadata.record_size, metadata.ip_version)
        data = metadata.search_tree_size + _SEPARATOR
        decoder = Decoder(octets, data)
        places = data - metadata.node_count - _SEPARATOR + _different(four, six)
        if len(places) and places.min() < data:
            raise NamesError("its search tree is damaged")
        records = [None, *(decoder.decode(place)[0] for place in places.tolist())]
    except NamesError:
        raise
    except Exception as error:  # noqa: BLE001 - of a damaged file the library raises this and that
        raise NamesError(f"not a database in MaxMind's format: {error}") from None
    return Names(PrefixTable(four, six), {name: made(records) for name, made in columns.items()})


class _File(io.BytesIO):
    name = "the file"


def _different(four: Networks, six: Networks) -> np.ndarray:
    """The different records of the tree; the codes of the networks become numbers of these records, from 1."""
    found, numbers = np.unique(np.concatenate([four.codes, six.codes]), return_inverse=True)
    n = len(four.codes)
    four.codes, six.codes = (numbers[:n] + 1).astype(np.int32), (numbers[n:] + 1).astype(np.int32)
    return found


def _tree(octets: bytes, nodes: int, record_bits: int, version: int) -> tuple[Networks, Networks]:
    """The networks of both families; their codes are the places of their records."""
    if version not in (4, 6) or record_bits not in (24, 28, 32) or nodes * record_bits // 4 > len(octets):
        raise NamesError("its search tree is incomplete")
    children = _children(np.frombuffer(octets, np.uint8, nodes * record_bits // 4), record_bits)
    high, low, bits, codes = (np.concatenate(parts) for parts in zip(*_leaves(children, version), strict=True))
    if version == 4:
        return Networks(high, low, bits, codes), _none()
    within = (high == 0) & (low < 1 << 32)
    four = within & (bits >= 96)
    above = within & (low == 0) & (bits < 96)  # all IPv4 addresses are in one record's network
    old = Networks(*(np.concatenate([column[above], column[four]]) for column in (high, low, bits, codes)))
    old.bits = np.maximum(old.bits - 96, 0)
    return old, Networks(high[~four], low[~four], bits[~four], codes[~four])


def _none() -> Networks:
    return Networks(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def _children(tree: np.ndarray, record_bits: int) -> np.ndarray:
    """The two records of each node: an array of (nodes, 2)."""
    node = tree.reshape(-1, record_bits // 4).astype(np.int64)
    if record_bits == 28:  # the octet in the middle has the upper four bits of both
        node = np.column_stack([node[:, 3] >> 4, node[:, :3], node[:, 3] & 15, node[:, 4:]])
    records = node.reshape(len(node), 2, -1)
    found = records[:, :, 0]
    for place in range(1, records.shape[2]):
        found = found << 8 | records[:, :, place]
    return found


Leaves = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _leaves(children: np.ndarray, version: int) -> Iterator[Leaves]:
    """Networks (halves of the address, bits, record) level by level.

    The tree of IPv4 is below ::/96, with links from 2002::/16 and others; these links are left out.
    """
    n, width = len(children), 32 if version == 4 else 128
    old = _start_of_ipv4(children) if version == 6 else -1
    nodes, high, low = np.zeros(min(n, 1), np.int64), np.zeros(min(n, 1), np.uint64), np.zeros(min(n, 1), np.uint64)
    yield high[:0], low[:0], nodes[:0], nodes[:0]
    for depth in range(1, width + 1):
        bit = 1 << width - depth
        found = children[nodes].T.reshape(-1)
        high = np.concatenate([high, high | np.uint64(bit >> 64)])
        low = np.concatenate([low, low | np.uint64(bit & (1 << 64) - 1)])
        leaf = found > n
        yield high[leaf], low[leaf], np.full(np.count_nonzero(leaf), depth), found[leaf]
        on = (found < n) & ((found != old) | (high == 0) & (low == 0))
        nodes, high, low = found[on], high[on], low[on]
        if len(nodes) > _MOST_NODES:
            break
    if len(nodes):
        raise NamesError("its search tree is damaged")


def _start_of_ipv4(children: np.ndarray) -> int:
    node = 0
    for _ in range(96):
        if node >= len(children):
            return -1
        node = int(children[node, 0])
    return node if node < len(children) else -1


def _value(record: Any, paths: tuple[str, ...]) -> Any:
    """The value at the first of these paths in the record."""
    for path in paths:
        value = record
        for word in path.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        if isinstance(value, (str, int)) and value != "":
            return value
    return None


def _texts(records: list[Any], paths: tuple[str, ...]) -> Texts:
    found = (_value(record, paths) for record in records)
    return Texts([value.encode("utf-8", "replace") if isinstance(value, str) else b"" for value in found])


def _number(record: Any) -> int:
    """A number of 32 bits, in some databases written as AS64512; 0 for none."""
    match = re.fullmatch(r"(?:AS)?(\d{1,10})(?: .*)?", str(_value(record, _AS)), re.ASCII)
    return int(match[1]) if match and int(match[1]) < 1 << 32 else 0
