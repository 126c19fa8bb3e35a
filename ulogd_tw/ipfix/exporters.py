"""Who sends datagrams: the Transport Sessions of UDP by the sender's address and port, within limits."""

from __future__ import annotations

import ipaddress
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence

from ulogd_tw.core.networks import Network
from ulogd_tw.ipfix.session import Session

_Key = tuple[Hashable, bytes]

NOT_ALLOWED, LIMIT_SESSIONS, LIMIT_OF_ADDRESS = "not_allowed", "limit_sessions", "limit_sessions_of_address"
"""Why a sender is refused."""


_AF_INET, _AF_INET6 = 2, 10
_SENDER = 28
"""Octets of a sender: struct sockaddr_in6."""


def _collapsed(chosen: Sequence[Network], version: int) -> Sequence[Network]:
    """The networks of one version in order, none within another."""
    if version == 4:
        return sorted(ipaddress.collapse_addresses(n for n in chosen if isinstance(n, ipaddress.IPv4Network)))
    return sorted(ipaddress.collapse_addresses(n for n in chosen if isinstance(n, ipaddress.IPv6Network)))


class Allowed:
    """Whether an address is in one of some networks; without networks every one is."""

    def __init__(self, chosen: Sequence[Network]) -> None:
        self._ranges: dict[int, tuple[list[int], list[int]]] = {4: ([], []), 6: ([], [])}
        self.all = not chosen
        for version, (firsts, lasts) in self._ranges.items():
            for network in _collapsed(chosen, version):
                firsts.append(int(network.network_address))
                lasts.append(int(network.broadcast_address))

    def __call__(self, host: str) -> bool:
        if self.all:
            return True
        address = ipaddress.ip_address(host.partition("%")[0])
        if address.version == 6 and address.ipv4_mapped:
            address = address.ipv4_mapped
        firsts, lasts = self._ranges[address.version]
        place = bisect_right(firsts, int(address)) - 1
        return place >= 0 and int(address) <= lasts[place]


def sender(host: str, port: int) -> bytes:
    """A sender as the kernel writes it: struct sockaddr_in or sockaddr_in6, filled up to 28 octets."""
    if ":" in host:
        return struct.pack("=H", _AF_INET6) + struct.pack("!HI16sI", port, 0, _packed(host), 0)
    return struct.pack("=H", _AF_INET) + struct.pack("!H4s20x", port, _packed(host))


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host.partition("%")[0]).packed


def _address_of(name: bytes) -> bytes:
    """A sender without its port."""
    return name[:2] + name[4:]


class Exporters:
    """The sessions by sender and by the place (a listening socket) that it sends to; the longest silent stand first.

    `keying` is what makes a session: ``strict`` the sender's address and port (RFC 7011 section 2), ``address`` only
    its address, ``auto`` the address and port until `unite` is told otherwise.
    """

    def __init__(self, keying: str, most: int, most_of_address: int, allowed: Allowed, idle: float) -> None:
        self.streams = 0
        """Sessions of connections, which count too."""
        self._keying = keying
        self._most = most
        self._most_of_address = most_of_address
        self._allowed = allowed
        self._idle = idle
        self._sessions: OrderedDict[_Key, Session] = OrderedDict()
        self._of_address: dict[_Key, dict[_Key, Session]] = {}
        self._united: set[_Key] = set()

    def __len__(self) -> int:
        return len(self._sessions) + self.streams

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def items(self) -> Collection[tuple[_Key, Session]]:
        """((place, sender), session), for keeping them over a restart."""
        return self._sessions.items()

    def find(self, place: Hashable, name: bytes, now: float) -> Session | None:
        """The session of a sender that is known."""
        key = (place, name)
        session = self._sessions.get(key)
        if session is None:
            if not self._united and self._keying != "address":
                return None
            key = (place, _address_of(name))
            session = self._sessions.get(key)
            if session is None:
                return None
        session.last_received = now
        self._sessions.move_to_end(key)
        return session

    def admit(self, place: Hashable, name: bytes, peer: tuple[str, int], now: float) -> Session | str:
        """A new session, or why there is none."""
        if not self._allowed(peer[0]):
            return NOT_ALLOWED
        if len(self) >= self._most:
            return LIMIT_SESSIONS
        address = (place, _address_of(name))
        key = address if self._keying == "address" or address in self._united else (place, name)
        group = self._of_address.setdefault(address, {})
        if len(group) >= self._most_of_address:
            return LIMIT_OF_ADDRESS
        session = Session(plain(peer[0]), peer[1], reliable=False)
        session.last_received = now
        if self._keying == "auto":
            session.siblings = group.values()
        self._sessions[key] = group[key] = session
        return session

    def restore(self, place: Hashable, name: bytes, peer: tuple[str, int], now: float) -> Session | str:
        """A session that an earlier run had under this name: of a sender, or of an address whose ports do not count."""
        if len(name) == _SENDER:
            return self.admit(place, name, peer, now)
        if self._keying == "strict":
            return LIMIT_OF_ADDRESS
        self._united.add((place, name))
        return self.admit(place, name[:2] + bytes(2) + name[2:], peer, now)

    def admit_stream(self, host: str) -> str:
        """A connection takes the place of a session, until `streams` is counted down; why not, or nothing."""
        if not self._allowed(host):
            return NOT_ALLOWED
        if len(self) >= self._most:
            return LIMIT_SESSIONS
        self.streams += 1
        return ""

    def unite(self, home: Session) -> list[Session]:
        """All senders of the address of `home` are one exporter, now and later; the sessions that end by that."""
        found = next(((a, g) for a, g in self._of_address.items() if home in g.values()), None)
        if found is None:
            return []
        address, group = found
        for key in group:
            del self._sessions[key]
        others = [session for session in group.values() if session is not home]
        group.clear()
        self._united.add(address)
        self._sessions[address] = group[address] = home
        home.siblings = ()
        return others

    def forget_idle(self, now: float) -> Iterator[Session]:
        """The sessions that end because nothing has come for the idle time."""
        while self._sessions:
            (place, name), session = next(iter(self._sessions.items()))
            if now - session.last_received < self._idle:
                return
            del self._sessions[place, name]
            for address in ((place, name), (place, _address_of(name))):
                group = self._of_address.get(address)
                if group is not None and group.pop((place, name), None) is not None and not group:
                    del self._of_address[address]
                    self._united.discard(address)
            yield session


def plain(host: str) -> str:
    """An address without its scope and without the IPv6 form of an IPv4 one."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host
