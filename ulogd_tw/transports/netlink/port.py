"""A netlink socket on the reactor: multicast events in large reads, and requests with their answers.

It knows the netlink header (`nlmsg`), not what the messages mean. Whatever the kernel could not deliver is known
exactly from the socket's drop counter.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.core.errors import MessageError, StartError
from ulogd_tw.transports.bpf import DETACH_FILTER, Program
from ulogd_tw.transports.descriptors import descriptors, name_of
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.gathering import Gathering, HandsOverAll, Terms
from ulogd_tw.transports.namespace import inside
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.nlmsg import Control, Messages
from ulogd_tw.transports.receive_buffer import MOST, enlarge
from ulogd_tw.transports.slab import Slab

NETLINK_NETFILTER = 12
# linux/netlink.h and asm-generic/socket.h; Python's socket module has none of these.
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS = 1, 2, 4, 5
NETLINK_LIST_MEMBERSHIPS = 9
SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_HELD, _DROPS = 0, 8
"""Indexes of SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_DROPS."""

EVENTS_A_READ, EVENT_OCTETS = 1024, 512
"""Conntrack events have up to 350 octets; what is longer costs a copy, not a loss."""
ANSWER_OCTETS = 65536
"""The kernel fills the datagrams of a dump up to 32 KiB where the reader has room for it."""

GRANT = (
    "run it as root, or in its systemd unit set AmbientCapabilities=CAP_NET_ADMIN, or "
    "setcap cap_net_admin+ep on the interpreter that runs it"
)


def _remedy(error: OSError, namespace: str = "") -> str:
    """How to make opening the socket possible; `namespace` is the namespace that could not be entered, if any."""
    if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return "this kernel has no nfnetlink; modprobe nfnetlink may load it"
    if namespace:
        return "entering one needs CAP_SYS_ADMIN" if error.errno == errno.EPERM else "ip netns list shows the names"
    return f"this needs CAP_NET_ADMIN: {GRANT}" if error.errno in (errno.EPERM, errno.EACCES) else ""


def _memory(of: socket.socket) -> tuple[int, ...]:
    return _MEMINFO.unpack(of.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))


class _Answer:
    """A request that waits for its answer."""

    def __init__(self, kind: int, flags: int, payload: bytes, received: Callable[[Messages], None] | None) -> None:
        self.kind, self.flags, self.payload, self.received = kind, flags, payload, received
        self.done: Deferred[list[bytes]] = Deferred()
        self.sequence = 0
        self.found: list[bytes] = []
        self.interrupted = False


@implementer(IReadDescriptor)
class NetlinkPort(HandsOverAll):
    """One netlink socket.

    events   called with the `Messages` of each read that come from the kernel's multicast; they are valid only until
             it returns
    lost     called with how many messages the kernel had to drop since the last call

    `terms`: how long the socket may be left alone after a read that was not full, so that batches grow; None: never.
    `namespace`: path of the network namespace to be in, "" for ours. `program`: classic BPF that chooses among the
    events; it sees answers to requests too. `owner`: the instance, whose socket a reload or a restart hands on.
    """

    make_socket = staticmethod(socket.socket)
    make_slab = Slab
    has_meminfo = True
    drain_s = 5.0
    """Longest time for reading, at the stop, what the socket still holds."""

    def __init__(
        self,
        events: Callable[[Messages], None],
        lost: Callable[[int], None],
        *,
        groups: Sequence[int] = (),
        family: int = NETLINK_NETFILTER,
        buffer_octets: int = 256 << 20,
        reliable: bool = False,
        namespace: str = "",
        program: bytes | None = None,
        terms: Terms | None = None,
        count: int = EVENTS_A_READ,
        stride: int = EVENT_OCTETS,
        reactor: Any = None,
        owner: str = "",
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.events, self.lost = events, lost
        self._name = name_of("netlink", owner, family, namespace) if owner else ""
        self.groups, self.family = tuple(groups), family
        self.buffer_octets, self.reliable = buffer_octets, reliable
        self.namespace = namespace
        self._program = program
        self.overruns = 0
        """How often the kernel said that its queue was full (ENOBUFS); the messages are counted by `lost`."""
        self.strangers = 0
        """Messages from other processes than the kernel, which are ignored."""
        self.broken = 0
        """Datagrams with octets that are no netlink message."""
        self.effective_octets = 0
        self.buffer = 0
        """Octets that the kernel may keep, with its own overhead."""
        self.most = count
        self.log = Logger()
        self._reactor: IReactorFDSet = reactor
        self._shape = (count, stride)
        self._socket: socket.socket | None = None
        self._slab: Slab | None = None
        self._drops = 0
        self._port_id = 0
        self.adopted = False
        """Whether the socket was handed on by a former owner."""
        self.notes: dict[str, int] = {}
        """What its former owner noted."""
        self._watch = LoopingCall(self._read_drops)
        self._watch.clock = reactor
        self.gathering = Gathering(self, terms or Terms(bound=0.0, exact=True), reactor)
        self._sequence = 0
        self._waiting: deque[_Answer] = deque()
        self._stopped: Deferred | None = None

    # --- opening ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the socket and join the groups. Raises `StartError`."""
        self._socket = self._made()
        if self._name:
            descriptors.opened(self._name, self)
        try:
            self._socket.setblocking(False)
            self._port_id = self._socket.getsockname()[0]
            self._enlarge()
            self._attach()
            if self.reliable:
                self._set(NETLINK_BROADCAST_ERROR, 1)
                self._set(NETLINK_NO_ENOBUFS, 1)
            self._join()
        except OSError as error:
            self._close()
            raise StartError(f"netlink socket: {error.strerror}", _remedy(error)) from error
        count, stride = self._shape
        self._slab = self.make_slab(count, stride, max(ANSWER_OCTETS - stride, 0))

    def _made(self) -> socket.socket:
        """A bound socket: the one that was handed on, or a new one. Raises `StartError`."""
        self.adopted = False
        if self._name and (kept := descriptors.take(self._name)):
            self.adopted = True
            self.notes = dict(descriptors.notes(self._name) or {})
            self._drops = self.notes["drops"] if "drops" in self.notes else _memory(kept)[_DROPS]
            self._sequence = int.from_bytes(os.urandom(3), "big")  # answers to the former owner are none of ours
            return kept
        try:
            with inside(self.namespace):
                made = self.make_socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self.family)
        except OSError as error:
            where = f"network namespace {self.namespace}" if self.namespace else "netlink socket"
            raise StartError(f"{where}: {error.strerror}", _remedy(error, self.namespace)) from error
        try:
            made.bind((0, 0))
        except OSError as error:
            made.close()
            raise StartError(f"netlink socket: {error.strerror}", _remedy(error)) from error
        return made

    def _join(self) -> None:
        """Be in the groups, and in no other."""
        former: set[int] = set()
        if self.adopted:
            joined = self._socket.getsockopt(SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, 64)
            former = {i + 1 for i in range(8 * len(joined)) if joined[i // 8] >> i % 8 & 1}
            for group in former.difference(self.groups):
                self._set(NETLINK_DROP_MEMBERSHIP, group)
        for group in sorted(set(self.groups) - former):
            self._set(NETLINK_ADD_MEMBERSHIP, group)

    def _set(self, option: int, number: int) -> None:
        self._socket.setsockopt(SOL_NETLINK, option, number)

    def _enlarge(self) -> None:
        """Let the kernel queue `buffer_octets`: it is a limit, not an allocation."""
        wanted = min(self.buffer_octets, MOST)
        self.buffer = enlarge(self._socket, wanted)
        self.effective_octets = self.buffer // 2
        if self.effective_octets < wanted:
            self.log.warn(
                "the netlink socket queues only {effective} octets of the {wanted} asked for, and events may be lost; "
                "sysctl -w net.core.rmem_max={wanted} allows more, or run with CAP_NET_ADMIN",
                effective=self.effective_octets, wanted=wanted,
            )  # fmt: skip

    def _attach(self) -> None:
        """Have the kernel choose; where it does not take the program, whoever reads has to."""
        if self.adopted and not self._program:
            with suppress(FileNotFoundError):  # it had none
                self._socket.setsockopt(socket.SOL_SOCKET, DETACH_FILTER, 0)
        if not self._program:
            return
        try:
            Program(self._program).attach(self._socket)
        except OSError as error:
            self.log.warn("the kernel refuses an event filter, so all events are read: {why}", why=error.strerror)

    def start(self) -> None:
        """Begin to read."""
        self._watch.start(1.0, now=False)
        if self._socket is not None:
            self.gathering.begin()

    def catch_up(self) -> None:
        """Read what has come until now, without waiting for more."""
        if self._socket is not None:
            self.gathering.catch_up()

    # --- what the reactor calls -------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return "netlink"

    def connectionLost(self, reason: Failure) -> None:
        if self._socket is not None and self._stopped is None:
            self.log.error(
                "the netlink socket failed, and no more events are read: {why}", why=reason.getErrorMessage()
            )
        self._close()

    def doRead(self) -> None:
        """One read of up to a slab full of datagrams."""
        self.gathering.turn()

    @property
    def longest_s(self) -> float:
        """While a request is under way the kernel sends the next part of a dump only after a read."""
        return 0.0 if self._waiting else float("inf")

    def held(self) -> int:
        """Octets that the kernel holds for it."""
        return self._memory()[_HELD]

    def read_once(self) -> int:
        """Read up to a slab full of datagrams, and hand them over; how many there were."""
        slab = self._slab
        try:
            n = slab.receive(self._socket.fileno())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.overruns += 1
            self._read_drops()
            return slab.count
        self._read_drops()
        if n:
            self._received(slab)
        return n

    def _received(self, slab: Slab) -> None:
        lengths = slab.lengths
        rows = slab.rows[: slab.n]
        senders = slab.names.view(np.uint32)[:, 1]
        if not self._waiting and not senders.any() and nlmsg.one_each(rows, lengths):
            self.events(Messages(rows, lengths))
            return
        ours = (senders == 0).nonzero()[0].tolist()
        self.strangers += slab.n - len(ours)
        self.broken += int(slab.truncated.sum())
        messages, broken = nlmsg.split([slab.octets(i) for i in ours])
        self.broken += broken
        if len(messages):
            self._deliver(messages)

    def _deliver(self, messages: Messages) -> None:
        """Hand events on, answers to who asked; netlink's own messages are for us."""
        heads = nlmsg.headers(messages.rows)
        ours = (heads[:, 3] == self._port_id) & (heads[:, 2] != 0)
        special = ours | (nlmsg.types(messages.rows) < nlmsg.FIRST_TYPE)
        if not special.any():
            self.events(messages)
            return
        events = (~special).nonzero()[0]
        if len(events):
            self.events(messages.take(events))
        self._answers(messages.take(special.nonzero()[0]))

    # --- catching up ------------------------------------------------------------------------------------------------

    def caught_up(self) -> Deferred[None]:
        """Fires when all that the kernel has queued until now is read."""
        done: Deferred[None] = Deferred()
        self._reactor.callLater(0, self._catch_up, done)
        return done

    def _catch_up(self, done: Deferred[None]) -> None:
        # One read at a time, so that the reactor can do other things between.
        try:
            if self._socket is not None and self.read_once() == self._slab.count:
                self._reactor.callLater(0, self._catch_up, done)
                return
        except OSError as error:
            done.errback(NetlinkError(error.errno))
            return
        done.callback(None)

    # --- requests ---------------------------------------------------------------------------------------------------

    def request(
        self, kind: int, flags: int, payload: bytes, received: Callable[[Messages], None] | None = None
    ) -> Deferred[list[bytes]]:
        """Ask the kernel; fires with the messages of the answer, in order, when it is complete.

        With `received` the messages are handed to it as they come (valid until it returns) and the list is empty.
        Requests are sent one after another. `NetlinkError` when the kernel refuses, EINTR when a dump was interrupted
        by a change of the table, so that it may lack entries.
        """
        answer = _Answer(kind, flags, payload, received)
        self._waiting.append(answer)
        self._send_next()
        return answer.done

    def _send_next(self) -> None:
        # A callback may send a request at once, so the first one may be under way already.
        while self._waiting and not self._waiting[0].sequence:
            answer = self._waiting[0]
            self._sequence = self._sequence % 0xFFFFFFFF + 1
            answer.sequence = self._sequence
            try:
                if self._socket is None:
                    raise OSError(errno.ENOTCONN, "the netlink socket is closed")
                self._socket.send(nlmsg.message(answer.kind, answer.flags, answer.sequence, answer.payload))
            except OSError as error:
                self._waiting.popleft()
                answer.done.errback(NetlinkError(error.errno, str(error)))
            else:
                self.gathering.hurry()
                return

    def _answers(self, messages: Messages) -> None:
        """Messages that are not events: parts of the answer under way, and messages of netlink itself."""
        heads = nlmsg.headers(messages.rows)
        kinds, flags, sequences = nlmsg.types(messages.rows), nlmsg.flags(messages.rows), heads[:, 2]
        if self._waiting:
            answer = self._waiting[0]
            ours = sequences == answer.sequence
            answer.interrupted |= bool((flags[ours] & nlmsg.DUMP_INTERRUPTED).any())
            data = (ours & (kinds >= nlmsg.FIRST_TYPE)).nonzero()[0]
            if len(data):
                part = messages.take(data)
                if answer.received is not None:
                    answer.received(part)
                else:
                    answer.found.extend(part.octets())
        for octets in messages.take((kinds < nlmsg.FIRST_TYPE).nonzero()[0]).octets():
            try:
                self._control(nlmsg.control(octets))
            except MessageError:
                self.broken += 1

    def _control(self, control: Control) -> None:
        if control.kind == nlmsg.OVERRUN:
            self.overruns += 1
        elif control.kind in (nlmsg.ERROR, nlmsg.DONE):
            if self._waiting and self._waiting[0].sequence == control.sequence:
                answer = self._waiting.popleft()
                number = errno.EINTR if answer.interrupted and not control.code else -control.code
                if number:
                    answer.done.errback(NetlinkError(number))
                else:
                    answer.done.callback(answer.found)
                self._send_next()

    # --- loss -------------------------------------------------------------------------------------------------------

    def _read_drops(self) -> None:
        if self._socket is None:
            return
        drops = self._memory()[_DROPS]
        if drops != self._drops:
            # A 32-bit counter of the kernel, which may wrap.
            self.lost((drops - self._drops) & 0xFFFFFFFF)
            self._drops = drops

    def _memory(self) -> tuple[int, ...]:
        assert self._socket is not None
        return _memory(self._socket)

    def note(self, **notes: int) -> None:
        """Tell the next owner of the socket."""
        descriptors.note(self._name, **notes)

    @property
    def handed_on(self) -> bool:
        """Whether another owner reads on: it stays in its groups."""
        return bool(self._name) and descriptors.holds(self._name)

    # --- stopping ---------------------------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Leave the groups, read what the socket still holds, close. Fires when that is done."""
        if self._socket is None:
            return succeed(None)
        if self._stopped is not None:
            waiting: Deferred[None] = Deferred()
            self._stopped.chainDeferred(waiting)
            return waiting
        self._stopped = Deferred()
        stopped = self._stopped
        for group in () if self.handed_on else self.groups:
            try:
                self._set(NETLINK_DROP_MEMBERSHIP, group)
            except OSError as error:
                self.log.warn("leaving netlink group {group}: {why}", group=group, why=error.strerror)
        self.gathering.end()
        self._drain(self._reactor.seconds() + self.drain_s)
        return stopped

    def _drain(self, deadline: float) -> None:
        """One read at a time, so that the reactor can do other things between."""
        try:
            n = self.read_once()
        except OSError as error:
            self.log.warn("reading the rest of a netlink socket: {why}", why=error.strerror)
            n = 0
        if n and self._reactor.seconds() < deadline:
            self._reactor.callLater(0, self._drain, deadline)
            return
        if n and not self.handed_on:
            self.log.warn("netlink socket closed with messages in it after {seconds} s", seconds=self.drain_s)
        self.note(drops=self._drops)
        self._close()
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)

    def _close(self) -> None:
        if self._watch.running:
            self._watch.stop()
        if self._socket is not None:
            self.gathering.end()
            self._socket.close()
            self._socket = None
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            answer.done.errback(NetlinkError(errno.ESHUTDOWN, "the netlink socket was closed"))
