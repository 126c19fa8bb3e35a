"""Filters of nfdump and of MATCH on the same flows: as many flows, packets and octets."""

import json
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate
from tests.support import Daemon, free_port, require_program

FILTERS = (
    "proto tcp", "src net 10.0.0.0/9", "dst port < 1024", "port 443 or port 53", "not proto udp",
    "bytes > 10k and packets > 3", "src net 10.0.0.0/8 and dst port 443 and bytes > 1k and not proto icmp",
    "src port in [80 443 8080]", "bpp > 500", "flags S and not flags A", "any",
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
