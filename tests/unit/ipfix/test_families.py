"""Templates with addresses of both families: a record is of that whose addresses are not zeros."""

import io
from ipaddress import ip_address

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import Collected, a_set, message, template
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.resolve import Provided, Sources

BOTH = template(256, (27, 16), (28, 16), (8, 4), (12, 4), (4, 1))
"""sourceIPv6Address, destinationIPv6Address, sourceIPv4Address, destinationIPv4Address, protocolIdentifier."""
NAMES = ("sourceAddress", "destinationAddress")
SIX = ip_address("2001:db8::16"), ip_address("2001:db8::12")
FOUR = ip_address("192.0.2.16"), ip_address("192.0.2.12")
NONE = ip_address("::"), ip_address("::"), ip_address("0.0.0.0"), ip_address("0.0.0.0")


def record(*addresses):
    """The octets of a record with these."""
    return b"".join(address.packed for address in addresses) + b"\x11"


class FamilyTests(SynchronousTestCase):
    """sourceAddress and destinationAddress of records as Cisco routers send them for MPLS."""

    def found(self, *records, whose=ALL, saved=False):
        """The addresses of each row, as text."""
        provided, sources = Provided((), open_=True), Sources()
        for name in NAMES:
            sources.add(name, provided.recipes(name))
        rows = []
        for batch in Collected(whose).batches(message(a_set(2, BOTH)), message(a_set(256, *records))):
            if saved:
                file = io.BytesIO()
                batch.save(file)
                file.seek(0)
                batch = Batch.load(file)
            pairs = [sources.find(batch, name) for name in NAMES]
            texts = []
            for one in pairs:
                values = one.values.tolist()
                six = one.key.type is types.IPV6
                texts.append([str(ip_address(v[0] << 64 | v[1]) if six else ip_address(v)) for v in values])
            rows += zip(*texts, strict=True)
        return rows

    def test_each_has_its_family(self):
        """Also where only the neutral names are wanted, and in a batch that was in a spool."""
        records = [record(*SIX, *NONE[2:]), record(*NONE[:2], *FOUR), record(*SIX, *NONE[2:])]
        wanted = frozenset(("sourceIPv4Address", "sourceIPv6Address", "destinationIPv4Address",
                            "destinationIPv6Address"))  # fmt: skip
        for options in ({}, {"whose": wanted}, {"saved": True}):
            found = self.found(*records, **options)
            self.assertEqual([("192.0.2.16", "192.0.2.12")] + [("2001:db8::16", "2001:db8::12")] * 2, sorted(found))

    def test_both_or_none(self):
        """Of a record that has both it is IPv4; without any it is zeros."""
        self.assertEqual([("192.0.2.16", "192.0.2.12")], self.found(record(*SIX, *FOUR)))
        self.assertEqual([("0.0.0.0", "0.0.0.0")], self.found(record(*NONE)))

    def test_all_values_stay(self):
        """As they came, for who asks by the name of a family."""
        records = [record(*SIX, *NONE[2:]), record(*NONE[:2], *FOUR)]
        rows = Collected().rows(message(a_set(2, BOTH)), message(a_set(256, *records)))
        self.assertEqual({(int(SIX[0]), 0), (0, int(FOUR[0]))},
                         {(row["sourceIPv6Address"], row["sourceIPv4Address"]) for row in rows})  # fmt: skip

    @given(st.lists(st.sampled_from([(*SIX, *NONE[2:]), (*NONE[:2], *FOUR), (*SIX, *FOUR), NONE]), min_size=1,
                    max_size=30))  # fmt: skip
    def test_any_mixture(self, records):
        """Row by row."""
        expected = []
        for six, _, four, _ in records:
            one = SIX if int(six) and not int(four) else FOUR if int(four) else NONE[2:]
            expected.append(tuple(map(str, one)))
        self.assertEqual(sorted(expected), sorted(self.found(*(record(*r) for r in records))))
