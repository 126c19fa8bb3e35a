"""GROUP: gives rows the names of their addresses, ports, interfaces and marks, to group, select and read by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.counters import Fault
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.options import Option, seconds, words
from ulogd_tw.core.paths import input_file
from ulogd_tw.core.plugin import FLOW, PACKET, Filter, Wanted
from ulogd_tw.core.resolve import Found
from ulogd_tw.naming import maxmind, networks, numbers, services, systems
from ulogd_tw.naming.labels import Labels
from ulogd_tw.naming.networks import Names
from ulogd_tw.naming.numbers import Interfaces, Marks
from ulogd_tw.naming.services import Services
from ulogd_tw.transports.watched_files import Watched

_ADDRESSES = {"src": "sourceAddress", "dst": "destinationAddress", "exporter": "exporter"}
_PORTS = {"src": "sourceTransportPort", "dst": "destinationTransportPort"}
_PROTOCOL = "protocolIdentifier"
_INTERFACES = {"in": "ingressInterface", "out": "egressInterface"}
_NUMBERS = {"marks": ("mark.name", ("ct.mark", "oob.mark")), "zones": ("zone.name", ("ct.zone",))}
"""For each option, its key and the keys that may hold the number."""
_END, _START = "flowEndMilliseconds", "flowStartMilliseconds"
_COLUMNS = {"country": ("country",), "asn": ("as", "as.name")}
"""For each option, the columns of its database for either end."""
_NOW = np.zeros(0, np.int64)
_SERVICES = ("src.service", "dst.service", "service")


class GROUP(Filter):
    """Looks up names in files: of networks, countries, autonomous systems, services, interfaces, marks and zones.

    The most specific network counts. Only keys wanted by plugins below it are looked up. Where a file has no name, the
    key has no value.
    """

    name = "GROUP"
    itype = otype = PACKET | FLOW
    counts = tuple(
        Fault(name, "occasions", f"The file of {name} could not be read again; the previous content stays in use.")
        for name in ("networks", "services", "country", "asn", "interfaces", "marks", "zones")
    )
    options = (
        Option("networks", input_file, "", "File of networks with PREFIX,NAME on each line, such as "
               "10.1.0.0/16,office; # begins a comment. Gives the keys src.net, dst.net and exporter.net."),
        Option("columns", words, (), "Names of further columns in the file networks, after NAME; each gives a key such "
               "as src.net.COLUMN. Columns named from and until limit a line to a period (2026-11-23, "
               "2026-11-23T14:00:00Z or seconds since 1970), compared with the end of the flow."),
        Option("services", input_file, "", "File of services in the format of /etc/services. Gives the keys "
               "src.service, dst.service and service (of the destination port, else of the source port)."),
        Option("country", input_file, "", "Database of countries in MaxMind's format (.mmdb). Gives the keys "
               "src.country and dst.country."),
        Option("asn", input_file, "", "Database of autonomous systems: in MaxMind's format (.mmdb), or a text file "
               "with PREFIX NUMBER [NAME] on each line. Gives the keys src.as, dst.as, src.as.name and dst.as.name."),
        Option("interfaces", input_file, "", "File of interfaces with EXPORTER,INDEX,NAME on each line, where EXPORTER "
               "is an address or prefix (empty: any exporter). Gives the keys in.interface and out.interface. Example "
               "of a line: 192.0.2.1,3,uplink"),
        Option("marks", input_file, "", "File of connection and packet marks with NUMBER,NAME or NUMBER/MASK,NAME on "
               "each line, such as 0x10/0xf0,voice. Gives the key mark.name."),
        Option("zones", input_file, "", "File of conntrack zones with NUMBER,NAME on each line, such as 7,guests. "
               "Gives the key zone.name."),
        Option("files_interval", seconds, 5.0, "Seconds between two checks of the files for changes."),
    )  # fmt: skip
    provides = ulogd_keys("src.net", "dst.net", "exporter.net", "src.country", "dst.country", "src.as", "dst.as",
                          "src.as.name", "dst.as.name", *_SERVICES, "in.interface", "out.interface", "mark.name",
                          "zone.name")  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._names: dict[str, Names] = {}
        """By option."""
        self._services: Services | None = None
        self._interfaces: Interfaces | None = None
        self._marks: dict[str, Marks] = {}
        """By option."""
        self._files = [self._watched(option) for option in self._READERS if getattr(self.config, option)]

    # declarations

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        if not self._files:
            yield (
                "networks",
                f"no option names a file; give at least one of {', '.join(self._READERS)}",
            )
        if config.columns and not config.networks:
            yield "columns", "needs networks=; set it, or delete columns="
        for name in config.columns:
            if not re.fullmatch("[A-Za-z0-9]+", name):
                yield "columns", f"{name!r}: names of columns consist of letters and digits; rename it"
        for option in ("country", "asn"):
            if getattr(config, option).endswith(".mmdb") and not is_there("maxminddb"):
                yield option, f"needs maxminddb: {install('maxminddb')}"

    def keys(self) -> Iterable[Key]:
        names = [f"{side}.{column}" for option in self._columns for side, column in self._of(option)]
        names += _SERVICES if self.config.services else ()
        names += [f"{side}.interface" for side in _INTERFACES] if self.config.interfaces else ()
        names += [name for option, (name, _) in _NUMBERS.items() if getattr(self.config, option)]
        return [key for name in names if (key := known(name)) is not None] or self.provides

    @property
    def _columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of each option."""
        further = tuple(f"net.{name}" for name in self.config.columns if name not in ("from", "until"))
        every = {"networks": ("net", *further)} | _COLUMNS
        return {option: columns for option, columns in every.items() if getattr(self.config, option)}

    def _of(self, option: str) -> Iterator[tuple[str, str]]:
        """(side, column) of an option."""
        for side in _ADDRESSES:
            if side != "exporter" or option == "networks":
                yield from ((side, column) for column in self._columns[option])

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        asked = {key.name for key in self.keys() if key.name in wanted}
        ends = {name.partition(".")[0] for name in asked if name.partition(".")[2] in self._of_ends}
        found = [_ADDRESSES[side] for side in ends]
        found += [port for side, port in _PORTS.items() if {f"{side}.service", "service"} & asked]
        found += [_PROTOCOL] if asked & set(_SERVICES) else []
        sides = [of for side, of in _INTERFACES.items() if f"{side}.interface" in asked]
        found += [*sides, "exporter"] if sides else []
        found += [of for name, numbers in _NUMBERS.values() if name in asked for of in numbers]
        if ends and {"from", "until"} & set(self.config.columns):
            found += [_END, _START]
        return dict.fromkeys(found, False)

    @property
    def _of_ends(self) -> set[str]:
        return {column for columns in self._columns.values() for column in columns}

    # files

    _READERS: ClassVar[dict[str, Callable[..., Any]]] = {
        "networks": networks.read, "services": services.read, "country": maxmind.countries, "asn": systems.read,
        "interfaces": numbers.interfaces, "marks": numbers.marks, "zones": numbers.marks,
    }  # fmt: skip

    def _watched(self, option: str) -> Watched[Any]:
        more = (("net", *(f"net.{name}" for name in self.config.columns)),) if option == "networks" else ()
        read = self._READERS[option]
        return Watched(self, option, [getattr(self.config, option)], lambda files: read(files[0], *more),
                       lambda made: self._take(option, made))  # fmt: skip

    def _take(self, option: str, made: Any) -> None:
        if isinstance(made, Services):
            self._services = made
        elif isinstance(made, Interfaces):
            self._interfaces = made
        elif isinstance(made, Marks):
            self._marks[option] = made
        else:
            self._names[option] = made

    def open(self) -> None:
        for files in self._files:
            files.open()

    def wake(self, now: float) -> float:
        for files in self._files:
            files.poll()
        return self.config.files_interval

    def reopen(self) -> None:
        """SIGHUP: read all files again."""
        for files in self._files:
            files.read_anew()

    # rows

    def process(self, batch: Batch) -> Batch:
        added: dict[Key, Column] = {}
        missing: dict[str, np.ndarray] = {}
        found = (self._by_address(batch), self._by_port(batch), self._by_interface(batch), self._by_number(batch))
        for name, labels, codes in chain(*found):
            column, none = labels.column(codes)
            added[known(name)] = column
            if none is not None:
                missing[name] = none
        return batch.with_columns(added, missing) if added else batch

    @cached_property
    def _plan(self) -> list[tuple[str, str, list[str]]]:
        """(option, side, columns) of the wanted names of addresses; computed when rows flow, since requests are settled
        by then."""
        found = []
        for option in self._columns:
            for side in _ADDRESSES:
                columns = [column for of, column in self._of(option) if of == side and f"{of}.{column}" in self.wanted]
                if columns:
                    found.append((option, side, columns))
        return found

    def _by_address(self, batch: Batch) -> Iterator[tuple[str, Labels, np.ndarray]]:
        """(key, labels of codes, code of each row) of the wanted names of addresses."""
        for option, side, columns in self._plan:
            found = self.find(batch, _ADDRESSES[side])
            if found is not None:
                names = self._names[option]
                times = self._times(batch) if names.timed else _NOW
                codes = names.codes(found.values, found.key.type, found.missing, times)
                yield from ((f"{side}.{column}", names.columns[column], codes) for column in columns)

    def _times(self, batch: Batch) -> np.ndarray:
        """The time of each row: the end of the flow, else its start, else now. Seconds since 1970."""
        times = np.full(batch.n, int(batch.now))
        for name in (_START, _END):
            found = self.find(batch, name)
            if found is not None:
                times = (found.filled(times.astype(np.uint64) * np.uint64(1000)) // np.uint64(1000)).astype(np.int64)
        return times

    def _by_interface(self, batch: Batch) -> Iterator[tuple[str, Labels, np.ndarray]]:
        """As `_by_address`, for interfaces."""
        if self._interfaces is None:
            return
        exporter = self.find(batch, "exporter")
        address = (None, None) if exporter is None else (exporter.values, exporter.key.type)
        for side, name in _INTERFACES.items():
            if f"{side}.interface" in self.wanted and (index := self.find(batch, name)) is not None:
                codes = self._interfaces.codes(index.values, *address)
                yield f"{side}.interface", self._interfaces.labels, _without(codes, index.missing)

    def _by_number(self, batch: Batch) -> Iterator[tuple[str, Labels, np.ndarray]]:
        """As `_by_address`, for marks and zones."""
        for option, made in self._marks.items():
            name, of = _NUMBERS[option]
            found = next((one for one in (self.find(batch, key) for key in of) if one is not None), None)
            if name in self.wanted and found is not None:
                yield name, made.labels, _without(made.codes(found.values), found.missing)

    def _by_port(self, batch: Batch) -> Iterator[tuple[str, Labels, np.ndarray]]:
        """As `_by_address`, for services."""
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
        return _without(_without(codes, port.missing), protocol.missing)


def _without(codes: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
    """Codes with 0 for missing values."""
    return codes if missing is None else np.where(missing, np.int32(0), codes)
