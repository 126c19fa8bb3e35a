"""Values of every type at every size."""

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import (
    VARIABLE,
    Collected,
    a_set,
    hexed,
    ipv6,
    message,
    template,
    varying,
    without_context,
)
from ulogd_tw.core import types


class ValueTests(SynchronousTestCase):
    """RFC 7011 section 6: every type at every size, one field a template."""

    def value(self, field, *values):
        """(key, values) of records of one field."""
        records = [varying(v) for v in values] if field[1] == VARIABLE else values
        self.found = Collected()
        (batch,) = self.found.batches(message(a_set(2, template(256, field)), a_set(256, *records)))
        name = next(n for n in batch.schema if n != "exporter" and n in _fields(batch))  # what is made comes behind it
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
        self.assertEqual((types.IPV4, [0xC0000201]), _typed(self.value((8, 4), hexed("c0000201"))))
        address = hexed("20010db8000000000000000000000042")
        self.assertEqual((types.IPV6, [ipv6("2001:db8::42")]), _typed(self.value((27, 16), address)))
        self.assertEqual((types.MAC, [0x02AABBCCDDEE]), _typed(self.value((56, 6), hexed("02aabbccddee"))))
        self.assertEqual((types.OCTETS, [address]), _typed(self.value((8, 16), address)))
        self.assertEqual((types.OCTETS, [b"1234"]), _typed(self.value((27, 4), b"1234")))
        self.assertEqual((types.OCTETS, [b"12345678"]), _typed(self.value((56, 8), b"12345678")))

    def test_times(self):
        """Seconds and milliseconds since 1970, micro- and nanoseconds as the NTP value; other sizes are octets."""
        self.assertEqual((types.SECONDS, [1]), _typed(self.value((150, 4), hexed("00000001"))))
        self.assertEqual((types.MILLISECONDS, [258]), _typed(self.value((152, 8), hexed("0000000000000102"))))
        for element, type_ in ((154, types.MICROSECONDS), (156, types.NANOSECONDS)):
            self.assertEqual((type_, [0xE8D4A51000000800]), _typed(self.value((element, 8), hexed("e8d4a51000000800"))))
        self.assertEqual((types.OCTETS, [b"12345678"]), _typed(self.value((150, 8), b"12345678")))
        self.assertEqual((types.OCTETS, [b"1234"]), _typed(self.value((152, 4), b"1234")))

    def test_milliseconds_beyond_all_seconds(self):
        """A time beyond 2**32 seconds, as of microseconds in a field of milliseconds, is no value, and counted."""
        last, beyond, micro = (n.to_bytes(8, "big") for n in (1000 * 2**32 - 1, 1000 * 2**32, 1_700_000_000_000_000))
        for length in (8, VARIABLE):
            found = Collected()
            size = b"\x08" if length == VARIABLE else b""
            octets = [bytes(4) + size + value + last for value in (last, beyond, micro, last)]
            rows = found.rows(
                message(
                    a_set(2, template(256, (8, 4), (152, length), (323, 8))),
                    a_set(256, *octets),
                )
            )
            self.assertEqual([4294967295999, None, None, 4294967295999], [r.get("flowStartMilliseconds") for r in rows])
            self.assertEqual([4294967295999] * 4, [r["observationTimeMilliseconds"] for r in rows])
            self.assertEqual(2, found.errors["value"])

    def test_strings_and_octets(self):
        """Strings keep their trailing NULs, octets and unknown elements are opaque, nothing of no size is refused."""
        self.assertEqual(
            (types.STRING, [b"eth0\0\0", b"\0\0\0\0\0\0"]), _typed(self.value((82, 6), b"eth0\0\0", bytes(6)))
        )
        self.assertEqual((types.OCTETS, [b"abcd"]), _typed(self.value((313, 4), b"abcd")))
        key, found = self.value((7, 3, 64999), b"abc", b"def")
        self.assertEqual(("e64999id7", types.OCTETS, [b"abc", b"def"]), (key.name, key.type, found))
        key, found = self.value((32767, 2), b"ab")
        self.assertEqual(("e0id32767", types.OCTETS, [b"ab"]), (key.name, key.type, found))

    def test_field_of_no_octets(self):
        """A field of length 0 is an empty value: a string is empty, a number is not a number."""
        rows = Collected().rows(
            message(a_set(2, template(256, (82, 0), (1, 4), (2, 0))), a_set(256, hexed("00000009")))
        )
        self.assertEqual([{"interfaceName": b"", "octetDeltaCount": 9, "packetDeltaCount": b""}], rows)

    def test_enterprise(self):
        """Known enterprise elements have their names: netfilter's mark, the reverse of octetDeltaCount."""
        key, found = self.value((1, 4, 29305), hexed("00000007"))
        self.assertEqual((types.UNSIGNED64, [7], ((29305, 1),)), (key.type, found, key.elements))
        self.assertEqual("reverseOctetDeltaCount", key.name)

    def test_variable_numbers(self):
        """Integers, addresses, times and booleans of variable length; a size that is none of the type's is missing."""
        for field, values, held, expected in (
            ((4, VARIABLE), [b"\x11", b"\x01\x02", b""], types.UNSIGNED64, [17, 258, None]),
            ((434, VARIABLE), [b"\xff", b"\xff\xfe", b"\x01\x00\x00"], types.SIGNED64, [-1, -2, 65536]),
            ((8, VARIABLE), [hexed("c0000201"), b"abc"], types.IPV4, [0xC0000201, None]),
            ((27, VARIABLE), [bytes(15) + b"\1", b""], types.IPV6, [1, None]),
            ((56, VARIABLE), [hexed("02aabbccddee")], types.MAC, [0x02AABBCCDDEE]),
            ((311, VARIABLE), [struct.pack("!f", 0.5), struct.pack("!d", 0.1)], types.FLOAT64, [0.5, 0.1]),
            ((276, VARIABLE), [b"\1", b"\2", b"\3", b"\1\1"], types.BOOLEAN, [True, False, None, None]),
            ((152, VARIABLE), [hexed("0000000000000102"), bytes(9)], types.MILLISECONDS, [258, None]),
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
