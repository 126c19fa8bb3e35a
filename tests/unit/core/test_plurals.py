"""Numbers with their nouns."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP
from ulogd_tw.core.plurals import plural

FIELD = re.compile(
    r"\{(?:n|rows|records|messages|groups|files|datagrams|templates|streams|sets|events|packets)\} ([a-z]+s)\b"
)
"""A number and a plural in a message: wrong for 1."""


class PluralTests(SynchronousTestCase):
    """One is singular, every other number plural."""

    def test_plural(self):
        """Also zero, and with a verb."""
        self.assertEqual(["0 rows", "1 row", "2 rows"], [plural(n, "row") for n in range(3)])
        self.assertEqual(["1 row was", "3 rows were"], [plural(n, "row was", "rows were") for n in (1, 3)])

    def test_messages(self):
        """No message writes a plural behind a number of its own."""
        found = []
        for path in sorted((TOP / "ulogd_tw").rglob("*.py")):
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                if (
                    "assert " not in line
                    and (match := FIELD.search(line))
                    and match[1] not in ("is", "was", "its", "octets")
                ):
                    found.append(f"{path.relative_to(TOP)}:{number}: {line.strip()}")
        self.assertEqual([], found)
