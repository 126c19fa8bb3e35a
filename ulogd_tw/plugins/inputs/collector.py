"""COLLECTOR: a Collecting Process (RFC 7011): IPFIX over UDP, DTLS, TCP, TLS and SCTP, NetFlow and sFlow over UDP."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from twisted.internet import defer, reactor

from ulogd_tw.collecting.counts import LISTENER
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.stream_session import StreamSession, where
from ulogd_tw.collecting.template_cache import TemplateCache
from ulogd_tw.core.counters import Count, Gauge
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, octets, one_of, positive, seconds, text, words
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporters import Allowed, Exporters, networks
from ulogd_tw.ipfix.session import Session
from ulogd_tw.peers import tls
from ulogd_tw.peers.sctp import SCTP_OPTIONS, sctp_mistakes, sctp_options
from ulogd_tw.transports.errors import SctpUnavailable
from ulogd_tw.transports.slab import Slab
from ulogd_tw.transports.stream_listener import StreamConnection, StreamListener
from ulogd_tw.transports.udp import UdpListener
from ulogd_tw.transports.url import Url, parse

_FED_AT_ONCE = 4 << 20
"""Octets from streams after which batches go on without waiting for `batch_latency`."""


class COLLECTOR(Collecting):
    """Receives IPFIX, NetFlow v9 and v5, and sFlow v5 on any number of addresses.

    IPFIX comes over UDP, DTLS, TCP, TLS and SCTP; NetFlow and sFlow come over UDP, on the same ports. A row has the
    Information Elements of the exporter's template.

    NetFlow v9 fields have IANA's name where IANA uses the same number, else their own, such as username. NetFlow v5
    fields have their own names (srcaddr, dst_mask), and are found by IANA's names too. flowStartMilliseconds and
    flowEndMilliseconds are computed from the exporter's uptime. observationDomainId is the Source ID of v9; for v5 it
    is engine type * 256 + engine ID, with templateId 5.

    An sFlow flow sample becomes the record of one packet, with the octets of the frame as octetDeltaCount and the
    sampling rate as samplingInterval. A counter sample becomes an options record. templateId is the format of the
    sample, observationDomainId the sub-agent, exporterIPv4Address or exporterIPv6Address the agent.

    A Transport Session is one TCP connection, one SCTP or DTLS association, or over UDP one source address and port to
    one listening address. For an exporter with different UDP ports for templates and data, only its address counts (see
    session_key).
    """

    name = "COLLECTOR"
    listens = True
    counts = (
        *Collecting.counts,
        *LISTENER,
        Gauge("sessions", "sessions", "Exporters over UDP and connections together."),
        Count("datagrams_lost", "datagrams", "Datagrams the kernel dropped at our sockets; part of lost.sequence."),
        Gauge("handshakes", "handshakes", "Handshakes of TLS that have begun and not ended.", True),
        Gauge("associations", "associations", "Exporters that are there over DTLS.", True),
    )  # fmt: skip
    options = (
        Option("listen", words, ("udp:4739", "tcp:4739"), "Addresses to listen on, SCHEME:PORT or SCHEME:HOST:PORT, "
               "with the schemes udp, tcp, tls, dtls and sctp. Without HOST all IPv4 and IPv6 addresses, without PORT "
               "4739 (tls and dtls 4740). Example: udp:4739 tcp:192.0.2.1:4739 udp:[::1]:2055"),
        Option("batch_latency", seconds, 0.004, "Seconds for which a small batch of records waits for more. Over UDP, "
               "under load, up to 24 times this."),
        Option("receive_buffer", octets, 64 << 20, "Octets of kernel buffer for each UDP and DTLS socket."),
        Option("session_key", one_of("auto", "strict", "address"), "auto", "How exporters over UDP are told apart. "
               "strict: by address and port; address: by address; auto: by address and port, until templates and data "
               "of one address arrive from different ports. The Observation Domain always counts too."),
        Option("allow", text, "", "Networks of the exporters to accept, such as 192.0.2.0/24 2001:db8::/32. Empty: "
               "all."),
        Option("template_cache", text, "", "File that keeps the templates and options data of UDP exporters over a "
               "restart, so that their records can be read at once. Empty: none."),
        Option("max_sessions", positive, 10_000, "Maximum number of Transport Sessions; one more exporter is refused."),
        Option("max_sessions_of_address", positive, 1000, "Maximum number of UDP sessions of one address, and of its "
               "DTLS associations."),
        Option("max_buffered", octets, 64 << 20, "Octets of incomplete messages, all TCP connections together; a "
               "connection that would exceed it is closed."),
        Option("idle_timeout", seconds, 1800.0, "Seconds without a message after which a UDP session and its templates "
               "are forgotten, and a connection or association is closed."),
        *tls.LISTENING,
        Option("sctp_streams", positive, 64, "Maximum number of streams of an exporter in an SCTP association."),
        *SCTP_OPTIONS,
        Option("max_malformed", positive, 3, "Number of malformed messages in a row after which a TCP connection or "
               "SCTP association is closed."),
        *Collecting.decoding_options,
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._urls: list[Url] = []
        self._listeners: list[UdpListener | StreamListener] = []
        self._datagrams: Decoder | None = None
        self._streams: Decoder | None = None
        self._exporters = Exporters("strict", 0, 0, Allowed(()), 0)
        self._connections: dict[StreamConnection, StreamSession] = {}
        self._nobody = Session("", 0, reliable=False)
        self._cache: TemplateCache | None = None
        self._gates: dict[str, Any] = {}
        """Where TLS and DTLS come in, by scheme."""
        self.buffered = 0
        self._fed = 0
        self._unsettled: set[StreamSession] = set()
        self._drain_later: Any = None
        self._paused = False
        self.counters.figures["sessions"] = lambda: len(self._exporters)
        self.counters.figures["datagrams_lost"] = lambda: sum(listener.lost for listener in self._listeners)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.config.listen:
            yield "listen", 'must name an address, such as "udp:4739 tcp:4739"'
        for address in self.config.listen:
            try:
                parse(address)
            except ValueError as error:
                yield "listen", str(error)
        if any(address.strip().lower().startswith(("tls:", "dtls:")) for address in self.config.listen):
            yield from tls.listening_mistakes(self.config)
        try:
            networks(self.config.allow)
        except ValueError as error:
            yield "allow", str(error)
        yield from sctp_mistakes(self.config)

    # start and stop

    def open(self) -> None:
        """Bind every address; `StartError` where one is taken or not allowed."""
        self._urls = [parse(text) for text in self.config.listen]
        config = self.config
        self._datagrams, self._streams = self.decoder(), self.decoder()
        self._exporters = Exporters(
            config.session_key,
            config.max_sessions,
            config.max_sessions_of_address,
            Allowed(networks(config.allow)),
            config.idle_timeout,
        )
        self._open_gates({url.scheme for url in self._urls})
        sctp = sctp_options(config, 1, config.sctp_streams) if any(u.scheme == "sctp" for u in self._urls) else None
        try:
            for url in self._urls:
                if url.scheme == "udp":
                    self._listeners += UdpListener.bind(
                        url, self._received, self.config.receive_buffer, self.config.batch_latency
                    )
                elif url.scheme == "tls":
                    self._listeners += self._gates["tls"].bind(url, self._connected)
                elif url.scheme == "dtls":
                    self._listeners += self._gates["dtls"].bind(url, config.receive_buffer, config.batch_latency)
                elif url.scheme == "sctp":
                    from ulogd_tw.collecting.sctp_session import SctpListener

                    self._listeners += SctpListener.bind(url, sctp, self._associated)
                else:
                    self._listeners += StreamListener.bind(url, self._connected)
        except SctpUnavailable as error:
            self._close()
            raise StartError(f"listen on {url}: {error}") from None
        except OSError as error:
            self._close()
            raise StartError(f"listen on {url}: {error.strerror or error}", _remedy(error, url)) from None

    def _open_gates(self, schemes: set[str]) -> None:
        if "tls" in schemes:
            self._gates["tls"] = tls.gate(self)
        if "dtls" in schemes:
            from ulogd_tw.collecting import dtls_session

            self._gates["dtls"] = dtls_session.gate(self)
        if self._gates:
            self.counters.figures["handshakes"] = lambda: sum(map(len, self._gates.values()))

    def reopen(self) -> None:
        """SIGHUP: read the certificates anew."""
        for gate in self._gates.values():
            gate.credentials.reload()

    def begin(self) -> None:
        if self.config.template_cache:
            self._cache = TemplateCache(self.config.template_cache, self)
            self._cache.load(self._datagrams, self._exporters, self.config.idle_timeout, time.time())
        for listener in self._listeners:
            listener.begin()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Take no more, read what the kernel already has, and hand all of it on."""
        for listener in self._listeners:
            listener.drain()
        yield defer.DeferredList([defer.maybeDeferred(connection.drain) for connection in list(self._connections)])
        self._hand_on()
        self._datagrams.end()
        self._streams.end()
        yield self._close()
        if self._cache is not None:
            yield self._cache.save(self._datagrams, self._exporters, time.time())

    def _close(self) -> defer.Deferred[Any]:
        closing = [defer.maybeDeferred(listener.close) for listener in self._listeners]
        self._listeners = [listener for listener in self._listeners if isinstance(listener, UdpListener)]
        for connection in list(self._connections):
            connection.close()
        return defer.DeferredList(closing, consumeErrors=True)

    # UDP

    def _received(self, listener: UdpListener, slab: Slab) -> None:
        """All datagrams of one wake-up."""
        try:
            self._feed(listener, slab)
        except Exception as error:
            self.fault(error)

    def _feed(self, listener: UdpListener, slab: Slab) -> None:
        now = time.time()
        names = slab.names
        same = (names[1:] == names[:-1]).all(axis=1)
        starts = [0, *(np.flatnonzero(~same) + 1).tolist(), slab.n]
        rows, lengths = slab.rows[: slab.n], slab.lengths
        sessions: list[Session] = []
        for first, last in zip(starts, starts[1:], strict=False):
            session = self._session(listener, names[first].tobytes(), slab, first, now)
            sessions += [session] * (last - first)
        if (lengths > slab.stride).any() or self._nobody in sessions:
            self._feed_one_by_one(sessions, slab, lengths.tolist(), now)
        else:
            self._datagrams.feed_slab(sessions, rows, lengths, now)
        if self._datagrams.homes:
            self._unite(now)
        self.emit_all(self._datagrams, False, now)

    def _feed_one_by_one(self, sessions: list[Session], slab: Slab, lengths: list[int], now: float) -> None:
        """For datagrams longer than a row of the slab, and where some session was refused."""
        for place, session in enumerate(sessions):
            if session is self._nobody:
                self.counters.messages_received += 1
                self.counters.octets_received += lengths[place]
            else:
                self._datagrams.feed(session, slab.octets(place), now)

    def _session(self, listener: UdpListener, name: bytes, slab: Slab, place: int, now: float) -> Session:
        """The session of a datagram's sender; `_nobody` where it is refused."""
        session = self._exporters.find(listener.place, name, now)
        if session is None:
            self._forget_idle(now)
            peer = slab.peer(place)
            session = self._exporters.admit(listener.place, name, peer, now)
            if isinstance(session, str):
                self.refused(peer, session, now)
                return self._nobody
        return session

    def forget_datagrams(self, connection: Any, session: Session) -> bool:
        """An association of DTLS has ended, and its Transport Session with it; whether there was one."""
        if self._connections.pop(connection, None) is None:
            return False
        self._exporters.streams -= 1
        self.emit_all(self._datagrams, False, time.time())
        self._datagrams.forget(session)
        return True

    def say_left(self, connection: Any, reason: str) -> None:
        self.say(f"left {connection.peer}", time.time(), "{peer} has disconnected: {reason}",
                 peer=where(connection.peer), reason=reason)  # fmt: skip

    def _forget_idle(self, now: float) -> None:
        """End UDP sessions that have been silent for `idle_timeout`."""
        for session in self._exporters.forget_idle(now):
            self._datagrams.forget(session)

    def _unite(self, now: float) -> None:
        """Sessions whose templates come from another port of their address become one with it."""
        homes, self._datagrams.homes = self._datagrams.homes, []
        for home, other in homes:
            others = self._exporters.unite(home)
            for session in others:
                self._datagrams.merge(home, session)
            if others:
                self.say(f"unite {home.peer}", now, "{peer}: templates and data come from different ports ({one}, "
                         "{other}); from now on it is known by its address alone (session_key)", peer=home.peer,
                         one=home.peer_port, other=other.peer_port)  # fmt: skip

    # TCP

    def _associated(self, connection: Any) -> None:
        """An SCTP association has come up."""
        from ulogd_tw.collecting.sctp_session import Association

        self._connected(connection, Association)

    def _connected(self, connection: Any, kind: Any = None) -> None:
        if self.take_connection(connection, kind or StreamSession):
            self.say_connected(connection)

    def take_connection(self, connection: Any, kind: Any) -> bool:
        """A connection or association becomes a Transport Session, unless there are too many already."""
        now = time.time()
        if reason := self._exporters.admit_stream(connection.peer[0]):
            self.refused(connection.peer, reason, now)
            connection.close()
            return False
        self._connections[connection] = kind(self, connection, now)
        if self._paused:
            connection.pause()
        return True

    def say_connected(self, connection: Any) -> None:
        self.say(f"connected {connection.peer}", time.time(), "{peer} has connected", peer=where(connection.peer))

    def _hand_on_soon(self, octets_fed: int) -> None:
        """Let a batch from streams grow for `batch_latency`, unless it is large already."""
        self._fed += octets_fed
        if self._fed >= _FED_AT_ONCE:
            self._hand_on()
        elif self._drain_later is None:
            self._drain_later = reactor.callLater(self.config.batch_latency, self._hand_on)

    def _hand_on(self) -> None:
        later, self._drain_later = self._drain_later, None
        if later is not None and later.active():
            later.cancel()
        self._fed = 0
        try:
            now = time.time()
            self.emit_all(self._streams, True, now)
            unsettled, self._unsettled = self._unsettled, set()
            for connection in unsettled:
                connection.judge(now, settled=True)
        except Exception as error:
            self.fault(error)

    def pause(self) -> None:
        """TCP exporters wait; UDP goes on, and the queue counts what it cannot take."""
        self._paused = True
        for connection in self._connections:
            connection.pause()

    def resume(self) -> None:
        self._paused = False
        for connection in self._connections:
            connection.resume()

    # both

    def sessions(self) -> Iterator[Session]:
        yield from self._exporters
        for connection in self._connections.values():
            yield connection.session

    def _of_datagrams(self) -> Iterator[Session]:
        """Those of UDP and DTLS."""
        return (session for session in self.sessions() if not session.reliable)

    def wake(self, now: float) -> float | None:
        self._forget_idle(now)
        self._datagrams.expire(self._of_datagrams(), now)
        self._streams.expire((), now)
        if self._cache is not None:
            self._cache.wake(self._datagrams, self._exporters, now)
        for connection, state in list(self._connections.items()):
            if now - state.session.last_received >= self.config.idle_timeout:
                connection.close()
        for listener in self._listeners:
            listener.look()
        return 1.0


def _remedy(error: OSError, url: Url) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program has it: ss -lnp 'sport = :{url.port}'"
    if error.errno == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE"
    return ""
