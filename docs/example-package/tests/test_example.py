"""Tests of the templates: no socket, no stack. Run: python -m unittest discover tests"""

import unittest

import numpy as np
from ulogd_tw_example.byprotocol import BYPROTOCOL
from ulogd_tw_example.perpacket import PERPACKET

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Provided

KEYS = [known(name) for name in ("protocolIdentifier", "packetDeltaCount", "octetDeltaCount")]


def made(class_, **options):
    """An instance, with the columns of `batch` as its sources: a stack does this otherwise."""
    plugin = class_("it", Options(class_.all_options(), options))
    for key in KEYS:
        plugin.sources.add(key.name, Provided(KEYS).recipes(key.name))
    return plugin


def batch(*rows):
    """A batch of (protocol, packets, octets)."""
    columns = {
        key.name: np.array(values, key.type.array_dtype)
        for key, values in zip(KEYS, zip(*rows, strict=True), strict=True)
    }
    return Batch(Schema(KEYS), columns, n=len(rows), now=0.0)


class PerPacketTests(unittest.TestCase):
    """PERPACKET."""

    def test_least(self):
        """Rows below the minimum are left out, and rows without packets."""
        kept = made(PERPACKET, least=100).process(batch((6, 2, 300), (6, 2, 100), (6, 0, 100)))
        self.assertEqual([150.0], kept.columns["octets_per_packet"].tolist())


class ByProtocolTests(unittest.TestCase):
    """BYPROTOCOL."""

    def test_interval(self):
        """One row a protocol, at the end of the interval, and every received row is accounted for."""
        plugin, emitted = made(BYPROTOCOL, interval=10), []
        plugin.emit = emitted.append
        self.assertEqual(7.0, plugin.wake(1003.0))
        plugin.process(batch((6, 1, 40), (17, 1, 60), (6, 1, 2)))
        plugin.wake(1010.0)
        (rows,) = emitted
        self.assertEqual([[6, 17], [42, 60]], [rows.columns[key].tolist() for key in rows.schema])
        self.assertEqual(3, plugin.counters.rows_merged)


if __name__ == "__main__":
    unittest.main()
