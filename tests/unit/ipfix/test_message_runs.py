"""Messages in the rows of an array: the same as feeding each of them."""

import gc
import struct
import weakref

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given
from tests.unit.ipfix.wire import a_set, check, message, options_template, template
from tests.unit.kernels import SKIP
from ulogd_tw import kernels
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix import decoder as decoder_module
from ulogd_tw.ipfix import set_walk, slab_walk
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.session import Session
from ulogd_tw.kernels import walk

STRIDE = 80
CONTEXT_KEYS = ("exporter", "exporter_port", "observationDomainId", "templateId", "record_kind")
TOLD = (
    a_set(2, template(256, (1, 4)), template(257, (1, 4), (4, 1)), template(258, (82, 65535)), template(259, (82, 1))),
    a_set(3, options_template(260, 1, (1, 4))),
)


@st.composite
def arrivals(draw):
    """Runs of Messages: (session, octets), mostly alike, with all kinds of others between them."""
    found, numbers = [], [0, 0, 0]
    for _ in range(draw(st.integers(1, 6))):
        session = draw(st.integers(0, 2))
        kind = draw(st.sampled_from((256, 256, 257, 258, 259, 260, 300, "told", "junk", "two", "trailing", "cut",
                                     "sets", "sets", "sets", "lies")))  # fmt: skip
        body = draw(st.binary(max_size=40))
        domain = draw(st.sampled_from((1, 1, 1, 2)))
        export_time = draw(st.sampled_from((5, 6)))
        for _ in range(draw(st.sampled_from((1, 3, 4, 9)))):
            number = numbers[session]
            if draw(st.integers(0, 9)) == 0:
                number += draw(st.sampled_from((1, -1, 1 << 31)))
            more = {"number": number, "domain": domain, "export_time": export_time}
            if kind == "told":
                octets = message(TOLD[draw(st.integers(0, 1))], **more)
            elif kind == "junk":
                octets = body
            elif kind == "two":
                octets = message(a_set(256, body[:12]), a_set(258, body[:9]), **more)
            elif kind == "sets":  # of fixed length, perhaps with padding
                sizes = {256: 4, 257: 5, 260: 4}
                idents = draw(st.lists(st.sampled_from((256, 257, 260)), max_size=4))
                sets = [(ident, draw(st.integers(0, 11))) for ident in idents]
                octets = message(*(a_set(ident, body[:size]) for ident, size in sets), **more)
                if len(octets) <= STRIDE:
                    numbers[session] += sum(min(size, len(body)) // sizes[ident] for ident, size in sets)
            elif kind == "lies":  # of the length of its last Set
                length = 4 + len(body) + draw(st.integers(-6, 3))
                octets = message(a_set(256, body[:8]), struct.pack("!HH", 256, max(length, 0)) + body, **more)
            elif kind == "trailing":
                octets = message(a_set(256, body[:16]), **more) + b"x"
            elif kind == "cut":
                octets = message(a_set(256, body), **more)[:-1]
            else:
                octets = message(a_set(kind, body), **more)
                numbers[session] += len(body) // {256: 4, 257: 5, 259: 1, 260: 4}.get(kind, 1000)
            found.append((session, octets[:STRIDE]))
    return found


class Fed:
    """What came out of a decoder, in plain form."""

    def __init__(self, parts, feed, reliable=True):
        self.counters = Counters("test")
        decoder = Decoder(ALL, self.counters)
        sessions = [Session(peer, 1, reliable=reliable) for peer in ("192.0.2.1", "2001:db8::1", "192.0.2.1")]
        for session in sessions:
            for told in TOLD:
                decoder.feed(session, message(told), 1.0)
        self.rows = []
        for part in parts:
            feed(decoder, [sessions[i] for i, _ in part], [octets for _, octets in part], 2.5)
            for batch in decoder.drain(3.0):
                check(batch)
                self.rows.append([list(row.items()) for row in batch.rows()])
        self.events = [(e.kind, sessions.index(e.session), e.domain, e.template, e.detail) for e in decoder.events]
        self.received = [session.last_received for session in sessions]


def one_by_one(decoder, sessions, messages, now):
    """The plain way."""
    for session, octets in zip(sessions, messages, strict=True):
        decoder.feed(session, octets, now)


def as_slab(decoder, sessions, messages, now):
    """In rows with other octets behind them, which are overwritten afterwards."""
    rows = np.full((len(messages), STRIDE), 0xA5, np.uint8)
    for row, octets in zip(rows, messages, strict=True):
        row[: len(octets)] = np.frombuffer(octets, np.uint8)
    decoder.feed_slab(sessions, rows, np.array([len(m) for m in messages]), now)
    rows[:] = 0x5A


def in_order(fed):
    """The rows of each template in the order in which they came; templates and batches in any order."""
    found = {}
    for number, batch in enumerate(fed.rows):
        for row in batch:
            key = tuple((name, value) for name, value in row if name in CONTEXT_KEYS)
            found.setdefault((number if len(fed.rows) == 1 else 0, key), []).append(row)
    return sorted(map(repr, found.items()))


class WalkTests(SynchronousTestCase):
    """Decoder.feed_slab with the kernel."""

    if kernels.lib is None:
        skip = SKIP

    def same(self, parts, reliable):
        slab, plain = Fed(parts, as_slab, reliable), Fed(parts, one_by_one, reliable)
        self.assertEqual(in_order(plain), in_order(slab))
        self.assertEqual(plain.counters.as_dict(), slab.counters.as_dict())
        self.assertEqual(sorted(plain.events), sorted(slab.events))
        self.assertEqual(plain.received, slab.received)

    @examples(200)
    @given(st.lists(arrivals(), min_size=1, max_size=3), st.booleans())
    def test_same_as_rows(self, parts, reliable):
        """Rows, counters and events are those of feeding each Message."""
        self.same(parts, reliable)

    @given(arrivals(), st.integers(1, 5))
    def test_little_room(self, part, room):
        """The same where a walk has room for few runs, or the table for few templates."""
        self.patch(walk, "_MOST_RUNS", room)
        self.patch(walk, "MOST_TEMPLATES", 1 << (room - 1).bit_length())  # the index wraps by a mask
        self.same([part, part], False)

    def test_changed_template(self):
        """A template that changes between two slabs, or in the middle of one: each record by the template before it."""
        old, new = template(256, (1, 4)), template(256, (2, 2), (4, 1))
        parts = []
        for turn in range(3):
            part = [(0, message(a_set(256, bytes(range(i, i + 12))), number=0)) for i in range(6)]
            if turn:
                part.insert(3 * (turn - 1), (0, message(a_set(2, new if turn % 2 else old), number=0)))
            parts.append(part)
        self.same(parts, False)

    def test_forgotten(self):
        """A session that has ended is not kept by the table for ever."""
        self.patch(slab_walk, "_MOST_FORGOTTEN", 2)
        decoder = Decoder(ALL, Counters("test"))
        gone = []
        for _ in range(5):
            session = Session("192.0.2.1", 1, reliable=False)
            as_slab(decoder, [session] * 2, [message(TOLD[0]), message(a_set(256, bytes(8)))], 1.0)
            decoder.drain(1.0)
            decoder.forget(session)
            decoder.events.clear()
            gone.append(weakref.ref(session))
        del session
        gc.collect()
        self.assertEqual([None] * 2, [reference() for reference in gone[:2]])


class SlabTests(SynchronousTestCase):
    """Decoder.feed_slab without the kernel."""

    def setUp(self):
        self.patch(decoder_module, "lib", None)

    @given(st.lists(arrivals(), min_size=1, max_size=3))
    def test_same_as_rows(self, parts):
        """Rows, counters, events and order are those of feeding each Message, where none are walked together."""
        self.patch(set_walk, "FEWEST", 10**9)
        slab, plain = Fed(parts, as_slab), Fed(parts, one_by_one)
        self.assertEqual(plain.rows, slab.rows)
        self.assertEqual(plain.counters.as_dict(), slab.counters.as_dict())
        self.assertEqual(plain.events, slab.events)
        self.assertEqual(plain.received, slab.received)

    @examples(100)
    @given(st.lists(arrivals(), min_size=1, max_size=3), st.sampled_from([1, 2, 5]), st.sampled_from([2, 16]))
    def test_mixed(self, parts, fewest, sets):
        """The same where Messages that differ are walked together, but for the order of several exporters' rows."""
        self.patch(set_walk, "FEWEST", fewest)
        self.patch(set_walk, "_MOST_SETS", sets)
        slab, plain = Fed(parts, as_slab), Fed(parts, one_by_one)
        self.assertEqual(*(sorted(repr(row) for batch in fed.rows for row in batch) for fed in (plain, slab)))
        self.assertEqual(plain.counters.as_dict(), slab.counters.as_dict())
        self.assertEqual(sorted(plain.events), sorted(slab.events))
        self.assertEqual(plain.received, slab.received)

    def test_mixed_in_order(self):
        """Of one exporter the rows of a template come in the order in which they were sent."""
        self.patch(set_walk, "FEWEST", 2)
        parts, number = [], 0
        for turn in range(30):
            sets = [a_set(256, struct.pack("!2I", number, number + 1)), a_set(257, struct.pack("!IB", number, 6)),
                    a_set(256, struct.pack("!I", number + 2))][: turn % 3 + 1]  # fmt: skip
            records = (2, 3, 4)[turn % 3]
            parts.append((0, message(*sets, number=number, export_time=turn // 7)))
            number += records
        slab, plain = Fed([parts], as_slab), Fed([parts], one_by_one)
        self.assertEqual(plain.rows, slab.rows)
        self.assertEqual({}, dict(slab.counters.lost))

    def test_differences(self):
        """Runs end wherever one thing differs: one of the header, the session, the length of the datagram."""

        def run(session=0, ident=256, octets=20, extra=b"", **more):
            return [(session, message(a_set(ident, bytes(range(octets))), **more) + extra)] * 5

        def patched(place, octets):
            whole = run()[0][1]
            return [(0, whole[:place] + octets + whole[place + len(octets) :])] * 5

        # Domain 2 knows the same templates, and session 1 is another exporter.
        told = [(s, message(*TOLD, domain=2)) for s in (0, 1)]
        others = [
            run(domain=2), run(export_time=7), run(ident=257), run(ident=259), run(ident=258), run(ident=300),
            run(octets=16), run(octets=24), run(session=1), run(extra=b"x"), patched(0, b"\0\x09"),
            patched(2, b"\0\x27"), patched(18, b"\0\x14"), patched(18, b"\0\x19"), patched(16, b"\0\2"),
        ]  # fmt: skip
        for other in others:
            for arrivals_ in (
                run() + other,
                other + run(),
                run() + other + run(),
                run()[:3] + other[:2] + run(),
                other,
            ):
                parts = [told, arrivals_]
                slab, plain = Fed(parts, as_slab), Fed(parts, one_by_one)
                self.assertEqual(plain.rows, slab.rows)
                self.assertEqual(plain.counters.as_dict(), slab.counters.as_dict())
                self.assertEqual(plain.events, slab.events)

    def test_alike_are_taken_together(self):
        """A run of alike Messages is one body; with a gap in the numbers it is too, and the gap is counted."""
        counters = Counters("test")
        decoder = Decoder(ALL, counters)
        session = Session("192.0.2.1", 1, reliable=False)
        decoder.feed(session, message(TOLD[0]), 1.0)
        messages = [message(a_set(256, bytes([0, 0, 0, i] * 3)), number=3 * i + 6 * (i > 5)) for i in range(10)]
        as_slab(decoder, [session] * 10, messages, 2.0)
        self.assertEqual(1, len(session.domains[1].templates[256].layout.bodies))
        (batch,) = decoder.drain(2.0)
        self.assertEqual([i for i in range(10) for _ in range(3)], batch.columns["octetDeltaCount"].tolist())
        self.assertEqual(({"sequence": 6}, {}), (dict(counters.lost), dict(counters.errors)))

    def test_small(self):
        """No rows, and rows too short for any header."""
        counters = Counters("test")
        decoder = Decoder(ALL, counters)
        decoder.feed_slab([], np.zeros((0, 2048), np.uint8), np.zeros(0, np.int64), 1.0)
        decoder.feed_slab([Session("192.0.2.1", 1, reliable=False)] * 5, np.zeros((5, 8), np.uint8), np.full(5, 8), 1.0)
        self.assertEqual((5, {"length": 5}), (counters.messages_received, dict(counters.errors)))
