"""Netlink messages (RFC 3549, linux/netlink.h): headers, datagrams with one or many of them, acknowledgements.

All fields are in the byte order of the host.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.kernels import lib
from ulogd_tw.kernels import netlink as kernel

HEADER = struct.Struct("=IHHII")
"""Length (header included), type, flags, sequence number, port id."""
NOOP, ERROR, DONE, OVERRUN = 1, 2, 3, 4
"""Control messages; all types below `FIRST_TYPE` are."""
FIRST_TYPE = 16
DUMP_INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR: the table changed during a dump, which then may lack entries or have some twice."""


@dataclass(frozen=True, slots=True)
class Control:
    """A message of netlink itself: ERROR (`code` 0: an acknowledgement, else a negative errno), DONE, OVERRUN."""

    kind: int
    sequence: int
    code: int = 0

    def __str__(self) -> str:
        return os.strerror(-self.code) if self.code else {ERROR: "acknowledged", DONE: "done"}.get(self.kind, "overrun")


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages in order: row i of `rows` (uint8, C-contiguous, stride a multiple of 8) has `lengths[i]` octets."""

    rows: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, chosen: np.ndarray) -> Messages:
        return Messages(self.rows[chosen], self.lengths[chosen])

    def octets(self) -> Iterator[bytes]:
        """Each message as bytes (one Python step a message)."""
        for row, length in zip(self.rows, self.lengths.tolist(), strict=True):
            yield row.tobytes()[:length]


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message for the kernel."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def control(octets: bytes) -> Control:
    """The content of a control message. Raises `MessageError`."""
    if len(octets) < HEADER.size:
        raise MessageError(f"{plural(len(octets), 'octet is', 'octets are')} not a netlink message", "length")
    _, kind, _, sequence, _ = HEADER.unpack_from(octets)
    if kind in (ERROR, DONE):
        if len(octets) < HEADER.size + 4:
            if kind == ERROR:
                raise MessageError("error message without a code", "length")
            return Control(kind, sequence)
        return Control(kind, sequence, struct.unpack_from("=i", octets, HEADER.size)[0])
    return Control(kind, sequence)


def one_each(rows: np.ndarray, lengths: np.ndarray) -> bool:
    """Whether each datagram is exactly one message in one row and none is netlink's own, as for all events."""
    words = rows.view(np.uint32)
    return (
        int(lengths.max()) <= rows.shape[1]
        and bool((words[:, 0] == lengths).all())
        and int(types(rows).min()) >= FIRST_TYPE
        and int(lengths.min()) >= HEADER.size
    )


def split(datagrams: Iterator[bytes] | list[bytes]) -> tuple[Messages, int]:
    """All messages of these datagrams, and how many datagrams had octets that are no message.

    One Python step a message (0.3 us), for dumps and answers: 3 M messages a second. Events come one a datagram and do
    not pass here.
    """
    found: list[bytes] = []
    broken = 0
    for octets in datagrams:
        at, end = 0, len(octets)
        while end - at >= HEADER.size:
            length = HEADER.unpack_from(octets, at)[0]
            if length < HEADER.size or at + length > end:
                break
            found.append(octets[at : at + length])
            at += (length + 3) & ~3
        broken += at < end
    return in_rows(found), broken


_BEHIND = np.zeros(512, np.uint8)
"""Behind the last message, so that the beginnings of all messages can be read alike."""


def places(datagrams: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The messages of datagrams of many messages: octets of our own, where messages lie in them, and their lengths.

    A datagram is uint8, of which the octets up to the next multiple of 4 are there. The fourth is how many datagrams
    had octets that are no message. Without the kernel one Python step a message (0.1 us): the length of each says where
    the next begins.
    """
    octets = np.concatenate([*(datagram[: len(datagram) & ~3] for datagram in datagrams), _BEHIND])
    if lib is not None:
        ends = np.cumsum([len(datagram) & ~3 for datagram in datagrams], dtype=np.int64)
        return octets, *kernel.datagrams(octets, ends)
    words = memoryview(octets).cast("I")
    found: list[int] = []
    note = found.append
    broken = 0
    at = 0
    for datagram in datagrams:
        end = at + (len(datagram) >> 2)
        while end - at >= 4:
            size = words[at]
            if size < HEADER.size or at + (size + 3 >> 2) > end:
                break
            note(at)
            at += size + 3 >> 2
        broken += at < end
        at = end
    starts = np.array(found, np.int64)
    return octets, starts << 2, octets.view(np.uint32).take(starts).astype(np.int64), broken


def in_rows(messages: list[bytes]) -> Messages:
    """Messages laid out in rows, padded with zeros."""
    lengths = np.array([len(m) for m in messages], np.int64)
    stride = (int(lengths.max()) + 7) & ~7 if messages else 8
    octets = b"".join(m.ljust(stride, b"\0") for m in messages)
    # A copy, because rows that were received can be written to as well.
    return Messages(np.frombuffer(bytearray(octets), np.uint8).reshape(len(messages), stride), lengths)


def headers(rows: np.ndarray) -> np.ndarray:
    """(n, 4) words: length, type and flags, sequence number, port id."""
    return rows.view(np.uint32)[:, :4]


def types(rows: np.ndarray) -> np.ndarray:
    """The message type of each row."""
    return rows.view(np.uint16)[:, 2]


def flags(rows: np.ndarray) -> np.ndarray:
    """The flags of each row."""
    return rows.view(np.uint16)[:, 3]
