"""DBI: ulogd2's options choose one of the databases."""

import contextlib
import sqlite3

from twisted.trial.unittest import TestCase

from tests.unit.storing.sql_rows import numbers, opened, output
from ulogd_tw.plugins.outputs.dbi import DBI
from ulogd_tw.plugins.outputs.mysql import MYSQL
from ulogd_tw.plugins.outputs.pgsql import PGSQL
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3


class KindTests(TestCase):
    """`dbtype`."""

    def made(self, dbtype, **options):
        return output(DBI, **{"dbtype": dbtype, "db": "nulog", "table": "ulog2_ct"} | options)

    def test_kinds(self):
        """Each kind is an output of that name with the options of DBI, and says DBI of itself."""
        for dbtype, kind in (("sqlite3", SQLITE3), ("mysql", MYSQL), ("pgsql", PGSQL)):
            made = self.made(dbtype, host="db.example", user="nupik", procedure="INSERT_CT", **{"pass": "changeme"})
            self.assertIsInstance(made, kind)
            self.assertIsInstance(made, DBI)
            self.assertEqual("DBI", made.name)
            self.assertEqual({}, dict(made.mistakes()))
            self.assertEqual("INSERT_CT", made.config.procedure)

    def test_servers(self):
        """Host and database are those of the kind, with its port."""
        self.assertEqual("nulog on db.example:3306", self.made("mysql", host="db.example").where)
        self.assertEqual("nulog on db.example:5432", self.made("pgsql", host="db.example").where)
        self.assertEqual('"public"."ulog2_ct"', self.made("pgsql").database.table)
        self.assertEqual("`ulog2_ct`", self.made("mysql").database.table)

    def test_options(self):
        """It has every option of the three, each once."""
        names = [option.name for option in DBI.options]
        self.assertEqual(len(names), len(set(names)))
        for kind in (SQLITE3, MYSQL, PGSQL):
            self.assertLessEqual({option.name for option in kind.options}, set(names))

    async def test_rows(self):
        """Rows go into the database, and a first column that is no key fills itself."""
        path = self.mktemp()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (nr DEFAULT 5, number, sourceIPv4Address)")
            made = await opened(self, self.made("sqlite3", db=path, table="t"))
            await made.write(numbers(7, 2))
            self.assertEqual([(5, 7, "0.0.0.7"), (5, 8, "0.0.0.8")], connection.execute("SELECT * FROM t").fetchall())
