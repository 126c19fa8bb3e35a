"""Records of captures, and the places of packets on their way over headers (packets.c)."""

from __future__ import annotations

import numpy as np

from ulogd_tw.kernels import ffi, lib

EVERY_TYPE = 1 << 16
"""Numbers of EtherTypes."""
EVERY_PROTOCOL = 256
"""Numbers of protocols; the place of those without one in a table."""


def records(memory: np.ndarray, at: int, end: int, place: int, big_endian: bool, more: int, least: int) -> np.ndarray:
    """The beginnings of the records from `at` on, while `least` octets of each are there before `end`.

    Behind them is the next place, unless the last record has less than `least` octets. A record says its octets, but
    for `more`, in 32 bits at `place`. `memory` is uint8.
    """
    assert end <= len(memory), f"{end} octets of {len(memory)}"
    found = np.empty(max(end - at, 0) // least + 1, np.int64)  # pages that are not reached take no memory
    n = lib.ut_records(ffi.from_buffer("uint8_t[]", memory), end, at, place, big_endian, more, least,
                       ffi.from_buffer("int64_t[]", found), len(found))  # fmt: skip
    assert n > 0, "records overlap"
    return found[:n]


class Places:
    """Packets and the next place in each, which the methods move on over a header: see `ulogd_tw.packets.walk.Walk`.

    `at` and `end` (int64), `kind` (int32) and `fault` (uint8) are written to.
    """

    def __init__(
        self, memory: np.ndarray, at: np.ndarray, end: np.ndarray, kind: np.ndarray, fault: np.ndarray
    ) -> None:
        forms = {
            "memory": "uint8_t[]",
            "at": "int64_t[]",
            "end": "int64_t[]",
            "kind": "int32_t[]",
            "fault": "uint8_t[]",
        }
        self._kept = [
            ffi.from_buffer(*pair) for pair in zip(forms.values(), (memory, at, end, kind, fault), strict=True)
        ]
        self._state = ffi.new("ut_packets *")
        for name, buffer in zip(forms, self._kept, strict=True):
            setattr(self._state, name, buffer)
        self._state.size, self._state.n = len(memory), len(at)

    def links(self, first: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """Pass over the headers before IP; a mask of the packets that were left as they are, None if there are none.

        `first` says what a packet begins with. `others` (uint8, of `EVERY_TYPE`): EtherTypes with headers of their own.
        """
        assert len(others) == EVERY_TYPE
        odd = np.empty(len(first), bool)
        first = np.ascontiguousarray(first, np.int64)
        left = lib.ut_links(self._state, ffi.from_buffer("int64_t[]", first), ffi.from_buffer("uint8_t[]", others),
                            ffi.from_buffer("uint8_t[]", odd))  # fmt: skip
        return odd if self._checked(left) else None

    def families(self) -> np.ndarray:
        """4, 6 or 0 of each packet: whether the fixed header of IP is there, of this version (uint8)."""
        found = np.empty(self._state.n, np.uint8)
        self._checked(lib.ut_families(self._state, ffi.from_buffer("uint8_t[]", found)))
        return found

    def ipv4(self, rows: np.ndarray) -> np.ndarray:
        """Pass over IPv4 in these rows; the protocol of each payload (int32), -1 where there is none."""
        protocol = np.empty(len(rows), np.int32)
        self._checked(lib.ut_ipv4(self._state, self._rows(rows), len(rows), ffi.from_buffer("int32_t[]", protocol)))
        return protocol

    def transport(self, rows: np.ndarray, protocol: np.ndarray, least: np.ndarray) -> None:
        """Check the headers behind IP: `least` (int64) has the octets for each protocol, last those without."""
        assert len(least) == EVERY_PROTOCOL + 1
        protocol = np.ascontiguousarray(protocol, np.int32)
        self._checked(lib.ut_transport(self._state, self._rows(rows), len(rows), ffi.from_buffer("int32_t[]", protocol),
                                       ffi.from_buffer("int64_t[]", least)))  # fmt: skip

    @staticmethod
    def _rows(rows: np.ndarray) -> object:
        return ffi.from_buffer("int64_t[]", np.ascontiguousarray(rows, np.int64))

    @staticmethod
    def _checked(found: int) -> int:
        assert found >= 0, "a packet lies outside its memory"
        return found
