"""Each shape of the benchmarks runs, and each peer that is here beside the first of its shapes; no time is asserted."""

import subprocess
import sys
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import measuring, table
from benchmarks.shapes import OURS


def _smoke(name, programs):
    def test(self):
        shape = table.shapes()[name]
        found, missing = table.measured(shape, 1, quick=True, programs=programs)
        if isinstance(missing.get(OURS), SkipTest):
            raise missing[OURS]
        broken = {name: reason for name, reason in missing.items() if not isinstance(reason, SkipTest)}
        self.assertEqual({}, broken)
        self.assertGreater(found[OURS].values[0], 0)
        self.assertTrue(all(figures.values[0] >= 0 for figures in found.values()), (found, missing))
        if shape.lossless:
            self.assertFalse(found[OURS].lost, found)
        self.assertTrue(list(table.rows(shape, found)))

    test.__doc__ = f"{name}: figures come, and no row of ours is lost."
    return test


BUSY_AT_FIRST = "sum(i * i for i in range(5_000_000)); import sys; sys.stdin.read()"


class MeasuringTests(SynchronousTestCase):
    """Of what is charged to a program."""

    def test_start(self):
        """What a program does when it starts is not charged to its work."""
        with subprocess.Popen([sys.executable, "-c", BUSY_AT_FIRST], stdin=subprocess.PIPE) as process:
            used, _ = measuring.spent(process.pid, lambda: None, measuring.GLANCE)
            whole = measuring.cpu(process.pid)
            process.stdin.close()
        self.assertGreater(whole, 0.1)
        self.assertLess(used, 0.02)


class SmokeTests(SynchronousTestCase):
    """Seconds each, one run."""


_seen = set()
for _name, _shape in table.shapes().items():
    _programs = [OURS, *(program for program in _shape.programs if program not in _seen | {OURS})]
    _seen.update(_programs)
    setattr(SmokeTests, f"test_{_name.replace('-', '_')}", _smoke(_name, _programs))
