"""Names of marks, zones and interfaces, systems out of texts, and names that are valid for a time."""

from ipaddress import ip_address, ip_network

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import types
from ulogd_tw.naming import networks, numbers, systems
from ulogd_tw.naming.errors import NamesError
from ulogd_tw.naming.validity import moment


def texts(labels, codes):
    """The text of each code, None where there is none."""
    column, missing = labels.column(codes)
    found = [value.decode() for value in column.to_list()]
    return [None if missing is not None and missing[place] else text for place, text in enumerate(found)]


def ipv4(*addresses):
    """A column of addresses."""
    return np.array([int(ip_address(address)) for address in addresses], np.uint32)


class MarkTests(SynchronousTestCase):
    """NUMBER[/MASK],NAME."""

    def test_names(self):
        """Decimal or hexadecimal; the mask with most bits first, whatever the order of lines; comments."""
        made = numbers.marks(b"# marks\n16,voip\n0x100/0xff00,guests # all of them\n0x101/0xffff,one\n16,phone\n")
        found = texts(made.labels, made.codes(np.array([16, 0x100, 0x1AB, 0x101, 0x10101, 0, 1 << 40], np.uint64)))
        self.assertEqual(["phone", "guests", "guests", "one", "one", None, None], found)

    def test_wrong(self):
        for octets, expected in (
            (b"1,a\n,b\n", "line 2: '' is not a number"), (b"x,b", "line 1: 'x' is not a number of 32 bits"),
            (b"7\n", "line 1: '7' has no name"), (b"4294967296,x", "is not a number of 32 bits"),
            (b"0x11/0x10,x", "bits outside its mask"), (b"1/,x", "'' is not a number"),
        ):  # fmt: skip
            self.assertIn(expected, str(self.assertRaises(NamesError, numbers.marks, octets)))

    @given(st.lists(st.tuples(st.sampled_from([0xFF, 0xF0, 0x0F, 0x3C, 0xFFFFFFFF]), st.integers(0, 255)), max_size=12),
           st.lists(st.integers(0, 300), min_size=1, max_size=20))  # fmt: skip
    def test_any(self, entries, values):
        """One by one."""
        lines = [(mask, number & mask, f"n{place}") for place, (mask, number) in enumerate(entries)]
        made = numbers.marks("".join(f"{n}/{mask:#x},{name}\n" for mask, n, name in lines).encode())
        expected = []
        for value in values:
            fitting = [(mask.bit_count(), mask, place, name) for place, (mask, n, name) in enumerate(lines)
                       if value & mask == n]  # fmt: skip
            expected.append(max(fitting)[3] if fitting else None)
        self.assertEqual(expected, texts(made.labels, made.codes(np.array(values, np.uint32))))


class InterfaceTests(SynchronousTestCase):
    """EXPORTER,INDEX,NAME."""

    LINES = b"192.0.2.1,3,uplink\n192.0.2.0/24,3,core\n192.0.2.0/24,4,peering\n,4,usual\n*,5,any\n2001:db8::1,3,six\n"

    def test_names(self):
        """Of the most specific exporter that the file has; what it does not name is as for all."""
        made = numbers.interfaces(self.LINES)
        exporters = ipv4(*(f"192.0.2.{n}" for n in (1, 9, 9)), "198.51.100.1", "198.51.100.1", "192.0.2.1", "192.0.2.1")
        found = made.codes(np.array([3, 3, 4, 4, 3, 5, 4], np.uint32), exporters, types.IPV4)
        self.assertEqual(["uplink", "core", "peering", "usual", None, "any", "usual"], texts(made.labels, found))
        found = made.codes(np.array([3, 4], np.uint32), np.array([[0x20010DB800000000, 1]] * 2, np.uint64), types.IPV6)
        self.assertEqual(["six", "usual"], texts(made.labels, found))
        found = made.codes(np.array([4, 3, 1 << 40], np.uint64), None, None)
        self.assertEqual(["usual", None, None], texts(made.labels, found))

    def test_none(self):
        made = numbers.interfaces(b"# nothing\n")
        self.assertEqual([None], texts(made.labels, made.codes(np.array([0], np.uint32), None, None)))

    def test_wrong(self):
        for octets, expected in (
            (b"a,1,x", "line 1: 'a' is not an address or prefix of an exporter"), (b",x,y", "'x' is not a number"),
            (b"192.0.2.1,3", "EXPORTER,INDEX,NAME"), (b"192.0.2.1,3,", "EXPORTER,INDEX,NAME"),
        ):  # fmt: skip
            self.assertIn(expected, str(self.assertRaises(NamesError, numbers.interfaces, octets)))


class SystemTests(SynchronousTestCase):
    """PREFIX NUMBER, as pyasn writes it."""

    def test_text(self):
        """Comments, names, sets of systems, both families."""
        made = systems.read(b"; IP-ASN32-DAT file\n; 2026\n192.0.2.0/24\t64500\n198.51.100.0/24 AS64501 Example Net\n"
                            b"203.0.113.0/24,64502,Other\n192.0.2.128/25 64503_64504\n203.0.113.128/25 {64505,64506}\n"
                            b"2001:db8::/32 4200000000\n")  # fmt: skip
        codes = made.codes(ipv4("192.0.2.1", "198.51.100.9", "203.0.113.1", "192.0.2.200", "203.0.113.200", "10.0.0.1"),
                           types.IPV4, None, None)  # fmt: skip
        column, missing = made.columns["as"].column(codes)
        self.assertEqual([64500, 64501, 64502, 64503, 64505, 0], column.tolist())
        self.assertEqual([False] * 5 + [True], missing.tolist())
        self.assertEqual([None, "Example Net", "Other", None, None, None], texts(made.columns["as.name"], codes))
        codes = made.codes(np.array([[0x20010DB800000000, 1]], np.uint64), types.IPV6, None, None)
        self.assertEqual([4200000000], made.columns["as"].column(codes)[0].tolist())

    def test_wrong(self):
        for octets, expected in (
            (b"192.0.2.0/24\n", "line 1: '192.0.2.0/24' is not a network and number"), (b"\0\1", "text with PREFIX"),
            (b"192.0.2.0/24 x", "is not a network and number"), (b"192.0.2.0/24 4294967296", "is not a network"),
        ):  # fmt: skip
            self.assertIn(expected, str(self.assertRaises(NamesError, systems.read, octets)))


when = st.none() | st.integers(0, 20)


class ValidityTests(SynchronousTestCase):
    """Columns from and until."""

    COLUMNS = ("net", "net.from", "net.until")

    def test_times(self):
        """Dates are in UTC; outside of its time a network's name is that of the network around it."""
        made = networks.read(b"10.0.0.0/8,all\n10.1.0.0/16,alice,2026-01-01,2026-02-01\n"
                             b"10.1.0.0/16,bob,2026-02-01T00:00:00+00:00\n", self.COLUMNS)  # fmt: skip
        self.assertTrue(made.timed)
        at = np.array([moment(t) for t in ("2025-12-31", "2026-01-01T00:00:00Z", "2026-01-31T23:59:59",
                                           "1769904000", "2030-01-01")])  # fmt: skip
        codes = made.codes(ipv4(*["10.1.2.3"] * 5), types.IPV4, None, at)
        self.assertEqual(["all", "alice", "alice", "bob", "bob"], texts(made.columns["net"], codes))
        self.assertEqual([None], texts(made.columns["net"], made.codes(ipv4("192.0.2.1"), types.IPV4, None, at[:1])))

    def test_wrong(self):
        for octets, expected in (
            (b"10.0.0.0/8,a,yesterday", "line 1: 'yesterday' is no time such as 2026-11-23"),
            (b"10.0.0.0/8,a,2026-01-02,2026-01-02", "line 1: the end of its validity is not after the beginning"),
        ):  # fmt: skip
            self.assertIn(expected, str(self.assertRaises(NamesError, networks.read, octets, self.COLUMNS)))

    @given(st.lists(st.tuples(st.integers(0, 15), st.integers(26, 32), when, when), max_size=12),
           st.lists(st.tuples(st.integers(0, 15), st.integers(0, 21)), min_size=1, max_size=20))  # fmt: skip
    def test_any(self, entries, rows):
        """Of the networks with the address that are valid at the time the most specific one, of those the last line."""
        listed = [(ip_network((host << 4, bits), strict=False), begin, end) for host, bits, begin, end in entries
                  if end is None or (begin or 0) < end]  # fmt: skip
        shown = ("".join(f"{net},n{place},{'' if begin is None else begin},{'' if end is None else end}\n"
                         for place, (net, begin, end) in enumerate(listed)))  # fmt: skip
        made = networks.read(shown.encode(), self.COLUMNS)
        expected = []
        for host, time in rows:
            fitting = [(net.prefixlen, place) for place, (net, begin, end) in enumerate(listed)
                       if ip_address(host << 4) in net and (begin or 0) <= time < (end or 99)]  # fmt: skip
            expected.append(f"n{max(fitting)[1]}" if fitting else None)
        column = np.array([host << 4 for host, _ in rows], np.uint32)
        codes = made.codes(column, types.IPV4, None, np.array([time for _, time in rows]))
        self.assertEqual(expected, texts(made.columns["net"], codes))
