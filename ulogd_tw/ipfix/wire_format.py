"""How Messages look on the wire: IPFIX, and for old collectors NetFlow v9 (RFC 3954) and v5.

A form knows what stands around the records: the header with what is counted there, the headers of Sets, the numbers
of Template Sets.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np

from ulogd_tw.ipfix import message
from ulogd_tw.ipfix.netflow.packet import HEADER5, HEADER9, OPTIONS_FLOWSET, TEMPLATE_FLOWSET

_32_BITS = 0xFFFFFFFF
_BOOT_BEFORE = 20 * 86400
"""Seconds of uptime claimed before the start of a NetFlow exporter, to cover older flows."""

_SOON_MS = 86_400_000


class WireFormat:
    """IPFIX (RFC 7011 section 3). `size` is the header's; the Sequence Number counts `by_records`, else Messages."""

    version = message.VERSION
    size = message.HEADER.size
    set_header = message.SET_HEADER.size
    template_set, options_set = message.TEMPLATE_SET, message.OPTIONS_TEMPLATE_SET
    align = 1
    """Sets end at multiples of so many octets."""
    most_records = message.MAX_LENGTH
    by_records = True
    header = message.HEADER
    names: tuple[str, ...] = ("version", "length", "time", "sequence", "domain")

    def values(self, records: int, length: int, sequence: Any, domain: int, now: float) -> tuple:
        """The header's, in its order; `sequence` may be an array."""
        return self.version, length, int(now) & _32_BITS, sequence, domain

    def clock_set(self, step: float) -> None:
        """The clock was set by so many seconds: the uptime goes on, as collectors take one that falls for a restart."""

    def keep(self, now: float) -> None:
        """Do what time asks for; nothing that was encoded may wait now."""

    def counted(self, messages: int, records: int) -> int:
        """How far the Sequence Number goes on by so many Messages with so many records in all."""
        return records if self.by_records else messages

    def pack(self, records: int, length: int, sequence: int, domain: int, now: float) -> bytes:
        """The header of one Message."""
        return self.header.pack(*self.values(records, length, sequence & _32_BITS, domain, now))

    def stamp(self, octets: np.ndarray, records: int, sequence: int, domain: int, now: float) -> None:
        """Write the headers of Messages with so many records each; `octets` is of shape (count, length)."""
        count, length = octets.shape
        if count == 1:
            octets[0, : self.size] = np.frombuffer(self.pack(records, length, sequence, domain, now), np.uint8)
            return
        header = octets.reshape(-1).view(self._view(length))
        numbers = (sequence + np.arange(count) * self.counted(1, records)) & _32_BITS
        for name, value in zip(self.names, self.values(records, length, numbers, domain, now), strict=True):
            header[name] = value

    @classmethod
    @lru_cache(256)
    def _view(cls, length: int) -> np.dtype:
        """Messages of this length, of which only the header has names."""
        codes = [f">u{struct.calcsize('!' + code)}" for code in cls.header.format.lstrip("!")]
        offsets = np.cumsum([0, *(np.dtype(code).itemsize for code in codes[:-1])]).tolist()
        return np.dtype({"names": list(cls.names), "formats": codes, "offsets": offsets, "itemsize": length})


class NetFlow9(WireFormat):
    """NetFlow v9: the sequence counts packets, times of flows are milliseconds of uptime."""

    version = 9
    size = HEADER9.size
    template_set, options_set = TEMPLATE_FLOWSET, OPTIONS_FLOWSET
    align = 4
    by_records = False
    header = HEADER9
    names: tuple[str, ...] = ("version", "count", "uptime", "time", "sequence", "domain")

    def __init__(self, now: float) -> None:
        self.boot_ms = int((now - _BOOT_BEFORE) * 1000)
        """When it began to be up, as it says."""

    def values(self, records: int, length: int, sequence: Any, domain: int, now: float) -> tuple:
        now_ms = int(now) * 1000  # as the header has it: collectors take the difference
        return self.version, records, (now_ms - self.boot_ms) & _32_BITS, int(now) & _32_BITS, sequence, domain

    def uptime(self, ms: np.ndarray) -> np.ndarray:
        """Milliseconds of uptime for milliseconds since 1970; only for times covered by `tells`."""
        return (ms - np.uint64(self.boot_ms)).astype(np.uint32)

    def tells(self, ms: np.ndarray) -> np.ndarray:
        """A mask of the times (milliseconds since 1970) that fit an uptime: from its boot until 49 days later."""
        return ms - np.uint64(self.boot_ms) <= np.uint64(_32_BITS)

    def clock_set(self, step: float) -> None:
        self.boot_ms += int(step * 1000)

    def keep(self, now: float) -> None:
        """Begin anew, as if restarted, before the uptime would not fit into 32 bits, or when the clock was set back."""
        if not 0 <= now * 1000 - self.boot_ms <= _32_BITS - _SOON_MS:
            self.boot_ms = int((now - _BOOT_BEFORE) * 1000)


class NetFlow5(NetFlow9):
    """NetFlow v5: at most 30 records of 48 octets in a packet, no templates; the sequence counts records."""

    version = 5
    size = HEADER5.size
    set_header = 0
    align = 1
    most_records = 30
    by_records = True
    header = HEADER5
    names = ("version", "count", "uptime", "time", "nanoseconds", "sequence", "type", "engine", "sampling")

    def values(self, records: int, length: int, sequence: Any, domain: int, now: float) -> tuple:
        version, count, uptime, seconds, sequence, domain = super().values(records, length, sequence, domain, now)
        return version, count, uptime, seconds, 0, sequence, domain >> 8 & 0xFF, domain & 0xFF, 0


IPFIX = WireFormat()
