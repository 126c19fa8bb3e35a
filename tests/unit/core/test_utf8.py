"""Strings from the wire as UTF-8."""

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.utf8 import valid


class ValidTests(SynchronousTestCase):
    """Columns of any octets."""

    @given(st.lists(st.one_of(st.binary(max_size=5), st.text(max_size=3).map(str.encode)), max_size=12))
    def test_row_by_row(self, sent):
        """Each value as Python decodes it by itself, without the NULs at its end, whatever is beside it."""
        expected = [value.rstrip(b"\0").decode("utf-8", "replace").encode() for value in sent]
        self.assertEqual(valid(Octets.of([b"\xc3", *sent]).take(slice(1, None))).to_list(), expected)
        self.assertEqual(valid(Coded(np.arange(len(sent)), sent)).to_list(), expected)
