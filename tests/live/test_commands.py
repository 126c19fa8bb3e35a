"""Command lines that cannot do what they say, as processes: the status, the message, and no traceback."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from tests.unit.table_of_mistakes import COMMANDS

PROGRAMS = Path(sys.executable).parent


class CommandTests(SynchronousTestCase):
    """Each row of the table."""

    def test_commands(self):
        """The same as tests.unit.test_mistakes has in one process."""
        for line, status, words in COMMANDS:
            program, *rest = line.format(top=TOP).split()
            argv = [str(PROGRAMS / program), *rest]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
            said = done.stdout + done.stderr
            self.assertEqual(status, done.returncode, f"{line}: {said}")
            self.assertEqual([], [word for word in words if word not in said], f"{line}: {said}")
            self.assertNotIn("Traceback", said, line)

    def test_no_room(self):
        """An answer that cannot be written is an error in one line."""
        program = Path(sys.executable).with_name("ulogd-tw")
        for words in (["plugins"], ["info", "JSON"], ["completion", "bash"], ["keys", "octets", "--json"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([program, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual((2, f"ulogd-tw {words[0]}: No space left on device\n"), (done.returncode, done.stderr))
