"""Which days of a batch get a partition, and what partitions are called."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.sql_rows import batch_of
from ulogd_tw.core import types
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Found

try:
    from ulogd_tw.storing.postgresql_partitions import DAY_S, Partitions
except ModuleNotFoundError:
    skip = "install: psycopg"

TODAY = 20_788
"""1 December 2026, in days since 1970."""


class DaysTests(SynchronousTestCase):
    """`days_of`."""

    def days(self, type_, values, retain=3):
        """The days of a column of times."""
        made = Partitions('"public"."flows"', "flows", "db", retain * DAY_S, None)
        self.patch(made, "_today", lambda: TODAY)
        batch = batch_of((Key("k", type_), values))
        return made.days_of(Found(batch.columns["k"], batch.missing.get("k"), Key("k", type_)))

    def test_window(self):
        """Days from `retain` ago to two days ahead; missing times, 0 and the largest number give none."""
        noon = [None if day is None else (TODAY + day) * DAY_S + 43200 for day in (-4, -3, -1, 0, 0, 2, 3, None)]
        expected = {TODAY - 3, TODAY - 1, TODAY, TODAY + 2}
        self.assertEqual(expected, self.days(types.SECONDS, [*noon, 0, (1 << 32) - 1]))
        milliseconds = [value and value * 1000 for value in noon]
        self.assertEqual(expected, self.days(types.MILLISECONDS, [*milliseconds, 0, (1 << 64) - 1]))
        self.assertEqual(set(), self.days(types.SECONDS, [None, None]))

    def test_edges(self):
        """A day begins at midnight of UTC."""
        midnight = TODAY * DAY_S
        self.assertEqual({TODAY - 1, TODAY}, self.days(types.MILLISECONDS, [midnight * 1000 - 1, midnight * 1000]))

    def test_long_retention(self):
        """However long rows are kept, one batch makes partitions of a bounded number of past days."""
        every = [day * DAY_S for day in range(TODAY - 3000, TODAY)]
        self.assertEqual(400, len(self.days(types.SECONDS, every, retain=36500)))

    def test_no_times(self):
        """A column without times gives none."""
        self.assertEqual(set(), self.days(types.UNSIGNED64, [1, 2]))

    def test_names(self):
        """Names keep their end within the 63 octets of a name, with quotes doubled."""
        for name, expected in (("flows", '"public"."flows_20261201"'), ('a"b', '"public"."a""b_20261201"'),
                               ("x" * 63, f'"public"."{"x" * 54}_20261201"')):  # fmt: skip
            made = Partitions(f'"public"."{name}"', name, "db", DAY_S, None)
            self.assertEqual(expected, made._named("20261201"))
