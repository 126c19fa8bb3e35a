"""Rules over columns give what plain Python gives row by row."""

from collections import Counter
from ipaddress import ip_address
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.alerting.conditions import parse
from ulogd_tw.alerting.evaluation import Evaluation
from ulogd_tw.alerting.memory import Hours, Seen
from ulogd_tw.alerting.rules import Rule
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.keys import Key

KEYS = [
    Key("addr", types.IPV4),
    Key("port", types.UNSIGNED16),
    Key("name", types.STRING),
    Key("octets", types.UNSIGNED64),
]
KINDS = {"addr": "address", "port": "unsigned", "name": "string"}
ROW = st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([b"x", b"yy", "\u00e9".encode()]),
                st.integers(0, 2**40), st.booleans())  # fmt: skip
BY = st.lists(st.sampled_from(sorted(KINDS)), max_size=3, unique=True)


def batch_of(rows):
    """IPv4 rows; the last member of each says that its port is missing."""
    columns = {
        "addr": np.array([row[0] for row in rows], np.uint32) + np.uint32(0x0A000000),
        "port": np.array([row[1] for row in rows], np.uint16),
        "name": Octets.of([row[2] for row in rows]),
        "octets": np.array([row[3] for row in rows], np.uint64),
    }
    return Batch(Schema(KEYS), columns, {"port": np.array([row[4] for row in rows], bool)}, n=len(rows), now=0)


def rule(when, **values):
    """A rule over these columns."""
    condition = parse(when)
    given_ = {"max_alerts": 1000, "max_seen": 1000, "learn": 0.0, "least": 1} | values
    return Rule("r", condition, SimpleNamespace(**given_), kinds=tuple(KINDS[key] for key in condition.by))


class EvaluationTests(SynchronousTestCase):
    """`Evaluation` over several batches and intervals."""

    @given(st.lists(st.lists(ROW, min_size=1, max_size=20), max_size=6), BY, st.integers(0, 2**41), st.integers(1, 3))
    def test_as_row_by_row(self, intervals, by, limit, panes):
        """The keys beyond the limit and their sums over the window are those of a loop over the rows."""
        when = f"octets {'by ' + ','.join(by) if by else ''} > {limit} in {10 * panes}s"
        evaluation = Evaluation(rule(when), 10)
        for number, rows in enumerate(intervals):
            for part in (rows[::2], rows[1::2]):
                if part:
                    evaluation.add(batch_of(part), 10 * number, {})
            found, _ = evaluation.at(10 * number + 10, 0)
            sums = Counter()
            for row in [row for before in intervals[max(number + 1 - panes, 0) : number + 1] for row in before]:
                values = {"addr": str(ip_address(0x0A000000 + row[0])), "port": str(row[1]), "name": row[2].decode()}
                if not ("port" in by and row[4]):
                    sums[tuple((key, values[key]) for key in by)] += row[3]
            self.assertEqual({key: total for key, total in sums.items() if total > limit}, found)

    def test_choice_and_bound(self):
        """Only chosen rows count; beyond the bound the largest keys stay, and before them those of alerts."""
        rows = [(place, 0, b"x", 100 + place, False) for place in range(10)]
        evaluation = Evaluation(
            rule("octets by addr > 1 in 10s", max_alerts=2), 10, lambda b: b.columns["addr"] % 2 == 0
        )
        evaluation.add(batch_of(rows), 0, {})
        found, beyond = evaluation.at(10, 0)
        self.assertEqual(({(("addr", "10.0.0.6"),), (("addr", "10.0.0.8"),)}, 3), (set(found), beyond))
        evaluation.add(batch_of([(0, 0, b"x", 999, False), *rows]), 10, {})
        again, _ = evaluation.at(20, 0, found)
        self.assertEqual(set(found), set(again))

    def test_ipv6_and_mac(self):
        """Keys are shown as people write them."""
        keys = [Key("a", types.IPV6), Key("m", types.MAC), Key("octets", types.UNSIGNED64)]
        columns = {"a": np.array([[0x20010DB8 << 32, 1]], np.uint64), "m": np.array([0x02AB], np.uint64),
                   "octets": np.array([5], np.uint64)}  # fmt: skip
        condition = parse("octets by a,m > 1 in 10s")
        evaluation = Evaluation(Rule("r", condition, SimpleNamespace(max_alerts=9), kinds=("address", "mac")), 10)
        evaluation.add(Batch(Schema(keys), columns, n=1, now=0), 0, {})
        self.assertEqual({(("a", "2001:db8::1"), ("m", "00:00:00:00:02:ab")): 5.0}, evaluation.at(10, 0)[0])


class MemoryTests(SynchronousTestCase):
    """Values seen before, and last week's hours."""

    def test_new(self):
        """A value is new once, also after a restart; nothing is new while it learns; the oldest is forgotten."""
        evaluation = Evaluation(rule("new addr", learn=100.0, max_seen=3), 10)

        def names(start, *places):
            evaluation.add(batch_of([(place, 0, b"x", 1, False) for place in places]), start, {})
            return [labels[0][1] for labels in evaluation.at(start + 10, float(start))[0]]

        self.assertEqual([], names(0, 1))
        self.assertEqual([], names(90, 2))
        self.assertEqual(["10.0.0.3"], names(100, 1, 3))
        saved = evaluation.seen.saved()
        evaluation.seen = Seen(3, 100.0)
        evaluation.seen.restore(saved)
        self.assertEqual([], names(110, 1, 3))
        self.assertEqual(["10.0.0.4"], names(120, 4))
        self.assertEqual(["10.0.0.2"], names(130, 2))

    def test_last_week(self):
        """An hour with more than the factor fires, once a former hour is known; small sums and new keys do not."""
        evaluation = Evaluation(rule("octets by addr > 3 times last week", least=100), 10)
        week = 7 * 86400

        def names(start, *sums):
            evaluation.add(batch_of([(place, 0, b"x", n, False) for place, n in enumerate(sums)]), start, {})
            return {labels[0][1]: value for labels, value in evaluation.at(start + 10, 0)[0].items()}

        self.assertEqual({}, names(0, 100, 100, 1))
        saved = evaluation.hours.saved()
        evaluation.hours = Hours()
        evaluation.hours.restore(saved)
        self.assertEqual({}, names(week, 200, 300, 50, 9999))
        self.assertEqual({"10.0.0.0": 301.0}, names(week + 10, 101, 0, 1))
        self.assertEqual({}, names(week + 3600, 9999))
