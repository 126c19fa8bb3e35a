"""Filters of nfdump and of MATCH on the same flows, and of tcpdump and MATCH on the same packets."""

import json
import random
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate
from tests.live.test_replay import Job
from tests.support import Daemon, free_port, require_program
from tests.unit.packets import wire

FILTERS = (
    "proto tcp", "src net 10.0.0.0/9", "dst port < 1024", "port 443 or port 53", "not proto udp",
    "bytes > 10k and packets > 3", "src net 10.0.0.0/8 and dst port 443 and bytes > 1k and not proto icmp",
    "src port in [80 443 8080]", "bpp > 500", "flags S and not flags A", "any", "ipv6 and dst port 53",
    "not flags 18", "flags 24", "proto tcp or proto udp and dst port 443", "tos 0 and in if 1", "router ip 127.0.0.1",
)  # fmt: skip
N = 20_000


class NfdumpTests(SynchronousTestCase):
    """Generated flows to nfcapd and to COLLECTOR, each filter on both."""

    def test_filters(self):
        nfcapd, nfdump = require_program("nfcapd", "nfdump")
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        log = folder.parent / "nfcapd.log"
        theirs, ours = free_port("udp"), free_port("udp")
        argv = [nfcapd, "-w", folder, "-p", theirs, "-b", "127.0.0.1", "-t", 3600, "-B", 4_000_000]
        chain = "col1:COLLECTOR,m{0}:MATCH,agg{0}:AGGREGATE,out{0}:JSON"
        stacks = [chain.format(place) for place in range(len(FILTERS))]
        config = f'[col1]\nlisten="udp:127.0.0.1:{ours}"\n'
        for place, text in enumerate(FILTERS):
            config += f'[m{place}]\nmatch="{text}"\n[agg{place}]\nkey=ipVersion,observationDomainId\n'
            config += f'[out{place}]\nfile="{{dir}}/{place}.json"\n'
        with Daemon(argv, lambda daemon: "Startup nfcapd" in log.read_text(), log=log) as daemon:
            with Service(stacks, config) as service:
                for port in (theirs, ours):
                    generate(f"127.0.0.1:{port}", "-n", N, "-r", 50_000, "-s", 7)
                service.wait_for("col1", "rows_received", N)
            daemon.stop()
        for place, text in enumerate(FILTERS):
            rows = [json.loads(line) for line in (service.directory / f"{place}.json").read_text().splitlines()]
            found = [sum(row.get(name, 0) for row in rows) for name in ("flows", "packets", "octets")]
            self.assertEqual(self.of_nfdump(nfdump, folder, text), found, text)

    def of_nfdump(self, nfdump, folder, text):
        """Flows, packets and octets of what matches."""
        argv = [nfdump, "-R", folder, "-N", "-q", "-A", "proto", "-o", "fmt:%fl %pkt %byt", text]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        rows = [list(map(int, line.split())) for line in done.stdout.splitlines() if line.strip()[:1].isdigit()]
        return [sum(column) for column in zip(*rows, strict=True)] if rows else [0, 0, 0]


PCAP_FILTERS = (
    "tcp", "udp port 53", "tcp port 80 or 443", "not (tcp port 80 or 443)", "tcp port 80 or udp", "port (22 or 53)",
    "host 10.0.0.1 or 10.0.0.2", "src host 10.0.0.1 and dst port 53 or 80", "not host 10.0.0.1 and 10.0.1.2",
    "port domain", "tcp port http or https", "portrange 50-100", "tcp src portrange 50-100", "src or dst port 53",
    "src and dst net 10.0.0.0/24", "net 10.0.1", "net 10", "src net 10.0.0.0 mask 255.255.255.254",
    "(net 10.0.0.0/24 or net 10.0.2.0/24) and not net 10.0.1.0/24", "ip", "ip6", "ip6 and tcp dst port 443",
    "ip6 host 2001:db8::1 or 2001:db8::2", "ip host 10.0.0.1", "ip proto 17", "proto 6 or 17", "icmp", "icmp6",
    "not udp port 53 and host 10.0.0.1", "less 80", "greater 80", "len < 70", "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:01 or 02:00:00:00:00:02", "tcp and not port 22 and not port 80", "udp && ! port 53",
)  # fmt: skip
HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2", "10.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::2", "::5")
PORTS = (22, 53, 80, 99, 443, 8080)


class TcpdumpTests(Job):
    """Packets of a capture."""

    def test_filters(self):
        """The same packets match."""
        (tcpdump,) = require_program("tcpdump")
        path = Path(self.mktemp()).resolve()
        path.write_bytes(wire.pcap([(1000 + n / 1e6, packet) for n, packet in enumerate(self.packets(3000))], link=1))
        stacks = [f"cap1:PCAPIN,base1:BASE,m{n}:MATCH,out{n}:JSON" for n in range(len(PCAP_FILTERS))]
        config = f'[cap1]\nfile="{path}"\nexit=1\n'
        for n, text in enumerate(PCAP_FILTERS):
            config += f'[m{n}]\nmatch="{text}"\n[out{n}]\nfile="{path}-{n}.json"\n'
        self.job(stacks, config)
        for n, text in enumerate(PCAP_FILTERS):
            lines = Path(f"{path}-{n}.json").read_text().splitlines()
            found = sorted(json.loads(line)["oob.time.usec"] for line in lines)
            done = subprocess.run([tcpdump, "-n", "-tt", "-r", path, text], capture_output=True, text=True, timeout=60)
            times = [line.split()[0] for line in done.stdout.splitlines() if line[:4] == "1000"]
            expected = [int(time.partition(".")[2]) for time in times]
            self.assertEqual((0, expected), (done.returncode, found), f"{text}: {done.stderr}")
            self.assertNotIn(len(found), (0, 3000), text)

    def packets(self, n):
        """Frames of TCP, UDP and ICMP between few hosts and ports."""
        chance = random.Random(7)
        found = []
        for number in range(n):
            hosts = chance.choice(HOSTS)
            source, destination = chance.choice(hosts), chance.choice(hosts)
            ports, octets = (chance.choice(PORTS), chance.choice(PORTS)), bytes(chance.choice((0, 8, 30, 200)))
            kind = chance.randrange(5)
            if kind < 2:
                packet = wire.tcp(source, destination, ports, number, octets)
            elif kind < 4:
                packet = wire.udp(source, destination, ports, octets)
            else:
                protocol, type_ = (58, 128) if ":" in source else (1, 8)
                packet = wire.ip(source, destination, protocol, bytes((type_,)) + bytes(7) + octets)
            macs = b"".join(bytes((2, 0, 0, 0, 0, chance.randrange(4))) for _ in range(2))
            found.append(macs + wire.ethernet(packet)[12:])
        return found
