"""The commands and their arguments for the reference."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ulogd_tw import tap
from ulogd_tw.operating.commands import tree
from ulogd_tw.operating.markdown import table


def commands() -> Iterator[str]:
    """The options of `twistd ulogd`, and those of `ulogd-tw` with all its commands."""
    yield "## Commands"
    yield ""
    yield "Options of `twistd ulogd`, written after the word `ulogd`:"
    yield ""
    declared: Any = tap.Options.optParameters
    rows = [(f"`--{long}`, `-{short}`", f"`{default}`" if default else "", meaning)
            for long, short, default, meaning in declared]  # fmt: skip
    rows += [(f"`--{long}`", "", meaning) for long, _, meaning in tap.Options.optFlags]
    yield from table(("option", "default", "meaning"), rows)
    yield "Options of `ulogd-tw`, which are the switches of ulogd2:"
    yield ""
    whole = tree.parser()
    yield from _switches(whole)
    yield f"Commands of `ulogd-tw`. {tree.STATUS}"
    yield ""
    for name, parser in tree.subparsers(whole).items():
        yield f"### ulogd-tw {name}"
        yield ""
        yield parser.description or ""
        yield ""
        yield from _switches(parser)


def _switches(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table of the arguments of a command."""
    rows = []
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        names = action.option_strings or [str(action.metavar or action.dest)]
        rows.append((", ".join(f"`{word}`" for word in names), action.help or ""))
    yield from table(("argument", "meaning"), rows)
