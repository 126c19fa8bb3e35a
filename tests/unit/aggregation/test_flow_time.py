"""Where the intervals of flows are that end at odd times."""

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.aggregation.flow_time import by_flow_time
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.resolve import Found

NOW = 1_796_083_200
DAY = 86_400
END = known("flowEndMilliseconds")


def begins(ends, missing=None):
    """The intervals of an hour of flows with these ends, in milliseconds."""
    column = np.array(ends, np.uint64)
    batch = Batch(Schema([END]), {END.name: column}, {}, n=len(ends), now=float(NOW))
    return by_flow_time(batch, None, Found(column, missing, END), NOW, 3600)[1].tolist()


class OddTests(SynchronousTestCase):
    """`by_flow_time`."""

    def test_far_ahead(self):
        """An end more than a day after the arrival is taken for the arrival, as a store of flows does; others stay."""
        ends = [(NOW + DAY) * 1000, (NOW + DAY) * 1000 + 1, 1 << 63, (1 << 64) - 1, (NOW - DAY) * 1000, 0]
        self.assertEqual([NOW + DAY, NOW, NOW, NOW, NOW - DAY, 0], begins(ends))

    def test_none(self):
        """A flow without an end belongs to its arrival."""
        self.assertEqual([NOW, NOW - 3600], begins([5, (NOW - 1) * 1000], np.array([True, False])))
