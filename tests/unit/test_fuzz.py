"""Each fuzz target for a short while, with changed seeds. `make fuzz` runs them for as long as asked."""

import os

import hypothesis
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.changes import changed
from tests.fuzz.targets import TARGETS

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", 300))


class FuzzTests(SynchronousTestCase):
    """A method for each target."""


def _test(name):
    def test(self):
        target, seeds = TARGETS[name]
        slow = list(hypothesis.HealthCheck)
        settings = hypothesis.settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=slow)
        for octets in seeds():
            target(octets)
        settings(hypothesis.given(changed(list(seeds())))(target))()

    test.__doc__ = TARGETS[name][0].__doc__
    return test


for _name in TARGETS:
    setattr(FuzzTests, f"test_{_name.replace('-', '_')}", _test(_name))
