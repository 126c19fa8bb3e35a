"""Addresses of transports."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports import url
from ulogd_tw.transports.url import Url

PORTS = {"udp": 4739, "tcp": 4739, "sctp": 4739, "tls": 4740, "dtls": 4740}
"""IANA's for IPFIX (RFC 7011 sections 10.2.1, 10.3.4, 10.4.1)."""


def parse(text, *defaults):
    """With the schemes of the program."""
    return url.parse(text, PORTS, *defaults)


class ParseTests(SynchronousTestCase):
    """`parse` on what administrators write."""

    def test_forms(self):
        """Scheme, host and port in every combination that DESIGN section 6 and the README show."""
        for text, expected in (
            ("udp:4739", Url("udp", "", 4739)),
            ("tcp:127.0.0.1:4740", Url("tcp", "127.0.0.1", 4740)),
            ("udp:[::1]:9995", Url("udp", "::1", 9995)),
            ("udp:[fe80::1%eth0]:1", Url("udp", "fe80::1%eth0", 1)),
            ("udp:[2001:db8::2]", Url("udp", "2001:db8::2", 4739)),
            ("tcp:collector.example.net", Url("tcp", "collector.example.net", 4739)),
            ("tcp:collector-1:65535", Url("tcp", "collector-1", 65535)),
            ("tls:collector", Url("tls", "collector", 4740)),
            ("tcp://192.0.2.1:4739/", Url("tcp", "192.0.2.1", 4739)),
            (" UDP:192.0.2.1 ", Url("udp", "192.0.2.1", 4739)),
            ("udp:", Url("udp", "", 4739)),
        ):
            self.assertEqual(expected, parse(text), text)

    def test_defaults(self):
        """What the text leaves out comes from the caller."""
        self.assertEqual(Url("tcp", "127.0.0.1", 9), parse("tcp:", "127.0.0.1", 9))
        self.assertEqual(Url("tcp", "h", 9), parse("tcp:h", "127.0.0.1", 9))

    def test_written_as_read(self):
        """The text of a URL gives the same URL."""
        for given in (Url("udp", "::1", 1), Url("tcp", "a.b", 2), Url("sctp", "", 3), Url("dtls", "192.0.2.1", 4)):
            self.assertEqual(given, parse(str(given)))

    def test_refused(self):
        """Each fault is named, with the text that has it."""
        for text, reason in (
            ("4739", "does not begin with"),
            ("http:host:80", "does not begin with"),
            ("udp:::1:4739", "brackets"),
            ("udp:[::1", "SCHEME:[IPV6]:PORT"),
            ("udp:[]:1", "SCHEME:[IPV6]:PORT"),
            ("udp:[::1]4739", "SCHEME:[IPV6]:PORT"),
            ("udp:[host]:1", "brackets"),
            ("udp:[::g]:1", "not an IPv6 address"),
            ("udp:192.0.2.256:1", "not an IPv4 address"),
            ("udp:192.0.2:1", "not an IPv4 address"),
            ("tcp:host:0", "not a port"),
            ("tcp:host:65536", "not a port"),
            ("tcp:host:http", "not a port"),
            ("tcp:host:-1", "not a port"),
            ("tcp:host:１", "not a port"),
            ("tcp:a b:1", "not a host name"),
            ("tcp:-a:1", "not a host name"),
            ("tcp:a..b:1", "not a host name"),
        ):
            error = self.assertRaises(ValueError, parse, text)
            self.assertIn(reason, str(error), text)
            self.assertIn(repr(text), str(error), text)
