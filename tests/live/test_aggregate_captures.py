"""AGGREGATE beside nfdump and pmacct: real captures, added up by exporter and several keys, give the same sums."""

import csv
import io
import json
import re
import signal
import socket
import subprocess
from collections import Counter
from ipaddress import ip_address

from twisted.trial.unittest import TestCase

from tests.live.service import Service, sleep, temporary, unaccounted
from tests.live.test_aggregate_sums import plain
from tests.live.test_softflowd import _listens, _queue
from tests.support import Daemon, free_port, require_program, shared_path, wait_until

KEYS = {
    # ours, nfdump -A, its columns, pmacct's aggregate and columns
    "proto": ("protocolIdentifier", "proto", ("pr",), "proto", ("PROTOCOL",)),
    "source": ("sourceAddress", "srcip", ("sa",), "src_host", ("SRC_IP",)),
    "destination": ("destinationAddress", "dstip", ("da",), "dst_host", ("DST_IP",)),
    "port": ("protocolIdentifier,destinationTransportPort", "proto,dstport", ("pr", "dp"), "proto,dst_port",
             ("PROTOCOL", "DST_PORT")),
    "interface": ("ingressInterface", "inif", ("in",), "in_iface", ("IN_IFACE",)),
    "pair": ("sourceAddress,destinationAddress", "srcip,dstip", ("sa", "da"), "src_host,dst_host",
             ("SRC_IP", "DST_IP")),
}  # fmt: skip
PREFIX = {"net": ("sourceAddress/24:48", None, ("sa",), None, None)}
"""By nfdump only, in a query for each family."""
EARLY = "records that came before their template wait for it here, and not there"
TUNNEL = "it takes the inner packet where a record tells two, and we the outer one"
SECTION = "it does not read the packet in dataLinkFrameSection"
FAMILIES = "it gives records of IPv6 no address where the template has room for both families"
MIXED = "its filter ipv4 passes over records of IPv4 where the template has room for both families"
SCALED = ("akvorado-options-and-data", "graylog-netflow5", "logstash-netflow5-juniper-mx80")
"""Captures of which nfcapd multiplies counters by the sampling rate; of others, such as those with a rate in each
record, it does not."""
NOT_NFDUMP = {
    "akvorado-data-and-templates": EARLY,
    "graylog-netflow-v5-1": "it reads on behind the records that the header counts",
    "logstash-netflow-5-valid-01": "it reads on behind the records that the header counts",
    "akvorado-physical-interfaces": "it reads no address of this template",
    "akvorado-datalink-frame-section": SECTION,
    "akvorado-ipfix-srv6": SECTION,
    "pmacct-400-ipfixv10-bmp-cisco-srv6-multiple-sources-00": TUNNEL,
    "vermont-correct-variable-length-template-and-data": "it stores no record without an element that it knows",
}
NOT_NFACCTD = {
    "akvorado-data-and-templates": EARLY,
    "graylog-netflow-v5-1": "it drops a datagram with more octets than its records have",
    "logstash-netflow-5-valid-01": "it drops a datagram with more octets than its records have",
    "graylog-netflow-v9-1": "it counts none of its records",
    "logstash-netflow-9-invalid-01": "it counts none of its records",
    "logstash-netflow-9-cisco-wlc": "it counts no record without addresses",
    "pmacct-400-ipfixv10-bmp-cisco-srv6-multiple-sources-00": TUNNEL,
    "telegraf-ipfix-example": "it counts no record of its variable-length options",
}
OTHER_KEYS = {
    **{("nfacctd", "akvorado-ipfix-srv6", key): "it writes a name for protocol 4" for key in ("proto", "port")},
    ("nfacctd", "akvorado-physical-interfaces", "interface"): "it takes ingressPhysicalInterface",
    **{("nfdump", f"pmacct-{case}-00", "net"): MIXED
       for case in ("101-nfv9-cisco-cust-primitives", "111-ipfixv10-nfv9-ipv6-ipv4-mix-sources",
                    "900-kafka-connection-loss")},
    **{("nfdump", f"pmacct-{case}-00", key): FAMILIES for key in ("source", "destination", "pair", "net")
       for case in ("401-ipfixv10-bmp-ipv6-cisco-mpls-multiple-sources", "501-ipfixv10-bgp-ipv6-cisco-mpls")},
}  # fmt: skip
NOBODY = {"0.0.0.0", "::", "0", ""}
"""How other programs show a key that a record does not have."""
_IPV4_IN_IPV6 = re.compile(r"^::([0-9a-f]+):([0-9a-f]+)$")
"""How nfdump shows an address of IPv4 where a record has room for one of each family."""


class CaptureTests(TestCase):
    """Each exporter of a capture has an address of its own, by which the sums are told apart."""

    timeout = 300

    def setUp(self):
        folder = shared_path("corpus", "ipfix")
        self.messages, self.names = [], {}
        for path in sorted(folder.glob("oracle/*.json")):
            if json.loads(path.read_text())["protocol"].startswith("sflow"):
                continue
            for line in (folder / "messages" / f"{path.stem}.jsonl").read_text().splitlines():
                message = json.loads(line)
                source = (path.stem, message["src"], message["sport"])
                number = len(self.names) + 1
                address = next((a for a, s in self.names.items() if s == source), f"127.9.{number >> 8}.{number & 255}")
                self.names[address] = source
                self.messages.append((address, bytes.fromhex(message["hex"])))
        self.folder = temporary("captures")

    def send(self, port, without=()):
        """Everything, but for what these captures have; sockets are kept, since a source port tells exporters apart."""
        sockets = {}
        for number, (address, octets) in enumerate(self.messages):
            if self.names[address][0] in without:
                continue
            if address not in sockets:
                sockets[address] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sockets[address].bind((address, 0))
                self.addCleanup(sockets[address].close)
            sockets[address].sendto(octets, ("127.0.0.1", port))
            if number % 16 == 0:
                sleep(0.002)
        wait_until(lambda: _queue(port) == 0, 20, "all is read")

    def ours(self, scaled):
        """{name: {(exporter, key, figure): value}} of one service with a stack for each key."""
        port = free_port("udp")
        config = f'[col1]\nlisten="udp:127.0.0.1:{port}"\nreceive_buffer=64M\nscale_sampled={scaled}\n'
        stacks = []
        for name, (key, *_) in (KEYS | PREFIX).items():
            stacks.append(f"col1:COLLECTOR,{name}:AGGREGATE,j{name}:JSON")
            config += f'[{name}]\nkey="exporter,{key}"\ninterval=86400\n[j{name}]\nfile="{{dir}}/{name}.json"\n'
        with Service(stacks, config, directory=self.folder / f"ours{scaled}") as service:
            self.send(port)
        self.assertEqual({}, unaccounted(service.all_counters()))
        found = {}
        for name, (key, *_) in (KEYS | PREFIX).items():
            sums = found[name] = Counter()
            for row in map(json.loads, (self.folder / f"ours{scaled}" / f"{name}.json").read_text().splitlines()):
                for what in ("flows", "packets", "octets"):
                    sums[row["exporter"], shown(name, *map(row.get, key.split(","))), what] += row.get(what, 0)
        return found

    def compare(self, peer, ours, theirs, without, figures):
        """By exporter, so that a fault names its capture. How many captures there were."""
        compared, wrong = set(), []
        for address, (case, *_) in self.names.items():
            if case in without:
                continue
            for name in theirs:
                mine, other = (
                    {k[1:]: v for k, v in sums[name].items() if k[0] == address and v and k[2] in figures}
                    for sums in (ours, theirs)
                )
                if other != mine and (peer, case, name) not in OTHER_KEYS:
                    wrong.append((case, name, other, mine))
                elif mine:
                    compared.add(case)
        self.assertEqual([], wrong, [w[:2] for w in wrong])
        return len(compared)

    def test_nfdump(self):
        """nfdump -A over what nfcapd stored."""
        require_program("nfcapd", "nfdump")
        store = self.folder / "nfcapd"
        store.mkdir()
        port = free_port("udp")
        words = ["nfcapd", "-b", "127.0.0.1", "-p", port, "-w", store, "-t", "3600", "-B", 67108864]
        with Daemon(words, lambda d: _listens(port)) as daemon:
            self.send(port)
            daemon.stop()
        theirs = {}
        for name, (_, how, columns, *_) in (KEYS | PREFIX).items():
            form = "fmt:" + ";".join(f"%{c}" for c in ("ra", *columns, "fl", "pkt", "byt"))
            lines = []
            for words in ((how,),) if how else (("srcip4/24", "ipv4"), ("srcip6/48", "ipv6")):
                words = ["nfdump", "-R", store, "-A", f"router,{words[0]}", "-q", "-N", "-6", "-o", form, *words[1:]]
                done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
                lines += done.stdout.splitlines()
            theirs[name] = Counter()
            for line in filter(None, lines):
                exporter, *key, flows, packets, octets = (word.strip() for word in line.split(";"))
                for what, value in (("flows", flows), ("packets", packets), ("octets", octets)):
                    theirs[name][exporter, shown(name, *key), what] += int(value)
        figures, every = ("flows", "packets", "octets"), {case for case, *_ in self.names.values()}
        found = self.compare("nfdump", self.ours(0), theirs, {*NOT_NFDUMP, *SCALED}, figures)
        self.assertGreaterEqual(found, 60)  # two captures less since packets in sections are read here
        found = self.compare("nfdump", self.ours(1), theirs, every - set(SCALED), figures)
        self.assertEqual(3, found)

    def test_nfacctd(self):
        """pmacct's print plugin, a key for each; one malformed message makes it read for ever, so it gets none."""
        require_program("nfacctd")
        port = free_port("udp")
        lines = ["daemonize: false", "nfacctd_ip: 127.0.0.1", f"nfacctd_port: {port}", "nfacctd_pipe_size: 67108864",
                 "plugins: " + ", ".join(f"print[{name}]" for name in KEYS), "plugin_buffer_size: 1024000",
                 "plugin_pipe_size: 102400000", "print_output: csv", "nfacctd_renormalize: false"]  # fmt: skip
        for name, words in KEYS.items():
            lines += [f"aggregate[{name}]: peer_src_ip, {words[3]}", f"print_refresh_time[{name}]: 3600",
                      f"print_output_file[{name}]: {self.folder}/{name}.csv"]  # fmt: skip
        (self.folder / "nfacctd.conf").write_text("\n".join(lines) + "\n")
        malformed = {case for case, *_ in self.names.values() if "malformed" in case}
        with Daemon(["nfacctd", "-f", self.folder / "nfacctd.conf"], lambda d: _listens(port)) as daemon:
            self.send(port, malformed)
            sleep(2)  # its processes hand records to each other
            daemon.stop(signal.SIGINT)
        theirs = {}
        for name, (*_, columns) in KEYS.items():
            path = self.folder / f"{name}.csv"
            wait_until(path.exists, what=f"the sums of {name}")
            theirs[name] = Counter()
            for row in csv.DictReader(io.StringIO(path.read_text())):
                exporter = row.get("PEER_IP_SRC") or row["PEER_SRC_IP"]
                for what, column in (("packets", "PACKETS"), ("octets", "BYTES")):
                    theirs[name][exporter, shown(name, *map(row.get, columns)), what] += int(row[column])
        found = self.compare("nfacctd", self.ours(0), theirs, malformed | set(NOT_NFACCTD), ("packets", "octets"))
        self.assertGreater(found, 50)


def shown(name, *values):
    """A key as text. A missing value is as one of zeros, since others do not tell them apart; ICMP has no ports."""
    found = ["" if value is None else str(value) for value in values]
    if name == "port":
        found[1] = found[1].partition(".")[0]  # nfdump's type and code of ICMP
    found = [plain(text) for text in found]
    if name == "port" and found[0] in ("1", "58"):
        return (found[0],)
    return tuple("" if text in NOBODY else _IPV4_IN_IPV6.sub(_ipv4, text) for text in found)


def _ipv4(match):
    return str(ip_address(int(match[1], 16) << 16 | int(match[2], 16)))
