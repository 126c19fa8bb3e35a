"""``ulogd-tw plugins``, ``info`` and ``keys``: what the program itself declares."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TextIO

from ulogd_tw import registry
from ulogd_tw.core.keys import Key
from ulogd_tw.core.keys import registry as known_keys
from ulogd_tw.errors import PluginError
from ulogd_tw.operating.commands.errors import NO
from ulogd_tw.operating.commands.text import write_table


def plugins(given: argparse.Namespace, out: TextIO) -> int:
    """List the plugins."""
    print(json.dumps(registry.plugins(), indent=1) if given.json else registry.list_plugins(), file=out)
    return 0


def info(given: argparse.Namespace, out: TextIO) -> int:
    """Describe a plugin; status 1 where there is none of this name."""
    try:
        found = registry.declared(given.plugin) if given.json else registry.describe(given.plugin)
    except PluginError as error:
        print(f"ulogd-tw info: {error}", file=sys.stderr)
        return NO
    print(json.dumps(found, indent=1, default=str) if given.json else found, file=out)
    return 0


def keys(given: argparse.Namespace, out: TextIO) -> int:
    """List the keys with a word in their name; status 1 where there is none."""
    try:
        found = [key for key in _keys(given.plugin) if given.word.lower() in key["name"].lower()]
    except PluginError as error:
        print(f"ulogd-tw keys: {error}", file=sys.stderr)
        return NO
    if not found:
        where = f" of {given.plugin}" if given.plugin else ""
        print(f"ulogd-tw keys: no key{where} has {given.word!r} in its name; give a shorter part", file=sys.stderr)
        return NO
    if given.json:
        print(json.dumps(found, indent=1), file=out)
        return 0
    rows = [
        [key["name"], key["type"], key["unit"], " ".join(key["elements"]), " ".join(key["plugins"])] for key in found
    ]
    write_table(["key", "type", "unit", "element", "given by"], rows, out)
    return 0


def _keys(plugin: str | None) -> list[dict[str, Any]]:
    """Every key by its name: those of plugins, and IANA's elements; with `plugin` only its own.

    Raises `PluginError`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, key in registry.keys_given(plugin):
        one = found.setdefault(key.name, _described(key))
        if name not in one["plugins"]:
            one["plugins"].append(name)
    for key in known_keys.iana.values() if plugin is None else ():
        found.setdefault(key.name, _described(key))
    return [found[name] for name in sorted(found, key=str.lower)]


def _described(key: Key) -> dict[str, Any]:
    elements = [str(number) if not pen else f"{pen}/{number}" for pen, number in key.elements]
    return {"name": key.name, "type": key.type.name, "unit": key.unit, "elements": elements, "plugins": []}
