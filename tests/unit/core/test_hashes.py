"""Hashes of 64 bits: of numbers and of rows."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.columns import Coded, repeated
from ulogd_tw.core.hashes import mixed, of_rows
from ulogd_tw.core.keys import known
from ulogd_tw.core.resolve import Found

SECRET = np.uint64(0x0123456789ABCDEF)
PORT, NAME, ADDRESS = known("sourceTransportPort"), known("interfaceName"), known("sourceIPv6Address")


def of(*columns, n=3):
    """The hashes of rows of such columns."""
    return of_rows(columns, n, SECRET).tolist()


class MixedTests(SynchronousTestCase):
    """The finalizer of splitmix64."""

    def test_published(self):
        """The first outputs of splitmix64 with the seeds 0 and 1234567, of its reference implementation in C."""
        numbers = np.array([0, 1234567], np.uint64)
        self.assertEqual([0xE220A8397B1DCDAF, 6457827717110365317], mixed(numbers).tolist())
        self.assertEqual([0, 1234567], numbers.tolist())


class RowTests(SynchronousTestCase):
    """Hashes over all values of a row."""

    @given(st.lists(st.sampled_from(["absent", "one", "names", "address", "several", "missing"]), max_size=5))
    def test_one_value_for_all(self, kinds):
        """A column with one value for all rows gives the hashes that it gives written out, wherever it stands."""
        shapes = {
            "absent": (None, None),
            "one": (Found(repeated(443, 3, np.dtype(np.uint16)), None, PORT),
                    Found(np.full(3, 443, np.uint16), None, PORT)),
            "names": (Found(repeated(b"eth0", 3), None, NAME),
                      Found(Coded(np.array([1, 1, 0], np.int32), (b"eth0", b"eth0\0")), None, NAME)),
            "address": (Found(repeated((1, 2), 3), None, ADDRESS),
                        Found(np.array([[1, 2]] * 3, np.uint64), None, ADDRESS)),
            "several": (Found(np.array([1, 2, 1], np.uint16), None, PORT),) * 2,
            "missing": (Found(repeated(9, 3, np.dtype(np.uint16)), np.array([True, False, False]), PORT),
                        Found(np.full(3, 9, np.uint16), np.array([True, False, False]), PORT)),
        }  # fmt: skip
        held, written = zip(*(shapes[kind] for kind in kinds), strict=True) if kinds else ((), ())
        self.assertEqual(of(*written), of(*held))
        self.assertEqual(3, len(of(*held)))

    def test_missing(self):
        """A missing value is as an absent column, and the order of columns counts."""
        port = Found(np.array([7, 443, 443], np.uint16), np.array([True, False, False]), PORT)
        other = Found(np.array([5, 5, 5], np.uint16), None, PORT)
        found = of(port, other)
        self.assertEqual(found[0], of(None, other)[0])
        self.assertEqual(found[1], found[2])
        self.assertEqual(3, len({found[0], found[1], of(other, port)[1]}))
