"""The whole answer: what may be missing, and the exit status."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.flows.nat_files import number
from tests.unit.flows.test_who_had import MINUTE, OUTSIDE, T, _Stored, block, nfct
from ulogd_tw.flows import nat_sql
from ulogd_tw.flows.nat_answers import CUT, UNREACHED, Kept, ask, endpoint, gaps, shown
from ulogd_tw.flows.nat_rows import Question
from ulogd_tw.storing.coverage import BEFORE, NO_SERVICE, NOT_YET, Coverage, CoverageRecord, Gap, Loss
from ulogd_tw.storing.parquet.directory import hour_directory, name_of

HOUR, DAY = 3_600_000, 86_400_000
AT = Question(number(OUTSIDE), 4000, T, 5000, HOUR)


class GapsTests(SynchronousTestCase):
    """Which times matter."""

    def found(self, coverage, *, events=False, now=T + DAY, live=False):
        return [(g.since - T, g.until - T, g.reason) for g in gaps([Kept("x", coverage, events)], AT, now, live)]

    def test_flows(self):
        """A flow may be recorded as late as `longest` after the time: a gap until then counts, no earlier one."""
        coverage = Coverage([[0, T - 6000], [T - 5500, T + 1000], [T + 2000, T + HOUR + 5000], [T + DAY, T + 2 * DAY]])
        self.assertEqual([(1001, 1999, NO_SERVICE)], self.found(coverage))

    def test_events(self):
        """A beginning may be as long before it."""
        coverage = Coverage([[T - HOUR, T - 6000], [T - 5500, T + 2 * HOUR]])
        expected = [(-HOUR - 5000, -HOUR - 1, BEFORE), (-5999, -5501, NO_SERVICE)]
        self.assertEqual(expected, self.found(coverage, events=True))
        self.assertEqual([], self.found(coverage))

    def test_losses(self):
        """A loss at that time counts, one long after does not."""
        losses = [Loss(T, T + 5, "ct1 lost.kernel", 2), Loss(T + DAY, T + DAY, "ct1 lost.kernel", 9)]
        coverage = Coverage([[0, T + 2 * DAY]], losses)
        self.assertEqual([(0, 5, "2 lost: ct1 lost.kernel")], self.found(coverage, now=T + 2 * DAY))

    def test_now(self):
        """What is to come is no gap; what is not in files yet is none where it was asked for otherwise."""
        coverage = Coverage([[0, T - 1000]])
        self.assertEqual([(-999, 2000, NOT_YET)], self.found(coverage, now=T + 2000))
        self.assertEqual([], self.found(coverage, now=T + 2000, live=True))

    def test_several(self):
        """The gaps of several stores have their names."""
        kept = [Kept("a", Coverage(), False), Kept("b", Coverage([[0, T + DAY]]), False)]
        found = gaps(kept, AT, T + DAY, False)
        self.assertEqual([Gap(T - 5000, T + HOUR + 5000, f"a: {BEFORE}")], found)


class AskTests(_Stored):
    """Directories."""

    def covered(self, rows):
        """A directory with these rows, covered for days before and after."""
        directory = Path(self.mktemp()).absolute()
        place = hour_directory(directory, T // HOUR)
        place.mkdir(parents=True)
        (file,) = self.files(rows)
        file.path.rename(place / name_of(T // 1000 - 10, 0, len(rows), "abc", 1, 0))
        record = CoverageRecord(directory)
        record.begin(T - 3 * DAY)
        record.end(T + 3 * DAY, {})
        return directory

    def asked(self, directory, question=AT, now=T + 5 * DAY, **more):
        return ask(self.store, {"nat": directory}, question, now, **more)

    def test_status(self):
        """0 with an answer, 1 with none, 3 where something may be missing, with or without an answer."""
        directory = self.covered([nfct(0, MINUTE)])
        other = Question(number(OUTSIDE), 9, T)
        late = Question(number(OUTSIDE), 4000, T + 4 * DAY)
        self.assertEqual([0, 1, 3], [self.asked(directory, q).status for q in (AT, other, late)])
        self.assertEqual((3, 1), (self.asked(Path(self.empty()), AT).status, len(self.asked(directory).answers)))

    def empty(self):
        path = Path(self.mktemp())
        path.mkdir()
        return path

    def test_open_connections(self):
        """Without the service, connections of the last `longest` may be open."""
        directory = self.covered([nfct(0, MINUTE)])
        self.assertEqual([UNREACHED], self.asked(directory, now=T + 1800_000).notes)
        self.assertEqual([], self.asked(directory, now=T + 1800_000, live=True).notes)
        self.assertEqual([], self.asked(directory).notes)

    def test_too_many(self):
        """A question that concerns more rows than are read is answered in part, and says so."""
        self.patch(nat_sql, "MOST_ROWS", 3)
        directory = self.covered([nfct(0, MINUTE, f"10.0.0.{n}") for n in range(5)])
        found = self.asked(directory)
        self.assertEqual((3, [CUT], 3), (len(found.answers), found.notes, found.status))

    def test_dict(self):
        """Addresses and protocols are names in the form for JSON."""
        found = self.asked(self.covered([nfct(0, MINUTE)])).as_dict()["answers"][0]
        self.assertEqual(("10.0.0.1", "198.51.100.9", "tcp"), (found["inside"], found["peer"], found["protocol"]))
        block_ = self.asked(self.covered([block(0, 16, 3990, portRangeEnd=4053)]), live=True).as_dict()["answers"][0]
        self.assertEqual((None, 3990, 4053, "open"), tuple(block_[n] for n in ("protocol", "first", "last", "state")))


class EndpointTests(SynchronousTestCase):
    """What users type."""

    def test_good(self):
        """Both families, with and without a port; a mapped address is the IPv4 one."""
        for text, address, port in (
            ("192.0.2.1", "192.0.2.1", None), ("192.0.2.1:80", "192.0.2.1", 80), ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None), ("[2001:db8::1]:443", "2001:db8::1", 443),
            ("::ffff:192.0.2.1", "192.0.2.1", None), ("[::ffff:c000:201]:65535", "192.0.2.1", 65535),
            ("::", "::", None), ("192.0.2.1:0", "192.0.2.1", 0),
        ):  # fmt: skip
            found, found_port = endpoint(text)
            self.assertEqual((address, port), (shown(found), found_port), text)

    def test_bad(self):
        """Everything else is refused with its reason."""
        good = "192.0.2.1"
        for text in (
            "", ":80", "host:80", "1:2", "192.0.2.256", "[::1", "[::1]80", "fe80::1%eth0", "[fe80::1%eth0]:80",
            *(f"[{good}]:{port}" for port in ("x", "")),
            *(f"{good}:{port}" for port in ("", "65536", "8o", "-1", "\u0663")),
        ):  # fmt: skip
            self.assertRaises(ValueError, endpoint, text)
