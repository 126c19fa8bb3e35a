"""Tests of ulogd_tw.tap: --check, every mistake in one run, what is fatal."""

import io
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw import config as configuration
from ulogd_tw import tap

GOOD = """[global]
stack=col1:COLLECTOR,agg1:AGGREGATE,gp1:GPRINT
[agg1]
key="sourceAddress,destinationTransportPort"
[gp1]
file="stdout"
"""
BAD = """[global]
stack=col1:COLECTOR,gp1:GPRINT
stack=col1:COLLECTOR,agg1:AGGREGATE,gp1:GPRINT
stack=ct1:NFCT,col2:COLLECTOR,gp1:GPRINT
stack=ct1:NFCT
[agg1]
key="sourceIPv4Adress"
intervall=5
[gp1]
file=/dev/null
[col1]
listen="udp:70000"
"""


class CheckTests(SynchronousTestCase):
    """What --check prints."""

    def check(self, text):
        path = Path(self.mktemp())
        path.write_text(text)
        self.patch(sys, "stdout", io.StringIO())
        self.patch(sys, "stderr", io.StringIO())
        status = tap.check(str(path))
        return status, sys.stdout.getvalue().replace(str(path), "f"), sys.stderr.getvalue().replace(str(path), "f")

    def test_stacks_and_their_keys(self):
        """What each instance has to give, under the names of the input."""
        status, printed, wrong = self.check(GOOD)
        self.assertEqual((status, wrong), (0, ""))
        self.assertIn("f:2: stack col1:COLLECTOR,agg1:AGGREGATE,gp1:GPRINT", printed)
        line = next(line for line in printed.splitlines() if "col1:COLLECTOR:" in line)
        self.assertIn("sourceAddress", line)
        self.assertNotIn("destinationAddress", line)

    def test_every_mistake_in_one_run(self):
        """In the order of the file, each with its line and what was probably meant."""
        status, printed, wrong = self.check(BAD)
        self.assertEqual(1, status)
        lines = wrong.splitlines()
        for place, text in (("f:2:", "COLLECTOR"), ("f:4:", "input"), ("f:5:", "output"), ("f:8:", "interval"),
                            ("f:7:", "sourceIPv4Address"), ("f:12:", "udp:70000")):  # fmt: skip
            self.assertTrue(any(place in line and text in line for line in lines), (place, text, wrong))

    def test_an_option_that_cannot_be_read_hides_no_other_mistake(self):
        """And is told once."""
        text = GOOD.replace("[gp1]", 'overflow="drop"\nwindow=90\ninterval=60\nmax_keys="many"\n[gp1]')
        status, _, said = self.check(text)
        self.assertEqual(1, status)
        for expected in ("overflow: 'drop' is none of", "window: 90 is not a multiple", "max_keys: "):
            self.assertEqual(1, said.count(expected), said)

    def test_loose_network(self):
        """A network with bits behind its prefix is taken, with a warning; one that is none is a mistake."""
        for given, tolerated in (("192.0.2.7/24 10.0.0.0/8", True), ("192.0.2.0/33", False)):
            path = Path(self.mktemp())
            path.write_text(GOOD + f'[col1]\nallow="{given}"\n')
            built = tap.Built(configuration.load(str(path)), prepare=False)
            (mistake,) = built.mistakes
            self.assertEqual((tolerated, int(tolerated)), (mistake.tolerated, len(built.graph.stacks)))
            self.assertIn("192.0.2.0/24" if tolerated else "192.0.2.0/33", str(mistake))

    def test_what_keeps_no_stack_from_running(self):
        """An unused section is a remark, a wrong line elsewhere is told, and the status is 0; strict=1 makes it 1."""
        text = GOOD + "[ct1]\nhash_enable=0\n[manhole]\nlisten=nowhere:1\n"
        status, printed, said = self.check(text)
        self.assertEqual(0, status, said)
        self.assertIn("f:7: remark: section [ct1] is used by no stack", said)
        self.assertIn("error: [manhole]", said)
        self.assertIn("f:2: stack col1:COLLECTOR", printed)
        self.assertEqual(1, self.check(text.replace("[global]", "[global]\nstrict=1"))[0])

    def test_stacks_that_are_left_out(self):
        """A stack with a mistake in its line, and one with a mistake in an instance, each with a reason."""
        text = GOOD + "[bad1]\nlisten=nowhere\n"
        text = text.replace("[agg1]", "stack=x1:NOSUCH,gp1:GPRINT\nstack=bad1:COLLECTOR,gp1:GPRINT\n[agg1]", 1)
        built = tap.Built(configuration.parse(text, "f"), prepare=False)
        one, two = built.left_out()
        self.assertEqual(("x1:NOSUCH,gp1:GPRINT", "f:3"), (one["text"], one["where"]))
        self.assertIn("NOSUCH", one["reason"])
        self.assertEqual(("f:4", True), (two["where"], bool(two["reason"])))
        self.assertEqual([], list(tap.Built(configuration.parse(GOOD, "f"), prepare=False).left_out()))

    def test_a_file_that_is_not_there(self):
        self.patch(sys, "stderr", io.StringIO())
        self.assertEqual(tap.check("/nowhere/ulogd.conf"), 1)
        self.assertIn("/nowhere/ulogd.conf", sys.stderr.getvalue())


class ServiceTests(SynchronousTestCase):
    """What keeps the service from starting."""

    def make(self, text):
        path = Path(self.mktemp())
        path.write_text(text)
        options = tap.Options()
        options.parseOptions(["-c", str(path)])
        return tap.makeService(options)

    def test_no_stack_left_is_fatal(self):
        """With every reason in the text."""
        error = self.assertRaises(SystemExit, self.make, "[global]\nstack=a:NOPE,b:GPRINT\nstack=c:NFCT\n")
        self.assertIn("NOPE", str(error))
        self.assertEqual(len(str(error).splitlines()), 2)

    def test_strict_makes_a_warning_fatal(self):
        text = GOOD.replace("[agg1]", "[agg1]\ncolour=red").replace("[global]", "[global]\nstrict=%d")
        self.assertIn("colour", str(self.assertRaises(SystemExit, self.make, text % 1)))
        self.make(text % 0)

    def test_one_good_stack_runs_without_the_bad_one(self):
        service = self.make(GOOD.replace("[global]", "[global]\nstack=a:NOPE,b:GPRINT"))
        (ulogd,) = (s for s in service if hasattr(s, "graph"))
        self.assertEqual([s.spec.text for s in ulogd.graph.stacks], ["col1:COLLECTOR,agg1:AGGREGATE,gp1:GPRINT"])
        self.assertEqual(len(ulogd.mistakes), 1)
