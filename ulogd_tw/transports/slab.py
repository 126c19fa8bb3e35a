"""Many datagrams in one system call: recvmmsg into a slab of memory that is used again.

The call goes through ctypes, so no compiler is needed, and none of C declarations at each start (cffi's takes 20 ms).
Datagrams lie at equal distances, ready to be read as columns. The rest of a longer datagram goes into a second area,
whose untouched pages cost no memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from typing import Any

import numpy as np

MSG_DONTWAIT, MSG_TRUNC = 0x40, 0x20
_NAME = 28
"""Octets kept of a peer's address: struct sockaddr_in6, the longest one used here."""
_MOST_A_CALL = 1024
"""Datagrams that the kernel gives to one recvmmsg (UIO_MAXIOV, include/uapi/linux/uio.h)."""

_IOVEC = np.dtype([("base", np.uintp), ("length", np.uintp)])
"""struct iovec, and below struct msghdr and struct mmsghdr (recvmsg(2), recvmmsg(2))."""
_MSGHDR = np.dtype(
    [
        ("name", np.uintp),
        ("namelen", np.uint32),
        ("parts", np.uintp),
        ("part_count", np.uintp),
        ("control", np.uintp),
        ("controllen", np.uintp),
        ("flags", np.int32),
    ],
    align=True,
)
_MMSGHDR = np.dtype([("head", _MSGHDR), ("length", np.uint32)], align=True)

_recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)


class Slab:
    """Room for `count` datagrams. After `receive` the first `n` rows are valid, until the next `receive`,
    unless that keeps them.

    stride   octets of a row, a multiple of 8; longer datagrams go on in `spill` further octets each
    rows     (count, stride) uint8
    control  octets that the kernel may tell about each datagram beside it (cmsg)
    """

    def __init__(self, count: int, stride: int, spill: int = 0, control: int = 0) -> None:
        if stride % 8:
            raise ValueError(f"stride {stride} is no multiple of 8")
        self.count, self.stride, self.spill = count, stride, spill
        self.n = 0
        self._fault: OSError | None = None
        self.rows = np.zeros((count, stride), np.uint8)
        # Not zeroed: pages that no long datagram has touched are never there.
        self._spilled = np.empty((count, spill), np.uint8)
        self._names = np.zeros((count, _NAME), np.uint8)
        self._control = np.zeros((count, control), np.uint8)
        self._parts = np.zeros((count, 2), _IOVEC)
        self._messages = np.zeros(count, _MMSGHDR)
        self._heads = self._messages["head"]
        self._connect()

    def _connect(self) -> None:
        row = np.arange(self.count, dtype=np.uintp)
        for part, area in enumerate((self.rows, self._spilled)):
            self._parts["base"][:, part] = area.ctypes.data + row * area.shape[1]
            self._parts["length"][:, part] = area.shape[1]
        self._heads["name"] = self._names.ctypes.data + row * _NAME
        self._heads["namelen"] = _NAME
        self._heads["parts"] = self._parts.ctypes.data + row * self._parts[0].nbytes
        self._heads["part_count"] = 2 if self.spill else 1
        if room := self._control.shape[1]:
            self._heads["control"] = self._control.ctypes.data + row * room
            self._heads["controllen"] = room

    def receive(self, descriptor: int, most: int | None = None, kept: int = 0) -> int:
        """Read what is there, behind the first `kept` rows; the number of rows then, at most `most` (`count`).

        Raises OSError (ENOBUFS...), if no row is kept.
        """
        if self._fault and not kept:
            fault, self._fault = self._fault, None
            raise fault
        # The kernel has put the length that each address really had there.
        self._heads["namelen"][kept : self.n] = _NAME
        self._heads["controllen"][kept : self.n] = self._control.shape[1]
        self.n, most = kept, most or self.count
        messages = self._messages.ctypes.data
        while self.n < most:
            asked = min(most - self.n, _MOST_A_CALL)
            found = _recvmmsg(descriptor, messages + self.n * _MMSGHDR.itemsize, asked, MSG_DONTWAIT, None)
            if found < 0:
                number = ctypes.get_errno()
                if number in (errno.EAGAIN, errno.EINTR):
                    break
                fault = OSError(number, os.strerror(number))
                if not self.n:
                    raise fault
                self._fault = fault  # the kernel reports it once; received datagrams come first
                break
            self.n += found
            if found < asked:
                break
        return self.n

    @property
    def lengths(self) -> np.ndarray:
        """Octets that were received of each datagram (int64)."""
        return self._messages["length"][: self.n].astype(np.int64)

    @property
    def truncated(self) -> np.ndarray:
        """A mask of the datagrams longer than stride and spill together."""
        return (self._heads["flags"][: self.n] & MSG_TRUNC) != 0

    def octets(self, i: int) -> bytes:
        """One datagram as bytes, with what is in the spill."""
        length = int(self._messages["length"][i])
        if length <= self.stride:
            return self.rows[i].tobytes()[:length]
        return self.rows[i].tobytes() + self._spilled[i, : length - self.stride].tobytes()

    @property
    def names(self) -> np.ndarray:
        """(n, 28) uint8: the socket addresses of the senders as they are."""
        return self._names[: self.n]

    def peer(self, i: int) -> tuple[str, int]:
        """Sender of one datagram: address as text and port; an IPv4 address in an IPv6 socket as IPv4."""
        name = self._names[i].tobytes()
        family = int.from_bytes(name[:2], sys.byteorder)
        port = int.from_bytes(name[2:4], "big")
        if family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, name[4:8]), port
        if name[8:20] == b"\0" * 10 + b"\xff\xff":
            return socket.inet_ntop(socket.AF_INET, name[20:24]), port
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port

    def address(self, i: int) -> tuple[Any, ...]:
        """Sender of one datagram as `socket.sendto` wants it, with the scope of a link-local one."""
        name = self._names[i].tobytes()
        if int.from_bytes(name[:2], sys.byteorder) == socket.AF_INET:
            return self.peer(i)
        return *self.peer(i), 0, int.from_bytes(name[24:28], sys.byteorder)

    def control(self, i: int) -> bytes:
        """The control data of one datagram."""
        return self._control[i].tobytes()[: int(self._heads["controllen"][i])]

    def peers(self) -> np.ndarray:
        """(n, 3) uint64, equal only for equal senders: family, port and scope, and the address.

        Fields left unset by the kernel (padding, flow label) are left out; for comparing and grouping, not for reading.
        """
        names = self._names[: self.n]
        found = np.zeros((self.n, 3), np.uint64)
        octets = found.view(np.uint8)
        octets[:, :4] = names[:, :4]
        ipv4 = names.view(np.uint16)[:, 0] == socket.AF_INET
        octets[:, 8:24] = np.where(ipv4[:, None], np.uint8(0), names[:, 8:24])
        octets[ipv4, 8:12] = names[ipv4, 4:8]
        octets[~ipv4, 4:8] = names[~ipv4, 24:28]
        return found
