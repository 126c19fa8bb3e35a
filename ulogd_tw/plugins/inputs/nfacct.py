"""NFACCT: reads the kernel's named counters (nfacct) at intervals."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any

from twisted.python.failure import Failure

from ulogd_tw.core.capabilities import NET_ADMIN
from ulogd_tw.core.counters import Count, Fault, Lost
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, boolean, number
from ulogd_tw.core.paths import network_namespace
from ulogd_tw.core.plugin import SUM
from ulogd_tw.metering.live_input import LiveInput
from ulogd_tw.netfilter import nfacct
from ulogd_tw.netfilter.counts import MALFORMED
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink import buffers
from ulogd_tw.transports.netlink.nlmsg import Messages
from ulogd_tw.transports.netlink.port import GRANT
from ulogd_tw.transports.netlink.request_port import RequestPort


class NFACCT(LiveInput):
    """Gives a row for each named counter of the kernel (nfacct), every `pollinterval` seconds and at SIGUSR2.

    ``nfacct add NAME`` makes a counter, and an iptables rule with ``-m nfacct --nfacct-name NAME`` counts with it.
    """

    name = "NFACCT"
    capabilities = frozenset({NET_ADMIN})
    otype = SUM
    provides = nfacct.KEYS
    counts = (
        Count("polls", "occasions", "Readings of the kernel's counters."),
        Count("polls_skipped", "occasions", "Readings skipped, because the previous answer had not arrived."),
        Lost("kernel", "messages", "Answers that the kernel dropped."),
        Fault("query", "occasions", "Readings refused by the kernel."),
        Fault("unasked", "messages", "Messages without a matching request."),
        *MALFORMED,
    )
    options = (
        Option("pollinterval", number, 0, "Seconds between two readings of the counters. It must be given."),
        Option("zerocounter", boolean, True, "1: set each counter to 0 when it is read, so that a row holds the counts "
               "since the previous row. 0: rows hold the totals."),
        Option("timestamp", boolean, False, "1: give oob.time.sec and oob.time.usec, the time of the reading."),
        Option("network_namespace_path", network_namespace, "",
               "Network namespace of the counters, such as /run/netns/router. Empty: the namespace of the service."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config, reactor)
        self._port: RequestPort | None = None
        self._due: float | None = None
        self._asked = 0.0
        self._asking = False
        self._complained = False

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.config.pollinterval < 1:
            yield "pollinterval", "must be given: seconds between two readings of the counters, 1 or more"

    def keys(self) -> Iterable[Key]:
        """The counter's keys, and with `timestamp` the time of the reading."""
        return nfacct.KEYS if self.config.timestamp else nfacct.COUNTER_KEYS

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the socket, and check that the kernel answers. Raises `StartError`."""
        port = RequestPort(
            self._stray,
            self._lost,
            buffer_octets=4 << 20,
            namespace=self.config.network_namespace_path,
            count=16,
            reactor=self._reactor,
        )
        port.open()
        self._port = port
        buffers.tell(self.log, self.instance, port.effective_octets)
        request = nfacct.probe()
        try:
            port.ask(request.kind, request.flags, request.payload)
        except NetlinkError as error:
            if error.number != errno.ENOENT:
                port.close()
                raise StartError(f"counters: {error}", _remedy(error.number)) from error

    def begin(self) -> None:
        self._port.start()

    def wake(self, now: float) -> float | None:
        """Request the counters when due, by a steady clock without drift."""
        interval, now = self.config.pollinterval, self._reactor.seconds()
        if self._due is None:
            self._due = now + interval
        elif now >= self._due:
            self.read_now()
            # Once only for all times that were missed.
            self._due = max(self._due, now - interval) + interval
        return self._due - now

    def read_now(self) -> None:
        """Request the counters now; SIGUSR2 does so too."""
        if self._asking or self._port is None:
            self.counters.figures["polls_skipped"] += 1
            return
        self._asking = True
        self._asked = self.clock()
        self.counters.figures["polls"] += 1
        request = nfacct.dump(self.config.zerocounter)
        asked = self._port.request(request.kind, request.flags, request.payload, self._received)
        asked.addCallbacks(self._answered, self._refused)

    def stop(self) -> Any:
        return self._port.stop() if self._port is not None else None

    # --- answers ----------------------------------------------------------------------------------------------------

    def _received(self, messages: Messages) -> None:
        try:
            counters = self.counters
            counters.messages_received += len(messages)
            counters.octets_received += int(messages.lengths.sum())
            batch = nfacct.decode(messages.octets(), self.wanted, self._asked, counters.errors)
            counters.rows_received += batch.n
            if batch.n:
                self.emit(batch)
        except Exception as error:
            self.fault(error)

    def _answered(self, _: Any) -> None:
        self._asking = False
        self._complained = False

    def _refused(self, failure: Failure) -> None:
        self._asking = False
        failure.trap(NetlinkError)
        number = failure.value.number
        if number == errno.ESHUTDOWN:
            return
        self.counters.errors["query"] += 1
        if not self._complained:
            self._complained = True
            self.log.error(
                "{instance}: the counters cannot be read: {why}; {remedy}",
                instance=self.instance, why=failure.getErrorMessage(), remedy=_remedy(number),
            )  # fmt: skip

    def _stray(self, messages: Messages) -> None:
        self.counters.errors["unasked"] += len(messages)

    def _lost(self, n: int) -> None:
        self.counters.lost["kernel"] += n


def _remedy(number: int) -> str:
    if number in (errno.EPERM, errno.EACCES):
        return f"this needs CAP_NET_ADMIN: {GRANT}"
    if number == errno.EINVAL:
        return "if the kernel has no nfnetlink_acct, modprobe nfnetlink_acct loads it"
    return "asked again at the next time"
