"""PWSNIFF: what is sent to FTP and POP3, below BASE."""

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.packets.stacks import raw, through
from ulogd_tw.core.plugin import RAW
from ulogd_tw.plugins.filters.base import BASE
from ulogd_tw.plugins.filters.pwsniff import PWSNIFF

ASKED = ("tcp.dport", "pwsniff.user", "pwsniff.pass")


def segment(port, payload, options=b"", six=False, protocol=6):
    """A packet of IP and TCP."""
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 1, (20 + len(options)) << 2, 0x18, 100, 0, 0) + options + payload
    if six:
        return struct.pack("!IHBB32s", 6 << 28, len(tcp), protocol, 64, bytes(32)) + tcp
    return struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(tcp), 1, 0, 64, protocol, 0, bytes(8)) + tcp


def rows(*packets):
    """The rows that pass, as (port, user, password)."""
    got, filters = through(("raw.pkt", "raw.pktlen"), [(BASE, {}), (PWSNIFF, {})], [raw(list(packets))], ASKED, RAW)
    found = [tuple(row.get(name) for name in ASKED) for batch in got for row in batch.rows()]
    return found, filters[1].plugin.counters.rows_filtered


class PwsniffTests(SynchronousTestCase):
    """Rows that pass and their two keys."""

    def test_names_and_passwords(self):
        """In either family, with options of TCP, whatever the case; a packet may have both, the last ones count."""
        found, filtered = rows(
            segment(21, b"USER alice\r\n"),
            segment(110, b"pass se cret\r\n", options=bytes(12)),
            segment(21, b"USER a\r\nuser bob\r\nPASS x\r\n", six=True),
            segment(21, b"NOOP\r\n"),
            segment(21, b"USER unfinished"),
        )
        self.assertCountEqual(
            [(21, b"alice", None), (110, None, b"se"), (21, b"bob", b"x"), (21, None, None), (21, None, None)], found
        )
        self.assertEqual(0, filtered)

    def test_others(self):
        """Packets to other ports and of other protocols are filtered, an answer of the server too."""
        found, filtered = rows(
            segment(143, b"USER alice\r\n"),
            segment(21, b"USER alice\r\n", protocol=17),
            segment(40000, b"331 USER ok\r\n"),
        )
        self.assertEqual(([], 3), (found, filtered))
