"""Flow records of a network that does not exist: three sites, their clients, the servers they talk to.

A second of traffic depends on the seed and its number alone, so that every run with one seed gives the same flows.
All addresses are of private use or reserved for documentation (RFC 1918, RFC 5737, RFC 3849), as are the numbers of
autonomous systems (RFC 5398).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column
from ulogd_tw.core.flow_end import ENDED, IDLE
from ulogd_tw.core.keys import Key, known

_NAMES = (
    "exporter", "observationDomainId", "received_ms", "sourceIPv4Address", "destinationIPv4Address",
    "protocolIdentifier", "sourceTransportPort", "destinationTransportPort", "octetDeltaCount", "packetDeltaCount",
    "flowStartMilliseconds", "flowEndMilliseconds", "flowEndReason", "tcpControlBits", "ipClassOfService",
    "flowDirection", "ingressInterface", "egressInterface", "bgpSourceAsNumber", "bgpDestinationAsNumber",
    "ingressInterfaceName", "egressInterfaceName",
)  # fmt: skip


def _keys(version: str) -> tuple[Key, ...]:
    found = [known(name.replace("IPv4", version)) for name in _NAMES]
    return tuple(key.typed(types.IPV4) if key.name == "exporter" else key for key in found if key is not None)


KEYS = {False: _keys("IPv4"), True: _keys("IPv6")}
"""The keys of a record in order, by whether its addresses are of IPv6."""

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_SYN_FIN_PSH_ACK, _SYN = 0x1B, 0x02
_LOW_DELAY = 0x10
_OF_SERVICE = {"sourceTransportPort", "destinationTransportPort", "octetDeltaCount", "packetDeltaCount"}


@dataclass(frozen=True)
class Service:
    """The kinds of requests: the share of flows, and the medians of octets up and down and of milliseconds."""

    protocol: int
    port: int
    share: float
    up: float
    down: float
    duration_ms: float
    spread: float = 1.2
    """Standard deviation of the logarithm of octets and times."""


SERVICES = (
    Service(_TCP, 443, 0.40, 2_500, 14_000, 4_000, 1.7),
    Service(_UDP, 443, 0.14, 4_000, 60_000, 9_000, 1.8),
    Service(_UDP, 53, 0.24, 70, 180, 25, 0.4),
    Service(_TCP, 80, 0.05, 900, 6_000, 1_500),
    Service(_UDP, 123, 0.05, 76, 76, 20, 0.1),
    Service(_TCP, 22, 0.03, 9_000, 22_000, 60_000, 1.9),
    Service(_TCP, 25, 0.02, 12_000, 900, 2_500),
    Service(_TCP, 993, 0.03, 3_000, 20_000, 30_000),
    Service(_TCP, 3306, 0.02, 1_500, 40_000, 800),
    Service(_ICMP, 0, 0.02, 252, 252, 3_000, 0.3),
)
_SHARES = np.cumsum([service.share for service in SERVICES])
_EXPORTERS = np.array([0x0AFF0001, 0x0AFF0002, 0x0AFF0003], np.uint32)
_UPLINK, _FIRST_LAN = 1, 11
_INTERFACES = (b"uplink", b"office", b"wifi", b"servers")
_SITES, _LANS, _CLIENTS, _NETWORKS, _SERVERS = 3, 3, 120, 3, 200
_OUTSIDE = np.array([0xC0000200, 0xC6336400, 0xCB007100], np.uint32)
_CLIENT_V6, _SERVER_V6 = 0x20010DB8_00200000, 0x20010DB8_F0000000
_OWN_AS, _FIRST_AS = 64500, 64496
_LARGEST_PACKET = 1400
_SCAN_EVERY, _SCAN_SECONDS, _SCAN_SHARE = 600, 20, 0.25
"""Once in so many seconds one address outside asks many ports of one server inside."""


class Traffic:
    """The records of one seed; `ipv6` is the share of conversations over IPv6."""

    def __init__(self, seed: int = 1, ipv6: float = 0.2) -> None:
        self._seed = seed
        self._ipv6 = ipv6

    def second(self, number: int, n: int, start: float) -> list[tuple[bool, dict[str, Column]]]:
        """`n` records that end in one second, which begins at `start` (seconds since 1970).

        Columns of `KEYS` for each family that has rows, IPv6 or not, in the order of the flows' ends. A conversation is
        two records, one a direction; with an odd `n` the last one has no answer.
        """
        random = np.random.Generator(np.random.PCG64([self._seed, number]))
        talks = _conversations(random, (n + 1) // 2, number)
        ipv6 = random.random(len(talks["site"])) < self._ipv6
        talks["end"] = np.sort(random.integers(0, 1000, len(ipv6))) + int(start * 1000)
        found = []
        for family in (False, True):
            rows = np.flatnonzero(ipv6 == family)
            if len(rows):
                part = {name: values[rows] for name, values in talks.items()}
                of_last = 1 if n % 2 and rows[-1] == len(ipv6) - 1 else 2
                found.append((family, _records(part, family, of_last)))
        return found


def _conversations(random: np.random.Generator, n: int, number: int) -> dict[str, np.ndarray]:
    """The ends, services and sizes of conversations, one a row."""
    which = np.minimum(np.searchsorted(_SHARES, random.random(n) * _SHARES[-1], "right"), len(SERVICES) - 1)
    chosen = {name: np.array([getattr(s, name) for s in SERVICES])[which] for name in Service.__dataclass_fields__}
    weight = np.exp(random.normal(0, chosen["spread"]))
    talks = {
        "protocol": chosen["protocol"],
        "port": chosen["port"],
        "site": random.choice(_SITES, n, p=[0.55, 0.3, 0.15]),
        "lan": random.choice(_LANS, n, p=[0.5, 0.35, 0.15]),
        "client": _popular(random, n, _CLIENTS),
        "network": _popular(random, n, _NETWORKS),
        "server": _popular(random, n, _SERVERS),
        "client_port": random.integers(32768, 61000, n),
        "up": np.maximum(chosen["up"] * np.sqrt(weight), 40).astype(np.int64),
        "down": np.maximum(chosen["down"] * weight, 40).astype(np.int64),
        "duration": np.minimum(chosen["duration_ms"] * np.sqrt(weight), 120_000).astype(np.int64),
        "scan": np.zeros(n, bool),
    }
    if _SCAN_EVERY - _SCAN_SECONDS <= number % _SCAN_EVERY:
        _add_scan(random, talks, n)
    return talks


def _add_scan(random: np.random.Generator, talks: dict[str, np.ndarray], n: int) -> None:
    """Some conversations become probes of one server's ports by one address outside."""
    scan = random.random(n) < _SCAN_SHARE
    fixed = {"protocol": _TCP, "site": 0, "lan": 2, "client": 7, "network": 2, "server": 66, "up": 40, "down": 40}
    for name, value in {**fixed, "duration": 1, "scan": True}.items():
        talks[name][scan] = value
    talks["port"] = np.where(scan, random.integers(1, 1024, n), talks["port"])


def _popular(random: np.random.Generator, n: int, among: int) -> np.ndarray:
    """Numbers below `among`, small ones more often (Zipf)."""
    shares = np.cumsum(1 / np.arange(1, among + 1))
    return np.searchsorted(shares, random.random(n) * shares[-1], "right")


def _records(talks: dict[str, np.ndarray], ipv6: bool, of_last: int) -> dict[str, Column]:
    """Both directions of each conversation, the request first; the last one has `of_last` of them."""
    n = len(talks["site"])
    pairs, same = _both_ways(talks, ipv6), _alike(talks, ipv6)
    _turn(pairs, talks["scan"])
    columns: dict[str, Column] = {}
    for key, name in zip(KEYS[ipv6], _NAMES, strict=True):
        first, second = pairs[name] if name in pairs else (same[name], same[name])
        rows = np.stack((first, second), axis=1).reshape(2 * n, *first.shape[1:])[: 2 * n - 2 + of_last]
        columns[key.name] = Coded(rows, _INTERFACES) if key.type is types.STRING else rows.astype(key.type.dtype)
    return columns


def _both_ways(talks: dict[str, np.ndarray], ipv6: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The fields that differ between the request and the answer."""
    n = len(talks["site"])
    client, server = _addresses(talks, ipv6)
    client_port = np.where(talks["protocol"] == _ICMP, 0, talks["client_port"])
    octets = (talks["up"], talks["down"])
    own, other = np.full(n, _OWN_AS), _FIRST_AS + talks["network"]
    lan, uplink = _FIRST_LAN + talks["lan"], np.full(n, _UPLINK)
    lan_name, uplink_name = 1 + talks["lan"], np.zeros(n, np.int64)
    return {
        "sourceIPv4Address": (client, server),
        "destinationIPv4Address": (server, client),
        "sourceTransportPort": (client_port, talks["port"]),
        "destinationTransportPort": (talks["port"], client_port),
        "octetDeltaCount": octets,
        "packetDeltaCount": (1 + octets[0] // _LARGEST_PACKET, 1 + octets[1] // _LARGEST_PACKET),
        "flowDirection": (np.ones(n), np.zeros(n)),
        "ingressInterface": (lan, uplink),
        "egressInterface": (uplink, lan),
        "bgpSourceAsNumber": (own, other),
        "bgpDestinationAsNumber": (other, own),
        "ingressInterfaceName": (lan_name, uplink_name),
        "egressInterfaceName": (uplink_name, lan_name),
    }


def _alike(talks: dict[str, np.ndarray], ipv6: bool) -> dict[str, np.ndarray]:
    """The fields common to the request and the answer."""
    protocol, end = talks["protocol"], talks["end"]
    tcp = protocol == _TCP
    return {
        "exporter": _EXPORTERS[talks["site"]],
        "observationDomainId": np.ones(len(end)),
        "received_ms": end,
        "protocolIdentifier": np.where(protocol == _ICMP, _ICMPV6, protocol) if ipv6 else protocol,
        "flowStartMilliseconds": end - talks["duration"],
        "flowEndMilliseconds": end,
        "flowEndReason": np.where(tcp, ENDED, IDLE),
        "tcpControlBits": np.where(tcp, np.where(talks["scan"], _SYN, _SYN_FIN_PSH_ACK), 0),
        "ipClassOfService": np.where(talks["port"] == 22, _LOW_DELAY, 0),
    }


def _turn(pairs: dict[str, tuple[np.ndarray, np.ndarray]], rows: np.ndarray) -> None:
    """Let these conversations begin outside: both ends change places, with their interfaces and numbers.

    Ports and octets stay, since the server is inside.
    """
    if not rows.any():
        return
    for name in pairs.keys() - _OF_SERVICE:
        first, second = pairs[name]
        chosen = rows.reshape(-1, *(1,) * (first.ndim - 1))
        pairs[name] = np.where(chosen, second, first), np.where(chosen, first, second)


def _addresses(talks: dict[str, np.ndarray], ipv6: bool) -> tuple[np.ndarray, np.ndarray]:
    """The client's and the server's; shape (n, 2) for IPv6."""
    site, lan = talks["site"], talks["lan"]
    client, server = talks["client"] + 10, talks["server"] + 1
    if not ipv6:
        inside = 0x0A140000 + (site << 12) + (lan << 8) + client
        return inside.astype(np.uint32), (_OUTSIDE[talks["network"]] + server).astype(np.uint32)
    subnet = (site << 4) + lan
    inside6 = np.stack((np.uint64(_CLIENT_V6) + subnet.astype(np.uint64), client.astype(np.uint64)), axis=1)
    network = np.uint64(_SERVER_V6) + talks["network"].astype(np.uint64)
    return inside6, np.stack((network, server.astype(np.uint64)), axis=1)
