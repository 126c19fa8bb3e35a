"""FLOWCACHE on real traffic: the flows of softflowd, the counts of nfpcapd, the conversations of tshark."""

import json
import subprocess
import time
from collections import Counter

from twisted.trial.unittest import TestCase

from tests.live.service import Service, temporary, unaccounted
from tests.live.test_softflowd import _listens, _queue, capture, export
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, free_port, require_program, wait_until

NAMES = ("protocolIdentifier", "sourceAddress", "sourceTransportPort", "destinationAddress", "destinationTransportPort")
LONG = "idle_timeout=100000\nactive_timeout=100000\nend_timeout=100000\n"
"""softflowd ends no flow of a file before its end."""


def nfdump(folder):
    """(protocol, source, port, destination, port, packets, octets, flags) of every flow; ICMP without ports."""
    words = ["nfdump", "-R", folder, "-q", "-N", "-6", "-o", "fmt:%pr;%sa;%sp;%da;%dp;%pkt;%byt;%flg"]
    lines = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    for line in filter(None, map(str.strip, lines)):
        protocol, source, port, destination, other, packets, octets, flags = map(str.strip, line.split(";"))
        ports = (int(port), int(other)) if protocol in ("6", "17") else (None, None)
        bits = sum(1 << place for place, sign in enumerate(reversed(flags)) if sign != ".")
        tuple_ = (int(protocol), source, ports[0], destination, ports[1])
        yield *tuple_, int(packets), int(octets), bits if protocol == "6" else None


def short(row):
    """One of ours in the same form."""
    return (*(row.get(name) for name in NAMES), row["packetDeltaCount"], row["octetDeltaCount"],
            row.get("tcpControlBits"))  # fmt: skip


class FlowTests(TestCase):
    """The capture is made once for all."""

    timeout = 150

    def setUp(self):
        require_program("softflowd", "tcpdump", "nfcapd", "nfpcapd", "nfdump", "tshark")
        if not hasattr(FlowTests, "folder"):
            FlowTests.folder = temporary("flowcache")
            capture(FlowTests.folder / "traffic.pcap")

    def flows(self, options=""):
        """The rows of PCAPIN, BASE, FLOWCACHE."""
        path = self.folder / "ours.json"
        path.unlink(missing_ok=True)
        config = f'[cap1]\nfile="{self.folder}/traffic.pcap"\nexit=1\n[json1]\nfile="{path}"\n[flow1]\n{options}'
        with Service(["cap1:PCAPIN,base1:BASE,flow1:FLOWCACHE,json1:JSON"], config) as service:
            wait_until(lambda: not service.daemon.running, 30, "the end of the capture")
        self.assertEqual(unaccounted(service.all_counters()), {})
        return [json.loads(line) for line in path.read_text().splitlines()]

    def theirs(self, program):
        """What nfdump reads of one of theirs."""
        store = self.folder / program
        store.mkdir()
        if program == "nfpcapd":
            words = ["nfpcapd", "-r", self.folder / "traffic.pcap", "-w", store]
            subprocess.run(words, capture_output=True, timeout=60, check=True)
        else:
            port = free_port("udp")
            words = ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", store, "-t", "3600"]
            with Daemon(words, lambda d: _listens(port)) as daemon:
                export(self.folder / "traffic.pcap", port, 9)
                wait_until(lambda: _queue(port) == 0, what="nfcapd has read all")
                daemon.stop()
        return list(nfdump(store))

    def test_the_flows_of_softflowd(self):
        """Each flow with its packets, octets and control bits."""
        theirs, ours = Counter(self.theirs("softflowd")), Counter(map(short, self.flows(LONG)))
        self.assertGreater(len(theirs), 80)
        self.assertEqual({flow[0] for flow in theirs}, {1, 6, 17, 58})
        self.assertEqual(ours, theirs)

    def test_the_counts_of_nfpcapd(self):
        """Packets and octets of each tuple; where a connection ends it counts by rules of its own."""
        sums = []
        for flows in (self.theirs("nfpcapd"), map(short, self.flows())):
            found = {}
            for *tuple_, packets, octets, _ in flows:
                # Of packets with a hop-by-hop header (MLD) nfpcapd takes that for their protocol.
                tuple_[0] = 58 if tuple_[0] == 0 and ":" in tuple_[1] else tuple_[0]
                figures = found.setdefault(tuple(tuple_), [0, 0])
                figures[0] += packets
                figures[1] += octets
            sums.append(found)
        self.assertEqual(sums[1], sums[0])

    def test_the_conversations_of_tshark(self):
        """Both directions of every connection, as biflows; its octets have Ethernet's header in them."""
        rows = self.flows(LONG + "biflow=1\n")
        words = ["tshark", "-r", self.folder / "traffic.pcap", "-c", "1", "-T", "fields", "-e", "frame.time_epoch"]
        first = float(subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout)
        for kind, number in (("tcp", 6), ("udp", 17)):
            words = ["tshark", "-n", "-r", self.folder / "traffic.pcap", "-q", "-z", f"conv,{kind}"]
            text = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
            theirs, times = Counter(), {}
            for line in text.splitlines():
                if "<->" in line:
                    left, right, *figures = line.replace("<->", " ").split()
                    back, sent, _ = [int(figures[at]) for at in (0, 3, 6)]  # frames, octets and their unit, three times
                    theirs[frozenset(((left, sent), (right, back)))] += 1
                    times[frozenset((left, right))] = first + float(figures[9]), float(figures[10])
            ours = Counter()
            for row in rows:
                if row["protocolIdentifier"] == number:
                    ends = [f"{row[f'{end}Address']}:{row[f'{end}TransportPort']}" for end in ("source", "destination")]
                    sent = row["packetDeltaCount"], row["reversePacketDeltaCount"]
                    ours[frozenset(zip(ends, sent, strict=True))] += 1
                    start, lasted = times[frozenset(ends)]
                    self.assertLess(abs(row["flowStartMilliseconds"] - start * 1000), 2)
                    self.assertLess(abs(row["flowEndMilliseconds"] - (start + lasted) * 1000), 2)
            self.assertGreater(len(theirs), 10)
            self.assertEqual(ours, theirs)


class LiveTests(TestCase):
    """PACKET, BASE, FLOWCACHE, IPFIX on a veth, beside a capture of the same packets that softflowd reads."""

    timeout = 150

    def test_instead_of_softflowd(self):
        """The packets and octets of each tuple that the capture has."""
        require_program("softflowd", "tcpdump", "nfcapd", "nfdump")
        folder = temporary("packet")
        port = free_port("udp")
        config = f"""
[p1]
interface="veth0"
snaplen=128
filter="RULE"
[flow1]
{LONG}
[exp1]
collectors="udp:127.0.0.1:{port}"
"""
        (folder / "ours").mkdir()
        words = ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", folder / "ours", "-t", "3600"]
        with NetworkNamespaces() as spaces:
            rule = f"host {spaces.ipv4['a']} and host {spaces.ipv4['b']}"
            config = config.replace("RULE", rule)
            tcpdump = ["tcpdump", "-i", "veth0", "-U", "--immediate-mode", "-Z", "root"]
            tcpdump += ["-w", folder / "traffic.pcap", rule]
            nfcapd = Daemon(spaces.argv("a", words), lambda d: _listens(port, d.pid))
            with (
                nfcapd,
                Daemon(server_argv(spaces), lambda d: "ready" in d.output()),
                Daemon(spaces.argv("a", tcpdump), lambda d: "listening on" in d.output()) as dump,
            ):
                stacks = ["p1:PACKET,base1:BASE,flow1:FLOWCACHE,exp1:IPFIX"]
                with Service(stacks, config, namespace=lambda argv: spaces.argv("a", argv)) as service:
                    run_client(spaces, 20)
                    wait_until(_Still(folder / "traffic.pcap"), what="the end of the capture")
                    dump.stop()
                counters = service.all_counters()
                wait_until(lambda: _queue(port, nfcapd.pid) == 0, 60, "nfcapd has read all")
                nfcapd.stop()
        self.assertEqual(unaccounted(counters), {})
        self.assertEqual(counters["p1"]["lost"], {})
        (folder / "softflowd").mkdir()
        port = free_port("udp")
        words = ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", folder / "softflowd", "-t", "3600"]
        with Daemon(words, lambda d: _listens(port)) as daemon:
            export(folder / "traffic.pcap", port, 9)
            wait_until(lambda: _queue(port) == 0, what="nfcapd has read all")
            daemon.stop()
        theirs, ours = Counter(nfdump(folder / "softflowd")), Counter(nfdump(folder / "ours"))
        self.assertGreater(len(theirs), 40)
        self.assertEqual(ours, theirs)


class _Still:
    """Whether a file has not grown for some seconds: tcpdump gets its last packets late."""

    def __init__(self, path):
        self.path, self.seen = path, (0, time.monotonic())

    def __call__(self):
        size, now = self.path.stat().st_size, time.monotonic()
        if size != self.seen[0]:
            self.seen = (size, now)
        return now - self.seen[1] > 3
