"""``ulogd-tw tap``: follows the rows that leave an instance, with those of an expression alone."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TextIO

from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.errors import INCOMPLETE
from ulogd_tw.operating.commands.text import printable

NOTE = "tap"
"""The member that tells a note about the tap from a row."""


def tap(given: argparse.Namespace, out: TextIO) -> int:
    """Print a line for each row; status 3 where rows were left out, or the tap ended before the wanted number."""
    match = " ".join(given.expression) or None
    status = 0
    try:
        for line in service.of(given).lines("tap", instance=given.instance, match=match, rows=given.rows):
            found = json.loads(line)
            if NOTE in found:
                status = INCOMPLETE if found[NOTE] in ("skipped", "ended") else status
                print(f"ulogd-tw tap: {noted(found)}", file=sys.stderr)
            if given.json or NOTE not in found:
                out.write(line.decode() if given.json else row(found) + "\n")
                out.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return status


def row(found: dict[str, Any]) -> str:
    """A row as words, ``name=value``."""
    return printable("  ".join(f"{name}={value}" for name, value in found.items()))


def noted(found: dict[str, Any]) -> str:
    """A note in words."""
    if found[NOTE] == "skipped":
        return f"{found['rows']} rows passed unseen, since they came faster than they can be shown"
    return printable(str(found.get("text", found[NOTE])))
