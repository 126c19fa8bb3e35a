"""Structured data (RFC 6313): requirements SD-1 to SD-5 and SD-7 of shared/spec/ipfix_requirements.md.

Expected values are written by hand, or by an encoder of these tests that makes octets and value side by side.
"""

import json
import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import Collected, a_set, hexed, message, template, varying
from ulogd_tw.core import text
from ulogd_tw.core.keys import registry
from ulogd_tw.core.types import BASIC_LIST, SUB_TEMPLATE_LIST, SUB_TEMPLATE_MULTI_LIST
from ulogd_tw.ipfix.events import Limits
from ulogd_tw.ipfix.layout import Layout
from ulogd_tw.ipfix.structured import Lists, Plans
from ulogd_tw.ipfix.template import Field, Template

VARIABLE = 65535
IDS = {BASIC_LIST: 291, SUB_TEMPLATE_LIST: 292, SUB_TEMPLATE_MULTI_LIST: 293}


def reader(templates=(), nesting=16):
    """What reads lists by templates given as {id: [(element, length) or (element, length, enterprise)]}."""
    layouts = {}
    for ident, fields in dict(templates).items():
        made = tuple(Field(f[2] if len(f) == 3 else 0, f[0], f[1]) for f in fields)
        layouts[ident] = Layout(Template(ident, made), 4)
    return Lists(layouts.get, Plans(65536), nesting)


def basic(element, length, *values, semantic=3, enterprise=None):
    """A basicList of values as they are."""
    head = struct.pack("!BHH", semantic, element | (0x8000 if enterprise is not None else 0), length)
    return head + (b"" if enterprise is None else struct.pack("!I", enterprise)) + b"".join(values)


def sub_template(ident, *records, semantic=3):
    """A subTemplateList."""
    return struct.pack("!BH", semantic, ident) + b"".join(records)


def multi(*blocks, semantic=3):
    """A subTemplateMultiList of (template id, records)."""
    return bytes([semantic]) + b"".join(struct.pack("!HH", ident, 4 + len(body)) + body for ident, body in blocks)


class ReadingTests(SynchronousTestCase):
    def reads(self, expected, octets, type_, templates=(), opaque=0):
        lists = reader(templates)
        self.assertEqual(expected, lists.decode(octets, type_))
        self.assertEqual(opaque, lists.opaque)

    def opaque(self, octets, type_, templates=()):
        self.reads(octets.hex(), octets, type_, templates, 1)

    def test_basic_list(self):
        """SD-1, SD-3: an exclude list as RFC 6313 has it: noneOf, egressInterface, four octets each."""
        octets = hexed("00 000e 0004 00000001 00000004 00000008".replace(" ", ""))
        self.reads({"semantic": 0, "element": "egressInterface", "values": [1, 4, 8]}, octets, BASIC_LIST)

    def test_every_semantic(self):
        """SD-3: the semantic is given as its number, known or not."""
        for semantic in (0, 1, 2, 3, 4, 255, 77):
            expected = {"semantic": semantic, "element": "protocolIdentifier", "values": [6]}
            self.reads(expected, basic(4, 1, b"\6", semantic=semantic), BASIC_LIST)

    def test_basic_list_of_each_type(self):
        """Canonical values, as in columns; what has an impossible size is hexadecimal, no number is null."""
        for element, length, octets, values in (
            (4, 1, b"\x06\x11", [6, 17]),
            (1, 3, b"\x01\x00\x00\x00\x00\x02", [65536, 2]),
            (1, 9, b"\x00" * 9, ["00" * 9]),
            (434, 4, b"\xff\xff\xff\xfe", [-2]),
            (434, 3, b"\xff\xff\xfe", [-2]),
            (311, 4, struct.pack("!ff", 0.5, float("inf")), [0.5, None]),
            (311, 8, struct.pack("!dd", 0.1, float("nan")), [0.1, None]),
            (276, 1, b"\1\2\3", [True, False, "03"]),
            (8, 4, b"\xc0\0\2\1", ["192.0.2.1"]),
            (8, 3, b"\xc0\0\2", ["c00002"]),
            (27, 16, hexed("20010db8000000000000000000000001"), ["2001:db8::1"]),
            (56, 6, hexed("0a0b0c0d0e0f"), ["0a:0b:0c:0d:0e:0f"]),
            (150, 4, struct.pack("!I", 1000), [1000]),
            (152, 8, struct.pack("!Q", 1000), [1000]),
            (152, 4, b"\0\0\0\1", ["00000001"]),
            (154, 8, hexed("0102030405060708"), ["0102030405060708"]),
            (82, 4, b"eth0a\0\0\0", ["eth0", "a"]),
            (313, 2, b"\x01\x02", ["0102"]),
            (1, VARIABLE, varying(b"\1\0") + varying(b"\5", long=True) + varying(b""), [256, 5, ""]),
            (82, VARIABLE, varying(b"eth0") + varying(b"x" * 300) + varying("é\"".encode()), ["eth0", "x" * 300, 'é"']),
            (4, VARIABLE, varying(b"\x01\x02"), [258]),
        ):
            name = registry.element(0, element).name
            expected = {"semantic": 3, "element": name, "values": values}
            self.reads(expected, basic(element, length, octets), BASIC_LIST)

    def test_enterprise_elements(self):
        """SD-1: the enterprise number stands behind the length; unknown elements are octets."""
        for pen, element, name, values in (
            (29305, 4, "reverseProtocolIdentifier", [6]), (99999, 7, "e99999id7", ["06"]), (0, 4, "protocolIdentifier", [6]),
        ):  # fmt: skip
            octets = basic(element, 1, b"\6", enterprise=pen)
            self.reads({"semantic": 3, "element": name, "values": values}, octets, BASIC_LIST)
        self.opaque(basic(4, 1, enterprise=1)[:-1], BASIC_LIST)

    def test_empty(self):
        """SD-1: lists without elements or records; these need no template. A list without even a header is opaque."""
        self.reads({"semantic": 255, "element": "egressInterface", "values": []}, basic(14, 4, semantic=255), BASIC_LIST)
        self.reads({"semantic": 3, "template": 999, "records": []}, sub_template(999), SUB_TEMPLATE_LIST)
        self.reads({"semantic": 3, "blocks": []}, multi(), SUB_TEMPLATE_MULTI_LIST)
        expected = {"semantic": 3, "blocks": [{"template": 999, "records": []}]}
        self.reads(expected, multi((999, b"")), SUB_TEMPLATE_MULTI_LIST)
        for type_ in IDS:
            self.opaque(b"", type_)

    def test_sub_template_list(self):
        """SD-2: the use of RFC 6313 with the members of an aggregated link: records of a Template."""
        templates = {257: [(14, 4), (1, 4), (2, 4)]}
        octets = sub_template(257, struct.pack("!III", 1, 1000, 10), struct.pack("!III", 2, 2000, 20))
        records = [
            {"egressInterface": 1, "octetDeltaCount": 1000, "packetDeltaCount": 10},
            {"egressInterface": 2, "octetDeltaCount": 2000, "packetDeltaCount": 20},
        ]
        self.reads({"semantic": 3, "template": 257, "records": records}, octets, SUB_TEMPLATE_LIST, templates)

    def test_records(self):
        """Padding elements are left out, occurrences numbered; the domain of the message has nothing to do with it."""
        templates = {256: [(8, 4), (210, 2), (8, 4), (149, 4), (276, 1)], 257: [(82, VARIABLE), (210, VARIABLE), (4, 1)]}
        octets = sub_template(256, b"\xc0\0\2\1xx\xc0\0\2\2\0\0\0\7\1")
        record = {
            "sourceIPv4Address": "192.0.2.1", "sourceIPv4Address#2": "192.0.2.2", "observationDomainId": 7,
            "dataRecordsReliability": True,
        }  # fmt: skip
        self.reads({"semantic": 3, "template": 256, "records": [record]}, octets, SUB_TEMPLATE_LIST, templates)
        octets = sub_template(257, varying(b"a"), varying(b"xx"), b"\6", varying(b"", True), varying(b""), b"\7", b"\0\0")
        records = [{"interfaceName": "a", "protocolIdentifier": 6}, {"interfaceName": "", "protocolIdentifier": 7}]
        self.reads({"semantic": 3, "template": 257, "records": records}, octets, SUB_TEMPLATE_LIST, templates)

    def test_padding(self):
        """What is too short for a record is padding; zeros behind the elements of a basicList or the last block, too."""
        templates = {256: [(1, 4)]}
        record = {"octetDeltaCount": 5}
        one = struct.pack("!I", 5)
        expected = {"semantic": 3, "template": 256, "records": [record]}
        self.reads(expected, sub_template(256, one, b"\1\2\3"), SUB_TEMPLATE_LIST, templates)
        expected = {"semantic": 3, "element": "octetDeltaCount", "values": [5]}
        self.reads(expected, basic(1, 4, one, b"\0\0\0"), BASIC_LIST)
        self.opaque(basic(1, 4, one, b"\0\0\1"), BASIC_LIST)
        expected = {"semantic": 3, "blocks": [{"template": 256, "records": [record]}]}
        for zeros in range(9):
            self.reads(expected, multi((256, one + b"\0")) + bytes(zeros), SUB_TEMPLATE_MULTI_LIST, templates)
        self.opaque(multi((256, one)) + b"\0\0\0\0\1", SUB_TEMPLATE_MULTI_LIST, templates)

    def test_nested(self):
        """SD-5: a list within a list that is not understood is opaque alone; one that goes beyond its own spoils it."""
        templates = {256: [(292, VARIABLE), (4, 1)]}
        bad = sub_template(300, b"\1")
        inner = sub_template(256, varying(bad), b"\6", varying(sub_template(256)), b"\7")
        records = [
            {"subTemplateList": bad.hex(), "protocolIdentifier": 6},
            {"subTemplateList": {"semantic": 3, "template": 256, "records": []}, "protocolIdentifier": 7},
        ]
        self.reads({"semantic": 3, "template": 256, "records": records}, inner, SUB_TEMPLATE_LIST, templates, 1)
        self.opaque(sub_template(256, varying(bad), b"\6", b"\x20", bad), SUB_TEMPLATE_LIST, templates)

    def test_damaged(self):
        """SD-7: elements of no octets, lengths over the list, blocks shorter than their header, unknown templates."""
        self.opaque(basic(4, 0, b"\6"), BASIC_LIST)
        self.opaque(basic(82, VARIABLE, b"\5abcd"), BASIC_LIST)
        self.opaque(basic(82, VARIABLE, b"\xff\0"), BASIC_LIST)
        self.opaque(sub_template(300, b"\0"), SUB_TEMPLATE_LIST)
        for length in (0, 1, 2, 3, 6, 65535):
            self.opaque(b"\3" + struct.pack("!HH", 256, length) + b"\6", SUB_TEMPLATE_MULTI_LIST, {256: [(4, 1)]})
        self.opaque(multi((256, b"\6"), (300, b"\6")), SUB_TEMPLATE_MULTI_LIST, {256: [(4, 1)]})

    def test_depth(self):
        """SD-5: 16 lists within each other are read; what is deeper is opaque in its place."""
        octets = basic(291, VARIABLE)
        for _ in range(16):
            octets = basic(291, VARIABLE, varying(octets))
        lists = reader()
        found = lists.decode(octets, BASIC_LIST)
        for _ in range(16):
            (found,) = found["values"]
        self.assertEqual((basic(291, VARIABLE).hex(), 1), (found, lists.opaque))
        for _ in range(3000):
            octets = basic(291, VARIABLE, varying(octets))
        self.assertIsInstance(reader().decode(octets, BASIC_LIST), dict)

    def test_fields_of_no_octets(self):
        """Two values an octet at most: a template of many empty fields cannot make much out of little."""
        templates = {256: [(4, 1)] + [(82, 0)] * 16000, 257: [(4, 1), (82, 0), (8, 0)]}
        self.opaque(sub_template(256, bytes(200)), SUB_TEMPLATE_LIST, templates)
        record = {"protocolIdentifier": 6, "interfaceName": "", "sourceIPv4Address": ""}
        expected = {"semantic": 3, "template": 257, "records": [record] * 3}
        self.reads(expected, sub_template(257, b"\6\6\6"), SUB_TEMPLATE_LIST, templates)
