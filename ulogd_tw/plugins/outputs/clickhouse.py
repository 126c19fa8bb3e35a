"""CLICKHOUSE: writes rows into a table of ClickHouse."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.keys import Key, known, nearest
from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.clickhouse import client, compression
from ulogd_tw.storing.clickhouse.client import Way, named
from ulogd_tw.storing.clickhouse.database import ClickHouse, token
from ulogd_tw.storing.clickhouse.options import OPTIONS, server
from ulogd_tw.storing.clickhouse.schema import COUNT, OLDEST_S, TIME, TIME_TYPE, Schema, rollups
from ulogd_tw.storing.clickhouse.types import type_for
from ulogd_tw.storing.columns import (
    TableColumn,
    Target,
    all_targets,
    column_name,
    target_of,
    without_column,
)
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.gathering import GatheringOutput
from ulogd_tw.storing.parquet.flow_keys import default_keys
from ulogd_tw.storing.parquet.hours import times
from ulogd_tw.storing.passwords import mistaken_password, password_of
from ulogd_tw.storing.sql_output import CONNECT_S, SQLOutput
from ulogd_tw.storing.stored_columns import END, START

PORT, TLS_PORT = 8123, 8443
_TIME_KEY = Key(TIME, types.MILLISECONDS)
_ORDER = ("exporter", "sourceAddress")
_NAMING = ("order", "rollup_by", "rollup_distinct")
"""Options that name columns."""
_NAMES = ("ingressInterfaceName", "egressInterfaceName")
"""Keys beside those of PARQUET where none are chosen."""
_BY = ("exporter", "ingressInterface", "egressInterface", "protocolIdentifier", "bgpSourceAsNumber",
       "bgpDestinationAsNumber")  # fmt: skip


class CLICKHOUSE(SQLOutput):
    """Writes rows into a table of ClickHouse, in its Native format over HTTP or HTTPS, one INSERT about every second.

    Rows are sorted by the table's key. A repeated insert is there once: it has a token by which the server knows it, if
    the table has a deduplication window, as create=1 makes it. Into other tables an insert without an answer may go
    twice, which is counted as maybe_twice. create=1 needs ClickHouse 24.8; a table that is there may be of any release
    from 18.16 on. Columns have the types of ClickHouse: IPv6 for addresses of both families, DateTime64, LowCardinality
    for names. The column time has the end of a flow, or its arrival where the end is missing or odd.
    """

    if TYPE_CHECKING:
        database: ClickHouse

    name = "CLICKHOUSE"
    gather = Gather(rows=1_000_000, octets=128 << 20)
    options = OPTIONS

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.connect_s = self.config.connect_timeout or CONNECT_S
        self._keys: tuple[str, ...] = ()
        self._named = dict(word.split("=", 1) for word in self.config.columns)
        """Keys by the columns of `columns`."""

    # configuration

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Also a library that is missing, and options that need others."""
        yield from super().mistakes()
        config = self.config
        library = compression.LIBRARIES.get(config.compression)
        if library and not is_there(library):
            yield "compression", f"{config.compression} needs {library}: {install(library)}"
        yield from mistaken_password(config)
        if config.distributed and not config.cluster:
            yield "distributed", "set cluster= to the name of the cluster"
        if config.ssl_key and not config.ssl_cert:
            yield "ssl_key", "set ssl_cert= to its certificate"
        for option in ("retain", "rollups", "cluster", "replicated", "distributed", "nullable", "order"):
            if getattr(config, option) and not config.create:
                yield option, f"{option} is for tables that are made; set create=1, or leave it out"

        yield from self._mistaken_names()

    def _mistaken_names(self) -> Iterator[tuple[str, str]]:
        """Names of columns that cannot be there."""
        keys = self.config.keys
        if mine := [name for name in keys if self.config.create and self._column_of(name) == TIME]:
            yield "keys", f"{mine[0]} would be the column {TIME}, which is there already; leave it out"
        for option in _NAMING:
            for name in getattr(self.config, option) if keys else ():
                if name not in keys:
                    near = nearest(name, keys)
                    yield option, f"{name} is not in keys=" + (f"; did you mean {near}?" if near else "; add it there")

    def remarks(self) -> Iterator[tuple[str, str]]:
        yield from super().remarks()
        config = self.config
        if (config.pass_ or config.pass_file) and not config.tls and not all(map(_here, self._hosts())):
            yield "tls", "the password goes over the network as it is; set tls=1"
        if config.create and not config.retain:
            yield "retain", "retain is not set: the table grows until the server's disk is full"

    def _hosts(self) -> list[tuple[str, int]]:
        return [server(word, TLS_PORT if self.config.tls else PORT) for word in self.config.host]

    @property
    def where(self) -> str:
        return f"{self.config.db} on {named(self.database.way.hosts[self.database.way.first])}"

    def database_of(self) -> Database:
        config = self.config
        way = Way(self._hosts(), config.db, self._credentials, self._context, config.connect_timeout or CONNECT_S,
                  config.timeout)  # fmt: skip
        return ClickHouse(
            config.table or "", self.instance, way, cluster=config.cluster, encoding=config.compression,
            nullable=config.nullable,
        )  # fmt: skip

    def _credentials(self) -> Mapping[str, bytes]:
        """Headers with user and password. Raises OSError."""
        config = self.config
        user = password_of(config.user_file) if config.user_file else config.user.encode()
        secret = password_of(config.pass_file) if config.pass_file else config.pass_.encode()
        return {"X-ClickHouse-User": user} | ({"X-ClickHouse-Key": secret} if secret else {})

    def _context(self) -> ssl.SSLContext | None:
        """TLS with a verified server. Raises OSError."""
        config = self.config
        if not config.tls:
            return None
        context = ssl.create_default_context(cafile=config.ssl_ca or None)
        if config.ssl_cert:
            context.load_cert_chain(config.ssl_cert, config.ssl_key or None)
        return context

    def look(self) -> list[TableColumn]:
        connection = client.connect(replace(self.database.way, answer_s=self.connect_s))
        try:
            self.database.opened(connection)
            return self.database.columns(connection)
        finally:
            connection.close()

    # keys

    def requests_of(self, above: frozenset[str] | None) -> Any:
        chosen = self.config.keys
        if self.config.create:
            held = self._held()
            self._keys = tuple(dict.fromkeys((*(chosen or (*default_keys(above), *_NAMES)), *held, *self._keys)))
            asked: Any = dict.fromkeys(self._keys, False) | dict.fromkeys(chosen, True)
        else:
            asked = super().requests_of(above)
        if not isinstance(asked, dict):
            return asked
        return {"record_kind": False, START: False, END: False} | {k: v for k, v in asked.items() if k != TIME}

    def _held(self) -> list[str]:
        """The keys of the columns that the table has already."""
        if self.config.keys or not self.existing:
            return list(self._named.values())
        return [key for target in self._choose(self.existing) for key in target.keys if known(key)]

    @property
    def _may_add(self) -> bool:
        return self.config.create and self.config.alter and self.database.alterable

    def _asked_for_all(self) -> bool:
        return not self.config.create and super()._asked_for_all()

    def _given_keys(self) -> list[str]:
        """The keys that some plugin above gives."""
        return [name for name in self._keys if self.sources.recipes.get(name)]

    def _given(self, target: Target) -> bool:
        return target.keys == (TIME,) or super()._given(target)

    def _column_of(self, key: str) -> str:
        """The name of the column for a key."""
        mapped = {name: column for column, name in self._named.items()}
        return mapped.get(key) or column_name(key)

    def _targets(self, columns: list[TableColumn], whole: bool = True) -> list[Target]:
        """The columns to write: those of `columns`, then those named as keys. Raises `TableError`.

        `whole`: each key that was chosen must have a column.
        """
        by_name = {column.name: column for column in columns}
        mapped = self._mapped(by_name, whole)
        rest = [column for column in columns if column.name not in self._named]
        if TIME in by_name and by_name[TIME].time and TIME not in self._named:
            mapped.append(target_of(by_name[TIME], (TIME,)))
            rest = [column for column in rest if column.name != TIME]
        if self.config.keys or self.config.create and self._keys:
            return [*mapped, *self._chosen(rest, whole)]
        if not rest and mapped:
            return mapped
        found = [*mapped, *all_targets(self.config.table, rest, self.offered, False)]
        return [self._known_only(target) for target in found] if self._named else found

    def _mapped(self, by_name: Mapping[str, TableColumn], whole: bool) -> list[Target]:
        found = []
        for column, key in self._named.items():
            if column in by_name:
                found.append(target_of(by_name[column], (key,), optional=self.config.create))
            elif whole and not self.config.create:
                raise self._lacks(column, key)
        return found

    @staticmethod
    def _known_only(target: Target) -> Target:
        """With `columns`, further columns of a table are written where their keys come."""
        return replace(target, optional=True)

    def _chosen(self, columns: list[TableColumn], whole: bool) -> list[Target]:
        """The columns of the chosen keys. Raises `TableError` for a key without one."""
        mapped = self._named.values()
        by_name = {column.name.lower(): column for column in columns}
        found = []
        for key in self.config.keys or self._given_keys():
            column = by_name.get(key.lower()) or by_name.get(column_name(key).lower())
            if column is not None:
                found.append(target_of(column, (key,), optional=not self.config.keys))
            elif whole and self.config.keys and key not in mapped:
                raise self._lacks(column_name(key), key)
        return found

    def _lacks(self, column: str, key: str) -> TableError:
        """A missing column, and the statement that adds it."""
        made = known(key.partition("@")[0]) or Key(key, types.STRING)
        remedy = "; ".join(self.database.add_ddl([made.named(column)])) + "; or leave the key out"
        return TableError(f"table {self.config.table} has no column {column} for the key {key}", remedy)

    def _keys_to_make(self, batch: Batch | None) -> list[Key] | None:
        if not self.config.create:
            return super()._keys_to_make(batch)
        found = []
        for name in self.config.keys or self._given_keys():
            key = self._key(name, batch)
            if key is None:
                if batch is None:
                    return None
                continue
            found.append(key.named(self._column_of(name)))
        self.database.to_make = self._schema(found)
        return found

    def _key(self, name: str, batch: Batch | None) -> Key | None:
        """The key of a column: one of the registry or of the plugin above, else as the first batch has it."""
        made = {key.name: key for maker in self.makers for key in maker.keys()}
        key = known(name.partition("@")[0]) or made.get(name)
        if key is None and batch is not None and (held := self.find(batch, name)) is not None:
            key = held.key
        return key

    def _keys_to_add(self, columns: list[TableColumn], batch: Batch | None) -> list[Key] | None:
        names = [column.name for column in columns]
        keys = self._keys_to_make(batch) if self._may_add else []
        return keys and [
            key for key in keys if key.name in without_column(columns, [key.name]) and key.name not in names
        ]

    def _schema(self, keys: list[Key]) -> Schema:
        """The tables for these keys, which are named as columns."""
        config = self.config
        columns = {TIME: TIME_TYPE} | {
            key.name: type_for(key, config.nullable and key.name not in self._sorted()) for key in keys
        }
        counters = [key.name for key in keys if key.semantics == "deltaCounter" and key.type.integer]
        if (wrong := self._unknown(columns)) is not None:
            raise wrong
        database, _, table = config.table.rpartition(".")
        return Schema(
            database or config.db, table, columns, order=[name for name in self._sorted() if name in columns],
            retain_s=config.retain, rollups=rollups(config.rollups),
            sums=[name for name in counters if name != COUNT],
            by=[name for name in map(self._column_of, config.rollup_by or _BY) if name in columns],
            distinct=[name for name in map(self._column_of, config.rollup_distinct) if name in columns],
            cluster=config.cluster, replicated=config.replicated, distributed=config.distributed,
            counted=COUNT if COUNT in columns else "",
        )  # fmt: skip

    def _unknown(self, columns: Mapping[str, str]) -> TableError | None:
        """The error of a column that is named for a roll-up or the order, and that the table will not have."""
        for option in _NAMING:
            for name in getattr(self.config, option):
                if self._column_of(name) not in columns:
                    near = nearest(name, columns)
                    remedy = f"did you mean {near}?" if near else "choose keys that reach this output"
                    return TableError(f"{option}: {name} is no column of table {self.config.table}", remedy)
        return None

    def _sorted(self) -> list[str]:
        return [self._column_of(name) for name in self.config.order or _ORDER]

    def _written(self, columns: list[TableColumn]) -> list[Target]:
        targets = super()._written(columns)
        self.database.complete()
        return targets

    def _check_types(self, columns: list[TableColumn], error: Any) -> None:
        """Raises `error` for a column that cannot hold its key."""
        by_name = {column.name: column for column in columns}
        for target in self._targets(columns, whole=not self._may_add):
            column = by_name[target.column]
            keys = [key for key in map(self._known_key, target.keys) if key is not None]
            if not keys or any(self.database.holds(column, key) for key in keys):
                continue
            table = self.config.table
            raise error(
                f"column {column.name} of table {table} is {column.type}, which does not fit {keys[0].name}",
                f"{self.database.change_ddl(column, keys[0])}, or leave the key out of keys=",
            )

    def _known_key(self, name: str) -> Key | None:
        return _TIME_KEY if name == TIME else self._key(name, None)

    def find(self, batch: Batch, name: str) -> Found | None:
        """As `Plugin.find`; the column time is computed from the times of a row."""
        if name == TIME:
            found = times(batch, super().find, self.config.retain or OLDEST_S)
            return Found(found.time, None, _TIME_KEY)
        return super().find(batch, name)

    # writes

    def wake(self, now: float) -> float | None:
        """Nothing is due: the server removes rows that are old."""
        return GatheringOutput.wake(self, now)

    def doubt(self, number: int) -> tuple[str, int] | None:
        return (self.run, number) if self.database.in_doubt == number else None

    def committed(self, run: str, number: int) -> bool:
        """Whether the server's query log has the insert."""
        connection = self.pool.connect() if self.pool is not None else None
        return connection is not None and self.database.done(connection, token(run, number)) is True

    def _warn_unnumbered(self) -> None:
        if not self._unnumbered and self.database.types:
            self._unnumbered = True
            self.log.warn(
                "{instance}: table {table} has no deduplication window: an insert that gets no answer may be there "
                "twice (counted as maybe_twice); {remedy}", instance=self.instance, table=self.config.table,
                remedy=f"ALTER TABLE {self.config.table} MODIFY SETTING non_replicated_deduplication_window = 10000",
            )  # fmt: skip


def _here(host: tuple[str, int]) -> bool:
    """Whether a server is this host."""
    return host[0] in ("localhost", "::1") or host[0].startswith("127.")
