"""GROUP: names for addresses and ports, so that rows can be grouped, chosen and read by them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.options import Option, seconds, text, words
from ulogd_tw.core.plugin import FLOW, PACKET, Filter, Wanted
from ulogd_tw.core.resolve import Found
from ulogd_tw.naming import maxmind, networks, services
from ulogd_tw.naming.labels import Labels
from ulogd_tw.naming.networks import Names
from ulogd_tw.naming.services import Services
from ulogd_tw.plugins.watched import Watched

_ADDRESSES = {"src": "sourceAddress", "dst": "destinationAddress", "exporter": "exporter"}
_PORTS = {"src": "sourceTransportPort", "dst": "destinationTransportPort"}
_PROTOCOL = "protocolIdentifier"
_COLUMNS = {"country": ("country",), "asn": ("as", "as.name")}
"""What the database of an option has, of either end."""
_SERVICES = ("src.service", "dst.service", "service")


class GROUP(Filter):
    """Gives names to rows: of networks, countries, autonomous systems and services, from files.

    The most specific network counts. Only what is asked for is looked up; where there is no name, the key has no value.
    """

    name = "GROUP"
    itype = otype = PACKET | FLOW
    options = (
        Option("networks", text, "", "file of networks, PREFIX,NAME on each line: keys src.net, dst.net and "
               "exporter.net; # begins a comment"),
        Option("columns", words, (), "names of further columns of networks, behind NAME: keys src.net.COLUMN ..."),
        Option("services", text, "", "file of services such as /etc/services: keys src.service, dst.service, and "
               "service, that of the destination port or else of the source port"),
        Option("country", text, "", "database of countries in MaxMind's format (.mmdb): keys src.country, dst.country"),
        Option("asn", text, "", "database of autonomous systems in MaxMind's format (.mmdb): keys src.as, dst.as, "
               "src.as.name, dst.as.name"),
        Option("files_interval", seconds, 5.0, "seconds after which it is looked whether a file has changed"),
    )  # fmt: skip
    provides = ulogd_keys("src.net", "dst.net", "exporter.net", "src.country", "dst.country", "src.as", "dst.as",
                          "src.as.name", "dst.as.name", *_SERVICES)  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._names: dict[str, Names] = {}
        """By option."""
        self._services: Services | None = None
        self._files = [self._watched(option) for option in ("networks", "services", "country", "asn")
                       if getattr(self.config, option)]  # fmt: skip

    # declarations

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        if not self._files:
            yield "networks", "is not given, nor services, country or asn; there would be no names"
        if config.columns and not config.networks:
            yield "columns", "are columns of networks, which is not given"
        for name in config.columns:
            if not re.fullmatch("[A-Za-z0-9]+", name):
                yield "columns", f"{name!r}: names of columns have letters and digits"
        for option in ("country", "asn"):
            if getattr(config, option) and find_spec("maxminddb") is None:
                yield option, "needs maxminddb: pip install 'ulogd_tw[maxmind]'"

    def keys(self) -> Iterable[Key]:
        names = [f"{side}.{column}" for option in self._columns for side, column in self._of(option)]
        names += _SERVICES if self.config.services else ()
        return [key for name in names if (key := known(name)) is not None] or self.provides

    @property
    def _columns(self) -> dict[str, tuple[str, ...]]:
        """The columns that each option gives."""
        further = tuple(f"net.{name}" for name in self.config.columns)
        every = {"networks": ("net", *further)} | _COLUMNS
        return {option: columns for option, columns in every.items() if getattr(self.config, option)}

    def _of(self, option: str) -> Iterator[tuple[str, str]]:
        """(side, column) of an option."""
        for side in _ADDRESSES:
            if side != "exporter" or option == "networks":
                yield from ((side, column) for column in self._columns[option])

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        asked = {key.name for key in self.keys() if key.name in wanted}
        sides = {name.partition(".")[0] for name in asked - set(_SERVICES)}
        found = {_ADDRESSES[side]: False for side in _ADDRESSES if side in sides}
        found |= {port: False for side, port in _PORTS.items() if {f"{side}.service", "service"} & asked}
        return found | ({_PROTOCOL: False} if asked & set(_SERVICES) else {})

    # files

    def _watched(self, option: str) -> Watched[Any]:
        columns = ("net", *(f"net.{name}" for name in self.config.columns))
        make: Callable[[bytes], Any] = {
            "networks": lambda octets: networks.read(octets, columns),
            "services": services.read,
            "country": maxmind.countries,
            "asn": maxmind.systems,
        }[option]
        return Watched(self, option, [getattr(self.config, option)], lambda files: make(files[0]),
                       lambda made: self._take(option, made))  # fmt: skip

    def _take(self, option: str, made: Names | Services) -> None:
        if isinstance(made, Services):
            self._services = made
        else:
            self._names[option] = made

    def open(self) -> None:
        for files in self._files:
            files.open()

    def wake(self, now: float) -> float:
        for files in self._files:
            files.look()
        return self.config.files_interval

    def reopen(self) -> None:
        """SIGHUP: read all files again."""
        for files in self._files:
            files.look_anew()

    # rows

    def process(self, batch: Batch) -> Batch:
        added: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        for name, labels, codes in (*self._by_address(batch), *self._by_port(batch)):
            column, none = labels.column(codes)
            added[known(name)] = column
            if none is not None:
                missing[name] = none
        return batch.with_columns(added, missing) if added else batch

    @cached_property
    def _plan(self) -> list[tuple[str, str, list[str]]]:
        """(option, side, columns) of the wanted names of addresses; asked for only when rows flow, so it is settled."""
        found = []
        for option in self._columns:
            for side in _ADDRESSES:
                columns = [column for of, column in self._of(option) if of == side and f"{of}.{column}" in self.wanted]
                if columns:
                    found.append((option, side, columns))
        return found

    def _by_address(self, batch: Batch) -> Iterator[tuple[str, Labels, np.ndarray]]:
        """(key, what codes mean, code of each row) of the wanted names of addresses."""
        for option, side, columns in self._plan:
            found = self.find(batch, _ADDRESSES[side])
            if found is not None:
                names = self._names[option]
                codes = names.table.codes(found.values, found.key.type, found.missing)
                yield from ((f"{side}.{column}", names.columns[column], codes) for column in columns)

    def _by_port(self, batch: Batch) -> Iterator[tuple[str, Labels, np.ndarray]]:
        """As `_by_address`, of services."""
        if self._services is None:
            return
        codes = {}
        for side, port in _PORTS.items():
            if f"{side}.service" in self.wanted or "service" in self.wanted:
                codes[side] = self._codes(self._services, self.find(batch, port), self.find(batch, _PROTOCOL))
        for side, found in codes.items():
            if found is not None and f"{side}.service" in self.wanted:
                yield f"{side}.service", self._services.labels, found
        known_ones = [codes[side] for side in ("dst", "src") if codes.get(side) is not None]
        if known_ones and "service" in self.wanted:
            there, *others = known_ones
            both = np.where(there == 0, others[0], there) if others else there
            yield "service", self._services.labels, both

    @staticmethod
    def _codes(services_: Services, port: Found | None, protocol: Found | None) -> np.ndarray | None:
        if port is None or protocol is None:
            return None
        codes = services_.codes(port.values, protocol.values)
        masks = [found.missing for found in (port, protocol) if found.missing is not None]
        return np.where(np.logical_or.reduce(masks), np.int32(0), codes) if masks else codes
