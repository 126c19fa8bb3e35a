"""Counts by key, and which key has most."""

from collections import Counter

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.largest import Largest


class LargestTests(SynchronousTestCase):
    """Against a Counter."""

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcd")), max_size=40))
    def test_any_order(self, steps):
        """After each step the counts are right, and the largest has as many as any."""
        found, expected = Largest(), Counter()
        for more, key in steps:
            if more:
                found.add(key)
                expected[key] += 1
            elif expected[key]:
                found.remove(key)
                expected[key] -= 1
            self.assertEqual([expected[key] for key in "abcd"], [found[key] for key in "abcd"])
            most = max(expected.values(), default=0)
            largest = found.largest()
            self.assertEqual(most, expected[largest] if largest is not None else 0)
            self.assertEqual(sum(count > 0 for count in expected.values()), len(found))

    def test_of_equal_ones(self):
        """Of several with as many, the one that has had so many for longest."""
        found = Largest()
        for key in "abba":
            found.add(key)
        self.assertEqual(("b", "a", "b"), (found.largest(), found.largest("a"), found.largest("c")))
