"""COLLECTOR -> IPFIX between an exporter and nfcapd: the flows that nfcapd gets are those that were sent."""

import json
import subprocess
from datetime import datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate
from tests.support import Daemon, free_port, require_program, wait_until

N = 5000


class MediatorTests(SynchronousTestCase):
    """What goes in, in each protocol, goes out as IPFIX and as NetFlow."""

    def setUp(self):
        self.nfcapd, self.nfdump = require_program("nfcapd", "nfdump")

    def captured(self, send):
        """The flows of nfcapd, which listens while `send` is called with its port."""
        folder, port = Path(self.mktemp()).resolve(), free_port("udp")
        folder.mkdir()
        log = folder.parent / f"{folder.name}.log"
        argv = [self.nfcapd, "-w", folder, "-p", port, "-b", "127.0.0.1", "-t", 3600, "-B", 4_000_000]
        with Daemon(argv, lambda daemon: "Startup nfcapd" in log.read_text(), log=log) as daemon:
            send(port)
            daemon.stop()
        self.assertIn("Bad Packets: 0", log.read_text())
        done = subprocess.run([self.nfdump, "-R", folder, "-o", "json"], capture_output=True, text=True, timeout=60)
        rows = json.loads(done.stdout)
        names = ("first", "last", "proto", "src4_addr", "dst4_addr", "src6_addr", "dst6_addr", "src_port", "dst_port",
                 "in_packets", "in_bytes")  # fmt: skip
        return sorted(tuple(str(row.get(name)) for name in names) for row in rows)

    def through(self, protocol, version):
        """(what nfcapd gets of the generator itself, what it gets through our service)."""
        words = ("-n", N, "-r", 20_000, "-s", 3, "-F", 500, "-p", protocol)
        words += ("-6", 0) if "5" in (version, protocol[1:]) else ()

        def mediated(port):
            near = free_port("udp")
            config = f'[col1]\nlisten="udp:127.0.0.1:{near}"\n[exp1]\ncollectors="udp:127.0.0.1:{port}"\n'
            config += f"version={version}\nflush=0.1\n"
            with Service(["col1:COLLECTOR,exp1:IPFIX"], config) as service:
                generate(f"127.0.0.1:{near}", *words)
                service.wait_for("exp1", "rows_written", N)
                wait_until(lambda: self.sent(service) >= N, 10, "all to be sent")
            self.assertEqual({}, service.counters("exp1")["dropped"])

        return self.captured(lambda port: generate(f"127.0.0.1:{port}", *words)), self.captured(mediated)

    def sent(self, service):
        (collector,) = service.counters("exp1")["collectors"].values()
        return collector["records_sent"]

    def check(self, protocol, version):
        straight, mediated = self.through(protocol, version)
        self.assertEqual(N, len(straight))
        # the generator's times depend on when it starts
        self.assertEqual(sorted(row[2:] for row in straight), sorted(row[2:] for row in mediated))
        # of NetFlow they are a day ahead of its uptime, which we take for the uptime before and nfcapd does not
        apart = abs(_earliest(mediated) - _earliest(straight)) % 4294967.296
        self.assertLess(min(apart, 4294967.296 - apart), 120)

    def test_ipfix(self):
        """IPFIX to IPFIX."""
        self.check("ipfix", "10")

    def test_netflow9(self):
        """NetFlow v9 to IPFIX, whose times stand for themselves."""
        self.check("v9", "10")

    def test_netflow5(self):
        """NetFlow v5 to NetFlow v9."""
        self.check("v5", "9")

    def test_to_netflow5(self):
        """IPFIX to NetFlow v5."""
        self.check("ipfix", "5")


def _earliest(rows):
    return min(datetime.fromisoformat(row[0]).timestamp() for row in rows)
