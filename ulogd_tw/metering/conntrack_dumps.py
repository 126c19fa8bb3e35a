"""Reads the kernel's table of flows: times the dumps, uses a socket of its own, and hands on the results."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.logger import Logger

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.netfilter import requests
from ulogd_tw.netfilter.conntrack import Decoder
from ulogd_tw.netfilter.followed_flows import Flows
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink.nlmsg import Messages
from ulogd_tw.transports.netlink.port import ANSWER_OCTETS, GRANT, NetlinkPort

DATAGRAMS_A_READ = 8
"""Datagrams of up to 32 KiB: some 1000 flows, decoded in 2 ms; then the reactor does other work."""
ROWS_A_TURN = 8192
LEAST_GAP_S, RETRY_S = 1.0, 10.0
SHARE = 100
"""Minimum pause between dumps, as a multiple of the last one's duration: dumps take at most 1 % of the time."""
SHARE_OF_REPORTS = 10
"""The same for requested dumps: by pollinterval, by active_timeout, after a loss."""


class Dumps:
    """Dumps of one namespace into `flows`, one at a time.

    period     seconds between two of them; None: only on request by `soon`
    told       takes rows of each part to report although the flow is active
    gone       takes the rows of flows gone without an event
    settled    gives a Deferred that fires when all events until now were read
    learning   whether a dump learns flows not followed yet; the first one always does
    """

    def __init__(
        self,
        flows: Flows,
        decoder: Decoder,
        told: Callable[[Batch], None],
        gone: Callable[[Batch], None],
        settled: Callable[[], Any],
        *,
        accept: Callable[[Batch], Batch],
        period: float | None,
        learning: bool,
        asked: bool,
        zeroing: bool = False,
        namespace: str = "",
        reactor: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.flows, self._decoder = flows, decoder
        self._told, self._gone, self._settled, self._accept = told, gone, settled, accept
        self._period, self._learning, self._zeroing = period, learning, zeroing
        self._share = SHARE_OF_REPORTS if asked else SHARE
        self._reactor = reactor
        self._clock = clock
        self._port = NetlinkPort(
            self._no_event, self._no_loss, namespace=namespace, count=DATAGRAMS_A_READ, stride=ANSWER_OCTETS,
            buffer_octets=1 << 20, reactor=reactor,
        )  # fmt: skip
        self._timer: Any = None
        self._turn: Any = None
        self._running = False
        self._stopped = False
        self._zeroes = self._learns = False
        self._again: tuple[bool, bool] | None = None
        self._began = 0.0
        self._ended = float("-inf")
        self._limited = RateLimitedLog(self._reactor.seconds)
        self.took_s = 0.0
        """Duration of the last dump, in seconds."""
        self.count = 0
        """Number of complete dumps."""
        self.failures = 0
        self.log = Logger()

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the socket, and request the first dump while there is privilege for it."""
        self._port.open()
        if self._period is not None:
            self._start(learn=True, zeroing=False)

    def begin(self) -> None:
        """Read the answer to the first request, and go on."""
        self._port.start()

    def read(self, part: Callable[[Messages], None], again: int = 3) -> Any:
        """A reading of the table that changes nothing here; fires once all events until then were read too.

        One that the kernel interrupted is repeated: parts may come twice. Fails with `NetlinkError`.
        """
        request = requests.dump()
        done = self._port.request(request.kind, request.flags, request.payload, part)
        done.addErrback(self._read_again, part, again)
        return done.addCallback(lambda _: self._settled())

    def _read_again(self, failure: Any, part: Callable[[Messages], None], again: int) -> Any:
        if failure.trap(NetlinkError) and failure.value.number == errno.EINTR and again:
            return self.read(part, again - 1)
        return failure

    def stop(self) -> Any:
        self._stopped = True
        for timer in (self._timer, self._turn):
            if timer is not None and timer.active():
                timer.cancel()
        return self._port.stop()

    # --- when -------------------------------------------------------------------------------------------------------

    def soon(self, learn: bool = True, zeroing: bool = False) -> None:
        """Start a dump as soon as possible: after a loss, or on request."""
        if self._running:
            before = self._again or (False, False)
            self._again = (learn or before[0], zeroing or before[1])
            return
        gap = 0.0 if zeroing else max(LEAST_GAP_S, SHARE_OF_REPORTS * self.took_s)
        self._at(self._ended + gap, learn, zeroing)

    def _at(self, when: float, learn: bool, zeroing: bool) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(max(when - self._reactor.seconds(), 0), self._start, learn, zeroing)

    def _next(self) -> None:
        """Plan the next dump after a complete or failed one."""
        self._running = False
        self._ended = self._reactor.seconds()
        if self._stopped:
            return
        again, self._again = self._again, None
        if again is not None:
            self.soon(*again)
        elif self._period is not None and (self._learning or len(self.flows)):
            gap = max(self._period, self._share * self.took_s)
            self._at(self._began + gap, self._learning, self._zeroing)

    # --- one dump ---------------------------------------------------------------------------------------------------

    def _start(self, learn: bool, zeroing: bool = False) -> None:
        self._running = True
        self._began = self._reactor.seconds()
        self._learns, self._zeroes = learn, zeroing
        self.flows.begin(learn, zeroing)
        request = requests.dump(zero=zeroing)
        done = self._port.request(request.kind, request.flags, request.payload, self._part)
        # Missing flows count as gone only after all events before the dump are processed: these may report the end.
        done.addCallback(lambda _: self._settled())
        done.addCallbacks(lambda _: self._complete(), self._broken)
        done.addErrback(self._fault)

    def _part(self, messages: Messages) -> None:
        try:
            self._add(messages)
        except Exception as error:
            self.fault(error)

    def _add(self, messages: Messages) -> None:
        now = self._clock()
        for batch in self._decoder.decode(messages.rows, messages.lengths, now):
            batch = self._accept(batch)
            if batch.n:
                told = self.flows.add(batch, int(now * 1000))
                if told is not None and told.n:
                    self._told(told)

    def _complete(self) -> None:
        self.took_s = self._reactor.seconds() - self._began
        self.count += 1
        self._hand_on(self.flows.finish())

    def _hand_on(self, batches: Iterator[Batch]) -> None:
        """Hand on a part of the vanished flows, then give the reactor its turn."""
        rows = 0
        for batch in batches:
            self._gone(batch)
            rows += batch.n
            if rows >= ROWS_A_TURN and not self._stopped:
                self._turn = self._reactor.callLater(0, self._hand_on, batches)
                return
        self._next()

    def _broken(self, failure: Any) -> None:
        error = failure.trap(NetlinkError) and failure.value
        self.flows.abandon()
        if self._stopped:
            return
        self.failures += 1
        remedy = GRANT if error.number in (errno.EPERM, errno.EACCES) else "trying again"
        text = "reading the kernel's table of flows: {why}; {remedy}"
        self._limited.say(self.log.error, "dump", text, why=str(error), remedy=remedy)
        self._running, self._again = False, None
        self._ended = self._reactor.seconds()
        if self._period is not None:
            self._at(self._ended + min(self._period, RETRY_S), self._learns, self._zeroes)

    def _fault(self, failure: Any) -> None:
        self.fault(failure.value)
        if self._running:
            self.flows.abandon()
            self._next()

    def fault(self, error: Exception) -> None:
        """To be replaced: takes an exception of a callback."""
        raise error

    def _no_event(self, messages: Messages) -> None:
        """Never called: this socket joins no group."""

    def _no_loss(self, n: int) -> None:
        """The kernel resumes a dump where it stopped, so nothing of it is lost."""
