"""`ulogd-tw examples`: what comes with the program, listed, printed and written."""

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from ulogd_tw.operating import examples


class ExamplesTests(SynchronousTestCase):
    """In the source tree, and where only a package is there."""

    def run_it(self, *argv):
        """Status and output."""
        out = io.StringIO()
        self.patch(sys, "stderr", io.StringIO())
        return examples.main(list(argv), out), out.getvalue()

    def test_list(self):
        """Each example has its name and a line of text."""
        status, said = self.run_it()
        self.assertEqual(0, status)
        lines = said.splitlines()
        self.assertEqual(sorted(lines), lines)
        names = {line.split()[0] for line in lines}
        self.assertLessEqual({"ulogd.conf", "demo.conf", "examples/nat-log.conf", "sql/sqlite/flows.sql"}, names)
        self.assertTrue(all(len(line.split()) > 4 and len(line) < 140 for line in lines), said)

    def test_print_and_write(self):
        """The text of one goes to the output or into a new file; a file that is there is kept."""
        text = (TOP / "etc" / "examples" / "groups.conf").read_text()
        self.assertEqual((0, text), self.run_it("examples/groups.conf"))
        path = self.mktemp()
        self.assertEqual(0, self.run_it("examples/groups.conf", path)[0])
        self.assertEqual(text, Path(path).read_text())
        Path(path).write_text("mine")
        self.assertEqual(2, self.run_it("examples/groups.conf", path)[0])
        self.assertEqual("mine", Path(path).read_text())
        self.assertEqual(1, self.run_it("nosuch.conf")[0])

    def test_all(self):
        """All into a folder; a second time nothing is overwritten."""
        folder = self.mktemp()
        self.assertEqual(0, self.run_it("--all", folder)[0])
        written = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
        self.assertEqual(set(examples.examples()), written)
        self.assertEqual(1, self.run_it("--all", folder)[0])

    def test_installed(self):
        """Without a source tree the files of the package are found."""
        folder = Path(self.mktemp())
        file = folder / "share" / "ulogd_tw" / "ulogd.conf"
        file.parent.mkdir(parents=True)
        file.write_text("# A title. More.\n")
        listed = [SimpleNamespace(as_posix=lambda: "../../../share/ulogd_tw/ulogd.conf", locate=lambda: file)]
        self.patch(examples, "_TREE", folder / "nowhere")
        self.patch(examples.metadata, "files", lambda name: listed)
        status, said = self.run_it()
        self.assertEqual((0, ["ulogd.conf", "A", "title"]), (status, said.split()))

    def test_setup_names_all(self):
        """setup.cfg puts every example into the package."""
        text = (TOP / "setup.cfg").read_text()
        for name in examples.examples():
            folder = os.path.dirname(name)
            self.assertIn(f"share/ulogd_tw{'/' + folder if folder else ''} = ", text, name)
