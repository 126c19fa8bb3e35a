"""Rows read from messages: as others write them, and as our output does."""

import io
import json

from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.kafka.test_formats import batch, flow_message
from ulogd_tw.kafka.flow_message import KEYS, varint
from ulogd_tw.kafka.formats import FORMATS, Terms
from ulogd_tw.kafka.row_intake import ROWS
from ulogd_tw.kafka.row_keys import Anywhere, RowKeys

try:
    import pyarrow
    from hypothesis import strategies
except ImportError:
    pyarrow = strategies = None

FOUR, SIX = bytes([192, 0, 2, 1]), bytes([0x20, 1, 13, 0xB8, *[0] * 11, 1])


class ReadCase(SynchronousTestCase):
    """Reads messages, and collects what was wrong."""

    if pyarrow is None:
        skip = "install: pyarrow"

    def read(self, form, *messages):
        self.wrong = []
        found = list(ROWS[form](messages, 1.0, self.wrong.append))
        self.assertTrue(all(one.held for one in found))
        return [row for one in found for row in one.rows()]


class JsonTests(ReadCase):
    """format=json."""

    def test_names(self):
        """Names of keys, and those of the output JSON for ulogd2's keys; what nobody knows is left out."""
        row = {"src_ip": "192.0.2.1", "destinationIPv6Address": "2001:db8::1", "octetDeltaCount": 2**63, "strange": 1,
               "sourceMacAddress": "02:42:ac:11:00:02", "interfaceName": "eth0"}  # fmt: skip
        (found,) = self.read("json", json.dumps(row).encode())
        expected = {"sourceIPv4Address": 0xC0000201, "destinationIPv6Address": int.from_bytes(SIX, "big"),
                    "octetDeltaCount": 2**63, "sourceMacAddress": 0x0242AC110002, "interfaceName": b"eth0"}  # fmt: skip
        self.assertEqual(expected, found)

    def test_families(self):
        """Addresses of both families in one column are rows of two batches; each row is there."""
        rows = [
            {"sourceAddress": "192.0.2.1", "octets": 1},
            {"sourceAddress": "2001:db8::1", "octets": 2},
            {"octets": 3},
        ]
        found = self.read("json", *(json.dumps(row).encode() for row in rows))
        self.assertEqual({1, 2, 3}, {row["octetDeltaCount"] for row in found})
        self.assertIn({"sourceIPv6Address": int.from_bytes(SIX, "big"), "octetDeltaCount": 2}, found)

    def test_mistaken(self):
        """A message that is no JSON is told, and the others are read."""
        found = self.read("json", b'{"octets":1}', b"{", b'{"octets":2}')
        self.assertEqual([{"octetDeltaCount": 1}, {"octetDeltaCount": 2}], found)
        self.assertEqual(1, len(self.wrong))


class ArrowTests(ReadCase):
    """format=arrow."""

    def test_of_another_program(self):
        """Tables of pyarrow, with texts, dictionaries and missing values."""
        table = pyarrow.table({
            "sourceAddress": pyarrow.array(["192.0.2.1", None, "192.0.2.1"]).dictionary_encode(),
            "octetDeltaCount": pyarrow.array([1, 2, None], pyarrow.int64()),
            "interfaceName": ["a", "b", None],
        })  # fmt: skip
        sink = io.BytesIO()
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found = self.read("arrow", sink.getvalue())
        self.assertEqual(
            [{"sourceIPv4Address": 0xC0000201, "octetDeltaCount": 1, "interfaceName": b"a"},
             {"octetDeltaCount": 2, "interfaceName": b"b"}, {"sourceIPv4Address": 0xC0000201}], found,
        )  # fmt: skip

    @given(strategies and strategies.binary(max_size=50))
    def test_mistaken(self, octets):
        """Other octets are told."""
        self.assertEqual([], self.read("arrow", b"x" + octets))
        self.assertEqual(1, len(self.wrong))


class ProtobufTests(ReadCase):
    """format=protobuf."""

    def message(self, **values):
        return flow_message()(type=4, **values).SerializeToString()

    def test_of_another_program(self):
        """Messages that Google's library wrote, of both families."""
        found = self.read(
            "protobuf",
            self.message(src_addr=FOUR, bytes=2**40, src_port=443, time_flow_end_ns=5_000_000, sampler_address=SIX),
            self.message(src_addr=SIX, bytes=1),
        )
        self.assertEqual(2, len(found))
        one = next(row for row in found if "sourceIPv4Address" in row)
        self.assertEqual(
            (0xC0000201, 2**40, 443, 5, int.from_bytes(SIX, "big")),
            tuple(one[name] for name in ("sourceIPv4Address", "octetDeltaCount", "sourceTransportPort",
                                         "flowEndMilliseconds", "exporter")),
        )  # fmt: skip
        self.assertIn(int.from_bytes(SIX, "big"), [row.get("sourceIPv6Address") for row in found])

    def test_unknown_fields(self):
        """Fields that we do not know are passed over, whatever their form."""
        more = b"\xba\x3e\x03abc" + b"\xc1\x3e" + bytes(8) + b"\xcd\x3e" + bytes(4) + b"\xd0\x3e\x96\x01"
        (found,) = self.read("protobuf", self.message(bytes=5) + more + self.message(packets=6))
        self.assertEqual((5, 6), (found["octetDeltaCount"], found["packetDeltaCount"]))

    def test_many(self):
        """Many in one message, with their lengths."""
        octets = [self.message(bytes=n) for n in (1, 300, 2**50)]
        found = self.read("protobuf", b"".join(varint(len(one)) + one for one in octets))
        self.assertEqual([1, 300, 2**50], [row["octetDeltaCount"] for row in found])

    @given(strategies and strategies.binary(max_size=40))
    def test_anything(self, octets):
        """Other octets are read as something, or told; nothing is raised, and the next message is read."""
        found = self.read("protobuf", octets, self.message(bytes=77)) if octets else [{"octetDeltaCount": 77}]
        self.assertIn(77, [row.get("octetDeltaCount") for row in found])


class BackTests(ReadCase):
    """What our output has written."""

    def test_every_form(self):
        """The same rows come back, in messages of one row or of many."""
        rows = batch([5, 6, 7], [443, 80, 1], missing=[False, True, False])
        expected = self.values(rows.rows())
        for form in ROWS:
            for most in (1, 10):
                made = FORMATS[form](Terms(most, 9000, Anywhere(KEYS).find), RowKeys((), Anywhere(()).find))
                messages = [one["value"] for one in made.messages(rows, rows, 0).messages]
                self.assertEqual(expected, self.values(self.read(form, *messages)), (form, most))
                self.assertEqual([], self.wrong)

    @staticmethod
    def values(rows):
        names = ("sourceIPv4Address", "sourceTransportPort", "octetDeltaCount", "destinationIPv4Address",
                 "flowStartMilliseconds")  # fmt: skip
        return sorted([[row.get(name, 0) for name in names] for row in rows])
