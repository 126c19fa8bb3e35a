"""Lines for a terminal."""

import io

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.operating.commands import text


class TextTests(SynchronousTestCase):
    """Values, times and tables."""

    def test_duration(self):
        """Two units at most."""
        for seconds, expected in ((0.4, "0.4 s"), (12.3, "12 s"), (60, "1 min 0 s"), (3725, "1 h 2 min"),
                                  (190_000, "2 d 4 h")):  # fmt: skip
            self.assertEqual(expected, text.duration(seconds))

    def test_short(self):
        """Three zeros are a letter."""
        for number, expected in ((999, 999), (1500, "1.5k"), (2_000_000, "2M"), (0, 0)):
            self.assertEqual(expected, text.short(number))

    def test_control_characters(self):
        """What a peer sent cannot steer the terminal."""
        out = io.StringIO()
        text.write_table(["a"], [["x\x1b[31m\n"]], out)
        self.assertEqual("a\nx\\x1b[31m\\x0a\n", out.getvalue())

    def test_cut(self):
        """No line is wider than the terminal."""
        self.patch(text, "screen", lambda: (5, 24))
        self.assertEqual("12345\n1\n", text.cut("1234567\n1\n"))
