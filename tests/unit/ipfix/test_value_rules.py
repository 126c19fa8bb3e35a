"""Values as a Collecting Process has to read them (RFC 7011 sections 6 and 7, RFC 7012), in octets written out."""

import json
import re
import socket
import struct

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import VARIABLE, Collected, a_set, hexed, message, template, varying
from ulogd_tw.core import types
from ulogd_tw.core.conversions import ntp_to_ms, seconds_to_ms
from ulogd_tw.core.keys import Registry
from ulogd_tw.core.python_values import canonical_list


def columns(*fields, record, **arguments):
    """The batch of one record of these fields."""
    (batch,) = Collected(**arguments).batches(message(a_set(2, template(256, *fields)), a_set(256, record)))
    return batch


def shown(batch, name):
    """The value of the one row as outputs show it."""
    return canonical_list(batch.columns[name], batch.schema[name], batch.missing.get(name))[0]


class TypeTests(SynchronousTestCase):
    """The abstract data types, one record each."""

    def test_every_type(self):
        """VAL-1: one element of each type at its full size, big endian, as every output shows it."""
        for element, octets, name, value in (
            (313, "0a0b0c", "ipHeaderPacketSection", "0a0b0c"),
            (4, "11", "protocolIdentifier", 17),
            (7, "01bb", "sourceTransportPort", 443),
            (10, "00010203", "ingressInterface", 66051),
            (1, "0102030405060708", "octetDeltaCount", 72623859790382856),
            (434, "fffffffe", "mibObjectValueInteger", -2),
            (311, "3fe0000000000000", "samplingProbability", 0.5),
            (276, "01", "dataRecordsReliability", True),
            (276, "02", "dataRecordsReliability", False),
            (56, "0a0b0c0d0e0f", "sourceMacAddress", "0a:0b:0c:0d:0e:0f"),
            (82, "65746830c3a9", "interfaceName", "eth0é"),
            (150, "59e8aa40", "flowStartSeconds", 1508420160),
            (152, "0000015f34d90a00", "flowStartMilliseconds", 1508420160000),
            (8, "c0000201", "sourceIPv4Address", "192.0.2.1"),
            (27, "20010db8000000000000000000000001", "sourceIPv6Address", "2001:db8::1"),
        ):
            batch = columns((element, len(octets) // 2), record=hexed(octets))
            self.assertEqual(value, shown(batch, name), name)

    def test_long_strings(self):
        """VAL-1: a string has no limit but that of the message."""
        value = "é" * 32000
        batch = columns((82, VARIABLE), record=varying(value.encode()))
        self.assertEqual(value, shown(batch, "interfaceName"))

    def test_times(self):
        """VAL-2: seconds and milliseconds since 1970, NTP's seconds since 1900; microseconds ignore eleven low bits."""
        # RFC 5905 figure 4: day 0 of Unix is second 2,208,988,800 of NTP.
        half = (2_208_988_800 + 1_508_420_160 << 32) + (1 << 31)
        for element, name, low in ((154, "flowStartMicroseconds", 0x7FF), (156, "flowStartNanoseconds", 0)):
            batch = columns((element, 8), record=struct.pack("!Q", half + low))
            self.assertEqual([1_508_420_160_500], ntp_to_ms(batch.columns[name]).tolist())
            self.assertEqual("ntp", batch.schema[name].type.kind)

    def test_eras(self):
        """MSG-9: NTP times after 2036, where their seconds begin anew, are of the next era; seconds reach 2106."""
        for seconds, date in ((0, 2085978496), (1, 2085978497), (2_208_988_799, 4294967295)):
            self.assertEqual([date * 1000], ntp_to_ms(np.array([seconds << 32], np.uint64)).tolist())
        self.assertEqual([4294967295000], seconds_to_ms(np.array([4294967295], np.uint32)).tolist())

    def test_reduced(self):
        """VAL-3: integers in any smaller size keep value and sign; a float64 may have four octets; nothing else may."""
        for element, octets, name, value in (
            (1, "05", "octetDeltaCount", 5), (1, "ffffff", "octetDeltaCount", 16777215),
            (1, "01020304050607", "octetDeltaCount", 283686952306183),
            (10, "ffff", "ingressInterface", 65535), (7, "35", "sourceTransportPort", 53),
            (434, "ff", "mibObjectValueInteger", -1), (434, "fffffe", "mibObjectValueInteger", -2),
            (434, "7f", "mibObjectValueInteger", 127),
            (311, "3f000000", "samplingProbability", 0.5),
            # What may not be reduced is never shown as a value of its type: its octets stay.
            (320, "3f00", "absoluteError", "3f00"), (8, "c00002", "sourceIPv4Address", "c00002"),
            (27, "20010db8", "sourceIPv6Address", "20010db8"), (56, "0a0b0c", "sourceMacAddress", "0a0b0c"),
            (152, "59e8aa40", "flowStartMilliseconds", "59e8aa40"), (150, "59e8", "flowStartSeconds", "59e8"),
            (276, "0001", "dataRecordsReliability", "0001"), (1, "00" * 9, "octetDeltaCount", "00" * 9),
        ):  # fmt: skip
            batch = columns((element, len(octets) // 2), record=hexed(octets))
            self.assertEqual(value, shown(batch, name), (name, octets))

    def test_full_type(self):
        """VAL-4: a reduced element keeps its full type, so that records of both sizes add up in it."""
        told = a_set(2, template(256, (1, 1), (434, 1)), template(257, (1, 8), (434, 4)))
        data = a_set(256, hexed("fffe")), a_set(257, hexed("fffffffffffffffffffffffe"))
        batches = Collected().batches(message(told, *data))
        for batch in batches:
            self.assertEqual(types.UNSIGNED64, batch.schema["octetDeltaCount"].type)
            self.assertEqual(types.SIGNED32, batch.schema["mibObjectValueInteger"].type)
        self.assertEqual([255, 2**64 - 1], [int(b.columns["octetDeltaCount"][0]) for b in batches])
        self.assertEqual([-2, -2], [int(b.columns["mibObjectValueInteger"][0]) for b in batches])

    def test_lengths(self):
        """VAL-5: one octet of length up to 254, or 255 and two more, which may say any length; none counts itself."""
        short, long = (
            (("00", 0), ("01", 1), ("fe", 254)),
            (("ff0000", 0), ("ff0005", 5), ("ff00ff", 255), ("ff03e8", 1000)),
        )
        for head, size in (*short, *long):
            batch = columns((82, VARIABLE), (4, 1), record=hexed(head) + b"x" * size + b"\6")
            self.assertEqual(("x" * size, 6), (shown(batch, "interfaceName"), shown(batch, "protocolIdentifier")), head)

    def test_ill_formed_strings(self):
        """VAL-6: what is no UTF-8 is shown as U+FFFD; the record is kept, and what is written is UTF-8."""
        for octets in (b"eth\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"):
            batch = columns((82, VARIABLE), (4, 1), record=varying(octets) + b"\6")
            value = shown(batch, "interfaceName")
            self.assertIn("\N{REPLACEMENT CHARACTER}", value)
            self.assertEqual(value, json.loads(json.dumps(value).encode("utf-8")))
            self.assertEqual(6, shown(batch, "protocolIdentifier"))

    def test_application(self):
        """AP-1: the first octet of applicationId is the classification engine, the others are the selector's number."""
        for octets, value in ((hexed("03000050"), "3:80"), (hexed("14000000090001f4"), "20:9:500")):
            batch = columns((95, VARIABLE), (96, VARIABLE), record=varying(octets) + varying(b"http"))
            self.assertEqual((value, "http"), (shown(batch, "applicationId"), shown(batch, "applicationName")))


class NameTests(SynchronousTestCase):
    """Names of elements."""

    def test_unique(self):
        """VAL-8: IANA's names are unique and, but for two, in lower camel case; no enterprise takes one of them."""
        found = Registry()
        names = [key.name for key in found.iana.values()]
        self.assertEqual(len(names), len(set(names)))
        odd = [name for name in names if not re.fullmatch("[a-z][A-Za-z0-9]*", name)]
        self.assertEqual(["VRFname", "IPSecSPI"], odd)
        self.assertEqual(set(), set(names) & {key.name for key in found.enterprise.values()})

    def test_no_network(self):
        """VAL-9: the registry of elements comes with the program; nothing is fetched to read it."""

        def refused(*arguments, **keywords):
            raise AssertionError("a socket was made")

        self.patch(socket, "socket", refused)
        found = Registry()
        self.assertGreater(len(found.names()), 1000)
        self.assertEqual("octetDeltaCount", found.element(0, 1).name)
