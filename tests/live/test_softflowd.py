"""A real exporter: softflowd's IPFIX, NetFlow v9 and v5 of captured traffic, to our collector and to nfcapd.

The totals must agree.
"""

import json
import socket
import subprocess
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.live.service import Service, temporary, unaccounted
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, free_port, require_program, wait_until


def capture(path):
    """Put some hundred connections between two namespaces into a pcap file; a last ping shows that all is written."""
    words = ["tcpdump", "-i", "veth0", "-U", "--immediate-mode", "-Z", "root", "-w", path, "ip or ip6"]
    end = b"that is the end."
    with NetworkNamespaces() as spaces:
        with (
            Daemon(server_argv(spaces), lambda d: "ready" in d.output()),
            Daemon(spaces.argv("a", words), lambda d: "listening on" in d.output()),
        ):
            run_client(spaces, 40)
            spaces.run("a", ["ping", "-c", "1", "-s", "32", "-p", end.hex(), spaces.ipv4["b"]])
            wait_until(lambda: path.read_bytes().count(end) == 2, what="the last ping and its answer")


def export(path, port, version):
    """Let softflowd read the capture and export it, as IPFIX (10), v9 or v5; bounded by its end of file."""
    words = ["softflowd", "-r", path, "-n", f"127.0.0.1:{port}", "-v", str(version), "-d"]
    subprocess.run(words, capture_output=True, timeout=60, check=True)


NAMES = ("flowStartSysUpTime", "flowEndSysUpTime", "protocolIdentifier", "packetDeltaCount", "octetDeltaCount")


class TwoCollectors(TestCase):
    """The export of a capture, sent on to nfcapd and to us."""

    timeout = 150

    def compare(self, program):
        """Flows, packets and octets, altogether and by protocol."""
        require_program(program, "tcpdump", "nfcapd", "nfdump")
        folder = temporary(program)
        capture(folder / "traffic.pcap")
        for version in (10, 9, 5):
            datagrams = self.exported(folder / "traffic.pcap", version)
            theirs = self.nfcapd(folder, version, datagrams)
            ours = self.collector(folder, version, datagrams)
            self.assertGreater(sum(f[0] for f in theirs.values()), 80, version)
            self.assertEqual(set(theirs), {1, 6, 17} if version == 5 else {1, 6, 17, 58})  # v5 has no IPv6
            self.assertEqual(ours, theirs, version)

    def exported(self, path, version):
        """The datagrams that the exporter sends; some send a part only while the machine has much to do."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.bind(("127.0.0.1", 0))
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self.export(path, receiver.getsockname()[1], version)
            receiver.setblocking(False)
            datagrams = []
            try:
                while True:
                    datagrams.append(receiver.recv(65535))
            except BlockingIOError:
                return datagrams

    def nfcapd(self, folder, version, datagrams):
        """{protocol: [flows, packets, octets]} as nfdump reads what nfcapd stored."""
        store = folder / f"nfcapd{version}"
        store.mkdir()
        port = free_port("udp")
        words = ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", store, "-t", "3600"]
        with Daemon(words, lambda d: _listens(port)) as daemon:
            _send(datagrams, port)
            wait_until(lambda: _queue(port) == 0, what="nfcapd has read all")
            daemon.stop()
        found = {}
        for file in store.glob("nfcapd.*"):
            words = ["nfdump", "-r", file, "-q", "-N", "-o", "fmt:%pr;%pkt;%byt", "-6"]
            lines = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
            for line in filter(None, map(str.strip, lines)):
                _add(found, *(int(word) for word in line.split(";")))
        return found

    def collector(self, folder, version, datagrams):
        """The same out of COLLECTOR -> JSON, and out of COLLECTOR -> AGGREGATE -> JSON, which asks by IANA's names."""
        port = free_port("udp")
        flows, sums = folder / f"flows{version}.json", folder / f"sums{version}.json"
        config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\n[json1]\nfile="{flows}"\n[json2]\nfile="{sums}"\n'
        config += '[agg1]\nkey="5tuple"\ninterval=3600\n'
        stacks = ["col1:COLLECTOR,json1:JSON", "col1:COLLECTOR,agg1:AGGREGATE,json2:JSON"]
        with Service(stacks, config) as service:
            _send(datagrams, port)
            wait_until(lambda: _queue(port) == 0, what="the collector has read all")
        counters = service.all_counters()
        self.assertEqual(unaccounted(counters), {})
        if version in self.numbered:
            self.assertEqual(counters["col1"]["lost"], {})
        names = ("first", "last", "prot", "dPkts", "dOctets") if version == 5 else self.names[version]
        found, captured = {}, (folder / "traffic.pcap").stat().st_mtime * 1000
        for line in flows.read_text().splitlines():
            row = json.loads(line)
            if row["record_kind"] == "data":
                first, last, protocol, packets, octets = (row[name] for name in names)
                self.assertLessEqual(first, last)
                if version in self.absolute:
                    self.assertEqual(row["flowEndMilliseconds"] - row["flowStartMilliseconds"], last - first)
                    self.assertLess(abs(row["flowEndMilliseconds"] - captured), 60_000)
                _add(found, protocol, packets, octets)
        added = {}
        for row in map(json.loads, sums.read_text().splitlines()):
            self.assertIn("sourceAddress", row)
            figures = added.setdefault(row["protocolIdentifier"], [0, 0, 0])
            for place, name in enumerate(("flows", "packets", "octets")):
                figures[place] += row[name]
        self.assertEqual(added, found)
        return found


class SoftflowdTests(TwoCollectors):
    """softflowd, which reads the capture to its end."""

    names = dict.fromkeys((5, 9, 10), NAMES)
    # softflowd 1.0.0 puts the number after a message's records into the header of IPFIX, so tshark and nfcapd see
    # sequence errors too (RFC 7011 section 3.1: records before the message). Those of v9 count packets.
    numbered = (9,)
    absolute = (5, 9)

    def export(self, path, port, version):
        export(path, port, version)

    def test_totals_equal_those_of_nfcapd(self):
        """IPFIX, v9 and v5."""
        self.compare("softflowd")


def _add(found, protocol, packets, octets):
    figures = found.setdefault(protocol, [0, 0, 0])
    for place, value in enumerate((1, packets, octets)):
        figures[place] += value


def _send(datagrams, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, ("127.0.0.1", port))


def _sockets(port, pid="self"):
    """Octets that wait in each socket of this port, in the network namespace of a process."""
    for line in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == port:
            yield int(words[4].split(":")[1], 16)


def _listens(port, pid="self"):
    return any(True for _ in _sockets(port, pid))


def _queue(port, pid="self"):
    """Octets that wait in the kernel for the socket of this port."""
    return sum(_sockets(port, pid))
