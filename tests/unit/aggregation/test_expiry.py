"""When rows of AGGREGATE go out: sliding windows, at an age, when a key has changed, the oldest when it is full."""

from collections import Counter, defaultdict

from hypothesis import strategies as st

from tests.support import examples, given
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import emission, interval

row = st.fixed_dictionaries(
    {"octetDeltaCount": st.integers(0, 1000), "sourceTransportPort": st.integers(0, 6)},
    optional={"protocolIdentifier": st.integers(0, 2), "applicationName": st.sampled_from([b"a", b"b", b"c"])},
)


class DeparturesCase(AggregateCase):
    """With a clock that goes on with the batches."""

    def at(self, now, *rows):
        """Rows that come then; each is (port, octets)."""
        self.give(batch_of([{"sourceTransportPort": p, "octetDeltaCount": o} for p, o in rows], now=float(now)))

    def turn(self, now, most=1000):
        """Turns of the reactor until there is nothing to do."""
        for _ in range(most):
            if self.agg.wake(float(now)) != 0.0:
                return
        self.fail("it does not come to an end")

    def out(self, *names):
        """The rows since the last call, those values of each."""
        found = [tuple(row.get(name) for name in names) for row in self.rows()]
        self.keep.batches.clear()
        return found


class WindowTests(DeparturesCase):
    """window=."""

    def test_slides(self):
        """At the end of each interval the sums of the last three; the window is named by its start."""
        self.make(key="sourceTransportPort", interval=10, window=30)
        found = []
        for now in range(100, 170, 10):
            if now < 140:
                self.at(now + 1, (1, now), (now, 7))
            self.turn(now + 10.5)
            found.append(Counter(self.out("interval_start", "sourceTransportPort", "octets", "flows")))
        self.assertEqual([
            Counter([(80, 1, 100, 1), (80, 100, 7, 1)]),
            Counter([(90, 1, 210, 2), (90, 100, 7, 1), (90, 110, 7, 1)]),
            Counter([(100, 1, 330, 3), (100, 100, 7, 1), (100, 110, 7, 1), (100, 120, 7, 1)]),
            Counter([(110, 1, 360, 3), (110, 110, 7, 1), (110, 120, 7, 1), (110, 130, 7, 1)]),
            Counter([(120, 1, 250, 2), (120, 120, 7, 1), (120, 130, 7, 1)]),
            Counter([(130, 1, 130, 1), (130, 130, 7, 1)]),
            Counter(),
        ], found)  # fmt: skip
        self.assertFalse(self.agg.holds)
        self.assertEqual({}, self.graph.unaccounted())

    def test_top_of_a_window(self):
        """The largest of the window, which are the largest of none of its intervals."""
        self.make(key="sourceTransportPort", interval=10, window=20, top=1)
        self.at(101, (1, 100), (2, 90))
        self.at(111, (3, 100), (2, 90))
        self.turn(120.5)
        self.assertEqual([(90, 1, 100), (90, None, 90), (100, 2, 180), (100, None, 200)],
                         self.out("interval_start", "sourceTransportPort", "octets"))  # fmt: skip

    def test_by_flow_time(self):
        """Late rows are in the windows still to come; when there is none, in one of their own."""
        self.make(key="sourceTransportPort", interval=10, window=20, time="flow", lateness=5)

        def ended(now, *ends):
            rows = [{"sourceTransportPort": 1, "octetDeltaCount": 1, "flowEndMilliseconds": 1000 * e} for e in ends]
            self.give(batch_of(rows, now=float(now)))

        ended(100, 100, 101)
        ended(126, 125)  # closes 100 and 110
        self.turn(127)
        self.assertEqual([(90, 2), (100, 2)], self.out("interval_start", "flows"))
        ended(128, 115)  # late, but of the window that ends at 130
        ended(128, 95)  # of none
        self.turn(145)
        self.assertEqual([(90, 1), (110, 2), (120, 1)], sorted(self.out("interval_start", "flows")))
        self.assertEqual(2, self.agg.counters.figures["rows_late"])

    def test_stop(self):
        """The windows that end with the open intervals."""
        self.make(key="sourceTransportPort", interval=10, window=20)
        self.at(101, (1, 5))
        self.at(111, (1, 6))
        self.agg.flush()
        self.assertEqual([(90, 5), (100, 11)], self.out("interval_start", "octets"))

    def test_full(self):
        """With the default overflow small groups are folded: nothing is missing in the sums of a window."""
        self.make(key="sourceTransportPort", interval=10, window=20, max_keys=4)
        for now in (101, 111):
            self.at(now, *((port, port + now) for port in range(9)))
        self.turn(120.5)
        sums = defaultdict(int)
        for start, octets in self.out("interval_start", "octets"):
            sums[start] += octets
        self.assertEqual({90: 9 * 101 + 36, 100: 9 * 212 + 72}, sums)

    def test_asked(self):
        """A query has what a window would have: the closed intervals of it and the open one."""
        self.make(key="sourceTransportPort", interval=10, window=20)
        self.at(101, (1, 5))
        self.at(111, (1, 6))
        self.turn(112)
        peeked = [b.columns["octets"].tolist() for b in self.agg.peek(frozenset(("octets",)))]
        self.assertEqual([[5], [6]], peeked)

    @examples(50)
    @given(st.lists(st.tuples(st.integers(0, 25), st.lists(row, min_size=1, max_size=6)), max_size=8),
           st.integers(1, 4), st.integers(1, 5))  # fmt: skip
    def test_any(self, batches, intervals, at_once):
        """Each window has the sums of the rows in it, by key."""
        self.patch(interval, "AT_ONCE", at_once)
        self.patch(emission, "EMITTED_AT_ONCE", at_once)
        names = ("sourceTransportPort", "protocolIdentifier", "applicationName")
        self.make(key=",".join(names), interval=5, window=5 * intervals,
                  functions="n=count(octetDeltaCount) a=first(octetDeltaCount) z=last(octetDeltaCount)")  # fmt: skip
        expected, order = defaultdict(Counter), defaultdict(list)
        now = 1000
        for step, rows in batches:
            now += step
            for one in rows:
                key = tuple(one.get(n) for n in names)
                for i in range(intervals):
                    at = (now // 5 * 5 - 5 * i, *key)
                    expected[at].update(octets=one["octetDeltaCount"], flows=1, n=1)
                    order[at].append(one["octetDeltaCount"])
            self.give(batch_of(rows, now=float(now)))
        self.turn(now + 5 * intervals + 100)
        found = defaultdict(Counter)
        for one in self.rows():
            key = (one["interval_start"], *(one.get(name) for name in names))
            self.assertNotIn(key, found)
            found[key] = Counter({name: one[name] for name in ("octets", "flows", "n")})
            self.assertEqual((one["a"], one["z"]), (order[key][0], order[key][-1]))
        self.assertEqual(expected, found)


class AgeTests(DeparturesCase):
    """age=."""

    def test_goes_out(self):
        """In time after its first row, and begins anew."""
        self.make(key="sourceTransportPort", age=80)
        self.at(1000, (1, 5))
        self.at(1040, (1, 6), (2, 7))
        self.turn(1060)
        self.assertEqual([], self.out())
        self.turn(1075)
        self.assertEqual([(1000, 1, 11, 2)], self.out("interval_start", "sourceTransportPort", "octets", "flows"))
        self.at(1076, (1, 8))
        self.turn(1115)
        self.assertEqual([(1040, 2, 7)], self.out("interval_start", "sourceTransportPort", "octets"))
        self.agg.flush()
        self.assertEqual([(1076, 1, 8)], self.out("interval_start", "sourceTransportPort", "octets"))

    def test_always_busy(self):
        """A group of which a row comes in every turn goes out as others do."""
        self.patch(interval, "AT_ONCE", 1)
        self.make(key="sourceTransportPort", age=8)
        for now in range(1000, 1100):
            self.at(now, *((port, 1) for port in range(5)))
            self.agg.wake(now + 0.5)
        spans = self.out("interval_start", "flows")
        self.assertGreater(len(spans), 50)
        self.assertLessEqual(max(flows for _, flows in spans), 8)

    def test_of_all_kinds(self):
        """Also what found no room and is under NULL keys."""
        self.make(key="sourceTransportPort", age=80, max_keys=1, overflow="other")
        self.at(1000, (1, 5), (2, 6), (3, 7))
        self.turn(1075)
        found = self.out("octets", "interval_start", "sourceTransportPort")
        self.assertEqual([(5, 1000, 1), (13, 1000, None)], sorted(found))
        self.assertFalse(sum(map(len, self.agg.aggregation.tables())))

    @examples(50)
    @given(st.lists(st.tuples(st.integers(0, 9), st.lists(row, min_size=1, max_size=6)), max_size=12),
           st.integers(1, 5), st.sampled_from(["emit", "other", "fold", "evict"]), st.integers(1, 30))  # fmt: skip
    def test_any(self, batches, at_once, overflow, max_keys):
        """No row covers more than the age, and nothing is lost or comes twice."""
        self.patch(interval, "AT_ONCE", at_once)
        self.make(key="sourceTransportPort,applicationName", age=16, overflow=overflow, max_keys=max_keys)
        now, octets, flows = 1000, 0, 0
        for step, rows in batches:
            now += step
            rows = [{**r, "flowEndMilliseconds": now * 1000} for r in rows]
            octets, flows = octets + sum(r["octetDeltaCount"] for r in rows), flows + len(rows)
            self.give(batch_of(rows, now=float(now)))
            self.turn(now + 0.5)
        self.turn(now + 16)
        found = self.rows()
        self.assertEqual((octets, flows), (sum(r["octets"] for r in found), sum(r["flows"] for r in found)))
        for one in found:
            self.assertLessEqual(one["last_ms"] // 1000 - one["interval_start"], 16)
        self.assertFalse(self.agg.holds and sum(map(len, self.agg.aggregation.tables())))
        self.assertEqual({}, self.graph.unaccounted())


class ChangeTests(DeparturesCase):
    """change=."""

    def give_names(self, now, *names):
        self.give(batch_of([{"sourceTransportPort": p, "applicationName": n, "octetDeltaCount": 1} for p, n in names],
                           now=float(now)))  # fmt: skip

    def test_goes_out(self):
        """The group with the former value, soon; a return to it is a new group. Others are not touched."""
        self.make(key="sourceTransportPort,applicationName", change="applicationName", interval=3600)
        self.give_names(1, (1, b"a"), (2, b"a"), (1, b"a"))
        self.turn(3)
        self.assertEqual([], self.out())
        self.give_names(4, (1, b"b"), (1, b"b"), (1, b"a"))
        self.turn(6)
        self.assertEqual([(1, b"a", 2), (1, b"b", 2)], self.out("sourceTransportPort", "applicationName", "flows"))
        self.agg.flush()
        self.assertEqual([(1, b"a", 1), (2, b"a", 1)],
                         sorted(self.out("sourceTransportPort", "applicationName", "flows")))  # fmt: skip

    @examples(50)
    @given(st.lists(st.lists(row, min_size=1, max_size=8), max_size=8), st.integers(1, 9))
    def test_any(self, batches, at_once):
        """Rows come out as runs of equal values, by the other keys, whatever batches they came in."""
        self.patch(interval, "AT_ONCE", at_once)
        self.make(key="sourceTransportPort,protocolIdentifier", change="protocolIdentifier", interval=3600)
        runs = defaultdict(list)
        for now, rows in enumerate(batches):
            for one in rows:
                of = runs[one["sourceTransportPort"]]
                value = one.get("protocolIdentifier")
                if not of or of[-1][0] != value:
                    of.append((value, 0, 0))
                of[-1] = (value, of[-1][1] + 1, of[-1][2] + one["octetDeltaCount"])
            self.give(batch_of(rows, now=float(2 * now)))
            self.turn(2 * now + 1)
        early = len(self.rows())
        self.assertEqual(sum(len(of) - 1 for of in runs.values()), early)
        self.agg.flush()
        found = Counter((r["sourceTransportPort"], r.get("protocolIdentifier"), r["flows"], r["octets"])
                        for r in self.rows())  # fmt: skip
        self.assertEqual(Counter((port, *run) for port, of in runs.items() for run in of), found)

    def test_more_groups_than_room(self):
        """Then a run may come out in parts, but nothing is lost."""
        self.make(key="sourceTransportPort,applicationName", change="applicationName", interval=3600, max_keys=3)
        for now in range(20):
            self.give_names(now, *((port, b"%d" % (now // 7)) for port in range(10)))
            self.turn(now + 0.5)
        self.agg.flush()
        self.assertEqual(200, sum(flows for (flows,) in self.out("flows")))


class EvictTests(DeparturesCase):
    """overflow=evict."""

    def test_the_oldest(self):
        """Half of the groups, those whose last flow ended longest ago."""
        self.make(key="sourceTransportPort", overflow="evict", max_keys=8, interval=3600)
        ends = [3, 80, 1, 70, 2, 60, 4, 50]
        self.give(batch_of([{"sourceTransportPort": n, "flowEndMilliseconds": e} for n, e in enumerate(ends)]))
        self.give(batch_of([{"sourceTransportPort": 9, "flowEndMilliseconds": 99}]))
        self.turn(1)
        self.assertEqual([0, 2, 4, 6], sorted(port for (port,) in self.out("sourceTransportPort")))
        self.agg.flush()
        self.assertEqual([1, 3, 5, 7, 9], sorted(port for (port,) in self.out("sourceTransportPort")))

    @examples(50)
    @given(st.lists(st.lists(row, min_size=1, max_size=12), max_size=8), st.integers(1, 9), st.integers(1, 12))
    def test_nothing_is_lost(self, batches, at_once, max_keys):
        """By key, all rows together; and there are never more groups than room."""
        self.patch(interval, "AT_ONCE", at_once)
        names = ("sourceTransportPort", "protocolIdentifier", "applicationName")
        self.make(key=",".join(names), overflow="evict", max_keys=max_keys, interval=3600)
        expected = defaultdict(Counter)
        for now, rows in enumerate(batches):
            rows = [{**r, "flowEndMilliseconds": now} for r in rows]
            for r in rows:
                key = tuple(r.get(n) for n in names)
                expected[key].update(octets=r["octetDeltaCount"], flows=1)
            self.give(batch_of(rows))
            self.assertLessEqual(self.agg.counters.figures["keys"](), max_keys)
        self.agg.flush()
        found = defaultdict(Counter)
        for r in self.rows():
            found[tuple(r.get(n) for n in names)].update(octets=r["octets"], flows=r["flows"])
        self.assertEqual({k: +c for k, c in expected.items()}, {k: +c for k, c in found.items()})


class MistakesTests(DeparturesCase):
    """What does not go together."""

    def test_told(self):
        """By option."""
        for options, names in (
            ({"window": 90}, ["window"]), ({"window": 120, "age": 5.0}, ["age"]), ({"age": 5.0, "top": 3}, ["top"]),
            ({"age": 5.0, "time": "flow"}, ["age"]), ({"window": 120, "overflow": "evict"}, ["overflow"]),
            ({"change": "octetDeltaCount"}, ["change"]), ({"window": 120, "key": "protocolIdentifier",
             "change": "protocolIdentifier"}, ["change"]),
        ):  # fmt: skip
            with self.assertRaises(AssertionError) as caught:
                self.make(**{"interval": 60} | options)
            told = str(caught.exception)
            for name in names:
                self.assertIn(name, told)
