"""What the output IPFIX sends, read by others: nfcapd with nfdump, tshark, TCP collectors that go away or are slow."""

import json
import os
import socket
import subprocess
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import numpy as np
from twisted.internet import defer, protocol, reactor, task, threads
from twisted.trial.unittest import TestCase

from tests.support import Daemon, free_port, require_program, require_root, sized
from tests.unit.exporting.doubles import V4, Reader, exporter, flows


def mixture():
    """Flows of all kinds: batches, and how many records they make."""
    ports = ("orig.l4.sport", "orig.l4.dport", "reply.l4.sport", "reply.l4.dport")
    return (
        flows(300),
        flows(50, reply__ip__daddr=V4["nat"], reply__l4__dport=30000 + np.arange(50), ct__id=1000 + np.arange(50)),
        flows(40, orig__ip__protocol=17, reply__raw__pktlen=0, reply__raw__pktcount=0, ct__id=2000 + np.arange(40)),
        flows(30, orig__ip__protocol=1, icmp__type=8, icmp__code=0, without=ports, ct__id=3000 + np.arange(30)),
        flows(60, six=True, ct__id=4000 + np.arange(60)),
        flows(20, six=True, orig__ip__protocol=58, icmpv6__type=128, icmpv6__code=0, without=ports,
              ct__id=5000 + np.arange(20)),
        flows(10, without=("orig.raw.pktlen", "orig.raw.pktcount", "reply.raw.pktlen", "reply.raw.pktcount"),
              ct__id=6000 + np.arange(10)),
    ), 2 * (300 + 50 + 30 + 60 + 20 + 10) + 40  # fmt: skip


def _output(argv):
    """What a program prints."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


class Server(protocol.Protocol):
    """One connection to the collector of a test; `reads` False: it takes nothing from its kernel."""

    def connectionMade(self):
        self.reader = Reader()
        self.ended = defer.Deferred()
        self.factory.connections.append(self)
        if not self.factory.reads:
            self.transport.pauseProducing()

    def dataReceived(self, data):
        self.reader.stream(data)

    def connectionLost(self, reason=protocol.connectionDone):
        self.ended.callback(None)


class ExportCase(TestCase):
    """An exporter in this process, collectors beside it."""

    timeout = 120

    def start(self, *batches, **options):
        plugin = exporter(*[b.schema for b in batches], **options)
        plugin.open()
        self.waking = task.LoopingCall(lambda: plugin.wake(time.time()))
        self.waking.start(0.1)
        self.stopped = None
        self.addCleanup(lambda: self.stop(plugin))
        return plugin

    def stop(self, plugin):
        if self.stopped is None:
            self.waking.stop()
            self.stopped = plugin.stop()
        return self.stopped

    def figures(self, plugin, place=0):
        return list(plugin.counters.as_dict()["collectors"].values())[place]

    def until(self, predicate, within=10.0):
        """Fires when the predicate holds; the reactor runs meanwhile."""
        deadline = time.monotonic() + within

        async def wait():
            while not predicate():
                self.assertLess(time.monotonic(), deadline, "not in time")
                await task.deferLater(reactor, 0.02, lambda: None)

        return defer.ensureDeferred(wait())

    def listen(self, reads=True, port=0, buffer=None):
        """A TCP collector; `connections` of the factory are its Transport Sessions."""
        factory = protocol.Factory.forProtocol(Server)
        factory.connections, factory.reads, factory.noisy = [], reads, False
        factory.port = reactor.listenTCP(port, factory, interface="127.0.0.1")
        if buffer:
            factory.port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.addCleanup(factory.port.stopListening)
        self.addCleanup(lambda: [c.transport.abortConnection() for c in factory.connections] and defer.gatherResults(
            [c.ended for c in factory.connections]))  # fmt: skip
        return factory


class NfcapdTests(ExportCase):
    """nfdump's collector and reader."""

    @defer.inlineCallbacks
    def test_udp(self):
        """nfcapd gets every record with the same figures, finds no error in the sequence, and knows every template."""
        batches, records = mixture()
        self.check((yield self.captured(batches, records)))

    @defer.inlineCallbacks
    def test_netflow9(self):
        """So it does over NetFlow v9, also with times as uptimes."""
        batches, records = mixture()
        self.check((yield self.captured(batches, records, version="9")))
        now = int(time.time())
        batch = flows(50, flow__start__sec=now - 5, flow__end__sec=now)
        rows = yield self.captured([batch], 100, version="9")
        self.assertEqual(sorted([*range(1000, 1050), *range(2**32, 2**32 + 50)]), sorted(r["in_bytes"] for r in rows))
        ((first, last),) = {(r["first"], r["last"]) for r in rows}
        self.assertEqual(datetime.fromtimestamp(now - 4.75).isoformat(timespec="milliseconds"), first)
        self.assertEqual((".250", ".999"), (first[-4:], last[-4:]))

    @defer.inlineCallbacks
    def test_netflow5(self):
        """Over v5 IPv4 only; counters beyond 32 bits are added up to the same sums."""
        now = {"flow__start__sec": int(time.time()) - 5, "flow__end__sec": int(time.time())}
        batches = flows(300, **now), flows(60, six=True)
        rows = yield self.captured(batches, 300 + 2 * 300, version="5")  # the reply's counters take two records
        self.assertEqual({"ipv6": 120}, dict(self.plugin.counters.dropped))
        octets = Counter()
        for row in rows:
            octets[row["src4_addr"]] += row["in_bytes"]
        self.assertEqual({"10.77.0.1": sum(range(1000, 1300)), "10.77.0.2": 300 * 2**32 + sum(range(300))}, octets)
        self.assertTrue(all(r["first"].endswith(".250") and r["last"].endswith(".999") for r in rows))
        self.assertEqual(1, len({(r["first"], r["last"]) for r in rows}))

    @defer.inlineCallbacks
    def test_options(self):
        """Options records disturb nothing."""
        for version in ("10", "9"):
            batches, records = mixture()
            self.check((yield self.captured(batches, records, version=version, options_interval=0.3)))
            self.assertGreaterEqual(self.figures(self.plugin)["options_sent"], 1 if version == "9" else 4)

    @defer.inlineCallbacks
    def captured(self, batches, records, **options):
        """The rows of nfdump's JSON of what nfcapd has got, without an error."""
        nfcapd, nfdump = require_program("nfcapd", "nfdump")
        folder, port = Path(self.mktemp()).resolve(), free_port("udp")
        folder.mkdir()
        log = folder.parent / "nfcapd.log"
        argv = [nfcapd, "-w", folder, "-p", port, "-b", "127.0.0.1", "-t", 3600]
        with Daemon(argv, lambda daemon: "Startup nfcapd" in log.read_text(), log=log) as daemon:
            plugin = self.plugin = self.start(*batches, collectors=(f"udp:127.0.0.1:{port}",), flush=0.2, **options)
            for batch in batches:
                plugin.write(batch)
            if "options_interval" in options:
                yield self.until(lambda: self.figures(plugin)["options_sent"])
            yield self.stop(plugin)
            figures = self.figures(plugin)
            self.assertEqual(records, figures["records_sent"] - figures["options_sent"])
            yield task.deferLater(reactor, 0.5, lambda: None)
            yield threads.deferToThread(daemon.stop)
        text = log.read_text()
        self.assertIn(f"Flows: {records}, ", text)
        self.assertIn("Sequence Errors: 0, Bad Packets: 0", text)
        return json.loads(_output([nfdump, "-R", folder, "-o", "json"]))

    def check(self, rows):
        """The rows of nfdump's JSON against what went in."""
        kinds = Counter((r["proto"], "src6_addr" in r) for r in rows)
        expected = {(6, False): 720, (17, False): 40, (1, False): 60, (6, True): 120, (58, True): 40}
        self.assertEqual(expected, dict(kinds))
        tcp = [r for r in rows if r["proto"] == 6 and "src4_addr" in r and r["in_packets"]]
        original = [r for r in tcp if r["src4_addr"] == "10.77.0.1"]
        self.assertEqual(350, len(original))
        self.assertEqual({10}, {r["in_packets"] for r in original})
        self.assertEqual(sorted([*range(1000, 1300), *range(1000, 1050)]), sorted(r["in_bytes"] for r in original))
        replies = [r for r in tcp if r["src4_addr"] == "10.77.0.2"]
        self.assertEqual({20}, {r["in_packets"] for r in replies})
        self.assertEqual(2**32, min(r["in_bytes"] for r in replies))
        self.assertTrue(all(r["first"].endswith(":20.250") and r["last"].endswith(":25.999") for r in rows))
        self.assertEqual({"192.0.2.1"}, {r["src4_xlt_ip"] for r in original if "src4_xlt_ip" in r})
        self.assertEqual({8}, {r["icmp_type"] for r in rows if r["proto"] == 1 and r["src4_addr"] == "10.77.0.1"})


class TsharkTests(ExportCase):
    """Wireshark's dissector on a capture of loopback."""

    @defer.inlineCallbacks
    def dissected(self, scheme, port, **options):
        """Every message of an export as tshark prints it."""
        require_root()
        tshark, tcpdump = require_program("tshark", "tcpdump")
        capture = Path(self.mktemp()).resolve()
        if "options_interval" in options:  # nothing is told to a host that refuses
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sink.bind(("127.0.0.1", port))
            self.addCleanup(sink.close)
        argv = [tcpdump, "-i", "lo", "-U", "-w", capture, "-s", "0", "-B", "8192", "-Z", "root", scheme, "port", port]
        batches, records = mixture()
        with Daemon(argv, lambda daemon: capture.exists() and capture.stat().st_size >= 24) as daemon:
            yield task.deferLater(reactor, 0.5, lambda: None)
            plugin = self.start(*batches, collectors=(f"{scheme}:127.0.0.1:{port}",), flush=0.2, mtu=1400,
                                **options)  # fmt: skip
            yield self.until(lambda: self.figures(plugin)["state"] in ("open", "connected"))
            if scheme == "udp":  # a capture on this side shows the datagrams of one call before they are cut apart
                plugin.collectors[0].sender._segments = False
            for batch in batches:
                plugin.write(batch)
            if "options_interval" in options:
                yield self.until(lambda: self.figures(plugin)["options_sent"])
            yield self.stop(plugin)
            yield task.deferLater(reactor, 0.5, lambda: None)
            yield threads.deferToThread(daemon.stop)
        if not options:
            self.assertEqual(records, self.figures(plugin)["records_sent"])
        read = [tshark, "-r", capture, "-d", f"{scheme}.port=={port},cflow"]
        wrong = _output([*read, "-Y", "cflow && (_ws.malformed || _ws.expert)"])
        return records, _output([*read, "-T", "ek", "-J", "cflow"]), wrong

    @defer.inlineCallbacks
    def check(self, scheme, port):
        records, found, wrong = yield self.dissected(scheme, port)
        self.assertEqual("", wrong)
        octets = Counter()
        ids = Counter()
        for line in found.splitlines():
            cflow = json.loads(line).get("layers", {}).get("cflow")
            for message in cflow if isinstance(cflow, list) else [cflow] if cflow else []:
                octets.update(map(int, _all(message, "cflow_cflow_octets")))
                ids.update(map(int, _all(message, "cflow_cflow_flow_id")))
        self.assertEqual(records, ids.total())
        self.assertEqual((300 + 50 + 60 + 30 + 20 + 10, 40), (list(ids.values()).count(2), list(ids.values()).count(1)))
        expected = Counter()
        for count in (300, 50, 30, 60, 20):
            expected.update([*range(1000, 1000 + count), *range(2**32, 2**32 + count)])
        expected.update(range(1000, 1040))
        self.assertEqual(expected, octets)

    def test_udp(self):
        """tshark reads every record over UDP without a complaint."""
        return self.check("udp", free_port("udp"))

    @defer.inlineCallbacks
    def test_other_forms(self):
        """So it does with biflows, and over NetFlow v9 and v5; and what the exporter tells about itself."""
        told = {"options_interval": 0.2}
        for options in ({"fields": "biflow", **told}, {"version": "9", **told}, {"version": "5"}):
            _, found, wrong = yield self.dissected("udp", free_port("udp"), **options)
            self.assertEqual(("", True), (wrong, '"cflow_cflow_srcaddr"' in found), options)
            if "options_interval" in options:
                self.assertTrue('"cflow_cflow_sampling_interval":"1"' in found)

    def test_tcp(self):
        """tshark reads every record over TCP without a complaint."""
        factory = self.listen()
        return self.check("tcp", factory.port.getHost().port)


def _all(tree, name):
    """Every value of a field, wherever it stands."""
    if isinstance(tree, list):
        for item in tree:
            yield from _all(item, name)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == name:
                yield from value if isinstance(value, list) else [value]
            else:
                yield from _all(value, name)


class TcpTests(ExportCase):
    """Collectors over real TCP connections."""

    @defer.inlineCallbacks
    def test_goes_away_in_order_and_returns(self):
        """A collector that closes and returns gets every record once; each session is from 0 and has its templates."""
        factory = self.listen()
        port = factory.port.getHost().port
        plugin = self.start(flows(1), collectors=(f"tcp:localhost:{port}",), reconnect=0.3, flush=0.05)
        yield self.until(lambda: factory.connections)
        for i in range(20):
            plugin.write(flows(200, ct__id=200 * i + np.arange(200)))
            yield task.deferLater(reactor, 0.03, lambda: None)
            if i == 6:
                first = factory.connections[0]
                yield self.until(lambda first=first: len(first.reader.records) == 7 * 400)
                yield factory.port.stopListening()
                first.transport.loseConnection()
                yield first.ended
            if i == 14:
                again = self.listen(port=port)
        yield self.until(lambda: again.connections)
        yield self.stop(plugin)
        readers = [c.reader for c in factory.connections + again.connections]
        yield self.until(lambda: sum(len(r.records) for r in readers) >= 8000)
        self.assertEqual([[], []], [r.gaps for r in readers])
        self.assertEqual([0, 0], [r.unreadable for r in readers])
        seen = Counter((record[148], record[61]) for r in readers for _, record in r.records)
        self.assertEqual((8000, {1}), (len(seen), set(seen.values())))
        figures = self.figures(plugin)
        self.assertEqual((2, 8000, {}), tuple(figures[k] for k in ("connects", "records_sent", "dropped")))

    @defer.inlineCallbacks
    def test_is_reset_while_it_reads_nothing(self):
        """After a reset only what the collector's kernel had taken is missing."""
        factory = self.listen(reads=False, buffer=4096)
        port = factory.port.getHost().port
        plugin = self.start(flows(1), collectors=(f"tcp:127.0.0.1:{port}",), reconnect=0.3, flush=0.05, mtu=2000)
        yield self.until(lambda: factory.connections)
        n = 40_000
        for i in range(8):
            plugin.write(flows(n // 8, ct__id=n // 8 * i + np.arange(n // 8), orig__l4__sport=1, reply__l4__dport=1))
        yield task.deferLater(reactor, 0.5, lambda: None)
        self.assertGreater(self.figures(plugin)["octets_unacknowledged"], 0)
        factory.reads = True
        factory.connections[0].transport.abortConnection()
        yield self.until(lambda: len(factory.connections) == 2)
        yield self.stop(plugin)
        yield factory.connections[1].ended
        reader = factory.connections[1].reader
        self.assertEqual(([], 0), (reader.gaps, reader.unreadable))
        seen = Counter((record[148], record[61]) for _, record in reader.records)
        self.assertEqual({1}, set(seen.values()))
        missing = 2 * n - len(seen)
        self.assertLess(missing * 55, 16384)
        self.assertGreater(self.figures(plugin)["records_resent"], 0)
        self.assertEqual(2 * n, self.figures(plugin)["records_sent"])

    @defer.inlineCallbacks
    def test_slow(self):
        """A collector that reads nothing costs bounded memory, and the other one misses nothing."""
        slow, fast = self.listen(reads=False), self.listen()
        urls = [f"tcp:127.0.0.1:{f.port.getHost().port}" for f in (slow, fast)]
        batch = flows(20_000, orig__l4__sport=1, reply__l4__dport=1)
        plugin = self.start(batch, collectors=urls, collector_octets=2 << 20, flush=0.05)
        yield self.until(lambda: slow.connections and fast.connections)
        before, rounds = _memory(), sized(60, 600)
        records = fast.connections[0].reader.records
        for _ in range(rounds):
            yield plugin.write(batch)
            yield self.until(lambda: len(records) >= 39_000)
            records.clear()
            figures = self.figures(plugin)
            self.assertLessEqual(figures["octets_waiting"], (2 << 20) + 16384)
        grown = _memory() - before
        self.assertLess(grown, 64 << 20, f"{rounds * 2.2:.0f} MB were exported")
        self.assertGreater(self.figures(plugin)["dropped"]["queue_full"], 0)
        self.assertEqual({}, self.figures(plugin, 1)["dropped"])
        self.assertEqual([], fast.connections[0].reader.gaps)
        slow.connections[0].transport.abortConnection()


def _memory():
    """Octets of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
