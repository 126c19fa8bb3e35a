"""state_file of AGGREGATE: open intervals over a restart, a kill, a damaged file."""

import os

from hypothesis import strategies as st
from twisted.internet import defer

from tests.support import given
from tests.unit.plugins.test_aggregate import AggregateCase, batch_of
from ulogd_tw.core import types
from ulogd_tw.plugins.filters.aggregate import AGGREGATE

FUNCTIONS = (
    "peak=max(octetDeltaCount) low=min(octetDeltaCount) avg=mean(octetDeltaCount) d=distinct(sourceIPv4Address) "
    "q=quantile(octetDeltaCount,0.5) l=last(octetDeltaCount)"
)
one_row = st.fixed_dictionaries(
    {"protocolIdentifier": st.integers(0, 3), "interfaceName": st.sampled_from([b"eth0", b"eth1", b""])},
    optional={"octetDeltaCount": st.integers(0, 2**40), "reverseOctetDeltaCount": st.integers(0, 2**40),
              "sourceIPv4Address": st.integers(0, 9), "flowStartMilliseconds": st.integers(0, 99)},
)  # fmt: skip


class StateCase(AggregateCase):
    """An AGGREGATE whose process can end and begin again."""

    def setUp(self):
        self.patch(AGGREGATE, "in_thread", staticmethod(defer.execute))
        self.path = self.mktemp()

    def begin(self, **options):
        found = self.make(
            **{"key": "protocolIdentifier,interfaceName", "interval": 60, "state_file": self.path} | options
        )
        found.open()
        return found

    def sorted_rows(self):
        return sorted(map(repr, self.rows()))


class RestartTests(StateCase):
    """A stop in order."""

    @given(st.lists(st.lists(one_row, min_size=1, max_size=10), max_size=6), st.integers(0, 6))
    def test_as_without(self, batches, when):
        """Wherever the restart comes, the rows are those of a process that never stopped."""
        if os.path.exists(self.path):
            os.unlink(self.path)
        options = {"functions": FUNCTIONS}
        self.make(key="protocolIdentifier,interfaceName", interval=60, **options)
        for rows in batches:
            self.give(batch_of(rows, interfaceName=types.STRING))
        self.agg.flush()
        expected = self.sorted_rows()
        self.begin(**options)
        for place, rows in enumerate(batches):
            if place == when:
                self.agg.flush()
                self.assertEqual([], self.rows())
                self.begin(**options)
            self.give(batch_of(rows, interfaceName=types.STRING))
        self.agg.flush()
        self.begin(**options)
        self.agg.config.state_file = ""
        self.agg.flush()
        self.assertEqual(expected, self.sorted_rows())

    def test_many(self):
        """More entries than the index has room for at first, and both families."""
        self.begin(key="sourceAddress", interval=60)
        numbers = [{"sourceIPv4Address": n, "octetDeltaCount": n} for n in range(70_000)]
        self.give(batch_of(numbers))
        self.give(batch_of([{"sourceIPv6Address": 5, "octetDeltaCount": 7}], sourceIPv6Address=types.IPV6))
        self.agg.flush()
        self.begin(key="sourceAddress", interval=60)
        self.assertEqual(70_001, self.agg.counters.as_dict()["keys"])
        self.give(batch_of(numbers))
        self.agg.config.state_file = ""
        self.agg.flush()
        rows = self.rows()
        self.assertEqual((70_001, 2 * sum(range(70_000)) + 7), (len(rows), sum(row["octets"] for row in rows)))

    def test_over_while_away(self):
        """An interval that ended while the process was away goes out at once, as what it is."""
        self.begin()
        self.give(batch_of([{"protocolIdentifier": 6}], now=130.0))
        self.agg.flush()
        self.begin()
        self.agg.wake(1000.0)
        self.assertEqual([(120, 1)], [(row["interval_start"], row["flows"]) for row in self.rows()])
        self.agg.flush()
        self.begin()
        self.agg.wake(2000.0)
        self.assertEqual([], self.rows())


class KillTests(StateCase):
    """No stop."""

    def test_checkpoint(self):
        """What is older than the last checkpoint is there; an interval that has gone out is not again."""
        self.begin(checkpoint=10.0)
        self.give(batch_of([{"protocolIdentifier": 6}], now=100.0))
        self.agg.wake(100.0)
        self.give(batch_of([{"protocolIdentifier": 6}], now=105.0))
        self.agg.wake(105.0)  # too soon
        self.begin(checkpoint=10.0)
        self.agg.wake(119.0)
        self.assertEqual([], self.rows())
        self.agg.wake(121.0)
        self.assertEqual([(60, 1)], [(row["interval_start"], row["flows"]) for row in self.rows()])
        self.agg.wake(121.5)
        self.begin(checkpoint=10.0)
        self.agg.wake(130.0)
        self.assertEqual([], self.rows())

    def test_disk_full(self):
        """A state that cannot be written is counted; at a stop the intervals end early then."""
        self.path = f"{self.mktemp()}/no/folder"
        agg = self.begin(checkpoint=10.0)
        self.give(batch_of([{"protocolIdentifier": 6}], now=100.0))
        agg.wake(100.0)
        self.assertEqual(1, agg.counters.errors["state"])
        agg.flush()
        self.assertEqual(1, len(self.rows()))


class FileTests(StateCase):
    """Files that are of no use."""

    def test_other_options(self):
        """A state of another key is set aside, said and counted, and the service begins empty."""
        self.begin()
        self.give(batch_of([{"protocolIdentifier": 6}]))
        self.agg.flush()
        agg = self.begin(key="protocolIdentifier")
        self.assertEqual(
            (1, False, True), (agg.counters.errors["state"], agg.holds, os.path.exists(f"{self.path}.unusable"))
        )

    @given(st.data())
    def test_damaged(self, data):
        """Cut anywhere, or with wrong octets: set aside, or read as what it was."""
        self.begin()
        self.give(batch_of([{"protocolIdentifier": n, "octetDeltaCount": n} for n in range(5)]))
        self.agg.flush()
        with open(self.path, "rb") as file:
            octets = bytearray(file.read())
        for _ in range(data.draw(st.integers(0, 3))):
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
        with open(self.path, "wb") as file:
            file.write(octets[: data.draw(st.integers(0, len(octets)))])
        agg = self.begin()
        self.assertIn(len(self.rows()), (0,))
        self.assertEqual(bool(agg.counters.errors["state"]), not agg.holds)
