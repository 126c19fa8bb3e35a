"""``ulogd-tw status``: each stack with its state, rates, drops and lag, on one screen."""

from __future__ import annotations

import argparse
import io
import json
import time
from typing import Any, TextIO

from ulogd_tw.left_behind import Left
from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.errors import NO
from ulogd_tw.operating.commands.text import cut, duration, printable, screen, short, write_table

_WORST_FIRST = {"down": 0, "spooling": 1}


def status(given: argparse.Namespace, out: TextIO) -> int:
    """Print one screen; status 1 where a stack is down or left out."""
    asked = service.of(given)
    found = asked.get("status")
    if given.json:
        print(json.dumps(found, indent=1), file=out)
    else:
        before = found
        time.sleep(given.interval)
        found = asked.get("status")
        out.write(page(before, found))
    down = any(stack["state"] == "down" for stack in found["stacks"])
    return NO if down or found["left_out"] else 0


def page(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The screen of two looks: the service, then a line for each stack, the worst first where not all fit."""
    out = io.StringIO()
    for line in _head(after):
        out.write(line + "\n")
    out.write("\n")
    stacks = [*map(_left_out, after["left_out"]), *after["stacks"]]
    stacks.sort(key=lambda stack: _WORST_FIRST.get(stack["state"], 2))
    room = max(screen()[1] - out.getvalue().count("\n") - 3, 3)
    listed = stacks if len(stacks) <= room else stacks[: room - 1]
    passed = max(after["now"] - before["now"], 1e-9)
    former = {(stack["where"], stack["text"]): stack for stack in before["stacks"]}
    write_table(_COLUMNS, [_row(one, former.get((one["where"], one["text"]), one), passed) for one in listed], out)
    if len(listed) < len(stacks):
        out.write(f"... and {len(stacks) - len(listed)} more; ulogd-tw stacks lists all\n")
    return cut(out.getvalue())


def _head(found: dict[str, Any]) -> list[str]:
    """The service, and what it keeps over a restart."""
    since = duration(max(time.time() - found["since"], 0))
    lines = [printable(f"ulogd_tw {found['version']}, pid {found['pid']}, for {since}, {found['config']}")]
    if found.get("state_dir"):
        lines.append(printable(f"kept in {found['state_dir']}: " + (_kept(found) or "nothing so far")))
    if found.get("state_fault"):
        lines.append(printable(f"state is not kept: {found['state_fault']}"))
    lines += [printable(f"left behind: {Left(**one)}") for one in found.get("left_behind", ())]
    return lines


def _kept(found: dict[str, Any]) -> str:
    """What each instance keeps, with files as they are named below the directory."""
    below = found["state_dir"].rstrip("/") + "/"
    words = []
    for ident, kept in found["kept"].items():
        listed = ", ".join(f"{name} {str(value).removeprefix(below)}" for name, value in kept.items())
        words.append(f"{ident}: {listed}")
    return "; ".join(words)


def _left_out(stack: dict[str, Any]) -> dict[str, Any]:
    """A stack that could not start, as those that run."""
    figures = dict.fromkeys(("rows_received", "rows_written", "rows_waiting", "oldest_seconds", "dropped", "lost"), 0)
    return stack | figures | {"state": "down", "reasons": ["left out: " + stack["reason"]]}


_COLUMNS = ("stack", "state", "rows/s", "written/s", "drops/s", "dropped", "lost", "waiting", "lag", "reasons")


def _row(stack: dict[str, Any], before: dict[str, Any], passed: float) -> list[Any]:
    """One stack: rows that came and were written a second, rows given up or lost, rows waiting for its output.

    The lag is the age of the oldest row that waits.
    """

    def rate(*figures: str) -> float:
        return max(sum(stack[figure] - before[figure] for figure in figures), 0) / passed

    came, written, gone = rate("rows_received"), rate("rows_written"), rate("dropped", "lost")
    waiting = stack["rows_waiting"]
    figures = [came, written, gone, stack["dropped"], stack["lost"], waiting]
    lag = duration(stack["oldest_seconds"]) if waiting else "-"
    rounded = [short(float(f"{value:.4g}")) for value in figures]
    return [stack["text"], stack["state"], *rounded, lag, "; ".join(stack["reasons"])]
