"""Templates with the headers of a tunnel and of what is in it: one layer for the whole tuple."""

import json

from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.ipfix.test_netflow import v9
from tests.unit.ipfix.test_record_encoder import octets_of
from tests.unit.ipfix.test_scopes import flows, flows9, record
from tests.unit.ipfix.wire import Collected, a_set, ipv4, ipv6, message, options_template, template
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.header_layers import layers
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.template import Field

SRV6 = [(2, 8), (1, 8), (27, 16), (28, 16), (10, 4), (31, 4), (64, 4), (7, 2), (11, 2), (4, 1), (6, 1), (5, 1),
        (302, 1), (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 1), (5, 1)]  # fmt: skip
"""IOS-XR: an IPv4 packet in SRv6, as pmacct and NetGauze have it."""
OUTER6, OUTER6D = ipv6("2001:db8:1::1"), ipv6("2001:db8:2::2")
VALUES = (20, 2240, OUTER6, OUTER6D, 42, 7, 0, 0, 0, 4, 0, 1, 1, ipv4("192.0.2.144"), ipv4("198.51.100.154"), 1024,
          862, 17, 16, 2)  # fmt: skip


def srv6():
    """A Message with its template and one record."""
    row = record(*((size, value) for (_, size), value in zip(SRV6, VALUES, strict=True)))
    return message(flows(340, SRV6, row))


INNER = {"sourceIPv4Address": ipv4("192.0.2.144"), "destinationIPv4Address": ipv4("198.51.100.154"),
         "sourceTransportPort": 1024, "destinationTransportPort": 862, "protocolIdentifier": 17, "tcpControlBits": 16,
         "ipClassOfService": 2}  # fmt: skip
OUTER = {"sourceIPv6Address": OUTER6, "destinationIPv6Address": OUTER6D, "flowLabelIPv6": 7, "ipv6ExtensionHeaders": 0,
         "sourceTransportPort": 0, "destinationTransportPort": 0, "protocolIdentifier": 4, "tcpControlBits": 0,
         "ipClassOfService": 1}  # fmt: skip
COMMON = {"packetDeltaCount": 20, "octetDeltaCount": 2240, "ingressInterface": 42, "selectorId": 1}


def second(row):
    """The same under the names of further occurrences."""
    return {f"{name}#2": value for name, value in row.items()}


class LayersTests(SynchronousTestCase):
    """Which fields are of which layer."""

    def row(self, layer, octets=None, wanted=ALL):
        self.found = Collected(wanted, layer=layer)
        (row,) = self.found.rows(octets or srv6())
        return row

    def test_inner(self):
        """All of the inner header under the plain names, none of the outer; the outer one as a tunnel, and as #2."""
        tunnel = {"tunnel.source": OUTER6, "tunnel.destination": OUTER6D, "tunnel.protocol": 4}
        self.assertEqual(INNER | second(OUTER) | COMMON | tunnel, self.row("inner"))

    def test_outer(self):
        """All of the outer header under the plain names, none of the inner."""
        self.assertEqual(OUTER | second(INNER) | COMMON, self.row("outer"))

    def test_as_they_stand(self):
        """A decoder that is asked for no layer names occurrences as they stand."""
        row = self.row("")
        self.assertEqual((0, 1024, 4, 17), tuple(row[name] for name in (
            "sourceTransportPort", "sourceTransportPort#2", "protocolIdentifier", "protocolIdentifier#2")))  # fmt: skip

    def test_asked_for(self):
        """Only what is asked for is read, also where a tunnel's key is made of another."""
        wanted = frozenset({"tunnel.source", "protocolIdentifier"})
        self.assertEqual({"tunnel.source": OUTER6, "protocolIdentifier": 17}, self.row("inner", wanted=wanted))

    def test_ipv4_outside(self):
        """An IPv4 tunnel: its ends are mapped into IPv6, as BASE has them; NetFlow v9 too."""
        fields = [(8, 4), (12, 4), (4, 1), (8, 4), (12, 4), (4, 1), (1, 4)]
        row = record((4, 1), (4, 2), (1, 47), (4, 3), (4, 4), (1, 6), (4, 9))
        for octets in (message(flows(256, fields, row)), v9(flows9(256, fields, row))):
            got = self.row("inner", octets)
            self.assertEqual((0xFFFF << 32 | 1, 0xFFFF << 32 | 2, 47), (
                got["tunnel.source"], got["tunnel.destination"], got["tunnel.protocol"]))  # fmt: skip
            self.assertEqual((3, 4, 6, 9), (got["sourceIPv4Address"], got["destinationIPv4Address"],
                                            got["protocolIdentifier"], got["octetDeltaCount"]))  # fmt: skip

    def test_segment(self):
        """VXLAN: the VNI is the identifier of the tunnel, without the octet of its type (RFC 7133)."""
        fields = [(8, 4), (12, 4), (4, 1), (351, 8), (8, 4), (12, 4), (4, 1)]
        row = record((4, 1), (4, 2), (1, 17), (8, 1 << 56 | 5001), (4, 3), (4, 4), (1, 6))
        for layer, expected in (("inner", (5001, 17, 3)), ("outer", (None, None, 1))):
            got = self.row(layer, message(flows(256, fields, row)))
            names = ("tunnel.id", "tunnel.protocol", "sourceIPv4Address")
            self.assertEqual(expected, tuple(got.get(name) for name in names))
        got = self.row("inner", message(flows(256, fields, row)), wanted=frozenset({"tunnel.id"}))
        self.assertEqual({"tunnel.id": 5001}, got)

    def test_side_by_side(self):
        """Elements in pairs, outer and inner one beside the other."""
        fields = [(27, 16), (27, 16), (28, 16), (28, 16), (4, 1), (4, 1)]
        got = self.row(
            "inner", message(flows(256, fields, record((16, 1), (16, 2), (16, 3), (16, 4), (1, 41), (1, 6))))
        )
        self.assertEqual(
            (2, 4, 6), (got["sourceIPv6Address"], got["destinationIPv6Address"], got["protocolIdentifier"])
        )
        self.assertEqual((1, 3, 41), (got["tunnel.source"], got["tunnel.destination"], got["tunnel.protocol"]))

    def test_three_layers(self):
        """The innermost of three; the tunnel is the outermost."""
        fields = [(8, 4), (12, 4), (4, 1)] * 3
        row = record(*((size, value) for value in (1, 2, 3) for size in (4, 4, 1)))
        got = self.row("inner", message(flows(256, fields, row)))
        self.assertEqual((3, 3), (got["sourceIPv4Address"], got["protocolIdentifier"]))
        self.assertEqual(
            (0xFFFF << 32 | 1, 1, 2), (got["tunnel.source"], got["tunnel.protocol"], got["protocolIdentifier#3"])
        )
        got = self.row("outer", message(flows(256, fields, row)))
        self.assertEqual((1, 1), (got["sourceIPv4Address"], got["protocolIdentifier"]))

    def test_ports_only(self):
        """A tuple whose ports alone stand there twice: the last ones are those of the inner header."""
        fields = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (7, 2), (11, 2)]
        got = self.row(
            "inner", message(flows(256, fields, record((4, 1), (4, 2), (2, 3), (2, 4), (1, 6), (2, 5), (2, 6))))
        )
        self.assertEqual((1, 6, 5, 6), (got["sourceIPv4Address"], got["protocolIdentifier"], got["sourceTransportPort"],
                                        got["destinationTransportPort"]))  # fmt: skip

    def test_other_elements(self):
        """Other elements of headers that stand there twice, such as MAC addresses and DSCP: those of the inner one."""
        idents = (56, 80, 5, 56, 80, 5, 8, 12, 27, 28, 234, 234)
        found = layers([Field(0, ident, 4) for ident in idents])
        self.assertEqual((0, 0, 0, 1, 1, 1, *[None] * 6), found.of_fields)
        fields = [(56, 6), (80, 6), (5, 1), (56, 6), (80, 6), (5, 1), (8, 4), (12, 4)]
        sent = message(flows(256, fields, record(*((size, place) for place, (_, size) in enumerate(fields)))))
        both = {"sourceIPv4Address": 6, "destinationIPv4Address": 7}
        first, last = ({"sourceMacAddress": at, "destinationMacAddress": at + 1, "ipClassOfService": at + 2}
                       for at in (0, 3))  # fmt: skip
        self.assertEqual(last | second(first) | both, self.row("inner", sent))
        self.assertEqual(first | second(last) | both, self.row("outer", sent))

    def test_one_layer(self):
        """Both families in one template are no tunnel, nor are elements of no header that stand there twice."""
        for idents in ((8, 12, 27, 28, 7, 11, 4), (8, 12, 234, 234, 5), (1, 1)):
            self.assertIsNone(layers([Field(0, ident, 4) for ident in idents]), idents)

    def test_sent_on(self):
        """A mediator sends the layers in the order in which they came: its collector finds the same ones."""
        made = RecordEncoder(Counters("test"))
        (batch,) = Collected(ALL, layer="inner").batches(srv6())
        found, expected = Collected(ALL, layer="inner"), INNER | second(OUTER) | COMMON
        (row,) = found.rows(*octets_of(made, list(made.records(batch))))
        self.assertEqual(expected, {name: value for name, value in row.items() if name in expected})

    def test_options(self):
        """Options templates are left as they are: IOS-XR's table of VRFs has one element as scope and field."""
        found = Collected(ALL, layer="inner")
        told = a_set(3, options_template(300, 1, (4, 1), (4, 1)))
        self.assertEqual([{"protocolIdentifier": 6, "protocolIdentifier#2": 17}],
                         found.rows(message(told, a_set(300, bytes([6, 17])))))  # fmt: skip

    def test_said(self):
        """The log is told once."""
        self.row("inner")
        self.found.rows(srv6())
        self.assertEqual(["inner"], [event.detail for event in self.found.decoder.events if event.kind == "layers"])
        found = Collected(ALL, layer="inner")
        found.rows(message(a_set(2, template(256, (4, 1))), a_set(256, b"\6")))
        self.assertNotIn("layers", found.kinds)

    def test_corpus(self):
        """Captures of IOS-XR: the inner tuple is that which stands second in the reference."""
        case = "pmacct-400-ipfixv10-bmp-cisco-srv6-multiple-sources-00"
        lines = shared_path("corpus", "ipfix", "messages", f"{case}.jsonl").read_text().splitlines()
        oracle = json.loads(shared_path("corpus", "ipfix", "oracle", f"{case}.json").read_text())
        found = Collected(ALL, reliable=False, layer="inner")
        rows = found.rows(*(bytes.fromhex(json.loads(line)["hex"]) for line in lines))
        expected = sorted(
            r["fields"]["sourceTransportPort#2"] for r in oracle["records"] if "sourceTransportPort#2" in r["fields"]
        )
        self.assertGreater(len(expected), 3)
        self.assertEqual(expected, sorted(row["sourceTransportPort"] for row in rows if "tunnel.protocol" in row))
