"""The workers of one COLLECTOR, seen from the service: started, listened to, started anew when they die, ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import IO, Any

from twisted.internet import defer, protocol
from twisted.logger import Logger, LogLevel

from ulogd_tw.collecting.workers.decoded import Decoded
from ulogd_tw.collecting.workers.link import Ended, Happened, Known, Line, Link, Order, Parts, Rows, Shown, Told
from ulogd_tw.collecting.workers.plan import Plan
from ulogd_tw.collecting.workers.sockets import SharedSockets
from ulogd_tw.collecting.workers.totals import Totals
from ulogd_tw.core.graph import Node
from ulogd_tw.core.plurals import plural
from ulogd_tw.transports.descriptors import ENVIRONMENT

_BEGIN = "import sys; sys.path[:] = sys.argv[1:]; from ulogd_tw.worker import main; main(sys.stdin.buffer.read())"
_PAUSES_S = (0.1, 0.5, 1.0, 5.0, 15.0)
"""Before a worker that died is started again; longer each time."""
_GOOD_S = 60.0
"""A worker that ran for so long begins with the shortest pause again."""
_HUNG_S = 5.0
"""A worker that has told nothing for so long keeps no interval open."""
_REAP_S = 5.0
"""For a worker to end after its last message, before it is killed."""


class Worker:
    """One process, `number` from 0 on."""

    def __init__(self, pool: Pool, number: int) -> None:
        self.number = number
        self._pool = pool
        self._clock = pool.clock
        self._process: Any = None
        self._link: Link | None = None
        self._begun = 0.0
        self._deaths = 0
        self._again: Any = None
        self._stopping: defer.Deferred[None] | None = None
        self._stops = False
        self._untold: list[Any] = []
        """Rows and parts that came since it told its counters: they count only together with these."""
        self._decoded: Decoded | None = None
        self._told: Told | None = None
        self._tapped: tuple[str, ...] = ()
        self.heard = 0.0
        """When it told something last, by the reactor's clock."""
        self.until = 0.0
        """Rows that came before this time have been handed on, seconds since 1970."""
        self.exporters: list[dict[str, Any]] = []
        self.templates: list[dict[str, Any]] = []
        self.known: list[dict[str, Any]] = []
        """What it has told of exporters over UDP."""

    def start(self) -> None:
        """Start the process. An error of the system is logged, and it is tried again."""
        self._again = None
        ours, theirs = socket.socketpair()
        descriptors = self._pool.sockets.of(self.number)
        decoded = Decoded()
        told = {"plan": vars(self._pool.plan()), "number": self.number, "link": theirs.fileno(),
                "decoded": decoded.descriptor, "owner": self._pool.sockets.owner(self.number)}  # fmt: skip
        environment = dict(os.environ)
        environment[ENVIRONMENT] = json.dumps({name: [number, {}] for name, number in descriptors.items()})
        environment.pop("NOTIFY_SOCKET", None)  # what it says is not the service's
        path = (os.path.abspath(str(place)) for place in sys.path)
        try:
            with theirs, _unnamed(json.dumps(told).encode()) as plan:  # it may have passwords, so nobody else sees it
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BEGIN, *path], stdin=plan, env=environment,
                    pass_fds=(theirs.fileno(), decoded.descriptor, *descriptors.values()),
                )  # fmt: skip
        except OSError as error:
            ours.close()
            decoded.close()
            self._pool.log.error("{instance}: worker {n} cannot be started: {why}", instance=self._pool.instance,
                                 n=self.number, why=error.strerror)  # fmt: skip
            self._later()
            return
        ours.setblocking(False)
        self._decoded, self._told, self._untold, self._tapped = decoded, None, [], ()
        self._begun = self.heard = self._clock.seconds()
        self.until = self._pool.wall()
        self._link = link = Link(self._clock, self._received, self._lost)
        self._adopt(ours, link)

    def _adopt(self, ours: socket.socket, link: Link) -> None:
        factory = protocol.Factory.forProtocol(lambda: link)
        factory.noisy = False
        with ours:
            self._clock.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        self.send(Known(self._pool.known_by(self.number)))

    def send(self, message: Order | Known) -> None:
        """A message, if it runs."""
        if self._link is not None:
            self._link.send(message)

    @property
    def behind(self) -> float:
        """Rows that came before this time are all here; infinite where nobody must wait for it."""
        if self._link is None or self._clock.seconds() - self.heard > _HUNG_S:
            return float("inf")
        return self.until

    def _received(self, message: Any) -> None:
        assert self._link is not None
        self.heard = self._clock.seconds()
        if isinstance(message, (Rows, Parts)):
            self._untold.append(message)
        elif isinstance(message, Told):
            untold, self._untold = self._untold, []
            self._told, self.until = message, message.until
            self.exporters = self.exporters if message.exporters is None else message.exporters
            self.templates = self.templates if message.templates is None else message.templates
            self._pool.take(self, message, untold)
            self._follow_taps()
            self.send(Order("taken", number=message.number))
        elif isinstance(message, Known):
            self.known = message.lines
        elif isinstance(message, Shown):
            self._pool.show(message)
        elif isinstance(message, Ended):
            self._link.transport.loseConnection()
        else:
            self._pool.say(message)

    def _follow_taps(self) -> None:
        """Let it show the rows of the instances that are looked at."""
        tapped = self._pool.tapped()
        if tapped != self._tapped:
            self._tapped = tapped
            self.send(Order("tap", idents=tapped))

    def _held(self) -> dict[str, int]:
        """The rows that were in it at its end, by instance: those of the COLLECTOR were not told of yet."""
        decoded = 0 if self._decoded is None else self._decoded.rows
        instance = self._pool.instance
        if self._told is None:
            return {instance: decoded}
        return {instance: decoded - self._told.counters[instance]["rows_received"]} | self._told.held

    def _lost(self) -> None:
        """The process is gone, or goes."""
        self._link = None
        self._pool.totals.forget(self.number)
        held = self._held()
        self._pool.lose_datagrams(0 if self._decoded is None else self._decoded.undecoded)
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None
        if self._stopping is not None:
            self._pool.lose(held)
            self._reap(self._clock.seconds() + _REAP_S)
            return
        status = self._process.poll()
        if status is None:
            self._process.kill()
            status = self._process.wait()
        if self._clock.seconds() - self._begun > _GOOD_S:
            self._deaths = 0
        self.known = [_unnumbered(line) for line in self.known]
        self._pool.died(self, status, held)
        self._later()

    def _later(self) -> None:
        if self._stops:
            return
        pause = _PAUSES_S[min(self._deaths, len(_PAUSES_S) - 1)]
        self._deaths += 1
        self._again = self._clock.callLater(pause, self.start)

    def stop(self, seconds: float) -> defer.Deferred[None]:
        """Let it read what is in the kernel, hand on all, and end; after so many seconds it is killed."""
        if self._again is not None:  # what lies in its socket is read
            self._again.cancel()
            self._stops = True
            self.start()
        if self._link is None:
            return defer.succeed(None)
        stopping = self._stopping = defer.Deferred()
        self.send(Order("stop", seconds))
        timer = self._clock.callLater(seconds, self._process.kill)
        return stopping.addBoth(lambda _: timer.cancel() if timer.active() else None)

    def _reap(self, until: float) -> None:
        """Wait for its end without holding the reactor."""
        if self._process.poll() is None:
            if self._clock.seconds() < until:
                self._clock.callLater(0.01, self._reap, until)
                return
            self._process.kill()
            self._process.wait()
        stopping, self._stopping = self._stopping, None
        assert stopping is not None
        stopping.callback(None)


def _looking(node: Node) -> list[Any]:
    """The taps at a node."""
    return [child for child in node.children if not isinstance(child, Node)]


def _unnumbered(line: dict[str, Any]) -> dict[str, Any]:
    """A line without the next Sequence Number: it is not known where records have come to."""
    return {name: value for name, value in line.items() if name != "expected"}


def _unnamed(octets: bytes) -> IO[bytes]:
    """A file in memory with these octets, to be read from its beginning."""
    file = os.fdopen(os.memfd_create("plan"), "w+b")
    file.write(octets)
    file.seek(0)
    return file


class Pool:
    """All workers of one COLLECTOR. `node_of` finds the instances of the service."""

    log = Logger()

    def __init__(
        self, instance: str, plan: Callable[[], Plan], node_of: Callable[[str], Node | None], clock: Any,
        wall: Callable[[], float], tell: Callable[..., None],
    ) -> None:  # fmt: skip
        self.instance, self.plan = instance, plan
        self._node_of = node_of
        self.clock, self.wall = clock, wall
        self.tell = tell
        self.sockets: SharedSockets
        self.workers: list[Worker] = []
        self.totals = Totals(node_of)
        self.known: list[dict[str, Any]] = []
        """Of exporters, from workers that have ended."""

    def start(self) -> None:
        """Start as many workers as there are sockets for; they go on with what is known of exporters."""
        self.workers = [Worker(self, number) for number in range(self.sockets.count)]
        for worker in self.workers:
            worker.start()
        self.known = []
        self._tell_aggregates()

    def known_by(self, number: int) -> list[dict[str, Any]]:
        """The lines about the exporters of a worker, from whichever worker had them."""
        found: list[dict[str, Any]] = []
        owner, hears, had = self.sockets.owner(number), False, False
        for line in [*self.known, *(line for worker in self.workers for line in worker.known)]:
            if "peer" in line:
                hears, had = owner.hears(line["peer"]), owner.had(line["peer"])
            if hears:
                found.append(line if had else _unnumbered(line))
        return found

    def _tell_aggregates(self) -> None:
        """Let intervals wait for the workers."""
        node = self._node_of(self.instance)
        waiting = [] if node is None else list(node.children)
        while waiting:
            child = waiting.pop()
            waiting += child.children
            if getattr(child.plugin, "divided", False):
                child.plugin.arrived = self.until  # type: ignore[attr-defined]

    def order(self, word: str) -> None:
        """An order for all."""
        for worker in self.workers:
            worker.send(Order(word))

    def until(self) -> float:
        """Rows that came before this time are all here."""
        return min((worker.behind for worker in self.workers), default=float("inf"))

    def exporters(self) -> Iterator[dict[str, Any]]:
        """The exporters of all workers, some seconds old."""
        return chain.from_iterable(worker.exporters for worker in self.workers)

    def templates(self) -> Iterator[dict[str, Any]]:
        """The templates of all workers, likewise."""
        return chain.from_iterable(worker.templates for worker in self.workers)

    def stop(self, seconds: float) -> defer.Deferred[Any]:
        """End all of them in order; `known` has then what they know of exporters."""
        stopping = defer.DeferredList([worker.stop(seconds) for worker in self.workers], consumeErrors=True)
        return stopping.addCallback(lambda _: self._ended())

    def _ended(self) -> None:
        self.known = [line for worker in self.workers for line in worker.known]
        self.workers = []

    def take(self, worker: Worker, told: Told, messages: Sequence[Any]) -> None:
        """Take what a worker hands on, then its counters."""
        for message in messages:
            node = self._node_of(message.ident)
            if node is not None and isinstance(message, Rows):
                node.receive(message.batch)
            elif node is not None:
                node.plugin.merge(message.part)  # type: ignore[attr-defined]  # an AGGREGATE, as in the worker
        self.totals.take(worker.number, told.counters)

    def tapped(self) -> tuple[str, ...]:
        """The instances of workers at which somebody looks."""
        nodes = map(self._node_of, self.totals.idents)
        return tuple(node.ident for node in nodes if node is not None and _looking(node))

    def show(self, shown: Shown) -> None:
        """Show rows to whoever looks at them."""
        node = self._node_of(shown.ident)
        for child in () if node is None else _looking(node):
            child.receive(shown.batch)

    def say(self, message: Line | Happened) -> None:
        """A line of a worker's log, or an event."""
        if isinstance(message, Line):
            self.log.emit(LogLevel.lookupByName(message.level), "{text}", text=message.text)
        else:
            self.tell(message.kind, message.text, **message.facts)

    def lose(self, held: dict[str, int]) -> None:
        """Rows are gone with a worker."""
        for ident, rows in held.items():
            node = self._node_of(ident)
            if rows and node is not None:
                node.plugin.counters.lost["worker"] += rows

    def lose_datagrams(self, datagrams: int) -> None:
        """Datagrams are gone with a worker."""
        node = self._node_of(self.instance)
        if datagrams and node is not None:
            node.plugin.counters.lost["worker_datagrams"] += datagrams

    def died(self, worker: Worker, status: int, held: dict[str, int]) -> None:
        """A worker ended without an order."""
        self.lose(held)
        rows = held[self.instance] + max([rows for ident, rows in held.items() if ident != self.instance], default=0)
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        text = f"worker {worker.number} {how} with {plural(rows, 'row', 'rows')} in it; it is started again"
        self.log.error("{instance}: {text}", instance=self.instance, text=text)
        self.tell("worker_died", f"{self.instance}: {text}", instance=self.instance)
