"""``ulogd-tw check``: the stacks of a configuration, and its mistakes."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TextIO

from ulogd_tw import tap
from ulogd_tw.config import default_path
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.stack import Stack, describe


def check(given: argparse.Namespace, out: TextIO) -> int:
    """Print stacks with their keys and every mistake; status 1 where not all stacks can run, 2 for no readable file."""
    found = tap.Checked(getattr(given, "configfile", None) or default_path())
    if given.json:
        print(json.dumps(as_json(found), indent=1), file=out)
        return int(not found.ok)
    for mistake in found.mistakes:
        print(f"{mistake.where}: {mistake.kind}: {mistake.text}", file=sys.stderr)
    if found.graph.stacks:
        print(describe(found.graph), file=out)
    print(found.verdict(), file=out if found.ok else sys.stderr)
    return int(not found.ok)


def as_json(found: tap.Checked) -> dict[str, Any]:
    """The same for other programs; keys are None where an instance gives every key."""
    mistakes = [{"where": m.where, "kind": m.kind, "text": m.text} for m in found.mistakes]
    stacks = [
        {"text": stack.spec.text, "where": stack.spec.where, "keys": _keys(stack)} for stack in found.graph.stacks
    ]
    return {"config": found.path, "ok": found.ok, "stacks": stacks, "mistakes": mistakes}


def _keys(stack: Stack) -> dict[str, list[str] | None]:
    """The keys wanted of each instance of a stack."""
    found: dict[str, list[str] | None] = {}
    for node in stack.path[:-1]:
        wanted = node.plugin.wanted
        found[node.ident] = None if wanted is ALL else sorted(node.requested or wanted)
    return found
