"""MATCH: keeps, drops or tags rows by an expression."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Coded, joined
from ulogd_tw.core.counters import Count, Fault
from ulogd_tw.core.entries import entries
from ulogd_tw.core.hashes import mixed, of_flows
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.options import Option, one_of, positive, seconds, text, words
from ulogd_tw.core.paths import unreadable
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, SUM, Filter, Wanted
from ulogd_tw.match import grammar
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.never import never
from ulogd_tw.match.terms import Always, Term
from ulogd_tw.transports.watched_files import Watched

TAG, EXPORT_TO = ulogd_keys("tag", "export.to")
_HASHED = ("sourceAddress", "destinationAddress", "sourceTransportPort", "destinationTransportPort",
           "protocolIdentifier")  # fmt: skip


class MATCH(Filter):
    """Keeps rows by an expression, drops them, or sets tag and export.to in them.

    The language is that of tcpdump and nfdump: src net 10.0.0.0/8 and dst port 443 and octets > 1k and not proto icmp.
    Every key can be used by its name. A comparison with a missing value is false.
    """

    name = "MATCH"
    itype = otype = RAW | PACKET | FLOW | SUM
    counts = (
        Count("rows_matched", "rows", "Rows for which the expression was true."),
        Fault("sets", "occasions", "A file of sets could not be read again; the previous content stays in use."),
    )
    options = (
        Option("match", text, "any", 'The expression, such as "src net 10.0.0.0/8 and dst port 443". any: every row '
               "matches."),
        Option("action", one_of("accept", "drop", "tag"), "accept", "accept: keep the rows that match; drop: leave "
               "them out; tag: keep all rows, and set the keys tag and export.to of matching rows."),
        Option("tag", text, "", "Value for the key tag of matching rows."),
        Option("export_to", text, "", "Collectors for matching rows, as the value of the key export.to: names or URLs "
               "from the option collectors of an IPFIX output below, separated by blanks."),
        Option("sample", positive, 1, "Keep one in this number of the matching rows, chosen by a hash of addresses, "
               "ports and protocol; the hash is the same for both directions. 1: keep all."),
        Option("sets", words, (), "Files with the sets for @NAME in the expression, as NAME=FILE. Each line of a file "
               "has a prefix, address, number, range or text; # begins a comment. Example: bad=/etc/ulogd/bad.txt"),
        Option("sets_interval", seconds, 5.0, "Seconds between two checks of the set files for changes."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._term: Term = Always()
        self._sets = Watched(self, "sets", self._files.values(), self._parsed, self._take)

    # declarations

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        for word in config.sets:
            name, sign, path = word.partition("=")
            if not (name and sign and path):
                yield "sets", f'{word!r} is not NAME=FILE; write it as in sets="blocked=/etc/ulogd/blocked.txt"'
        if "match" not in config.given and config.action != "tag" and config.sample <= 1:
            yield "match", 'must be given: an expression for the rows to keep, such as match="tcp port 443"'
        try:  # without the files, which a check does not open
            self._term = grammar.parse(config.match, {name: [] for name in self._files}, port_of)
        except MatchError as error:
            yield "match", f"{error}\n{config.match}\n{' ' * (error.column - 1)}^"
        if config.action == "drop" and (config.tag or config.export_to or config.sample > 1):
            yield "action", "tag, export_to and sample have no effect with action=drop; delete them"
        if config.action == "tag" and not (config.tag or config.export_to):
            yield "action", "action=tag needs tag= or export_to="
        if config.action == "tag" and config.sample > 1:
            yield (
                "sample",
                "sample works with action=accept only, since action=tag keeps all rows; delete one of the two",
            )

    def remarks(self) -> Iterator[tuple[str, str]]:
        yield from super().remarks()
        for column, fault in never(self._term):
            yield "match", f"column {column}: {fault}\n{self.config.match}\n{' ' * (column - 1)}^"

    @property
    def _files(self) -> dict[str, str]:
        return dict(word.partition("=")[::2] for word in self.config.sets)

    def keys(self) -> Iterable[Key]:
        return [key for key, value in ((TAG, self.config.tag), (EXPORT_TO, self.config.export_to)) if value]

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        list(self.mistakes())
        asked = self._term.keys()
        for key in self.keys():
            asked.setdefault(key.name, False)  # rows without a match keep the values set by an earlier MATCH
        if self.config.sample > 1:
            asked |= {name: asked.get(name, False) for name in _HASHED}
        return asked

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """The files of sets are looked at, too."""
        yield from super().obstacles()
        for path in self._files.values():
            if text := unreadable(path):
                yield "sets", text, True

    # sets

    def open(self) -> None:
        """Read the sets. Raises `StartError` for an unreadable file or line."""
        self._sets.open()

    def _parsed(self, files: list[bytes]) -> Term:
        """The term, with the sets as in the files."""
        sets = {}
        for name, octets in zip(self._files, files, strict=True):
            sets[name] = [value for _, value in entries(octets)]
        return grammar.parse(self.config.match, sets, port_of)

    def _take(self, term: Term) -> None:
        self._term = term

    def wake(self, now: float) -> float | None:
        """Read changed files of sets again, in a thread."""
        self._sets.poll()
        return self.config.sets_interval if self._files else None

    def reopen(self) -> None:
        """SIGHUP: check the files at once."""
        self._sets.read_anew()

    # rows

    def process(self, batch: Batch) -> Batch | None:
        matched = self._term.rows(self.find, batch)
        self.counters.figures["rows_matched"] += int(np.count_nonzero(matched))
        action = self.config.action
        if action == "drop":
            return _kept(batch, ~matched)
        if action == "accept":
            if self.config.sample > 1:
                matched &= self._sampled(batch)
            batch = _kept(batch, matched)
            matched = np.ones(batch.n, bool)
        return self._said(batch, matched) if batch.n else None

    def _said(self, batch: Batch, matched: np.ndarray) -> Batch:
        """The batch with tag and export.to set in matching rows; other rows keep their values."""
        for key, value in ((TAG, self.config.tag), (EXPORT_TO, self.config.export_to)):
            if not value:
                continue
            before, others = self.find(batch, key.name), ~matched
            said = Coded(np.broadcast_to(np.int32(0), batch.n), (value.encode(),))
            if before is None or not others.any():
                batch = batch.with_columns({key: said}, {key.name: others} if others.any() else {})
                continue
            both = joined([said, before.values])
            rows = np.where(matched, np.arange(batch.n), np.arange(batch.n) + batch.n)
            missing = others & before.missing if before.missing is not None else None
            batch = batch.with_columns({key: both.take(rows)}, {} if missing is None else {key.name: missing})
        return batch

    def _sampled(self, batch: Batch) -> np.ndarray:
        return mixed(of_flows(self.find, batch, _HASHED)) % np.uint64(self.config.sample) == 0


def port_of(service: str) -> int | None:
    """The port of a service of this machine (/etc/services)."""
    try:
        return socket.getservbyname(service)
    except (OSError, ValueError):  # ValueError: of octets that no name has
        return None


def _kept(batch: Batch, keep: np.ndarray) -> Batch:
    return batch if keep.all() else batch.take(np.flatnonzero(keep))
