"""What is known of files makes questions faster, and changes no answer."""

from collections import defaultdict
from unittest import mock

from hypothesis import strategies as st

from tests.support import given
from tests.unit.flows.nat_files import HOUR
from tests.unit.flows.test_who_had import HOSTS, T, _Stored, block, nat44
from ulogd_tw.flows.nat_store import NatStore

MINUTE = 60_000
TIMES = st.one_of(st.integers(0, 400), st.sampled_from([59, 60, 61, 130]))
EVENT = st.one_of(
    st.builds(nat44, TIMES, st.sampled_from([4, 5, 3]), st.sampled_from(HOSTS), st.just(4000)),
    st.builds(nat44, TIMES, st.just(5), st.sampled_from(HOSTS), st.just(4000), destinationIPv4Address=st.none()),
    st.builds(nat44, st.integers(0, 400), st.sampled_from([14, 15]), st.sampled_from(HOSTS), st.just(0)),
    st.builds(block, st.integers(0, 400), st.sampled_from([16, 17]), st.just(3990), st.sampled_from(HOSTS),
              portRangeEnd=st.just(4053)),
    st.builds(nat44, TIMES, st.none(), st.sampled_from(HOSTS), firewallEvent=st.sampled_from([1, 2, 5]),
              flowStartMilliseconds=st.just(T)),
)  # fmt: skip


def at_minutes(row):
    """The times of a row are minutes instead of milliseconds: it is hours that matter here."""
    return {name: T + (v - T) * MINUTE if name.endswith("Milliseconds") else v for name, v in row.items()}


class CarriedTests(_Stored):
    """Sessions within an hour, and beyond it."""

    def hourly(self, rows):
        """A file for each hour and each kind of columns."""
        parts = defaultdict(list)
        for row in map(at_minutes, rows):
            parts[row["observationTimeMilliseconds"] // HOUR, tuple(row)].append(row)
        return self.files(*parts.values())

    @given(st.lists(EVENT, min_size=1, max_size=10), st.integers(0, 420), st.sampled_from([4000, None]))
    def test_same_answers(self, rows, at, port):
        """With all files known, each question has the answers that it has without."""
        files = self.hourly(rows)
        self.store = NatStore(lambda text: self.connection.execute(text).fetchall())
        before = self.ask(files, T + at * MINUTE, port=port)
        self.assertTrue(self.store.learn(files, 60))
        self.assertEqual(before, self.ask(files, T + at * MINUTE, port=port))

    def test_kept_sessions(self):
        """An end of another host than the one that began, and a start told hours later, are seen from other hours."""
        for rows, at in (
            ([nat44(130, 4), nat44(131, 5, HOSTS[1])], 100),
            ([nat44(0, 4), nat44(70, 5), nat44(70, 4, HOSTS[1])], 200),
            ([nat44(0, 4), nat44(70, 5), nat44(70, 4)], 200),
            ([nat44(300, None, firewallEvent=5, flowStartMilliseconds=T + 10), nat44(301, None, firewallEvent=2)], 20),
        ):
            files = self.hourly(rows)
            before = self.ask(files, T + at * MINUTE)
            self.assertEqual(1, len(before))
            self.store.learn(files, 60)
            self.assertEqual(before, self.ask(files, T + at * MINUTE))

    def test_files_read(self):
        """Sessions of other hours that begin and end there are not read."""
        rows = [row for n in range(50) for row in (nat44(n * 60 + 1, 4), nat44(n * 60 + 2, 5))]
        files = self.hourly([*rows, nat44(100, 4, port=4001), nat44(300, 5, port=4001)])
        read = []

        def run(text):
            if "OVER (PARTITION" in text:
                read.append(text.count(".parquet"))
            return self.connection.execute(text).fetchall()

        self.store = NatStore(run)
        self.store.learn(files, 60)
        self.assertEqual(1, len(self.ask(files, T + 61 * MINUTE + 1)))
        self.assertLess(sum(read), 3)
        read.clear()
        self.assertEqual(1, len(self.ask(files, T + 200 * MINUTE, port=4001)))
        self.assertLess(sum(read), 10)

    def test_times_of_another_hour(self):
        """A file with events of another hour, as clocks far off make them, is always read."""
        (file,) = self.files([nat44(0, 4), nat44(1, 5)])
        file = file._replace(hour=file.hour + 5)
        self.store.learn([file], 60)
        self.assertEqual(1, len(self.ask([file], T + 1)))

    def test_bounded(self):
        """Learning ends when its time is over, and goes on where it was."""
        files = self.hourly([nat44(n * 60, 4) for n in range(5)])
        with mock.patch("ulogd_tw.flows.carried.time.monotonic", side_effect=range(1000)):
            found = [self.store.learn(files, 2) for _ in range(4)]
        self.assertEqual((False, True), (found[0], found[-1]))
