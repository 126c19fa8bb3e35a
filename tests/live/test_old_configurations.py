"""Debian's configuration of ulogd2 with every stack in use stores what ulogd2 stores, on the same traffic."""

import contextlib
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live import stock
from tests.live.service import temporary
from tests.support import (
    TOP,
    Daemon,
    NetworkNamespaces,
    PrivateMariaDB,
    free_port,
    require_program,
    shared_path,
    wait_until,
)
from ulogd_tw import config as configuration
from ulogd_tw import tap
from ulogd_tw.packets.capture import Capture

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


NIXOS = """[emu1]
file=/var/log/ulogd_pkts.log
sync=1

[global]
stack=log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,emu1:LOGEMU
stack=log1:NFLOG,base1:BASE,pcap1:PCAP

[log1]
group=2

[pcap1]
file=/var/log/ulogd.pcap
sync=1
"""
"""What the module of NixOS makes of the example in its option `settings`."""


class DistributionTests(SynchronousTestCase):
    """The configurations of distributions, which are upstream's with other paths: every stack."""

    def built(self, text):
        """The number of stacks."""
        path = Path(self.mktemp())
        path.write_text(text)
        built = tap.Built(configuration.load(str(path)), prepare=False)
        self.assertEqual([], [mistake for mistake in built.mistakes if not mistake.tolerated])
        odd = [m.text for m in built.mistakes if m.tolerated and not m.remark and "[sys1]" not in m.text]
        self.assertEqual([], odd)
        return len(built.graph.stacks)

    def test_upstream(self):
        """Arch, OpenWrt and Debian: all commented stacks in use, with and without their lines of plugins."""
        require_program("ulogd")
        text = stock.every_stack("/var/log")
        self.assertEqual(24, self.built(text))
        self.assertEqual(24, self.built(re.sub("^#plugin=", "plugin=", text, flags=re.MULTILINE)))

    def test_gentoo(self):
        """Logs in /var/log/ulogd, sockets in /run."""
        require_program("ulogd")
        text = stock.CONFIGURATION.read_text().replace("var/log", "var/log/ulogd").replace("tmp", "run")
        self.assertEqual(24, self.built(re.sub(r"^#\s*(stack=)", r"\1", text, flags=re.MULTILINE)))

    def test_nixos(self):
        """Values without quotes, sections in the order of the alphabet."""
        self.assertEqual(2, self.built(NIXOS))

    def test_salt(self):
        """The formula's pillar, with its stack in quotes."""
        stack = 'stack="ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,sys2:SYSLOG"'
        sections = "[ct1]\nhash_enable=0\nevent_mask=0x00000001\n[sys2]\nfacility=LOG_LOCAL2\n"
        self.assertEqual(1, self.built(f'[global]\nlogfile="syslog"\nloglevel=3\n{stack}\n{sections}'))


OPS_RULES = """
table inet ops {
    chain output {
        type filter hook output priority 10;
        meta l4proto { icmp, ipv6-icmp } meta mark set 1
        meta l4proto icmp ct mark set 0x2a
        icmp type echo-request log group 1
        icmpv6 type echo-request log group 1
        icmp type echo-request log prefix "PING " group 7
        icmp type echo-request log group 9
        icmpv6 type echo-request log group 9
        icmp type echo-request log prefix "M " group 14
    }
}
"""


class AdministratorsTests(SynchronousTestCase):
    """Configurations of administrators (shared/cases/ops), with pings of both families in turn."""

    def setUp(self):
        require_program("ulogd", "conntrack", "ping", "nft")
        self.folder = temporary("ops")

    def run_configuration(self, name, within=lambda: None):
        """Run the configuration, ping six times, and let `within` look while it runs."""
        text = shared_path("cases", "ops", name).read_text().replace("@DIR@", str(self.folder))
        path = self.folder / "ulogd.conf"
        path.write_text(text)
        program = Path(sys.executable).with_name("ulogd-tw")
        with NetworkNamespaces(conntrack=True) as spaces:
            spaces.run("a", ["nft", "-f", "-"], input=OPS_RULES)
            argv = spaces.argv("a", [program, "-c", path])
            with Daemon(argv, lambda daemon: "stacks run" in self.log(daemon), within=20) as it:
                for _ in range(3):
                    for address in (spaces.ipv4["b"], spaces.ipv6["b"]):
                        spaces.run("a", ["ping", "-c", "1", address])
                spaces.run("a", ["conntrack", "-F"])
                within()
            self.said = it.output()

    def log(self, daemon):
        """What it said, on its output and in log files."""
        return daemon.output() + "".join(path.read_text() for path in self.folder.glob("*-peer.log"))

    def lines(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def test_sqlite_of_raw_rows(self):
        """14: NFLOG right above SQLITE3."""
        stock.sqlite_tables(self.folder / "14.sqlite3")
        self.run_configuration("14-sqlite-pkt-peer.conf")
        with contextlib.closing(sqlite3.connect(self.folder / "14.sqlite3")) as database:
            found = database.execute("SELECT raw_pktlen, oob_prefix, oob_hook FROM ulog_pkt").fetchall()
        self.assertEqual([(84, "PING ", 3)] * 3, found)

    def test_capture_in_order(self):
        """18: IPv4 and IPv6 as they came."""
        self.run_configuration("18-pcap-order.conf")
        found = Capture().feed((self.folder / "18.pcap").read_bytes())
        self.assertEqual([4, 6] * 3, [int(found.octets[start]) >> 4 for start in found.starts.tolist()])
        self.assertEqual(sorted(found.times.tolist()), found.times.tolist())

    def test_mark_above_base(self):
        """26: MARK takes raw packets, and flows."""
        self.run_configuration("26-mark-before-base.conf", lambda: wait_until(lambda: self.lines("26-2.log"), 10))
        self.assertEqual(3, len(self.lines("26-1.log")))
        self.assertTrue(all("PROTO=ICMP " in line for line in self.lines("26-2.log")))

    def test_pipe(self):
        """29: a named pipe whose reader comes late gets what was logged before."""
        pipe = self.folder / "29-emu.fifo"
        os.mkfifo(pipe)
        found = []

        def read():
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            try:
                wait_until(lambda: found.append(self.read(reader)) or b"".join(found).count(b"\n") >= 6, 10, "lines")
            finally:
                os.close(reader)

        self.run_configuration("29-fifo.conf", read)
        self.assertEqual(6, b"".join(found).count(b" PROTO=ICMP"))
        self.assertIn("29-emu.fifo waits for a reader", self.said)

    def read(self, reader):
        try:
            return os.read(reader, 65536)
        except BlockingIOError:
            return b""

    def test_small_buffer(self):
        """37: ulogd2's maximum is what the kernel may queue, and the log says so."""
        self.run_configuration("37-lowmem-buffer.conf")
        self.assertIn("the kernel may queue 1085440 octets", self.said)


class DaemonTests(SynchronousTestCase):
    """``ulogd-tw -d -p FILE``, as the units and scripts of distributions start ulogd2."""

    def setUp(self):
        self.folder = temporary("daemon")
        self.pidfile = self.folder / "ulogd.pid"
        self.port = free_port("udp")
        (self.folder / "ulogd.conf").write_text(
            f'[global]\nlogfile="{self.folder}/log"\nstack=col1:COLLECTOR,json1:JSON\n'
            f"stack=col1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3\n[col1]\nlisten=udp:127.0.0.1:{self.port}\n"
            f'template_cache="{self.folder}/templates"\n[json1]\nfile="{self.folder}/flows.json"\n'
            f'[agg1]\nkey=sourceIPv4Address\nstate_file="{self.folder}/state"\n'
            f'[db1]\ndb="{self.folder}/flows.sqlite3"\ntable=t\ncreate=1\n'
        )
        self.addCleanup(self.end)

    def start(self):
        """The finished command; its daemon is ready, or has not started."""
        program = Path(sys.executable).with_name("ulogd-tw")
        words = [program, "-d", "-p", self.pidfile, "-c", self.folder / "ulogd.conf"]
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=30)

    def pid(self):
        return int(self.pidfile.read_text())

    def end(self, number=signal.SIGTERM):
        """End the daemon that has the pidfile."""
        if self.pidfile.exists() and self.pidfile.read_text().strip():
            pid = self.pid()
            os.kill(pid, number)
            wait_until(lambda: not Path(f"/proc/{pid}").exists() or self.is_zombie(pid), 15, "the daemon's end")

    def is_zombie(self, pid):
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    def test_pidfile(self):
        """A stale file, even with the number of a process that runs, blocks nothing; a running daemon does."""
        foreign = subprocess.Popen(["sleep", "60"])
        try:
            self.pidfile.write_text(f"{foreign.pid}\n")
            started = self.start()
            self.assertEqual(0, started.returncode, started.stderr)
            first = self.pid()
            self.assertNotEqual(foreign.pid, first)
            second = self.start()
            self.assertEqual(1, second.returncode)
            self.assertIn(f"is locked by a running process ({first})", second.stderr)
            self.end(signal.SIGKILL)
            self.assertEqual(0, self.start().returncode)
            self.assertNotEqual(first, self.pid())
            self.end()
            self.assertFalse(self.pidfile.exists())
        finally:
            foreign.kill()
            foreign.wait()

    def test_modes(self):
        """Logs and text as ulogd2's, databases for the group, state for the owner alone; nothing elsewhere."""
        self.assertEqual(0, self.start().returncode)
        wait_until(lambda: (self.folder / "flows.sqlite3").exists(), 10, "the database")
        self.end()
        found = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in self.folder.iterdir()}
        expected = {"log": "0o644", "flows.json": "0o644", "flows.sqlite3": "0o640"}
        self.assertEqual(expected, {name: found.get(name) for name in expected})
        secret = {name: mode for name, mode in found.items() if name not in (*expected, "ulogd.conf")}
        self.assertEqual({"0o600"}, set(secret.values()), secret)
