"""IPFIX over SCTP: the exporter in this process, the collector in another, over UDP and over IP; tshark looks on."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from twisted.internet import defer, endpoints, protocol, reactor, task, threads
from twisted.trial.unittest import SkipTest, TestCase

from tests.live.sctp_in_kernel import Peer
from tests.live.service import Service, temporary, unaccounted
from tests.live.test_ipfix_export import ExportCase, _all, _output, mixture
from tests.support import (
    TOP,
    Daemon,
    NetworkNamespaces,
    free_port,
    require_library,
    require_netns,
    require_program,
    require_root,
)
from tests.unit.exporting.doubles import flows
from ulogd_tw.transports.namespace import inside

CONFIG = """
[col1]
listen="sctp:{host}:4739"
encapsulation_port={port}
sctp_rto_max=1
[json1]
file="{dir}/flows.json"
"""


_WRONG = 'sctp && (_ws.malformed || cflow && _ws.expert && !(_ws.expert.message contains "flow sequence"))'
"""What tshark complains about; it knows no Sequence Numbers of streams (seen with 4.0), so the test counts itself."""


def batches(n, count, first=0):
    """`count` batches of `n` connections, each with an id of its own."""
    return [flows(n, ct__id=first + n * i + np.arange(n)) for i in range(count)]


class SctpCase(ExportCase):
    """A collector, and an exporter that sends to it."""

    timeout = 120

    def setUp(self):
        require_library("libusrsctp.so.2", "libusrsctp2")
        self.port = free_port("udp")

    def collector(self, host="127.0.0.1", port=None, **keywords):
        port = self.port if port is None else port
        shown = f"[{host}]" if ":" in host else host
        config = CONFIG.replace("{host}", shown).replace("{port}", str(port))
        service = Service(["col1:COLLECTOR,json1:JSON"], config, **keywords)
        self.addCleanup(threads.deferToThread, service.stop)
        return threads.deferToThread(service.start).addCallback(lambda _: service)

    def export(self, host="127.0.0.1", **options):
        shown = f"[{host}]" if ":" in host else host
        options = {"encapsulation_port": self.port, "flush": 0.05, "reconnect": 0.5, "sctp_rto_max": 1.0} | options
        return self.start(flows(1), collectors=(f"sctp:{shown}:4739",), **options)

    def rows(self, service):
        """(flowId, flowDirection) of every record that was stored, with how often."""
        path = service.directory / "flows.json"
        lines = path.read_text().splitlines() if path.exists() else []
        found = map(json.loads, lines)
        return Counter((row["flowId"], row["flowDirection"]) for row in found)

    def stored(self, service, n, within=20.0):
        path = service.directory / "flows.json"
        return self.until(lambda: path.exists() and path.read_bytes().count(b"\n") >= n, within)

    def assert_once(self, service, n):
        rows = self.rows(service)
        self.assertEqual((n, {1}), (len(rows), set(rows.values())))


class EncapsulatedTests(SctpCase):
    """Within UDP (RFC 6951)."""

    @defer.inlineCallbacks
    def everything_once(self, host):
        service = yield self.collector(host)
        plugin = self.export(host, mtu=1400)
        for batch in batches(500, 10):
            plugin.write(batch)
        yield self.until(lambda: self.figures(plugin)["state"] == "connected")
        yield self.stop(plugin)
        figures = self.figures(plugin)
        self.assertEqual((10_000, {}, 0), (figures["records_sent"], figures["dropped"], figures["records_resent"]))
        yield self.stored(service, 10_000)
        yield threads.deferToThread(service.stop)
        self.assert_once(service, 10_000)
        counters = service.all_counters()
        self.assertEqual(({}, {}), (counters["col1"]["lost"], counters["col1"]["errors"]))
        self.assertEqual({}, unaccounted(counters))

    def test_ipv4(self):
        """10,000 records arrive once over several streams, whose Sequence Numbers have no gap."""
        return self.everything_once("127.0.0.1")

    def test_ipv6(self):
        """The same over IPv6."""
        return self.everything_once("::1")

    @defer.inlineCallbacks
    def test_collector_is_killed(self):
        """What the killed collector had not acknowledged, and what comes while it is away, arrives at the next one."""
        service = yield self.collector()
        plugin = self.export()
        for batch in batches(250, 4):
            plugin.write(batch)
        yield self.stored(service, 2000)
        yield threads.deferToThread(service.kill)
        for batch in batches(500, 8, first=1000):
            plugin.write(batch)
            yield task.deferLater(reactor, 0.05, lambda: None)
        yield threads.deferToThread(service.start)
        yield self.until(lambda: self.figures(plugin)["connects"] == 2, 20)
        yield self.stop(plugin)
        yield self.stored(service, 10_000)
        yield threads.deferToThread(service.stop)
        self.assert_once(service, 10_000)
        self.assertEqual((10_000, {}), tuple(self.figures(plugin)[k] for k in ("records_sent", "dropped")))

    @defer.inlineCallbacks
    def test_collector_stops_in_order(self):
        """A collector that stops reads what is under way: over its restart every record arrives once."""
        service = yield self.collector()
        plugin = self.export()
        for i, batch in enumerate(batches(250, 40)):
            plugin.write(batch)
            yield task.deferLater(reactor, 0.02, lambda: None)
            if i == 10:
                stopping = threads.deferToThread(service.stop)
        yield stopping
        yield threads.deferToThread(service.start)
        yield self.until(lambda: self.figures(plugin)["connects"] == 2, 20)
        yield self.stop(plugin)
        yield self.stored(service, 20_000)
        self.assert_once(service, 20_000)

    @defer.inlineCallbacks
    def test_a_peer_that_is_silent(self):
        """A collector that answers no more is given up after the retransmissions, and found again when it is back."""
        service = yield self.collector()
        plugin = self.export(sctp_retransmissions=2, sctp_rto_max=0.5)
        yield self.until(lambda: self.figures(plugin)["state"] == "connected")
        plugin.write(batches(100, 1)[0])
        yield self.stored(service, 200)
        os.kill(service.pid, signal.SIGSTOP)
        self.addCleanup(lambda: service.pid and os.kill(service.pid, signal.SIGCONT))
        plugin.write(batches(100, 1, 100)[0])
        yield self.until(lambda: self.figures(plugin)["state"] != "connected", 20)
        self.assertEqual(200, self.figures(plugin)["records_resent"])
        os.kill(service.pid, signal.SIGCONT)
        yield self.until(lambda: self.figures(plugin)["connects"] == 2, 20)
        yield self.stop(plugin)
        yield self.stored(service, 400)

    @defer.inlineCallbacks
    def test_nobody_there(self):
        """ICMP tells soon that nobody has the UDP port; the next attempt comes after `reconnect`."""
        plugin = self.export()
        yield self.until(lambda: self.figures(plugin)["last_error"], 2)
        self.assertIn("refused", self.figures(plugin)["last_error"])
        plugin.write(batches(100, 1)[0])
        service = yield self.collector()
        yield self.until(lambda: self.figures(plugin)["state"] == "connected")
        yield self.stop(plugin)
        yield self.stored(service, 200)

    @defer.inlineCallbacks
    def test_heartbeats(self):
        """A collector that answers no more is noticed although there is nothing to send."""
        service = yield self.collector()
        plugin = self.export(sctp_retransmissions=1, sctp_rto_max=0.3, sctp_heartbeat=0.3)
        yield self.until(lambda: self.figures(plugin)["state"] == "connected")
        yield task.deferLater(reactor, 2.0, lambda: None)
        self.assertEqual((1, "connected"), tuple(self.figures(plugin)[k] for k in ("connects", "state")))
        os.kill(service.pid, signal.SIGSTOP)
        self.addCleanup(lambda: service.pid and os.kill(service.pid, signal.SIGCONT))
        yield self.until(lambda: self.figures(plugin)["state"] != "connected", 10)
        self.assertEqual(1, self.figures(plugin)["unreachable"])

    @defer.inlineCallbacks
    def test_tshark(self):
        """tshark reads every record, on more than one stream, without a complaint."""
        require_root()
        tshark, tcpdump = require_program("tshark", "tcpdump")
        yield self.collector()
        capture = Path(self.mktemp()).resolve()
        argv = [tcpdump, "-i", "lo", "-U", "-w", capture, "-s", "0", "-Z", "root", "udp", "port", self.port]
        given, records = mixture()
        with Daemon(argv, lambda daemon: capture.exists() and capture.stat().st_size >= 24) as daemon:
            yield task.deferLater(reactor, 0.5, lambda: None)
            plugin = self.start(
                *given, collectors=("sctp:127.0.0.1:4739",), encapsulation_port=self.port, flush=0.2, mtu=1400
            )
            for batch in given:
                plugin.write(batch)
            yield self.until(lambda: self.figures(plugin)["state"] == "connected")
            yield self.stop(plugin)
            yield task.deferLater(reactor, 0.5, lambda: None)
            yield threads.deferToThread(daemon.stop)
        self.assertEqual(records, self.figures(plugin)["records_sent"])
        read = [tshark, "-r", capture, "-d", f"udp.port=={self.port},sctp", "-d", "sctp.port==4739,cflow"]
        self.assertEqual("", _output([*read, "-Y", _WRONG]))
        sent = Counter()
        for line in _output([*read, "-T", "ek", "-J", "cflow sctp"]).splitlines():
            layers = json.loads(line).get("layers", {})
            for cflow in [layers["cflow"]] if "cflow" in layers else []:
                (stream,) = _all(layers["sctp"], "sctp_sctp_data_sid")
                self.assertEqual([str(sent[stream])], list(_all(cflow, "cflow_cflow_sequence")))
                sent[stream] += len(list(_all(cflow, "cflow_cflow_flow_id")))
        self.assertEqual(records, sent.total())
        self.assertGreater(len(+sent), 4)


class EndpointTests(TestCase):
    """Endpoint strings."""

    timeout = 120

    @defer.inlineCallbacks
    def test_exchange(self):
        """A server and a client made of strings exchange messages, and end in order."""
        require_library("libusrsctp.so.2", "libusrsctp2")
        udp, served = free_port("udp"), []
        factory = protocol.Factory.forProtocol(Peer)
        factory.buildProtocol = lambda address: served.append(Peer()) or served[-1]
        server = endpoints.serverFromString(reactor, f"sctp:4742:interface=127.0.0.1:encapsulation={udp}:streams=3")
        port = yield server.listen(factory)
        self.assertEqual(("127.0.0.1", 4742, udp), tuple(port.getHost()))
        string = f"sctp:host=127.0.0.1:port=4742:encapsulation={udp}"
        client = yield endpoints.clientFromString(reactor, string).connect(protocol.Factory.forProtocol(Peer))
        self.assertEqual(3, served[0].transport.streams)
        client.transport.write(b"there", 2, 5)
        served[0].transport.write(b"back")
        client.transport.loseConnection()
        yield defer.gatherResults([client.ended, served[0].ended])
        self.assertEqual(([(b"there", 2, 5)], [(b"back", 0, 0)]), (served[0].got, client.got))
        port.stopListening()


_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
modules=/usr/lib/uml/modules/$(uname -r)
needed=""
for one in $(grep "^kernel/net/sctp/sctp.ko:" $modules/modules.dep | cut -d: -f2); do needed="$one $needed"; done
for one in kernel/crypto/hmac.ko $needed kernel/net/sctp/sctp.ko; do busybox insmod $modules/$one; done
ip link set lo up
echo 9899 >/proc/sys/net/sctp/udp_port
cd {top}
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={top}
timeout 60 {python} -m twisted.trial --reporter=text --temp-directory=/run/trial tests.live.sctp_in_kernel
busybox poweroff -f
"""


class KernelTests(TestCase):
    """The kernel's SCTP, in a kernel that has it: user-mode-linux on this root file system, read-only."""

    timeout = 100

    def test_in_user_mode_linux(self):
        """Everything in `sctp_in_kernel` passes."""
        require_root()
        linux, _ = require_program("linux.uml", "busybox")
        require_library("libusrsctp.so.2", "libusrsctp2")
        init = temporary("uml") / "init"
        init.write_text(_INIT.format(top=TOP, python=sys.executable))
        init.chmod(0o755)
        argv = [linux, "mem=256M", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "con=null"]
        done = subprocess.run(
            [*argv, "con0=null,fd:1"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
        )
        if "Run " + str(init) not in done.stdout:
            said = (done.stdout + done.stderr)[-500:]
            raise SkipTest(f"needs user-mode-linux, which does not start here: {said}")
        self.assertIn("Ran 11 tests", done.stdout)
        self.assertIn("PASSED (successes=11)", done.stdout, done.stdout[-3000:])


class RawTests(SctpCase):
    """Straight in IP (protocol 132), in a network namespace."""

    @defer.inlineCallbacks
    def everything_once(self, of, space):
        require_root()
        require_netns()
        with NetworkNamespaces() as spaces:
            host = of(spaces)
            service = yield self.collector(host, 0, namespace=lambda argv: spaces.argv("b", argv))
            with inside(f"/run/netns/{spaces.names[space]}"):
                plugin = self.export(host, encapsulation_port=0)
            for batch in batches(500, 10):
                plugin.write(batch)
            yield self.until(lambda: self.figures(plugin)["state"] == "connected")
            yield self.stop(plugin)
            yield self.stored(service, 10_000)
            yield threads.deferToThread(service.stop)
        self.assert_once(service, 10_000)
        self.assertEqual({}, service.counters("col1")["lost"])

    def test_ipv4(self):
        """10,000 records arrive once, from one host to another."""
        return self.everything_once(lambda spaces: spaces.ipv4["b"], "a")

    def test_ipv6(self):
        """The same over IPv6."""
        return self.everything_once(lambda spaces: spaces.ipv6["b"], "a")

    def test_one_machine(self):
        """The same with both ends on one machine, each of which sees all packets of the other."""
        return self.everything_once(lambda spaces: "127.0.0.1", "b")
