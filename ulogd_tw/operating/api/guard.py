"""Who may ask through a TCP door: by Host header, origin, token, session, proxy or client certificate."""

from __future__ import annotations

import ipaddress
from typing import Any

from ulogd_tw.operating.api.answers import Refused, headers
from ulogd_tw.operating.api.door import Door
from ulogd_tw.operating.api.options import Place
from ulogd_tw.operating.api.tokens import SESSION_SECONDS, Tokens

COOKIE = "ulogd_session"
_OPEN = (b"/", b"/livez", b"/login")
"""What everybody may ask from everywhere: the empty page, and that the service turns."""
_OPEN_BELOW = b"/console/"
"""The scripts of the page are open too; what they show is not."""


class GuardedDoor(Door):
    """A door over TCP or TLS. `values` are those of the section ``[http]``."""

    def __init__(self, root: Any, place: Place, values: Any, tokens: Tokens, clock: Any = None) -> None:
        super().__init__(root, *([] if clock is None else [clock]))
        self.place = place
        self.tokens = tokens
        self.values = values
        self._hosts = {name.lower().rstrip(".") for name in values.hosts} | {"localhost"}
        self._certified = place.scheme == "tls" and values.verify

    def admit(self, request: Any) -> None:
        """Host, origin and credentials; beyond this host, nothing without credentials. Raises `Refused`."""
        self._check_host(request)
        self._check_origin(request)
        request.known = self._knows(request)
        is_open = request.path in _OPEN or request.path.startswith(_OPEN_BELOW)
        if not (request.known or self.place.is_local or is_open):
            self._ask_for_token(request, "this needs a token")

    def admit_private(self, request: Any) -> None:
        """Flows, SQL and changes of the service. Raises `Refused`."""
        if request.known or self.values.local_users and self.place.is_local:
            return
        text = "stored flows, SQL and changes of the service need a token"
        if not self.tokens.any:
            text += "; set token_file= in [http], or local_users=1 on a host without other users"
        self._ask_for_token(request, text)

    def _ask_for_token(self, request: Any, text: str) -> None:
        request.setHeader("WWW-Authenticate", 'Bearer realm="ulogd-tw"')
        raise Refused(401, "no_token", f"{text}, in the header Authorization: Bearer TOKEN")

    def _check_host(self, request: Any) -> None:
        given = headers(request, "Host")
        name = host_of(given[0]) if len(given) == 1 else ""
        if not name:
            raise Refused(400, "host", "the request has no header Host, or more than one")
        if name not in self._hosts and not _is_address(name):
            raise Refused(421, "host", f"{name} is none of our names; hosts= in [http] can name it")

    def _check_origin(self, request: Any) -> None:
        """A page of another site may not ask, whatever its reader is allowed to."""
        host = headers(request, "Host")[0].strip().lower()
        good = f"http://{host}", f"https://{host}"
        if any(origin.strip().lower() not in good for origin in headers(request, "Origin")):
            raise Refused(403, "origin", "a page of another site asks")

    def _knows(self, request: Any) -> bool:
        """Whether the request proves who it is. A wrong token is refused, even where none is needed."""
        given = headers(request, "Authorization")
        if given:
            kind, _, token = given[0].strip().partition(" ")
            if len(given) > 1 or kind.lower() != "bearer" or not self.tokens.knows(token.strip()):
                request.setHeader("WWW-Authenticate", 'Bearer realm="ulogd-tw"')
                raise Refused(401, "wrong_token", "the token is not one of ours")
            return True
        session = request.getCookie(COOKIE.encode())
        if session and self.tokens.in_session(session.decode("ascii", "replace")):
            return True
        return self._certified or bool(self.remote_user(request))

    def remote_user(self, request: Any) -> str:
        """The user that a proxy has authenticated; empty where none of our proxies asks."""
        header = self.values.remote_user_header
        if not header:
            return ""
        given = headers(request, header)
        peer = ipaddress.ip_address(request.channel.transport.getPeer().host.partition("%")[0])
        if len(given) != 1 or not any(peer in network for network in self.values.proxy):
            return ""
        return given[0].strip()

    def login(self, request: Any, token: str) -> None:
        """Begin a session for a token, and send the browser to the first page. Raises `Refused`."""
        word = self.tokens.begin(token)
        if word is None:
            raise Refused(401, "wrong_token", "the token is not one of ours, or was used already")
        secure = "; Secure" if self.place.scheme == "tls" else ""
        cookie = f"{COOKIE}={word}; Path=/; HttpOnly; SameSite=Strict; Max-Age={SESSION_SECONDS}{secure}"
        request.setHeader("Set-Cookie", cookie)
        request.setHeader("Location", "/")


def host_of(header: str) -> str:
    """The name or address in a Host header, in small letters, without port and brackets; empty for nonsense."""
    text = header.strip().lower()
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        good = bracket and ":" in host and (not port or port[0] == ":" and port[1:].isdigit())
        return host if good else ""
    host, colon, port = text.partition(":")
    return host.rstrip(".") if host and (not colon or port.isdigit()) else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
