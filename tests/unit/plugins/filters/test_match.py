"""MATCH in a stack: what it keeps, drops, says of rows; sets that change; sampling."""

import os
import socket
from collections import Counter

import numpy as np
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core.doubles import KEEP
from tests.unit.match.test_grammar import FLOWS as ANY_FAMILY
from tests.unit.match.test_grammar import batch_of
from tests.unit.plugins.filters.test_aggregate import PEER
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.plugins.filters.match import MATCH
from ulogd_tw.transports.watched_files import Watched

FLOWS = [{name.replace("Address", "IPv4Address"): value for name, value in row.items()} for row in ANY_FAMILY]


class MatchCase(SynchronousTestCase):
    """An input, some MATCHes, and an output that keeps what it gets."""

    def start(self, *filters):
        classes = {"PEER": PEER, "MATCH": MATCH, "KEEP": KEEP}
        given = {f"m{place}": options for place, options in enumerate(filters)}

        def read(instance, class_):
            return Options(class_.all_options(), given.get(instance, {})), []

        parts = (("in", "PEER"), *((name, "MATCH") for name in given), ("keep", "KEEP"))
        builder = Builder(lambda name, position: classes[name], read)
        self.graph = builder.build([StackSpec("s", "t:1", parts)])
        self.assertEqual([], builder.mistakes)
        self.source, self.keep = self.graph.instances["in"], self.graph.instances["keep"]
        self.match = self.graph.instances["m0"]
        for name in given:
            self.graph.instances[name].open()
        return self.match

    def give(self, batch):
        self.source.counters.rows_received += batch.n
        self.keep.batches.clear()
        self.source.emit(batch)
        self.assertEqual({}, self.graph.unaccounted())
        return [row for batch in self.keep.batches for row in batch.rows()]

    def ports(self, rows):
        return [row.get("sourceTransportPort") for row in rows]


class ActionTests(MatchCase):
    """What becomes of rows."""

    def test_accept(self):
        match = self.start({"match": "tcp"})
        self.assertEqual([51000, 443], self.ports(self.give(batch_of(FLOWS))))
        self.assertEqual((2, 2), (match.counters.rows_filtered, match.counters.figures["rows_matched"]))

    def test_octets_of_any_element(self):
        """octets and packets of whichever counter a row has, as AGGREGATE takes them."""
        rows = [{"octetDeltaCount": 900, "postOctetDeltaCount": 5000},
                {"initiatorOctets": 2877, "initiatorPackets": 21},
                {"postOctetDeltaCount": 2000, "postPacketDeltaCount": 30}, {"layer2OctetDeltaCount": 1500},
                {"packetDeltaCount": 40}]  # fmt: skip
        rows = [row | {"sourceTransportPort": place} for place, row in enumerate(rows)]
        self.start({"match": "octets > 1k"})
        self.assertEqual([1, 2, 3], self.ports(self.give(batch_of(rows))))
        self.start({"match": "packets > 20"})
        self.assertEqual([1, 2, 4], self.ports(self.give(batch_of(rows))))

    def test_services(self):
        """Names of ports are those of this machine."""

        def getservbyname(name):
            if "\0" in name:
                raise ValueError("embedded null character")
            if name != "https":
                raise OSError("service/proto not found")
            return 443

        self.patch(socket, "getservbyname", getservbyname)
        self.start({"match": "src port https"})
        self.assertEqual([443], self.ports(self.give(batch_of(FLOWS))))
        for name in ("nonesuch", "https\0"):
            match = MATCH("m", Options(MATCH.all_options(), {"match": f"port {name}"}))
            self.assertIn("nor a service of this machine", dict(match.mistakes())["match"], name)

    def test_drop(self):
        self.start({"match": "tcp", "action": "drop"})
        self.assertEqual([53, None], self.ports(self.give(batch_of(FLOWS))))

    def test_nothing_left(self):
        """Where no row is left nothing is handed on."""
        self.start({"match": "proto sctp"})
        self.assertEqual([], self.give(batch_of(FLOWS)))

    def test_tag(self):
        """All rows stay; those that match have the tag; a later one goes before an earlier one."""
        self.start({"match": "any", "action": "tag", "tag": "all"},
                   {"match": "tcp", "action": "tag", "tag": "web", "export_to": "a b"},
                   {"match": "udp", "action": "tag", "export_to": "c"})  # fmt: skip
        found = [(row.get("tag"), row.get("export.to")) for row in self.give(batch_of(FLOWS))]
        self.assertEqual([(b"web", b"a b"), (b"web", b"a b"), (b"all", b"c"), (b"all", None)], found)

    def test_export_to(self):
        """Rows that are kept are sent to these collectors."""
        self.start({"match": "udp", "export_to": "far"})
        self.assertEqual([b"far"], [row["export.to"] for row in self.give(batch_of(FLOWS))])

    def test_sample(self):
        """About one flow in so many, with both of its directions, and always the same ones."""
        self.start({"match": "tcp", "sample": 8})
        n = 4000
        flows = batch_of(FLOWS[:1]).take(np.zeros(n, np.int64))
        there = flows.with_columns({known("sourceTransportPort"): np.arange(n).astype(np.uint16)})
        swapped = {"sourceIPv4Address": "destinationIPv4Address", "sourceTransportPort": "destinationTransportPort"}
        back = there.with_columns({
            there.schema[a].named(b): there.columns[a] for pair in swapped.items() for a, b in (pair, pair[::-1])
        })  # fmt: skip
        kept = self.ports(self.give(there))
        self.assertTrue(n / 8 * 0.8 < len(kept) < n / 8 * 1.2, len(kept))
        self.assertEqual(kept, [row["destinationTransportPort"] for row in self.give(back)])
        self.assertEqual(kept, self.ports(self.give(there)))

    def test_mistakes(self):
        for options, expected in (
            ({"match": "src prt 80"}, "column 5: src prt has no meaning"),
            ({"match": "tcp", "action": "tag"}, "action=tag needs tag= or export_to="),
            ({"match": "tcp", "action": "drop", "sample": 2}, "no effect with action=drop"),
            ({"match": "tcp", "sets": ("x",)}, "'x' is not NAME=FILE"),
            ({"match": "ip in @x"}, "there is no set x"),
        ):
            plugin = MATCH("m", Options(MATCH.all_options(), options))
            self.assertTrue(any(expected in text for _, text in plugin.mistakes()), (options, list(plugin.mistakes())))
        ((_, text),) = MATCH("m", Options(MATCH.all_options(), {"match": "tcp and prt 80"})).mistakes()
        self.assertEqual(["tcp and prt 80", "        ^"], text.split("\n")[1:])


class SetsTests(MatchCase):
    """Sets in files."""

    def setUp(self):
        self.patch(Watched, "in_thread", staticmethod(defer.execute))
        self.path = self.mktemp()
        self.seconds = Counter()

    def write(self, *lines):
        with open(self.path, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.seconds["n"] += 1
        os.utime(self.path, (self.seconds["n"], self.seconds["n"]))

    def begin(self, text="src ip in @bad"):
        return self.start({"match": text, "sets": (f"bad={self.path}",)})

    def test_changes(self):
        """A file that has changed is read again; until then the set is as it was."""
        self.write("# these", "10.1.2.3  # this one", "", "172.16.0.0/12")
        match = self.begin()
        self.assertEqual([51000, 53], self.ports(self.give(batch_of(FLOWS))))
        self.write("192.0.2.1")
        self.assertEqual([51000, 53], self.ports(self.give(batch_of(FLOWS))))
        self.assertEqual(5.0, match.wake(0.0))
        self.assertEqual([443], self.ports(self.give(batch_of(FLOWS))))

    def test_numbers(self):
        self.write("53", "440-450")
        self.begin("port in @bad")
        self.assertEqual([51000, 443, 53], self.ports(self.give(batch_of(FLOWS))))

    def test_wrong_later(self):
        """A file that is wrong, or gone, changes nothing, and is counted once."""
        self.write("10.1.2.3")
        match = self.begin()
        self.write("10.1.2.3.4")
        for _ in range(3):
            match.wake(0.0)
        self.assertEqual({"sets": 1}, dict(match.counters.errors))
        self.flushLoggedErrors()
        os.unlink(self.path)
        match.wake(0.0)
        self.assertEqual([51000], self.ports(self.give(batch_of(FLOWS))))
        self.write("192.0.2.1")
        match.wake(0.0)
        self.assertEqual([443], self.ports(self.give(batch_of(FLOWS))))

    def test_wrong_at_start(self):
        """Said with what helps."""
        for prepare, expected in (
            (lambda: None, "No such file"),
            (lambda: self.write("nonsense"), "is neither an address"),
        ):
            prepare()
            match = MATCH("m", Options(MATCH.all_options(), {"match": "ip in @bad", "sets": (f"bad={self.path}",)}))
            self.assertIn(expected, str(self.assertRaises(StartError, match.open)))

    def test_sighup(self):
        """A file is read again at once, also where its time says nothing."""
        self.write("10.1.2.3")
        match = self.begin()
        with open(self.path, "w") as file:
            file.write("192.0.2.1\n")
        os.utime(self.path, (1, 1))
        match.reopen()
        self.assertEqual([443], self.ports(self.give(batch_of(FLOWS))))
