"""Records that are copied as they came: what may be, and that readers see no difference."""

import gc
import io
import struct
import weakref

import numpy as np
from hypothesis import event
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.exporting.doubles import Reader
from tests.unit.ipfix.wire import VARIABLE, Collected, a_set, ipv4, message, options_template, template, varying
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.exporting.flow_records import FlowRecords, parse
from ulogd_tw.ipfix.builder import MessageBuilder, template_messages
from ulogd_tw.ipfix.received import ReceivedBatch
from ulogd_tw.ipfix.session import Session

FIELDS = (
    (1, 8), (1, 4), (1, 3), (1, 9), (2, 8), (4, 1), (5, 1), (7, 2), (7, 4), (8, 4), (8, 3), (12, 4), (27, 16), (56, 6),
    (61, 1), (82, VARIABLE), (82, 7), (85, 5), (96, VARIABLE), (136, 1), (150, 4), (152, 8), (153, 8), (154, 8),
    (156, 8), (160, 8), (22, 4), (158, 4), (276, 1), (305, 4), (324, 8), (320, 4), (291, VARIABLE), (149, 4), (145, 2),
    (210, 2), (500, 3), (1, 8, 29305), (1, 4, 29305), (152, 8, 29305), (9, 4, 9999), (9, VARIABLE, 9999), (95, 4),
)  # fmt: skip
"""Fields of every type, in full, reduced and impossible lengths; some make a template that is never copied."""
PLAIN = [
    field for field in FIELDS if field[0] in (1, 2, 4, 5, 7, 8, 12, 56, 82, 96, 152, 153, 276, 324) and field[1] != 9
]
templates = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=8) | st.lists(
    st.sampled_from([field for field in PLAIN if field != (8, 3) and field != (7, 4)]), min_size=1, max_size=8
)
counts = st.lists(st.integers(0, 6), min_size=1, max_size=5)
WAYS = ("auto", "all", "biflow")


def value(draw, field):
    """Octets of one field, which mostly are a value of its element."""
    element, length = field[:2]
    if length == VARIABLE:
        octets = draw.randbytes(draw.choice((0, 3, 20, 300)))
        return varying(octets, long=draw.random() < 0.2)
    octets = draw.randbytes(length)
    if element in (152, 153) and draw.random() < 0.98:
        return bytes(3) + octets[3:]
    if element == 276 and draw.random() < 0.98:
        return bytes([1 + octets[0] % 2])
    return octets[:6] + b"\0\0" if element in (154, 324) and draw.random() < 0.9 else octets


def sent(draw, fields, domain, counts_):
    """A template and Messages of so many records."""
    found, number = [message(a_set(2, template(256, *fields)), domain=domain)], 0
    for count in counts_:
        records = [b"".join(value(draw, field) for field in fields) for _ in range(count)]
        found.append(message(a_set(256, *records), number=number, domain=domain, export_time=1000 + number))
        number += count
    return found


def collected(streams, copied):
    """The batches of Messages of several exporters, which nobody has looked into."""
    world = Collected(copied=copied, limits=Collected().decoder.limits)
    for place, messages in enumerate(streams):
        session = Session(("192.0.2.1", "2001:db8::1", "192.0.2.2")[place], 5000 + place, reliable=True)
        for one in messages:
            world.decoder.feed(session, one, 2000.0 + place)
    return world.decoder.drain(2001.0), world


def exported(batches, way="auto", most=4000):
    """Messages with the records of these batches."""
    flows = FlowRecords(Counters("test"), lambda *_: None, parse(way))
    builder, blocks = MessageBuilder(most), []
    for batch in batches:
        for records in flows.records(batch):
            blocks += builder.add(records)
    blocks += builder.flush()
    out, sequence = template_messages(list(flows.outgoing.templates.values()), 65535, 0, 1, 3000.0), 0
    for block in blocks:
        for one in block.stamped(sequence, 1, 3000.0):
            out.append(one.tobytes())
        sequence += block.all_records
    return out, flows.counters


def seen(messages):
    """The rows in these Messages, as our own reader has them; the other one checks lengths and numbers."""
    reader = Reader()
    for one in messages:
        reader.message(one)
    assert not reader.gaps and not reader.unreadable
    return [row for batch in Collected().batches(*messages) for row in batch.rows()]


def without_template(rows):
    """Without the number of the template, which follows the lengths of its fields; sorted, as layouts may differ."""
    return sorted(sorted((name, repr(v)) for name, v in row.items() if name != "templateId") for row in rows)


def changed(draw, batches):
    """The batches cut, thinned out and joined, as queues and filters do."""
    found = []
    for batch in batches:
        choice = draw.randrange(4)
        if choice == 1:
            batch = batch.take(np.array([draw.random() < 0.6 for _ in range(batch.n)]))
        elif choice == 2:
            batch = batch.take(np.array(draw.sample(range(batch.n), batch.n)))
        parts = [batch.take(slice(0, batch.n // 2)), batch.take(slice(batch.n // 2, batch.n))] if choice else [batch]
        found += [part for part in parts if part.n]
    heaps = {}
    for batch in found:
        heaps.setdefault(batch.schema, []).append(batch)
    return [Batch.joined(heap) for heap in heaps.values()]


class SameTests(SynchronousTestCase):
    """Copied or encoded: a reader sees the same."""

    @given(st.lists(st.tuples(templates, counts), min_size=1, max_size=3), st.sampled_from(WAYS), st.randoms())
    def test_any(self, chosen, way, draw):
        """Records of any template, in any batches, are the same elements with the same values."""
        streams = [sent(draw, fields, 1 + place, n) for place, (fields, n) in enumerate(chosen)]
        seed, results, worlds = draw.getrandbits(32), [], []
        for copied in (False, True):
            batches, world = collected(streams, copied)
            if copied and any(isinstance(batch, ReceivedBatch) for batch in batches):
                event("copied")
            draw.seed(seed)
            messages, counters = exported(changed(draw, batches), way)
            results.append((without_template(seen(messages)), dict(counters.dropped), dict(counters.errors)))
            worlds.append((world.counters.rows_received, world.errors, dict(world.counters.dropped)))
        self.assertEqual(*results)
        self.assertEqual(*worlds)

    @given(st.lists(st.tuples(templates, counts), min_size=1, max_size=2), st.randoms())
    def test_columns(self, chosen, draw):
        """Whoever asks for the columns of a batch finds those of an ordinary batch, taken and joined too."""
        streams = [sent(draw, fields, 1 + place, n) for place, (fields, n) in enumerate(chosen)]
        seed, results = draw.getrandbits(32), []
        for copied in (False, True):
            batches, _ = collected(streams, copied)
            draw.seed(seed)
            results.append([repr(list(batch.rows())) for batch in changed(draw, batches)])
        self.assertEqual(*results)

    @given(st.lists(st.tuples(templates, counts), min_size=1, max_size=2), st.sampled_from(WAYS), st.randoms())
    def test_damaged(self, chosen, way, draw):
        """Messages with wrong lengths, and octets that are no records, are left out in the same way."""
        streams = [sent(draw, fields, 1 + place, n) for place, (fields, n) in enumerate(chosen)]
        for messages in streams:
            for place in range(1, len(messages)):
                octets = bytearray(messages[place])
                for _ in range(draw.randrange(3)):
                    octets[draw.randrange(16, len(octets))] ^= 1 << draw.randrange(8)
                messages[place] = bytes(octets[: draw.choice((None, None, -1, -3))])
        results = []
        for copied in (False, True):
            batches, world = collected(streams, copied)
            found, counters = exported(batches, way)
            counts_ = world.counters
            results.append((without_template(seen(found)), dict(counters.errors), counts_.rows_received, world.errors,
                            dict(counts_.dropped), dict(counts_.lost), world.kinds))  # fmt: skip
        self.assertEqual(*results)

    def test_kept(self):
        """A batch is as large as its columns are too; saved and loaded it is an ordinary batch of the same rows."""
        batch = first(((7, 2), (1, 4), (82, VARIABLE)), *[b"\0\1\0\0\0\2" + varying(b"eth0")] * 50)
        before = batch.nbytes
        rows = list(batch.rows())
        self.assertEqual(before, batch.nbytes)
        self.assertGreaterEqual(before, Batch(batch.schema, batch.columns, n=50, now=0.0).nbytes)
        file = io.BytesIO()
        batch.save(file)
        file.seek(0)
        self.assertEqual(rows, list(Batch.load(file).rows()))


def first(fields, *records, domain=7):
    """The batch of these records."""
    (batch,) = collected([[message(a_set(2, template(300, *fields)), a_set(300, *records), domain=domain)]], True)[0]
    return batch


class OctetsTests(SynchronousTestCase):
    """The octets themselves."""

    BEHIND = struct.pack("!IHIQ", ipv4("192.0.2.1"), 5000, 7, 2_000_000)
    """exporterIPv4Address, exporterTransportPort, originalObservationDomainId, collectionTimeMilliseconds."""

    def data(self, batch):
        """Fields of the one template, and octets of the records."""
        messages, _ = exported([batch], most=65535)
        reader = Reader()
        reader.message(messages[0])
        (fields,) = reader.templates.values()
        return fields, messages[1][20:]

    def test_fixed(self):
        """A record is as it came, in the lengths of its own template, and the context follows."""
        records = [struct.pack("!IHI", 1, 2, 3), struct.pack("!IHI", 4, 5, 6)]
        fields, octets = self.data(first(((8, 4), (7, 2), (1, 4)), *records))
        self.assertEqual([(8, 4), (7, 2), (1, 4), (130, 4), (217, 2), (405, 4), (258, 8)], fields)
        self.assertEqual(records[0] + self.BEHIND + records[1] + self.BEHIND, octets)

    def test_varying(self):
        """So are records of variable length, with lengths in three octets too."""
        records = [b"\7" + varying(b"eth0", long=True) + b"\1", b"\x08" + varying(b"x" * 400) + b"\2"]
        fields, octets = self.data(first(((4, 1), (82, VARIABLE), (5, 1)), *records))
        self.assertEqual([(4, 1), (82, VARIABLE), (5, 1), (130, 4), (217, 2), (405, 4), (258, 8)], fields)
        self.assertEqual(records[0] + self.BEHIND + records[1] + self.BEHIND, octets)

    def test_times_of_arrival(self):
        """Rows of different arrival, joined by a queue, keep their own."""
        fields = ((7, 2), (1, 4))
        early, late = first(fields, b"\0\1\0\0\0\2"), first(fields, b"\0\3\0\0\0\4")
        late.context["received_ms"] = late.context["received_ms"] + np.uint64(9)
        _, octets = self.data(Batch.joined([early, late]))
        times = [int.from_bytes(octets[end - 8 : end], "big") for end in (24, 48)]
        self.assertEqual([2_000_000, 2_000_009], times)


class MemoryTests(SynchronousTestCase):
    """What a batch keeps alive."""

    def test_few_of_many(self):
        """The rows that a filter lets through do not keep the others, whether somebody has read columns or not."""
        for fields, record in ((((7, 2), (1, 4)), bytes(6)), (((7, 2), (82, VARIABLE)), b"\0\1" + varying(b"eth0"))):
            for read in (False, True):
                batch = first(fields, *[record] * 200)
                whole = batch.received.octets
                others = weakref.ref(whole if isinstance(whole, np.ndarray) else whole.buffer)
                if read:
                    self.assertEqual(200, len(batch.columns["sourceTransportPort"]))
                few = batch.take(np.arange(200) < 3)
                del batch, whole
                gc.collect()
                self.assertIsNone(others(), (fields, read))
                self.assertEqual(3, len(list(few.rows())))


class WhatIsCopiedTests(SynchronousTestCase):
    """Which records are, and which are not."""

    def copied(self, fields, *records):
        return isinstance(first(fields, *records), ReceivedBatch)

    def test_yes(self):
        """Fields in their own or a reduced length, texts, times and truths."""
        self.assertTrue(self.copied(((8, 4), (1, 4)), bytes(8)))
        self.assertTrue(self.copied(((82, 9), (96, VARIABLE)), bytes(9) + varying(b"web")))
        self.assertTrue(self.copied(((152, 8), (276, 1)), bytes(8) + b"\2"))
        self.assertTrue(self.copied(((324, 8),), bytes(6) + b"\x08\0"))
        self.assertTrue(self.copied(((9, 4, 9999),), bytes(4)))

    def test_fields_left_out_or_changed(self):
        """Padding, fields of impossible or larger length, and times to be made absolute."""
        for field in ((210, 2), (8, 3), (7, 4), (160, 8), (22, 4), (158, 4), (154, 8)):
            self.assertFalse(self.copied(((4, 1), field), bytes(9)[: 1 + field[1]]), field)

    def test_no_octets(self):
        """A text of no octets would be of variable length."""
        self.assertFalse(self.copied(((4, 1), (82, 0)), b"\6"))

    def test_described(self):
        """A number described by its exporter is 8 octets long to a reader that does not know its type."""
        told = options_template(300, 2, (346, 4), (303, 2), (339, 1), (344, 1), (341, VARIABLE))
        record = struct.pack("!IHBB", 9999, 9, 4, 0) + varying(b"load")  # unsigned64
        for length in (4, 8):
            data = message(a_set(2, template(301, (9, length, 9999))), a_set(301, bytes(length)), number=1)
            batches, _ = collected([[message(a_set(3, told), a_set(300, record)), data]], True)
            self.assertEqual(["load"], [name for name in batches[1].schema if name == "load"])
            self.assertEqual(length == 8, isinstance(batches[1], ReceivedBatch))

    def test_other_lengths(self):
        """Joined with records of other lengths, or with rows of their own, they are encoded."""
        batches = [first(((7, 2), (1, length)), b"\0\5" + length * b"\1") for length in (4, 8)]
        joined = Batch.joined(batches)
        self.assertFalse(isinstance(joined, ReceivedBatch))
        self.assertEqual([0x01010101, 0x0101010101010101], joined.columns["octetDeltaCount"].tolist())
        again = Batch.joined([batches[0], batches[0].select(list(batches[0].schema))])
        self.assertEqual([0x01010101] * 2, again.columns["octetDeltaCount"].tolist())

    def test_values(self):
        """Values that are none, or would be sent otherwise."""
        self.assertFalse(self.copied(((152, 8),), b"\1" + bytes(7)))
        self.assertFalse(self.copied(((276, 1),), b"\3"))
        self.assertFalse(self.copied(((324, 8),), bytes(7) + b"\1"))

    def test_options_and_both_families(self):
        """Options records tell something; rows of templates with both families are split."""
        told = message(a_set(3, options_template(300, 1, (149, 4), (41, 8))), a_set(300, bytes(12)))
        (batch,) = collected([[told]], True)[0]
        self.assertFalse(isinstance(batch, ReceivedBatch))
        self.assertFalse(self.copied(((8, 4), (27, 16)), bytes(20)))

    def test_changed_columns(self):
        """A batch with a further or another column is an ordinary one."""
        batch = first(((8, 4), (1, 4)), bytes(8))
        key = batch.schema["octetDeltaCount"]
        self.assertFalse(isinstance(batch.with_columns({key: np.array([5], np.uint64)}), ReceivedBatch))
        self.assertFalse(isinstance(batch.select(["octetDeltaCount"]), ReceivedBatch))
        self.assertTrue(isinstance(batch.take(np.array([True])), ReceivedBatch))
