"""Debian's configuration of ulogd2 with every stack in use stores what ulogd2 stores, on the same traffic."""

import contextlib
import re
import sqlite3
import sys
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live import stock
from tests.live.service import temporary
from tests.support import TOP, Daemon, NetworkNamespaces, PrivateMariaDB, require_program, wait_until

READY = {"ulogd": "initialization finished", "ulogd-tw": "stacks run"}
MARK = "10.77."
"""The addresses of the namespaces: packets of the programs themselves go over lo, neighbours are IPv6's."""
RUNS = re.compile(r"(?<= ID=)\d+|(?<= FLOWLBL=)\d+|(?<=<id>)\d+|<when>.*</when>|<timeout>\d+</timeout>|<payload>\w+")
"""What differs from run to run: numbers that the kernel gives, times, random octets."""


class Run:
    """What one of the programs stored."""

    def __init__(self, folder):
        self.folder = folder

    def lines(self, pattern):
        """The lines about the traffic, in files of this pattern, without what differs."""
        (path,) = self.folder.glob(pattern)
        found = [RUNS.sub("", line) for line in path.read_text().splitlines() if MARK in line or "fd77:" in line]
        return sorted(found)

    def logemu(self):
        """Without time and host; ulogd2 has type and code of ICMP flows the wrong way round."""
        found = (re.sub(r"^\w+ +\d+ [\d:]+ \S+ ", "", line) for line in self.lines("syslogemu.log"))
        found = (re.sub(r"TYPE=(\d+) CODE=(\d+) (PKTS)", r"\3", line) for line in found)
        return [line for line in sorted(found) if "TYPE=13" not in line]

    def nacct(self):
        """Without the time."""
        return sorted(line.partition("\t")[2] for line in self.lines("nacct.log") if "\t58\t" not in line)

    def database(self, statement=""):
        """Rows of both tables, after a statement."""
        with contextlib.closing(sqlite3.connect(self.folder / "ulogd.sqlite3db")) as database:
            database.execute(statement)
            flows = database.execute(
                "SELECT orig_ip_saddr, orig_l4_sport, orig_l4_dport, orig_ip_protocol, orig_raw_pktlen, "
                "orig_raw_pktcount, reply_raw_pktlen, reply_raw_pktcount, ct_mark FROM ulog_ct"
            ).fetchall()
            packets = database.execute("SELECT raw_pktlen, oob_prefix, oob_mark, oob_hook, oob_uid FROM ulog_pkt")
            return flows, packets.fetchall()


def conversion():
    """The statement of docs/howto.md that makes numbers of ulogd2's addresses in SQLite."""
    (found,) = re.findall(r"```sql\n(UPDATE ulog_ct .*?)```", (TOP / "docs" / "howto.md").read_text(), re.DOTALL)
    return found


class StockTests(SynchronousTestCase):
    """ulogd2 first, then ulogd_tw."""

    def test_every_stack(self):
        """The same lines, rows and elements; what ulogd2 could not run here (MySQL) is looked at by itself."""
        require_program("ulogd", "conntrack", "ping", "nft", "mariadb")
        with PrivateMariaDB() as server, NetworkNamespaces(conntrack=True) as spaces:
            stock.mysql_schema(server)
            spaces.run("a", ["nft", "-f", "-"], input=stock.RULES)
            theirs = self.run_program(spaces, "ulogd")
            ours = self.run_program(spaces, "ulogd-tw", server)
            self.assertSame(theirs, ours)
            self.assertMySQL(server, spaces)

    def run_program(self, spaces, program, server=None):
        """What the program stores of some traffic."""
        folder = temporary("stock")
        stock.sqlite_tables(folder / "ulogd.sqlite3db")
        text = stock.every_stack(folder)
        if server:
            text = re.sub(r'(\[mysql\d\]\n(?:.*\n)*?)host="localhost"', rf'\1socket="{server.socket}"', text)
        (folder / "ulogd.conf").write_text(text)
        words = [program] if program == "ulogd" else [Path(sys.executable).with_name(program)]
        log = folder / "log"

        def ready(daemon):
            return READY[program] in daemon.output() + (log.read_text() if log.exists() else "")

        with Daemon(spaces.argv("a", [*words, "-c", folder / "ulogd.conf"]), ready, within=20):
            stock.make_traffic(spaces, sys.executable)
            wait_until(lambda: len(Run(folder).lines("syslogemu.log")) >= 15, 10, "rows")
            wait_until(lambda: len(Run(folder).lines("nacct.log")) >= 4, 10, "flows")
        return Run(folder)

    def assertSame(self, theirs, ours):
        self.assertEqual(theirs.logemu(), ours.logemu())
        self.assertEqual(theirs.nacct(), ours.nacct())
        for kind in ("flow", "pkt"):
            self.assertEqual(theirs.lines(f"ulogd-{kind}-*.xml"), ours.lines(f"ulogd-{kind}-*.xml"))
        (their_flows, _), (our_flows, our_packets) = theirs.database(conversion()), ours.database()
        loopback = int(ip_address("127.0.0.1"))
        four = [row for row in our_flows if isinstance(row[0], int) and row[0] != loopback]
        self.assertEqual((2, []), (len(four), [row for row in four if row not in their_flows]))
        self.assertIn((84, "sys ", 0, 3, 0), our_packets)  # a stack that ulogd2 refuses: raw rows

    def assertMySQL(self, server, spaces):
        """The procedures got addresses as octets."""
        source = ip_address("::ffff:" + spaces.ipv4["a"]).packed
        packets = server.execute(
            "SELECT ip_saddr, ip_protocol, oob_prefix FROM nulog.ulog2 WHERE ip_saddr = %s", source
        )
        self.assertCountEqual([(source, 1, "two ")] * 2 + [(source, 17, "two "), (source, 17, "marked ")] * 2, packets)
        flows = server.execute("SELECT orig_ip_saddr, orig_ip_protocol FROM nulog.ulog2_ct")
        six = ip_address(spaces.ipv6["a"]).packed
        expected = {(source, 1), (source, 17), (six, 58), (six, 17)}
        self.assertEqual(expected, expected & set(flows))
