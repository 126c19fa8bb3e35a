"""NFCT beside the real ulogd2 on the same connections, through the same stack and configuration."""

import contextlib
import json
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, temporary
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, require_program, wait_until

STACK = "ct1:NFCT,ip2str1:IP2STR,json1:JSON"
SECTIONS = '[ct1]\nhash_enable=0\nevent_mask=4\n[json1]\nfile="FILE"\nsync=1\n'
COMPARED = (
    "src_ip", "dest_ip", "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "orig.raw.pktlen", "orig.raw.pktcount",
    "reply.ip.saddr.str", "reply.ip.daddr.str", "reply.ip.protocol", "reply.l4.sport", "reply.l4.dport",
    "reply.raw.pktlen", "reply.raw.pktcount", "icmp.code", "icmp.type", "ct.mark", "ct.id", "ct.event",
    "flow.start.sec", "flow.start.usec", "flow.end.sec", "flow.end.usec",
)  # fmt: skip
ROUNDS = 15


def rows(path):
    """The rows of a file of JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class ConnectionsTests(SynchronousTestCase):
    """Both programs hear the same events of the kernel."""

    def test_as_ulogd2(self):
        """Every end of a connection, key by key.

        ulogd2 2.0.8 has no keys of ICMPv6; all else is the same.
        """
        (ulogd,) = require_program("ulogd")
        require_program("conntrack", "ping")
        folder = temporary("ulogd2")
        (folder / "ulogd.conf").write_text(
            f'[global]\nlogfile="{folder}/log"\nstack={STACK}\n' + SECTIONS.replace("FILE", f"{folder}/flows.json")
        )
        with NetworkNamespaces(conntrack=True) as spaces:
            inside = {"namespace": lambda argv: spaces.argv("a", argv)}
            with Service([STACK], SECTIONS.replace("FILE", "{dir}/flows.json"), **inside) as ours:
                argv = spaces.argv("a", [ulogd, "-c", folder / "ulogd.conf"])
                with Daemon(argv, lambda _: (folder / "log").exists()):
                    wait_until(lambda: self.hears(spaces, folder), 10, "ulogd2 to hear events")
                    with Daemon(server_argv(spaces), lambda d: "ready" in d.output()):
                        run_client(spaces, ROUNDS)
                    spaces.run("a", ["conntrack", "-F"])
                    least = 4 * ROUNDS + 4
                    paths = folder / "flows.json", ours.directory / "flows.json"
                    with contextlib.suppress(AssertionError):
                        wait_until(lambda: all(len(self.told(path)) >= least for path in paths), 20)
                found, expected = self.told(ours.directory / "flows.json"), self.told(folder / "flows.json")
        self.assertEqual(({}, {}), (dict(expected - found), dict(found - expected)))
        self.assertGreaterEqual(len(expected), least)
        for name in ("src_ip", "orig.raw.pktlen", "reply.raw.pktcount", "flow.start.sec", "flow.end.usec"):
            self.assertTrue(all(name in dict(row) for row in expected), name)
        self.assertEqual({4}, {row["ct.event"] for row in rows(ours.directory / "flows.json")})

    def told(self, path):
        """What is told of each connection, without those before the traffic."""
        return Counter(
            tuple((name, row[name]) for name in COMPARED if name in row) for row in rows(path)
            if row.get("dest_ip") != "127.0.0.1"
            and (row.get("orig.l4.dport") in (5000, 5001, 5999) or row["orig.ip.protocol"] in (1, 58))
        )  # fmt: skip

    def hears(self, spaces, folder):
        """Make a connection end until ulogd2 tells of one."""
        spaces.run("a", ["ping", "-c", "1", "127.0.0.1"], check=False)
        spaces.run("a", ["conntrack", "-F"])
        return rows(folder / "flows.json")
