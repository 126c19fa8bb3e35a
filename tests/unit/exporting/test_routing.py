"""mode=failover and mode=balance of the output IPFIX."""

from collections import Counter

import numpy as np

from tests.unit.exporting.doubles import V4, V6, Reader, flows
from tests.unit.plugins.outputs.test_ipfix import ExporterCase
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.keys import known
from ulogd_tw.core.networks import networks
from ulogd_tw.core.options import Options
from ulogd_tw.exporting import rules
from ulogd_tw.peers import targets

THREE = ("udp:192.0.2.1", "udp:192.0.2.2", "udp:192.0.2.3")


class RoutingCase(ExporterCase):
    """What each socket or connection got."""

    def of_sockets(self):
        """The flow ids and addresses that each socket got since the last time."""
        found = []
        for made in self.sockets:
            reader = made.__dict__.setdefault("reader", Reader())
            for datagram in made.sent:
                reader.message(datagram)
            made.sent.clear()
            found.append([record for _, record in reader.records])
            reader.records.clear()
        return found

    def of(self, transport):
        reader = transport.__dict__.setdefault("reader", Reader())
        reader.stream(transport.taken())
        found = [record for _, record in reader.records]
        reader.records.clear()
        return found


class BalanceTests(RoutingCase):
    """Each flow to one collector."""

    def send(self, plugin, batch):
        plugin.write(batch)
        plugin.flush()
        self.all_bursts(plugin)
        return self.of_sockets()

    def ids(self, found):
        return [{record[148] for record in records} for records in found]

    def test_shares(self):
        """Every record goes to one; each gets about its share; both directions of a flow are together."""
        batch = flows(3000)
        plugin = self.exporter(batch, collectors=THREE, mode="balance")
        found = self.send(plugin, batch)
        self.assertEqual(6000, sum(map(len, found)))
        self.assertEqual(3000, len(set().union(*self.ids(found))))
        for records, ids in zip(found, self.ids(found), strict=True):
            self.assertTrue(800 < len(ids) < 1200, len(ids))
            self.assertEqual({2}, set(Counter(record[148] for record in records).values()))

    def test_reverse(self):
        """A flow and its reverse of another exporter go the same way, of both families."""
        for six in (False, True):
            ends = V6 if six else V4
            forward = flows(500, six=six)
            back = flows(500, six=six, orig__ip__saddr=ends["b"], orig__ip__daddr=ends["a"], orig__l4__sport=443,
                         orig__l4__dport=1024 + np.arange(500))  # fmt: skip
            plugin = self.exporter(forward, collectors=THREE, mode="balance")
            self.sockets = self.sockets[-3:]
            self.assertEqual(self.ids(self.send(plugin, forward)), self.ids(self.send(plugin, back)))

    def test_stable(self):
        """When one is away its flows go to the others and all others stay; when it is back all is as before."""
        batch = flows(2000)
        plugin = self.exporter(batch, collectors=THREE, mode="balance")
        before = self.ids(self.send(plugin, batch))
        plugin.collectors[1]._away = True
        without = self.ids(self.send(plugin, batch))
        self.assertEqual(set(), without[1])
        self.assertTrue(before[0] < without[0] and before[2] < without[2])
        self.assertEqual(before[1], (without[0] | without[2]) - before[0] - before[2])
        plugin.collectors[1]._away = False
        self.assertEqual(before, self.ids(self.send(plugin, batch)))

    def test_order_of_collectors(self):
        """The same collectors in another order get the same flows."""
        batch = flows(500)
        one = self.ids(self.send(self.exporter(batch, collectors=THREE, mode="balance"), batch))
        self.sockets.clear()
        two = self.ids(self.send(self.exporter(batch, collectors=THREE[::-1], mode="balance"), batch))
        self.assertEqual(one, two[::-1])

    def test_refused(self):
        """A UDP collector that refuses is away until nobody refuses the templates that are sent again."""
        batch = flows(300)
        plugin = self.exporter(batch, collectors=THREE, mode="balance")
        self.send(plugin, batch)
        away = plugin.collectors[0]
        away.sender.errors["refused"] += 1
        self.tick(plugin)
        self.assertFalse(away.available)
        away.sender.errors["refused"] += 1
        self.tick(plugin)
        self.assertFalse(away.available)
        self.tick(plugin)
        self.assertTrue(away.available)


class FailoverTests(RoutingCase):
    """The first that is there."""

    def start(self, *collectors, **options):
        self.batch = flows(50)
        return self.exporter(self.batch, collectors=collectors, mode="failover", **options)

    def test_first(self):
        """TCP-4: everything goes to the first while it is there, nothing to the second, which is connected."""
        plugin = self.start("tcp:192.0.2.1", "tcp:192.0.2.2")
        first, second = self.connect(0), self.connect(1)
        plugin.write(self.batch)
        plugin.flush()
        self.assertEqual((100, 0), (len(self.of(first)), len(self.of(second))))

    def test_away_and_back(self):
        """When it goes, what was not acknowledged and what comes goes to the second; when it is back, to the first."""
        plugin = self.start("tcp:192.0.2.1", "tcp:192.0.2.2", reconnect=5.0)
        first, second = self.connect(0), self.connect(1)
        plugin.write(self.batch)
        plugin.flush()
        self.assertEqual(100, len(self.of(first)))
        self.unacknowledged = 1 << 20
        self.lose(first)
        self.unacknowledged = 0
        self.tick(plugin)
        self.assertEqual(100, len(self.of(second)))
        plugin.write(self.batch)
        plugin.flush()
        self.assertEqual(100, len(self.of(second)))
        self.assertEqual(100, self.figures(plugin)["records_moved"])
        self.reactor.advance(10)
        again = self.connect()
        plugin.write(self.batch)
        plugin.flush()
        self.assertEqual((100, 0), (len(self.of(again)), len(self.of(second))))

    def test_none_yet(self):
        """At the start rows wait for the first; if it cannot be reached they go to the second."""
        plugin = self.start("tcp:192.0.2.1", "tcp:192.0.2.2")
        plugin.write(self.batch)
        plugin.flush()
        self.assertEqual(100, self.figures(plugin)["records_waiting"])
        second = self.connect(1)
        self.tick(plugin)
        self.assertEqual([], self.of(second))  # the first is still being tried
        self.refuse(0)
        self.tick(plugin)
        self.assertEqual(100, len(self.of(second)))
        self.assertEqual(0, sum(self.figures(plugin, i)["records_waiting"] for i in (0, 1)))

    def test_all_away(self):
        """When none can be reached rows wait, and go to the first that comes."""
        plugin = self.start("tcp:192.0.2.1", "tcp:192.0.2.2", reconnect=5.0)
        self.refuse(0)
        self.refuse(1)
        plugin.write(self.batch)
        self.tick(plugin)
        self.reactor.advance(10)
        second = self.connect(3)
        self.tick(plugin)
        self.assertEqual(100, len(self.of(second)))

    def test_to_datagrams(self):
        """Long messages for TCP are cut anew for a UDP collector that takes over."""
        plugin = self.start("tcp:192.0.2.1", "udp:192.0.2.2")
        batch = flows(500)
        plugin.write(batch)
        plugin.flush()
        self.refuse(0)
        self.tick(plugin)
        (found,) = self.of_sockets()
        self.assertEqual(1000, len(found))


class RulesTests(RoutingCase):
    """Which flows a collector may get."""

    def start(self, *batches, own=None, **options):
        """`own`: the options of sections [collector:WORD] by word."""
        sections = {word: Options(targets.SECTION, values) for word, values in (own or {}).items()}
        plugin = self.exporter(*batches, collectors=THREE, sections=sections, **options)
        self.plugin = plugin
        return plugin

    def send(self, plugin, *batches):
        for batch in batches:
            plugin.write(batch)
        plugin.flush()
        return [{record[148] for record in records} for records in self.of_sockets()]

    def test_networks(self):
        """Flows of which an address is in one of the prefixes: of either end, before or after translation."""
        batch = flows(4, orig__ip__saddr=[0x0A000001, 0x0A000101, 1, 2], reply__ip__daddr=[5, 6, 0x0A0000FF, 7],
                      orig__ip__daddr=9, reply__ip__saddr=9)  # fmt: skip
        six = flows(2, six=True, ct__id=[200, 201], orig__ip__saddr=[V6["a"], (0x20010DB8 << 32, 1)])
        own = {THREE[0]: {"networks": networks("10.0.0.0/24 2001:db8::/32")},
               THREE[1]: {"networks": networks("0.0.0.0/0")}}  # fmt: skip
        found = self.send(self.start(batch, six, own=own), batch, six)
        self.assertEqual([{100, 102, 201}, {100, 101, 102, 103}, {100, 101, 102, 103, 200, 201}], found)

    def test_marks(self):
        batch = flows(4, ct__mark=[0x10, 0x11, 0x20, 0], missing={"ct.mark": [False, False, False, True]})
        own = {THREE[0]: {"marks": rules.marks("0x10/0xf0")}, THREE[1]: {"marks": rules.marks("0x11 0x20")}}
        found = self.send(self.start(batch, own=own), batch)
        self.assertEqual([{100, 101}, {101, 102}, {100, 101, 102, 103}], found)

    def test_nobody(self):
        """Rows that no collector may get are counted as filtered."""
        batch = flows(5)
        own = {word: {"networks": networks("192.0.2.0/24")} for word in THREE}
        self.assertEqual([set()] * 3, self.send(self.start(batch, own=own), batch))
        self.assertEqual(5, self.plugin.counters.rows_filtered)

    def test_key(self):
        """What a filter has said by export.to: names of collectors; rows without it go to all."""
        batch = flows(3)
        words = [THREE[0].encode(), f"{THREE[1]}:4739 {THREE[2]}".encode(), b""]
        said = batch.with_columns({known("export.to"): Octets.of(words)}, {"export.to": np.array([False, False, True])})
        found = self.send(self.start(said), said)
        self.assertEqual([{100, 102}, {101, 102}, {101, 102}], found)
        coded = batch.with_columns({known("export.to"): Coded(np.array([0, 1, 1]), words[:2])})
        self.assertEqual([{100}, {101, 102}, {101, 102}], self.send(self.plugin, coded))

    def test_failover(self):
        """The first that is there, of those that may get it."""
        batch = flows(2, orig__ip__saddr=[0x0A000001, 1], reply__ip__daddr=[0x0A000001, 1])
        own = {THREE[0]: {"networks": networks("10.0.0.0/24")}}
        found = self.send(self.start(batch, own=own, mode="failover"), batch)
        self.assertEqual([{100}, {101}, set()], found)

    def test_moves(self):
        """What waits for one that is away goes to none that may not have it."""
        batch = flows(2)
        own = {THREE[0]: {"networks": networks("10.0.0.0/8")}}
        plugin = self.start(batch, own=own, mode="failover")
        self.assertFalse(plugin._routing._alike(0, 1))
        self.assertTrue(plugin._routing._alike(1, 2))

    def test_mistakes(self):
        for read, text in ((rules.marks, "5/4"),
                           (rules.marks, "-1"), (rules.marks, "x")):  # fmt: skip
            self.assertRaises(ValueError, read, text)
