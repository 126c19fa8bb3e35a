"""SQLITE3: the values that a file holds after a batch, rows that do not fit, files that change underneath."""

import json
import re
import sqlite3
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.internet import defer, reactor, task
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import given
from tests.unit.storing.sql_rows import NUMBER_KEYS, ODD_STRINGS, batch_of, numbers, opened, output, told
from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Found
from ulogd_tw.plugins.inputs.nfct import NFCT
from ulogd_tw.plugins.outputs import sqlite3 as sqlite3_output
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3
from ulogd_tw.storing.columns import Target, values_of, worth_writing


def key(type_, name=None):
    """A key of this type, called like it or `name`."""
    return Key(name or type_.name, type_)


class SQLITE3TestCase(TestCase):
    """With a path for a file."""

    def setUp(self):
        self.path = self.mktemp()

    def execute(self, statement, *arguments):
        """The rows of one statement, on a connection of its own."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, arguments).fetchall()
        finally:
            connection.close()

    def output(self, **options):
        return output(SQLITE3, **{"db": self.path, "table": "flows", "create": True} | options)

    async def stored(self, batch, **options):
        """The rows of the table after the batch was written, and the output."""
        made = await opened(self, self.output(**options), batch.schema.values())
        await made.write(batch)
        return self.execute("SELECT * FROM flows"), made


class ValuesTests(SQLITE3TestCase):
    """What stands in the file."""

    async def test_every_type(self):
        """Numbers are numbers, addresses and octets text, times integers since 1970, what is missing NULL."""
        v6 = IPv6Address("fd77::1:0:0:9")
        ntp = (2208988800 + 1_790_000_000) << 32 | 1 << 31
        columns = [
            (key(types.UNSIGNED8), [0, 255, None]),
            (key(types.SIGNED64), [-(1 << 63), (1 << 63) - 1, None]),
            (key(types.FLOAT64), [1.5, float("nan"), None]),
            (key(types.BOOLEAN), [True, False, None]),
            (key(types.IPV4), [0x0A4D0001, 0xFFFFFFFF, None]),
            (key(types.IPV6), [int(v6), 0, None]),
            (key(types.MAC), [0x0102030405FF, 0, None]),
            (key(types.SECONDS), [1_790_000_000, 0, None]),
            (key(types.MILLISECONDS), [1_790_000_000_123, 0, None]),
            (key(types.MICROSECONDS), [ntp, ntp, None]),
            (key(types.NANOSECONDS), [ntp, ntp, None]),
            (key(types.STRING), ["é", "", None]),
            (key(types.OCTETS), [b"\0\xff", b"", None]),
        ]
        rows, _ = await self.stored(batch_of(*columns))
        us = 1_790_000_000_500_000
        self.assertEqual(rows, [
            (0, -(1 << 63), 1.5, 1, "10.77.0.1", "fd77::1:0:0:9", "01:02:03:04:05:ff", 1_790_000_000, 1_790_000_000_123,
             us, us * 1000, "é", "00ff"),
            (255, (1 << 63) - 1, None, 0, "255.255.255.255", "::", "00:00:00:00:00:00", 0, 0, us, us * 1000, "", ""),
            (None,) * 13,
        ])  # fmt: skip

    async def test_large_numbers(self):
        """Unsigned numbers that SQLite has no integers for are there as text, to the last digit."""
        values = [0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
        rows, _ = await self.stored(batch_of((known("octetDeltaCount"), values)))
        self.assertEqual(rows, [(0,), ((1 << 63) - 1,), (str(1 << 63),), (str((1 << 64) - 1),)])

    async def test_strings(self):
        """Strings that are hard to quote come out as they went in; what is not UTF-8 becomes U+FFFD."""
        rows, _ = await self.stored(batch_of((key(types.STRING, "s"), [*ODD_STRINGS, b"\xff\xfex"])))
        self.assertEqual([row[0] for row in rows], [*ODD_STRINGS, "\ufffd\ufffdx"])

    @given(st.lists(st.tuples(
        st.one_of(st.none(), st.text(), st.sampled_from([*ODD_STRINGS, "\U0001f600" * 3, "x" * 65536, "0123", "1e5"])),
        st.one_of(st.none(), st.integers(0, (1 << 64) - 1), st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 1])),
        st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1)),
        st.one_of(st.none(), st.integers(0, (1 << 128) - 1)),
        st.one_of(st.none(), st.binary(max_size=40)),
        st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    ), min_size=1, max_size=40))  # fmt: skip
    def test_any_value(self, rows):
        """Odd text and extremes come out as they went in: numbers to the last digit, text without trailing NULs."""
        rows = [(None if s is None else s.encode("utf-8", "replace").decode().rstrip("\0"), *rest) for s, *rest in rows]
        kinds = (types.STRING, types.UNSIGNED64, types.SIGNED64, types.IPV6, types.OCTETS, types.FLOAT64)
        keys = [Key(f"k{place}", kind) for place, kind in enumerate(kinds)]
        batch = batch_of(*zip(keys, map(list, zip(*rows, strict=True)), strict=True))
        made = self.output()
        made.existing = []
        made.database.numbered = False
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute(made.database.ddl(keys))
        values = values_of([Target(key.name, (key.name,)) for key in keys], partial(made.find, batch))
        self.assertEqual(made.database.store(connection, values, batch.n, 1, False).rows, 0)
        found = connection.execute("SELECT * FROM flows ORDER BY rowid").fetchall()
        connection.close()
        expected = [
            (s, u if u is None or u < 1 << 63 else str(u), i, a, o if o is None else o.hex(), f)
            for s, u, i, a, o, f in rows
        ]
        self.assertEqual([(*row[:3], row[3] and int(IPv6Address(row[3])), *row[4:]) for row in found], expected)

    async def test_names_of_columns(self):
        """A made table has the keys with _ for dots, quoted, in the order of the stack."""
        keys = [known("orig.ip.saddr"), known("interface#2") or Key("order by", types.UNSIGNED8), known("e9id7")]
        made = await opened(self, self.output(), keys)
        self.assertIn('"orig_ip_saddr" TEXT', made.database.ddl(keys))
        names = [row[1] for row in self.execute("PRAGMA table_info(flows)")]
        self.assertEqual(names, ["orig_ip_saddr", "order by", "e9id7"])

    async def test_table_name_is_quoted(self):
        """Any name of a table will do, and a schema may stand before it."""
        made = await opened(self, self.output(table='main.a"b ; c'))
        await made.write(numbers(1, 2))
        self.assertEqual(self.execute('SELECT number FROM "a""b ; c"'), [(1,), (2,)])


class OptionsRecordsTests(SynchronousTestCase):
    """Records about an exporter in a table of flows."""

    def worth(self, *names, octets=(True, False, True, False)):
        """Which rows of these columns are written; `octets`: whether there are any."""
        values = {
            "exporter": (np.arange(4, dtype=np.uint32), None), "record_kind": (KINDS, None),
            "octetDeltaCount": (np.arange(4, dtype=np.uint64), ~np.array(octets)), "samplingInterval": None,
        }  # fmt: skip
        found = [(Target(name, (name,)), values[name] and Found(*values[name], known(name))) for name in names]
        rows = worth_writing(found, Found(KINDS, None, known("record_kind")), 4)
        return [0, 1, 2, 3] if rows is None else np.flatnonzero(rows).tolist()

    def test_rows_of_nothing(self):
        """Options records without any value but who sent them are left out; flows without one stay."""
        self.assertEqual([0, 1, 2], self.worth("exporter", "octetDeltaCount", "samplingInterval"))
        self.assertEqual([0, 1, 2, 3], self.worth("octetDeltaCount", octets=(True, False, True, True)))

    def test_tables_of_records(self):
        """A table that says what kind a record is gets all; so does one of exporters only."""
        self.assertEqual([0, 1, 2, 3], self.worth("record_kind", "octetDeltaCount"))
        self.assertEqual([0, 1, 2, 3], self.worth("exporter"))

    def test_no_options(self):
        kinds = Found(Coded(np.zeros(4, np.int64), (b"data",)), None, known("record_kind"))
        self.assertIsNone(worth_writing([], kinds, 4))
        self.assertIsNone(worth_writing([], None, 4))


KINDS = Coded(np.array([0, 0, 1, 1]), (b"data", b"options"))


class ExistingTableTests(SQLITE3TestCase):
    """A table that is there already."""

    async def test_columns_are_the_request(self):
        """What is asked for are the keys of the columns; a number that SQLite gives itself is none."""
        self.execute(
            "CREATE TABLE flows (id INTEGER PRIMARY KEY, orig_ip_saddr TEXT, octetDeltaCount, raw_mac_len, "
            "twice INTEGER GENERATED ALWAYS AS (octetDeltaCount * 2))"
        )
        made = self.output(create=False)
        made.prepare()
        self.assertEqual(
            made.requests(frozenset()),
            {"orig.ip.saddr": True, "octetDeltaCount": True, "raw.mac_len": True, "record_kind": False},
        )

    async def test_columns_are_found_by_element(self):
        """A column takes the key of another name that is the same datum."""
        self.execute("CREATE TABLE flows (orig_ip_saddr TEXT, number INTEGER)")
        rows, _ = await self.stored(numbers(0x0A000001, 1), create=False)
        self.assertEqual(rows, [("10.0.0.1", 0x0A000001)])

    async def test_integer_columns_take_ipv4_addresses(self):
        """As ulogd2 wrote them."""
        self.execute("CREATE TABLE flows (orig_ip_saddr INTEGER)")
        rows, _ = await self.stored(numbers(0x0A000001, 1), create=False)
        self.assertEqual(rows, [(0x0A000001,)])

    async def test_unknown_column(self):
        """A column that is no key is a mistake that names the column, and the one that was meant."""
        self.execute("CREATE TABLE flows (number INTEGER, octet_delta_Count INTEGER, octetDeltaCuont)")
        made = self.output()
        made.prepare()
        with self.assertRaisesRegex(StartError, "column octet_delta_Count of table flows"):
            await opened(self, made)

    async def test_missing_table(self):
        """Without create=1 a missing table keeps the stack from starting."""
        self.execute("CREATE TABLE other (a)")
        with self.assertRaisesRegex(StartError, "no table flows; make it, or set create=1"):
            self.output(create=False).prepare()

    def test_key_without_column(self):
        """A key of keys= that the table has no column for."""
        self.execute("CREATE TABLE flows (number INTEGER)")
        with self.assertRaisesRegex(StartError, "no column for the key octetDeltaCount"):
            self.output(keys=("number", "octetDeltaCount"), create=False).prepare()
        with self.assertRaisesRegex(StartError, "no column for the key octetDeltaCount"):
            self.output(keys=("number", "octetDeltaCount"), alter=False).prepare()

    async def test_chosen_keys(self):
        """keys= names what is written; the other columns are left alone."""
        self.execute("CREATE TABLE flows (other DEFAULT 7, number INTEGER)")
        rows, made = await self.stored(numbers(5, 1), keys=("number",))
        self.assertEqual(made.requests(frozenset()), {"number": True, "record_kind": False})
        self.assertEqual(rows, [(7, 5)])

    async def test_chosen_keys_make_the_table(self):
        """In their order; the type of one that only a plugin knows comes with the first rows."""
        rows, _ = await self.stored(numbers(5, 1), keys=("number", "sourceIPv4Address"))
        self.assertEqual(rows, [(5, "0.0.0.5")])
        self.assertEqual([row[2] for row in self.execute("PRAGMA table_info(flows)")], ["INTEGER", "TEXT"])


class AddedColumnTests(SQLITE3TestCase):
    """create=1 with a table that lacks columns."""

    NAMES = "SELECT name FROM pragma_table_info('flows')"

    async def test_a_key_more(self):
        """Its column is added behind the others; older rows have NULL, and the log says so once."""
        for keys in ((), ("number", "sourceIPv4Address")):
            self.path = self.mktemp()
            lines = told(self)
            self.execute("CREATE TABLE flows (number INTEGER)")
            self.execute("INSERT INTO flows VALUES (3)")
            made = await opened(self, self.output(keys=keys))
            await made.write(numbers(4, 1))
            await made.write(numbers(5, 1))
            rows = self.execute("SELECT number, sourceIPv4Address FROM flows")
            self.assertEqual(rows, [(3, None), (4, "0.0.0.4"), (5, "0.0.0.5")])
            self.assertEqual(
                lines, ['db: added 1 column to the table "flows": sourceIPv4Address; older rows have NULL there']
            )

    async def test_type_of_a_plugin_alone(self):
        """A key that no registry knows gets its column with the first rows."""
        self.execute("CREATE TABLE flows (sourceIPv4Address TEXT)")
        made = await opened(self, self.output(keys=("number", "sourceIPv4Address")))
        self.assertEqual(self.execute(self.NAMES), [("sourceIPv4Address",)])
        await made.write(numbers(4, 1))
        self.assertEqual(self.execute("SELECT * FROM flows"), [("0.0.0.4", 4)])

    async def test_forbidden(self):
        """alter=0, create=0, a view: the columns stay as they are."""
        self.execute("CREATE TABLE base (number INTEGER)")
        self.execute("CREATE VIEW seen AS SELECT number FROM base")
        self.execute("CREATE TRIGGER t INSTEAD OF INSERT ON seen BEGIN INSERT INTO base VALUES (NEW.number); END")
        for options in ({"alter": False}, {"create": False}, {"table": "seen"}):
            made = await opened(self, self.output(**{"table": "base"} | options))
            await made.write(numbers(4, 1))
        self.assertEqual(self.execute("SELECT * FROM base"), [(4,)] * 3)

    async def test_open_ended_keys(self):
        """Below an input that may give any key, the columns of the table are asked for, as ever."""
        self.execute("CREATE TABLE flows (number INTEGER)")
        made = self.output()
        made.prepare()
        self.assertEqual(made.requests_of(None), {"number": True, "record_kind": False})

    async def test_altered_while_it_runs(self):
        """A column that somebody drops is there again with the next batch; no row is lost."""
        made = await opened(self, self.output())
        await made.write(numbers(1, 2))
        self.execute("ALTER TABLE flows DROP COLUMN sourceIPv4Address")
        await made.write(numbers(3, 1))
        rows = self.execute("SELECT number, sourceIPv4Address FROM flows")
        self.assertEqual(rows, [(1, None), (2, None), (3, "0.0.0.3")])

    async def test_type_that_does_not_fit(self):
        """A text in a column of numbers is a mistake; the statement of the message mends it, and drops nothing."""
        name = Key("userName", types.STRING)
        batch = batch_of((NUMBER_KEYS[1], [1]), (name, ["0123"]))
        self.execute("CREATE TABLE flows (number INTEGER, userName INTEGER)")
        self.execute("INSERT INTO flows VALUES (0, 7)")
        for keys in (("userName",), ()):
            with self.assertRaisesRegex(
                StartError, "column userName of table .* is INTEGER, .* does not fit"
            ) as caught:
                await opened(self, self.output(keys=keys), batch.schema.values())
        self.execute(re.search("ALTER TABLE [^;]*", str(caught.exception))[0])
        made = await opened(self, self.output(keys=("number", "userName")), batch.schema.values())
        await made.write(batch)
        rows = self.execute("SELECT number, userName_old, userName FROM flows")
        self.assertEqual(rows, [(0, 7, None), (1, None, "0123")])


class RequestTests(SynchronousTestCase):
    """What is asked of the stack before anything is opened."""

    def test_all(self):
        """A table that nobody has seen: every key is asked for."""
        self.assertIs(output(SQLITE3, db="x", table="t").requests(frozenset()), ALL)

    def test_create_below_any_element(self):
        """create=1 below a collector needs keys=."""
        made = output(SQLITE3, db="x", table="t", create=True)
        self.assertRegex("".join(made.available(None)), "needs keys=")
        self.assertEqual(list(output(SQLITE3, db="x", table="t").available(None)), [])

    def test_columns_that_clash(self):
        """Two keys for one column are a mistake."""
        made = output(SQLITE3, db="x", table="t", keys=("orig.ip.saddr", "orig_ip_saddr"))
        self.assertEqual(len(list(made.mistakes())), 1)
        made = output(SQLITE3, db="x", table="t", create=True)
        self.assertRegex("".join(made.available((key(types.UNSIGNED8, "a.b"), key(types.UNSIGNED8, "A_B")))), "choose")

    def test_keys_of_conntrack(self):
        """All that NFCT gives fits into one table."""
        made = output(SQLITE3, db="x", table="t", create=True)
        shown = tuple(key for key in output(NFCT).keys() if key.name not in NFCT.hidden)
        self.assertEqual(list(made.available(shown)), [])
        self.assertIn('"orig_raw_pktlen"', made.database.ddl(made.offered.values()))


class RefusedTests(SQLITE3TestCase):
    """Rows that do not fit the table."""

    @given(
        st.lists(st.integers(0, 12), max_size=40),
        st.sampled_from(["", "ABORT", "FAIL", "IGNORE", "REPLACE"]),
        st.integers(1, 6),
    )
    def test_others_are_written(self, numbers, clause, at_once):
        """Whatever a table's constraints do with single rows: many rows a statement leave the same in it, in order."""
        self.patch(sqlite3_output, "_PARAMETERS", at_once)
        made = self.output()
        clause = clause and f"ON CONFLICT {clause}"
        ddl = f"CREATE TABLE flows (number INTEGER CHECK (number < 12) UNIQUE {clause}, more)"
        ours, plain = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
        expected = 0
        for connection in (ours, plain):
            connection.execute(ddl)
        for number in numbers:
            try:
                plain.execute("INSERT INTO flows VALUES (?, NULL)", (number,))
            except sqlite3.IntegrityError:
                expected += 1
        made.sources.add("number", [])
        made.database.numbered = False
        refused = 0
        for part in (numbers[:20], numbers[20:]):
            batch = batch_of((NUMBER_KEYS[1], part))
            values = values_of([Target("number", ("number",)), Target("more", ("more",))], partial(made.find, batch))
            refused += made.database.store(ours, values, len(part), 1, False).rows
        self.assertEqual(refused, expected)
        self.assertEqual(*(c.execute("SELECT * FROM flows ORDER BY rowid").fetchall() for c in (ours, plain)))

    async def test_refused_rows_are_counted(self):
        """And told once, with the reason."""
        self.execute("CREATE TABLE flows (number INTEGER NOT NULL UNIQUE)")
        made = await opened(self, self.output())
        await made.write(batch_of((NUMBER_KEYS[1], [1, 2, 2, None, 3])))
        await made.write(batch_of((NUMBER_KEYS[1], [3, 4])))
        self.assertEqual(self.execute("SELECT number FROM flows"), [(1,), (2,), (3,), (4,)])
        self.assertEqual(made.counters.dropped, {"refused": 3})


class DeadLetterTests(SQLITE3TestCase):
    """Refused rows in files, whichever way they were found."""

    async def letters(self, made):
        """The rows in the files, oldest first: error, and number."""
        await made.stop()
        paths = sorted(Path(made.config.dead_letters).iterdir())
        self.assertEqual({0o600}, {path.stat().st_mode & 0o777 for path in paths})
        lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
        return [(line["error"], line.get("number")) for line in lines]

    async def test_constraint(self):
        """Each refused row with its own error, among rows that fit; the rows without a value have no member."""
        self.execute("CREATE TABLE flows (number INTEGER NOT NULL UNIQUE)")
        made = await opened(self, self.output(dead_letters=self.mktemp()))
        await made.write(batch_of((NUMBER_KEYS[1], [1, 2, 2, None, 3])))
        await made.write(batch_of((NUMBER_KEYS[1], [3, 4])))
        unique, null = "UNIQUE constraint failed: flows.number", "NOT NULL constraint failed: flows.number"
        self.assertEqual([(unique, 2), (null, None), (unique, 3)], await self.letters(made))
        self.assertEqual((3, {}), (made.counters.figures["dead_letters"], made.counters.errors))

    async def test_many(self):
        """The numbers of refused rows are right behind statements of many rows, and where others were taken out."""
        self.execute("CREATE TABLE flows (number INTEGER CHECK (number % 1000 <> 999))")
        made = await opened(self, self.output(dead_letters=self.mktemp()))
        await made.write(numbers(0, 5000))
        self.assertEqual([999, 1999, 2999, 3999, 4999], [number for _, number in await self.letters(made)])

    async def test_sifted(self):
        self.execute("CREATE TABLE flows (number INTEGER CHECK (number <> 3))")
        self.execute(SiftingTests.trigger.format("NEW.number IN (1, 5)"))
        made = await opened(self, self.output(reconnect=0.01, dead_letters=self.mktemp()))
        await made.write(numbers(0, 8))
        self.assertEqual([1, 3, 5], sorted(number for _, number in await self.letters(made)))

    async def test_bound(self):
        """The oldest files go, and are counted; the rows of now stay."""
        self.execute("CREATE TABLE flows (number INTEGER CHECK (number < 0))")
        made = await opened(self, self.output(dead_letters=self.mktemp(), dead_letters_size=20000))
        for first in range(0, 1000, 20):
            await made.write(numbers(first, 20))
        found = [number for _, number in await self.letters(made)]
        self.assertEqual(list(range(found[0], 1000)), found)
        octets = sum(path.stat().st_size for path in Path(made.config.dead_letters).iterdir())
        self.assertGreater(20000 + 3000, octets)
        self.assertLess(15000, octets)
        self.assertLess(0, made.counters.figures["dead_letters_removed"])

    async def test_no_directory(self):
        """Where they cannot be written the rows are counted all the same, and the log says so."""
        self.execute("CREATE TABLE flows (number INTEGER CHECK (number < 0))")
        Path(self.mktemp()).write_text("a file")
        lines = told(self)
        made = await opened(self, self.output(dead_letters=f"{self.path}/x"))
        await made.write(numbers(0, 2))
        await made.stop()
        self.assertEqual(({"refused": 2}, {"dead_letters": 1}), (made.counters.dropped, made.counters.errors))
        self.assertIn("dead letters cannot be written", lines[-1])


class SiftingTests(SQLITE3TestCase):
    """Rows that the database refuses with an error about the whole statement."""

    trigger = "CREATE TRIGGER odd BEFORE INSERT ON flows WHEN {} BEGIN SELECT json('no JSON'); END"

    async def made(self, when):
        """An output on a table whose trigger fails for some rows with SQLITE_ERROR."""
        self.execute("CREATE TABLE flows (number INTEGER)")
        self.execute(self.trigger.format(when))
        return await opened(self, self.output(reconnect=0.01))

    def stored_numbers(self):
        return [number for (number,) in self.execute("SELECT number FROM flows ORDER BY rowid")]

    async def test_some_rows(self):
        """They are found and dropped, with the error in the log; the others are written once, in their order."""
        for bad, n in (({7, 8, 77, 199}, 200), ({0}, 2), (set(range(1, 64)), 64)):
            self.path = self.mktemp()
            made = await self.made(f"NEW.number IN ({','.join(map(str, bad))})")
            await made.write(numbers(0, n))
            self.assertEqual([number for number in range(n) if number not in bad], self.stored_numbers())
            self.assertEqual({"refused": len(bad)}, made.counters.dropped)
            await made.write(numbers(1000, 2))
            self.assertEqual([1000, 1001], self.stored_numbers()[-2:])

    async def test_all_rows_of_a_batch(self):
        """Where a row was written before, and still goes through, a batch may have nothing but bad rows."""
        made = await self.made("NEW.number < 10")
        await made.write(numbers(10, 3))
        await made.write(numbers(0, 5))
        await made.write(numbers(20, 1))
        self.assertEqual([10, 11, 12, 20], self.stored_numbers())
        self.assertEqual({"refused": 5}, made.counters.dropped)

    async def test_in_a_row(self):
        """Where every batch has bad rows, one attempt a batch fails."""
        made = await self.made("NEW.number % 10 = 7")
        for number in range(5):
            await made.write(numbers(10 * number, 10))
        self.assertEqual(({"refused": 5}, 45), (made.counters.dropped, len(self.stored_numbers())))
        self.assertEqual({"table": 3 + 4}, made.counters.errors)

    async def test_after_a_restart(self):
        """Rows that are in the table show that it takes rows, also where a copy of one is refused for its key."""
        for unique in ("", " UNIQUE"):
            self.path = self.mktemp()
            self.execute(f"CREATE TABLE flows (number INTEGER{unique})")
            self.execute("INSERT INTO flows VALUES (100)")
            self.execute(self.trigger.format("NEW.number < 10"))
            made = await opened(self, self.output(reconnect=0.01))
            await made.write(numbers(0, 3))
            await made.write(numbers(20, 1))
            self.assertEqual(([100, 20], {"refused": 3}), (self.stored_numbers(), made.counters.dropped))

    async def test_the_table(self):
        """Where the table takes no row at all, rows wait until it does."""
        made = await self.made("1")
        writing = made.write(numbers(0, 40))
        await task.deferLater(reactor, 0.5, lambda: None)
        self.assertFalse(writing.called)
        self.execute("DROP TRIGGER odd")
        await writing
        self.assertEqual((list(range(40)), {}), (self.stored_numbers(), made.counters.dropped))

    async def test_the_table_later(self):
        """Also where rows were written before it came to that."""
        made = await self.made("0")
        await made.write(numbers(100, 1))
        self.execute("DROP TRIGGER odd")
        self.execute(self.trigger.format("1"))
        writing = made.write(numbers(0, 3))
        await task.deferLater(reactor, 0.5, lambda: None)
        self.assertFalse(writing.called)
        self.execute("DROP TRIGGER odd")
        await writing
        self.assertEqual(([100, 0, 1, 2], {}), (self.stored_numbers(), made.counters.dropped))


class FileTests(SQLITE3TestCase):
    """The file itself."""

    async def test_moved_file(self):
        """Rows never go into a file that was moved away: a new one is made."""
        made = await opened(self, self.output())
        await made.write(numbers(1, 2))
        for name in (self.path, self.path + "-wal", self.path + "-shm"):
            if Path(name).exists():
                Path(name).rename(name + ".old")
        await made.write(numbers(3, 2))
        self.assertEqual(self.execute("SELECT number FROM flows"), [(3,), (4,)])

    def moved(self):
        """Move the file alone, as logrotate does; its rows are read at the end."""
        Path(self.path).rename(self.path + ".1")

    def rows_of_moved(self):
        """The rows of the file that was moved, by itself."""
        connection = sqlite3.connect(self.path + ".1")
        self.addCleanup(connection.close)
        return [number for (number,) in connection.execute("SELECT number FROM flows")]

    async def test_moved_alone(self):
        """Its last rows, which stood in NAME-wal, go with it; the new file has those of after."""
        made = await opened(self, self.output())
        await made.write(numbers(1, 2))
        await made.write(numbers(3, 2))
        self.moved()
        await made.write(numbers(5, 2))
        self.assertEqual([(5,), (6,)], self.execute("SELECT number FROM flows"))
        self.assertEqual([1, 2, 3, 4], self.rows_of_moved())

    async def test_moved_before_stop(self):
        """Also where nothing is written any more."""
        made = await opened(self, self.output())
        await made.write(numbers(1, 2))
        self.moved()
        await made.stop()
        self.assertEqual([1, 2], self.rows_of_moved())

    async def test_moved_and_replaced(self):
        """Within a second it lets go of the file, so that another program may make one of that name."""
        made = await opened(self, self.output())
        await made.write(numbers(1, 2))
        self.moved()
        self.assertEqual(1.0, made.wake(0.0))
        await made.in_thread(lambda: None)  # one thread: what was asked of it before is done
        self.execute("CREATE TABLE others (x)")
        await made.write(numbers(3, 2))
        self.assertEqual([1, 2], self.rows_of_moved())
        self.assertEqual([(3,), (4,)], self.execute("SELECT number FROM flows"))

    async def test_moved_file_of_an_earlier_start(self):
        """Where the table was there already at the start, the new one gets its columns again."""
        first = await opened(self, self.output())
        await first.write(numbers(1, 2))
        await first.stop()
        made = await opened(self, self.output())
        await made.write(numbers(3, 2))
        for name in (self.path, self.path + "-wal", self.path + "-shm"):
            if Path(name).exists():
                Path(name).rename(name + ".old")
        await made.write(numbers(5, 2))
        self.assertEqual(self.execute("SELECT number, sourceIPv4Address FROM flows"), [(5, "0.0.0.5"), (6, "0.0.0.6")])

    async def test_full(self):
        """A full disk is told and waited for; when there is room, every row is there once."""
        made = await opened(self, self.output(reconnect=0.1))
        await made.write(numbers(0, 10))

        def limit(pages):
            def opened(connection, before=made.database.opened):
                before(connection)
                connection.execute(f"PRAGMA max_page_count={pages}")

            return opened

        real = made.database.opened
        made.database.opened = limit(1)
        made.reopen()
        writing = made.write(numbers(10, 20000))
        for _ in range(1000):
            if made.counters.errors["full"] > 1:
                break
            await task.deferLater(reactor, 0.05, lambda: None)
        self.assertGreater(made.counters.errors["full"], 1)
        self.assertFalse(writing.called)
        made.database.opened = real
        await writing
        self.assertEqual(self.execute("SELECT count(*), count(DISTINCT number) FROM flows"), [(20010, 20010)])

    async def test_cannot_be_opened(self):
        """A directory that is not there keeps the stack from starting."""
        made = self.output(db=self.path + "/no/x")
        made.prepare()
        list(made.available(NUMBER_KEYS))
        with self.assertRaisesRegex(StartError, "unable to open database file; the directory"):
            await defer.maybeDeferred(made.open)

    async def test_no_database(self):
        """Nor is any other file taken for a database."""
        Path(self.path).write_text("this is no database\n" * 100)
        with self.assertRaisesRegex(StartError, "not a database"):
            self.output().prepare()

    async def test_batch_numbers(self):
        """One row a run and instance says which batch was the last; old runs are forgotten."""
        made = await opened(self, self.output())
        for number in range(3):
            await made.write(numbers(number, 1))
        await made.stop()
        self.assertEqual(
            self.execute("SELECT run, instance, number FROM ulogd_tw_batches"), [(made.database.run, "db", 3)]
        )
        self.execute("UPDATE ulogd_tw_batches SET written_at = written_at - 90000")
        again = await opened(self, self.output())
        self.assertEqual(self.execute("SELECT * FROM ulogd_tw_batches"), [])
        await again.write(numbers(9, 1))
        self.assertEqual(self.execute("SELECT number FROM flows"), [(0,), (1,), (2,), (9,)])

    async def test_addresses_of_both_families(self):
        """One column holds both."""
        keys = [known("sourceAddress")]
        made = await opened(self, self.output(), keys)
        for address in (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")):
            type_ = types.IPV4 if address.version == 4 else types.IPV6
            await made.write(batch_of((keys[0].typed(type_), [int(address)])))
        self.assertEqual(self.execute("SELECT * FROM flows"), [("192.0.2.1",), ("2001:db8::1",)])
