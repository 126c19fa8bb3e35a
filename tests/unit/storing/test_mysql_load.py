"""LOAD DATA LOCAL: the text of rows, and when it is used."""

import pymysql
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.storing.sql_rows import ODD_STRINGS, batch_of, told
from ulogd_tw.core import types
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Provided, Sources
from ulogd_tw.storing.columns import TableColumn, Target, values_of
from ulogd_tw.storing.mysql_load import Loading
from ulogd_tw.storing.mysql_text import fields

ESCAPED = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}


def read_field(text):
    r"""A field as the server reads it (MySQL's manual, 13.2.7): \N alone is NULL, a backslash escapes one character."""
    if text == "\\N":
        return None
    found, rest = "", iter(text)
    for char in rest:
        if char == "\\":
            char = next(rest)
            char = ESCAPED.get(char, char)
        found += char
    return found


def read_lines(octets):
    """The rows of a file with tabs between fields and newlines behind rows: both end a field unless escaped."""
    rows, row, field, escaped = [], [], "", False
    for char in octets.decode():
        if not escaped and char in "\t\n":
            row.append(read_field(field))
            field = ""
            if char == "\n":
                rows.append(tuple(row))
                row = []
        else:
            field += char
        escaped = char == "\\" and not escaped
    assert not (row or field)
    return rows


def found_in(batch, targets):
    """The values of a batch for these columns."""
    sources = Sources()
    for name in batch.schema:
        sources.add(name, Provided(batch.schema.values()).recipes(name))
    return values_of(targets, lambda name: sources.find(batch, name))


def lines(batch, **options):
    """The text of a batch for a table with a column for each key."""
    targets = [Target(name, (name,), **options) for name in batch.schema]
    octets, rows = zip(*fields(found_in(batch, targets), batch.n), strict=True)
    assert sum(rows) == batch.n
    return b"".join(octets)


class FieldTests(SynchronousTestCase):
    """Rows as lines."""

    @given(st.lists(st.tuples(
        st.one_of(st.none(), st.text(), st.sampled_from([*ODD_STRINGS, "\\N", "\\", "a\tb", "x" * 65536])),
        st.one_of(st.none(), st.integers(0, (1 << 64) - 1)),
        st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1)),
    ), min_size=1, max_size=60))  # fmt: skip
    def test_round_trip(self, rows):
        """The server reads what the rows held, without the trailing NULs of strings; few rows and many."""
        rows = [(None if s is None else s.encode("utf-8", "replace").decode().rstrip("\0"), *rest) for s, *rest in rows]
        names = [Key("s", types.STRING), Key("n", types.UNSIGNED64), Key("i", types.SIGNED64), Key("t", types.STRING)]
        columns = [*zip(*rows, strict=True), [s for s, *_ in rows]]
        batch = batch_of(*((key, list(column)) for key, column in zip(names, columns, strict=True)))
        expected = [(s, *(None if v is None else str(v) for v in rest), s) for s, *rest in rows]
        self.assertEqual(read_lines(lines(batch)), expected)

    def test_invalid_utf_8(self):
        """It becomes U+FFFD, as in every output."""
        self.assertEqual(
            lines(batch_of((Key("s", types.STRING), [b"\xff\tx", b"\xc3"]))), "\ufffd\\tx\n\ufffd\n".encode()
        )

    def test_types(self):
        """Numbers and addresses as text, truth 1 and 0, what is no number NULL, octets for a binary column digits."""
        batch = batch_of(
            (Key("b", types.IPV4), [0x0A000001, None]), (Key("c", types.IPV6), [1, None]),
            (Key("d", types.BOOLEAN), [True, False]), (Key("e", types.FLOAT64), [-0.5, float("nan")]),
            (Key("f", types.OCTETS), [b"\t\n", b""]), (Key("g", types.MAC), [0x0102030405FF, 0]),
        )  # fmt: skip
        expected = b"10.0.0.1\t::1\t1\t-0.5\t090a\t01:02:03:04:05:ff\n\\N\t\\N\t0\t\\N\t\t00:00:00:00:00:00\n"
        self.assertEqual(lines(batch), expected)
        self.assertEqual(lines(batch, binary=True, size=16)[:36], b"00000000000000000000ffff0a000001\t000")


class Server:
    """A connection with these variables, answers and warnings."""

    def __init__(self, variables, answer=(2, 0), warnings=()):
        self.variables, self.answer, self.warnings = variables, answer, warnings
        self.statements = []

    def cursor(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def execute(self, statement):
        pass

    def fetchall(self):
        return list(self.variables.items())

    def query(self, statement):
        self.statements.append(statement)

    def load(self, statement, name, pieces):
        self.statements.append(statement.replace(name, "NAME"))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def show_warnings(self):
        return self.warnings


ON = {"local_infile": "ON"}
BACK = "ROLLBACK TO SAVEPOINT ulogd_tw_load"


class LoadingTests(SynchronousTestCase):
    """Whether rows are loaded."""

    def load(self, server, columns=("int(10) unsigned", "blob"), wanted=True, transactional=True):
        """Load two rows; whether they are in the table."""
        loading = Loading(wanted, "`t`", "db")
        loading.ask(server)
        loading.look_at(
            [TableColumn("a", columns[0]), TableColumn("b`", columns[1]), TableColumn("c", "year")], transactional
        )
        batch = batch_of((Key("a", types.UNSIGNED32), [1, 2]), (Key("b", types.OCTETS), [b"x", None]))
        found = found_in(batch, [Target("a", ("a",)), Target("b`", ("b",), binary=True)])
        done = loading.load(server, found, 2, lambda error: error.args[0] == 1644)
        self.assertEqual(done, loading.load(server, found, 2, lambda error: error.args[0] == 1644))
        return done

    def test_statement(self):
        """Names are quoted, octets go through UNHEX."""
        server = Server(ON)
        self.assertTrue(self.load(server))
        self.assertEqual(server.statements[:2], [
            "SAVEPOINT ulogd_tw_load",
            "LOAD DATA LOCAL INFILE 'NAME' INTO TABLE `t` CHARACTER SET utf8mb4 (`a`, @o1) SET `b``` = UNHEX(@o1)",
        ])  # fmt: skip

    def test_where_it_is_not_possible(self):
        """Not wanted, not allowed by the server, no transactions, a type that takes text otherwise: nothing is sent."""
        lines = told(self)
        split = ON | {"wsrep_load_data_splitting": "ON"}
        for variables, options in (
            (ON, {"wanted": False}), ({"local_infile": "OFF"}, {}), ({}, {}), (split, {}),
            (ON, {"transactional": False}), (ON, {"columns": ("bit(8)", "blob")}),
            (ON, {"columns": ("int", "enum('1')")}),
        ):  # fmt: skip
            server = Server(variables)
            self.assertFalse(self.load(server, **options))
            self.assertEqual([], server.statements)
        self.assertEqual(len(lines), 3)
        self.assertRegex(lines[0], "local_infile is OFF.*INSERT")

    def test_taken_back(self):
        """With a warning, a row too few, or an error about a row, the rows are taken back."""
        for answer, warnings in (
            ((2, 1), [("Warning", 1265, "cut")]), ((1, 0), ()), ((2, 65), [("Note", 1, "")] * 64),
            ((2, 2), [("Note", 1, ""), ("Error", 1, "")]), (pymysql.OperationalError(1644, "a trigger"), ()),
        ):  # fmt: skip
            server = Server(ON, answer, warnings)
            self.assertFalse(self.load(server))
            self.assertEqual(server.statements[2], BACK)
        self.assertTrue(self.load(Server(ON, (2, 1), [("Note", 1265, "digits")])))

    def test_errors(self):
        """A server that refuses is not asked again, and told once; other errors go up."""
        lines = told(self)
        server = Server(ON, pymysql.OperationalError(3948, "Loading local data is disabled"))
        self.assertFalse(self.load(server))
        self.assertEqual(len(server.statements), 3)
        self.assertEqual(len(lines), 1)
        with self.assertRaises(pymysql.OperationalError):
            self.load(Server(ON, pymysql.OperationalError(1114, "full")))
