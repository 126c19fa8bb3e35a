"""Each shape of the benchmarks runs, beside the peers that are here; no time is asserted."""

from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import table
from benchmarks.shapes import OURS


def _smoke(name):
    def test(self):
        shape = table.shapes()[name]
        found, missing = table.measured(shape, 1, quick=True)
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


class SmokeTests(SynchronousTestCase):
    """Seconds each, one run."""


for _name in table.shapes():
    setattr(SmokeTests, f"test_{_name.replace('-', '_')}", _smoke(_name))
