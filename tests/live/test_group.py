"""Networks of nfacctd and of GROUP on the same flows: as many packets and octets for each pair of them."""

import ipaddress
import json
import random
import signal
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, generate, temporary
from tests.support import Daemon, free_port, require_program, wait_until

N = 20_000
NETWORKS = 1000


def networks():
    """Nested networks of 10.0.0.0/8, where the generator's addresses are, each with a number."""
    chance = random.Random(11)
    found = {ipaddress.ip_network("10.0.0.0/9")}
    while len(found) < NETWORKS:
        bits = chance.choice((10, 12, 14, 16, 18, 20, 22, 24, 28))
        found.add(ipaddress.ip_network((0x0A000000 | chance.getrandbits(24), bits), strict=False))
    return {network: 64512 + number for number, network in enumerate(sorted(found))}


class NfacctdTests(SynchronousTestCase):
    """nfacctd takes the number of an autonomous system from a file of networks; GROUP a name."""

    def test_longest_prefix(self):
        (nfacctd,) = require_program("nfacctd")
        folder = temporary("group")
        theirs, ours = free_port("udp"), free_port("udp")
        listed = networks()
        (folder / "theirs.lst").write_text("".join(f"{number},{network}\n" for network, number in listed.items()))
        (folder / "ours.csv").write_text("".join(f"{network},{number}\n" for network, number in listed.items()))
        (folder / "nfacctd.conf").write_text(
            f"nfacctd_ip: 127.0.0.1\nnfacctd_port: {theirs}\nplugins: print\naggregate: src_as,dst_as\n"
            f"networks_file: {folder}/theirs.lst\nnfacctd_as: file\nnfacctd_net: file\nprint_output: json\n"
            f"print_output_file: {folder}/theirs.json\nprint_output_file_append: true\nprint_refresh_time: 1\n"
            "plugin_buffer_size: 10240\nplugin_pipe_size: 10240000\nnfacctd_pipe_size: 8000000\n"
        )
        config = (
            f'[col1]\nlisten="udp:127.0.0.1:{ours}"\n[group1]\nnetworks="{folder}/ours.csv"\n'
            f'[agg1]\nkey="src.net,dst.net"\ninterval=3600\n[json1]\nfile="{folder}/ours.json"\n'
        )
        argv = [nfacctd, "-f", folder / "nfacctd.conf"]
        with Daemon(argv, lambda daemon: "waiting for" in daemon.output()) as daemon:
            with Service(["col1:COLLECTOR,group1:GROUP,agg1:AGGREGATE,json1:JSON"], config) as service:
                for port in (theirs, ours):
                    sent = generate(f"127.0.0.1:{port}", "-n", N, "-r", 20_000, "-s", 7)
                service.wait_for("col1", "rows_received", N)
            daemon.stop(signal.SIGINT)  # it writes what it still has
        expected = self.read(folder / "theirs.json", "as_src", "as_dst", "packets", "bytes", sent["packets"])
        found = self.read(folder / "ours.json", "src.net", "dst.net", "packets", "octets", sent["packets"])
        self.assertEqual(expected, found)
        self.assertGreater(len(found), 300)

    def read(self, path, source, target, packets, octets, total):
        """(source, target) -> packets and octets, when all packets are there."""
        found = {}

        def whole():
            sums = {what: Counter() for what in (packets, octets)}
            for line in path.read_text().splitlines() if path.exists() else ():
                row = json.loads(line)
                ends = tuple(int(row.get(end) or 0) for end in (source, target))
                for what, counter in sums.items():
                    counter[ends] += row[what]
            found.update({ends: (sums[packets][ends], sums[octets][ends]) for ends in sums[packets]})
            return sum(sums[packets].values()) >= total

        wait_until(whole, 20.0, f"{total} packets in {path}")
        return found
