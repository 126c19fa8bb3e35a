"""``ulogd-tw flows`` over directories: what it prints, and its exit status."""

import contextlib
import io
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.flows import made
from ulogd_tw.operating.commands import tree


class DirectoryTests(SynchronousTestCase):
    """A store with two flows, without a service."""

    def setUp(self):
        self.place = Path(tempfile.mkdtemp(prefix="utw-command-"))
        self.addCleanup(shutil.rmtree, self.place)
        rows = [made.flow(0, 1_500_000, lasts=2500), made.flow(1000, 5, proto=17)]
        self.store = str(made.write(self.place / "raw", rows))
        before = os.environ.get("TZ")
        self.zone("CET-1CEST,M3.5.0,M10.5.0/3")
        self.addCleanup(self.zone, before)

    @staticmethod
    def zone(name):
        if name is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = name
        time.tzset()

    def run_command(self, *words):
        """Status, lines of output, and what is said."""
        out = io.StringIO()
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = tree.run(tree.parse(["flows", *words]), out)
        return status, out.getvalue().splitlines(), said.getvalue()

    def test_list(self):
        """Flows with short names, local times with their zone, octets in units; newest first."""
        status, lines, said = self.run_command(self.store)
        self.assertEqual((0, ""), (status, said))
        head = ["start", "duration", "proto", "source", "sport", "destination", "dport", "flags", "packets", "octets"]
        self.assertEqual(head, lines[0].split())
        first = "2026-05-28 22:00:01.000 0.000 s UDP 192.0.2.1 1024 198.51.100.1 443 ...AP.SF 1 5"
        self.assertEqual(first.split(), lines[1].split())
        self.assertRegex(lines[2], r"^2026-05-28 21:59:57\.500  2\.500 s   TCP .* 1\.5M$")
        self.assertRegex(lines[3], r"^all times, CES?T \(UTC\+0[12]:00\); read from parquet1$")

    def test_forms(self):
        """CSV and JSON have exact numbers and the zone of times; --json is the form of other commands."""
        _, lines, _ = self.run_command(self.store, "--every", "1h", "--sum", "octets", "-f", "csv")
        self.assertEqual(["time,octets", "2026-05-28T22:00:00+02:00,1500005"], lines)
        _, lines, _ = self.run_command(self.store, "--by", "proto", "--sum", "octets", "--json")
        rows = [{"protocolIdentifier": 6, "octets": 1500000}, {"protocolIdentifier": 17, "octets": 5}]
        self.assertEqual(rows, [json.loads(line) for line in lines])

    def test_days(self):
        """Steps of a day begin at local midnight."""
        _, lines, _ = self.run_command(self.store, "--every", "1d", "--sum", "flows", "-f", "csv")
        self.assertEqual(["time,flows", "2026-05-28T00:00:00+02:00,2"], lines)

    def test_old_days(self):
        """Days of long ago too begin at local midnight, without a range: in July of 2010 at 22:00 UTC."""
        ends = (1_278_797_400_000, 1_278_801_000_000)  # date -u -d '2010-07-10 21:30' +%s, and 22:30
        store = str(made.write(self.place / "old", [made.flow(end - made.T0, 1) for end in ends]))
        _, lines, _ = self.run_command(store, "--every", "1d", "--sum", "flows", "-f", "csv")
        self.assertEqual(["time,flows", "2010-07-10T00:00:00+02:00,1", "2010-07-11T00:00:00+02:00,1"], lines)

    def test_range(self):
        """A range in local time; the expression may stand before or behind the switches."""
        words = ("--from", "2026-05-28 22:00:01", "--to", "2026-05-28 22:00:02", "-f", "csv", "--columns", "octets")
        _, lines, _ = self.run_command(self.store, "proto", "udp", *words)
        self.assertEqual(2, len(lines))
        status, lines, _ = self.run_command(self.store, *words, "proto", "tcp")
        self.assertEqual((1, 1), (status, len(lines)))

    def test_more(self):
        """Where the limit cuts, it is said; without a limit of one's own the status is 3."""
        status, lines, said = self.run_command(self.store, "--limit", "1", "-f", "json")
        self.assertEqual((0, 1), (status, len(lines)))
        self.assertIn("there are more than these 1 rows; --limit N gives more", said)

    def test_mistakes(self):
        """A mistake in the expression is shown at its place."""
        status, _, said = self.run_command(self.store, "dst", "prt", "443")
        self.assertEqual(2, status)
        self.assertIn("dst prt 443\n    ^", said)

    def test_nothing_named(self):
        """A switch without a value, as of an empty variable, is a mistake and no other question."""
        for switch in ("--by", "--sum", "--columns"):
            for value in ("", " ", ",", " , "):
                status, lines, said = self.run_command(self.store, switch, value)
                self.assertEqual((2, []), (status, lines), (switch, value))
                self.assertIn("is empty; name one or more", said)

    def test_order(self):
        """A column to order by may have a sign before it, as the documents show it."""
        for words, first in ((["--order", "-octets"], 6), (["--order", "+octets"], 17), (["-O", "-octets"], 6),
                             (["-O", "-flows"], 6), (["--order=-octets"], 6), (["-O", "octets"], 6),
                             (["--order", "+proto"], 6), (["-O", "-proto"], 17)):  # fmt: skip
            status, lines, said = self.run_command(
                self.store, "--by", "proto", *words, "--sum", "octets,flows", "--json"
            )
            self.assertEqual((0, first), (status, json.loads(lines[0])["protocolIdentifier"]), (words, said))

    def test_store_of_the_service(self):
        """Directories are read without the service, so that a name of one of its stores is a mistake."""
        status, lines, said = self.run_command(self.store, "--store", "other")
        self.assertEqual((2, []), (status, lines))
        self.assertIn("--store names a store of the service", said)
