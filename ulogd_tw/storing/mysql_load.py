"""LOAD DATA LOCAL: rows as lines of text from memory, about twice as fast as INSERT.

LOCAL makes warnings of errors: a string is cut, a forbidden NULL becomes 0, a second row of a key is left out. So the
rows are taken back where the server counts a warning, or fewer rows than were sent, and INSERT sorts them out.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import pymysql
from twisted.logger import Logger

from ulogd_tw.storing.columns import TableColumn, Values
from ulogd_tw.storing.mysql_text import fields, hexadecimal

_AS_TEXT = re.compile(
    r"(tiny|small|medium|big)?int|integer|decimal|numeric|float|double|real|(var)?char|(tiny|medium|long)?(text|blob)"
    r"|(var)?binary|inet[46]|uuid"
)
"""Types that take a text as they take the literal: BIT, ENUM, SET and YEAR do not with the text of a number."""
_REFUSED = (1148, 1235, 3948, 4166)
"""Errors of servers that allow no LOAD DATA LOCAL: not allowed, not supported, disabled, disabled by the client."""
_SAVEPOINT = "ulogd_tw_load"
_NOTE = "Note"


class Loading:
    """LOAD DATA LOCAL into one table. `wanted`: the administrator allows it."""

    log = Logger()

    def __init__(self, wanted: bool, table: str, instance: str) -> None:
        self.wanted = wanted
        self._table = table
        self._instance = instance
        self._server = False
        self._fit: set[str] = set()
        """Columns that take text."""
        self.used = False
        """Whether rows were loaded so far."""
        self._told = False

    def ask(self, connection: Any) -> None:
        """Learn from a new connection whether the server allows it."""
        if not self.wanted:
            return
        with connection.cursor() as cursor:
            cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('local_infile', 'wsrep_load_data_splitting')")
            variables = {name: value == "ON" for name, value in cursor.fetchall()}
        # Galera up to MariaDB 10.4 may commit every 10,000 rows: they could not be taken back.
        self._server = variables.get("local_infile", False) and not variables.get("wsrep_load_data_splitting", False)
        if not self._server:
            self._refused("local_infile is OFF" if not variables.get("local_infile") else "it would split transactions")

    def look_at(self, columns: Iterable[TableColumn], transactional: bool) -> None:
        """Learn into which columns rows can be loaded; into none if they cannot be taken back."""
        words = ((column.name, re.split(r"[^a-z0-9]", column.type.lower(), maxsplit=1)[0]) for column in columns)
        self._fit = {name for name, word in words if transactional and _AS_TEXT.fullmatch(word)}

    def load(self, connection: Any, values: Values, n: int, about_rows: Callable[[Exception], bool]) -> bool:
        """Load the rows; False with none of them in the table where INSERT has to do it. Raises the driver's errors.

        `about_rows` tells errors about single rows, such as a trigger's.
        """
        if not (self.wanted and self._server and self._fit.issuperset(target.column for target, _ in values)):
            return False
        connection.query(f"SAVEPOINT {_SAVEPOINT}")
        name = f"ulogd_tw-{uuid.uuid4()}"
        pieces = [piece for piece, _ in fields(values, n)]
        try:
            rows, warnings = connection.load(self._statement(name, values), name, pieces)
        except pymysql.MySQLError as error:
            if error.args and error.args[0] in _REFUSED:
                self._server = False
                self._refused(str(error.args[-1]))
            elif not about_rows(error):
                raise
        else:
            if rows == n and (not warnings or _harmless(connection, warnings)):
                self.used = True
                return True
        connection.query(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
        return False

    def _statement(self, name: str, values: Values) -> str:
        """Octets go through variables: the server would take them for text."""
        into, digits = [], []
        for place, (target, found) in enumerate(values):
            column = "`" + target.column.replace("`", "``") + "`"
            if hexadecimal(target, found):
                into.append(f"@o{place}")
                digits.append(f"{column} = UNHEX(@o{place})")
            else:
                into.append(column)
        last = f" SET {', '.join(digits)}" if digits else ""
        return (
            f"LOAD DATA LOCAL INFILE '{name}' INTO TABLE {self._table} CHARACTER SET utf8mb4 ({', '.join(into)}){last}"
        )

    def _refused(self, why: str) -> None:
        if not self._told:
            self._told = True
            self.log.info("{instance}: the server takes no LOAD DATA LOCAL ({why}); rows are sent by INSERT, which is "
                          "slower", instance=self._instance, why=why)  # fmt: skip


def _harmless(connection: Any, warnings: int) -> bool:
    """Whether all warnings are notes, as an INSERT has them too: digits behind the point that a column cuts."""
    told = connection.show_warnings()
    return len(told) == warnings and all(level == _NOTE for level, *_ in told)
