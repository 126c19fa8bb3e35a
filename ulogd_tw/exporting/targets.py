"""The words of an exporter's `collectors=`: URLs, or names of sections ``[collector:NAME]`` that have one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ulogd_tw.core.options import Option, Options, number, positive, text
from ulogd_tw.exporting.rules import Rule, marks
from ulogd_tw.netfilter.flow_filter import networks
from ulogd_tw.peers.sctp import sctp_mistakes
from ulogd_tw.peers.tls import FILES, PEER_NAME, files
from ulogd_tw.transports.tls.credentials import Files, wrong_name
from ulogd_tw.transports.url import Url, parse

SECTION = (
    Option("url", text, "", "Address of the collector, such as tcp:192.0.2.1:4739. Empty: the name of the section is "
           "the address."),
    *(Option(o.name, o.read, o.default, f"{o.meaning} Not given: as in the exporter's section.") for o in FILES),
    Option(PEER_NAME.name, text, "", PEER_NAME.meaning),
    Option("sctp_streams", positive, None, "Streams of an SCTP association. Empty: as in the exporter's section."),
    Option("encapsulation_port", number, None, "UDP port for SCTP over UDP (RFC 6951). Empty: as in the exporter's "
           "section."),
    Option("networks", networks, (), "Prefixes, such as 10.0.0.0/8 2001:db8::/32: the collector gets only flows with "
           "an address in one of them. Empty: all flows."),
    Option("marks", marks, (), "Marks, VALUE or VALUE/MASK, such as 0x10/0xf0: the collector gets only flows with one "
           "of them (ct.mark, or the mark of a packet). Empty: all flows."),
)  # fmt: skip
"""Options of a section ``[collector:URL or NAME]``."""
_NOTHING = Options(SECTION)


@dataclass(frozen=True)
class Target:
    """One collector: the word that stands for it, its URL, and where its options come from, its own first."""

    word: str
    url: Url
    own: Any
    common: Any

    def files(self) -> Files:
        """What TLS needs."""
        return files(self.own, self.common)

    @property
    def rule(self) -> Rule:
        """Which flows it gets."""
        return Rule(frozenset((self.word, str(self.url))), self.own.networks, self.own.marks)

    @property
    def peer_name(self) -> str:
        """The name that its certificate must have."""
        return self.own.peer_name or self.common.peer_name or self.url.host


def targets(config: Any, sound: bool = False) -> list[Target]:
    """All of an exporter's; `sound`: only those that can be read, where its options may have mistakes."""
    found = []
    for word in _words(config):
        try:
            found.append(_target(word, config))
        except ValueError:
            if not sound:
                raise
    return found


def mistakes(config: Any) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) of everything that is about collectors."""
    if not config.collectors and not config.host:
        yield "collectors", 'must name a collector, such as "tcp:192.0.2.1:4739 udp:[2001:db8::1]:4739"'
    seen = set()
    wrong_files: set[tuple[str, str]] = set()
    for word in _words(config):
        try:
            target = _target(word, config)
        except ValueError as error:
            yield "collectors", f"[collector:{word}] url: {error}" if word in config.sections else str(error)
            continue
        url = target.url
        if not url.host:
            yield "collectors", f"{word} has no host"
        elif url in seen:
            yield "collectors", f"{url} is given twice"
        elif url.scheme == "sctp":
            yield from ((_place(target, option), wrong) for option, wrong in sctp_mistakes(target.own, only_given=True))
        elif url.scheme in ("tls", "dtls"):
            wrong = [w for w in _wrong_tls(target) if w not in wrong_files]  # collectors share files
            wrong_files.update(wrong)
            yield from wrong
        seen.add(url)


def _wrong_tls(target: Target) -> Iterator[tuple[str, str]]:
    for option, wrong in target.files().mistakes():
        yield _place(target, option), wrong
    if target.peer_name != target.url.host and (wrong := wrong_name(target.peer_name)):
        yield _place(target, "peer_name"), wrong


def _place(target: Target, option: str) -> str:
    """The option, with its section where it is not the exporter's own."""
    return f"[collector:{target.word}] {option}" if getattr(target.own, option) else option


def _target(word: str, config: Any) -> Target:
    own = config.sections.get(word, _NOTHING)
    return Target(word, parse(own.url or word), own, config)


def _words(config: Any) -> list[str]:
    host, port, proto = config.host, config.port, config.proto
    if not host:
        return list(config.collectors)
    return [*config.collectors, f"{proto}:[{host}]:{port}" if ":" in host else f"{proto}:{host}:{port}"]
