"""Listening addresses: which ones only one socket can have."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports.addresses import Address, wanted

UDP, TCP, IP4, IP6 = socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.AF_INET, socket.AF_INET6


class AddressTests(SynchronousTestCase):
    """As the kernel sees it (man 7 ip, socket), without SO_REUSEADDR of datagrams."""

    def test_overlaps(self):
        """One address, or one for all of its family; another kind, family or port is no matter."""
        one = Address(UDP, IP4, "192.0.2.1", 4739)
        for other, expected in (
            (one, True),
            (one._replace(host="192.0.2.2"), False),
            (one._replace(host="0.0.0.0"), True),
            (one._replace(port=4740), False),
            (one._replace(kind=TCP), False),
            (Address(UDP, IP6, "::", 4739), False),
        ):
            self.assertEqual((expected, expected), (one.overlaps(other), other.overlaps(one)), other)

    def test_wanted(self):
        """Without a host all addresses of both families."""
        self.assertEqual([Address(TCP, IP4, "0.0.0.0", 1), Address(TCP, IP6, "::", 1)], list(wanted(TCP, "", 1)))
        self.assertEqual([Address(UDP, IP6, "2001:db8::1", 1)], list(wanted(UDP, "2001:db8::1", 1)))
