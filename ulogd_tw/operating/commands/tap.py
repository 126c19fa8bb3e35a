"""``ulogd-tw tap``: follows the rows that leave an instance, with those of an expression alone."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TextIO
from urllib.parse import quote_plus

from ulogd_tw.match import MatchError, parse
from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.errors import DONE, INCOMPLETE, AskError
from ulogd_tw.operating.commands.text import printable
from ulogd_tw.plugins.filters.match import port_of

_SHOWN = 500
"""Characters of a wrong expression that are printed."""
_LONGEST = 15_000
"""Octets of an expression in a request: its line has 16 KiB at most."""
NOTE = "tap"
"""The member that tells a note about the tap from a row."""


def tap(given: argparse.Namespace, out: TextIO) -> int:
    """Print a line for each row; status 3 where rows were left out, or the tap ended before the wanted number."""
    shown = _Shown(given, out)
    match = _checked(" ".join(given.expression))
    try:
        for line in service.of(given).lines("tap", instance=given.instance, match=match, rows=given.rows):
            shown.take(line)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return shown.status
    return shown.ended()


def _checked(expression: str) -> str | None:
    """The expression, or None where there is none. Raises `AskError` for one that no request can carry or mean."""
    if not expression.strip():
        return None
    try:
        parse(expression, {}, port_of)
    except MatchError as error:
        shown = expression if len(expression) <= _SHOWN else expression[:_SHOWN] + "..."
        mark = f"\n{' ' * (error.column - 1)}^" if error.column <= _SHOWN else ""
        raise AskError(f"{error}\n{shown}{mark}") from None
    if len(quote_plus(expression)) > _LONGEST:
        raise AskError(f"the expression has {len(expression)} characters, too many for one request; make it shorter")
    return expression


class _Shown:
    """What a tap has printed so far. `status` is that of the command if it ends now."""

    def __init__(self, given: argparse.Namespace, out: TextIO) -> None:
        self.status = DONE
        self._given = given
        self._out = out
        self._rows = 0
        self._told = False

    def take(self, line: bytes) -> None:
        """Print a row, or a note."""
        found = json.loads(line)
        if NOTE in found:
            self._note(found)
        else:
            self._rows += 1
        if self._given.json:
            self._out.write(line.decode())
        elif NOTE not in found:
            self._out.write(row(found) + "\n")
        self._out.flush()

    def _note(self, found: dict[str, Any]) -> None:
        if found[NOTE] in ("skipped", "ended"):
            self.status = INCOMPLETE
        self._told = found[NOTE] == "ended"
        print(f"ulogd-tw tap: {noted(found)}", file=sys.stderr)

    def ended(self) -> int:
        """The status at the end of the stream, which a service that stops does not announce."""
        if self._rows != self._given.rows:
            self.status = INCOMPLETE
            if not self._told:
                print("ulogd-tw tap: the service has stopped, or has given this tap up", file=sys.stderr)
        return self.status


def row(found: dict[str, Any]) -> str:
    """A row as words, ``name=value``."""
    return printable("  ".join(f"{name}={value}" for name, value in found.items()))


def noted(found: dict[str, Any]) -> str:
    """A note in words."""
    if found[NOTE] == "skipped":
        return f"{found['rows']} rows passed unseen, since they came faster than they can be shown"
    return printable(str(found.get("text", found[NOTE])))
