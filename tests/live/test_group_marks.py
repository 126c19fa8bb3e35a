"""GROUP names connections by the marks and zones that a firewall gives them in a real kernel."""

import json
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, temporary
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, require_program, wait_until

RULES = """
table inet names {
    chain early {
        type filter hook output priority -310;
        udp dport 5001 ct zone set 7
    }
    chain marks {
        type filter hook output priority 0;
        tcp dport 5000 ct mark set 0x110
        udp dport 5001 ct mark set 0x0225
    }
}
"""
CONFIG = """
[ct1]
[group1]
marks="{dir}/marks"
zones="{dir}/zones"
[out]
file="{dir}/flows.json"
"""


class MarkTests(SynchronousTestCase):
    """NFCT -> GROUP -> JSON in a network namespace."""

    def test_marks_and_zones(self):
        """Each connection has the name that the rule of its service means, others have none."""
        require_program("nft")
        folder = temporary("marks")
        (folder / "marks").write_text("0x110,web\n0x200/0xff00,containers\n0x0225/0xffff,resolver\n")
        (folder / "zones").write_text("7,tenant seven\n")
        with NetworkNamespaces() as spaces:
            spaces.run("a", ["nft", "-f", "-"], input=RULES)
            with (
                Daemon(server_argv(spaces), lambda daemon: "ready" in daemon.output()),
                Service(["ct1:NFCT,group1:GROUP,out:JSON"], CONFIG, directory=folder,
                        namespace=lambda argv: spaces.argv("a", argv)) as service,
            ):  # fmt: skip
                run_client(spaces, 5)
                spaces.run("a", ["conntrack", "-D"], check=False)
                spaces.run("a", ["conntrack", "-D", "-f", "ipv6"], check=False)
                wait_until(lambda: len(self.rows(folder)) >= 24, 20, "the ends of all connections")
            self.assertEqual({}, service.counters("group1")["errors"])
        found = Counter((row["orig.ip.protocol"], row.get("orig.l4.dport"), row.get("mark_name"), row.get("zone.name"))
                        for row in self.rows(folder))  # fmt: skip
        self.assertEqual(10, found[6, 5000, "web", None])
        self.assertEqual(10, found[17, 5001, "resolver", "tenant seven"])
        self.assertEqual({(6, 5000), (17, 5001)}, {key[:2] for key in found if key[2] or key[3]})
        self.assertGreater(sum(n for key, n in found.items() if not key[2]), 2)

    def rows(self, folder):
        """What is written so far."""
        path = folder / "flows.json"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]
