"""UNIXSOCK: packets sent by other programs through a Unix socket."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ulogd_tw.core.counters import Count, Fault, Gauge
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, number, positive, text
from ulogd_tw.core.paths import new_socket
from ulogd_tw.core.plugin import RAW
from ulogd_tw.metering.live_input import LiveInput
from ulogd_tw.packets import unixsock
from ulogd_tw.transports.unix_listener import UnixListener


class _Client(Protocol):
    """One connected program."""

    def __init__(self, plugin: UNIXSOCK) -> None:
        self._plugin = plugin
        self._framer = unixsock.Framer()

    def connectionMade(self) -> None:
        self._plugin.joined(self)

    def dataReceived(self, octets: bytes) -> None:
        self._plugin.received(self, self._framer, octets)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._plugin.left(self, len(self._framer.held))


class UNIXSOCK(LiveInput):
    """Gives a row for each packet that a program sends to a Unix socket, with its prefix, interfaces and user.

    The format is ulogd2's, as used by NuFW. Any number of programs up to max_clients can be connected at once.
    """

    name = "UNIXSOCK"
    otype = RAW
    provides = unixsock.KEYS
    listens = True
    counts = (
        Gauge("clients", "programs", "Connected programs."),
        Count("clients_refused", "programs", "Programs refused beyond max_clients."),
        Fault("mark", "programs", "Programs that sent something else; they are disconnected."),
        Fault("length", "programs", "Programs disconnected for an impossible length."),
        Fault("option length", "messages", "Invalid messages; they are left out."),
        Fault("unknown option", "options", "Unknown parts of messages."),
        Fault("cut", "programs", "Programs that disconnected within a message."),
    )
    options = (
        Option("socket_path", new_socket, "/var/run/ulogd/ulogd2.sock", "Path of the Unix socket to listen on."),
        Option("perms", number, 0o600, "File mode of the socket, such as 0660. The leading 0 makes the number octal."),
        Option("owner", text, "", "User who becomes the socket's owner. Empty: the user of the service."),
        Option("group", text, "", "Group of the socket. Empty: the group of the service."),
        Option("max_clients", positive, 64, "Maximum number of programs connected at once."),
        Option(
            "bufsize",
            number,
            0,
            "No effect; accepted for configurations of ulogd2. There is room for the longest message of each client.",
        ),
    )

    def __init__(self, instance: str, config: Any = None, reactor: Any = None) -> None:
        super().__init__(instance, config, reactor)
        self._listener: UnixListener | None = None
        self._clients: set[_Client] = set()
        self._paused = True
        self._limited = RateLimitedLog(self._reactor.seconds)
        self.counters.figures["clients"] = lambda: len(self._clients)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not 0 <= self.config.perms <= 0o777:
            yield "perms", f"{self.config.perms:o} (octal) is not a mode between 0 and 0777, such as 0666"

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """User and group are there."""
        yield from super().obstacles()
        for option, find, file in (("owner", pwd.getpwnam, "/etc/passwd"), ("group", grp.getgrnam, "/etc/group")):
            name = getattr(self.config, option)
            try:
                if name:
                    find(name)
            except KeyError:
                yield option, f"there is no {name} in {file}; name one that is there", True

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Listen. Raises `StartError`."""
        config = self.config
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build
        self._listener = UnixListener(config.socket_path, config.perms, config.owner, config.group, self._reactor)
        self._listener.open(factory)

    def _build(self, _: Any) -> _Client | None:
        if len(self._clients) < self.config.max_clients:
            return _Client(self)
        self.counters.figures["clients_refused"] += 1
        self._complain("a program is refused: max_clients={most} are connected already",
                       most=self.config.max_clients)  # fmt: skip
        return None

    def begin(self) -> None:
        self.resume()

    def pause(self) -> None:
        """Clients wait until there is room."""
        self._paused = True
        for client in self._clients:
            client.transport.pauseProducing()

    def resume(self) -> None:
        self._paused = False
        for client in self._clients:
            client.transport.resumeProducing()

    def stop(self) -> Any:
        """Close the socket and all connections."""
        if self._listener is None:
            return None
        for client in list(self._clients):
            client.transport.abortConnection()
        return self._listener.stop()

    # --- clients ----------------------------------------------------------------------------------------------------

    def joined(self, client: _Client) -> None:
        """A program has connected."""
        self._clients.add(client)
        if self._paused:
            client.transport.pauseProducing()

    def left(self, client: _Client, held: int) -> None:
        """A program has disconnected; `held` octets of its last message came without the rest."""
        self._clients.discard(client)
        if held:
            self.counters.errors["cut"] += 1

    def received(self, client: _Client, framer: unixsock.Framer, octets: bytes) -> None:
        """Octets of one program: its complete messages become rows."""
        rows: list[dict[str, int | bytes]] = []
        errors = self.counters.errors
        self.counters.octets_received += len(octets)
        try:
            for message in framer.feed(octets):
                self.counters.messages_received += 1
                try:
                    rows.append(unixsock.row(message, errors))
                except MessageError as error:
                    errors[error.reason] += 1
        except MessageError as error:
            errors[error.reason] += 1
            framer.held.clear()
            self._complain("a program is disconnected: {why}", why=error)
            client.transport.abortConnection()
        if rows:
            self._give(rows)

    def _give(self, rows: list[dict[str, int | bytes]]) -> None:
        try:
            batch = unixsock.batch(rows, self.wanted, self.clock())
            self.counters.rows_received += batch.n
            self.emit(batch)
        except Exception as error:
            self.fault(error)

    def _complain(self, what: str, **values: Any) -> None:
        """Log it, at most once a minute."""
        self._limited.say(self.log.warn, what, "{instance}: " + what, instance=self.instance, **values)
