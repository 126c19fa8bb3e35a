"""Each fuzz target for a short while, with changed seeds. `make fuzz` runs them for as long as asked."""

import os

import hypothesis
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.changes import changed
from tests.fuzz.targets import TARGETS
from tests.fuzz.work import calls
from tests.support import given, settings

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", 100))
CALLS, CALLS_OF_AN_OCTET = 20_000, 60
"""Far more than any input makes (5000, and 25 for an octet), far less than work that grows with the square."""


class FuzzTests(SynchronousTestCase):
    """A method for each target."""


def _test(name):
    def test(self):
        target, seeds = TARGETS[name]
        for octets in seeds():
            target(octets)  # this fills tables that are made once

        def bounded(data):
            made = calls(target, data)
            assert made <= CALLS + CALLS_OF_AN_OCTET * len(data), (made, len(data))

        slow = list(hypothesis.HealthCheck)
        run = given(changed(list(seeds())))(bounded)
        settings(max_examples=EXAMPLES, suppress_health_check=slow)(run)()

    test.__doc__ = TARGETS[name][0].__doc__
    return test


for _name in TARGETS:
    setattr(FuzzTests, f"test_{_name.replace('-', '_')}", _test(_name))
