"""What stands below commands in the documents, against what they print today."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP, require_program
from tests.unit.test_pictures import script

WORD = re.compile(r"\b[A-Za-z][A-Za-z_]{3,}\b")
"""Words that do not depend on the time, the traffic or the machine: names of keys, counters, columns and plugins."""
MACHINE = ("ulogd-tw doctor",)
"""What it prints depends on the machine; only its first words are compared."""


class SessionTests(SynchronousTestCase):
    """Each command of the documents, beside the same service."""

    def test_sessions(self):
        """Every word of a sample output is in the present output."""
        require_program("ssh", "ssh-keygen")
        record = script("record_sessions")
        found = {command: text for path in sorted((TOP / "docs").glob("*.md")) for command, text in samples(path)}
        self.assertGreaterEqual(len(found), 18)
        with record.service() as service:
            for command, text in found.items():
                printed = service.output(command)
                self.assertNotIn("Traceback", printed)
                if not command.startswith(MACHINE):
                    gone = set(WORD.findall(text)) - set(WORD.findall(printed))
                    self.assertEqual(set(), gone, f"{command}: run docs/record_sessions.py: {printed[:600]}")

    def test_every_command(self):
        """Every command of ulogd-tw and every name of the manhole has a sample."""
        from ulogd_tw import cli
        from ulogd_tw.operating.inspection import Inspection

        text = "\n".join(command for path in (TOP / "docs").glob("*.md") for command, _ in samples(path))
        for command in cli.COMMANDS:
            self.assertIn(f"ulogd-tw {command}", text)
        for name in Inspection(None, None).names():
            self.assertRegex(text, rf"127\.0\.0\.1 '?{name}\b")


def samples(path):
    """(command, output) of the blocks of a document marked `console`."""
    for block in re.findall(r"^```console\n\$ (.*?)^```", path.read_text("utf-8"), re.S | re.M):
        command, _, text = block.partition("\n")
        yield command, text
