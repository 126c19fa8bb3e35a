"""Conversions between keys with the same meaning (times, ports), in one table.

Each entry names a key, the keys it can be made of, and a function of their columns. NTP times are those of RFC 7011
section 6.1.9 (seconds since 1900 and a 32-bit fraction).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.quantities import QUANTITIES

NTP_EPOCH = 2208988800
"""Seconds from 1900, the beginning of NTP's count, to 1970."""
LAST_MS = 1000 * (1 << 32) - 1
"""The last millisecond of a time that 32-bit seconds since 1970 reach, in 2106."""

Convert = Callable[..., np.ndarray]


@dataclass(frozen=True, slots=True)
class Conversion:
    """How `target` is made of `inputs`; `convert` takes their columns in this order."""

    target: str
    inputs: tuple[str, ...]
    convert: Convert


def as_unsigned64(column: np.ndarray) -> np.ndarray:
    """The same number with 64 bits."""
    return column.astype(np.uint64)


def ntp_to_ms(ntp: np.ndarray) -> np.ndarray:
    """Milliseconds since 1970 of NTP times; values before 1970 count in the era from 2036 on."""
    seconds = (ntp >> np.uint64(32)).astype(np.int64) - NTP_EPOCH
    seconds += np.where(seconds < 0, np.int64(1 << 32), np.int64(0))
    fraction = (ntp & np.uint64(0xFFFFFFFF)) * np.uint64(1000) >> np.uint64(32)
    return seconds.astype(np.uint64) * np.uint64(1000) + fraction


def ntp_to_integer(ntp: np.ndarray, unit: int) -> np.ndarray:
    """NTP times as rounded integers since 1970, `unit` of them a second.

    Times before 1970 count in the era from 2036 on, except 0, which stands for no time and stays 0.
    """
    seconds = (ntp >> np.uint64(32)).astype(np.int64) - NTP_EPOCH
    seconds += np.where(seconds < 0, np.int64(1 << 32), np.int64(0))
    fraction = ((ntp & np.uint64(0xFFFFFFFF)) * np.uint64(unit) + np.uint64(1 << 31)) >> np.uint64(32)
    return np.where(ntp == 0, np.uint64(0), seconds.astype(np.uint64) * np.uint64(unit) + fraction)


def ms_to_ntp(ms: np.ndarray) -> np.ndarray:
    """NTP times of milliseconds since 1970."""
    ms = as_unsigned64(ms)
    seconds = ms // np.uint64(1000) + np.uint64(NTP_EPOCH)
    fraction = ((ms % np.uint64(1000)) << np.uint64(32)) // np.uint64(1000)
    return (seconds & np.uint64(0xFFFFFFFF)) << np.uint64(32) | fraction


def seconds_to_ms(seconds: np.ndarray) -> np.ndarray:
    """Milliseconds of seconds, both since 1970."""
    return as_unsigned64(seconds) * np.uint64(1000)


def halves_to_ms(seconds: np.ndarray, microseconds: np.ndarray) -> np.ndarray:
    """Milliseconds of a time held as seconds and microseconds."""
    return as_unsigned64(seconds) * np.uint64(1000) + as_unsigned64(microseconds) // np.uint64(1000)


def uptime_to_ms(uptime: np.ndarray, boot: np.ndarray) -> np.ndarray:
    """Boot time (milliseconds since 1970) plus milliseconds of uptime."""
    return as_unsigned64(boot) + as_unsigned64(uptime)


def before_export(delta_us: np.ndarray, export_time: np.ndarray) -> np.ndarray:
    """Microseconds before the Export Time of the message (RFC 5102, flowStartDeltaMicroseconds)."""
    return as_unsigned64((export_time.astype(np.int64) * 10**6 - delta_us.astype(np.int64)) // 1000)


def ms_to_seconds(ms: np.ndarray) -> np.ndarray:
    """Full seconds of milliseconds."""
    return (ms // np.uint64(1000)).astype(np.uint32)


def ms_to_usec(ms: np.ndarray) -> np.ndarray:
    """The microseconds beyond the full second."""
    return (ms % np.uint64(1000) * np.uint64(1000)).astype(np.uint32)


def same(column: np.ndarray) -> np.ndarray:
    """The same value under another name."""
    return column


@dataclass(frozen=True, slots=True)
class Then:
    """One conversion after another."""

    first: Convert
    second: Convert

    def __call__(self, *columns: np.ndarray) -> np.ndarray:
        return self.second(self.first(*columns))


def _times(edge: str, ulogd: str) -> list[Conversion]:
    """All ways to get the start or the end of a flow."""
    target = f"flow{edge}Milliseconds"
    to_ms = [
        Conversion(target, (f"{ulogd}.sec", f"{ulogd}.usec"), halves_to_ms),
        Conversion(target, (f"flow{edge}Microseconds",), ntp_to_ms),
        Conversion(target, (f"flow{edge}Nanoseconds",), ntp_to_ms),
        Conversion(target, (f"flow{edge}Seconds",), seconds_to_ms),
        Conversion(target, (f"flow{edge}SysUpTime", "systemInitTimeMilliseconds"), uptime_to_ms),
        Conversion(target, (f"flow{edge}DeltaMicroseconds", "export_time"), before_export),
        # what saw one packet, or one event such as the end of a connection (Cisco ASA), has one time
        Conversion(target, ("observationTimeMilliseconds",), same),
        Conversion(target, ("observationTimeMicroseconds",), ntp_to_ms),
        Conversion(target, ("observationTimeNanoseconds",), ntp_to_ms),
        Conversion(target, ("observationTimeSeconds",), seconds_to_ms),
    ]
    others = []
    for name, finish in (
        (f"flow{edge}Seconds", ms_to_seconds),
        (f"{ulogd}.sec", ms_to_seconds),
        (f"{ulogd}.usec", ms_to_usec),
        (f"flow{edge}Microseconds", ms_to_ntp),
        (f"flow{edge}Nanoseconds", ms_to_ntp),
    ):
        others.append(Conversion(name, (target,), finish))
        others += [Conversion(name, c.inputs, Then(c.convert, finish)) for c in to_ms if name not in c.inputs]
    return to_ms + others


def _ports(common: str, side: str) -> list[Conversion]:
    iana = {"sport": "SourcePort", "dport": "DestinationPort"}[side]
    names = (f"tcp.{side}", f"udp.{side}", f"sctp.{side}", f"tcp{iana}", f"udp{iana}")
    return [Conversion(common, (name,), same) for name in names]


def _quantities() -> list[Conversion]:
    return [Conversion(quantity.name, (name,), as_unsigned64) for quantity in QUANTITIES for name in quantity.names]


_ALL = (
    *_times("Start", "flow.start"),
    *_times("End", "flow.end"),
    *_ports("sourceTransportPort", "sport"),
    *_ports("destinationTransportPort", "dport"),
    *_quantities(),
)

BY_TARGET: dict[str, tuple[Conversion, ...]] = {}
for _conversion in _ALL:
    BY_TARGET[_conversion.target] = (*BY_TARGET.get(_conversion.target, ()), _conversion)
