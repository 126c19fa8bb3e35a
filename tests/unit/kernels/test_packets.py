"""Records of captures: what the kernel follows is what Python follows."""

import struct

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.kernels import SKIP
from ulogd_tw import kernels
from ulogd_tw.kernels.packets import records
from ulogd_tw.packets import capture

LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([1 << 31, (1 << 32) - 17, (1 << 32) - 16, (1 << 32) - 1]))


@st.composite
def chained(draw):
    """Octets in which records follow each other for a while, the form of their lengths, and where they may end."""
    order = draw(st.sampled_from("<>"))
    place, more, least = draw(st.sampled_from([(8, 16, 16), (4, 0, 12)]))
    octets = b""
    for length in draw(st.lists(LENGTHS, max_size=8)):
        octets += (bytes(place) + struct.pack(f"{order}I", length)).ljust(min(length + more, 64), b"\7")
    octets += draw(st.binary(max_size=30))
    end = draw(st.integers(0, len(octets)))
    return np.frombuffer(octets, np.uint8), draw(st.integers(0, 3)), end, order, place, more, least


class RecordsTests(SynchronousTestCase):
    """`capture._chain` with the kernel and without."""

    if kernels.lib is None:
        skip = SKIP

    @given(chained())
    def test_same_as_python(self, drawn):
        """Records of every length, also impossible ones, in memory that ends anywhere."""
        found = []
        for lib in (kernels.lib, None):
            self.patch(capture, "lib", lib)
            found.append(capture._chain(*drawn).tolist())
        self.assertEqual(found[1], found[0])

    def test_within(self):
        """A record is followed only where its smallest form lies before the end."""
        memory = np.zeros(64, np.uint8)
        memory[8] = 5
        self.assertEqual([0, 21], records(memory, 0, 36, 8, False, 16, 16).tolist())
        self.assertEqual([0, 21, 37], records(memory, 0, 37, 8, False, 16, 16).tolist())
        self.assertEqual([0, 0x15], records(memory[:21], 0, 21, 8, False, 16, 16).tolist())
        with self.assertRaises(AssertionError):
            records(memory, 0, 65, 8, False, 16, 16)
