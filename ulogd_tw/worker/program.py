"""The life of a worker: it runs its share of the stacks, hands on what there is each second, ends with the service."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ulogd_tw import config as configuration
from ulogd_tw import memory, registry, tap
from ulogd_tw.built import Built
from ulogd_tw.collecting.workers.decoded import Decoded
from ulogd_tw.collecting.workers.link import Ended, Happened, Known, Line, Link, Order, Parts, Rows, Shown, Told
from ulogd_tw.collecting.workers.plan import UNTOLD, Plan, directory_of
from ulogd_tw.collecting.workers.sockets import Owner
from ulogd_tw.core import durable
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.worker.cut import Adding, Share, cut

_LATEST_S = 1.0
"""Seconds between two parts of an interval."""
_AFTER_S = 0.003
"""Seconds after the end of an interval, so that the rows before it are here."""
_MOST_UNTAKEN = 256 << 20
"""Octets that the service has not taken yet; further rows are dropped."""
_UNTAKEN = 64 << 20
"""From here on groups rather grow here than wait on the way."""
_REST = 20
"""So many times as long as it takes to tell what is known of exporters, it is not told again."""
_LIST_S = 2.0
"""Seconds between two lists of exporters, at least; more of them come more seldom."""
_LISTED_IN_A_SECOND = 500
_SHOWN_ROWS = 4096
"""Rows of a batch that are shown to somebody who looks at them."""
_SHOWN_OCTETS = 4 << 20
"""Nothing is shown while so much waits for the service."""
_OF_SERVICE = "ulogd_tw.service.Ulogd"
"""The namespace of lines that the service writes itself."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(told: bytes) -> None:
    """Run until the service says so, or is gone. `told` is JSON: the plan, the number, and descriptors."""
    for number in _SIGNALS:  # a terminal and systemd send them to all processes
        signal.signal(number, signal.SIG_IGN)
    found = json.loads(told)
    plan = Plan(**found["plan"])
    config = configuration.parse(plan.text, plan.file)
    tap.make_reactor(config)
    memory.keep_freed_memory()
    Program(plan, config, Owner(*found["owner"]), Decoded(found["decoded"]), found["link"]).run()


def _lookup(name: str, position: str) -> type[Plugin]:
    return Adding if name == "AGGREGATE" else registry.lookup(name, position)


class Noted:
    """In place of a ledger: how far the COLLECTOR has come is known to the service at any moment."""

    def __init__(self, decoded: Decoded, counters: Any) -> None:
        self._decoded, self._counters = decoded, counters
        self._decoding = False

    # a ledger

    def receive(self) -> None:
        """Rows are passed on next. Those of datagrams count when all that were read together are decoded."""
        if not self._decoding:
            self._decoded.decode(self._counters.rows_received, self._counters.figures["sets_parked"]())

    def emit(self, batch: Batch) -> None:
        """They are passed on."""

    def settle(self) -> None:
        """Some were left out."""

    # a watch of listeners

    def read(self, datagrams: int) -> None:
        """So many datagrams have been read."""
        self._decoded.read(datagrams)

    def hand(self) -> None:
        """All that were read are decoded next."""
        self._decoding = True

    def handed(self, datagrams: int) -> None:
        """They have been decoded, and their rows passed on."""
        self._decoding = False
        self._decoded.end(datagrams)
        self.receive()


class Window:
    """A further child of a node, which shows the rows that the node passes on."""

    def __init__(self, node: Any, show: Callable[[str, Batch], None]) -> None:
        self._node, self._show = node, show
        node.children = [self, *node.children]

    def receive(self, batch: Batch) -> None:
        """Rows come."""
        self._show(self._node.ident, batch)

    def close(self) -> None:
        """Nobody looks any more."""
        self._node.children = [child for child in self._node.children if child is not self]


class Program:
    """One worker; `link` is the descriptor of the socket to the service."""

    def __init__(self, plan: Plan, config: Any, owner: Owner, decoded: Decoded, link: int) -> None:
        from twisted.internet import reactor

        from ulogd_tw.service import Ulogd

        self._reactor: Any = reactor
        self._plan, self._number, self._decoded = plan, owner.worker, decoded
        self._socket = link
        built = Built(config, prepare=False, lookup=_lookup, workers=False)
        self._share: Share = cut(built.graph, plan.instance, self._hand)
        _want(self._share, plan)
        built.settings.stats_file = built.settings.state_dir = ""
        built.settings.reload = False
        self._ulogd = Ulogd(self._share.graph, built.settings, on_fatal=self._fatal)
        self._ulogd.events.add = self._event  # type: ignore[method-assign]  # they are the service's
        self._collector: Any = cast(Any, self._share.graph.inputs[0].plugin)
        self._collector.hears, self._collector.had = owner.hears, owner.had
        self._link = Link(reactor, self._ordered, self._alone)
        self._timer: Any = None
        self._telling: Any = None
        self._untaken: deque[tuple[int, int]] = deque()
        """Number and octets of what was told and is not taken yet."""
        self._rows_told: deque[tuple[int, int]] = deque()
        """The number of what was told, and the rows received until then."""
        self._rows_taken = 0
        self._octets = self._told = 0
        self._listed = float("-inf")
        self._ends = False
        self._until = time.time()
        self._changes = 0
        self._known_after = float("-inf")
        self._windows: list[Window] = []
        self._directory: Path | None = None

    def run(self) -> None:
        """Returns at the end."""
        from twisted.internet import protocol

        factory = protocol.Factory.forProtocol(lambda: self._link)
        factory.noisy = False
        self._reactor.adoptStreamConnection(self._socket, socket.AF_UNIX, factory)
        os.close(self._socket)
        self._reactor.run(installSignalHandlers=False)

    def _begin(self, known: list[dict[str, Any]]) -> None:
        """Go on with what is known of exporters."""
        from twisted.logger import globalLogBeginner

        from ulogd_tw.operating import rates, silence

        globalLogBeginner.beginLoggingTo([cast(Any, self._line)], discardBuffer=True, redirectStandardIO=False)
        self._ulogd.privilegedStartService()
        if self._plan.state_dir:
            directory = directory_of(self._plan, self._number)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._collector.keep_state(directory, self._plan.state_interval)
            self._directory = directory
        if known:
            self._collector.take_state(known)
        self._collector.ledger = noted = Noted(self._decoded, self._collector.counters)
        self._collector.watch_reads(noted)
        self._ulogd.startService()
        silence.Silence(self._ulogd, self._ulogd.settings.exporter_silent).startService()
        rates.Rates(self._ulogd).startService()
        self._later()

    def _fatal(self, text: str) -> None:
        self._link.send(Line("error", f"{self._name}: {text}"))
        self._end()

    @property
    def _name(self) -> str:
        return f"{self._plan.instance}, worker {self._number}"

    # to the service

    def _line(self, event: Any) -> None:
        """A line for the log of the service."""
        from ulogd_tw import log_lines

        level = log_lines.level_of(event)
        if level.name == "debug" or (level.name == "info" and event.get("log_namespace") == _OF_SERVICE):
            return
        self._link.send(Line(level.name, log_lines.bare(event)))

    def _event(self, kind: str, text: str, **facts: Any) -> None:
        if kind not in ("start", "mistake"):
            self._link.send(Happened(kind, text, facts))

    def _hand(self, ident: str, batch: Batch) -> bool:
        """Hand rows to an instance of the service; False: it takes no more."""
        if self._waiting > _MOST_UNTAKEN:
            return False
        self._octets += self._link.send(Rows(ident, batch))
        if self._telling is None:
            self._telling = self._reactor.callLater(0, self._tell)
        return True

    @property
    def _waiting(self) -> int:
        return self._octets + sum(octets for _, octets in self._untaken)

    def _later(self) -> None:
        now = time.time()
        ends = [end.next(now) for adding in self._share.adding.values() for end in adding.interval_ends()]
        self._timer = self._reactor.callLater(min([_LATEST_S, *ends]) + _AFTER_S, self._hand_on)

    def _hand_on(self) -> None:
        """Hand on the groups, and tell how things are."""
        self._timer = None
        self._take_parts()
        self._tell()
        self._tell_known()
        if not self._ends:
            self._later()

    def _take_parts(self, anyway: bool = False) -> None:
        for ident, adding in self._share.adding.items():
            if anyway or adding.ready or self._waiting < _UNTAKEN:
                for part in adding.take_parts():
                    self._octets += self._link.send(Parts(ident, part))

    def _tell(self) -> None:
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self._telling = None
        self._told += 1
        nodes = self._share.graph.nodes
        held = {ident: rows for ident, adding in self._share.adding.items() if (rows := adding.held_rows())}
        if not held:
            self._until = time.time()
        counters = {node.ident: node.plugin.counters.as_dict() for node in nodes}
        told = Told(self._until, self._told, counters, held)
        if self._ends or self._reactor.seconds() >= self._listed:
            exporters = self._collector.exporters()
            told = replace(told, exporters=exporters, templates=list(self._collector.each_template()))
            self._listed = self._reactor.seconds() + max(_LIST_S, len(exporters) / _LISTED_IN_A_SECOND)
        octets = self._link.send(told)
        self._untaken.append((self._told, self._octets + octets))
        self._rows_told.append((self._told, self._collector.counters.rows_received))
        self._octets = 0

    def _tell_known(self) -> None:
        """Tell of exporters over UDP what another process would need, if there is something new."""
        changes, began = self._collector.reception.datagrams.changes, time.monotonic()
        if self._ends or (changes != self._changes and began > self._known_after):
            self._changes = changes
            self._link.send(Known(self._collector.give_state()))
            self._known_after = began + _REST * (time.monotonic() - began)

    # from the service

    def _ordered(self, order: Order | Known) -> None:
        if isinstance(order, Known):
            self._begin(order.lines)
        elif order.word == "taken":
            while self._untaken and self._untaken[0][0] <= order.number:
                self._untaken.popleft()
                _, self._rows_taken = self._rows_told.popleft()
        elif order.word == "tap":
            self._tap(order.idents)
        elif order.word == "pause":
            self._collector.pause()
        elif order.word == "resume":
            self._collector.resume()
        elif order.word == "reopen":
            self._ulogd.reopen()
        elif order.word == "now":
            self._ulogd.read_now()
            self._take_parts()
            self._tell()
        elif order.word == "stop":
            self._stop(order.seconds)

    def _tap(self, idents: tuple[str, ...]) -> None:
        """Show the rows of these instances, and of no others."""
        for window in self._windows:
            window.close()
        nodes = {node.ident: node for node in self._share.graph.nodes}
        self._windows = [Window(nodes[ident], self._show) for ident in idents if ident in nodes]
        self._collector.watchers = len(self._windows)

    def _show(self, ident: str, batch: Batch) -> None:
        if self._waiting < _SHOWN_OCTETS:
            self._octets += self._link.send(Shown(ident, batch.take(slice(0, _SHOWN_ROWS))))

    def _stop(self, seconds: float) -> None:
        """End in order: what is in the kernel is read, and all goes to the service."""
        if self._ends:
            return
        self._ends = True
        if self._timer is not None:
            self._timer.cancel()
        self._ulogd.settings.stop_timeout = seconds
        from twisted.internet import defer

        defer.maybeDeferred(self._ulogd.stopService).addBoth(lambda _: self._end())

    def _end(self) -> None:
        self._ends = True
        self._take_parts(anyway=True)
        self._tell_known()
        self._tell()
        self._link.send(Ended())  # the service closes the connection, when it has read all

    def _alone(self) -> None:
        """The service has closed the connection, or is gone: the rows that it does not know of go with this process.

        Nothing more is read, as the next service may get the sockets; templates and numbers are in files already.
        """
        if self._ends:
            self._reactor.stop()
            return
        rows = self._collector.counters.rows_received - self._rows_taken
        if rows and self._directory is not None:
            with suppress(OSError):
                durable.write(self._directory / UNTOLD, lambda file: file.write(str(rows).encode()))
        os._exit(0)  # an orderly end would go on reading


def _want(share: Share, plan: Plan) -> None:
    """Let every instance give what is wanted in the service, where outputs have looked at their tables."""
    from ulogd_tw.core.plugin import ALL

    for node in share.graph.nodes:
        wants = plan.wants.get(node.ident)
        if wants is not None:
            wanted, seldom, copied = wants
            node.plugin.wanted = ALL if wanted is None else frozenset(wanted)
            node.plugin.seldom_wanted = frozenset(seldom)
            node.plugin.copied = copied
