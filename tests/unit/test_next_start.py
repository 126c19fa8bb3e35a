"""What the configuration file of now says about the next start."""

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config
from ulogd_tw.built import Built
from ulogd_tw.next_start import not_continued, why_no_restart
from ulogd_tw.plugins.outputs.gprint import GPRINT

CONFIG = """[global]
state_dir="DIR"
stack=col1:COLLECTOR,agg1:AGGREGATE,out1:JSON
stack=col1:COLLECTOR,agg2:AGGREGATE,out1:JSON
[agg1]
interval=3600
"""


class NotContinuedTests(SynchronousTestCase):
    """A file that was edited while the service runs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "ulogd.conf"
        self.text = CONFIG.replace("DIR", folder.name + "/state")
        self.file.write_text(self.text)
        self.filters = Built(config.load(str(self.file)), prepare=False).graph.filters
        for node in self.filters:
            node.plugin.keep_state(Path(folder.name), 1.0)

    def found(self, *edit):
        self.file.write_text(self.text.replace(*edit))
        return {node.ident for node in not_continued(str(self.file), self.filters)}

    def test_other_settings(self):
        """The groups of what is gone, or has other sums, would not be taken."""
        self.assertEqual(set(), self.found("out1", "out2"))
        self.assertEqual({"agg1"}, self.found("3600", "60"))
        self.assertEqual({"agg2"}, self.found("agg2", "agg3"))
        self.assertEqual({"agg1", "agg2"}, self.found("state_dir", "#state_dir"))

    def test_a_file_that_says_nothing(self):
        """One with mistakes, or none, may be mended before the next start: all is kept."""
        self.assertEqual(set(), self.found("AGGREGATE", "AGGREGAT"))
        self.assertEqual(set(), self.found("stack", "stock"))
        self.file.unlink()
        self.assertEqual(set(), not_continued(str(self.file), self.filters))


GOOD = """[global]
stack=d:DEMO,g:GPRINT
stack=e:DEMO,h:GPRINT
[g]
file=stdout
[h]
file=stdout
"""
BROKEN = "stack=e:DEMO,h:GPRINT"


class RestartTests(SynchronousTestCase):
    """Whether a restart would end with fewer stacks than the file has."""

    def reasons(self, text, left_out=(), taken=()):
        path = Path(self.mktemp())
        path.write_text(text)
        graph = Built(config.load(str(path)), prepare=False).graph
        self.patch(GPRINT, "taken", lambda self, running: [("file", self.instance)] if self.instance in taken else [])
        return why_no_restart(str(path), graph, [{"text": stack} for stack in left_out])

    def test_restarts(self):
        """Where every stack can start; one that is left out already is no reason against it."""
        self.assertEqual([], self.reasons(GOOD))
        broken = GOOD.replace("[h]\nfile=stdout", "[h]\nfile=nodir/x")
        self.assertEqual([], self.reasons(broken, [BROKEN.removeprefix("stack=")]))
        self.assertEqual([], self.reasons(GOOD.replace(BROKEN, "stack=x:NO,y:NO"), ["x:NO,y:NO"]))
        self.assertEqual([], self.reasons(GOOD, ["e:DEMO,h:GPRINT"], taken=("h",)))

    def test_does_not(self):
        """Mistakes, obstacles, and what another program has, of one stack or of all."""
        for text, taken, words in (
            (GOOD.replace("[h]\nfile=stdout", "[h]\nfile=nodir/x"), (), "there is no directory"),
            (GOOD.replace(BROKEN, "stack=x:NO,y:NO"), (), "NO"),
            (GOOD, ("h",), "[h] file: h"),
            (GOOD, ("g", "h"), "[g] file: g"),
            ("[global]\n", (), "no stack"),
        ):
            self.assertIn(words, "\n".join(self.reasons(text, taken=taken)), text)
        self.assertIn("cannot be read", why_no_restart(self.mktemp(), None, [])[0])

    def test_only_what_is_wrong(self):
        """A tolerated mistake is no reason, and not among the reasons."""
        odd = GOOD.replace("[g]\n", "[g]\nno_such=1\n")
        self.assertEqual([], self.reasons(odd))
        self.assertNotIn("no_such", "\n".join(self.reasons(odd, taken=("h",))))
