"""Extended gateway data of sFlow (version 5, section 5.3): what BGP says of the route to the destination."""

from __future__ import annotations

import struct

import numpy as np

from ulogd_tw.ipfix.sflow.cursor import Cursor, texts
from ulogd_tw.ipfix.sflow.samples import Reading
from ulogd_tw.packets.headers import Headers

_MOST_SEGMENTS = 16
"""Segments of an AS path that are followed; there are one or two."""
_SET = 1
"""A segment that is a set; others are sequences."""


def read_gateway(reading: Reading, cursor: Cursor, found: Headers) -> None:
    """Autonomous systems by BGP. Without a source or a path it is the router's own.

    Communities and preference are of the route to the destination.
    """
    put_address(reading, cursor, found, "bgpNextHop")
    here = cursor.skip(4)
    rows, words = cursor.rows, reading.words
    own, source, before, segments = (words[here + offset].astype(np.int64) for offset in range(4))
    begin = cursor.at
    last, following = _path(reading, cursor, segments)
    known = following > 0
    found.put("bgpSourceAsNumber", np.where(source > 0, source, own), rows)
    found.put("bgpDestinationAsNumber", np.where(last > 0, last, own), rows)
    found.put("bgpPrevAdjacentAsNumber", before[before > 0], rows[before > 0])
    found.put("bgpNextAdjacentAsNumber", following[known], rows[known])
    whole = np.searchsorted(rows, cursor.rows)
    if "bgpDestinationAsPath" in found.wanted:
        some = segments[whole] > 0
        begin, size = begin[whole][some], (cursor.at - begin[whole])[some]
        found.put_octets("bgpDestinationAsPath", texts(reading, begin, size, _path_text), cursor.rows[some])
    at, count = cursor.array()
    some = count > 0
    if "bgpDestinationCommunityList" in found.wanted and some.any():
        lists = texts(reading, at[some], count[some], _communities_text)
        found.put_octets("bgpDestinationCommunityList", lists, cursor.rows[some])
    preference = cursor.number()
    found.put("bgpLocalPreference", preference, cursor.rows)


def put_address(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    """Put an address that stands behind its type as ``nameIPv4Address`` or ``nameIPv6Address``."""
    kind, at = cursor.address()
    four, six = kind == 1, kind == 2
    found.put(f"{name}IPv4Address", reading.words[at[four]], cursor.rows[four])
    if six.any():
        found.put(f"{name}IPv6Address", reading.ipv6(at[six]), cursor.rows[six], "L")


def _path(reading: Reading, cursor: Cursor, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last and the first autonomous system of each path to a destination; 0 where it is empty.

    The cursor stands behind the path afterwards, and has lost the rows of which not the whole path is there.
    """
    at, ends = cursor.at.copy(), cursor.ends
    last, first, done = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64), segments == 0
    for turn in range(_MOST_SEGMENTS):
        going = np.flatnonzero((segments > turn) & (at + 2 <= ends))
        count = reading.words[at[going] + 1].astype(np.int64)
        fits = at[going] + 2 + count <= ends[going]
        going, count = going[fits], count[fits]
        if not len(going):
            break
        some = count > 0
        last[going[some]] = reading.words[at[going[some]] + 1 + count[some]]
        if turn == 0:
            first[going[some]] = reading.words[at[going[some]] + 2]
        at[going] += 2 + count
        done[going] = segments[going] == turn + 1
    cursor.at = at
    cursor.keep(done)
    return last, first


def _path_text(octets: bytes) -> bytes:
    """As routers print it: ``64510 64511 {64520,64521}``."""
    numbers, at = struct.unpack(f"!{len(octets) // 4}I", octets), 0
    parts: list[str] = []
    while at < len(numbers):
        kind, count = numbers[at : at + 2]
        members = map(str, numbers[at + 2 : at + 2 + count])
        parts += ["{" + ",".join(members) + "}"] if kind == _SET else members
        at += 2 + count
    return " ".join(parts).encode()


def _communities_text(octets: bytes) -> bytes:
    """A basicList as `ulogd_tw.ipfix.structured` writes it, with all of its members."""
    numbers = struct.unpack(f"!{len(octets) // 4}I", octets)
    values = ",".join(f'"{number >> 16}:{number & 0xFFFF}"' for number in numbers)
    return f'{{"semantic":3,"element":"bgpCommunity","values":[{values}]}}'.encode()
