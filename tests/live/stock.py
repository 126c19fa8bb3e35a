"""Debian's configuration of ulogd2 with every stack in use, and the tables and schema of its package."""

import contextlib
import gzip
import re
import sqlite3
import subprocess
from pathlib import Path

CONFIGURATION = Path("/etc/ulogd.conf")
DOCUMENTS = Path("/usr/share/doc/ulogd2")
RULES = """
table inet stock {
    chain output {
        type filter hook output priority 10;
        meta l4proto { icmp, udp, ipv6-icmp } log group 0 prefix "sys "
        meta l4proto { icmp, udp } log group 1 prefix "two "
        meta mark 1 log group 1 prefix "marked "
    }
}
"""
TRAFFIC = """
import socket, sys
for family, address in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)
        made.bind(("", 20000))
        for octets in (b"one", b"three"):
            made.sendto(octets, (address, 5353))
"""


def every_stack(folder, replacements=()):
    """The text of the configuration, with the stacks that are comments there, and all files in `folder`."""
    text = re.sub(r"^#\s*(stack=)", r"\1", CONFIGURATION.read_text(), flags=re.MULTILINE)
    for old, new in (
        ("/var/log/ulog/", f"{folder}/"), ("/var/log/", f"{folder}/"), ('logfile="syslog"', f'logfile="{folder}/log"'),
        ("/tmp/nuauth_ulogd2.sock", f"{folder}/nuauth.sock"), *replacements,
    ):  # fmt: skip
        text = text.replace(old, new)
    # What has its default file in /var/log gets one in the folder.
    for section, name in (("json1", "ulogd.json"), ("pcap1", "ulogd.pcap"), ("nacct1", "nacct.log")):
        text = text.replace(f"\n[{section}]\n", f'\n[{section}]\nfile="{folder}/{name}"\n')
    return text


def sqlite_tables(path):
    """The package's tables in a new database."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript((DOCUMENTS / "sqlite3.table").read_text())


def mysql_schema(server, database="nulog"):
    """The package's schema with its views and procedures, and the user of the configuration."""
    schema = gzip.decompress((DOCUMENTS / "mysql-ulogd2.sql.gz").read_bytes())
    client = ["mariadb", "--no-defaults", f"--socket={server.socket}", "--user=root"]
    grant = f"CREATE USER IF NOT EXISTS nupik IDENTIFIED BY 'changeme'; GRANT ALL ON {database}.* TO nupik;"
    head = f"CREATE DATABASE {database}; {grant}\nSET GLOBAL log_bin_trust_function_creators=1;\nUSE {database};\n"
    subprocess.run(client, input=head.encode() + schema, check=True, capture_output=True)


def pgsql_schema(server, database="nulog"):
    """The package's schema with its views and functions, a flat table, and the user of the configuration."""
    schema = gzip.decompress((DOCUMENTS / "pgsql-ulogd2.sql.gz").read_bytes()).decode()
    schema = schema.replace("WITH (OIDS=FALSE)", "")  # what PostgreSQL has no longer since 12
    server.execute(f"CREATE DATABASE {database}", dbname="postgres")
    server.execute("DO $$ BEGIN CREATE ROLE nupik SUPERUSER LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    server.execute(schema, dbname=database)
    server.execute(FLAT, dbname=database)


FLAT = """
CREATE TABLE flat (
  orig_ip_saddr_str inet, orig_ip_daddr_str inet, orig_ip_protocol smallint, orig_l4_sport integer,
  orig_raw_pktlen bigint, orig_raw_pktcount bigint, flow_start_sec bigint
)
"""
"""A table for one row a flow, as administrators make it."""


def make_traffic(spaces, python):
    """Pings and datagrams of both families from side a, to a closed port; then the kernel forgets the connections."""
    spaces.run("a", ["conntrack", "-F"])
    for address in (spaces.ipv4["b"], spaces.ipv6["b"]):
        spaces.run("a", ["ping", "-c", "2", "-i", "0.2", "-e", "77", address])
    spaces.run("a", [python, "-c", TRAFFIC, spaces.ipv4["b"], spaces.ipv6["b"]])
    spaces.run("a", ["conntrack", "-F"])
