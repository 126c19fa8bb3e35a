"""DBI: ulogd2's name for databases of several kinds, chosen by `dbtype`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ulogd_tw.core.options import Option, number, one_of
from ulogd_tw.core.options import text as words
from ulogd_tw.plugins.outputs.mysql import MYSQL
from ulogd_tw.plugins.outputs.pgsql import PGSQL
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3
from ulogd_tw.storing.sql_output import SQLOutput

_OWN = (
    Option("dbtype", one_of("sqlite3", "mysql", "pgsql"), None, "Kind of database: sqlite3, mysql (also MariaDB) or "
           "pgsql. The other options are those of the output SQLITE3, MYSQL or PGSQL.", mandatory=True),
    Option("db", words, None, "Name of the database; with dbtype=sqlite3 the path of its file.", mandatory=True),
    Option("host", words, "", "Name or address of the server. Empty: a Unix socket of this host, if there is one."),
    Option("port", number, 0, "Port of the server. 0: 3306 of MySQL, 5432 of PostgreSQL."),
)  # fmt: skip


def _together(*tables: Iterable[Option]) -> Iterator[Option]:
    """The options of all tables, each name once; those that only some kinds have say which."""
    kinds = {"MYSQL": MYSQL, "PGSQL": PGSQL, "SQLITE3": SQLITE3}
    seen: set[str] = set()
    for option in (option for table in tables for option in table):
        if option.name in seen:
            continue
        seen.add(option.name)
        having = [name for name, kind in kinds.items() if any(option.name == other.name for other in kind.options)]
        one = having[0] if len(having) == 1 else ""
        yield replace(option, meaning=f"As of {one}. {option.meaning}") if one else option


class DBI(SQLOutput):
    """Writes each row into a table of SQLite, MySQL, MariaDB or PostgreSQL, as the output of that name does.

    ulogd2 needs a driver of libdbi for it; here `dbtype` chooses SQLITE3, MYSQL or PGSQL. A first column that is no key
    fills itself, as in ulogd2.
    """

    name = "DBI"
    skips_first = True
    options = tuple(_together(_OWN, MYSQL.options, PGSQL.options, SQLITE3.options))

    def __new__(cls, instance: str, config: Any = None) -> DBI:
        """An instance of the kind that `dbtype` names."""
        chosen = _KINDS.get(getattr(config, "dbtype", None) or "sqlite3", cls) if cls is DBI else cls
        return super().__new__(chosen)


class _Sqlite(DBI, SQLITE3):
    """dbtype=sqlite3."""


class _Mysql(DBI, MYSQL):
    """dbtype=mysql."""


class _Pgsql(DBI, PGSQL):
    """dbtype=pgsql."""


_KINDS: dict[str, type[DBI]] = {"sqlite3": _Sqlite, "mysql": _Mysql, "pgsql": _Pgsql}
