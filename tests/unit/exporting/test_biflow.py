"""Biflows (RFC 5103) through stacks: COLLECTOR to AGGREGATE, and to outputs that ask for ulogd2's reply.* keys."""

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.collecting.doubles import Collecting
from tests.unit.core.doubles import KEEP
from tests.unit.ipfix.test_reverse import BIFLOW, RECORD, REVERSE
from tests.unit.ipfix.wire import a_set, hexed, ipv4, message, template
from ulogd_tw.core.batch import plain_values
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.aggregate import AGGREGATE
from ulogd_tw.plugins.inputs.collector import COLLECTOR

ADDRESSES = (8, 4), (12, 4), (7, 2), (11, 2), (4, 1)
FORTH = hexed("c0000202c00002038002005006")
BACK = hexed("c0000203c00002020050800206")
TUPLE = {
    "sourceAddress": ipv4("192.0.2.2"), "destinationAddress": ipv4("192.0.2.3"), "sourceTransportPort": 32770,
    "destinationTransportPort": 80, "protocolIdentifier": 6,
}  # fmt: skip


def described(fields, *records):
    """A message with a template of these fields, and a record for each octets."""
    return message(a_set(2, template(256, *fields)), a_set(256, *records))


class ASKS(KEEP):
    """Asks for some keys as a table does that has columns for them, and keeps what it finds: a dict for each row."""

    name = "ASKS"
    asked_names = ("reply.raw.pktlen", "reply.raw.pktcount", "orig.raw.pktlen", "orig.raw.pktcount")
    more = ("reverseOctetDeltaCount", "reversePacketDeltaCount")

    def requests(self, wanted):
        return dict.fromkeys((*self.asked_names, *self.more), False)

    def write(self, batch):
        found = {name: self.find(batch, name) for name in self.requests(())}
        values = {name: plain_values(f.values, f.key) for name, f in found.items() if f is not None}
        self.batches += [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


class StackTests(SynchronousTestCase):
    """Messages over TCP, and what reaches the end of the stack."""

    def through(self, *messages, filters=(), output=KEEP, **options):
        """What the output at the end of the stack has kept."""
        classes = {c.name: c for c in (COLLECTOR, AGGREGATE, output)}

        def read(instance, class_):
            return Options(class_.all_options(), options if class_ is AGGREGATE else {}), []

        spec = StackSpec("s", "t:1", (("in", "COLLECTOR"), *filters, ("out", output.name)))
        builder = Builder(lambda name, position: classes[name], read)
        graph = builder.build([spec])
        self.assertEqual([], builder.mistakes)
        found = Collecting(self, plugin=graph.instances["in"])
        connection = found.connect()
        for octets in messages:
            connection.send(octets)
        found.wait()
        for plugin in graph.instances.values():
            if isinstance(plugin, AGGREGATE):
                plugin.flush()
        self.assertEqual({}, found.errors)
        return graph.instances["out"].batches

    def aggregated(self, *messages):
        """Rows of an AGGREGATE by the five-tuple, without the interval."""
        batches = self.through(*messages, filters=(("agg", "AGGREGATE"),), key="5tuple")
        rows = [row for batch in batches for row in batch.rows()]
        return [{name: value for name, value in row.items() if name != "interval_start"} for row in rows]

    def test_aggregate(self):
        """BI-1: reverse octets and packets become reply_octets and reply_packets, of totals and of deltas."""
        first = 1138813200000
        totals = TUPLE | {"octets": 18000, "packets": 65, "reply_octets": 128000, "reply_packets": 110, "flows": 1,
                          "first_ms": first}  # fmt: skip
        (row,) = self.aggregated(described(BIFLOW, RECORD))
        self.assertEqual(totals, row)
        deltas = (*ADDRESSES, (1, 8), (2, 4), (1, 8, REVERSE), (2, 4, REVERSE))
        record = FORTH + hexed("00000000000000640000000200000000000003e800000003")
        (row,) = self.aggregated(described(deltas, record, record))
        self.assertEqual(
            TUPLE | {"octets": 200, "packets": 4, "reply_octets": 2000, "reply_packets": 6, "flows": 2}, row
        )

    def test_total_and_delta(self):
        """VAL-10: deltas of a flow are summed; of a total counter only what its last record says counts."""
        deltas = (*ADDRESSES, (1, 4), (136, 1), (1, 4, REVERSE))
        records = [FORTH + hexed("0000006402000000c8"), FORTH + hexed("0000000a0300000014")]
        (row,) = self.aggregated(described(deltas, *records))
        self.assertEqual((110, 220, 2), (row["octets"], row["reply_octets"], row["flows"]))
        totals = (*ADDRESSES, (85, 4), (136, 1), (85, 4, REVERSE))
        records = [FORTH + hexed("0000006402000000c8"), FORTH + hexed("0000006e03000000dc")]
        (row,) = self.aggregated(described(totals, *records))
        self.assertEqual((110, 220, 2), (row["octets"], row["reply_octets"], row["flows"]))

    def test_sums_alike(self):
        """BI-6: a flow as one biflow or as two uniflows, one a direction, has the same sum of octets and packets."""
        (biflow,) = self.aggregated(described(BIFLOW, RECORD))
        one_way = (*ADDRESSES, (85, 4), (86, 4))
        uniflows = self.aggregated(
            described(one_way, FORTH + hexed("0000465000000041"), BACK + hexed("0001f4000000006e"))
        )
        self.assertEqual(2, len(uniflows))
        for counter in ("octets", "packets"):
            self.assertEqual(biflow[counter] + biflow[f"reply_{counter}"], sum(row[counter] for row in uniflows))

    def test_reply_keys(self):
        """BI-1: whoever asks for ulogd2's reply.raw.pktlen and pktcount gets the reverse totals; deltas are others."""
        totals = self.through(described(BIFLOW, RECORD), output=ASKS)
        self.assertEqual(
            [{"reply.raw.pktlen": 128000, "reply.raw.pktcount": 110, "orig.raw.pktlen": 18000,
              "orig.raw.pktcount": 65}], totals,
        )  # fmt: skip
        fields = (*ADDRESSES, (1, 4), (2, 4), (1, 4, REVERSE), (2, 4, REVERSE))
        record = FORTH + hexed("0000006400000002000003e800000003")
        deltas = self.through(described(fields, record), output=ASKS)
        self.assertEqual([{"reverseOctetDeltaCount": 1000, "reversePacketDeltaCount": 3}], deltas)

    def test_yaf(self):
        """BI-1: the capture of a yaf: both directions of all of its flows add up to what the reference decoder says."""
        folder = shared_path("corpus", "ipfix")
        lines = (folder / "messages" / "telegraf-ipfix-example.jsonl").read_text().splitlines()
        records = json.loads((folder / "oracle" / "telegraf-ipfix-example.json").read_text())["records"]
        fields = [record["fields"] for record in records if "octetTotalCount" in record["fields"]]
        rows = self.aggregated(*(bytes.fromhex(json.loads(line)["hex"]) for line in lines))
        for ours, theirs in (
            ("octets", "octetTotalCount"), ("packets", "packetTotalCount"), ("reply_octets", "reverseOctetTotalCount"),
            ("reply_packets", "reversePacketTotalCount"),
        ):  # fmt: skip
            self.assertEqual(sum(f.get(theirs, 0) for f in fields), sum(row.get(ours, 0) for row in rows), ours)
        self.assertGreater(sum(f.get("reverseOctetTotalCount", 0) for f in fields), 400_000)
