"""What the configuration file of now says about the next start."""

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config
from ulogd_tw.built import Built
from ulogd_tw.next_start import not_continued

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
