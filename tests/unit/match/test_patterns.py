"""Regular expressions of MATCH."""

import re
import time

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.match import patterns
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.tokens import Token

PLAIN = (
    "^drop", "drop$", "^$", "a|b+c", "[^a-c]x?", "(ab){2,3}", "a{,2}b", r"\d+\.\d", r"\w\W", r"x\Z", "(?i)DROP", ".",
    r"\\Z?", "(?P<name>a)b", r"\x61", "é", r"[\]a]", "a{1}{,", "",
)  # fmt: skip
"""Patterns that mean the same to Python and to RE2."""


def search(text):
    """The pattern, as MATCH reads it."""
    return patterns.search(Token(text, 1, True))


class PatternTests(SynchronousTestCase):
    """What matches, and how long that takes."""

    @given(st.sampled_from(PLAIN), st.one_of(st.binary(max_size=8), st.text("abcx.1Z", max_size=8).map(str.encode)))
    def test_as_python(self, pattern, text):
        """A pattern finds what Python's engine finds, in any octets; `$` is the end alone."""
        expected = re.search(pattern.replace("$", r"\Z").encode(), text) is not None
        self.assertEqual(expected, search(pattern)(text))

    def test_time(self):
        """Patterns that keep a backtracking engine busy for ever take milliseconds for the longest value of IPFIX."""
        for pattern, part in (
            (r"^([a-z0-9]+[.-]?)+[.]example[.]com$", b"a"),
            (r"(a*)*b", b"a"),
            (r"(a|aa)+$", b"a"),
            (r"(.*a){12}b", b"a"),
            (r"(x+x+)+y", b"x"),
        ):
            began = time.process_time()
            self.assertFalse(search(pattern)(part * 65_535 + b"!"), pattern)
            self.assertLess(time.process_time() - began, 2.0, pattern)

    def test_refused(self):
        """What takes more than linear time is refused, and so is what would take too much memory."""
        for pattern in ("(?=a)", r"(a)\1", "(", "a++", "((a{1000}){1000})", "(?<!a)b"):
            error = self.assertRaises(MatchError, search, pattern)
            self.assertIn("is not a regular expression", str(error))
