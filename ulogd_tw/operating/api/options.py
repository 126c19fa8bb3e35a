"""The section ``[http]``: its options, the places where it listens, and what is wrong with them.

Without the section nothing listens. This module loads no server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ulogd_tw.core.networks import networks
from ulogd_tw.core.options import Option, boolean, number, text, words
from ulogd_tw.core.paths import new_socket, problem, unreadable
from ulogd_tw.global_options import file_mode
from ulogd_tw.transports import url

PORT = 4780
_PORTS = {"tcp": PORT, "tls": PORT}


@dataclass(frozen=True)
class Place:
    """Where a door is: `tcp` or `tls` with address and port, `unix` with a path."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else str(url.Url(self.scheme, self.host, self.port))

    @property
    def is_local(self) -> bool:
        """Whether only this host reaches it."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback

    @property
    def address(self) -> str:
        """How a browser writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.scheme == 'tls' else 'http'}://{host}:{self.port}/"


def places(given: str) -> tuple[Place, ...]:
    """The places of a list with blanks or commas: ``tcp:127.0.0.1:4780``, ``tls:[::]:4780``, ``unix:PATH``."""
    found = tuple(_place(word) for word in words(given))
    if not found:
        raise ValueError("names no address, such as tcp:127.0.0.1:4780")
    return found


def _place(word: str) -> Place:
    scheme, _, path = word.partition(":")
    if scheme.lower() == "unix":
        if not path:
            raise ValueError(f"{word!r} has no path, as in unix:/run/ulogd/http.sock")
        return Place("unix", path=path)
    if scheme.lower() not in _PORTS:
        raise ValueError(f"{word!r} does not begin with tcp:, tls: or unix:; write tcp:127.0.0.1:{PORT}")
    found = url.parse(word, _PORTS, "127.0.0.1")
    host = "127.0.0.1" if found.host == "localhost" else found.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{word!r}: {host} is a name; write an address of this host, or 0.0.0.0 for all") from None
    return Place(found.scheme, host, found.port)


OPTIONS: tuple[Option, ...] = (
    Option("listen", places, (Place("tcp", "127.0.0.1", PORT),), "Addresses of the server: tcp:HOST:PORT, "
           "tls:HOST:PORT and unix:PATH. Beyond loopback and unix: it needs token_file, or tls: with ca."),
    Option("token_file", text, "", "File with the tokens that open everything, one a line, at least 16 characters "
           "each; readable by its owner only. It is read again when it changes. Make one: openssl rand -hex 24"),
    Option("local_users", boolean, False, "1: on loopback every user of this host may also ask for stored flows and "
           "run SQL, without a token."),
    Option("hosts", words, (), "Names under which browsers and scrapers may ask, beside localhost and addresses. "
           "Requests for other names are refused, since a foreign page could have made them (DNS rebinding)."),
    Option("socket_mode", file_mode, 0o600, "File mode of unix:PATH, octal, such as 660. Whoever can write to it may "
           "ask everything."),
    Option("socket_group", text, "", "Group of unix:PATH, by name. Empty: that of the process."),
    Option("proxy", networks, (), "Addresses of the reverse proxies whose remote_user_header counts."),
    Option("remote_user_header", text, "", "Header with the user, set by a proxy after authentication, such as "
           "X-Remote-User. A request of a proxy with this header needs no token."),
    Option("ca", text, "", "tls: certificates of the CAs that sign clients' certificates (PEM): a file, or a directory "
           "of .pem, .crt and .cer files."),
    Option("cert", text, "", "tls: file with our certificate, followed by the intermediate certificates up to the CA "
           "(PEM)."),
    Option("private_key", text, "", "tls: file with the key of cert (PEM, not encrypted), readable by its owner only. "
           "Empty: the key is in the file cert."),
    Option("peers", words, (), "tls: clients allowed to connect, by a DNS name or IP address in their certificate "
           "(subjectAltName). Empty: every client with a certificate signed by ca."),
    Option("verify", boolean, True, "tls: 0: accept clients without a certificate; they need a token."),
    Option("exporter_labels", number, 100, "/metrics: maximum number of exporters with labels of their own for each "
           "input; all others together are the exporter other."),
)  # fmt: skip


def mistakes(values: Any) -> Iterator[tuple[str, str]]:
    """(option, what is wrong), beyond the reach of one reader."""
    secured = [place for place in values.listen if place.scheme == "tls"]
    if secured:
        yield from _tls_mistakes(values)
    for place in values.listen:
        proven = place.scheme == "tls" and values.verify
        if not place.is_local and not proven and not values.token_file:
            yield "listen", f"{place} can be reached from other hosts; set token_file, or use tls: with ca"
    if values.remote_user_header and not values.proxy:
        yield "proxy", "must be given with remote_user_header: the addresses of the proxies that send it"
    if values.proxy and not values.remote_user_header:
        yield "remote_user_header", "must be given with proxy: the header with the name of the user"


def _tls_mistakes(values: Any) -> Iterator[tuple[str, str]]:
    from ulogd_tw.transports.tls.credentials import Files, wrong_name

    yield from Files(values.ca, values.cert, values.private_key, values.verify).mistakes()
    for name in values.peers:
        if wrong := wrong_name(name):
            yield "peers", wrong
    if values.peers and not values.verify:
        yield "peers", "with verify=0 there are no certificates, so no names"


def remarks(values: Any) -> Iterator[tuple[str, str]]:
    """(option, text) for values that work but may be mistakes."""
    for place in values.listen:
        if place.scheme == "tcp" and not place.is_local:
            yield "listen", f"{place}: tokens and answers can be read on the way; tls: protects them"
    if any(network.is_loopback for network in values.proxy) and not values.local_users:
        yield "proxy", "every user of this host can send remote_user_header from loopback; let the proxy use unix:PATH"


def obstacles(values: Any) -> Iterator[tuple[str, str]]:
    """(option, text) for obstacles that are visible without opening anything."""
    if values.token_file and (text := unreadable(values.token_file)):
        yield "token_file", text
    for place in values.listen:
        if place.path and (text := problem(new_socket, place.path)):
            yield "listen", text
