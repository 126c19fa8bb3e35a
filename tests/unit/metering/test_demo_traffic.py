"""Invented traffic: the same for one seed, plausible, and of addresses that belong to nobody."""

import ipaddress

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.metering.demo_traffic import KEYS, SERVICES, Traffic

INSIDE = [ipaddress.ip_network(n) for n in ("10.20.0.0/16", "2001:db8:20::/48")]
OUTSIDE = [ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8:f000::/48")]


def address(value):
    """An address out of a column."""
    return ipaddress.ip_address(int(value) if np.ndim(value) == 0 else (int(value[0]) << 64) | int(value[1]))


def endpoints(ipv6, columns):
    """Source and destination of each row."""
    version = "IPv6" if ipv6 else "IPv4"
    return [
        tuple(map(address, pair))
        for pair in zip(columns[f"source{version}Address"], columns[f"destination{version}Address"], strict=True)
    ]


class TrafficTests(SynchronousTestCase):
    """`Traffic.second`."""

    @given(st.integers(0, 2**32), st.integers(0, 100_000), st.integers(1, 300))
    def test_rows(self, seed, number, n):
        """As many rows as asked for, all columns of the declared types, sorted by their end within the second."""
        rows = 0
        for ipv6, columns in Traffic(seed).second(number, n, 1000.0):
            self.assertEqual([key.name for key in KEYS[ipv6]], list(columns))
            for key in KEYS[ipv6]:
                if key.type.dtype is not None:
                    self.assertEqual(key.type.dtype, columns[key.name].dtype, key.name)
            ends = columns["flowEndMilliseconds"].astype(np.int64)
            self.assertTrue((np.diff(ends) >= 0).all())
            self.assertTrue(((ends >= 1_000_000) & (ends < 1_001_000)).all())
            self.assertTrue((columns["flowStartMilliseconds"] <= columns["flowEndMilliseconds"]).all())
            self.assertTrue((columns["octetDeltaCount"] >= 40).all())
            rows += len(ends)
        self.assertEqual(n, rows)

    def test_repeats(self):
        """The same seed and number give the same flows; others give others."""
        first, again, other = (Traffic(seed).second(3, 50, 0.0) for seed in (5, 5, 6))
        for (_, left), (_, right) in zip(first, again, strict=True):
            for name, column in left.items():
                self.assertEqual(list(getattr(column, "codes", column).ravel()),
                                 list(getattr(right[name], "codes", right[name]).ravel()))  # fmt: skip
        self.assertNotEqual(
            [list(columns["octetDeltaCount"]) for _, columns in first],
            [list(columns["octetDeltaCount"]) for _, columns in other],
        )

    def test_addresses(self):
        """Each flow is between an address inside and one of the documentation's (RFC 5737, 3849), and is answered."""
        for number in (0, 590):  # the second one has the scan
            for ipv6, columns in Traffic().second(number, 400, 0.0):
                pairs = endpoints(ipv6, columns)
                for source, destination in pairs:
                    inside = [any(a in network for network in INSIDE) for a in (source, destination)]
                    outside = [any(a in network for network in OUTSIDE) for a in (source, destination)]
                    self.assertEqual([not value for value in inside], outside, (source, destination))
                    self.assertEqual(1, sum(inside))
                self.assertEqual([pair[::-1] for pair in pairs[::2]], pairs[1::2])

    def test_mix(self):
        """Services have their shares, most octets come down, and a fifth of the flows is IPv6."""
        found = Traffic().second(7, 40_000, 0.0)
        ports = np.concatenate([columns["destinationTransportPort"][::2] for _, columns in found])
        protocols = np.concatenate([columns["protocolIdentifier"][::2] for _, columns in found])
        for service in SERVICES[:8]:
            share = ((ports == service.port) & (protocols == service.protocol)).mean()
            self.assertLess(abs(service.share - share), 0.02, service)
        self.assertLess(abs(0.2 - len(dict(found)[True]["received_ms"]) / 40_000), 0.02)
        up, down = (sum(int(c["octetDeltaCount"][at::2].sum()) for _, c in found) for at in (0, 1))
        self.assertGreater(down, 3 * up)

    def test_scan(self):
        """For 20 s of 600 one address asks one server for many ports."""
        for number, expected in ((579, 0), (580, 50), (599, 50), (600, 0)):
            probes = set()
            for _, columns in Traffic().second(number, 1000, 0.0):
                probes |= set(columns["destinationTransportPort"][columns["tcpControlBits"] == 2].tolist())
            self.assertEqual(expected > 0, len(probes) > expected, (number, len(probes)))
