"""Messages of the streams of one SCTP association: numbers of their own, common templates, data before its template."""

import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import COUNTER, Collected, a_set, counts, counts_of, hexed, message, template, varying
from ulogd_tw.ipfix.decoder import Limits
from ulogd_tw.ipfix.session import Session

TOLD = message(a_set(2, COUNTER))
GONE = message(a_set(2, struct.pack("!HH", 256, 0)), export_time=1005)


class Association(Collected):
    """A decoder with one association; Messages are fed as (stream, octets)."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.session = Session("192.0.2.1", 5000, reliable=True, overtakes=True)

    def feed(self, *messages, now=2000.0):
        for stream, octets in messages:
            self.decoder.feed_stream(self.session, stream, octets, now)
        return self


class NumbersTests(SynchronousTestCase):
    """MSG-4: Sequence Numbers are counted for each stream and domain."""

    def test_each_stream(self):
        """SCTP-1, MSG-4: streams count from 0 each; a gap is seen in the stream that has it."""
        found = Association().feed((0, TOLD), (1, counts(1, 2)), (2, counts(3)), (1, counts(4, number=2)),
                                   (2, counts(5, number=1)), (0, counts(6)))  # fmt: skip
        self.assertEqual(0, found.lost)
        found.feed((2, counts(7, number=5)), (1, counts(8, number=3)))
        self.assertEqual([1, 2, 3, 4, 5, 6, 7, 8], counts_of(found.rows()))
        self.assertEqual((3, {}), (found.lost, found.errors))

    def test_each_domain(self):
        """Domains of a stream too, also where a domain begins on another stream than 0."""
        messages = [(0, message(a_set(2, COUNTER), domain=d)) for d in (1, 2)]
        messages += [(s, counts(1, number=0, domain=d)) for s in (3, 4) for d in (1, 2)]
        messages += [(s, counts(1, number=1, domain=d)) for s in (4, 3) for d in (2, 1)]
        found = Association().feed(*messages)
        self.assertEqual((8, 0, {}), (len(found.rows()), found.lost, found.errors))
        found = Association().feed((3, TOLD), (3, counts(1)), (0, counts(2)), (3, counts(3, number=4)))
        self.assertEqual((3, 3), (len(found.rows()), found.lost))

    def test_variable_length(self):
        """Records that are counted later belong to the stream on which they came."""
        names = message(a_set(2, template(256, (82, 65535))))
        data = [(1 + i % 2, message(a_set(256, varying(b"a"), varying(b"b")), number=i // 2 * 2)) for i in range(6)]
        found = Association().feed((0, names), *data)
        self.assertEqual((12, 0, {}), (len(found.rows()), found.lost, found.errors))
        found.feed((1, message(a_set(256, varying(b"c")), number=9)), (2, message(a_set(256, varying(b"c")), number=6)))
        self.assertEqual((2, 3), (len(found.rows()), found.lost))
        self.assertEqual(0, sum(domain.deferring for domain in found.session.domains.values()))

    def test_limit(self):
        """Streams of domains count as domains do; beyond the limit records still come."""
        found = Association(limits=Limits(domains_in_all=3)).feed((0, TOLD), *((s, counts(s)) for s in range(1, 6)))
        self.assertEqual([1, 2, 3, 4, 5], counts_of(found.rows()))
        self.assertEqual({"limit_domains_in_all": 3}, found.errors)
        kept = found.decoder.intake.templates._kept
        self.assertEqual(3, kept.domains)
        found.decoder.forget(found.session)
        self.assertEqual(0, kept.domains)

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=30), st.booleans())
    def test_any_mixture(self, sent, deferred):
        """However Messages of streams are mixed, no loss is seen where none is; one missing Message is seen whole."""
        told = message(a_set(2, template(256, (82, 65535)))) if deferred else TOLD
        numbers, messages = [0] * 4, [(0, told)]
        for stream, n in sent:
            record = varying(b"x") if deferred else struct.pack("!I", 1)
            messages.append((stream, message(a_set(256, *[record] * n), number=numbers[stream])))
            numbers[stream] += n
        found = Association().feed(*messages)
        self.assertEqual(sum(n for _, n in sent), len(found.rows()))
        self.assertEqual(0, found.lost)
        streams = [stream for stream, _ in sent]
        lost = next((i for i, s in enumerate(streams) if s in streams[:i] and s in streams[i + 1 :]), None)
        if lost is not None:
            found = Association().feed(*messages[: lost + 1], *messages[lost + 2 :])
            found.rows()
            self.assertEqual(sent[lost][1], found.lost)


class OvertakingTests(SynchronousTestCase):
    """Templates hold on every stream, and may be overtaken by their data."""

    def test_data_waits(self):
        """Data that overtakes its template waits for it, and withdrawals count nevertheless."""
        found = Association().feed((1, counts(1)), (0, TOLD), (1, counts(2, number=1)))
        self.assertEqual([1, 2], counts_of(found.rows()))
        self.assertEqual({"no_template": 1}, found.errors)
        found.feed((0, GONE), (1, counts(3, number=2, export_time=1006)))
        self.assertEqual([], found.rows())
        self.assertEqual({"no_template": 2}, found.errors)

    def test_waiting_is_bounded(self):
        """What waits for too long is given up."""
        found = Association(limits=Limits(parked_time=5.0)).feed((1, counts(1)), now=100.0)
        found.decoder.expire((), 106.0)
        found.feed((0, TOLD), now=107.0)
        self.assertEqual([], found.rows())
        self.assertEqual({"no_template": 1, "no_template_dropped": 1}, found.errors)

    def test_late_data_of_a_former_template(self):
        """Section 8.2: data older than the template of its id was described by the one before, and is not misread."""
        other = message(a_set(2, template(256, (2, 4))), export_time=1010)
        found = Association().feed((0, TOLD), (0, GONE), (0, other))
        found.feed((1, counts(1, export_time=1004)), (2, counts(2, export_time=1010)))
        found.feed((2, counts(3, number=1, export_time=1011)))
        self.assertEqual([{"packetDeltaCount": 2}, {"packetDeltaCount": 3}], found.rows())
        self.assertEqual({"late_data": 1}, found.errors)

    def test_late_data_that_waits(self):
        """The same where the old data came between withdrawal and new template."""
        other = message(a_set(2, template(256, (2, 4))), export_time=1010)
        found = Association().feed((0, TOLD), (0, GONE), (1, counts(1, export_time=1004)), (0, other))
        found.feed((1, counts(2, number=1, export_time=1012)))
        self.assertEqual([{"packetDeltaCount": 2}], found.rows())
        self.assertEqual({"no_template": 1, "late_data": 1}, found.errors)

    def test_time_wraps(self):
        """Export Time wraps (MSG-9): data after the wrap is not older than a template before it."""
        found = Association().feed((0, message(a_set(2, COUNTER), export_time=1000)))
        found.feed((0, message(a_set(2, template(256, (2, 4))), export_time=0xFFFFFFFE)), (1, counts(7, export_time=3)))
        self.assertEqual([{"packetDeltaCount": 7}], found.rows())

    def test_other_protocols(self):
        """Only IPFIX goes over SCTP."""
        found = Association().feed((0, hexed("0009" + "00" * 18)), (0, hexed("0005" + "00" * 22)), (1, b""), (1, b"\0"))
        self.assertEqual({"version": 4}, found.errors)
        self.assertEqual(4, found.session.malformed)
