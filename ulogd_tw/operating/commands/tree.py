"""The tree of commands: names, arguments and help of every one, and the function behind it.

Nothing of a command is loaded before it runs. Man pages and completion are made of this tree.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from ulogd_tw import __version__
from ulogd_tw.core.near_words import nearest
from ulogd_tw.operating.commands import arguments
from ulogd_tw.operating.commands.errors import FAILED

STATUS = (
    "Exit status: 0 done; 1 the answer is no, such as nothing found, a fault found, or a stack that cannot run; "
    "2 wrong usage or an error; 3 the answer may be incomplete."
)


@dataclass(frozen=True)
class Command:
    """One command: the module below ``ulogd_tw.operating`` with its function, its arguments, its help."""

    function: str
    """``module:name``."""
    arguments: tuple[Callable[[argparse.ArgumentParser], object], ...]
    summary: str
    more: str = ""

    def run(self, given: argparse.Namespace, out: TextIO) -> int:
        """Run it; the exit status."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(f"ulogd_tw.operating.{module}"), name)(given, out)


_ASKED = (arguments.asking, arguments.as_json)
COMMANDS: dict[str, Command] = {
    "run": Command("", (arguments.service,), "run the service, as without a command"),
    "check": Command(
        "commands.configured:check", (arguments.configuration, arguments.as_json),
        "check a configuration, and open nothing",
        "Prints each stack that can run with the keys of each instance, and every mistake with its line.",
    ),
    "doctor": Command(
        "doctor:run", (arguments.configuration, arguments.as_json), "check this machine for a configuration",
        "Each fault has its remedy. Status 1 where there is one.",
    ),
    "plugins": Command("commands.declared:plugins", (arguments.as_json,), "list the plugins"),
    "info": Command(
        "commands.declared:info", (arguments.plugin, arguments.as_json),
        "describe a plugin: its types, options, keys and counters",
    ),
    "keys": Command(
        "commands.declared:keys", (arguments.keys, arguments.as_json), "look for keys by a part of their name",
        "Prints name, type, unit and Information Element of each key, and the plugins that give it.",
    ),
    "status": Command(
        "commands.status:status", (*_ASKED, arguments.two_looks),
        "show the running stacks on one screen: state, rates, drops and lag",
        "Rates are those between two looks. Status 1 where a stack is down.",
    ),
    "stacks": Command("commands.listed:stacks", _ASKED, "list the running stacks"),
    "graph": Command(
        "commands.drawing:graph", (arguments.drawing, *_ASKED), "draw instances and the ways of rows between them",
        "It is the graph of the running service with its counters, or that of a configuration file.",
    ),
    "counters": Command(
        "commands.listed:counters", (arguments.instance, *_ASKED), "show the counters of all instances, or of one"
    ),
    "exporters": Command(
        "commands.listed:exporters", _ASKED, "list the exporters from which the service has heard, with their losses"
    ),
    "templates": Command(
        "commands.listed:templates", (arguments.exporter, *_ASKED), "list the templates that exporters have sent"
    ),
    "alerts": Command(
        "commands.listed:alerts", _ASKED, "list the alerts that fire, are pending or ended lately",
        "Status 1 where an alert fires.",
    ),
    "tap": Command(
        "commands.tap:tap", (arguments.tap, *_ASKED), "follow the rows that leave an instance",
        "Rows are shown as far as they can be without a delay of the stack; the others are counted, and the exit "
        "status is 3.",
    ),
    "top": Command(
        "ask:top", (arguments.top, *_ASKED), "show the groups with the most octets, refreshed at intervals"
    ),
    "query": Command(
        "ask:query", (arguments.query, *_ASKED), "run SQL over the tables of the running service",
        "Each AGGREGATE is a table by its id, with the groups of its open intervals.",
    ),
    "flows": Command(
        "commands.flows:flows", (arguments.flows, *_ASKED), "list stored flows, or sum them by keys and times",
        "A store is a directory of PARQUET; several are asked together by their section [store:NAME]. Directories "
        "before the expression are read without a running service. Status 1 where no flow is found, 3 where the answer "
        "may be incomplete.",
    ),
    "who-had": Command(
        "commands.who_had:who_had", (arguments.who_had, *_ASKED),
        "tell who had an outside address and port at a time",
        "It looks through the rows of address translation in the stores of PARQUET, and asks the running service for "
        "connections that are still open. Status 1 where nobody had it, 3 where records of that time are missing or "
        "lost.",
    ),
    "reload": Command(
        "commands.control:reload", _ASKED, "make the service read its configuration again",
        "Prints the changes. If the configuration has a mistake, the service continues as before, the mistakes are "
        "printed, and the exit status is 1.",
    ),
    "restart": Command(
        "commands.control:restart", (*_ASKED, arguments.waiting), "restart the service without losing a record",
        "The configuration is checked first: if a stack of it could not start, nothing is done, and the exit status is "
        "1; a stack already left out does not count. "
        "Under systemd this calls systemctl.",
    ),
    "examples": Command(
        "examples:run", (arguments.examples, arguments.as_json), "list, print and write the example configurations",
        "The schemas of databases are among them.",
    ),
    "completion": Command(
        "manual:completion", (arguments.shell,), "print the completion script for a shell",
        "For bash: ulogd-tw completion bash > /etc/bash_completion.d/ulogd-tw",
    ),
}  # fmt: skip
"""Every command by its name."""

_NEGATIVE = re.compile(r"-\.?\d")
"""Beginning of a value that is no switch: a negative number, or an age such as -2h."""
SWITCHES = (
    "--configfile", "--daemon", "--pidfile", "--uid", "--loglevel", "--info", "--version", "--check", "--list-plugins",
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Arguments, with a near word where a command is not known."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message; ends the process with status 2."""
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose", message)
        super().error(not_known(wrong[1]) if wrong else message)


def not_known(word: str) -> str:
    """The message for a word that is neither a switch nor a command."""
    near = nearest(word, (*COMMANDS, *SWITCHES))
    hint = f"did you mean {near}?" if near else f"commands are {', '.join(COMMANDS)}; ulogd-tw --help lists switches"
    return f"{word} is neither a switch nor a command; {hint}"


def parser() -> Parser:
    """The whole tree."""
    made = Parser(
        prog="ulogd-tw",
        description="Meters, collects, aggregates and stores network flows. Without a command it runs the service, "
        "with the switches of ulogd2.",
        epilog=STATUS,
    )
    arguments.service(made)
    arguments.questions(made)
    made.add_argument("-V", "--version", action="version", version=f"ulogd-tw {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", parser_class=argparse.ArgumentParser)
    for name, command in COMMANDS.items():
        text = f"{command.summary[0].upper()}{command.summary[1:]}. {command.more}".rstrip()
        one = commands.add_parser(name, help=command.summary, description=text, epilog=STATUS)
        one._negative_number_matcher = _NEGATIVE
        for add in command.arguments:
            add(one)
    return made


def of(name: str) -> argparse.ArgumentParser:
    """The arguments of one command."""
    return subparsers(parser())[name]


def subparsers(of_tree: argparse.ArgumentParser) -> dict[str, Any]:
    """The parser of each command in a tree."""
    return next(a.choices for a in of_tree._actions if isinstance(a, argparse._SubParsersAction))


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments of a command line; ends the process with status 2 where they are wrong."""
    tree = parser()
    given, unknown = tree.parse_known_args(_with_orders(argv))
    if hasattr(given, "expression") and not any(word.startswith("-") for word in unknown):
        given.expression, unknown = [*given.expression, *unknown], []  # of an expression behind an option
    if unknown and given.command:
        subparsers(tree)[given.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    if unknown:
        tree.error(not_known(unknown[0]))
    return given


def _with_orders(argv: list[str]) -> list[str]:
    """A column to order by may begin with a minus, as a switch does."""
    found, words = [], iter(argv)
    for word in words:
        column = next(words, None) if word in ("-O", "--order") else None
        if column is not None and re.match(r"-[^\W\d]\w", column):
            found.append(f"--order={column}")
        else:
            found += [word] if column is None else [word, column]
    return found


def run(given: argparse.Namespace, out: TextIO | None = None) -> int:
    """Run a command other than the service; the exit status."""
    from ulogd_tw.core.errors import UlogdError

    try:
        return COMMANDS[given.command].run(given, out or sys.stdout)
    except UlogdError as error:
        print(f"ulogd-tw {given.command}: {error}", file=sys.stderr)
        return getattr(error, "status", FAILED)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        sys.stderr.close()  # nothing is said of what could not be written
        return 0
