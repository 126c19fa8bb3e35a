"""``ulogd-tw query`` and ``ulogd-tw top``: ask the running service over its socket, print the answer."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from ulogd_tw import config as configuration
from ulogd_tw.core.options import seconds

_CLEAR = "\x1b[H\x1b[2J"
_PREFIXES = "", "k", "M", "G", "T", "P", "E"


class AskError(Exception):
    """The service did not answer, or answered with an error."""


def main(argv: list[str], out: TextIO | None = None) -> int:
    """Run the command; its exit status."""
    arguments = parser().parse_args(argv)
    out = out or sys.stdout
    try:
        path = arguments.socket or _socket_of(arguments.config)
        if arguments.command == "query":
            _write(ask(path, {"sql": arguments.sql}), arguments.format, out)
        else:
            _top(path, arguments, out)
    except AskError as error:
        print(f"ulogd-tw: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the commands."""
    found = argparse.ArgumentParser(prog="ulogd-tw")
    commands = found.add_subparsers(dest="command", required=True)
    query = commands.add_parser("query", help="run SQL over the tables of the running service")
    query.add_argument("sql", help="such as: select sourceAddress, sum(octets) from agg1 group by 1 order by 2 desc")
    query.add_argument("-f", "--format", choices=("table", "csv", "json"), default="table")
    top = commands.add_parser("top", help="show the groups with the most octets, refreshed at intervals")
    top.add_argument("table", nargs="?", help="id of an AGGREGATE; may be left out where there is only one")
    top.add_argument("-b", "--by", default="octets", help="column to rank by (octets)")
    top.add_argument("-n", "--rows", type=_rows, default=20, help="number of rows (20)")
    top.add_argument("-i", "--interval", type=_pause, default=2.0, help="seconds between two refreshes (2)")
    top.add_argument("--once", action="store_true", help="print once and exit")
    for command in (query, top):
        command.add_argument("-s", "--socket", help="query_socket of the service")
        command.add_argument(
            "-c", "--config", default=configuration.default_path(), help="configuration file with the query_socket"
        )
    return found


def _rows(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows, such as 20")
    return int(text)


def _pause(text: str) -> float:
    try:
        value = seconds(text)
    except ValueError:
        value = 0
    if value < 0.1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of at least 0.1 s, such as 2")
    return value


def _socket_of(config: str) -> str:
    from ulogd_tw.core.errors import UlogdError

    try:
        options, _ = configuration.load(config).read("global", configuration.GLOBAL_OPTIONS, "[global]")
    except (UlogdError, OSError) as error:
        raise AskError(str(error)) from None
    if not options.query_socket:
        raise AskError(f"{config} has no query_socket= in [global]; set it, or give the socket with -s")
    return options.query_socket


def ask(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request. Raises `AskError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline()
        except OSError as error:
            raise AskError(f"{path}: {error.strerror}; does the service run, as this user or root?") from None
    if not line:
        raise AskError(f"{path}: the service has stopped")
    answer = json.loads(line)
    if "error" in answer:
        raise AskError(answer["error"])
    return answer


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


def write_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], out: TextIO) -> None:
    """Lines of columns, numbers to the right."""
    cells = [columns, *([_text(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(_numeric(row[place]) for row in rows) for place in range(len(columns))]
    for row in cells:
        padded = (text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True))
        out.write("  ".join(padded).rstrip() + "\n")


def _numeric(value: Any) -> bool:
    """Whether a value is a number, a short one such as 1.5M, or missing."""
    return not isinstance(value, str) or bool(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?[kMGTPE]", value))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# top


def _top(path: str, arguments: argparse.Namespace, out: TextIO) -> None:
    told = ask(path, {"sql": "", "tables": True})
    table, columns = _chosen(told["tables"], arguments.table)
    if arguments.by not in columns:
        raise AskError(f"{table} has no column {arguments.by}; columns are {', '.join(columns)}")
    shown = [name for name in columns if name not in ("first_ms", "last_ms", "interval_start")]
    request = {"sql": _top_query(table, shown, told["together"][table], arguments)}
    while True:
        try:
            page = _page(table, arguments.by, ask(path, request))
        except AskError as error:
            if arguments.once:
                raise
            page = f"{table}: {error}\n"  # a service that restarts is asked again
        out.write(page if arguments.once else _CLEAR + page)
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
        out.write("no rows yet: the present interval has just begun, or no flow has come (ulogd-tw doctor)\n")
        return out.getvalue()
    places = [at for at, _ in enumerate(answer["columns"]) if any(row[at] is not None for row in rows)]
    names = [_SHORT.get(answer["columns"][at], answer["columns"][at]) for at in places]
    write_table(names, [[row[at] for at in places] for row in rows], out)
    width = shutil.get_terminal_size((10_000, 24)).columns
    return "".join(line[:width].rstrip() + "\n" for line in out.getvalue().splitlines())


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
        raise AskError("there is no table: no stack has an AGGREGATE")
    if name is None and len(tables) > 1:
        raise AskError(f"which table? tables are {', '.join(sorted(tables))}")
    name = name or next(iter(tables))
    if name not in tables:
        raise AskError(f"there is no table {name}; tables are {', '.join(sorted(tables))}")
    return name, tables[name]


def _short(name: str, value: Any) -> Any:
    """Counters as 1.5M, to compare them at a glance."""
    if not isinstance(value, (int, float)) or name.startswith(("source", "destination", "protocol")):
        return value
    size, place = float(value), 0
    while abs(size) >= 1000 and place < len(_PREFIXES) - 1:
        size, place = size / 1000, place + 1
    return f"{size:.4g}{_PREFIXES[place]}" if place else value
