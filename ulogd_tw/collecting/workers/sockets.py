"""The sockets of workers: one each for every UDP address; the kernel chooses by the address of the sender.

Connections are spread by the workers themselves: all of them accept from one socket. DTLS and SCTP are the first one's.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import NamedTuple

from ulogd_tw.transports.descriptors import descriptors, name_of_bound
from ulogd_tw.transports.receive_buffer import enlarge
from ulogd_tw.transports.stream_listener import bind_all
from ulogd_tw.transports.url import Url

_ATTACH_REUSEPORT_CBPF = 51
"""SO_ATTACH_REUSEPORT_CBPF (asm-generic/socket.h): the program gives the number of the socket in its group."""
_NETWORK = -0x100000
"""SKF_NET_OFF (linux/filter.h): offsets from here count from the IP header."""
_LOAD = 0x20
"""ld [k], with NETWORK as the beginning of k."""
_MULTIPLY, _SHIFT, _MODULO, _XOR, _XOR_X, _TAX, _RETURN = 0x24, 0x74, 0x94, 0xA4, 0xAC, 0x07, 0x16
"""Codes of classic BPF: mul #k, rsh #k, mod #k, xor #k, xor x, tax, ret a."""
_MOST_UNREAD = 1_000_000
"""Datagrams that are counted at the end: 64 MB hold fewer."""
_SPREAD = 0x9E3779B1
"""2^32 divided by the golden ratio: each bit of an address reaches the upper bits of the product."""


class SharedSockets:
    """The sockets of all addresses, for `count` workers. Raises OSError where one cannot be bound."""

    def __init__(self, count: int, buffer: int) -> None:
        self.count, self._buffer = count, buffer
        self.parts, self.parts_before = count, 0
        """The sockets of each UDP address, and those of them that were there before: as many as there ever were, since
        each may hold datagrams. Socket n is read by worker n modulo `count`."""
        self._sockets: list[dict[str, socket.socket]] = [{} for _ in range(count)]
        self._owners: list[tuple[str, _Socket]] = []

    def bind(self, url: Url) -> None:
        """Bind one address."""
        if url.scheme == "udp":
            self._bind_each(url)
            return
        kind = socket.SOCK_DGRAM if url.scheme == "dtls" else socket.SOCK_STREAM
        protocol = socket.IPPROTO_SCTP if url.scheme == "sctp" else 0
        for one in bind_all(url, kind, protocol):
            if kind == socket.SOCK_DGRAM:
                enlarge(one, self._buffer)
            elif not protocol:
                one.listen(1024)
            workers = range(self.count) if url.scheme in ("tcp", "tls") else (0,)
            self._give(one, workers, "")

    def _bind_each(self, url: Url) -> None:
        """A socket for each worker, and the program that chooses among them."""
        groups: dict[int, list[socket.socket]] = {}
        for one in bind_all(url, socket.SOCK_DGRAM, shared=""):
            name = name_of_bound(one)
            groups[one.family] = [one]
            before = len(descriptors.beside(name)) + 1 if descriptors.adopted(name) else 0
            self.parts, self.parts_before = max(self.parts, before), max(self.parts_before, before)
        for number in range(1, self.parts):
            for one in bind_all(url, socket.SOCK_DGRAM, shared=f"#{number}"):
                groups[one.family].append(one)
        for family, found in groups.items():
            choose(found, family)
            for number, one in enumerate(found):
                enlarge(one, self._buffer)
                self._give(one, (number % self.count,), f"#{number}" if number else "")

    def _give(self, one: socket.socket, workers: Sequence[int] | range, suffix: str) -> None:
        name = name_of_bound(one)
        owner = _Socket(one)
        self._owners.append((name + suffix, owner))
        descriptors.opened(name + suffix, owner)
        for number in workers:
            own = self._sockets[number]
            there = sum(1 for known in own if known == name or known.startswith(name + "#"))
            own[f"{name}#{there}" if there else name] = one

    def of(self, worker: int) -> dict[str, int]:
        """The descriptors of a worker by the names of their sockets."""
        return {name: one.fileno() for name, one in self._sockets[worker].items()}

    def owner(self, worker: int) -> Owner:
        """Which senders a worker hears."""
        return Owner(worker, self.count, self.parts, self.parts_before or self.parts)

    def unread(self) -> int:
        """The datagrams that nobody will read: those in sockets which are not handed on. They are taken out."""
        found, octets = 0, bytearray(1)
        for name, owner in self._owners:
            if not name.startswith("udp/") or descriptors.holds(name):
                continue
            with suppress(BlockingIOError):
                while found < _MOST_UNREAD:
                    owner.socket.recv_into(octets)
                    found += 1
        return found

    def close(self) -> None:
        """Close them; copies of workers and of a successor stay."""
        for _, owner in self._owners:
            owner.socket.close()


class Owner(NamedTuple):
    """Which senders a worker hears over UDP: number `worker` of `workers`, with `parts` sockets for each address.

    parts_before  as many sockets there were before, and what was sent until now lies in these
    """

    worker: int
    workers: int
    parts: int
    parts_before: int

    def had(self, address: str) -> bool:
        """Whether the worker gets what this sender has sent until now."""
        return share(address, self.parts_before) % self.workers == self.worker

    def hears(self, address: str) -> bool:
        """Whether it gets something of this sender."""
        return self.had(address) or share(address, self.parts) % self.workers == self.worker


class _Socket:
    """A bound socket, announced for a reload or a restart."""

    def __init__(self, bound: socket.socket) -> None:
        self.socket = bound

    def fileno(self) -> int:
        return self.socket.fileno()


def choose(group: Sequence[socket.socket], family: int) -> None:
    """Let the kernel choose among the sockets of a port by all bits of the sender's address. Raises OSError."""
    octets = program(len(group), family)
    held = ctypes.create_string_buffer(octets)
    found = struct.pack("@HP", len(octets) // 8, ctypes.addressof(held))
    group[0].setsockopt(socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, found)


def program(count: int, family: int) -> bytes:
    """Instructions of classic BPF that give a number below `count`.

    The words of the sender's address are joined by exclusive or, multiplied, and the upper half is taken modulo
    `count`. An IPv4 address gives the same number in a mapped IPv6 address.
    """
    words = (12,) if family == socket.AF_INET else (8, 12, 16, 20)
    steps = [_step(_LOAD, _NETWORK + words[0])]
    for word in words[1:]:
        steps += [_step(_TAX, 0), _step(_LOAD, _NETWORK + word), _step(_XOR_X, 0)]
    if family == socket.AF_INET6:
        steps.append(_step(_XOR, 0xFFFF))
    steps += [_step(_MULTIPLY, _SPREAD), _step(_SHIFT, 16), _step(_MODULO, count), _step(_RETURN, 0)]
    return b"".join(steps)


def share(address: str, count: int) -> int:
    """The number that the program above gives for a sender."""
    octets = ip_address(address.partition("%")[0]).packed
    value = 0xFFFF if len(octets) == 16 else 0
    for (word,) in struct.iter_unpack("!I", octets):
        value ^= word
    return ((value * _SPREAD & 0xFFFFFFFF) >> 16) % count


def _step(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value & 0xFFFFFFFF)
