"""The senders of datagrams: Transport Sessions over UDP by the sender's address and port, within limits."""

from __future__ import annotations

import ipaddress
import struct
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence
from itertools import islice

from ulogd_tw.core.networks import Network
from ulogd_tw.ipfix.newcomers import Newcomers
from ulogd_tw.ipfix.session import Session

_Key = tuple[Hashable, bytes]

NOT_ALLOWED, LIMIT_SESSIONS, LIMIT_OF_ADDRESS = "not_allowed", "limit_sessions", "limit_sessions_of_address"
"""Why a sender is refused."""


_LOOKED_AT = 32
"""Number of sessions examined to find one that makes room."""
_FEW_MESSAGES, _PASSED_BY = 3, 60.0
"""A session of so few Messages that was silent for so many seconds makes room for another one."""
_AF_INET, _AF_INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins in its IPv6 form."""
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


def peer_of(name: bytes) -> tuple[str, int]:
    """Address and port of a sender; the port is 0 where it has none. Raises ValueError for what is no sender."""
    family = int.from_bytes(name[:2], sys.byteorder)
    port = int.from_bytes(name[2:4], "big") if len(name) == _SENDER else 0
    address = name[4:] if len(name) == _SENDER else name[2:]
    if family == _AF_INET:
        return str(ipaddress.IPv4Address(address[:4])), port
    return plain(str(ipaddress.IPv6Address(address[4:20]))), port


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host.partition("%")[0]).packed


def address_of(name: bytes) -> bytes:
    """A sender without its port."""
    return name[:2] + name[4:]


def network_of(place: Hashable, name: bytes) -> Hashable:
    """The network of a sender at a listening socket: see `_network`."""
    return _network(place, address_of(name))


def _network(place: Hashable, address: bytes) -> Hashable:
    """The network of an address: of IPv4 with 256 of them, of IPv6 with 64 bits; whoever has one has all of it."""
    family = int.from_bytes(address[:2], sys.byteorder)
    if family == _AF_INET:
        return place, address[2:5]
    return place, address[18:21] if address[6:18] == _MAPPED else address[6:14]


class Exporters:
    """The sessions by sender and by listening socket; the longest silent come first.

    `keying` is the identity of a session: ``strict`` the sender's address and port (RFC 7011 section 2), ``address``
    only its address, ``auto`` the address and port until `unite` is called.
    """

    def __init__(self, keying: str, most: int, most_of_address: int, allowed: Allowed, idle: float) -> None:
        self.evicted: list[Session] = []
        """Sessions that had to make room for others, since the caller cleared this list."""
        self._keying = keying
        self._most = most
        self._most_of_address = most_of_address
        self._allowed = allowed
        self._idle = idle
        self._sessions: OrderedDict[_Key, Session] = OrderedDict()
        self._of_address: dict[_Key, dict[_Key, Session]] = {}
        self._united: set[_Key] = set()
        self.heard: set[Session] | None = None
        """Sessions of which datagrams came, since the caller cleared this set; None: they are not noted."""
        self._newcomers: Newcomers[_Key] = Newcomers()

    def __len__(self) -> int:
        return len(self._sessions)

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
            key = (place, address_of(name))
            session = self._sessions.get(key)
            if session is None:
                return None
        session.last_received = now
        self._sessions.move_to_end(key)
        if self.heard is not None:
            self.heard.add(session)
        return session

    def hear(self, sessions: Sequence[Session]) -> None:
        """More datagrams come of sessions that were found before."""
        if self.heard is not None:
            self.heard.update(session for session in set(sessions) if session.key is not None)

    def allows(self, host: str) -> bool:
        """Whether exporters of this address are taken at all."""
        return self._allowed(host)

    def admit(self, place: Hashable, name: bytes, peer: tuple[str, int], now: float) -> Session | str:
        """A new session, or why there is none. Where there is no room, one that has given nothing makes room."""
        session = self.candidate(place, name, peer, now)
        return session if isinstance(session, str) else self.enter(place, name, session, now)

    def candidate(self, place: Hashable, name: bytes, peer: tuple[str, int], now: float) -> Session | str:
        """A session that is remembered only by `enter`: when its first Message has turned out to be one."""
        if not self._allowed(peer[0]):
            return NOT_ALLOWED
        session = Session(plain(peer[0]), peer[1], reliable=False)
        session.last_received = now
        group = self._of_address.get((place, address_of(name)))
        if self._keying == "auto" and group is not None:
            session.siblings = group.values()
        return session

    def enter(self, place: Hashable, name: bytes, session: Session, now: float) -> Session | str:
        """Remember a session; or why there is no room for it."""
        address = (place, address_of(name))
        key = address if self._keying == "address" or address in self._united else (place, name)
        room = self._room_for(address, now)
        if isinstance(room, str):
            return room
        if room is not None:
            self._evict(room)
        group = self._of_address.setdefault(address, {})
        if self._keying == "auto":
            session.siblings = group.values()
        self._sessions[key] = group[key] = session
        session.key = key
        if self.heard is not None:
            self.heard.add(session)
        if not session.proven:
            self._newcomers.enter(key, _network(*address), session)
        return session

    def full(self, place: Hashable, name: bytes, now: float) -> str:
        """The limit that another session of this sender would exceed; empty if there is room, or can be made."""
        room = self._room_for((place, address_of(name)), now)
        return room if isinstance(room, str) else ""

    def _room_for(self, address: _Key, now: float) -> _Key | str | None:
        """None where there is room for another session of this address; who has to go for it, or the limit."""
        group = self._of_address.get(address, {})
        if len(group) >= self._most_of_address:
            idle = (key for key, session in islice(group.items(), _LOOKED_AT) if not session.has_given)
            return next(idle, LIMIT_OF_ADDRESS)
        if len(self._sessions) < self._most:
            return None
        return self._newcomers.next_to_go(_network(*address)) or self._passed_by(now) or LIMIT_SESSIONS

    def _passed_by(self, now: float) -> _Key | None:
        """One of the longest silent sessions, of which no more than a few Messages have come."""
        for key, session in islice(self._sessions.items(), _LOOKED_AT):
            if session.messages <= _FEW_MESSAGES and now - session.last_received > _PASSED_BY:
                return key
        return None

    def _evict(self, key: _Key) -> None:
        session = self._sessions.pop(key)
        session.ended = True
        self.evicted.append(session)
        self._drop(key)

    def give_up_one(self, now: float) -> bool:
        """End a session without records, to free memory; not one being heard right now."""
        key = self._newcomers.next_to_go(None)
        if key is None or self._sessions[key].last_received >= now:
            return False
        self._evict(key)
        return True

    def _drop(self, key: _Key) -> None:
        """A session is not one of its address any more."""
        self._newcomers.leave(key)
        place, name = key
        for address in (key, (place, address_of(name))):
            group = self._of_address.get(address)
            if group is not None and group.pop(key, None) is not None and not group:
                del self._of_address[address]
                self._united.discard(address)

    def restore(
        self, place: Hashable, name: bytes, peer: tuple[str, int], now: float, proven: bool = False
    ) -> Session | str:
        """A session that an earlier run had under this name: of a sender, or of an address whose ports do not count.

        `proven`: records had come of it.
        """
        if len(name) != _SENDER:
            if self._keying == "strict":
                return LIMIT_OF_ADDRESS
            self._united.add((place, name))
            name = name[:2] + bytes(2) + name[2:]
        session = self.candidate(place, name, peer, now)
        if isinstance(session, str):
            return session
        session.proven = proven
        return self.enter(place, name, session, now)

    def unite(self, home: Session) -> list[Session]:
        """All senders with the address of `home` are one exporter from now on; returns the sessions ended by it."""
        found = next(((a, g) for a, g in self._of_address.items() if home in g.values()), None)
        if found is None:
            return []
        address, group = found
        for key in group:
            del self._sessions[key]
            self._newcomers.leave(key)
        others = [session for session in group.values() if session is not home]
        group.clear()
        self._united.add(address)
        self._sessions[address] = group[address] = home
        home.key = address
        home.siblings = ()
        return others

    def forget_idle(self, now: float) -> Iterator[Session]:
        """The sessions that end because nothing has come for the idle time."""
        while self._sessions:
            (place, name), session = next(iter(self._sessions.items()))
            if now - session.last_received < self._idle:
                return
            del self._sessions[place, name]
            self._drop((place, name))
            yield session


def plain(host: str) -> str:
    """An address without its scope and without the IPv6 form of an IPv4 one."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host
