"""GROUP in a stack: which keys rows get, what is looked up, files that change."""

import os

from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.core.doubles import KEEP
from tests.unit.match.test_grammar import batch_of
from tests.unit.naming.test_maxmind import DE, OTHER, SYSTEM, database
from tests.unit.plugins.filters.test_aggregate import PEER
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import FLOW, PACKET, Filter
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.core.types import STRING
from ulogd_tw.plugins.filters.aggregate import AGGREGATE
from ulogd_tw.plugins.filters.group import GROUP
from ulogd_tw.plugins.filters.match import MATCH
from ulogd_tw.transports.watched_files import Watched

FLOWS = [
    {"sourceIPv4Address": "10.1.2.3", "destinationIPv4Address": "192.0.2.1", "sourceTransportPort": 51000,
     "destinationTransportPort": 443, "protocolIdentifier": 6, "octetDeltaCount": 100},
    {"sourceIPv4Address": "192.0.2.1", "destinationIPv4Address": "10.9.0.1", "sourceTransportPort": 443,
     "destinationTransportPort": 51000, "protocolIdentifier": 6, "octetDeltaCount": 20},
    {"sourceIPv4Address": "198.51.100.1", "protocolIdentifier": 1, "octetDeltaCount": 3},
]  # fmt: skip
NETWORKS = b"10.0.0.0/8,inside\n10.1.0.0/16,lab,Berlin\n192.0.2.0/24,web\n"
SERVICES = b"https 443/tcp\n"


class GroupCase(SynchronousTestCase):
    """PEER, some filters, and an output that keeps what it gets."""

    def setUp(self):
        self.patch(Watched, "in_thread", staticmethod(defer.execute))
        self.clock = 0
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def write(self, name, octets):
        """A file that is as old as it was written: its path."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(octets)
        self.clock += 1
        os.utime(path, (self.clock, self.clock))
        return path

    def start(self, *filters, asked=None, source=PEER):
        """The first filter of a stack of (class, options); `asked` are the keys that the output wants, else all."""
        asking = {} if asked is None else {"requests": lambda self, _: dict.fromkeys(asked, False)}
        keep = type("KEEP", (KEEP,), asking)
        classes = {"PEER": source, "KEEP": keep} | {class_.name: class_ for class_, _ in filters}
        given = {f"f{place}": options for place, (_, options) in enumerate(filters)}
        names = [class_.name for class_, _ in filters]
        parts = (("in", "PEER"), *zip(given, names, strict=True), ("keep", "KEEP"))

        def read(instance, class_):
            return Options(class_.all_options(), given.get(instance, {})), []

        builder = Builder(lambda name, position: classes[name], read)
        self.graph = builder.build([StackSpec("s", "t:1", parts)])
        self.assertEqual([], builder.mistakes)
        for name in given:
            self.graph.instances[name].open()
        return self.graph.instances["f0"]

    def group(self, asked=None, **options):
        return self.start((GROUP, options), asked=asked)

    def give(self, batch=None):
        """The rows that the output gets."""
        batch = batch or batch_of(FLOWS)
        source, keep = self.graph.instances["in"], self.graph.instances["keep"]
        source.counters.rows_received += batch.n
        keep.batches.clear()
        source.emit(batch)
        self.assertEqual({}, self.graph.unaccounted())
        return [row for batch in keep.batches for row in batch.rows()]

    def column(self, name, batch=None):
        return [row.get(name) for row in self.give(batch)]


class NamesTests(GroupCase):
    """The keys."""

    def test_networks(self):
        """The most specific network of either end; no value where there is none."""
        self.group(networks=self.write("n", NETWORKS), columns=("site",))
        rows = self.give()
        self.assertEqual([b"lab", b"web", None], [row.get("src.net") for row in rows])
        self.assertEqual([b"web", b"inside", None], [row.get("dst.net") for row in rows])
        self.assertEqual([b"Berlin", None, None], [row.get("src.net.site") for row in rows])
        self.assertEqual([100, 20, 3], [row["octetDeltaCount"] for row in rows])

    def test_ipv6(self):
        self.group(networks=self.write("n", b"2001:db8::/32,six\n0.0.0.0/0,four\n"))
        batch = batch_of([{"sourceAddress": "2001:db8::1", "destinationAddress": "2001:db9::1"}], six=True)
        held = {known(name.replace("Addr", "IPv6Addr")): column for name, column in batch.columns.items()}
        (row,) = self.give(batch.with_columns(held).select([key.name for key in held]))
        self.assertEqual((b"six", None), (row["src.net"], row.get("dst.net")))

    def test_exporter(self):
        self.group(networks=self.write("n", b"203.0.113.9,edge1\n"))
        self.assertEqual([b"edge1"], self.column("exporter.net", batch_of([{"exporter": "203.0.113.9"}])))

    def test_services(self):
        self.group(services=self.write("s", SERVICES))
        rows = self.give()
        self.assertEqual([b"https", None, None], [row.get("dst.service") for row in rows])
        self.assertEqual([None, b"https", None], [row.get("src.service") for row in rows])
        self.assertEqual([b"https", b"https", None], [row.get("service") for row in rows])

    def test_databases(self):
        path = self.write("c", database((("10.0.0.0/8", DE | SYSTEM), ("192.0.2.0/24", OTHER))))
        self.group(country=path, asn=path)
        rows = self.give()
        self.assertEqual([b"DE", None, None], [row.get("src.country") for row in rows])
        self.assertEqual([64513, 64512, None], [row.get("dst.as") for row in rows])
        self.assertEqual([b"Other", b"Example", None], [row.get("dst.as.name") for row in rows])

    def test_systems_of_a_text(self):
        self.group(asn=self.write("a", b"10.0.0.0/8 64512\n"))
        self.assertEqual([64512, None, None], self.column("src.as"))

    def test_interfaces(self):
        """By exporter and number; also of rows that have no exporter."""
        self.group(interfaces=self.write("i", b"192.0.2.1,3,uplink\n,4,usual\n"))
        rows = [{"exporter": "192.0.2.1", "ingressInterface": 3, "egressInterface": 4},
                {"exporter": "192.0.2.2", "ingressInterface": 3}]  # fmt: skip
        found = self.give(batch_of(rows))
        self.assertEqual([(b"uplink", b"usual"), (None, None)],
                         [(row.get("in.interface"), row.get("out.interface")) for row in found])  # fmt: skip
        self.assertEqual([b"usual"], self.column("in.interface", batch_of([{"ingressInterface": 4}])))

    def test_marks_and_zones(self):
        """Of connections, else of packets."""
        source = type("PEER", (PEER,), {"provides": ulogd_keys("ct.mark", "ct.zone", "oob.mark")})
        files = {"marks": self.write("m", b"0x10/0xf0,web\n"), "zones": self.write("z", b"7,tenant\n")}
        self.start((GROUP, files), source=source)
        (row,) = self.give(batch_of([{"ct.mark": 0x13, "ct.zone": 7}]))
        self.assertEqual((b"web", b"tenant"), (row["mark.name"], row["zone.name"]))
        (row,) = self.give(batch_of([{"oob.mark": 0x13}]))
        self.assertEqual((b"web", None), (row["mark.name"], row.get("zone.name")))
        rows = self.give(batch_of([{"ct.mark": 0x20, "ct.zone": 7}, {"octetDeltaCount": 1}]))
        self.assertEqual([None, None], [row.get("mark.name") for row in rows])
        self.assertEqual([b"tenant", None], [row.get("zone.name") for row in rows])

    def test_names_for_a_time(self):
        """That of the flow's end counts, else its start, else the clock of the batch, which is 0 here."""
        self.group(["src.net", "src.net.site"], columns=("site", "from", "until"), networks=self.write(
            "n", b"10.0.0.0/8,old,Bonn,,100\n10.0.0.0/8,new,Berlin,100\n"))  # fmt: skip
        rows = [{"sourceIPv4Address": "10.1.1.1", "flowStartMilliseconds": 99_000, "flowEndMilliseconds": 100_000},
                {"sourceIPv4Address": "10.1.1.1", "flowStartMilliseconds": 101_000},
                {"sourceIPv4Address": "10.1.1.1"}]  # fmt: skip
        found = self.give(batch_of(rows))
        self.assertEqual([b"new", b"new", b"old"], [row["src.net"] for row in found])
        self.assertEqual([b"Berlin", b"Berlin", b"Bonn"], [row["src.net.site"] for row in found])
        self.assertNotIn("src.net.from", found[0])

    def test_only_what_is_wanted(self):
        """Keys that nobody asks for are neither made nor cause others to be decoded."""
        group = self.group(["dst.net", "octetDeltaCount"], networks=self.write("n", NETWORKS),
                           services=self.write("s", SERVICES))  # fmt: skip
        self.assertEqual({"destinationAddress": False}, group.requests(group.wanted))
        self.assertEqual({"dst.net", "octetDeltaCount"}, self.give()[0].keys() - set(FLOWS[0]) | {"octetDeltaCount"})
        asked = group.requests(frozenset({"service"}))
        self.assertEqual({"sourceTransportPort", "destinationTransportPort", "protocolIdentifier"}, set(asked))

    def test_below(self):
        """MATCH chooses and AGGREGATE groups by names; rows without one are one group."""
        networks = self.write("n", NETWORKS)
        self.start((GROUP, {"networks": networks, "columns": ("site",)}),
                   (MATCH, {"match": 'src.net = "lab" or dst.net.site != "Berlin" or not exists dst.net'}),
                   (AGGREGATE, {"key": "src.net,dst.net", "interval": 60}))  # fmt: skip
        self.assertEqual([], self.give())
        self.graph.instances["f2"].flush()
        rows = [row for batch in self.graph.instances["keep"].batches for row in batch.rows()]
        found = {(row.get("src.net"), row.get("dst.net")): row["octets"] for row in rows}
        self.assertEqual({(b"lab", b"web"): 100, (None, None): 3}, found)

    def test_other_names(self):
        """Addresses of other plugins than the collector's are found by their element."""

        class LOUD(Filter):
            name = "LOUD"
            itype = otype = PACKET | FLOW
            provides = (Key("said", STRING), *(known(name) for name in ("orig.ip.saddr", "orig.ip.daddr")))

            def process(self, batch):
                renamed = {known("orig.ip.saddr").typed(batch.schema["sourceIPv4Address"].type):
                           batch.columns["sourceIPv4Address"]}  # fmt: skip
                return batch.select(["octetDeltaCount"]).with_columns(renamed)

        self.start((LOUD, {}), (GROUP, {"networks": self.write("n", NETWORKS)}))
        self.assertEqual([b"lab", b"web", None], self.column("src.net"))


class FilesTests(GroupCase):
    """Files that are wrong, or change."""

    def test_changes(self):
        """Each file is read again when it has changed, and only it."""
        path, services = self.write("n", NETWORKS), self.write("s", SERVICES)
        group = self.group(networks=path, services=services)
        before = group._services
        self.write("n", b"10.0.0.0/8,new\n")
        self.assertEqual([b"lab", b"web", None], self.column("src.net"))
        self.assertEqual(5.0, group.wake(0.0))
        self.assertEqual([b"new", None, None], self.column("src.net"))
        self.assertIs(before, group._services)
        group.reopen()
        self.assertIsNot(before, group._services)

    def test_wrong_later(self):
        """What was read before stays, and it is counted once."""
        group = self.group(networks=self.write("n", NETWORKS))
        self.write("n", b"10.0.0.0/8,new\n10.0.0.0/99,x\n")
        for _ in range(3):
            group.wake(0.0)
        self.assertEqual({"networks": 1}, dict(group.counters.errors))
        os.unlink(os.path.join(self.folder, "n"))
        group.wake(0.0)
        self.assertEqual([b"lab", b"web", None], self.column("src.net"))
        self.assertEqual({"networks": 1}, dict(group.counters.errors))

    def test_wrong_at_start(self):
        for option, octets, expected in (
            ("networks", b"10.0.0.0/8,x\nnonsense,x\n", "line 2: 'nonsense' is neither an address"),
            ("services", b"https\n", "line 1: 'https' is not a service"),
            ("country", b"nothing", "not a database in MaxMind's format"),
            ("asn", None, "No such file"),
        ):
            path = self.write(option, octets) if octets else "/nowhere/asn.mmdb"
            group = GROUP("g", Options(GROUP.all_options(), {option: path}))
            error = str(self.assertRaises(StartError, group.open))
            for part in (f"{option}: ", path, expected):
                self.assertIn(part, error)

    def test_mistakes(self):
        for options, expected in (
            ({}, "give at least one of networks, services, country, asn, interfaces, marks, zones"),
            ({"columns": ("site",), "services": "x"}, "needs networks=; set it"),
            ({"networks": "x", "columns": ("a.b",)}, "names of columns consist of letters and digits"),
        ):
            group = GROUP("g", Options(GROUP.all_options(), options))
            self.assertTrue(any(expected in text for _, text in group.mistakes()), options)
