"""Databases in MaxMind's format: made by mmdb_writer, and what maxminddb itself finds for each address."""

import io
import ipaddress
import random
import tempfile

import maxminddb
import numpy as np
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.naming.test_prefixes import column
from ulogd_tw.naming import maxmind
from ulogd_tw.naming.errors import NamesError

DE = {"country": {"iso_code": "DE", "names": {"en": "Germany"}}}
FR = {"registered_country": {"iso_code": "FR"}}
SYSTEM = {"autonomous_system_number": 64512, "autonomous_system_organization": "Example"}
OTHER = {"asn": "AS64513", "name": "Other"}
LISTED = (("10.0.0.0/8", DE), ("192.0.2.128/25", FR), ("198.51.100.7/32", DE), ("203.0.113.0/24", {"x": 1}))
LISTED6 = (("2001:db8::/32", DE), ("2001:db9:0:1::/64", FR), ("2001:dba::1/128", DE))


def database(listed, version=6, **options):
    """The octets of a database of these networks."""
    writer = MMDBWriter(version, ipv4_compatible=version == 6, **options)
    for network, record in listed:
        writer.insert_network(IPSet([network]), record)
    return _octets(writer)


def _octets(writer):
    """What the writer would write to a file."""
    with tempfile.NamedTemporaryFile() as file:
        writer.to_db_file(file.name)
        return file.read()


def country(record):
    """The code of a record, as a reader of one address would take it."""
    for word in ("country", "registered_country"):
        if isinstance(record, dict) and "iso_code" in record.get(word, {}):
            return record[word]["iso_code"]
    return ""


class CountryTests(SynchronousTestCase):
    """Columns of addresses against single look-ups."""

    def check(self, octets, version):
        names = maxmind.countries(octets)
        chance = random.Random(7)
        edges = [ipaddress.ip_network(text) for text, _ in (LISTED if version == 4 else LISTED6)]
        top = 2**32 if version == 4 else 2**128
        asked = [int(a) + by for n in edges for a in (n[0], n[-1]) for by in (-1, 0, 1)]
        asked += [chance.randrange(top) for _ in range(200)]
        asked += [int(chance.choice(edges)[0]) + chance.randrange(2**16) for _ in range(200)]
        with maxminddb.open_database(io.BytesIO(octets), maxminddb.MODE_FD) as reader:
            kind = (ipaddress.IPv4Address, ipaddress.IPv6Address)[version == 6]
            expected = [country(reader.get(kind(a))) for a in asked]
        found, missing = names.columns["country"].column(names.table.codes(*column(asked, version)))
        self.assertEqual(expected, [text.decode() for text in found.to_list()])
        self.assertEqual([not text for text in expected], missing.tolist())
        self.assertEqual({"", "DE", "FR"}, set(expected))

    def test_both_families(self):
        """Trees with records of 24, 28 and 32 bits; IPv4 is below ::/96."""
        octets = database((*LISTED, *LISTED6))
        for version in (4, 6):
            self.check(octets, version)

    def test_ipv4_only(self):
        octets = database(LISTED, 4)
        self.check(octets, 4)
        names = maxmind.countries(octets)
        self.assertEqual([0], names.table.codes(*column([1 << 100], 6)).tolist())

    def test_sizes_of_records(self):
        """The three sizes, packed by hand as the format has them, of one tree of two nodes."""
        tree = [[2 + 16, 1], [2, 2 + 31]]
        for bits, octets in (
            (24, "000012 000001 000002 000021"), (28, "000012 00 000001 000002 00 000021"),
            (32, "00000012 00000001 00000002 00000021"),
        ):  # fmt: skip
            found = maxmind._children(np.frombuffer(bytes.fromhex(octets), np.uint8), bits)
            self.assertEqual(tree, found.tolist())
        wide = maxmind._children(np.frombuffer(bytes.fromhex("123456 a9 abcdef"), np.uint8), 28)
        self.assertEqual([[0xA123456, 0x9ABCDEF]], wide.tolist())

    def test_systems(self):
        """Numbers and names of autonomous systems, in the fields of several makers."""
        names = maxmind.systems(database((("10.0.0.0/8", SYSTEM), ("192.0.2.0/24", OTHER), ("198.51.100.0/24", DE))))
        codes = names.table.codes(*column([0x0A000001, 0xC0000201, 0xC6336401, 1], 4))
        numbers, missing = names.columns["as"].column(codes)
        self.assertEqual([64512, 64513], numbers[:2].tolist())
        self.assertEqual([False, False, True, True], missing.tolist())
        self.assertEqual([b"Example", b"Other", b"", b""], names.columns["as.name"].column(codes)[0].to_list())

    def test_links_to_ipv4(self):
        """The tree of IPv4 that is linked from other places of the tree is not walked again."""
        children = np.full((97 + 1, 2), 98, np.int64)
        for depth in range(97):
            children[depth, 0] = depth + 1
        children[0, 1] = 96  # 8000::/1 is all of IPv4, too
        children[96] = children[97] = [98 + 16, 98]
        leaves = [np.concatenate(parts).tolist() for parts in zip(*maxmind._leaves(children, 6), strict=True)]
        self.assertEqual([(0, 0, 97, 114)], list(zip(*leaves, strict=True)))


class DamagedTests(SynchronousTestCase):
    """Files that are no databases, or whole ones no more."""

    WHOLE = database((*LISTED, *LISTED6))

    def test_none(self):
        for octets in (b"", b"x" * 1000, self.WHOLE[:-300], self.WHOLE[300:]):
            self.assertRaises(NamesError, maxmind.countries, octets)

    @given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=20))
    def test_changed_octets(self, changes):
        """Octets changed anywhere: it is read or refused."""
        octets = bytearray(self.WHOLE)
        for place, value in changes:
            octets[place] = value
        try:
            maxmind.countries(bytes(octets))
        except NamesError:
            pass

    def test_loop(self):
        """A tree whose nodes point to themselves is refused, without the memory that it would take."""
        self.patch(maxmind, "_MOST_NODES", 1000)
        self.assertRaises(NamesError, lambda: list(maxmind._leaves(np.zeros((1, 2), np.int64), 4)))
        self.assertRaises(NamesError, lambda: list(maxmind._leaves(np.array([[0, 1]]), 6)))
