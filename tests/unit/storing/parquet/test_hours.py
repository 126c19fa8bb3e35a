"""The time of rows, and their hours."""

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.parquet.flows import HOUR, NOON, find, flows
from ulogd_tw.storing.parquet.hours import MOST_HOURS, few_hours, times

MS = NOON * 1000
ARRIVAL = MS + 1_800_000


class TimesTests(SynchronousTestCase):
    """A row belongs to the hour of its end, else of its arrival."""

    def of(self, *ends, starts=None, retain=None):
        return times(flows(ends, starts), find, retain)

    def test_end(self):
        """The end counts, in any hour up to a day after the arrival."""
        found = self.of(MS, MS - 1, ARRIVAL + 86_400_000, 0)
        self.assertEqual(found.hours.tolist(), [HOUR, HOUR - 1, HOUR + 24, 0])
        self.assertFalse(found.odd.any())

    def test_odd(self):
        """Without an end, or with one more than a day after the arrival or out of all calendars, the arrival counts."""
        found = self.of(None, ARRIVAL + 86_400_001, 2**64 - 1)
        self.assertEqual(found.time.tolist(), [ARRIVAL] * 3)
        self.assertTrue(found.odd.all())

    def test_retain(self):
        """So it does for an end that lies further back than rows are kept."""
        found = self.of(ARRIVAL - 60_000, ARRIVAL - 60_001, retain=60.0)
        self.assertEqual(found.odd.tolist(), [False, True])

    def test_start(self):
        """A row without a start begins at its time; a start stays as it is otherwise."""
        found = self.of(MS, MS, None, starts=[MS - 5, None, None])
        self.assertEqual(found.start.tolist(), [MS - 5, MS, ARRIVAL])

    def test_no_times(self):
        """A batch without keys of time has the arrival only."""
        found = times(flows([MS]).select(["sourceTransportPort"]), find, None)
        self.assertEqual((found.time.tolist(), found.odd.tolist()), ([ARRIVAL], [True]))

    def test_few_hours(self):
        """Random times of a peer make no more than so many hours; the others arrive."""
        common = self.of(*[MS] * 3)
        random = self.of(*(MS - 3_600_000 * place for place in range(1, 1001)))
        few_hours([common, random])
        hours = np.unique(np.concatenate([common.hours, random.hours]))
        self.assertLessEqual(len(hours), MOST_HOURS)
        self.assertFalse(common.odd.any())
        self.assertEqual(random.time[random.odd].tolist(), [ARRIVAL] * int(random.odd.sum()))
        self.assertEqual(int(random.odd.sum()), 1000 - (MOST_HOURS - 2))
