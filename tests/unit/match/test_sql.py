"""Expressions as SQL: DuckDB selects the rows of a Parquet file that MATCH selects of the same rows in batches."""

import contextlib
import ipaddress
import json
import os
import re
import tempfile
import uuid
from collections import Counter
from random import Random

import duckdb
import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, sized
from tests.unit.match import random_expressions
from ulogd_tw.core.arrow import Stream, numbers
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.readable import readable
from ulogd_tw.core.resolve import Provided, Sources
from ulogd_tw.match import sql, words
from ulogd_tw.match import sql_literals as literals
from ulogd_tw.match.errors import MatchError
from ulogd_tw.match.grammar import parse
from ulogd_tw.match.tokens import characters
from ulogd_tw.storing.stored_columns import StoredColumn

SERVICES = {"http": 80, "https": 443, "domain": 53}
SEED = int(os.environ.get("ULOGD_TW_SEED", "18"))
EXPRESSIONS = int(os.environ.get("ULOGD_TW_EXPRESSIONS", sized(300, 10_000)))


def selected(term, batches):
    """The numbers of the rows in these batches of which a term is true."""
    found = []
    for rows, batch in batches:
        sources, provided = Sources(), Provided(batch.schema.values())
        for name in term.keys():
            sources.add(name, provided.recipes(name))
        found += np.array(rows)[term.rows(sources.find, batch)].tolist()
    return sorted(found)


class Store:
    """A Parquet file with the rows of batches, in a directory of its own."""

    def __init__(self, batches):
        self.columns = {name: known(name) for _, batch in batches for name in batch.schema}
        self._directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._directory.name, "rows.parquet")
        self.connection = duckdb.connect(config={"threads": 1})
        for place, (rows, batch) in enumerate(batches):
            vectors = [StoredColumn(self.columns[name]).vector(batch.columns[name], key, batch.missing.get(name))
                       for name, key in batch.schema.items()]  # fmt: skip
            self.connection.register("given", Stream([*batch.schema, "row"], [[*vectors, numbers(np.array(rows))]]))
            self.connection.execute(f"{'INSERT INTO rows' if place else 'CREATE TABLE rows AS'} FROM given")
            self.connection.unregister("given")
        self.connection.execute(f"COPY (FROM rows ORDER BY row) TO '{self.path}' (ROW_GROUP_SIZE 2048)")
        self.connection.execute("DROP TABLE rows")

    def selected(self, term):
        """The numbers of the rows that DuckDB selects; the condition is never NULL."""
        where = sql.where(term, self.columns)
        for table in where.tables:
            for statement, parameters in table.statements():
                self.connection.execute(statement, parameters)
        found = self.connection.execute(
            f"SELECT row, {where} FROM read_parquet('{self.path}'){where.joins} ORDER BY row"
        ).fetchall()
        chosen = self.connection.execute(
            f"SELECT row FROM read_parquet('{self.path}'){where.joins} WHERE {where}"
        ).fetchall()
        for table in where.tables:
            self.connection.execute(table.dropped)
        rows = [row for row, true in found if true]
        if {true for _, true in found} - {True, False} or rows != sorted(row for (row,) in chosen):
            raise AssertionError(f"NULL, or two answers: {where}")
        return rows

    def close(self):
        self.connection.close()
        self._directory.cleanup()


class EqualTests(SynchronousTestCase):
    """Random expressions mean the same to MATCH and to DuckDB."""

    def test_random(self):
        """Of every word, over rows with missing and extreme values; a third selects a part of the rows."""
        random = Random(SEED)
        rows = random_expressions.random_rows(random, 300)
        batches = random_expressions.batches_of(random, rows)
        store = Store(batches)
        self.addCleanup(store.close)
        expressions = random_expressions.Expressions(random)
        partial, seen, usual = 0, Counter(), (sql.FEW, sql.FEW_SINGLE)
        self.patch(sql, "FEW", sql.FEW)
        self.patch(sql, "FEW_SINGLE", sql.FEW_SINGLE)
        for place in range(EXPRESSIONS):
            text = expressions.expression()
            term = parse(text, expressions.sets, SERVICES.get)
            sql.FEW, sql.FEW_SINGLE = usual if place % 3 else (1, 1)  # small sets as tables, too
            expected = selected(term, batches)
            self.assertEqual(expected, store.selected(term), f"{place}: {text}\n{sql.where(term, store.columns)}")
            partial += len(rows) <= 100 * len(expected) <= 99 * len(rows)
            seen.update(type(one).__name__ for one in term.terms())
            spoken = f" {' '.join(re.split(r'[][(){}!&|=<>~, ]+', text))} "
            seen.update(word for word in words.ALL if f" {word} " in spoken)
            self.flushWarnings()
        self.assertGreater(3 * partial, EXPRESSIONS)
        self.assertEqual([], [word for word in words.ALL if not seen[word]])

    def test_random_times(self):
        """Times made of any others that a store has, also out of range; only times of NTP are stored rounded."""
        random = Random(SEED)
        sources = [source for edge in ("start", "end") for source in _times_of(edge)]
        targets = [name for edge in ("start", "end") for name in _derived_of(edge)]
        some = 0
        for _ in range(sized(60, 2000)):
            names = random.sample(sources, random.randrange(1, 8))
            batch = _times(random, names, 40)
            store = Store([(list(range(40)), batch)])
            for name in random.sample(targets, 6):
                constant = random.choice(_near(random, batch, name))
                text = f"{name} {random.choice(('=', '!=', '<', '>='))} {constant} or not exists {name}"
                term = parse(text)
                try:
                    found = store.selected(term)
                except MatchError:
                    self.assertEqual((), Provided(batch.schema.values()).recipes(name), text)
                    continue
                self.assertEqual(selected(term, [([*range(40)], batch)]), found, f"{text} of {names}")
                some += 0 < len(found) < 40
            store.close()
        self.assertGreater(some, 50)


def _times_of(edge):
    edge_ = edge.title()
    return (f"flow.{edge}.sec", f"flow.{edge}.usec", f"flow{edge_}Seconds", f"flow{edge_}Milliseconds",
            f"flow{edge_}SysUpTime", "systemInitTimeMilliseconds", f"flow{edge_}DeltaMicroseconds", "export_time",
            "observationTimeSeconds", "observationTimeMilliseconds")  # fmt: skip


def _derived_of(edge):
    edge_ = edge.title()
    return (f"flow.{edge}.sec", f"flow.{edge}.usec", *(f"flow{edge_}{unit}" for unit in (
        "Seconds", "Milliseconds", "Microseconds", "Nanoseconds")))  # fmt: skip


def _times(random, names, n):
    """A batch with these times: around one moment, or anything."""
    usual = {4: 1_700_000_000, 8: 1_700_000_000_000}
    columns, missing = {}, {}
    for name in dict.fromkeys(names):
        type_ = known(name).type
        least = 0 if "usec" in name or "Delta" in name or "UpTime" in name else usual[type_.octets]
        most = 2 ** (8 * type_.octets) - 1
        odd = (0, 1, 999, most, most - 1, most // 1000, 2085978496 % most, min(2085978496000, most), 2**32 - 1)
        values = [least + random.randrange(5000) if random.random() < 0.7 else random.choice(odd) for _ in range(n)]
        columns[known(name)] = np.array(values, type_.dtype)
        missing[name] = np.array([random.random() < 0.1 for _ in range(n)])
    empty = Batch(Schema([]), {}, n=n, now=0.0)
    return empty.with_columns(columns, missing)


def _near(random, batch, name):
    """Constants near values of a time, in its unit."""
    unit = {"sec": 1, "Seconds": 1, "Milliseconds": 1000, "Microseconds": 10**6, "Nanoseconds": 10**9, "usec": 1}
    unit = unit[re.search(r"(sec|usec|Seconds|Milliseconds|Microseconds|Nanoseconds)$", name)[0]]
    found = Sources()
    found.add(name, Provided(batch.schema.values()).recipes(name))
    column = found.find(batch, name)
    values = [] if column is None else readable(column.values, column.key)[0].tolist()
    return [*values, *values, 0, 1_700_000_002 * unit]


def store_of(names, *rows):
    """A connection with the table t of these rows, in the types of the store, and its keys by name."""
    columns = {name: known(name) for name in names}
    connection = duckdb.connect(config={"threads": 1})
    types_ = ", ".join(f'"{name}" {StoredColumn(key).sql}' for name, key in columns.items())
    connection.execute(f"CREATE TABLE t (n INTEGER, {types_})")
    for place, row in enumerate(rows):
        connection.execute(f"INSERT INTO t VALUES ({', '.join('?' * (len(row) + 1))})", [place, *row])
    return connection, columns


def chosen(connection, columns, text, sets=None):
    """The numbers of the rows of t that DuckDB selects."""
    where = sql.where(parse(text, sets, SERVICES.get), columns)
    for table in where.tables:
        for statement, parameters in table.statements():
            connection.execute(statement, parameters)
    return [n for (n,) in connection.execute(f"SELECT n FROM t{where.joins} WHERE {where} ORDER BY n").fetchall()]


def stored_address(text):
    """An address as the store has it."""
    address = ipaddress.ip_address(text)
    return uuid.UUID(int=int(address) if address.version == 6 else int(ipaddress.ip_address(f"::ffff:{text}")))


class KeyTests(SynchronousTestCase):
    """Keys that a store has under another name, in another unit, or not at all."""

    def check(self, names, rows, *expected):
        connection, columns = store_of(names, *rows)
        self.addCleanup(connection.close)
        for text, numbers_ in expected:
            self.assertEqual(numbers_, chosen(connection, columns, text), text)

    def test_same_element(self):
        """By the Information Element, under ulogd2's name and IANA's."""
        rows = [(stored_address("10.0.0.1"), 1), (stored_address("2001:db8::1"), 2), (None, None)]
        self.check(
            ("orig.ip.saddr", "orig.l4.sport"), rows,
            ("src ip 10.0.0.1", [0]), ("src port 2", [1]), ("inet6", [1]), ("not inet", [1, 2]),
            ("sourceIPv4Address = 0.0.0.0/0", [0]), ("exists sourceIPv6Address", [1]),
            ("exists sourceIPv4Address", [0]), ("sourceTransportPort > 0", [0, 1]),
        )  # fmt: skip

    def test_columns_of_each_family(self):
        """Two columns of one datum: the one with a value counts."""
        rows = [(stored_address("10.0.0.1"), None), (None, stored_address("2001:db8::1")), (None, None)]
        self.check(
            ("sourceIPv4Address", "sourceIPv6Address"), rows,
            ("src ip in [10.0.0.1 2001:db8::/32]", [0, 1]), ("src ip != 10.0.0.1", [1]),
            ("exists sourceAddress", [0, 1]), ("not src ip 10.0.0.1", [1, 2]), ("ip6", [1]),
            ("sourceIPv6Address = ::/0", [1]),
        )  # fmt: skip

    def test_common_ports(self):
        self.check(
            ("tcp.sport", "udp.sport", "tcp.dport"), [(80, None, 1), (None, 53, None), (None, None, 9)],
            ("src port 53", [1]), ("src port in [53 80]", [0, 1]), ("src port != 53", [0]), ("dst port 9", [2]),
        )  # fmt: skip

    def test_times(self):
        """Seconds and microseconds for milliseconds, and the other way."""
        beyond = 2**32 - 1
        rows = [(1_700_000_000, 1999, 1_700_000_001_500), (5, 0, 2**64 - 1), (None, 0, None), (beyond, beyond, 0)]
        self.check(
            ("flow.start.sec", "flow.start.usec", "flowEndMilliseconds"), rows,
            ("flowStartMilliseconds = 1700000000001", [0]), ("flowStartMilliseconds < 2023-01-01", [1]),
            ("flowStartMilliseconds >= 0", [0, 1]), ("not exists flowStartMilliseconds", [2, 3]),  # 3: beyond 2106
            ("flowStartSeconds = 1700000000", [0]), ("flow.end.sec = 1700000001", [0]), ("flow.end.usec = 500000", [0]),
            ("flowEndSeconds = 1271310319", [1]), ("flow.end.usec = 615000", [1]), ("flow.end.sec = 0", [3]),
            ("flowEndMicroseconds = 1700000001500000", [0]), ("flowEndNanoseconds = 1700000001500000000", [0]),
            ("duration = 1499", [0]), ("duration < 1500", [0]),
        )  # fmt: skip

    def test_other_times(self):
        rows = [(1000, 1_700_000_000_000, 2_500_000, 1_700_000_010, 1_700_000_000_000_001, 7),
                (2**32 - 1, 2**64 - 1, 2**32 - 1, 0, None, 7)]  # fmt: skip
        names = ("flowStartSysUpTime", "systemInitTimeMilliseconds", "flowEndDeltaMicroseconds", "export_time",
                 "observationTimeMicroseconds", "octetTotalCount")  # fmt: skip
        self.check(
            names, rows,
            ("flowStartMilliseconds = 1700000001000", [0]), ("flowEndMilliseconds = 1700000007500", [0]),
            ("not exists flowEndMilliseconds", [1]), ("duration = 6500", [0]),
            ("octets 7", [0, 1]), ("bps > 8", [0]), ("bps < 9", [0]), ("bps > 100", []),
        )  # fmt: skip

    def test_counters(self):
        """Of three columns the first with a value counts, also where only the third is large."""
        rows = [(1, 9, 9), (None, 1, 9), (None, None, 9), (None, None, None), (9, 1, 1), (None, 9, 1)]
        self.check(
            ("octetDeltaCount", "octetTotalCount", "raw.pktlen"), rows,
            ("octets > 5", [2, 4, 5]), ("octets != 9", [0, 1]), ("not octets > 5", [0, 1, 3]),
            ("octets in [1 3]", [0, 1]),
        )  # fmt: skip

    def test_no_number(self):
        """NaN is neither above nor below a number, and equal to none; infinity is above all."""
        nan, inf = float("nan"), float("inf")
        for name in ("sampling_factor", "ixiaSrcLatitude"):
            self.check(
                (name,), [(nan,), (inf,), (-inf,), (1.5,), (None,)],
                (f"{name} > 1", [1, 3]), (f"{name} >= 1.5", [1, 3]), (f"{name} < 1", [2]), (f"{name} <= 1.5", [2, 3]),
                (f"{name} = 1.5", [3]), (f"{name} != 1.5", [0, 1, 2]), (f"not {name} > 1", [0, 2, 4]),
                (f"{name} 1-2", [3]), (f"{name} in [1-2 5]", [3]),
            )  # fmt: skip

    def test_octets(self):
        """Patterns see octets as they are, each of the 256."""
        rows = [(bytes([n]),) for n in range(256)] + [(b"",), (None,), ("é".encode(),)]
        self.check(
            ("e4242id7",), rows,
            ("e4242id7 ~ '^.$'", [n for n in range(256) if n != 10]), ("e4242id7 ~ '^$'", [256]),
            ("e4242id7 ~ '[\\\\x80-\\\\xff]'", [*range(128, 256), 258]), ("e4242id7 ~ 'é'", [258]),
            *((f"e4242id7 ~ '^\\\\x{n:02x}$'", [n]) for n in range(256)), ("e4242id7 = 0a", [10]),
        )  # fmt: skip

    def test_nothing_there(self):
        """A needed key that is not there is an error with its place; other keys are false of all rows."""
        connection, columns = store_of(("sourceAddress", "flow.start.sec"), (stored_address("10.0.0.1"), 1))
        self.addCleanup(connection.close)
        for text, column, key in (
            ("any and dst port 80", 13, "destinationTransportPort"), ("udp", 1, "protocolIdentifier"),
            ("vlanId = 1", 1, "vlanId"), ("sourceAddress@ct1 = 10.0.0.1", 1, "sourceAddress@ct1"),
            ("flowStartMilliseconds > 5", 1, "flowStartMilliseconds"),
        ):  # fmt: skip
            error = self.assertRaises(MatchError, chosen, connection, columns, text)
            self.assertEqual((column, True), (error.column, key in str(error)), text)
            self.assertIn("its keys are: flow.start.sec, sourceAddress", str(error))
        for text in ("exists vlanId", "octets > 5", "bps >= 0", "vlan", "src as 5", "icmp-type 8"):
            self.assertEqual([], chosen(connection, columns, text), text)
            self.assertEqual([0], chosen(connection, columns, f"not ({text})"), text)


class ConditionTests(SynchronousTestCase):
    """What a condition looks like, and how large it may be."""

    def setUp(self):
        rows = [(stored_address(f"10.{n}.0.1"), n, f"name {n}") for n in range(256)]
        self.connection, self.columns = store_of(("sourceAddress", "octetDeltaCount", "interfaceName"), *rows)
        self.addCleanup(self.connection.close)

    def test_in_scan(self):
        """Comparisons go into the scan of a Parquet file, which leaves out row groups by their statistics."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "t.parquet")
            self.connection.execute(f"COPY t TO '{path}'")
            for text in ("src ip 10.5.0.1", "src net 10/12", "octets = 5", "octets > 5", "octets 5-9", "not octets > 5",
                         "octets in [1 5]", "interfaceName = 'name 5'", "src ip != 10.5.0.1"):  # fmt: skip
                where = sql.where(parse(text), self.columns)
                query = f"EXPLAIN (FORMAT json) SELECT n FROM '{path}' WHERE {where}"
                scan = json.loads(self.connection.execute(query).fetchone()[1])[0]
                while scan["children"]:
                    (scan,) = scan["children"]
                self.assertIn("Filters", scan["extra_info"], text)

    def test_large_set(self):
        """Thousands of networks are a table, joined once for each column."""
        half = sized(5_000, 50_000)
        nets = [f"10.{n & 255}.{n >> 8}.0/25" for n in range(half)]
        nets += [f"2001:db8:{n:x}::/49" for n in range(half)]
        sets = {"nets": [*nets, "10.0.0.0/16"], "names": [f"name {n}" for n in range(0, half, 3)]}
        where = sql.where(parse("src ip in @nets and not src ip in @nets", sets), self.columns)
        self.assertEqual((1, 2), (len(where.tables), where.joins.count("JOIN")))
        other = sql.where(parse("src ip in @nets", {"nets": nets}), self.columns)
        self.assertNotEqual(where.tables[0].name, other.tables[0].name)
        self.assertLess(len(str(where)), 500)
        rows = list(range(256))
        self.assertEqual(rows, chosen(self.connection, self.columns, "src ip in @nets", sets))
        self.assertEqual([], chosen(self.connection, self.columns, "src ip != @nets", sets))
        self.assertEqual(rows[::3], chosen(self.connection, self.columns, "interfaceName in @names", sets))
        self.assertEqual(
            [n for n in rows if n % 3], chosen(self.connection, self.columns, "interfaceName != @names", sets)
        )

    def test_too_large(self):
        self.patch(sql, "MOST_IN_SETS", 100)
        term = parse("src ip in @nets", {"nets": [f"10.{n}.0.0/17" for n in range(101)]})
        self.assertIn("more than 100 entries", str(self.assertRaises(MatchError, sql.where, term, self.columns)))
        self.patch(sql, "LONGEST", 1000)
        term = parse(" or ".join(f"octets {n}-{n + 1}" for n in range(40)))
        self.assertIn("too long", str(self.assertRaises(MatchError, sql.where, term, self.columns)))

    def test_long_and_deep(self):
        """Chains and brackets as long and deep as MATCH takes them."""
        text = " or ".join(f"octets {n}-{n + 1}" for n in range(0, 5000, 50))
        self.assertEqual([0, 1, 50, 51, 100, 101, 150, 151, 200, 201, 250, 251], self.chosen(text))
        self.assertEqual(list(range(256)), self.chosen(" and ".join(f"octets != {n}" for n in range(300, 2300))))
        self.assertEqual([5], self.chosen("(" * 100 + "octets 5" + ")" * 100))
        self.assertEqual([5], self.chosen("not " * 100 + "octets 5"))
        deep = "octets 5"
        for n in range(33):
            deep = f"(octets = {n + 100} or not (octets = {n} or {deep}))"
        self.assertEqual(256, len(self.chosen(deep)) + len(self.chosen(f"not {deep}")))

    def chosen(self, text):
        return chosen(self.connection, self.columns, text)

    @given(st.lists(st.sampled_from((
        *words.ALL, *"()[]=,~@!<>", "and", "or", "not", "in", "src", "dst", "mask", "80", "10.0.0.1/8", "1-2", "tcp",
        "SA", "'t'", "0x1/2", "1.5", "sourceAddress", "octetDeltaCount", "interfaceName", "exists", "::/0", "-1", "1k",
    )), max_size=9).map(" ".join))  # fmt: skip
    def test_any_expression(self, text):
        """DuckDB takes the condition of every expression, if the store has its keys."""
        with contextlib.suppress(MatchError):
            self.connection.execute(f"SELECT n FROM t WHERE {sql.where(parse(text), self.columns)}").fetchall()

    @given(st.text() | st.text("'\"\\\0;-$%é\udcff\n"))
    def test_constants(self, value):
        """Every text is a constant and no more; so is every name and every pattern."""
        whole = characters(value)
        found = self.connection.execute(f"SELECT {literals.text(whole)}, unhex('') = {literals.octets(b'')}").fetchall()
        self.assertEqual([(whole, True)], found)
        quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        self.assertEqual([], self.chosen(f"interfaceName = {quoted} and octets > 1000"))
        self.assertEqual([], self.chosen(f"interfaceName in [{quoted} 'x'] and octets > 1000"))
        if "\0" not in value:
            name = literals.identifier(whole or "x")
            described = self.connection.execute(f"SELECT 1 AS {name}").description
            self.assertEqual([whole or "x"], [column[0] for column in described])
        try:
            term = parse(f"interfaceName ~ {quoted}")
        except MatchError:
            return
        self.connection.execute(f"SELECT n FROM t WHERE {sql.where(term, self.columns)}").fetchall()
