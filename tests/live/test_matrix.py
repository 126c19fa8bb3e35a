"""Every transport over both families: 10,000 flows of a file, exporter and collector each a process of its own."""

import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.certificates import CA
from tests.live.service import Service, temporary, unaccounted
from tests.support import TOP, NetworkNamespaces, free_port, require_library, require_netns, wait_until
from tests.unit.ipfix.wire import a_set, message, template

FLOWS = 10_000
_FIELDS = (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (148, 8)
_EXPORTER = """
[file1]
file="{dir}/flows.ipfix"
exit=1
[exp1]
collectors="{url}"
reconnect=0.5
flush=0.1
"""
_COLLECTOR = """
[col1]
listen="{listen}"
[json1]
file="{dir}/flows.json"
"""


def flow(number):
    """The record of one flow."""
    return struct.pack("!IIHHBQQQ", 0x0A000001 + number, 0xC0000201, number % 60000, 443, 6, 1000 + number, 3, number)


def write_flows(path):
    """An IPFIX file, written octet by octet."""
    parts = [message(a_set(2, template(256, *_FIELDS)))]
    parts += [message(a_set(256, *map(flow, range(n, n + 500))), number=n) for n in range(0, FLOWS, 500)]
    Path(path).write_bytes(b"".join(parts))


class MatrixTests(TestCase):
    """What is sent arrives once, with the same figures, and the sequence has no gap."""

    def check(self, scheme, host, port, options="", theirs="", ours="", spaces=None):
        """`options` are for both sides, `ours` for the collector, `theirs` for the exporter."""
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}:{shown}:{port}"
        inside = spaces and {"namespace": lambda argv: spaces.argv("b", argv)}
        config = _COLLECTOR.replace("{listen}", url).replace("[json1]", f"{options}\n{ours}\n[json1]")
        with Service(["col1:COLLECTOR,json1:JSON"], config, **(inside or {})) as collector:
            sent = self.send(url, f"{options}\n{theirs}", spaces)
            path = collector.directory / "flows.json"
            wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= FLOWS, 20, sent)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        seen = Counter((row["flowId"], row["octetDeltaCount"], row["sourceTransportPort"]) for row in rows)
        self.assertEqual(Counter((n, 1000 + n, n % 60000) for n in range(FLOWS)), seen)
        self.assertEqual({"127.0.0.1"} if spaces is None and "." in host else {rows[0]["exporter"]},
                         {row["exporter"] for row in rows})  # fmt: skip
        counters = collector.all_counters()
        self.assertEqual(({}, {}, {}), tuple(counters["col1"][kind] for kind in ("errors", "lost", "dropped")))
        self.assertEqual({}, unaccounted(counters))

    def send(self, url, options, spaces):
        """Run the exporter to its end; what it has said."""
        folder = temporary("exporter")
        write_flows(folder / "flows.ipfix")
        config = f'[global]\nstats_file="{folder}/stats.json"\nstack=file1:IPFIXFILE,exp1:IPFIX\n'
        config += _EXPORTER.replace("{dir}", str(folder)).replace("{url}", url) + options
        (folder / "ulogd.conf").write_text(config)
        twistd = Path(sys.executable).with_name("twistd")
        argv = [twistd, "-n", "--pidfile=", "ulogd", "--config", folder / "ulogd.conf"]
        argv = spaces.argv("a", argv) if spaces else argv
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=TOP)
        said = done.stdout + done.stderr
        figures = json.loads((folder / "stats.json").read_text())["instances"]["exp1"]["collectors"]
        (figures,) = figures.values()
        self.assertEqual((FLOWS, {}), (figures["records_sent"], figures["dropped"]), said)
        return said

    def both_families(self, scheme, kind, *options):
        for host in ("127.0.0.1", "::1"):
            self.check(scheme, host, free_port(kind), *options)

    def secured(self, scheme, kind):
        """Each side proves who it is."""
        ca = CA(temporary("matrix"))
        words = []
        for names in (("exporter", "exporter.example"), ("collector", "localhost", "127.0.0.1", "::1")):
            cert, key = ca.issue(*names)
            words.append(f'ca="{ca.file}"\ncert="{cert}"\nprivate_key="{key}"')
        self.both_families(scheme, kind, "", *words)

    def test_udp(self):
        """Over UDP."""
        self.both_families("udp", "udp")

    def test_tcp(self):
        """Over TCP."""
        self.both_families("tcp", "tcp")

    def test_tls(self):
        """Over TLS, with both certificates."""
        self.secured("tls", "tcp")

    def test_dtls(self):
        """Over DTLS, with both certificates."""
        self.secured("dtls", "udp")

    def test_sctp_in_udp(self):
        """Over SCTP in user space, within UDP."""
        require_library("libusrsctp.so.2", "libusrsctp2")
        for host in ("127.0.0.1", "::1"):
            self.check("sctp", host, 4739, f"encapsulation_port={free_port('udp')}")

    def test_sctp_in_ip(self):
        """Over SCTP in user space, straight in IP, from one host to another."""
        require_library("libusrsctp.so.2", "libusrsctp2")
        require_netns()
        for family in ("ipv4", "ipv6"):
            with NetworkNamespaces() as spaces:
                self.check("sctp", getattr(spaces, family)["b"], 4739, "encapsulation_port=0", spaces=spaces)
