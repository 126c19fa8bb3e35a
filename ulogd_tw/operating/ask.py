"""``ulogd-tw query`` and ``ulogd-tw top``: ask the running service over its socket, print the answer."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import time
from typing import Any, TextIO

from ulogd_tw.operating.commands import service, tree
from ulogd_tw.operating.commands.errors import DONE, INCOMPLETE, NO, AskError, NothingFound
from ulogd_tw.operating.commands.text import cut, short, write_table

_CLEAR = "\x1b[H\x1b[2J"


def query(given: argparse.Namespace, out: TextIO) -> int:
    """Run SQL and print the rows; status 1 where there is none, 3 where there are more than are given out."""
    if not given.sql.strip():
        raise AskError("the SQL is empty; write a query, such as 'select * from agg1 limit 10'")
    try:
        answer = service.of(given).post("query", {"sql": given.sql})
    except NothingFound as error:  # SQL about no table is as wrong as any other
        raise AskError(str(error)) from None
    if given.json:
        print(json.dumps(answer), file=out)
    else:
        _write(answer, given.format, out)
    return INCOMPLETE if answer.get("more") else DONE if answer["rows"] else NO


def top(given: argparse.Namespace, out: TextIO) -> int:
    """Show the largest groups, until the user ends it."""
    try:
        _top(service.of(given), given, out)
    except KeyboardInterrupt:
        pass
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    return tree.parser()


def _write(answer: dict[str, Any], form: str, out: TextIO) -> None:
    columns, rows = answer["columns"], answer["rows"]
    if form == "json":
        for row in rows:
            out.write(json.dumps(dict(zip(columns, row, strict=True)), separators=(",", ":")) + "\n")
    elif form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        write_table(columns, rows, out)
    if answer.get("more"):
        print("ulogd-tw: there are more rows than are given out; use limit or where", file=sys.stderr)


# top


def _top(asked: service.Service, arguments: argparse.Namespace, out: TextIO) -> None:
    tables = {found["id"]: found for found in asked.get("tables")["tables"]}
    table, columns = _chosen({ident: found["columns"] for ident, found in tables.items()}, arguments.table)
    if arguments.by not in columns:
        raise AskError(f"{table} has no column {arguments.by}; columns are {', '.join(columns)}")
    shown = [name for name in columns if name not in ("first_ms", "last_ms", "interval_start")]
    request = {"sql": _top_query(table, shown, tables[table]["together"], arguments)}
    while True:
        try:
            answer = asked.post("query", request)
            page = json.dumps(answer) + "\n" if arguments.json else _page(table, arguments.by, answer)
        except AskError as error:
            if arguments.once or arguments.json:
                raise
            page = f"{table}: {error}\n"  # a service that restarts is asked again
        out.write(page if arguments.once or arguments.json else _CLEAR + page)
        out.flush()
        if arguments.once:
            return
        time.sleep(arguments.interval)


_SHORT = {
    "sourceAddress": "source", "destinationAddress": "destination", "protocolIdentifier": "proto",
    "sourceTransportPort": "sport", "destinationTransportPort": "dport", "reply_packets": "r.packets",
    "reply_octets": "r.octets",
}  # fmt: skip
"""Names of columns on the screen, where the elements' own are wide."""


def _page(table: str, by: str, answer: dict[str, Any]) -> str:
    """One screen of `top`: as wide as the terminal, without columns of which no row has a value."""
    out = io.StringIO()
    out.write(f"{table} by {by}, {time.strftime('%H:%M:%S')}\n\n")
    rows = [[_short(name, value) for name, value in zip(answer["columns"], row, strict=True)] for row in answer["rows"]]
    if not rows:
        out.write("no rows yet: the current interval has just begun, or no flow has arrived (ulogd-tw doctor)\n")
        return out.getvalue()
    places = [at for at, _ in enumerate(answer["columns"]) if any(row[at] is not None for row in rows)]
    names = [_SHORT.get(answer["columns"][at], answer["columns"][at]) for at in places]
    write_table(names, [[row[at] for at in places] for row in rows], out)
    return cut(out.getvalue())


def _top_query(table: str, shown: list[str], together: dict[str, str], arguments: argparse.Namespace) -> str:
    """The largest groups, each once, summed over its rows in open intervals."""
    columns = {name: f'{together[name]}("{name}")' if name in together else f'"{name}"' for name in shown}
    listed = ", ".join(f'{how} as "{name}"' for name, how in columns.items())
    keys = ", ".join(f'"{name}"' for name in shown if name not in together)
    grouped = f"group by {keys} " if keys else ""
    order = columns.get(arguments.by, f'max("{arguments.by}")')
    return f'select {listed} from "{table}" {grouped}order by {order} desc nulls last limit {arguments.rows}'


def _chosen(tables: dict[str, list[str]], name: str | None) -> tuple[str, list[str]]:
    if not tables:
        raise NothingFound("there is no table: no stack has an AGGREGATE")
    if name is None and len(tables) > 1:
        raise AskError(f"which table? tables are {', '.join(sorted(tables))}")
    name = name or next(iter(tables))
    if name not in tables:
        raise NothingFound(f"there is no table {name}; tables are {', '.join(sorted(tables))}")
    return name, tables[name]


def _short(name: str, value: Any) -> Any:
    """Counters as 1.5M, to compare them at a glance."""
    if not isinstance(value, (int, float)) or name.startswith(("source", "destination", "protocol")):
        return value
    return short(value)
