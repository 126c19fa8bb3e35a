"""Messages to batches: RFC 7011's examples, names and context, sets and padding, many at once."""

import struct

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import (
    COUNTER,
    VARIABLE,
    Collected,
    a_set,
    counts,
    counts_of,
    hexed,
    ipv4,
    ipv6,
    message,
    options_template,
    template,
    varying,
    without_context,
)
from ulogd_tw.core import types
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix import batches as batch_maker
from ulogd_tw.ipfix.context import Context
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.session import Session
from ulogd_tw.ipfix.variable_length import locate


class Rfc7011Tests(SynchronousTestCase):
    """The examples of RFC 7011 appendix A."""

    def test_template_and_data(self):
        """A.2.1 and A.3: a Template Set, and a Data Set of three records with reduced counters."""
        told = hexed("0002001c0100000500080004000c0004000f00040002000400010004")
        data = hexed(
            "01000040"
            "c000020c" "c00002fe" "c0000201" "00001391" "00518c81"
            "c000021b" "c0000217" "c0000202" "000002ec" "0005ef46"
            "c0000238" "c0000241" "c0000203" "00000005" "00001986"
        )  # fmt: skip
        names = ["sourceIPv4Address", "destinationIPv4Address", "ipNextHopIPv4Address", "packetDeltaCount",
                 "octetDeltaCount"]  # fmt: skip
        expected = [
            dict(zip(names, [*map(ipv4, row[:3]), *row[3:]], strict=True))
            for row in (
                ("192.0.2.12", "192.0.2.254", "192.0.2.1", 5009, 5344385),
                ("192.0.2.27", "192.0.2.23", "192.0.2.2", 748, 388934),
                ("192.0.2.56", "192.0.2.65", "192.0.2.3", 5, 6534),
            )
        ]
        found = Collected()
        (batch,) = found.batches(message(told, data))
        self.assertEqual(expected, [without_context(row) for row in batch.rows()])
        self.assertEqual(types.UNSIGNED64, batch.schema["octetDeltaCount"].type)
        self.assertEqual(3, found.counters.rows_received)
        self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_options(self):
        """A.4.1 and A.4.3: line cards as scope, padding after template and data."""
        told = hexed("00030018010200030001008d000400290002002a00020000")
        data = hexed("0102001400000001015927d90000000202b24fb2")
        (batch,) = Collected().batches(message(told, data))
        self.assertEqual(
            [
                {"lineCardId": 1, "exportedMessageTotalCount": 345, "exportedFlowRecordTotalCount": 10201},
                {"lineCardId": 2, "exportedMessageTotalCount": 690, "exportedFlowRecordTotalCount": 20402},
            ],
            [without_context(row) for row in batch.rows()],
        )
        self.assertEqual([b"options"] * 2, batch.columns["record_kind"].to_list())

    def test_variable_length(self):
        """A.5: "hello world" of eleven octets in the short form, a thousand octets in the long one."""
        long = bytes(i % 251 for i in range(1000))
        data = a_set(256, hexed("05") + b"hello", hexed("ff03e8") + long, hexed("ff0003") + b"abc")
        rows = Collected().rows(message(a_set(2, template(256, (82, VARIABLE))), data))
        self.assertEqual([b"hello", long, b"abc"], [row["interfaceName"] for row in rows])


class KeyTests(SynchronousTestCase):
    """Names and order of the keys."""

    def test_repeated(self):
        """TPL-6: every occurrence of an element is kept, in order, with its number; paddingOctets is no key."""
        fields = (8, 4), (8, 4), (210, 3), (4, 1), (8, 4)
        data = a_set(256, hexed("00000001000000020000000600000003"))
        (batch,) = Collected().batches(message(a_set(2, template(256, *fields)), data))
        self.assertEqual(
            ["sourceIPv4Address", "sourceIPv4Address#2", "protocolIdentifier", "sourceIPv4Address#3"], _fields(batch)
        )
        self.assertEqual([1, 2, 3], [batch.columns[f"sourceIPv4Address{n}"].tolist()[0] for n in ("", "#2", "#3")])

    def test_context(self):
        """Who sent it, by what, when: first in the schema, without a copy for each row."""
        told, data = a_set(2, template(256, (4, 1))), a_set(256, b"\6\x11")
        found = Collected(reliable=False)
        (batch,) = found.batches(message(told, data, domain=7, export_time=1234), now=1234.5)
        self.assertEqual(
            ["exporter", "exporter_port", "observationDomainId", "templateId", "record_kind", "received_ms",
             "export_time", "protocolIdentifier"], list(batch.schema)
        )  # fmt: skip
        row = {"exporter": ipv4("192.0.2.1"), "exporter_port": 5000, "observationDomainId": 7, "templateId": 256,
               "record_kind": b"data", "received_ms": 1234500, "export_time": 1234}  # fmt: skip
        self.assertEqual([row | {"protocolIdentifier": 6}, row | {"protocolIdentifier": 17}], list(batch.rows()))
        self.assertEqual(types.IPV4, batch.schema["exporter"].type)
        for name in ("exporter", "exporter_port", "observationDomainId", "templateId", "received_ms", "export_time"):
            self.assertEqual((0,), batch.columns[name].strides, name)
        self.assertEqual(1234.5, batch.now)

    def test_context_of_several(self):
        """Records of several exporters, domains and templates of equal fields are one batch, each row with its own."""
        decoder = Decoder(ALL, Counters("test"))
        sessions = [Session(f"2001:db8::{i}", 9 + i, reliable=False) for i in (1, 2)]
        for i, session in enumerate(sessions):
            for domain in (10, 11):
                ident = 300 + i
                told = a_set(2, template(ident, (4, 1)))
                data = a_set(ident, bytes([domain, domain + 1][: 1 + i]))
                decoder.feed(session, message(told, data, domain=domain, export_time=domain + i), 100.0 + i)
        (batch,) = decoder.drain(105.0, held=True)
        self.assertEqual(
            [
                (ipv6("2001:db8::1"), 10, 10, 300, 100000, 10, 10),
                (ipv6("2001:db8::1"), 10, 11, 300, 100000, 11, 11),
                (ipv6("2001:db8::2"), 11, 10, 301, 101000, 11, 10),
                (ipv6("2001:db8::2"), 11, 10, 301, 101000, 11, 11),
                (ipv6("2001:db8::2"), 11, 11, 301, 101000, 12, 11),
                (ipv6("2001:db8::2"), 11, 11, 301, 101000, 12, 12),
            ],
            [tuple(v for n, v in row.items() if n != "record_kind") for row in batch.rows()],
        )
        self.assertTrue(batch.held)
        self.assertEqual(types.IPV6, batch.schema["exporter"].type)

    def test_families_of_exporters(self):
        """Exporters of both families make two batches; an IPv4 one shown as IPv6 is IPv4; a file has no address."""
        decoder = Decoder(frozenset({"exporter", "protocolIdentifier"}), Counters("test"))
        for peer in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.2", "fe80::1%eth0", "/tmp/flows.ipfix"):
            session = Session(peer, 1, reliable=True)
            decoder.feed(session, message(a_set(2, template(256, (4, 1))), a_set(256, b"\6")), 1.0)
        batches = decoder.drain(1.0)
        self.assertEqual(
            [
                (types.IPV4, [ipv4("192.0.2.1"), ipv4("192.0.2.2")]),
                (types.IPV6, [ipv6("2001:db8::1"), ipv6("fe80::1")]),
                (None, [None]),
            ],
            [
                (batch.schema["exporter"].type if "exporter" in batch.schema else None,
                 [row.get("exporter") for row in batch.rows()])
                for batch in batches
            ],
        )  # fmt: skip

    def test_clash_with_context(self):
        """A template's own observationDomainId stands beside that of the Message, whether or not that one is wanted."""
        told = a_set(3, options_template(256, 1, (149, 4), (145, 2), (149, 4)))
        data = a_set(256, hexed("00000005010100000006"))
        names = ["observationDomainId#2", "templateId#2", "observationDomainId#3"]
        (batch,) = Collected().batches(message(told, data, domain=9))
        self.assertEqual([5, 257, 6], [batch.columns[n].tolist()[0] for n in names])
        self.assertEqual([9], batch.columns["observationDomainId"].tolist())
        (batch,) = Collected(frozenset(names)).batches(message(told, data))
        self.assertEqual(names, list(batch.schema))

    def test_only_wanted(self):
        """Only wanted keys are there; a batch without any still has its rows."""
        told, data = a_set(2, template(256, (8, 4), (4, 1), (1, 4))), a_set(256, hexed("000000010600000063"))
        (batch,) = Collected(frozenset({"octetDeltaCount"})).batches(message(told, data))
        self.assertEqual([{"octetDeltaCount": 99}], list(batch.rows()))
        (batch,) = Collected(frozenset()).batches(message(told, data, data))
        self.assertEqual((2, [], {}), (batch.n, list(batch.schema), batch.columns))


def _fields(batch):
    return list(without_context(dict.fromkeys(batch.schema)))


class SetTests(SynchronousTestCase):
    """Sets, padding, and records that do not fit."""

    def test_padding(self):
        """Octets too few for a record are padding, whatever they are; a set of nothing else has no records."""
        told = a_set(2, COUNTER, bytes(3))
        data = a_set(256, hexed("00000001"), b"\1\2\3")
        found = Collected()
        self.assertEqual(
            [1, 2], counts_of(found.rows(message(told, data, a_set(256, hexed("00000002")), a_set(256, b"\0"))))
        )
        self.assertEqual({}, found.errors)
        self.assertEqual([3], counts_of(found.rows(message(a_set(256, hexed("00000003"), b"\xff\xff"), number=2))))
        self.assertEqual([], found.rows(message(a_set(256), number=3), message(number=3)))
        self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_padding_of_variable_records(self):
        """Less than the smallest record after records of variable length is padding; more is a record that is cut."""
        told = a_set(2, template(256, (82, VARIABLE), (1, 4)))
        one = varying(b"a") + hexed("00000001")
        for rest in (b"", b"\0", bytes(4), b"\xff" * 4):
            found = Collected()
            self.assertEqual(1, len(found.rows(message(told), message(a_set(256, one, rest)))))
            self.assertEqual({}, found.errors)
        for rest in (b"\1" + bytes(4), b"\xff" + bytes(4) + b"\1", b"\xff\0\1" + bytes(4)):
            found = Collected()
            self.assertEqual([], found.rows(message(told), message(a_set(256, one, rest))))
            self.assertEqual({"record": 1}, found.errors)

    def test_unknown_sets(self):
        """SET-2, SET-6: ids 0, 1 and 4 to 255 are skipped and counted, the rest of the Message is read."""
        sets = [a_set(ident, b"1234") for ident in (0, 1, 4, 9, 255)]
        found = Collected()
        self.assertEqual(
            [5], counts_of(found.rows(message(*sets, a_set(2, COUNTER), *sets, a_set(256, hexed("00000005")))))
        )
        self.assertEqual({"set_id": 10}, found.errors)

    def test_no_template(self):
        """TPL-8: data before their template are left out and counted, told once, and the session goes on."""
        found = Collected()
        data = a_set(256, hexed("00000005"))
        self.assertEqual([], found.rows(message(data, data), message(data)))
        self.assertEqual({"no_template": 3}, found.errors)
        self.assertEqual(["domain", "no_template"], found.kinds)
        self.assertEqual(
            [5, 5], counts_of(found.rows(message(data, a_set(2, COUNTER), data, number=77), message(data, number=79)))
        )
        self.assertEqual({"no_template": 4}, found.errors)
        self.assertEqual(0, found.lost)

    def test_domains_and_sessions_apart(self):
        """TPL-4, TPL-5: the same id is another template in another domain or session."""
        decoder = Decoder(ALL, Counters("test"))
        sessions = [Session("192.0.2.1", port, reliable=True) for port in (1, 2)]
        elements = iter((4, 5, 6, 60))
        for session in sessions:
            for domain in (1, 2):
                decoder.feed(session, message(a_set(2, template(256, (next(elements), 1))), domain=domain), 1.0)
        for session in sessions:
            for domain in (1, 2):
                decoder.feed(session, message(a_set(256, b"\4"), domain=domain), 1.0)
        rows = [without_context(row) for batch in decoder.drain(1.0) for row in batch.rows()]
        self.assertEqual(
            [{"protocolIdentifier": 4}, {"ipClassOfService": 4}, {"tcpControlBits": 4}, {"ipVersion": 4}], rows
        )
        decoder.forget(sessions[0])
        decoder.feed(sessions[0], message(a_set(256, b"\4")), 1.0)
        decoder.feed(sessions[1], message(a_set(256, b"\4"), number=1), 1.0)
        self.assertEqual([{"tcpControlBits": 4}], [without_context(r) for b in decoder.drain(1.0) for r in b.rows()])

    def test_order(self):
        """Rows of a layout come in order of arrival, over templates, sets and messages; layouts as they first came."""
        told = a_set(2, COUNTER, template(257, (4, 1)), template(258, (1, 4)), template(259, (82, VARIABLE)))
        found = Collected()
        rows = found.rows(
            message(told),
            message(a_set(257, b"\1"), a_set(258, hexed("00000001")), a_set(256, hexed("00000002")), number=0),
            message(a_set(259, b"\1a"), a_set(256, hexed("00000003")), a_set(257, b"\2\3"), number=3),
            message(a_set(258, hexed("0000000400000005")), a_set(259, b"\1b\1c"), number=7),
        )
        self.assertEqual(
            [{"protocolIdentifier": n} for n in (1, 2, 3)]
            + [{"octetDeltaCount": n} for n in (1, 2, 3, 4, 5)]
            + [{"interfaceName": n} for n in (b"a", b"b", b"c")],
            rows,
        )
        self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_options_apart(self):
        """Records of equal fields are not one batch when one of them are options."""
        told = a_set(2, COUNTER), a_set(3, options_template(257, 1, (1, 4)))
        batches = Collected().batches(message(*told, a_set(257, bytes(4)), a_set(256, bytes(4))))
        self.assertEqual([[b"options"], [b"data"]], [b.columns["record_kind"].to_list() for b in batches])

    def test_memoryview(self):
        """A Message may lie in memory that changes afterwards."""
        found = Collected()
        memory = bytearray(counts(1, 2))
        found.feed(message(a_set(2, COUNTER)))
        found.feed(memoryview(memory))
        memory[:] = bytes(len(memory))
        self.assertEqual([1, 2], counts_of(found.rows()))
        # Nor may what was decoded change when more is decoded.
        (first,) = found.batches(counts(3, number=2))
        found.batches(counts(4, number=3))
        self.assertEqual([3], counts_of(first.rows()))

    def test_octets_do_not_change(self):
        """Columns of octets that fill their records whole are copies, too."""
        found = Collected(frozenset({"interfaceName"}))
        told = message(a_set(2, template(256, (82, 4))))
        (first,) = found.batches(told, message(a_set(256, b"eth0")), message(a_set(256, b"eth1"), number=1))
        found.batches(message(a_set(256, b"eth2"), number=2), message(a_set(256, b"eth3"), number=3))
        self.assertEqual([b"eth0", b"eth1"], first.columns["interfaceName"].to_list())


class BatchTests(SynchronousTestCase):
    """Decoding many at once."""

    def test_batches_share_nothing(self):
        """Draining nothing gives nothing; drained rows do not come again."""
        found = Collected()
        self.assertEqual([], found.batches())
        self.assertEqual(1, len(found.rows(message(a_set(2, COUNTER)), counts(1))))
        self.assertEqual([], found.batches())

    def test_schema_is_shared(self):
        """Batches of one layout have the very same schema, so that what is chosen by schema is chosen once."""
        found = Collected().feed(message(a_set(2, COUNTER)))
        (one,), (two,) = found.batches(counts(1)), found.batches(counts(1, number=1))
        self.assertIs(one.schema, two.schema)

    def test_counters(self):
        """Messages, octets and rows are counted as they came."""
        found = Collected()
        messages = [message(a_set(2, COUNTER)), counts(1, 2), b"xx", counts(3, number=2)]
        found.rows(*messages)
        counters = found.counters
        self.assertEqual(
            (4, sum(map(len, messages)), 3),
            (counters.messages_received, counters.octets_received, counters.rows_received),
        )

    def test_different_sizes(self):
        """Sets of equal and of different sizes, few and many, with and without padding, give the same rows."""
        random = np.random.default_rng(1)
        for n in (1, 2, 63, 64, 65, 300):
            for most in (1, 5):
                found, expected, number = Collected().feed(message(a_set(2, COUNTER))), [], 0
                for _ in range(n):
                    values = random.integers(0, 1 << 32, int(random.integers(0, most + 1))).tolist()
                    body = b"".join(struct.pack("!I", v) for v in values) + bytes(int(random.integers(0, 4)))
                    found.feed(message(a_set(256, body), number=number))
                    number += len(values)
                    expected += values
                self.assertEqual(expected, counts_of(found.rows()))
                self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_own_error(self):
        """An error of ours costs the records of one layout, counted and told; others come, and later ones."""
        for layouts in ((COUNTER, template(257, (27, 16))), (template(257, (82, VARIABLE)), COUNTER)):
            found, faults = Collected().feed(message(a_set(2, *layouts))), []
            found.decoder.fault = lambda error, faults=faults: faults.append(type(error).__name__)
            names, self.fails = Context.columns, True

            def wrong(context, layout, *rest, names=names):
                if self.fails and len(layout.fields) == 1 and layout.fields[0].ident in (27, 82):
                    raise LookupError
                return names(context, layout, *rest)

            self.patch(Context, "columns", wrong)
            other = a_set(257, varying(b"lo") if layouts[1] is COUNTER else bytes(16))
            sent = [message(other, number=0), counts(1, number=1), message(other, number=2)]
            self.assertEqual([1], counts_of(found.rows(*sent)))
            self.assertEqual(["LookupError"], faults)
            self.assertEqual(({"error": 2}, 3), (found.counters.dropped, found.counters.rows_received))
            self.fails = False
            self.assertEqual(4, len(found.rows(*sent, message(other, number=3))))

    def test_own_error_in_locating(self):
        """The same where records of variable length begin and end."""
        found, faults = Collected().feed(message(a_set(2, COUNTER, template(257, (82, VARIABLE))))), []
        found.decoder.fault = lambda error: faults.append(type(error).__name__)
        self.patch(batch_maker, "locate", lambda *_: {}[0])
        sent = [message(a_set(257, varying(b"lo"))), counts(1, number=1), message(a_set(257, varying(b"lo")), number=2)]
        self.assertEqual([1], counts_of(found.rows(*sent)))
        self.assertEqual(["KeyError"], faults)
        self.patch(batch_maker, "locate", locate)
        self.assertEqual(3, len(found.rows(*sent)))
