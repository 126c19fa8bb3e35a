"""The statements that make tables. `tests/live/test_clickhouse_today.py` has a server execute them."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.storing.clickhouse.schema import Rollup, Schema, column_line, partition_by, quoted, rollups

COLUMNS = {"time": "DateTime64(3, 'UTC')", "exporter": "IPv6", "octets": "UInt64"}


def schema(**more):
    """The statements for a table."""
    return list(
        Schema("d", "flows", COLUMNS, order=("exporter",), by=("exporter",), sums=("octets",), **more).statements()
    )


class TableTests(SynchronousTestCase):
    """The table of rows."""

    def test_table(self):
        """Sorted by time and exporter, in partitions, with a window for repeats, and a TTL."""
        (table,) = schema(retain_s=86400.0 * 30)
        for part in ("CREATE TABLE IF NOT EXISTS d.flows (", "ORDER BY (toStartOfFiveMinutes(time), exporter)",
                     "PARTITION BY toYYYYMMDD(time)", "TTL toDateTime(time) + INTERVAL 2592000 SECOND",
                     "non_replicated_deduplication_window = 10000", "exporter IPv6 CODEC(ZSTD(1))"):  # fmt: skip
            self.assertIn(part, table)

    def test_replicated(self):
        """On a cluster, with the engine and its window."""
        (table,) = schema(cluster="c", replicated=True)
        self.assertIn("d.flows ON CLUSTER c (", table)
        self.assertIn("ENGINE = ReplicatedMergeTree", table)
        self.assertIn("SETTINGS replicated_deduplication_window", table)

    def test_distributed(self):
        """Rows are in a local table, and the name is that of the table over all."""
        local, over = schema(cluster="c", distributed=True)
        self.assertIn("CREATE TABLE IF NOT EXISTS d.flows_local ON CLUSTER c", local)
        self.assertIn(
            "d.flows ON CLUSTER c AS d.flows_local ENGINE = Distributed('c', 'd', 'flows_local', rand())", over
        )

    def test_partitions(self):
        """Hours for days, days for months, weeks and months for years: an insert may have a hundred."""
        self.assertEqual(partition_by(2 * 86400), "toStartOfHour(time)")
        self.assertEqual(partition_by(30 * 86400), "toYYYYMMDD(time)")
        self.assertEqual(partition_by(365 * 86400), "toMonday(time)")
        self.assertEqual(partition_by(0), "toYYYYMM(time)")
        self.assertEqual(partition_by(3650 * 86400), "toYear(time)")

    def test_names(self):
        """Names are quoted where they need it."""
        self.assertEqual(quoted("a`b"), "`a\\`b`")
        self.assertEqual(column_line("a-b", "UInt8"), "`a-b` UInt8")


class RollupTests(SynchronousTestCase):
    """Roll-ups."""

    def test_option(self):
        """Intervals with the time for which they are kept; each a multiple of the one before."""
        self.assertEqual(rollups(("1m:7d", "1h")), (Rollup("1m", 60, 604800.0), Rollup("1h", 3600)))
        for words in (("7s",), ("5m", "1m"), ("2m", "5m"), ("1m", "1m"), ("x",), ("1m:x",)):
            with self.assertRaises(ValueError):
                rollups(words)

    def test_statements(self):
        """A table of sums with its own TTL and a view, each from the roll-up before."""
        _, minute, view, five, view5 = schema(rollups=rollups(("1m:7d", "5m")))
        self.assertIn("ENGINE = SummingMergeTree((octets, flows))", minute)
        self.assertIn("INTERVAL 604800 SECOND", minute)
        self.assertNotIn("TTL", five)
        self.assertIn("TO d.flows_1m AS SELECT", view)
        self.assertIn("count() AS flows FROM d.flows AS s", view)
        self.assertIn("sum(s.flows) AS flows FROM d.flows_1m AS s", view5)

    def test_distinct(self):
        """Different values are sketches."""
        _, minute, view = schema(rollups=rollups(("1m",)), distinct=("exporter",))
        self.assertIn("AggregatingMergeTree", minute)
        self.assertIn("distinct_exporter AggregateFunction(uniq, IPv6)", minute)
        self.assertIn("octets SimpleAggregateFunction(sum, UInt64)", minute)
        self.assertIn("uniqState(s.exporter) AS distinct_exporter", view)
