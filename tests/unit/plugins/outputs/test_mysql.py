"""MYSQL: the statements, what the server's errors mean, where it is looked for."""

import re
from dataclasses import replace
from pathlib import Path

import pymysql
from hypothesis import strategies as st
from pymysql.converters import escape_string
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.storing.sql_rows import NUMBER_KEYS, ODD_STRINGS, batch_of, numbers, output
from ulogd_tw.core import types
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs import mysql
from ulogd_tw.plugins.outputs.mysql import MYSQL, _as_parameters, literals
from ulogd_tw.storing.columns import TableColumn, Target, values_of
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.refused import Refused


def made(**options):
    """An instance that was never opened."""
    return output(MYSQL, **{"db": "ulogd", "table": "flows"} | options)


def values(batch):
    """The values of all columns of a batch under their own names."""
    out = made()
    out.existing = []
    targets = [Target(name, (name,)) for name in batch.schema]
    return values_of(targets, lambda name: out.find(batch, name))


def rows(batch):
    """The batch as literals, one row an entry."""
    pieces = list(literals(values(batch), batch.n))
    text = b"".join(octets for octets, _ in pieces).decode()
    assert sum(n for _, n in pieces) == batch.n
    return text.split("\n")[:-1]


class LiteralTests(SynchronousTestCase):
    """Rows as the text of a statement."""

    def test_lists(self):
        """The JSON text of a list, and a number of more than 64 bits, are strings."""
        batch = batch_of(
            (Key("a", types.BASIC_LIST), [b'{"v":["it\'s"]}', None]), (Key("b", types.UNSIGNED256), [b"\xff" * 32, b""])
        )
        self.assertEqual(rows(batch), ["('{\"v\":[\"it\\'s\"]}','" + str(2**256 - 1) + "'),", "(NULL,'0'),"])

    def test_types(self):
        """Numbers bare, text in quotes, truth 1 and 0, what is missing or no number NULL."""
        for n in (3, 99):  # few rows and many take different ways
            batch = batch_of(
                (Key("a", types.UNSIGNED64), [(1 << 64) - 1, 0, None] * n),
                (Key("b", types.IPV4), [0x0A000001, None, 0] * n),
                (Key("c", types.IPV6), [1, None, 0] * n),
                (Key("d", types.BOOLEAN), [True, False, None] * n),
                (Key("e", types.FLOAT64), [0.1, float("inf"), float("nan")] * n),
                (Key("f", types.OCTETS), [b"\x00'", None, b""] * n),
                (Key("g", types.MICROSECONDS), [2208988801 << 32, None, 2208988800 << 32] * n),
            )
            self.assertEqual(rows(batch), [
                "(18446744073709551615,'10.0.0.1','::1',1,0.1,'0027',1000000),",
                "(0,NULL,NULL,0,NULL,NULL,NULL),",
                "(NULL,'0.0.0.0','::',NULL,NULL,'',0),",
            ] * n)  # fmt: skip

    def test_binary(self):
        """Octets for a binary column are a hexadecimal literal, all else is as ever; for few rows and many."""
        for n in (1, 99):
            batch = batch_of(
                (Key("a", types.OCTETS), [b"\x00'", None, b""] * n), (Key("b", types.STRING), ["x", None, ""] * n)
            )
            found = [(replace(target, binary=True), held) for target, held in values(batch)]
            lines = b"".join(octets for octets, _ in literals(found, batch.n)).split(b"\n")[:-1]
            self.assertEqual([b"(x'0027','x'),", b"(NULL,NULL),", b"(x'',''),"] * n, lines)

    def test_binary_addresses(self):
        """Addresses for a binary column of their size are octets, IPv4 mapped into IPv6 for 16; else they are text."""
        for key, value, size, expected in (
            (types.IPV4, 0x0A000001, 4, "x'0a000001'"), (types.IPV4, 0x0A000001, 16, f"x'{0:020x}ffff0a000001'"),
            (types.IPV6, 1, 16, f"x'{1:032x}'"), (types.MAC, 0x020000000001, 6, "x'020000000001'"),
            (types.IPV4, 0x0A000001, 45, "'10.0.0.1'"), (types.IPV6, 1, 0, "'::1'"),
        ):  # fmt: skip
            for n in (1, 99):
                batch = batch_of((Key("a", key), [value, None] * n))
                found = [(replace(target, binary=True, size=size), held) for target, held in values(batch)]
                lines = b"".join(octets for octets, _ in literals(found, batch.n)).decode().split("\n")[:-1]
                self.assertEqual([f"({expected}),", "(NULL),"] * n, lines)
        self.assertEqual(
            [16, 0, 5], [TableColumn("a", name).size for name in ("binary(16)", "blob", "int(5) unsigned")]
        )

    def test_binary_types(self):
        """Of columns, and of the parameters of a procedure, which go before the columns' own types."""
        names = ("binary(16)", "varbinary(16)", "longblob", "BLOB", "varchar(32)", "int(10) unsigned")
        self.assertEqual([True] * 4 + [False] * 2, [TableColumn("a", name).binary for name in names])
        columns = [TableColumn("id", "bigint"), TableColumn("a", "varchar(9)"), TableColumn("b", "binary(16)")]
        found = _as_parameters(columns, ["binary(16)", "varchar(9)"])
        self.assertEqual([("id", False), ("a", True), ("b", False)], [(c.name, c.binary) for c in found])
        self.assertEqual(columns, _as_parameters(columns, ["binary(16)"]))
        self.assertEqual(columns, _as_parameters(columns, []))

    def test_no_values(self):
        """A column of which a batch has nothing is NULL in every row."""
        found = [(Target("a", ("a",)), None), *values(numbers(1, 30)), (Target("b", ("b",)), None)]
        lines = b"".join(octets for octets, _ in literals(found, 30)).split(b"\n")
        self.assertEqual(lines[0], b"(NULL,'0.0.0.1',1,NULL),")

    @given(st.lists(st.one_of(st.none(), st.text(), st.sampled_from(ODD_STRINGS)), min_size=1, max_size=60))
    def test_strings(self, strings):
        """Escaped as pymysql escapes them, without trailing NULs; a newline is only at the end of a row."""
        strings = [None if s is None else s.encode("utf-8", "replace").decode().rstrip("\0") for s in strings]
        expected = [f"({'NULL' if s is None else chr(39) + escape_string(s) + chr(39)})," for s in strings]
        unquoted = [line.replace('\\"', '"') for line in expected]  # pymysql escapes these too, which need not be
        self.assertEqual(rows(batch_of((Key("s", types.STRING), strings))), unquoted)


class Server:
    """A connection to a server that takes some rows, refuses others and remembers both."""

    def __init__(self, refuses=lambda row: None):
        self.refuses = refuses
        self.statements = []
        self.rows = []

    def cursor(self):
        return self

    def close(self):
        pass

    def nextset(self):
        return None

    def execute(self, statement):
        self.statements.append(statement.decode())
        found = re.findall(r"\('[0-9.]+',(\d+)\)", statement.decode())
        for place, row in enumerate(map(int, found)):
            if error := self.refuses(row):
                raise pymysql.err.DataError(error, f"Data too long for column 'x' at row {place + 1}")
        self.rows += map(int, found)


class StatementTests(SynchronousTestCase):
    """What is sent to the server."""

    def insert(self, batch, server, most=1 << 20, **options):
        out = made(**options)
        out.database.most_octets = most
        refused = Refused()
        out.database.insert(server, values(batch), batch.n, refused)
        return refused

    def test_insert(self):
        """Names are quoted, rows follow one another."""
        server = Server()
        self.insert(numbers(1, 2), server, table="my`s.flo ws")
        self.assertEqual(server.statements, [
            "INSERT INTO `my``s`.`flo ws` (`sourceIPv4Address`, `number`) VALUES\n('0.0.0.1',1),\n('0.0.0.2',2)"
        ])  # fmt: skip

    def test_procedures(self):
        """INSERT text of one's own takes many rows; CALL and functions one."""
        for procedure, expected in (
            ("INSERT IGNORE INTO x", ["INSERT IGNORE INTO x (`sourceIPv4Address`, `number`) VALUES\n"
                                      "('0.0.0.1',1),\n('0.0.0.2',2)"]),
            ("CALL add_flow", ["CALL add_flow('0.0.0.1',1)", "CALL add_flow('0.0.0.2',2)"]),
            ("add_flow", ["SELECT add_flow('0.0.0.1',1)", "SELECT add_flow('0.0.0.2',2)"]),
        ):  # fmt: skip
            server = Server()
            self.insert(numbers(1, 2), server, procedure=procedure)
            self.assertEqual(server.statements, expected)

    @given(st.lists(st.booleans(), max_size=200))
    def test_refused_rows(self, bad):
        """Whichever rows the server refuses, the others are inserted, in order and once."""
        server = Server(lambda row: 1406 if bad[row] else None)
        refused = self.insert(numbers(0, len(bad)), server)
        self.assertEqual(server.rows, [row for row, b in enumerate(bad) if not b])
        self.assertEqual(refused.rows, sum(bad))
        if any(bad):
            self.assertEqual(refused.reasons, {"Data too long for column 'x'": sum(bad)})

    def test_other_errors(self):
        """An error that is not about rows ends the attempt."""
        with self.assertRaises(pymysql.err.DataError):
            self.insert(numbers(0, 4), Server(lambda row: 1054))

    def test_largest_packet(self):
        """No statement is larger than the server takes; a row that is, is refused."""
        server = Server()
        refused = self.insert(numbers(0, 1000), server, most=300)
        self.assertEqual(server.rows, list(range(1000)))
        self.assertLess(max(map(len, server.statements)), 300)
        refused = self.insert(batch_of((Key("s", types.STRING), ["a", "b" * 300])), server, most=300)
        self.assertEqual(refused.rows, 1)

    def test_table(self):
        """The table that create=1 makes."""
        keys = [known("orig.ip.saddr"), known("octetDeltaCount"), known("flowStartMilliseconds"), known("userName")]
        self.assertEqual(made().database.ddl(keys), (
            "CREATE TABLE IF NOT EXISTS `flows` (\n"
            "  `id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,\n"
            "  `orig_ip_saddr` VARCHAR(45),\n"
            "  `octetDeltaCount` BIGINT UNSIGNED,\n"
            "  `flowStartMilliseconds` BIGINT UNSIGNED,\n"
            "  `userName` MEDIUMTEXT\n"
            ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        ))  # fmt: skip

    def test_added_columns(self):
        """All that the table lacks in one statement."""
        keys = [known("octetDeltaCount"), known("userName")]
        self.assertEqual(
            made().database.add_ddl(keys),
            ["ALTER TABLE `flows` ADD COLUMN `octetDeltaCount` BIGINT UNSIGNED, ADD COLUMN `userName` MEDIUMTEXT"],
        )

    def test_types_that_fit(self):
        """Numbers fit columns of numbers and text, text does not fit numbers; nothing of ours is a date of MySQL's."""
        database = made().database
        octets, name, address = known("octetDeltaCount"), known("userName"), known("orig.ip.saddr").typed(types.IPV4)
        for type_, expected in (
            ("bigint(20) unsigned", [True, False, True]), ("tinyint(3)", [True, False, True]),
            ("double", [True, False, False]), ("varchar(3)", [True] * 3), ("datetime(3)", [False] * 3),
            ("blob", [True] * 3), ("inet6", [True] * 3),
        ):  # fmt: skip
            column = TableColumn("x", type_)
            self.assertEqual([database.holds(column, key) for key in (octets, name, address)], expected, type_)
        with self.assertRaises(TableError) as caught:
            database.check_types([TableColumn("UserName", "int(10)")], [octets, name])
        self.assertRegex(caught.exception.remedy, "^ALTER TABLE `flows` MODIFY COLUMN `UserName` MEDIUMTEXT;")

    def test_every_type_has_a_column(self):
        """No key's type is forgotten, in either database."""
        from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3

        keys = [Key(f"k{place}", type_) for place, type_ in enumerate(types.TYPES.values())]
        self.assertEqual(made().database.ddl(keys).count("`k"), len(keys))
        self.assertEqual(output(SQLITE3, db="x", table="t").database.ddl(keys).count('"k'), len(keys))

    def test_long_names(self):
        """A name that MySQL cannot have is a mistake before anything is opened."""
        self.assertRegex("".join(made(create=True).available((Key("x" * 65, types.STRING),))), "longer than the 64")
        self.assertEqual(list(made(create=True).available(NUMBER_KEYS)), [])


class ConnectionTests(SynchronousTestCase):
    """Where the server is, and what its errors mean."""

    def test_host(self):
        """localhost is a unix socket where there is one, as libmysqlclient has it; a port means TCP."""
        path = Path(self.mktemp())
        path.touch()
        self.patch(mysql, "SOCKETS", (str(path),))
        for options, expected in (
            ({}, {"unix_socket": str(path)}),
            ({"host": "localhost"}, {"unix_socket": str(path)}),
            ({"host": "localhost", "port": 3307}, {"host": "localhost", "port": 3307}),
            ({"host": "db.example"}, {"host": "db.example", "port": 3306}),
            ({"socket": "/x", "host": "db.example"}, {"unix_socket": "/x"}),
        ):
            found = made(**options).database.keywords()
            self.assertEqual({name: found[name] for name in ("unix_socket", "host", "port") if name in found}, expected)
        self.patch(mysql, "SOCKETS", ())
        self.assertEqual(made().database.keywords()["host"], "localhost")
        self.assertEqual(made().where, "ulogd on localhost:3306")

    def test_password_given_twice(self):
        """pass and pass_file are a mistake; either alone is none."""
        self.assertEqual([option for option, _ in made(**{"pass": "a", "pass_file": "b"}).mistakes()], ["pass_file"])
        self.assertEqual([*made(**{"pass": "a"}).mistakes(), *made(pass_file="b").mistakes()], [])

    def test_faults(self):
        """What can pass by itself is told from what somebody must mend, and both from faults of ours."""
        fault = made().database.fault
        err = pymysql.err
        for error, reason, transient in (
            (err.OperationalError(2013, "Lost connection"), "away", True),
            (err.OperationalError(2003, "Can't connect"), "away", True),
            (err.InterfaceError(0, ""), "away", True),
            (ConnectionResetError(), "away", True),
            (err.OperationalError(1205, "Lock wait timeout"), "locked", True),
            (err.OperationalError(1045, "Access denied"), "permission", False),
            (err.ProgrammingError(1146, "no table"), "table", False),
            (err.OperationalError(1290, "--read-only"), "read_only", False),
            (err.InternalError(1815, "?"), "server", False),
        ):
            found = fault(error)
            self.assertEqual((found.reason, found.transient), (reason, transient), error)
        self.assertIsNone(fault(ValueError("x")))
        self.assertIn("user= and pass=", fault(err.OperationalError(1045, "Access denied")).remedy)
        self.assertIn("INSERT", fault(err.OperationalError(1142, "INSERT command denied")).remedy)
