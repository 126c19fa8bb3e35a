"""A real exporter: softflowd's IPFIX of captured traffic, to our collector and to nfcapd; the totals must agree."""

import json
import subprocess
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.live.service import Service, temporary, unaccounted
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, free_port, require_program, wait_until


def capture(path):
    """Put some hundred connections between two namespaces into a pcap file."""
    with NetworkNamespaces() as spaces:
        argv = spaces.argv("a", ["tcpdump", "-i", "veth0", "-U", "-Z", "root", "-w", path, "ip or ip6"])
        with (
            Daemon(server_argv(spaces), lambda d: "ready" in d.output()),
            Daemon(argv, lambda d: "listening on" in d.output()),
        ):
            run_client(spaces, 40)
            wait_until(lambda: path.stat().st_size > 100_000, what="the capture")


def export(path, port):
    """Let softflowd read the capture and export it as IPFIX; bounded by its end of file."""
    subprocess.run(
        ["softflowd", "-r", path, "-n", f"127.0.0.1:{port}", "-v", "10", "-d"],
        capture_output=True,
        timeout=60,
        check=True,
    )


class SoftflowdTests(TestCase):
    """The same capture, exported twice."""

    timeout = 120

    def test_totals_equal_those_of_nfcapd(self):
        """Flows, packets and octets, altogether and by protocol."""
        require_program("softflowd", "tcpdump", "nfcapd", "nfdump")
        folder = temporary("softflowd")
        capture(folder / "traffic.pcap")
        theirs = self.nfcapd(folder)
        ours = self.collector(folder)
        self.assertGreater(sum(f[0] for f in theirs.values()), 160)
        self.assertEqual(set(theirs), {1, 6, 17, 58})
        self.assertEqual(ours, theirs)

    def nfcapd(self, folder):
        """{protocol: [flows, packets, octets]} as nfdump reads what nfcapd stored."""
        store = folder / "nfcapd"
        store.mkdir()
        port = free_port("udp")
        with Daemon(
            ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", store, "-t", "3600"], lambda d: _listens(port)
        ) as daemon:
            export(folder / "traffic.pcap", port)
            wait_until(lambda: _queue(port) == 0, what="nfcapd has read all")
            daemon.stop()
        found = {}
        for file in store.glob("nfcapd.*"):
            words = ["nfdump", "-r", file, "-q", "-N", "-o", "fmt:%pr;%pkt;%byt", "-6"]
            lines = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
            for line in filter(None, map(str.strip, lines)):
                _add(found, *(int(word) for word in line.split(";")))
        return found

    def collector(self, folder):
        """The same out of COLLECTOR -> JSON."""
        port = free_port("udp")
        config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\n[json1]\nfile="{folder}/flows.json"\n'
        with Service(["col1:COLLECTOR,json1:JSON"], config) as service:
            export(folder / "traffic.pcap", port)
            wait_until(lambda: _queue(port) == 0, what="the collector has read all")
        counters = service.all_counters()
        self.assertEqual(unaccounted(counters), {})
        # no word about counters["col1"]["lost"]: softflowd 1.0.0 puts the number after a message's records into its
        # header, so tshark and nfcapd see sequence errors here too (RFC 7011 section 3.1: records before the message)
        found = {}
        for line in (folder / "flows.json").read_text().splitlines():
            row = json.loads(line)
            if row["record_kind"] == "data":
                self.assertLessEqual(row["flowStartSysUpTime"], row["flowEndSysUpTime"])
                _add(found, row["protocolIdentifier"], row["packetDeltaCount"], row["octetDeltaCount"])
        return found


def _add(found, protocol, packets, octets):
    figures = found.setdefault(protocol, [0, 0, 0])
    for place, value in enumerate((1, packets, octets)):
        figures[place] += value


def _sockets(port):
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == port:
            yield int(words[4].split(":")[1], 16)


def _listens(port):
    return any(True for _ in _sockets(port))


def _queue(port):
    """Octets that wait in the kernel for the socket of this port."""
    return sum(_sockets(port))
