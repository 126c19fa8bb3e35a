"""The texts of ``when=``, and the sections ``[alert:NAME]`` in a configuration."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config
from ulogd_tw.alerting.conditions import Condition, parse
from ulogd_tw.built import Built

STACK = """[global]
stack=d1:DEMO,agg1:AGGREGATE,j1:JSON
[agg1]
key="sourceAddress,destinationAddress"
interval=10
[j1]
file="/dev/null"
"""


class ConditionTests(SynchronousTestCase):
    """What each text means."""

    def test_meanings(self):
        """Thresholds, ratios, new values, faults; blanks around > and commas do not matter."""
        for text, wanted in (
            ("octets by destinationAddress > 1G in 1m", Condition("above", "octets", ("destinationAddress",), 1e9, 60)),
            ("flows>2.5k in 10s", Condition("above", "flows", (), 2500, 10)),
            ("packets by a , b > 7 in 1h", Condition("above", "packets", ("a", "b"), 7, 3600)),
            ("octets by a > 3 times last week", Condition("ratio", "octets", ("a",), 3, 3600)),
            ("new a,b", Condition("new", "flows", ("a", "b"))),
            ("exporter silent for 5m", Condition("exporter", "seconds", ("instance", "exporter"), 300)),
            ("lost > 0 in 1m", Condition("lost", "rows", ("instance",), 0, 60)),
            ("sampling changed", Condition("sampling", "changes", ("instance", "exporter"))),
        ):
            self.assertEqual(wanted, parse(text), text)

    def test_mistakes(self):
        """The message names what is wrong and how it is written."""
        for text, part in (
            ("", "is empty"), ("octet > 1 in 1m", "did you mean octets"), ("octets by a", "needs > and a number"),
            ("octets > x in 1m", "'x' is not a number"), ("octets > 1", 'needs "in"'), ("octets > 1 in 2d", "too long"),
            ("new", "needs the keys"), ("exporter silent", "exporter silent for 5m"), ("lost in 1m", "lost > 0 in 1m"),
        ):  # fmt: skip
            error = self.assertRaises(ValueError, parse, text)
            self.assertIn(part, str(error), text)


class SectionTests(SynchronousTestCase):
    """Sections as --check sees them."""

    def built(self, text):
        path = Path(self.mktemp())
        path.write_text(STACK + text)
        return Built(config.load(str(path)), prepare=False)

    def test_rule(self):
        """The AGGREGATE is found by itself; an untouched section is equal after a reload, a touched one is not."""
        text = '[alert:a]\nwhen="octets by sourceAddress > 1 in 10s"\nmatch="dst net 10.0.0.0/8"\n'
        first, again = self.built(text), self.built(text)
        self.assertEqual([], first.mistakes)
        self.assertEqual("agg1", first.alerts["a"].of)
        self.assertEqual(first.alerts["a"].texts, again.alerts["a"].texts)
        self.assertNotEqual(first.alerts["a"].texts, self.built(text + "keep=5\n").alerts["a"].texts)

    def test_mistakes(self):
        """Each mistake stands at its line, and the rule is left out."""
        for lines, at, part in (
            ('when="octets by protocolIdentifier > 1 in 10s"', 9, "no AGGREGATE has the keys protocolIdentifier"),
            ('when="octets > 1 in 15s"', 9, "no multiple of interval=10"),
            ('when="octets > 1 in 10s"\nmatch="dst prot 5"', 10, "match:"),
            ('when="octets > 1 in 10s"\nof=agg2', 10, "did you mean agg1"),
            ('when="octets > 1 in 10s"\nwebhook=localhost', 10, "is no address"),
            ('when="octets > 1 in 10s"\ncommand="page me"', 10, "whole path"),
            ('when="lost > 0 in 1m"\nof=agg1', 10, "has no meaning"),
            ('when="lost > 0 in 1m"\nwebhok="http://a"', 10, "webhook"),
            ("keep=5", 8, "when"),
        ):
            found = self.built(f"[alert:a]\n{lines}\n")
            said = [str(mistake) for mistake in found.mistakes]
            self.assertTrue(any(f":{at}: " in text and part in text for text in said), (lines, said))
            if "webhok" not in lines:
                self.assertEqual({}, found.alerts)
