"""Anonymised addresses: the sample trace of Crypto-PAn, prefixes that stay prefixes, what is left out."""

import os
from ipaddress import ip_address

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.exporting.doubles import V4, flows
from tests.unit.plugins.outputs.test_ipfix import RecordsCase
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.options import Options
from ulogd_tw.exporting.anonymise import prefix_preserving, read_key, truncating
from ulogd_tw.plugins.outputs.ipfix import IPFIX

KEY = bytes((21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16, 216, 152, 143, 131, 121, 121, 101,
             39, 98, 87, 76, 45, 42, 132, 34, 2))  # fmt: skip
SAMPLE = {
    "128.11.68.132": "135.242.180.132", "129.118.74.4": "134.136.186.123", "130.132.252.244": "133.68.164.234",
    "141.223.7.43": "141.167.8.160", "141.233.145.108": "141.129.237.235", "152.163.225.39": "151.140.114.167",
    "156.29.3.236": "147.225.12.42", "165.247.96.84": "162.9.99.234", "166.107.77.190": "160.132.178.185",
    "192.102.249.13": "252.138.62.131", "192.215.32.125": "252.43.47.189", "192.233.80.103": "252.25.108.8",
}  # fmt: skip
"""From the sample trace that comes with Crypto-PAn 1.0, with its key."""
SAMPLE6 = {
    "::1": "78ff:f001:9fc0:20df:8380:b1f1:704:ed", "::2": "78ff:f001:9fc0:20df:8380:b1f1:704:ef",
    "2001:db8::1": "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e",
}  # fmt: skip
"""With the same key, as the Python package yacryptopan has them."""


def four(*texts):
    """A column of IPv4 addresses."""
    return np.array([int(ip_address(text)) for text in texts], np.uint32)


def six(*texts):
    """A column of IPv6 addresses."""
    numbers = [int(ip_address(text)) for text in texts]
    return np.array([(n >> 64, n & (1 << 64) - 1) for n in numbers], np.uint64)


class ChangeTests(SynchronousTestCase):
    """Columns of addresses."""

    def test_sample(self):
        made = prefix_preserving(KEY)
        self.assertEqual(four(*SAMPLE.values()).tolist(), made._four(four(*SAMPLE)).tolist())
        self.assertEqual(six(*SAMPLE6.values()).tolist(), made._six(six(*SAMPLE6)).tolist())

    @given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=40))
    def test_prefixes(self, addresses):
        """Two addresses have as many leading bits in common as before, also many at a time."""
        found = prefix_preserving(KEY)._four(np.array(addresses, np.uint32)).tolist()
        for (a, b), (c, d) in zip(zip(addresses, addresses[1:], strict=False), zip(found, found[1:], strict=False),
                                  strict=True):  # fmt: skip
            self.assertEqual((a ^ b).bit_length(), (c ^ d).bit_length())

    def test_many(self):
        """More addresses than are worked on at a time, some of them twice."""
        column = np.arange(3000, dtype=np.uint32) % 2500
        found = prefix_preserving(KEY)._four(column)
        self.assertEqual(2500, len(set(found.tolist())))
        self.assertEqual(found[:500].tolist(), found[2500:].tolist())

    def test_truncated(self):
        made = truncating(24, 48)
        self.assertEqual(four("192.0.2.0").tolist(), made._four(four("192.0.2.77")).tolist())
        self.assertEqual(six("2001:db8:1::").tolist(), made._six(six("2001:db8:1:2:3:4:5:6")).tolist())
        self.assertEqual([0], truncating(0, 0)._four(four("1.2.3.4")).tolist())
        self.assertEqual(four("1.2.3.4").tolist(), truncating(32, 128)._four(four("1.2.3.4")).tolist())
        self.assertEqual(six("::5").tolist(), truncating(32, 128)._six(six("::5")).tolist())

    def test_batch(self):
        """All addresses but those of exporters; octets of packets are gone; order and missing rows stay."""
        keys = [Key("exporter", types.IPV4), known("sourceIPv4Address"), known("raw.pkt"), known("octetDeltaCount"),
                known("ipNextHopIPv4Address"), known("exporterIPv4Address")]  # fmt: skip
        columns = {key.name: four("10.1.2.3", "10.1.2.4") for key in keys} | {"raw.pkt": Octets.of([b"ab", b"c"])}
        mask = {"sourceIPv4Address": np.array([True, False])}
        found = truncating(8, 0).batch(Batch(Schema(keys), columns, mask, n=2, now=0.0))
        self.assertEqual([k.name for k in keys if k.name != "raw.pkt"], list(found.schema))
        cut, whole = four("10.0.0.0")[0], four("10.1.2.3")[0]
        self.assertEqual([whole, cut, whole, cut, whole], [column[0] for column in found.columns.values()])
        self.assertEqual([True, False], found.missing["sourceIPv4Address"].tolist())


class ExporterTests(RecordsCase):
    """The option of the exporter."""

    def key(self, octets, mode=0o600):
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(octets)
        os.chmod(path, mode)
        return path

    def test_connections(self):
        """Both directions and what NAT made of them have the same new addresses; the rest stays."""
        path = self.key(KEY.hex().encode() + b"\n")
        found = self.records(flows(1, reply__ip__daddr=V4["nat"]), anonymise="cryptopan", anonymise_key=path)
        change = prefix_preserving(KEY)._four
        a, b, nat = (int(change(np.array([V4[name]], np.uint32))[0]) for name in ("a", "b", "nat"))
        self.assertEqual([(a, b, nat, b, 1024), (b, nat, b, a, 443)],
                         [tuple(r[e] for e in (8, 12, 225, 226, 7)) for _, r in found])  # fmt: skip

    def test_truncate(self):
        found = self.records(flows(1), anonymise="truncate", anonymise_prefix4=16)
        self.assertEqual({V4["a"] & 0xFFFF0000}, {record[8] for _, record in found})

    def test_keys(self):
        self.assertEqual(KEY, read_key(self.key(KEY)))
        for path, said in ((self.key(KEY, 0o644), "is readable for other users"), (self.key(b"abc"), "64 hexadecimal"),
                           ("/nowhere/key", "No such file")):  # fmt: skip
            self.assertIn(said, str(self.assertRaises(StartError, read_key, path)))

    def test_mistakes(self):
        for options, expected in (
            ({"anonymise": "cryptopan"}, ["anonymise_key"]),
            ({"anonymise": "truncate", "anonymise_prefix4": 33}, ["anonymise_prefix4"]),
            ({"anonymise": "truncate", "anonymise_prefix6": 129}, ["anonymise_prefix6"]),
        ):
            plugin = IPFIX("e", Options(IPFIX.all_options(), options | {"collectors": ("udp:192.0.2.1",)}))
            self.assertEqual(expected, [option for option, _ in plugin.mistakes()])
