"""NFACCT: when it asks, what becomes of the answers."""

import errno
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.netfilter.test_nfacct import message
from tests.unit.transports.test_multi_message_port import AskedKernel, acknowledgement
from tests.unit.transports.test_netlink import Reactor, netlink
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.inputs.nfacct import NFACCT
from ulogd_tw.transports.netlink.request_port import RequestPort


class NfacctTests(SynchronousTestCase):
    """An instance with a kernel of our own."""

    def make(self, codes=(errno.ENOENT,), wanted=ALL, **values):
        self.kernel, self.clock, self.rows = AskedKernel(codes), Reactor(), []
        self.clock.advance(1000.5)
        plugin = NFACCT("acct1", Options(NFACCT.options, values or {"pollinterval": 10}), reactor=self.clock)
        plugin.clock = self.clock.seconds
        plugin.wanted = wanted
        plugin.emit = lambda batch: self.rows.extend(batch.rows())
        self.patch(RequestPort, "make_socket", self.kernel)
        self.patch(RequestPort, "make_slab", self.kernel.slab)
        return plugin

    def started(self, **keywords):
        plugin = self.make(**keywords)
        plugin.open()
        plugin.begin()
        self.addCleanup(plugin.stop)
        return plugin, next(iter(self.clock.readers))

    def answer(self, port, *messages):
        """The kernel's answer to the query that was sent last."""
        sequence = self.kernel.sent[-1][8:12]
        self.kernel.queue.extend(
            (octets[:8] + sequence + (4242).to_bytes(4, "little") + octets[16:], 0) for octets in messages
        )
        port.doRead()

    def test_options(self):
        """ulogd2's options with its defaults; the interval must be given, as in ulogd2."""
        declared = {option.name: option.default for option in NFACCT.options}
        self.assertEqual([declared[name] for name in ("pollinterval", "zerocounter", "timestamp")], [0, True, False])
        self.assertEqual([name for name, _ in self.make(pollinterval=0).mistakes()], ["pollinterval"])
        self.assertEqual(list(self.make(pollinterval=1).mistakes()), [])

    def test_keys(self):
        """The time only where it is asked for."""
        names = [[k.name for k in self.make(pollinterval=1, timestamp=on).keys()] for on in (False, True)]
        self.assertEqual(names, [["sum.name", "sum.pkts", "sum.bytes"],
                                 ["sum.name", "sum.pkts", "sum.bytes", "oob.time.sec", "oob.time.usec"]])  # fmt: skip

    def test_when(self):
        """First after one interval, then at each, whatever the wall clock shows; once after a sleep."""
        plugin, port = self.started()
        kinds, start = [], self.clock.seconds()
        for now, wait in ((0.0, 10.0), (5.0, 5.0), (10.2, 9.8), (20.0, 10.0), (100.0, 0.0), (100.0, 10.0)):
            self.clock.advance(start + now - self.clock.seconds())
            self.assertAlmostEqual(plugin.wake(7.0), wait)
            kinds.append(plugin.counters.figures["polls"])
            self.answer(port, netlink(3, bytes(4)))
        self.assertEqual(kinds, [0, 0, 1, 2, 3, 4])

    def test_rows(self):
        """Each counter is a row; a part of the answer that is none is counted."""
        for zero, kind in ((True, 0x702), (False, 0x701)):
            plugin, port = self.started(pollinterval=1, zerocounter=zero)
            plugin.read_now()
            self.assertEqual(int.from_bytes(self.kernel.sent[-1][4:6], "little"), kind)
            self.clock.advance(3)
            counters = message(b"a\0", 1, 2), message(b"b\0", 3, 4), netlink(0x700, bytes(4))
            self.answer(port, *counters, netlink(3, bytes(4)))
            found = [(r["sum.name"], r["sum.pkts"], r["sum.bytes"], r["oob.time.sec"]) for r in self.rows]
            self.assertEqual(found, [(b"a", 1, 2, 1000), (b"b", 3, 4, 1000)])
            self.assertEqual(plugin.counters.errors, {"attribute missing": 1})
            self.assertEqual(plugin.counters.rows_received, 2)

    def test_slow_kernel(self):
        """While an answer is awaited, nothing more is asked."""
        plugin, port = self.started()
        plugin.read_now()
        plugin.read_now()
        self.assertEqual((plugin.counters.figures["polls"], plugin.counters.figures["polls_skipped"]), (1, 1))
        self.answer(port, netlink(3, bytes(4)))
        plugin.read_now()
        self.assertEqual(plugin.counters.figures["polls"], 2)

    def test_refused_later(self):
        """A refusal is counted each time and said once."""
        plugin, port = self.started()
        with patch.object(plugin, "log") as log:
            for _ in range(2):
                plugin.read_now()
                self.answer(port, acknowledgement(0, errno.EPERM))
        self.assertEqual(plugin.counters.errors, {"query": 2})
        self.assertEqual(log.error.call_count, 1)
        self.assertIn("CAP_NET_ADMIN", log.error.call_args.kwargs["remedy"])

    def test_refused_at_the_start(self):
        """Without privilege, or without counters in the kernel, the stack does not start."""
        for code, remedy in ((errno.EPERM, "CAP_NET_ADMIN"), (errno.EINVAL, "modprobe nfnetlink_acct")):
            self.assertIn(remedy, self.assertRaises(StartError, self.make([code]).open).remedy)
            self.assertTrue(self.kernel.closed)

    def test_stop(self):
        """A query that is under way ends quietly."""
        plugin, port = self.started()
        plugin.read_now()
        plugin.stop()
        self.assertEqual(plugin.counters.errors, {})
