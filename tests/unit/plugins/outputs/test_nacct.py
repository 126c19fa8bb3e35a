"""NACCT: the lines of ulogd2's golden run, made of the same flows."""

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.packets.stacks import source
from tests.unit.writing.text_rows import GOLDEN, ByName, batch_of, printed
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import FLOW
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.outputs.nacct import NACCT

NAMES = {"src_ip": "orig.ip.saddr", "dest_ip": "orig.ip.daddr", "icmp.type": "icmp.type", "icmp.code": "icmp.code"}
ASKED = ("orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "reply.raw.pktlen", "reply.raw.pktcount",
         "flow.end.sec", "ct.event")  # fmt: skip


class Nacct(ByName, NACCT):
    """In such a stack."""


class NacctTests(SynchronousTestCase):
    """The lines."""

    def rows(self):
        """The flows of the golden run, in our keys."""
        for line in shared_path(*GOLDEN, "flow.json").read_text().splitlines():
            said = json.loads(line)
            row = {name: said[name] for name in ASKED if name in said}
            yield row | {ours: said[theirs] for theirs, ours in NAMES.items() if theirs in said}

    def test_golden(self):
        """Every line is ulogd2's; of ICMPv6, which 2.0.8 has no keys of, it has 0 too."""
        expected = shared_path(*GOLDEN, "flow_nacct.log").read_text().splitlines()
        found = printed(self, Nacct, [batch_of([row]) for row in self.rows()]).splitlines()
        self.assertEqual(sorted(expected), sorted(found))
        self.assertGreater(len(found), 20)

    def test_many(self):
        """Many flows at once give the lines that each gives alone."""
        rows = [row for row in self.rows() if "icmp.type" not in row and ":" not in row["orig.ip.saddr"]]
        rows = [row for row in rows if row.keys() == rows[0].keys()]
        alone = "".join(printed(self, Nacct, [batch_of([row])]) for row in rows)
        self.assertEqual(alone * 50, printed(self, Nacct, [batch_of(rows)] * 50))

    def test_missing(self):
        """What a row does not have is 0; ICMPv6 has its type and code."""
        row = {"orig.ip.saddr": "fd00::1", "orig.ip.daddr": "fd00::2", "orig.ip.protocol": 58, "icmpv6.type": 128,
               "icmpv6.code": 3}  # fmt: skip
        self.assertEqual("0\t58\tfd00::1\t128\tfd00::2\t3\t0\t0\n", printed(self, Nacct, [batch_of([row])]))

    def test_one_direction(self):
        """A flow of an exporter, without a reply, has its own counters."""
        row = {"orig.ip.saddr": "192.0.2.1", "orig.ip.daddr": "192.0.2.2", "orig.ip.protocol": 17, "orig.l4.sport": 53,
               "orig.l4.dport": 1000, "flow.end.sec": 9}  # fmt: skip
        for octets, packets in (("octetDeltaCount", "packetDeltaCount"), ("octetTotalCount", "packetTotalCount")):
            line = printed(self, Nacct, [batch_of([row | {octets: 500, packets: 5}])])
            self.assertEqual("9\t17\t192.0.2.1\t53\t192.0.2.2\t1000\t5\t500\n", line)

    def test_in_a_stack(self):
        """Wired by a stack, below an input that gives the keys under their own names."""
        rows = [row for row in self.rows() if "icmp.type" in row][:1]
        batch, path = batch_of(rows), self.mktemp()
        classes = {"SOURCE": source(rows[0]), "NACCT": NACCT}
        classes["SOURCE"].otype = FLOW
        options = {"SOURCE": {}, "NACCT": {"file": path}}

        def read(_, class_):
            return Options(class_.all_options(), options[class_.name]), []

        spec = StackSpec("x", "f:1", (("s", "SOURCE"), ("n", "NACCT")))
        graph = Builder(lambda name, _: classes[name], read).build([spec])
        graph.outputs[0].plugin.open()
        graph.inputs[0].pass_on(batch)
        self.assertEqual(printed(self, Nacct, [batch]), Path(path).read_text())
        self.assertNotIn("0.0.0.0", Path(path).read_text())

    def test_only_ends(self):
        rows = [row | {"ct.event": 1} for row in self.rows()]
        self.assertEqual("", printed(self, Nacct, [batch_of([row]) for row in rows]))
