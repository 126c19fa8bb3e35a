"""Times of questions: what users type, local time with its zone, and back."""

import os
import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.flows import times
from ulogd_tw.flows.errors import QuestionError

NOW = datetime(2026, 12, 1, 4, 5, 6, tzinfo=UTC).timestamp()
BERLIN = timezone(timedelta(hours=1))


def at(*words, zone=UTC):
    """Milliseconds of a date."""
    return int(datetime(*words, tzinfo=zone).timestamp() * 1000)


class MomentTests(SynchronousTestCase):
    """`moment` and `span`."""

    def test_forms(self):
        """RFC 3339, local time, nfdump's form, words, ages, seconds."""
        for text, expected in {
            "2026-11-30T14:00:00Z": at(2026, 11, 30, 14),
            "2026-11-30T14:00:00.25+02:00": at(2026, 11, 30, 12) + 250,
            "2026-11-30T14:00:00-0130": at(2026, 11, 30, 15, 30),
            "2026-11-30 14:00": at(2026, 11, 30, 13),
            "2026/11/30.14:00:01": at(2026, 11, 30, 13, 0, 1),
            "2026-11-30": at(2026, 11, 29, 23),
            "14:30": at(2026, 12, 1, 13, 30),
            "now": int(NOW * 1000),
            "today": at(2026, 11, 30, 23),
            "yesterday": at(2026, 11, 29, 23),
            "-2h": int(NOW * 1000) - 7_200_000,
            "-90min": int(NOW * 1000) - 5_400_000,
            "1780000000": 1_780_000_000_000,
            "999999999": 999_999_999_000,
            "1780000000123": 1_780_000_000_123,
            "999999999999": 999_999_999_999,
        }.items():
            self.assertEqual(expected, times.moment(text, NOW, BERLIN), text)

    def test_mistakes(self):
        """What is no time is refused with the forms that there are."""
        for text in (
            "",
            "x",
            "2026-13-01",
            "2026-02-30",
            "25:00",
            "14",
            "2026-11-30T",
            "-2",
            "14:00:00+25:00",
            "12345",
            "1",
            "0",
            "17800000001",
            "17800000001234",
            "١٧٨٠٠٠٠٠٠٠",
        ):
            with self.assertRaises(QuestionError, msg=text):
                times.moment(text, NOW, BERLIN)
        for text in ("", "0", "5x", "-5m", "99999999d"):
            with self.assertRaises(QuestionError, msg=text):
                times.span(text)

    def test_spans(self):
        """Lengths of time have units; without one they are seconds."""
        spans = {"300": 300_000, "5m": 300_000, "1h": 3_600_000, "1d": 86_400_000, "250ms": 250, "2 w": 1_209_600_000}
        self.assertEqual(spans, {text: times.span(text) for text in spans})

    @given(st.integers(0, times.LATEST_MS))
    def test_there_and_back(self, milliseconds):
        """A time that was printed means the same time."""
        self.assertEqual(milliseconds, times.moment(times.rfc3339(milliseconds, UTC), NOW))
        self.assertEqual(milliseconds, times.moment(times.shown(milliseconds, zone=BERLIN), NOW, BERLIN))


class ZonesTests(SynchronousTestCase):
    """Times of answers in zones of the world."""

    @given(
        st.one_of(st.integers(0, 2_000_000_000_000), st.integers(63_600_000_000, 63_605_000_000)),
        st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Monrovia"]),
    )
    def test_as_python(self, milliseconds, name):
        """They are what Python's datetime says, also where a zone changed within a minute (Monrovia, 1972)."""
        zone = ZoneInfo(name)
        local = datetime.fromtimestamp(milliseconds // 1000, zone) + timedelta(milliseconds=milliseconds % 1000)
        if local.utcoffset().total_seconds() % 60:
            return  # RFC 3339 has no seconds of an offset
        expected = local.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds")
        self.assertEqual(expected.replace("+00:00", "Z"), times.rfc3339(milliseconds, zone))


class LocalTests(SynchronousTestCase):
    """The zone of the process."""

    def setUp(self):
        before = os.environ.get("TZ")
        os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
        time.tzset()

        def restore():
            if before is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)

    def test_offsets(self):
        """Local time between two times: changes of the clock at their second."""
        found = times.offsets(at(2026, 3, 1), at(2026, 11, 1))
        self.assertEqual(
            ((at(2026, 3, 1), 3600), (at(2026, 3, 29, 1), 7200), (at(2026, 10, 25, 1), 3600)), found
        )  # fmt: skip

    def test_zone(self):
        """Answers name the zone of their times."""
        self.assertEqual("CET (UTC+01:00)", times.zone_name(at(2026, 12, 1)))
        self.assertEqual("CEST (UTC+02:00)", times.zone_name(at(2026, 7, 1)))
        self.assertEqual("2026-07-01T02:00:00+02:00", times.rfc3339(at(2026, 7, 1)))
        self.assertEqual("2026-07-01 02:00:00", times.shown(at(2026, 7, 1), False))
