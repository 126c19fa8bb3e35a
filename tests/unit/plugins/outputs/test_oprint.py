"""OPRINT: ulogd2's blocks of lines."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import shared_path
from tests.unit.writing.disk import disk_with
from tests.unit.writing.text_rows import GOLDEN, batch_of, plugin, printed
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.outputs.oprint import OPRINT, boundaries

BOUNDARY = "===>PACKET BOUNDARY"
RECORD = """\
===>PACKET BOUNDARY
orig.ip.saddr=10.77.0.1
orig.ip.protocol=6
orig.raw.pktlen=60
ct.id=3204679213
orig.ip.saddr.str=10.77.0.1
"""
"""Lines of golden/out/flow_ip2str_oprint.log; there the address without IP2STR is 1.0.77.10."""


def rows_of(name):
    """ulogd2's records as dicts: the first of a repeated key; addresses put right; without "default" for raw ones."""
    rows = []
    for block in shared_path(*GOLDEN, name).read_text().split(BOUNDARY + "\n")[1:]:
        row = {}
        for line in block.splitlines():
            key, _, value = line.partition("=")
            if value != "default":
                row.setdefault(key, value)
        rows.append({key: row.get(f"{key}.str", value) for key, value in row.items()})
    return rows


def text_of(rows):
    """How rows look."""
    return "".join(f"{BOUNDARY}\n" + "".join(f"{k}={v}\n" for k, v in row.items()) for row in rows)


class OprintTests(SynchronousTestCase):
    """The records, and the file where they differ from lines."""

    def test_a_record_of_ulogd2(self):
        """The octets of ulogd2's record, with the address in its right order."""
        row = dict(line.split("=") for line in RECORD.splitlines()[1:])
        self.assertEqual(printed(self, OPRINT, [batch_of([row])]), RECORD)
        self.assertEqual(printed(self, OPRINT, [batch_of([row] * 100)]), RECORD * 100)

    def test_golden(self):
        """Every flow and counter that ulogd2 printed comes out alike, IPv6 included."""
        for name in ("flow_ip2str_oprint.log", "acct_oprint.log"):
            rows = rows_of(name)
            found = printed(self, OPRINT, [batch_of([row]) for row in rows])
            self.assertEqual(found, text_of(rows))

    def test_raw_keys(self):
        """Octets are hexadecimal, where ulogd2 prints "default"."""
        self.assertEqual(printed(self, OPRINT, [batch_of([{"raw.pkt": b"\1\xff"}])]), f"{BOUNDARY}\nraw.pkt=01ff\n")

    def test_full_within_a_record(self):
        """A record is taken back as a whole; the rest is counted in records."""
        path = Path(self.mktemp())
        out = plugin(OPRINT, path)
        row = dict(line.split("=") for line in RECORD.splitlines()[1:])
        disk_with(self, len(RECORD) * 3 + 50)
        waiting = out.write(batch_of([row] * 40))
        self.assertEqual(path.read_text(), RECORD * 3)
        out.stop()
        self.successResultOf(waiting)
        self.assertEqual(dict(out.counters.dropped), {"write": 37})

    def test_records_are_counted(self):
        """The place where a record begins, and the number before it, for every place in the text."""
        octets = (RECORD * 3).encode()
        for place in range(len(octets) + 1):
            begun = place // len(RECORD)
            self.assertEqual(boundaries(octets, place), (min(begun, 3) * len(RECORD), begun))

    def test_asks_for_every_key(self):
        self.assertIs(OPRINT("o").requests(frozenset()), ALL)
