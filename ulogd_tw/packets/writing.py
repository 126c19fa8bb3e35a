"""Packets as octets of capture files: pcap and pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from mmap import mmap

import numpy as np

from ulogd_tw.core.columns import scatter

RAW = 101
"""LINKTYPE of packets that begin with IP."""
MOST_OCTETS = 262_144
"""Maximum length of a packet, as written in the file's header."""
PCAP_HEAD, RECORD_HEAD = 24, 16
_MAGIC = 0xA1B2C3D4
MOST_READ = 1 << 20
"""Octets of a record at most in files that are continued; more is damage."""
_SECTION, _INTERFACE, _ENHANCED = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
Buffer = bytes | memoryview | mmap


def pcap_head(link: int) -> bytes:
    """The beginning of a pcap file: microseconds, little-endian."""
    return struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, MOST_OCTETS, link)


def link_of(head: bytes) -> int | None:
    """The LINKTYPE of a pcap file in the form written here; None for any other file."""
    if len(head) < PCAP_HEAD or struct.unpack_from("<I", head)[0] != _MAGIC:
        return None
    return struct.unpack_from("<I", head, 20)[0] & 0x0FFFFFFF


def section() -> bytes:
    """The beginning of a pcapng file."""
    return struct.pack("<IIIHHqI", _SECTION, 28, 0x1A2B3C4D, 1, 0, -1, 28)


def interface(link: int) -> bytes:
    """The next interface of a section; its clock counts microseconds."""
    return struct.pack("<IIHHII", _INTERFACE, 20, link, 0, MOST_OCTETS, 20)


def pcap_records(
    octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, wire: np.ndarray, microseconds: np.ndarray
) -> bytes:
    """Records of packets ``octets[starts[i]:starts[i] + lengths[i]]`` of original length `wire`; times since 1970."""
    edges = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths + RECORD_HEAD, out=edges[1:])
    heads = np.empty((len(starts), 4), "<u4")
    heads[:, 0], heads[:, 1] = np.divmod(microseconds, 1_000_000)
    heads[:, 2], heads[:, 3] = lengths, wire
    out = np.empty(int(edges[-1]), np.uint8)
    _put(out, edges[:-1], heads)
    scatter(out, edges[:-1] + RECORD_HEAD, octets, starts, lengths)
    return out.tobytes()


def pcapng_blocks(
    octets: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    wire: np.ndarray,
    microseconds: np.ndarray,
    interfaces: np.ndarray,
) -> bytes:
    """Enhanced Packet Blocks, as `pcap_records`; `interfaces` by their numbers in the section."""
    sizes = 32 + (lengths + 3 & ~3)
    edges = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(sizes, out=edges[1:])
    heads = np.empty((len(starts), 7), "<u4")
    heads[:, 0], heads[:, 1], heads[:, 2] = _ENHANCED, sizes, interfaces
    heads[:, 3], heads[:, 4] = microseconds >> 32, microseconds & 0xFFFFFFFF
    heads[:, 5], heads[:, 6] = lengths, wire
    out = np.zeros(int(edges[-1]), np.uint8)  # what fills up to 4 octets is 0
    _put(out, edges[:-1], heads)
    _put(out, edges[1:] - 4, sizes.astype("<u4").reshape(-1, 1))
    scatter(out, edges[:-1] + 28, octets, starts, lengths)
    return out.tobytes()


def _put(out: np.ndarray, places: np.ndarray, words: np.ndarray) -> None:
    """Rows of a matrix of 32-bit words at these places."""
    if not len(places):
        return
    size = words.shape[1] * 4
    np.ndarray((len(out) - size + 1,), f"V{size}", out, 0, (1,))[places] = words.view(f"V{size}")[:, 0]


def pcap_cut(octets: bytes, place: int) -> tuple[int, int]:
    """The place of the record at an offset, and the number of complete records before it."""
    return _cut(octets, place, 8, RECORD_HEAD)


def pcapng_cut(octets: bytes, place: int) -> tuple[int, int]:
    """The same for blocks."""
    return _cut(octets, place, 4, 0)


def whole_records(octets: Buffer) -> tuple[int, bool]:
    """The complete octets of a pcap file, and whether an incomplete record follows.

    0.2 us a record: lengths can only be followed one by one. False: no record follows, or nothing.
    """
    size, at, unpack = len(octets), PCAP_HEAD, struct.Struct("<8xI").unpack_from
    if size < PCAP_HEAD:
        return 0, True
    while at + RECORD_HEAD <= size:
        (length,) = unpack(octets, at)
        if length > MOST_READ:
            return at, False
        after = at + RECORD_HEAD + length
        if after > size:
            break
        at = after
    return min(at, size), True


def whole_blocks(octets: Buffer) -> tuple[int, bool]:
    """The same of a pcapng file; sections of either byte order."""
    size, at = len(octets), 0
    unpack = struct.Struct("<II").unpack_from
    while at + 12 <= size:
        kind, length = unpack(octets, at)
        if kind == _SECTION:
            order = "<" if struct.unpack_from("<I", octets, at + 8)[0] == _BYTE_ORDER else ">"
            unpack = struct.Struct(order + "II").unpack_from
            kind, length = unpack(octets, at)
        if length < 12 or length % 4 or length > MOST_READ + 64:
            return at, False
        if at + length > size:
            break
        at += length
    return at, True


def _cut(octets: bytes, place: int, where: int, more: int) -> tuple[int, int]:
    """One Python step a record, after an incomplete write."""
    at = count = 0
    while at < place:
        size = more + struct.unpack_from("<I", octets, at + where)[0]
        if at + size > place:
            break
        at += size
        count += 1
    return at, count
