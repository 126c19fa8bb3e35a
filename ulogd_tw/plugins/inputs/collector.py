"""COLLECTOR: a Collecting Process (RFC 7011): IPFIX over UDP, DTLS, TCP, TLS and SCTP, NetFlow and sFlow over UDP."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor

from ulogd_tw.clocks import WallClock
from ulogd_tw.collecting.counts import LISTENER
from ulogd_tw.collecting.exporter_lines import Restoring, copy, lines
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.kept_numbers import KeptNumbers
from ulogd_tw.collecting.places import places_by_descriptors
from ulogd_tw.collecting.reception import Reception, Settings
from ulogd_tw.collecting.template_cache import TemplateCache
from ulogd_tw.core.counters import Count, Gauge, Lost
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.networks import networks
from ulogd_tw.core.options import Option, boolean, number, octets, one_of, positive, seconds, words
from ulogd_tw.core.paths import output_file
from ulogd_tw.core.plugin import Plugin
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.session import Session
from ulogd_tw.peers import SCHEMES, TRANSPORTS, Entrance, options_of, parse
from ulogd_tw.transports import addresses
from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.protocols import Listener
from ulogd_tw.transports.stream_listener import is_ours
from ulogd_tw.transports.url import Url

_KINDS = dict.fromkeys(("udp", "dtls"), socket.SOCK_DGRAM) | dict.fromkeys(("tcp", "tls"), socket.SOCK_STREAM)
"""The kinds of sockets of schemes whose addresses other programs can have."""
MOST_WORKERS = 64


class COLLECTOR(Collecting):
    """Receives IPFIX, NetFlow v1, v5, v7 and v9, and sFlow v2, v4 and v5 on any number of addresses.

    IPFIX comes over UDP, DTLS, TCP, TLS and SCTP; NetFlow and sFlow come over UDP, on the same ports. A row has the
    Information Elements of the exporter's template.

    NetFlow v9 fields have IANA's name where IANA uses the same number, else their own, such as username. NetFlow v5
    fields have their own names (srcaddr, dst_mask), and are found by IANA's names too. flowStartMilliseconds and
    flowEndMilliseconds are computed from the exporter's uptime. observationDomainId is the Source ID of v9; for v5 it
    is engine type * 256 + engine ID, with templateId 5. v1 and v7 have the names of v5, domain 0 and the version as
    templateId; v7 has flags and router_sc too. Packets of v8 are refused and counted.

    An sFlow flow sample becomes the record of one packet, with the octets of the frame as octetDeltaCount and the
    sampling rate as samplingInterval. A counter sample becomes an options record. templateId is the format of the
    sample, observationDomainId the sub-agent, exporterIPv4Address or exporterIPv6Address the agent.

    A Transport Session is one TCP connection, one SCTP or DTLS association, or over UDP one source address and port to
    one listening address. For an exporter with different UDP ports for templates and data, only its address counts (see
    session_key).
    """

    name = "COLLECTOR"
    listens = opens_beside = rewires = True
    counts = (
        *Collecting.counts,
        *LISTENER,
        Gauge("sessions", "sessions", "Exporters over UDP and connections together."),
        Gauge("receive_buffer_octets", "octets", "Smallest kernel buffer in force of its UDP and DTLS sockets.", True),
        Count("datagrams_lost", "datagrams", "Datagrams the kernel dropped at our sockets; part of lost.sequence."),
        Count("datagrams_unread", "datagrams", "Datagrams waiting in the kernel at the stop, and not read in time."),
        Lost("worker", "rows", "Rows that a worker process had decoded and not handed on when it died."),
        Lost("worker_datagrams", "datagrams", "Its datagrams not decoded yet, and Sets without their template."),
        Gauge("handshakes", "handshakes", "Unfinished TLS handshakes.", True),
        Gauge("associations", "associations", "Exporters connected over DTLS.", True),
    )  # fmt: skip
    options = (
        Option("listen", words, ("udp:4739", "tcp:4739"), "Addresses to listen on, SCHEME:PORT or SCHEME:HOST:PORT, "
               f"with the schemes {SCHEMES}. Without HOST all IPv4 and IPv6 addresses, without PORT "
               "4739 (tls and dtls 4740). Example: udp:4739 tcp:192.0.2.1:4739 udp:[::1]:2055"),
        Option("batch_latency", seconds, None, "The longest time in seconds for which a small batch of records waits "
               "for more, such as 0.004. Not given: as long as the outputs and filters below allow, at most 0.25 s, "
               "or 1 s above an AGGREGATE. "
               "Over UDP, under load, up to 24 times this (not given: 0.1 s)."),
        Option("receive_buffer", octets, 64 << 20, "Octets of kernel buffer for each UDP and DTLS socket."),
        Option("session_key", one_of("auto", "strict", "address"), "auto", "Identity of an exporter over UDP. strict: "
               "address and port; address: the address; auto: address and port, until templates and data of one "
               "address arrive from different ports. The Observation Domain always counts too."),
        Option("allow", networks, (), "Networks of the exporters to accept, such as 192.0.2.0/24 2001:db8::/32. Empty: "
               "all."),
        Option("template_cache", output_file, "", "File for the templates and options data of UDP exporters, so that "
               "records can be decoded at once after a restart. Empty: none."),
        Option("max_sessions", positive, 10_000, "Maximum number of Transport Sessions of each transport (UDP, DTLS, "
               "TCP, TLS, SCTP). One more replaces a session without any record, of the network or address with "
               "the most such sessions; if all sessions have given records, it is refused."),
        Option("max_sessions_of_address", positive, 1000, "Maximum number of sessions of one address, for each "
               "transport."),
        Option("max_buffered", octets, 64 << 20, "Octets of incomplete messages, all TCP and TLS connections together. "
               "Beyond it the connections of the address that holds most of them are closed."),
        Option("idle_timeout", seconds, 1800.0, "Seconds without a message after which a UDP session and its templates "
               "are forgotten, and a connection or association is closed."),
        Option("workers", number, 1, "Number of processes that receive, decode, filter and add up rows as far as the "
               "first AGGREGATE, on the same addresses; 0: as many as cores. The kernel gives each a part of the "
               "exporters over UDP by their addresses; connections go to any of them, DTLS and SCTP to the first. "
               "1: the service does it itself."),
        Option("decode", boolean, True, "0: hand on messages as they came, a row each, with exporter, exporter_port, "
               "received_ms, carrier (datagram or stream) and message, for an output KAFKA with format=messages."),
        *options_of("listening"),
        Option("max_malformed", positive, 3, "Number of malformed messages in a row after which a TCP connection or "
               "SCTP association is closed."),
        *Collecting.decoding_options,
    )  # fmt: skip

    reactor: Any = reactor
    clock = staticmethod(time.time)

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.reception: Reception | None = None
        self.entrances: dict[str, Entrance] = {}
        """By scheme, for the schemes in `listen`."""
        self._listeners: list[Listener] = []
        self._awaited: list[Url] = []
        """Addresses of interfaces that are not there yet."""
        self._cache: TemplateCache | None = None
        self._numbers: KeptNumbers | None = None
        self._state: tuple[Path, float] | None = None
        """The directory of its state, and the seconds between two writings."""
        self._taken = False
        """Whether it has the state of a predecessor in this process."""
        self.counters.figures.setdefault("datagrams_unread", 0)
        self.counters.figures["sessions"] = lambda: self.reception.open_sessions if self.reception else 0
        self.counters.figures["datagrams_lost"] = lambda: sum(listener.lost for listener in self._listeners)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not 0 <= self.config.workers <= MOST_WORKERS:
            yield "workers", f"{self.config.workers} is not between 0 and {MOST_WORKERS}"
        if not self.config.listen:
            yield "listen", 'must name an address, such as "udp:4739 tcp:4739"'
        used = set()
        for address in self.config.listen:
            try:
                used.add(parse(address).scheme)
            except ValueError as error:
                yield "listen", str(error)
        found = [m for s, transport in TRANSPORTS.items() for m in transport.listening_mistakes(self.config, s in used)]
        yield from dict.fromkeys(found)  # TLS and DTLS share options

    def remarks(self) -> Iterator[tuple[str, str]]:
        for word in getattr(self.config.allow, "loose", ()):
            network = networks(word)[0]
            yield "allow", f"{word} is taken as {network}; write that, or the address without /{network.prefixlen}"

    def watch_reads(self, watch: Any) -> None:
        """Let a `transports.udp.Watch` know how far the listeners have come. After `open`."""
        for listener in self._listeners:
            if hasattr(listener, "watch"):
                listener.watch = watch

    # start and stop

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """The addresses are there."""
        yield from super().obstacles()
        for host in dict.fromkeys(parse(address).host for address in self.config.listen):
            if host and not is_ours(host):
                yield (
                    "listen",
                    f"no interface has {host}; the collector receives as soon as one has this address",
                    False,
                )

    def taken(self, running: Iterable[Plugin]) -> Iterator[tuple[str, str]]:
        """Addresses that another program has."""
        own = addresses.of_process()
        for url in map(parse, self.config.listen):
            kind = _KINDS.get(url.scheme)
            error = None if kind is None else addresses.taken(kind, url.host, url.port, own)
            if error is not None:
                why = error.strerror or str(error)
                yield "listen", "; ".join(filter(None, (f"listen on {url}: {why}", remedy(error, url))))

    def open(self) -> None:
        """Bind every address; `StartError` where one is taken or not allowed."""
        urls = [parse(text) for text in self.config.listen]
        self.open_reception({url.scheme for url in urls})
        for url in urls:
            try:
                self._listeners += self.entrances[url.scheme].bind(url)
            except OSError as error:
                if _may_come(error, url):
                    self.log.warn("{instance}: listen on {url}: {why}; trying again", instance=self.instance,
                                  url=str(url), why=error.strerror)  # fmt: skip
                    self._awaited.append(url)
                    continue
                self._close()
                raise StartError(f"listen on {url}: {error.strerror or error}", remedy(error, url)) from None
            except StartError:
                self._close()
                raise
        here = " ".join(str(url) for url in urls if url not in self._awaited)
        self.log.info("{instance}: listens on {here}", instance=self.instance, here=here)

    def _try_again(self) -> None:
        """Bind the addresses whose interface was not there."""
        for url in list(self._awaited):
            try:
                found = self.entrances[url.scheme].bind(url)
            except OSError as error:
                if not _may_come(error, url):
                    self._reception.say(f"listen {url}", "listen on {url}: {why}", url=str(url), why=error.strerror)
                continue
            self._awaited.remove(url)
            self._listeners += found
            for listener in found:
                listener.begin()
            self.log.info("{instance}: listens on {url} now", instance=self.instance, url=str(url))

    def open_reception(self, schemes: set[str]) -> None:
        """Set up everything except sockets. Raises `StartError`."""
        config = self.config
        terms = Terms.of(self, config.batch_latency, self.clock, exact=False)
        settings = Settings(
            config.session_key, config.max_sessions, config.max_sessions_of_address, config.allow,
            config.idle_timeout, terms, config.max_buffered, config.max_malformed,
            places_by_descriptors(config.max_sessions, len(schemes - {"udp", "dtls"})),
        )  # fmt: skip
        self.reception = reception = Reception(
            self, settings, self.reactor, WallClock(self.clock, self.reactor.seconds)
        )
        for scheme, transport in TRANSPORTS.items():
            if scheme in schemes:
                self.entrances[scheme] = transport.entrance(reception, config)
        if schemes & {"udp", "dtls"}:
            self.counters.figures["receive_buffer_octets"] = self._buffer
        if any(entrance.handshakes is not None for entrance in self.entrances.values()):
            self.counters.figures["handshakes"] = lambda: sum(e.handshakes or 0 for e in self.entrances.values())

    def _buffer(self) -> int:
        """The smallest of the buffers that the kernel has given."""
        return min((b for listener in self._listeners if (b := getattr(listener, "buffer", 0))), default=0)

    def reopen(self) -> None:
        """SIGHUP: read the certificates again."""
        for entrance in self.entrances.values():
            entrance.reload()

    def rewire(self, twin: Plugin) -> None:
        """Sessions, templates and connections go on."""
        reception = self._reception
        reception.hand_on_datagrams()
        reception.hand_on_streams()
        self.wanted, self.seldom_wanted, self.copied = twin.wanted, twin.seldom_wanted, twin.copied
        for decoder in (reception.datagrams, reception.streams):
            decoder.want(self.wanted, self.seldom_wanted, self.copied)

    def begin(self) -> None:
        self._cache = self._kept_templates()  # only now, since `wake` writes it
        if self._cache is not None and not self._taken:
            reception = self._reception
            idle, now = self.config.idle_timeout, self.clock()
            restoring = Restoring(reception.datagrams, reception.exporters, idle, now, self._places(), self.hears)
            self._cache.load(restoring, self._of_others("templates"))
        if self._numbers is not None:
            self._numbers.begin(self._reception, self._places() or ())
        for listener in self._listeners:
            listener.begin()

    def _kept_templates(self) -> TemplateCache | None:
        """The file with the templates, if there is to be one."""
        if self.config.template_cache:
            return TemplateCache(self.config.template_cache, self)
        if self._state is None:
            return None
        directory, every = self._state
        return TemplateCache(str(directory / "templates"), self, "state", every)

    # what outlives it

    def keep_state(self, directory: Path, every: float) -> None:
        """Templates, options data and Sequence Numbers go to a file; the one of template_cache goes before it."""
        self._state = directory, every
        self._numbers = numbers = KeptNumbers(str(directory / "positions"), self)
        if not self._taken:
            numbers.look(self._places() or (), self._of_others("positions"))

    def _of_others(self, name: str) -> list[Path]:
        """The files of this name of other instances, which may have had an address of ours."""
        if self._state is None:
            return []
        directory = self._state[0]
        return [path for path in directory.parent.glob(f"*/{name}") if path.parent != directory]

    def _places(self) -> list[str] | None:
        """The addresses of datagrams that it hears; None while an interface is awaited, whose address is not known."""
        if self._awaited:
            return None
        return [place for listener in self._listeners if (place := getattr(listener, "place", ""))]

    def kept(self) -> dict[str, Any]:
        if self._cache is None or self.reception is None:
            return {}
        found = {"templates": self._cache.path, "exporters": len(self.reception.exporters)}
        return found if self._numbers is None else found | {"sequence_numbers": self._numbers.path}

    def before_emitting(self, now: float) -> None:
        if self._numbers is not None:
            self._numbers.note(now)
        super().before_emitting(now)

    def give_state(self) -> Any:
        """What is known of exporters over UDP, as plain lines."""
        reception = self._reception
        return list(lines(copy(reception.datagrams, reception.exporters), numbers=True))

    def take_state(self, state: Any) -> bool:
        reception = self._reception
        idle, now = self.config.idle_timeout, self.clock()
        Restoring(reception.datagrams, reception.exporters, idle, now, self._places()).take_all(state)
        self._taken = True
        return True

    def catch_up(self) -> None:
        for listener in self._listeners:
            listener.catch_up()
        self._reception.hand_on_streams()

    @property
    def _reception(self) -> Reception:
        """After `open`."""
        assert self.reception is not None
        return self.reception

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Stop receiving, read what is already in the kernel, and hand all rows on.

        Half of the time that the stop may take is for this; what is left then is counted as not read.
        """
        reception = self._reception
        until = time.monotonic() + self.stop_within / 2
        for listener in self._listeners:
            listener.drain(until)
        yield reception.drain(until)
        self.counters.figures["datagrams_unread"] += sum(listener.unread for listener in self._listeners)
        if unread := self.counters.figures["datagrams_unread"]:
            self.log.warn("{instance}: {datagrams} not read before stop_timeout", instance=self.instance,
                          datagrams=plural(unread, "datagram was", "datagrams were"))  # fmt: skip
        yield self._close()
        if self._cache is not None:
            yield self._cache.save(reception.datagrams, reception.exporters, self.reactor.seconds())
        if self._numbers is not None:
            yield self._numbers.close()

    def _close(self) -> defer.Deferred[Any]:
        closing = [defer.maybeDeferred(listener.close) for listener in self._listeners]
        self._reception.close()
        return defer.DeferredList(closing, consumeErrors=True)

    def pause(self) -> None:
        """Exporters with connections wait; datagrams go on, and the queue counts rows without room."""
        self._reception.pause()

    def resume(self) -> None:
        self._reception.resume()

    def sessions(self) -> Iterator[Session]:
        yield from self.reception.sessions() if self.reception else ()

    def wake(self, now: float) -> float | None:
        reception = self._reception
        reception.expire()
        if self._cache is not None:
            self._cache.wake(reception.datagrams, reception.exporters, self.reactor.seconds())
        if self._numbers is not None:
            self._numbers.sync()
        for listener in self._listeners:
            listener.poll()
        if self._awaited:
            self._try_again()
        return 1.0


def _may_come(error: OSError, url: Url) -> bool:
    """Whether an address cannot be bound because its interface is not there: fe80::1%eth0, or no IPv6 on any yet."""
    if isinstance(error, socket.gaierror):
        return "%" in url.host
    return error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL)


def remedy(error: OSError, url: Url) -> str:
    """What to do where an address cannot be bound; may be empty."""
    if error.errno == errno.EADDRINUSE:
        return f"another program has it: ss -lnp 'sport = :{url.port}'"
    if error.errno == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE"
    return ""
