"""Records of batches with any keys: what is written is what went in, and nothing else."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.exporting.doubles import Reader
from tests.unit.ipfix.wire import (
    CONTEXT_NAMES,
    TIMES,
    Collected,
    a_set,
    ipv4,
    message,
    options_template,
    template,
    varying,
)
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import NETFLOW9, Key, known, registry
from ulogd_tw.ipfix import record_encoder
from ulogd_tw.ipfix.builder import MessageBuilder, template_messages
from ulogd_tw.ipfix.fields import field_of
from ulogd_tw.ipfix.message import whole_messages
from ulogd_tw.ipfix.packet_sections import SECTIONS
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.template import VARIABLE, Field

VALUES = {
    "unsigned": lambda t: st.integers(0, (1 << 8 * t.octets) - 1),
    "signed": lambda t: st.integers(-(1 << 8 * t.octets - 1), (1 << 8 * t.octets - 1) - 1),
    "float": lambda t: st.floats(width=8 * t.octets, allow_nan=False),
    "boolean": lambda t: st.booleans(),
    "ipv4": lambda t: st.integers(0, 2**32 - 1),
    "ipv6": lambda t: st.integers(0, 2**128 - 1),
    "mac": lambda t: st.integers(0, 2**48 - 1),
    "seconds": lambda t: st.integers(0, 2**32 - 1),
    "milliseconds": lambda t: st.integers(0, 1000 * 2**32 - 1),
    # the lowest bits of microseconds are not sent (RFC 7011 section 6.1.9)
    "ntp": lambda t: st.integers(0, 2**53 - 1).map(lambda v: v << 11),
    "string": lambda t: st.text(max_size=300).map(str.encode),
    "octets": lambda t: st.binary(max_size=300),
}
ANY = [
    key
    for key in (*registry.iana.values(), *registry.enterprise.values())
    if key.type.kind in VALUES
    and key.element[1] < 1 << 15
    and key.element != (0, 210)
    and key.name not in CONTEXT_NAMES
]
"""paddingOctets are no key; the names of the context mean something else."""


def column(key, values):
    """Values, None for those that are missing, as a column and its mask."""
    mask = np.array([value is None for value in values])
    filled = [(b"" if key.type.variable else 0) if value is None else value for value in values]
    if key.type.variable:
        return Octets.of(filled), mask
    if key.type is types.IPV6:
        return np.array([(v >> 64, v & (1 << 64) - 1) for v in filled], np.uint64).reshape(-1, 2), mask
    return np.array(filled, key.type.dtype), mask


def batch_of(keys, rows):
    """A batch of rows given as tuples; None is a missing value."""
    found, missing = {}, {}
    for key, values in zip(keys, zip(*rows, strict=True), strict=True):
        found[key.name], mask = column(key, values)
        if mask.any():
            missing[key.name] = mask
    return Batch(Schema(keys), found, missing, n=len(rows), now=0.0)


def octets_of(made, records, now=1000):
    """Messages with the templates so far and these records."""
    builder = MessageBuilder(65507)
    blocks = [block for r in records for block in builder.add(r)] + builder.flush()
    found, sequence = template_messages(list(made.templates.values()), 65507, 0, 0, now), 0
    for block in blocks:
        found += [row.tobytes() for row in block.stamped(sequence, 0, now)]
        sequence += block.all_records
    return found


class RoundTripTests(SynchronousTestCase):
    """What the decoder, which is tested against captures and RFCs, reads of what was written."""

    def read(self, made, records):
        collected = Collected()
        sent = {field.ident for template in made.templates.values() for field in template.fields}
        ours = {name for name, ident in zip(TIMES, (152, 153), strict=True) if ident not in sent}
        rows = [{name: value for name, value in row.items() if name not in ours}
                for row in collected.rows(*octets_of(made, records))]  # fmt: skip
        self.assertEqual(({}, 0), (collected.errors, collected.lost))
        return rows

    def check(self, keys, rows):
        made = RecordEncoder(Counters("test"))
        batch = batch_of(keys, rows)
        found = self.read(made, list(made.records(batch)))
        expected = [row for row in batch.rows() if row]
        self.assertEqual(sorted(map(repr, expected)), sorted(map(repr, found)))
        self.assertEqual(batch.n - len(expected), made.counters.dropped["no_fields"])
        self.assertEqual({}, dict(made.counters.errors))

    def test_every_element(self):
        """Every element of IANA and of the enterprises, twice in a record and once."""
        for key in ANY:
            value = _some(key.type)
            twice = Key(f"{key.name}#2", key.type)
            self.check([key, twice], [(value, value), (value, None)])

    @given(st.data())
    def test_any(self, data):
        """Any keys, any values, any of them missing; of a packet section more would be read than was written."""
        plain = [key for key in ANY if key.name not in SECTIONS]
        keys = data.draw(st.lists(st.sampled_from(plain), min_size=1, max_size=8, unique_by=lambda key: key.name))
        again = [Key(f"{key.name}#2", key.type) for key in keys[: data.draw(st.integers(0, 2))]]
        keys = keys + again
        one = st.tuples(*(st.one_of(VALUES[key.type.kind](key.type), st.none()) for key in keys))
        rows = data.draw(st.lists(one, min_size=1, max_size=30))
        # a second occurrence without a first would be read as the first
        first = [[k.name for k in keys].index(k.name[:-2]) for k in again]
        rows = [r for r in rows if all(r[a] is not None or r[len(keys) - len(again) + i] is None
                                       for i, a in enumerate(first))]  # fmt: skip
        if rows:
            self.check(keys, rows)

    def test_order(self):
        """Rows that have the same keys stay in order."""
        keys = [known("octetDeltaCount"), known("flowId")]
        made = RecordEncoder(Counters("test"))
        rows = self.read(made, list(made.records(batch_of(keys, [(i, None if i % 3 else i) for i in range(100)]))))
        self.assertEqual([i for i in range(100) if not i % 3], [r["octetDeltaCount"] for r in rows if "flowId" in r])
        self.assertEqual([i for i in range(100) if i % 3], [r["octetDeltaCount"] for r in rows if "flowId" not in r])


def _some(type_):
    return {"string": b"text", "octets": b"\0\1", "boolean": True, "float": 1.5, "ntp": 1 << 40,
            "signed": -3}.get(type_.kind, 3)  # fmt: skip


class TemplateTests(SynchronousTestCase):
    """What stands on the wire, read with struct alone, where fields are fixed."""

    def written(self, *batches, options=False, made=None):
        self.made = made or RecordEncoder(Counters("test"))
        reader = Reader()
        records = [r for batch in batches for r in self.made.records(batch, options)]
        for octets in octets_of(self.made, records):
            reader.message(octets)
        return reader

    def test_masks_choose_templates(self):
        """A missing value is no field, never 0; rows that lack the same share a template, in every batch."""
        keys = [known("sourceTransportPort"), known("octetDeltaCount"), known("packetDeltaCount")]
        rows = [(1, 10, 100), (2, None, 200), (3, 30, None), (4, None, None), (5, 50, 500), (6, None, 600)]
        reader = self.written(batch_of(keys, rows), batch_of(keys, rows[1:2]))
        names = (7, 1, 2)
        expected = [{n: v for n, v in zip(names, row, strict=True) if v is not None} for row in [*rows, rows[1]]]
        self.assertEqual(sorted(map(repr, expected)), sorted(repr(record) for _, record in reader.records))
        self.assertEqual(4, len(reader.templates))
        self.assertEqual([], reader.gaps)

    def test_rows_without_anything(self):
        """They are dropped and counted."""
        reader = self.written(batch_of([known("flowId")], [(1,), (None,), (None,)]))
        self.assertEqual([{148: 1}], [record for _, record in reader.records])
        self.assertEqual({"no_fields": 2}, dict(self.made.counters.dropped))

    def test_widths(self):
        """A narrow column is a short field; a wide one has the element's length, and values beyond it are left out."""
        keys = [known("octetDeltaCount").typed(types.UNSIGNED32), known("sourceTransportPort").typed(types.UNSIGNED32),
                known("mibObjectValueInteger").typed(types.SIGNED64)]  # fmt: skip
        reader = self.written(batch_of(keys, [(1, 65535, -(1 << 31)), (2, 65536, 1), (3, 5, 1 << 31), (4, None, 7)]))
        self.assertEqual([(1, 4), (7, 2), (434, 4)], next(iter(reader.templates.values())))
        found = sorted([*record.items()] for _, record in reader.records)
        self.assertEqual(
            [[(1, 1), (7, 65535), (434, 1 << 31)], [(1, 2), (434, 1)], [(1, 3), (7, 5)], [(1, 4), (434, 7)]], found
        )
        self.assertEqual({"unfit": 2}, dict(self.made.counters.errors))

    def test_context(self):
        """Who sent a record, as the elements for that, behind its own fields."""
        keys = [
            Key("exporter", types.IPV4), known("exporter_port"), known("observationDomainId"), known("templateId"),
            known("received_ms"), known("export_time"), known("octetDeltaCount"),
            known("exporterIPv4Address").named("exporterIPv4Address"),
        ]  # fmt: skip
        reader = self.written(batch_of(keys, [(1, 2, 3, 4, 5, 6, 7, 8)]))
        (fields,) = reader.templates.values()
        self.assertEqual([(1, 8), (130, 4), (130, 4), (217, 2), (405, 4), (258, 8)], fields)
        self.assertEqual(set(), self.made.left_out)
        reader = self.written(batch_of([Key("exporter", types.IPV6), known("flowId")], [(1 << 64, 1)]))
        self.assertEqual([(148, 8), (131, 16)], next(iter(reader.templates.values())))

    def test_names_of_netflow(self):
        """Fields of v5 and v9 that are an element of IANA's are it; others are left out, and named."""
        keys = [registry.element(NETFLOW9 + 2, i) for i in (0, 5, 7)]  # srcaddr, dPkts, first
        own = next(key for key in registry.netflow9.values() if key.element[0] == NETFLOW9 and
                   key.type.kind == "unsigned" and field_of(key) is None)  # fmt: skip
        reader = self.written(batch_of([*keys, own], [(1, 2, 3, 4)]))
        self.assertEqual([(8, 4), (2, 4), (22, 4)], next(iter(reader.templates.values())))
        self.assertEqual({own.name}, self.made.left_out)

    def test_fields(self):
        """The element and length of keys of each origin; None for what no element can have."""
        for name, held, expected in (
            ("orig.ip.saddr", types.IPV4, Field(0, 8, 4)),
            ("orig.ip.saddr", types.IPV6, Field(0, 27, 16)),
            ("reply.ip.saddr", types.IPV6, Field(29305, 27, 16)),
            ("reply.raw.pktlen", types.UNSIGNED64, Field(29305, 85, 8)),
            ("ct.mark", types.UNSIGNED32, Field(21373, 4, 4)),
            ("oob.prefix", types.STRING, Field(21373, 3, VARIABLE)),
            ("raw.mac.saddr", types.OCTETS, None),
            ("flow.start.sec", types.UNSIGNED32, None),
            ("sourceAddress", types.IPV6, Field(0, 27, 16)),
            ("e4242id77", types.OCTETS, Field(4242, 77, VARIABLE)),
            ("e4242id77#3", types.OCTETS, Field(4242, 77, VARIABLE)),
            ("observationDomainId#2", types.UNSIGNED32, Field(0, 149, 4)),
            ("octetDeltaCount", types.OCTETS, None),
            ("basicList", types.BASIC_LIST, None),
            ("v9id99", types.OCTETS, None),
            ("#APP_ID", types.UNSIGNED32, None),
        ):
            key = known(name).typed(held)
            found = field_of(key)
            self.assertEqual(expected, found and found[0], (name, held))

    def test_too_many_patterns(self):
        """Rows beyond so many patterns lose values, never get wrong ones, and are counted."""
        self.patch(record_encoder, "MOST_PATTERNS", 4)
        keys = [known(n) for n in ("flowId", "octetDeltaCount", "packetDeltaCount", "sourceTransportPort")]
        rows = [(i, *(None if i >> bit & 1 else i + bit for bit in range(3))) for i in range(8)]
        reader = self.written(batch_of(keys, rows), batch_of(keys, rows))
        self.assertEqual(16, len(reader.records))
        self.assertLessEqual(len(reader.templates), 8)
        lost = 0
        for _, record in reader.records:
            row = rows[record[148]]
            whole = {e: v for e, v in zip((148, 1, 2, 7), row, strict=True) if v is not None}
            self.assertLessEqual(record.items(), whole.items())
            lost += record != whole
        self.assertGreater(lost, 0)
        self.assertGreaterEqual(self.made.counters.errors["patterns"], lost)

    def test_full(self):
        """Templates have a bound; after a restart they begin anew. Far beyond it rows are dropped."""
        self.patch(record_encoder, "MOST_TEMPLATES", 2)
        made = RecordEncoder(Counters("test"))
        for name in ("flowId", "octetDeltaCount"):
            self.assertFalse(made.full)
            list(made.records(batch_of([known(name)], [(1,)])))
        self.assertTrue(made.full)
        made.restart()
        self.assertFalse(made.full)
        written = self.written(batch_of([known("packetDeltaCount")], [(1,)]), made=made)
        self.assertEqual([[(2, 8)]], list(written.templates.values()))
        for ident in range(1, 6):
            list(made.records(batch_of([registry.element(0, ident)], [(1,)])))
        self.assertEqual((4, 1), (len(made.templates), made.counters.dropped["templates"]))

    def test_numbers(self):
        """UDPT-6: a template has the same number in every run, whatever came before, and none of the exporter's own."""
        keys = [known(name) for name in ("flowId", "octetDeltaCount", "packetDeltaCount")]
        first = RecordEncoder(Counters("test"))
        for key in keys:
            list(first.records(batch_of([key], [(1,)])))
        second = RecordEncoder(Counters("test"))
        for key in reversed(keys):
            list(second.records(batch_of([key], [(1,)])))
        self.assertEqual(first.templates, second.templates)
        self.assertEqual(3, len(first.templates))
        self.assertTrue(all(256 + 16384 <= ident < 65536 for ident in first.templates))

    def test_two_of_one_number(self):
        """Where two templates would have one number, the second takes the next."""
        self.patch(record_encoder, "_IDENTS", 2)
        made = RecordEncoder(Counters("test"))
        for name in ("flowId", "octetDeltaCount"):
            list(made.records(batch_of([known(name)], [(1,)])))
        self.assertEqual({16640, 16641}, set(made.templates))

    def test_many_columns_with_masks(self):
        """More masked columns than bits of a word."""
        keys = [k for k in ANY if k.type is types.UNSIGNED32 and k.element[0] == 0][:70]
        rows = [tuple(None if (place + i) % 35 == 0 else i for place in range(70)) for i in range(40)]
        reader = self.written(batch_of(keys, rows))
        elements = [key.element[1] for key in keys]
        expected = [{e: v for e, v in zip(elements, row, strict=True) if v is not None} for row in rows]
        self.assertEqual(sorted(map(repr, expected)), sorted(repr(record) for _, record in reader.records))

    def test_described(self):
        """Elements that an exporter has described itself (RFC 5610), once and twice in a record."""
        key = Key("flavour", types.UNSIGNED16, ((4242, 7),))
        batch = batch_of([key, Key("flavour#2", types.UNSIGNED16), known("flowId")], [(1, 2, 3), (4, None, 6)])
        made = RecordEncoder(Counters("test"))
        records = list(made.records(batch))
        self.assertEqual(set(), made.left_out)
        rows = Collected().rows(*octets_of(made, records))
        self.assertEqual(
            [{"e4242id7": b"\0\1", "e4242id7#2": b"\0\2", "flowId": 3}, {"e4242id7": b"\0\4", "flowId": 6}],
            sorted(rows, key=lambda row: row["flowId"]),
        )


class OptionsTests(SynchronousTestCase):
    """Records about an exporter stay such records."""

    def collected(self):
        told = a_set(3, options_template(300, 1, (141, 4), (41, 8), (82, 65535)))
        data = a_set(300, (7).to_bytes(4, "big") + (99).to_bytes(8, "big") + varying(b"eth0"))
        (batch,) = Collected().batches(message(told, data))
        return batch

    def test_round_trip(self):
        """An Options Template, whose scope is the exporter and its domain, then the record's own."""
        made = RecordEncoder(Counters("test"))
        records = list(made.records(self.collected(), options=True))
        (found,) = made.templates.values()
        self.assertEqual(3, found.scopes)
        self.assertEqual([130, 405, 141, 41, 82, 217, 258], [field.ident for field in found.fields])
        (batch,) = Collected().batches(*octets_of(made, records))
        (row,) = batch.rows()
        self.assertEqual(b"options", row["record_kind"])
        own = {k: row[k] for k in ("exporterIPv4Address", "originalObservationDomainId", "lineCardId",
                                   "exportedMessageTotalCount", "interfaceName")}  # fmt: skip
        self.assertEqual(
            {"exporterIPv4Address": ipv4("192.0.2.1"), "originalObservationDomainId": 1, "lineCardId": 7,
             "exportedMessageTotalCount": 99, "interfaceName": b"eth0"}, own,
        )  # fmt: skip

    def test_scope_without_an_element(self):
        """A scope of NetFlow v9 is left out; what is left has a scope nevertheless."""
        keys = [registry.element(NETFLOW9 + 1, 1), known("samplingInterval")]
        made = RecordEncoder(Counters("test"))
        list(made.records(batch_of(keys, [(1, 100)]), options=True))
        (found,) = made.templates.values()
        self.assertEqual(([34], 1), ([field.ident for field in found.fields], found.scopes))


class WholeMessagesTests(SynchronousTestCase):
    """The beginning of a file that can be read."""

    def test_cuts(self):
        """Whatever the end is: the messages that are whole."""
        first = message(a_set(2, template(256, (1, 4))))
        second = message(a_set(256, b"\0\0\0\1"), number=0)
        octets = first + second
        for cut in range(len(octets)):
            self.assertEqual((1, len(first)) if cut >= len(first) else (0, 0), whole_messages(octets[:cut]), cut)
        self.assertEqual((2, len(octets)), whole_messages(memoryview(octets)))
        for end in (b"\0" * 100, second[:-1], message(length=16), b"\0\x0a\0\x11" + bytes(13)):
            self.assertEqual((2, len(octets)), whole_messages(octets + end))
