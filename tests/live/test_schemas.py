"""The schemas of etc/sql, and the grants and questions of docs/howto.md, with MariaDB and the kernel's conntrack."""

import contextlib
import json
import re
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pymysql
from twisted.trial.unittest import TestCase

from tests.live.service import Service
from tests.live.traffic import run_client, server_argv
from tests.support import TOP, Daemon, NetworkNamespaces, PrivateMariaDB, free_port, require_program, wait_until
from tests.unit.ipfix import wire
from tests.unit.test_documents import HOWTO, NAT_FOUND, NAT_ROWS, block, blocks, commented_statements

ROUNDS = 5


def statements(sql):
    """The statements of a script without semicolons in texts."""
    without_comments = re.sub(r"^\s*--.*$", "", sql, flags=re.M)
    return [s.strip() for s in without_comments.split(";") if s.strip()]


def schema(name):
    """A schema of etc/sql/mysql."""
    return (TOP / "etc" / "sql" / "mysql" / name).read_text("utf-8")


class MariaDBTests(TestCase):
    """With a server of our own."""

    timeout = 180

    def test_documents(self):
        """Schemas, the how-to's question and its grants hold; one server for all, since a start takes seconds."""
        with PrivateMariaDB() as self.maria:
            self.check_schemas()
            self.check_nat_query()
            self.check_grants()

    def script(self, sql, database="ulogd", user="root", password=""):
        """The rows of the last statement."""
        keywords = self.maria.connect_kwargs | {"database": database, "user": user, "password": password}
        with pymysql.connect(**keywords, autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements(sql):
                cursor.execute(statement)
            return list(cursor.fetchall())

    def check_schemas(self):
        """Both are made, also twice, and the statements in their comments run."""
        for name in ("flows.sql", "nat.sql"):
            self.script(schema(name))
            self.script(schema(name))
            for statement in commented_statements(TOP / "etc" / "sql" / "mysql" / name):
                self.script(statement)

    def check_nat_query(self):
        """The how-to's question finds the connections of that second, by the index."""
        self.script(schema("nat.sql"))
        self.maria.execute("delete from nat")
        for row in NAT_ROWS:
            self.maria.execute(
                "insert into nat (flowStartMilliseconds, flowEndMilliseconds, orig_ip_saddr, orig_l4_sport, "
                "reply_l4_dport, reply_ip_daddr) values (%s, %s, %s, %s, %s, '203.0.113.50')", *row,
            )  # fmt: skip
        query = block(HOWTO, "sql", "-- MariaDB")
        self.assertEqual(NAT_FOUND, sorted(row[0] for row in self.script(query)))
        set_zone, select = statements(query)
        plan = self.script(f"{set_zone}; explain {select}")
        self.assertIn("by_public", str(plan))

    def collect(self, user, password, create):
        """Run the how-to's stack as this user with one exporter; what the service logged."""
        port = free_port("udp")
        config = f"""
[col1]
listen="udp:127.0.0.1:{port}"
[agg1]
key="5tuple"
interval=1
[db1]
socket="{self.maria.socket}"
user="{user}"
pass="{password}"
db="flows"
table="flows"
create={create}
"""
        with Service(["col1:COLLECTOR,agg1:AGGREGATE,db1:MYSQL"], config) as service:
            with contextlib.closing(socket.socket(type=socket.SOCK_DGRAM)) as exporter:
                exporter.connect(("127.0.0.1", port))
                exporter.send(message())
                service.wait_for("db1", "rows_written", 1)
        return service

    def check_grants(self):
        """With the how-to's grants the table is made, rows come, and batches are numbered; so with the least ones."""
        self.script(block(HOWTO, "sql", "-- grants"))
        service = self.collect("ulogd", "secret", 1)
        self.assertNotIn("may be written twice", service.output())
        rows = self.script("select sourceAddress, octets from flows", "flows")
        self.assertEqual([("10.0.0.1", 1000)], [(address, int(octets)) for address, octets in rows])
        self.assertTrue(self.script("select * from ulogd_tw_batches", "flows"))

        self.script("revoke all privileges, grant option from 'ulogd'@'localhost'; drop table flows; "
                    "drop table ulogd_tw_batches", "flows")  # fmt: skip
        self.script(schema("flows.sql"), "flows")
        self.script(block(HOWTO, "sql", "-- least grants"), "flows")
        service = self.collect("ulogd", "secret", 0)
        self.assertNotIn("may be written twice", service.output())
        self.assertEqual(1, len(self.script("select * from flows", "flows")))
        self.assertTrue(self.script("select * from ulogd_tw_batches", "flows"))

        self.script("revoke all privileges, grant option from 'ulogd'@'localhost'; drop table ulogd_tw_batches; "
                    "grant select, insert on flows.flows to 'ulogd'@'localhost'", "flows")  # fmt: skip
        self.assertIn("may be written twice", self.collect("ulogd", "secret", 0).output())
        self.assertEqual(2, len(self.script("select * from flows", "flows")))


def message():
    """One IPFIX message: a template and a flow of 10.0.0.1 with 1000 octets."""
    fields = ((8, 4), (12, 4), (4, 1), (7, 2), (11, 2), (1, 8), (2, 8), (152, 8), (153, 8))
    now = int(time.time() * 1000)
    values = (0x0A000001, 0x0A000002, 6, 51000, 443, 1000, 10, now - 500, now)
    data = b"".join(value.to_bytes(octets, "big") for value, (_, octets) in zip(values, fields, strict=True))
    return wire.message(wire.a_set(2, wire.template(256, *fields)), wire.a_set(256, data))


class NATLogTests(TestCase):
    """The NAT log with the kernel: a router that translates."""

    timeout = 120

    def test_nat_log(self):
        """Translated connections are rows of both schemas, and the how-to's question finds the client again."""
        require_program("conntrack", "sqlite3")
        with NetworkNamespaces(conntrack=True) as spaces, PrivateMariaDB() as maria:
            public = "10.78.0.1"
            spaces.run("a", ["ip", "address", "add", f"{public}/32", "dev", "lo"])
            spaces.run("b", ["ip", "route", "add", f"{public}/32", "via", spaces.ipv4["a"]])
            chain = f"chain post {{ type nat hook postrouting priority 100; oif veth0 snat to {public}\n }}"
            spaces.run("a", ["nft", "-f", "-"], input=f"table ip utwnat {{ {chain}\n }}\n")
            for statement in statements(schema("nat.sql")):
                maria.execute(statement)
            with Service(
                ["ct1:NFCT,nat1:SQLITE3", "ct1:NFCT,my1:MYSQL"],
                CONFIG.replace("SOCKET", maria.socket),
                directory=sqlite_schema(self.mktemp()),
                namespace=lambda argv: spaces.argv("a", argv),
            ) as service:
                with Daemon(server_argv(spaces), lambda d: "ready" in d.output()):
                    run_client(spaces, ROUNDS)
                spaces.run("a", ["conntrack", "-F"])
                service.wait_for("nat1", "rows_written", ROUNDS)
                wait_until(lambda: service.counters("ct1")["rows_emitted"] == service.counters("my1")["rows_written"],
                           what="the same rows in MariaDB")  # fmt: skip
            with contextlib.closing(sqlite3.connect(service.directory / "nat.sqlite3")) as connection:
                columns = [row[1] for row in connection.execute("pragma table_info(nat)")]
                rows = [dict(zip(columns, row, strict=True)) for row in connection.execute("select * from nat")]
                self.check(rows, spaces.ipv4["a"], public, connection)
            self.assertEqual(len(rows), maria.execute("select count(*) from nat")[0][0])
            names = ", ".join(f"`{column}`" for column in columns)
            same = [dict(zip(columns, row, strict=True)) for row in maria.execute(f"select {names} from nat")]
            self.assertEqual(sorted(map(json.dumps, rows)), sorted(map(json.dumps, same)))

    def check(self, rows, client, public, connection):
        translated = [row for row in rows if row["orig_ip_saddr"] == client and row["reply_ip_daddr"] == public]
        tcp = [row for row in translated if row["orig_ip_protocol"] == 6]
        self.assertGreaterEqual(len(tcp), ROUNDS)
        for row in tcp:
            self.assertGreater(row["orig_raw_pktlen"], 0)
            self.assertLessEqual(row["flowStartMilliseconds"], row["flowEndMilliseconds"])
        one = tcp[0]
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["flowStartMilliseconds"] // 1000))
        query = block(HOWTO, "sql", "-- SQLite").replace("2026-11-23 14:32:15", when)
        query = query.replace("203.0.113.50", public).replace("= 32768", f"= {one['reply_l4_dport']}")
        found = [row[:2] for row in connection.execute(query)]
        self.assertIn((client, one["orig_l4_sport"]), found)


CONFIG = """
[ct1]
event_mask=4
[nat1]
db="{dir}/nat.sqlite3"
table="nat"
[my1]
socket="SOCKET"
user="root"
db="ulogd"
table="nat"
"""


def sqlite_schema(path):
    """A folder with the NAT log's SQLite file, made as the how-to says."""
    folder = Path(path).absolute()
    folder.mkdir()
    (line,) = [t for _, t in blocks(HOWTO) if t.startswith("sqlite3 ") and "nat.sql" in t]
    command = line.replace("/var/lib/ulogd/", f"{folder}/").replace("< etc/", f"< {TOP}/etc/")
    subprocess.run(["sh", "-c", command], check=True, timeout=30)
    return folder
