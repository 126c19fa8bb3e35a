"""docs/requirements.md: no rule is left out, and each that is met has a test that says so."""

import re

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.test_documents import TOP

LAST = {
    "MSG": 9, "SET": 7, "TPL": 10, "WD": 8, "UDPT": 8, "OPT": 8, "VAL": 10, "ERR": 8, "TR": 3, "SCTP": 2, "TCP": 4,
    "UDP": 4, "CON": 1, "TLS": 7, "BI": 6, "SD": 7, "TY": 4, "FI": 4, "AP": 1, "V9": 7, "V5": 2,
    "V7": 3, "SF": 4, "SFV": 2, "PS": 4, "ADD": 2,
}  # fmt: skip
"""How many rules of each kind there are."""
OF_EXPORTERS = frozenset(
    "MSG-3 MSG-4 MSG-5 MSG-8 SET-3 SET-4 TPL-9 WD-7 WD-8 UDPT-1 UDPT-2 UDPT-6 OPT-4 OPT-5 OPT-6 VAL-7 TCP-2 TCP-3 "
    "TCP-4 UDP-1 UDP-4 BI-4 BI-5 SD-4 SD-6 TY-1 TY-4 FI-2".split()
)
"""Rules that do not concern collectors: they come last."""
ELSEWHERE = {"AG"}
"""Kinds of rules that are not about collecting."""
BEYOND = {"V7", "SFV", "PS", "ADD"}
"""Kinds of rules that the list of requirements does not have yet."""
STATES = re.compile(r"met|deliberate choice: .+|not yet(: .+)?")


def rows():
    """(number, text, state, test) of every row of the tables."""
    text = (TOP / "docs" / "requirements.md").read_text("utf-8")
    lines = re.findall(r"^\| ([A-Z0-9]+-\d+) \|(.*)\|$", text, re.M)
    return [(number, *(cell.strip() for cell in cells.split("|"))) for number, cells in lines]


class TableTests(SynchronousTestCase):
    """The tables."""

    def test_whole(self):
        """Every number of a rule is there, once, with its state."""
        expected = [f"{kind}-{n}" for kind, last in LAST.items() for n in range(1, last + 1)]
        expected.sort(key=OF_EXPORTERS.__contains__)
        self.assertEqual(expected, [row[0] for row in rows()])
        for number, text, state, _ in rows():
            self.assertTrue(text, number)
            self.assertRegex(state, f"^({STATES.pattern})$", number)

    def test_tests(self):
        """What is met has a test; the docstring of each test that is named begins with the number."""
        for number, _, state, test in rows():
            if state == "met":
                self.assertTrue(test, number)
            for name in re.findall("`([^`]+)`", test):
                said = namedAny(f"tests.{name}").__doc__ or ""
                numbers, colon, _ = said.partition(":")
                self.assertIn(number, re.split(", *", numbers) if colon else [], name)

    def test_list(self):
        """The numbers are those of the list of requirements."""
        listed = shared_path("spec", "ipfix_requirements.md").read_text("utf-8")
        found = {}
        for kind, number in re.findall(r"^- \*\*([A-Z0-9]+)-(\d+)\*\*", listed, re.M):
            found[kind] = max(found.get(kind, 0), int(number))
        ours = {kind: last for kind, last in LAST.items() if kind not in BEYOND}
        self.assertEqual(ours, {kind: last for kind, last in found.items() if kind not in ELSEWHERE})
