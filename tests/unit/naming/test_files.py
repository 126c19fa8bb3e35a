"""Files of networks and services: what each line means, and what is said of mistakes."""

import os
import socket

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.naming.test_prefixes import column
from ulogd_tw.naming import networks, services
from ulogd_tw.naming.errors import NamesError

FILE = b"""\
prefix,name,site
# of the firm
10.0.0.0/8,inside,
10.1.0.0/16,"office, old",Berlin   # the first one
10.1.2.3,printer
192.0.2.0/24 guests of the house

2001:db8::/32,inside,Paris
198.51.100.0/24
10.1.0.0/16,office,Berlin
"""


def names(file, addresses, version=4, columns=("net", "site")):
    """(name, site ...) of each address, None for none."""
    found = networks.read(file, columns)
    codes = found.table.codes(*column(addresses, version))
    made = [found.columns[name].column(codes) for name in columns]
    texts = [[None if missing is not None and missing[row] else text.decode("utf-8", "surrogateescape")
              for row, text in enumerate(held.to_list())] for held, missing in made]  # fmt: skip
    return list(zip(*texts, strict=True))


class NetworksTests(SynchronousTestCase):
    """Lines of a file of networks."""

    def test_lines(self):
        """Columns, comments, quotes, blanks, a heading, no name at all, and twice the same network."""
        asked = [0x0A000001, 0x0A010101, 0x0A010203, 0xC0000205, 0xC6336405, 1]
        expected = [("inside", None), ("office", "Berlin"), ("printer", None), ("guests of the house", None),
                    ("198.51.100.0/24", None), (None, None)]  # fmt: skip
        self.assertEqual(expected, names(FILE, asked))
        self.assertEqual([("inside", "Paris"), (None, None)], names(FILE, [0x20010DB8 << 96 | 1, 1], 6))

    def test_quotes(self):
        self.assertEqual([("a, b", "c")], names(b'10.0.0.0/8,"a, b",c\n', [0x0A000001]))

    def test_octets_beyond_utf8(self):
        """A name in another encoding stays as it is."""
        self.assertEqual([("M\udcfcnchen", None)], names(b"10.0.0.0/8,M\xfcnchen\r\n", [0x0A000001]))

    def test_many_names(self):
        """With many names a batch has only those that are in it, as many as there are."""
        lines = "".join(f"10.{n >> 8}.{n & 255}.0/24,n{n}\n" for n in range(3000)).encode()
        asked = np.random.default_rng(5).integers(0x0A000000, 0x0A0C0000, 4000)
        expected = [(f"n{n}",) if (n := (address - 0x0A000000) >> 8) < 3000 else (None,) for address in asked.tolist()]
        for rows in (4000, 3):
            self.assertEqual(expected[:rows], names(lines, asked[:rows].tolist(), columns=("net",)))
        found = networks.read(lines)
        held, _ = found.columns["net"].column(found.table.codes(*column(asked[:3].tolist(), 4)))
        self.assertLess(len(held.values), 5)

    def test_wrong(self):
        for line in (b"10.0.0.0/33,x", b"10.0.0.256", b"office,10.0.0.0/8", b"2001:db8::/129,x", b",x", b"\xff\xfe"):
            error = self.assertRaises(NamesError, networks.read, b"192.0.2.0/24,x\n\n" + line)
            self.assertEqual(3, error.line)
            self.assertIn("line 3: ", str(error))

    @given(st.binary(max_size=80) | st.text('0123456789./:,# \n"abcdef', max_size=60).map(str.encode))
    def test_any_octets(self, octets):
        """Whatever is in a file, it is read or refused."""
        for read in (networks.read, services.read):
            try:
                read(octets)
            except NamesError:
                pass


class ServicesTests(SynchronousTestCase):
    """Files of services."""

    def names(self, file, *rows):
        found = services.read(file)
        ports, protocols = np.array([r[0] for r in rows], np.uint16), np.array([r[1] for r in rows], np.uint8)
        return [text.decode() for text in found.labels.column(found.codes(ports, protocols))[0].to_list()]

    def test_lines(self):
        """The notation of /etc/services, ranges, any protocol, the other order."""
        file = b"""
            # comment
            https 443/tcp www2 # more
            https 443/udp
            x11 6000-6063/tcp
            6001/tcp other
            8000-8009,web
            asdf 9999/132
            game,5000/UDP
        """
        rows = ((443, 6), (443, 17), (443, 132), (6000, 6), (6001, 6), (6063, 6), (6064, 6), (8005, 6), (8009, 132),
                (8005, 1), (9999, 132), (9999, 6), (5000, 17))  # fmt: skip
        expected = ["https", "https", "", "x11", "x11", "x11", "", "web", "web", "", "asdf", "", "game"]
        self.assertEqual(expected, self.names(file, *rows))

    def test_as_the_c_library(self):
        """Ports under TCP and UDP have the name that getservbyport gives for this machine's /etc/services."""
        if not os.path.exists("/etc/services"):
            self.skipTest("install: netbase")
        with open("/etc/services", "rb") as file:
            octets = file.read()
        for name, protocol in (("tcp", 6), ("udp", 17)):
            found = self.names(octets, *((port, protocol) for port in range(65536)))
            for port, text in enumerate(found):
                if not text and port > 12_000 and port % 50:
                    continue  # 25 us each
                try:
                    expected = socket.getservbyport(port, name)
                except OSError:
                    expected = ""
                self.assertEqual(expected, text, (port, name))

    def test_wide_columns(self):
        """Ports and protocols that a peer sends in too many octets: beyond their range there is no name."""
        found = services.read(b"https 443/tcp")
        ports, protocols = np.array([443, 443 + 65536, 443], np.uint32), np.array([6, 6, 262], np.uint16)
        self.assertEqual([1, 0, 0], found.codes(ports, protocols).tolist())

    def test_wrong(self):
        for line in (b"https", b"https tcp", b"https 443/foo", b"x 70000/tcp", b"x 20-10/tcp", b"443/tcp", b"x 1/256"):
            self.assertEqual(2, self.assertRaises(NamesError, services.read, b"#\n" + line).line, line)
