"""``ulogd-tw reload`` and ``restart``: changes of the running service."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any, TextIO

from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.errors import NO, AskError, Refused
from ulogd_tw.operating.commands.text import printable

_PAUSE_S = 0.1


def reload(given: argparse.Namespace, out: TextIO) -> int:
    """Print the changes; with mistakes print those, status 1, and the service goes on as before."""
    try:
        answer = service.of(given).post("reload", patience=600.0)
    except Refused as refused:
        if given.json:
            print(json.dumps(refused.answer, indent=1), file=out)
        for mistake in refused.answer.get("mistakes", []) if not given.json else ():
            print(printable(_line(mistake)), file=sys.stderr)
        print("ulogd-tw reload: nothing is changed; the service goes on with its old configuration", file=sys.stderr)
        return NO
    if given.json:
        print(json.dumps(answer, indent=1), file=out)
        return 0
    for change in answer["changes"]:
        print(printable(_line(change)), file=out)
    if not answer["changes"]:
        print("nothing has changed", file=out)
    return 0


def _line(found: Any) -> str:
    """A change or a mistake in words."""
    if isinstance(found, dict) and "text" in found:
        return ": ".join(str(found[part]) for part in ("where", "kind", "text") if found.get(part))
    return str(found) if not isinstance(found, dict) else " ".join(f"{name} {value}" for name, value in found.items())


def restart(given: argparse.Namespace, out: TextIO) -> int:
    """Ask for the restart, and wait until the new process answers; status 1 where none could start."""
    asked = service.of(given)
    before = asked.get("status")
    try:
        answer = asked.post("restart")
    except Refused as refused:
        answer = refused.answer
        if mistakes := answer.get("mistakes"):
            print(*map(printable, mistakes), sep="\n", file=sys.stderr)
            print("ulogd-tw restart: nothing is restarted, since no process could start so", file=sys.stderr)
            return NO
    if unit := answer.get("unit"):
        _through_systemd(unit)
    elif not answer.get("restarting"):
        raise AskError(str(answer.get("error") or "the service does not restart itself"))
    after = _again(asked, before, given.wait)
    if given.json:
        print(json.dumps({"restarting": True, "status": after}, indent=1), file=out)
    else:
        print(f"restarted: pid {after['pid']}, {len(after['stacks'])} stacks", file=out)
    return 0


def _through_systemd(unit: str) -> None:
    """Restart a unit. Raises `AskError` with the command to type where this user may not."""
    command = ["systemctl", "restart", unit]
    advice = f"the service runs under systemd; as root: {' '.join(command)}"
    if os.geteuid():
        raise AskError(advice)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AskError(f"{advice}: {error}") from None
    if done.returncode:
        raise AskError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")


def _again(asked: service.Service, before: dict[str, Any], wait: float) -> dict[str, Any]:
    """The status of the new process. Raises `AskError` where none answers in time."""
    end = time.monotonic() + wait
    while True:
        try:
            found = asked.get("status")
            if (found["pid"], found["since"]) != (before["pid"], before["since"]):
                return found
            text = f"{asked.path}: the old process still answers"
        except AskError as error:
            text = str(error)
        if time.monotonic() > end:
            raise AskError(f"no new process within {wait:g} s: {text}; the log says why")
        time.sleep(_PAUSE_S)
