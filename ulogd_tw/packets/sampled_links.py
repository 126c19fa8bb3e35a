"""Packets sampled by sFlow on other links than Ethernet: their header_protocol, and the headers before IP."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.packets.link import ETHERNET, IP, LEAST_ETHERTYPE, MPLS, OF_PPP

_FRAME_RELAY, _PPP, _AAL5, _POS, _WIFI = 5, 7, 9, 14, 15
_DIRECT = np.zeros(19, np.int64)
_DIRECT[[1, 10, 11, 12, 13]] = ETHERNET, IP, IP, IP, MPLS
"""By header_protocol what a header begins with, where nothing has to be looked at: Ethernet, AAL5 with IP, IPv4, IPv6,
MPLS."""
_AHEAD = 40
"""Octets that are looked at, of the longest header: 802.11 between access points with QoS and HT control, and SNAP."""


def sampled_beginnings(
    octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, protocols: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(starts, lengths, first) for `headers.decode` of headers of these kinds; `first` is 0 for unreadable ones.

    `octets` must go on for `_AHEAD` beyond the last header.
    """
    first = _DIRECT[np.where(protocols < len(_DIRECT), protocols, 0)]
    others = np.flatnonzero(first == 0)
    if not len(others):
        return starts, lengths, first
    starts, lengths = starts.copy(), lengths.copy()
    for protocol, read in _READ.items():
        rows = others[protocols[others] == protocol]
        if len(rows):
            ahead = taken(octets, np.minimum(starts[rows], len(octets) - _AHEAD), _AHEAD).reshape(-1, _AHEAD)
            size, kind = read(ahead.astype(np.int64))
            good = (size <= lengths[rows]) & (kind > 0)
            first[rows] = np.where(good, kind, 0)
            step = np.where(good, size, 0)
            starts[rows] += step
            lengths[rows] -= step
    return starts, lengths, first


_Found = tuple[np.ndarray, np.ndarray]
"""Octets before the packet, and its first header."""


def _word(ahead: np.ndarray, at: np.ndarray | int) -> np.ndarray:
    rows = np.arange(len(ahead))
    return ahead[rows, at] << 8 | ahead[rows, at + 1]


def _ppp(ahead: np.ndarray) -> _Found:
    before = 2 * (_word(ahead, 0) == 0xFF03)
    protocol = _word(ahead, before)
    short = protocol >> 8 & 1 == 1  # one octet, where that was agreed on
    protocol = np.where(short, protocol >> 8, protocol)
    kind = np.zeros(len(ahead), np.int64)
    for number, type_ in OF_PPP.items():
        kind[protocol == number] = type_
    return before + np.where(short, 1, 2), kind


def _on_sonet(ahead: np.ndarray) -> _Found:
    """PPP, or Cisco's HDLC: 0F or 8F, 00, and an EtherType."""
    size, kind = _ppp(ahead)
    cisco = (_word(ahead, 0) & 0x7FFF) == 0x0F00
    return np.where(cisco, 4, size), np.where(cisco, _typed(_word(ahead, 2)), kind)


def _typed(kind: np.ndarray) -> np.ndarray:
    return np.where(kind >= LEAST_ETHERTYPE, kind, 0)


def _snap(ahead: np.ndarray, at: np.ndarray | int) -> np.ndarray:
    """The EtherType of LLC and SNAP that stand there; 0 without."""
    good = (_word(ahead, at) == 0xAAAA) & (_word(ahead, at + 2) == 0x0300) & (_word(ahead, at + 4) == 0)
    return np.where(good, _typed(_word(ahead, at + 6)), 0)


def _aal5(ahead: np.ndarray) -> _Found:
    return np.full(len(ahead), 8), _snap(ahead, 0)


def _frame_relay(ahead: np.ndarray) -> _Found:
    """Behind an address of two octets."""
    control = _word(ahead, 2)
    by_ident = (control == 0x03CC) | (control == 0x038E)
    by_snap = (control == 0x0300) & (_word(ahead, 4) == 0x8000) & (_word(ahead, 6) == 0)
    size = np.where(by_snap, 10, 4)
    kind = np.where(by_ident, IP, np.where(by_snap, _typed(_word(ahead, 8)), _typed(control)))
    return size, kind


def _wifi(ahead: np.ndarray) -> _Found:
    """Of data frames that are not protected and not null."""
    control, ways = ahead[:, 0], ahead[:, 1]
    quality = control >> 7 & 1
    size = 24 + 6 * (ways & 3 == 3) + 2 * quality + 4 * ((ways >> 7 & 1) & quality)
    data = (control & 0x0C == 0x08) & (control & 0x40 == 0) & (ways & 0x40 == 0)
    return size + 8, np.where(data, _snap(ahead, size), 0)


_READ = {_FRAME_RELAY: _frame_relay, _PPP: _ppp, _AAL5: _aal5, _POS: _on_sonet, _WIFI: _wifi}
