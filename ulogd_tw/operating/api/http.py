"""The section ``[http]`` in the running service: its doors are opened and closed, each with its guard."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.application import service
from twisted.internet import defer, reactor
from twisted.logger import Logger
from twisted.web import resource

from ulogd_tw.core.errors import StartError
from ulogd_tw.operating.api.control_socket import ControlSocket
from ulogd_tw.operating.api.guard import GuardedDoor
from ulogd_tw.operating.api.options import Place
from ulogd_tw.operating.api.tokens import Tokens
from ulogd_tw.transports.stream_listener import bind_socket

PRINT_TOKEN = "ULOGD_TW_PRINT_TOKEN"
"""With this environment variable the address is printed with a one-time token, for whoever starts it by hand."""


class Http(service.Service):
    """All doors of the section. A door that cannot be opened is said in the log, and the others are opened."""

    log = Logger()

    def __init__(self, root: resource.Resource, values: Any) -> None:
        self.values = values
        self.tokens = Tokens(values.token_file, reactor)
        self.doors = [GuardedDoor(root, place, values, self.tokens) for place in values.listen if not place.path]
        self.sockets = [
            ControlSocket(root, place.path, values.socket_mode, values.socket_group, "[http] listen")
            for place in values.listen
            if place.path
        ]
        self.by_name = {str(door.place): door for door in self.doors}
        self.by_name |= {f"unix:{local.path}": local.door for local in self.sockets}
        self._ports: list[Any] = []

    def startService(self) -> None:
        super().startService()
        try:
            self.tokens.open()
        except StartError as failure:
            self.log.error("[http]: {failure}; it does not listen", failure=failure)
            return
        for door in self.doors:
            try:
                self._ports.append(self._listen(door))
            except (StartError, OSError) as failure:
                self.log.error("[http] listen={place}: {failure}", place=str(door.place), failure=failure)
        for local in self.sockets:
            local.startService()

    def _listen(self, door: Any) -> Any:
        """Bind and listen. Raises `StartError`, OSError."""
        place: Place = door.place
        factory = self._secured(door) if place.scheme == "tls" else door
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        with bind_socket(family, socket.SOCK_STREAM, place.host, place.port) as bound:
            bound.listen(128)
            port = reactor.adoptStreamPort(bound.fileno(), family, factory)
        self.log.info("[http]: {address}", address=place.address)
        if os.environ.get(PRINT_TOKEN):
            print(f"open {place.address}login?token={self.tokens.one_time()} (the token is good for once)", flush=True)
        return port

    def _secured(self, door: Any) -> Any:
        """TLS before a door."""
        from ulogd_tw.transports.tls.server_factory import secured

        values = self.values
        files = (values.ca, values.cert, values.private_key, values.verify)
        return secured(door, files, values.peers, lambda text: self.log.warn("[http]: {text}", text=text))

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        ports, self._ports = self._ports, []
        for port in ports:
            yield port.stopListening()
        for door in self.doors:
            door.close()
        for local in self.sockets:
            if local.running:
                yield local.stopService()
