"""Networks and addresses as text."""

import ipaddress

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.networks import networks, span


class NetworksTests(SynchronousTestCase):
    """Lists of networks in options."""

    def test_list(self):
        """Blanks and commas stand between them; an address is a network of its own; both families."""
        found = networks("192.0.2.0/24, 2001:db8::/32\t198.51.100.7")
        self.assertEqual(["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"], list(map(str, found)))
        self.assertEqual((), found.loose)
        self.assertEqual((), networks(""))

    def test_loose(self):
        """Bits behind the prefix are ignored, and the list says where."""
        found = networks("192.0.2.7/24 10.0.0.0/8 2001:db8::1/64 192.0.2.7/32 0.0.0.1/0")
        self.assertEqual("192.0.2.0/24 10.0.0.0/8 2001:db8::/64 192.0.2.7/32 0.0.0.0/0", " ".join(map(str, found)))
        self.assertEqual(("192.0.2.7/24", "2001:db8::1/64", "0.0.0.1/0"), found.loose)

    def test_mistake(self):
        """The message names what is wrong."""
        for text in ("192.0.2.0/33", "example.com", "2001:db8::/129", "1.2.3", "10.0.0.0/8/8"):
            self.assertIn(text, str(self.assertRaises(ValueError, networks, f"192.0.2.0/24 {text}")))

    @given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 128))
    def test_as_span(self, address, length):
        """The list's reader and that of single networks agree."""
        text = f"{address}/{min(length, address.max_prefixlen)}"
        (network,) = networks(text)
        wanted = ipaddress.ip_network(text, strict=False)
        self.assertEqual(wanted, network)
        self.assertEqual((wanted.version, int(wanted[0]), int(wanted[-1])), span(text))
