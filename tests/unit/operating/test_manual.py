"""Man pages and completion scripts: there is one for everything, and other programs take them."""

import importlib.util
import io
import os
import subprocess
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support import require_program
from ulogd_tw import registry
from ulogd_tw.operating import manual, roff
from ulogd_tw.operating.commands import tree


def require(*packages):
    """Leave a test out where a package is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise SkipTest(f"install: pip install .[test] for {package}")


class PagesTests(SynchronousTestCase):
    """The man pages."""

    def setUp(self):
        require("argparse_manpage")
        self.patch(os, "environ", os.environ | {"SOURCE_DATE_EPOCH": "86400"})
        self.pages = manual.pages()

    def test_lint(self):
        """mandoc has nothing to say about any of them."""
        (mandoc,) = require_program("mandoc")
        folder = Path(self.mktemp())
        folder.mkdir()
        for name, text in self.pages.items():
            (folder / name).write_text(text, "utf-8")
        done = subprocess.run([mandoc, "-Tlint", *sorted(self.pages)], cwd=folder, capture_output=True, text=True)
        self.assertEqual("", done.stdout)

    def test_complete(self):
        """Each plugin has a page, and each option, command and switch stands in one."""
        for table in registry.BUILT_IN.values():
            for name in table:
                self.assertIn(f"ulogd-tw-{name.lower()}.5", self.pages)
        self.assertIn("\\fBmark\\fP\nMark of the rows to keep", self.pages["ulogd-tw-mark.5"])
        self.assertIn("\\fBstats_interval\\fP", self.pages["ulogd-tw.conf.5"])
        for command in tree.COMMANDS:
            self.assertIn("ulogd\\-tw " + command.replace("-", "\\-"), self.pages["ulogd-tw.8"])
        self.assertIn("\\-\\-pidfile", self.pages["ulogd-tw.8"])

    def test_whatis(self):
        """The name, a dash and one line, as whatis(1) wants it; the same day for the same sources."""
        for name, text in self.pages.items():
            page = name.rpartition(".")[0].replace("-", "\\-")
            self.assertIn(f".SH NAME\n{page} \\- ", text, name)
            self.assertRegex(text.splitlines()[0], r'^\.TH [A-Z0-9\\.-]+ [58] "1970-01-02" ')


class RoffTests(SynchronousTestCase):
    """Markdown as man(7)."""

    def test_text(self):
        """Nothing in a text is an instruction; code is bold, a link is its text."""
        self.assertEqual(["\\&.PP is \\fBa\\-b\\fP \\e here"], list(roff.text(".PP is `a-b` \\ [here](#x)")))

    def test_table(self):
        """A row is a term with its meaning and facts."""
        lines = ["| option | form | meaning |", "|---|---|---|", "| `a` | text \\| word | It is so. |", ""]
        self.assertEqual([".TP", "\\fBa\\fP", "It is so.", "(form: text | word)"], list(roff.body(lines))[:4])


class CompletionTests(SynchronousTestCase):
    """Scripts for shells."""

    def test_bash(self):
        """bash completes commands, their options and the words that an option takes."""
        require("shtab")
        (bash,) = require_program("bash")
        path = Path(self.mktemp())
        out = io.StringIO()
        self.assertEqual(0, tree.run(tree.parse(["completion", "bash"]), out))
        path.write_text(out.getvalue())

        def completed(line):
            """What stands to choose at the end of a line."""
            words = line.split(" ")
            ask = (f'source {path}; COMP_WORDS=({" ".join(f"{w!r}" for w in words)}); COMP_CWORD={len(words) - 1}; '
                   'COMPREPLY=(); $(complete -p ulogd-tw | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
                   'printf "%s\\n" "${COMPREPLY[@]}"')  # fmt: skip
            done = subprocess.run([bash, "-c", ask], capture_output=True, text=True, timeout=20)
            return set(done.stdout.split()), done.stderr

        self.assertEqual(({"status", "stacks"}, ""), completed("ulogd-tw sta"))
        self.assertEqual(({"--json"}, ""), completed("ulogd-tw status --j"))
        self.assertEqual(({"table", "csv", "json"}, ""), completed("ulogd-tw query -f "))
        self.assertEqual(({"NFCT", "NFACCT", "NFLOG"}, ""), completed("ulogd-tw info NF"))

    def test_zsh(self):
        """The script for zsh says which command it completes."""
        require("shtab")
        self.assertTrue(manual.script("zsh").startswith("#compdef ulogd-tw"))
