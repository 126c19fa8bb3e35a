"""A configuration file as the service reads it: whether one could start with it."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.built import why_no_start

GOOD = "[global]\nstack=d:DEMO,g:GPRINT\n[g]\nfile=stdout\n"


class StartTests(SynchronousTestCase):
    """One stack is enough, unless `strict=1` wants all."""

    def reasons(self, text):
        path = Path(self.mktemp())
        path.write_text(text)
        return why_no_start(str(path))

    def test_starts(self):
        for text in (GOOD, GOOD + "[g", GOOD.replace("stack=", "stack=x:NO,y:NO\nstack=")):
            self.assertEqual([], self.reasons(text), text)

    def test_does_not(self):
        """Mistakes, and what can be seen without opening anything."""
        for text, words in (
            (GOOD.replace("DEMO", "DEMOO"), "DEMOO"),
            ("[global]\n", "no stack"),
            (GOOD.replace("stack=", "strict=1\nstack=x:NO,y:NO\nstack="), "NO"),
            (GOOD.replace("=stdout", "=nodir/x"), "there is no directory"),
        ):
            self.assertIn(words, "\n".join(self.reasons(text)), text)

    def test_no_file(self):
        (reason,) = why_no_start(self.mktemp())
        self.assertIn("cannot be read", reason)
