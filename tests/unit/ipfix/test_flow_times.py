"""flowStartMilliseconds and flowEndMilliseconds of records that have their times otherwise."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.test_netflow import v9
from tests.unit.ipfix.test_scopes import flows, flows9, record, tell
from tests.unit.ipfix.wire import Collected, a_set, message, template
from ulogd_tw.core.plugin import ALL

BOOT, EXPORTED = 1_699_900_000_000, 1_700_000_000
TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
UPTIMES = [(22, 4), (21, 4)]
NTP = (1_699_999_990 + 2_208_988_800) << 32 | 1 << 31
"""Half a second after 1699999990 (RFC 7011 section 6.1.9)."""


def booted(domain=0, boot=BOOT, scope=149):
    """A Message that tells once when the exporter started."""
    return message(tell(338, [(scope, 4)], [(160, 8)], record((4, domain), (8, boot))), domain=domain)


class FlowTimesTests(SynchronousTestCase):
    """Absolute times, by the fields that a record has."""

    def times(self, *messages, told=(), wanted=ALL):
        """Start and end of each record."""
        found = Collected(wanted)
        found.rows(*told)
        rows = [row for row in found.rows(*messages) if "octetDeltaCount" not in row]
        self.counted = found.counters.figures["start_unknown"]
        return [tuple(map(row.get, TIMES)) for row in rows]

    def uptimes(self, *pairs, domain=0):
        """A Message of records with uptimes."""
        rows = (record((4, start), (4, end)) for start, end in pairs)
        return message(flows(256, UPTIMES, *rows), domain=domain, export_time=EXPORTED)

    def test_told_once(self):
        """IOS-XR, softflowd: the start of the exporter comes in an options record, of whatever scope."""
        for scope in (143, 144, 149):
            got = self.times(self.uptimes((99_990_000, 99_999_000)), told=[booted(scope=scope)])
            self.assertEqual([(1_699_999_990_000, 1_699_999_999_000)], got)

    def test_all_that_is_asked_for(self):
        """Also where only the times are wanted: uptimes are read for that."""
        got = self.times(self.uptimes((99_990_000, 99_999_000)), told=[booted()], wanted=frozenset(TIMES))
        self.assertEqual([(1_699_999_990_000, 1_699_999_999_000)], got)

    def test_not_told(self):
        """Without a start there is no time, and no key."""
        self.assertEqual([(None, None)], self.times(self.uptimes((1, 2))))
        found = Collected(ALL)
        (batch,) = found.batches(self.uptimes((1, 2)))
        self.assertNotIn("flowStartMilliseconds", batch.schema)

    def test_wrap(self):
        """Uptimes begin anew every 2**32 ms: one before the wrap, one behind it, one ahead of the export."""
        boot = EXPORTED * 1000 - (1 << 32) - 5000  # the uptime is 5000 again at the export
        got = self.times(self.uptimes(((1 << 32) - 1000, 2000), (4000, 6000)), told=[booted(boot=boot)])
        now = EXPORTED * 1000
        self.assertEqual([(now - 6000, now - 3000), (now - 1000, now + 1000)], got)

    def test_other_domains(self):
        """Its own domain, domain 0, another domain; where others differ there is none, and it is counted."""
        sent = self.uptimes((99_990_000, 99_999_000), domain=5)
        for told, start in (
            ([booted(7)], BOOT),
            ([booted(7), booted(8, BOOT + 1)], BOOT + 1),
            ([booted(7), booted(0, BOOT - 50_000)], BOOT - 50_000),
            ([booted(7), booted(0, BOOT - 50_000), booted(5, BOOT - 70_000)], BOOT - 70_000),
        ):
            self.assertEqual([(start + 99_990_000, start + 99_999_000)], self.times(sent, told=told))
        self.assertEqual([(None, None)], self.times(sent, told=[booted(7), booted(8, BOOT - 50_000)]))
        self.assertEqual(1, self.counted)

    def test_together(self):
        """Records of domains with and without a start in one batch."""
        found = Collected(ALL)
        found.rows(booted(1), booted(2, BOOT - 9000), booted(3, BOOT - 1_000_000))
        sent = [self.uptimes((99_990_000, 99_999_000), domain=domain) for domain in (1, 2, 4)]
        self.assertEqual([1_699_999_990_000, 1_699_999_981_000, None],
                         [row.get(TIMES[0]) for row in found.rows(*sent)])  # fmt: skip

    def test_of_the_record(self):
        """systemInitTimeMilliseconds of the record itself, modulo 2**32 too."""
        for boot, offset in ((BOOT, 0), (BOOT - (1 << 32), 0), (BOOT - 7, -7)):
            row = record((8, boot), (4, 99_990_000), (4, 99_999_000))
            sent = message(flows(256, [(160, 8), *UPTIMES], row), export_time=EXPORTED)
            self.assertEqual([(1_699_999_990_000 + offset, 1_699_999_999_000 + offset)], self.times(sent))

    def test_ntp(self):
        """YAF, VPP: microseconds and nanoseconds, also in IPFIX files of v9's numbers."""
        for first, last in ((154, 155), (156, 157)):
            row = record((8, NTP), (8, NTP + (1 << 32)))
            for sent in (
                message(flows(256, [(first, 8), (last, 8)], row)),
                v9(flows9(256, [(first, 8), (last, 8)], row)),
            ):
                self.assertEqual([(1_699_999_990_500, 1_699_999_991_500)], self.times(sent))

    def test_no_ntp(self):
        """NTP's 0 is no time (RFC 5905 section 6)."""
        self.assertEqual([(None, 1_699_999_990_500)],
                         self.times(message(flows(256, [(154, 8), (155, 8)], record((8, 0), (8, NTP))))))  # fmt: skip

    def test_before_export(self):
        """flowStartDeltaMicroseconds counts back from the Export Time."""
        row = record((4, 10_000_000), (4, 1_000_000))
        sent = message(flows(256, [(158, 4), (159, 4)], row), export_time=EXPORTED)
        self.assertEqual([(1_699_999_990_000, 1_699_999_999_000)], self.times(sent))

    def test_durations(self):
        """A duration gives the end where there is only a start, and the start where there is only an end."""
        start, end = 1_699_999_990_000, 1_699_999_999_250
        for duration, unit in ((161, 1), (162, 1000)):
            for fields, values, expected in (
                ([(152, 8)], [(8, start)], (start, end)),
                ([(150, 4)], [(4, start // 1000)], (None, end)),
                ([(156, 8)], [(8, NTP)], (start + 500, end + 500)),
                ([(153, 8)], [(8, end)], (start, end)),
                ([(152, 8), (153, 8)], [(8, start), (8, end + 1)], (start, end + 1)),
                ([(150, 4), (151, 4)], [(4, start // 1000), (4, end // 1000)], (None, None)),
            ):
                row = record(*values, (4, 9250 * unit))
                sent = message(flows(256, [*fields, (duration, 4)], row))
                self.assertEqual([expected], self.times(sent), (duration, fields))

    def test_beyond(self):
        """An end beyond what 32-bit seconds reach is none, and counted; never another date."""
        last = 1000 * 2**32 - 1
        found = Collected(ALL)
        rows = (record((8, last - 999), (4, duration)) for duration in (999, 1000, 2**32 - 1))
        ends = [row.get("flowEndMilliseconds") for row in found.rows(message(flows(256, [(152, 8), (161, 4)], *rows)))]
        self.assertEqual([last, None, None], ends)
        self.assertEqual({"value": 2}, found.errors)

    def test_durations_in_microseconds(self):
        """The time of the other end is that of the exact sum or difference, cut to milliseconds."""
        start, fraction = 1_699_999_990, (900 << 32) // 10**6 + 1  # 0.9 ms behind the second
        ntp = (start + 2_208_988_800) << 32 | fraction
        for fields, values, expected in (
            ([(154, 8)], [(8, ntp), (4, 200)], (start * 1000, start * 1000 + 1)),
            ([(154, 8)], [(8, ntp), (4, 50)], (start * 1000, start * 1000)),
            ([(157, 8)], [(8, ntp), (4, 1000)], (start * 1000 - 1, start * 1000)),
            ([(153, 8)], [(8, start * 1000), (4, 1500)], (start * 1000 - 2, start * 1000)),
            ([(158, 4)], [(4, 900), (4, 1000)], (EXPORTED * 1000 - 1, EXPORTED * 1000)),
        ):
            sent = message(flows(256, [*fields, (162, 4)], record(*values)), export_time=EXPORTED)
            self.assertEqual([expected], self.times(sent), fields)

    def test_duration_of_uptimes(self):
        """NetFlow v9 with a start as uptime and a duration; IPFIX with a start as uptime that was told."""
        row = record((4, 90_000), (4, 500))
        sent = v9(flows9(256, [(22, 4), (161, 4)], row), uptime=100_000, seconds=EXPORTED)
        self.assertEqual([(EXPORTED * 1000 - 10_000, EXPORTED * 1000 - 9500)], self.times(sent))
        sent = message(flows(256, [(22, 4), (161, 4)], record((4, 99_990_000), (4, 9000))), export_time=EXPORTED)
        self.assertEqual([(1_699_999_990_000, 1_699_999_999_000)], self.times(sent, told=[booted()]))

    def test_impossible_sizes(self):
        """Times and durations in impossible sizes make none."""
        for fields, octets in (
            ([(22, 16)], 16),
            ([(154, 4)], 4),
            ([(152, 4), (161, 4)], 8),
            ([(152, 8), (161, 16)], 24),
        ):
            (batch,) = Collected(ALL).batches(message(a_set(2, b""), flows(256, fields, bytes(octets))))
            self.assertNotIn("flowEndMilliseconds", batch.schema, fields)

    def test_first_of_several(self):
        """A first time of an impossible size beside a good one of the same element: no time, and nothing raises."""
        sent = (message(a_set(2, template(256, (154, 3), (154, 8)))), message(a_set(256, bytes(11))))
        (row,) = Collected().rows(*sent)
        self.assertNotIn("flowStartMilliseconds", row)

    def test_restart(self):
        """After a restart the start that was told before is no longer that of the uptimes."""
        for domain in (0, 5):
            found = Collected(ALL, reliable=False)
            rows = [record((4, 99_990_000), (4, 99_999_000))] * 50
            told, data = a_set(2, template(256, *UPTIMES)), a_set(256, *rows)
            for place, (number, *sets) in enumerate(((1000, told, data), (1050, data), (1, data), (51, told, data))):
                found.rows(message(*sets, domain=5, number=number, export_time=EXPORTED + place))
                if not place:
                    found.rows(booted(domain))
            (batch,) = found.batches(message(data, domain=5, number=101, export_time=EXPORTED + 9))
            self.assertEqual(1, found.counters.figures["exporter_restarts"])
            self.assertNotIn(TIMES[0], batch.schema)

    def test_counted(self):
        """Rows without a time are no errors of values; a time before 1970 is one."""
        found = Collected(ALL)
        found.rows(booted(1), self.uptimes((1, 2), domain=1), self.uptimes((1, 2), domain=4))
        self.assertEqual(0, found.errors.get("value", 0))
        found = Collected(ALL)
        found.rows(v9(flows9(256, UPTIMES, record((4, 90_000), (4, 99_500))), uptime=100_000, seconds=1))
        self.assertEqual(1, found.errors["value"])
