"""IFINDEX: names of interfaces, as the kernel has them at present."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw.core import columns
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, Column
from ulogd_tw.core.counters import Fault, Lost
from ulogd_tw.core.errors import MessageError, StartError
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.options import Option
from ulogd_tw.core.paths import network_namespace
from ulogd_tw.core.plugin import FLOW, PACKET, Filter, Wanted
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink.nlmsg import Messages
from ulogd_tw.transports.netlink.port import NetlinkPort
from ulogd_tw.transports.netlink.rtnetlink import NETLINK_ROUTE, RTNLGRP_LINK, all_links, link

QUEUE_OCTETS = 1 << 17
"""Octets of messages that the kernel may queue: below the limit for unprivileged processes."""
MOST_GONE = 4096
"""Number of vanished interfaces with names kept, for packets still on their way."""
_PAIRS = (("oob.in", "oob.ifindex_in"), ("oob.out", "oob.ifindex_out"))


class IFINDEX(Filter):
    """Gives the names of a packet's incoming and outgoing interfaces (oob.in, oob.out) from their numbers.

    The names follow the kernel: interfaces may come, go and be renamed. A packet without an incoming or outgoing
    interface gets an empty name, a number unknown to the kernel is printed as a number.
    """

    name = "IFINDEX"
    itype = otype = PACKET | FLOW
    counts = (
        Lost("kernel", "messages", "Changes of interfaces dropped by the kernel; all names are then read again."),
        Fault("link_message", "messages", "Messages about interfaces that could not be read."),
    )
    options = (
        Option(
            "network_namespace_path",
            network_namespace,
            "",
            "Network namespace of the interfaces, such as /run/netns/router. Empty: the namespace of the service.",
        ),
    )
    provides = ulogd_keys("oob.in", "oob.out")
    may_use = tuple(index for _, index in _PAIRS)
    make_port = NetlinkPort
    log = Logger()

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.names: dict[int, bytes] = {}
        self._gone: dict[int, None] = {}
        self._port: NetlinkPort | None = None

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return {index: False for name, index in _PAIRS if name in wanted}

    def open(self) -> Deferred[None]:
        """Follow changes, and read the present names; fires when they are known."""
        path = self.config.network_namespace_path
        port = self.make_port(
            self._received, self._lost, groups=(RTNLGRP_LINK,), family=NETLINK_ROUTE, buffer_octets=QUEUE_OCTETS,
            namespace=path, count=8, stride=2048,
        )  # fmt: skip
        port.open()
        self._port = port
        port.start()
        return self._read_all().addErrback(_refused)

    def stop(self) -> Any:
        return self._port.stop() if self._port is not None else None

    def _read_all(self) -> Deferred[None]:
        """Request all interfaces, again if an interface came or went during the answer."""
        kind, flags, payload = all_links()
        assert self._port is not None
        asked = self._port.request(kind, flags, payload, self._received)
        return asked.addCallbacks(lambda _: None, self._again)

    def _again(self, failure: Failure) -> Any:
        failure.trap(NetlinkError)
        return self._read_all() if failure.value.number == errno.EINTR else failure

    def put(self, index: int, name: str, gone: bool = False) -> None:
        """Set the name of an interface; a vanished interface keeps its name until its number is used again."""
        self.names[index] = name.encode("utf-8", "surrogateescape")
        self._gone.pop(index, None)
        if gone:
            self._gone[index] = None
            if len(self._gone) > MOST_GONE:
                oldest = next(iter(self._gone))
                del self._gone[oldest], self.names[oldest]

    def _received(self, messages: Messages) -> None:
        try:
            for octets in messages.octets():
                try:
                    if (found := link(octets)) is not None:
                        self.put(found.number, found.name, found.gone)
                except MessageError:
                    self.counters.errors["link_message"] += 1
        except Exception as error:
            self.fault(error)

    def _lost(self, n: int) -> None:
        """The kernel had no room for its messages: read all names again."""
        self.counters.lost["kernel"] += n
        self._read_all().addErrback(self._unread)

    def _unread(self, failure: Failure) -> None:
        self.log.error("{instance}: names of interfaces: {why}", instance=self.instance, why=failure.value)

    def process(self, batch: Batch) -> Batch:
        added: dict[Key, Column] = {}
        for name, index in _PAIRS:
            if name in self.wanted:
                added[known(name)] = self._named(batch, index)
        return batch.with_columns(added)

    def _named(self, batch: Batch, index: str) -> Coded:
        found = self.find(batch, index)
        if found is None:
            return columns.repeated(b"", batch.n)
        numbers = found.filled(0)
        different, codes = np.unique(numbers, return_inverse=True)
        names = [self.names.get(number, b"%d" % number) if number else b"" for number in different.tolist()]
        return Coded(codes.astype(np.int32), names)


def _refused(failure: Failure) -> None:
    failure.trap(NetlinkError)
    raise StartError(f"names of interfaces: {failure.value}") from failure.value
