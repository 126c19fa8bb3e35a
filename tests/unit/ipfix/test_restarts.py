"""Restarts of exporters: templates from before are not trusted, and whatever only looks like a restart changes nothing.

Values by RFC 3954 section 5.1 (sysUptime counts milliseconds and wraps, the sequence counts packets) and RFC 7011
sections 3.1 and 8. The old template is of `octetDeltaCount`, the new one has another element in front of it.
"""

import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.test_netflow import v9
from tests.unit.ipfix.wire import Collected, a_set, message, options_template, template
from ulogd_tw.ipfix.decoder import Limits

OLD = template(256, (1, 4))
NEW = template(256, (2, 4), (1, 4))


def old(*octets):
    """Records by the old template."""
    return a_set(256, *(struct.pack("!I", value) for value in octets))


def new(*octets):
    """Records by the new template, of seven packets each."""
    return a_set(256, *(struct.pack("!II", 7, value) for value in octets))


class Exporter:
    """A decoder and a session over UDP; Messages come a second after each other."""

    def __init__(self, **limits):
        self.found = Collected(reliable=False, limits=Limits(**limits))
        self.counters = self.found.counters
        self.now = 2000.0
        self.octets = []

    def feed(self, *messages):
        """Feed each by itself; the octets of all records that came out are added to `octets`."""
        for one in messages:
            self.found.decoder.feed(self.found.session, one, self.now)
            self.now += 1
        return self.drain()

    def drain(self):
        for batch in self.found.decoder.drain(self.now):
            self.octets += [row["octetDeltaCount"] for row in batch.rows() if "octetDeltaCount" in row]
        return self

    def end(self):
        self.found.decoder.end()
        return self.drain()

    @property
    def restarts(self):
        return self.counters.figures["exporter_restarts"]


def packet(*sets, number, up, seconds):
    """A packet of v9; `up` in seconds."""
    return v9(*sets, number=number, uptime=round(up * 1000) & 0xFFFFFFFF, seconds=seconds)


class UptimeTests(SynchronousTestCase):
    """NetFlow v9: sysUptime and sequence."""

    def setUp(self):
        self.exporter = Exporter()
        self.exporter.feed(
            packet(a_set(0, OLD), number=100, up=3600, seconds=5000), packet(old(1), number=101, up=3601, seconds=5001)
        )

    def assertFound(self, octets, restarts):
        self.assertEqual((octets, restarts), (self.exporter.octets, self.exporter.restarts))

    def test_data_before_template(self):
        """ADD-1: data of the new life waits for its template, another one; nothing is decoded by the old one."""
        self.exporter.feed(packet(new(2), number=0, up=3, seconds=5060))
        self.assertFound([1], 0)
        self.exporter.feed(packet(new(3), number=1, up=4, seconds=5061))
        self.assertFound([1], 1)
        self.exporter.feed(
            packet(a_set(0, NEW), number=2, up=5, seconds=5062), packet(new(4), number=3, up=6, seconds=5063)
        )
        self.assertFound([1, 2, 3, 4], 1)
        self.assertEqual({}, dict(self.exporter.counters.dropped))

    def test_same_template_again(self):
        """A template that comes again as it was is trusted from then on, also where its Set has the same octets."""
        self.exporter.feed(
            packet(old(2), number=0, up=3, seconds=5060), packet(a_set(0, OLD), number=1, up=4, seconds=5061)
        )
        self.assertFound([1, 2], 1)
        self.assertEqual(1, self.exporter.found.session.templates)

    def test_templates_first(self):
        """An exporter that sends its templates first loses nothing and waits for nothing."""
        self.exporter.feed(packet(a_set(0, NEW), new(2), number=0, up=3, seconds=5060))
        self.assertFound([1, 2], 0)
        self.exporter.feed(packet(new(3), number=1, up=4, seconds=5061))
        self.assertFound([1, 2, 3], 1)

    def test_sequence_alone(self):
        """The metering process restarts on a device that stays up: only its sequence begins anew."""
        self.exporter.feed(
            packet(new(2), number=0, up=3660, seconds=5060), packet(new(3), number=1, up=3661, seconds=5061)
        )
        self.assertFound([1], 1)
        self.exporter.feed(packet(a_set(0, NEW), number=2, up=3662, seconds=5062))
        self.assertFound([1, 2, 3], 1)

    def test_uptime_alone(self):
        """An exporter whose sequence stands still restarts."""
        exporter = self.exporter = Exporter()
        exporter.feed(
            packet(a_set(0, OLD), number=0, up=3600, seconds=5000), packet(old(1), number=0, up=3601, seconds=5001)
        )
        exporter.feed(packet(new(2), number=0, up=3, seconds=5060), packet(a_set(0, NEW), number=0, up=4, seconds=5061))
        self.assertFound([1, 2], 1)

    def test_never_again(self):
        """Where `park` ends without a template, the Set is dropped as distrusted, and the log's event says so."""
        self.exporter.feed(packet(new(2), number=0, up=3, seconds=5060), packet(new(3), number=1, up=4, seconds=5061))
        self.exporter.found.decoder.expire((), self.exporter.now + 61)
        self.exporter.feed(packet(a_set(0, NEW), number=2, up=70, seconds=5130))
        self.assertFound([1], 1)
        self.assertEqual({"template_distrusted": 2}, dict(self.exporter.counters.dropped))
        self.assertEqual(0, self.exporter.counters.errors["no_template_dropped"])
        (event,) = [event for event in self.exporter.found.decoder.events if event.kind == "template_distrusted"]
        self.assertEqual((256, "2 sets"), (event.template, event.detail))
        self.assertEqual(0, self.exporter.found.decoder.intake.templates._kept.parked_octets)
        self.assertEqual(self.exporter.counters.rows_received, 1 + 2)  # one for each Set that was dropped

    def test_nothing_is_parked(self):
        """Without `park` a Set of a distrusted template is dropped at once."""
        self.exporter = Exporter(parked_time=0.0)
        self.exporter.feed(packet(a_set(0, OLD), number=100, up=3600, seconds=5000))
        self.exporter.feed(packet(new(2), number=0, up=3, seconds=5060))
        self.assertEqual({"template_distrusted": 1}, dict(self.exporter.counters.dropped))

    def test_wrap_of_uptime(self):
        """After 2**32 ms sysUptime begins at 0: no restart, also over a silence."""
        for silence in (2, 3000, 5_000_000):
            exporter = self.exporter = Exporter()
            exporter.feed(packet(a_set(0, OLD), number=100, up=4_294_966, seconds=5000))
            exporter.now += silence
            exporter.feed(packet(old(1), number=101, up=4_294_966 + silence, seconds=5000 + silence))
            self.assertFound([1], 0)

    def test_wrap_of_sequence(self):
        """The sequence wraps after 2**32 packets."""
        exporter = self.exporter = Exporter()
        exporter.feed(packet(a_set(0, OLD), number=0xFFFFFFFF, up=3600, seconds=5000))
        exporter.feed(packet(old(1), number=0, up=3601, seconds=5001), packet(old(2), number=1, up=3602, seconds=5002))
        self.assertFound([1, 2], 0)

    def test_late_and_repeated(self):
        """A datagram that comes late, or twice, has the uptime and clock of when it was sent: decoded at once."""
        late = packet(old(2), number=102, up=3602, seconds=5002)
        last = packet(old(3), number=103, up=3603, seconds=5003)
        self.exporter.feed(last, late, late)
        self.assertFound([1, 3, 2, 2], 0)
        self.exporter.feed(last, packet(old(4), number=104, up=3604, seconds=5004))
        self.assertFound([1, 3, 2, 2, 3, 4], 0)

    def test_one_out_of_line(self):
        """One packet that looks like a restart waits; the old count goes on, and it is decoded."""
        self.exporter.feed(packet(old(2), number=0, up=3, seconds=5002))
        self.assertFound([1], 0)
        self.exporter.feed(packet(old(3), number=102, up=3603, seconds=5003))
        self.assertEqual(([1, 2, 3], 0), (sorted(self.exporter.octets), self.exporter.restarts))

    def test_clock_is_set(self):
        """The exporter's clock is set while its uptime goes on."""
        self.exporter.feed(packet(old(2), number=102, up=3602, seconds=1_700_000_000))
        self.assertFound([1, 2], 0)

    def test_both_clocks_are_set(self):
        """Ours and the exporter's, as by one time server after a boot without a clock: the uptime goes on."""
        self.exporter.now += 90_000
        self.exporter.found.decoder.clock_set([self.exporter.found.session], 90_000)
        self.exporter.feed(packet(old(2), number=102, up=3602, seconds=1_700_000_000))
        self.assertFound([1, 2], 0)

    def test_uptime_goes_back_by_less(self):
        """Uptimes of line cards differ: what is no beginning is no restart (corpus: akvorado-sampling-rate)."""
        self.exporter.feed(packet(old(2), number=102, up=3489, seconds=5017))
        self.assertFound([1, 2], 0)

    def test_uptime_stands_still(self):
        """An exporter that has no uptime is never restarted by it."""
        exporter = self.exporter = Exporter()
        exporter.feed(packet(a_set(0, OLD), number=1, up=0, seconds=5000))
        exporter.feed(*(packet(old(n), number=n, up=0, seconds=5000 + 100 * n) for n in range(2, 6)))
        self.assertFound([2, 3, 4, 5], 0)

    def test_second_device(self):
        """Two devices behind one address, port and Source ID: the old one speaks again, so it was not restarted."""
        for turn in range(4):
            at = 5010 + 10 * turn
            for first in (0, 2):  # two packets in a row of the second device, then two of the first
                number = 2 * turn + first // 2 if first == 0 else 102 + 2 * turn
                up = 20 if first == 0 else 3610
                number = 2 * turn if first == 0 else 102 + 2 * turn
                self.exporter.feed(
                    packet(old(2), number=number, up=up + 10 * turn, seconds=at + first),
                    packet(old(2), number=number + 1, up=up + 1 + 10 * turn, seconds=at + first + 1),
                )
        self.assertEqual([1] + 16 * [2], self.exporter.octets)
        self.assertEqual({}, dict(self.exporter.counters.dropped))

    def test_old_life_comes_late(self):
        """A datagram of the former life after the restart is decoded neither by the old template nor by the new one."""
        self.exporter.feed(packet(new(2), number=0, up=3, seconds=5060), packet(new(3), number=1, up=4, seconds=5061))
        self.exporter.feed(packet(old(9), number=102, up=3602, seconds=5002))
        self.exporter.feed(packet(a_set(0, NEW), number=2, up=5, seconds=5062))
        self.assertFound([1, 2, 3], 1)
        self.assertEqual(1, self.exporter.counters.errors["late_data"])

    def test_old_life_waits(self):
        """A Set of the former life that waits for its template is not decoded by that of the new one."""
        self.exporter.feed(packet(a_set(257, b"\0\0\0\x09"), number=102, up=3602, seconds=5002))
        self.exporter.feed(packet(new(2), number=0, up=3, seconds=5060))
        self.exporter.feed(packet(a_set(0, NEW, template(257, (1, 4))), number=1, up=4, seconds=5061))
        self.assertFound([1, 2], 1)
        self.assertEqual(1, self.exporter.counters.errors["late_data"])

    def test_restart_in_a_slab(self):
        """Packets that come together are looked at as if each came alone."""
        import numpy as np

        exporter = self.exporter
        packets = [packet(new(n), number=n, up=3 + n, seconds=5060) for n in range(8)]
        rows = np.array([np.frombuffer(one.ljust(64, b"\0"), np.uint8) for one in packets])
        exporter.found.decoder.feed_slab(8 * [exporter.found.session], rows, np.full(8, len(packets[0])), exporter.now)
        self.assertEqual([1], exporter.drain().octets)
        exporter.feed(packet(a_set(0, NEW), number=8, up=12, seconds=5069))
        self.assertFound([1, *range(8)], 1)


class SequenceTests(SynchronousTestCase):
    """IPFIX: Sequence Numbers and Export Time."""

    def setUp(self):
        self.exporter = Exporter()
        self.exporter.feed(
            message(a_set(2, OLD), number=100, export_time=5000), message(old(1), number=100, export_time=5001)
        )

    assertFound = UptimeTests.assertFound

    def test_data_before_template(self):
        """Numbers begin anew: the old template is not used until its id comes again."""
        for own in (2, 3):
            self.exporter.feed(message(new(own), number=own - 2, export_time=5058 + own))
        self.assertFound([1], 1)
        self.exporter.feed(
            message(a_set(2, NEW), number=2, export_time=5062), message(new(4), number=2, export_time=5063)
        )
        self.assertFound([1, 2, 3, 4], 1)

    def test_variable_length(self):
        """Records of variable length are not walked by a template of a former life: nothing is malformed."""
        exporter = self.exporter = Exporter()
        before, after = template(256, (82, 65535), (1, 4)), template(256, (1, 4), (82, 65535))
        exporter.feed(message(a_set(2, before), number=100, export_time=5000))
        exporter.feed(message(a_set(256, b"\x04eth0\0\0\0\1"), number=100, export_time=5001))
        exporter.feed(message(a_set(256, b"\0\0\0\2\x04eth1"), number=0, export_time=5060))
        exporter.feed(message(a_set(256, b"\0\0\0\3\x04eth1"), number=1, export_time=5061))
        exporter.feed(message(a_set(2, after), number=2, export_time=5062))
        self.assertFound([1, 2, 3], 1)
        self.assertEqual(0, exporter.found.decoder.malformed)

    def test_wrap(self):
        """The sequence wraps after 2**32 records."""
        exporter = self.exporter = Exporter()
        exporter.feed(message(a_set(2, OLD), number=0xFFFFFFFF, export_time=5000))
        exporter.feed(*(message(old(n), number=0xFFFFFFFE + n, export_time=5000 + n) for n in (1, 2, 3)))
        self.assertFound([1, 2, 3], 0)

    def test_repeated(self):
        """Datagrams that come twice, even a row of them in the same second, change nothing, and none is lost."""
        row = [message(old(n), number=99 + n, export_time=5002) for n in (2, 3, 4)]
        self.exporter.feed(*row, *row, message(old(5), number=104, export_time=5003))
        self.assertEqual(sorted([1, 2, 3, 4, 2, 3, 4, 5]), sorted(self.exporter.octets))
        self.exporter.feed(row[0]).end()
        self.assertEqual(9, len(self.exporter.octets))
        self.assertEqual({}, dict(self.exporter.counters.dropped))

    def test_at_once(self):
        """A datagram that comes twice does not wait, neither in its own second nor later; nor one that fills a gap."""
        again = message(old(1), number=100, export_time=5001)
        self.exporter.feed(again)
        self.assertFound([1, 1], 0)
        self.exporter.feed(message(old(2), number=101, export_time=5002), again)
        self.assertFound([1, 1, 2, 1], 0)
        self.exporter.feed(message(old(4), number=103, export_time=5003), message(old(3), number=102, export_time=5004))
        self.assertFound([1, 1, 2, 1, 4, 3], 0)

    def test_late(self):
        """A datagram that was counted as lost and comes late is no restart."""
        self.exporter.feed(message(old(3), number=102, export_time=5002), message(old(2), number=101, export_time=5002))
        self.assertFound([1, 3, 2], 0)

    def test_one_out_of_line(self):
        """The next Message must confirm a restart."""
        self.exporter.feed(message(old(2), number=0, export_time=5002))
        self.assertFound([1], 0)
        self.exporter.feed(message(old(3), number=101, export_time=5003), message(old(4), number=102, export_time=5004))
        self.assertEqual(([1, 2, 3, 4], 0), (sorted(self.exporter.octets), self.exporter.restarts))

    def test_counts_messages(self):
        """An exporter that counts Messages, not records, never begins anew."""
        self.exporter.feed(*(message(old(n, n, n), number=100 + n, export_time=5000 + n) for n in range(1, 9)))
        self.assertEqual((25, 0), (len(self.exporter.octets), self.exporter.restarts))

    def test_stands_still(self):
        """Nor does one that always sends the same number."""
        self.exporter.feed(*(message(old(n), number=100, export_time=5000 + n) for n in range(1, 9)))
        self.assertFound([1, *range(1, 9)], 0)

    def test_numbers_mean_nothing(self):
        """Numbers in any order are no restart; after some doubts they raise none."""
        numbers = [7, 3_000_000_000, 50, 2_500_000_000, 9, 3, 3_100_000_000, 2, 1, 3_000_000_000, 8, 5]
        self.exporter.feed(*(message(old(n), number=n, export_time=5100 + i) for i, n in enumerate(numbers)))
        self.exporter.found.decoder.end()
        self.assertEqual(sorted([1, *numbers]), sorted(self.exporter.drain().octets))

    def test_second_device(self):
        """Two devices with one address, port and domain: all records are decoded by the templates that there are."""
        for turn in range(4):
            at = 5010 + 10 * turn
            for number in (2 * turn, 101 + 2 * turn):
                self.exporter.feed(
                    message(old(2), number=number, export_time=at),
                    message(old(2), number=number + 1, export_time=at + 1),
                )
        self.exporter.end()
        self.assertEqual([1] + 16 * [2], self.exporter.octets)
        self.assertEqual({}, dict(self.exporter.counters.dropped))

    def test_reliable(self):
        """The templates of a connection are valid as long as it is, whatever the numbers say (RFC 7011 section 8)."""
        found = Collected()
        found.feed(message(a_set(2, OLD), number=100))
        self.assertEqual(2, len(found.rows(message(old(1), number=0), message(old(2), number=1))))

    def test_told_in_options(self):
        """systemInitTimeMilliseconds after a template came: that is of a former life; one that came later is not."""
        said = a_set(3, options_template(300, 1, (144, 4), (160, 8)))
        later = a_set(2, template(257, (1, 4)))

        def boot(seconds, **more):
            return message(a_set(300, struct.pack("!IQ", 1, 1000 * seconds)), **more)

        self.exporter.feed(message(said, number=101, export_time=5002), boot(4000, number=101, export_time=5003))
        self.exporter.feed(message(old(2), number=102, export_time=5004), message(later, number=103, export_time=5066))
        self.assertFound([1, 2], 0)
        self.exporter.feed(message(said, number=103, export_time=5066), boot(5065, number=103, export_time=5067))
        self.exporter.feed(message(new(3), a_set(257, struct.pack("!I", 4)), number=104, export_time=5068))
        self.assertFound([1, 2, 4], 1)
        self.exporter.feed(message(a_set(2, NEW), number=106, export_time=5069))
        self.assertFound([1, 2, 4, 3], 1)

    def test_told_beside_data(self):
        """Data behind the options record in its Message are not decoded by the template of the former life either."""
        said = a_set(3, options_template(300, 1, (149, 4), (160, 8)))
        self.exporter.feed(message(said, number=101, export_time=5002))
        boot = a_set(300, struct.pack("!IQ", 1, 1000 * 5060))
        self.exporter.feed(message(boot, new(2, 3), number=101, export_time=5067))
        self.assertFound([1], 1)
        self.exporter.feed(message(a_set(2, NEW), new(4), number=104, export_time=5069))
        self.assertFound([1, 2, 3, 4], 1)

    def test_told_by_domain_0(self):
        """Domain 0 tells of the whole exporter: templates of its other domains are of a former life too."""
        said = a_set(3, options_template(300, 1, (144, 4), (160, 8)))
        boot = a_set(300, struct.pack("!IQ", 1, 1000 * 5060))
        self.exporter.feed(message(said, boot, domain=0, export_time=5067))
        self.exporter.feed(message(new(3), number=101, export_time=5068))
        self.assertFound([1], 1)
        self.exporter.feed(message(a_set(2, NEW), number=102, export_time=5069))
        self.assertFound([1, 3], 1)

    def test_told_nonsense(self):
        """A start in the future says nothing."""
        said = a_set(3, options_template(300, 1, (144, 4), (160, 8))), a_set(300, struct.pack("!IQ", 1, 9_000_000))
        self.exporter.feed(message(*said, number=101, export_time=5002), message(old(2), number=102, export_time=5003))
        self.assertFound([1, 2], 0)

    def test_second_restart(self):
        """A restart is seen again before all templates of the life before it have come."""
        self.exporter.feed(message(a_set(2, template(300, (1, 4))), number=101, export_time=5002))
        for life in (1, 2):
            at = 5000 + 100 * life
            self.exporter.feed(
                message(new(10 * life), number=0, export_time=at), message(new(10 * life), number=1, export_time=at)
            )
            self.exporter.feed(message(a_set(2, NEW), number=2, export_time=at + 1))
            self.exporter.feed(message(new(5), number=2, export_time=at + 2))
        self.assertFound([1, 10, 10, 5, 20, 20, 5], 2)

    @given(st.lists(st.tuples(st.sampled_from(("old", "new", "templates", "late")), st.integers(1, 9)), max_size=12))
    def test_nothing_is_lost_silently(self, steps):
        """Whatever comes in whatever order: each record comes out, or its Set is counted."""
        exporter, sent, numbers = Exporter(), 0, {"old": 100, "new": 0}
        exporter.feed(message(a_set(2, OLD), number=100, export_time=5000))
        for at, (kind, jump) in enumerate(steps, 5001):
            if kind == "templates":
                exporter.feed(message(a_set(2, OLD), number=numbers["new"], export_time=at))
                continue
            count = "old" if kind == "late" else kind
            number = numbers[count] - jump if kind == "late" else numbers[count]
            exporter.feed(message(old(1), number=number, export_time=at - 50 * (kind == "late")))
            numbers[count] += kind != "late"
            sent += 1
        exporter.end()
        counters = exporter.counters
        gone = counters.dropped["template_distrusted"] + counters.errors["late_data"]
        self.assertEqual(sent, len(exporter.octets) + gone, (counters.dropped, counters.errors))
        kept = exporter.found.decoder.intake.templates._kept
        self.assertEqual((0, 0), (kept.parked_octets, kept.parked_sets))
        exporter.found.decoder.forget(exporter.found.session)
        self.assertEqual((0, 0, 0), (kept.domains, kept.templates, kept.fields))
