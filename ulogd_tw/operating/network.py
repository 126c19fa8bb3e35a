"""Interfaces, addresses and routes named in a configuration, compared with those of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from ulogd_tw.peers import TRANSPORTS
from ulogd_tw.transports.namespace import inside
from ulogd_tw.transports.netlink import rtnetlink
from ulogd_tw.transports.url import Url, parse

Point = tuple[str, str, str, str]
"""The name of a point, the finding, its fault (empty: none), and the remedy."""


def points(plugins: Iterable[Any]) -> Iterator[Point]:
    """A point for each interface, each address to listen on and each collector of these plugins."""
    for plugin in plugins:
        if plugin.name == "PACKET":
            yield from interfaces(plugin.config.interface or (), plugin.config.network_namespace_path)
        if plugin.name == "COLLECTOR":
            yield from listened(_urls(plugin.config.listen))
        if plugin.name == "IPFIX":
            yield from routes(_urls(plugin.config.collectors))


def interfaces(names: Iterable[str], namespace: str = "") -> Iterator[Point]:
    """Whether these are there and up."""
    with inside(namespace):
        there = {link.name: link for link in rtnetlink.links()}
    for name in names:
        if name not in there:
            yield f"interface {name}", "", "not there", "ip link show lists the interfaces"
        elif not there[name].up:
            yield f"interface {name}", "", "down, so no packet comes", f"ip link set {name} up"
        else:
            yield f"interface {name}", "up", "", ""


def listened(urls: Iterable[Url]) -> Iterator[Point]:
    """Whether the addresses to listen on are this machine's."""
    chosen = [(url, ip_address(url.host)) for url in urls if _numeric(url.host)]
    ours = {ip_address(address) for address in rtnetlink.addresses()} if chosen else set()
    for url, address in chosen:
        if address in ours or address.is_unspecified or address.is_loopback or address.is_multicast:
            yield f"listen {url}", "an address of this machine", "", ""
        else:
            yield f"listen {url}", "", "no interface has this address", "ip address show lists the addresses"


def routes(urls: Iterable[Url]) -> Iterator[Point]:
    """Whether there is a route to the collectors that are named by address."""
    for url in urls:
        if _numeric(url.host):
            if fault := rtnetlink.route_fault(url.host):
                yield f"collector {url}", "", f"no route: {fault}", f"check with: ip route get {url.host}"
            else:
                yield f"collector {url}", "has a route", "", ""


def _urls(texts: Iterable[str]) -> Iterator[Url]:
    """The URLs among these; others are names of sections."""
    for text in texts:
        try:
            yield parse(text, dict.fromkeys(TRANSPORTS, 4739))
        except ValueError:
            continue


def _numeric(host: str) -> bool:
    try:
        return not getattr(ip_address(host), "scope_id", None)
    except ValueError:
        return False
