"""Messages of exporters as they came, many in one message of Kafka.

Octets of such a message, all numbers in network order: ``UTWM``, 1 (the version), 3 zero octets, the number n of
messages (4); then n lengths (4 each), n times of arrival in ms since 1970 (8), n ports (2), n carriers (1: 0 datagram,
1 stream), n addresses (16, IPv4 as ::ffff:a.b.c.d); then the messages after each other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, Column, Octets, strings
from ulogd_tw.core.columns import numbers as array
from ulogd_tw.core.plurals import plural

MAGIC, VERSION = b"UTWM", 1
_HEAD = struct.Struct("!4sB3xI")
_EACH = 4 + 8 + 2 + 1 + 16
"""Octets beside a message."""
_MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
NAME = 28
"""Octets of a sender's name: struct sockaddr_in6."""
_AF_INET, _AF_INET6 = 2, 10


class MistakenMessage(ValueError):
    """Octets that are no message of this form."""


@dataclass(slots=True)
class Came:
    """Messages of exporters; as columns, in the order in which they came."""

    octets: Octets
    times: np.ndarray
    """ms since 1970."""
    ports: np.ndarray
    streams: np.ndarray
    """True for those of a stream."""
    addresses: np.ndarray
    """16 octets each."""

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: np.ndarray | slice) -> Came:
        """Some of them."""
        return Came(self.octets.take(rows), self.times[rows], self.ports[rows], self.streams[rows],
                    self.addresses[rows])  # fmt: skip

    @classmethod
    def of(cls, batch: Batch) -> Came:
        """The rows of a COLLECTOR with decode=0. Raises KeyError for others."""
        column = batch.columns
        return cls(strings(column["message"]).plain(), array(column["received_ms"]), array(column["exporter_port"]),
                   _is_stream(column["carrier"]), _addresses(array(column["exporter"])))  # fmt: skip

    def written(self) -> bytes:
        """The message of Kafka with all of them."""
        octets = self.octets.plain()
        data = octets.data[octets.offsets[0] : octets.offsets[-1]]
        return b"".join((
            _HEAD.pack(MAGIC, VERSION, len(self)), octets.lengths.astype(">u4").tobytes(),
            self.times.astype(">u8").tobytes(), self.ports.astype(">u2").tobytes(),
            self.streams.astype(np.uint8).tobytes(), self.addresses.tobytes(), data.tobytes(),
        ))  # fmt: skip

    @classmethod
    def read(cls, message: bytes) -> Came:
        """What `written` gave. Raises `MistakenMessage`."""
        n = _number(message)
        lengths = np.frombuffer(message, ">u4", n, _HEAD.size).astype(np.int64)
        at = _HEAD.size + 4 * n
        times = np.frombuffer(message, ">u8", n, at).astype(np.uint64)
        ports = np.frombuffer(message, ">u2", n, at + 8 * n).astype(np.uint16)
        streams = np.frombuffer(message, np.uint8, n, at + 10 * n) != 0
        addresses = np.frombuffer(message, np.uint8, 16 * n, at + 11 * n).reshape(n, 16)
        data = np.frombuffer(message, np.uint8, offset=_HEAD.size + _EACH * n)
        if int(lengths.sum()) != len(data):
            raise MistakenMessage(f"its messages have {int(lengths.sum())} octets, but {len(data)} are there")
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(Octets(offsets, data), times, ports, streams, addresses)

    @property
    def sizes(self) -> np.ndarray:
        """Octets of each with what is beside it."""
        return self.octets.lengths + _EACH

    def names(self) -> np.ndarray:
        """(n, 28) uint8: the senders as the kernel writes them, struct sockaddr_in or sockaddr_in6."""
        found = np.zeros((len(self), NAME), np.uint8)
        ipv4 = (self.addresses[:, :12] == _MAPPED).all(1)
        found.view(np.uint16)[:, 0] = np.where(ipv4, _AF_INET, _AF_INET6)
        found[:, 2:4] = self.ports.astype(">u2").view(np.uint8).reshape(-1, 2)
        found[ipv4, 4:8] = self.addresses[ipv4, 12:]
        found[~ipv4, 8:24] = self.addresses[~ipv4]
        return found


def _number(message: bytes) -> int:
    """How many there are."""
    if len(message) < _HEAD.size:
        raise MistakenMessage(f"it has {len(message)} octets, less than a head")
    magic, version, n = _HEAD.unpack_from(message)
    if magic != MAGIC:
        raise MistakenMessage("it does not begin with UTWM; is format= as the sender has it?")
    if version != VERSION:
        raise MistakenMessage(f"its version is {version}, not {VERSION}; a newer release wrote it")
    if _HEAD.size + _EACH * n > len(message):
        raise MistakenMessage(f"it is too short for {plural(n, 'message')}")
    return n


def _is_stream(column: Column) -> np.ndarray:
    texts = strings(column)
    if isinstance(texts, Coded):
        return np.array([value == b"stream" for value in texts.values], bool)[texts.codes]
    return np.array([value == b"stream" for value in texts.to_list()], bool)


def _addresses(values: np.ndarray) -> np.ndarray:
    """Addresses as 16 octets each."""
    if values.ndim == 2:
        return np.ascontiguousarray(values.astype(">u8")).view(np.uint8).reshape(-1, 16)
    found = np.empty((len(values), 16), np.uint8)
    found[:, :12] = _MAPPED
    found[:, 12:] = np.ascontiguousarray(values.astype(">u4")).view(np.uint8).reshape(-1, 4)
    return found
