"""Many datagrams in one system call: recvmmsg into a slab of memory that is used again.

The call goes through cffi's ABI mode, so no compiler is needed. Datagrams lie at equal distances, ready to be read as
columns. The rest of a longer datagram goes into a second area, whose untouched pages cost no memory.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any

import cffi
import numpy as np

MSG_DONTWAIT, MSG_TRUNC = 0x40, 0x20
_NAME = 28
"""Octets kept of a peer's address: struct sockaddr_in6, the longest one used here."""
_MOST_A_CALL = 1024
"""Datagrams that the kernel gives to one recvmmsg (UIO_MAXIOV, include/uapi/linux/uio.h)."""

_ffi = cffi.FFI()
_ffi.cdef(
    """
    struct iovec { void *iov_base; size_t iov_len; };
    struct msghdr { void *msg_name; unsigned msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
                    void *msg_control; size_t msg_controllen; int msg_flags; };
    struct mmsghdr { struct msghdr msg_hdr; unsigned msg_len; };
    int recvmmsg(int, struct mmsghdr *, unsigned, int, void *);
    """
)
_libc = _ffi.dlopen(None)


def _offset(*fields: str) -> int:
    return _ffi.offsetof("struct mmsghdr", *fields)


_HEADS = np.dtype(
    {
        "names": ["namelen", "controllen", "flags", "length"],
        "formats": ["u4", "u8", "i4", "u4"],
        "offsets": [
            _offset("msg_hdr", "msg_namelen"),
            _offset("msg_hdr", "msg_controllen"),
            _offset("msg_hdr", "msg_flags"),
            _offset("msg_len"),
        ],
        "itemsize": _ffi.sizeof("struct mmsghdr"),
    }
)


class Slab:
    """Room for `count` datagrams. After `receive` the first `n` rows are valid, until the next `receive`.

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
        self._messages = _ffi.new("struct mmsghdr[]", count)
        self._parts = _ffi.new("struct iovec[]", 2 * count)
        self._heads = np.frombuffer(_ffi.buffer(self._messages), _HEADS)
        self._connect()

    def _connect(self) -> None:
        parts = 2 if self.spill else 1
        areas = [(self.rows, self.stride), (self._spilled, self.spill)][:parts]
        names = _ffi.cast("char *", self._names.ctypes.data)
        told, room = _ffi.cast("char *", self._control.ctypes.data), self._control.shape[1]
        for i in range(self.count):
            for part, (area, size) in enumerate(areas):
                vector = self._parts[2 * i + part]
                vector.iov_base = _ffi.cast("char *", area.ctypes.data) + i * size
                vector.iov_len = size
            head = self._messages[i].msg_hdr
            head.msg_name, head.msg_namelen = names + i * _NAME, _NAME
            head.msg_iov, head.msg_iovlen = self._parts + 2 * i, parts
            if room:
                head.msg_control, head.msg_controllen = told + i * room, room

    def receive(self, descriptor: int, most: int | None = None) -> int:
        """Read what is there, at most `most` datagrams (`count`); how many. 0 for none. Raises OSError (ENOBUFS...)."""
        if self._fault:
            fault, self._fault = self._fault, None
            raise fault
        # The kernel has put the length that each address really had there.
        self._heads["namelen"][: self.n] = _NAME
        self._heads["controllen"][: self.n] = self._control.shape[1]
        self.n, most = 0, most or self.count
        while self.n < most:
            asked = min(most - self.n, _MOST_A_CALL)
            found = _libc.recvmmsg(descriptor, self._messages + self.n, asked, MSG_DONTWAIT, _ffi.NULL)
            if found < 0:
                number = _ffi.errno
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
        return self._heads["length"][: self.n].astype(np.int64)

    @property
    def truncated(self) -> np.ndarray:
        """A mask of the datagrams longer than stride and spill together."""
        return (self._heads["flags"][: self.n] & MSG_TRUNC) != 0

    def octets(self, i: int) -> bytes:
        """One datagram as bytes, with what is in the spill."""
        length = int(self._heads["length"][i])
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
