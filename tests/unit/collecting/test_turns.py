"""Turns: fair shares of the time that decoding takes."""

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.collecting.doubles import Collecting
from tests.unit.ipfix.wire import a_set, counts, counts_of, message, template
from ulogd_tw.collecting import turns
from ulogd_tw.collecting.turns import TURN, Turns, is_dear

TOLD = message(a_set(2, template(256, (1, 4))))


class TurnsTests(SynchronousTestCase):
    """Datagrams that only take time."""

    def setUp(self):
        self.now = self.worked = 0.0
        self.decoded, self.dropped = [], 0
        self.turns = Turns(lambda: self.now, lambda: self.worked, lambda: (0.0, 0), self.drop)

    def drop(self, octets):
        self.dropped += 1

    def put(self, who, cost, times=1, octets=100, known=True):
        for number in range(times):
            self.turns.put(who, known, lambda number=number: self.decode(who, number, cost), octets)

    def decode(self, who, number, cost):
        self.worked += cost
        self.now += cost
        self.decoded.append((who, number))

    def test_cheap_first(self):
        """Whoever has cost little is decoded in the next turn, however much others have waiting."""
        self.put("dear", 0.003, 1000)
        self.turns.work()
        for turn in range(20):
            self.put("cheap", 0.00001, 20)
            before, self.decoded = self.worked, []
            self.turns.work()
            self.assertEqual(20, sum(who == "cheap" for who, _ in self.decoded), turn)
            self.assertLessEqual(self.worked - before, TURN + 0.003 * turns._FIRST)
        self.assertLess(10, sum(who == "dear" for who, _ in self.decoded) * 20)

    def test_equal_shares(self):
        """Two that cost the same get the same; in order of arrival each."""
        self.put("a", 0.002, 400)
        self.put("b", 0.002, 100)
        for _ in range(15):
            self.turns.work()
        done = [sum(who == name for who, _ in self.decoded) for name in "ab"]
        self.assertLessEqual(abs(done[0] - done[1]), 2 * turns._FIRST)
        for name in "ab":
            numbers = [number for who, number in self.decoded if who == name]
            self.assertEqual(list(range(len(numbers))), numbers)

    def test_what_comes_behind(self):
        """What records cost behind the decoder counts, so that a slice has fewer datagrams."""
        self.turns = Turns(lambda: self.now, lambda: self.worked, self.slow, self.drop)
        self.put("dear", 0.0001, 100)
        self.turns.work()
        self.assertEqual(turns._FIRST, len(self.decoded))

    def slow(self):
        """Those who take the records need 30 ms."""
        self.worked += 0.03
        return 0.03, 1

    def test_bounded(self):
        """A party has 4 MB, all have 64 MB; the rest is dropped and counted, of that party only."""
        self.put("dear", 0.001, 100, octets=60_000)
        self.assertEqual(100 - (4 << 20) // 60_000, self.dropped)
        self.put("cheap", 0.001, 10)
        self.assertEqual(100 - (4 << 20) // 60_000, self.dropped)
        for number in range(40):
            self.put(f"party{number}", 0.001, 60, octets=60_000)
        self.assertLessEqual(self.turns._octets, 64 << 20)

    def test_end(self):
        """Turns end some seconds after the last expensive datagram; parties are forgotten."""
        self.assertFalse(self.turns.taken)
        self.turns.begin()
        self.put("dear", 0.003, 10, known=False)
        self.now += 100
        self.assertTrue(self.turns.taken)
        while self.turns.waits:
            self.turns.work()
        self.assertTrue(self.turns.taken)
        self.now += 60
        self.turns.work()
        self.assertEqual((False, {}), (self.turns.taken, self.turns._parties))

    def test_finish(self):
        """At a stop what waits is decoded as long as there is time; the rest is counted."""
        self.put("dear", 0.003, 1000)
        left = self.turns.finish(1.0)
        self.assertEqual((1000, False), (left + len(self.decoded), self.turns.waits))
        self.assertTrue(1.0 <= self.now <= 1.1, self.now)
        self.put("dear", 0.003, 5)
        self.assertEqual(5, self.turns.finish(-1.0))

    def test_dear(self):
        """Ordinary records are not dear, whatever comes: 2 us for a datagram of 1400 octets; nor is little work."""
        self.assertFalse(is_dear(0.004, 2048 * 1400, 2048))
        self.assertFalse(is_dear(0.019, 100, 1))
        self.assertTrue(is_dear(0.088, 32 * 1140, 32))

    def test_many_rows(self):
        """Tens of thousands of rows in a datagram are dear by what comes behind the decoder; usual records are not."""
        self.assertTrue(is_dear(0.005, 10 * 60_000, 10, 0.016, 10 * 60_000))
        self.assertFalse(is_dear(0.001, 60_000, 1, 0.002, 60_000))
        self.assertFalse(is_dear(0.005, 2048 * 1400, 2048, 0.2, 2048 * 28))
        self.turns = Turns(lambda: self.now, lambda: self.worked, lambda: (0.001, 60_000), self.drop)
        self.put("tiny", 0.00001, 3, octets=60_000)
        self.turns.work()
        self.now += turns._LASTING / 2
        self.assertTrue(self.turns.taken)

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0.0, 0.001, 0.01))), max_size=60))
    def test_all_are_decoded(self, items):
        """Each datagram is decoded once, in the order of its party."""
        self.setUp()
        for number, (who, cost) in enumerate(items):
            self.turns.put(who, True, lambda who=who, number=number, cost=cost: self.decode(who, number, cost), 10)
        while self.turns.waits:
            self.turns.work()
        for name in "abc":
            expected = [number for number, (who, _) in enumerate(items) if who == name]
            self.assertEqual(expected, [number for who, number in self.decoded if who == name])


class CollectorTests(SynchronousTestCase):
    """COLLECTOR, where each template costs 3 ms."""

    def setUp(self):
        self.found = found = Collecting(self)
        templates = found.plugin.reception.datagrams.intake.templates
        learn_set = templates.learn_set

        def slow(session, *rest):
            found.worked += 0.003
            learn_set(session, *rest)

        self.patch(templates, "learn_set", slow)

    def flood(self, n=500, host="198.51.100.1"):
        """Datagrams with another template each."""
        return [(message(a_set(2, template(256, (1 + i % 8, 4), (1, 4))), number=0), host, 1) for i in range(n)]

    def test_others_are_served(self):
        """A flood of templates waits; the records of others go on with the next turn, and none is lost."""
        found, good, turns_to_come = self.found, ("192.0.2.1", 1), []
        found.plugin.reception._intake._later = lambda delay, turn: turns_to_come.append(turn)
        found.datagrams((TOLD, *good), (counts(0), *good))
        found.datagrams(*self.flood())
        self.assertLess(found.worked, 0.2)
        for number in range(1, 9):
            found.datagrams(*self.flood(100), (counts(number, number=number), *good))
            turns_to_come.pop()()
            self.assertEqual(list(range(number + 1)), counts_of(found.rows))
        self.assertLess(found.worked, 1.0)

    def test_dropped(self):
        """A datagram for which there is no room counts as received, and as dropped."""
        found, large = self.found, message(a_set(2, template(256, *[(4, 1)] * 10_000)))
        found.plugin.reception._intake._turns.begin()
        for _ in range(4):
            found.datagrams(*((large[:2000], "198.51.100.1", 1) for _ in range(1000)))
        counters = found.plugin.counters
        self.assertEqual(4000 - (4 << 20) // 2000, counters.errors["limit_work"])
        self.assertEqual(counters.errors["limit_work"], counters.messages_received)

    def test_all_is_decoded_in_the_end(self):
        """What waits is decoded in further turns, and turns end."""
        found = self.found
        found.datagrams(*self.flood(300))
        while found.plugin.reception._intake._turns.waits:
            found.clock.advance(0.001)
        self.assertEqual(300, found.plugin.counters.messages_received)
        found.clock.advance(6)
        found.datagrams((TOLD, "192.0.2.1", 1), (counts(7), "192.0.2.1", 1))
        self.assertEqual([7], counts_of(found.rows))

    def test_stop(self):
        """At the stop what still waits is counted as not read, when time is up; the log says it."""
        found = self.found
        found.datagrams(*self.flood(300))
        before = found.plugin.counters.messages_received
        found.plugin.stop_within = 0.0
        found.plugin.stop()
        self.assertEqual(300 - before, found.plugin.counters.figures["datagrams_unread"])
        self.assertEqual(1, len(found.heard("datagrams were not read before stop_timeout")))
