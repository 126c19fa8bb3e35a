"""NFLOG, ULOG, NFACCT and UNIXSOCK in network namespaces, beside tcpdump, the real ulogd2, nft and nfacct."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.live.service import Service, temporary
from tests.support import TOP, Daemon, NetworkNamespaces, require_program, wait_until
from tests.unit.packets.test_unixsock import FULL

RULES = """
table inet utwlog {
 chain out {
  type filter hook output priority 0
  udp dport 5555 meta mark set 0x2a log group %(ours)s prefix "marked"
  udp dport 5555 log group %(theirs)s prefix "marked"
  meta l4proto { tcp, icmp } log group %(ours)s prefix "out: "
  meta l4proto { tcp, icmp } log group %(theirs)s prefix "out: "
  icmpv6 type { echo-request, echo-reply } log group %(ours)s
  icmpv6 type { echo-request, echo-reply } log group %(theirs)s
 }
 chain in {
  type filter hook input priority 0
  meta l4proto { tcp, udp, icmp } log group %(ours)s prefix "in"
  meta l4proto { tcp, udp, icmp } log group %(theirs)s prefix "in"
  icmpv6 type { echo-request, echo-reply } log group %(ours)s prefix "in"
  icmpv6 type { echo-request, echo-reply } log group %(theirs)s prefix "in"
 }
}
"""
TRAFFIC = """
import socket, sys
for host in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(20):
        try: socket.create_connection((host, 6000 + port), 2)
        except OSError: pass
        with socket.socket(family, socket.SOCK_DGRAM) as s: s.sendto(b"y" * (30 * port + 1), (host, 5555))
"""
COUNTED = """
table inet utwcount {
 chain out {
  type filter hook output priority 0
  udp dport 5555 counter log group 5 prefix "flood"
 }
}
"""
FLOOD = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect((sys.argv[1], 5555))
    for n in range(int(sys.argv[2])):
        try: s.send(b"z" * 100)
        except OSError: pass
"""
NFLOG_KEYS = {
    "raw.pktlen", "raw.pktcount", "oob.prefix", "oob.mark", "oob.ifindex_in", "oob.ifindex_out", "oob.hook",
    "raw.mac_len", "oob.seq.local", "oob.family", "oob.protocol", "oob.uid", "oob.gid", "raw.label", "raw.type",
    "raw.mac.addrlen", "oob.in", "oob.out", "mac.saddr.str", "mac.str", "src_ip", "dest_ip", "src_port", "dest_port",
}  # fmt: skip
"""What both programs print; of times each has its own where the kernel gives none."""


def rows(path):
    """The objects of a JSON file, with the keys that are compared, as something that can be counted."""
    found = Counter()
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[json.dumps({name: row[name] for name in sorted(NFLOG_KEYS & set(row))})] += 1
    return found


class LogTestCase(SynchronousTestCase):
    """A network namespace with rules that log."""

    def setUp(self):
        require_program("nft")
        self.namespaces = NetworkNamespaces()
        self.namespaces.__enter__()
        self.addCleanup(self.namespaces.__exit__)

    def run_a(self, *argv, **keywords):
        return self.namespaces.run("a", argv, **keywords)

    def rules(self, text):
        self.run_a("nft", "-f", "-", input=text)

    def service(self, stacks, config, **keywords):
        return Service(stacks, config, namespace=lambda argv: self.namespaces.argv("a", argv), **keywords)

    def owners(self):
        """The kernel's list of groups that are read."""
        return self.run_a("cat", "/proc/net/netfilter/nfnetlink_log").stdout

    def settled(self, *paths):
        """Wait until files have not grown for longer than ulogd2's kernel timer of 1 s."""
        sizes, since = None, time.monotonic()

        def still():
            nonlocal sizes, since
            before, sizes = sizes, [path.exists() and path.stat().st_size for path in paths]
            if sizes != before or not all(sizes):
                since = time.monotonic()
            return time.monotonic() - since > 1.5

        wait_until(still, 20, "no further packet")


class NflogTests(LogTestCase):
    """Real packets."""

    def traffic(self):
        for which in ("ipv4", "ipv6"):
            self.run_a("ping", "-c", "3", "-i", "0.05", getattr(self.namespaces, which)["b"])
        hosts = self.namespaces.ipv4["b"], self.namespaces.ipv6["b"], "127.0.0.1"
        self.run_a(sys.executable, "-c", TRAFFIC, *hosts)

    def test_as_ulogd2(self):
        """Every packet that the real ulogd2 logs from another group is a row with the same values, key by key."""
        (ulogd,) = require_program("ulogd")
        self.rules(RULES % {"ours": 5, "theirs": 6})
        folder = temporary("ulogd2")
        stack = "log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,mac1:HWHDR,json1:JSON"
        section = '[log1]\ngroup=GROUP\nnumeric_label=1\nseq_local=1\n[json1]\nfile="FILE"\nsync=1\n'
        theirs = section.replace("GROUP", "6").replace("FILE", f"{folder}/json")
        (folder / "ulogd.conf").write_text(f'[global]\nlogfile="{folder}/log"\nstack={stack}\n{theirs}')
        argv = self.namespaces.argv("a", [ulogd, "-c", folder / "ulogd.conf"])
        ours = self.service([stack], section.replace("GROUP", "5").replace("FILE", "{dir}/json"))
        with Daemon(argv, lambda _: re.search(r"^ *6 ", self.owners(), re.M), within=20), ours:
            self.traffic()
            self.settled(ours.directory / "json", folder / "json")
        found, expected = rows(ours.directory / "json"), rows(folder / "json")
        self.assertGreater(expected.total(), 250)
        self.assertEqual((found - expected, expected - found), ({}, {}))
        counters = ours.counters("log1")
        self.assertEqual((counters["rows_emitted"], counters["lost"], counters["errors"]), (found.total(), {}, {}))

    def test_as_tcpdump(self):
        """A file of PCAP has octet for octet the packets that tcpdump saw, with and without copy_range."""
        (tcpdump,) = require_program("tcpdump")
        self.rules(COUNTED)
        for copied in (65535, 40):
            file = temporary("tcpdump") / "seen"
            argv = [tcpdump, "-i", "veth0", "-U", "-n", "-w", file, "udp", "dst", "port", "5555"]
            seen = Daemon(self.namespaces.argv("a", argv), lambda d: "listening" in d.output(), within=20)
            config = f'[log1]\ngroup=5\ncopy_range={copied}\n[pcap1]\nfile="{{dir}}/logged"\nsync=1\n'
            with seen, self.service(["log1:NFLOG,base1:BASE,pcap1:PCAP"], config) as service:
                for host in (self.namespaces.ipv4["b"], self.namespaces.ipv6["b"]):
                    self.run_a(sys.executable, "-c", TRAFFIC, host)
                service.wait_for("pcap1", "rows_written", 40)
                self.settled(file)
            expected = Counter(packet[:copied] for packet in packets(file, 14))
            self.assertEqual(Counter(packets(service.directory / "logged", 0)), expected)

    def test_loss(self):
        """With a queue that is too small, what came and what is counted as lost are what the rule has counted."""
        self.rules(COUNTED)
        config = '[log1]\ngroup=5\nreceive_buffer=64k\n[gp1]\nfile="{dir}/gprint"\n'
        with self.service(["log1:NFLOG,gp1:GPRINT"], config) as service:
            os.kill(service.pid, signal.SIGSTOP)
            self.flood(30_000)
            os.kill(service.pid, signal.SIGCONT)
            service.wait_for("log1", "rows_emitted", 1)
            wait_until(lambda: self.even(service), 20, "as many packets as the rule has counted")
        counters = service.counters("log1")
        self.assertGreater(counters["lost"]["kernel"], 10_000)
        self.assertGreater(counters["netlink"]["datagrams_lost"], 0)
        self.assertGreater(counters["netlink"]["overruns"], 0)
        self.assertIn("increase receive_buffer", service.output())

    def even(self, service):
        """Whether all is accounted for; a loss shows in the numbers of what comes later, so that something must."""
        self.flood(1)
        time.sleep(0.6)
        counters = service.counters("log1")
        return counters["rows_emitted"] + counters["lost"].get("kernel", 0) == self.counted()

    def test_flood(self):
        """With the queue as it is, nothing of a flood is lost."""
        self.rules(COUNTED)
        with self.service(["log1:NFLOG,gp1:GPRINT"], '[log1]\ngroup=5\n[gp1]\nfile="{dir}/gprint"\n') as service:
            self.flood(50_000)
            logged = self.counted()
            service.wait_for("gp1", "rows_written", logged)
        self.assertGreater(logged, 40_000)
        self.assertEqual((service.counters("log1")["lost"], service.counters("gp1")["rows_written"]), ({}, logged))

    def flood(self, count):
        self.run_a(sys.executable, "-c", FLOOD, self.namespaces.ipv4["b"], str(count))

    def counted(self):
        """Packets that the rule has logged."""
        return int(re.search(r"packets (\d+)", self.run_a("nft", "list", "ruleset").stdout)[1])

    def test_group_taken(self):
        """A second instance on a group is left out with an error that names the group; the other stack runs."""
        stacks = ["log1:NFLOG,gp1:GPRINT", "log2:NFLOG,gp2:GPRINT"]
        config = "".join(f'[log{n}]\ngroup=5\n[gp{n}]\nfile="{{dir}}/{n}"\n' for n in (1, 2))
        with self.service(stacks, config) as service:
            self.assertRegex(service.output(), r"log2:NFLOG: group 5 is in use by another program \(netlink port \d+")
            self.assertIn("stacks running (1): log1", service.output())

    def test_iptables_and_old_ulog(self):
        """A configuration for ULOG goes on with rules for NFLOG, names of interfaces included."""
        (iptables,) = require_program("iptables")
        target = "-j NFLOG --nflog-group 3 --nflog-prefix old --nflog-threshold 1".split()
        done = self.run_a(iptables, "-A", "OUTPUT", "-p", "udp", "--dport", "5555", *target, check=False)
        if done.returncode:
            raise SkipTest(f"iptables cannot log here: {done.stderr}")
        config = '[ulog1]\nnlgroup=3\n[gp1]\nfile="{dir}/gprint"\n'
        with self.service(["ulog1:ULOG,base1:BASE,gp1:GPRINT"], config) as service:
            self.run_a(sys.executable, "-c", TRAFFIC, self.namespaces.ipv4["b"])
            service.wait_for("gp1", "rows_written", 20)
        self.assertIn("-j NFLOG --nflog-group 3", service.output())
        for line in (service.directory / "gprint").read_text().splitlines():
            self.assertIn("oob.prefix=old,", line)
            self.assertIn("oob.in=,oob.out=veth0,", line)

    def test_user_namespace(self):
        """Root of a user namespace may log its own network; without CAP_NET_ADMIN the capability is named."""
        require_program("unshare", "setpriv")
        folder = temporary("userns")
        text = f'[global]\nstack=log1:NFLOG,gp1:GPRINT\n[log1]\ngroup=5\n[gp1]\nfile="{folder}/gprint"\n'
        (folder / "conf").write_text(text)
        argv = [Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "ulogd", "-c", folder / "conf"]
        with Daemon(["unshare", "-Urn", *argv], lambda d: "stacks run" in d.output(), within=20, cwd=TOP):
            pass
        without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
        done = subprocess.run(
            ["unshare", "-Urn", *without, *argv], capture_output=True, text=True, timeout=30, cwd=TOP, check=False
        )
        self.assertIn(
            "group 5: netlink request refused: Operation not permitted; this needs CAP_NET_ADMIN", done.stdout
        )
        self.assertEqual(done.returncode, 1)


def packets(path, link):
    """The packets of a pcap file from behind a link header of this length, as far as they are there."""
    octets, at, found = path.read_bytes(), 24, []
    while at + 16 <= len(octets):
        (size,) = struct.unpack_from("=I", octets, at + 8)
        found.append(octets[at + 16 + link : at + 16 + size])
        at += 16 + size
    return found


class NfacctTests(LogTestCase):
    """Counters that nfacct made."""

    def listed(self, reset=False):
        """What nfacct says: name -> (packets, octets)."""
        words = ["nfacct", "list", *(["reset"] if reset else [])]
        found = re.findall(r"pkts = (\d+), bytes = (\d+) } = ([^;]+);", self.run_a(*words).stdout)
        return {name: (int(packets), int(octets)) for packets, octets, name in found}

    def count(self):
        """Counters for UDP and ICMP, and traffic."""
        require_program("nfacct", "iptables")
        for name, match in (("udp out", "udp"), ("icmp", "icmp"), ("nothing", "sctp")):
            self.run_a("nfacct", "add", name)
            words = ["iptables", "-A", "OUTPUT", "-p", match, "-m", "nfacct", "--nfacct-name", name]
            if self.run_a(*words, check=False).returncode:
                raise SkipTest("iptables has no nfacct match here")
        self.traffic()

    def traffic(self):
        self.run_a(sys.executable, "-c", TRAFFIC, self.namespaces.ipv4["b"])
        self.run_a("ping", "-c", "3", "-i", "0.05", self.namespaces.ipv4["b"])

    def rows_of(self, service):
        found = []
        for line in (service.directory / "json").read_text().splitlines():
            row = json.loads(line)
            found.append((row["sum.name"], row["sum.pkts"], row["sum.bytes"]))
        return found

    def test_as_nfacct(self):
        """At SIGUSR2 each counter is a row as nfacct lists it, and goes on counting with zerocounter=0."""
        self.count()
        config = '[acct1]\npollinterval=3600\nzerocounter=0\n[json1]\nfile="{dir}/json"\nsync=1\n'
        with self.service(["acct1:NFACCT,json1:JSON"], config) as service:
            for n in (1, 2):
                os.kill(service.pid, signal.SIGUSR2)
                service.wait_for("json1", "rows_written", 3 * n)
                listed = {(name, *counts) for name, counts in self.listed().items()}
                self.assertEqual(set(self.rows_of(service)[-3:]), listed)
                self.traffic()
        self.assertEqual({name for name, *_ in listed}, {"udp out", "icmp", "nothing"})

    def test_zero(self):
        """Counters are set to 0 as they are read, so that rows add up to all that was counted."""
        self.count()
        expected = self.listed()
        config = '[acct1]\npollinterval=1\ntimestamp=1\n[json1]\nfile="{dir}/json"\nsync=1\n'
        with self.service(["acct1:NFACCT,json1:JSON"], config) as service:
            service.wait_for("json1", "rows_written", 6)
            self.traffic()
            service.wait_for("json1", "rows_written", 12)
            rest = self.listed()
        sums = Counter()
        for name, packets_, octets in self.rows_of(service):
            sums[name, 0] += packets_
            sums[name, 1] += octets
        for name, counts in expected.items():
            self.assertEqual([sums[name, n] + rest[name][n] for n in (0, 1)], [2 * count for count in counts], name)
        self.assertGreater(sums["udp out", 0], 0)


class UnixsockTests(SynchronousTestCase):
    """Programs that hand packets over."""

    def test_socket(self):
        """Its mode is as asked, what an earlier run has left is replaced, programs' packets arrive, and it goes."""
        folder = temporary("unixsock")
        path = folder / "sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        config = f'[sock1]\nsocket_path="{path}"\nperms=0640\n[gp1]\nfile="{{dir}}/gprint"\nsync=1\n'
        with Service(["sock1:UNIXSOCK,base1:BASE,gp1:GPRINT"], config) as service:
            self.assertEqual(path.stat().st_mode & 0o777, 0o640)
            with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
                first.connect(str(path))
                second.connect(str(path))
                for _ in range(1000):
                    first.sendall(FULL)
                second.sendall(FULL[:50])
                second.sendall(FULL[50:])
                service.wait_for("gp1", "rows_written", 1001)
            again = Service(["sock1:UNIXSOCK,gp1:GPRINT"], config)
            error = self.assertRaises(AssertionError, again.daemon.start)
            self.assertIn("another program listens on it", str(error))
            self.assertTrue(path.exists())
        self.assertFalse(path.exists())
        line = (service.directory / "gprint").read_text().splitlines()[0]
        self.assertIn("oob.prefix=D: drop,oob.time.sec=1795394676,oob.in=eth0,oob.out=eth1,", line)
        self.assertIn("nufw.user.name=lisa,nufw.user.id=1000", line)
        self.assertIn("ip.saddr=10.0.0.1,ip.daddr=10.0.0.2,", line)
