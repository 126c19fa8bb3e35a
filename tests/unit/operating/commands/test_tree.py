"""The tree of commands: every command can be read, has help and --json, and its function is there."""

import argparse
import contextlib
import importlib
import io

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import cli
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.operating.commands import tree

NEEDED = {
    "who-had": ["192.0.2.1", "--at", "-2h"],
    "info": ["MARK"], "query": ["select 1"], "tap": ["col1"], "completion": ["bash"],
}  # fmt: skip
"""Words that a command cannot do without."""
NO_JSON = {"run", "completion"}


def refused(words):
    """What is said of a command line that is refused with status 2."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            tree.parse(words)
        except SystemExit as end:
            assert end.code == 2, end.code
            return said.getvalue()
    raise AssertionError(f"{words} is taken")


class TreeTests(SynchronousTestCase):
    """All commands."""

    def test_every_command(self):
        """Each has its function, a line and a text of help that end as sentences do, and --json."""
        parsers = tree.subparsers(tree.parser())
        self.assertEqual(set(tree.COMMANDS), set(parsers))
        for name, command in tree.COMMANDS.items():
            given = tree.parse([name, *NEEDED.get(name, []), *([] if name in NO_JSON else ["--json"])])
            self.assertEqual(name, given.command)
            self.assertRegex(parsers[name].description, r"^[A-Z].*\.|: [^ ]")
            if command.function:
                module, _, function = command.function.partition(":")
                self.assertTrue(callable(getattr(importlib.import_module(f"ulogd_tw.operating.{module}"), function)))

    def test_help_of_arguments(self):
        """Each argument of each command has help."""
        for name, parser in tree.subparsers(tree.parser()).items():
            for action in parser._actions:
                self.assertTrue(action.help and action.help != argparse.SUPPRESS, f"{name} {action.dest}")

    def test_configuration_before_and_behind(self):
        """The file may be named before the command and behind it; that behind it counts."""
        self.assertEqual("a", tree.parse(["-c", "a", "check"]).configfile)
        self.assertEqual("a", tree.parse(["check", "-c", "a"]).configfile)
        self.assertEqual("b", tree.parse(["-c", "a", "check", "-c", "b"]).configfile)
        self.assertEqual("b", tree.parse(["query", "--config", "b", "select"]).configfile)

    def test_run(self):
        """`run` has the switches of ulogd2; with it and without it the service is the same."""
        words = ["-c", "x.conf", "-d", "-p", "/run/u.pid", "-u", "root", "-l", "5"]
        self.assertEqual(cli.twistd_arguments(words), cli.twistd_arguments(["run", *words]))
        self.assertEqual(cli.twistd_arguments(words), cli.twistd_arguments([*words, "run"]))

    def test_refused(self):
        """What is no command, no switch, or too much, with the way out."""
        self.assertIn("did you mean graph?", refused(["grapf"]))
        self.assertIn("did you mean --daemon?", refused(["--daemn"]))
        self.assertIn("usage: ulogd-tw check", refused(["check", "x"]))

    def test_errors(self):
        """An error has the command before it; its status is its own, or 2."""
        given = tree.parse(["plugins"])

        class OwnError(UlogdError):
            status = 1

        for error, status in ((UlogdError("odd"), 2), (OwnError("odd"), 1)):
            self.patch(tree.Command, "run", self.raising(error))
            with contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertEqual(status, tree.run(given, io.StringIO()))
            self.assertEqual("ulogd-tw plugins: odd\n", said.getvalue())

    def raising(self, error):
        def run(*_):
            raise error

        return run
