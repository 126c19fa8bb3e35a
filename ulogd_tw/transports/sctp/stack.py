"""SCTP in user space as part of the reactor: packets in and out through carriers, timers from its clock.

libusrsctp knows peers by an opaque address (AF_CONN). Ours is a number: of an association's peer for as long as it
lives, of any other sender only while its packet is taken, so that nothing is kept for forged ones.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Protocol

from twisted.internet import task

from ulogd_tw.transports.sctp import usrsctp
from ulogd_tw.transports.sctp.carriers import Peer
from ulogd_tw.transports.sctp.usrsctp import ffi

_TICK = 0.02
"""Seconds between two looks at the timers of the stack; the shortest of them is the 0.2 s of a delayed SACK."""


class _Ways(Protocol):
    """A carrier, as far as the stack knows it."""

    def send(self, packet: bytes, peer: Peer) -> None: ...


ReplyPath = tuple[_Ways, Peer]


class Stack:
    """libusrsctp, of which there is one in a process. See `the_stack`."""

    def __init__(self) -> None:
        self.library = usrsctp.library()
        self.sockets: dict[Any, Any] = {}
        """By socket, what takes its events: it has a method `event`."""
        self._numbers: dict[ReplyPath, int] = {}
        self._ways: dict[int, ReplyPath] = {}
        self._users: dict[int, int] = {}
        self._ready: list[Any] = []
        self._draining = False
        self._key = os.urandom(16)
        self._passing: tuple[int, ReplyPath] | None = None
        self._timer: task.LoopingCall | None = None
        self._told = 0.0
        self._callbacks = self._make_callbacks()
        self.library.usrsctp_init_nothreads(0, self._callbacks[0], ffi.NULL)
        self.library.usrsctp_sysctl_set_sctp_ecn_enable(0)  # carriers do not hand over the bits of IP
        self.library.usrsctp_sysctl_set_sctp_asconf_enable(0)  # addresses of ours are none that a peer could use

    def _make_callbacks(self) -> tuple[Any, Any]:
        @ffi.callback("int(void *, void *, size_t, uint8_t, uint8_t)", error=0)
        def out(address: Any, packet: Any, n: int, tos: int, df: int) -> int:
            number = int(ffi.cast("uintptr_t", address))
            way = self._ways.get(number)
            if way is None and self._passing is not None and self._passing[0] == number:
                way = self._passing[1]
            if way is not None:
                way[0].send(ffi.buffer(packet, n)[:], way[1])
            return 0

        @ffi.callback("void(struct socket *, void *, int)")
        def upcall(so: Any, argument: Any, flags: int) -> None:
            self._ready.append(so)

        return out, upcall

    # peers

    def take(self, carrier: _Ways, peer: Peer, packet: bytes) -> None:
        """A packet has come."""
        way = (carrier, peer)
        number = self._numbers.get(way)
        if number is not None:
            self.library.usrsctp_conninput(ffi.cast("void *", number), packet, len(packet), 0)
            self.drain()
            return
        number = self._number(way)
        address = ffi.cast("void *", number)
        self._passing = (number, way)
        self.library.usrsctp_register_address(address)
        self.library.usrsctp_conninput(address, packet, len(packet), 0)
        self.drain()
        self._passing = None
        if number not in self._ways:
            self.library.usrsctp_deregister_address(address)

    def _number(self, way: ReplyPath) -> int:
        """The same for the same way, since the peer's cookie has it in it; not to be guessed."""
        text = repr((id(way[0]), way[1])).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest(), "big") | 1

    def hold(self, way: ReplyPath) -> int:
        """The number of a way that is kept until `release`."""
        number = self._number(way)
        if number not in self._ways:
            self._numbers[way], self._ways[number] = number, way
            if self._passing is None or self._passing[0] != number:
                self.library.usrsctp_register_address(ffi.cast("void *", number))
        self._users[number] = self._users.get(number, 0) + 1
        return number

    def release(self, number: int) -> None:
        self._users[number] -= 1
        if not self._users[number]:
            del self._users[number]
            del self._numbers[self._ways.pop(number)]
            if self._passing is None or self._passing[0] != number:
                self.library.usrsctp_deregister_address(ffi.cast("void *", number))

    def way(self, number: int) -> ReplyPath | None:
        """The path of a known number, or of the packet being handled."""
        if self._passing is not None and self._passing[0] == number:
            return self._passing[1]
        return self._ways.get(number)

    # sockets

    def open(self, clock: Any) -> Any:
        """A new socket, which must be given to `watch`. Raises OSError."""
        so = self.library.usrsctp_socket(
            usrsctp.AF_CONN, usrsctp.SOCK_STREAM, usrsctp.PROTOCOL, ffi.NULL, ffi.NULL, 0, ffi.NULL
        )
        if so == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        if self._timer is None:
            self._timer = task.LoopingCall(self._tick, clock)
            self._timer.clock = clock
            self._told = clock.seconds()
            self._timer.start(_TICK, now=False)
        return so

    def watch(self, so: Any, taker: Any) -> None:
        self.library.usrsctp_set_non_blocking(so, 1)
        self.sockets[so] = taker
        self.library.usrsctp_set_upcall(so, self._callbacks[1], ffi.NULL)

    def close(self, so: Any) -> None:
        self.sockets.pop(so, None)
        self.library.usrsctp_close(so)
        if not self.sockets and self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _tick(self, clock: Any) -> None:
        now = clock.seconds()
        elapsed = int((now - self._told) * 1000)
        if elapsed > 0:
            self._told += elapsed / 1000
            self.library.usrsctp_handle_timers(elapsed)
            self.drain()

    def drain(self) -> None:
        """Deliver waiting events to their sockets; never from within one of them."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._ready:
                ready, self._ready = self._ready, []
                for so in dict.fromkeys(ready):
                    taker = self.sockets.get(so)
                    if taker is not None:
                        taker.event()
        finally:
            self._draining = False

    # calls of the library that answer with errno

    def check(self, result: int) -> int:
        """The result of a call. Raises OSError where it is negative."""
        if result < 0:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        return result

    def set(self, so: Any, option: int, kind: str, value: Any, level: int = usrsctp.PROTOCOL) -> None:
        """Set an option of a socket, whose type in C is `kind`. Raises OSError."""
        made = ffi.new(f"{kind} *", value)
        self.check(self.library.usrsctp_setsockopt(so, level, option, made, ffi.sizeof(kind)))

    def get(self, so: Any, option: int, kind: str) -> Any:
        """Read an option of a socket; None where it has none."""
        value = ffi.new(f"{kind} *")
        length = ffi.new("socklen_t *", ffi.sizeof(kind))
        found = self.library.usrsctp_getsockopt(so, usrsctp.PROTOCOL, option, value, length)
        return value if found == 0 else None


_the_stack: Stack | None = None


def the_stack() -> Stack:
    """The stack of this process. Raises `SctpUnavailable`."""
    global _the_stack
    if _the_stack is None:
        _the_stack = Stack()
    return _the_stack
