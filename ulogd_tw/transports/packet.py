"""Packets of a network device through a ring that the kernel fills: AF_PACKET with TPACKET_V3 (packet(7)).

The ring is shared memory, cut into blocks. The kernel fills a block and hands it over when it is full, or after a
while. The port copies its packets and gives it back, without a system call.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.core.errors import StartError
from ulogd_tw.transports.bpf import NOTHING, Program
from ulogd_tw.transports.descriptors import descriptors, name_of
from ulogd_tw.transports.errors import NoInterface
from ulogd_tw.transports.gathering import Gathering, HandsOverAll, Terms
from ulogd_tw.transports.namespace import inside

# packet(7), linux/if_packet.h
_SOL_PACKET, _ETH_P_ALL = 263, 3
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _RESERVE = 1, 2, 5, 6, 10, 12
_FANOUT, _IGNORE_OUTGOING = 18, 23
_TPACKET_V3, _MR_PROMISC, _FANOUT_HASH, _FANOUT_DEFRAG = 2, 1, 0, 0x8000
_SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8927, 0x8933
_STATUS, _COUNT, _FIRST, _LENGTH = 8, 12, 16, 20
"""Where struct tpacket_hdr_v1 has them in a block."""
_VLAN_VALID, _TPID_VALID = 0x10, 0x40
OUTGOING = 4
"""sll_pkttype of packets that this host sent."""
_TAG = 4
"""Octets of a VLAN tag, for which the kernel leaves room before a packet."""
_FRAME = 2048
FRAME_OCTETS = 1 << 18
"""Minimum octets of a block: it holds the longest packet, 64 kB and its headers."""
BLOCK_OCTETS = 1 << 20
_RETRY_S = 0.5
"""Seconds until a device that went down is looked at again."""
_BLOCK_S = 0.05
"""Seconds after which the kernel hands over a block that is not full: a wait of a quarter of a second takes few."""
_LEAST_BLOCK_S = 0.01
_MOST_BLOCKS = 8
"""Blocks that are read in one turn of the reactor."""

HEADER = np.dtype(
    {
        "names": ["next", "seconds", "nanoseconds", "captured", "wire", "status", "at", "tci", "tpid", "protocol",
                  "ifindex", "device", "kind"],
        "formats": ["u4", "u4", "u4", "u4", "u4", "u4", "u2", "u4", "u2", ">u2", "i4", "u2", "u1"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, 36, 50, 52, 56, 58],
        "itemsize": 60,
    }
)  # fmt: skip
"""struct tpacket3_hdr, and behind it, at 48, struct sockaddr_ll."""

GRANT = (
    "run it as root, or in its systemd unit set AmbientCapabilities=CAP_NET_RAW, or setcap cap_net_raw+ep on the "
    "interpreter that runs it"
)


@dataclass(slots=True)
class Ring(HandsOverAll):
    """Packets of some blocks: packet i is ``octets[starts[i]:starts[i] + lengths[i]]``, with the link's header.

    `octets` is a copy, and nobody else's. `heads` is a table of `HEADER`. VLAN tags, which the kernel takes out, are
    put back.
    """

    octets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    heads: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def walk(block: memoryview) -> list[int]:
    """The places of the headers of a block's packets. 0.1 us a packet: each header only points to the next one."""
    words = block.cast("I")
    at, found = words[_FIRST >> 2], []
    for _ in range(words[_COUNT >> 2]):
        found.append(at)
        at += words[at >> 2]
    return found


def read(blocks: Sequence[memoryview]) -> Ring:
    """The packets of these blocks, copied out of them."""
    sizes = [struct.unpack_from("=I", block, _LENGTH)[0] for block in blocks]
    octets = np.empty(sum(sizes) + HEADER.itemsize, np.uint8)
    places, base = [], 0
    for block, size in zip(blocks, sizes, strict=True):
        octets[base : base + size] = np.frombuffer(block, np.uint8, size)
        places.append(np.array(walk(block), np.int64) + base)
        base += size
    at = np.concatenate(places)
    heads = np.ndarray((len(octets) - HEADER.itemsize + 1,), np.dtype(f"V{HEADER.itemsize}"), octets, 0, (1,))[at]
    heads = heads.view(HEADER)
    ring = Ring(octets, at + heads["at"], heads["captured"].astype(np.int64), heads)
    _put_tags(ring)
    return ring


def _put_tags(ring: Ring) -> None:
    """The tag goes where it was: between the addresses of Ethernet and the type, for which these make room."""
    status = ring.heads["status"]
    tagged = np.flatnonzero(((status & _VLAN_VALID) != 0) & (ring.lengths >= 12))
    if not len(tagged):
        return
    starts = ring.starts[tagged]
    for place in range(12):  # forwards: they move to the front
        ring.octets[starts - _TAG + place] = ring.octets[starts + place]
    tpid = np.where((status[tagged] & _TPID_VALID) != 0, ring.heads["tpid"][tagged], np.uint16(0x8100))
    tci = ring.heads["tci"][tagged].astype(np.uint16)
    for place, value in ((8, tpid), (10, tci)):
        ring.octets[starts + place] = value >> 8
        ring.octets[starts + place + 1] = value & 0xFF
    ring.starts[tagged] -= _TAG
    ring.lengths[tagged] += _TAG
    ring.heads["wire"][tagged] += _TAG


def device(name: str) -> tuple[int, int]:
    """(index, type of device: ARPHRD number) of a network interface. Raises `StartError`; `NoInterface` without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16s24x", name.encode()[:15])
        try:
            index = fcntl.ioctl(asking, _SIOCGIFINDEX, request)
            kind = fcntl.ioctl(asking, _SIOCGIFHWADDR, request)
        except OSError as error:
            raised = NoInterface if error.errno == errno.ENODEV else StartError
            raise raised(f"interface {name}: {error.strerror}", "ip link shows the names") from None
    return struct.unpack_from("=i", index, 16)[0], struct.unpack_from("=H", kind, 16)[0]


@implementer(IReadDescriptor)
class PacketPort(HandsOverAll):
    """The ring of one interface.

    received   called with this port and the `Ring` of each turn
    lost       called with how many packets the kernel had to drop since the last call

    `program` gives the filter for the type of the device (`ulogd_tw.transports.bpf`), which also cuts packets.
    `fanout`: number of a group of sockets that share the packets of the interface by flow, None for no group.
    `owner`: the instance, whose socket and ring a reload or a restart hands on.
    """

    make_socket = staticmethod(socket.socket)

    def __init__(
        self,
        interface: str,
        received: Callable[[PacketPort, Ring], None],
        lost: Callable[[int], None],
        *,
        ring_octets: int,
        terms: Terms,
        program: Callable[[int], Program],
        promiscuous: bool = False,
        outgoing: bool = True,
        fanout: int | None = None,
        namespace: str = "",
        reactor: Any = None,
        owner: str = "",
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.interface, self.received, self.lost = interface, received, lost
        self._name = name_of("packet", owner, interface, namespace) if owner else ""
        self.index = self.device = 0
        """Of the interface: its index, and its type (ARPHRD)."""
        self.frozen = 0
        """How often the ring was full."""
        self.log = Logger()
        self._program, self._promiscuous = program, promiscuous
        self._block_s = min(_BLOCK_S, max(terms.most(), _LEAST_BLOCK_S) if terms.bound is None else terms.bound)
        self._outgoing, self._fanout, self._namespace = outgoing, fanout, namespace
        self._block_octets, self._blocks = shape(ring_octets)
        self._reactor: Any = reactor
        self._socket: socket.socket | None = None
        self._ring: mmap.mmap | None = None
        self._views: list[memoryview] = []
        self._at = 0
        self.most = _MOST_BLOCKS
        self.longest_s = float("inf")
        self.has_meminfo = False
        self.gathering = Gathering(self, terms, reactor)
        self._later: Any = None
        self._watch = LoopingCall(self._read_drops)
        self._watch.clock = reactor

    # --- opening ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the socket and its ring; packets come from now on, or from when there is such an interface.

        Raises `StartError`.
        """
        try:
            if not self._adopt():
                with inside(self._namespace):  # the socket needs privilege, what follows does not
                    self._socket = self.make_socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
                self._come_up()
            if self._name:
                descriptors.opened(self._name, self)
        except NoInterface as error:
            self.log.warn("{error}; the service waits for it", error=error)
        except OSError as error:
            self._close()
            raise StartError(f"interface {self.interface}: {error.strerror}", self._remedy(error)) from error
        except StartError:
            self._close()
            raise

    def _adopt(self) -> bool:
        """Take over the socket of a former owner with its ring, where the ring is of the same shape.

        What the former owner left in a ring of another shape is lost with it, which the kernel does not count.
        """
        kept = descriptors.take(self._name) if self._name else None
        if kept is None:
            return False
        notes = descriptors.notes(self._name) or {}
        if (notes.get("block_octets"), notes.get("blocks")) != (self._block_octets, self._blocks):
            kept.close()
            return False
        self._socket = kept
        with inside(self._namespace):
            self.index, self.device = device(self.interface)
            program = self._program(self.device)
        program.attach(kept)
        self._map(kept)
        kept.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, struct.pack("=i", not self._outgoing))
        self._set_promiscuous(kept, bool(notes.get("promiscuous")))
        self._at = notes["at"]
        return True

    def _come_up(self) -> None:
        """Make the ring. Raises OSError and `StartError`; `NoInterface` leaves everything as it was."""
        with inside(self._namespace):
            self.index, self.device = device(self.interface)
            program = self._program(self.device)
        self._set_up(program)

    def _await(self) -> None:
        """Look whether the interface has come."""
        self._later = None
        try:
            self._come_up()
        except NoInterface:
            self._later = self._reactor.callLater(_RETRY_S, self._await)
        except (OSError, StartError) as error:
            self.log.error("{interface} cannot be read: {error}", interface=self.interface, error=error)
        else:
            self.log.info("interface {interface} is there now", interface=self.interface)
            self._begin()

    def _remedy(self, error: OSError) -> str:
        if error.errno in (errno.EPERM, errno.EACCES):
            return f"it needs CAP_NET_RAW: {GRANT}"
        if error.errno == errno.ENOMEM:
            return "there is no memory for the ring: make ring smaller"
        if error.errno == errno.EINVAL and self._fanout is not None:
            return f"another socket of fanout group {self._fanout} is of another kind"
        return ""

    def _set_up(self, program: Program) -> None:
        sock = self._socket
        assert sock is not None
        sock.setblocking(False)
        sock.setsockopt(_SOL_PACKET, _VERSION, struct.pack("=i", _TPACKET_V3))
        sock.setsockopt(_SOL_PACKET, _RESERVE, struct.pack("=i", _TAG))
        program.attach(sock)
        frames = self._blocks * (self._block_octets // _FRAME)
        milliseconds = max(int(self._block_s * 1000), 1)
        request = struct.pack("=7I", self._block_octets, self._blocks, _FRAME, frames, milliseconds, 0, 0)
        sock.setsockopt(_SOL_PACKET, _RX_RING, request)
        self._map(sock)
        if not self._outgoing:
            sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, struct.pack("=i", 1))
        self._set_promiscuous(sock, False)
        # Only now, so that every packet passes the filter.
        sock.bind((self.interface, _ETH_P_ALL))
        if self._fanout is not None:
            group = self._fanout & 0xFFFF | (_FANOUT_HASH | _FANOUT_DEFRAG) << 16
            sock.setsockopt(_SOL_PACKET, _FANOUT, struct.pack("=I", group))

    def _map(self, sock: socket.socket) -> None:
        """See the ring of the socket."""
        self._ring = mmap.mmap(sock.fileno(), self._block_octets * self._blocks)
        whole = memoryview(self._ring)
        size = self._block_octets
        self._views = [whole[at : at + size] for at in range(0, len(whole), size)]

    def _set_promiscuous(self, sock: socket.socket, before: bool) -> None:
        """Let the device take packets for others too, or no more."""
        if self._promiscuous != before:
            membership = struct.pack("=iHH8x", self.index, _MR_PROMISC, 0)
            sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP if self._promiscuous else _DROP_MEMBERSHIP, membership)

    @property
    def ring_octets(self) -> int:
        """The size that the ring really has."""
        return self._block_octets * self._blocks

    def start(self) -> None:
        """Begin to read, when there is something to read."""
        if self._ring is None:
            self._later = self._reactor.callLater(_RETRY_S, self._await)
        else:
            self._begin()

    @property
    def buffer(self) -> int:
        """The size of the ring, for `Gathering`."""
        return self.ring_octets

    def _begin(self) -> None:
        self.gathering.begin()
        self._watch.start(1.0, now=False)

    # --- what the reactor calls -------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return "packet"

    def connectionLost(self, reason: Failure) -> None:
        """The device went down: an error of the socket, which works again when the device is up."""
        self.gathering.end()
        if self._socket is not None:
            self.log.warn("{interface} is down", interface=self.interface)
            self._later = self._reactor.callLater(_RETRY_S, self._again)

    def _again(self) -> None:
        """Read again; where the device has gone and come back, it is another one of the same name."""
        self._later = None
        sock = self._socket
        assert sock is not None
        self._take(self._blocks)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # reading sets it to 0
        try:
            with inside(self._namespace):
                index, _ = device(self.interface)
            if index != self.index:
                sock.bind((self.interface, _ETH_P_ALL))
                self.index = index
        except (StartError, OSError):
            self._later = self._reactor.callLater(_RETRY_S, self._again)
            return
        self.gathering.begin()

    def doRead(self) -> None:
        self.gathering.turn()

    def held(self) -> int:
        """Octets of the ring that are not the kernel's now."""
        return self._ready(self._blocks) * self._block_octets

    def read_once(self) -> int:
        """The blocks that are ready, up to a bound; how many there were."""
        return self._take(self.most)

    def catch_up(self) -> None:
        """Hand on the blocks that are ready, without waiting for more."""
        self.gathering.catch_up()

    def _ready(self, most: int) -> int:
        """How many blocks are ready, of so many at most."""
        count, size = 0, self._blocks
        while count < min(most, size) and self._views[(self._at + count) % size][_STATUS] & 1:
            count += 1
        return count

    def _take(self, most: int) -> int:
        """Read so many blocks at most; how many there were."""
        count, size = self._ready(most), self._blocks
        if count:
            blocks = [self._views[(self._at + place) % size] for place in range(count)]
            ring = read(blocks)
            for block in blocks:
                block[_STATUS : _STATUS + 4] = b"\0\0\0\0"
            self._at = (self._at + count) % size
            if len(ring):
                self.received(self, ring)
        return count

    def _read_drops(self) -> None:
        if self._socket is None:
            return
        octets = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12)  # reading sets them to 0
        _, drops, frozen = struct.unpack("=3I", octets)
        self.frozen += frozen
        if drops:
            self.lost(drops)

    # --- stopping ---------------------------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Hand on what the ring holds, and close. Fires when that is done.

        The block that the kernel is filling comes to us after its time; nothing more gets into it meanwhile.
        """
        if self._socket is None:
            return succeed(None)
        if not self._watch.running:  # never started
            self._close()
            return succeed(None)
        if self._name and descriptors.holds(self._name):
            self._finish()  # the next owner goes on at the next block
            return succeed(None)
        NOTHING.attach(self._socket)
        return deferLater(self._reactor, 2 * self._block_s + 0.01, self._finish)

    def _finish(self) -> None:
        if self._socket is not None:
            self._take(self._blocks)
            self._read_drops()
            descriptors.note(self._name, at=self._at, blocks=self._blocks, block_octets=self._block_octets,
                             promiscuous=self._promiscuous)  # fmt: skip
        self._close()

    def _close(self) -> None:
        if self._watch.running:
            self._watch.stop()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._socket is not None:
            self.gathering.end()
            self._socket.close()
            self._socket = None
        for view in self._views:
            view.release()
        self._views = []
        if self._ring is not None:
            self._ring.close()
            self._ring = None


def shape(octets: int) -> tuple[int, int]:
    """Octets of a block and number of blocks of a ring of about so many octets: two blocks at least."""
    block = BLOCK_OCTETS
    while block > FRAME_OCTETS and octets < 4 * block:
        block //= 2
    return block, max(octets // block, 2)
