"""Messages to batches: RFC 7011's examples, every type and size, templates and their end, what is malformed, limits."""

import struct

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import (
    VARIABLE,
    Collected,
    a_set,
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
from ulogd_tw.ipfix.decoder import Decoder, Limits
from ulogd_tw.ipfix.session import Session


def octets(text):
    return bytes.fromhex(text)


COUNTER = template(256, (1, 4))
"""A template of one octetDeltaCount of four octets."""


def counts(*values, number=0, **more):
    """A Message of records of `COUNTER`."""
    return message(a_set(256, *(struct.pack("!I", v) for v in values)), number=number, **more)


class Rfc7011Tests(SynchronousTestCase):
    """The examples of RFC 7011 appendix A."""

    def test_template_and_data(self):
        """A.2.1 and A.3: a Template Set, and a Data Set of three records with reduced counters."""
        told = octets("0002001c" "01000005" "00080004" "000c0004" "000f0004" "00020004" "00010004")
        data = octets(
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
        told = octets("00030018" "0102" "0003" "0001" "008d0004" "00290002" "002a0002" "0000")
        data = octets("01020014" "00000001" "0159" "27d9" "00000002" "02b2" "4fb2")
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
        data = a_set(256, octets("05") + b"hello", octets("ff03e8") + long, octets("ff0003") + b"abc")
        rows = Collected().rows(message(a_set(2, template(256, (82, VARIABLE))), data))
        self.assertEqual([b"hello", long, b"abc"], [row["interfaceName"] for row in rows])


class ValueTests(SynchronousTestCase):
    """RFC 7011 section 6: every type at every size, one field a template."""

    def value(self, field, *values):
        """(key, values) of records of one field."""
        records = [varying(v) for v in values] if field[1] == VARIABLE else values
        self.found = Collected()
        (batch,) = self.found.batches(message(a_set(2, template(256, field)), a_set(256, *records)))
        (name,) = [n for n in batch.schema if batch.schema[n].name not in ("exporter",) and n in _fields(batch)]
        column = [without_context(row).get(name) for row in batch.rows()]
        return batch.schema[name], column

    def test_unsigned(self):
        """octetDeltaCount (64 bits) of 1 to 8 octets keeps value and type."""
        for size in range(1, 9):
            largest = (1 << 8 * size) - 1
            values = [0, 1, 0x0123456789ABCDEF & largest, largest]
            key, found = self.value((1, size), *(v.to_bytes(size, "big") for v in values))
            self.assertEqual((types.UNSIGNED64, values), (key.type, found))

    def test_wider_unsigned(self):
        """sourceTransportPort (16 bits) of 3 to 8 octets becomes the type that holds it."""
        for size, held in ((1, types.UNSIGNED16), (2, types.UNSIGNED16), (3, types.UNSIGNED32), (4, types.UNSIGNED32),
                           (5, types.UNSIGNED64), (8, types.UNSIGNED64)):  # fmt: skip
            largest = (1 << 8 * size) - 1
            key, found = self.value((7, size), largest.to_bytes(size, "big"), (5).to_bytes(size, "big"))
            self.assertEqual((held, [largest, 5]), (key.type, found))

    def test_signed(self):
        """Two's complement keeps its sign at every size: mibObjectValueInteger (434, 32 bits)."""
        for size in range(1, 9):
            top = 1 << 8 * size - 1
            values = [-top, -1, 0, 1, top - 1]
            key, found = self.value((434, size), *(v.to_bytes(size, "big", signed=True) for v in values))
            self.assertEqual(types.SIGNED32 if size <= 4 else types.SIGNED64, key.type)
            self.assertEqual(values, found)

    def test_floats(self):
        """samplingProbability (311, float64) of 8 and of 4 octets; 3 octets are no float."""
        self.assertEqual(
            (types.FLOAT64, [0.1, -2.5]), _typed(self.value((311, 8), struct.pack("!d", 0.1), struct.pack("!d", -2.5)))
        )
        self.assertEqual((types.FLOAT64, [0.5]), _typed(self.value((311, 4), struct.pack("!f", 0.5))))
        self.assertEqual((types.OCTETS, [b"abc"]), _typed(self.value((311, 3), b"abc")))

    def test_booleans(self):
        """dataRecordsReliability (276): 1 true, 2 false; anything else is missing and counted."""
        key, found = self.value((276, 1), b"\1", b"\2", b"\0", b"\3", b"\xff")
        self.assertEqual((types.BOOLEAN, [True, False, None, None, None]), (key.type, found))
        self.assertEqual({"value": 3}, self.found.errors)

    def test_addresses(self):
        """IPv4, IPv6 and MAC addresses; at another size they are octets."""
        self.assertEqual((types.IPV4, [0xC0000201]), _typed(self.value((8, 4), octets("c0000201"))))
        address = octets("20010db8000000000000000000000042")
        self.assertEqual((types.IPV6, [ipv6("2001:db8::42")]), _typed(self.value((27, 16), address)))
        self.assertEqual((types.MAC, [0x02AABBCCDDEE]), _typed(self.value((56, 6), octets("02aabbccddee"))))
        self.assertEqual((types.OCTETS, [address]), _typed(self.value((8, 16), address)))
        self.assertEqual((types.OCTETS, [b"1234"]), _typed(self.value((27, 4), b"1234")))
        self.assertEqual((types.OCTETS, [b"12345678"]), _typed(self.value((56, 8), b"12345678")))

    def test_times(self):
        """Seconds and milliseconds since 1970, micro- and nanoseconds as the NTP value; other sizes are octets."""
        self.assertEqual((types.SECONDS, [1]), _typed(self.value((150, 4), octets("00000001"))))
        self.assertEqual((types.MILLISECONDS, [258]), _typed(self.value((152, 8), octets("0000000000000102"))))
        for element, type_ in ((154, types.MICROSECONDS), (156, types.NANOSECONDS)):
            self.assertEqual(
                (type_, [0xE8D4A51000000800]), _typed(self.value((element, 8), octets("e8d4a51000000800")))
            )
        self.assertEqual((types.OCTETS, [b"12345678"]), _typed(self.value((150, 8), b"12345678")))
        self.assertEqual((types.OCTETS, [b"1234"]), _typed(self.value((152, 4), b"1234")))

    def test_strings_and_octets(self):
        """Strings keep their trailing NULs, octets and unknown elements are opaque, nothing of no size is refused."""
        self.assertEqual((types.STRING, [b"eth0\0\0", b"\0\0\0\0\0\0"]), _typed(self.value((82, 6), b"eth0\0\0", bytes(6))))
        self.assertEqual((types.OCTETS, [b"abcd"]), _typed(self.value((313, 4), b"abcd")))
        key, found = self.value((7, 3, 64999), b"abc", b"def")
        self.assertEqual(("e64999id7", types.OCTETS, [b"abc", b"def"]), (key.name, key.type, found))
        key, found = self.value((32767, 2), b"ab")
        self.assertEqual(("e0id32767", types.OCTETS, [b"ab"]), (key.name, key.type, found))

    def test_field_of_no_octets(self):
        """A field of length 0 is an empty value: a string is empty, a number is no number."""
        rows = Collected().rows(message(a_set(2, template(256, (82, 0), (1, 4), (2, 0))), a_set(256, octets("00000009"))))
        self.assertEqual([{"interfaceName": b"", "octetDeltaCount": 9, "packetDeltaCount": b""}], rows)

    def test_enterprise(self):
        """Known enterprise elements have their names: netfilter's mark, the reverse of octetDeltaCount."""
        key, found = self.value((1, 4, 29305), octets("00000007"))
        self.assertEqual((types.UNSIGNED64, [7], ((29305, 1),)), (key.type, found, key.elements))
        self.assertEqual("reverseOctetDeltaCount", key.name)

    def test_variable_numbers(self):
        """Integers, addresses, times and booleans of variable length; a size that is none of the type's is missing."""
        for field, values, held, expected in (
            ((4, VARIABLE), [b"\x11", b"\x01\x02", b""], types.UNSIGNED64, [17, 258, None]),
            ((434, VARIABLE), [b"\xff", b"\xff\xfe", b"\x01\x00\x00"], types.SIGNED64, [-1, -2, 65536]),
            ((8, VARIABLE), [octets("c0000201"), b"abc"], types.IPV4, [0xC0000201, None]),
            ((27, VARIABLE), [bytes(15) + b"\1", b""], types.IPV6, [1, None]),
            ((56, VARIABLE), [octets("02aabbccddee")], types.MAC, [0x02AABBCCDDEE]),
            ((311, VARIABLE), [struct.pack("!f", 0.5), struct.pack("!d", 0.1)], types.FLOAT64, [0.5, 0.1]),
            ((276, VARIABLE), [b"\1", b"\2", b"\3", b"\1\1"], types.BOOLEAN, [True, False, None, None]),
            ((152, VARIABLE), [octets("0000000000000102"), bytes(9)], types.MILLISECONDS, [258, None]),
            ((1, VARIABLE), [b"\xff" * 8, b"\xff" * 9, b"x" * 300], types.UNSIGNED64, [2**64 - 1, None, None]),
        ):
            with self.subTest(field=field):
                key, found = self.value(field, *values)
                self.assertEqual((held, expected), (key.type, found))
                self.assertEqual(expected.count(None), self.found.counters.errors["value"])


def _fields(batch):
    return list(without_context(dict.fromkeys(batch.schema)))


def _typed(found):
    key, values = found
    return key.type, values


class KeyTests(SynchronousTestCase):
    """Names and order of the keys."""

    def test_repeated(self):
        """TPL-6: every occurrence of an element is kept, in order, with its number; paddingOctets is no key."""
        fields = (8, 4), (8, 4), (210, 3), (4, 1), (8, 4)
        data = a_set(256, octets("00000001" "00000002" "000000" "06" "00000003"))
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
        """Exporters of both address families make two batches; an IPv4 one shown as IPv6 is IPv4; a file has no address."""
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
        data = a_set(256, octets("00000005" "0101" "00000006"))
        names = ["observationDomainId#2", "templateId#2", "observationDomainId#3"]
        (batch,) = Collected().batches(message(told, data, domain=9))
        self.assertEqual([5, 257, 6], [batch.columns[n].tolist()[0] for n in names])
        self.assertEqual([9], batch.columns["observationDomainId"].tolist())
        (batch,) = Collected(frozenset(names)).batches(message(told, data))
        self.assertEqual(names, list(batch.schema))

    def test_only_wanted(self):
        """Only wanted keys are there; a batch without any still has its rows."""
        told, data = a_set(2, template(256, (8, 4), (4, 1), (1, 4))), a_set(256, octets("00000001" "06" "00000063"))
        (batch,) = Collected(frozenset({"octetDeltaCount"})).batches(message(told, data))
        self.assertEqual([{"octetDeltaCount": 99}], list(batch.rows()))
        (batch,) = Collected(frozenset()).batches(message(told, data, data))
        self.assertEqual((2, [], {}), (batch.n, list(batch.schema), batch.columns))


class SetTests(SynchronousTestCase):
    """Sets, padding, and records that do not fit."""

    def test_padding(self):
        """Octets too few for a record are padding, whatever they are; a set of nothing else has no records."""
        told = a_set(2, COUNTER, bytes(3))
        data = a_set(256, octets("00000001"), b"\1\2\3")
        found = Collected()
        self.assertEqual([1, 2], _counts(found.rows(message(told, data, a_set(256, octets("00000002")), a_set(256, b"\0")))))
        self.assertEqual({}, found.errors)
        self.assertEqual([3], _counts(found.rows(message(a_set(256, octets("00000003"), b"\xff\xff"), number=2))))
        self.assertEqual([], found.rows(message(a_set(256), number=3), message(number=3)))
        self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_padding_of_variable_records(self):
        """Less than the smallest record after records of variable length is padding; more is a record that is cut."""
        told = a_set(2, template(256, (82, VARIABLE), (1, 4)))
        one = varying(b"a") + octets("00000001")
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
        self.assertEqual([5], _counts(found.rows(message(*sets, a_set(2, COUNTER), *sets, a_set(256, octets("00000005"))))))
        self.assertEqual({"set_id": 10}, found.errors)

    def test_no_template(self):
        """TPL-8: data before their template are left out and counted, told once, and the session goes on."""
        found = Collected()
        data = a_set(256, octets("00000005"))
        self.assertEqual([], found.rows(message(data, data), message(data)))
        self.assertEqual({"no_template": 3}, found.errors)
        self.assertEqual(["domain", "no_template"], found.kinds)
        self.assertEqual([5, 5], _counts(found.rows(message(data, a_set(2, COUNTER), data, number=77), message(data, number=79))))
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
        """Rows of one layout come in the order of arrival, over templates, sets and messages; layouts as they first came."""
        told = a_set(2, COUNTER, template(257, (4, 1)), template(258, (1, 4)), template(259, (82, VARIABLE)))
        found = Collected()
        rows = found.rows(
            message(told),
            message(a_set(257, b"\1"), a_set(258, octets("00000001")), a_set(256, octets("00000002")), number=0),
            message(a_set(259, b"\1a"), a_set(256, octets("00000003")), a_set(257, b"\2\3"), number=3),
            message(a_set(258, octets("00000004" "00000005")), a_set(259, b"\1b\1c"), number=7),
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
        self.assertEqual([1, 2], _counts(found.rows()))
        # Nor may what was decoded change when more is decoded.
        (first,) = found.batches(counts(3, number=2))
        found.batches(counts(4, number=3))
        self.assertEqual([3], _counts(first.rows()))

    def test_octets_do_not_change(self):
        """Columns of octets that fill their records whole are copies, too."""
        found = Collected(frozenset({"interfaceName"}))
        told = message(a_set(2, template(256, (82, 4))))
        (first,) = found.batches(told, message(a_set(256, b"eth0")), message(a_set(256, b"eth1"), number=1))
        found.batches(message(a_set(256, b"eth2"), number=2), message(a_set(256, b"eth3"), number=3))
        self.assertEqual([b"eth0", b"eth1"], first.columns["interfaceName"].to_list())


def _counts(rows):
    return [row["octetDeltaCount"] for row in rows]


class TemplateLifeTests(SynchronousTestCase):
    """Templates learnt, sent again, changed, withdrawn: requirements TPL, WD and UDPT."""

    told = message(a_set(2, COUNTER))
    data = message(a_set(256, octets("00000005")))

    def test_again(self):
        """WD-5: an identical template again changes nothing, and is no event."""
        found = Collected().feed(*[self.told] * 3)
        self.assertEqual(["domain", "template"], found.kinds)
        self.assertEqual([5], _counts(found.rows(self.data)))

    def test_changed(self):
        """WD-6, UDPT-4: a different template for an id replaces it at once; records before it are the old one's."""
        for reliable in (True, False):
            found = Collected(reliable=reliable)
            changed = message(a_set(2, template(256, (2, 4))), number=1)
            rows = found.rows(self.told, self.data, changed, message(a_set(256, octets("00000006")), number=1))
            self.assertEqual([{"octetDeltaCount": 5}, {"packetDeltaCount": 6}], rows)
            self.assertIn("template_changed", found.kinds)
            # And back, although those very octets were seen before.
            self.assertEqual([5], _counts(found.rows(message(a_set(2, COUNTER), number=2), counts(5, number=2))))

    def test_withdrawn(self):
        """WD-1, WD-3: on a reliable session the template is gone; actions apply in their order in the Message."""
        withdrawal = struct.pack("!HH", 256, 0)
        found = Collected()
        rows = found.rows(self.told, message(self.data[16:], a_set(2, withdrawal), self.data[16:]))
        self.assertEqual([{"octetDeltaCount": 5}], rows)
        self.assertEqual({"no_template": 1}, found.errors)
        self.assertIn("template_withdrawn", found.kinds)
        # Reuse of the id in the same set, with padding after it.
        rows = found.rows(message(a_set(2, template(256, (2, 4)), withdrawal, template(256, (4, 1)), bytes(4)), a_set(256, b"\6")))
        self.assertEqual([{"protocolIdentifier": 6}], rows)

    def test_all_withdrawn(self):
        """WD-2: id 2 takes all data templates of the domain, id 3 all options templates."""
        told = message(a_set(2, COUNTER, template(257, (4, 1))), a_set(3, options_template(258, 1, (5, 1))))
        data = message(a_set(256, bytes(4)), a_set(257, bytes(1)), a_set(258, bytes(1)))
        for sets, left in (
            ([a_set(2, octets("00020000"))], ["ipClassOfService"]),
            ([a_set(3, octets("00030000"))], ["octetDeltaCount", "protocolIdentifier"]),
            ([a_set(2, octets("00020000")), a_set(3, octets("00030000"))], []),
        ):
            found = Collected().feed(told, message(*sets, domain=2))
            self.assertEqual(3, len(found.rows(data)))
            rows = found.rows(message(*sets, number=3), data)
            self.assertEqual(left, [name for row in rows for name in row])

    def test_wrong_withdrawal(self):
        """WD-4: of an unknown template, or of one of the other kind: ignored and counted; with a wrong id: malformed."""
        found = Collected().feed(self.told, message(a_set(2, octets("01010000"))), message(a_set(3, octets("01000000"))))
        self.assertEqual([5], _counts(found.rows(self.data)))
        self.assertEqual({"withdrawal_unknown": 2}, found.errors)
        for wrong in ("00030000", "00000000" "01000000", "00ff0000"):
            found = Collected().feed(message(a_set(2, octets(wrong))))
            self.assertEqual({"template": 1}, found.errors)

    def test_withdrawal_over_udp(self):
        """UDPT-3: ignored."""
        found = Collected(reliable=False)
        found.feed(self.told, message(a_set(2, octets("01000000"))), message(a_set(2, octets("00020000"))))
        self.assertEqual([5], _counts(found.rows(self.data)))
        self.assertEqual({"withdrawal_ignored": 2}, found.errors)

    def test_one_space_of_ids(self):
        """TPL-1: an options template takes the id of a data template over."""
        found = Collected()
        told = message(a_set(3, options_template(256, 1, (2, 4))))
        self.assertEqual([{"packetDeltaCount": 5}], found.rows(self.told, told, self.data))

    def test_unchanged_is_cheap(self):
        """Template Sets that were seen since the last change are not read again."""
        found = Collected().feed(self.told)
        domain = found.session.domains[1]
        before = domain.templates[256]
        found.feed(self.told, message(a_set(2, template(257, (4, 1)))), self.told, self.told)
        self.assertIs(before, domain.templates[256])
        self.assertEqual({a_set(2, COUNTER), a_set(2, template(257, (4, 1)))}, domain.announced)


class MalformedTests(SynchronousTestCase):
    """ERR-1: a malformed Message is dropped whole: no record, no template, no domain of it stays."""

    told = a_set(2, COUNTER, template(257, (82, VARIABLE)))
    good = a_set(256, octets("00000001"))

    def dropped(self, wrong, reason):
        """The Message does nothing but count; what is after it is read."""
        found = Collected()
        found.feed(message(self.told), counts(7))
        self.assertEqual([7], _counts(found.rows(wrong)), reason)
        self.assertEqual({reason: 1}, found.errors)
        self.assertEqual("malformed", found.kinds[-1])
        self.assertIn(reason, found.decoder.events[-1].detail)
        self.assertEqual(1, found.decoder.malformed)
        self.assertEqual([8], _counts(found.rows(counts(8, number=1))))
        self.assertEqual([], found.rows(message(a_set(300, b"\6"), number=2)))
        self.assertEqual({reason: 1, "no_template": 1}, found.errors)
        self.assertEqual([1], list(found.session.domains))

    def test_header(self):
        """MSG-1, MSG-2: version and length."""
        self.dropped(b"", "length")
        self.dropped(message(domain=5)[:15], "length")
        self.dropped(message(domain=5, length=15), "length")
        self.dropped(message(self.good, length=25), "length")
        for version in (0, 5, 9, 11, 0x0A0A):
            self.dropped(message(self.good, version=version, domain=5), "version")

    def test_set_lengths(self):
        """SET-7: below 4, beyond the Message, or octets that are no set."""
        new = a_set(2, template(300, (4, 1)))
        for wrong in ("01000000", "01000003", "0100000500" "01", "00020003", "ffffffff", "00"):
            octets_ = octets(wrong)
            if wrong == "010000050001":
                octets_ = octets("01000007") + b"12"
            self.dropped(message(self.good, new, octets_), "set_length")

    def test_templates(self):
        """Records that are cut, ids below 256, wrong scope counts, records of no octets; nothing of the set is learnt."""
        new = template(300, (4, 1))
        for wrong in (
            template(301, (4, 1))[:-1],
            template(301, (4, 1), (4, 1))[:-4],
            struct.pack("!HHHH", 301, 2, 4 | 0x8000, 4) + b"\0\0\0",
            template(255, (4, 1)),
            template(301, (4, 0)),
            template(301, (4, 0), (82, 0)),
        ):
            self.dropped(message(self.good, a_set(2, new, wrong), self.good), "template")
        for wrong in (
            options_template(301, 0, (4, 1)),
            options_template(301, 2, (4, 1)),
            options_template(301, 1, (4, 1))[:-1],
            options_template(301, 1, (4, 1))[:5],
            options_template(301, 1, (4, 0)),
        ):
            self.dropped(message(self.good, a_set(2, new), a_set(3, wrong), self.good), "template")

    def test_cut_records(self):
        """A record of variable length that its set cuts, also beside good sets of the same and of other layouts."""
        cut = a_set(257, b"\2ab\3ab")
        whole = a_set(257, b"\2ab")
        for sets in ([cut], [self.good, cut], [cut, self.good], [whole, self.good, cut, whole]):
            self.dropped(message(*sets, number=1), "record")

    def test_cut_records_beside_templates(self):
        """A Message with templates and a cut record: the templates must not take effect, whichever template is cut."""
        new = a_set(2, template(300, (82, VARIABLE)), template(301, (4, 1)))
        self.dropped(message(new, a_set(300, b"\1a\2a")), "record")
        self.dropped(message(a_set(257, b"\1a\2a"), new), "record")
        self.dropped(message(a_set(2, template(256, (82, VARIABLE))), a_set(256, b"\5abcd")), "record")
        # After a withdrawal the id has no template, so that nothing can be cut.
        found = Collected()
        gone = a_set(2, octets("00020000"))
        rows = found.rows(message(self.told), message(gone, a_set(2, template(300, (4, 1))), a_set(257, b"\2a"), a_set(300, b"\6")))
        self.assertEqual([{"protocolIdentifier": 6}], rows)
        self.assertEqual({"no_template": 1}, found.errors)

    def test_others_untouched(self):
        """Of many messages decoded together, only the malformed ones are missing."""
        for n in (3, 200):
            found = Collected().feed(message(self.told))
            expected, number = [], 0
            for i in range(n):
                text = b"%d" % i
                if i % 3 == 1:
                    found.feed(message(a_set(257, varying(text), b"\xff\x00\x09"), a_set(256, bytes(4)), number=number))
                    continue
                found.feed(message(a_set(257, varying(text), varying(b"")), self.good, number=number))
                number += 3
                expected += [text, b""]
            rows = found.rows()
            self.assertEqual(expected, [row["interfaceName"] for row in rows if "interfaceName" in row])
            self.assertEqual(len(expected) // 2, sum("octetDeltaCount" in row for row in rows))
            self.assertEqual(({"record": len(range(1, n, 3))}, 0), (found.errors, found.lost))
            self.assertEqual(len(rows), found.counters.rows_received)

    def test_trailing(self):
        """What follows a Message in its datagram is not looked at, and counted."""
        found = Collected(reliable=False)
        rows = found.rows(message(self.told), counts(1) + counts(2), counts(3, number=1) + b"\0")
        self.assertEqual([1, 3], _counts(rows))
        self.assertEqual({"trailing": 2}, found.errors)


class LimitTests(SynchronousTestCase):
    """ERR-6: what a peer may make us remember is bounded; what is beyond is refused and counted."""

    def test_templates(self):
        found = Collected(limits=Limits(templates=2))
        for ident in (256, 257, 258, 259):
            found.feed(message(a_set(2, template(ident, (4, 1)))))
        self.assertEqual({"limit_templates": 2}, found.errors)
        self.assertEqual(2, len(found.rows(message(*(a_set(i, b"\6") for i in (256, 257, 258, 259))))))
        # A known id may still change.
        self.assertEqual([{"ipVersion": 6}], found.rows(message(a_set(2, template(256, (60, 1))), a_set(256, b"\6"))))

    def test_domains(self):
        found = Collected(limits=Limits(domains=2))
        messages = [message(a_set(2, COUNTER), a_set(256, bytes(4)), domain=d) for d in (1, 2, 3, 4)]
        self.assertEqual(2, len(found.rows(*messages)))
        self.assertEqual(({"limit_domains": 2}, {1, 2}), (found.errors, set(found.session.domains)))

    def test_fields(self):
        """Also: a refused change leaves no old template behind, which would read the new records wrongly."""
        found = Collected(limits=Limits(fields=2))
        two, three = template(256, (4, 1), (5, 1)), template(256, (4, 1), (5, 1), (6, 1))
        self.assertEqual(1, len(found.rows(message(a_set(2, two), a_set(256, b"ab")))))
        self.assertEqual([], found.rows(message(a_set(2, three)), message(a_set(256, b"abc"))))
        self.assertEqual({"limit_fields": 1, "no_template": 1}, found.errors)

    def test_session_fields(self):
        """Fields are given back when templates are replaced, withdrawn or forgotten."""
        found = Collected(limits=Limits(session_fields=3))
        two = a_set(2, template(256, (4, 1), (5, 1)))
        for domain in (1, 2):
            found.feed(message(two, domain=domain))
        self.assertEqual({"limit_session_fields": 1}, found.errors)
        found.feed(message(a_set(2, octets("01000000"))), message(two, domain=2))
        found.feed(message(a_set(2, template(256, (4, 1))), domain=2), message(a_set(2, template(256, (5, 1), (6, 1)))))
        self.assertEqual({"limit_session_fields": 1}, found.errors)
        self.assertEqual(3, found.session.fields)
        found.decoder.forget(found.session)
        self.assertEqual((0, 0), (found.session.fields, found.session.announced_octets))

    def test_announced_octets(self):
        """Sets that there is no room to remember are read each time, and room is given back."""
        found = Collected(limits=Limits(announced_octets=20))
        found.feed(*(message(a_set(2, template(i, (4, 1)))) for i in (256, 257, 256, 257)))
        self.assertEqual(12, found.session.announced_octets)
        found.feed(message(a_set(2, template(256, (5, 1)))))
        self.assertEqual(12, found.session.announced_octets)
        self.assertEqual(2, len(found.session.domains[1].templates))

    def test_layouts(self):
        """Compiled layouts are forgotten and made again without a difference."""
        for limits in (Limits(layouts=1), Limits(layout_fields=1)):
            found = Collected(limits=limits)
            found.feed(message(a_set(2, COUNTER, template(257, (4, 1), (5, 1)))))
            for number in range(0, 6, 2):
                rows = found.rows(message(a_set(257, b"\6\1"), a_set(256, octets("00000009")), number=number))
                self.assertEqual([{"protocolIdentifier": 6, "ipClassOfService": 1}, {"octetDeltaCount": 9}], rows)
                self.assertEqual(1, len(found.decoder._compiled))

    def test_events(self):
        found = Collected(limits=Limits(events=3))
        found.feed(*(message(a_set(256), domain=d) for d in range(10)))
        self.assertEqual((3, 17), (len(found.decoder.events), found.decoder.events_left_out))

    def test_missing_templates(self):
        """Of many missing templates only some are told."""
        found = Collected(limits=Limits(missing=3))
        found.feed(message(*(a_set(256 + i) for i in range(10))))
        self.assertEqual(["domain"] + ["no_template"] * 3, found.kinds)
        self.assertEqual({"no_template": 10}, found.errors)

    def test_largest(self):
        """RFC 5471 3.5.2: a template of 16370 fields in one Message, and its record."""
        fields = [(4, 1)] * 16370
        told = message(a_set(2, template(256, *fields)))
        self.assertEqual(65504, len(told))
        (batch,) = Collected().batches(told, message(a_set(256, bytes(i % 256 for i in range(16370)))))
        self.assertEqual(1, batch.n)
        self.assertEqual(16370 % 256 - 1, batch.columns["protocolIdentifier#16370"].tolist()[0])

    def test_many_records(self):
        """MSG-2, RFC 5471 3.5.1: Messages of 65535 octets, of records of one octet, fixed and variable."""
        found = Collected()
        told = message(a_set(2, template(256, (4, 1)), template(257, (82, VARIABLE))))
        (batch,) = found.batches(told, message(a_set(256, bytes(65515))))
        self.assertEqual(65515, batch.n)
        (batch,) = found.batches(message(a_set(257, bytes(65515)), number=65515))
        self.assertEqual((65515, 0), (batch.n, len(batch.columns["interfaceName"].data)))
        self.assertEqual(({}, 0), (found.errors, found.lost))


class SequenceTests(SynchronousTestCase):
    """MSG-3, ERR-4, UDP-3: Sequence Numbers tell loss, lateness and restarts."""

    def follow(self, *messages, start=Collected):
        """Feed (number, records) as Messages; the collector."""
        found = start().feed(message(a_set(2, COUNTER)))
        found.session.domains[1].sequence.unknown()
        for number, rows in messages:
            found.feed(counts(*range(rows), number=number))
        found.rows()
        return found

    def outcome(self, *messages):
        found = self.follow(*messages)
        return found.lost, {k: v for k, v in found.errors.items()}

    def test_in_order(self):
        self.assertEqual((0, {}), self.outcome((5, 2), (7, 3), (10, 0), (10, 1)))

    def test_gap(self):
        found = self.follow((0, 2), (5, 1), (10, 1))
        self.assertEqual((7, {}), (found.lost, found.errors))
        self.assertEqual(["3 records", "4 records"], [e.detail for e in found.decoder.events if e.kind == "sequence_gap"])

    def test_reordered(self):
        """A late Message takes back what was counted as lost, in any order and in pieces."""
        self.assertEqual((0, {}), self.outcome((0, 2), (4, 2), (2, 2), (6, 1)))
        self.assertEqual((0, {}), self.outcome((0, 2), (8, 2), (4, 2), (2, 2), (6, 2), (10, 1)))
        self.assertEqual((2, {}), self.outcome((0, 2), (8, 2), (4, 2), (2, 2), (10, 1)))
        self.assertEqual((1, {}), self.outcome((0, 1), (4, 1), (2, 2)))

    def test_duplicated(self):
        """The same Message twice is counted, and loses nothing; late ones are not taken back twice."""
        self.assertEqual((0, {"sequence_duplicate": 1}), self.outcome((0, 2), (2, 2), (2, 2), (4, 2)))
        self.assertEqual((0, {"sequence_duplicate": 1}), self.outcome((0, 2), (4, 2), (2, 2), (2, 2), (6, 1)))

    def test_wrap(self):
        """Numbers are modulo 2**32."""
        top = 1 << 32
        self.assertEqual((0, {}), self.outcome((top - 3, 2), (top - 1, 3), (2, 1)))
        self.assertEqual((4, {}), self.outcome((top - 3, 2), (3, 1)))
        self.assertEqual((0, {}), self.outcome((top - 3, 2), (2, 1), (top - 1, 3)))

    def test_forged(self):
        """A far number alone changes nothing, whichever way it is off."""
        for far in (1 << 31, 1 << 30, (1 << 32) - (1 << 30), 20_000_000):
            self.assertEqual((0, {"sequence_reset": 1}), self.outcome((0, 2), (far, 2), (2, 2), (4, 1)))

    def test_restart(self):
        """Another count is believed when the next Message continues it."""
        self.assertEqual((1, {"sequence_reset": 1}), self.outcome((0, 2), (1 << 30, 2), ((1 << 30) + 2, 1), ((1 << 30) + 4, 1)))
        self.assertEqual((0, {"sequence_reset": 2}), self.outcome((0, 2), (1 << 30, 2), (1 << 29, 1), (2, 1)))
        # An exporter that begins again soon after its start: near behind, so it may be a duplicate at first.
        found = self.follow((0, 50), (50, 50), (0, 50), (50, 50), (100, 50), (150, 50))
        self.assertEqual((0, {"sequence_duplicate": 1, "sequence_reset": 1}), (found.lost, found.errors))

    def test_unknown_records(self):
        """After records that cannot be counted the next number is believed."""
        found = Collected().feed(message(a_set(2, COUNTER)), counts(1), message(a_set(999, bytes(400)), number=1))
        found.feed(counts(1, number=50), counts(1, number=52))
        self.assertEqual((1, {"no_template": 1}), (found.lost, found.errors))

    def test_per_domain_and_kind(self):
        """Each domain has its own; options data count, templates do not."""
        told = a_set(2, COUNTER), a_set(3, options_template(257, 1, (4, 1)))
        found = Collected()
        for domain in (1, 2):
            found.feed(message(*told, a_set(257, b"123"), domain=domain, number=1000 * domain))
        for domain in (2, 1):
            found.feed(message(told[0], a_set(256, bytes(8)), domain=domain, number=1000 * domain + 3))
        found.feed(message(domain=1, number=1005), message(domain=2, number=2005))
        self.assertEqual((0, {}), (found.lost, found.errors))

    def test_variable_records(self):
        """Records of variable length are counted when drained, in order with those of fixed length."""
        told = message(a_set(2, COUNTER, template(257, (82, VARIABLE))))
        a, b = a_set(257, b"\1a\1b"), a_set(256, bytes(4))
        found = Collected().feed(told, message(a), message(b, number=2), message(a, b, a, number=3), message(b, number=8))
        self.assertEqual(9, len(found.rows()))
        self.assertEqual((0, {}), (found.lost, found.errors))
        found.feed(message(a, number=10), message(b, number=14), message(a, number=9), message(told[16:], a, number=15))
        self.assertEqual(7, len(found.rows()))
        # Lost are 9 and 12 to 13; the late Message brings 9 (and 10 again).
        self.assertEqual((2, {}), (found.lost, found.errors))

    def test_malformed_are_lost(self):
        """The records of a malformed Message count as lost when the next one comes."""
        found = Collected().feed(message(a_set(2, COUNTER)), counts(1), counts(1, 2, 3, number=1)[:-1], counts(1, number=4))
        self.assertEqual((3, {"length": 1}), (found.lost, found.errors))

    @given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.randoms(use_true_random=False),
           st.integers(0, (1 << 32) - 1), st.data())  # fmt: skip
    def test_shuffled(self, sizes, random, first, data):
        """Messages that are swapped with neighbours lose nothing; those left out are lost exactly, if another one follows."""
        messages, number = [], first
        for size in sizes:
            messages.append((number % (1 << 32), size))
            number += size
        gone = data.draw(st.sets(st.integers(1, len(sizes) - 1))) if len(sizes) > 2 else set()
        lost = sum(sizes[i] for i in gone)
        kept = [m for i, m in enumerate(messages) if i not in gone]
        # The first comes first, since nothing before it can be missed; the last tells what was lost before it.
        middle = kept[1:]
        for i in range(0, len(middle) - 1, 2):
            if random.random() < 0.5:
                middle[i], middle[i + 1] = middle[i + 1], middle[i]
        found = self.follow(kept[0], *middle, (number % (1 << 32), 1))
        self.assertEqual((lost, {}), (found.lost, found.errors))


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
            (4, sum(map(len, messages)), 3), (counters.messages_received, counters.octets_received, counters.rows_received)
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
                self.assertEqual(expected, _counts(found.rows()))
                self.assertEqual(({}, 0), (found.errors, found.lost))
