"""The network of an address, against the rule of longest prefix looked at one network after the other."""

import ipaddress

import numpy as np
from hypothesis import example
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.naming import prefixes
from ulogd_tw.naming.prefixes import Networks, PrefixTable

# Addresses of few bits, so that networks are within each other, at both ends and across the middle of 128 bits.
SHIFTS = {4: (0, 14, 28), 6: (0, 60, 62, 124)}


def addresses(version):
    """Addresses that lie near each other."""
    width = 32 if version == 4 else 128
    near = st.builds(lambda bits, shift: bits << shift, st.integers(0, 15), st.sampled_from(SHIFTS[version]))
    return st.one_of(near, near.map(lambda a: (1 << width) - 1 - a), st.builds(lambda a, b: a ^ b, near, near))


def networks(version):
    """(address, prefix length), with host bits of 0."""
    width = 32 if version == 4 else 128
    lengths = st.one_of(st.integers(0, width), st.sampled_from((0, width, width // 2, width - 2)))
    return st.builds(lambda a, n: (a >> width - n << width - n, n), addresses(version), lengths)


def longest(address, listed, version):
    """The code of the most specific network, looked at one by one; of equal ones the last."""
    address = (ipaddress.IPv4Address, ipaddress.IPv6Address)[version == 6](address)
    network = (ipaddress.IPv4Network, ipaddress.IPv6Network)[version == 6]
    inside = ((bits, code) for code, (first, bits) in enumerate(listed, 1) if address in network((first, bits)))
    return max(inside, default=(0, 0))[1]


def table(listed, version):
    """The table of these networks, numbered from 1."""
    found = Networks()
    for code, (first, bits) in enumerate(listed, 1):
        found.add(first, bits, code)
    return PrefixTable(found, Networks()) if version == 4 else PrefixTable(Networks(), found)


def column(values, version):
    """Addresses as a column, and its type."""
    if version == 4:
        return np.array(values, np.uint32), types.IPV4
    return np.array([(v >> 64, v & 2**64 - 1) for v in values], np.uint64).reshape(-1, 2), types.IPV6


class LongestPrefixTests(SynchronousTestCase):
    """Any networks, any addresses."""

    def check(self, listed, asked, version):
        width = 32 if version == 4 else 128
        edges = [a for first, bits in listed for a in (first, first + (1 << width - bits) - 1)]
        asked = [a for e in (*asked, *edges) for a in (e - 1, e, e + 1) if 0 <= a < 1 << width]
        found = table(listed, version).codes(*column(asked, version))
        self.assertEqual([longest(a, listed, version) for a in asked], found.tolist())

    @given(st.lists(networks(4), max_size=12), st.lists(addresses(4), max_size=8))
    @example([(0, 0)], [5])
    @example([(2**32 - 1, 32), (2**31, 1)], [0])
    def test_ipv4(self, listed, asked):
        """The most specific network of IPv4, at its first and last address too."""
        self.check(listed, asked, 4)

    @given(st.lists(networks(6), max_size=12), st.lists(addresses(6), max_size=8))
    @example([(0, 0), (2**128 - 1, 128)], [2**64])
    @example([(5, 128), (9, 128), (2**64, 64)], [7, 10])
    @example([(0, 60), (0, 65)], [2**64 + 3])
    def test_ipv6(self, listed, asked):
        """The most specific network of IPv6, whichever half its edge is in."""
        self.check(listed, asked, 6)

    def test_large_table(self):
        """A table beyond the caches, where addresses are sorted first, gives what a small one does."""
        random = np.random.default_rng(3)
        listed = [(int(n) << 8, 24) for n in random.integers(0, 2**24, 300)]
        asked = random.integers(0, 2**32, 5000).tolist() + [first + 7 for first, _ in listed]
        plain = table(listed, 4).codes(*column(asked, 4))
        six = table([(first << 64, bits + 32) for first, bits in listed], 6)
        asked6 = [a << 64 | a for a in asked]
        plain6 = six.codes(*column(asked6, 6))
        self.patch(prefixes, "_CACHED", 1)
        self.assertEqual(plain.tolist(), table(listed, 4).codes(*column(asked, 4)).tolist())
        self.assertEqual(plain.tolist(), plain6.tolist())
        self.assertEqual(plain.tolist(), six.codes(*column(asked6, 6)).tolist())
        self.assertEqual(300, np.count_nonzero(plain[-300:]))

    def test_missing(self):
        """A missing address is in no network."""
        found = table([(0, 0)], 4).codes(np.array([1, 2], np.uint32), types.IPV4, np.array([False, True]))
        self.assertEqual([1, 0], found.tolist())


class MappedTests(SynchronousTestCase):
    """IPv6 addresses within ::ffff:0:0/96."""

    def test_mapped(self):
        """They are the IPv4 address: its network comes before those of IPv6; neighbours are IPv6 addresses."""
        four, six = Networks(), Networks()
        four.add(int(ipaddress.IPv4Address("10.0.0.0")), 8, 1)
        six.add(0, 64, 2)
        made = PrefixTable(four, six)
        asked = ["::ffff:10.1.2.3", "::ffff:192.0.2.1", "::10.1.2.3", "::fffe:a01:203", "2001:db8::ffff:a01:203"]
        values, type_ = column([int(ipaddress.IPv6Address(one)) for one in asked], 6)
        self.assertEqual([1, 2, 2, 2, 0], made.codes(values, type_).tolist())
        missing = np.array([True, False, False, False, False])
        self.assertEqual([0, 2, 2, 2, 0], made.codes(values, type_, missing).tolist())
        self.assertEqual([1], made.codes(*column([0x0A010203], 4)).tolist())
