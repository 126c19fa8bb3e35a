"""How far the rows of an input have come."""

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import passages
from ulogd_tw.core.passages import Mark, Passage

try:
    from hypothesis import strategies
except ImportError:
    strategies = None


class PassageTests(SynchronousTestCase):
    """One queue."""

    def test_rows_before_the_mark(self):
        """A mark is passed when the rows before it are gone; those of other heaps and later ones do not count."""
        passage = Passage()
        passage.come("a", 3)
        passage.come("b", 1)
        mark = Mark([passage])
        passage.come("a", 5)
        passage.go("a", 2)
        self.assertFalse(mark.passed())
        passage.go("b", 1)
        self.assertFalse(mark.passed())
        passage.go("a", 1)
        self.assertTrue(mark.passed())

    def test_nothing_inside(self):
        """Without rows, or outputs, a mark is passed at once."""
        self.assertTrue(Mark([]).passed())
        self.assertTrue(Mark([Passage()]).passed())

    def test_closed(self):
        """A queue that is closed holds nothing up."""
        passage = Passage()
        passage.come("a", 3)
        mark = Mark([passage])
        passage.end()
        self.assertTrue(mark.passed())

    def test_every_output(self):
        """All outputs must be done."""
        one, other = Passage(), Passage()
        one.come(None, 1)
        other.come(None, 1)
        mark = Mark([one, other])
        one.go(None, 1)
        self.assertFalse(mark.passed())
        other.go(None, 1)
        self.assertTrue(mark.passed())

    def test_aggregate(self):
        """Rows that an aggregate adds up must leave it, twice as many times, and then pass its queue."""
        held = [0]
        aggregate = SimpleNamespace(counters=SimpleNamespace(rows_merged=0), held_rows=lambda: held[0])
        passage = Passage([aggregate])
        aggregate.counters.rows_merged = held[0] = 10
        mark = Mark([passage])
        self.assertFalse(mark.passed())
        aggregate.counters.rows_merged, held[0] = 14, 4
        self.assertFalse(mark.passed())
        held[0] = 0
        passage.come(None, 2)
        self.assertFalse(mark.passed())
        passage.go(None, 2)
        self.assertTrue(mark.passed())

    @given(strategies and strategies.lists(strategies.tuples(strategies.integers(0, 9), strategies.booleans())))
    def test_forgotten_heaps(self, steps):
        """However many schemas come and go, a mark is passed exactly when the rows before it are gone."""
        self.patch(passages, "MOST_HEAPS", 3)
        passage, inside, marks = Passage(), {}, []
        for heap, comes in steps:
            if comes:
                passage.come(heap, 1)
                inside.setdefault(heap, []).append(object())
            elif inside.get(heap):
                gone = inside[heap].pop(0)
                passage.go(heap, 1)
                for _, rows in marks:
                    rows.discard(gone)
            marks.append((passage.mark(), {row for rows in inside.values() for row in rows}))
        for mark, rows in marks:
            self.assertEqual(not rows, mark())
