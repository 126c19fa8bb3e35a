"""Sequence Numbers of the Messages that come."""

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import COUNTER, VARIABLE, Collected, a_set, counts, message, options_template, template


class SequenceTests(SynchronousTestCase):
    """MSG-3, ERR-4, UDP-3: Sequence Numbers tell loss, lateness and restarts."""

    def follow(self, *messages, start=Collected):
        """Feed (number, records) as Messages; the collector."""
        found = start().feed(message(a_set(2, COUNTER)))
        found.session.domains[1].sequence.unknown()
        for number, rows in messages:
            found.feed(counts(*range(rows), number=number))
        found.rows()
        return found

    def outcome(self, *messages):
        found = self.follow(*messages)
        return found.lost, found.errors

    def test_in_order(self):
        self.assertEqual((0, {}), self.outcome((5, 2), (7, 3), (10, 0), (10, 1)))

    def test_gap(self):
        found = self.follow((0, 2), (5, 1), (10, 1))
        self.assertEqual((7, {}), (found.lost, found.errors))
        self.assertEqual(
            ["3 records", "4 records"], [e.detail for e in found.decoder.events if e.kind == "sequence_gap"]
        )

    def test_reordered(self):
        """UDP-3: a late Message takes back what was counted as lost, in any order and in pieces."""
        self.assertEqual((0, {}), self.outcome((0, 2), (4, 2), (2, 2), (6, 1)))
        self.assertEqual((0, {}), self.outcome((0, 2), (8, 2), (4, 2), (2, 2), (6, 2), (10, 1)))
        self.assertEqual((2, {}), self.outcome((0, 2), (8, 2), (4, 2), (2, 2), (10, 1)))
        self.assertEqual((1, {}), self.outcome((0, 1), (4, 1), (2, 2)))

    def test_duplicated(self):
        """The same Message twice is counted, and loses nothing; late ones are not taken back twice."""
        self.assertEqual((0, {"sequence_duplicate": 1}), self.outcome((0, 2), (2, 2), (2, 2), (4, 2)))
        self.assertEqual((0, {"sequence_duplicate": 1}), self.outcome((0, 2), (4, 2), (2, 2), (2, 2), (6, 1)))

    def test_wrap(self):
        """Numbers are modulo 2**32."""
        top = 1 << 32
        self.assertEqual((0, {}), self.outcome((top - 3, 2), (top - 1, 3), (2, 1)))
        self.assertEqual((4, {}), self.outcome((top - 3, 2), (3, 1)))
        self.assertEqual((0, {}), self.outcome((top - 3, 2), (2, 1), (top - 1, 3)))

    def test_forged(self):
        """A far number alone changes nothing, whichever way it is off."""
        for far in (1 << 31, 1 << 30, (1 << 32) - (1 << 30), 20_000_000):
            self.assertEqual((0, {"sequence_reset": 1}), self.outcome((0, 2), (far, 2), (2, 2), (4, 1)))

    def test_forged_again_and_again(self):
        """ERR-4: forged numbers that continue each other change nothing while the true count goes on between them."""
        far = 1 << 30
        messages = (0, 2), (far, 2), (2, 2), (far + 2, 2), (4, 2), (far + 4, 2), (6, 1)
        self.assertEqual((0, {"sequence_reset": 3}), self.outcome(*messages))

    def test_restart(self):
        """Another count is believed when the next Message continues it."""
        self.assertEqual(
            (1, {"sequence_reset": 1}), self.outcome((0, 2), (1 << 30, 2), ((1 << 30) + 2, 1), ((1 << 30) + 4, 1))
        )
        self.assertEqual((0, {"sequence_reset": 2}), self.outcome((0, 2), (1 << 30, 2), (1 << 29, 1), (2, 1)))
        # An exporter that begins again soon after its start: near behind, so it may be a duplicate at first.
        found = self.follow((0, 50), (50, 50), (0, 50), (50, 50), (100, 50), (150, 50))
        self.assertEqual((0, {"sequence_duplicate": 1, "sequence_reset": 1}), (found.lost, found.errors))

    def test_unknown_records(self):
        """After records that cannot be counted the next number is believed."""
        found = Collected().feed(message(a_set(2, COUNTER)), counts(1), message(a_set(999, bytes(400)), number=1))
        found.feed(counts(1, number=50), counts(1, number=52))
        self.assertEqual((1, {"no_template": 1}), (found.lost, found.errors))

    def test_per_domain_and_kind(self):
        """Each domain has its own; options data count, templates do not."""
        told = a_set(2, COUNTER), a_set(3, options_template(257, 1, (4, 1)))
        found = Collected()
        for domain in (1, 2):
            found.feed(message(*told, a_set(257, b"123"), domain=domain, number=1000 * domain))
        for domain in (2, 1):
            found.feed(message(told[0], a_set(256, bytes(8)), domain=domain, number=1000 * domain + 3))
        found.feed(message(domain=1, number=1005), message(domain=2, number=2005))
        self.assertEqual((0, {}), (found.lost, found.errors))

    def test_variable_records(self):
        """Records of variable length are counted when drained, in order with those of fixed length."""
        told = message(a_set(2, COUNTER, template(257, (82, VARIABLE))))
        a, b = a_set(257, b"\1a\1b"), a_set(256, bytes(4))
        found = Collected().feed(
            told, message(a), message(b, number=2), message(a, b, a, number=3), message(b, number=8)
        )
        self.assertEqual(9, len(found.rows()))
        self.assertEqual((0, {}), (found.lost, found.errors))
        found.feed(message(a, number=10), message(b, number=14), message(a, number=9), message(told[16:], a, number=15))
        self.assertEqual(7, len(found.rows()))
        # Lost are 9 and 12 to 13; the late Message brings 9 (and 10 again).
        self.assertEqual((2, {}), (found.lost, found.errors))

    def test_malformed_are_lost(self):
        """The records of a malformed Message count as lost when the next one comes."""
        found = Collected().feed(
            message(a_set(2, COUNTER)), counts(1), counts(1, 2, 3, number=1)[:-1], counts(1, number=4)
        )
        self.assertEqual((3, {"length": 1}), (found.lost, found.errors))

    @given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.randoms(use_true_random=False),
           st.integers(0, (1 << 32) - 1), st.data())  # fmt: skip
    def test_shuffled(self, sizes, random, first, data):
        """Messages that are swapped with neighbours lose nothing; what those left out held is lost exactly."""
        messages, number = [], first
        for size in sizes:
            messages.append((number % (1 << 32), size))
            number += size
        gone = data.draw(st.sets(st.integers(1, len(sizes) - 1))) if len(sizes) > 2 else set()
        lost = sum(sizes[i] for i in gone)
        kept = [m for i, m in enumerate(messages) if i not in gone]
        # The first comes first, since nothing before it can be missed; the last tells what was lost before it.
        middle = kept[1:]
        for i in range(0, len(middle) - 1, 2):
            if random.random() < 0.5:
                middle[i], middle[i + 1] = middle[i + 1], middle[i]
        found = self.follow(kept[0], *middle, (number % (1 << 32), 1))
        self.assertEqual((lost, {}), (found.lost, found.errors))
