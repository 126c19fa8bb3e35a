"""Which rows are one of some flows, column by column."""

import ipaddress

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import ulogd_keys
from ulogd_tw.netfilter.flow_filter import FIVE_TUPLE, among

ADDRESSES = {4: ("192.0.2.1", "192.0.2.2", "203.0.113.9"), 6: ("2001:db8::1", "2001:db8::2", "fe80::1")}
FLOWS = st.lists(st.tuples(st.sampled_from((6, 17)), st.integers(0, 2), st.integers(1, 2), st.integers(0, 2),
                           st.integers(1, 2)), max_size=6)  # fmt: skip


def column(name, version, values):
    """A column of one key, as NFCT has it."""
    if "ip.protocol" in name:
        return np.array(values, np.uint8)
    if "l4" in name:
        return np.array(values, np.uint16)
    numbers = [int(ipaddress.ip_address(value)) for value in values]
    if version == 4:
        return np.array(numbers, np.uint32)
    return np.array([(number >> 64, number & (1 << 64) - 1) for number in numbers], np.uint64).reshape(-1, 2)


def batch_of(version, flows):
    """Rows of these five-tuples."""
    address = types.IPV4 if version == 4 else types.IPV6
    keys = [key.typed(address) if "addr" in key.name else key for key in ulogd_keys(*FIVE_TUPLE)]
    columns = {name: column(name, version, [flow[at] for flow in flows]) for at, name in enumerate(FIVE_TUPLE)}
    return Batch(Schema(keys, version == 6), columns, n=len(flows), now=0.0)


class AmongTests(SynchronousTestCase):
    """`among`, held against a plain look-up of each row."""

    @given(st.sampled_from((4, 6)), FLOWS, FLOWS)
    def test_as_row_by_row(self, version, rows, flows):
        """A row is chosen where all five values are those of a flow of its own family."""
        named = [[(p, ADDRESSES[version][s], sp, ADDRESSES[version][d], dp) for p, s, sp, d, dp in table]
                 for table in (rows, flows)]  # fmt: skip
        other = [(6, ADDRESSES[10 - version][0], 1, ADDRESSES[10 - version][1], 2)]
        found = among(batch_of(version, named[0]), named[1] + other)
        self.assertEqual([row in named[1] for row in named[0]], found.tolist())

    def test_unspecified(self):
        """A socket that is bound to no address is known by its ports and the peer's address."""
        rows = [(17, "192.0.2.1", 9899, "192.0.2.2", 9899), (17, "192.0.2.1", 9899, "203.0.113.9", 9899)]
        found = among(batch_of(4, rows), [(17, "0.0.0.0", 9899, "192.0.2.2", 9899)])
        self.assertEqual([True, False], found.tolist())

    def test_missing(self):
        """A row without ports (ICMP) is none of them."""
        batch = batch_of(4, [(17, "192.0.2.1", 0, "192.0.2.2", 0)])
        batch.missing["orig.l4.sport"] = np.array([True])
        self.assertEqual([False], among(batch, [(17, "192.0.2.1", 0, "192.0.2.2", 0)]).tolist())
