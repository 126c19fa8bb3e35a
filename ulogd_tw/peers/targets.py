"""The words of an exporter's `collectors=`: URLs, or names of sections ``[collector:NAME]`` that have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.networks import networks
from ulogd_tw.core.options import Option, Options, text
from ulogd_tw.exporting.rules import marks
from ulogd_tw.peers.table import TRANSPORTS, options_of, parse
from ulogd_tw.peers.target import Target

SECTION = (
    Option("url", text, "", "Address of the collector, such as tcp:192.0.2.1:4739. Empty: the name of the section is "
           "the address."),
    *options_of("section"),
    Option("networks", networks, (), "Prefixes, such as 10.0.0.0/8 2001:db8::/32: the collector gets only flows with "
           "an address in one of them. Empty: all flows."),
    Option("marks", marks, (), "Marks, VALUE or VALUE/MASK, such as 0x10/0xf0: the collector gets only flows with one "
           "of them (ct.mark, or the mark of a packet). Empty: all flows."),
)  # fmt: skip
"""Options of a section ``[collector:URL or NAME]``."""
_NOTHING = Options(SECTION)


def targets(config: Any, sound: bool = False) -> list[Target]:
    """All targets of an exporter; `sound`: only readable ones, if its options may have mistakes."""
    found = []
    for word in _words(config):
        try:
            found.append(_target(word, config))
        except ValueError:
            if not sound:
                raise
    return found


def mistakes(config: Any) -> Iterator[tuple[str, str]]:
    """(option, mistake) of all options about collectors."""
    if not config.collectors and not config.host:
        yield "collectors", 'must name a collector, such as "tcp:192.0.2.1:4739 udp:[2001:db8::1]:4739"'
    seen = set()
    said: set[tuple[str, str]] = set()
    for word in _words(config):
        try:
            target = _target(word, config)
        except ValueError as error:
            yield _option(word, config), str(error)
            continue
        url = target.url
        if not url.host:
            yield _option(word, config), f"{word} has no host; write {url.scheme}:HOST:{url.port}"
        elif url in seen:
            yield _option(word, config), f"{url} is given twice; delete one"
        else:
            wrong = list(target.placed(TRANSPORTS[url.scheme].target_mistakes(target)))
            yield from (mistake for mistake in wrong if mistake not in said)  # collectors share files
            said.update(wrong)
        seen.add(url)


def _option(word: str, config: Any) -> str:
    """The option that has the URL of a collector, or should."""
    own = config.sections.get(word)
    return f"[collector:{word}] url" if own is not None and (own.url or ":" not in word) else "collectors"


def _target(word: str, config: Any) -> Target:
    own = config.sections.get(word, _NOTHING)
    return Target(word, parse(own.url or word), own, config)


def _words(config: Any) -> list[str]:
    host, port, proto = config.host, config.port, config.proto
    if not host:
        return list(config.collectors)
    return [*config.collectors, f"{proto}:[{host}]:{port}" if ":" in host else f"{proto}:{host}:{port}"]
