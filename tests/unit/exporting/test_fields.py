"""The option `fields` of the exporter: which records become of which rows, as another reader sees them."""

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import Collecting
from tests.unit.exporting.doubles import V4, V6, exporter, flows
from tests.unit.ipfix.wire import a_set, message, options_template, template
from tests.unit.plugins.outputs.test_ipfix import RecordsCase
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.exporting import flow_records
from ulogd_tw.plugins.outputs.ipfix import IPFIX

REVERSE = 29305
START, END = 1700000000250, 1700000005999


class BiflowTests(RecordsCase):
    """fields=biflow: one record a connection (RFC 5103)."""

    def one(self, batch):
        ((_, record),) = self.records(batch, fields="biflow")
        return record

    def test_two_directions(self):
        """BI-5: the reply is the reverse elements; biflowDirection says that the source began."""
        expected = {
            8: V4["a"], 12: V4["b"], 7: 1024, 11: 443, 4: 6, 1: 1000, 2: 10, (REVERSE, 1): 2**32, (REVERSE, 2): 20,
            152: START, 153: END, 136: 3, 148: 100, 239: 1,
        }  # fmt: skip
        self.assertEqual(expected, self.one(flows(1)))

    def test_family(self):
        record = self.one(flows(1, six=True))
        self.assertEqual((V6["a"][0] << 64 | V6["a"][1], False), (record[27], 8 in record))

    def test_missing(self):
        """A counter that the kernel did not keep is no field; that of a reply without packets is 0."""
        record = self.one(flows(1, without=("reply.raw.pktlen",), reply__raw__pktcount=0))
        self.assertEqual((0, False), (record[REVERSE, 2], (REVERSE, 1) in record))

    def test_uniflow_has_none(self):
        """BI-4: records of one direction have no reverse elements; the source of the original is who began."""
        found = [record for _, record in self.records(flows(1), fields="uniflow")]
        self.assertEqual([(0, V4["a"]), (1, V4["b"])], [(r[61], r[8]) for r in found])
        self.assertTrue(all(isinstance(element, int) for record in found for element in record))

    def test_translated(self):
        """Addresses and ports after translation, only where something was translated."""
        batch = flows(2, reply__ip__daddr=[V4["nat"], V4["a"]], reply__l4__dport=[5000, 1025])
        found = [r for _, r in self.records(batch, fields="biflow")]
        (translated,) = [r for r in found if 225 in r]
        self.assertEqual((V4["nat"], V4["b"], 5000, 443), tuple(translated[e] for e in (225, 226, 227, 228)))
        (other,) = [r for r in found if 225 not in r]
        self.assertEqual({225, 226, 227, 228}, set(translated) - set(other))

    def test_icmp(self):
        """Type and code of the query in place of ports."""
        record = self.one(flows(1, orig__ip__protocol=1, icmp__type=8, icmp__code=0))
        self.assertEqual((0x0800, False, False), (record[32], 7 in record, 11 in record))

    def test_only_ends(self):
        self.assertEqual([], self.records(flows(3, ct__event=1), fields="biflow"))
        self.assertEqual(3, self.plugin.counters.rows_filtered)


class NamesTests(RecordsCase):
    """fields=NAME,...: the keys that are named, in this order, of any rows."""

    def test_names(self):
        """Keys of a connection by either vocabulary; a number with fewer octets has them on the wire."""
        fields = "sourceAddress,orig.l4.dport,orig.raw.pktlen:4,reply.raw.pktlen"
        ((ident, record),) = self.records(flows(1), fields=fields)
        self.assertEqual({8: V4["a"], 11: 443, 85: 1000, (REVERSE, 85): 2**32}, record)
        lengths = [field.length for field in self.plugin.flows.outgoing.templates[ident].fields]
        self.assertEqual([4, 2, 4, 8], lengths)

    def test_too_large(self):
        """VAL-7: A value that the shorter field cannot have is left out and counted, never cut."""
        found = self.records(flows(2, orig__raw__pktlen=[7, 1 << 16]), fields="orig.raw.pktlen:2,orig.l4.dport")
        self.assertEqual([{85: 7, 11: 443}, {11: 443}], sorted((r for _, r in found), key=len, reverse=True))
        self.assertEqual({"unfit": 1}, dict(self.plugin.counters.errors))

    def test_none_there(self):
        """Rows without any of the keys are dropped and counted."""
        batch = self.collected(3, ingressInterface=1)
        self.assertEqual([], self.records(batch, fields="octetDeltaCount"))
        self.assertEqual(3, self.plugin.counters.dropped["no_fields"])

    def test_mistakes(self):
        """What is wrong is said, with what was probably meant."""
        for text, expected in (
            ("octetDeltaCont", "there is no key octetDeltaCont; did you mean octetDeltaCount?"),
            ("uniflw", "there is no key uniflw; did you mean uniflow?"),
            ("flow.start.usec", "flow.start.usec has no Information Element"),
            ("octetDeltaCount:9", "octetDeltaCount:9: a value of type unsigned64 cannot have 9 octets"),
            ("octetDeltaCount:x", "octetDeltaCount:x: 'x' is not a number of octets"),
            ("sourceAddress:2", "sourceAddress:2: only numbers can be shortened"),
            (" ", "is empty; it is one of auto, all, uniflow, biflow, or names of keys"),
        ):
            plugin = IPFIX("e", Options(IPFIX.all_options(), {"fields": text, "collectors": ("udp:192.0.2.1",)}))
            self.assertEqual([("fields", expected)], list(plugin.mistakes()))


class LengthTests(RecordsCase):
    """Records of variable length."""

    def test_too_long(self):
        """One that fits into no message is dropped and counted; the others arrive."""
        key = known("interfaceName")
        texts = [b"eth0", b"x" * 2000, b"y" * 400, b"z"]
        batch = Batch(Schema([key]), {key.name: Octets.of(texts)}, n=4, now=1700000006.0)
        found = [record[82] for _, record in self.records(batch, mtu=600)]
        self.assertEqual([b"eth0", b"y" * 400, b"z"], found)
        self.assertEqual({"too_long": 1}, self.plugin.collectors[0].figures()["dropped"])


class RequestsTests(SynchronousTestCase):
    """What is asked of a stack, and so decoded."""

    def asked(self, fields, *above):
        made = exporter(collectors=("udp:192.0.2.1",))
        return flow_records.FlowRecords(made.counters, made.find, flow_records.parse(fields)).requests(
            frozenset(above) if above else None
        )

    def test_of_connections(self):
        """Only what the records have; unless all is asked for."""
        connections = tuple(flows(1).schema)
        for fields in ("auto", "biflow", "uniflow"):
            self.assertIn("ct.id", self.asked(fields, *connections))
        self.assertIs(ALL, self.asked("all", *connections))

    def test_of_others(self):
        self.assertIs(ALL, self.asked("auto"))
        self.assertIs(ALL, self.asked("auto", "octetDeltaCount"))
        self.assertNotIn("flowLabelIPv6", self.asked("uniflow"))
        self.assertTrue(self.asked("flowLabelIPv6")["flowLabelIPv6"])


class MediatorTests(RecordsCase):
    """A message that a collector receives goes out again: its records keep everything, and who sent them."""

    def through(self, *messages, **options):
        collected = Collecting(self)
        connection = collected.connect()
        for octets in messages:
            connection.send(octets)
        collected.wait()
        return self.records(*collected.batches, **options)

    def test_any_template(self):
        """Any element, of enterprises and of variable length too, in the widths that came."""
        told = a_set(2, template(999, (8, 4), (1, 5), (82, 65535), (77, 3, 4242)))
        data = a_set(999, struct.pack("!I", 1) + (1 << 39).to_bytes(5, "big") + b"\x04eth0" + b"abc")
        ((_, record),) = self.through(message(told, data, domain=7))
        self.assertEqual({8: 1, 1: 1 << 39, 82: b"eth0", (4242, 77): b"abc", 405: 7}.items() - record.items(), set())
        self.assertEqual({130, 217, 258, 405}, set(record) & {130, 131, 217, 258, 405})

    def test_biflow(self):
        """Reverse elements of a collected biflow stay what they are."""
        told = a_set(2, template(256, (8, 4), (1, 4), (1, 4, REVERSE)))
        ((_, record),) = self.through(message(told, a_set(256, struct.pack("!III", 1, 2, 3))))
        self.assertEqual((1, 2, 3), (record[8], record[1], record[REVERSE, 1]))

    def test_uniflow_of_any_counters(self):
        """Octets as a total beside packets as a delta, or the other way round: both ways have both, as they are."""
        for octets, packets in ((85, 2), (1, 86), (85, 86), (1, 2)):
            told = a_set(2, template(256, (8, 4), (12, 4), (octets, 4), (packets, 4), (octets, 4, REVERSE),
                                     (packets, 4, REVERSE)))  # fmt: skip
            sent = message(told, a_set(256, struct.pack("!6I", 1, 2, 500, 5, 600, 6)))
            found = [record for _, record in self.through(sent, fields="uniflow")]
            expected = [{8: 1, 12: 2, octets: 500, packets: 5}, {8: 2, 12: 1, octets: 600, packets: 6}]
            self.assertEqual(expected, found, (octets, packets))

    def test_options(self):
        """Options records stay options records, about the exporter that sent them."""
        told = a_set(3, options_template(300, 1, (10, 4), (82, 4)))
        self.assertEqual([], self.through(message(told, a_set(300, struct.pack("!I4s", 5, b"eth5")))))
        ((ident, record),) = self.reader.told
        self.assertEqual((3, 5, b"eth5"), (self.reader.scopes[ident], record[10], record[82]))

    def test_relative_times(self):
        """Times before the Export Time become times of their own: the new Message has another Export Time."""
        told = a_set(2, template(256, (8, 4), (158, 4), (159, 4)))
        data = a_set(256, struct.pack("!III", 1, 5_000_000, 1_000_000))
        ((_, record),) = self.through(message(told, data, export_time=1_700_000_000))
        self.assertEqual((1_699_999_995_000, 1_699_999_999_000), (record[152], record[153]))
        self.assertEqual(set(), {158, 159} & set(record))
