"""Exporters whose clock is wrong."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.test_netflow import FLOW9, ROW9, v9
from tests.unit.ipfix.wire import COUNTER, Collected, a_set, counts, message
from ulogd_tw.ipfix.decoder import Limits


class SkewTests(SynchronousTestCase):
    """Told once when it goes wrong, and once when it is right again."""

    def told(self, found):
        events = [(e.kind, e.detail) for e in found.decoder.events if e.kind.startswith("clock")]
        found.decoder.events.clear()
        return events

    def test_told_once(self):
        """By the direction and size; within the allowed difference it is right."""
        found = Collected(limits=Limits(clock_skew=60)).feed(message(a_set(2, COUNTER), export_time=1000), now=1000.0)
        number = 0
        for export_time, events in (
            (1000, []), (940, []), (939, [("clock_skew", "61 s behind")]), (900, []), (1000, [("clock_right", "")]),
            (1061, [("clock_skew", "61 s ahead")]), (1062, []),
        ):  # fmt: skip
            found.feed(counts(1, number=number, export_time=export_time), now=1000.0)
            found.decoder.drain(1000.0)
            self.assertEqual(events, self.told(found), export_time)
            number += 1

    def test_two_exporters(self):
        """One with a wrong clock beside one with a right one, in one wake-up."""
        found = Collected(limits=Limits(clock_skew=60))
        for domain in (1, 2):
            found.feed(message(a_set(2, COUNTER), domain=domain, export_time=1000), now=1000.0)
        for domain, export_time in ((1, 1000), (2, 4600)):
            found.feed(counts(1, domain=domain, export_time=export_time), now=1000.0)
        found.decoder.drain(1000.0)
        self.assertEqual([2], [e.domain for e in found.decoder.events if e.kind == "clock_skew"])

    def test_wrap(self):
        """MSG-9: an Export Time that has wrapped in 2106 is right."""
        found = Collected(limits=Limits(clock_skew=60)).feed(message(a_set(2, COUNTER), export_time=5), now=2.0**32 + 5)
        found.feed(counts(1, export_time=5), now=2.0**32 + 5).decoder.drain(2.0**32 + 5)
        self.assertEqual([], self.told(found))

    def test_netflow9(self):
        """The seconds of the packet's header."""
        found = Collected(limits=Limits(clock_skew=60))
        found.feed(v9(a_set(0, FLOW9), a_set(256, ROW9), seconds=1000), now=2000.0).decoder.drain(2000.0)
        self.assertEqual([("clock_skew", "1000 s behind")], self.told(found))

    def test_never(self):
        """0: not told."""
        found = Collected().feed(message(a_set(2, COUNTER)), counts(1), now=1e9)
        found.decoder.drain(1e9)
        self.assertEqual([], self.told(found))
