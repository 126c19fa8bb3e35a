"""Values in the form in which people write them: by the RFCs' examples and by hand."""

import uuid

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core import text, types
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import REVERSE_PEN, Key, known, registry
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.core.readable import comparable, readable, written

OCTETS = (
    ("mplsTopLabelStackSection", "000451", 69),
    ("mplsLabelStackSection10", "fffff1", 1_048_575),
    ("mplsLabelStackSection2", "00045140", 69),
    ("mplsVpnRouteDistinguisher", "0000fbf400000001", "64500:1"),
    ("mplsVpnRouteDistinguisher", "0001c00002010005", "192.0.2.1:5"),
    ("mplsVpnRouteDistinguisher", "00020001000a0007", "65546:7"),
    ("mplsVpnRouteDistinguisher", "ffff000000000001", "ffff000000000001"),
    ("mplsVpnRouteDistinguisher", "0000fbf4", "0000fbf4"),
    ("applicationId", "0d0001c5", "13:453"),
    ("applicationId", "03000050", "3:80"),
    ("applicationId", "0d01", "13:1"),
    ("applicationId", "14000000090001f4", "20:9:500"),
    ("applicationId", "0d", "0d"),
    ("bgpLargeCommunity", "0000fbf40000000100000002", "64500:1:2"),
    ("bgpLargeCommunity", "0000fbf4", "0000fbf4"),
    ("bgpExtendedCommunity", "0002fbf400000001", "rt:64500:1"),
    ("bgpExtendedCommunity", "0103c00002010005", "soo:192.0.2.1:5"),
    ("bgpExtendedCommunity", "02020001000a0007", "rt:65546:7"),
    ("bgpExtendedCommunity", "030c000000000008", "030c000000000008"),
    ("virtualStationUUID", "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-aabbccddeeff"),
    ("virtualStationUUID", "0011", "0011"),
    ("ipv6ExtensionHeadersFull", "05", 5),
    ("ipv6ExtensionHeadersFull", "01" + 31 * "00", 1 << 248),
)  # fmt: skip
"""Keys, octets, and what people write."""


def line(column, key, missing=None):
    """The JSON texts of a column, as outputs write it."""
    field = ColumnField(b"", column, missing, key, text.JSON)
    found = b"".join(octets for octets, _ in Lines(b"\n", b"", b"").render([field], len(column)))
    return found.decode().split("\n")[:-1]


class ReadableTests(SynchronousTestCase):
    """Columns in readable form, in every way that columns go."""

    def test_octets(self):
        """Elements whose octets have a form of their own; of other sizes they are hexadecimal. Labels are numbers."""
        for name, octets, expected in OCTETS:
            key, value = known(name), bytes.fromhex(octets)
            shown = str(expected) if isinstance(expected, int) else f'"{expected}"'
            listed = str(expected) if key.type is types.UNSIGNED256 else expected
            for column in (Octets.of([value] * 30), Octets.of([value]), Coded(np.zeros(30, np.int32), (value,))):
                self.assertEqual({shown}, set(line(column, key)), name)
                self.assertEqual([listed] * len(column), canonical_list(column, key), name)
            self.assertEqual(expected, written(value, key.type), name)

    def test_many(self):
        """Many different values, of equal and of different lengths."""
        labels = [number << 4 | number & 15 for number in range(100)]
        column = Octets.of([label.to_bytes(3, "big") for label in labels])
        self.assertEqual(list(range(100)), canonical_list(column, known("mplsTopLabelStackSection")))
        column = Octets.of([b"\x0d" + number.to_bytes(1 + number % 5, "big") for number in range(100)])
        self.assertEqual([f"13:{number}" for number in range(100)], canonical_list(column, known("applicationId")))

    def test_missing(self):
        """A missing label may have no octets; a label of an impossible size makes the column hexadecimal."""
        key, missing = known("mplsTopLabelStackSection"), np.array([False, True])
        self.assertEqual([69, None], canonical_list(Octets.of([b"\0\4\x51", b""]), key, missing))
        self.assertEqual(["000451", "04"], canonical_list(Octets.of([b"\0\4\x51", b"\4"]), key))

    def test_labels_only(self):
        """Traffic class and bottom bit are no part of the label: without them equal labels are equal octets."""
        for values in ([b"\0\4\x51", b"\0\4\x5e"], [b"\0\4\x51\x40", b"\0\4\x5e"]):
            plain = Octets.of(values)
            for column in (plain, Coded(np.arange(2, dtype=np.int32), tuple(values))):
                self.assertEqual([b"\0\4\x50"] * 2, comparable(column, "label").plain().to_list())

    def test_same_applications(self):
        """An application is the same in however many octets its selector came; the enterprise of engine 20 is none."""
        for values, expected in (
            (["0d0001c5", "0d000001c5", "0d01c5"], {"0d0001c5"}),
            (["0d0001c5", "0d0001c5"], {"0d0001c5"}),
            (["0d00010000c5", "0d010000c5"], {"0d010000c5"}),
            (["140000000907", "1400000009000007", "140000000900000007"], {"1400000009000007"}),
            (["14000000", "1400000009", "0d", ""], {"14000000", "1400000009", "0d", ""}),
        ):
            octets = [bytes.fromhex(value) for value in values]
            for column in (Octets.of(octets), Coded(np.arange(len(octets), dtype=np.int32), tuple(octets))):
                found = comparable(column, "application").plain().to_list()
                self.assertEqual(expected, {value.hex() for value in found})

    def test_same_numbers(self):
        """A number of up to 256 bits is the same in however many octets it came (RFC 7011 section 6.2)."""
        column = comparable(Octets.of([b"\1\2", b"\0\0\1\2", b"\0", b"\0\0"]), "digits").plain().to_list()
        self.assertEqual([b"\1\2", b"\1\2", b"", b""], column)

    def test_times(self):
        """Micro- and nanoseconds since 1970, rounded; of both eras (RFC 7011 section 6.1.9)."""
        ntp = np.array([(2_208_988_800 + 1_699_999_990) << 32 | 530_242_871, 1 << 31], np.uint64)
        for name, found in (
            ("flowStartNanoseconds", [1_699_999_990_123_456_789, 2_085_978_496_500_000_000]),
            ("observationTimeMicroseconds", [1_699_999_990_123_457, 2_085_978_496_500_000]),
        ):
            self.assertEqual(found, canonical_list(ntp, known(name)))
            self.assertEqual(list(map(str, found)), line(ntp, known(name)))

    def test_communities(self):
        """A community is a number of 32 bits."""
        numbers = np.array([64500 << 16 | 1, 0], np.uint32)
        self.assertEqual(["64500:1", "0:0"], canonical_list(numbers, known("bgpCommunity")))

    def test_further_occurrences(self):
        """The second occurrence of an element, and the reverse element, have the form too."""
        for key in (known("applicationId#2"), registry.element(REVERSE_PEN, 95)):
            self.assertEqual(["13:453"], canonical_list(Octets.of([b"\x0d\0\1\xc5"]), key), key.name)

    def test_others(self):
        """Other keys are left as they are, the very objects."""
        for key, column in ((known("octetDeltaCount"), np.zeros(2, np.uint64)), (known("userName"), Octets.of([b"a"]))):
            self.assertIs(column, readable(column, key)[0])
            self.assertIs(key, readable(column, key)[1])

    @given(st.sampled_from(sorted(types.FORMED)), st.lists(st.binary(max_size=33), min_size=1, max_size=60))
    def test_anything(self, form, values):
        """Whatever octets an element has, many rows have the same texts as each by itself."""
        type_ = types.FORMED[form]
        key = Key("k", type_)
        if not type_.variable:
            values = [value[:4].rjust(4, b"\1") for value in values]
            column = np.array([int.from_bytes(value, "big") for value in values], type_.dtype)
        else:
            column = Octets.of(values)
        found = canonical_list(column, key)
        one_by_one = [canonical_list(column.take(slice(i, i + 1)) if type_.variable else column[i : i + 1], key)[0]
                      for i in range(len(values))]  # fmt: skip
        if form == "label" and {len(v) for v in values} - {0, 3, 4}:
            one_by_one = [value.hex() for value in values]
        self.assertEqual(one_by_one, found)
        self.assertEqual(len(values), len(line(column, key)))

    def test_uuid(self):
        """As the standard library writes them."""
        value = uuid.UUID(int=1 << 100 | 7)
        self.assertEqual(str(value), written(value.bytes, types.UUID))
