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
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.core.types import BASIC_LIST, SUB_TEMPLATE_LIST, SUB_TEMPLATE_MULTI_LIST
from ulogd_tw.ipfix.layout import Layout
from ulogd_tw.ipfix.limits import Limits
from ulogd_tw.ipfix.structured import Lists, Plans
from ulogd_tw.ipfix.template import Field, Template
from ulogd_tw.operating.inspection import row_lines

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
    """One list at a time, out of octets written by hand."""

    def reads(self, expected, octets, type_, templates=(), opaque=0):
        lists = reader(templates)
        self.assertEqual(expected, lists.decode(octets, type_))
        self.assertEqual(opaque, lists.faults)

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
            (154, 8, hexed("e8fe6f7e80000000"), [1_699_999_998_500_000]),
            (82, 4, b"eth0a\0\0\0", ["eth0", "a"]),
            (313, 2, b"\x01\x02", ["0102"]),
            (483, 4, hexed("fbf40001 fbf4ffff"), ["64500:1", "64500:65535"]),
            (489, 12, struct.pack("!3I", 64500, 1, 2), ["64500:1:2"]),
            (489, VARIABLE, varying(b"\1\2") + varying(b""), ["0102", ""]),
            (1, VARIABLE, varying(b"\1\0") + varying(b"\5", long=True) + varying(b""), [256, 5, ""]),
            (82, VARIABLE, varying(b"eth0") + varying(b"x" * 300) + varying('é"'.encode()), ["eth0", "x" * 300, 'é"']),
            (4, VARIABLE, varying(b"\x01\x02"), [258]),
        ):
            name = registry.element(0, element).name
            expected = {"semantic": 3, "element": name, "values": values}
            self.reads(expected, basic(element, length, octets), BASIC_LIST)

    def test_enterprise_elements(self):
        """SD-1: the enterprise number stands behind the length; unknown elements are octets."""
        for pen, element, name, values in (
            (29305, 4, "reverseProtocolIdentifier", [6]), (99999, 7, "e99999id7", ["06"]),
            (0, 4, "protocolIdentifier", [6]),
        ):  # fmt: skip
            octets = basic(element, 1, b"\6", enterprise=pen)
            self.reads({"semantic": 3, "element": name, "values": values}, octets, BASIC_LIST)
        self.opaque(basic(4, 1, enterprise=1)[:-1], BASIC_LIST)

    def test_empty(self):
        """SD-1: lists without elements or records; these need no template. A list without even a header is opaque."""
        expected = {"semantic": 255, "element": "egressInterface", "values": []}
        self.reads(expected, basic(14, 4, semantic=255), BASIC_LIST)
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
        templates = {
            256: [(8, 4), (210, 2), (8, 4), (149, 4), (276, 1)], 257: [(82, VARIABLE), (210, VARIABLE), (4, 1)],
        }  # fmt: skip
        octets = sub_template(256, b"\xc0\0\2\1xx\xc0\0\2\2\0\0\0\7\1")
        record = {
            "sourceIPv4Address": "192.0.2.1", "sourceIPv4Address#2": "192.0.2.2", "observationDomainId": 7,
            "dataRecordsReliability": True,
        }  # fmt: skip
        self.reads({"semantic": 3, "template": 256, "records": [record]}, octets, SUB_TEMPLATE_LIST, templates)
        first, second = varying(b"a") + varying(b"xx") + b"\6", varying(b"", True) + varying(b"") + b"\7"
        octets = sub_template(257, first, second, b"\0\0")
        records = [{"interfaceName": "a", "protocolIdentifier": 6}, {"interfaceName": "", "protocolIdentifier": 7}]
        self.reads({"semantic": 3, "template": 257, "records": records}, octets, SUB_TEMPLATE_LIST, templates)

    def test_padding(self):
        """Zeros too short for a record, an element of a basicList or a block are padding."""
        templates = {256: [(1, 4)]}
        record = {"octetDeltaCount": 5}
        one = struct.pack("!I", 5)
        expected = {"semantic": 3, "template": 256, "records": [record]}
        self.reads(expected, sub_template(256, one, b"\0\0\0"), SUB_TEMPLATE_LIST, templates)
        expected = {"semantic": 3, "element": "octetDeltaCount", "values": [5]}
        self.reads(expected, basic(1, 4, one, b"\0\0\0"), BASIC_LIST)
        expected = {"semantic": 3, "blocks": [{"template": 256, "records": [record]}]}
        for zeros in range(9):
            self.reads(expected, multi((256, one + b"\0")) + bytes(zeros), SUB_TEMPLATE_MULTI_LIST, templates)

    def test_left_over(self):
        """SD-7: a list that is damaged behind something whole is read so far, and counted once."""
        templates, one = {256: [(1, 4)], 257: [(82, VARIABLE), (4, 1)]}, struct.pack("!I", 5)
        records = [{"octetDeltaCount": 5}]
        expected = {"semantic": 3, "template": 256, "records": records}
        self.reads(expected, sub_template(256, one, b"\1\2\3"), SUB_TEMPLATE_LIST, templates, 1)
        self.reads(expected | {"records": []}, sub_template(256, b"\1\2\3"), SUB_TEMPLATE_LIST, templates, 1)
        expected = {"semantic": 3, "element": "octetDeltaCount", "values": [5]}
        self.reads(expected, basic(1, 4, one, b"\0\0\1"), BASIC_LIST, (), 1)
        expected = {"semantic": 3, "element": "interfaceName", "values": ["lo"]}
        self.reads(expected, basic(82, VARIABLE, varying(b"lo"), b"\5eth"), BASIC_LIST, (), 1)
        expected = {"semantic": 3, "template": 257, "records": [{"interfaceName": "lo", "protocolIdentifier": 6}]}
        for rest in (b"\5eth", b"\1e", b"\1"):
            octets = sub_template(257, varying(b"lo"), b"\6", rest)
            self.reads(expected, octets, SUB_TEMPLATE_LIST, templates, 1)
        expected = {"semantic": 3, "blocks": [{"template": 256, "records": records}]}
        for rest in (b"\0\0\0\0\1", b"\1\0\0\3", b"\1\0\0\x09abc", b"\1"):
            self.reads(expected, multi((256, one)) + rest, SUB_TEMPLATE_MULTI_LIST, templates, 1)
        expected["blocks"][0]["records"] = records + records
        octets = multi((256, one + one + b"\1\2"), (256, one))
        expected["blocks"].append({"template": 256, "records": records})
        self.reads(expected, octets, SUB_TEMPLATE_MULTI_LIST, templates, 1)

    def test_unknown_block(self):
        """SD-5: a block of an unknown template, or with nothing whole, is left as octets; the others are read."""
        templates, records = {256: [(4, 1)], 258: [(82, VARIABLE)]}, [{"protocolIdentifier": 6}]
        octets = multi((300, b"abc"), (256, b"\6"), (258, b"\5ab"), (256, b"\6"))
        blocks = [
            {"template": 300, "octets": "616263"},
            {"template": 256, "records": records},
            {"template": 258, "octets": "056162"},
            {"template": 256, "records": records},
        ]
        self.reads({"semantic": 3, "blocks": blocks}, octets, SUB_TEMPLATE_MULTI_LIST, templates, 2)

    def test_nested(self):
        """SD-5: a list within a list that is not understood is opaque alone; one that goes beyond its own ends it."""
        templates = {256: [(292, VARIABLE), (4, 1)]}
        bad = sub_template(300, b"\1")
        inner = sub_template(256, varying(bad), b"\6", varying(sub_template(256)), b"\7")
        records = [
            {"subTemplateList": bad.hex(), "protocolIdentifier": 6},
            {"subTemplateList": {"semantic": 3, "template": 256, "records": []}, "protocolIdentifier": 7},
        ]
        self.reads({"semantic": 3, "template": 256, "records": records}, inner, SUB_TEMPLATE_LIST, templates, 1)
        longer = sub_template(256, varying(bad), b"\6", b"\x20", bad)
        self.reads({"semantic": 3, "template": 256, "records": records[:1]}, longer, SUB_TEMPLATE_LIST, templates, 2)
        self.opaque(sub_template(256, b"\x20", bad), SUB_TEMPLATE_LIST, templates)

    def test_damaged(self):
        """SD-7: of elements of no octets, lengths over the list, unknown templates nothing can be read."""
        self.opaque(basic(4, 0, b"\6"), BASIC_LIST)
        self.opaque(basic(82, VARIABLE, b"\5abcd"), BASIC_LIST)
        self.opaque(basic(82, VARIABLE, b"\xff\0"), BASIC_LIST)
        self.opaque(sub_template(300, b"\0"), SUB_TEMPLATE_LIST)
        for length in (0, 1, 2, 3, 6, 65535):
            self.opaque(b"\3" + struct.pack("!HH", 256, length) + b"\6", SUB_TEMPLATE_MULTI_LIST, {256: [(4, 1)]})
        self.opaque(hexed("030100000200020004"), SUB_TEMPLATE_MULTI_LIST)  # an empty block, if 2 octets were a length

    def test_depth(self):
        """SD-5: 16 lists within each other are read; what is deeper is opaque in its place."""
        octets = basic(291, VARIABLE)
        for _ in range(16):
            octets = basic(291, VARIABLE, varying(octets))
        lists = reader()
        found = lists.decode(octets, BASIC_LIST)
        for _ in range(16):
            (found,) = found["values"]
        self.assertEqual((basic(291, VARIABLE).hex(), 1), (found, lists.faults))
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


@st.composite
def trees(draw, depth=3):
    """(type, octets, value, templates by id) of a random list, written field by field."""
    templates = {}
    type_, octets, value = draw_list(draw, depth, templates)
    return type_, octets, value, templates


def draw_list(draw, depth, templates):
    """Type, octets and value of a list; the templates that it needs are added."""
    kind = draw(st.sampled_from(sorted(IDS, key=IDS.get)))
    semantic = draw(st.integers(0, 255))
    if kind is BASIC_LIST:
        field, values = draw_values(draw, depth, templates, draw(st.integers(0, 3)))
        octets = basic(field[0], field[1], *(o for o, _ in values), semantic=semantic, enterprise=(*field, None)[2])
        name = registry.element((*field, 0)[2], field[0]).name
        return kind, octets, {"semantic": semantic, "element": name, "values": [v for _, v in values]}
    count = 1 if kind is SUB_TEMPLATE_LIST else draw(st.integers(0, 3))
    blocks = [draw_records(draw, depth, templates) for _ in range(count)]
    if kind is SUB_TEMPLATE_LIST:
        ((ident, octets, records),) = blocks
        return kind, sub_template(ident, octets, semantic=semantic), {
            "semantic": semantic, "template": ident, "records": records,
        }  # fmt: skip
    value = {"semantic": semantic, "blocks": [{"template": ident, "records": records} for ident, _, records in blocks]}
    return kind, multi(*((ident, octets) for ident, octets, _ in blocks), semantic=semantic), value


def draw_records(draw, depth, templates):
    """Template id, octets (with padding) and values of up to three records."""
    n = draw(st.integers(0, 3))
    columns = [draw_values(draw, depth, templates, n) for _ in range(draw(st.integers(1, 3)))]
    ident = 256 + len(templates)
    templates[ident] = [field for field, _ in columns]
    records = [{} for _ in range(n)]
    for field, values in columns:
        name = registry.element((*field, 0)[2], field[0]).name
        for record, (_, value) in zip(records, values, strict=True):
            again = sum(key.split("#")[0] == name for key in record)
            record[f"{name}#{again + 1}" if again else name] = value
    octets = b"".join(values[row][0] for row in range(n) for _, values in columns)
    least = sum(1 if field[1] == VARIABLE else field[1] for field, _ in columns)
    return ident, octets + bytes(draw(st.integers(0, least - 1))), records


def draw_values(draw, depth, templates, n):
    """A field, and `n` times octets and value."""
    what = draw(st.sampled_from(("number", "string", "enterprise", "address", *(["list"] * 3 if depth else []))))
    if what == "list":
        lists = [draw_list(draw, depth - 1, templates) for _ in range(n)]
        kind = lists[0][0] if lists else BASIC_LIST
        lists = [found for found in lists if found[0] is kind]
        lists += lists[:1] * (n - len(lists))
        return (IDS[kind], VARIABLE), [(varying(o, draw(st.booleans())), v) for _, o, v in lists]
    if what == "number":
        length = draw(st.integers(1, 8))
        numbers = [draw(st.integers(0, (1 << 8 * length) - 1)) for _ in range(n)]
        return (1, length), [(number.to_bytes(length, "big"), number) for number in numbers]
    if what == "string":
        texts = [draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)) for _ in range(n)]
        return (82, VARIABLE), [(varying(t.encode(), draw(st.booleans())), t) for t in texts]
    if what == "address":
        octets = [draw(st.binary(min_size=4, max_size=4)) for _ in range(n)]
        return (8, 4), [(o, ".".join(map(str, o))) for o in octets]
    octets = [draw(st.binary(min_size=2, max_size=2)) for _ in range(n)]
    return (7, 2, 99999), [(o, o.hex()) for o in octets]


class PropertyTests(SynchronousTestCase):
    """Random lists, cuts and octets."""

    @given(trees())
    def test_written_by_hand(self, tree):
        """SD-1, SD-2, SD-4, SD-5: any nested lists come out as they were written, also through the JSON text."""
        type_, octets, value, templates = tree
        lists = reader(templates)
        self.assertEqual((value, 0), (lists.decode(octets, type_), lists.faults))
        self.assertEqual(value, json.loads(lists.text(octets, type_)[0]))

    @given(trees(), st.data())
    def test_damaged(self, tree, data):
        """SD-7: no cut and no changed octet raises; what comes out is JSON, opaque or not."""
        type_, octets, _, templates = tree
        lists = reader(templates)
        for end in range(len(octets)):
            self.assertIsInstance(lists.decode(octets[:end], type_), (dict, str))
        place = data.draw(st.integers(0, len(octets) - 1))
        changed = octets[:place] + data.draw(st.binary(min_size=1, max_size=4)) + octets[place + 1 :]
        json.loads(lists.text(changed, type_)[0])

    @given(st.binary(max_size=80), st.sampled_from(sorted(IDS, key=IDS.get)))
    def test_anything(self, octets, type_):
        """SD-7: neither do random octets."""
        templates = {0: [(292, VARIABLE)], 1: [(291, VARIABLE), (4, 1)], 256: [(293, 4), (82, VARIABLE)]}
        json.loads(reader(templates).text(octets, type_)[0])


LIST = template(300, (4, 1), (292, VARIABLE))
RECORD = b"\6" + varying(sub_template(256, b"\0\0\0\x05"))
FOUR = template(256, (1, 4))
TWO = template(256, (7, 2))
AS_FOUR = {"semantic": 3, "template": 256, "records": [{"octetDeltaCount": 5}]}
AS_TWO = {"semantic": 3, "template": 256, "records": [{"sourceTransportPort": 0}, {"sourceTransportPort": 5}]}


def lists_of(rows):
    """The subTemplateList of each row."""
    return [json.loads(row["subTemplateList"]) for row in rows]


class DecoderTests(SynchronousTestCase):
    """Lists in Messages, through the decoder."""

    def test_template_of_the_time(self):
        """A list is read by the templates as they were when its Message came, not when the batch is made."""
        found = Collected()
        found.feed(message(a_set(2, LIST, FOUR)), message(a_set(300, RECORD)))
        found.feed(message(a_set(2, TWO), a_set(300, RECORD), a_set(2, FOUR), a_set(300, RECORD), number=1))
        found.feed(message(a_set(300, RECORD), number=3), message(a_set(2, template(256)), number=4))
        rows = found.rows(message(a_set(300, RECORD), number=4))
        opaque = sub_template(256, b"\0\0\0\x05").hex()
        self.assertEqual([AS_FOUR, AS_TWO, AS_FOUR, AS_FOUR, opaque], lists_of(rows))
        self.assertEqual([6] * 5, [row["protocolIdentifier"] for row in rows])
        self.assertEqual(({"list": 1}, 0), (found.errors, found.lost))
        self.assertEqual([AS_TWO], lists_of(found.rows(message(a_set(2, TWO), a_set(300, RECORD), number=5))))

    def test_template_of_the_time_in_one_message(self):
        """The same where data and templates come in one Message, and nothing waited before."""
        found = Collected()
        found.feed(message(a_set(2, LIST, FOUR), a_set(300, RECORD), a_set(2, TWO)))
        self.assertEqual([AS_FOUR, AS_TWO], lists_of(found.rows(message(a_set(300, RECORD), number=1))))
        self.assertEqual({}, found.errors)

    def test_session_is_forgotten(self):
        """Records that waited when their session ended still have their templates."""
        found = Collected().feed(message(a_set(2, LIST, FOUR)), message(a_set(300, RECORD)))
        found.decoder.forget(found.session)
        self.assertEqual([AS_FOUR], lists_of(found.rows()))

    def test_domains(self):
        """Templates are those of the list's own domain, also where one batch has several."""
        found = Collected()
        found.feed(message(a_set(2, LIST, FOUR), domain=1), message(a_set(2, LIST, TWO), domain=2))
        sent = [message(a_set(300, RECORD), domain=domain, number=i) for i in range(20) for domain in (1, 2)]
        self.assertEqual([AS_FOUR, AS_TWO] * 20, lists_of(found.rows(*sent)))
        self.assertEqual({}, found.errors)

    def test_unknown_template(self):
        """SD-5: the list is opaque, the rest of the record is read, and it is counted."""
        found = Collected()
        (row,) = found.rows(message(a_set(2, LIST)), message(a_set(300, RECORD)))
        self.assertEqual({"protocolIdentifier": 6, "subTemplateList": b'"03010000000005"'}, row)
        self.assertEqual({"list": 1}, found.errors)

    def test_fixed_length(self):
        """A list in a field of fixed length, alone and beside the templates in one Message; sequence numbers fit."""
        found = Collected()
        record = b"\6" + basic(4, 1, b"\1\2") + b"\7"
        told = a_set(2, template(300, (4, 1), (291, 7), (4, 1)))
        data = a_set(300, record, record, b"\0")
        rows = found.rows(message(told, data), *(message(data, number=2 + 2 * i) for i in range(21)))
        expected = {"semantic": 3, "element": "protocolIdentifier", "values": [1, 2]}
        self.assertEqual([(6, expected, 7)] * 44, [
            (r["protocolIdentifier"], json.loads(r["basicList"]), r["protocolIdentifier#2"]) for r in rows
        ])  # fmt: skip
        self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_not_wanted(self):
        """A list that nobody wants is not looked at."""
        found = Collected(frozenset({"protocolIdentifier"}))
        (row,) = found.rows(message(a_set(2, LIST)), message(a_set(300, RECORD)))
        self.assertEqual(({"protocolIdentifier": 6}, {}), (row, found.errors))

    def test_limits(self):
        """Texts that are too long, alone or together, and changes beyond what is remembered: opaque, counted."""
        sent = message(a_set(2, LIST, FOUR)), message(a_set(300, RECORD, RECORD))
        for limits, opaque in ((Limits(list_octets=50), 2), (Limits(lists_octets=50), 1)):
            found = Collected(limits=limits)
            kinds = [type(value) for value in lists_of(found.rows(*sent))]
            self.assertEqual(([dict] * (2 - opaque) + [str] * opaque, {"limit_list": opaque}), (kinds, found.errors))
        found = Collected(limits=Limits(former=2)).feed(*sent)
        found.feed(*(message(a_set(2, t), number=2) for t in (TWO, FOUR, TWO)))
        rows = found.rows(message(a_set(300, RECORD), number=2))
        self.assertEqual([str, str, dict], list(map(type, lists_of(rows))))
        self.assertEqual({"list": 2}, found.errors)

    def test_texts(self):
        """Outputs write lists as they are: JSON in JSON, many rows and few; `canonical_list` has the text."""
        found = Collected()
        for n in (1, 3, 100):
            name = "é\n,=".encode()
            records = [b"\6" + varying(basic(82, VARIABLE, varying(name[: 3 + i % 3]))) for i in range(n)]
            told = message(a_set(2, template(301, (4, 1), (291, VARIABLE))))
            (batch,) = found.batches(told, message(a_set(301, *records)))
            key, column = batch.schema["basicList"], batch.columns["basicList"]
            expected = [{"semantic": 3, "element": "interfaceName", "values": ["é\n,="[: 2 + i % 3]]} for i in range(n)]
            for form in (text.JSON, text.PLAIN):
                self.assertEqual(expected, list(map(json.loads, text.tokens(column, key, form))))
            values = canonical_list(column, key)
            self.assertEqual(expected, list(map(json.loads, values)))
            self.assertTrue(all(value.isascii() and value.isprintable() for value in values))
            self.assertEqual(expected, [json.loads(line) for line in rendered(batch)])
            self.assertEqual(expected, [json.loads(line)["basicList"] for line in row_lines(batch)])


def rendered(batch):
    """The lists of a batch as lines, made together."""
    key = batch.schema["basicList"]
    field = ColumnField(b"", batch.columns[key.name], None, key, text.JSON)
    return b"".join(octets for octets, _ in Lines(b"\n", b"", b"").render([field], batch.n)).decode().splitlines()
