"""Layouts: whatever a template says, records come out as one writes them by hand, many at once or one by one."""

import gc
import struct
from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given
from tests.unit.ipfix.walk import check_located, shape
from tests.unit.ipfix.wire import (
    VARIABLE,
    Collected,
    a_set,
    message,
    options_template,
    template,
    varying,
)
from ulogd_tw.core import types
from ulogd_tw.core.keys import registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.layout import field_keys
from ulogd_tw.ipfix.template import Field
from ulogd_tw.ipfix.variable_length import FEW, locate

NAMES = {
    "unsigned8": (4, "protocolIdentifier"), "unsigned16": (7, "sourceTransportPort"),
    "unsigned32": (10, "ingressInterface"), "unsigned64": (1, "octetDeltaCount"),
    "signed32": (434, "mibObjectValueInteger"), "float64": (311, "samplingProbability"),
    "boolean": (276, "dataRecordsReliability"), "ipv4Address": (8, "sourceIPv4Address"),
    "ipv6Address": (62, "ipNextHopIPv6Address"), "macAddress": (56, "sourceMacAddress"),
    "dateTimeSeconds": (150, "flowStartSeconds"), "dateTimeMilliseconds": (152, "flowStartMilliseconds"),
    "dateTimeMicroseconds": (154, "flowStartMicroseconds"), "dateTimeNanoseconds": (156, "flowStartNanoseconds"),
    "string": (82, "interfaceName"), "octetArray": (314, "ipPayloadPacketSection"), "basicList": (291, "basicList"),
}  # fmt: skip
"""An element of each type that IANA's registry uses, by number and name."""
SIZES = {"ipv4Address": 4, "ipv6Address": 16, "macAddress": 6, "boolean": 1, "dateTimeSeconds": 4}
"""Full sizes of the types that may not be reduced; the other times have 8."""


@st.composite
def typed_fields(draw):
    """(type name, length) as RFC 7011 allows it: full size, reduced, or variable for strings and octets."""
    kind = draw(st.sampled_from(sorted(NAMES)))
    if kind == "basicList":
        return kind, draw(st.one_of(st.just(VARIABLE), st.integers(5, 9)))
    if kind in ("string", "octetArray"):
        return kind, draw(st.one_of(st.just(VARIABLE), st.just(VARIABLE), st.integers(0, 9)))
    if kind.startswith(("unsigned", "signed")):
        return kind, draw(st.integers(1, 8))
    if kind == "float64":
        return kind, draw(st.sampled_from((4, 8)))
    return kind, SIZES.get(kind, 8)


def octets_and_value(draw, kind, length):
    """The octets of a random value in a record, and the value as a row has it."""
    if kind == "basicList":
        least, most = (0, 300) if length == VARIABLE else (length - 5, length - 5)
        values = draw(st.binary(min_size=least, max_size=most))
        octets = b"\3\0\4\0\1" + values  # allOf, protocolIdentifier, one octet each
        text = b'{"semantic":3,"element":"protocolIdentifier","values":[%s]}' % ",".join(map(str, values)).encode()
        return (varying(octets, draw(st.booleans())) if length == VARIABLE else octets), text
    if kind in ("string", "octetArray"):
        size = length if length != VARIABLE else draw(st.one_of(st.integers(0, 5), st.sampled_from((254, 255, 300))))
        value = draw(st.binary(min_size=size, max_size=size))
        return (varying(value, draw(st.booleans())) if length == VARIABLE else value), value
    if kind == "float64":
        form = "!f" if length == 4 else "!d"
        packed = struct.pack(form, draw(st.floats(width=8 * length, allow_nan=False)))
        return packed, struct.unpack(form, packed)[0]
    if kind == "boolean":
        value = draw(st.booleans())
        return (b"\1" if value else b"\2"), value
    signed = kind.startswith("signed")
    low, high = (-(1 << 8 * length - 1), (1 << 8 * length - 1) - 1) if signed else (0, (1 << 8 * length) - 1)
    if kind == "dateTimeMilliseconds":
        high = 1000 * 2**32 - 1  # the range of dateTimeSeconds; what is beyond is no value (test_values)
    value = draw(st.integers(low, high))
    return value.to_bytes(length, "big", signed=signed), value


@st.composite
def exports(draw, most_messages=6):
    """A template, Messages of records of it, and the rows that they hold."""
    fields = draw(st.lists(typed_fields(), min_size=1, max_size=7).filter(lambda fields: any(n for _, n in fields)))
    scopes = draw(st.integers(0, len(fields)))
    seen, names = Counter(), []
    for kind, _ in fields:
        name = NAMES[kind][1]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    specifiers = [(NAMES[kind][0], length) for kind, length in fields]
    if scopes:
        told = a_set(3, options_template(256, scopes, *specifiers))
    else:
        told = a_set(2, template(256, *specifiers))
    smallest = sum(1 if length == VARIABLE else length for _, length in fields)
    messages, rows, number = [message(told)], [], 0
    for _ in range(draw(st.integers(1, most_messages))):
        sets, first = [], number
        for _ in range(draw(st.integers(1, 2))):
            body = []
            for _ in range(draw(st.integers(0, 4))):
                parts = [octets_and_value(draw, *field) for field in fields]
                body.append(b"".join(octets for octets, _ in parts))
                rows.append(dict(zip(names, (value for _, value in parts), strict=True)))
                number += 1
            sets.append(a_set(256, *body, bytes(draw(st.integers(0, min(3, smallest - 1))))))
        messages.append(message(*sets, number=first))
    return names, messages, rows


def sent(found, names, *messages):
    """Rows with the keys that were sent; times in milliseconds are made of NTP times beside them."""
    return [{name: value for name, value in row.items() if name in names} for row in found.rows(*messages)]


class RecordTests(SynchronousTestCase):
    """Random templates and records, written by the tests field by field."""

    def test_names(self):
        """The elements used here are what the registry says."""
        for kind, (ident, name) in NAMES.items():
            key = registry.element(0, ident)
            self.assertEqual((name, kind), (key.name, key.type.name))

    def test_repeated_options(self):
        """Options records that say the same again come in their order, and the last word is the one that holds."""
        told = options_template(256, 1, (302, 4), (34, 4))
        said = [a_set(256, bytes(3) + b"\1" + number.to_bytes(4, "big")) for number in (10, 10, 20)]
        records = a_set(257, bytes(7) + b"\5", bytes(7) + b"\6")
        found = Collected(scale=True)
        first = message(a_set(3, told), a_set(2, template(257, (1, 8))))
        rows = found.rows(first, message(said[0], said[1]), message(said[2], number=2), message(records, number=3))
        self.assertEqual([10, 10, 20], [row["samplingInterval"] for row in rows if "samplingInterval" in row])
        self.assertEqual([5 * 20, 6 * 20], [row["octetDeltaCount"] for row in rows if "octetDeltaCount" in row])

    @given(exports())
    def test_written_by_hand(self, export):
        """Every record comes out, in order, every value as it was written."""
        names, messages, rows = export
        found = Collected()
        self.assertEqual(rows, sent(found, names, *messages))
        self.assertEqual(({}, 0, len(rows)), (found.errors, found.lost, found.counters.rows_received))

    @given(exports())
    def test_all_at_once(self, export):
        """A batch over many Messages equals one after the other."""
        _, messages, _ = export
        together, apart = Collected(), Collected()
        self.assertEqual(list(_rows(together, [messages])), list(_rows(apart, [[m] for m in messages])))
        self.assertEqual(together.counters.as_dict(), apart.counters.as_dict())

    @examples(15)
    @given(exports(most_messages=3), st.integers(FEW, 2 * FEW))
    def test_lock_step(self, export, times):
        """So many copies that they are walked in lock-step: the same rows again and again."""
        names, messages, rows = export
        found = Collected()
        found.feed(messages[0])
        # The sequence does not matter here, since the copies all have the same numbers.
        self.assertEqual(rows * times, sent(found, names, *messages[1:] * times))

    @given(exports(), st.data())
    def test_wanted(self, export, data):
        """What is decoded of the wanted keys alone is the same as those of all."""
        names, messages, rows = export
        wanted = frozenset(data.draw(st.sets(st.sampled_from(names))))
        found = Collected(wanted)
        batches = found.batches(*messages)
        if wanted:
            self.assertEqual([{n: v for n, v in row.items() if n in wanted} for row in rows],
                             [row for batch in batches for row in batch.rows()])  # fmt: skip
        for batch in batches:
            self.assertEqual([n for n in names if n in wanted], list(batch.schema))
        self.assertEqual(len(rows), found.counters.rows_received)

    @given(exports(), st.data())
    def test_every_cut(self, export, data):
        """A Message that is cut is malformed; with its length put right it has fewer records, or is malformed."""
        names, messages, rows = export
        last = messages[-1]
        cut = data.draw(st.integers(0, len(last) - 1))
        found = Collected()
        before = sent(found, names, *messages[:-1])
        self.assertEqual(rows[: len(before)], before)
        self.assertEqual([], sent(found, names, last[:cut]))
        self.assertEqual(1, found.counters.errors.total())
        if cut >= 16:
            found = Collected()
            sent(found, names, *messages[:-1])
            shorter = sent(found, names, last[:2] + struct.pack("!H", cut) + last[4:cut])
            self.assertEqual(rows[len(before) : len(before) + len(shorter)], shorter)
            self.assertTrue(found.decoder.malformed in (0, 1) and (not found.decoder.malformed or not shorter))

    @given(exports(most_messages=2), st.data())
    def test_set_lengths(self, export, data):
        """Any set length: whole records of what was written, nothing, or malformed."""
        _, messages, rows = export
        last = bytearray(messages[-1])
        struct.pack_into("!H", last, 18, data.draw(st.integers(0, len(last) + 5)))
        found = Collected()
        found.rows(*messages[:-1])
        found.rows(bytes(last))
        self.assertIn(found.decoder.malformed, (0, 1))

    @given(exports(), st.data())
    def test_damaged(self, export, data):
        """Octets changed anywhere: no exception, every batch sound, and the counters agree with what came out."""
        _, messages, _ = export
        found = Collected(reliable=data.draw(st.booleans()))
        rows = 0
        for octets in messages:
            damaged = bytearray(octets)
            for _ in range(data.draw(st.integers(0, 3))):
                damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
            rows += sum(batch.n for batch in found.batches(bytes(damaged)))
        self.assertEqual(found.counters.rows_received, rows)

    @given(st.lists(st.one_of(
        st.binary(max_size=80),
        st.lists(st.tuples(st.sampled_from((0, 2, 2, 3, 3, 4, 256, 257)), st.binary(max_size=40)), max_size=4).map(
            lambda sets: message(*(a_set(ident, body) for ident, body in sets)))), max_size=6))  # fmt: skip
    def test_anything(self, messages):
        """Whatever octets come, nothing is raised."""
        found = Collected()
        found.batches(*messages)
        self.assertEqual(len(messages), found.counters.messages_received)


def _rows(found, parts):
    """Rows with their context of Messages fed in parts, each drained."""
    for messages in parts:
        for batch in found.batches(*messages):
            yield from batch.rows()


lengths = st.lists(st.one_of(st.just(VARIABLE), st.integers(0, 3)), min_size=1, max_size=5).filter(
    lambda fields: VARIABLE in fields
)
bodies = st.lists(st.one_of(st.binary(max_size=12), st.sampled_from((b"\xff\0\2ab", b"\xff"))), max_size=6).map(
    b"".join
)


class LocateTests(SynchronousTestCase):
    """Lock-step against a walk that is written out here."""

    @examples(40)
    @given(
        lengths,
        st.lists(bodies, min_size=1, max_size=5),
        st.integers(1, FEW),
        st.integers(0, 2),
    )
    def test_any_octets(self, fields, bodies, times, before):
        """Random bodies, so few that they are walked one by one and so many that they go in lock-step."""
        check_located([bytes(before) + body for body in bodies] * times, before, fields)

    def test_cut_far_from_the_end(self):
        """A value that leaves no room for the fields after it is cut, and nothing is read behind the last body."""
        for times in (1, FEW, 4 * FEW):
            for size in (202, 210, 451):
                located = locate([b"\xfa" + bytes(size - 1)] * times, 0, shape([VARIABLE, 200, VARIABLE]))
                self.assertEqual([True] * times, located.cut.tolist())
                located.keep(~located.cut)
                self.assertEqual(([], 0), (located.starts.tolist(), len(located)))
            whole = b"\xfa" + bytes(250 + 200 + 1)
            located = locate([whole] * times, 0, shape([VARIABLE, 200, VARIABLE]))
            self.assertEqual((None, times), (located.cut, len(located)))


class SharingTests(SynchronousTestCase):
    """Layouts are made once for equal templates, and go with the last of them."""

    def test_shared(self):
        """Equal fields in other ids, domains and sessions are one layout; its fields are in memory once."""
        found = Collected()
        fields = (8, 4), (1, 4)
        found.feed(message(a_set(2, template(256, *fields), template(300, *fields))))
        found.feed(message(a_set(2, template(999, *fields)), domain=2))
        learnt = [t for domain in found.session.domains.values() for t in domain.templates.values()]
        self.assertEqual(
            (3, 1, 1), (len(learnt), len({t.layout for t in learnt}), len({id(t.template.fields) for t in learnt}))
        )

    def test_forgotten(self):
        """A template that changes with every Message leaves no layouts behind, without the garbage collector's help."""
        found = Collected()
        gc.disable()
        try:
            for i in range(500):
                found.feed(message(a_set(2, template(256, (i + 1, 4), (i + 2, 4)))))
            self.assertEqual(1, len(found.decoder.intake.templates._layouts))
        finally:
            gc.enable()
        self.assertEqual(2, found.session.fields)

    def test_compiled_are_bounded(self):
        """Nor do compiled ones grow: data of ever new templates."""
        found = Collected()
        for i in range(1500):
            found.batches(message(a_set(2, template(256, (i + 1, 4))), a_set(256, bytes(4)), number=i))
        self.assertEqual(1024, len(found.decoder._batches._compiled))
        self.assertEqual(1024, found.decoder._batches._compiled_fields)


class FieldKeysTests(SynchronousTestCase):
    """The key of each field."""

    def test_types(self):
        """Held as the type that the length allows."""
        keys = field_keys((Field(0, 7, 4), Field(0, 8, 16), Field(0, 210, 3), Field(21373, 1, 4), Field(0, 7, 2)), ALL)
        self.assertEqual(
            [("sourceTransportPort", types.UNSIGNED32), ("sourceIPv4Address", types.OCTETS), None,
             ("sourceTransportPort#2", types.UNSIGNED16)],
            [k and (k.name, k.type) for i, k in enumerate(keys) if i != 3],
        )  # fmt: skip
        self.assertEqual(((21373, 1),), keys[3].elements)
