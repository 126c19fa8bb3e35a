"""SQL over the tables of AGGREGATE: both engines, what is copied, what is refused, the command."""

import io
import sys
from types import SimpleNamespace

from hypothesis import strategies as st
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import examples, given
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import interval
from ulogd_tw.core import types
from ulogd_tw.errors import QueryError
from ulogd_tw.operating import ask, query, sql
from ulogd_tw.operating.commands.text import write_table

one_row = st.tuples(st.integers(0, 5), st.none() | st.integers(0, 2**40), st.booleans())


class EngineCase(AggregateCase):
    """Tables of an AGGREGATE, in either engine."""

    def engines(self):
        """DuckDB, and SQLite as where there is no DuckDB."""
        yield "duckdb"
        before = sys.modules.get("duckdb")
        sys.modules["duckdb"] = None
        try:
            yield "sqlite"
        finally:
            sys.modules["duckdb"] = before

    def table(self, names=None):
        names = frozenset(self.agg.columns) if names is None else names
        columns = tuple(name for name in self.agg.columns if name in names)
        return {"agg": sql.Table(columns, list(self.agg.peek(frozenset(columns))))}


class SqlTests(EngineCase):
    """What a query gives."""

    @examples(30)
    @given(st.lists(one_row, min_size=1, max_size=40))
    def test_sums(self, rows):
        """Groups and sums as Python works them out; what is missing is NULL; the tables go on."""
        self.patch(interval, "PEEKED_AT_ONCE", 3)
        self.make(key="protocolIdentifier,sourceAddress", interval=60)
        expected = {}
        for six in (False, True):
            some = []
            for group, octets, of_six in rows:
                if of_six != six:
                    continue
                name = "sourceIPv6Address" if six else "sourceIPv4Address"
                row = {"protocolIdentifier": group, name: 1 if six else 0x0A000001}
                some.append(row if octets is None else row | {"octetDeltaCount": octets})
                place = (group, "::1" if six else "10.0.0.1")
                sums = expected.setdefault(place, [None, 0])
                if octets is not None:
                    sums[0] = (sums[0] or 0) + octets
                sums[1] += 1
            if some:
                self.give(batch_of(some, **({"sourceIPv6Address": types.IPV6} if six else {})))
        text = "select protocolIdentifier, sourceAddress, octets, flows from agg"
        for _ in self.engines():
            found = sql.run(text, self.table(sql.words(text)))
            self.assertEqual(expected, {(p, a): [o, f] for p, a, o, f in found.rows})
        self.assertEqual(len(rows), sum(row["flows"] for row in self.flushed()))

    def flushed(self):
        self.agg.flush()
        return self.rows()

    def test_all_columns(self):
        """A star is every column, functions and the interval too."""
        self.make(key="protocolIdentifier", functions="peak=max(octetDeltaCount)", interval=60)
        self.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": n} for n in (5, 9)], now=130.0))
        for _ in self.engines():
            found = sql.run("select * from agg", self.table())
            row = dict(zip(found.columns, found.rows[0], strict=True))
            self.assertEqual({"protocolIdentifier": 6, "flows": 2, "octets": 14, "peak": 9, "interval_start": 120},
                             {name: value for name, value in row.items() if value is not None})  # fmt: skip

    def test_only_what_is_named_is_copied(self):
        self.make(key="protocolIdentifier,sourceTransportPort")
        self.give(batch_of([{"protocolIdentifier": 6, "sourceTransportPort": 1, "octetDeltaCount": 5}]))
        (batch,) = self.agg.peek(sql.words("select sum(octets) from agg where protocolIdentifier = 6"))
        self.assertEqual({"protocolIdentifier", "octets"}, set(batch.schema))

    def test_refused(self):
        """What is no query, and what would reach beyond the tables."""
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": 6}]))
        for _ in self.engines():
            for text in ("selec 1", "select nothing from agg", "attach '/tmp/x.db' as x",
                         "select * from read_csv('/etc/passwd')", "copy agg to '/tmp/utw-x.csv'",
                         "select load_extension('x')"):  # fmt: skip
                self.assertRaises(QueryError, sql.run, text, self.table())

    def test_most_rows(self):
        self.patch(sql, "MOST_ROWS", 2)
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": n} for n in range(5)]))
        for _ in self.engines():
            found = sql.run("select * from agg", self.table())
            self.assertEqual((2, True), (len(found.rows), found.more))

    def test_no_end(self):
        """A query that takes too long is ended."""
        self.patch(sql, "MOST_SECONDS", 0.2)
        endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n, agg"
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": 6}]))
        for _ in self.engines():
            self.assertRaises(QueryError, sql.run, endless, self.table())


class WordsTests(SynchronousTestCase):
    """Which columns a query speaks of."""

    def test_words(self):
        text = """select "sourceAddress/24", max(octets) from agg1 where a.b = 'not this' and c = 'it''s'"""
        words = {"select", "sourceAddress/24", "max", "octets", "from", "agg1", "where", "a.b", "a", "b", "and", "c"}
        self.assertEqual(words, sql.words(text))

    def test_star(self):
        for text, expected in (
            ("select * from a", True), ("select distinct * from a", True), ("select x, * from a", True),
            ("select a.* from a", True), ("select count(*) from a", False), ("select octets * 2 from a", False),
            ("select '* ' from a", False),
        ):  # fmt: skip
            self.assertEqual(expected, sql.wants_all(text), text)


class DatabaseTests(AggregateCase, TestCase):
    """Queries of a running service."""

    timeout = 120

    def database(self):
        self.make(key="protocolIdentifier")
        self.give(batch_of([{"protocolIdentifier": n % 3, "octetDeltaCount": n} for n in range(9)]))
        return self.asked()

    def asked(self):
        """The database of the present graph; its processes end with the test."""
        found = query.Database(SimpleNamespace(graph=self.graph))
        self.addCleanup(found.stop)
        return found

    @defer.inlineCallbacks
    def test_query(self):
        found = yield self.database().query("select sum(octets) s from agg")
        self.assertEqual((("s",), [(36,)]), (found.columns, found.rows))

    @defer.inlineCallbacks
    def test_empty(self):
        """An interval that has just begun has no rows; a sum of none is NULL."""
        self.make(key="protocolIdentifier")
        database = self.asked()
        found = yield database.query("select protocolIdentifier, octets from agg")
        self.assertEqual([], found.rows)
        found = yield database.query("select sum(octets), count(*) from agg")
        self.assertEqual([(None, 0)], found.rows)

    @defer.inlineCallbacks
    def test_qualified(self):
        """Columns with their table's name or alias, and a join."""
        database = self.database()
        found = yield database.query("select sum(a.octets) from agg a")
        self.assertEqual([(36,)], found.rows)
        text = (
            "select count(*) from agg as one join agg as two on one.protocolIdentifier = two.protocolIdentifier "
            "where one.octets > 10"
        )
        found = yield database.query(text)
        self.assertEqual([(2,)], found.rows)  # 0+3+6, 1+4+7, 2+5+8

    @defer.inlineCallbacks
    def test_no_text(self):
        """A NUL, half a character, and a text without end are no query."""
        database = self.database()
        for text in ("select 1 from agg \0", "select '\ud800' from agg", "select 1 from agg" + " " * query.MOST_OCTETS):
            yield self.assertFailure(database.query(text), QueryError)
        self.assertIsNone(database._children)

    @defer.inlineCallbacks
    def test_no_table(self):
        """Said with what there is."""
        failure = yield self.assertFailure(self.database().query("select 1 from ag"), QueryError)
        self.assertEqual("the query names no table; there are agg; did you mean agg?", str(failure))


class TopTests(EngineCase):
    """What ``ulogd-tw top`` asks."""

    def test_window(self):
        """A group that is in several intervals comes once, with what they have together."""
        self.make(
            key="protocolIdentifier",
            interval=10,
            window=30,
            functions="n=count(octetDeltaCount) least=min(octetDeltaCount) most=max(octetDeltaCount)",
        )
        for now in (1000, 1010, 1020):
            rows = [{"protocolIdentifier": p, "octetDeltaCount": p * now} for p in (1, 2)]
            self.give(batch_of([*rows, {"octetDeltaCount": 7}], now=float(now)))
        shown = ["protocolIdentifier", "octets", "flows", "n", "least", "most"]
        arguments = SimpleNamespace(by="octets", rows=2)
        for _ in self.engines():
            tables = {"agg": sql.Table(tuple(self.agg.columns), list(self.agg.peek(frozenset(self.agg.columns))))}
            found = sql.run(ask._top_query("agg", shown, self.agg.together, arguments), tables)
            self.assertEqual((tuple(shown), [(2, 6060, 3, 3, 2000, 2040), (1, 3030, 3, 3, 1000, 1020)]),
                             (found.columns, found.rows))  # fmt: skip
        self.assertEqual(set(self.agg.columns) - set(self.agg.key_names) - {"first_ms", "last_ms", "interval_start"},
                         set(self.agg.together))  # fmt: skip


class PrintingTests(SynchronousTestCase):
    """What the commands print."""

    def test_table(self):
        out = io.StringIO()
        write_table(["host", "octets"], [["10.0.0.1", 5], [None, 12.5]], out)
        self.assertEqual("host      octets\n10.0.0.1       5\n-           12.5\n", out.getvalue())

    def test_top(self):
        """Short names of columns, none of which no row has a value; an empty table says why it is empty."""
        columns = ["sourceAddress", "octets", "reply_octets"]
        page = ask._page("agg1", "octets", {"columns": columns, "rows": [["192.0.2.1", 1_500_000, None]]})
        self.assertEqual(["source     octets", "192.0.2.1    1.5M"], page.splitlines()[2:])
        page = ask._page("agg1", "octets", {"columns": columns, "rows": []})
        self.assertIn("no rows yet", page)

    def test_short(self):
        for name, value, expected in (("octets", 999, 999), ("octets", 1_500_000, "1.5M"), ("octets", None, None),
                                      ("sourceTransportPort", 51000, 51000), ("octets", 123456, "123.5k")):  # fmt: skip
            self.assertEqual(expected, ask._short(name, value))
