"""``ulogd-tw stacks``, ``counters``, ``exporters``, ``templates`` and ``alerts``: lists of what the service has."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, TextIO

from ulogd_tw.core.keys import nearest
from ulogd_tw.operating.commands import service
from ulogd_tw.operating.commands.errors import NO, NothingFound
from ulogd_tw.operating.commands.text import duration, short, write_table


def stacks(given: argparse.Namespace, out: TextIO) -> int:
    """List the stacks with their state; those left out are there too, with the reason."""
    answer = service.of(given).get("status")
    left_out = [stack | {"state": "left out", "reasons": [stack["reason"]]} for stack in answer["left_out"]]
    found = [*answer["stacks"], *left_out]
    if _as_json(given, found, out):
        return 0
    rows = [[stack["state"], stack["where"], stack["text"], "; ".join(stack["reasons"])] for stack in found]
    write_table(["state", "line", "stack", "reasons"], rows, out)
    return 0


_FIGURES = ("received", "emitted", "filtered", "merged", "written", "waiting")


def counters(given: argparse.Namespace, out: TextIO) -> int:
    """Show the most used counters of every instance, or all of one; status 1 where there is no such instance."""
    found = service.of(given).get("counters", instance=given.instance)["instances"]
    if _as_json(given, found, out):
        return 0
    if given.instance:
        rows = list(_flat(found[given.instance]))
        write_table(["counter", "value"], rows, out)
        return 0
    sums = ("dropped", "lost", "errors")
    lines = [
        [ident, one["plugin"], *(one[f"rows_{what}"] for what in _FIGURES), *(sum(one[what].values()) for what in sums)]
        for ident, one in found.items()
    ]
    write_table(["instance", "plugin", *_FIGURES, *sums], lines, out)
    return 0


def _flat(counted: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Counters by their names as in the reference: ``dropped.max_keys``."""
    for name, value in counted.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


_EXPORTER = ("input", "exporter", "port", "domain", "version", "messages", "records", "templates", "lost", "malformed")

_RATES = {"records/s": "records_per_second", "octets/s": "octets_per_second"}
"""Columns that are there once the rates are known."""


def exporters(given: argparse.Namespace, out: TextIO) -> int:
    """List the exporters, one line for each Observation Domain; status 1 where there is none."""
    listed = service.of(given).get("exporters")["exporters"]
    if _as_json(given, listed, out):
        return int(not listed)
    if not listed:
        raise NothingFound("no exporter has been heard; is there an input such as COLLECTOR, and does traffic come?")
    now = time.time()
    rates = {title: name for title, name in _RATES.items() if any(name in one for one in listed)}
    rows = [[*(one.get(name) for name in _EXPORTER), *(_rate(one, name) for name in rates.values()), _heard(one, now)]
            for one in listed]  # fmt: skip
    write_table([*_EXPORTER, *rates, "heard"], rows, out)
    return 0


def _rate(one: dict[str, Any], name: str) -> Any:
    """A rate at a glance; ``-`` where none is known yet."""
    return short(float(f"{one[name]:.4g}")) if name in one else "-"


def _heard(one: dict[str, Any], now: float) -> str:
    """How long ago an exporter was heard."""
    last = one.get("last_received")
    return f"{duration(max(now - last, 0))} ago" if last else "never"


_SHOWN = 5
"""Exporters named in a message."""
_TEMPLATE = ("input", "exporter", "domain", "template")


def templates(given: argparse.Namespace, out: TextIO) -> int:
    """List the templates of all exporters, or of one; status 1 where there is none."""
    asked = service.of(given)
    listed = asked.get("templates", exporter=given.exporter)["templates"]
    if _as_json(given, listed, out):
        return int(not listed)
    if not listed:
        raise NothingFound(_no_template(asked, given.exporter))
    rows = [[*(one.get(name) for name in _TEMPLATE), ", ".join(_fields(one))] for one in listed]
    write_table([*_TEMPLATE, "fields"], rows, out)
    return 0


def _no_template(asked: service.Service, exporter: str | None) -> str:
    """Why there is no template: the exporter has sent none, or has not been heard."""
    known = list(dict.fromkeys(one["exporter"] for one in asked.get("exporters")["exporters"])) if exporter else []
    if not exporter or exporter in known:
        whose = f" of {exporter}" if exporter else ""
        return f"there is no template{whose}; exporters send them from time to time, NetFlow v5 has none"
    if not known:
        return f"no exporter {exporter} has been heard, and no other one either; does traffic come?"
    near = nearest(exporter, known)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    hint = f"did you mean {near}?" if near else f"there are {', '.join(known[:_SHOWN])}{more}"
    return f"no exporter {exporter} has been heard; {hint}"


def _fields(one: dict[str, Any]) -> list[str]:
    """The names of a template's fields, each with its octets."""
    return [f"{name}({'variable' if octets == 65535 else octets})" for name, octets in one["fields"]]


def _as_json(given: argparse.Namespace, found: Any, out: TextIO) -> bool:
    """Print the answer where JSON is asked for; whether it was."""
    if given.json:
        print(json.dumps(found, indent=1), file=out)
    return given.json


def alerts(given: argparse.Namespace, out: TextIO) -> int:
    """Show alerts, those that fire first within each rule, and the rules; status 1 where one fires."""
    found = service.of(given).get("alerts")
    firing = any(alert["state"] == "firing" for alert in found["alerts"])
    if not _as_json(given, found, out):
        rows = [
            [one["state"], one["name"], duration(max(time.time() - one["since"], 0)), one["summary"]]
            for one in found["alerts"]
        ]
        if rows:
            write_table(["state", "alert", "for", "summary"], rows, out)
        names = ("name", "when", "of", "pending", "firing")
        write_table(("rule", *names[1:]), [[one[name] for name in names] for one in found["rules"]], out)
    return NO if firing else 0
