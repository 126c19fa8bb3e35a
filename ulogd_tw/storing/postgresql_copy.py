"""Writes encoded rows into PostgreSQL inside a transaction, and finds the rows that it refuses.

The server names the line of the row at which a COPY failed: the rows before it are sent again, it is left out, and the
rows behind it follow. Where no line is named, the rows are halved. A batch without refused rows is one COPY.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg

from ulogd_tw.storing.postgresql_rows import Rows

SAVEPOINT = "ulogd_tw_rows"
_ROW_CLASSES = ("22", "23", "44")
_ROW_ERRORS = ("P0001", "54000")
"""An exception raised by a function, and an index entry that is too long."""
_NOT_OF_ROWS = ("22P03", "22P04")
"""Wrong binary data or columns: the table was altered since its columns were read."""
FEWEST = 256
"""Rows sent at once behind a refused one, at least."""

Refuse = Callable[[int, psycopg.Error], None]
"""Told of each refused row: its number, and the error."""
Send = Callable[[int, int], None]
"""Sends the rows from a number up to another one."""


def about_row(error: BaseException) -> bool:
    """Whether an error is about a row, not the statement."""
    code = getattr(error, "sqlstate", None) or ""
    return code not in _NOT_OF_ROWS and (code[:2] in _ROW_CLASSES or code in _ROW_ERRORS)


def write(connection: Any, n: int, send: Send, refuse: Refuse, table: str) -> None:
    """Send `n` rows, in as few pieces as possible, but for the refused ones. `table`: its name without schema."""
    waiting, at_once = [(0, n)], n
    while waiting:
        start, stop = waiting.pop()
        if stop - start > at_once:
            waiting.append((start + at_once, stop))
            stop = start + at_once
        error = _attempt(connection, send, start, stop) if start < stop else None
        if error is None:
            at_once = min(2 * at_once, n)
        elif stop - start == 1:
            refuse(start, error)
        elif 0 < (line := _line(error, table)) <= stop - start:
            bad = start + line - 1
            refuse(bad, error)
            at_once = max(FEWEST, 2 * line)  # else many refused rows would cost their square
            waiting += [(bad + 1, stop), (start, bad)]
        else:
            middle = (start + stop) // 2
            waiting += [(middle, stop), (start, middle)]


def _attempt(connection: Any, send: Send, start: int, stop: int) -> psycopg.Error | None:
    """Send some rows; the error for which one of them is to blame, and then none of them is written."""
    connection.execute(f"SAVEPOINT {SAVEPOINT}")
    try:
        send(start, stop)
    except psycopg.Error as error:
        if not about_row(error):
            raise
        connection.execute(f"ROLLBACK TO {SAVEPOINT}")
        return error
    connection.execute(f"RELEASE {SAVEPOINT}")
    return None


def _line(error: psycopg.Error, table: str) -> int:
    """The line in the error's context, in any language, 0 for none: ``COPY flows, line 3, column number``."""
    last = (error.diag.context or "").rpartition("\n")[2]
    found = re.match(rf"COPY {re.escape(table)}, \D*(\d+)", last)
    return int(found[1]) if found else 0


def copying(connection: Any, statement: str, rows: Rows) -> Send:
    """Sends rows by a COPY statement."""

    def send(start: int, stop: int) -> None:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(rows.piece(start, stop))

    return send


def stating(connection: Any, head: bytes, rows: Rows, cut: int, most: int) -> Send:
    """Sends rows as statements, at most `most` octets at once. `cut`: octets to leave out behind the last row."""

    def send(start: int, stop: int) -> None:
        while start < stop:
            end = rows.within(start, stop, most)
            piece = rows.piece(start, end)
            connection.execute(head + piece[: len(piece) - cut])
            start = end

    return send
